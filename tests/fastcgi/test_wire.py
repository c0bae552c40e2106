"""Records and name-value pairs."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways.fastcgi import wire
from tests.captures import load_web
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    END,
    GET,
    GET_VALUES,
    PARAMS,
    STDIN,
    STDOUT,
    begin,
    pair,
    rec,
    request,
    splits,
)


def scan(pieces: list[bytes]) -> list[wire.Record]:
    scanner = wire.RecordScanner()
    return [record for piece in pieces for record in scanner.scan(piece)]


def slow_pairs(block: bytes) -> list[tuple[bytes, bytes]] | None:
    """The obvious decoder of section 3.4, one byte at a time; None where the block ends inside a pair."""
    rest = list(block)
    pairs: list[tuple[bytes, bytes]] = []

    def length() -> int:
        first = rest.pop(0)
        if first < 128:
            return first
        return ((first - 128) << 24) + (rest.pop(0) << 16) + (rest.pop(0) << 8) + rest.pop(0)

    try:
        while rest:
            sizes = length(), length()
            if sum(sizes) > len(rest):
                return None
            name, value = (bytes(rest.pop(0) for _ in range(size)) for size in sizes)
            pairs.append((name, value))
    except IndexError:
        return None
    return pairs


# --- Records ---


def test_F42_constants_are_those_of_section_8() -> None:
    assert wire.TYPES == {
        1: ("BEGIN_REQUEST", "5.1"),
        2: ("ABORT_REQUEST", "5.4"),
        3: ("END_REQUEST", "5.5"),
        4: ("PARAMS", "5.2"),
        5: ("STDIN", "5.3"),
        6: ("STDOUT", "5.3"),
        7: ("STDERR", "5.3"),
        8: ("DATA", "5.3"),
        9: ("GET_VALUES", "4.1"),
        10: ("GET_VALUES_RESULT", "4.1"),
        11: ("UNKNOWN_TYPE", "4.2"),
    }
    assert all(getattr(wire, name) == number for number, (name, _) in wire.TYPES.items())
    assert wire.ROLES == {1: "responder", 2: "authorizer", 3: "filter"}
    assert (wire.RESPONDER, wire.AUTHORIZER, wire.FILTER) == (1, 2, 3)
    assert wire.STATUSES == {0: "REQUEST_COMPLETE", 1: "CANT_MPX_CONN", 2: "OVERLOADED", 3: "UNKNOWN_ROLE"}
    assert all(getattr(wire, name) == number for number, name in wire.STATUSES.items())
    assert (wire.VERSION, wire.HEADER_LENGTH, wire.MAX_CONTENT) == (1, 8, 65535)
    assert (wire.KEEP_CONN, wire.NULL_REQUEST_ID) == (1, 0)
    assert (wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS) == ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS")


def test_F10_header_is_big_endian() -> None:
    assert wire.encode_record(STDOUT, 0x0102, b"hello") == b"\1\6\1\2\0\5\3\0hello\0\0\0"


def test_padding_is_zeros_of_any_length() -> None:
    for padding in (0, 1, 254, 255):
        assert wire.encode_record(STDOUT, 1, b"", padding) == bytes((1, 6, 0, 1, 0, 0, padding, 0)) + bytes(padding)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 65535])
def test_F12_records_are_padded_to_a_multiple_of_8(length: int) -> None:
    record = wire.encode_record(STDOUT, 1, b"x" * length)
    assert len(record) % 8 == 0
    assert len(record) - 8 - length == record[6] < 8


@given(
    st.integers(0, 255),
    st.integers(0, 65535),
    st.one_of(st.integers(0, 300), st.integers(65000, 65535)),
    st.integers(0, 255),
    st.data(),
)
def test_any_record_survives_encoding_and_scanning(
    kind: int, stream_id: int, length: int, padding: int, data: st.DataObject
) -> None:
    content = random.Random(length).randbytes(length)
    stream = wire.encode_record(kind, stream_id, content, padding)
    cut = data.draw(st.integers(1, len(stream) - 1))
    assert (
        scan([stream[:cut], stream[cut:] + stream + stream[:cut], stream[cut:]])
        == [(kind, stream_id, content, padding)] * 3
    )


@pytest.mark.parametrize(
    ("stream_id", "length", "padding"), [(1, 65536, None), (65536, 0, None), (-1, 0, None), (1, 0, 256), (1, 0, -1)]
)
def test_nothing_that_does_not_fit_is_masked(stream_id: int, length: int, padding: int | None) -> None:
    shown = 0 if padding is None else padding
    with pytest.raises(
        LocalProtocolError,
        match=f"^no record has type 6, request id {stream_id}, {length} bytes and {shown} bytes of padding: .",
    ):
        wire.encode_record(STDOUT, stream_id, b"x" * length, padding)


@pytest.mark.parametrize("length", [1, 32768, 65535, 65536, 65537, 99_000, 131_072, 1_000_003])
def test_K02_long_data_is_split_into_records_that_fit(length: int) -> None:
    data = random.Random(length).randbytes(length)
    stream = wire.encode_stream(STDOUT, 9, data)
    records = scan([stream])
    assert b"".join(content for _, _, content, _ in records) == data
    assert {(kind, stream_id) for kind, stream_id, _, _ in records} == {(STDOUT, 9)}
    assert all(0 < len(content) <= 65535 for _, _, content, _ in records)
    assert all(len(content) >= 16384 for _, _, content, _ in records[:-1])
    assert len(stream) % 8 == 0


def test_K02_what_fits_is_one_record() -> None:
    data = random.Random(1).randbytes(65535)
    assert scan([wire.encode_stream(STDOUT, 9, data)]) == [(STDOUT, 9, data, 1)]


def test_K02_F12_longer_data_comes_in_pieces_of_which_the_last_one_alone_is_padded() -> None:
    data = random.Random(2).randbytes(100_001)
    stream = wire.encode_stream(STDOUT, 9, data)
    assert [padding for _, _, _, padding in scan([stream])] == [0, 0, 0, 7]
    pieces = [data[i : i + 32768] for i in range(0, len(data), 32768)]
    assert stream == b"".join(wire.encode_record(STDOUT, 9, piece) for piece in pieces)


def test_F33_no_data_makes_no_record() -> None:
    assert wire.encode_stream(STDOUT, 1, b"") == b""
    assert wire.encode_pieces(STDOUT, 1, b"") == []


@pytest.mark.parametrize("length", [1, 8, 32768, 65535, 65536, 65537, 131_072, 1_000_003])
def test_pieces_of_a_stream_are_its_records_with_the_data_itself_in_them(length: int) -> None:
    data = random.Random(length).randbytes(length)
    pieces = wire.encode_pieces(STDOUT, 9, data)
    assert b"".join(pieces) == wire.encode_stream(STDOUT, 9, data)
    assert all(pieces)
    assert sum(len(piece) for piece in pieces if isinstance(piece, memoryview) and piece.obj is data) == length


def test_F10_F17_a_stream_is_the_same_however_it_is_split() -> None:
    stream = begin() + rec(PARAMS, 1, GET, 255) + rec(PARAMS, 1, b"", 3) + rec(STDIN, 65535, b"x" * 300, 1)
    whole = scan([stream])
    assert [(kind, stream_id, padding) for kind, stream_id, _, padding in whole] == [
        (BEGIN, 1, 0),
        (PARAMS, 1, 255),
        (PARAMS, 1, 3),
        (STDIN, 65535, 1),
    ]
    for pieces in splits(stream):
        assert scan(pieces) == whole


def test_F10_W53_reserved_byte_and_padding_mean_nothing() -> None:
    stream = b"\1\5\0\7\0\2\3\xffhi\xff\1\5" + b"\1\5\0\7\0\0\2\1\1\5" + b"\1\2\0\7\0\0\0\xaa"
    for pieces in splits(stream):
        assert scan(pieces) == [(STDIN, 7, b"hi", 3), (STDIN, 7, b"", 2), (ABORT, 7, b"", 0)]


def test_W34_W35_every_length_can_be_the_largest() -> None:
    content = random.Random(3).randbytes(65535)
    stream = rec(BEGIN, 65535, bytes(8), 255) + rec(PARAMS, 65535, b"", 255) + rec(STDIN, 65535, content, 255)
    for pieces in [*splits(stream * 2), [stream[:-1], stream[-1:] + stream]]:
        assert (
            scan(pieces) == [(BEGIN, 65535, bytes(8), 255), (PARAMS, 65535, b"", 255), (STDIN, 65535, content, 255)] * 2
        )


def test_all_splits_of_a_short_stream_give_the_same_records() -> None:
    stream = rec(GET_VALUES, 0) + rec(STDIN, 7, b"\1" * 4, 2)
    whole = scan([stream])
    for mask in range(2 ** (len(stream) - 9)):  # the first header in one piece: the rest in every possible way
        cuts = [0, *(i + 9 for i in range(len(stream) - 9) if mask >> i & 1), len(stream)]
        assert scan([stream[a:b] for a, b in pairwise(cuts)]) == whole


def test_scanner_keeps_no_more_than_one_record() -> None:
    scanner = wire.RecordScanner()
    assert len(list(scanner.scan(rec(STDIN, 1, b"x" * 65535, 255) * 3 + b"\1"))) == 3
    assert scanner.partial == b"\1"
    assert scanner.offset == 3 * (8 + 65535 + 255)


def test_F17_scanner_puts_a_record_together_once_and_not_for_each_piece() -> None:
    scanner = wire.RecordScanner()
    stream = rec(STDIN, 1) + rec(STDIN, 1, b"x" * 300, 7)
    needed: list[int] = []
    for i in range(len(stream)):
        list(scanner.scan(stream[i : i + 1]))
        needed.append(scanner._need)
    # What is looked at again: whole headers, then whole records.
    assert needed == [8] * 15 + [315] * 307 + [8]
    assert not scanner.partial
    assert scanner.offset == len(stream)


@pytest.mark.parametrize(
    ("start", "guess"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP on a FastCGI port"),
        (b"PUT /x HTTP/1.1\r\n", "HTTP on a FastCGI port"),
        (b"PROPFIND /x", "HTTP on a FastCGI port"),
        (b"HTTP/1.1 200 OK", "HTTP on a FastCGI port"),
        (b"PROXY TCP4 127.0.0.1", "the PROXY protocol on a FastCGI port"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", "TLS on a FastCGI port"),
        (b"70:CONTENT_LENGTH", "SCGI on a FastCGI port"),
        (b"1000000:CONTENT", "SCGI on a FastCGI port"),
        (b"\0" * 8, "version 0 instead of 1 in the record at byte 0"),
        (b":abcdefgh", "version 58 instead of 1 in the record at byte 0"),
        (b"abcdefghi", "version 97 instead of 1 in the record at byte 0"),
        (b"AB cdefgh", "version 65 instead of 1 in the record at byte 0"),
        (b"AB1defghi", "version 65 instead of 1 in the record at byte 0"),
        (b"99999999999:", "version 57 instead of 1 in the record at byte 0"),
        (b"GET/x HTTP/1.0", "HTTP on a FastCGI port"),
        (b"PROXY/TCP4", "the PROXY protocol on a FastCGI port"),
        (b"AB/cdefgh", "version 65 instead of 1 in the record at byte 0"),
        (b"\x16\x02\x01\x02\x00\x01\x00\x01", "version 22 instead of 1 in the record at byte 0"),
        (b"7:a:bcdef", "SCGI on a FastCGI port"),
        (b"7a:bcdefg", "version 55 instead of 1 in the record at byte 0"),
    ],
)
def test_W50_other_protocols_are_recognised(start: bytes, guess: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        scan([start])
    assert str(caught.value).startswith(guess)


def test_no_guess_is_no_text() -> None:
    assert wire.guess_protocol(b"abcdefgh") == ""
    assert wire.guess_protocol(b"\1\1\0\1\0\10\0\0") == ""


def test_a_guess_is_made_at_the_start_of_a_stream_only() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^version 71 instead of 1 in the record at byte 8$"):
        scan([rec(STDIN, 1) + b"GET / HTTP/1.1"])


def test_bytes_taken_before_the_scanner_count_in_its_offset() -> None:
    scanner = wire.RecordScanner()
    scanner.offset += 100
    assert len(list(scanner.scan(rec(STDIN, 1, b"x", 7) + rec(STDIN, 1)[:3]))) == 1
    assert scanner.offset == 116
    with pytest.raises(RemoteProtocolError, match=r"^version 9 instead of 1 in the record at byte 124$"):
        list(scanner.scan(rec(STDIN, 1)[3:] + b"\x09" * 8))


# --- The usual request and the usual answer, at once ---


def slow_request(data: bytes) -> tuple[int, int, int, bytes, int] | None:
    """What :func:`wire.read_request` promises, record by record."""
    scanner = wire.RecordScanner()
    records: list[wire.Record] = []
    try:
        for record in scanner.scan(data):
            records.append(record)
            if len(records) == 3:
                break
    except RemoteProtocolError:
        pass
    if [kind for kind, *_ in records] != [BEGIN, PARAMS, PARAMS] or len(
        {stream_id for _, stream_id, *_ in records}
    ) > 1:
        return None
    (_, stream_id, body, _), (_, _, params, _), (_, _, nothing, _) = records
    if stream_id == 0 or len(body) != 8 or not params or nothing:
        return None
    return stream_id, *wire.decode_begin(body), params, scanner.offset


def test_usual_request_is_read_at_once() -> None:
    head = begin(7, 3, 255) + rec(PARAMS, 7, GET) + rec(PARAMS, 7)
    for rest in (b"", rec(STDIN, 7), b"\1", b"anything at all"):
        assert wire.read_request(head + rest) == (7, 3, 255, GET, len(head)) == slow_request(head + rest)


@pytest.mark.parametrize("paddings", [(1, 0, 0), (0, 7, 0), (0, 0, 255), (255, 255, 255)])
def test_usual_request_may_be_padded_anywhere(paddings: tuple[int, int, int]) -> None:
    records = (BEGIN, b"\0\1\1" + bytes(5)), (PARAMS, GET), (PARAMS, b"")
    head = b"".join(rec(kind, 65535, content, pad) for (kind, content), pad in zip(records, paddings, strict=True))
    assert wire.read_request(head + rec(STDIN, 65535)) == (65535, 1, 1, GET, len(head))
    for length in range(len(head)):
        assert wire.read_request(head[:length]) is None


UNUSUAL: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("id 0", begin(0) + rec(PARAMS, 0, GET) + rec(PARAMS, 0)),
    ("version 0 of the begin", rec(BEGIN, 1, bytes(8), version=0) + rec(PARAMS, 1, GET) + rec(PARAMS, 1)),
    ("version 2 of the PARAMS", begin() + rec(PARAMS, 1, GET, version=2) + rec(PARAMS, 1)),
    ("version 2 of the end", begin() + rec(PARAMS, 1, GET) + rec(PARAMS, 1, version=2)),
    ("PARAMS of another id", begin() + rec(PARAMS, 2, GET) + rec(PARAMS, 1)),
    ("end of another id", begin() + rec(PARAMS, 1, GET) + rec(PARAMS, 2)),
    ("a long begin", rec(BEGIN, 1, bytes(16)) + rec(PARAMS, 1, GET) + rec(PARAMS, 1)),
    ("a short begin", rec(BEGIN, 1, bytes(7)) + rec(PARAMS, 1, GET) + rec(PARAMS, 1)),
    ("a begin that is short but for its padding", rec(BEGIN, 1, b"", 8) + rec(PARAMS, 1, GET) + rec(PARAMS, 1)),
    ("no PARAMS", begin() + rec(PARAMS, 1) + rec(STDIN, 1)),
    ("PARAMS that end twice", begin() + rec(PARAMS, 1) + rec(PARAMS, 1)),
    ("two records of PARAMS", begin() + rec(PARAMS, 1, GET[:9]) + rec(PARAMS, 1, GET[9:]) + rec(PARAMS, 1)),
    ("STDIN for the end", begin() + rec(PARAMS, 1, GET) + rec(STDIN, 1)),
    ("STDIN for PARAMS", begin() + rec(STDIN, 1, GET) + rec(PARAMS, 1)),
    ("something else first", rec(GET_VALUES, 0) + request()),
    ("ABORT for the begin", rec(ABORT, 1, bytes(8)) + rec(PARAMS, 1, GET) + rec(PARAMS, 1)),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
]


@pytest.mark.parametrize("data", [row[1] for row in UNUSUAL], ids=[row[0] for row in UNUSUAL])
def test_any_other_request_is_left_to_the_scanner(data: bytes) -> None:
    assert slow_request(data) is None
    assert wire.read_request(data) is None


@given(st.integers(0, 80), st.integers(0, 255), st.integers(0, 90))
def test_request_with_a_byte_changed_is_read_as_the_scanner_reads_it(at: int, byte: int, length: int) -> None:
    usual = bytearray(begin() + rec(PARAMS, 1, GET, 3) + rec(PARAMS, 1, b"", 2) + rec(STDIN, 1))
    usual[at % len(usual)] = byte
    assert wire.read_request(bytes(usual)) == slow_request(bytes(usual))
    assert wire.read_request(bytes(usual[:length])) == slow_request(bytes(usual[:length]))


@given(
    st.lists(
        st.builds(
            rec,
            st.sampled_from([BEGIN, PARAMS, STDIN]),
            st.integers(0, 2),
            st.sampled_from([b"", bytes(8), GET]),
            st.integers(0, 2),
            st.sampled_from([1, 1, 1, 2]),
        ),
        max_size=4,
    )
)
def test_any_records_are_read_as_the_scanner_reads_them(records: list[bytes]) -> None:
    assert wire.read_request(b"".join(records)) == slow_request(b"".join(records))


def slow_body(data: bytes, stream_id: int) -> bytes | None:
    """What :func:`wire.read_body` promises, record by record."""
    scanner = wire.RecordScanner()
    try:
        records = list(scanner.scan(data))
    except RemoteProtocolError:
        return None
    if scanner.partial or [(kind, number) for kind, number, *_ in records] != [(STDIN, stream_id)] * 2:
        return None
    (_, _, content, _), (_, _, nothing, padding) = records
    return content if content and not nothing and not padding else None


@pytest.mark.parametrize("padding", [0, 3, 255])
def test_small_body_is_read_at_once(padding: int) -> None:
    data = rec(STDIN, 300, b"body", padding) + rec(STDIN, 300)
    assert wire.read_body(data, 300) == b"body" == slow_body(data, 300)
    for length in range(len(data)):
        assert wire.read_body(data[:length], 300) is None
    assert wire.read_body(data + b"\1", 300) is None
    assert wire.read_body(data, 301) is None


@given(
    st.lists(
        st.builds(
            rec,
            st.sampled_from([BEGIN, STDIN, STDIN, STDIN]),
            st.integers(1, 2),
            st.sampled_from([b"", b"body", bytes(8)]),
            st.integers(0, 2),
            st.sampled_from([1, 1, 1, 2]),
        ),
        max_size=3,
    ),
    st.integers(0, 40),
    st.integers(0, 255),
)
def test_any_records_are_the_body_that_the_scanner_finds(records: list[bytes], at: int, byte: int) -> None:
    data = bytearray(b"".join(records))
    assert wire.read_body(bytes(data), 1) == slow_body(bytes(data), 1)
    data[at : at + 1] = bytes([byte])
    assert wire.read_body(bytes(data), 1) == slow_body(bytes(data), 1)


def slow_answer(stream_id: int, data: bytes, app_status: int) -> bytes:
    stdout = wire.encode_stream(STDOUT, stream_id, data) + wire.encode_record(STDOUT, stream_id)
    return stdout + wire.encode_end(stream_id, app_status)


@pytest.mark.parametrize("length", [*range(18), 65533, 65535, 65536, 100_001])
def test_answer_at_once_is_its_records_one_by_one(length: int) -> None:
    data = random.Random(length).randbytes(length)
    for stream_id, app_status in ((1, 0), (65535, 2**32 - 1), (258, 1)):
        assert wire.encode_answer(stream_id, data, app_status) == slow_answer(stream_id, data, app_status)
    assert wire.encode_answer(1, data) == slow_answer(1, data, 0)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 70_000])
@pytest.mark.parametrize("stream_id", [-1, 65536])
def test_answer_needs_a_request_id_that_fits(stream_id: int, data: bytes) -> None:
    with pytest.raises(LocalProtocolError, match=rf"^no record has type \d, request id {stream_id}, "):
        wire.encode_answer(stream_id, data)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 70_000])
@pytest.mark.parametrize("status", [-1, 2**32])
def test_F32_answer_needs_an_application_status_that_fits(status: int, data: bytes) -> None:
    with pytest.raises(LocalProtocolError, match=rf"an application status is 0 to 2\*\*32 - 1, not {status}\b"):
        wire.encode_answer(1, data, status)


# --- Pairs ---


@pytest.mark.parametrize("name_length", [0, 1, 127, 128, 65535, 70000])
@pytest.mark.parametrize("value_length", [0, 1, 127, 128, 65535, 70000])
@pytest.mark.parametrize("long", [False, True])
def test_F20_W24_all_four_forms_of_a_pair(name_length: int, value_length: int, long: bool) -> None:
    name, value = b"N" * name_length, b"v" * value_length
    block = pair(name, value, long)
    assert wire.decode_pairs(block + GET) == [(name.decode(), value.decode()), ("REQUEST_METHOD", "GET")]
    if not long:
        assert wire.encode_pairs([(name.decode(), value.decode())]) == block


def test_F22_W25_empty_names_and_values_are_pairs() -> None:
    assert wire.decode_pairs(b"\0\0\0\1x\1\0y") == [("", ""), ("", "x"), ("y", "")]
    assert wire.decode_pairs(b"\0" * 40) == [("", "")] * 20
    assert wire.decode_pairs(b"") == []


def test_pairs_are_utf8_and_lose_no_byte() -> None:
    raw = [(b"A", "€/ü".encode()), (b"HTTP_X", b"latin-1: \xe9\xff"), (b"\xfe", b"\0"), (b"B", b"plain")]
    pairs = wire.decode_pairs(b"".join(pair(*p) for p in raw))
    assert pairs[0] == ("A", "€/ü")
    assert [(n.encode("utf-8", "surrogateescape"), v.encode("utf-8", "surrogateescape")) for n, v in pairs] == raw


@given(st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=200)), max_size=8))
def test_pairs_survive_decoding_and_encoding(raw: list[tuple[bytes, bytes]]) -> None:
    block = b"".join(pair(name, value) for name, value in raw)
    pairs = wire.decode_pairs(block)
    assert len(pairs) == len(raw)
    assert wire.encode_pairs(pairs) == block


@given(
    st.one_of(
        st.binary(max_size=60), st.text(alphabet="\0\1\2\3\x80\x81", max_size=40).map(lambda s: s.encode("latin-1"))
    )
)
def test_fast_decoder_agrees_with_the_slow_one(block: bytes) -> None:
    wanted = slow_pairs(block)
    if wanted is None:
        with pytest.raises(RemoteProtocolError, match="cut short"):
            wire.decode_pairs(block)
    else:
        pairs = wire.decode_pairs(block)
        assert [tuple(t.encode("utf-8", "surrogateescape") for t in p) for p in pairs] == wanted


@pytest.mark.parametrize(
    ("pairs", "plain"),
    [
        ([], True),
        ([(b"A", b"1")], True),
        ([(b"B", b""), (b"A", b"\0\x7f"), (b"", b"x")], True),
        ([(b"N" * 127, b"v" * 127)], True),
        ([(b"A", b"v" * 128), (b"B", b"w" * 70_000), (b"C", b"")], True),
        ([(b"A", b"v" * 0x8080), (b"B", b"w" * 255)], True),
        ([(b"N" * 128, b"v")], False),
        ([(b"N" * 128, b"v" * 128)], False),
        ([(b"A", "€".encode())], False),
        ([("É".encode(), b"1")], False),
        ([(b"A", b"v" * 200), (b"B", b"\xff")], False),
        ([(b"B", b"\xff"), (b"A", b"v" * 200)], False),
        ([(b"A", b"v" * 200 + b"\x80"), (b"B", b"w" * 200)], False),
        ([(b"A", b"1"), (b"A", b"1")], False),
        ([(b"", b""), (b"", b"")], False),
    ],
)
def test_plain_pairs_are_a_dictionary_and_others_are_not(pairs: list[tuple[bytes, bytes]], plain: bool) -> None:
    block = b"".join(pair(*p) for p in pairs)
    decoded = wire.read_plain(block, len(pairs))
    assert (None if decoded is None else list(decoded.items())) == (wire.decode_pairs(block) if plain else None)


def test_plain_pairs_are_whole_and_no_more_than_allowed() -> None:
    block = pair(b"A", b"1") + pair(b"COOKIE", b"x" * 200) + pair(b"B", b"22")
    assert wire.read_plain(block, 3) == {"A": "1", "COOKIE": "x" * 200, "B": "22"}
    assert wire.read_plain(block, 2) is None
    ends = {0, 4, 4 + 5 + 6 + 200, len(block)}
    for length in range(len(block)):
        assert (wire.read_plain(block[:length], 3) is None) is (length not in ends)


def test_lengths_in_four_bytes_are_plain_for_values_only() -> None:
    assert wire.read_plain(b"\1\x80\0\0\1A1", 1) == {"A": "1"}
    assert wire.read_plain(pair(b"A", b"1", long=True), 1) is None
    assert wire.read_plain(b"\1\xff\xff\xff\xffA1", 1) is None
    assert wire.read_plain(b"\1\x81\0\0\1A1", 1) is None
    # The length of the name is 2**31 - 2**23 + 1, not 255.
    assert wire.read_plain(b"\xff\x80\0\0\1" + b"N" * 255 + b"v", 1) is None


NAMES = st.text(st.characters(codec="ascii"), max_size=130).map(str.encode) | st.binary(max_size=4)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6), st.integers(0, 6))
def test_plain_decoder_takes_what_is_plain_and_nothing_else(raw: list[tuple[bytes, bytes]], most: int) -> None:
    block = b"".join(pair(*p) for p in raw)
    pairs = wire.decode_pairs(block)
    plain = (
        all(name.isascii() and value.isascii() and len(name) < 128 for name, value in raw)
        and len({name for name, _ in raw}) == len(raw) <= most
    )
    assert wire.read_plain(block, most) == (dict(pairs) if plain else None)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(alphabet="\0\1\2\3A", max_size=40).map(str.encode),
        st.text(alphabet="\0\1\2\3\x80\x81", max_size=40).map(lambda s: s.encode("latin-1")),
    )
)
def test_plain_decoder_never_differs_from_the_slow_one(block: bytes) -> None:
    decoded = wire.read_plain(block, 100)
    wanted = slow_pairs(block)
    if decoded is not None:
        assert [(name.encode("ascii"), value.encode("ascii")) for name, value in decoded.items()] == wanted
    elif block.isascii():
        # No length is longer than one byte, so what is not plain is cut short, or repeats a name.
        assert wanted is None or len(dict(wanted)) < len(wanted)


def test_real_requests_are_plain_nearly_always() -> None:
    at_once = plain = 0
    captures = [capture for capture in load_web() if capture.fcgi is not None]
    for capture in captures:
        found = wire.read_request(capture.wire)
        assert found == slow_request(capture.wire), capture.id
        if found is None:
            continue
        at_once += 1
        pairs = wire.decode_pairs(found[3])
        decoded = wire.read_plain(found[3], 1000)
        assert decoded is None or list(decoded.items()) == pairs, capture.id
        plain += decoded is not None
    assert (len(captures), at_once, plain) == (576, 566, 505)


def test_F24_every_cut_through_a_pair_is_noticed() -> None:
    first, second = pair(b"A", b"1"), pair(b"LONG", b"x" * 200, long=True)
    for length in range(1, len(second)):
        block = first + second[:length]
        assert wire.scan_pairs(block) == ([("A", "1")], len(first))
        with pytest.raises(
            RemoteProtocolError, match=f"^name-value pair 2 is cut short: it begins at byte 4 of {len(block)}$"
        ):
            wire.decode_pairs(block)


def peak(act: Callable[[], object]) -> int:
    """The memory that a call takes at most, in bytes."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("block", [b"\xff" * 8, b"\xff" * 8 + b"x" * 1000, b"\0\xff\xff\xff\xff", b"\x7f\0ab"])
