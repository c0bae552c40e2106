"""Records, name-value pairs and the dissector."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
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
    assert bytes(scanner._rest) == b"\1"
    assert scanner.offset == 3 * (8 + 65535 + 255)
    assert scanner.partial


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


def test_dissect_explains_every_type_with_its_section() -> None:
    values = pair(b"FCGI_MAX_CONNS", b"10") + pair(b"FCGI_MPXS_CONNS", b"1")
    data = (
        rec(0, 0)
        + rec(BEGIN, 65535, b"\0\3\1\0\0\0\0\0", 255)
        + rec(ABORT, 12345, b"", 8)
        + rec(END, 1, bytes(8))
        + rec(PARAMS, 1, GET, 5)
        + rec(STDIN, 1, b"<")
        + rec(STDOUT, 1, b">")
        + rec(STDERR, 1, b"!", 7)
        + rec(DATA, 1, b"")
        + rec(GET_VALUES, 0, pair(b"FCGI_MAX_CONNS", b""))
        + rec(RESULT, 0, values)
        + rec(UNKNOWN, 0, b"\xff" + bytes(7))
        + rec(12, 0)
        + rec(255, 3, b"?" * 40)
    )
    assert lines(data) == [
        "00000000  type 0             id 0      0+0        "
        "a record type that the specification does not know (section 4.2)",
        "00000008  BEGIN_REQUEST      id 65535  8+255      "
        "a request begins, role filter; the connection stays open (section 5.1)",
        "00000117  ABORT_REQUEST      id 12345  0+8        the web server gives the request up (section 5.4)",
        "00000127  END_REQUEST        id 1      8+0        REQUEST_COMPLETE, application status 0 (section 5.5)",
        "00000137  PARAMS             id 1      19+5       1 meta-variable: REQUEST_METHOD (section 5.2)",
        "00000157  STDIN              id 1      1+0        1 byte of the request body: '<' (section 5.3)",
        "00000160  STDOUT             id 1      1+0        1 byte of the response: '>' (section 5.3)",
        "00000169  STDERR             id 1      1+7        1 byte of text for the error log: '!' (section 5.3)",
        "00000179  DATA               id 1      0+0        end of the file to filter (section 5.3)",
        "00000181  GET_VALUES         id 0      16+0       the web server asks for FCGI_MAX_CONNS (section 4.1)",
        "00000199  GET_VALUES_RESULT  id 0      36+0       "
        "the application answers FCGI_MAX_CONNS = 10, FCGI_MPXS_CONNS = 1 (section 4.1)",
        "000001c5  UNKNOWN_TYPE       id 0      8+0        "
        "the application does not know records of type 255 (section 4.2)",
        "000001d5  type 12            id 0      0+0        "
        "a record type that the specification does not know (section 4.2)",
        "000001dd  type 255           id 3      40+0       "
        "a record type that the specification does not know (section 4.2)",
    ]


def test_dissect_explains_requests_side_by_side_and_one_that_is_given_up() -> None:
    data = begin(1) + begin(2, flags=0) + rec(PARAMS, 2, GET[:9]) + rec(PARAMS, 1, GET[:4]) + rec(PARAMS, 2, GET[9:])
    data += rec(PARAMS, 1, GET[4:]) + rec(PARAMS, 2) + rec(ABORT, 2) + rec(PARAMS, 1) + rec(STDIN, 1)
    data += rec(STDOUT, 1, b"\n") + end(2, 1) + rec(STDERR, 1) + end(1)
    assert [(record.id, record.meaning) for record in dissect(data)] == [
        (1, "a request begins, role responder; the connection stays open"),
        (2, "a request begins, role responder; the application closes the connection afterwards"),
        (2, "0 meta-variables; the next one goes on in another record"),
        (1, "0 meta-variables; the next one goes on in another record"),
        (2, "1 meta-variable: REQUEST_METHOD"),
        (1, "1 meta-variable: REQUEST_METHOD"),
        (2, "end of the meta-variables"),
        (2, "the web server gives the request up"),
        (1, "end of the meta-variables"),
        (1, "end of the request body"),
        (1, r"1 byte of the response: '\n'"),
        (2, "REQUEST_COMPLETE, application status 1"),
        (1, "end of text for the error log"),
        (1, "REQUEST_COMPLETE, application status 0"),
    ]


def test_dissect_gives_values_to_compare() -> None:
    assert list(dissect(rec(ABORT, 9, b"", 2) + b"\2" * 8)) == [
        wire.Dissected(0, ABORT, 9, 0, 2, "the web server gives the request up", "5.4"),
        wire.Dissected(10, None, 0, 0, 0, "version 2 instead of 1 in the record at byte 10", "3.3"),
    ]


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        (begin(1, 2, 1), "a request begins, role authorizer; the connection stays open"),
        (begin(1, 9, 1), "a request begins, role 9 (unknown); the connection stays open"),
        (begin(1, 0, 0), "a request begins, role 0 (unknown); the application closes the connection afterwards"),
        # Of the flags one bit means something.
        (begin(1, 1, 0xFF), "a request begins, role responder; the connection stays open"),
        (begin(1, 1, 0xFE), "a request begins, role responder; the application closes the connection afterwards"),
        (begin(1, 0x0101, 1), "a request begins, role 257 (unknown); the connection stays open"),
        (
            rec(BEGIN, 1, b"\0\3\0" + bytes(9)),
            "a request begins, role filter; the application closes the connection afterwards",
        ),
        (rec(BEGIN, 1, b"\0\1" + bytes(5)), "malformed: BEGIN_REQUEST of 7 bytes, 8 are needed"),
        (rec(BEGIN, 1, b"\0\1"), "malformed: BEGIN_REQUEST of 2 bytes, 8 are needed"),
        (end(1, 2**32 - 1, 0), "REQUEST_COMPLETE, application status 4294967295"),
        (end(1, 0, 1), "CANT_MPX_CONN, application status 0"),
        (end(1, 0, 2), "OVERLOADED, application status 0"),
        (end(1, 0, 3), "UNKNOWN_ROLE, application status 0"),
        (end(1, 0, 4), "protocol status 4 (unknown), application status 0"),
        (end(1, 0, 77), "protocol status 77 (unknown), application status 0"),
        (rec(END, 1), "malformed: END_REQUEST of 0 bytes, 8 are needed"),
        (rec(END, 1, bytes(7)), "malformed: END_REQUEST of 7 bytes, 8 are needed"),
        (rec(STDOUT, 1, b"x" * 32), f"32 bytes of the response: '{'x' * 32}'"),
        (rec(STDOUT, 1, b"x" * 32 + b"y"), f"33 bytes of the response: '{'x' * 32}'..."),
        (rec(DATA, 1, b"\x1b\n"), r"2 bytes of the file to filter: '\x1b\n'"),
        (
            rec(GET_VALUES, 0, pair(b"FCGI_MAX_REQS", b"") + pair(b"FCGI_MPXS_CONNS", b"")),
            "the web server asks for FCGI_MAX_REQS, FCGI_MPXS_CONNS",
        ),
        (rec(GET_VALUES, 0), "the web server asks for nothing"),
        (rec(GET_VALUES, 0, b"\1"), "malformed: name-value pair 1 is cut short: it begins at byte 0 of 1"),
        (rec(RESULT, 0, pair(b"FCGI_MAX_REQS", b"\x07")), r"the application answers FCGI_MAX_REQS = \x07"),
        (rec(GET_VALUES, 0, b"\x7f\0ab"), "malformed: name-value pair 1 is cut short: it begins at byte 0 of 4"),
        (rec(GET_VALUES, 0, pair(b"\x1b[2J", b"") * 2), r"the web server asks for \x1b[2J, \x1b[2J"),
        (rec(RESULT, 0, GET + b"\1"), "malformed: name-value pair 2 is cut short: it begins at byte 19 of 20"),
        (rec(RESULT, 0), "the application answers that it knows none of these"),
        (rec(UNKNOWN, 0, b"\x64" + bytes(7)), "the application does not know records of type 100"),
        (rec(UNKNOWN, 0, b"\x64"), "malformed: UNKNOWN_TYPE of 1 bytes, 8 are needed"),
        (rec(UNKNOWN, 0), "malformed: UNKNOWN_TYPE of 0 bytes, 8 are needed"),
        (rec(100, 1), "a record type that the specification does not know"),
        (
            rec(PARAMS, 1, b"".join(pair(b"A%d" % i, b"") for i in range(7))),
            "7 meta-variables: A0, A1, A2, A3, A4, ...",
        ),
        (
            rec(PARAMS, 1, b"".join(pair(b"A%d" % i, b"") for i in range(5))),
            "5 meta-variables: A0, A1, A2, A3, A4",
        ),
        (rec(PARAMS, 1, pair(b"\xe2\x82\xac\n", b"")), r"1 meta-variable: \u20ac\n"),
        (rec(PARAMS, 1, pair(b"\xe2\x82\xac", b"")), r"1 meta-variable: \u20ac"),
        # What is plain stays as it is, and what is no UTF-8 is seen to be none.
        (rec(PARAMS, 1, pair(b"A\\B'\"", b"") + pair(b"\xff", b"")), r"2 meta-variables: A\B'" + r'", \udcff'),
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
            rec(STDIN, 5, b"x" * 9, 7)[:8],
            "00000000  BROKEN             the stream ends inside STDIN of request 5: 0 of 9+7 bytes (section 3.3)",
        ),
        (
            rec(99, 300, b"", 1)[:-1],
            "00000000  BROKEN             the stream ends inside type 99 of request 300: 0 of 0+1 bytes (section 3.3)",
        ),
        (
            rec(PARAMS, 5, b"\3\3A"),
            "0000000b  BROKEN             the stream ends 3 bytes into a name-value pair of request 5 (section 3.4)",
        ),
    ],
)
def test_dissect_says_what_is_wrong_with_a_broken_stream_and_where(data: bytes, last: str) -> None:
    assert lines(data)[-1] == last


def test_dissect_names_each_request_whose_meta_variables_are_cut_short() -> None:
    data = rec(PARAMS, 5, b"\3\3A") + rec(PARAMS, 6, GET) + rec(PARAMS, 7, GET + b"\1\1") + b"\1\5\0"
    assert [str(record) for record in dissect(data) if record.type is None] == [
        "00000043  BROKEN             the stream ends inside a header: 3 of 8 bytes (section 3.3)",
        "00000046  BROKEN             the stream ends 3 bytes into a name-value pair of request 5 (section 3.4)",
        "00000046  BROKEN             the stream ends 2 bytes into a name-value pair of request 7 (section 3.4)",
    ]


@pytest.mark.parametrize("last", [ABORT, END])
def test_dissect_does_not_miss_the_rest_of_a_request_that_was_given_up(last: int) -> None:
    records = list(wire.dissect(begin() + rec(PARAMS, 1, GET[:9]) + rec(last, 1, bytes(8))))
    assert [record.type for record in records] == [BEGIN, PARAMS, last]


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
