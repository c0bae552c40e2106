"""Web server side of FastCGI, without I/O: one connection to an application, any number of requests on it.

FastCGI 1.0 sections 3 to 6, from the other end. The application is not trusted: its head, its log and its records
are bounded, and a response that is not whole is a failure, never a short one that looks complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateways._model.dialects.cgi import parse_head
from gateways._model.errors import LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
from gateways._model.limits import Limits
from gateways.events import BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, LogReceived, ResponseEnded
from gateways.fastcgi import wire

#: Records of unknown types and unasked management answers before the application is given up.
MAX_IGNORED: Final = 1000

#: Role -> the streams that a web server sends after PARAMS, in this order (sections 6.2 to 6.4).
_STREAMS: Final[dict[int, tuple[int, ...]]] = {
    wire.RESPONDER: (wire.STDIN,),
    wire.AUTHORIZER: (),
    wire.FILTER: (wire.STDIN, wire.DATA),
}

#: Why an application rejected a request (section 5.5), in words, and the HTTP status that says it to the client.
_REJECTIONS: Final[dict[int, tuple[str, int]]] = {
    wire.CANT_MPX_CONN: ("serves one request at a time on a connection (FCGI_CANT_MPX_CONN)", 503),
    wire.OVERLOADED: ("is overloaded (FCGI_OVERLOADED)", 503),
    wire.UNKNOWN_ROLE: ("does not offer this role (FCGI_UNKNOWN_ROLE)", 502),
}


class _Exchange:
    """What is known of one request on its way and of its response."""

    __slots__ = ("aborted", "head", "log_room", "sending", "stdout_over")

    def __init__(self, role: int, log_room: int) -> None:
        #: the streams that we have not ended yet, in their order
        self.sending = list(_STREAMS[role])
        #: the response head so far; None once it is parsed
        self.head: bytearray | None = bytearray()
        self.stdout_over = False
        self.log_room = log_room
        self.aborted = False


class ClientConnection:
    """One FastCGI connection, web server side; see :class:`gateways.events.ClientConnection` for the interface.

    Errors: calls that the protocol does not allow raise LocalProtocolError. What the application does wrong is one
    ConnectionFailed for the whole connection, whose error has the status to answer with: 503 for FCGI_OVERLOADED and
    FCGI_CANT_MPX_CONN, else 502.
    """

    # 0 is the connection's own (section 3.3).
    first_id = 1

    def __init__(self, *, limits: Limits | None = None) -> None:
        #: Whether another request can follow: each one so far kept the connection and ended cleanly.
        self.reusable = True
        #: What FCGI_GET_VALUES brought to light: FCGI_MAX_CONNS, FCGI_MAX_REQS, FCGI_MPXS_CONNS (section 4.1).
        self.values: dict[str, str] = {}
        self._limits = Limits() if limits is None else limits
        self._scanner = wire.RecordScanner()
        self._exchanges: dict[int, _Exchange] = {}
        self._events: list[ClientEvent] = []
        self._ignored = 0
        self._dead = False

    def __repr__(self) -> str:
        state = "closed" if self._dead else "reusable" if self.reusable else "open"
        return f"<fastcgi.ClientConnection {state}, {len(self._exchanges)} active>"

    # --- Sending ---

    def send_request(
        self,
        stream_id: int,
        environ: Mapping[str, str] | Iterable[tuple[str, str]],
        *,
        role: str = "responder",
        keep_connection: bool = False,
    ) -> bytes:
        """Bytes that open a request: FCGI_BEGIN_REQUEST and the whole PARAMS stream (sections 5.1, 5.2).

        Errors: LocalProtocolError for an id that is not 1 to 65535 or is active, an unknown role, and names or
        values that are no text or hold NUL (section 6.1).
        """
        if self._dead:
            raise LocalProtocolError("the connection is closed")
        if not 1 <= stream_id <= 0xFFFF or stream_id in self._exchanges:
            raise LocalProtocolError(f"a new request takes an id from 1 to 65535 that is not active, not {stream_id}")
        if role not in wire.ROLE_NUMBERS:
            raise LocalProtocolError(f"the roles are {', '.join(wire.ROLE_NUMBERS)}, not {role!r}")
        params = wire.encode_pairs(_checked(as_pairs(environ)))
        self.reusable = self.reusable and keep_connection
        number = wire.ROLE_NUMBERS[role]
        self._exchanges[stream_id] = _Exchange(number, self._limits.max_stderr)
        return (
            wire.encode_begin(stream_id, number, wire.KEEP_CONN if keep_connection else 0)
            + wire.encode_stream(wire.PARAMS, stream_id, params)
            + wire.encode_record(wire.PARAMS, stream_id)
        )

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the request body; ``b""`` sends nothing and ends nothing."""
        return self._send(wire.STDIN, stream_id, data)

    def end_body(self, stream_id: int) -> bytes:
        """Bytes that end the request body; none for an authorizer, which has no such stream (section 6.3).

        Needed for an empty body as well: applications wait for it (haproxy issue 2499).
        """
        return self._end(wire.STDIN, stream_id)

    def send_data(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the file for a filter, after the end of the body (section 6.4)."""
        return self._send(wire.DATA, stream_id, data)

    def end_data(self, stream_id: int) -> bytes:
        """Bytes that end the file for a filter."""
        return self._end(wire.DATA, stream_id)

    def abort(self, stream_id: int) -> bytes:
        """Bytes that ask the application to stop (section 5.4). It still has to end the response, whole or not."""
        self._active(stream_id).aborted = True
        return wire.encode_record(wire.ABORT_REQUEST, stream_id)

    def get_values(self) -> bytes:
        """Bytes that ask what the application can do; its answer is found in :attr:`values`.

        Some never answer (libfcgi) or say 0 (php-cgi): wait a second at most and take 0 for unknown.
        """
        names = (wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS)
        return wire.encode_record(wire.GET_VALUES, wire.NULL_REQUEST_ID, wire.encode_pairs((n, "") for n in names))

    def _send(self, kind: int, stream_id: int, data: bytes) -> bytes:
        self._check_turn(kind, stream_id)
        return wire.encode_stream(kind, stream_id, data)

    def _end(self, kind: int, stream_id: int) -> bytes:
        exchange = self._active(stream_id)
        if kind not in exchange.sending:
            return b""
        self._check_turn(kind, stream_id)
        exchange.sending.remove(kind)
        return wire.encode_record(kind, stream_id)

    def _check_turn(self, kind: int, stream_id: int) -> None:
        if self._active(stream_id).sending[:1] != [kind]:
            raise LocalProtocolError(f"it is not the turn of {wire.type_name(kind)} in request {stream_id}")

    def _active(self, stream_id: int) -> _Exchange:
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            raise LocalProtocolError(f"request {stream_id} is not active: it never began, or has ended already")
        return exchange

    # --- Receiving ---

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the application, split anywhere; ``b""`` is the end of the stream.

        Never raises for what they hold. An end before FCGI_END_REQUEST is a ConnectionFailed: what came before it
        may be half a response.
        """
        if self._dead:
            return []
        try:
            if data:
                for kind, stream_id, content, _ in self._scanner.scan(data):
                    self._take(kind, stream_id, content)
            else:
                self._end_of_stream()
        except RemoteProtocolError as error:
            if error.status < 500:
                error.status = 502  # what the readers of the wire call a bad request was a bad response here
            self._close()
            self._events.append(ConnectionFailed(error))
        events, self._events = self._events, []
        return events

    def _close(self) -> None:
        self._dead = True
        self.reusable = False
        self._exchanges.clear()

    def _end_of_stream(self) -> None:
        if self._exchanges:
            ids = ", ".join(str(stream_id) for stream_id in self._exchanges)
            raise RemoteProtocolError(f"the application closed the connection before the end of {ids}")
        self._close()

    def _take(self, kind: int, stream_id: int, content: bytes) -> None:
        handler = _RECORDS.get(kind)
        if handler is not None:
            exchange = self._exchanges.get(stream_id)
            if exchange is None:
                # Whoever reads on would give one client the response of another (mod_proxy_fcgi did).
                raise RemoteProtocolError(f"{wire.type_name(kind)} for request {stream_id}, which is not active")
            handler(self, stream_id, content, exchange)
        elif kind == wire.GET_VALUES_RESULT and stream_id == wire.NULL_REQUEST_ID:
            self._on_values(content)
        else:
            self._ignored += 1
            if self._ignored > MAX_IGNORED:
                raise RemoteProtocolError(f"more than {MAX_IGNORED} records that mean nothing")

    def _on_values(self, content: bytes) -> None:
        known = (wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS)
        self.values.update((name, value) for name, value in wire.decode_pairs(content) if name in known)

    def _on_stdout(self, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        if not content:
            exchange.stdout_over = True
        elif exchange.stdout_over:
            raise RemoteProtocolError(f"STDOUT after the end of the STDOUT of request {stream_id}")
        elif exchange.head is None:
            self._events.append(BodyReceived(stream_id, content))
        else:
            self._read_head(stream_id, content, exchange, exchange.head)

    def _read_head(self, stream_id: int, content: bytes, exchange: _Exchange, head: bytearray) -> None:
        head += content
        parsed = parse_head(head, self._limits.max_head)
        if parsed is None:
            return
        status, reason, headers, length = parsed
        exchange.head = None
        self._events.append(HeadReceived(stream_id, status, reason, headers))
        if length < len(head):
            self._events.append(BodyReceived(stream_id, bytes(head[length:])))

    def _on_stderr(self, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        kept = content[: exchange.log_room]
        exchange.log_room -= len(kept)
        if kept:
            self._events.append(LogReceived(stream_id, kept))

    def _on_end(self, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        app_status, protocol_status = wire.decode_end(content)
        if protocol_status != wire.REQUEST_COMPLETE:
            why, status = _REJECTIONS.get(protocol_status, (f"answers protocol status {protocol_status}", 502))
            raise RemoteProtocolError(f"the application {why}", status=status)
        if not exchange.aborted:
            if exchange.head is not None:
                raise RemoteProtocolError(f"request {stream_id} ended without a whole response head")
            if not exchange.stdout_over and app_status:
                # PHP never ends STDOUT (main/fastcgi.c, fcgi_flush), so alone this says nothing; with an
                # application status it is how a response breaks that others share the connection with.
                raise RemoteProtocolError(
                    f"the response to request {stream_id} broke off (application status {app_status})"
                )
        del self._exchanges[stream_id]
        # Not every application drops what we would still have to send.
        self.reusable = self.reusable and not exchange.sending
        self._events.append(ResponseEnded(stream_id, app_status))


def _checked(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """The pairs, none of which holds NUL; that they are text is for the encoder to say."""
    for name, value in pairs:
        for text in (name, value):
            if isinstance(text, str) and "\0" in text:
                raise LocalProtocolError(f"NUL in the meta-variable {name!r}")
        yield name, value


_OnRecord = Callable[[ClientConnection, int, bytes, _Exchange], None]

#: Record type -> what takes it, for a request that is active.
_RECORDS: Final[dict[int, _OnRecord]] = {
    wire.STDOUT: ClientConnection._on_stdout,
    wire.STDERR: ClientConnection._on_stderr,
    wire.END_REQUEST: ClientConnection._on_end,
}
