"""Connections to a server that does not listen: both ends, what is said on them, and what must not be left over."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateways import Limits, Listen, fastcgi, scgi
from gateways._model.handler import Handler, as_roles
from gateways._net import serving
from gateways._net.stream import SocketStream
from gateways.events import ClientConnection
from tests.net.tools import FASTCGI, PATIENCE, Peer, variables

# --- what is counted ---------------------------------------------------------------------------------------------


def descriptors() -> int:
    """How many are open, unlinked temporary files included."""
    return len(os.listdir("/dev/fd"))


#: The task that watches the deadlines of a service.
SWEEPER = "gateways._net.serving.Service.sweep"


def tasks() -> int:
    """How many tasks there are, trio's own included, but for those of a crew that have nothing to do."""

    def idle(task: trio.lowlevel.Task) -> bool:
        return any(frame.f_code.co_name == "_follow" for frame, _ in task.iter_await_frames())

    def below(task: trio.lowlevel.Task) -> int:
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        return sum(below(child) for child in children) + (not idle(task))

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return below(root)


@contextlib.contextmanager
def nothing_left_open() -> Generator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


# --- a service and a line into it ----------------------------------------------------------------------------------


def service_for(app: Handler, protocol: serving.Protocol = FASTCGI, **limits: Any) -> serving.Service:
    service = serving.Service(
        protocol, Listen("a test"), limits=Limits(**limits), mount=None, quirks="none", log=logging.getLogger("faults")
    )
    service.roles = as_roles(app)
    return service


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def tcp_pair(room: int = 0) -> tuple[socket.socket, socket.socket]:
    ours = socket.socket()
    if room:  # which has to be known before the window is announced
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours.connect(listening.getsockname())
        theirs = listening.accept()[0]
    ours.setblocking(False)
    return ours, theirs


def narrow_pair() -> tuple[socket.socket, socket.socket]:
    """With buffers that the answer of ``gathered`` does not fit into."""
    ours, theirs = pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


def narrow_tcp_pair() -> tuple[socket.socket, socket.socket]:
    """The same over TCP."""
    ours, theirs = tcp_pair(4096)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


@asynccontextmanager
async def staffed(service: serving.Service) -> AsyncGenerator[trio.Nursery]:
    """A nursery to start the service's streams in. At the end its connections are waited for, and nothing is left."""
    async with trio.open_nursery() as nursery:
        yield nursery
        await service.idle()
        if not nursery.cancel_scope.cancel_called:
            assert crew_alone(nursery)
            nursery.cancel_scope.cancel()


def crew_alone(nursery: trio.Nursery) -> bool:
    """Whether no tasks are left but those that wait for more to do, and the one that watches the deadlines."""
    return all(task.name.startswith(("gateways._net.crew.", SWEEPER)) for task in nursery.child_tasks)


@asynccontextmanager
async def connected(
    app: Handler, protocol: serving.Protocol = FASTCGI, make: Callable[[], Any] = pair, **limits: Any
) -> AsyncGenerator[tuple[serving.Service, Peer]]:
    """A web server's side of one connection; at the end everything is gone, whatever happened on it."""
    service = service_for(app, protocol, **limits)
    ours, theirs = make()
    client = fastcgi.ClientConnection() if protocol is FASTCGI else scgi.ClientConnection()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    with trio.fail_after(PATIENCE):
        async with staffed(service) as nursery:
            service.start(SocketStream(theirs), nursery)
            try:
                yield service, Peer(stream, client)
            finally:
                stream.socket.close()
                await service.idle()
                # A nursery swallows the Cancelled of a task that fails with one, and everything stops without a word.
                assert not nursery.cancel_scope.cancel_called


# --- what is said -------------------------------------------------------------------------------------------------


def asking(
    path: str,
    body: bytes = b"",
    *,
    stream_id: int = 1,
    keep: bool = False,
    end: bool = True,
    web: ClientConnection | None = None,
) -> bytes:
    """A whole FastCGI request, by the client ``web`` if it is to understand the answer."""
    web = web or fastcgi.ClientConnection()
    length = {"CONTENT_LENGTH": str(len(body))} if body else {}
    method = "POST" if body else "GET"
    data = web.send_request(stream_id, variables(method, path, **length), keep_connection=keep)
    data += web.send_body(stream_id, body)
    return data + web.end_body(stream_id) if end else data


def asking_scgi(path: str, body: bytes = b"") -> bytes:
    web = scgi.ClientConnection()
    fields = variables("POST" if body else "GET", path, CONTENT_LENGTH=str(len(body)), SCGI="1")
    return web.send_request(0, fields) + web.send_body(0, body) + web.end_body(0)
