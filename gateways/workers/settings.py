"""What is settled before the first worker is forked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from gateways._process.scoreboard import Scoreboard
from gateways._process.sockets import Sockets

if TYPE_CHECKING:
    from gateways import Application, Limits

__all__ = ["MissingGunicorn", "Plan", "Settings"]

#: A worker beats once a second: less than two of them would end those that only had no turn.
_SHORTEST_TIMEOUT = 2.0


class MissingGunicorn(ImportError):
    """gunicorn is not installed."""

    def __init__(self) -> None:
        super().__init__("workers take gunicorn: pip install 'gateways[workers]'")


def _least(least: float) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
        if value is not None and value < least:
            raise ValueError(f"{attribute.name} takes a number of {least:g} or more, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Settings:
    """How many workers there are, and when one is replaced.

    There are ``workers`` of them. ``timeout``: seconds that one may take to start up, and that its event loop may stand
    still, before it is killed; None for ever. After ``max_requests`` requests (and up to ``max_requests_jitter`` more,
    so that not all go at a time), or with more than ``max_memory`` bytes in use, a worker is replaced: by one that is
    ready before it goes.

    Raises ValueError for numbers that make no sense.
    """

    workers: int = attrs.field(default=2, validator=_least(1))
    timeout: float | None = attrs.field(default=30.0, validator=_least(_SHORTEST_TIMEOUT))
    max_requests: int | None = attrs.field(default=None, validator=_least(1))
    max_requests_jitter: int = attrs.field(default=0, validator=_least(0))
    max_memory: int | None = attrs.field(default=None, validator=_least(1))


class Companion(Protocol):
    """Another child of the arbiter, which is none of the workers: see :class:`gateways._process.monitor.Monitor`."""

    def check(self) -> None: ...
    def stop(self) -> None: ...
    def forget(self) -> None: ...


@attrs.frozen(kw_only=True)
class Plan:
    """All that a worker needs to know; it is forked with it."""

    #: Imports the application. Called in each worker, so that a new one has new code.
    load: Callable[[], Application]
    sockets: Sockets
    settings: Settings
    limits: Limits
    mount: str | None
    quirks: str | Iterable[str]
    board: Scoreboard
    monitor: Companion | None
    on_start: Callable[[list[str]], None]

    @property
    def goodbye(self) -> float | None:
        """Seconds after which a worker that was told to stop must be gone.

        Its requests get that long to finish, and then the application as long again to shut down.
        """
        grace = self.limits.shutdown_grace
        return None if grace is None else 2 * grace + (self.limits.goodbye_timeout or 0.0) + 1.0
