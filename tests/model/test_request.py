from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings

from gateways import Body, IncompleteBody, LimitExceeded, RemoteProtocolError, Request
from gateways._model.environ import Rules, build
from gateways._model.handler import drive
from gateways._model.request import BytesSource, Carrier, content_length, in_memory
from tests.model.memory import make
from tests.model.strategies import paths

FULL = {
    "REQUEST_METHOD": "POST",
    "SCRIPT_NAME": "/app",
    "PATH_INFO": "/a b",
    "QUERY_STRING": "x=1&y=a+b%26&x=2&flag&=empty&&%E2%82%AC=%FF",
    "REQUEST_URI": "/app/a%20b?x=1",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "5",
    "HTTP_HOST": "example.org:8080",
    "HTTP_COOKIE": 'a=1; b="two words"; a=3; c; d=; e="',
    "REMOTE_ADDR": "2001:db8::1",
    "REMOTE_PORT": "4711",
    "REMOTE_USER": "m",
    "SERVER_NAME": "example.org",
    "SERVER_PORT": "8080",
    "SERVER_SOFTWARE": "lighttpd/1.4.69",
    "SERVER_PROTOCOL": "HTTP/1.1",
}


def test_every_property_of_a_request_that_has_them_all() -> None:
    request = Request(FULL, b"12345", protocol="fastcgi", role="filter", data=b"file")
    assert (request.method, request.scheme, request.protocol, request.role) == ("POST", "http", "fastcgi", "filter")
    assert (request.path, request.script_name, request.path_info) == ("/app/a b", "/app", "/a b")
    assert (request.raw_path, request.query_string) == ("/app/a%20b", FULL["QUERY_STRING"])
    assert (request.content_type, request.content_length) == ("text/plain", 5)
    assert (request.remote_addr, request.remote_port, request.remote_user) == ("2001:db8::1", 4711, "m")
    assert (request.server_name, request.server_port) == ("example.org", 8080)
    assert request.server_software == "lighttpd/1.4.69"
    assert request.headers["host"] == "example.org:8080"
    assert drive(request.data.read()) == b"file"
    assert repr(request) == f"<Request POST /app/a b?{FULL['QUERY_STRING']} over fastcgi>"


def test_what_was_not_sent_is_none_but_for_three_texts() -> None:
    request = make()
    assert (request.script_name, request.path_info, request.query_string, request.path) == ("", "", "", "")
    nothing = (
        request.raw_path,
        request.content_type,
        request.content_length,
        request.remote_addr,
        request.remote_port,
        request.remote_user,
        request.server_name,
        request.server_port,
        request.server_software,
    )
    assert nothing == (None,) * 9
    assert (request.cookies, len(request.query), len(request.headers)) == ({}, 0, 0)
    assert repr(request) == "<Request GET  over cgi>"


def test_query_is_read_as_form_fields_repeats_kept() -> None:
    request = Request(FULL)
    assert request.query.items() == (
        ("x", "1"),
        ("y", "a b&"),
        ("x", "2"),
        ("flag", ""),
        ("", "empty"),
        ("€", "\udcff"),
    )
    assert request.query is request.query


def test_cookies_the_first_of_a_name_counts() -> None:
    request = Request(FULL)
    assert request.cookies == {"a": "1", "b": "two words", "d": "", "e": '"'}
    assert request.cookies is request.cookies


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"HTTP_HOST": "h:8080", "REQUEST_URI": "/a%20b?x", "QUERY_STRING": "x"}, "http://h:8080/a%20b?x"),
        ({"SERVER_NAME": "h", "SERVER_PORT": "80", "PATH_INFO": "/a;b=c d?e"}, "http://h/a;b=c%20d%3Fe"),
        ({"SERVER_NAME": "h", "SERVER_PORT": "8000"}, "http://h:8000"),
        ({"SERVER_NAME": "h", "SERVER_PORT": "443", "HTTPS": "on"}, "https://h"),
        ({"SERVER_NAME": "h", "SERVER_PORT": "80", "HTTPS": "on"}, "https://h:80"),
        ({"SERVER_NAME": "h"}, "http://h"),
        ({"SERVER_NAME": "[::1]", "SERVER_PORT": "8000"}, "http://[::1]:8000"),
        ({"SERVER_NAME": "::1", "SERVER_PORT": "8000"}, "http://[::1]:8000"),
        ({"SERVER_NAME": "h:8000", "SERVER_PORT": "8000"}, "http://h:8000"),  # HAProxy, mini_httpd
        ({"SERVER_NAME": "h", "SERVER_PORT": "1965", "SERVER_PROTOCOL": "GEMINI", "PATH_INFO": "x"}, "gemini://h/x"),
        ({"REQUEST_URI": "*", "PATH_INFO": "/*", "SERVER_NAME": "h"}, "http://h/*"),
        ({"REQUEST_URI": "http://other/x", "PATH_INFO": "/x", "SERVER_NAME": "h"}, "http://h/x"),
        ({}, "http://localhost"),
    ],
)
def test_url_is_what_the_server_tells_of_it(variables: dict[str, str], url: str) -> None:
    assert make(*variables.items()).url == url


