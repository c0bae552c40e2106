"""One handler file, one table of requests, through every server and protocol: equal requests, equal answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest
import trio
import trio.testing

import gateways
from gateways import Listen, Request
from tests.interop import site
from tests.interop.client import Answer, fetch, fetch_raw, open_request
from tests.interop.configurations import Configuration
from tests.interop.conftest import ScriptFor
from tests.interop.servers import SERVER_NAME, SOCKET_MODE, FrontEnd, python_script
from tests.interop.table import REQUESTS, Asked

#: Fields that are about one connection or one moment.
_OF_THE_CONNECTION = {"connection", "date", "keep-alive", "server", "transfer-encoding"}
#: Requests under way at once.
_AT_ONCE = 6


class Seen(NamedTuple):
    """What the handler saw of a request (None where it tells nothing) and what the client got."""

    request: dict[str, str] | None
    body: str
    answer: dict[str, str]


# --- asking ----------------------------------------------------------------------------------------------------------


async def ask(asked: Asked, port: int, mount: str, streams: bool) -> Seen:
    """Send one request of the table."""
    target = asked.target_below(mount)
    assert target is not None
    if asked.target.startswith("/stream"):
        return await _ask_for_a_stream(port, target, streams)
    if asked.version == "1.0":
        head = f"{asked.method} {target} HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n"
        answer = await fetch_raw(port, head.encode())
    else:
        body = asked.body
        answer = await fetch(port, asked.method, target, asked.headers, _slowly(body) if asked.slowly else body)
    return _seen(asked, answer)


async def _slowly(chunks: object) -> AsyncGenerator[bytes]:
    for chunk in chunks:
        yield chunk
        await trio.testing.wait_all_tasks_blocked(0.05)  # time for the server to pass the chunk on


async def _ask_for_a_stream(port: int, target: str, streams: bool) -> Seen:
    """The handler sends its second piece when the first has come here, or when it is clear that it will not."""
    first_came = trio.Event()
    release = trio.Event()

    async def gate(stream: trio.SocketStream) -> None:
        with trio.move_on_after(20 if streams else 0.3):
            await first_came.wait()
        release.set()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, gate, 0, host="127.0.0.1"))
        number = listener.socket.getsockname()[1]
        target += f"{'&' if '?' in target else '?'}gate={number}"
        with trio.fail_after(40):
            async with open_request(port, "GET", target) as exchange:
                await exchange.receive_head()
                body = await exchange.receive_body()
                in_pieces = not release.is_set()
                first_came.set()
                while piece := await exchange.receive_body():
                    body += piece
        nursery.cancel_scope.cancel()
    answer = Answer(exchange.status, exchange.headers, body, exchange.complete)
    seen = _seen(Asked("", ""), answer)
    seen.answer["first piece"] = "at once" if in_pieces else "with the last"
    return seen


def _seen(asked: Asked, answer: Answer) -> Seen:
    told = {"status": str(answer.status), "complete": str(answer.complete)}
    for name, _ in answer.headers:
        if name not in _OF_THE_CONNECTION:
            told[name] = " | ".join(value for key, value in answer.headers if key == name)
    report = told.pop(site.SEEN.lower(), None)
    if report is None and answer.body.startswith(b'{"environ"'):
        report = answer.body.decode()
    if asked.method != "HEAD" and told.get("content-length") == str(len(answer.body)):
        told["content-length"] = "that of the body"
    if report is None:
        told["body"] = _short(answer.body)
        return Seen(None, "", told)
    if told.get("content-length") == str(len(report) + 1):
        told["content-length"] = "that of the body"
    seen = json.loads(report)
    environ = seen["environ"]
    # What a handler reads from properties is what the environ says.
    request = Request(environ)
    for name in ("path", "raw_path", "script_name", "path_info"):
        assert getattr(request, name) == seen[name], (asked.name, name)
    return Seen(environ, seen["body"], told)


def _short(body: bytes) -> str:
    if len(body) < 200:
        return body.decode("utf-8", "backslashreplace")
    return f"{len(body)} bytes {hashlib.sha256(body).hexdigest()[:16]}"
