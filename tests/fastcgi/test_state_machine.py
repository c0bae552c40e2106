"""A web server that sends anything, a program that answers anything, and a small model that says what must come of it.

The model below is written from the specification and from the words of gateways/fastcgi/server.py, not from its code
or its tables. What the connection gives out is read by the connection of the other side.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fuzz.laws import ClientLaws, ServerLaws
from gateways import Limits, LocalProtocolError
from gateways.events import (
    BodyEnded,
    BodyReceived,
    ConnectionFailed,
    DataEnded,
    DataReceived,
    HeadReceived,
    LogReceived,
    RequestAborted,
    RequestReceived,
    ResponseEnded,
    ResponseFailed,
)
from gateways.fastcgi import ClientConnection, ServerConnection
from gateways.fastcgi.server import CUT, MAX_IGNORED
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    DATA,
    END,
    GET_VALUES,
    KEEP,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    Refused,
    joined,
    matches,
    pair,
    rec,
)

ROLES = {1: "responder", 2: "authorizer", 3: "filter"}
COMPLETE, CANT_MPX, OVERLOADED, UNKNOWN_ROLE = range(4)
DENIAL = b"Status: 503 Service Unavailable\r\n\r\n"

#: Type, request id, content: what comes in, and what goes out.
Record = tuple[int, int, bytes]


@attrs.frozen
class AnyFailure:
    """Stands for the failure of the connection, or of one response, whatever its words."""

    stream_id: int | None = None


@attrs.define
class Asked:
    """One request in the model. Its stage is the stream that is read next, or "over", or "dropped" for all the rest."""

    role: int
    keep: bool
    stage: str = "params"
    params: bytes = b""
    early: bytes = b""
    early_end: bool = False
    aborted: bool = False
    log: bytes = b""
    log_used: bool = False
    log_room: int = 0
    #: what the web server waits for: "head", "body" or "ended"; or "failed" or "aborted"
    response: str = "head"

    @property
    def last(self) -> int:
        return DATA if self.role == 3 else STDIN


class Model:
    """What an application may make of records, as the words have it.

    ``events`` and ``answers`` collect what must come out; ``heard`` what the web server must then understand, in the
    order in which it sends and gets: ("asked", id, role, keep), ("aborts", id) and records.
    """

    def __init__(self, limits: Limits, roles: set[int], strict: bool) -> None:
        self.limits = limits
        self.roles = roles | {2}
        self.strict = strict
        self.active: dict[int, Asked] = {}
        #: ids that ended before their input, and the stream that ends it
        self.late: dict[int, int] = {}
        self.events: list[Any] = []
        self.answers: list[Record] = []
        self.heard: list[tuple[Any, ...]] = []
        self.last_call = self.closing = self.broken = self.dead = False
        self.begun = self.rejected = self.ignored = self.ignored_in_a_row = 0

    # --- Records ---

    def arrive(self, kind: int, stream_id: int, content: bytes) -> None:
        known_here = (BEGIN, ABORT, PARAMS, STDIN, DATA, GET_VALUES)
        if kind == BEGIN:
            self.begin(stream_id, content)
        elif kind == GET_VALUES and stream_id == 0:
            self.get_values(content)
        elif kind not in known_here and 1 <= kind <= 11 and self.strict:
            self.violate()
        elif kind > 11 and stream_id == 0:
            self.answer(UNKNOWN, 0, bytes([kind]) + bytes(7))
        elif kind not in known_here or kind == GET_VALUES:
            self.ignore()
        elif stream_id in self.active:
            request = self.active[stream_id]
            if kind == ABORT:
                self.abort(stream_id, request)
            elif kind == PARAMS:
                self.params(stream_id, request, content)
            else:
                self.body_or_data(kind, stream_id, request, content)
        elif stream_id not in self.late:
            self.ignore()
        elif kind == self.late[stream_id] and not content:
            del self.late[stream_id]

    def begin(self, stream_id: int, content: bytes) -> None:
        if len(content) < 8 or (self.strict and len(content) > 8) or stream_id == 0 or stream_id in self.active:
            self.violate()
            return
        role, flags = struct.unpack_from(">HB", content)
        request = Asked(role, bool(flags & KEEP), log_room=self.limits.max_stderr)
        self.late.pop(stream_id, None)
        if self.last_call:
            self.late[stream_id] = request.last
            self.ignore()
            return
        self.heard.append(("asked", stream_id, role, request.keep))
        if self.active and self.limits.max_ids == 1:
            self.reject(stream_id, request, CANT_MPX)
        elif len(self.active) == self.limits.max_ids:
            self.reject(stream_id, request, OVERLOADED)
        elif role not in self.roles:
            self.reject(stream_id, request, UNKNOWN_ROLE)
        else:
            self.begun += 1
            self.active[stream_id] = request

    def reject(self, stream_id: int, request: Asked, status: int) -> None:
        self.rejected += 1
        self.late[stream_id] = request.last
        if request.role == 2:
            # There are web servers that take an end without an answer for consent.
            self.answer(STDOUT, stream_id, DENIAL)
            self.answer(STDOUT, stream_id, b"")
        self.answer(END, stream_id, struct.pack(">IB3x", 0, status))
        self.close_unless(request.keep)

    def abort(self, stream_id: int, request: Asked) -> None:
        if request.stage == "params":
            self.heard.append(("aborts", stream_id))
            request.response = "aborted"
            self.answer(END, stream_id, bytes(8))
            self.leave(stream_id)
        elif not request.aborted:
            self.heard.append(("aborts", stream_id))
            request.response = "aborted"
            request.aborted = True
            request.stage = "over" if request.stage == "over" else "dropped"
            self.events.append(RequestAborted(stream_id))

    def params(self, stream_id: int, request: Asked, content: bytes) -> None:
        if request.stage != "params":
            self.violate()
            return
        request.params += content
        if content:
            return
        self.ignored_in_a_row = 0
        role = ROLES[request.role]
        if len(request.params) > self.limits.max_params_bytes:
            self.refuse(stream_id, request, 431, f"more than {self.limits.max_params_bytes} bytes")
            return
        pairs, whole = read_pairs(request.params)
        if len(pairs) > self.limits.max_params:
            self.refuse(stream_id, request, 431, f"more than {self.limits.max_params} name-value pairs")
        elif not whole:
            request.keep = False
            self.refuse(stream_id, request, 400, "is cut short")
        else:
            self.events.append(RequestReceived(stream_id, role, tuple(pairs), request.keep))
            if request.role == 2:
                request.stage = "dropped"
                self.events.append(BodyEnded(stream_id))
                return
            request.stage = "stdin"
            if request.early:
                self.events.append(BodyReceived(stream_id, request.early))
            if request.early_end:
                self.body_or_data(STDIN, stream_id, request, b"")

    def refuse(self, stream_id: int, request: Asked, status: int, words: str) -> None:
        request.stage = "dropped"
        self.events.append(Refused(stream_id, status, words, ROLES[request.role]))

    def body_or_data(self, kind: int, stream_id: int, request: Asked, content: bytes) -> None:
        early = request.stage == "params" and kind == STDIN and request.role != 2
        if request.stage == "dropped":
            if kind == request.last and not content:
                request.stage = "over"
        elif (kind == DATA and request.role == 3 and request.stage in ("params", "stdin")) or (early and self.strict):
            self.violate()
        elif early and not request.early_end:
            request.early += content
            request.early_end = not content
            if len(request.early) > self.limits.body_buffer:
                self.violate()
        elif kind == STDIN and request.stage == "stdin":
            self.events.append(BodyReceived(stream_id, content) if content else BodyEnded(stream_id))
            if not content:
                request.stage = "data" if request.role == 3 else "over"
        elif kind == DATA and request.stage == "data":
            self.events.append(DataReceived(stream_id, content) if content else DataEnded(stream_id))
            if not content:
                request.stage = "over"
        else:
            self.ignore()

    def get_values(self, content: bytes) -> None:
        pairs, whole = read_pairs(content)
        if not whole:
            self.violate()
            return
        many = self.limits.max_ids > 1
        truth = {
            "FCGI_MAX_CONNS": self.limits.max_connections,
            "FCGI_MAX_REQS": self.limits.max_ids if many else self.limits.max_connections,
            "FCGI_MPXS_CONNS": int(many),
        }
        names = [name for name in dict.fromkeys(name for name, _ in pairs) if name in truth]
        self.answer(RESULT, 0, b"".join(pair(name.encode(), b"%d" % truth[name]) for name in names))

    # --- The program ---

    def speak(self, stream_id: int, data: bytes) -> list[Record]:
        """A head or a piece of a body."""
        if self.dead or not data:
            return []
        return [*self.flush_log(stream_id), (STDOUT, stream_id, data)]

    def log(self, stream_id: int, text: bytes) -> None:
        request = self.active[stream_id]
        if request.log_room >= 0:
            request.log += text[: request.log_room]
            request.log_room -= len(text)
            if request.log_room < 0:
                request.log += CUT

    def end(self, stream_id: int, status: int) -> list[Record]:
        logged = self.flush_log(stream_id)
        request = self.leave(stream_id)
        if self.dead:
            return []
        closed = [(STDERR, stream_id, b"")] if request.log_used else []
        return [*logged, (STDOUT, stream_id, b""), *closed, (END, stream_id, struct.pack(">IB3x", status, 0))]

    def fail(self, stream_id: int) -> list[Record]:
        logged = self.flush_log(stream_id)
        self.leave(stream_id)
        if self.dead:
            return []
        if self.active:
            return [*logged, (END, stream_id, struct.pack(">IB3x", 1, 0))]
        self.closing = self.broken = self.dead = True
        return [(UNKNOWN, 0, bytes([END]) + bytes(7))]

    def flush_log(self, stream_id: int) -> list[Record]:
        request = self.active[stream_id]
        if not request.log:
            return []
        log, request.log, request.log_used = request.log, b"", True
        return [(STDERR, stream_id, log)]

    # --- The connection ---

    def leave(self, stream_id: int) -> Asked:
        request = self.active.pop(stream_id)
        if request.stage != "over":
            self.late[stream_id] = request.last
        self.close_unless(request.keep)
        return request

    def close_unless(self, keep: bool) -> None:
        self.last_call = self.last_call or not keep
        self.closing = self.closing or (self.last_call and not self.active)

    def answer(self, *record: Any) -> None:
        self.answers.append(record)
        self.heard.append(record)

    def ignore(self) -> None:
        self.ignored += 1
        self.ignored_in_a_row += 1
        if self.ignored_in_a_row > MAX_IGNORED:
            self.violate()

    def violate(self) -> None:
        self.give_up()
        self.events.append(AnyFailure())

    def give_up(self) -> None:
        for stream_id, request in self.active.items():
            if request.stage != "params" and not request.aborted:
                self.events.append(RequestAborted(stream_id))
        self.closing = self.dead = True


def read_pairs(block: bytes) -> tuple[list[tuple[str, str]], bool]:
    """Pairs one byte at a time, and whether the last one is whole."""
    pairs: list[tuple[str, str]] = []
    rest = list(block)
    try:
        while rest:
            lengths = []
            for _ in range(2):
                length = rest.pop(0)
                if length > 127:
                    length = ((length - 128) << 24) + (rest.pop(0) << 16) + (rest.pop(0) << 8) + rest.pop(0)
                lengths.append(length)
            name, value = (bytes(rest.pop(0) for _ in range(length)) for length in lengths)
            pairs.append((name.decode(), value.decode()))
    except (IndexError, RuntimeError):  # a generator turns the first into the second
        return pairs, False
    return pairs, True


def same(events: list[Any], expected: list[Any]) -> bool:
    """Whether events are those of the model, joined on both sides."""

    def fits(event: Any, wanted: Any) -> bool:
        if isinstance(wanted, AnyFailure):
            kind = ConnectionFailed if wanted.stream_id is None else ResponseFailed
            return isinstance(event, kind) and getattr(event, "stream_id", None) == wanted.stream_id
        return matches(event, wanted)

    events, expected = joined(events), joined(expected)
    return len(events) == len(expected) and all(map(fits, events, expected))


def as_one(records: list[Record]) -> list[Record]:
    """Records with the pieces of one stream put together."""
    result: list[Record] = []
    for kind, stream_id, content in records:
        if result and content and result[-1][:2] == (kind, stream_id):
            result[-1] = (kind, stream_id, result[-1][2] + content)
        else:
            result.append((kind, stream_id, content))
    return result


IDS = (1, 2, 3, 65_535)
HEAD = b"Status: 200 OK\r\nX: y\r\n\r\n"

ids = st.sampled_from(IDS)
contents = st.sampled_from([b"", b"x", b"some text", bytes(20)])
kept = st.sampled_from([KEEP, KEEP, KEEP, KEEP, 0, KEEP, KEEP, 0xFE, KEEP, KEEP, 0xFF])
variables = st.lists(st.tuples(st.sampled_from(["A", "NAME", ""]), st.sampled_from(["", "v", "ä" * 20])), max_size=4)
paddings = st.one_of(st.integers(0, 8), st.integers(0, 255))
#: when a record arrives: mostly at once and whole
deliveries = st.sampled_from(["whole", "whole", "cut", "cut", "later"])
#: for what ends most conversations, so that they last
seldom = st.integers(0, 29).map(lambda number: number == 17)
Conversing = precondition(lambda self: not self.model.closing)


class Conversation(RuleBasedStateMachine):
    """Records wait in ``wire`` until they are delivered, cut anywhere; the model hears of a record when it is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.wire: list[tuple[bytes, Record]] = []
        #: bytes of the first record in ``wire`` that were delivered already
        self.ahead = 0
        self.laws = ServerLaws()
        self.web = ClientConnection()
        self.web_laws = ClientLaws(Limits().max_stderr)
        #: every FCGI_END_REQUEST
        self.ends = 0

    @initialize(
        max_ids=st.sampled_from([1, 2, 3, 128]),
        small=st.booleans(),
        roles=st.sampled_from([{1, 2, 3}, {1, 3}, {1}, {2}, {3}, {1, 2, 3}]),
        strict=st.sampled_from([False, False, True]),
        first=st.lists(
            st.tuples(ids, st.sampled_from([1, 1, 2, 3]), kept), min_size=1, max_size=3, unique_by=lambda f: f[0]
        ),
    )
    def connect(
        self, max_ids: int, small: bool, roles: set[int], strict: bool, first: list[tuple[int, int, int]]
    ) -> None:
        """Not every conversation knows every rule, so each begins with some requests."""
        sizes = {"max_params_bytes": 60, "max_params": 5, "body_buffer": 20, "max_stderr": 30} if small else {}
        limits = Limits(max_ids=max_ids, **sizes)
        self.model = Model(limits, roles, strict)
        self.app = ServerConnection(limits=limits, roles=[ROLES[role] for role in roles], strict=strict)
        for stream_id, role, flags in first:
            self.send(BEGIN, stream_id, struct.pack(">HB5x", role, flags))
            self.send(PARAMS, stream_id, pair(b"A", b"b"))
            self.send(PARAMS, stream_id, b"")
        self.deliver("whole")

    # --- The web server ---

    def send(self, kind: int, stream_id: int, content: bytes, padding: int = 0) -> None:
        self.wire.append((rec(kind, stream_id, content, padding), (kind, stream_id, content)))

    def at(self, *stages: str) -> list[int]:
        return [stream_id for stream_id, request in self.model.active.items() if request.stage in stages]

    def a_free_id(self, data: st.DataObject, wrong: bool) -> int:
        free = [stream_id for stream_id in IDS if stream_id not in self.model.active]
        return data.draw(st.sampled_from((0, *IDS) if wrong or not free else free))

    @Conversing
    @rule(
        data=st.data(),
        role=st.sampled_from([1, 1, 1, 2, 3, 3]),
        flags=kept,
        pairs=variables,
        padding=paddings,
        delivery=deliveries,
    )
    def asks(
        self,
        data: st.DataObject,
        role: int,
        flags: int,
        pairs: list[tuple[str, str]],
        padding: int,
        delivery: str,
    ) -> None:
        """A request as web servers send it, up to its body."""
        stream_id = self.a_free_id(data, wrong=False)
        self.send(BEGIN, stream_id, struct.pack(">HB5x", role, flags), padding)
        if pairs:
            self.send(PARAMS, stream_id, b"".join(pair(name.encode(), value.encode()) for name, value in pairs))
        self.send(PARAMS, stream_id, b"")
        self.deliver(delivery, data)

    @Conversing
    @rule(
        data=st.data(),
        role=st.sampled_from([1, 1, 2, 3, 3, 0, 9, 0xFFFF]),
        flags=kept,
        rest=st.sampled_from([bytes(5), bytes(5), b"\xff" * 5, bytes(9)]),
        short=seldom,
        padding=paddings,
        wrong=seldom,
        delivery=deliveries,
    )
    def begins(
        self,
        data: st.DataObject,
        role: int,
        flags: int,
        rest: bytes,
        short: bool,
        padding: int,
        wrong: bool,
        delivery: str,
    ) -> None:
        stream_id = self.a_free_id(data, wrong)
        if short or (self.model.strict and len(rest) > 5 and not wrong):
            rest = rest[: 4 if short else 5]
        self.send(BEGIN, stream_id, struct.pack(">HB", role, flags) + rest, padding)
        self.deliver(delivery, data)

    @precondition(lambda self: self.at("params") and not self.model.closing)
    @rule(
        data=st.data(),
        pairs=variables,
        long=st.booleans(),
        cut=seldom,
        padding=paddings,
        delivery=deliveries,
    )
    def names(
        self, data: st.DataObject, pairs: list[tuple[str, str]], long: bool, cut: bool, padding: int, delivery: str
    ) -> None:
        block = b"".join(pair(name.encode(), value.encode(), long) for name, value in pairs)
        block = block[: len(block) - cut]
        if block:
            self.send(PARAMS, data.draw(st.sampled_from(self.at("params"))), block, padding)
        self.deliver(delivery, data)

    @precondition(lambda self: self.at("params") and not self.model.closing)
    @rule(data=st.data(), padding=paddings, delivery=deliveries)
    def ends_the_names(self, data: st.DataObject, padding: int, delivery: str) -> None:
        self.send(PARAMS, data.draw(st.sampled_from(self.at("params"))), b"", padding)
        self.deliver(delivery, data)

    @precondition(lambda self: self.model.active and not self.model.closing)
    @rule(data=st.data(), content=contents, padding=paddings, delivery=deliveries)
    def streams(self, data: st.DataObject, content: bytes, padding: int, delivery: str) -> None:
        """The stream that a request reads next, or what an application does not care for any more."""
        stream_id = data.draw(st.sampled_from(sorted(self.model.active)))
        request = self.model.active[stream_id]
        kind = {"params": STDIN, "stdin": STDIN, "data": DATA}.get(request.stage, request.last)
        self.send(kind, stream_id, content, padding)
        self.deliver(delivery, data)

    @Conversing
    @rule(
        data=st.data(),
        stream_id=ids,
        kind=st.sampled_from([PARAMS, STDIN, DATA]),
        content=contents,
        anywhere=seldom,
        delivery=deliveries,
    )
    def streams_out_of_turn(
        self, data: st.DataObject, stream_id: int, kind: int, content: bytes, anywhere: bool, delivery: str
    ) -> None:
        if anywhere or stream_id not in self.model.active:
            self.send(kind, stream_id, content)
        self.deliver(delivery, data)

    @Conversing
    @rule(data=st.data(), stream_id=ids, delivery=deliveries)
    def aborts(self, data: st.DataObject, stream_id: int, delivery: str) -> None:
        self.send(ABORT, stream_id, b"")
        self.deliver(delivery, data)

    @Conversing
    @rule(
        data=st.data(),
        names=st.lists(st.sampled_from(["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS", "OTHER"]), max_size=5),
        cut=seldom,
        stream_id=st.sampled_from([0, 0, 0, 1]),
        delivery=deliveries,
    )
    def asks_for_values(self, data: st.DataObject, names: list[str], cut: bool, stream_id: int, delivery: str) -> None:
        block = b"".join(pair(name.encode(), b"") for name in names)
        self.send(GET_VALUES, stream_id, block[: len(block) - cut])
        self.deliver(delivery, data)

    @Conversing
    @rule(
        data=st.data(),
        kind=st.sampled_from([END, STDOUT, STDERR, RESULT, UNKNOWN, 12, 100, 255]),
        stream_id=st.sampled_from([0, 1, 2]),
        content=contents,
        anyway=seldom,
    )
    def sends_something_else(
        self, data: st.DataObject, kind: int, stream_id: int, content: bytes, anyway: bool
    ) -> None:
        if anyway or kind > UNKNOWN or not self.model.strict:
            self.send(kind, stream_id, content)
            self.deliver("cut", data)

    @Conversing
    @rule(kind=st.sampled_from([PARAMS, STDIN, DATA, ABORT]), stream_id=st.sampled_from([0, 9]), many=seldom)
    def strays(self, kind: int, stream_id: int, many: bool) -> None:
        for _ in range(600 if many else 1):
            self.send(kind, stream_id, b"x")

    @Conversing
    @rule(really=seldom)
    def leaves(self, really: bool) -> None:
        if really:
            self.model.give_up()
            self.wire.clear()
            self.received(self.app.receive_data(b""))

    def deliver(self, how: str, data: st.DataObject | None = None) -> None:
        """Some of what waits reaches the application: all of it, or a piece that ends anywhere."""
        stream = b"".join(record for record, _ in self.wire)[self.ahead :]
        if how == "later" or not stream:
            return
        size = len(stream) if how == "whole" or data is None else data.draw(st.integers(1, len(stream)))
        fed = self.ahead + size
        while self.wire and fed >= len(self.wire[0][0]):
            record, (kind, stream_id, content) = self.wire.pop(0)
            fed -= len(record)
            if not self.model.closing:
                self.model.arrive(kind, stream_id, content)
        self.ahead = fed
        self.received(self.app.receive_data(stream[:size]))
        if self.model.closing:
            self.wire.clear()
            self.ahead = 0

    def received(self, events: list[Any]) -> None:
        """What the application made of a piece is what the model did; its own answers reach the web server."""
        model, made = self.model, self.laws.made(self.app.data_to_send())
        assert same(events, model.events), (events, model.events)
        assert made == model.answers
        assert self.app.data_to_send() == b""
        self.laws.saw(events)
        heard, model.events, model.answers, model.heard = model.heard, [], [], []
        for what in heard:
            match what:
                case ("asked", stream_id, role, keep):
                    self.web.send_request(stream_id, {}, role=ROLES.get(role, "responder"), keep_connection=keep)
                    self.web_laws.asked(stream_id)
                case ("aborts", stream_id):
                    self.web.abort(stream_id)
                    self.web_laws.aborted.add(stream_id)
                case (kind, stream_id, content):
                    expected: list[Any] = []
                    if kind == END:
                        self.ends += 1
                        rejected = bool(content[4])
                        expected = [AnyFailure(stream_id) if rejected else ResponseEnded(stream_id)]
                    elif kind == STDOUT and content:
                        expected = [HeadReceived(stream_id, 503, "Service Unavailable", ())]
                    self.tell_web(rec(kind, stream_id, content), expected)
                case _:
                    raise AssertionError(what)

    def tell_web(self, data: bytes, expected: list[Any]) -> None:
        events = self.web.receive_data(data) if data else []
        assert same(events, expected), (events, expected)
        self.web_laws.saw(events)

    # --- The program ---

    def answerable(self) -> list[int]:
        return [stream_id for stream_id, request in self.model.active.items() if request.stage != "params"]

    def told(self, stream_id: int, request: Asked, sent: bytes, expected: list[Record]) -> None:
        """What a call gave out is what the model says, and the web server understands it."""
        assert as_one(self.laws.sent(stream_id, sent)) == expected
        self.laws.broken = self.app.broken
        if stream_id in self.laws.open and stream_id not in self.model.active:
            self.laws.ended(stream_id)  # the connection is no more, so nothing was sent
        understood: list[Any] = []
        for kind, _, content in expected:
            if kind == STDERR and content:
                understood.append(LogReceived(stream_id, content))
            elif kind == STDOUT and content:
                if request.response == "head":
                    request.response = "body"
                    understood.append(HeadReceived(stream_id, 200, "OK", (("X", "y"),)))
                    content = content.removeprefix(HEAD)
                if request.response == "body" and content:
                    understood.append(BodyReceived(stream_id, content))
            elif kind == STDOUT and request.response == "head":
                request.response = "failed"
                understood.append(AnyFailure(stream_id))
            elif kind == STDOUT and request.response == "body":
                request.response = "ended"
            elif kind == END:
                self.ends += 1
                status = struct.unpack_from(">I", content)[0]
                if request.response in ("head", "body"):  # the end of a response that is broken
                    understood.append(AnyFailure(stream_id))
                elif request.response != "failed":
                    understood.append(ResponseEnded(stream_id, status))
        self.tell_web(sent, understood)

    @precondition(lambda self: self.answerable())
    @rule(data=st.data())
    def heads(self, data: st.DataObject) -> None:
        stream_id = data.draw(st.sampled_from(self.answerable()))
        request = self.model.active[stream_id]
        if request.response != "body":
            self.told(stream_id, request, self.app.send_head(stream_id, HEAD), self.model.speak(stream_id, HEAD))

    @precondition(lambda self: self.answerable())
    @rule(data=st.data(), body=st.sampled_from([b"", b"x", b"some body", bytes(70_000)]))
    def speaks(self, data: st.DataObject, body: bytes) -> None:
        stream_id = data.draw(st.sampled_from(self.answerable()))
        request = self.model.active[stream_id]
        if request.response != "head" or not body:
            self.told(stream_id, request, self.app.send_body(stream_id, body), self.model.speak(stream_id, body))

    @precondition(lambda self: self.answerable())
    @rule(data=st.data(), text=st.sampled_from(["", "text", "ä longer text", "\udc80" * 5]))
    def logs(self, data: st.DataObject, text: str) -> None:
        stream_id = data.draw(st.sampled_from(self.answerable()))
        assert self.app.send_log(stream_id, text) == b""
        self.model.log(stream_id, text.encode("utf-8", "backslashreplace"))

    @precondition(lambda self: self.answerable())
    @rule(data=st.data(), status=st.sampled_from([0, 0, 0, 1, 2**32 - 1]))
    def ends_it(self, data: st.DataObject, status: int) -> None:
        stream_id = data.draw(st.sampled_from(self.answerable()))
        request = self.model.active[stream_id]
        self.told(stream_id, request, self.app.end(stream_id, status), self.model.end(stream_id, status))

    @precondition(lambda self: self.answerable())
    @rule(data=st.data(), alone=seldom)
    def fails(self, data: st.DataObject, alone: bool) -> None:
        stream_id = data.draw(st.sampled_from(self.answerable()))
        if alone or len(self.model.active) > 1:
            request = self.model.active[stream_id]
            self.told(stream_id, request, self.app.fail(stream_id), self.model.fail(stream_id))

    @rule(stream_id=st.one_of(ids, st.just(0)))
    def speaks_out_of_turn(self, stream_id: int) -> None:
        if stream_id not in self.answerable():
            calls: list[Callable[[], object]] = [
                lambda: self.app.send_head(stream_id, HEAD),
                lambda: self.app.send_body(stream_id, b"x"),
                lambda: self.app.send_log(stream_id, "x"),
                lambda: self.app.end(stream_id),
                lambda: self.app.fail(stream_id),
            ]
            for call in calls:
                with pytest.raises(LocalProtocolError):
                    call()

    # --- Always ---

    @invariant()
    def agrees_with_the_model(self) -> None:
        model = getattr(self, "model", None)
        if model is None:
            return
        counts = self.app.statistics()
        assert (counts.requests, counts.active, counts.rejected, counts.ignored) == (
            model.begun,
            len(model.active),
            model.rejected,
            model.ignored,
        )
        assert (self.app.closing, self.app.broken) == (model.closing, model.broken)
        assert sorted(self.laws.open) == sorted(self.answerable())
        if model.active:
            assert set(self.app.expecting) == set(model.active) - set(self.answerable())

    def teardown(self) -> None:
        """Everything that is open is ended. Each id that was begun or rejected has had one end, or the web server knows
        that the connection failed."""
        if not hasattr(self, "model"):
            return
        model = self.model
        for stream_id in self.answerable():
            request = model.active[stream_id]
            self.told(stream_id, request, self.app.end(stream_id), model.end(stream_id, 0))
        owed = model.begun + model.rejected - self.ends
        assert owed >= len(model.active)
        assert model.dead or owed == len(model.active)
        events = self.web.receive_data(b"")
        assert same(events, [AnyFailure()] if owed else []), events


def test_F13_F14_F18_F19_F32_F33_F35_F37_whatever_is_sent_and_answered() -> None:
    run_state_machine_as_test(Conversation, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
