"""What the tests of ASGI share: a strict eye on both sides of it, and a client that reads an answer piece by piece."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import trio

from gateways import fastcgi
from gateways.events import BodyReceived, ClientConnection, HeadReceived, ResponseEnded
from gateways.testing import Server, variables
from tests.interop.servers import _cannot_run

PATIENCE = 10.0

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


def needs(*modules: str) -> None:
    """Skip the test, or fail it where everything has to be there, if one of these modules is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        _cannot_run(f"not installed: {', '.join(missing)}")


# --- the specification's rules for what a server gives to an application ---------------------------------------------


def check_scope(scope: dict[str, Any]) -> None:
    """Fail for a scope of HTTP that the specification does not allow."""
    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"]["spec_version"] in {"2.0", "2.1", "2.2", "2.3", "2.4", "2.5"}
    assert scope["http_version"] in {"1.0", "1.1", "2", "3"}
    assert type(scope["method"]) is str
    assert scope["method"] == scope["method"].upper()
    assert type(scope["scheme"]) is str
    assert scope["scheme"]
    assert type(scope["path"]) is str
    assert scope["path"].startswith("/")
    assert type(scope["root_path"]) is str
    assert scope["path"].startswith(scope["root_path"])
    assert scope["raw_path"] is None or type(scope["raw_path"]) is bytes
    assert b"?" not in (scope["raw_path"] or b"")
    assert type(scope["query_string"]) is bytes
    for name, value in scope["headers"]:
        assert (type(name), type(value)) == (bytes, bytes)
        assert name == name.lower()
        assert name
    for host_and_port in (scope["client"], scope["server"]):
        if host_and_port is not None:
            host, port = host_and_port
            assert (type(host), type(port)) == (str, int)
    assert type(scope["state"]) is dict
    assert all(type(extension) is dict for extension in scope["extensions"].values())


def strict(app: App) -> App:
    """The application, and every message that it is given checked; a lifespan is refused."""

    async def checked(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "no lifespan here"
        check_scope(scope)
        more = True

        async def receive_checked() -> Message:
            nonlocal more
            message = await receive()
            if message["type"] == "http.request":
                assert more, "the body goes on after its end"
                assert type(message["body"]) is bytes
                assert type(message["more_body"]) is bool
                more = message["more_body"]
            else:
                assert message == {"type": "http.disconnect"}
            return message

        await app(scope, receive_checked, send)

    return checked


async def start(send: Send, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send: Send, data: bytes, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def read(receive: Receive) -> bytes:
    """The body of a request."""
    chunks: list[bytes] = []
    more = True
    while more:
        message = await receive()
        chunks.append(message["body"])
        more = message["more_body"]
    return b"".join(chunks)


# --- a client that need not wait for the end -------------------------------------------------------------------------


class Client:
    """One request on a connection of its own, over FastCGI unless another protocol is given."""

    def __init__(self, server: Server, protocol: ModuleType = fastcgi) -> None:
        self._server = server
        self._client: ClientConnection = protocol.ClientConnection()
        self.events: list[Any] = []
        self.received = b""

    async def ask(self, method: str = "GET", path: str = "/", length: int = 0) -> Client:
        self.stream = await self._server.connect()
        client, stream_id = self._client, self._client.first_id
        request = client.send_request(stream_id, variables(method, path, length=length))
        await self.stream.send_all(request + (b"" if length else client.end_body(stream_id)))
        return self

    async def send_body(self, data: bytes) -> None:
        await self.stream.send_all(self._client.send_body(self._client.first_id, data))

    async def read(self) -> bytes:
        """Wait for something more; ``b""`` for the end of the stream."""
        data = bytes(await self.stream.receive_some(65_536))
        self.received += data
        self.events += self._client.receive_data(data)
        return data

    async def until(self, *, body: bytes | None = None, end: bool = False) -> Client:
        """Read until so much of the body is there, or the end of the answer."""
        with trio.fail_after(PATIENCE):
            while not (self.ended if end else body is not None and self.body.startswith(body)):
                assert await self.read(), f"the stream ended after {self.events}"
        return self

    @property
    def status(self) -> int:
        [head] = [event for event in self.events if isinstance(event, HeadReceived)]
        return head.status

    @property
    def body(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, BodyReceived))

    @property
    def ended(self) -> bool:
        return any(isinstance(event, ResponseEnded) for event in self.events)

    async def leave(self) -> None:
        await trio.aclose_forcefully(self.stream)
