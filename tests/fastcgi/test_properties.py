"""What holds for every length, every padding and every split: encoding and decoding undo each other, nothing is masked,
and neither the records of a stream nor the reads of a socket show in the events."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import LocalProtocolError
from gateways.events import (
    BodyEnded,
    BodyReceived,
    DataEnded,
    DataReceived,
    HeadReceived,
    LogReceived,
    RequestReceived,
    ResponseEnded,
)
from gateways.fastcgi import ClientConnection, ServerConnection, wire
from tests.fastcgi.tools import (
    ABORT,
    DATA,
    END,
    GET,
    GET_VALUES,
    PARAMS,
    STDERR,
    STDIN,
    STDOUT,
    begin,
    end,
    feed,
    joined,
    pair,
    rec,
    request,
)

ALL_ROLES = ("responder", "authorizer", "filter")
BYTES = random.Random(1).randbytes(70_000)

#: Lengths at which something could go wrong: of padding, of one byte, of two.
LENGTHS = (0, 1, 7, 8, 9, 127, 128, 255, 256, 32_767, 32_768, 65_534, 65_535)


def scan(*pieces: bytes) -> list[wire.Record]:
    scanner = wire.RecordScanner()
    records = [record for piece in pieces for record in scanner.scan(piece)]
    assert not scanner.partial
    return records


def slow_pairs(block: bytes) -> list[tuple[bytes, bytes]]:
    """Section 3.4 read literally; fails where the block ends inside a pair."""
    pairs: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(block):
        lengths: list[int] = []
        for _ in range(2):
            if block[at] < 128:
                lengths.append(block[at])
                at += 1
            else:
                lengths.append(struct.unpack_from(">I", block, at)[0] - 2**31)
                at += 4
        middle, stop = at + lengths[0], at + sum(lengths)
        assert stop <= len(block)
        pairs.append((block[at:middle], block[middle:stop]))
        at = stop
    return pairs


# --- Records ---


@pytest.mark.parametrize("length", LENGTHS)
def test_F10_F12_every_padding_of_a_length_at_a_boundary(length: int) -> None:
    content = BYTES[:length]
    for padding in range(256):
        record = wire.encode_record(STDOUT, 0x0102, content, padding)
        assert record[:8] == bytes((1, STDOUT, 1, 2, length >> 8, length & 255, padding, 0))
        assert record[8:] == content + bytes(padding)
        assert scan(record) == [(STDOUT, 0x0102, content, padding)]
    assert wire.encode_record(STDOUT, 1, content) == wire.encode_record(STDOUT, 1, content, -length % 8)


def test_F10_every_length() -> None:
    # The header and the size; the boundaries above look at all of the content as well.
    for length in range(65_536):
        padding = length * 7 % 256
        record = wire.encode_record(STDIN, 1, bytes(length), padding)
        assert record[:8] == struct.pack(">BBHHBB", 1, STDIN, 1, length, padding, 0)
        assert len(record) == 8 + length + padding


@given(st.integers(0, 255), st.integers(0, 65_535), st.binary(max_size=300), st.integers(0, 255), st.data())
def test_F10_scanning_undoes_encoding(kind: int, stream_id: int, content: bytes, padding: int, data: Any) -> None:
    record = wire.encode_record(kind, stream_id, content, padding)
    assert record == rec(kind, stream_id, content)[:6] + bytes((padding, 0)) + content + bytes(padding)
    cut = data.draw(st.integers(0, len(record)))
    assert scan(record[:cut], record[cut:]) == [(kind, stream_id, content, padding)]


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65_535), st.binary(max_size=40), st.integers(0, 255))))
def test_F10_encoding_undoes_scanning(records: list[wire.Record]) -> None:
    stream = b"".join(wire.encode_record(*record) for record in records)
    assert b"".join(wire.encode_record(*record) for record in scan(stream)) == stream


@pytest.mark.parametrize(
    ("kind", "stream_id", "length", "padding"),
    [
        (256, 1, 0, 0),
        (-1, 1, 0, 0),
        (STDOUT, 65_536, 0, 0),
        (STDOUT, -1, 0, 0),
        (STDOUT, 1, 65_536, 0),
        (STDOUT, 1, 65_536, None),
        (STDOUT, 1, 65_543, 1),
        (STDOUT, 1, 2**17, 0),
        (STDOUT, 1, 0, 256),
        (STDOUT, 1, 0, -1),
        (STDOUT, 1, 65_535, 256),
    ],
)
def test_F10_a_number_that_does_not_fit_is_refused_never_masked(
    kind: int, stream_id: int, length: int, padding: int | None
) -> None:
    with pytest.raises(LocalProtocolError):
        wire.encode_record(kind, stream_id, bytes(length), padding)


@pytest.mark.parametrize(
    "length", [*LENGTHS, 65_536, 65_537, 65_543, 98_303, 98_304, 98_305, 131_071, 131_072, 131_073]
)
def test_F10_F33_a_stream_of_any_length_is_cut_into_records_that_fit(length: int) -> None:
    data = (BYTES * 2)[:length]
    records = scan(wire.encode_stream(STDOUT, 7, data))
    assert b"".join(content for _, _, content, _ in records) == data
    for kind, stream_id, content, padding in records:
        assert (kind, stream_id) == (STDOUT, 7)
        assert content, "an empty record would end the stream"
        assert padding == -len(content) % 8


@given(st.integers(0, 200_000), st.integers(1, 65_535))
def test_F10_a_stream_is_what_went_in(length: int, stream_id: int) -> None:
    data = (BYTES * 3)[:length]
    records = scan(wire.encode_stream(STDIN, stream_id, data))
    assert b"".join(content for _, _, content, _ in records) == data
    assert {record[:2] for record in records} <= {(STDIN, stream_id)}


def test_F29_every_role_and_flag_survives() -> None:
    for role in [*range(300), 0x7FFF, 0x8000, 0xFF00, 0xFFFE, 0xFFFF]:
        for flags in (0, 1, 2, 127, 128, 254, 255):
            [(kind, stream_id, content, _)] = scan(wire.encode_begin(3, role, flags))
            assert (kind, stream_id, len(content)) == (1, 3, 8)
            assert wire.decode_begin(content) == (role, flags)


@pytest.mark.parametrize(("role", "flags"), [(65_536, 0), (65_537, 0), (-1, 0), (1, 256), (1, 257), (1, -1)])
def test_F29_a_role_or_flag_that_does_not_fit_is_not_masked(role: int, flags: int) -> None:
    with pytest.raises(LocalProtocolError):
        wire.encode_begin(1, role, flags)


@given(st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_F32_every_status_survives(app_status: int, protocol_status: int) -> None:
    [(kind, _, content, _)] = scan(wire.encode_end(1, app_status, protocol_status))
    assert (kind, len(content)) == (END, 8)
    assert wire.decode_end(content) == (app_status, protocol_status)


@pytest.mark.parametrize("status", [-1, 2**32, 2**32 + 1, 2**64])
def test_F32_a_status_that_does_not_fit_is_not_masked(status: int) -> None:
    with pytest.raises(LocalProtocolError):
        wire.encode_end(1, status)


# --- Name-value pairs ---

PAIR_LENGTHS = (0, 1, 2, 126, 127, 128, 129, 255, 256, 16_383, 16_384, 65_534, 65_535, 65_536, 65_537)


@pytest.mark.parametrize("name_length", PAIR_LENGTHS)
def test_F20_every_pair_of_lengths_at_a_boundary(name_length: int) -> None:
    for value_length in PAIR_LENGTHS:
        name, value = "n" * name_length, "v" * value_length
        block = wire.encode_pairs([(name, value)])
        # The shortest form: one byte below 128, four above (section 3.4).
        assert len(block) == sum(length + (1 if length < 128 else 4) for length in (name_length, value_length))
        assert slow_pairs(block) == [(name.encode(), value.encode())]
        assert wire.decode_pairs(block) == [(name, value)]
        assert wire.decode_pairs(pair(name.encode(), value.encode(), long=True)) == [(name, value)]
        assert wire.scan_pairs(block[:-1]) == ([], 0)


def test_F20_every_length_around_the_change_of_form() -> None:
    for length in [*range(300), *range(65_530, 65_545)]:
        pairs = [("x" * length, ""), ("", "y" * length), ("ä" * (length // 2), "z" * (length % 2))]
        assert wire.decode_pairs(wire.encode_pairs(pairs)) == pairs


@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=5), st.integers(120, 140).map(lambda length: BYTES[:length])),
            st.one_of(st.binary(max_size=5), st.integers(120, 140).map(lambda length: BYTES[:length])),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_F20_decoding_undoes_encoding_for_any_bytes(rows: list[tuple[bytes, bytes, bool]]) -> None:
    text = [tuple(raw.decode("utf-8", "surrogateescape") for raw in row[:2]) for row in rows]
    assert wire.decode_pairs(b"".join(pair(*row) for row in rows)) == text
    pairs = [(name, value) for name, value in text]
    assert slow_pairs(wire.encode_pairs(pairs)) == [row[:2] for row in rows]


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=4))
def test_F20_encoding_undoes_decoding(pairs: list[tuple[str, str]]) -> None:
    block = wire.encode_pairs(pairs)
    assert wire.encode_pairs(wire.decode_pairs(block)) == block


# --- One stream, many ways to record it (section 3.3) ---


def in_records(draw: Callable[..., Any], kind: int, stream_id: int, data: bytes) -> bytes:
    """One stream in records of any lengths and paddings, with its end."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    pieces = [data[start:stop] for start, stop in pairwise([0, *cuts, len(data)]) if start < stop]
    return b"".join(rec(kind, stream_id, piece, draw(st.integers(0, 255))) for piece in (*pieces, b""))