@pytest.mark.parametrize("port", ["", "x", "+80", "٣", "123456", "-1"])
def test_a_port_that_is_no_number_is_none(port: str) -> None:
    assert make(SERVER_PORT=port, REMOTE_PORT=port).server_port is None
    assert make(SERVER_PORT=port, REMOTE_PORT=port).remote_port is None


def test_environ_as_sent_keeps_wire_order_and_repeats_but_not_httpoxy() -> None:
    pairs = (("SCRIPT_NAME", "/app"), ("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil"), ("SCRIPT_NAME", ""), ("X", ""))
    assert Request(pairs).environ_as_sent == (*pairs[:2], *pairs[3:])


def of_a_transport(sent: Mapping[str, str] | Sequence[tuple[str, str]], data: Body | None = None) -> Request:
    """A request as the transports make it: of parts that have been checked."""
    environ, path, _ = build(sent, "fastcgi", Rules())
    return Request._built(environ, path, sent, in_memory(b"", None), "responder", data, "fastcgi", Carrier())


@pytest.mark.parametrize("shape", [MappingProxyType, lambda sent: tuple(sent.items())], ids=["mapping", "pairs"])
def test_environ_as_sent_is_the_same_whichever_way_the_variables_came(shape: Callable[[dict[str, str]], Any]) -> None:
    request = of_a_transport(shape({"REQUEST_METHOD": "GET", "HTTP_PROXY": "evil", "X": "", "SCRIPT_NAME": "/app/"}))
    pairs = (("REQUEST_METHOD", "GET"), ("X", ""), ("SCRIPT_NAME", "/app/"))
    inner = request.mounted("")
    assert inner is not None
    assert inner.environ_as_sent == pairs
    assert request.environ_as_sent == pairs
    assert request.environ_as_sent is request.environ_as_sent
    assert "HTTP_PROXY" not in request.environ


def test_a_request_built_without_a_body_has_that_of_its_carrier() -> None:
    asked: list[Request] = []

    class Lending(Carrier):
        def body_of(self, request: Request) -> Body:
            asked.append(request)
            return in_memory(b"lent", None)

    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": ""}
    request, empty = [
        Request._built(environ, "/", (), None, "responder", None, "fastcgi", carrier)
        for carrier in (Lending(), Carrier())
    ]
    assert drive(request.body.read()) == b"lent"
    assert request.body is request.body
    assert asked == [request]
    assert drive(empty.body.read()) == b""


def test_a_request_without_data_has_an_empty_body_there() -> None:
    request = of_a_transport({"REQUEST_METHOD": "GET"})
    assert drive(request.data.read()) == b""
    assert request.data is request.data
    assert request.data.length == 0
    assert request == Request({"REQUEST_METHOD": "GET"})


def test_a_request_keeps_the_data_it_was_made_with() -> None:
    data = in_memory(b"file", None)
    assert of_a_transport({"REQUEST_METHOD": "GET"}, data).data is data


def test_headers_are_one_view_of_the_environ() -> None:
    request = make(HTTP_A="1")
    assert request.headers["a"] == "1"
    assert request.headers is request.headers


def test_a_request_that_no_server_could_serve_cannot_be_made() -> None:
    with pytest.raises(RemoteProtocolError, match="no REQUEST_METHOD"):
        Request({})


def test_a_request_is_made_by_the_rules_it_is_given() -> None:
    rules = Rules(mount="/app")
    assert make(PATH_INFO="/app/x", rules=rules).script_name == "/app"
    with pytest.raises(RemoteProtocolError, match="not below the mount"):
        make(PATH_INFO="/x", rules=rules)


# --- mounted


