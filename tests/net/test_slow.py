"""Requests that take long are logged, once each, with what they are doing, and nothing of what the others are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from gateways import Limits, Request, Response, Tally, URLMap
from tests.net.tools import GET, running, variables

LIMITS = Limits(slow_timeout=0.02)
PATIENCE = 10.0


class Told(logging.Handler):
    """What the log is told of slow requests."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.changed = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if " seconds" in record.getMessage():
            self.texts.append(record.getMessage())
            self.changed.set()

    async def next(self) -> str:
        """Wait for one more text."""
        with trio.fail_after(PATIENCE):
            await self.changed.wait()
        self.changed = trio.Event()
        return self.texts[-1]


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    logger = logging.getLogger("gateways")
    logger.addHandler(told)
    yield told
    logger.removeHandler(told)


async def quick(request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response("quick")


async def inner_wait() -> None:
    await trio.sleep_forever()


async def grandchild() -> None:
    await inner_wait()


async def child() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grandchild)


async def family(request: Request) -> Response:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(inner_wait)
    return Response("")


async def lonely(request: Request) -> Response:
    await inner_wait()
    return Response("")


def lines_of(text: str) -> list[tuple[int, str]]:
    """The lines of a tree: how far each is indented, and what it is about."""
    found = []
    for line in text.splitlines()[1:]:
        stripped = line.lstrip()
        about = stripped if stripped.startswith(("task ", "thread ", "(")) else stripped.split(" ")[1].rstrip(":")
        found.append(((len(line) - len(stripped)) // 2, about.removeprefix(f"task {__name__}.")))
    return found


async def test_the_stack_of_a_handler_goes_from_its_first_line_to_where_it_waits(told: Told) -> None:
    async with running(lonely, limits=LIMITS) as backend:
        await (await backend.connect()).ask(variables(path="/slow"))
        text = await told.next()
    first, *_ = text.splitlines()
    assert first.startswith("GET /slow: has been running for 0.")
    names = [name for _, name in lines_of(text)]
    assert names[:2] == ["lonely", "inner_wait"]
    assert f"{__file__}:" in text
    assert "lonely: await inner_wait()" in text
    assert names[2:] == ["sleep_forever"]
    assert "Exchange." not in text


async def test_below_the_handler_come_the_tasks_that_it_has_started_and_theirs(told: Told) -> None:
    async with running(family, limits=LIMITS) as backend:
        await (await backend.connect()).ask()
        tree = lines_of(await told.next())
    own = [(depth, name) for depth, name in tree if name in ("family", "child", "grandchild", "inner_wait")]
    assert own == [
        (1, "family"),
        (1, "child"),
        (2, "child"),
        (2, "grandchild"),
        (3, "grandchild"),
        (3, "inner_wait"),
        (1, "inner_wait"),
        (2, "inner_wait"),
    ]


async def test_the_tree_has_nothing_of_other_requests(told: Told) -> None:
    async with running(URLMap({"/family": family, "/lonely": lonely}), limits=LIMITS) as backend:
        await (await backend.connect()).ask(variables(path="/family"))
        await told.next()
        peer = await backend.connect()
        await peer.ask(variables(path="/lonely"))
        text = await told.next()
        # Not even of those on the same connection.
        await peer.ask(variables(path="/family"), stream_id=2, keep=True)
        sibling = await told.next()
    assert text.startswith("GET /lonely: ")
    assert "family" not in text
    assert sibling.startswith("GET /family: ")
    assert "lonely" not in sibling


async def test_a_slow_request_is_told_of_and_counted_once(told: Told) -> None:
    tally = Tally()
    go_on = trio.Event()

    async def waits(request: Request) -> Response:
        if request.path == "/slow":
            await go_on.wait()
        return Response("")

    # The one is looked at many times more while the others come in, one after the other.
    async with running(waits, limits=LIMITS, tally=tally) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/slow"))
        await told.next()
        for _ in range(3):
            await (await backend.connect()).ask(variables("POST", "/upload", CONTENT_LENGTH="5"), end_body=False)
            await backend.ask(GET)
        go_on.set()
        await peer.answer()
    assert [text for text in told.texts if "/slow" in text] == [told.texts[0]]
    assert tally.slow == 1


async def test_one_that_ended_before_it_was_looked_at_is_told_of_without_a_stack(told: Told) -> None:
    tally = Tally()

    async def slow(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        time.sleep(0.05)  # noqa: ASYNC251 - nobody can look at it meanwhile
        return Response("slow")

    async with running(slow, limits=LIMITS, tally=tally) as backend:
        assert (await backend.ask()).body == b"slow"
    assert [text.splitlines() for text in told.texts] == [["GET /: took 0.1 seconds"]]
    assert tally.slow == 1


async def test_quick_requests_are_not_told_of(told: Told) -> None:
    async with running(quick, limits=Limits(slow_timeout=60)) as backend:
        assert (await backend.ask()).body == b"quick"
    assert told.texts == []


async def test_the_stack_of_a_plain_function_is_that_of_its_thread(told: Told) -> None:
    release = threading.Event()

    def deep_inside() -> None:
        release.wait(PATIENCE)

    def plain(request: Request) -> Response:
        deep_inside()
        return Response("")

    async with running(plain, limits=LIMITS) as backend:
        try:
            await (await backend.connect()).ask()
            tree = lines_of(await told.next())
        finally:
            release.set()
    names = [name.rpartition(".")[2] for _, name in tree]
    thread = next(n for n, (_, name) in enumerate(tree) if name.startswith("thread "))
    assert names[thread + 1 : thread + 3] == ["plain", "deep_inside"]


async def test_two_plain_functions_are_not_mixed_up(told: Told) -> None:
    release = threading.Event()

    def one(request: Request) -> Response:
        release.wait(PATIENCE)
        return Response("")

    def other(request: Request) -> Response:
        release.wait(PATIENCE)
        return Response("")

    async def either(request: Request) -> Response:
        return await trio.to_thread.run_sync(one if request.path == "/one" else other, request, abandon_on_cancel=True)

    async with running(either, limits=LIMITS) as backend:
        try:
            for path in ("/one", "/other"):
                await (await backend.connect()).ask(variables(path=path))
            await told.next()
            while len(told.texts) < 2:
                await told.next()
        finally:
            release.set()
    [first] = [text for text in told.texts if text.startswith("GET /one")]
    [second] = [text for text in told.texts if text.startswith("GET /other")]
    assert "<locals>.one:" in first
    assert "<locals>.other:" not in first
    assert "<locals>.other:" in second
    assert "<locals>.one:" not in second


async def test_a_generator_that_streams_shows_where_it_waits(told: Told) -> None:
    async def numbers() -> AsyncIterator[bytes]:
        yield b"1"
        await inner_wait()

    async def streams(request: Request) -> Response:
        return Response(numbers())

    async with running(streams, limits=LIMITS) as backend:
        await (await backend.connect()).ask()
        names = [name.rpartition(".")[2] for _, name in lines_of(await told.next())]
    assert "numbers" in names
    assert names.index("inner_wait") == names.index("numbers") + 1


async def test_a_multitude_of_tasks_is_cut_and_counted(told: Told) -> None:
    async def crowd(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(inner_wait)
        return Response("")

    async with running(crowd, limits=LIMITS) as backend:
        await (await backend.connect()).ask()
        text = await told.next()
    assert text.count("  task ") == 50
    assert text.endswith("\n  and 10 tasks more")
