"""The recorder of tools: what it passes on is what it writes down."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

import gateways
from gateways import Limits, Request, Response, fastcgi
from tools.record import record


async def shout(request: Request) -> Response:
    return Response((await request.body.read()).upper())


async def test_a_request_that_is_recorded_is_answered_and_every_byte_of_it_is_kept(tmp_path: Path) -> None:
    here, there, folder = f"unix:{tmp_path}/here", f"unix:{tmp_path}/there", tmp_path / "kept"
    folder.mkdir()
    said: list[str] = []
    told = trio.Event()

    def say(text: str) -> None:
        said.append(text)
        if "END_REQUEST" in text:
            told.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(gateways.fastcgi.serve, shout, there)
        await nursery.start(partial(record, f"fastcgi:{here}", f"fastcgi:{there}", folder, say=say))
        call = await fastcgi.call(here, {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "4"}, b"ping", limits=Limits())
        pieces: list[bytes] = []

        async def take(piece: bytes) -> None:
            pieces.append(piece)

        await call(take)
        await call.aclose()
        await told.wait()
        nursery.cancel_scope.cancel()

    assert b"".join(pieces) == b"PING"
    asked, answered = [(folder / f"0001.{name}").read_bytes() for name in ("request", "answer")]
    meanings = [record.meaning for record in fastcgi.dissect(asked)]
    assert "2 meta-variables: REQUEST_METHOD, CONTENT_LENGTH" in meanings
    events = fastcgi.ServerConnection().receive_data(asked)
    assert [event.data for event in events if isinstance(event, gateways.events.BodyReceived)] == [b"ping"]
    assert b"PING" in answered
    assert any("4 bytes of the request body: 'ping'" in line for line in said)