@pytest.mark.parametrize(
    ("info", "prefix", "expected"),
    [
        ("/a/b", "/a", ("/s/a", "/b")),
        ("/a/b", "/a/", ("/s/a", "/b")),
        ("/a", "/a", ("/s/a", "")),
        ("/a/", "/a", ("/s/a", "/")),
        ("/a/b", "/a/b", ("/s/a/b", "")),
        ("/a", "", ("/s", "/a")),
        ("/a", "/", ("/s", "/a")),
        ("", "", ("/s", "")),
        ("//a", "", ("/s", "//a")),
    ],
)
def test_mounted_moves_a_prefix_to_script_name(info: str, prefix: str, expected: tuple[str, str]) -> None:
    request = make(SCRIPT_NAME="/s", PATH_INFO=info)
    inner = request.mounted(prefix)
    assert inner is not None
    assert (inner.script_name, inner.path_info) == expected
    assert (inner.environ["SCRIPT_NAME"], inner.environ["PATH_INFO"]) == expected


@pytest.mark.parametrize(("info", "prefix"), [("/ab", "/a"), ("/a", "/a/b"), ("", "/a"), ("/A", "/a"), ("//a", "/a")])
def test_mounted_is_none_off_a_segment_boundary(info: str, prefix: str) -> None:
    assert make(SCRIPT_NAME="/s", PATH_INFO=info).mounted(prefix) is None


def test_mounted_wants_a_slash() -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        make(PATH_INFO="/a").mounted("a")


def test_mounted_is_a_copy_that_shares_body_and_log() -> None:
    request = make(body=b"body", PATH_INFO="/a/b", QUERY_STRING="x=1", HTTP_COOKIE="c=1")
    query, cookies = request.query, request.cookies
    inner = request.mounted("/a")
    assert inner is not None
    assert (request.script_name, request.path_info) == ("", "/a/b")
    assert inner.body is request.body
    assert inner.data is request.data
    assert inner.query is query
    assert inner.cookies is cookies
    assert inner.environ_as_sent == request.environ_as_sent


@given(paths, paths)
@settings(deadline=None)
def test_mounted_keeps_the_path(info: str, prefix: str) -> None:
    if not info.startswith("/") or not prefix.startswith("/"):
        return
    try:
        request = make(SCRIPT_NAME="/s", PATH_INFO=info)
    except RemoteProtocolError:
        return
    inner = request.mounted(prefix)
    if inner is None:
        assert not (info + "/").startswith(prefix.rstrip("/") + "/")
    else:
        assert inner.path == inner.script_name + inner.path_info == request.path
        assert not inner.script_name.endswith("/")
        assert not inner.path_info or inner.path_info.startswith("/")
        assert Request(inner.environ).environ == inner.environ


# --- equality


def test_X01_requests_are_equal_whatever_carried_them() -> None:
    """The same request over FastCGI, SCGI and CGI; what a protocol must add does not tell them apart."""
    one = make(body=b"x", protocol="fastcgi", PATH_INFO="/a", REMOTE_PORT="1", SERVER_SOFTWARE="lighttpd/1.4.69", X="")
    two = make(body=b"x", protocol="scgi", PATH_INFO="/a", REMOTE_PORT="2", GATEWAY_INTERFACE="CGI/1.1")
    three = Request([("PATH_INFO", "/a"), ("HTTP_PROXY", "evil"), ("REQUEST_METHOD", "GET")], b"x")
    assert one == two == three
    assert one != "a request"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


@pytest.mark.parametrize(
    "other",
    [
        make(body=b"y", PATH_INFO="/a"),
        make(body=b"x", PATH_INFO="/b"),
        make(body=b"x", PATH_INFO="/a", REQUEST_METHOD="POST"),
        make(body=b"x", PATH_INFO="/a", HTTP_X="1"),
        make(body=b"x", SCRIPT_NAME="/a"),
        Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/a"}, b"x", role="filter"),
        Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/a"}, b"x", data=in_memory(b"z", None)),
    ],
)
def test_requests_that_a_handler_can_tell_apart_are_not_equal(other: Request) -> None:
    assert make(body=b"x", PATH_INFO="/a") != other


def test_bodies_that_are_not_in_memory_are_equal_to_themselves_only() -> None:
    body = Body(Pieces(b"x"), 1)
    environ = {"REQUEST_METHOD": "GET"}
    assert Request(environ, body) == Request(environ, body)
    assert Request(environ, body) != Request(environ, Body(Pieces(b"x"), 1))
    assert Request(environ, body) != Request(environ, b"x")


# --- the body


