"""The heartbeat of an event loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator

import pytest
import trio
import trio.testing

from gateways._process.heartbeat import Heartbeat
from tests.cli.program import PATIENCE


class Watcher(logging.Handler):
    """Lets a test wait for what is logged, in whichever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.blocked = threading.Event()
        self.goes_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.said.append(text)
        (self.blocked if "has been blocked" in text else self.goes_on).set()


@pytest.fixture
def watcher() -> Generator[Watcher, None, None]:
    handler = Watcher()
    log = logging.getLogger("tests.heartbeat")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


LOG = logging.getLogger("tests.heartbeat")


async def test_each_beat_is_passed_on() -> None:
    send, receive = trio.open_memory_channel[int](1)
    heartbeat = Heartbeat(None, LOG, on_beat=lambda: send.send_nowait(heartbeat.beats), every=0.001)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        beats = [await receive.receive() for _ in range(3)]
        nursery.cancel_scope.cancel()
    assert beats == [1, 2, 3]


async def test_O15_where_a_loop_hangs_is_logged_once_and_then_that_it_goes_on(watcher: Watcher) -> None:
    def the_one_that_hangs() -> bool:
        return watcher.blocked.wait(PATIENCE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Heartbeat(0.02, LOG).run)
        await trio.testing.wait_all_tasks_blocked()
        seen = the_one_that_hangs()
        went_on = await trio.to_thread.run_sync(watcher.goes_on.wait, PATIENCE)
        nursery.cancel_scope.cancel()
    assert (seen, went_on) == (True, True)
    assert "in the_one_that_hangs" in watcher.said[0]
    assert "return watcher.blocked.wait(PATIENCE)" in watcher.said[0]
    assert "the event loop goes on after" in watcher.said[1]


async def test_without_a_deadline_nobody_watches() -> None:
    before = set(threading.enumerate())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Heartbeat(None, LOG).run)
        await trio.testing.wait_all_tasks_blocked()
        begun = set(threading.enumerate()) - before
        nursery.cancel_scope.cancel()
    assert begun == set()


async def test_the_thread_ends_with_the_task() -> None:
    before = set(threading.enumerate())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Heartbeat(0.02, LOG).run)
        await trio.testing.wait_all_tasks_blocked()
        [thread] = set(threading.enumerate()) - before
        nursery.cancel_scope.cancel()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert thread.daemon
