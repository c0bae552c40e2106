"""Web server side of FastCGI, without I/O: one connection to an application, any number of requests on it.

FastCGI 1.0 sections 3 to 6, from the other end. The application is not trusted: its head, its log and its records
are bounded, and a response that is not whole is a failure, never a short one that looks complete. What may be sent, and
what becomes of what is received, say the tables :data:`gateways.fastcgi.state.OUTPUT` and
:data:`~gateways.fastcgi.state.RESPONSE`; the deeds that they name are methods here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

from gateways._model.dialects.cgi import parse_head
from gateways._model.errors import LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
from gateways._model.limits import Limits
from gateways.events import (
    BodyReceived,
    ClientEvent,
    ConnectionFailed,
    HeadReceived,
    LogReceived,
    ResponseEnded,
    ResponseFailed,
)
from gateways.fastcgi import state, wire

#: Records of unknown types and unasked management answers before the application is given up.
MAX_IGNORED: Final = 1000

#: Why an application rejected a request (section 5.5), in words, and the HTTP status that says it to the client.
_REJECTIONS: Final[dict[int, tuple[str, int]]] = {
    wire.CANT_MPX_CONN: ("serves one request at a time on a connection (FCGI_CANT_MPX_CONN)", 503),
    wire.OVERLOADED: ("is overloaded (FCGI_OVERLOADED)", 503),
    wire.UNKNOWN_ROLE: ("does not offer this role (FCGI_UNKNOWN_ROLE)", 502),
}


class _Exchange:
    """What is known of one request on its way and of its response."""

    __slots__ = ("head", "log_room", "output", "output_steps", "response")

    def __init__(self, role: int, log_room: int) -> None:
        #: what we may send: the table, and the state it is in
        self.output_steps = _OUTPUT[role]
        self.output: str = "sent" if role == wire.AUTHORIZER else "stdin"
        #: the state of the response
        self.response: str = "head"
        #: the response head as far as it is in
        self.head = bytearray()
        self.log_room = log_room


class ClientConnection:
    """One FastCGI connection, web server side; see :class:`gateways.events.ClientConnection` for the interface.

    Errors: calls that the protocol does not allow raise LocalProtocolError. What the application does wrong with one
    request is its ResponseFailed; what leaves the meaning of the stream in doubt, and its end before the end of a
    request, is one ConnectionFailed. Their errors have the status to answer with: 503 for FCGI_OVERLOADED and
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
        return self._send(wire.STDIN, wire.STDIN, stream_id, data)

    def end_body(self, stream_id: int) -> bytes:
        """Bytes that end the request body; none for an authorizer, which has no such stream (section 6.3).

        Needed for an empty body as well: applications wait for it (haproxy issue 2499).
        """
        return self._send(-wire.STDIN, wire.STDIN, stream_id)

    def send_data(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the file for a filter, after the end of the body (section 6.4)."""
        return self._send(wire.DATA, wire.DATA, stream_id, data)

    def end_data(self, stream_id: int) -> bytes:
        """Bytes that end the file for a filter."""
        return self._send(-wire.DATA, wire.DATA, stream_id)

    def abort(self, stream_id: int) -> bytes:
        """Bytes that ask the application to stop (section 5.4).

        It still has to end the response: ResponseEnded then frees the id. What comes before that is dropped.
        """
        exchange = self._active(stream_id)
        deed, exchange.response = _RESPONSE[exchange.response][wire.ABORT_REQUEST]
        data: bytes = deed(self, stream_id)
        return data

    def get_values(self) -> bytes:
        """Bytes that ask what the application can do; its answer is found in :attr:`values`.

        Some never answer (libfcgi) or say 0 (php-cgi): wait a second at most and take 0 for unknown.
        """
        names = (wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS)
        return wire.encode_record(wire.GET_VALUES, wire.NULL_REQUEST_ID, wire.encode_pairs((n, "") for n in names))

    def _send(self, arrival: int, kind: int, stream_id: int, data: bytes = b"") -> bytes:
        exchange = self._active(stream_id)
        deed, to = exchange.output_steps[exchange.output][arrival]
        sent: bytes = deed(self, kind, stream_id, data)
        exchange.output = to
        return sent

    def _active(self, stream_id: int) -> _Exchange:
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            raise LocalProtocolError(f"request {stream_id} is not active: it never began, or has ended already")
        return exchange

    def _send_stream(self, kind: int, stream_id: int, data: bytes) -> bytes:
        return wire.encode_stream(kind, stream_id, data)

    def _end_stream(self, kind: int, stream_id: int, data: bytes) -> bytes:
        return wire.encode_record(kind, stream_id)

    def _leave_out(self, kind: int, stream_id: int, data: bytes) -> bytes:
        return b""

    def _forbid(self, kind: int, stream_id: int, data: bytes) -> NoReturn:
        raise LocalProtocolError(f"it is not the turn of {wire.type_name(kind)} in request {stream_id}")

    def _give_up(self, stream_id: int) -> bytes:
        return wire.encode_record(wire.ABORT_REQUEST, stream_id)

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
            self._close()
            self._events.append(ConnectionFailed(_as_bad_gateway(error)))
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
        if kind in _OF_A_RESPONSE:
            exchange = self._exchanges.get(stream_id) or _NOBODY
            # An end is one record, not a stream: it may be too short, but never empty.
            deed, to = _RESPONSE[exchange.response][kind if content or kind == wire.END_REQUEST else -kind]
            exchange.response = deed(self, kind, stream_id, content, exchange) or to
            if exchange.response == "over":
                self._free(stream_id)
        elif kind == wire.GET_VALUES_RESULT and stream_id == wire.NULL_REQUEST_ID:
            self._on_values(content)
        else:
            self._ignored += 1
            if self._ignored > MAX_IGNORED:
                raise RemoteProtocolError(f"more than {MAX_IGNORED} records that mean nothing")

    def _free(self, stream_id: int) -> None:
        exchange = self._exchanges.pop(stream_id)
        # Not every application drops what we would still have to send.
        self.reusable = self.reusable and exchange.output == "sent"

    def _on_values(self, content: bytes) -> None:
        known = (wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS)
        self.values.update((name, value) for name, value in wire.decode_pairs(content) if name in known)

    # --- Deeds: what the table of the response names ---

    def _read_head(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> str | None:
        head = exchange.head
        head += content
        try:
            parsed = parse_head(head, self._limits.max_head)
        except RemoteProtocolError as error:
            return self._fail(stream_id, error)
        if parsed is None:
            return None
        status, reason, headers, length = parsed
        self._events.append(HeadReceived(stream_id, status, reason, headers))
        if length < len(head):
            self._events.append(BodyReceived(stream_id, bytes(head[length:])))
        head.clear()
        return "body"

    def _miss_head(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        self._fail(stream_id, RemoteProtocolError(f"request {stream_id} ended without a whole response head"))

    def _take_body(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        self._events.append(BodyReceived(stream_id, content))

    def _refuse_more(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        self._fail(stream_id, RemoteProtocolError(f"STDOUT after the end of the STDOUT of request {stream_id}"))

    def _take_log(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        kept = content[: exchange.log_room]
        exchange.log_room -= len(kept)
        if kept:
            self._events.append(LogReceived(stream_id, kept))

    def _drop(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        pass

    def _complete(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        app_status, protocol_status = wire.decode_end(content)
        if not self._rejected(stream_id, protocol_status):
            self._events.append(ResponseEnded(stream_id, app_status))

    def _complete_unended(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        app_status, protocol_status = wire.decode_end(content)
        if self._rejected(stream_id, protocol_status):
            return
        if app_status:
            # How a response breaks that others share the connection with.
            broken = f"the response to request {stream_id} broke off (application status {app_status})"
            self._fail(stream_id, RemoteProtocolError(broken))
        else:
            # PHP never ends STDOUT (main/fastcgi.c, fcgi_flush).
            self._events.append(ResponseEnded(stream_id))

    def _complete_headless(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> None:
        _, protocol_status = wire.decode_end(content)
        if not self._rejected(stream_id, protocol_status):
            self._miss_head(kind, stream_id, content, exchange)

    def _rejected(self, stream_id: int, protocol_status: int) -> bool:
        if protocol_status == wire.REQUEST_COMPLETE:
            return False
        why, status = _REJECTIONS.get(protocol_status, (f"answers protocol status {protocol_status}", 502))
        self._fail(stream_id, RemoteProtocolError(f"the application {why}", status=status))
        return True

    def _fail(self, stream_id: int, error: RemoteProtocolError) -> str:
        self._events.append(ResponseFailed(stream_id, _as_bad_gateway(error)))
        return "failed"

    def _fail_connection(self, kind: int, stream_id: int, content: bytes, exchange: _Exchange) -> NoReturn:
        # Whoever reads on would give one client the response of another (mod_proxy_fcgi did).
        raise RemoteProtocolError(f"{wire.type_name(kind)} for request {stream_id}, which is not active")


def _as_bad_gateway(error: RemoteProtocolError) -> RemoteProtocolError:
    """What the readers of the wire call a bad request was a bad response here."""
    if error.status < 500:
        error.status = 502
    return error


def _checked(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """The pairs, none of which holds NUL; that they are text is for the encoder to say."""
    for name, value in pairs:
        for text in (name, value):
            if isinstance(text, str) and "\0" in text:
                raise LocalProtocolError(f"NUL in the meta-variable {name!r}")
        yield name, value


#: The types of records that are about one response.
_OF_A_RESPONSE: Final = frozenset((wire.STDOUT, wire.STDERR, wire.END_REQUEST))

#: Role -> state -> arrival -> (deed, next state).
_OUTPUT: Final = {role: state.bind(machine, ClientConnection) for role, machine in state.OUTPUT.items()}

#: State -> arrival -> (deed, next state).
_RESPONSE: Final = state.bind(state.RESPONSE, ClientConnection)

#: Stands for the exchange of an id that has none.
_NOBODY: Final = _Exchange(wire.AUTHORIZER, 0)
_NOBODY.response = "over"
