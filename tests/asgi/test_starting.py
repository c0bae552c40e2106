"""How ASGI applications start and stop: the lifespan, its state, and what cannot be started."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
import trio

from gateways import GatewayError, Request, Response
from gateways.asgi import from_asgi
from gateways.testing import call, serving
from tests.asgi.tools import PATIENCE, App, Message, Receive, Send, body, start


def with_lifespan(*to_send: Message, error: Exception | None = None) -> tuple[App, list[Message]]:
    """An application that answers each message of the lifespan with the next of these, then raises; and what it saw."""
    seen: list[Message] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
            for message in to_send:
                seen.append(await receive())
                await send(message)
            if error is not None:
                raise error
            return
        await start(send)
        await body(send, b"hello")

    return app, seen


STARTED: Message = {"type": "lifespan.startup.complete"}
STOPPED: Message = {"type": "lifespan.shutdown.complete"}


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
async def test_the_lifespan_is_run_once_around_all_requests(loop: Any) -> None:
    app, seen = with_lifespan(STARTED, STOPPED)
    async with serving(from_asgi(app, loop=loop)) as server:
        assert seen == [{"type": "lifespan.startup"}]
        for _ in range(3):
            assert (await server.request()).body == b"hello"
        assert seen == [{"type": "lifespan.startup"}]
    assert seen == [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
@pytest.mark.parametrize("error", [None, ValueError("http alone"), AssertionError()])
async def test_an_application_may_refuse_the_lifespan(loop: Any, error: Exception | None) -> None:
    app, _ = with_lifespan(error=error)
    assert (await call(from_asgi(app, loop=loop))).body == b"hello"


@pytest.mark.parametrize("error", [None, ValueError("and this is why")])
async def test_an_application_that_cannot_start_is_not_served(error: Exception | None) -> None:
    app, seen = with_lifespan({"type": "lifespan.startup.failed", "message": "no database"}, error=error)
    with pytest.raises(GatewayError, match="did not start: no database"):
        await call(from_asgi(app))
    assert seen == [{"type": "lifespan.startup"}]


async def test_an_application_that_cannot_start_and_waits_then_is_not_waited_for() -> None:
    app, _ = with_lifespan({"type": "lifespan.startup.failed"}, STOPPED)
    with trio.fail_after(PATIENCE), pytest.raises(GatewayError, match="does not say why"):
        await call(from_asgi(app))


async def test_a_lifespan_that_ends_early_does_not_end_the_application(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = with_lifespan(STARTED, error=ZeroDivisionError())
    with caplog.at_level(logging.ERROR):
        assert (await call(from_asgi(app))).body == b"hello"
    assert "the lifespan of the application failed" in caplog.text


async def test_a_shutdown_that_fails_is_told_of_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app, seen = with_lifespan(STARTED, {"type": "lifespan.shutdown.failed", "message": "still busy"})
    with caplog.at_level(logging.ERROR):
        assert (await call(from_asgi(app))).body == b"hello"
    assert "still busy" in caplog.text
    assert len(seen) == 2


async def test_the_lifespan_goes_by_its_order() -> None:
    raised: list[Exception] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for message in (STOPPED, {"type": "lifespan.push"}):
            try:
                await send(message)
            except GatewayError as error:
                raised.append(error)
        await send(STARTED)
        try:
            await send(STARTED)
        except GatewayError as error:
            raised.append(error)

    async with from_asgi(app)():
        pass
    assert [str(error) for error in raised] == [
        "not the time for 'lifespan.shutdown.complete'",
        "not the time for 'lifespan.push'",
        "not the time for 'lifespan.startup.complete'",
    ]


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
async def test_the_state_of_the_lifespan_is_in_each_scope_as_a_copy(loop: Any) -> None:
    pool: list[int] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = pool
            await send(STARTED)
            await receive()
            await send(STOPPED)
            return
        scope["state"]["pool"].append(1)  # the one that all share
        assert "mine" not in scope["state"]
        scope["state"]["mine"] = True
        await start(send)
        await body(send, b"%d" % len(scope["state"]["pool"]))

    async with serving(from_asgi(app, loop=loop)) as server:
        assert [(await server.request()).body for _ in range(3)] == [b"1", b"2", b"3"]


async def test_an_error_of_the_server_passes_as_it_is() -> None:
    app, seen = with_lifespan(STARTED, STOPPED)
    with pytest.raises(ZeroDivisionError):
        async with from_asgi(app)():
            raise ZeroDivisionError
    assert seen[-1] == {"type": "lifespan.shutdown"}


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
async def test_a_server_that_is_cancelled_ends(loop: Any) -> None:
    app, _ = with_lifespan(STARTED, STOPPED)
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with from_asgi(app, loop=loop)():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_application_may_be_started_again_and_twice_at_a_time() -> None:
    app, seen = with_lifespan(STARTED, STOPPED)
    application = from_asgi(app)
    async with application(), application():
        assert len(seen) == 2
    assert (await call(application)).body == b"hello"
    assert len(seen) == 6


async def test_a_handler_is_made_of_it_for_others_to_wrap() -> None:
    app, _ = with_lifespan(STARTED, STOPPED)
    async with from_asgi(app)() as handler:

        async def wrapped(request: Request) -> Response:
            response: Response = await handler(request)  # type: ignore[misc]
            assert response.status == 200
            return response

        assert (await call(wrapped)).body == b"hello"


async def test_a_request_that_was_made_by_hand_cannot_be_answered() -> None:
    app, _ = with_lifespan(STARTED, STOPPED)
    async with from_asgi(app)() as handler:
        with pytest.raises(GatewayError, match="made by hand"):
            await handler(Request({"REQUEST_METHOD": "GET"}))  # type: ignore[misc]


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="called with scope, receive and send"):
        from_asgi("app")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'trio' or 'asyncio'"):
        from_asgi(with_lifespan()[0], loop="curio")  # type: ignore[arg-type]


# --- for asyncio alone -----------------------------------------------------------------------------------------------


async def test_a_start_that_needs_asyncio_says_so() -> None:
    import asyncio

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        asyncio.get_running_loop()

    with pytest.raises(GatewayError, match="loop='asyncio'"):
        await call(from_asgi(app))


async def test_a_start_that_failed_for_want_of_asyncio_says_so() -> None:
    app, _ = with_lifespan({"type": "lifespan.startup.failed", "message": "RuntimeError: no running event loop"})
    with pytest.raises(GatewayError, match="did not start") as raised:
        await call(from_asgi(app))
    assert "loop='asyncio'" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("module", ["django.core.handlers.asgi", "quart.app", "asgiref.wsgi"])
async def test_frameworks_that_are_known_to_need_asyncio_are_told_at_once(module: str) -> None:
    async def call_it(self: object, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"hello")

    base = type("Application", (), {"__call__": call_it, "__module__": module})
    theirs: Any = type("Mine", (base,), {"__module__": "mine"})()
    with pytest.raises(GatewayError, match="loop='asyncio'"):
        await call(from_asgi(theirs))
    assert (await call(from_asgi(theirs, loop="asyncio"))).body == b"hello"
    on_trio: Any = type("Mine", (base,), {"__module__": "quart_trio.app"})()
    assert (await call(from_asgi(on_trio))).body == b"hello"


# --- CGI -------------------------------------------------------------------------------------------------------------

SCRIPT = """
import gateways
from gateways.asgi import from_asgi

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["x"] = b"state "
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    size = len((await receive())["body"])
    await send({"type": "http.response.start", "status": 202, "headers": []})
    if scope["path"] == "/pieces":
        await send({"type": "http.response.body", "body": scope["state"]["x"], "more_body": True})
        await send({"type": "http.response.body", "body": b"%d" % size})
    else:
        await send({"type": "http.response.body", "body": scope["state"]["x"] + b"%d" % size})
    assert (await receive())["type"] == "http.disconnect"

gateways.run(from_asgi(app, loop=LOOP))
"""


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
@pytest.mark.parametrize("path", ["/", "/pieces"])
def test_an_application_is_a_cgi_script(loop: str, path: str) -> None:
    environ = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": "3",
        "PATH_INFO": path,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("LOOP", repr(loop))],
        env={**environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        input=b"abc",
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 202 ")
    assert answer == b"state 3"
