"""Handlers as ASGI applications: on trio and on asyncio, in front of a server that is strict about messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from gateways import GatewayError, Handler, LimitExceeded, Limits, Reject, Request, Response, Roles
from gateways.asgi import from_asgi, to_asgi
from gateways.testing import call
from tests.asgi.tools import PATIENCE, Message

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/x",
    "raw_path": b"/x",
    "query_string": b"a=1",
    "root_path": "",
    "headers": [(b"host", b"example.org")],
    "client": ("127.0.0.1", 4000),
    "server": ("127.0.0.1", 80),
}


class World:
    """trio or asyncio."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.name == "trio":

            async def in_time() -> None:
                with trio.fail_after(PATIENCE):
                    await function()

            trio.run(in_time)
        else:
            asyncio.run(asyncio.wait_for(function(), PATIENCE))

    def event(self) -> Any:
        return trio.Event() if self.name == "trio" else asyncio.Event()

    async def sleep_forever(self) -> None:
        await self.event().wait()


@pytest.fixture(params=["trio", "asyncio"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


class Server:
    """The server's side of one request: gives what it is told to, then waits for the end or for :meth:`leave`."""

    def __init__(self, world: World, *messages: Message, **scope: Any) -> None:
        self.scope = {**SCOPE, **scope}
        self.head: Message | None = None
        self.pieces: list[bytes] = []
        self.ended = False
        self._messages = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])
        self._gone = world.event()
        self._receiving = False

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        assert not self._receiving, "two tasks in receive"
        if self._messages:
            return self._messages.pop(0)
        self._receiving = True
        try:
            await self._gone.wait()
        finally:
            self._receiving = False
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        assert not self.ended, "a message after the end"
        if message["type"] == "http.response.start":
            assert self.head is None, "two heads"
            assert type(message["status"]) is int
            for name, value in message["headers"]:
                assert (type(name), type(value)) == (bytes, bytes)
                assert name == name.lower()
                assert name != b"status"
            self.head = message
        else:
            assert message["type"] == "http.response.body"
            assert self.head is not None, "a body before the head"
            assert type(message["body"]) is bytes
            self.pieces.append(message["body"])
            self.ended = not message["more_body"]
        if self.ended:
            self._gone.set()

    @property
    def status(self) -> int:
        assert self.head is not None
        status: int = self.head["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        assert self.head is not None
        return dict(self.head["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def pieces_of(*chunks: bytes) -> list[Message]:
    return [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, start=1)
    ]


def serve(world: World, handler: Any, *messages: Message, limits: Limits | None = None, **scope: Any) -> Server:
    """Have one request answered."""
    servers: list[Server] = []

    async def main() -> None:
        server = Server(world, *messages, **scope)
        servers.append(server)
        await to_asgi(handler, limits=limits)(server.scope, server.receive, server.send)
        assert server.ended

    world.run(main)
    return servers[0]


# --- answers ---------------------------------------------------------------------------------------------------------


async def hello(request: Request) -> Response:
    return Response(f"hello {request.path} {request.query['a']}", 201, {"X-One": "1"})


def test_a_small_answer_is_two_messages(world: World) -> None:
    server = serve(world, hello)
    assert (server.status, server.pieces) == (201, [b"hello /x 1"])
    assert server.headers == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"10",
        b"x-one": b"1",
    }


async def push(request: Request) -> Response:
    async def body(send: Callable[[str], Awaitable[None]]) -> None:
        await send("a")
        await send("")
        await send("b")

    return Response(body)


async def iterable(request: Request) -> Response:
    return Response(iter([b"a", b"", b"b"]))


async def begun(request: Request) -> Response:
    response = Response()
    answer = await request.begin(response)
    await answer.send("a")
    await answer.send("b")
    return response


async def answered(request: Request) -> Response:
    response = Response("ab")
    await request.answer(response)
    return response


def plain(request: Request) -> Response:
    return Response("ab")


@pytest.mark.parametrize("handler", [push, iterable, begun, answered, plain, Roles(plain)])
def test_an_answer_of_any_kind_arrives(world: World, handler: Any) -> None:
    server = serve(world, handler)
    assert (server.status, server.body) == (200, b"ab")


def test_pieces_leave_when_they_are_sent(world: World) -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Callable[[str], Awaitable[None]]) -> None:
            await send("a")
            assert servers[0].pieces == [b"a"]

        return Response(body)

    servers: list[Server] = []

    async def main() -> None:
        servers.append(Server(world))
        await to_asgi(handler)(servers[0].scope, servers[0].receive, servers[0].send)

    world.run(main)
    assert servers[0].pieces == [b"a", b""]