def in_reads(draw: Callable[..., Any], data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=8)))
    return [data[start:stop] for start, stop in pairwise([0, *cuts, len(data)])]


@given(st.data(), st.binary(max_size=60), st.binary(max_size=60), st.integers(1, 65_535))
def test_F17_F40_a_request_does_not_depend_on_its_records(
    data: st.DataObject, body: bytes, file: bytes, stream_id: int
) -> None:
    params = GET + pair(b"LONG", b"v" * 130)
    stream = begin(stream_id, role=3) + b"".join(
        in_records(data.draw, kind, stream_id, content)
        for kind, content in ((PARAMS, params), (STDIN, body), (DATA, file))
    )
    expected: list[Any] = [
        RequestReceived(stream_id, "filter", (("REQUEST_METHOD", "GET"), ("LONG", "v" * 130)), True),
        BodyReceived(stream_id, body),
        BodyEnded(stream_id),
        DataReceived(stream_id, file),
        DataEnded(stream_id),
    ]
    events = feed(ServerConnection(roles=ALL_ROLES), in_reads(data.draw, stream))
    assert events == [event for event in expected if getattr(event, "data", b"x")]


@given(st.data(), st.binary(max_size=60), st.binary(max_size=60))
def test_F17_F35_a_response_does_not_depend_on_its_records(data: st.DataObject, body: bytes, log: bytes) -> None:
    head = b"Status: 404 Not Found\r\nX: y\r\n\r\n"
    stream = b"".join((in_records(data.draw, STDERR, 1, log), in_records(data.draw, STDOUT, 1, head + body), end(1, 7)))
    connection = ClientConnection()
    connection.send_request(1, {})
    expected: list[Any] = [
        LogReceived(1, log),
        HeadReceived(1, 404, "Not Found", (("X", "y"),)),
        BodyReceived(1, body),
        ResponseEnded(1, 7),
    ]
    events = feed(connection, in_reads(data.draw, stream))
    assert events == [event for event in expected if getattr(event, "data", b"x")]


