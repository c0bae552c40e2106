"""Server-sent events arrive one by one, through the configurations in docs/streaming.rst as they stand there."""

from __future__ import annotations

import re
import textwrap
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any

import pytest
import trio

from gateways import Handler, Request, Response, URLMap
from gateways.asgi import from_asgi
from gateways.wsgi import from_wsgi
from tests.interop.backend import serving
from tests.interop.client import open_request
from tests.interop.configurations import CONFIGURATIONS, Configuration
from tests.interop.servers import front_end
from tests.interop.test_howto import _configuration
from tests.interop.test_readme import SERVERS
from tests.test_docs import ROOT

TEXT = (ROOT / "docs" / "streaming.rst").read_text(encoding="utf-8")
#: Seconds until a test gives up. One that passes waits for nothing but the events.
PATIENCE = 30.0

#: What takes the place of nginx's line; the configurations with this caption are without it.
NO_BUFFERING = ("X-Accel-Buffering", "no")


def _configurations() -> Iterator[tuple[Configuration, list[tuple[str, str]]]]:
    """Each configuration on the page, and the header fields that it wants of the application."""
    command = ""
    for block in re.finditer(
        r"^\.\. code-block:: (\w+)\n(?:   :caption: (.*)\n)?\n((?:   .*\n|\n)+)", TEXT, re.MULTILINE
    ):
        language, caption, text = block[1], block[2], textwrap.dedent(block[3]).strip() + "\n"
        if language == "console":
            command = text
        elif language in SERVERS:
            name = f"streaming-{language}{'-by-header' if caption else ''}"
            yield _configuration(name, language, text, command), [NO_BUFFERING] if caption else []


PAGE = [*_configurations()]
#: HAProxy needs no line; its configuration is that of the table.
HAPROXY = [(each, list[tuple[str, str]]()) for each in CONFIGURATIONS if each.id == "haproxy-fastcgi-stock-unix-root"]


def test_every_server_is_there_with_both_protocols() -> None:
    shown = {(configuration.server, configuration.protocol, bool(headers)) for configuration, headers in PAGE}
    lines = {(server, protocol, False) for server in SERVERS.values() for protocol in ("fastcgi", "scgi")}
    assert shown == lines | {("nginx", "fastcgi", True), ("nginx", "scgi", True)}
    assert len(HAPROXY) == 1


class Held:
    """The same two events by a handler, a WSGI and an ASGI application; the second waits for ``release``."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self._headers = [("Content-Type", "text/event-stream"), *headers]
        self._released = trio.Event()
        self._released_thread = threading.Event()

    def release(self) -> None:
        self._released.set()
        self._released_thread.set()

    async def native(self, request: Request) -> Response:
        async def events(send: Callable[[str], Awaitable[None]]) -> None:
            await send("data: first\n\n")
            await self._released.wait()
            await send("data: second\n\n")

        return Response(events, headers=self._headers)

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def events() -> Generator[bytes]:
            yield b"data: first\n\n"
            assert self._released_thread.wait(PATIENCE)
            yield b"data: second\n\n"

        start_response("200 OK", self._headers)
        return events()

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = [(name.encode(), value.encode()) for name, value in self._headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        await self._released.wait()
        await send({"type": "http.response.body", "body": b"data: second\n\n"})


@pytest.mark.parametrize(("configuration", "headers"), [*PAGE, *HAPROXY], ids=lambda value: str(value or ""))
async def test_an_event_arrives_before_there_is_another(
    configuration: Configuration, headers: list[tuple[str, str]]
) -> None:
    interfaces = ("native", "wsgi", "asgi")
    held = {name: Held(headers) for name in interfaces}
    async with from_asgi(held["asgi"].asgi)() as asgi:
        routes: dict[str, Handler] = {
            "/native": held["native"].native,
            "/wsgi": from_wsgi(held["wsgi"].wsgi),
            "/asgi": asgi,
        }
        with front_end(configuration) as web, trio.fail_after(PATIENCE):
            async with serving(URLMap(routes), web):
                for name in interfaces:
                    async with open_request(web.port, "GET", f"{configuration.mount}/{name}") as exchange:
                        assert await exchange.receive_head() == 200
                        assert dict(exchange.headers)["content-type"] == "text/event-stream"
                        seen = b""
                        while len(seen) < len(b"data: first\n\n"):
                            piece = await exchange.receive_body()
                            assert piece, f"the stream ended after {seen!r}"
                            seen += piece
                        assert seen == b"data: first\n\n"
                        held[name].release()
                        answer = await exchange.receive_body()
                        while piece := await exchange.receive_body():
                            answer += piece
                        assert (answer, exchange.complete) == (b"data: second\n\n", True)
