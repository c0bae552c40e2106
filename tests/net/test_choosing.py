"""A listener that speaks several protocols, each connection the one that its first byte tells."""

from __future__ import annotations

import pytest

from gateways import Request, Response, fastcgi, scgi
from gateways._net.choosing import any_of
from gateways.http.transport import PROTOCOL as HTTP
from tests.net.tools import CLIENTS, FASTCGI, GET, POST, SCGI, Peer, running

#: HTTP names no first bytes, so it is not chosen.
ANY = any_of([FASTCGI, HTTP, SCGI])


async def app(request: Request) -> Response:
    return Response(f"{request.protocol} {len(await request.body.read())}")


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENTS, "any", fastcgi.ClientConnection)


async def test_each_connection_speaks_its_own_protocol() -> None:
    async with running(app, protocol=ANY) as backend:
        for name, client in (("fastcgi", fastcgi.ClientConnection()), ("scgi", scgi.ClientConnection())):
            peer = Peer((await backend.connect()).stream, client)
            await peer.ask(POST, b"hello")
            assert (await peer.answer()).body == f"{name} 5".encode()


async def test_a_kept_connection_stays_with_its_protocol() -> None:
    async with running(app, protocol=ANY) as backend:
        peer = await backend.connect()
        for _ in range(2):
            await peer.ask(GET, keep=True)
            assert (await peer.answer()).body == b"fastcgi 0"
            peer.events.clear()


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\xff"])
async def test_what_no_protocol_begins_with_is_hung_up_on(greeting: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with running(app, protocol=ANY) as backend:
        peer = await backend.connect()
        await peer.send(greeting)
        assert await peer.closed() in ("eof", "reset")
    assert f"neither fastcgi nor scgi begins with the byte {greeting[0]:#04x}" in caplog.text


async def test_a_peer_that_leaves_without_a_word_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async with running(app, protocol=ANY) as backend:
        peer = await backend.connect()
        await peer.stream.send_eof()
        assert await peer.closed() == "eof"
    assert caplog.text == ""
