"""The pages in front of an application: where they are and where not, what they tell, and that they do not wait."""

from __future__ import annotations

import json
import os
import queue
import re
import threading
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import gateways
from gateways import Handler, Request, Response, Roles, Tally
from gateways._process.scoreboard import Alone, Scoreboard
from gateways.status import describe, page, watched
from gateways.testing import call, serving
from gateways.wsgi import from_wsgi
from tests.metrics.tools import PATIENCE, tally

EMPTY = Alone(tally())


async def app(request: Request) -> Response:
    return Response(f"the application at {request.path}")


def busy_board() -> Scoreboard:
    """Two workers, and one that has died."""
    board = Scoreboard(3)
    slots = [board.take(generation) for generation in (0, 1, 1)]
    board.publish(slots[0], tally(accepted=2, begun=3, answered_2=1), "ready")
    board.release(slots[0])
    board.publish(slots[1], tally(accepted=7, closed=5, begun=9, answered_2=6, answered_5=1, full=1, sent=80), "ready")
    board.publish(slots[2], tally(slow=4, accepted=1, closed=1, begun=1, answered_4=1), "draining")
    return board


# --- where


async def test_the_pages_are_in_front_of_the_application() -> None:
    pages = watched(app, EMPTY, ping="/ping", status="/status")
    assert (await call(pages, path="/ping")).text == "pong\n"
    assert (await call(pages, path="/status")).text.startswith("process manager:     none\n")
    assert (await call(pages, path="/other")).text == "the application at /other"


@pytest.mark.parametrize("path", ["/ping/", "//ping", "/ping/x", "/x/ping", "/PING", "/ping;x", "/x/../ping", "/"])
async def test_a_page_has_no_other_name(path: str) -> None:
    assert (await call(watched(app, EMPTY, ping="/ping"), path=path)).text == f"the application at {path}"


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_a_page_is_there_over_every_protocol(protocol: str) -> None:
    assert (await call(watched(app, EMPTY, ping="/ping"), path="/ping", protocol=protocol)).text == "pong\n"


async def test_a_path_is_that_of_the_request_with_its_mount_however_the_server_has_divided_it() -> None:
    pages = watched(app, EMPTY, ping="/app/ping")
    for script, info in [("/app", "/ping"), ("/app/ping", ""), ("", "/app/ping")]:
        result = await call(pages, path="/app/ping", environ={"SCRIPT_NAME": script, "PATH_INFO": info})
        assert result.text == "pong\n"
    assert (await call(pages, path="/app/ping", mount="/app")).text == "pong\n"
    assert (await call(pages, path="/app/ping", mount="/app/ping")).text == "pong\n"


async def test_a_page_that_is_off_is_the_applications() -> None:
    assert (await call(watched(app, EMPTY, ping="/ping"), path="/status")).text == "the application at /status"
    assert (await call(watched(app, EMPTY, status="/status"), path="/ping")).text == "the application at /ping"


@pytest.mark.parametrize("path", ["ping", "", "*"])
def test_a_path_that_no_request_has_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        watched(app, EMPTY, ping=path)


def test_two_pages_at_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="both"):
        watched(app, EMPTY, ping="/x", status="/x")


# --- how


@pytest.mark.parametrize("path", ["/ping", "/status"])
async def test_HEAD_is_answered_without_a_body(path: str) -> None:
    pages = watched(app, EMPTY, ping="/ping", status="/status")
    result = await call(pages, "HEAD", path)
    assert (result.status, result.body) == (200, b"")


