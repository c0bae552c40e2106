"""Answers of the small web as bytes on real sockets and pipes: what the servers in front get to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from gateways import Reject, Request, Response
from gateways.fastcgi import dissect, wire
from gateways.gemtext import Page
from tests.cgi.test_guest import Script
from tests.model.dialects import strict_gemini
from tests.net.tools import FASTCGI, PATIENCE, SCGI, Peer, running

GEMINI = {"SERVER_PROTOCOL": "GEMINI", "SCRIPT_NAME": "/app", "PATH_INFO": "/a"}


def whole(peer: Peer, environ: dict[str, str]) -> bytes:
    """The bytes of one request without a body, the last of its connection."""
    client = peer.client
    return client.send_request(peer.stream_id, environ, keep_connection=False) + client.end_body(peer.stream_id)


async def received(app: Any, environ: dict[str, str], protocol: Any, **how: Any) -> list[bytes]:
    """Everything that one connection received, packet by packet, up to its end."""
    packets: list[bytes] = []
    async with running(app, protocol=protocol, **how) as backend:
        peer = await backend.connect()
        await peer.send(whole(peer, environ))
        with trio.fail_after(PATIENCE):
            while packet := await peer.stream.receive_some():
                packets.append(packet)
    return packets


async def stdout(app: Any, environ: dict[str, str], **how: Any) -> tuple[bytes, list[str]]:
    """What FastCGI carried on STDOUT, and what its END_REQUEST records say."""
    data = b"".join(await received(app, environ, FASTCGI, **how))
    records = dissect(data)
    at, out = 0, b""
    ends = []
    while at < len(data):
        kind, length, padding = data[at + 1], int.from_bytes(data[at + 4 : at + 6], "big"), data[at + 6]
        if kind == wire.STDOUT:
            out += data[at + 8 : at + 8 + length]
        at += 8 + length + padding
    for record in records:
        if record.type == wire.END_REQUEST:
            ends.append(record.meaning)
    return out, ends


async def page(request: Request) -> Response:
    written = Page()
    written.heading("Hello")
    return written.response(request)


async def fails(request: Request) -> Response:
    raise RuntimeError("secret")


async def breaks(request: Request) -> Response:
    async def body(send: Any) -> None:
        await send("some")
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret")

    return Response(body, content_type="text/gemini")


async def rejects(request: Request) -> Response:
    raise Reject(403, "not you")


@pytest.mark.parametrize(
    ("app", "answer"),
    [
        (page, b"20 text/gemini\r\n# Hello\n"),
        (fails, b"42 Internal Server Error\r\n"),
        (rejects, b"50 not you\r\n"),
    ],
)
async def test_gemini_over_fastcgi_and_scgi(app: Any, answer: bytes) -> None:
    out, ends = await stdout(app, GEMINI)
    assert (out, len(ends)) == (answer, 1)
    assert b"".join(await received(app, GEMINI, SCGI)) == answer


async def test_an_answer_that_breaks_has_its_END_REQUEST_or_gmid_would_wait_for_ever() -> None:
    out, ends = await stdout(breaks, GEMINI)
    assert out == b"20 text/gemini\r\nsome"
    assert ["application status 1" in end for end in ends] == [True]


async def test_the_line_is_in_the_first_packet_with_the_body() -> None:
    gone_on = trio.Event()

    async def streams(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("one\n")
            await gone_on.wait()
            await send("two\n")

        return Response(body, content_type="text/gemini")

    async with running(streams, protocol=SCGI) as backend:
        peer = await backend.connect()
        await peer.send(whole(peer, GEMINI))
        with trio.fail_after(PATIENCE):
            first = await peer.stream.receive_some()
            assert strict_gemini.read([first]) == strict_gemini.Said(20, "text/gemini", b"one\n")
            gone_on.set()
            assert await peer.stream.receive_some() == b"two\n"


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        (GEMINI, b"51 Not Found\r\n"),
        ({**GEMINI, "SERVER_PROTOCOL": "SPARTAN"}, b"4 Not Found\r\n"),
        ({**GEMINI, "SERVER_PROTOCOL": "gopher/1.0"}, b"3Not Found\t\terror.host\t1\r\n.\r\n"),
        ({**GEMINI, "CONTENT_LENGTH": "x", "SCRIPT_NAME": "/mount"}, b"59 Bad Request\r\n"),
    ],
)
async def test_what_makes_no_request_is_refused_in_the_words_of_the_client(
    environ: dict[str, str], answer: bytes
) -> None:
    out, ends = await stdout(page, environ, mount="/mount")
    assert (out, len(ends)) == (answer, 1)


async def test_spartan_and_gopher_over_fastcgi_and_scgi() -> None:
    for protocol, answer in (
        ("SPARTAN", b"2 text/gemini\r\n# Hello\n"),
        ("gopher/1.0", b"iHello\tfake\t(NULL)\t0\r\n.\r\n"),
    ):
        environ = {**GEMINI, "SERVER_PROTOCOL": protocol}
        assert (await stdout(page, environ))[0] == answer
        assert b"".join(await received(page, environ, SCGI)) == answer


async def test_an_empty_file_over_gopher_is_nothing() -> None:
    async def empty(request: Request) -> Response:
        return Response(b"")

    environ = {**GEMINI, "SERVER_PROTOCOL": "gopher/1.0"}
    out, ends = await stdout(empty, environ)
    assert (out, len(ends)) == (b"", 1)
    assert await received(empty, environ, SCGI) == []


PROGRAM = """
from gateways import Request, Response

async def app(request):
    if request.path_info == "/fails":
        raise RuntimeError("secret")
    asked = await request.input()
    return Response.input("Name?") if asked is None else Response(f"Hello, {asked}!\\n")
"""

HELLO = b"text/plain; charset=utf-8\r\nHello, Zo\xc3\xab!\n"


@pytest.mark.parametrize(
    ("environ", "stdin", "answer"),
    [
        ({"SERVER_PROTOCOL": "GEMINI"}, b"", b"10 Name?\r\n"),
        ({"SERVER_PROTOCOL": "GEMINI", "QUERY_STRING": "Zo%C3%AB"}, b"", b"20 " + HELLO),
        ({"SERVER_PROTOCOL": "GEMINI", "CONTENT_LENGTH": ""}, b"never read", b"10 Name?\r\n"),
        ({"SERVER_PROTOCOL": "GEMINI", "PATH_INFO": "fails"}, b"", b"42 Internal Server Error\r\n"),
        ({"SERVER_PROTOCOL": "SPARTAN", "DATA_LENGTH": "3"}, b"Zoe", b"2 text/plain; charset=utf-8\r\nHello, Zoe!\n"),
        ({"SELECTOR": "/x", "REQUEST": "/x", "SEARCHREQUEST": "Zoe"}, b"", b"Hello, Zoe!\r\n.\r\n"),
    ],
)  # fmt: skip
def test_a_cgi_script_answers_whoever_asks_and_ends_well(
    tmp_path: Path, environ: dict[str, str], stdin: bytes, answer: bytes
) -> None:
    done = Script(tmp_path / "app.cgi", PROGRAM).run(environ, stdin)
    assert (done.stdout, done.returncode) == (answer, 0)
