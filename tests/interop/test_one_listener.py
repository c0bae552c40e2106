"""Four web servers in front of one listener: each is answered, and none learns of what becomes of another."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from gateways import Listen, Request, Response, fastcgi
from tests.interop.client import fetch
from tests.interop.configurations import CONFIGURATIONS
from tests.interop.servers import SOCKET_MODE, FrontEnd, front_end

#: Seconds for all of it.
PATIENCE = 30.0
#: Requests through each web server.
EACH = 8

#: Each server, in a way in which it passes a body on as it comes.
BEHIND = [
    "nginx-fastcgi-unbuffered-unix-root",
    "apache2-fastcgi-kept-unix-root",
    "lighttpd-fastcgi-unbuffered-unix-root",
    "haproxy-fastcgi-stock-unix-root",
]
SERVERS = ["nginx", "apache2", "lighttpd", "haproxy"]


@pytest.fixture
def webs() -> Iterator[dict[str, FrontEnd]]:
    """The web servers by their names, all with the same socket file for a backend."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw")))
        folder.chmod(0o755)  # Apache connects as another user
        started = [
            stack.enter_context(front_end(each, address=f"unix:{folder}/app.sock"))
            for each in CONFIGURATIONS
            if each.id in BEHIND
        ]
        yield {web.configuration.server: web for web in started}


class Site:
    """A handler that tells which server asked and what it sent, and notes which have begun a long body."""

    def __init__(self) -> None:
        self.begun = {name: trio.Event() for name in SERVERS}
        self.cancelled = {name: trio.Event() for name in SERVERS}

    async def __call__(self, request: Request) -> Response:
        _, name, number = request.path.split("/")
        digest = hashlib.sha256()
        try:
            async for chunk in request.body:
                digest.update(chunk)
                if number == "long":
                    self.begun[name].set()
        except trio.Cancelled:
            self.cancelled[name].set()
            raise
        return Response(f"{_software(request)} {number} {digest.hexdigest()}")


def _software(request: Request) -> str:
    """The server by its own word."""
    return re.split("[/ ]", request.environ["SERVER_SOFTWARE"])[0].lower().replace("apache", "apache2")


def _right(name: str, number: object, body: bytes) -> tuple[int, bytes, bool]:
    return 200, f"{name} {number} {hashlib.sha256(body).hexdigest()}".encode(), True


class Clients:
    """Clients of all web servers, and what they got."""

    def __init__(self, webs: Mapping[str, FrontEnd]) -> None:
        self.webs = webs
        self.got: dict[tuple[str, object], tuple[int, bytes, bool]] = {}
        self.expected: dict[tuple[str, object], tuple[int, bytes, bool]] = {}

    async def ask(self, name: str, number: object, pause: trio.Event | None = None) -> None:
        """Send a body unlike any other, and pause within it."""
        body = f"{name} {number} ".encode() * 20_000
        half = len(body) // 2

        async def halves() -> AsyncGenerator[bytes]:
            yield body[:half]
            if pause is not None:
                await pause.wait()
            yield body[half:]

        length = [("Content-Length", str(len(body)))]
        answer = await fetch(self.webs[name].port, "POST", f"/{name}/{number}", length, halves(), timeout=PATIENCE)
        self.got[name, number] = (answer.status, answer.body, answer.complete)
        self.expected[name, number] = _right(name, number, body)


@asynccontextmanager
async def _serving(site: Site, webs: Mapping[str, FrontEnd]) -> AsyncGenerator[None]:
    """Serve the site once, where all web servers expect it."""
    [address] = {web.address for web in webs.values()}
    async with trio.open_nursery() as nursery:
        listen = Listen(str(address), mode=SOCKET_MODE)
        await nursery.start(partial(fastcgi.serve, site, listen, mount="/"))
        yield
        nursery.cancel_scope.cancel()


async def test_four_web_servers_share_a_listener(webs: dict[str, FrontEnd]) -> None:
    clients = Clients(webs)
    async with _serving(Site(), webs), trio.open_nursery() as nursery:
        for number in range(EACH):
            for name in SERVERS:
                nursery.start_soon(clients.ask, name, number)
    assert len(clients.got) == EACH * len(SERVERS)
    assert clients.got == clients.expected


async def test_a_web_server_that_dies_within_a_body_harms_no_other(webs: dict[str, FrontEnd]) -> None:
    site, clients, pause = Site(), Clients(webs), trio.Event()
    *victims, survivor = SERVERS
    with trio.fail_after(PATIENCE):
        async with _serving(site, webs), trio.open_nursery() as nursery:
            for name in SERVERS:
                nursery.start_soon(clients.ask, name, "long", pause)
                await site.begun[name].wait()
            for dead, name in enumerate(victims, 1):
                webs[name].kill()
                await site.cancelled[name].wait()
                alive = SERVERS[dead:]
                assert not any(site.cancelled[other].is_set() for other in alive)
                async with trio.open_nursery() as others:
                    for other in alive:
                        others.start_soon(clients.ask, other, f"after-{name}")
            pause.set()
    assert clients.got.pop((survivor, "long")) == clients.expected.pop((survivor, "long"))
    for name in victims:
        status, _, complete = clients.got.pop((name, "long"))
        del clients.expected[name, "long"]
        assert (status, complete) == (0, False)
    assert clients.got == clients.expected
