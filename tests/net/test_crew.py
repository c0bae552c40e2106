"""The tasks of a crew: who leads, who waits, and what a handler costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

from gateways import Request, Response
from gateways._net import crew
from gateways._net.stream import SocketStream
from tests.net.pairs import asking, connected, pair, service_for, staffed, tasks
from tests.net.tools import PATIENCE, POST, running, unix, variables


class Gate:
    """A handler that waits for the gate to open where the path says so."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.waiting = 0

    async def __call__(self, request: Request) -> Response:
        if request.path == "/wait":
            self.waiting += 1
            await self.open.wait()
        return Response(request.path)


@pytest.fixture(params=["epoll", "selectors"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system has, and what serves where it has no epoll."""
    if request.param == "selectors":
        monkeypatch.setattr(crew, "new_poller", crew.AnyPoller)


@pytest.mark.usefixtures("poller")
async def test_requests_are_answered_and_clients_that_leave_noticed_with_either_poller(tmp_path: Path) -> None:
    cancelled = trio.Event()

    async def handler(request: Request) -> Response:
        if request.path == "/wait":
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
        return Response(await request.body.read())

    async with running(handler, unix(tmp_path)) as backend:
        peer = await backend.connect()
        await peer.ask(POST, b"hello", keep=True)
        assert (await peer.answer()).body == b"hello"
        waiting = await backend.connect()
        await waiting.ask(variables(path="/wait"))
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(waiting.stream)
        with trio.fail_after(PATIENCE):
            await cancelled.wait()
        peer.events.clear()
        await peer.ask(POST, b"again")
        assert (await peer.answer()).body == b"again"


async def test_a_handler_that_does_not_wait_costs_no_task() -> None:
    at_work: list[int] = []

    async def handler(request: Request) -> Response:
        at_work.append(tasks())
        return Response("fine")

    async with connected(handler) as (_, peer):
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        for number in range(1, 4):
            await peer.ask(stream_id=number, keep=True)
            assert (await peer.answer(number)).body == b"fine"
    assert at_work == [before] * 3


async def test_connections_that_idle_have_no_tasks() -> None:
    service = service_for(Gate())
    async with staffed(service) as nursery:
        pairs = [pair() for _ in range(20)]
        service.start(SocketStream(pairs[0][1]), nursery)
        await trio.testing.wait_all_tasks_blocked()
        before = len(nursery.child_tasks)
        for _, theirs in pairs[1:]:
            service.start(SocketStream(theirs), nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.connections) == 20
        assert len(nursery.child_tasks) == before
        for ours, _ in pairs:
            ours.close()


async def test_tasks_are_used_again_for_the_next_handlers_that_wait_and_few_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "_MAX_FOLLOWERS", 5)
    gate = Gate()
    service = service_for(gate)
    async with staffed(service) as nursery:
        ours, theirs = pair()
        service.start(SocketStream(theirs), nursery)
        for number in range(1, 11):
            ours.send(asking("/wait", stream_id=number, keep=True))
        await trio.testing.wait_all_tasks_blocked()
        assert gate.waiting == 10
        # One for each, and one that leads.
        assert len(nursery.child_tasks) == 11
        before = set(nursery.child_tasks)
        gate.open.set()
        await trio.testing.wait_all_tasks_blocked()
        kept = set(nursery.child_tasks)
        assert len(kept) == 6
        gate.open = trio.Event()
        for number in range(1, 6):
            ours.send(asking("/wait", stream_id=number, keep=True))
        await trio.testing.wait_all_tasks_blocked()
        assert gate.waiting == 15
        assert set(nursery.child_tasks) == kept <= before
        gate.open.set()
        await trio.testing.wait_all_tasks_blocked()
        ours.close()


async def test_others_are_answered_while_handlers_wait() -> None:
    gate = Gate()
    service = service_for(gate)
    async with staffed(service) as nursery:
        lines = [pair() for _ in range(3)]
        for _, theirs in lines:
            service.start(SocketStream(theirs), nursery)
        for ours, _ in lines[:2]:
            ours.send(asking("/wait"))
        await trio.testing.wait_all_tasks_blocked()
        lines[2][0].send(asking("/quick"))
        await trio.testing.wait_all_tasks_blocked()
        assert b"/quick" in lines[2][0].recv(65_536)
        gate.open.set()
        await trio.testing.wait_all_tasks_blocked()
        for ours, _ in lines:
            ours.close()


async def test_a_body_alone_on_its_connection_goes_to_no_file_however_late_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_file(*arguments: Any, **settings: Any) -> NoReturn:
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)

    async def handler(request: Request) -> Response:
        size = 0
        await trio.testing.wait_all_tasks_blocked()
        async for chunk in request.body:
            size += len(chunk)
            await trio.testing.wait_all_tasks_blocked()
        return Response(str(size))

    async with connected(handler) as (_, peer):
        await peer.ask(variables("POST", CONTENT_LENGTH="2000000"), b"x" * 2_000_000)
        assert (await peer.answer()).body == b"2000000"