def test_a_file_arrives(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"x" * 600_000)

    async def handler(request: Request) -> Response:
        return Response.file(path)

    server = serve(world, handler)
    assert server.body == b"x" * 600_000
    assert server.headers[b"content-length"] == b"600000"


def test_head_has_no_body(world: World) -> None:
    server = serve(world, hello, method="HEAD")
    assert (server.status, server.body, server.headers[b"content-length"]) == (201, b"", b"10")


def test_204_has_no_body(world: World) -> None:
    async def handler(request: Request) -> Response:
        return Response("x", 204)

    assert serve(world, handler).body == b""


def test_a_refusal_is_an_answer(world: World) -> None:
    async def handler(request: Request) -> Response:
        raise Reject(403, "not you")

    server = serve(world, handler)
    assert (server.status, server.body) == (403, b"not you\n")


def test_a_failure_is_a_500_and_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        assert serve(world, handler).status == 500
    assert "GET '/x': the handler failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_answer_that_breaks_off_is_an_error_for_the_server(world: World) -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Callable[[str], Awaitable[None]]) -> None:
            await send("a")
            raise ZeroDivisionError

        return Response(body)

    with pytest.raises(ZeroDivisionError):
        serve(world, handler)


def test_a_request_that_means_nothing_is_a_400(world: World) -> None:
    assert serve(world, hello, method="GE T").status == 400
    assert serve(world, hello, headers=[(b"content-length", b"+3")]).status == 400


def test_what_is_logged_reaches_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        request.log("a word")
        return Response()

    serve(world, handler)
    assert "GET '/x': a word" in caplog.text


# --- bodies ----------------------------------------------------------------------------------------------------------


async def echo(request: Request) -> Response:
    return Response(await request.body.read())


def echo_in_a_thread(request: Request) -> Response:
    return Response(request.body.file.read())


@pytest.mark.parametrize("handler", [echo, echo_in_a_thread])
@pytest.mark.parametrize("headers", [[(b"content-length", b"6")], [(b"transfer-encoding", b"chunked")]])
def test_a_body_arrives(world: World, handler: Any, headers: list[tuple[bytes, bytes]]) -> None:
    server = serve(world, handler, *pieces_of(b"abc", b"", b"def"), method="POST", headers=headers)
    assert server.body == b"abcdef"


def test_a_body_without_a_length_arrives_over_http_2(world: World) -> None:
    server = serve(world, echo, *pieces_of(b"abc", b"def"), method="POST", headers=[], http_version="2")
    assert server.body == b"abcdef"


def test_a_body_is_read_no_further_than_it_is_wanted(world: World) -> None:
    async def handler(request: Request) -> Response:
        assert await request.body.receive_some(2) == b"ab"
        assert await request.body.receive_some() == b"c"
        return Response("x")

    messages = pieces_of(b"abc", b"def", b"ghi")
    assert serve(world, handler, *messages, method="POST", headers=[(b"content-length", b"9")]).status == 200


def test_a_body_over_the_limit_is_a_413(world: World) -> None:
    headers = [(b"content-length", b"6")]
    server = serve(world, echo, *pieces_of(b"abcdef"), limits=Limits(max_read=5), method="POST", headers=headers)
    assert server.status == LimitExceeded("").status == 413


