"""The site of native.py as an ASGI application; ``app`` is for asyncio, asgi_trio.py has the one for trio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PIECE = b"x" * 1023 + b"\n"
BLOCK = b"x" * 65_536

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def start(send: Send, content_type: bytes, length: int | None) -> None:
    headers = [(b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer(send: Send, body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> None:
    await start(send, content_type, len(body))
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"Hello, world!\n")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    chunks: list[bytes] = []
    more = True
    while more:
        event = await receive()
        chunks.append(event.get("body", b""))
        more = event.get("more_body", False)
    await answer(send, b"".join(chunks), b"application/octet-stream")


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, b"application/octet-stream", None)
    for _ in range(16):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, True
    while more:
        event = await receive()
        size += len(event.get("body", b""))
        more = event.get("more_body", False)
    await answer(send, b"%d\n" % size)


async def download(scope: Scope, receive: Receive, send: Send) -> None:
    size = int(scope["query_string"])
    await start(send, b"application/octet-stream", size)
    for _ in range(size // len(BLOCK)):
        await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def site(sleep: Callable[[float], Awaitable[None]]) -> Application:
    """The application, on whichever library ``sleep`` belongs to."""

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await sleep(0.001)
        await answer(send, b"Hello, world!\n")

    pages: dict[str, Application] = {
        "/hello": hello,
        "/echo": echo,
        "/stream": stream,
        "/upload": upload,
        "/download": download,
        "/wait": wait,
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for done in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{done}.complete"})
            return
        await pages[scope["path"]](scope, receive, send)

    return app


app = site(asyncio.sleep)
