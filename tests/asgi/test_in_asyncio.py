"""ASGI applications on asyncio, in a thread of their own, behind a server that runs on trio."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

import gateways
from gateways import LocalProtocolError
from gateways.asgi import from_asgi
from gateways.testing import Result, call, serving
from tests.asgi.tools import PATIENCE, App, Client, Receive, Send, body, read, start, strict

MIB = 1 << 20


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE):
        yield


async def ask(app: App, *args: Any, **how: Any) -> Result:
    return await call(from_asgi(strict(app), loop="asyncio"), *args, **how)


class Flag:
    """Set in one world, awaited in the other."""

    def __init__(self) -> None:
        self.flag = threading.Event()

    def set(self) -> None:
        self.flag.set()

    async def in_trio(self) -> None:
        assert await trio.to_thread.run_sync(self.flag.wait, PATIENCE)

    async def in_asyncio(self) -> None:
        assert await asyncio.to_thread(self.flag.wait, PATIENCE)


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_a_request_is_answered(protocol: str) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        data = await read(receive)
        await start(send)
        await body(send, b"you sent ", more=True)
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        await body(send, data)

    result = await ask(app, "POST", body=b"x" * 200_000, protocol=protocol)
    assert (result.status, result.body, result.error) == (200, b"you sent " + b"x" * 200_000, None)


async def test_all_requests_are_on_one_loop_which_has_ended_afterwards() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        loops.append(asyncio.get_running_loop())
        await start(send)
        await body(send, b"x")

    async with serving(from_asgi(app, loop="asyncio")) as server:
        for _ in range(3):
            assert (await server.request()).status == 200
    assert len({id(loop) for loop in loops}) == 1
    assert loops[0].is_closed()
    assert "asyncio" not in {thread.name for thread in threading.enumerate()}


async def test_requests_run_at_the_same_time() -> None:
    running, both = 0, asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await asyncio.wait_for(both.wait(), PATIENCE)
        await start(send)
        await body(send, b"x")

    async with serving(from_asgi(strict(app), loop="asyncio")) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.request)
        assert (await server.request()).status == 200


async def test_it_may_send_and_receive_at_the_same_time() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())
        await start(send)
        await body(send, b"a", more=True)
        await body(send, b"b")
        assert (await listening)["type"] == "http.disconnect"

    assert (await ask(app)).body == b"ab"


async def test_a_mistake_is_raised_where_it_was_made() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        with pytest.raises(LocalProtocolError, match=r"before http\.response\.start"):
            await body(send, b"too early")
        await start(send)
        await body(send, b"fine")

    assert (await ask(app)).body == b"fine"


class Quitting(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ZeroDivisionError(), ZeroDivisionError),
        (SystemExit(3), gateways.GatewayError),
        (asyncio.CancelledError(), gateways.GatewayError),
        (Quitting(), gateways.GatewayError),
    ],
)
async def test_an_error_is_a_500_and_the_loop_goes_on(error: BaseException, seen: type[Exception]) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/fail":
            raise error
        await start(send)
        await body(send, b"fine")

    async with serving(from_asgi(strict(app), loop="asyncio")) as server:
        assert (await server.request("GET", "/fail")).status == 500
        assert [type(each) for each in server.errors] == [seen]
        assert (await server.request()).body == b"fine"


async def test_a_client_that_leaves_cancels_the_application() -> None:
    waiting, cancelled = Flag(), Flag()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            waiting.set()
            await asyncio.sleep(10 * PATIENCE)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(from_asgi(strict(app), loop="asyncio"), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await waiting.in_trio()
        await client.leave()
        await cancelled.in_trio()
        assert server.errors == []


async def test_an_application_that_cleans_up_when_it_is_cancelled_is_waited_for() -> None:
    waiting, over = Flag(), []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            waiting.set()
            await receive()
            await receive()
        finally:
            await asyncio.sleep(0)
            over.append(scope["path"])

    async with serving(from_asgi(strict(app), loop="asyncio"), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await waiting.in_trio()
        await client.leave()
    assert over == ["/"]


async def test_send_waits_for_a_slow_reader() -> None:
    sent = 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        for _ in range(64):
            await body(send, bytes(MIB), more=True)
            sent += MIB
        await body(send, b"")

    async with serving(from_asgi(strict(app), loop="asyncio"), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        while sent < MIB:
            await client.stream.receive_some(65_536)
        size = 0
        while data := await client.stream.receive_some(65_536):
            size += len(data)
            assert sent < size + 4 * MIB
    assert sent == 64 * MIB


async def test_work_after_the_answer_does_not_keep_the_client_waiting() -> None:
    go_on, done = Flag(), Flag()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"answer")
        await go_on.in_asyncio()
        done.set()

    async with serving(from_asgi(strict(app), loop="asyncio"), "fastcgi", "unix") as server:
        assert (await server.request()).body == b"answer"
        go_on.set()
    assert done.flag.is_set()


async def test_a_task_that_is_left_behind_cannot_send(caplog: pytest.LogCaptureFixture) -> None:
    over, tried = Flag(), Flag()
    outcome: list[type[BaseException]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        async def later() -> None:
            await over.in_asyncio()
            try:
                await body(send, b"late")
            except BaseException as error:
                outcome.append(type(error))
                raise
            finally:
                tried.set()

        tasks.append(asyncio.create_task(later()))
        await start(send)
        await body(send, b"x")

    tasks: list[asyncio.Task[None]] = []
    with caplog.at_level(logging.ERROR):
        async with serving(from_asgi(strict(app), loop="asyncio")) as server:
            assert (await server.request()).body == b"x"
            over.set()
            await tried.in_trio()
    assert outcome == [asyncio.CancelledError]
    assert caplog.text == ""
