from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gateways import Headers
from gateways._model.headers import INTERNAL, MultiMap, RequestHeaders, check_value, is_number, is_token
from tests.model.strategies import header_fields


@pytest.mark.parametrize("text", ["GET", "X-Y_z.1", "!#$%&'*+-.^_`|~"])
def test_a_token_is_made_of_token_characters(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", ["", "a b", "a:b", "a\n", "é", 'a"', "(a)", "HTTP/1.1"])
def test_anything_else_is_no_token(text: str) -> None:
    assert not is_token(text)


@pytest.mark.parametrize(("text", "expected"), [("0", True), ("007", True), ("9" * 30, True)])
def test_a_number_is_ascii_digits(text: str, expected: bool) -> None:
    assert is_number(text) is expected


@pytest.mark.parametrize("text", ["", "+3", "-1", "1_0", " 1", "1 ", "٣", "²", "1e3", "5, 5"])
def test_a_number_is_nothing_that_only_int_would_take(text: str) -> None:
    assert not is_number(text)


def test_multimap_keeps_order_and_repeats() -> None:
    fields = MultiMap([("a", "1"), ("b", "2"), ("a", "3")])
    assert fields["a"] == "1"
    assert fields.get_all("a") == ["1", "3"]
    assert fields.items() == (("a", "1"), ("b", "2"), ("a", "3"))
    assert list(fields) == ["a", "b"]
    assert len(fields) == 3


def test_multimap_of_a_mapping() -> None:
    assert MultiMap({"a": "1"}) == MultiMap([("a", "1")])


def test_multimap_tells_what_it_does_not_hold() -> None:
    fields = MultiMap([("a", "1")])
    assert fields.get("b") is None
    assert fields.get("b", "x") == "x"
    assert fields.get_all("b") == []
    assert "a" in fields
    assert "b" not in fields
    assert 1 not in fields
    with pytest.raises(KeyError, match="b"):
        fields["b"]


def test_multimap_names_differ_by_case_and_header_names_do_not() -> None:
    assert "A" not in MultiMap([("a", "1")])
    assert "A" in Headers([("a", "1")])
    assert list(Headers([("a", "1"), ("A", "2")])) == ["A"]


def test_multimaps_are_values() -> None:
    assert MultiMap([("a", "1")]) != MultiMap([("A", "1")])
    assert Headers([("a", "1")]) == Headers([("A", "1")])
    assert hash(Headers([("a", "1")])) == hash(Headers([("A", "1")]))
    assert Headers([("a", "1"), ("b", "2")]) != Headers([("b", "2"), ("a", "1")])
    assert Headers([("a", "1")]) != MultiMap([("a", "1")])
    assert repr(Headers({"a": "1"})) == "Headers([('a', '1')])"


@given(header_fields)
def test_headers_give_back_what_they_were_given(fields: list[tuple[str, str]]) -> None:
    headers = Headers(fields)
    assert headers.items() == tuple(fields)
    assert Headers(headers).items() == tuple(fields)
    assert all(headers[name.swapcase()] == value for name, value in fields)


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Length", "1"), ("content-length", "1")],
        [("Content-Type", "a/b"), ("CONTENT-TYPE", "a/b")],
        [("Location", "/a"), ("Location", "/b")],
    ],
)
def test_headers_refuse_a_second_field_of_a_kind_that_there_is_one_of(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="given twice"):
        Headers(fields)


@pytest.mark.parametrize(("name", "value"), [(b"A", "b"), ("A", b"b"), (1, "b"), ("A", None), ("Content-Length", 5)])
def test_header_fields_are_text(name: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        Headers([(name, value)])


@pytest.mark.parametrize("value", [" a", "a ", "\ta", "a\t"])
def test_a_value_neither_begins_nor_ends_with_a_blank(value: str) -> None:
    with pytest.raises(ValueError, match="begins or ends with a blank"):
        check_value("x", value)


def test_a_value_may_hold_any_byte_that_came_from_a_web_server() -> None:
    check_value("x", "é€ " + b"\xff\xfe".decode("utf-8", "surrogateescape"))


def test_a_value_that_is_no_text_of_any_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be encoded"):
        check_value("x", "\ud800")


def test_a_response_may_hold_fields_that_only_policy_unlocks() -> None:
    assert len(Headers([(name, "/file") for name in sorted(INTERNAL)])) == len(INTERNAL)


REQUEST_HEADERS = RequestHeaders(
    {
        "REQUEST_METHOD": "POST",
        "HTTP_ACCEPT_LANGUAGE": "cs",
        "HTTP_X": "1",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "5",
    }
)


@pytest.mark.parametrize("name", ["accept-language", "Accept-Language", "ACCEPT_LANGUAGE"])
def test_request_headers_are_found_whatever_the_case(name: str) -> None:
    assert REQUEST_HEADERS[name] == "cs"
    assert REQUEST_HEADERS.get(name) == "cs"
    assert name in REQUEST_HEADERS


def test_request_headers_hold_the_type_and_the_length_of_the_body_under_their_names() -> None:
    assert (REQUEST_HEADERS["content-type"], REQUEST_HEADERS["Content-Length"]) == ("a/b", "5")


def test_request_headers_hold_nothing_but_header_fields() -> None:
    assert REQUEST_HEADERS.items() == [
        ("accept-language", "cs"),
        ("x", "1"),
        ("content-type", "a/b"),
        ("content-length", "5"),
    ]
    assert list(REQUEST_HEADERS) == ["accept-language", "x", "content-type", "content-length"]
    assert len(REQUEST_HEADERS) == 4
    assert "request-method" not in REQUEST_HEADERS
    assert 5 not in REQUEST_HEADERS
    assert REQUEST_HEADERS.get("nothing", "x") == "x"
    with pytest.raises(KeyError, match="nothing"):
        REQUEST_HEADERS["nothing"]


def test_request_headers_compare_by_what_they_hold() -> None:
    assert RequestHeaders({"HTTP_A": "1", "SERVER_NAME": "x"}) == RequestHeaders({"HTTP_A": "1"})
    assert RequestHeaders({"HTTP_A": "1"}) != RequestHeaders({"HTTP_A": "2"})
    assert RequestHeaders({}) != {}
    assert repr(RequestHeaders({"HTTP_A": "1"})) == "RequestHeaders({'a': '1'})"
