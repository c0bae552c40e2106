"""Application side of FastCGI, without I/O: one connection from a web server, any number of requests on it.

FastCGI 1.0 sections 3 to 6. Bytes go into :meth:`ServerConnection.receive_data` and come out as the events of
:mod:`gateways.events`; calls about a request give back the bytes to send.

What becomes of a record depends on the state of its request and on nothing else: :data:`gateways.fastcgi.state.INPUT`
has a table for each role, and the deeds that it names are methods here. A request is active from its
FCGI_BEGIN_REQUEST until its FCGI_END_REQUEST is made (section 3.3); what comes for an id that is not active is ignored,
as the section says, but not without end. Where the specification is silent we do as follows: FCGI_BEGIN_REQUEST for an
active id, PARAMS after their end, and a filter's DATA before the end of its STDIN close the connection; anything after
the end of STDIN or DATA is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, NoReturn

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
    Variables,
)
from gateways.fastcgi import state, wire

#: Records that mean nothing to us, between one request and the next, before the connection is given up. A web server
#: that gives requests up late sends a few (HAProxy does); only an attacker sends this many.
MAX_IGNORED: Final = 1000

#: Requests of a connection that have ended before their input did, of which that is remembered: the latest.
MAX_LATE: Final = 1000

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
    """What is known of one request. What most requests never change is not set for each."""

    #: RequestAborted was given out
    aborted = False
    #: the PARAMS stream so far; None once it is over the limit, or of no more use
    params: bytearray | None = None
    #: STDIN that came before the end of PARAMS, and whether it ended there
    early: bytes | bytearray = b""
    early_end = False
    #: log text that waits for a record it can travel with; whether any was sent
    log: bytes | bytearray = b""
    log_used = False

    def __init__(self, role: int, keep: bool, log_room: int, stage: str = "inactive") -> None:
        self.role = role
        #: FCGI_KEEP_CONN
        self.keep = keep
        #: the table of its role, and the state it is in. A role that is unknown is rejected, and has a body like most.
        self.steps = _STEPS[role if role in _STEPS else wire.RESPONDER]
        self.stage = stage
        #: how much more log text is welcome; below 0: it was cut
        self.log_room = log_room


class ServerConnection:
    """One FastCGI connection, application side; see :class:`gateways.events.ServerConnection` for the interface.

    ``roles`` are those on offer. A request for another gets FCGI_UNKNOWN_ROLE, except that an authorizer's request is
    always delivered: there are web servers that take FCGI_UNKNOWN_ROLE for consent, so the code above must deny it.
    ``strict`` insists on an FCGI_BEGIN_REQUEST of exactly 8 bytes, on PARAMS before STDIN, and on record types that a
    web server may send. ``Limits(max_ids=1)`` serves one request at a time (FCGI_CANT_MPX_CONN for the others); above
    any greater number there is FCGI_OVERLOADED.

    Errors: ``send_*``, ``end`` and ``fail`` raise LocalProtocolError for a request that cannot be answered: not
    begun, its meta-variables not complete (section 6.2), or ended.
    """

    __slots__ = (
        "_begun",
        "_dead",
        "_events",
        "_farewell",
        "_ignored",
        "_ignored_now",
        "_in_params",
        "_last_call",
        "_late",
        "_limits",
        "_multiplex",
        "_rejected",
        "_requests",
        "_retiring",
        "_roles",
        "_scanner",
        "_strict",
        "_unsent",
        "broken",
        "closing",
        "shared",
    )

    name = "fastcgi"

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        roles: Collection[str] = ("responder",),
        strict: bool = False,
    ) -> None:
        if isinstance(roles, str) or not wire.ROLE_NUMBERS.keys() >= set(roles):
            raise LocalProtocolError(f"roles takes a collection of {', '.join(wire.ROLE_NUMBERS)}, not {roles!r}")
        self.closing = False
        self.broken = False
        self.shared = False
        self._limits = Limits() if limits is None else limits
        self._roles = {wire.ROLE_NUMBERS[role] for role in roles} | {wire.AUTHORIZER}
        self._strict = strict
        self._multiplex = self._limits.max_ids > 1
        self._scanner = wire.RecordScanner()
        self._requests: dict[int, _Request] = {}
        #: the ids of those whose meta-variables are not all in
        self._in_params: set[int] = set()
        #: those that ended before their input did, the latest last
        self._late: dict[int, _Request] = {}
        self._events: list[Event] = []
        self._unsent = bytearray()
        #: nothing that comes in matters any more, and nothing must go out
        self._dead = False
        #: a request without FCGI_KEEP_CONN has ended: close as soon as the others have as well
        self._last_call = False
        #: no requests are wanted beyond those that are there
        self._retiring = False
        #: the web server makes sense of that
        self._farewell = False
        #: records ignored since the latest request
        self._ignored_now = 0
        self._ignored = 0
        self._begun = 0
        self._rejected = 0

    def __repr__(self) -> str:
        state = "broken" if self.broken else "closing" if self.closing else "open"
        return f"<fastcgi.ServerConnection {state}, {len(self._requests)} active of {self._begun} requests>"

    @property
    def expecting(self) -> Collection[int]:
        """The ids of the requests whose meta-variables are not all in; 0 for bytes that tell no id yet."""
        if self._in_params or self._requests or not self._scanner.partial:
            return self._in_params
        return (wire.NULL_REQUEST_ID,)

    def statistics(self) -> Statistics:
        """Counts since the connection began."""
        return Statistics(
            requests=self._begun, active=len(self._requests), rejected=self._rejected, ignored=self._ignored
        )

    def retire(self, environ: Mapping[str, str] | None = None) -> None:
        """End the connection with the end of the last request that is on it; another may still begin before that.

        FastCGI has no word for this. A web server that keeps connections may hand one the next request before it has
        noticed that it is closed. So the answer to a question that it may have asked follows the last
        FCGI_END_REQUEST in the same write: no more requests are accepted at a time than none. nginx 1.22 does not
        keep a connection on which there is more to read, HAProxy 2.6 begins no more requests on it. Who multiplexes
        is told at once. Apache 2.4 takes what it left unread for a sign of life, so only those who are known to mind
        it are told, by the SERVER_SOFTWARE of a request.
        """
        if environ is not None:
            self._farewell = environ.get("SERVER_SOFTWARE", "nginx").lower().startswith(_HEEDED_BY)
        if not self._retiring:
            self._retiring = True
            if self.shared and not self.closing:
                self._unsent += _FAREWELL

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
                if not (self._requests or self._scanner.partial):
                    data = self._take_usual(data)
                if data:
                    self._take_records(data)
            else:
                self._give_up()
        except RemoteProtocolError as error:
            self._give_up()
            self._events.append(ConnectionFailed(error))
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """Answers the protocol itself made (sections 4 and 5.5), each handed out once."""
        if not self._unsent:
            return b""
        data = bytes(self._unsent)
        self._unsent.clear()
        return data

    def _take_records(self, data: bytes) -> None:
        for kind, stream_id, content, _ in self._scanner.scan(data):
            _RECORDS.get(kind, ServerConnection._unexpected)(self, kind, stream_id, content)
            if self.closing:
                break

    def _take_usual(self, data: bytes) -> bytes:
        """Take the beginning of ``data`` off it where that is what web servers usually send: a request to a responder,
        alone on the connection, with nothing out of the ordinary, and the body if that is small or none.

        It saves most of the time that the tables take. They say the same, record by record; whatever is not quite as
        usual is left to them.
        """
        found = wire.read_request(data)
        if found is None:
            return data
        stream_id, role, flags, block, stop = found
        limits = self._limits
        if role != wire.RESPONDER or role not in self._roles or stream_id in self._late or self._last_call:
            return data
        environ = wire.read_plain(block, limits.max_params) if len(block) <= limits.max_params_bytes else None
        if environ is None:
            return data
        keep = flags & wire.KEEP_CONN != 0
        rest = data[stop:]
        self._events.append(RequestReceived(stream_id, "responder", environ, keep))
        self._begun += 1
        self._ignored_now = 0
        if rest != _NO_BODY.get(stream_id):
            body = wire.read_body(rest, stream_id)
            if body is None:
                self._requests[stream_id] = _Request(role, keep, limits.max_stderr, "stdin")
                self._scanner.offset += stop
                return rest
            self._events.append(BodyReceived(stream_id, body))
        self._requests[stream_id] = _Request(role, keep, limits.max_stderr, "over")
        self._events.append(_BODY_ENDED.get(stream_id) or BodyEnded(stream_id))
        self._scanner.offset += len(data)
        return b""

    def _give_up(self) -> None:
        """Nobody waits for answers any more. Half an answer must not get an end that makes it look whole."""
        self._events += [
            RequestAborted(stream_id)
            for stream_id, request in self._requests.items()
            if request.stage != "params" and not request.aborted
        ]
        self.closing = self._dead = True

    def _count_ignored(self) -> None:
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
            self._count_ignored()
            return
        limits = self._limits
        known = {
            wire.MAX_CONNS: limits.max_connections,
            # HAProxy reads this as a number for each connection, the specification for the whole application.
            wire.MAX_REQS: limits.max_ids if self._multiplex else limits.max_connections,
            wire.MPXS_CONNS: int(self._multiplex),
        }
        asked = dict(wire.decode_pairs(content))  # each name once, however often it was asked for
        # Whoever asks this makes use of the answer: HAProxy with ``option mpxs-conns``.
        self.shared = self.shared or (self._multiplex and wire.MPXS_CONNS in asked)
        answer = wire.encode_pairs((name, str(known[name])) for name in asked if name in known)
        self._answer(wire.encode_record(wire.GET_VALUES_RESULT, wire.NULL_REQUEST_ID, answer))

    def _unexpected(self, kind: int, stream_id: int, content: bytes) -> None:
        """A type that the specification does not know, or that only an application sends."""
        if kind in wire.TYPES:
            if self._strict:
                raise RemoteProtocolError(f"{wire.type_name(kind)} from a web server")
            self._count_ignored()
        elif stream_id == wire.NULL_REQUEST_ID:
            self._answer(
                wire.encode_record(wire.UNKNOWN_TYPE, wire.NULL_REQUEST_ID, bytes((kind, 0, 0, 0, 0, 0, 0, 0)))
            )
        else:
            self._count_ignored()

    # --- The records of a request (sections 5.1 to 5.4): its table says what becomes of them ---

    def _on_begin(self, kind: int, stream_id: int, content: bytes) -> None:
        role, flags = wire.decode_begin(content)
        if stream_id == wire.NULL_REQUEST_ID:
            raise RemoteProtocolError("BEGIN_REQUEST with id 0, which is for management records")
        if self._strict and len(content) != 8:
            raise RemoteProtocolError(f"BEGIN_REQUEST of {len(content)} bytes instead of 8")
        before = self._find(stream_id)
        deed, to = before.steps[before.stage][kind]
        request = _Request(role, bool(flags & wire.KEEP_CONN), self._limits.max_stderr)
        request.stage = deed(self, kind, stream_id, content, request) or to

    def _on_abort(self, kind: int, stream_id: int, content: bytes) -> None:
        request = self._find(stream_id)
        deed, to = request.steps[request.stage][kind]
        request.stage = deed(self, kind, stream_id, content, request) or to

    def _on_stream(self, kind: int, stream_id: int, content: bytes) -> None:
        request = self._find(stream_id)
        deed, to = request.steps[request.stage][kind if content else -kind]
        request.stage = deed(self, kind, stream_id, content, request) or to

    def _find(self, stream_id: int) -> _Request:
        return self._requests.get(stream_id) or self._late.get(stream_id) or _NOBODY

    # --- Deeds: what the tables name. Each gives the next state where it chooses one itself ---

    def _begin(self, kind: int, stream_id: int, content: bytes, request: _Request) -> str | None:
        self._late.pop(stream_id, None)
        if self._last_call:
            # The web server was told by FCGI_KEEP_CONN, its own word, that nothing follows.
            self._count_ignored()
            return self._remember(stream_id, request)
        if self._requests and not self._multiplex:
            return self._reject(stream_id, request, wire.CANT_MPX_CONN)
        if len(self._requests) >= self._limits.max_ids:
            return self._reject(stream_id, request, wire.OVERLOADED)
        if request.role not in self._roles:
            return self._reject(stream_id, request, wire.UNKNOWN_ROLE)
        request.params = bytearray()
        self._begun += 1
        self._requests[stream_id] = request
        self._in_params.add(stream_id)
        return None

    def _reject(self, stream_id: int, request: _Request, status: int) -> str:
        """A rejected request has no streams to close (section 5.5), but what it sent meanwhile still arrives."""
        self._rejected += 1
        denial = b""
        if request.role == wire.AUTHORIZER:
            # lighttpd 1.4.69 takes an end without an answer for consent.
            denial = wire.encode_record(wire.STDOUT, stream_id, _DENIAL) + wire.encode_record(wire.STDOUT, stream_id)
        self._answer(denial + wire.encode_end(stream_id, 0, status))
        self._close_unless(request.keep)
        return self._remember(stream_id, request)

    def _remember(self, stream_id: int, request: _Request) -> str:
        self._late[stream_id] = request
        if len(self._late) > MAX_LATE:
            del self._late[next(iter(self._late))]
        return "late"

    def _close_unless(self, keep: bool) -> None:
        """Without FCGI_KEEP_CONN the connection ends with the request, but not under requests beside it."""
        self._last_call = self._last_call or not keep
        if (self._last_call or self._retiring) and not self._requests:
            self.closing = True

    def _take_params(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if request.params is not None:
            # The lengths of the pairs count as well: what is limited is what is held.
            if len(request.params) + len(content) > self._limits.max_params_bytes:
                request.params = None
            else:
                request.params += content

    def _end_params(self, kind: int, stream_id: int, content: bytes, request: _Request) -> str | None:
        self._ignored_now = 0
        self._in_params.discard(stream_id)
        role = wire.ROLES[request.role]
        following: str | None = "dropped"
        try:
            environ = self._environ(request)
        except RemoteProtocolError as error:
            request.keep = request.keep and isinstance(error, LimitExceeded)
            self._events.append(RequestRefused(stream_id, role, error))
        else:
            self._events.append(RequestReceived(stream_id, role, environ, request.keep))
            following = self._begin_body(stream_id, request)
        request.params = None
        request.early = b""
        return following

    def _environ(self, request: _Request) -> Variables:
        limits = self._limits
        if request.params is None:
            raise LimitExceeded(f"meta-variables of more than {limits.max_params_bytes} bytes", status=431)
        pairs = wire.decode_pairs(bytes(request.params), limits.max_params)
        environ = dict(pairs)
        return environ if len(environ) == len(pairs) else tuple(pairs)

    def _begin_body(self, stream_id: int, request: _Request) -> str | None:
        """Hand on what came early. Gives the state that follows, where that is not the usual one."""
        if request.role == wire.AUTHORIZER:
            self._events.append(BodyEnded(stream_id))
            return None
        if request.early:
            self._events.append(BodyReceived(stream_id, bytes(request.early)))
        if not request.early_end:
            return None
        deed, to = request.steps["stdin"][-wire.STDIN]
        deed(self, wire.STDIN, stream_id, b"", request)
        return to

    def _keep_early(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._check_early(stream_id, request)
        if request.early_end:
            self._count_ignored()
        elif len(request.early) + len(content) > self._limits.body_buffer:
            raise RemoteProtocolError(
                f"more than {self._limits.body_buffer} bytes of STDIN before the end of the PARAMS "
                f"of request {stream_id}"
            )
        else:
            request.early = request.early or bytearray()
            request.early += content

    def _end_early(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._check_early(stream_id, request)
        if request.early_end:
            self._count_ignored()
        request.early_end = True

    def _check_early(self, stream_id: int, request: _Request) -> None:
        if self._strict:
            raise RemoteProtocolError(f"STDIN before the end of the PARAMS of request {stream_id}")

    def _take_body(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._events.append(BodyReceived(stream_id, content))

    def _end_body(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._events.append(BodyEnded(stream_id))

    def _take_data(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._events.append(DataReceived(stream_id, content))

    def _end_data(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._events.append(DataEnded(stream_id))

    def _abort(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        if not request.aborted:
            request.aborted = True
            self._events.append(RequestAborted(stream_id))

    def _answer_abort(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        del self._requests[stream_id]
        self._in_params.discard(stream_id)
        self._remember(stream_id, request)
        self._answer(wire.encode_end(stream_id))
        self._close_unless(request.keep)

    def _ended(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        del self._requests[stream_id]
        self._close_unless(request.keep)

    def _drop(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        # The body of an upload that was answered early still arrives, of any size: neither counted nor punished.
        pass

    def _forget(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        del self._late[stream_id]

    def _ignore(self, kind: int, stream_id: int, content: bytes, request: _Request) -> None:
        self._count_ignored()

    def _close(self, kind: int, stream_id: int, content: bytes, request: _Request) -> NoReturn:
        raise RemoteProtocolError(_AGAINST_THE_PROTOCOL[kind].format(id=stream_id))

    def _forbid(self, kind: int, stream_id: int, content: bytes, request: _Request) -> NoReturn:
        if request.stage == "params":
            raise LocalProtocolError(f"request {stream_id} cannot be answered before the end of its meta-variables")
        raise LocalProtocolError(f"request {stream_id} is not active: it never began, or was ended already")

    # --- Sending (sections 5.3, 5.5, 6.2) ---

    def send_head(self, stream_id: int, head: bytes) -> bytes:
        """Bytes that carry a whole CGI response head, blank line included, in one record where it fits.

        HAProxy 2.6.12 dies of a head that is split over records.
        """
        return self._send(stream_id, head)

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the response body; ``b""`` sends nothing and ends nothing."""
        return self._send(stream_id, data)

    def frame_body(self, stream_id: int, data: bytes) -> list[bytes | memoryview]:
        """The same as :meth:`send_body` in pieces, none of them empty, to be sent one after the other: ``data`` is not
        copied."""
        request = self._answerable(stream_id)
        if self._dead or not data:
            return []
        records = wire.encode_pieces(wire.STDOUT, stream_id, data)
        return [self._take_log(stream_id, request), *records] if request.log else records

    def send_log(self, stream_id: int, text: str) -> bytes:
        """Take text for the web server's error log; always ``b""``.

        It travels with the next bytes of the response, because HAProxy 2.6.12 dies of an FCGI_STDERR record that
        comes alone. ``max_stderr`` bytes a request are kept, the rest is cut, visibly.
        """
        request = self._answerable(stream_id)
        data = text.encode("utf-8", "backslashreplace")
        if request.log_room >= 0:
            request.log = request.log or bytearray()
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
        self._finish(stream_id, request)
        if self._dead:
            return b""
        streams_end = wire.encode_record(wire.STDOUT, stream_id)
        if request.log_used:
            streams_end += wire.encode_record(wire.STDERR, stream_id)
        return log + streams_end + end + (_FAREWELL if self._farewell and self.closing and request.keep else b"")

    def answer(self, stream_id: int, head: bytes, body: bytes, status: int = 0) -> bytes:
        """A whole response at once: the same as :meth:`send_head`, :meth:`send_body` and :meth:`end`, with the body in
        the record of the head where it fits.
        """
        request = self._answerable(stream_id)
        data = head + body
        if self._dead or request.log or request.log_used or len(data) > wire.MAX_CONTENT:
            return self.send_head(stream_id, head) + self.send_body(stream_id, body) + self.end(stream_id, status)
        answer = wire.encode_answer(stream_id, data, status)
        self._finish(stream_id, request)
        return answer + _FAREWELL if self.closing and self._farewell and request.keep else answer

    def fail(self, stream_id: int) -> bytes:
        """End a response that broke after its head, as visibly as possible.

        Alone on its connection: no FCGI_END_REQUEST, and :attr:`broken` asks for a reset. A unix socket has none, and
        nginx 1.22.1 without fastcgi_keep_conn takes its end for the end of the response; so a record out of place goes
        before it, for which nginx gives the response up. Beside others: FCGI_END_REQUEST with application status 1 and
        no end of STDOUT, for isolation beats signalling.
        """
        request = self._answerable(stream_id)
        self._finish(stream_id, request)
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
        request.log = b""
        return records

    def _answerable(self, stream_id: int) -> _Request:
        request = self._requests.get(stream_id)
        if request is None or request.stage == "params":
            self._forbid(wire.END_REQUEST, stream_id, b"", request or _NOBODY)
        return request

    def _finish(self, stream_id: int, request: _Request) -> None:
        deed, to = request.steps[request.stage][wire.END_REQUEST]
        deed(self, wire.END_REQUEST, stream_id, b"", request)
        request.stage = to
        if to == "late":
            self._remember(stream_id, request)


