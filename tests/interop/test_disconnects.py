"""The break in the middle: clients that leave cancel their handler, handlers that fail hang nobody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from gateways import Request, Response
from tests.interop import site, table
from tests.interop.backend import serving, site_script
from tests.interop.client import fetch, open_request
from tests.interop.configurations import CONFIGURATIONS
from tests.interop.conftest import ScriptFor
from tests.interop.servers import FrontEnd

#: Seconds within which a handler learns that its client has left.
AT_ONCE = 1.0
#: Seconds for what takes time at no time, but may on a busy machine. mod_fcgid takes ten to replace a process.
PATIENCE = 30.0

#: The configurations that tell: nginx hangs up on the application when its client does, others let it finish.
TELLING = [
    configuration
    for configuration in CONFIGURATIONS
    if configuration.server == "nginx" and configuration.mount == "" and configuration.script is None
]
#: Of those, the ones that also pass a body on as it comes.
STREAMING = [configuration for configuration in TELLING if "-unbuffered-" in configuration.id]


@pytest.fixture(scope="module")
def script_for() -> ScriptFor:
    return site_script


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """No pages of tracebacks beside a failure: some handlers of the site are there to fail."""
    caplog.set_level("CRITICAL", "gateways")


# --- clients that leave ----------------------------------------------------------------------------------------------


class Patient:
    """A handler that waits for ever at some point, and notes whether it was cancelled there."""

    def __init__(self, wait: Callable[[Patient, Request], Awaitable[Response]]) -> None:
        self.waits = trio.Event()
        self.cancelled = trio.Event()
        self._wait = wait

    async def __call__(self, request: Request) -> Response:
        return await self._wait(self, request)

    async def for_ever(self) -> None:
        self.waits.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise


async def _before_the_answer(handler: Patient, request: Request) -> Response:
    await handler.for_ever()
    return Response("never")


async def _within_the_answer(handler: Patient, request: Request) -> Response:
    async def body(send: Callable[[bytes], Awaitable[None]]) -> None:
        await send(b"x" * 100_000)
        await handler.for_ever()

    return Response(body)


async def _within_the_body(handler: Patient, request: Request) -> Response:
    handler.waits.set()
    try:
        async for _ in request.body:
            pass
    except trio.Cancelled:
        handler.cancelled.set()
        raise
    return Response("complete")


async def _is_cancelled(handler: Patient, web: FrontEnd, body: bytes | None = None) -> None:
    """Leave while the handler waits; then the next client must be served."""
    headers = [] if body is None else [("Content-Length", str(2 * len(body)))]
    method = "GET" if body is None else "POST"
    here: Callable[[Request], Awaitable[Response]] = handler

    async def app(request: Request) -> Response:
        return await here(request)

    async with serving(app, web):
        with trio.fail_after(PATIENCE):
            async with open_request(web.port, method, "/", headers, body):
                await handler.waits.wait()
        with trio.fail_after(AT_ONCE):
            await handler.cancelled.wait()
        here = site.app
        answer = await fetch(web.port, "GET", "/empty", timeout=PATIENCE)
    assert (answer.status, answer.complete) == (200, True)


@pytest.mark.parametrize("web", TELLING, indirect=True, ids=str)
async def test_a_client_that_leaves_before_the_answer_cancels_the_handler(web: FrontEnd) -> None:
    await _is_cancelled(Patient(_before_the_answer), web)


@pytest.mark.parametrize("web", TELLING, indirect=True, ids=str)
async def test_a_client_that_leaves_within_the_answer_cancels_the_handler(web: FrontEnd) -> None:
    await _is_cancelled(Patient(_within_the_answer), web)


@pytest.mark.parametrize("web", STREAMING, indirect=True, ids=str)
async def test_a_client_that_leaves_within_its_body_cancels_the_handler(web: FrontEnd) -> None:
    await _is_cancelled(Patient(_within_the_body), web, b"half")


# --- handlers that fail ----------------------------------------------------------------------------------------------


async def test_a_handler_that_fails_hangs_nobody_and_breaks_visibly_where_it_can(web: FrontEnd) -> None:
    configuration = web.configuration
    expected = table.break_at(configuration.id)
    seen: dict[str, str] = {}
    async with serving(site.app, web):
        before = await fetch(web.port, "GET", f"{configuration.mount}/boom", timeout=PATIENCE)
        for page in ("late", "late_length"):
            # A client that keeps its connection would learn of the end when the server gives up on keeping it.
            target = f"{configuration.mount}/{page}"
            answer = await fetch(web.port, "GET", target, [("Connection", "close")], timeout=PATIENCE)
            seen[page] = table.INVISIBLE if answer.complete else table.VISIBLE
            assert answer.status in {0, 200, 500, 502, 503}
        after = await fetch(web.port, "GET", f"{configuration.mount}/numbers", timeout=PATIENCE)
    assert (before.status, before.body, before.complete) == (500, b"Internal Server Error\n", True)
    assert seen == {"late": expected.streamed, "late_length": expected.announced}
    assert (after.status, after.complete) == (200, True)
