"""A sink in memory, and short ways to make a request, run a handler and read its answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import attrs
import trio

from gateways import Handler, Limits, Request, Response
from gateways._model.dialects.cgi import parse_head
from gateways._model.environ import Rules
from gateways._model.handler import drive
from gateways._model.policy import Answer, respond

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def under_trio(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a trio of its own."""

    async def main() -> T:
        return await coroutine

    return trio.run(main)


#: The two ways in which a handler may be run: without an event loop, as in a CGI script, and under trio.
RUNNERS: tuple[Run, ...] = (drive, under_trio)


class MemorySink:
    """Keeps an answer. Counts as committed once more than ``hold`` bytes of body were written."""

    def __init__(self, hold: int = 0) -> None:
        self.committed = False
        self.head = b""
        self.writes: list[bytes] = []
        self.reports: list[BaseException] = []
        self._hold = hold

    async def start(self, answer: Answer) -> None:
        if self.committed:
            raise RuntimeError("a second head after the first has left")
        self.head = answer.head
        self.writes = []

    async def write(self, data: bytes) -> None:
        if not data:
            raise RuntimeError("an empty write")
        self.writes.append(data)
        self.committed = len(self.body) > self._hold

    def report(self, error: BaseException) -> None:
        self.reports.append(error)

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)


@attrs.frozen
class Exchange:
    """What a client sees of an answer, and what the log was told."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    head: bytes
    app_status: int
    reports: list[BaseException]

    def field(self, name: str) -> str | None:
        """The one value of a header field."""
        values = [value for field, value in self.fields if field.lower() == name.lower()]
        return values[0] if values else None


def make(
    *pairs: tuple[str, str], body: bytes = b"", protocol: str = "cgi", rules: Rules | None = None, **variables: str
) -> Request:
    """A Request with these meta-variables; REQUEST_METHOD is GET unless given."""
    sent = [("REQUEST_METHOD", "GET"), *pairs, *variables.items()]
    return Request(sent, body, protocol=protocol, rules=rules)


def ask(
    handler: Handler | Response,
    method: str = "GET",
    *,
    run: Run = drive,
    request: Request | None = None,
    sink: MemorySink | None = None,
    limits: Limits | None = None,
    allowed: Collection[str] = (),
) -> Exchange:
    """Have a request answered by a handler (a Response stands for one that gives it back)."""
    if isinstance(handler, Response):
        handler = answering(handler)
    if request is None:
        request = make(REQUEST_METHOD=method)
    if sink is None:
        sink = MemorySink()
    app_status = run(respond(handler, request, sink, limits=limits or Limits(), allowed=allowed))
    parsed = parse_head(sink.head, 1 << 20)
    assert parsed is not None
    status, reason, fields, consumed = parsed
    assert consumed == len(sink.head)
    return Exchange(status, reason, fields, sink.body, sink.head, app_status, sink.reports)


def answering(answer: object) -> Handler:
    """A handler that gives back whatever it is told to."""

    async def handler(request: Request) -> Response:
        return answer  # type: ignore[return-value]

    return handler


def raising(error: BaseException) -> Handler:
    """A handler that raises."""

    async def handler(request: Request) -> Response:
        raise error

    return handler
