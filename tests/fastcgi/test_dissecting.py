"""The reader of FastCGI for human eyes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.fastcgi import dissect, wire
from gateways.fastcgi.dissecting import Dissected
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
)


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
        Dissected(0, ABORT, 9, 0, 2, "the web server gives the request up", "5.4"),
        Dissected(10, None, 0, 0, 0, "version 2 instead of 1 in the record at byte 10", "3.3"),
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
    records = list(dissect(begin() + rec(PARAMS, 1, GET[:9]) + rec(last, 1, bytes(8))))
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