class Pieces:
    """A source that hands out pieces, however much is wanted of each at a time."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked: list[int] = []

    def receive_blocking(self, max_bytes: int) -> bytes:
        self.asked.append(max_bytes)
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def receive(self, max_bytes: int) -> bytes:
        return self.receive_blocking(max_bytes)


async def by_read(body: Body) -> bytes:
    return await body.read()


async def by_iteration(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body])


async def by_receive_some(body: Body) -> bytes:
    chunks = []
    while chunk := await body.receive_some(2):
        assert len(chunk) <= 2
        chunks.append(chunk)
    return b"".join(chunks)


async def by_file(body: Body) -> bytes:
    return body.file.read()


WAYS: list[Callable[[Body], Any]] = [by_read, by_iteration, by_receive_some, by_file]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [5, None])
def test_a_body_is_read_whole(way: Callable[[Body], Any], length: int | None) -> None:
    body = Body(Pieces(b"1", b"23", b"45"), length)
    assert drive(way(body)) == b"12345"
    assert drive(way(body)) == b""


@pytest.mark.parametrize("way", WAYS)
def test_E05_a_body_ends_at_its_length_and_nothing_behind_it_is_asked_for(way: Callable[[Body], Any]) -> None:
    source = Pieces(b"123", b"45678")
    assert drive(way(Body(source, 5))) == b"12345"
    assert source.pieces == [b"678"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pieces", [(), (b"12",), (b"12", b"34")])
def test_E04_a_body_that_ends_early_is_an_exception(way: Callable[[Body], Any], pieces: tuple[bytes, ...]) -> None:
    left = 5 - len(b"".join(pieces))
    with pytest.raises(IncompleteBody, match=f"ended {left} bytes before its announced length of 5") as caught:
        drive(way(Body(Pieces(*pieces), 5)))
    assert caught.value.status == 400


def test_an_unknown_length_ends_with_the_stream_which_is_not_asked_again() -> None:
    source = Pieces(b"1")
    body = Body(source, None)
    assert drive(body.read()) == b"1"
    assert drive(body.receive_some()) == b""
    assert len(source.asked) == 2


@pytest.mark.parametrize("length", [5, None])
def test_read_over_its_limit_is_413(length: int | None) -> None:
    source = Pieces(b"123", b"45", b"6")
    with pytest.raises(LimitExceeded, match="longer than 4 bytes") as caught:
        drive(Body(source, length).read(4))
    assert caught.value.status == 413
    assert source.asked == ([] if length else [65536, 65536])


@pytest.mark.parametrize("length", [4, None])
def test_read_up_to_its_limit(length: int | None) -> None:
    assert drive(Body(Pieces(b"1234"), length).read(4)) == b"1234"


def test_the_limit_of_read_is_by_default_that_of_the_limits() -> None:
    with pytest.raises(LimitExceeded, match="longer than 3 bytes"):
        drive(Body(Pieces(b"1234"), None, max_read=3).read())
    with pytest.raises(LimitExceeded, match="longer than 16777216 bytes"):
        drive(Body(Pieces(), 16 * 1024 * 1024 + 1).read())


def test_a_body_that_is_streamed_has_no_limit() -> None:
    assert drive(by_iteration(Body(Pieces(b"1234"), None, max_read=3))) == b"1234"


def test_a_loop_that_was_left_goes_on_where_it_was() -> None:
    async def two_loops(body: Body) -> list[bytes]:
        seen = []
        async for chunk in body:
            seen.append(chunk)
            break
        async for chunk in body:
            seen.append(chunk)
        return seen

    assert drive(two_loops(Body(Pieces(b"1", b"2", b"3"), 3))) == [b"1", b"2", b"3"]


def test_file_is_one_file_that_loses_nothing() -> None:
    body = Body(Pieces(b"line 1\nli", b"ne 2\n"), 14)
    assert body.file.readline() == b"line 1\n"
    assert body.file.readline() == b"line 2\n"
    assert body.file.read() == b""
    assert body.file.readable()


def test_repr_of_a_body_shows_what_is_left() -> None:
    body = Body(BytesSource(b"12345"), 5)
    drive(body.receive_some(2))
    assert repr(body) == "<Body length=5 left=3>"


def test_a_body_in_memory() -> None:
    assert drive(in_memory(b"123", None).read()) == b"123"
    assert drive(in_memory(b"12345", 3).read()) == b"123"
    with pytest.raises(IncompleteBody):
        drive(in_memory(b"1", 3).read())
    assert content_length({"CONTENT_LENGTH": "12"}) == 12


# --- where no transport carries it


def test_log_goes_to_stderr_where_no_transport_carries_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    make().log("a word")
    assert capsys.readouterr().err == "a word\n"


def test_blocking_code_runs_inline_where_no_transport_carries_the_request() -> None:
    assert drive(make().run_sync(divmod, 7, 2)) == (3, 1)
    assert drive(Carrier().run_sync(len, "abc")) == 3
