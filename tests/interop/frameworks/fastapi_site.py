"""A FastAPI site, on trio: models, forms, dependencies and tasks, as its tutorial has them."""

# Without "from __future__ import annotations": FastAPI reads them.
import hashlib
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import sniffio
from fastapi import BackgroundTasks, Cookie, Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

#: Seconds until a page gives up what it waits for; only where something is wrong.
_PATIENCE = 20


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    yield {"library": sniffio.current_async_library(), "mailed": defaultdict(anyio.Event), "closed": []}
    print("the lifespan is over", file=sys.stderr, flush=True)


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    """What is ordered."""

    name: str
    price: float = Field(gt=0)
    tags: list[str] = []


def storage(request: Request) -> Generator[str]:
    """Something that is opened for each request, in a thread, and closed after it."""
    yield "open"
    request.state.closed.append("closed")


@app.put("/items/{number}", name="item", status_code=201)
async def put_item(
    number: int,
    item: Item,
    request: Request,
    response: Response,
    kept: Annotated[str, Depends(storage)],
    a: Annotated[str | None, Cookie()] = None,
    q: str = "",
) -> dict[str, object]:
    """Tell what came."""
    response.set_cookie("a", "1", path=str(request.scope["root_path"]))
    return {
        "number": number,
        "item": item,
        "q": q,
        "storage": kept,
        "cookie": a,
        "url": str(request.url),
        "elsewhere": str(request.url_for("item", number=3)),
        "library": request.state.library,
    }


@app.get("/closed")
def closed(request: Request) -> int:
    """How many storages were closed; a function, which runs in a thread."""
    return len(request.state.closed)


@app.post("/form")
async def form(title: Annotated[str, Form()], upload: Annotated[UploadFile, File()]) -> list[object]:
    """Tell what was uploaded."""
    data = await upload.read()
    return [title, upload.filename, upload.content_type, len(data), hashlib.sha256(data).hexdigest()]


@app.get("/numbers")
async def numbers() -> StreamingResponse:
    """An answer in pieces."""

    async def pieces() -> AsyncGenerator[str]:
        for number in range(1000):
            yield f"{number}\n"

    return StreamingResponse(pieces(), media_type="text/plain")


@app.post("/mail", status_code=202)
async def mail(name: str, request: Request, tasks: BackgroundTasks) -> str:
    """Something to be done when the answer has been sent; the request for the outbox waits for it."""

    async def send() -> None:
        request.state.mailed[name].set()

    tasks.add_task(send)
    return "soon"


@app.get("/outbox", response_class=PlainTextResponse)
async def outbox(name: str, request: Request) -> str:
    """Answers when the mail is out."""
    with anyio.fail_after(_PATIENCE):
        await request.state.mailed[name].wait()
    return "sent"


@app.get("/refuse")
async def refuse() -> None:
    """Not for everybody."""
    raise HTTPException(403, "not for you", {"X-Why": "because"})


@app.get("/boom")
async def boom() -> None:
    """A bug."""
    raise ZeroDivisionError("a bug")
