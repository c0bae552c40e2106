from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import LimitExceeded, RemoteProtocolError
from gateways._model.dialects.cgi import parse_head
from gateways._model.policy import render_head
from gateways._model.status import REASONS, reason
from tests.model.strategies import header_fields

LIMIT = 32_768


def test_a_head_begins_with_its_status_and_ends_with_a_blank_line() -> None:
    head = render_head(404, [("Content-Type", "text/plain"), ("X", "é€\udcff")])
    assert head == "Status: 404 Not Found\r\nContent-Type: text/plain\r\nX: é€".encode() + b"\xff\r\n\r\n"


@given(st.integers(200, 599), header_fields, st.binary(max_size=8))
@settings(deadline=None)
def test_parse_undoes_render(status: int, fields: list[tuple[str, str]], body: bytes) -> None:
    head = render_head(status, fields)
    assert parse_head(head + body, LIMIT) == (status, reason(status), tuple(fields), len(head))
    assert all(parse_head(head[:end], LIMIT) is None for end in range(len(head)))


#: (meaning, head, (status, reason, fields)); what follows a head is its body.
HEADS: list[tuple[str, bytes, tuple[int, str, tuple[tuple[str, str], ...]]]] = [
    ("LF ends lines", b"Content-Type: a/b\n\n", (200, "OK", (("Content-Type", "a/b"),))),
    ("mixed ends", b"Content-Type: a/b\r\nX: 1\n\r\n", (200, "OK", (("Content-Type", "a/b"), ("X", "1")))),
    ("mixed ends", b"Content-Type: a/b\r\nX: 1\r\n\n", (200, "OK", (("Content-Type", "a/b"), ("X", "1")))),
    ("status only", b"Status: 204 No Content\r\n\r\n", (204, "No Content", ())),
    ("any case", b"STATUS: 404 Gone fishing\r\n\r\n", (404, "Gone fishing", ())),
    ("no reason", b"Status: 404\r\n\r\n", (404, "Not Found", ())),
    ("an empty reason", b"Status: 404 \r\n\r\n", (404, "Not Found", ())),
    ("blanks about a value", b"X: \t a b \t\r\nStatus:200\r\n\r\n", (200, "OK", (("X", "a b"),))),
    ("an empty value", b"Content-Type:\r\n\r\n", (200, "OK", (("Content-Type", ""),))),
    ("repeats", b"Location: /\nA: 1\na: 2\n\n", (302, "Found", (("Location", "/"), ("A", "1"), ("a", "2")))),
    ("a redirect", b"Location: http://h/\r\n\r\n", (302, "Found", (("Location", "http://h/"),))),
    ("a redirect with a status", b"Location: /\r\nStatus: 201\r\n\r\n", (201, "Created", (("Location", "/"),))),
    ("bytes", b"Content-Type: \xe2\x82\xac\xff\n\n", (200, "OK", (("Content-Type", "€\udcff"),))),
]


@pytest.mark.parametrize(("meaning", "head", "expected"), HEADS)
@pytest.mark.parametrize("body", [b"", b"body", b"\n\n", b"\r\n\r\nStatus: 500\r\n\r\n"])
def test_head(meaning: str, head: bytes, expected: tuple[int, str, tuple[tuple[str, str], ...]], body: bytes) -> None:
    assert parse_head(head + body, LIMIT) == (*expected, len(head))
    assert parse_head(bytearray(head + body), LIMIT) == (*expected, len(head))
    assert all(parse_head(head[:end], LIMIT) is None for end in range(len(head)))


@pytest.mark.parametrize(
    ("meaning", "head"),
    [
        ("nothing", b"\r\n"),
        ("nothing", b"\n"),
        ("no field of CGI's", b"X: 1\r\n\r\n"),
        ("a line without a colon", b"Status: 200\r\nhello\r\n\r\n"),
        ("HTML", b"<html>\n\n"),
        ("a blank before the colon", b"Status : 200\r\n\r\n"),
        ("an empty name", b": x\r\n\r\n"),
        ("a name that is no token", b"HTTP/1.1: 200\r\n\r\n"),
        ("a folded line", b"Status: 200\r\nX: a\r\n b\r\n\r\n"),
        ("a folded line", b"Status: 200\r\n\tX: a\r\n\r\n"),
        ("CR in a value", b"Status: 200\r\nX: a\rb\r\n\r\n"),
        ("CR at the end of a value", b"Status: 200\r\nX: a\r\r\n\r\n"),
        ("CR by itself", b"Status: 200\r\n\r\r\n\r\n"),
        ("NUL in a value", b"Status: 200\r\nX: a\0b\r\n\r\n"),
        ("two statuses", b"Status: 200\r\nstatus: 200\r\n\r\n"),
        ("no number", b"Status: abc\r\n\r\n"),
        ("no ASCII number", "Status: ٣٣٣\r\n\r\n".encode()),
        ("two digits", b"Status: 99\r\n\r\n"),
        ("four digits", b"Status: 1000\r\n\r\n"),
        ("a sign", b"Status: +20\r\n\r\n"),
        ("an interim status", b"Status: 103 Early Hints\r\n\r\n"),
        ("a status beyond all", b"Status: 600\r\n\r\n"),
        ("an empty status", b"Status:\r\n\r\n"),
    ],
)
def test_what_is_no_head_is_502(meaning: str, head: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_head(head, LIMIT)
    assert caught.value.status == 502


@pytest.mark.parametrize("over", [b"X: " + b"a" * 100 + b"\r\nStatus: 200\r\n\r\n", b"X: " + b"a" * 100])
def test_a_head_over_the_limit_is_502_whether_it_ended_or_not(over: bytes) -> None:
    with pytest.raises(LimitExceeded, match="over 90 bytes") as caught:
        parse_head(over, 90)
    assert caught.value.status == 502


def test_a_head_as_long_as_the_limit_is_taken_whatever_follows() -> None:
    head = b"Status: 200\r\n\r\n"
    assert parse_head(head + b"x" * 1000, len(head)) is not None


def test_every_status_with_a_reason_renders_it() -> None:
    for status, phrase in REASONS.items():
        assert render_head(status, ()) == f"Status: {status} {phrase}\r\n\r\n".encode()
