"""An abort, a peer that has gone, a deadline and a shutdown are one cancellation, with one order of clean-up."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import AsyncGenerator, Iterator

import pytest
import trio
import trio.testing

from gateways import Limits, Request, Response
from gateways._net import serving
from tests.net.tools import FASTCGI, SCGI, running

HANDLED = ["a task of the handler", "finally of the handler", "the log of the handler"]


class Steps(logging.Handler):
    """What happens to one request, in the order it happens in."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.started = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.steps.append("the access log")

    async def __call__(self, request: Request) -> Response:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.wait)
        finally:
            self.steps.append("finally of the handler")
            request.log("said at the last moment")
            self.steps.append("the log of the handler")
        return Response("nobody came")

    async def wait(self) -> None:
        try:
            self.started.set()
            await trio.sleep_forever()
        finally:
            self.steps.append("a task of the handler")


@pytest.fixture
def steps(caplog: pytest.LogCaptureFixture) -> Iterator[Steps]:
    steps = Steps()
    access = logging.getLogger("gateways.access")
    access.addHandler(steps)
    with caplog.at_level(logging.INFO, "gateways.access"):
        yield steps
    access.removeHandler(steps)


@pytest.mark.parametrize("cause", ["abort", "gone", "deadline", "shutdown"])
async def test_F37_clean_up_goes_from_the_inside_out_whatever_the_cause(steps: Steps, cause: str) -> None:
    limits = Limits(request_timeout=0.05 if cause == "deadline" else None, shutdown_grace=0.05)
    async with running(steps, limits=limits) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        await steps.started.wait()
        if cause == "abort":
            await peer.send(peer.client.abort(1))
        elif cause == "gone":
            await trio.aclose_forcefully(peer.stream)
        elif cause == "shutdown":
            backend.stop.set()
        if cause == "gone":
            with trio.fail_after(5):
                while "the access log" not in steps.steps:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        else:
            answer = await peer.answer()
            steps.steps.append("the answer")
            assert (answer.ended, answer.status) == ("complete", {"deadline": 504, "shutdown": 503}.get(cause, 0))
            assert answer.log.startswith(b"said at the last moment\n")
        assert steps.steps == [*HANDLED, "the access log", *["the answer"] * (cause != "gone")]


@pytest.mark.parametrize("cause", ["abort", "gone"])
async def test_F37_a_body_that_is_being_streamed_is_closed_before_the_end_is_sent(cause: str) -> None:
    steps: list[str] = []
    closed = trio.Event()

    async def numbers() -> AsyncGenerator[bytes]:
        try:
            yield b"0"
            await trio.sleep_forever()
        finally:
            steps.append("finally of the body")
            closed.set()

    async def handler(request: Request) -> Response:
        return Response(numbers())

    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        while not peer.events:
            await peer.receive()
        if cause == "abort":
            await peer.send(peer.client.abort(1))
            answer = await peer.answer()
            steps.append("the answer")
            assert answer.ended == "complete"
        else:
            await trio.aclose_forcefully(peer.stream)
            with trio.fail_after(5):
                await closed.wait()
        assert steps == ["finally of the body", "the answer"][: 2 if cause == "abort" else 1]


class Held:
    """Something that a handler keeps."""


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI], ids=["fastcgi", "scgi"])
async def test_what_a_cancelled_handler_held_is_let_go_at_once(protocol: serving.Protocol) -> None:
    kept: list[weakref.ref[Held]] = []
    started = trio.Event()

    async def handler(request: Request) -> Response:
        held = Held()
        kept.append(weakref.ref(held))
        started.set()
        await trio.sleep_forever()
        return Response(str(held))

    gc.collect()
    gc.disable()
    try:
        async with running(handler, protocol=protocol) as backend:
            peer = await backend.connect()
            await peer.ask()
            await started.wait()
            await trio.aclose_forcefully(peer.stream)
            await trio.testing.wait_all_tasks_blocked()
            assert kept[0]() is None
    finally:
        gc.enable()