@pytest.mark.parametrize("path", ["/ping", "/status"])
async def test_other_methods_are_refused(path: str) -> None:
    result = await call(watched(app, EMPTY, ping="/ping", status="/status"), "POST", path, body=b"x")
    assert (result.status, result.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/ping", "/status", "/status?json"])
async def test_nobody_keeps_a_page(path: str) -> None:
    result = await call(watched(app, EMPTY, ping="/ping", status="/status"), path=path)
    assert result.headers["Cache-Control"] == "no-store"


async def test_the_application_is_started_and_stopped() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def starting() -> AsyncGenerator[Handler]:
        log.append("up")
        yield app
        log.append("down")

    async with serving(watched(starting, EMPTY, ping="/ping")) as server:
        assert (await server.request(path="/ping")).text == "pong\n"
        assert (await server.request(path="/x")).text == "the application at /x"
        assert log == ["up"]
    assert log == ["up", "down"]


async def test_a_plain_function_answers_beside_the_pages() -> None:
    def plain(request: Request) -> Response:
        return Response(f"thread {threading.current_thread() is threading.main_thread()}")

    assert (await call(watched(plain, EMPTY, ping="/ping"), path="/x")).text == "thread False"


async def test_whether_a_request_may_pass_is_asked_of_the_application_for_the_pages_too() -> None:
    async def authorizer(request: Request) -> Response:
        return Response("denied", 403)

    roles = watched(Roles(app, authorizer=authorizer), EMPTY, ping="/ping")
    assert (await call(roles, path="/ping", role="authorizer")).status == 403
    assert (await call(roles, path="/ping")).text == "pong\n"


async def test_an_authorizer_by_itself_can_be_pinged() -> None:
    roles = watched(Roles(authorizer=app), EMPTY, ping="/ping")
    assert (await call(roles, path="/ping")).text == "pong\n"
    assert (await call(roles, path="/other", raise_errors=False)).status == 501


# --- while everybody is busy


async def test_ping_is_answered_while_every_handler_waits() -> None:
    waiting = trio.Event()

    async def waits(request: Request) -> Response:
        waiting.set()
        await trio.sleep_forever()
        raise AssertionError("for ever is over")

    with trio.fail_after(PATIENCE):
        async with serving(watched(waits, EMPTY, ping="/ping"), over="unix") as server, trio.open_nursery() as nursery:
            nursery.start_soon(server.request)
            await waiting.wait()
            assert (await server.request(path="/ping")).text == "pong\n"
            nursery.cancel_scope.cancel()


async def test_ping_and_status_are_answered_while_all_threads_of_a_wsgi_application_are_busy() -> None:
    entered: queue.Queue[None] = queue.Queue()
    free = threading.Event()

    def blocks(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        entered.put(None)
        free.wait(PATIENCE)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"at last"]

    pages = watched(from_wsgi(blocks, threads=2), EMPTY, ping="/ping", status="/status")
    answers: list[str] = []

    async with serving(pages, over="unix") as server:

        async def ask() -> None:
            answers.append((await server.request()).text)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):  # one more than there are threads
                    nursery.start_soon(ask)
                for _ in range(2):
                    await trio.to_thread.run_sync(entered.get)
                try:
                    assert (await server.request(path="/ping")).text == "pong\n"
                    assert (await server.request(path="/status")).status == 200
                    assert answers == []
                finally:
                    free.set()
    assert answers == ["at last"] * 3


# --- what


async def test_the_status_in_json() -> None:
    result = await call(watched(app, busy_board(), status="/status"), path="/status?json")
    assert result.headers["Content-Type"] == "application/json"
    told = result.json()
    since = told.pop("start since")
    assert time.time() - told.pop("start time") - since < PATIENCE
    assert told == {
        "process manager": "workers",
        "accepted conn": 10,
        "open conn": 2,
        "requests": 11,
        "running requests": 2,
        "slow requests": 4,
        "refused requests": 1,
        "unanswered requests": 2,
        "2xx answers": 7,
        "3xx answers": 0,
        "4xx answers": 1,
        "5xx answers": 1,
        "sent bytes": 80,
        "idle processes": 1,
        "active processes": 1,
        "total processes": 2,
        "starting processes": 0,
        "draining processes": 1,
        "started processes": 3,
        "died processes": 1,
    }


def test_the_full_status_has_a_part_for_each_worker() -> None:
    told = describe(busy_board(), full=True)
    workers = told.pop("processes")
    assert told.keys() == describe(busy_board()).keys()
    assert [(each["pid"], each["state"], each["generation"], each["running requests"]) for each in workers] == [
        (os.getpid(), "ready", 1, 2),
        (os.getpid(), "draining", 1, 0),
    ]
    assert {type(each["memory"]) for each in workers} == {int}
    assert all(0 <= each["last seen"] < PATIENCE for each in workers)


def test_the_text_tells_the_same_as_the_json() -> None:
    board = busy_board()
    content_type, text = page(board, "full")
    assert content_type == "text/plain; charset=utf-8"
    told = json.loads(page(board, "json&full")[1])
    workers = told.pop("processes")
    parts = [dict(line.split(":", 1) for line in part.splitlines() if line) for part in text.split("*" * 24)]
    for part, expected in zip(parts, [told, *workers], strict=True):
        assert part.keys() == expected.keys()
        kept = {name for name in part if name not in ("start time", "start since", "last seen")}
        assert {name: part[name].strip() for name in kept} == {name: str(expected[name]) for name in kept}


async def test_a_program_of_ones_own_has_the_pages_too(tmp_path: Path) -> None:
    counted = Tally()
    stop = trio.Event()
    pages = watched(app, counted, status="/status")
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(
            partial(gateways.serve, pages, f"http:unix:{tmp_path}/a", tally=counted, stop=stop)
        )
        assert address == f"http:unix:{tmp_path}/a"
        async with await trio.open_unix_socket(f"{tmp_path}/a") as client:
            await client.send_all(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            told = b"".join([data async for data in client]).decode()
        assert re.search("^running requests: +1$", told, re.MULTILINE)
        stop.set()


async def test_the_status_is_of_this_moment_after_a_refresh() -> None:
    board = Scoreboard(1)
    slot, counted = board.take(), tally()
    pages = watched(app, board, status="/status", refresh=lambda: board.publish(slot, counted, "ready"))
    async with serving(pages) as server:
        for accepted in (1, 2):
            counted.accepted = accepted
            assert (await server.request(path="/status?json")).json()["accepted conn"] == accepted