# --- Every split ---

ASKED = rec(GET_VALUES, 0, pair(b"FCGI_MPXS_CONNS", b""), 3)
WHOLE_CONVERSATIONS = {
    "request": begin() + rec(PARAMS, 1, GET, 5) + rec(PARAMS, 1) + rec(STDIN, 1, b"ab") + rec(STDIN, 1),
    "mixed": begin(2) + begin(1, 3) + ASKED + request(2)[16:] + rec(PARAMS, 1) + rec(STDIN, 1) + rec(DATA, 1, b"x"),
    "aborted": begin() + rec(ABORT, 1) + request(body=None) + rec(STDIN, 1, b"x") + rec(ABORT, 1) + rec(STDIN, 1),
    "broken": request(body=None) + rec(STDIN, 1, b"x") + rec(PARAMS, 1, b"x") + rec(STDIN, 1),
    "of another version": request(body=None) + rec(STDIN, 1, b"x", version=2),
    "http": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
}


@pytest.mark.parametrize("name", WHOLE_CONVERSATIONS)
def test_F17_every_way_to_cut_a_conversation_in_three(name: str) -> None:
    stream = WHOLE_CONVERSATIONS[name]

    def outcome(*pieces: bytes) -> object:
        connection = ServerConnection(roles=ALL_ROLES)
        events = [event for piece in pieces for event in connection.receive_data(piece)]
        return joined(events), connection.data_to_send(), connection.closing, connection.statistics(), repr(connection)

    whole = outcome(stream)
    for first, second in combinations(range(1, len(stream)), 2):
        assert outcome(stream[:first], stream[first:second], stream[second:]) == whole, (first, second)


@pytest.mark.parametrize(
    "stream",
    [
        rec(STDERR, 1, b"log") + rec(STDOUT, 1, b"Status: 200 OK\n\nbody", 4) + rec(STDOUT, 1) + end(),
        rec(STDOUT, 2, b"Status: 200") + rec(STDOUT, 1, b"\n") + rec(STDOUT, 2, b"\n\nx") + end(2, 1) + end(1, 0, 2),
        rec(STDOUT, 1, b"Status: 200 OK\n\n") + rec(STDOUT, 9, b"of nobody"),
    ],
    ids=["response", "mixed", "broken"],
)
def test_F17_every_way_to_cut_a_response_in_three(stream: bytes) -> None:
    def outcome(*pieces: bytes) -> object:
        connection = ClientConnection()
        for stream_id in (1, 2):
            connection.send_request(stream_id, {}, keep_connection=True)
        events = [event for piece in pieces for event in connection.receive_data(piece)]
        return joined(events), connection.reusable, repr(connection)

    whole = outcome(stream)
    for first, second in combinations(range(1, len(stream)), 2):
        assert outcome(stream[:first], stream[first:second], stream[second:]) == whole, (first, second)


# --- An id, used again ---


def test_F14_an_id_that_ended_early_is_clean_when_it_is_used_again() -> None:
    app = ServerConnection()
    app.receive_data(request(body=None))
    app.end(1)  # before its body: the rest may still come
    app.receive_data(rec(STDIN, 1, b"late") + request())
    app.end(1)  # after its body: nothing more may come
    assert app.statistics().ignored == 0
    app.receive_data(rec(STDIN, 1, b"of nobody"))
    assert app.statistics().ignored == 1
