"""Rules F of FastCGI and rows W of the hostile inputs that are the model's: roles, lengths, and names of variables."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateways import IncompleteBody, RemoteProtocolError, Request, Response, Roles
from gateways._model.handler import drive
from tests.model.memory import RUNNERS, Run, answering, ask, make

runs = pytest.mark.parametrize("run", RUNNERS)


def refused(*pairs: tuple[str, str]) -> int:
    with pytest.raises(RemoteProtocolError) as caught:
        make(*pairs, protocol="fastcgi")
    return caught.value.status


# --- names and values


@pytest.mark.parametrize("name", ["A\0B", "A=B", "=", "A\nB", "A\rB", "A\x1bB", "A\x7f", "\0"])
def test_F21_W26_a_name_that_no_environment_can_hold_is_400(name: str) -> None:
    assert refused((name, "x")) == 400


@pytest.mark.parametrize("value", ["\0", "x\0", "x\0y"])
def test_F21_a_NUL_in_a_value_is_400(value: str) -> None:
    assert refused(("A", value)) == 400


def test_F22_W25_an_empty_name_is_dropped_and_an_empty_value_is_no_value() -> None:
    request = make(("", "x"), ("", ""), ("A", ""), ("B", "1"), protocol="fastcgi")
    assert not {"", "A"} & request.environ.keys()
    assert request.environ["B"] == "1"


def test_F23_W27_the_last_of_several_counts_and_header_fields_are_joined() -> None:
    request = make(
        ("DUP", "1"),
        ("HTTP_ACCEPT", "a/b"),
        ("HTTP_COOKIE", "a=1"),
        ("HTTP_HOST", "first"),
        ("DUP", "2"),
        ("HTTP_ACCEPT", "c/d"),
        ("HTTP_COOKIE", "b=2"),
        ("HTTP_HOST", "last"),
        protocol="fastcgi",
    )
    assert request.environ["DUP"] == "2"
    assert request.environ["HTTP_ACCEPT"] == "a/b, c/d"
    assert request.environ["HTTP_COOKIE"] == "a=1; b=2"
    # A header field that cannot be a list is no exception to the rule: nginx configurations override it that way.
    assert request.environ["HTTP_HOST"] == "last"


def test_W28_no_variables_at_all_are_400() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Request({}, protocol="fastcgi")
    assert caught.value.status == 400


# --- the authorizer


def test_F39_an_authorizer_request_may_lack_path_and_length() -> None:
    request = Request({"REQUEST_METHOD": "GET"}, role="authorizer", protocol="fastcgi")
    assert (request.script_name, request.path_info, request.path) == ("", "", "")
    assert request.content_length is None
    assert drive(request.body.read()) == b""


def by_authorizer(response: Response, *, run: Run, method: str = "GET") -> Any:
    request = Request({"REQUEST_METHOD": method}, role="authorizer", protocol="fastcgi")
    return ask(Roles(authorizer=answering(response)), run=run, request=request)


@runs
def test_F39_W13_authorize_lets_a_request_pass(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    exchange = by_authorizer(Response.authorize(REMOTE_USER="m"), run=run)
    assert (exchange.status, exchange.body, exchange.field("Variable-REMOTE_USER")) == (200, b"", "m")
    more = Response.authorize().with_header("X", "y").set_cookie("a", "1")
    assert by_authorizer(more, run=run).status == 200
    assert capsys.readouterr().err == ""


async def pieces() -> AsyncIterator[bytes]:
    yield b"streamed"


@runs
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_F39_W13_nothing_else_does_whatever_its_status(
    run: Run, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for response, body in (
        (Response("welcome"), b"welcome"),
        (Response(b""), b""),
        (Response(pieces()), b"streamed"),
        (Response("", headers=[("Variable-REMOTE_USER", "m")]), b""),
    ):
        exchange = by_authorizer(response, run=run, method=method)
        assert (exchange.status, exchange.body) == (403, b"" if method == "HEAD" else body)
        assert "authorize" in capsys.readouterr().err


@runs
@pytest.mark.parametrize("status", [201, 204, 302, 401, 403, 500])
def test_F39_an_authorizer_that_refuses_is_heard(run: Run, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    exchange = by_authorizer(Response("no", status, [("X-Why", "because")]), run=run)
    assert (exchange.status, exchange.field("X-Why")) == (status, "because")
    assert exchange.body == (b"" if status == 204 else b"no")
    assert capsys.readouterr().err == ""


@runs
def test_F39_what_an_authorizer_says_is_an_answer_like_any_other_to_a_responder(run: Run) -> None:
    assert ask(Response.authorize(A="1"), run=run).status == 200


# --- the filter


def for_filter(file: bytes = b"the file", /, **variables: str) -> Request:
    return Request({"REQUEST_METHOD": "GET", **variables}, role="filter", data=file, protocol="fastcgi")


def test_F40_a_filter_knows_the_length_and_the_age_of_its_file() -> None:
    request = for_filter(FCGI_DATA_LENGTH="8", FCGI_DATA_LAST_MOD="86400")
    assert request.data_length == request.data.length == 8
    assert request.data_last_modified == datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)
    assert drive(request.data.read()) == b"the file"


@pytest.mark.parametrize("variables", [{}, {"FCGI_DATA_LENGTH": "", "FCGI_DATA_LAST_MOD": ""}])
def test_F40_or_does_not(variables: dict[str, str]) -> None:
    request = for_filter(**variables)
    assert request.data_length is None
    assert request.data_last_modified is None
    assert drive(request.data.read()) == b"the file"


def test_F40_a_file_that_is_too_short_is_an_error() -> None:
    with pytest.raises(IncompleteBody, match="1 bytes before its announced length of 9") as caught:
        drive(for_filter(FCGI_DATA_LENGTH="9").data.read())
    assert caught.value.status == 400
    with pytest.raises(IncompleteBody):
        drive(for_filter(b"", FCGI_DATA_LENGTH="1").data.receive_some())


def test_F40_a_file_that_is_too_long_is_cut() -> None:
    assert drive(for_filter(FCGI_DATA_LENGTH="3").data.read()) == b"the"
    assert drive(for_filter(FCGI_DATA_LENGTH="0").data.read()) == b""


@pytest.mark.parametrize("value", ["-1", "+8", " 8", "8 ", "1_0", "٣", "0x8", "8.0", "eight"])
@pytest.mark.parametrize("name", ["FCGI_DATA_LENGTH", "FCGI_DATA_LAST_MOD"])
def test_F40_a_number_that_is_none_is_400(name: str, value: str) -> None:
    assert refused((name, value)) == 400


def test_F40_numbers_beyond_all_files_and_calendars_are_refused() -> None:
    assert refused(("FCGI_DATA_LENGTH", "1" * 30)) == 413
    assert refused(("FCGI_DATA_LAST_MOD", "1" * 15)) == 400
    assert refused(("FCGI_DATA_LAST_MOD", "1" * 400)) == 400


def test_F40_the_oldest_and_the_latest_file() -> None:
    assert for_filter(FCGI_DATA_LAST_MOD="0").data_last_modified == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert for_filter(FCGI_DATA_LAST_MOD="253402300799").data_last_modified == datetime.datetime(
        9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC
    )
    assert refused(("FCGI_DATA_LAST_MOD", "253402300800")) == 400
