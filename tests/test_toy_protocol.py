"""A new protocol is one new folder and no edit elsewhere: the engine and the launcher serve tests/toy as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import gateways
from gateways import Request, Response
from tests.net.tools import CLIENTS, PATIENCE, POST, running, variables
from tests.toy import toy
from tests.toy.toy.transport import PROTOCOL


async def app(request: Request) -> Response:
    return Response(f"{request.protocol} {request.path} {len(await request.body.read())}")


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENTS, "toy", toy.ClientConnection)


async def test_the_engine_serves_a_protocol_it_has_never_heard_of() -> None:
    async with running(app, protocol=PROTOCOL) as backend:
        assert (await backend.ask(POST, b"hello", stream_id=0)).body == b"toy / 5"
        assert (await backend.ask(variables(path="/x"), stream_id=0)).body == b"toy /x 0"


async def test_a_peer_that_breaks_its_rules_is_hung_up_on() -> None:
    async with running(app, protocol=PROTOCOL) as backend:
        peer = await backend.connect()
        await peer.send(b"nonsense\n")
        assert await peer.closed() in ("eof", "reset")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder put where sub-packages of gateways are looked for, as an installed distribution would."""
    monkeypatch.setattr(gateways, "__path__", [*gateways.__path__, str(Path(__file__).parent / "toy")])
    yield
    for name in [name for name in sys.modules if name.startswith("gateways.toy")]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
async def test_the_launcher_finds_it_by_its_folder() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(gateways.serve, app, "toy:127.0.0.1:0")
        assert address.startswith("toy:127.0.0.1:")
        stream = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
        async with stream:
            await stream.send_all(b"GET /there 0\n")
            received = b""
            with trio.fail_after(PATIENCE):
                while chunk := await stream.receive_some():
                    received += chunk
        assert received.endswith(b"toy /there 0")
        nursery.cancel_scope.cancel()
