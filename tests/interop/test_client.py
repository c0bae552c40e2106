"""The test client sees what came, and whether it was all."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from tests.interop.client import Answer, RequestBody, fetch, fetch_raw, open_request

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"
CHUNKED = OK + CHUNKS + b"\r\n"


@asynccontextmanager
async def _server(answer: bytes, end: bytes, *, reset: bool = False) -> AsyncGenerator[tuple[int, bytearray]]:
    """Listen for one request, read it until ``end``, give this answer and close; yields the port and the request."""
    request = bytearray()

    async def handle(stream: trio.SocketStream) -> None:
        while not request.endswith(end) and (data := await stream.receive_some()):
            request.extend(data)
        await stream.send_all(answer)
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1], request
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("meaning", "method", "answer", "reset", "status", "body", "complete"),
    [
        ("length met", "GET", OK + b"Content-Length: 2\r\n\r\nhi", False, 200, b"hi", True),
        ("length not met", "GET", OK + b"Content-Length: 3\r\n\r\nhi", False, 200, b"hi", False),
        ("more than the length", "GET", OK + b"Content-Length: 1\r\n\r\nhi", False, 200, b"h", False),
        ("last chunk", "GET", CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", False, 200, b"hi", True),
        ("no last chunk", "GET", CHUNKED + b"2\r\nhi\r\n", False, 200, b"hi", False),
        ("not a chunk", "GET", CHUNKED + b"2\r\nhi\r\nHTTP/1.1 500 Oh\r\n\r\n", False, 200, b"hi", False),
        ("ended by the close", "GET", OK + b"\r\nhi", False, 200, b"hi", True),
        ("reset", "GET", OK + b"\r\n", True, 200, b"", False),
        ("half a head", "GET", OK, False, 0, b"", False),
        ("nothing", "GET", b"", False, 0, b"", False),
        (
            "interim answer first",
            "GET",
            b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
            False,
            200,
            b"",
            True,
        ),
        ("HEAD", "HEAD", OK + b"Content-Length: 2\r\n\r\n", False, 200, b"", True),
        ("HEAD with a body", "HEAD", OK + b"Content-Length: 2\r\n\r\nhi", False, 200, b"", False),
        ("no body by status", "GET", b"HTTP/1.1 304 Same\r\n\r\n", False, 304, b"", True),
    ],
)
async def test_an_answer_is_complete_or_visibly_broken(
    meaning: str, method: str, answer: bytes, reset: bool, status: int, body: bytes, complete: bool
) -> None:
    async with _server(answer, b"\r\n\r\n", reset=reset) as (port, _):
        got = await fetch(port, method, "/")
    assert (got.status, got.body, got.complete) == (status, body, complete), meaning


async def _two_pieces() -> AsyncGenerator[bytes]:
    yield b"one"
    await trio.testing.wait_all_tasks_blocked()
    yield b"three"


@pytest.mark.parametrize(
    ("meaning", "headers", "body", "lines", "sent"),
    [
        ("no body", [], None, b"Host: gateways.test\r\n", b""),
        ("own headers", [("Host", "h"), ("X", "é")], None, "Host: h\r\nX: é\r\n".encode(), b""),
        ("bytes", [], b"one", b"Host: gateways.test\r\nContent-Length: 3\r\n", b"one"),
        ("a list", [], [b"one", b""], b"Host: gateways.test\r\n" + CHUNKS, b"3\r\none\r\n0\r\n\r\n"),
        ("a generator", [], _two_pieces, b"Host: gateways.test\r\n" + CHUNKS, b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"),
        ("own length", [("Content-Length", "9")], [b"one"], b"Host: gateways.test\r\nContent-Length: 9\r\n", b"one"),
    ],
)
async def test_a_request_is_sent_as_told(
    meaning: str,
    headers: list[tuple[str, str]],
    body: RequestBody | Callable[[], RequestBody],
    lines: bytes,
    sent: bytes,
) -> None:
    if callable(body):
        body = body()
    expected = b"PUT /%zz HTTP/1.1\r\n" + lines + b"\r\n" + sent
    async with _server(OK + b"Set-Cookie: a\r\nset-cookie: b\r\n\r\n", expected) as (port, request):
        answer = await fetch(port, "PUT", "/%zz", headers, body)
    assert bytes(request) == expected, meaning
    assert answer == Answer(200, [("set-cookie", "a"), ("set-cookie", "b")], b"", True)
    assert (answer.header("Set-Cookie"), answer.header("x")) == ("a, b", None)


async def test_raw_bytes_are_sent_as_they_are() -> None:
    async with _server(b"HTTP/1.0 400 No\r\n\r\n", b"\xff\n") as (port, request):
        answer = await fetch_raw(port, b"\x16\x03\x01\xff\n")
    assert (answer.status, bytes(request)) == (400, b"\x16\x03\x01\xff\n")


async def test_an_answer_that_comes_before_the_request_ends_is_seen() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 65_536
            await trio.lowlevel.checkpoint()

    async with _server(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", b"x") as (port, _):
        answer = await fetch(port, "POST", "/", [("Content-Length", "1000000000000")], endless())
    assert answer.status == 413


async def test_leaving_an_open_request_early_disconnects(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        seen_end = trio.Event()

        async def handle(stream: trio.SocketStream) -> None:
            await stream.send_all(OK + b"\r\nfirst")
            async for _ in stream:
                pass
            seen_end.set()

        [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        async with open_request(listener.socket.getsockname()[1], "GET", "/") as exchange:
            assert await exchange.receive_head() == 200
            assert await exchange.receive_body() == b"first"
        await seen_end.wait()
        nursery.cancel_scope.cancel()


async def test_silence_is_too_slow(autojump_clock: trio.testing.MockClock) -> None:
    async with _server(b"", b"never") as (port, _):
        with pytest.raises(trio.TooSlowError):
            await fetch(port, "GET", "/", timeout=5)
