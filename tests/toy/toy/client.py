"""Web-server side of the toy protocol, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateways import Limits, RemoteProtocolError
from gateways._model.dialects.cgi import parse_head
from gateways.events import BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, ResponseEnded


class ClientConnection:
    """One request on one connection."""

    first_id = 0
    reusable = False

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._buffer = b""
        self._head_seen = False

    def send_request(
        self,
        stream_id: int,
        environ: Mapping[str, str] | Iterable[tuple[str, str]],
        *,
        role: str = "responder",
        keep_connection: bool = False,
    ) -> bytes:
        known = dict(environ)
        path = known.get("SCRIPT_NAME", "") + known.get("PATH_INFO", "")
        return f"{known['REQUEST_METHOD']} {path} {known.get('CONTENT_LENGTH', '0')}\n".encode()

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        return data

    def end_body(self, stream_id: int) -> bytes:
        return b""

    def abort(self, stream_id: int) -> bytes:
        return b""

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        if not data:
            if self._head_seen:
                return [ResponseEnded(0)]
            return [ConnectionFailed(RemoteProtocolError("no answer", status=502))]
        if self._head_seen:
            return [BodyReceived(0, data)]
        self._buffer += data
        parsed = parse_head(self._buffer, 32_768)
        if parsed is None:
            return []
        status, reason, headers, length = parsed
        self._head_seen = True
        events: list[ClientEvent] = [HeadReceived(0, status, reason, headers)]
        return [*events, BodyReceived(0, self._buffer[length:])] if self._buffer[length:] else events
