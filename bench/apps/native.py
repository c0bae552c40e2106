"""The site that every backend is measured with, as a handler of gateways: the others do the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from gateways import Request, Response

PIECE = b"x" * 1023 + b"\n"
BLOCK = b"x" * 65_536


async def hello(request: Request) -> Response:
    return Response("Hello, world!\n")


async def echo(request: Request) -> Response:
    return Response(await request.body.read())


async def stream(request: Request) -> Response:
    async def pieces(send: Callable[[bytes], Awaitable[None]]) -> None:
        for _ in range(16):
            await send(PIECE)

    return Response(pieces)


async def upload(request: Request) -> Response:
    size = 0
    async for chunk in request.body:
        size += len(chunk)
    return Response(f"{size}\n")


async def download(request: Request) -> Response:
    size = int(request.query_string)

    async def blocks(send: Callable[[bytes], Awaitable[None]]) -> None:
        for _ in range(size // len(BLOCK)):
            await send(BLOCK)

    return Response(blocks, headers=[("Content-Length", str(size))])


async def wait(request: Request) -> Response:
    await trio.sleep(0.001)
    return Response("Hello, world!\n")


SITE = {"/hello": hello, "/echo": echo, "/stream": stream, "/upload": upload, "/download": download, "/wait": wait}


async def app(request: Request) -> Response:
    return await SITE[request.path](request)
