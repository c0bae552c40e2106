from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import Headers, Response
from gateways._model.handler import drive
from gateways._model.response import Meter, close, default_type, encode, pour


def test_defaults() -> None:
    response = Response()
    assert (response.body, response.status, response.headers) == ("", 200, Headers())
    assert (response.content_type, response.app_status) == (None, 0)


def test_arguments_in_their_order() -> None:
    response = Response("x", 404, [("A", "b")], content_type="a/b", app_status=3)
    assert (response.body, response.status, response.headers["a"]) == ("x", 404, "b")
    assert (response.content_type, response.app_status) == ("a/b", 3)
    assert repr(response) == "<Response 404 Not Found a/b>"


@pytest.mark.parametrize("app_status", [-1, 2**32, 1.0, True, None])
def test_app_status_is_a_number_that_fits_its_field(app_status: Any) -> None:
    with pytest.raises(ValueError, match="app_status"):
        Response(app_status=app_status)


@pytest.mark.parametrize("body", [None, 5, {"a": 1}, bytearray(b"x"), memoryview(b"x"), object()])
def test_a_body_of_another_kind_is_refused(body: Any) -> None:
    with pytest.raises(TypeError, match="a body is"):
        Response(body)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response("x"), "text/plain; charset=utf-8"),
        (Response(b"x"), "application/octet-stream"),
        (Response([b"x"]), "application/octet-stream"),
        (Response(["x"]), "application/octet-stream"),
        (Response(Path("x.html")), "application/octet-stream"),
        (Response("x", content_type="a/b"), "a/b"),
        (Response("x", headers={"content-type": "a/b"}), "a/b"),
        (Response("x", content_type=""), "text/plain; charset=utf-8"),
    ],
)
def test_R03_the_type_of_a_body_is_never_guessed_to_be_html(response: Response, expected: str) -> None:
    assert default_type(response) == expected


def test_the_content_type_is_given_once() -> None:
    with pytest.raises(ValueError, match="given twice"):
        Response("x", headers=[("Content-Type", "a/b")], content_type="c/d")


def test_html() -> None:
    response = Response.html("<p>", 404, [("A", "b")])
    assert (response.body, response.status, response.headers["A"]) == ("<p>", 404, "b")
    assert response.content_type == "text/html; charset=utf-8"


def test_json() -> None:
    response = Response.json({"a": [1, None, "é"]}, 201, {"A": "b"})
    assert (response.body, response.status, response.headers["A"]) == ('{"a": [1, null, "\\u00e9"]}\n', 201, "b")
    assert response.content_type == "application/json"
    with pytest.raises(TypeError):
        Response.json(object())


@pytest.mark.parametrize(("permanent", "status"), [(False, 302), (True, 301)])
def test_redirect(permanent: bool, status: int) -> None:
    response = Response.redirect("https://example.org/", permanent)
    assert (response.status, response.headers["Location"], response.body) == (status, "https://example.org/", "")


def test_F39_authorize() -> None:
    response = Response.authorize(REMOTE_USER="m", X="1")
    assert response.status == 200
    assert response.headers.items() == (("Variable-REMOTE_USER", "m"), ("Variable-X", "1"))


@pytest.mark.parametrize("variables", [{"A B": "x"}, {"é": "x"}, {"A": "x\ny"}])
def test_authorize_refuses_what_is_no_field(variables: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"name of a variable|CR, LF or NUL"):
        Response.authorize(**variables)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.tar.gz", "application/octet-stream"),
        ("a", None),
    ],
)
def test_file_guesses_its_type_from_its_name(tmp_path: Path, name: str, content_type: str | None) -> None:
    (tmp_path / name).write_bytes(b"x")
    for path in (tmp_path / name, str(tmp_path / name)):
        response = Response.file(path)
        assert response.content_type == content_type
        assert os.fspath(response.body) == str(tmp_path / name)  # type: ignore[arg-type]
        assert response == Response.file(path)
        assert response != Response(tmp_path / name)
    assert Response.file(tmp_path / name, content_type="a/b").content_type == "a/b"


def test_file_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Response.file(tmp_path / "nothing")


def test_the_path_of_a_file_shows_itself(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert repr(Response.file(tmp_path / "a").body) == repr(str(tmp_path / "a"))


def test_with_header_is_a_copy() -> None:
    response = Response("x", 404, [("A", "1")], content_type="a/b", app_status=3)
    other = response.with_header("A", "2")
    assert other.headers.get_all("a") == ["1", "2"]
    assert response.headers.get_all("a") == ["1"]
    assert (other.body, other.status, other.content_type, other.app_status) == ("x", 404, "a/b", 3)


def test_with_header_keeps_a_type_that_was_given_as_a_field() -> None:
    other = Response("x", headers=[("Content-Type", "a/b")]).with_header("A", "1")
    assert (other.content_type, other.headers["content-type"]) == ("a/b", "a/b")


def test_with_header_refuses_what_the_constructor_refuses() -> None:
    with pytest.raises(ValueError, match="given twice"):
        Response(headers=[("Content-Length", "0")]).with_header("content-length", "0")
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Response().with_header("A", "\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "a=1; Path=/; SameSite=Lax; HttpOnly"),
        ({"path": None, "http_only": False, "same_site": None}, "a=1"),
        ({"max_age": 0}, "a=1; Max-Age=0; Path=/; SameSite=Lax; HttpOnly"),
        (
            {"domain": "h", "secure": True, "same_site": "None"},
            "a=1; Path=/; Domain=h; SameSite=None; Secure; HttpOnly",
        ),
    ],
)
def test_set_cookie(options: dict[str, Any], expected: str) -> None:
    response = Response("x").set_cookie("a", "1", **options).set_cookie("b", "2")
    assert response.headers.get_all("set-cookie") == [expected, "b=2; Path=/; SameSite=Lax; HttpOnly"]


