"""A listener that speaks several protocols: each connection's first byte tells which.

For inherited sockets that nobody has named (a web server's fd 0, a systemd socket without FileDescriptorName).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from gateways._model.errors import RemoteProtocolError
from gateways._model.limits import Limits
from gateways._net import serving
from gateways._net.stream import AnyStream
from gateways.events import ConnectionFailed, Event, ServerConnection

__all__ = ["any_of", "serve_any"]


class ChoosingConnection:
    """A :class:`gateways.events.ServerConnection` that becomes another one with its first byte."""

    def __init__(self, protocols: Sequence[serving.Protocol], stream: AnyStream, **settings: Any) -> None:
        self._protocols = protocols
        self._stream = stream
        self._settings = settings
        self._chosen: ServerConnection | None = None
        self._refused = False

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the peer. A first byte that no protocol begins with is a ConnectionFailed."""
        if self._refused:
            return []
        if self._chosen is None:
            found = next((each for each in self._protocols if data[:1] and data[0] in each.first_bytes), None)
            if found is None:
                self._refused = True
                return [ConnectionFailed(RemoteProtocolError(self._complaint(data)))] if data else []
            self._chosen = found.connect(self._stream, **self._settings)
        return self._chosen.receive_data(data)

    def _complaint(self, data: bytes) -> str:
        names = " nor ".join(each.name for each in self._protocols)
        return f"neither {names} begins with the byte {data[0]:#04x}: {data[:20]!r}"

    @property
    def name(self) -> str:
        """The protocol that was chosen, "unknown" before."""
        return "unknown" if self._chosen is None else self._chosen.name

    @property
    def closing(self) -> bool:
        """As chosen; True once nothing could be."""
        return self._refused if self._chosen is None else self._chosen.closing

    @property
    def broken(self) -> bool:
        """As chosen."""
        return self._chosen is not None and self._chosen.broken

    @property
    def shared(self) -> bool:
        """As chosen."""
        return self._chosen is not None and self._chosen.shared

    @property
    def expecting(self) -> Collection[int]:
        """As chosen."""
        return () if self._chosen is None else self._chosen.expecting

    def data_to_send(self) -> bytes:
        """As chosen."""
        return b"" if self._chosen is None else self._chosen.data_to_send()

    def __getattr__(self, name: str) -> Any:
        # send_head and its kin, which nobody calls before there is a request.
        return getattr(self._chosen, name)


def any_of(protocols: Sequence[serving.Protocol]) -> serving.Protocol:
    """One protocol made of several, each of which tells its first bytes."""
    known = tuple(each for each in protocols if each.first_bytes)

    def connect(stream: AnyStream, *, limits: Limits, roles: Sequence[str], strict: bool) -> ServerConnection:
        connection: Any = ChoosingConnection(known, stream, limits=limits, roles=roles, strict=strict)
        return connection  # type: ignore[no-any-return]

    return serving.Protocol("any", connect)


def serve_any(protocols: Sequence[serving.Protocol]) -> partial[Any]:
    """The ``serve`` of a listener on which each connection chooses among these protocols."""
    return partial(serving.serve, any_of(protocols))
