"""A web server's side of a connection, for tests of the engine: real sockets, the pure clients, nothing else."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing

from gateways import Listen, fastcgi, scgi
from gateways._model.handler import Application
from gateways._net import serving
from gateways.events import (
    BodyReceived,
    ClientConnection,
    ClientEvent,
    ConnectionFailed,
    HeadReceived,
    LogReceived,
    ResponseEnded,
)
from gateways.fastcgi.transport import PROTOCOL as FASTCGI
from gateways.scgi.transport import PROTOCOL as SCGI

__all__ = ["FASTCGI", "GET", "POST", "SCGI", "Answer", "Peer", "running", "variables"]

CLIENTS: dict[str, Callable[[], ClientConnection]] = {
    "fastcgi": fastcgi.ClientConnection,
    "scgi": scgi.ClientConnection,
}
#: Seconds that anything in these tests may take.
PATIENCE = 10.0


def variables(method: str = "GET", path: str = "/", **more: str) -> dict[str, str]:
    """The meta-variables of a small request."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **more,
    }


GET = variables()
POST = variables("POST", CONTENT_LENGTH="5")


@attrs.frozen
class Answer:
    """What came back for one request. ``ended`` is "complete" or says how it broke: "eof", "reset", "failed"."""

    status: int
    headers: dict[str, str]
    body: bytes
    log: bytes
    ended: str
    app_status: int = 0


class Peer:
    """A connection to the backend, and what has come back on it."""

    def __init__(self, stream: trio.SocketStream, client: ClientConnection) -> None:
        self.stream = stream
        self.client = client
        self.events: list[ClientEvent] = []
        self.over = ""
        #: The id that requests have unless they say otherwise.
        self.stream_id = client.first_id

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(
        self,
        environ: Mapping[str, str] = GET,
        body: bytes = b"",
        *,
        stream_id: int | None = None,
        keep: bool = False,
        role: str = "responder",
        end_body: bool = True,
    ) -> None:
        """Send a request, all of it unless ``end_body`` is False."""
        stream_id = self.stream_id if stream_id is None else stream_id
        data = self.client.send_request(stream_id, environ, role=role, keep_connection=keep)
        if role == "responder":
            data += self.client.send_body(stream_id, body)
            if end_body:
                data += self.client.end_body(stream_id)
        await self.send(data)

    async def receive(self) -> None:
        """Wait for bytes from the backend, or the end."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            assert isinstance(cause, OSError)
            assert cause.errno in (errno.ECONNRESET, errno.EPIPE)
            self.over = "reset"
            return
        if not data:
            self.over = "eof"
        self.events += self.client.receive_data(bytes(data))

    async def answer(self, stream_id: int | None = None) -> Answer:
        """Wait for the answer to a request, whole or broken."""
        stream_id = self.stream_id if stream_id is None else stream_id
        with trio.fail_after(PATIENCE):
            while not (found := self._answer(stream_id)):
                await self.receive()
        return found

    def _answer(self, stream_id: int) -> Answer | None:
        ended, app_status = self.over, 0
        for event in reversed(self.events):
            if isinstance(event, ConnectionFailed):
                ended = self.over or "failed"
            elif isinstance(event, ResponseEnded) and event.stream_id == stream_id:
                ended, app_status = "complete", event.app_status
        if not ended:
            return None
        mine = [event for event in self.events if getattr(event, "stream_id", None) == stream_id]
        head = next((event for event in mine if isinstance(event, HeadReceived)), None)
        return Answer(
            head.status if head else 0,
            dict(head.headers) if head else {},
            b"".join(event.data for event in mine if isinstance(event, BodyReceived)),
            b"".join(event.data for event in mine if isinstance(event, LogReceived)),
            ended,
            app_status,
        )

    async def closed(self) -> str:
        """Wait for the backend to close: "eof" or "reset"."""
        with trio.fail_after(PATIENCE):
            while not self.over:
                await self.receive()
        return self.over


@attrs.frozen
class Backend:
    """A running server."""

    protocol: serving.Protocol
    addresses: list[str]
    stop: trio.Event
    nursery: trio.Nursery
    peers: list[Peer] = attrs.Factory(list)

    async def connect(self) -> Peer:
        """A new connection, closed at the end."""
        where = self.addresses[0]
        if where.startswith("unix:"):
            stream = await trio.open_unix_socket(where[5:])
        else:
            host, _, port = where.rpartition(":")
            stream = await trio.open_tcp_stream(host, int(port))
        self.peers.append(Peer(stream, CLIENTS[self.protocol.name]()))
        return self.peers[-1]

    async def ask(self, environ: Mapping[str, str] = GET, body: bytes = b"", **how: Any) -> Answer:
        """One request on a connection of its own."""
        peer = await self.connect()
        await peer.ask(environ, body, **how)
        return await peer.answer(how.get("stream_id"))


@asynccontextmanager
async def running(
    app: Application, listen: str | Listen = "127.0.0.1:0", protocol: serving.Protocol = FASTCGI, **settings: Any
) -> AsyncGenerator[Backend]:
    """Serve an application until the block ends."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(serving.serve, protocol, app, listen, stop=stop, **settings)
        addresses = await nursery.start(serve)
        backend = Backend(protocol, addresses, stop, nursery)
        try:
            yield backend
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                # Let the backend say what it has to say to those who still listen.
                await trio.testing.wait_all_tasks_blocked()
                for peer in backend.peers:
                    await trio.aclose_forcefully(peer.stream)


def unix(folder: Path, name: str = "s") -> str:
    """The address of a socket file. pytest's own folders are longer than a socket's path may be."""
    path = folder / name
    if len(str(path)) > 100:
        raise ValueError(f"too long for a socket: {path}")
    return f"unix:{path}"
