"""Our codec against two that others wrote: fcgiproto (Python, the application's side) and Net::FastCGI (Perl).

Whatever hypothesis draws is encoded by one and decoded by the other, in both directions, and broken input is shown to
all of them. Where they differ from us for a reason, a test says how and why.

GATEWAYS_EXAMPLES is the number of examples for each property, 200 unless set.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

import fcgiproto  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
from fcgiproto import records as theirs  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from gateways import Limits, LocalProtocolError, RemoteProtocolError
from gateways._model.status import reason
from gateways.events import (
    BodyEnded,
    BodyReceived,
    DataEnded,
    DataReceived,
    HeadReceived,
    LogReceived,
    RequestAborted,
    RequestReceived,
    ResponseEnded,
)
from gateways.fastcgi import ClientConnection, ServerConnection, wire
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    DATA,
    END,
    GET_VALUES,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    begin,
    end,
    feed,
    pair,
    rec,
    request,
)
from tests.interop.servers import require

EXAMPLES = int(os.environ.get("GATEWAYS_EXAMPLES", "200"))
many = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
#: for properties whose examples are long
few = settings(many, max_examples=max(EXAMPLES // 4, 10))

STREAMS = (PARAMS, STDIN, STDOUT, STDERR, DATA)
ROLES = {
    "responder": fcgiproto.FCGI_RESPONDER,
    "authorizer": fcgiproto.FCGI_AUTHORIZER,
    "filter": fcgiproto.FCGI_FILTER,
}

ids = st.one_of(st.sampled_from([1, 255, 256, 65_535]), st.integers(1, 65_535))
any_ids = st.one_of(st.just(0), ids)
kinds = st.one_of(st.integers(1, 11), st.integers(0, 255))
#: lengths around everything that is a limit somewhere
lengths = st.one_of(
    st.integers(0, 300), st.sampled_from([32_759, 32_760, 32_761, 32_768, 65_534, 65_535]), st.integers(0, 65_535)
)
contents = lengths.map(lambda length: random.Random(length).randbytes(length))
#: a record: type, id, content, padding
records = st.tuples(kinds, any_ids, contents, st.integers(0, 255))
#: names and values: short ones of any bytes, and longer ones around where the length takes four bytes
texts = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([126, 127, 128, 129, 255, 256, 5000]).map(lambda length: random.Random(length).randbytes(length)),
)
#: pairs with, of each, whether its lengths take four bytes that need but one
framed_pairs = st.lists(st.tuples(texts, texts, st.booleans()), max_size=8)
#: blocks of short pairs and lengths that go wrong
few_bytes = st.lists(st.sampled_from([0, 0, 1, 1, 2, 3, 127, 128, 129, 255]), max_size=16).map(bytes)
ascii_names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=150)
environs = st.dictionaries(ascii_names, st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=200))
#: what a stream carries: nothing, little, or more than one record
bodies = st.one_of(st.binary(max_size=50), contents, st.integers(65_536, 150_000).map(bytes))


class PerlError(Exception):
    """Net::FastCGI refused: it threw an exception."""


class Perl:
    """Net::FastCGI in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._to, self._from = process.stdin, process.stdout

    def __call__(self, function: str, *arguments: bytes | int) -> list[bytes]:
        """Call one of its functions (see perl/codec.pl). Raises PerlError where that throws an exception."""
        fields = [function.encode(), *(a if isinstance(a, bytes) else b"%d" % a for a in arguments)]
        frame = b"".join(struct.pack(">I", len(field)) + field for field in fields)
        self._to.write(struct.pack(">I", len(frame)) + frame)
        self._to.flush()
        outcome, *values = self._read()
        if outcome != b"ok":
            raise PerlError(values[0].decode())
        return values

    def one(self, function: str, *arguments: bytes | int) -> bytes:
        [value] = self(function, *arguments)
        return value

    def records(self, octets: bytes) -> tuple[list[wire.Record], bytes]:
        """The whole records at the start, and what is left."""
        *fields, rest = self("parse_records", octets)
        groups = zip(*[iter(fields)] * 4, strict=True)
        return [(int(kind), int(number), content, int(padding)) for kind, number, padding, content in groups], rest

    def pairs(self, octets: bytes) -> dict[bytes, bytes]:
        return _as_dict(self("parse_params", octets))

    def body(self, kind: int, stream_id: int, content: bytes) -> dict[bytes, bytes]:
        """What a record says."""
        return _as_dict(self("parse_record_body", kind, stream_id, content))

    def _read(self) -> list[bytes]:
        [size] = struct.unpack(">I", self._from.read(4))
        frame = self._from.read(size)
        fields: list[bytes] = []
        while frame:
            [size] = struct.unpack_from(">I", frame)
            fields.append(frame[4 : 4 + size])
            frame = frame[4 + size :]
        return fields