def test_W23_F22_declared_lengths_are_compared_and_allocate_nothing(block: bytes) -> None:
    assert wire.scan_pairs(block) == ([], 0)
    assert peak(lambda: wire.scan_pairs(block)) < 100_000
    with pytest.raises(
        RemoteProtocolError, match=f"^name-value pair 1 is cut short: it begins at byte 0 of {len(block)}$"
    ):
        wire.decode_pairs(block)


def test_pairs_over_the_limit_are_not_even_read() -> None:
    block = b"\0" * 200_000

    def decode() -> None:
        with pytest.raises(LimitExceeded, match=r"^more than 10 name-value pairs$"):
            wire.decode_pairs(block, 10)

    # The text of the block is made as a whole; a hundred thousand pairs would be several times that.
    assert peak(decode) < 1_000_000


def test_number_of_pairs_is_limited() -> None:
    block = b"\0\0" * 5
    assert len(wire.decode_pairs(block, 5)) == 5
    with pytest.raises(LimitExceeded, match=r"^more than 4 name-value pairs$") as caught:
        wire.decode_pairs(block, 4)
    assert caught.value.status == 431


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([("A", 1)], "^names and values are text, not int$"),
        ([(b"A", "1")], "^names and values are text, not bytes$"),
        ([("A", "\ud800")], "^a name or value cannot be encoded: 'utf-8' codec can't encode character"),
    ],
)
def test_only_text_becomes_pairs(pairs: list[tuple[str, str]], problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        wire.encode_pairs(pairs)


def test_F22_a_length_over_31_bits_is_refused_not_masked() -> None:
    assert wire._encode_length(2**31 - 1) == b"\xff\xff\xff\xff"
    with pytest.raises(LocalProtocolError, match=r"^a name or value of 2147483648 bytes is over 2\*\*31 - 1$"):
        wire._encode_length(2**31)


# --- Bodies of single records ---


def test_begin_and_end_survive_encoding_and_decoding() -> None:
    assert wire.encode_begin(7, 3, 1) == rec(BEGIN, 7, b"\0\3\1\0\0\0\0\0")
    assert wire.decode_begin(b"\0\3\1\0\0\0\0\0") == (3, 1)
    assert wire.encode_end(7, 2**32 - 1, 2) == rec(END, 7, b"\xff\xff\xff\xff\2\0\0\0")
    assert wire.decode_end(b"\xff\xff\xff\xff\2\0\0\0") == (2**32 - 1, 2)
    assert wire.encode_end(7) == rec(END, 7, bytes(8))


@pytest.mark.parametrize("length", range(8))
def test_bodies_of_less_than_8_bytes_are_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^BEGIN_REQUEST of {length} bytes, 8 are needed$"):
        wire.decode_begin(bytes(length))
    with pytest.raises(RemoteProtocolError, match=f"^END_REQUEST of {length} bytes, 8 are needed$"):
        wire.decode_end(bytes(length))


def test_bytes_beyond_the_eighth_are_ignored() -> None:
    assert wire.decode_begin(b"\0\3\1\xff\xff\xff\xff\xff\xff") == (3, 1)
    assert wire.decode_end(b"\0\0\1\0\3\xff\xff\xff\xff") == (256, 3)


@pytest.mark.parametrize("status", [-1, 2**32])
def test_F32_application_status_has_32_bits(status: int) -> None:
    with pytest.raises(LocalProtocolError, match=rf"an application status is 0 to 2\*\*32 - 1, not {status}\b"):
        wire.encode_end(1, status)


@pytest.mark.parametrize("status", [-1, 256])
def test_protocol_status_has_8_bits(status: int) -> None:
    with pytest.raises(LocalProtocolError, match=rf"a protocol status 0 to 255, not {status}\b"):
        wire.encode_end(1, 0, status)


@pytest.mark.parametrize(("role", "flags"), [(-1, 0), (65536, 0), (1, -1), (1, 256)])
def test_roles_and_flags_that_do_not_fit_are_refused(role: int, flags: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"role {role} and flags {flags}$"):
        wire.encode_begin(1, role, flags)


def test_the_largest_numbers_fit() -> None:
    assert wire.encode_begin(65535, 65535, 255) == rec(BEGIN, 65535, b"\xff\xff\xff" + bytes(5))
    assert wire.encode_end(65535, 2**32 - 1, 255) == rec(END, 65535, b"\xff" * 5 + bytes(3))
