"""Application side of FastCGI, without I/O: one connection from a web server, any number of requests on it.

FastCGI 1.0 sections 3 to 6. Bytes go into :meth:`ServerConnection.receive_data` and come out as the events of
:mod:`gateways.events`; calls about a request give back the bytes to send.

How the input of a request goes on is a table. A request is always at one *stage*, which names the stream that its
role reads next (sections 6.2 to 6.4): a responder reads PARAMS and STDIN, a filter DATA as well and in this order,
an authorizer PARAMS alone. Then its input is *over*. A request that is refused or aborted is at the stage *dropped*
instead: what still arrives for it is legitimate, of any size, and of no use. ``_INPUT`` says what becomes of a record
at each stage.

A request is active from its FCGI_BEGIN_REQUEST until its FCGI_END_REQUEST is made (section 3.3); what comes for an id
that is not active is ignored, as the section says, but not without end. Where the specification is silent we do as
follows: FCGI_BEGIN_REQUEST for an active id, PARAMS after their end, and a filter's DATA before the end of its STDIN
close the connection; anything after the end of STDIN or DATA is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import attrs

from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways._model.limits import Limits
from gateways.events import (
    BodyEnded,
    BodyReceived,
    ConnectionFailed,
    DataEnded,
    DataReceived,
    Event,
    RequestAborted,
    RequestReceived,
    RequestRefused,
)
from gateways.fastcgi import wire

#: Records that mean nothing to us, between one request and the next, before the connection is given up. A web server
#: that gives requests up late sends a few (HAProxy does); only an attacker sends this many.
MAX_IGNORED: Final = 1000

#: Bytes of answers to management records that wait to be sent before the connection is given up: several times what
#: one read of 64 KiB can ask for, so only a driver that never sends, or a peer that never reads, gets here.
MAX_UNSENT: Final = 262_144

#: What ends a log text that was longer than ``max_stderr``.
CUT: Final = b"\n[cut here: over the limit of this request]\n"


@attrs.frozen
class Statistics:
    """How a connection is doing: requests begun, requests active now, requests rejected with FCGI_END_REQUEST,
    records ignored because they mean nothing."""

    requests: int
    active: int
    rejected: int
    ignored: int


class _Request:
    """What is known of one active request."""

    __slots__ = (
        "aborted",
        "early",
        "early_end",
        "keep",
        "last",
        "log",
        "log_room",
        "log_used",
        "params",
        "role",
        "stage",
    )

    def __init__(self, role: int, keep: bool, log_room: int) -> None:
        self.role = role
        #: FCGI_KEEP_CONN
        self.keep = keep
        #: a key of _INPUT
        self.stage = "params"
        #: RequestAborted was given out
        self.aborted = False
        #: the stream whose end ends the input
        self.last = wire.DATA if role == wire.FILTER else wire.STDIN
        #: the PARAMS stream so far; None once it is over the limit
        self.params: bytearray | None = bytearray()
        #: STDIN that came before the end of PARAMS, and whether it ended there
        self.early = bytearray()
        self.early_end = False
        #: log text that waits for a record it can travel with; how much more is welcome (below 0: it was cut);
        #: whether any was sent
        self.log = bytearray()
        self.log_room = log_room
        self.log_used = False


class ServerConnection:
    """One FastCGI connection, application side; see :class:`gateways.events.ServerConnection` for the interface.

    ``roles`` are those on offer. A request for another gets FCGI_UNKNOWN_ROLE, except that an authorizer's request is
    always delivered: there are web servers that take FCGI_UNKNOWN_ROLE for consent, so the code above must deny it.
    ``strict`` insists on an FCGI_BEGIN_REQUEST of exactly 8 bytes, on PARAMS before STDIN, and on record types that a
    web server may send. ``multiplex=False`` serves one request at a time (FCGI_CANT_MPX_CONN for the others).

    Errors: ``send_*``, ``end`` and ``fail`` raise LocalProtocolError for a request that cannot be answered: not
    begun, its meta-variables not complete (section 6.2), or ended.
    """

    name = "fastcgi"

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        roles: Collection[str] = ("responder",),
        strict: bool = False,
        multiplex: bool = True,
    ) -> None:
        if isinstance(roles, str) or not wire.ROLE_NUMBERS.keys() >= set(roles):
            raise LocalProtocolError(f"roles takes a collection of {', '.join(wire.ROLE_NUMBERS)}, not {roles!r}")
        self.closing = False
        self.broken = False
        self._limits = Limits() if limits is None else limits
        self._roles = {wire.ROLE_NUMBERS[role] for role in roles} | {wire.AUTHORIZER}
        self._strict = strict
        self._multiplex = multiplex
        self._scanner = wire.RecordScanner()
        self._requests: dict[int, _Request] = {}
        #: ids that ended before their input did -> the stream whose end is still to come
        self._late: dict[int, int] = {}
        self._events: list[Event] = []
        self._unsent = bytearray()
        #: nothing that comes in matters any more, and nothing must go out
        self._dead = False
        #: a request without FCGI_KEEP_CONN has ended: close as soon as the others have as well
        self._last_call = False
        #: records ignored since the latest request
        self._ignored_now = 0
        self._ignored = 0
        self._begun = 0
        self._rejected = 0

    def __repr__(self) -> str:
        state = "broken" if self.broken else "closing" if self.closing else "open"
        return f"<fastcgi.ServerConnection {state}, {len(self._requests)} active of {self._begun} requests>"

    @property
    def expecting(self) -> bool:
        """Whether a request has begun to arrive whose meta-variables are not all in."""
        if not self._requests:
            return self._scanner.partial
        return any(request.stage == "params" for request in self._requests.values())

    def statistics(self) -> Statistics:
        """Counts since the connection began."""
        return Statistics(
            requests=self._begun, active=len(self._requests), rejected=self._rejected, ignored=self._ignored
        )

    # --- Receiving ---

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the web server, split anywhere; ``b""`` is the end of the stream.

        Never raises for what they hold: a violation is one ConnectionFailed, after a RequestAborted for each request
        that was announced. Nothing is read once :attr:`closing` is True.
        """
        if self.closing:
            return []
        try:
            if data:
                for kind, stream_id, content, _ in self._scanner.scan(data):
                    _RECORDS.get(kind, ServerConnection._unexpected)(self, kind, stream_id, content)
                    if self.closing:
                        break
            else:
                self._give_up()
        except RemoteProtocolError as error:
            self._give_up()
            self._events.append(ConnectionFailed(error))
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """Answers the protocol itself made (sections 4 and 5.5), each handed out once."""
        data = bytes(self._unsent)
        self._unsent.clear()
        return data

    def _give_up(self) -> None:
        """Nobody waits for answers any more. Half an answer must not get an end that makes it look whole."""
        self._events += [
            RequestAborted(stream_id)
            for stream_id, request in self._requests.items()
            if request.stage != "params" and not request.aborted
        ]
        self.closing = self._dead = True

    def _ignore(self) -> None:
        self._ignored += 1
        self._ignored_now += 1
        if self._ignored_now > MAX_IGNORED:
            raise RemoteProtocolError(
                f"more than {MAX_IGNORED} records that belong to no request, before byte {self._scanner.offset}"
            )

    def _answer(self, record: bytes) -> None:
        if len(self._unsent) + len(record) > MAX_UNSENT:
            raise RemoteProtocolError(f"more than {MAX_UNSENT} bytes of answers that the web server does not read")
        self._unsent += record

    # --- Management records (section 4) ---

    def _on_get_values(self, kind: int, stream_id: int, content: bytes) -> None:
        if stream_id != wire.NULL_REQUEST_ID:
            self._ignore()
            return
        limits = self._limits
        known = {
            wire.MAX_CONNS: limits.max_connections,
            # HAProxy reads this as a number for each connection, the specification for the whole application.
            wire.MAX_REQS: limits.max_ids if self._multiplex else limits.max_connections,
            wire.MPXS_CONNS: int(self._multiplex),
        }
        asked = dict(wire.decode_pairs(content))  # each name once, however often it was asked for
        answer = wire.encode_pairs((name, str(known[name])) for name in asked if name in known)
        self._answer(wire.encode_record(wire.GET_VALUES_RESULT, wire.NULL_REQUEST_ID, answer))

    def _unexpected(self, kind: int, stream_id: int, content: bytes) -> None:
        """A type that the specification does not know, or that only an application sends."""
        if kind in wire.TYPES:
            if self._strict:
                raise RemoteProtocolError(f"{wire.type_name(kind)} from a web server")
            self._ignore()
        elif stream_id == wire.NULL_REQUEST_ID:
            self._answer(
                wire.encode_record(wire.UNKNOWN_TYPE, wire.NULL_REQUEST_ID, bytes((kind, 0, 0, 0, 0, 0, 0, 0)))
            )
        else:
            self._ignore()

    # --- The beginning and the early end of a request (sections 5.1, 5.4, 5.5) ---

    def _on_begin(self, kind: int, stream_id: int, content: bytes) -> None:
        role, flags = wire.decode_begin(content)
        if stream_id == wire.NULL_REQUEST_ID:
            raise RemoteProtocolError("BEGIN_REQUEST with id 0, which is for management records")
        if stream_id in self._requests:
            raise RemoteProtocolError(f"BEGIN_REQUEST for request {stream_id}, which is active")
        if self._strict and len(content) != 8:
            raise RemoteProtocolError(f"BEGIN_REQUEST of {len(content)} bytes instead of 8")
        self._late.pop(stream_id, None)
        keep = bool(flags & wire.KEEP_CONN)
        if self._last_call:
            # The web server was told by FCGI_KEEP_CONN, its own word, that nothing follows.
            self._late[stream_id] = wire.STDIN
            self._ignore()
        elif self._requests and not self._multiplex:
            self._reject(stream_id, role, keep, wire.CANT_MPX_CONN)
        elif len(self._requests) >= self._limits.max_ids:
            self._reject(stream_id, role, keep, wire.OVERLOADED)
        elif role not in self._roles:
            self._reject(stream_id, role, keep, wire.UNKNOWN_ROLE)
        else:
            self._begun += 1
            self._requests[stream_id] = _Request(role, keep, self._limits.max_stderr)

    def _reject(self, stream_id: int, role: int, keep: bool, status: int) -> None:
        """A rejected request has no streams to close (section 5.5), but what it sent meanwhile still arrives."""
        self._rejected += 1
        self._late[stream_id] = wire.DATA if role == wire.FILTER else wire.STDIN
        self._answer(wire.encode_end(stream_id, 0, status))
        self._close_unless(keep)

    def _on_abort(self, kind: int, stream_id: int, content: bytes) -> None:
        request = self._requests.get(stream_id)
        if request is None:
            self._on_stray(kind, stream_id, content)
        elif request.stage == "params":
            # Nobody above knows this request, so the answer is ours.
            self._forget(stream_id, request)
            self._answer(wire.encode_end(stream_id))
        elif not request.aborted:
            request.aborted = True
            if request.stage != "over":
                request.stage = "dropped"
            self._events.append(RequestAborted(stream_id))

    def _on_stray(self, kind: int, stream_id: int, content: bytes) -> None:
        """A record for an id that is not active (section 3.3). The body of an upload that was answered early still
        arrives, of any size: it is dropped, and neither counted nor punished."""
        last = self._late.get(stream_id)
        if last is None:
            self._ignore()
        elif kind == last and not content:
            del self._late[stream_id]

    def _forget(self, stream_id: int, request: _Request) -> None:
        """The id is free from now on."""
        del self._requests[stream_id]
        if request.stage != "over":
            self._late[stream_id] = request.last
        self._close_unless(request.keep)

    def _close_unless(self, keep: bool) -> None:
        """Without FCGI_KEEP_CONN the connection ends with the request, but not under requests beside it."""
        self._last_call = self._last_call or not keep
        if self._last_call and not self._requests:
            self.closing = True

    # --- The streams of a request (sections 5.2, 5.3, 6) ---

    def _on_stream(self, kind: int, stream_id: int, content: bytes) -> None:
        request = self._requests.get(stream_id)
        if request is None:
            self._on_stray(kind, stream_id, content)
        else:
            _INPUT[request.stage][kind](self, kind, stream_id, content, request)

    def _take_params(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if not content:
            self._end_params(stream_id, request)
        elif request.params is not None:
            # The lengths of the pairs count as well: what is limited is what is held.
            if len(request.params) + len(content) > self._limits.max_params_bytes:
                request.params = None
            else:
                request.params += content

    def _end_params(self, stream_id: int, request: _Request) -> None:
        self._ignored_now = 0
        role = wire.ROLES[request.role]
        try:
            environ = self._environ(request)
        except RemoteProtocolError as error:
            request.stage = "dropped"
            request.keep = request.keep and isinstance(error, LimitExceeded)
            self._events.append(RequestRefused(stream_id, role, error))
        else:
            self._events.append(RequestReceived(stream_id, role, environ, request.keep))
            self._begin_body(stream_id, request)
        request.params = None
        request.early.clear()

    def _environ(self, request: _Request) -> tuple[tuple[str, str], ...]:
        limits = self._limits
        if request.params is None:
            raise LimitExceeded(f"meta-variables of more than {limits.max_params_bytes} bytes", status=431)
        return tuple(wire.decode_pairs(bytes(request.params), limits.max_params))

    def _begin_body(self, stream_id: int, request: _Request) -> None:
        if request.role == wire.AUTHORIZER:
            # Section 6.3: no STDIN. lighttpd ends one all the same, Apache does not.
            request.stage = "dropped"
            self._events.append(BodyEnded(stream_id))
            return
        request.stage = "stdin"
        if request.early:
            self._events.append(BodyReceived(stream_id, bytes(request.early)))
        if request.early_end:
            self._end_body(stream_id, request)

    def _keep_early(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        """STDIN before the end of PARAMS: against the order of section 6.2, but harmless while it is little."""
        if self._strict:
            raise RemoteProtocolError(f"STDIN before the end of the PARAMS of request {stream_id}")
        if request.early_end or request.role == wire.AUTHORIZER:
            self._ignore()
        elif not content:
            request.early_end = True
        else:
            request.early += content
            if len(request.early) > self._limits.body_buffer:
                raise RemoteProtocolError(
                    f"more than {self._limits.body_buffer} bytes of STDIN before the end of the PARAMS "
                    f"of request {stream_id}"
                )

    def _take_stdin(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if content:
            self._events.append(BodyReceived(stream_id, content))
        else:
            self._end_body(stream_id, request)

    def _end_body(self, stream_id: int, request: _Request) -> None:
        request.stage = "data" if request.role == wire.FILTER else "over"
        self._events.append(BodyEnded(stream_id))

    def _take_data(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if content:
            self._events.append(DataReceived(stream_id, content))
        else:
            request.stage = "over"
            self._events.append(DataEnded(stream_id))

    def _early_data(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if request.role == wire.FILTER:
            raise RemoteProtocolError(f"DATA before the end of the STDIN of request {stream_id} (section 6.4)")
        self._ignore()

    def _drop(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if kind == request.last and not content:
            request.stage = "over"

    def _pass_over(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._ignore()

    def _late_params(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        # Elsewhere such a set replaced or joined the environment of a request that was under way.
        raise RemoteProtocolError(f"PARAMS after the end of the PARAMS of request {stream_id}")

    # --- Sending (sections 5.3, 5.5, 6.2) ---

    def send_head(self, stream_id: int, head: bytes) -> bytes:
        """Bytes that carry a whole CGI response head, blank line included, in one record where it fits.

        HAProxy 2.6.12 dies of a head that is split over records.
        """
        return self._send(stream_id, head)

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the response body; ``b""`` sends nothing and ends nothing."""
        return self._send(stream_id, data)

    def send_log(self, stream_id: int, text: str) -> bytes:
        """Take text for the web server's error log; always ``b""``.

        It travels with the next bytes of the response, because HAProxy 2.6.12 dies of an FCGI_STDERR record that
        comes alone. ``max_stderr`` bytes a request are kept, the rest is cut, visibly.
        """
        request = self._answerable(stream_id)
        data = text.encode("utf-8", "backslashreplace")
        if request.log_room >= 0:
            request.log += data[: request.log_room]
            request.log_room -= len(data)
            if request.log_room < 0:
                request.log += CUT
        return b""

    def end(self, stream_id: int, status: int = 0) -> bytes:
        """End a response that is complete, or a request that was aborted. ``status`` is 0 to 2**32 - 1.

        Closes both streams of the response (section 6.1: STDERR only if it was used) and frees the id.
        """
        request = self._answerable(stream_id)
        end = wire.encode_end(stream_id, status)
        log = self._take_log(stream_id, request)
        self._forget(stream_id, request)
        if self._dead:
            return b""
        streams_end = wire.encode_record(wire.STDOUT, stream_id)
        if request.log_used:
            streams_end += wire.encode_record(wire.STDERR, stream_id)
        return log + streams_end + end

    def fail(self, stream_id: int) -> bytes:
        """End a response that broke after its head, as visibly as possible.

        Alone on its connection: no FCGI_END_REQUEST, and :attr:`broken` asks for a reset. A unix socket has none, and
        nginx 1.22.1 without fastcgi_keep_conn takes its end for the end of the response; so a record out of place goes
        before it, for which nginx gives the response up. Beside others: FCGI_END_REQUEST with application status 1 and
        no end of STDOUT, for isolation beats signalling.
        """
        request = self._answerable(stream_id)
        self._forget(stream_id, request)
        if self._dead:
            return b""
        if self._requests:
            return self._take_log(stream_id, request) + wire.encode_end(stream_id, 1)
        self.closing = self.broken = self._dead = True
        return wire.encode_record(wire.UNKNOWN_TYPE, 0, bytes([wire.END_REQUEST]) + bytes(7))

    def _send(self, stream_id: int, data: bytes) -> bytes:
        request = self._answerable(stream_id)
        if self._dead or not data:
            return b""
        records = wire.encode_stream(wire.STDOUT, stream_id, data)
        return self._take_log(stream_id, request) + records if request.log else records

    def _take_log(self, stream_id: int, request: _Request) -> bytes:
        if not request.log:
            return b""
        request.log_used = True
        records = wire.encode_stream(wire.STDERR, stream_id, bytes(request.log))
        request.log.clear()
        return records

    def _answerable(self, stream_id: int) -> _Request:
        request = self._requests.get(stream_id)
        if request is None:
            raise LocalProtocolError(f"request {stream_id} is not active: it never began, or was ended already")
        if request.stage == "params":
            raise LocalProtocolError(f"request {stream_id} cannot be answered before the end of its meta-variables")
        return request


_OnRecord = Callable[[ServerConnection, int, int, bytes], None]
_OnInput = Callable[[ServerConnection, int, int, bytes, _Request], None]

_C = ServerConnection

#: Record type -> what takes it. All other types are unexpected.
_RECORDS: Final[dict[int, _OnRecord]] = {
    wire.BEGIN_REQUEST: _C._on_begin,
    wire.ABORT_REQUEST: _C._on_abort,
    wire.PARAMS: _C._on_stream,
    wire.STDIN: _C._on_stream,
    wire.DATA: _C._on_stream,
    wire.GET_VALUES: _C._on_get_values,
}

#: Stage of a request -> stream -> what becomes of its record.
_INPUT: Final[dict[str, dict[int, _OnInput]]] = {
    "params": {wire.PARAMS: _C._take_params, wire.STDIN: _C._keep_early, wire.DATA: _C._early_data},
    "stdin": {wire.PARAMS: _C._late_params, wire.STDIN: _C._take_stdin, wire.DATA: _C._early_data},
    "data": {wire.PARAMS: _C._late_params, wire.STDIN: _C._pass_over, wire.DATA: _C._take_data},
    "over": {wire.PARAMS: _C._late_params, wire.STDIN: _C._pass_over, wire.DATA: _C._pass_over},
    "dropped": {wire.PARAMS: _C._late_params, wire.STDIN: _C._drop, wire.DATA: _C._drop},
}
