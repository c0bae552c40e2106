"""Application side of the toy protocol, without I/O."""

from __future__ import annotations

from collections.abc import Collection

from gateways import Limits, LocalProtocolError, RemoteProtocolError
from gateways.events import BodyEnded, BodyReceived, ConnectionFailed, Event, RequestAborted, RequestReceived


class ServerConnection:
    """One request on one connection."""

    name = "toy"

    def __init__(
        self, *, limits: Limits | None = None, roles: Collection[str] = ("responder",), strict: bool = False
    ) -> None:
        self.closing = False
        self.broken = False
        self.shared = False
        self._line = b""
        self._left: int | None = None
        self._answered = False

    @property
    def expecting(self) -> tuple[int, ...]:
        return (0,) if self._left is None and self._line else ()

    def receive_data(self, data: bytes) -> list[Event]:
        if not data:
            running = self._left is not None and not self._answered
            self.closing = True
            return [RequestAborted(0)] if running else []
        if self._left is not None:
            return self._body(data)
        self._line += data
        line, newline, rest = self._line.partition(b"\n")
        if not newline:
            return []
        try:
            method, path, length = line.decode().split(" ")
            self._left = int(length)
        except ValueError:
            self.closing = True
            return [ConnectionFailed(RemoteProtocolError(f"not a toy request: {line[:40]!r}"))]
        environ = (("REQUEST_METHOD", method), ("PATH_INFO", path), ("CONTENT_LENGTH", length))
        return [RequestReceived(0, "responder", environ, keep_connection=False), *self._body(rest)]

    def _body(self, data: bytes) -> list[Event]:
        if not self._left:
            return [BodyEnded(0)] if self._left == 0 and not data else []
        taken = data[: self._left]
        self._left -= len(taken)
        events: list[Event] = [BodyReceived(0, taken)] if taken else []
        return events if self._left else [*events, BodyEnded(0)]

    def send_head(self, stream_id: int, head: bytes) -> bytes:
        return self._send(head)

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        return self._send(data)

    def send_log(self, stream_id: int, text: str) -> bytes:
        return b""

    def _send(self, data: bytes) -> bytes:
        if self._answered:
            raise LocalProtocolError("the answer has ended")
        return data

    def end(self, stream_id: int, status: int = 0) -> bytes:
        self.closing = self._answered = True
        return b""

    def answer(self, stream_id: int, head: bytes, body: bytes, status: int = 0) -> bytes:
        return self._send(head + body) + self.end(stream_id)

    def fail(self, stream_id: int) -> bytes:
        self.broken = True
        return self.end(stream_id)

    def data_to_send(self) -> bytes:
        return b""