# --- disconnects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "headers"),
    [
        ([], []),
        (pieces_of(b"abc"), [(b"content-length", b"3")]),
        ([{"type": "http.request", "body": b"a", "more_body": True}], [(b"content-length", b"3")]),
    ],
)
def test_a_client_that_leaves_cancels_the_handler(
    world: World, messages: list[Message], headers: list[tuple[bytes, bytes]]
) -> None:
    seen: list[object] = []

    async def main() -> None:
        async def handler(request: Request) -> Response:
            try:
                server.leave()
                await request.body.read()
                await world.sleep_forever()
            finally:
                seen.append(request.disconnected)
            return Response()

        server = Server(world, *messages, headers=headers)
        await to_asgi(handler)(server.scope, server.receive, server.send)
        assert server.head is None

    world.run(main)
    assert seen == [True]


def test_a_server_that_cancels_cancels_the_handler(world: World) -> None:
    seen: list[str] = []

    async def main() -> None:
        async def handler(request: Request) -> Response:
            try:
                waiting.set()
                await world.sleep_forever()
            finally:
                seen.append("cancelled")
            return Response()

        waiting, server = world.event(), Server(world)
        app = to_asgi(handler)(server.scope, server.receive, server.send)
        if world.name == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_await, app)
                await waiting.wait()
                nursery.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(app)
            await waiting.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await asyncio.sleep(0)

    world.run(main)
    assert seen == ["cancelled"]


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


# --- start and end ---------------------------------------------------------------------------------------------------


def live(world: World, app: Any, during: Callable[[Any], Awaitable[None]] | None = None) -> list[Message]:
    """Take an application through its lifespan, and give back what it has said."""
    said: list[Message] = []

    async def main() -> None:
        hosted = to_asgi(app)
        asked = 0

        async def receive() -> Message:
            nonlocal asked
            asked += 1
            if asked == 2 and during is not None:
                await during(hosted)
            return {"type": "lifespan.startup" if asked == 1 else "lifespan.shutdown"}

        async def send(message: Message) -> None:
            said.append(message)

        await hosted({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    world.run(main)
    return said


def test_the_lifespan_enters_and_leaves_the_application(world: World) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler]:
        log.append("start")
        yield hello
        log.append("end")

    async def during(hosted: Any) -> None:
        server = Server(world)
        await hosted(server.scope, server.receive, server.send)
        log.append(str(server.status))

    said = live(world, app, during)
    assert log == ["start", "201", "end"]
    assert said == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_a_handler_has_a_lifespan_of_no_consequence(world: World) -> None:
    assert [message["type"] for message in live(world, hello)] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


@pytest.mark.parametrize("when", ["startup", "shutdown"])
def test_a_failure_to_start_or_stop_is_told(world: World, when: str) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler]:
        if when == "startup":
            raise ValueError("no database")
        yield hello
        raise ValueError("no database")

    assert live(world, app)[-1] == {"type": f"lifespan.{when}.failed", "message": "ValueError: no database"}


def test_an_application_that_must_be_started_is_not_served_unstarted(world: World) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler]:
        yield hello

    with pytest.raises(GatewayError, match="has to support lifespan"):
        serve(world, app)


def test_other_scopes_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="no gateway protocol carries 'websocket'"):
        serve(world, hello, type="websocket")


def test_what_is_no_application_is_refused() -> None:
    with pytest.raises(TypeError, match="is neither"):
        to_asgi("hello")  # type: ignore[arg-type]


@pytest.mark.parametrize("wait", [trio.lowlevel.checkpoint, trio.sleep_forever, trio.to_thread.run_sync])
def test_a_handler_that_wants_trio_in_asyncio_is_told_so(
    wait: Callable[..., Awaitable[object]], caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> Response:
        await (wait(int) if wait is trio.to_thread.run_sync else wait())
        return Response()

    with caplog.at_level(logging.ERROR):
        assert serve(World("asyncio"), handler).status == 500
    assert "Hypercorn runs on trio" in caplog.text


@pytest.mark.parametrize("handler", [hello, push, iterable, begun, answered, plain])
async def test_both_adapters_together_change_nothing(handler: Any) -> None:
    direct = await call(handler, "GET", "/x?a=1")
    through = await call(from_asgi(to_asgi(handler)), "GET", "/x?a=1")
    assert (through.status, through.body) == (direct.status, direct.body)
    assert {name.lower(): value for name, value in through.headers.items()} == {
        name.lower(): value for name, value in direct.headers.items()
    }
