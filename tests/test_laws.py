"""Laws of the environment model that only show in a running server. docs/laws.toml lists all laws with their tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from gateways import Limits, Listen, Request, Response, fastcgi, scgi
from gateways.fastcgi import dissect, wire
from tests.net.tools import SCGI, running, variables

NGINX = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/x", "DOCUMENT_URI": "/x", "SERVER_SOFTWARE": "nginx/1.22.1"}


async def hello(request: Request) -> Response:
    return Response(f"{request.script_name}|{request.path_info}")


async def test_a_repair_is_logged_once_for_a_listener_with_what_would_mend_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(hello) as backend:
        for _ in range(3):
            assert (await backend.ask(NGINX)).body == b"|/x"
    [line] = [record.getMessage() for record in caplog.records if "repaired" in record.getMessage()]
    assert "repaired (nginx-root)" in line
    assert "fastcgi_param PATH_INFO $fastcgi_script_name;" in line


async def test_a_path_divided_inside_a_segment_is_404_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(hello) as backend:
        answer = await backend.ask(variables(path="lication", SCRIPT_NAME="/app"))
    assert answer.status == 404
    assert "'/application' inside a segment" in caplog.text


async def test_a_body_that_nginx_announced_too_short_has_a_deadline() -> None:
    async def read(request: Request) -> Response:
        return Response(await request.body.read())

    announced = variables("POST", CONTENT_LENGTH="0", HTTP_CONTENT_LENGTH="5", DOCUMENT_URI="/")
    async with running(read, protocol=SCGI, limits=Limits(body_timeout=0.2)) as backend:
        whole, cut = await backend.connect(), await backend.connect()
        await whole.send(scgi.ClientConnection().send_request(0, announced) + b"hello")
        assert (await whole.answer()).body == b"hello"
        await cut.send(scgi.ClientConnection().send_request(0, announced) + b"he")
        assert (await cut.answer()).status == 408


@pytest.mark.parametrize("waits", [False, True])
async def test_a_head_leaves_in_one_write_with_the_beginning_of_its_body(waits: bool) -> None:
    async def pieces() -> AsyncIterator[str]:
        if waits:
            await trio.lowlevel.checkpoint()
        yield "first"
        if waits:
            await trio.lowlevel.checkpoint()
        yield "second"

    async def app(request: Request) -> Response:
        return Response(pieces(), headers={"X-Long": "x" * 20_000})

    writes: list[bytes] = []
    theirs: Any
    ours, theirs = trio.testing.memory_stream_pair()
    send_all = theirs.send_stream.send_all

    async def noted(data: bytes) -> None:
        writes.append(bytes(data))
        await send_all(data)

    theirs.send_stream.send_all = noted
    client = fastcgi.ClientConnection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(fastcgi.serve_stream, app, theirs))
        await ours.send_all(client.send_request(1, variables()) + client.end_body(1))
        while await ours.receive_some():
            pass
        await ours.aclose()
    first = next(dissect(writes[0]))
    assert first.type == wire.STDOUT
    assert first.length > 20_000
    assert b"\r\n\r\n" in writes[0][8 : 8 + first.length]  # the head is in one record
    assert b"first" in writes[0]


#: A program that answers requests full of names of files and modules, and watches what Python opens, imports and runs.
WATCHED = """
import sys
touched = []
sys.addaudithook(lambda event, arguments: touched.append((event, arguments)) if watching else None)
watching = False

import trio
from gateways import Response
from gateways.testing import call

async def app(request):
    await request.body.read()
    return Response(request.query.get("q") or "-")

names = ["SCRIPT_FILENAME", "PATH_TRANSLATED", "DOCUMENT_ROOT", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT",
    "LD_PRELOAD", "FCGI_ROLE", "HTTP_X_SENDFILE", "HTTP_X_ACCEL_REDIRECT", "APP_MODULE", "GATEWAYS_BIND", "PHP_VALUE",
    "SERVER_SOFTWARE", "HTTP_COOKIE", "CONTENT_TYPE", "REQUEST_URI", "AUTH_TYPE", "SCRIPT_NAME", "SERVER_NAME"]
environ = {name: "/tmp/canary.py:canary" for name in names}

async def main():
    global watching
    for protocol in ("fastcgi", "scgi"):
        await call(app, "GET", "/", protocol=protocol)
        watching = True
        result = await call(app, "POST", "/canary/canary.py", query="q=canary", body=b"canary", environ=environ,
            protocol=protocol)
        watching = False
        assert result.status == 200, result

trio.run(main)
print(len(touched) > 0, [entry for entry in touched if "canary" in repr(entry)])
"""


def test_no_variable_selects_code_or_a_file() -> None:
    # In a process of its own: an audit hook stays for good.
    ended = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("True []\n", "")


@pytest.mark.parametrize("trusted", [False, True])
async def test_trust_is_that_of_the_listener(trusted: bool) -> None:
    async def who(request: Request) -> Response:
        return Response(f"{request.remote_user} {request.remote_addr} {request.scheme}")

    listen = Listen("127.0.0.1:0", trust_remote_user=trusted, trust_forwarded=trusted)
    sent = {**NGINX, "REMOTE_USER": "u", "HTTP_X_FORWARDED_FOR": "192.0.2.7", "HTTP_X_FORWARDED_PROTO": "https"}
    async with running(who, listen) as backend:
        answer = await backend.ask(sent)
    assert answer.body == (b"u 192.0.2.7 https" if trusted else b"None None http")
