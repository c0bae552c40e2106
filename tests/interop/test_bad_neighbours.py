"""Ten bad connections beside twenty good requests: twenty good answers."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

import gateways
from gateways import Request, Response
from tests.interop.backend import serving
from tests.interop.client import fetch
from tests.interop.configurations import CONFIGURATIONS
from tests.interop.servers import SERVER_NAME, FrontEnd

GOOD = 20
#: Seconds for all of it.
PATIENCE = 30.0

_TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(197))
_RANDOM = random.Random(20).randbytes(4096)
#: What ten bad peers send; None: see _half_a_request.
BAD: list[tuple[str, bytes | None]] = [
    ("HTTP", b"GET / HTTP/1.1\r\nHost: gateways.test\r\n\r\n"),
    ("HTTP with a body", b"POST / HTTP/1.1\r\nHost: gateways.test\r\nContent-Length: 9\r\n\r\n{'a': 1}\n"),
    ("TLS", _TLS_HELLO),
    ("random bytes", _RANDOM),
    ("more random bytes", b"\x01" + _RANDOM),
    ("zeros", bytes(100_000)),
    ("a long number", b"9" * 1000),
    ("half a request", None),
    ("half a request, and gone", None),
    ("nothing", b""),
]

BEHIND_NGINX = [
    configuration
    for configuration in CONFIGURATIONS
    if configuration.id.startswith(("nginx-fastcgi-stock-", "nginx-scgi-stock-")) and configuration.mount == ""
]


async def echo(request: Request) -> Response:
    """Wait for the body, then let others go first, and say what came."""
    body = await request.body.read()
    await trio.lowlevel.checkpoint()
    return Response(f"{request.query_string} {body.decode()}")


def _unlike_any_other(text: str) -> tuple[str, bytes]:
    """The query and the body of a request."""
    return f"{text}={'q' * 50}", text.encode() * 2000


def _echoed(text: str) -> str:
    query, body = _unlike_any_other(text)
    return f"{query} {body.decode()}"


def _half_a_request(protocol: str) -> bytes:
    environ = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "10", "SCRIPT_NAME": "/half"}
    if protocol == "fastcgi":
        whole = gateways.fastcgi.ClientConnection().send_request(1, environ)
    else:
        whole = gateways.scgi.ClientConnection().send_request(0, environ)
    return whole[: len(whole) // 2]


@asynccontextmanager
async def _bad_peers(address: str, protocol: str) -> AsyncGenerator[None]:
    """Ten peers that have said what they have to say, and stay, but for the one that says it and goes."""
    async with trio.open_nursery() as nursery:
        for meaning, data in BAD:
            stream = await _connect(address)
            sent = _half_a_request(protocol) if data is None else data
            await nursery.start(_misbehave, stream, sent, "gone" in meaning)
        yield
        nursery.cancel_scope.cancel()


async def _misbehave(
    stream: trio.SocketStream, data: bytes, goes: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with stream:
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # it was thrown out before it had finished
        task_status.started()
        if not goes:
            await trio.sleep_forever()


async def _connect(address: str) -> trio.SocketStream:
    if address.startswith("unix:"):
        return await trio.open_unix_socket(address[5:])
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def _through_nginx(web: FrontEnd, text: str) -> str:
    query, body = _unlike_any_other(text)
    answer = await fetch(web.port, "POST", f"/echo?{query}", body=body, timeout=PATIENCE)
    return answer.body.decode() if answer.complete else ""


async def _straight(web: FrontEnd, text: str) -> str:
    query, body = _unlike_any_other(text)
    call = {"fastcgi": gateways.fastcgi.call, "scgi": gateways.scgi.call}[web.configuration.protocol]
    environ = {
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": SERVER_NAME,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/echo",
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
    }
    answer = await call(str(web.address), environ, body)
    pieces: list[bytes] = []

    async def send(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        pieces.append(data)

    await answer(send)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("web", BEHIND_NGINX, indirect=True, ids=str)
async def test_ten_bad_connections_do_no_harm_to_twenty_good_requests(
    web: FrontEnd, caplog: pytest.LogCaptureFixture
) -> None:
    got: dict[str, str] = {}

    async def ask(way: Callable[[FrontEnd, str], Awaitable[str]], text: str) -> None:
        got[text] = await way(web, text)

    backend, protocol = str(web.address), web.configuration.protocol
    with trio.fail_after(PATIENCE):
        async with (
            serving(echo, web),
            _bad_peers(backend, protocol),
            _bad_peers(f"127.0.0.1:{web.port}", protocol),
            trio.open_nursery() as nursery,
        ):
            for number in range(GOOD):
                nursery.start_soon(ask, _straight, f"straight{number}")
                nursery.start_soon(ask, _through_nginx, f"through{number}")
    texts = [f"{way}{number}" for way in ("straight", "through") for number in range(GOOD)]
    assert got == {text: _echoed(text) for text in texts}
    # Some are told from a request at once, and the log says what they are; none of them is an error of ours.
    assert any("HTTP" in record.message for record in caplog.records)
    assert not [record.message for record in caplog.records if record.exc_info]