def _as_dict(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


@pytest.fixture(scope="module")
def perl() -> Iterator[Perl]:
    require("perl", "/usr/share/perl5/Net/FastCGI/Protocol.pm")
    driver = os.path.join(os.path.dirname(__file__), "perl", "codec.pl")
    with subprocess.Popen(["perl", driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Perl(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def scan(pieces: Iterable[bytes]) -> list[wire.Record]:
    scanner = wire.RecordScanner()
    return [record for piece in pieces for record in scanner.scan(piece)]


def cut(data: bytes, seed: int) -> list[bytes]:
    """A stream in up to ten pieces."""
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(10)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


def fcgiproto_record(buffer: bytearray) -> Any:
    """The record at the start, which is taken away; None while it is not whole."""
    return theirs.decode_record(buffer)


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def as_text(pairs: dict[bytes, bytes]) -> dict[str, str]:
    return {text(name): text(value) for name, value in pairs.items()}


def our_pairs(block: bytes) -> list[tuple[str, str]] | None:
    """None for a block that we refuse."""
    try:
        return wire.decode_pairs(block)
    except RemoteProtocolError:
        return None


def perl_pairs(perl: Perl, block: bytes) -> dict[bytes, bytes] | None:
    try:
        return perl.pairs(block)
    except PerlError:
        return None


# --- Records ---


@many
@given(st.lists(records, max_size=5), st.integers(0, 2**16))
def test_F10_F17_perl_finds_the_same_records_in_what_we_send(perl: Perl, sent: list[wire.Record], seed: int) -> None:
    stream = b"".join(wire.encode_record(*record) for record in sent)
    stop = random.Random(seed).randrange(len(stream) + 1)
    found, rest = perl.records(stream[:stop])
    ours = scan(cut(stream[:stop], seed))
    assert found == ours == sent[: len(ours)]
    assert rest == stream[sum(8 + len(content) + padding for _, _, content, padding in ours) : stop]


@many
@given(kinds, any_ids, contents, st.integers(0, 255))
def test_F10_we_find_the_record_that_perl_sends(
    perl: Perl, kind: int, stream_id: int, content: bytes, padding: int
) -> None:
    built = perl.one("build_record", kind, stream_id, content)
    assert built == wire.encode_record(kind, stream_id, content)
    assert scan([built]) == [(kind, stream_id, content, -len(content) % 8)]
    header = perl.one("build_header", kind, stream_id, len(content), padding)
    assert scan([header, content, b"\xaa" * padding]) == [(kind, stream_id, content, padding)]


@few
@given(st.lists(records, max_size=20))
def test_F12_a_file_of_records_goes_through_perl_and_comes_back(perl: Perl, sent: list[wire.Record]) -> None:
    stream = b"".join(wire.encode_record(*record) for record in sent)
    copy = perl.one("copy_records", stream)
    assert copy == b"".join(wire.encode_record(*record[:3]) for record in sent)


@many
@given(st.binary(min_size=8, max_size=8))
def test_F11_all_refuse_another_version(perl: Perl, header: bytes) -> None:
    assume(header[0] != 1)
    with pytest.raises(RemoteProtocolError, match="version"):
        scan([header])
    with pytest.raises(PerlError, match="version mismatch"):
        perl("parse_header", header)
    with pytest.raises(fcgiproto.ProtocolError, match="unexpected protocol version"):
        fcgiproto_record(bytearray(header))


@many
@given(st.sampled_from(STREAMS), ids, contents, st.integers(0, 255), st.integers(0, 2**16))
def test_F10_F17_fcgiproto_reads_our_stream_records_and_we_read_its_own(
    kind: int, stream_id: int, content: bytes, padding: int, seed: int
) -> None:
    buffer = bytearray()
    found: list[Any] = []
    for piece in cut(wire.encode_record(kind, stream_id, content, padding), seed):
        assert not found
        buffer += piece
        record = fcgiproto_record(buffer)
        found += [record] if record else []
    [record] = found
    assert (record.record_type, record.request_id, record.content) == (kind, stream_id, content)
    assert not buffer
    assert scan([record.encode()]) == [(kind, stream_id, content, 0)]  # it does not pad


@many
@given(st.integers(0, 255), any_ids, st.binary(max_size=12))
@example(UNKNOWN, 0, b"\x01" + bytes(7))
def test_where_fcgiproto_refuses_records_that_we_read(kind: int, stream_id: int, content: bytes) -> None:
    """It checks the contents of a record together with its frame, some of them by ``assert`` and ``struct``."""
    data = wire.encode_record(kind, stream_id, content)
    assert scan([data]) == [(kind, stream_id, content, -len(content) % 8)]
    try:
        record = fcgiproto_record(bytearray(data))
    except fcgiproto.ProtocolError:
        unknown = stream_id != 0 and kind not in wire.TYPES  # section 4.2 has an answer for id 0 alone; we ignore it
        assert unknown or (kind in (GET_VALUES, RESULT) and _refused_by_fcgiproto(content))
    except UnicodeDecodeError:
        assert kind in (GET_VALUES, RESULT)
    except struct.error:
        assert kind in (BEGIN, END, UNKNOWN)
        assert len(content) != 8  # at least 8 are enough for us
    except (AssertionError, TypeError):
        # Management records with an id, which we ignore, and FCGI_UNKNOWN_TYPE, which it can only send.
        assert kind == UNKNOWN or (kind in (GET_VALUES, RESULT) and stream_id != 0)
    else:
        assert record.record_type == kind


@many
@given(kinds, any_ids, st.one_of(st.binary(max_size=12), st.just(bytes(8))))
def test_where_perl_refuses_records_that_we_read(perl: Perl, kind: int, stream_id: int, content: bytes) -> None:
    """It ties a type to its ids and its length; we leave the ids to the connection, and take more than 8 bytes."""
    try:
        said = perl.body(kind, stream_id, content)
    except PerlError:
        management = kind in (GET_VALUES, RESULT, UNKNOWN)
        fixed = {BEGIN: 8, END: 8, UNKNOWN: 8, ABORT: 0}
        assert kind in wire.TYPES
        assert (
            management == (stream_id != 0)
            or len(content) != fixed.get(kind, len(content))
            or (kind in (GET_VALUES, RESULT) and our_pairs(content) is None)
        )
    else:
        assert (int(said.pop(b"type")), int(said.pop(b"request_id"))) == (kind, stream_id)
        if kind == BEGIN:
            assert (int(said[b"role"]), int(said[b"flags"])) == wire.decode_begin(content)
        elif kind == END:
            assert (int(said[b"app_status"]), int(said[b"protocol_status"])) == wire.decode_end(content)
        elif kind in (GET_VALUES, RESULT):
            assert as_text(said) == dict(wire.decode_pairs(content))
        elif kind == UNKNOWN:
            assert said == {b"unknown_type": b"%d" % content[0]}
        else:
            assert said.get(b"content", b"") == content


# --- Streams ---


@many
@given(st.sampled_from(STREAMS), ids, bodies, st.integers(0, 2**16))
def test_F17_F33_a_stream_is_the_same_bytes_however_each_cuts_it(
    perl: Perl, kind: int, stream_id: int, data: bytes, seed: int
) -> None:
    """We send up to 65,535 bytes in one record and pieces of 32,768 beyond that, Perl pieces of 32,760."""
    ours = wire.encode_stream(kind, stream_id, data)
    built = perl.one("build_stream", kind, stream_id, data, 0)
    by_perl, rest = perl.records(ours)
    by_us = scan(cut(built, seed))
    assert rest == b""
    for found in (by_perl, by_us):
        assert b"".join(content for _, _, content, _ in found) == data
        assert all((record[0], record[1]) == (kind, stream_id) for record in found)
        assert all(content for _, _, content, _ in found)  # an empty record is the end
    if len(data) < 32_760:
        assert ours == built
    # Perl ends a stream in the same call, we in one of its own; the record is the same.
    ended = perl.one("build_stream", kind, stream_id, data, 1)
    assert ended == built + wire.encode_record(kind, stream_id)


# --- Bodies of fixed size ---


@many
@given(ids, st.integers(0, 65_535), st.integers(0, 255))
def test_F29_all_write_and_read_the_same_beginning(perl: Perl, stream_id: int, role: int, flags: int) -> None:
    ours = wire.encode_begin(stream_id, role, flags)
    assert ours == perl.one("build_begin_request_record", stream_id, role, flags)
    assert ours == theirs.FCGIBeginRequest(stream_id, role, flags).encode()
    record = fcgiproto_record(bytearray(ours))
    assert (record.request_id, record.role, record.flags) == (stream_id, role, flags)


@many
@given(ids, st.integers(0, 2**32 - 1), st.integers(0, 255))
@example(1, 2**31, 0)
def test_F32_all_write_and_read_the_same_end(perl: Perl, stream_id: int, app_status: int, status: int) -> None:
    ours = wire.encode_end(stream_id, app_status, status)
    assert ours == perl.one("build_end_request_record", stream_id, app_status, status)
    assert ours == theirs.FCGIEndRequest(stream_id, app_status, status).encode()
    record = fcgiproto_record(bytearray(ours))
    assert (record.request_id, record.app_status, record.protocol_status) == (stream_id, app_status, status)


@many
@given(st.binary(max_size=20))
def test_bodies_of_any_length_are_read_alike(perl: Perl, content: bytes) -> None:
    """The reserved bytes are ignored, and so is what follows the eighth."""
    for function, decode in (
        ("parse_begin_request_body", wire.decode_begin),
        ("parse_end_request_body", wire.decode_end),
    ):
        if len(content) < 8:
            with pytest.raises(PerlError, match="Insufficient number of octets"):
                perl(function, content)
            with pytest.raises(RemoteProtocolError, match="8 are needed"):
                decode(content)
        else:
            first, second = perl(function, content)
            assert (int(first), int(second)) == decode(content)


@pytest.mark.parametrize(
    ("kind", "stream_id", "masked"), [(256 + STDOUT, 1, (STDOUT, 1)), (STDOUT, 65_536, (STDOUT, 0)), (-1, 1, (255, 1))]
)
def test_perl_masks_numbers_that_do_not_fit_and_we_refuse_them(
    perl: Perl, kind: int, stream_id: int, masked: tuple[int, int]
) -> None:
    """An id that wraps is that of another request."""
    [(found_kind, found_id, content, _)] = scan([perl.one("build_record", kind, stream_id, b"x")])
    assert ((found_kind, found_id), content) == (masked, b"x")
    with pytest.raises(LocalProtocolError, match="no record has"):
        wire.encode_record(kind, stream_id, b"x")


def test_too_long_a_content_is_refused_by_all(perl: Perl) -> None:
    content = bytes(65_536)
    with pytest.raises(LocalProtocolError, match="no record has"):
        wire.encode_record(STDOUT, 1, content)
    with pytest.raises(PerlError, match="cannot exceed 65535"):
        perl("build_record", STDOUT, 1, content)
    with pytest.raises(struct.error):
        theirs.FCGIStdout(1, content).encode()


# --- Name-value pairs ---


def _refused_by_fcgiproto(block: bytes) -> bool:
    """Whether fcgiproto takes a block for cut short: where it is, and where its last pair is empty on both sides.

    It wants a byte to follow the lengths of every pair.
    """
    pairs = our_pairs(block)
    return pairs is None or (bool(pairs) and pairs[-1] == ("", ""))


def _check_fcgiproto(block: bytes) -> None:
    """fcgiproto and we make the same of a block, or it is one of those that it cannot read."""
    pairs = our_pairs(block)
    try:
        found = theirs.decode_name_value_pairs(bytearray(block))
    except fcgiproto.ProtocolError:
        assert _refused_by_fcgiproto(block)
    except UnicodeDecodeError:
        # Names are ASCII and values UTF-8 to it; to us they are bytes, as file names are.
        decoded = [(name, value) for name, value in wire.scan_pairs(block)[0]]
        assert not all(name.isascii() and _is_utf8(value) for name, value in decoded)
    else:
        assert found == pairs


def _is_utf8(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


@many
@given(framed_pairs)
def test_F20_F23_pairs_of_all_four_forms_are_read_alike(perl: Perl, framed: list[tuple[bytes, bytes, bool]]) -> None:
    block = b"".join(pair(name, value, long) for name, value, long in framed)
    ours = wire.decode_pairs(block)
    assert ours == [(text(name), text(value)) for name, value, _ in framed]  # in order, repeats and empty names kept
    assert perl("check_params", block) == [b"1"]
    # Perl gives a hash: no order, and the last of several values.
    assert perl.pairs(block) == {name: value for name, value, _ in framed}
    _check_fcgiproto(block)


@many
@given(st.lists(st.tuples(texts, texts), max_size=8))
def test_F20_all_write_the_same_pairs(perl: Perl, pairs: list[tuple[bytes, bytes]]) -> None:
    ours = wire.encode_pairs((text(name), text(value)) for name, value in pairs)
    assert ours == theirs.encode_name_value_pairs(pairs)
    # The order of a hash is its own: one pair at a time is the same bytes, and all together the same pairs.
    for name, value in pairs:
        assert perl.one("build_params", name, value) == wire.encode_pairs([(text(name), text(value))])
    unique = dict(pairs)
    built = perl.one("build_params", *(field for each in unique.items() for field in each))
    assert dict(wire.decode_pairs(built)) == as_text(unique)
    assert len(built) == len(wire.encode_pairs(as_text(unique).items()))


@many
@given(framed_pairs, st.data())
def test_F22_F24_blocks_that_are_cut_or_damaged_are_judged_alike(
    perl: Perl, framed: list[tuple[bytes, bytes, bool]], data: st.DataObject
) -> None:
    block = bytearray(b"".join(pair(name, value, long) for name, value, long in framed))
    for _ in range(data.draw(st.integers(0, 3))):
        if block:
            block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    # Often the last byte alone is missing: that is where a limit is easily one off.
    stop = data.draw(st.one_of(st.just(len(block) - 1), st.integers(0, len(block)))) if block else 0
    _judge(perl, bytes(block[:stop]))


@many
@given(st.one_of(st.binary(max_size=40), few_bytes))
@example(b"\x00")
@example(b"\x01\x00")
@example(b"\x00\x81\x00\x00\x00")
@example(b"\x81\x00\x00\x00\x00")
@example(b"\x00\x00")
@example(b"\x80\x00\x00\x00\x80\x00\x00\x00")
@example(b"\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x80\x00\x00")
def test_F22_F24_any_bytes_are_judged_alike(perl: Perl, block: bytes) -> None:
    _judge(perl, block)


def _judge(perl: Perl, block: bytes) -> None:
    ours, by_perl = our_pairs(block), perl_pairs(perl, block)
    assert (ours is None) == (by_perl is None) == (perl("check_params", block) != [b"1"])
    if ours is not None and by_perl is not None:
        assert dict(ours) == as_text(by_perl)
    _check_fcgiproto(block)


def test_fcgiproto_cannot_read_a_last_pair_that_is_empty(perl: Perl) -> None:
    block = pair(b"A", b"1") + pair(b"", b"")
    assert wire.decode_pairs(block) == [("A", "1"), ("", "")]
    assert perl.pairs(block) == {b"A": b"1", b"": b""}
    with pytest.raises(fcgiproto.ProtocolError, match="not enough data to decode value length"):
        theirs.decode_name_value_pairs(bytearray(block))


# --- Whole conversations ---


def told_by_us(events: list[Any]) -> dict[int, list[object]]:
    """The events of each request in words that both have; adjacent pieces of a body in one."""
    told: dict[int, list[object]] = {}
    for event in events:
        of_request = told.setdefault(event.stream_id, [])
        match event:
            case RequestReceived(_, role, environ, keep):
                of_request.append((role, dict(environ), keep))
            case BodyReceived(_, data) | DataReceived(_, data):
                _add(of_request, type(event).__name__[:4], data)
            case BodyEnded() | DataEnded():
                of_request.append(f"end of {type(event).__name__[:4]}")
            case RequestAborted():
                of_request.append("abort")
            case _:
                raise AssertionError(event)
    return told


def told_by_fcgiproto(events: list[Any]) -> dict[int, list[object]]:
    roles = {number: name for name, number in ROLES.items()}
    told: dict[int, list[object]] = {}
    for event in events:
        of_request = told.setdefault(event.request_id, [])
        match event:
            case fcgiproto.RequestBeginEvent():
                of_request.append((roles[event.role], dict(event.params), bool(event.keep_connection)))
                if event.role == fcgiproto.FCGI_AUTHORIZER:
                    of_request.append("end of Body")  # we say so, for what serves all roles alike
            case fcgiproto.RequestDataEvent() | fcgiproto.RequestSecondaryDataEvent():
                name = "Body" if isinstance(event, fcgiproto.RequestDataEvent) else "Data"
                if event.data:
                    _add(of_request, name, event.data)
                else:
                    of_request.append(f"end of {name}")
            case fcgiproto.RequestAbortEvent():
                of_request.append("abort")
            case _:
                raise AssertionError(event)
    return told


def _add(told: list[object], name: str, data: bytes) -> None:
    match told[-1]:
        case (str(kind), bytes(before)) if kind == name:
            told[-1] = (name, before + data)
        case _:
            told.append((name, data))


def both(data: bytes, seed: int) -> tuple[ServerConnection, Any, dict[int, list[object]]]:
    """Our application's side and fcgiproto's after some input, and what both made of it."""
    ours, other = ServerConnection(roles=tuple(ROLES)), fcgiproto.FastCGIConnection(roles=ROLES.values())
    pieces = cut(data, seed)
    told = told_by_us(feed(ours, pieces))
    assert told_by_fcgiproto([event for piece in pieces for event in other.feed_data(piece)]) == told
    assert ours.data_to_send() == other.data_to_send()
    return ours, other, told


def asked_by_us(
    web: ClientConnection,
    stream_id: int,
    environ: dict[str, str],
    body: bytes,
    *,
    role: str = "responder",
    keep: bool = True,
) -> list[bytes]:
    """A whole request in its records."""
    data = web.send_request(stream_id, environ, role=role, keep_connection=keep)
    if role != "authorizer":
        data += web.send_body(stream_id, body) + web.end_body(stream_id)
    if role == "filter":
        data += web.send_data(stream_id, body[::-1]) + web.end_data(stream_id)
    return [wire.encode_record(*record) for record in scan([data])]


@many
@given(st.sampled_from(sorted(ROLES)), ids, environs, bodies, st.booleans(), st.integers(0, 2**16))
def test_F29_F40_what_we_ask_as_a_web_server_is_understood_by_both(
    role: str, stream_id: int, environ: dict[str, str], body: bytes, keep: bool, seed: int
) -> None:
    parts = asked_by_us(ClientConnection(), stream_id, environ, body, role=role, keep=keep)
    told = both(b"".join(parts), seed)[2]
    expected: list[object] = [(role, environ, keep)]
    if role != "authorizer":
        expected += [("Body", body)] if body else []
    expected.append("end of Body")
    if role == "filter":
        expected += [("Data", body[::-1])] if body else []
        expected.append("end of Data")
    assert told == {stream_id: expected}


@many
@given(st.sampled_from(sorted(ROLES)), ids, environs, bodies, st.booleans(), st.integers(0, 2**16))
def test_F29_F40_what_perl_asks_as_a_web_server_is_understood_by_both(
    perl: Perl, role: str, stream_id: int, environ: dict[str, str], body: bytes, keep: bool, seed: int
) -> None:
    streams = {"responder": [body], "authorizer": [], "filter": [body, body[::-1]]}[role]
    flat = [text.encode() for each in environ.items() for text in each]
    asked = perl.one("build_request", stream_id, ROLES[role], int(keep), len(streams), *streams, *flat)
    told = both(asked, seed)[2][stream_id]
    ours = told_by_us(
        feed(
            ServerConnection(roles=tuple(ROLES)),
            asked_by_us(ClientConnection(), stream_id, environ, body, role=role, keep=keep),
        )
    )
    assert told == ours[stream_id]


@few
@given(
    st.dictionaries(ids, st.tuples(environs, st.binary(max_size=40), st.booleans()), min_size=2, max_size=6),
    st.integers(0, 2**16),
)
def test_F17_requests_that_share_a_connection_are_told_apart_by_both(
    requests: dict[int, tuple[dict[str, str], bytes, bool]], seed: int
) -> None:
    """The records of several requests, shuffled, each request's own in their order; some are aborted."""
    chance = random.Random(seed)
    web = ClientConnection()
    queues: list[list[bytes]] = []
    for stream_id, (environ, body, aborted) in requests.items():
        parts = asked_by_us(web, stream_id, environ, body)
        # After PARAMS: see the test of an abort before that.
        queues.append([*parts[:-1], web.abort(stream_id)] if aborted else parts)
    shuffled: list[bytes] = []
    while queues:
        queue = chance.choice(queues)
        shuffled.append(queue.pop(0))
        queues = [each for each in queues if each]
    told = both(b"".join(shuffled), seed)[2]
    for stream_id, (environ, body, aborted) in requests.items():
        assert told[stream_id] == [
            ("responder", environ, True),
            *([("Body", body)] if body else []),
            "abort" if aborted else "end of Body",
        ]


HEADERS = [(b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
GOT = tuple((name.decode(), value.decode()) for name, value in HEADERS)


@many
@given(
    ids, st.integers(200, 599), bodies.filter(lambda body: len(body) <= 65_535), st.booleans(), st.integers(0, 2**16)
)
def test_F33_the_answer_of_fcgiproto_is_understood(
    stream_id: int, status: int, body: bytes, keep: bool, seed: int
) -> None:
    """It puts no more into a call than fits into a record."""
    web, application = ClientConnection(), fcgiproto.FastCGIConnection()
    for piece in cut(b"".join(asked_by_us(web, stream_id, {"A": "1"}, b"x", keep=keep)), seed):
        application.feed_data(piece)
    application.send_headers(stream_id, HEADERS, status)
    if body:
        application.send_data(stream_id, body)
    application.send_data(stream_id, b"", end_request=False)  # an empty record: the end of STDOUT
    application.end_request(stream_id)
    events = feed(web, cut(application.data_to_send(), seed))
    assert events == [
        HeadReceived(stream_id, status, reason(status), GOT),
        *([BodyReceived(stream_id, body)] if body else []),
        ResponseEnded(stream_id, 0),
    ]
    assert web.reusable is keep


def head(status: int) -> bytes:
    return b"Status: %d\r\n" % status + b"".join(b"%s: %s\r\n" % field for field in HEADERS) + b"\r\n"


def answered_by_us(stream_id: int, status: int, body: bytes, log: str, app_status: int) -> bytes:
    application = ServerConnection()
    application.receive_data(request(stream_id))
    return (
        application.send_log(stream_id, log)
        + application.send_head(stream_id, head(status))
        + application.send_body(stream_id, body)
        + application.end(stream_id, app_status)
    )


@many
@given(
    ids, st.integers(200, 599), bodies, st.text("abc\n", max_size=99), st.integers(0, 2**32 - 1), st.integers(0, 2**16)
)
def test_F32_F35_answers_of_perl_and_ours_are_the_same_answer(
    perl: Perl, stream_id: int, status: int, body: bytes, log: str, app_status: int, seed: int
) -> None:
    """Perl sends the log after the end of the response, and always ends it; we send it first, and end it if it is."""
    by_perl = perl.one("build_end_request", stream_id, app_status, 0, head(status) + body, log.encode())
    ours = answered_by_us(stream_id, status, body, log, app_status)

    found = _streams(scan(cut(by_perl, seed)))
    assert found == _streams(perl.records(ours)[0])
    assert found == {STDOUT: head(status) + body, STDERR: log.encode(), END: struct.pack(">IB3x", app_status, 0)}

    for answer in (by_perl, ours):
        web = ClientConnection()
        asked_by_us(web, stream_id, {}, b"")
        events = feed(web, cut(answer, seed))
        logged = [event.data for event in events if isinstance(event, LogReceived)]
        assert b"".join(logged) == log.encode()
        assert [event for event in events if not isinstance(event, LogReceived)] == [
            HeadReceived(stream_id, status, reason(status), GOT),
            *([BodyReceived(stream_id, body)] if body else []),
            ResponseEnded(stream_id, app_status),
        ]


def _streams(found: list[wire.Record]) -> dict[int, bytes]:
    """What each type carried; every stream but STDERR has to be ended."""
    streams = {STDOUT: b"", STDERR: b"", END: b""}
    for kind, _, content, _ in found:
        streams[kind] += content
    assert found[-1][0] == END
    assert (STDOUT, b"") in [(kind, content) for kind, _, content, _ in found]
    return streams


# --- Management records ---


NAMES = [wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS, "FCGI_OTHER"]


@many
@given(st.sets(st.sampled_from(NAMES)), st.integers(1, 10**9), st.integers(2, 10**9), st.integers(0, 2**16))
def test_F25_F26_F27_values_are_asked_and_told_alike(
    perl: Perl, asked: set[str], connections: int, requests: int, seed: int
) -> None:
    limits = Limits(max_connections=connections, max_ids=requests)
    values = {wire.MAX_CONNS: str(connections), wire.MAX_REQS: str(requests), wire.MPXS_CONNS: "1"}
    block = perl.one("build_params", *(field for name in asked for field in (name.encode(), b"")))
    question = perl.one("build_record", GET_VALUES, 0, block)
    ours, other = ServerConnection(limits=limits), fcgiproto.FastCGIConnection(fcgi_values=dict(values))
    for piece in cut(question, seed):
        assert ours.receive_data(piece) == other.feed_data(piece) == []
    told = {name: value for name, value in values.items() if name in asked}
    for answer in (ours.data_to_send(), other.data_to_send()):
        [(kind, stream_id, content, _)], rest = perl.records(answer)
        assert (kind, stream_id, rest) == (RESULT, 0, b"")
        assert as_text(perl.pairs(content)) == told
        web = ClientConnection()
        assert web.receive_data(answer) == []
        assert web.values == told


def test_F25_fcgiproto_answers_what_our_client_asks() -> None:
    values = {wire.MAX_CONNS: "3", wire.MAX_REQS: "5", wire.MPXS_CONNS: "0"}
    web, application = ClientConnection(), fcgiproto.FastCGIConnection(fcgi_values=dict(values))
    application.feed_data(web.get_values())
    web.receive_data(application.data_to_send())
    assert web.values == values


@many
@given(st.integers(12, 255), st.binary(max_size=40), st.integers(0, 2**16))
def test_F28_an_unknown_management_record_gets_the_same_answer(
    perl: Perl, kind: int, content: bytes, seed: int
) -> None:
    ours, other = ServerConnection(), fcgiproto.FastCGIConnection()
    for piece in cut(rec(kind, 0, content), seed):
        assert ours.receive_data(piece) == other.feed_data(piece) == []
    answer = ours.data_to_send()
    assert answer == other.data_to_send() == perl.one("build_unknown_type_record", kind)
    assert perl("parse_unknown_type_body", answer[8:]) == [b"%d" % kind]


# --- Where fcgiproto judges otherwise ---


@many
@given(ids, st.integers(4, 65_535), st.booleans())
def test_F29_an_unknown_role_gets_the_same_answer_and_then_fcgiproto_cannot_go_on(
    stream_id: int, role: int, keep: bool
) -> None:
    """A web server does not wait for the answer before it sends PARAMS; for us they are late records (F13)."""
    ours, other = ServerConnection(), fcgiproto.FastCGIConnection()
    data = begin(stream_id, role, int(keep))
    assert ours.receive_data(data) == other.feed_data(data) == []
    assert ours.data_to_send() == other.data_to_send() == end(stream_id, 0, wire.UNKNOWN_ROLE)
    assert ours.receive_data(rec(PARAMS, stream_id)) == []
    assert ours.closing is not keep
    with pytest.raises(fcgiproto.ProtocolError, match="received unexpected FCGIParams"):
        other.feed_data(rec(PARAMS, stream_id))


def test_F13_records_of_no_request_are_ignored_by_us_and_fatal_to_fcgiproto() -> None:
    for kind in (ABORT, PARAMS, STDIN, DATA):
        ours, other = ServerConnection(), fcgiproto.FastCGIConnection()
        assert ours.receive_data(rec(kind, 5)) == []
        assert (ours.closing, ours.data_to_send()) == (False, b"")
        with pytest.raises(fcgiproto.ProtocolError, match="received unexpected"):
            other.feed_data(rec(kind, 5))


def test_F37_an_abort_before_the_end_of_params_is_answered_by_us_and_told_by_fcgiproto() -> None:
    """Nobody above us knows the request yet; fcgiproto leaves the answer to a program that never saw it begin."""
    data = begin(3) + rec(ABORT, 3)
    ours, other = ServerConnection(), fcgiproto.FastCGIConnection()
    assert ours.receive_data(data) == []
    assert ours.data_to_send() == end(3)
    [event] = other.feed_data(data)
    assert isinstance(event, fcgiproto.RequestAbortEvent)
    assert other.data_to_send() == b""
    other.end_request(3)
    assert other.data_to_send() == end(3)


def test_F34_an_answer_before_the_end_of_the_body_is_ours_alone() -> None:
    """Section 6.2: FCGI_STDOUT may begin before FCGI_STDIN has ended."""
    data = request(1, body=None) + rec(STDIN, 1, b"half")
    ours, other = ServerConnection(), fcgiproto.FastCGIConnection()
    ours.receive_data(data)
    assert scan([ours.send_head(1, b"Status: 200\r\n\r\n")]) == [(STDOUT, 1, b"Status: 200\r\n\r\n", 1)]
    other.feed_data(data)
    with pytest.raises(fcgiproto.ProtocolError, match="cannot send FCGIStdout"):
        other.send_headers(1, HEADERS)


def test_F34_early_stdin_is_kept_by_us_and_fatal_to_fcgiproto() -> None:
    data = begin(1) + rec(STDIN, 1, b"body") + rec(PARAMS, 1) + rec(STDIN, 1)
    assert feed(ServerConnection(), [data]) == [
        RequestReceived(1, "responder", (), True),
        BodyReceived(1, b"body"),
        BodyEnded(1),
    ]
    with pytest.raises(fcgiproto.ProtocolError, match="received unexpected FCGIStdin"):
        fcgiproto.FastCGIConnection().feed_data(data)
