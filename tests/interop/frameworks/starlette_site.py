"""A Starlette site, on trio: what Starlette's own documentation shows, in one application."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

import anyio
import sniffio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

#: Seconds until a page gives up what it waits for; only where something is wrong.
_PATIENCE = 20


class State(TypedDict):
    """What the lifespan leaves to each request."""

    library: str
    mailed: defaultdict[str, anyio.Event]
    left: defaultdict[str, anyio.Event]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[State]:
    yield {
        "library": sniffio.current_async_library(),
        "mailed": defaultdict(anyio.Event),
        "left": defaultdict(anyio.Event),
    }
    print("the lifespan is over", file=sys.stderr, flush=True)


async def show(request: Request) -> Response:
    """What Starlette makes of a request."""
    return JSONResponse(
        {
            "word": request.path_params["word"],
            "query": request.query_params.multi_items(),
            "json": await request.json() if request.method == "POST" else None,
            "root": request.scope["root_path"],
            "url": str(request.url),
            "elsewhere": str(request.url_for("show", word="there")),
            "library": request.state.library,
            "cookie": request.cookies.get("a"),
            "client": request.client and request.client.host,
        }
    )


async def form(request: Request) -> Response:
    async with request.form() as fields:
        upload = fields["upload"]
        assert isinstance(upload, UploadFile)
        data = await upload.read()
        seen = [fields["title"], upload.filename, upload.content_type, len(data), hashlib.sha256(data).hexdigest()]
    return JSONResponse(seen)


async def digest(request: Request) -> Response:
    """What arrived of a body that is read in pieces."""
    hashed, length = hashlib.sha256(), 0
    async for piece in request.stream():
        hashed.update(piece)
        length += len(piece)
    return PlainTextResponse(f"{length} {hashed.hexdigest()}")


async def redirect(request: Request) -> Response:
    response = RedirectResponse(request.url_for("show", word="there"), 303)
    response.set_cookie("a", "1", path=request.scope["root_path"])
    return response


async def numbers(request: Request) -> Response:
    async def pieces() -> AsyncGenerator[str]:
        for number in range(1000):
            yield f"{number}\n"
            if number % 100 == 0:
                await anyio.lowlevel.checkpoint()

    return StreamingResponse(pieces(), media_type="text/plain")


async def mail(request: Request) -> Response:
    """Something to be done when the answer has been sent; the request for the outbox waits for it."""

    async def send() -> None:
        await run_in_threadpool(hash, "mail")
        request.state.mailed[request.query_params["name"]].set()

    return PlainTextResponse("soon", 202, background=BackgroundTask(send))


async def outbox(request: Request) -> Response:
    with anyio.fail_after(_PATIENCE):
        await request.state.mailed[request.query_params["name"]].wait()
    return PlainTextResponse("sent")


class Endless:
    """An answer that the client has to leave; an application of its own, to see when that ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send pieces, and tell in the end that somebody has left."""
        request = Request(scope)
        try:
            await StreamingResponse(self._pieces())(scope, receive, send)
        finally:
            request.state.left[request.query_params["name"]].set()

    async def _pieces(self) -> AsyncGenerator[bytes]:
        while True:
            yield bytes(65_536)


async def left(request: Request) -> Response:
    """Answers when that one has left."""
    with anyio.fail_after(_PATIENCE):
        await request.state.left[request.query_params["name"]].wait()
    return PlainTextResponse("left")


async def refuse(request: Request) -> Response:
    raise HTTPException(403, "not for you", {"X-Why": "because"})


async def boom(request: Request) -> Response:
    raise ZeroDivisionError("a bug")


app = Starlette(
    routes=[
        Route("/show/{word}", show, name="show", methods=["GET", "POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/digest", digest, methods=["POST"]),
        Route("/redirect", redirect),
        Route("/numbers", numbers),
        Route("/mail", mail, methods=["POST"]),
        Route("/outbox", outbox),
        Route("/left", left),
        Route("/refuse", refuse),
        Route("/boom", boom),
        Route("/endless", Endless()),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "blog" / "static")),
    ],
    middleware=[Middleware(GZipMiddleware, minimum_size=200)],
    lifespan=lifespan,
)
