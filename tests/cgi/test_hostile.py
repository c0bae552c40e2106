"""What comes in against the laws of the environment (E), carried by every protocol to the same application."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gateways import Request, Response, URLMap
from tests.cgi.test_guest import Script, split
from tests.fastcgi.tools import pair as param
from tests.fastcgi.tools import request as framed
from tests.net.tools import SCGI, running

#: What every request here has unless it says otherwise.
HTTP = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "SCRIPT_NAME": "", "PATH_INFO": "/"}
POST = {**HTTP, "REQUEST_METHOD": "POST"}

APP = """
import json, os
from gateways import Response

async def app(request):
    body = await request.body.read()
    seen = {
        "environ": request.environ,
        "path": [request.script_name, request.path_info],
        "length": request.content_length,
        "type": request.content_type,
        "method": request.method,
        "scheme": request.scheme,
        "body": body.decode("latin-1"),
        "process": dict(os.environ),
    }
    return Response.json(seen)
"""


@attrs.frozen
class Seen:
    """The status of the answer, and what the handler saw; nothing if it was not called."""

    status: int
    tells: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, status: int, body: bytes) -> Seen:
        return cls(status, json.loads(body) if status == 200 else {})


def application() -> Any:
    names: dict[str, Any] = {}
    exec(APP, names)
    return names["app"]


def params(environ: dict[str, str]) -> bytes:
    return b"".join(
        param(name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in environ.items()
    )


def netstring(environ: dict[str, str]) -> bytes:
    block = "".join([f"{name}\0{value}\0" for name, value in environ.items()]).encode("utf-8", "surrogateescape")
    return b"%d:%b," % (len(block), block)


async def ask_fastcgi(environ: dict[str, str], body: bytes = b"") -> Seen:
    async with running(application()) as backend:
        peer = await backend.connect()
        peer.client.send_request(1, HTTP)  # so that it understands the answer
        await peer.send(framed(1, params(environ), body, flags=0))
        answer = await peer.answer(1)
    return Seen.of(answer.status, answer.body)


async def ask_scgi(environ: dict[str, str], body: bytes = b"") -> Seen:
    async with running(application(), protocol=SCGI) as backend:
        peer = await backend.connect()
        await peer.send(netstring(environ) + body)
        answer = await peer.answer()
    return Seen.of(answer.status, answer.body)


async def ask_cgi(environ: dict[str, str], body: bytes = b"", *, path: Path) -> Seen:
    run = partial(Script(path / "app.cgi", APP).run, {**environ, "GATEWAY_INTERFACE": "CGI/1.1"}, body)
    done = await trio.to_thread.run_sync(run)
    head, content = split(done.stdout)
    return Seen.of(int(head[0].split()[1]), content)


Ask = Callable[..., Any]


@pytest.fixture(params=["fastcgi", "scgi", "cgi"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ask(protocol: str, tmp_path: Path) -> Ask:
    """Have one request answered over a protocol."""
    if protocol == "cgi":
        return partial(ask_cgi, path=tmp_path)
    return {"fastcgi": ask_fastcgi, "scgi": ask_scgi}[protocol]


async def test_E01_E02_nothing_that_a_peer_sends_gets_into_the_process(ask: Ask, protocol: str) -> None:
    seen = await ask({**HTTP, "HTTP_PROXY": "http://evil/", "HTTP_PROXY_": "x", "LD_PRELOAD": "", "FROM_THE_PEER": "x"})
    assert "HTTP_PROXY" not in seen.tells["environ"]
    assert "HTTP_PROXY" not in seen.tells["process"]
    assert seen.tells["environ"]["FROM_THE_PEER"] == "x"
    # A CGI script has its variables there because the web server has put them there.
    assert ("FROM_THE_PEER" in seen.tells["process"]) is (protocol == "cgi")


async def test_E03_what_one_request_brings_the_next_on_its_connection_does_not_see() -> None:
    sent = [
        {**POST, "REMOTE_USER": "m", "HTTP_COOKIE": "session=1", "CONTENT_LENGTH": "5", "X": "1"},
        {**HTTP, "HTTP_X": "2"},
    ]
    async with running(application()) as backend:
        peer = await backend.connect()
        seen: list[dict[str, Any]] = []
        for number, environ in enumerate(sent, 1):
            peer.client.send_request(number, HTTP, keep_connection=True)
            await peer.send(framed(number, params(environ), b"hello" if number == 1 else b""))
            seen.append(json.loads((await peer.answer(number)).body))
    assert seen[0]["environ"]["REMOTE_USER"] == "m"
    assert not {"REMOTE_USER", "HTTP_COOKIE", "CONTENT_LENGTH", "X"} & seen[1]["environ"].keys()
    assert (seen[0]["body"], seen[1]["body"]) == ("hello", "")


async def test_E04_a_body_that_ends_before_its_length_is_400(tmp_path: Path) -> None:
    # Over SCGI only the peer's leaving can end a body early, which cancels the handler.
    environ = {**POST, "CONTENT_LENGTH": "5"}
    assert (await ask_fastcgi(environ, b"hel")).status == 400
    assert (await ask_cgi(environ, b"hel", path=tmp_path)).status == 400


async def test_E05_of_a_longer_body_as_many_bytes_are_seen_as_were_announced(ask: Ask) -> None:
    seen = await ask({"CONTENT_LENGTH": "3", **POST}, b"hello")
    assert (seen.status, seen.tells["length"], seen.tells["body"]) == (200, 3, "hel")


async def test_E05_the_rest_of_it_does_not_disturb_what_follows_on_a_kept_connection() -> None:
    async def handler(request: Request) -> Response:
        return Response(await request.body.read())

    async with running(handler) as backend:
        peer = await backend.connect()
        for number in (1, 2, 3):
            peer.client.send_request(number, HTTP, keep_connection=True)
            await peer.send(framed(number, params({**POST, "CONTENT_LENGTH": "3"}), b"%d23, and more" % number))
            assert (await peer.answer(number)).body == b"%d23" % number


@pytest.mark.parametrize("value", ["-5", "1e3", " +3", "5, 5", "1_0"])
async def test_E06_a_length_that_is_no_number_is_400(ask: Ask, value: str) -> None:
    assert (await ask({"CONTENT_LENGTH": value, **POST}, b"12345")).status == 400


async def test_E06_a_length_of_20_digits_is_413(ask: Ask) -> None:
    # Not 400 as the others: it is a number, and nobody takes that much.
    assert (await ask({"CONTENT_LENGTH": "9" * 20, **POST}, b"12345")).status == 413


async def test_E06_minus_one_is_a_body_without_a_length_over_fastcgi_alone(ask: Ask, protocol: str) -> None:
    seen = await ask({"CONTENT_LENGTH": "-1", **POST}, b"hello")
    if protocol == "fastcgi":  # Caddy, of a chunked upload: the end of STDIN ends it
        assert (seen.status, seen.tells["length"], seen.tells["body"]) == (200, None, "hello")
    else:
        assert seen.status == 400


async def test_E07_an_empty_length_is_none(ask: Ask) -> None:
    seen = await ask({"CONTENT_LENGTH": "", **HTTP})
    assert (seen.status, seen.tells["length"], seen.tells["body"]) == (200, None, "")
    assert "CONTENT_LENGTH" not in seen.tells["environ"]


@pytest.mark.parametrize("method", ["", "GET X", "M" * 10_240])
async def test_E08_no_method_or_none_that_is_one_is_400_over_HTTP(ask: Ask, method: str) -> None:
    assert (await ask({**HTTP, "REQUEST_METHOD": method})).status == 400


async def test_E08_gemini_servers_send_no_method(ask: Ask) -> None:
    seen = await ask({"SERVER_PROTOCOL": "GEMINI", "PATH_INFO": "/", "GATEWAYS_DIALECT": "cgi"})
    assert (seen.status, seen.tells["method"], seen.tells["scheme"]) == (200, "GET", "gemini")


async def test_E09_junk_in_the_variables_of_the_server_crashes_nothing(ask: Ask) -> None:
    seen = await ask({**HTTP, "SERVER_PORT": "x y", "SERVER_PROTOCOL": "jun k", "SERVER_NAME": "[::1"})
    assert (seen.status, seen.tells["scheme"]) == (200, "http")


@pytest.mark.parametrize("path", ["/a//b/../c/./d", "/%2e%2e%2f", "/%00", "/a\r\nX: 1", "/\udcff\udce9", "/Ⱥ"])
async def test_C21_E10_a_path_is_kept_as_it_was_sent(ask: Ask, path: str) -> None:
    seen = await ask({**HTTP, "PATH_INFO": path})
    assert (seen.status, seen.tells["path"]) == (200, ["", path])


async def test_E10_a_NUL_in_a_path_is_400() -> None:
    # The variables of a process cannot hold one, and a NUL ends a field of SCGI: two of them are two fields more.
    assert (await ask_fastcgi({**HTTP, "PATH_INFO": "/a\0b"})).status == 400
    assert (await ask_scgi({"CONTENT_LENGTH": "0", **HTTP, "PATH_INFO": "/a\0b"})).status == 400


async def test_E11_variables_about_the_path_may_disagree(ask: Ask) -> None:
    seen = await ask({**HTTP, "SCRIPT_NAME": "/longer/than/the/uri", "PATH_INFO": "", "REQUEST_URI": "/x"})
    assert (seen.status, seen.tells["path"]) == (200, ["/longer/than/the/uri", ""])


async def test_E13_the_plain_variables_count_and_their_copies_are_gone(ask: Ask) -> None:
    copies = {"HTTP_CONTENT_LENGTH": "2", "HTTP_CONTENT_TYPE": "evil/x"}
    seen = await ask({"CONTENT_LENGTH": "5", **POST, "CONTENT_TYPE": "a/b", **copies}, b"hello")
    assert (seen.tells["body"], seen.tells["type"]) == ("hello", "a/b")
    assert not copies.keys() & seen.tells["environ"].keys()


@pytest.mark.parametrize("name", ["HTTP_TRANSFER_ENCODING", "HTTP_TE", "HTTP_CONNECTION", "HTTP_UPGRADE"])
async def test_E14_fields_about_the_connection_frame_nothing(ask: Ask, name: str) -> None:
    seen = await ask({"CONTENT_LENGTH": "5", **POST, name: "chunked"}, b"hello")
    assert (seen.status, seen.tells["body"]) == (200, "hello")


async def test_E15_the_scheme_is_the_word_of_the_web_server(ask: Ask) -> None:
    assert (await ask({**HTTP, "HTTPS": "on"})).tells["scheme"] == "https"
    assert (await ask({**HTTP, "HTTPS": "off", "HTTP_X_FORWARDED_PROTO": "https"})).tells["scheme"] == "http"


# --- Paths that mean nothing -------------------------------------------------------------------------------------


async def test_C21_a_path_that_means_nothing_is_404() -> None:
    async def page(request: Request) -> Response:
        return Response("the page")

    async with running(URLMap({"/page": page})) as backend:
        asked = {path: await backend.ask({**HTTP, "PATH_INFO": path}) for path in ("/page", "/pages", "/x/../page", "")}
    assert {path: answer.status for path, answer in asked.items()} == {
        "/page": 200,
        "/pages": 404,
        "/x/../page": 404,
        "": 404,
    }
