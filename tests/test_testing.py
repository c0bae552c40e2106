"""gateways.testing: what a test of an application is told, and that it is what a client would see."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
import trio

from gateways import (
    Headers,
    Limits,
    LocalProtocolError,
    Reject,
    RemoteProtocolError,
    Request,
    Response,
    Roles,
    fastcgi,
)
from gateways.events import ResponseEnded
from gateways.testing import Result, call, serving, variables
from tests.toy import toy

PATIENCE = 10.0
PROTOCOLS: list[str | ModuleType] = ["fastcgi", "scgi", "http", toy]


async def echo(request: Request) -> Response:
    """What a handler sees, as JSON."""
    body = await request.body.read()
    return Response.json(
        {
            "method": request.method,
            "path": request.path,
            "raw_path": request.raw_path,
            "script_name": request.script_name,
            "path_info": request.path_info,
            "query": request.query_string,
            "headers": dict(request.headers.items()),
            "cookies": request.cookies,
            "body": body.decode(),
            "length": request.content_length,
            "role": request.role,
            "protocol": request.protocol,
            "remote_user": request.remote_user,
            "url": request.url,
        }
    )


async def fail(request: Request) -> Response:
    raise KeyError("of the handler")


async def break_off(request: Request) -> Response:
    async def body(send: Callable[[str], object]) -> None:
        await send("x" * 100_000)  # type: ignore[misc]
        raise KeyError("after the head")

    return Response(body)


async def forever(request: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


# --- what is asked ---------------------------------------------------------------------------------------------------


async def test_plain_call_is_a_get_of_the_root() -> None:
    seen = (await call(echo)).json()
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("GET", "/", "", "")
    assert (seen["length"], seen["role"], seen["headers"]) == (None, "responder", {"host": "localhost"})
    assert seen["url"] == "http://localhost/"


@pytest.mark.parametrize(
    ("written", "path", "raw_path", "query"),
    [
        ("/a/b", "/a/b", "/a/b", ""),
        ("/caf%C3%A9", "/café", "/caf%C3%A9", ""),
        ("/café au lait", "/café au lait", "/caf%C3%A9%20au%20lait", ""),
        ("/a%2Fb%25", "/a/b%", "/a%2Fb%25", ""),
        ("/%E9", "/\udce9", "/%E9", ""),
        ("/a#b", "/a#b", "/a%23b", ""),
        ("/x?a=1&b=%C3%A9", "/x", "/x", "a=1&b=%C3%A9"),
        ("/x?a b=é", "/x", "/x", "a%20b=%C3%A9"),
        ("/x?", "/x", "/x", ""),
        ("//a/../b", "//a/../b", "//a/../b", ""),
    ],
)
async def test_path_as_a_client_writes_it(written: str, path: str, raw_path: str, query: str) -> None:
    seen: list[tuple[str, str | None, str]] = []

    async def app(request: Request) -> Response:
        seen.append((request.path, request.raw_path, request.query_string))
        return Response()

    for protocol in ("fastcgi", "http"):
        await call(app, "GET", written, protocol=protocol)
    assert seen == [(path, raw_path, query)] * 2


async def test_query_apart_from_the_path() -> None:
    for query in ("a=1&b=c+d", {"a": "1", "b": "c d"}, [("a", "1"), ("b", "c d")]):
        assert (await call(echo, "GET", "/x", query=query)).json()["query"] == "a=1&b=c+d"


def test_query_given_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        variables("GET", "/?a=1", query="b=2")


async def test_headers_and_cookies() -> None:
    headers = [("X-A", "1"), ("x-a", "2"), ("Content-Type", "text/plain"), ("Host", "example.test:81")]
    for protocol in ("fastcgi", "scgi", "http"):
        seen = (await call(echo, headers=headers, cookies={"a": "b", "c": "d"}, protocol=protocol)).json()
        assert seen["headers"]["x-a"] == "1, 2"
        assert (seen["headers"]["content-type"], seen["headers"]["host"]) == ("text/plain", "example.test:81")
        assert seen["cookies"] == {"a": "b", "c": "d"}
    assert (await call(echo, headers={"Accept": "*/*"})).json()["headers"]["accept"] == "*/*"


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
@pytest.mark.parametrize("body", [b"hello", "hello"])
async def test_body_in_memory_is_announced(protocol: str | ModuleType, body: bytes | str) -> None:
    seen = (await call(echo, "POST", body=body, protocol=protocol)).json()
    assert (seen["body"], seen["length"]) == ("hello", 5)


async def pieces() -> AsyncIterator[bytes]:
    for piece in (b"he", b"", b"llo"):
        yield piece


@pytest.mark.parametrize("protocol", ["fastcgi", "http"])
async def test_body_in_pieces_is_not_announced(protocol: str) -> None:
    for body in ([b"he", b"", b"llo"], (piece for piece in (b"he", b"llo")), pieces()):
        seen = (await call(echo, "POST", body=body, protocol=protocol)).json()
        assert (seen["body"], seen["length"]) == ("hello", None)


async def test_body_in_pieces_over_scgi_needs_its_length() -> None:
    with pytest.raises(LocalProtocolError, match="CONTENT_LENGTH"):
        await call(echo, "POST", body=[b"hello"], protocol="scgi")
    result = await call(echo, "POST", body=pieces(), headers={"Content-Length": "5"}, protocol="scgi")
    assert result.json()["body"] == "hello"


async def test_variables_of_your_own() -> None:
    more = {"REMOTE_USER": "m", "SCRIPT_NAME": "/app", "PATH_INFO": "/x", "HTTP_HOST": "h", "REQUEST_URI": None}
    seen = (await call(echo, environ=more)).json()
    assert (seen["remote_user"], seen["script_name"], seen["path_info"]) == ("m", "/app", "/x")
    assert (seen["raw_path"], seen["headers"]) == (None, {"host": "h"})


async def test_settings_of_the_server() -> None:
    assert (await call(echo, "GET", "/app/x", mount="/app")).json()["script_name"] == "/app"
    assert (await call(echo, "GET", "/other", mount="/app")).status == 404
    assert (await call(echo, "POST", body="hello", limits=Limits(max_read=4))).status == 413
    root = {"SCRIPT_NAME": "/app", "PATH_INFO": None, "SERVER_SOFTWARE": "nginx/1.22.1"}
    assert (await call(echo, environ=root)).json()["script_name"] == ""
    assert (await call(echo, environ=root, quirks="none")).json()["script_name"] == "/app"


async def test_roles() -> None:
    async def upper(request: Request) -> Response:
        return Response(await request.body.read() + (await request.data.read()).upper())

    async def guard(request: Request) -> Response:
        return Response.authorize(REMOTE_USER="m")

    app = Roles(echo, authorizer=guard, filter=upper)
    assert (await call(app)).json()["role"] == "responder"
    assert (await call(app, role="authorizer")).headers["Variable-REMOTE_USER"] == "m"
    assert (await call(app, role="filter", body=b"a", data=b"file")).body == b"aFILE"
    assert (await call(app, role="filter")).body == b""
    assert (await call(echo, role="authorizer")).status == 403
    with pytest.raises(LocalProtocolError, match="no role"):
        await call(app, role="filter", protocol="scgi")


# --- what comes back -------------------------------------------------------------------------------------------------


async def test_result_has_all_of_the_answer() -> None:
    async def app(request: Request) -> Response:
        request.log("seen")
        return Response("é", 201, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], app_status=3)

    result = await call(app)
    assert result == Result(
        201,
        Headers(
            [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Content-Length", "2"),
            ]
        ),
        b"\xc3\xa9",
        "Created",
        ("seen",),
        3,
    )
    assert (result.text, result.headers.get_all("set-cookie")) == ("é", ["a=1", "b=2"])


async def test_log_is_empty_where_the_protocol_has_no_channel_for_it() -> None:
    async def app(request: Request) -> Response:
        request.log("seen")
        return Response()

    assert [(await call(app, protocol=protocol)).log for protocol in ("scgi", "http")] == [(), ()]


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_answer_to_head_has_no_body(protocol: str) -> None:
    get, head = [await call(echo, method, protocol=protocol) for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(get.body) + 1  # the name of the method is in it


async def test_error_of_a_handler_is_raised() -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(KeyError, match="of the handler") as caught:
            await call(fail, protocol=protocol)
        assert [entry.name for entry in caught.traceback][-1] == "fail"


async def test_error_of_a_handler_is_a_clean_500_if_you_like() -> None:
    for protocol in PROTOCOLS:
        result = await call(fail, protocol=protocol, raise_errors=False)
        assert (result.status, result.text, result.error) == (500, "Internal Server Error\n", None)


async def test_error_after_the_head_is_raised_too() -> None:
    with pytest.raises(KeyError, match="after the head"):
        await call(break_off)


async def test_broken_answer_is_told_from_a_whole_one() -> None:
    for protocol in ("fastcgi", "http"):
        result = await call(break_off, protocol=protocol, raise_errors=False)
        assert (result.status, len(result.body)) == (200, 100_000)
        assert isinstance(result.error, RemoteProtocolError)


async def test_errors_that_are_answers_are_not_raised() -> None:
    async def app(request: Request) -> Response:
        raise Reject(int(request.query["status"]), "no")

    for status in (401, 500, 503):
        result = await call(app, query={"status": str(status)})
        assert (result.status, result.text) == (status, "no\n")


# --- applications ----------------------------------------------------------------------------------------------------


def recording(events: list[str]) -> Callable[[], object]:
    @asynccontextmanager
    async def app() -> AsyncGenerator[Callable[[Request], object]]:
        events.append("start")

        async def handler(request: Request) -> Response:
            events.append("request")
            return Response()

        yield handler
        events.append("stop")

    return app


@pytest.mark.parametrize("over", ["memory", "unix", "tcp"])
async def test_application_is_started_once_and_shut_down(over: str) -> None:
    events: list[str] = []
    async with serving(recording(events), over=over) as server:  # type: ignore[arg-type]
        assert events == ["start"]
        await server.request()
        await server.request()
    assert events == ["start", "request", "request", "stop"]


@pytest.mark.parametrize("over", ["memory", "unix", "tcp"])
async def test_error_while_starting_is_raised_as_it_is(over: str) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[Callable[[Request], object]]:
        raise KeyError("no database")
        yield echo

    with pytest.raises(KeyError, match="no database"):
        async with serving(app, over=over):  # type: ignore[arg-type]
            pass


# --- serving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
@pytest.mark.parametrize("over", ["memory", "unix", "tcp"])
async def test_every_protocol_over_everything(protocol: str | ModuleType, over: str) -> None:
    async with serving(echo, protocol, over) as server:
        answers: list[Result] = []

        async def ask() -> None:
            answers.append(await server.request("POST", "/x", body="hello"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        seen = [answer.json() for answer in answers]
        assert [(each["path"], each["body"]) for each in seen] == [("/x", "hello")] * 3
        assert {each["protocol"] for each in seen} == {protocol if isinstance(protocol, str) else "toy"}
        assert server.errors == []


async def test_address_and_repr_tell_where() -> None:
    async with serving(echo) as server:
        assert server.address is None
        assert repr(server) == "<Server of gateways.fastcgi in memory>"
    async with serving(echo, "scgi", "tcp") as server:
        assert server.address is not None
        assert server.address.startswith("127.0.0.1:")
        assert repr(server) == f"<Server of gateways.scgi at {server.address}>"


@pytest.mark.parametrize("over", ["memory", "unix", "tcp"])
async def test_connection_for_bytes_of_your_own(over: str) -> None:
    async with serving(echo, over=over) as server:
        stream, web = await server.connect(), fastcgi.ClientConnection()
        request = web.send_request(1, variables("GET", "/x")) + web.end_body(1)
        for at in range(len(request)):
            await stream.send_all(request[at : at + 1])
        events = []
        while data := await stream.receive_some():
            events += web.receive_data(bytes(data))
        assert events[-1] == ResponseEnded(1)


async def test_errors_of_handlers_are_answered_and_kept() -> None:
    async with serving(fail) as server:
        assert [(await server.request()).status for _ in range(2)] == [500, 500]
        assert [repr(error) for error in server.errors] == ["KeyError('of the handler')"] * 2


@pytest.mark.parametrize(("protocol", "over"), [("fastcgi", "memory"), ("scgi", "tcp"), ("http", "unix")])
async def test_request_that_is_cancelled_cancels_the_handler(protocol: str, over: str) -> None:
    begun, over_again = trio.Event(), trio.Event()

    async def app(request: Request) -> Response:
        try:
            begun.set()
            return await forever(request)
        finally:
            over_again.set()

    with trio.fail_after(PATIENCE):
        async with serving(app, protocol, over) as server, trio.open_nursery() as nursery:
            nursery.start_soon(server.request)
            await begun.wait()
            nursery.cancel_scope.cancel()
        await over_again.wait()


@pytest.mark.parametrize("over", ["memory", "unix", "tcp"])
async def test_open_connections_are_closed_in_the_end(over: str) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(forever, over=over) as server:
            stream, web = await server.connect(), fastcgi.ClientConnection()
            await stream.send_all(web.send_request(1, variables()) + web.end_body(1))
            idle = await server.connect()
        for each in (stream, idle):
            with pytest.raises(trio.ClosedResourceError):
                await each.receive_some()


async def test_answer_before_the_end_of_the_request() -> None:
    async def app(request: Request) -> Response:
        raise Reject(413)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await trio.lowlevel.checkpoint()

    with trio.fail_after(PATIENCE):
        assert (await call(app, "POST", body=endless())).status == 413


async def test_reset_is_seen_where_the_protocol_itself_says_nothing() -> None:
    async with serving(break_off, "scgi", "tcp") as server:
        result = await server.request()
    assert str(result.error) == "the connection was reset"


async def test_no_answer_is_an_error() -> None:
    silent = ModuleType("silent")
    silent.ClientConnection = toy.ClientConnection  # type: ignore[attr-defined]
    silent.serve_stream = serve_silence  # type: ignore[attr-defined]
    with pytest.raises(RemoteProtocolError, match="no answer"):
        await call(echo, protocol=silent)


async def serve_silence(app: object, stream: trio.abc.Stream, **options: object) -> None:
    await stream.aclose()


async def test_protocol_that_is_not_told_of_the_end_is_told_apart() -> None:
    class Client(toy.ClientConnection):
        def receive_data(self, data: bytes) -> list[object]:  # type: ignore[override]
            return []

    silent = ModuleType("silent")
    silent.ClientConnection = Client  # type: ignore[attr-defined]
    silent.serve_stream = serve_silence  # type: ignore[attr-defined]
    with pytest.raises(RemoteProtocolError, match="without an answer"):
        await call(echo, protocol=silent)


async def test_error_in_the_block_is_raised_as_it_is() -> None:
    for over in ("memory", "unix"):
        with pytest.raises(AssertionError, match="of the test"):
            async with serving(echo, over=over):
                raise AssertionError("of the test")


async def test_several_errors_stay_together() -> None:
    async def serve_badly(app: object, stream: trio.abc.Stream, **options: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("of the protocol")

    bad = ModuleType("bad")
    bad.ClientConnection = toy.ClientConnection  # type: ignore[attr-defined]
    bad.serve_stream = serve_badly  # type: ignore[attr-defined]

    async def misuse() -> None:
        async with serving(echo, bad) as server:
            await server.connect()
            raise AssertionError("of the test")

    with pytest.raises(ExceptionGroup) as caught:
        await misuse()
    assert {type(error) for error in caught.value.exceptions} == {AssertionError, KeyError}


async def test_what_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="memory, unix, tcp, not 'udp'"):
        async with serving(echo, over="udp"):
            pass
    with pytest.raises(ModuleNotFoundError):
        await call(echo, protocol="gopher")


async def test_serve_stream_serves_a_connected_socket_until_it_ends() -> None:
    here, there = socket.socketpair()
    web = fastcgi.ClientConnection()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery, trio.SocketStream(trio.socket.from_stdlib_socket(here)) as stream:
            nursery.start_soon(fastcgi.serve_stream, echo, there)
            await stream.send_all(web.send_request(1, variables("GET", "/x")) + web.end_body(1))
            events = []
            while data := await stream.receive_some():
                events += web.receive_data(bytes(data))
    assert events[-1] == ResponseEnded(1)
    assert there.fileno() == -1
