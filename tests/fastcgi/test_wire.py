"""Records, name-value pairs and the dissector."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways.fastcgi import dissect, wire
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    DATA,
    END,
    GET,
    GET_VALUES,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    begin,
    end,
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
    assert [wire.TYPES[n][0] for n in range(1, 12)] == [
        "BEGIN_REQUEST",
        "ABORT_REQUEST",
        "END_REQUEST",
        "PARAMS",
        "STDIN",
        "STDOUT",
        "STDERR",
        "DATA",
        "GET_VALUES",
        "GET_VALUES_RESULT",
        "UNKNOWN_TYPE",
    ]
    assert all(getattr(wire, name) == number for number, (name, _) in wire.TYPES.items())
    assert wire.ROLES == {1: "responder", 2: "authorizer", 3: "filter"}
    assert (wire.RESPONDER, wire.AUTHORIZER, wire.FILTER) == (1, 2, 3)
    assert wire.STATUSES == {0: "REQUEST_COMPLETE", 1: "CANT_MPX_CONN", 2: "OVERLOADED", 3: "UNKNOWN_ROLE"}
    assert all(getattr(wire, name) == number for number, name in wire.STATUSES.items())
    assert (wire.VERSION, wire.HEADER_LENGTH, wire.MAX_CONTENT, wire.KEEP_CONN, wire.NULL_REQUEST_ID) == (
        1,
        8,
        65535,
        1,
        0,
    )


def test_F10_header_is_big_endian() -> None:
    assert wire.encode_record(STDOUT, 0x0102, b"hello") == b"\1\6\1\2\0\5\3\0hello\0\0\0"


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
    with pytest.raises(LocalProtocolError, match="no record has"):
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


def test_F33_no_data_makes_no_record() -> None:
    assert wire.encode_stream(STDOUT, 1, b"") == b""


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


def test_all_splits_of_a_short_stream_give_the_same_records() -> None:
    stream = rec(GET_VALUES, 0) + rec(STDIN, 7, b"\1" * 4, 2)
    whole = scan([stream])
    for mask in range(2 ** (len(stream) - 9)):  # the first header in one piece: the rest in every possible way
        cuts = [0, *(i + 9 for i in range(len(stream) - 9) if mask >> i & 1), len(stream)]
        assert scan([stream[a:b] for a, b in pairwise(cuts)]) == whole


def test_scanner_keeps_no_more_than_one_record() -> None:
    scanner = wire.RecordScanner()
    assert len(list(scanner.scan(rec(STDIN, 1, b"x" * 65535, 255) * 3 + b"\1"))) == 3
    assert bytes(scanner._rest) == b"\1"
    assert scanner.offset == 3 * (8 + 65535 + 255)


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
    ],
)
def test_W50_other_protocols_are_recognised(start: bytes, guess: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        scan([start])
    assert str(caught.value).startswith(guess)


def test_a_guess_is_made_at_the_start_of_a_stream_only() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^version 71 instead of 1 in the record at byte 8$"):
        scan([rec(STDIN, 1) + b"GET / HTTP/1.1"])


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


def test_F24_every_cut_through_a_pair_is_noticed() -> None:
    first, second = pair(b"A", b"1"), pair(b"LONG", b"x" * 200, long=True)
    for length in range(1, len(second)):
        block = first + second[:length]
        assert wire.scan_pairs(block) == ([("A", "1")], len(first))
        with pytest.raises(RemoteProtocolError, match=f"pair 2 is cut short: it begins at byte 4 of {len(block)}"):
            wire.decode_pairs(block)


def test_number_of_pairs_is_limited() -> None:
    block = b"\0\0" * 5
    assert len(wire.decode_pairs(block, 5)) == 5
    with pytest.raises(LimitExceeded, match="more than 4 name-value pairs") as caught:
        wire.decode_pairs(block, 4)
    assert caught.value.status == 431


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([("A", 1)], "names and values are text, not int"),
        ([(b"A", "1")], "names and values are text, not bytes"),
        ([("A", "\ud800")], "cannot be encoded"),
    ],
)
def test_only_text_becomes_pairs(pairs: list[tuple[str, str]], problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        wire.encode_pairs(pairs)


def test_F22_a_length_over_31_bits_is_refused_not_masked() -> None:
    assert wire._encode_length(2**31 - 1) == b"\xff\xff\xff\xff"
    with pytest.raises(LocalProtocolError, match="over 2\\*\\*31 - 1"):
        wire._encode_length(2**31)


# --- Bodies of single records ---


def test_begin_and_end_survive_encoding_and_decoding() -> None:
    assert wire.encode_begin(7, 3, 1) == rec(BEGIN, 7, b"\0\3\1\0\0\0\0\0")
    assert wire.decode_begin(b"\0\3\1\0\0\0\0\0") == (3, 1)
    assert wire.encode_end(7, 2**32 - 1, 2) == rec(END, 7, b"\xff\xff\xff\xff\2\0\0\0")
    assert wire.decode_end(b"\xff\xff\xff\xff\2\0\0\0") == (2**32 - 1, 2)


@pytest.mark.parametrize("status", [-1, 2**32])
def test_F32_application_status_has_32_bits(status: int) -> None:
    with pytest.raises(LocalProtocolError, match="application status is 0 to"):
        wire.encode_end(1, status)


# --- For human eyes ---


def lines(data: bytes) -> list[str]:
    return [str(record) for record in dissect(data)]


def test_dissect_explains_a_request_and_its_answer() -> None:
    data = (
        request(1, GET + pair(b"QUERY_STRING", b""), b"hi", flags=0)
        + rec(STDOUT, 1, b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n", 5)
        + rec(STDERR, 1, b"x")
        + rec(STDOUT, 1)
        + end(1, 3)
    )
    assert lines(data) == [
        "00000000  BEGIN_REQUEST      id 1      8+0        a request begins, role responder; "
        "the application closes the connection afterwards (section 5.1)",
        "00000010  PARAMS             id 1      33+0       "
        "2 meta-variables: REQUEST_METHOD, QUERY_STRING (section 5.2)",
        "00000039  PARAMS             id 1      0+0        end of the meta-variables (section 5.2)",
        "00000041  STDIN              id 1      2+0        2 bytes of the request body: 'hi' (section 5.3)",
        "0000004b  STDIN              id 1      0+0        end of the request body (section 5.3)",
        "00000053  STDOUT             id 1      44+5       44 bytes of the response: "
        r"'Status: 200 OK\r\nContent-Type: te'... (section 5.3)",
        "0000008c  STDERR             id 1      1+0        1 byte of text for the error log: 'x' (section 5.3)",
        "00000095  STDOUT             id 1      0+0        end of the response (section 5.3)",
        "0000009d  END_REQUEST        id 1      8+0        REQUEST_COMPLETE, application status 3 (section 5.5)",
    ]


def test_dissect_gives_values_to_compare() -> None:
    assert list(dissect(rec(ABORT, 9, b"", 2))) == [
        wire.Dissected(0, ABORT, 9, 0, 2, "the web server gives the request up", "5.4")
    ]


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        (begin(1, 2, 1), "a request begins, role authorizer; the connection stays open"),
        (begin(1, 9, 1), "a request begins, role 9 (unknown); the connection stays open"),
        (rec(BEGIN, 1, b"\0\1"), "malformed: BEGIN_REQUEST of 2 bytes, 8 are needed"),
        (end(1, 0, 2), "OVERLOADED, application status 0"),
        (end(1, 0, 77), "protocol status 77 (unknown), application status 0"),
        (rec(END, 1), "malformed: END_REQUEST of 0 bytes, 8 are needed"),
        (rec(DATA, 1, b"\x1b\n"), r"2 bytes of the file to filter: '\x1b\n'"),
        (
            rec(GET_VALUES, 0, pair(b"FCGI_MAX_REQS", b"") + pair(b"FCGI_MPXS_CONNS", b"")),
            "the web server asks for FCGI_MAX_REQS, FCGI_MPXS_CONNS",
        ),
        (rec(GET_VALUES, 0), "the web server asks for nothing"),
        (rec(GET_VALUES, 0, b"\1"), "malformed: name-value pair 1 is cut short: it begins at byte 0 of 1"),
        (rec(RESULT, 0, pair(b"FCGI_MAX_REQS", b"\x07")), r"the application answers FCGI_MAX_REQS = \x07"),
        (rec(RESULT, 0), "the application answers that it knows none of these"),
        (rec(UNKNOWN, 0, b"\x64" + bytes(7)), "the application does not know records of type 100"),
        (rec(UNKNOWN, 0, b"\x64"), "malformed: UNKNOWN_TYPE of 1 bytes, 8 are needed"),
        (rec(100, 1), "a record type that the specification does not know"),
        (
            rec(PARAMS, 1, b"".join(pair(b"A%d" % i, b"") for i in range(7))),
            "7 meta-variables: A0, A1, A2, A3, A4, ...",
        ),
        (rec(PARAMS, 1, pair(b"\xe2\x82\xac\n", b"")), r"1 meta-variable: \u20ac\n"),
    ],
)
def test_dissect_explains_each_record(data: bytes, meaning: str) -> None:
    (record,) = dissect(data)
    assert record.meaning == meaning
    assert "\n" not in str(record)
    assert record.meaning in str(record)


def test_dissect_names_a_type_the_specification_does_not_know() -> None:
    assert lines(rec(100, 1)) == [
        "00000000  type 100           id 1      0+0        "
        "a record type that the specification does not know (section 4.2)"
    ]


def test_dissect_follows_pairs_across_records() -> None:
    block = GET + pair(b"QUERY_STRING", b"a=b")
    data = begin() + rec(PARAMS, 1, block[:30]) + rec(PARAMS, 2, GET) + rec(PARAMS, 1, block[30:]) + rec(PARAMS, 1)
    assert [record.meaning for record in dissect(data)][1:] == [
        "1 meta-variable: REQUEST_METHOD; the next one goes on in another record",
        "1 meta-variable: REQUEST_METHOD",
        "1 meta-variable: QUERY_STRING",
        "end of the meta-variables",
    ]
    assert [record.meaning for record in dissect(rec(PARAMS, 1, GET[:5]) + rec(PARAMS, 1))] == [
        "0 meta-variables; the next one goes on in another record",
        "end of the meta-variables, malformed: 5 bytes into a pair",
    ]
    assert [record.meaning for record in dissect(rec(PARAMS, 1, GET[:5]) + begin() + rec(PARAMS, 1))][2] == (
        "end of the meta-variables"
    )


@pytest.mark.parametrize(
    ("data", "last"),
    [
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "00000000  BROKEN             HTTP on a FastCGI port: version 71 instead of 1 in the "
            "record at byte 0 (section 3.3)",
        ),
        (
            begin() + b"\2" * 8,
            "00000010  BROKEN             version 2 instead of 1 in the record at byte 16 (section 3.3)",
        ),
        (begin() + b"\1\5", "00000010  BROKEN             the stream ends inside a header: 2 of 8 bytes (section 3.3)"),
        (
            rec(STDIN, 5, b"x" * 9, 7)[:-8],
            "00000000  BROKEN             the stream ends inside STDIN of request 5: 8 of 9+7 bytes (section 3.3)",
        ),
        (
            rec(PARAMS, 5, b"\3\3A"),
            "0000000b  BROKEN             the stream ends 3 bytes into a name-value pair of request 5 (section 3.4)",
        ),
    ],
)
def test_dissect_says_what_is_wrong_with_a_broken_stream_and_where(data: bytes, last: str) -> None:
    assert lines(data)[-1] == last


def test_dissect_of_nothing_is_nothing() -> None:
    assert lines(b"") == []


@given(
    st.lists(st.tuples(st.integers(0, 13), st.integers(0, 2), st.binary(max_size=20)), max_size=6),
    st.binary(max_size=20),
)
def test_dissect_never_raises(records: list[tuple[int, int, bytes]], tail: bytes) -> None:
    data = b"".join(rec(kind, stream_id, content) for kind, stream_id, content in records) + tail
    explained = list(dissect(data))
    assert all(str(record).isprintable() for record in explained)
    assert [(r.type, r.id, r.length) for r in explained][: len(records)] == [(k, i, len(c)) for k, i, c in records]


def test_struct_of_tools_agrees_with_the_library() -> None:
    assert struct.calcsize(">BBHHBB") == wire.HEADER_LENGTH
    assert rec(STDIN, 3, b"12345678") == wire.encode_record(STDIN, 3, b"12345678")
