"""Answers that leave while their handler goes on, which the adapter is made of: ``Request.answer`` and ``begin``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gateways import GatewayError, LocalProtocolError, Request, Response, URLMap
from gateways.testing import call, serving
from tests.asgi.tools import PATIENCE, Client


@pytest.fixture(params=["fastcgi", "scgi", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE):
        yield


async def test_an_answer_leaves_when_the_handler_waits(protocol: str) -> None:
    go_on, done = trio.Event(), trio.Event()

    async def handler(request: Request) -> Response:
        response = Response("answer", 201)
        await request.answer(response)
        await go_on.wait()
        done.set()
        return response

    async with serving(handler, protocol, "unix") as server:
        result = await server.request()
        assert (result.status, result.text, result.error) == (201, "answer", None)
        go_on.set()
        await done.wait()


async def test_an_answer_from_a_task_leaves_at_once(protocol: str) -> None:
    go_on = trio.Event()

    async def handler(request: Request) -> Response:
        response = Response("answer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.answer, response)
            await go_on.wait()
        return response

    async with serving(handler, protocol, "unix") as server:
        assert (await server.request()).text == "answer"
        go_on.set()


async def test_any_kind_of_body_may_be_answered_with(protocol: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"answer")

    async def handler(request: Request) -> Response:
        bodies: dict[str, Any] = {"/file": tmp_path / "file", "/pieces": iter([b"ans", b"wer"]), "/text": "answer"}
        response = Response(bodies[request.path])
        await request.answer(response)
        return response

    async with serving(handler, protocol) as server:
        for path in ("/file", "/pieces", "/text"):
            assert (await server.request("GET", path)).text == "answer"


async def test_a_body_that_has_begun_ends_with_the_handler_or_before(protocol: str) -> None:
    async def handler(request: Request) -> Response:
        response = Response("left out", 201)
        begun = await request.begin(response)
        await begun.send("a")
        await trio.lowlevel.checkpoint()
        await begun.send(b"b")
        if request.path == "/end":
            await begun.end()
            await begun.end()
            await trio.lowlevel.checkpoint()
        return response

    async with serving(URLMap({"/mount": handler, "": handler}), protocol) as server:
        for path in ("/", "/end", "/mount"):
            result = await server.request("GET", path)
            assert (result.status, result.text, result.error) == (201, "ab", None)
        assert (await server.request("HEAD", "/end")).body == b""


async def test_nothing_is_sent_after_the_end() -> None:
    async def handler(request: Request) -> Response:
        response = Response()
        begun = await request.begin(response)
        await begun.send("a")
        await begun.end()
        await trio.lowlevel.checkpoint()
        with pytest.raises(LocalProtocolError, match="has ended"):
            await begun.send("b")
        return response

    assert (await call(handler)).text == "a"


async def test_a_second_answer_is_refused() -> None:
    async def handler(request: Request) -> Response:
        await request.answer(Response("first"))
        await trio.lowlevel.checkpoint()
        with pytest.raises(LocalProtocolError, match="has begun already"):
            await request.answer(Response("second"))
        return Response("third")

    async with serving(handler) as server:
        assert (await server.request()).text == "first"
    assert [type(error) for error in server.errors] == [LocalProtocolError]


async def test_a_response_that_has_begun_cannot_be_changed() -> None:
    async def handler(request: Request) -> Response:
        response = Response()
        await (await request.begin(response)).send("a")
        return response.with_header("X-Late", "1")

    async with serving(handler, "fastcgi", "tcp") as server:
        assert (await server.request()).status == 500  # nothing had left
    assert "no longer be changed" in str(server.errors[0])


async def test_an_error_before_anything_left_is_a_clean_500() -> None:
    async def handler(request: Request) -> Response:
        await request.begin(Response())
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with serving(handler) as server:
        result = await server.request()
    assert (result.status, result.error) == (500, None)


async def test_a_body_shorter_than_announced_breaks_the_answer() -> None:
    async def handler(request: Request) -> Response:
        response = Response(headers={"Content-Length": "9"})
        await (await request.begin(response)).send("a")
        await trio.lowlevel.checkpoint()
        return response

    async with serving(handler, "fastcgi", "tcp") as server:
        assert (await server.request()).error is not None


async def test_a_handler_learns_why_it_is_cancelled() -> None:
    waiting, over = trio.Event(), trio.Event()
    seen: list[bool] = []

    async def handler(request: Request) -> Response:
        seen.append(request.disconnected)
        try:
            waiting.set()
            await trio.sleep_forever()
        finally:
            seen.append(request.disconnected)
            over.set()
        return Response()

    async with serving(handler, "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await waiting.wait()
        await client.leave()
        await over.wait()
    assert seen == [False, True]


@pytest.mark.parametrize("how", ["answer", "begin"])
async def test_a_request_that_was_made_by_hand_has_nobody_to_answer(how: str) -> None:
    request = Request({"REQUEST_METHOD": "GET"})
    with pytest.raises(GatewayError, match="made by hand"):
        await getattr(request, how)(Response())
    assert not request.disconnected


async def test_a_copy_of_a_response_that_has_begun_cannot_be_sent(protocol: str) -> None:
    refused: list[str] = []

    async def handler(request: Request) -> Response:
        response = Response()
        begun = await request.begin(response)
        try:
            await request.answer(response.with_header("X-More", "1"))
        except LocalProtocolError as error:
            refused.append(str(error))
        await begun.send("answer")
        return response

    async with serving(handler, protocol, "unix") as server:
        assert (await server.request()).text == "answer"
    assert refused == ["the answer has begun already"]


async def test_one_response_can_answer_many_requests_early(protocol: str) -> None:
    fine = Response("fine")

    async def handler(request: Request) -> Response:
        await request.answer(fine)
        return fine

    async with serving(handler, protocol, "unix") as server:
        for _ in range(3):
            result = await server.request()
            assert (result.status, result.text) == (200, "fine")