#: The end of STDIN of the requests with the ids that web servers use most: a request without a body ends with it.
_NO_BODY: Final = {stream_id: wire.encode_record(wire.STDIN, stream_id) for stream_id in range(1, 256)}

#: What that means.
_BODY_ENDED: Final = {stream_id: BodyEnded(stream_id) for stream_id in _NO_BODY}

#: Web servers that take notice of the farewell, and what was made of them. One that does not tell its name is most
#: likely nginx, where that is for the configuration to say.
_HEEDED_BY: Final = ("nginx", "haproxy", "angie", "freenginx", "openresty", "tengine")
#: See ``retire``. HAProxy takes FCGI_MAX_REQS only from an application that multiplexes.
_FAREWELL: Final = wire.encode_record(
    wire.GET_VALUES_RESULT, wire.NULL_REQUEST_ID, wire.encode_pairs(((wire.MPXS_CONNS, "1"), (wire.MAX_REQS, "0")))
)

_OnRecord = Callable[[ServerConnection, int, int, bytes], None]
_Deed = Callable[[ServerConnection, int, int, bytes, _Request], "str | None"]

#: Record type -> what takes it. All other types are unexpected.
_RECORDS: Final[dict[int, _OnRecord]] = {
    wire.BEGIN_REQUEST: ServerConnection._on_begin,
    wire.ABORT_REQUEST: ServerConnection._on_abort,
    wire.PARAMS: ServerConnection._on_stream,
    wire.STDIN: ServerConnection._on_stream,
    wire.DATA: ServerConnection._on_stream,
    wire.GET_VALUES: ServerConnection._on_get_values,
}

#: Role -> state -> arrival -> (deed, next state).
_STEPS: Final[dict[int, dict[str, dict[int, tuple[_Deed, str]]]]] = {
    role: state.bind(machine, ServerConnection) for role, machine in state.INPUT.items()
}

_AGAINST_THE_PROTOCOL: Final = {
    wire.BEGIN_REQUEST: "BEGIN_REQUEST for request {id}, which is active",
    # Elsewhere such a set replaced or joined the environment of a request that was under way.
    wire.PARAMS: "PARAMS after the end of the PARAMS of request {id}",
    wire.DATA: "DATA before the end of the STDIN of request {id} (section 6.4)",
}

#: The answer to an authorizer's request that is rejected.
_DENIAL: Final = b"Status: 503 Service Unavailable\r\n\r\n"

#: Stands for the request of an id that has none. It stays inactive whatever arrives.
_NOBODY: Final = _Request(wire.RESPONDER, keep=True, log_room=0)