@pytest.mark.parametrize("name", ["", "a b", "a=", "a;", "é"])
def test_set_cookie_refuses_a_name_that_is_no_token(name: str) -> None:
    with pytest.raises(ValueError, match="named by a token"):
        Response().set_cookie(name, "1")


@pytest.mark.parametrize("value", ["a b", 'a"', "a,b", "a;b", "a\\b", "é", "a\n", "\x7f"])
def test_set_cookie_refuses_a_value_that_a_cookie_cannot_hold(value: str) -> None:
    with pytest.raises(ValueError, match="encode it first"):
        Response().set_cookie("a", value)


@pytest.mark.parametrize("option", ["path", "domain", "same_site"])
@pytest.mark.parametrize("value", ["/; Domain=evil", "/\r\nX: 1", "/\0"])
def test_set_cookie_refuses_attributes_that_would_add_others(option: str, value: str) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=r"cannot hold|CR, LF or NUL"):
        Response().set_cookie("a", "1", **options)


def test_responses_are_values() -> None:
    assert Response("x", 404, [("A", "b")]) == Response("x", 404, [("a", "b")])
    assert Response("x") != Response("y")
    assert Response("x") != Response(b"x")
    assert Response("x") != "x"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Response())


@pytest.mark.parametrize(
    ("chunk", "encoded"),
    [("é\udcff", b"\xc3\xa9\xff"), (b"\xff", b"\xff"), (bytearray(b"x"), b"x"), (memoryview(b"x"), b"x")],
)
def test_encode(chunk: Any, encoded: bytes) -> None:
    assert encode(chunk) == encoded


@pytest.mark.parametrize("chunk", [None, 5, ["x"]])
def test_encode_refuses_anything_else(chunk: Any) -> None:
    with pytest.raises(TypeError, match="bytes or text"):
        encode(chunk)


# --- pouring and closing


class Closing:
    """An iterable that remembers that it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"1", b"2"])

    def close(self) -> None:
        self.closed += 1


class AsyncClosing:
    """An asynchronous iterable that remembers that it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async def aclose(self) -> None:
        self.closed += 1


class CallableAndIterable(AsyncClosing):
    """Iterating wins over calling."""

    def __call__(self) -> None:
        raise AssertionError


async def push(send: Callable[[str | bytes], Awaitable[None]]) -> None:
    await send(b"1")
    await send(b"2")


def poured(body: Any, fail: bool = False) -> list[str | bytes]:
    chunks: list[str | bytes] = []

    async def send(chunk: str | bytes) -> None:
        if fail:
            raise BrokenPipeError
        chunks.append(chunk)

    drive(pour(body, send))
    return chunks


@pytest.mark.parametrize(
    "body", [push, [b"1", b"2"], (b"1", b"2"), Closing(), AsyncClosing(), CallableAndIterable(), io.BytesIO(b"1\n2")]
)
def test_pour_sends_the_pieces_of_a_body_of_any_kind(body: Any) -> None:
    assert [chunk[:1] for chunk in poured(body)] == [b"1", b"2"]


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("kind", [Closing, AsyncClosing])
def test_pour_closes_an_iterable_however_it_ends(kind: type[Closing | AsyncClosing], fail: bool) -> None:
    body = kind()
    try:
        poured(body, fail)
    except BrokenPipeError:
        assert fail
    assert body.closed == 1


def test_pour_closes_the_generator_behind_a_body_that_cannot_be_closed_itself() -> None:
    closed = []

    class Rows:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                yield b"1"
            finally:
                closed.append(True)

    with pytest.raises(BrokenPipeError):
        poured(Rows(), fail=True)
    assert closed == [True]


@pytest.mark.parametrize("kind", [Closing, AsyncClosing])
def test_close_of_a_body_that_never_ran(kind: type[Closing | AsyncClosing]) -> None:
    body = kind()
    drive(close(body))
    assert body.closed == 1


def test_close_of_what_cannot_be_closed() -> None:
    drive(close([b"x"]))
    drive(close(push))


def test_meter_cuts_at_the_length_and_counts_what_it_cut() -> None:
    meter = Meter(3)
    assert [meter.admit(chunk) for chunk in (b"12", b"34", b"5")] == [b"12", b"3", b""]
    assert (meter.left, meter.excess) == (0, 2)


def test_meter_without_a_length_admits_all() -> None:
    meter = Meter(None)
    assert meter.admit(b"12") == b"12"
    assert (meter.left, meter.excess) == (None, 0)
