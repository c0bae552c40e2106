"""Browser's side of HTTP/1.1, without I/O: the request of an environ goes out, an answer comes in. For development.

h11 reads and writes HTTP (RFC 9112). This is the other end of ``gateways/http/server.py``: with it a test, or a tool,
asks an application over HTTP in the same words as over a gateway protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import h11

from gateways._model.environ import quote
from gateways._model.errors import LocalProtocolError, RemoteProtocolError
from gateways._model.headers import HOP_BY_HOP, as_pairs
from gateways._model.limits import Limits
from gateways.events import BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, Pairs, ResponseEnded

_DONE = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


class ClientConnection:
    """One HTTP connection, seen from the client. See :class:`gateways.events.ClientConnection`.

    Every stream_id is 0, and requests follow each other on a connection that both sides keep.

    >>> connection = ClientConnection()
    >>> connection.send_request(0, {"REQUEST_METHOD": "GET", "PATH_INFO": "/a b", "HTTP_HOST": "localhost"})
    b'GET /a%20b HTTP/1.1\\r\\nhost: localhost\\r\\nConnection: close\\r\\n\\r\\n'
    """

    first_id = 0

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._http = h11.Connection(h11.CLIENT, (limits or Limits()).max_params_bytes)
        self._over = False  # nothing more comes of this connection

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        return not self._over and self._http.states == _DONE

    def __repr__(self) -> str:
        return f"<http.ClientConnection sending {self._http.our_state}, reading {self._http.their_state}>"

    # --- what goes out -----------------------------------------------------------------------------------------------

    def send_request(
        self,
        stream_id: int,
        environ: Mapping[str, str] | Iterable[tuple[str, str]],
        *,
        role: str = "responder",
        keep_connection: bool = False,
    ) -> bytes:
        """The request head: REQUEST_URI, or else the path and the query; ``HTTP_*``, CONTENT_TYPE, CONTENT_LENGTH.

        HTTP says nothing of the other variables. A body without CONTENT_LENGTH needs HTTP_TRANSFER_ENCODING
        "chunked". Raises LocalProtocolError for a request that is not allowed now and for one that is no HTTP.
        """
        self._check(stream_id)
        if role != "responder":
            raise LocalProtocolError(f"HTTP has no role {role!r}, only responder")
        if self.reusable:
            self._http.start_next_cycle()
        pairs = as_pairs(environ)
        known = dict(pairs)
        fields = list(_header_fields(pairs))
        if "HTTP_HOST" not in known:
            fields.insert(0, (b"host", _bytes(known.get("SERVER_NAME") or "localhost")))
        if not keep_connection:
            fields.append((b"Connection", b"close"))
        method = known.get("REQUEST_METHOD") or "GET"
        try:
            return self._send(h11.Request(method=_bytes(method), target=_bytes(_target(known)), headers=fields))
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from error

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """The data, framed as the head announced it. Raises LocalProtocolError for more than it announced."""
        self._check(stream_id)
        return self._send(h11.Data(data=data)) if data else b""

    def end_body(self, stream_id: int) -> bytes:
        """The end of the body. Raises LocalProtocolError for less than the head announced."""
        self._check(stream_id)
        return self._send(h11.EndOfMessage())

    def abort(self, stream_id: int) -> bytes:
        """Nothing: only closing the connection tells the server."""
        self._check(stream_id)
        return b""

    def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._http.send(event) or b""
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from error

    @staticmethod
    def _check(stream_id: int) -> None:
        if stream_id != 0:
            raise LocalProtocolError(f"the one request at a time of an HTTP connection is stream 0, not {stream_id}")

    # --- what comes in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the server, split anywhere; ``b""`` is the end of the stream.

        Never raises for them: what is no answer, or is cut short, is a ConnectionFailed with status 502.
        """
        if self._over:
            return []
        self._over = not data
        events: list[ClientEvent] = []
        try:
            self._http.receive_data(data)
            for event in self._events():
                events.append(event)  # what came before an error counts
        except h11.RemoteProtocolError as error:
            self._over = True
            events.append(ConnectionFailed(RemoteProtocolError(f"not an HTTP response: {error}", status=502)))
        return events

    def _events(self) -> Iterator[ClientEvent]:
        while True:
            match self._http.next_event():
                case h11.InformationalResponse():
                    pass
                case h11.Response() as response:
                    fields = tuple((_text(name), _text(value)) for name, value in response.headers.raw_items())
                    kept = tuple(field for field in fields if field[0].lower() not in HOP_BY_HOP)
                    yield HeadReceived(0, response.status_code, _text(response.reason), kept)
                case h11.Data() as piece:
                    yield BodyReceived(0, bytes(piece.data))
                case h11.EndOfMessage():
                    yield ResponseEnded(0)
                case _:
                    return


def _target(known: Mapping[str, str]) -> str:
    """The request target: as a client wrote it where REQUEST_URI has that."""
    if known.get("REQUEST_URI"):
        return known["REQUEST_URI"]
    path = quote(known.get("SCRIPT_NAME", "") + known.get("PATH_INFO", "")) or "/"
    query = known.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def _header_fields(pairs: Pairs) -> Iterator[tuple[bytes, bytes]]:
    """Variables as header fields; a name's "-" was "_" in the variable (RFC 3875 section 4.1.18)."""
    for name, value in pairs:
        if name.startswith("HTTP_"):
            yield _bytes(name[5:].lower().replace("_", "-")), _bytes(value)
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield _bytes(name.lower().replace("_", "-")), _bytes(value)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
