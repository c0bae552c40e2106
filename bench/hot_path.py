"""The hot path, driven over and over in one process: what bench.instructions has counted.

    python -m bench.hot_path 320 fastcgi-hello fastcgi-echo

Client and server are one process and the clock stands still, so that two runs do the same. Between the two marks,
each a call of a function in libc that nothing else calls, is what the requests cost and nothing else.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateways import Response, fastcgi, scgi
from gateways._model import environ
from gateways.events import HeadReceived, RequestReceived, ResponseEnded

if TYPE_CHECKING:
    from gateways import Handler, Request
    from gateways.events import ClientConnection

#: The function that a mark calls. glibc and musl have it under this one name.
MARK = "getsid"
#: Connections that have a request under way at a time.
CONNECTIONS = 16
#: Times that each connection has had an answer before anything is counted: by then CPython has specialised the code.
WARM_UP = 15

#: What nginx sends with its own fastcgi_params and a browser behind it.
VARIABLES = {
    "QUERY_STRING": "",
    "REQUEST_METHOD": "GET",
    "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/hello",
    "REQUEST_URI": "/hello",
    "DOCUMENT_URI": "/hello",
    "DOCUMENT_ROOT": "/usr/share/nginx/html",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REQUEST_SCHEME": "http",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SERVER_SOFTWARE": "nginx/1.22.1",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "43210",
    "SERVER_ADDR": "127.0.0.1",
    "SERVER_PORT": "8080",
    "SERVER_NAME": "localhost",
    "REDIRECT_STATUS": "200",
    "HTTP_HOST": "localhost:8080",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.8,de;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
    "HTTP_CONNECTION": "keep-alive",
}
HELLO = b"Hello, world!\n"
UPLOAD = b"x" * 10_240
PIECE = b"x" * 1023 + b"\n"


# --- what answers ----------------------------------------------------------------------------------------------------


async def hello(request: Request) -> Response:
    return Response("Hello, world!\n")


async def echo(request: Request) -> Response:
    return Response(await request.body.read())


async def stream(request: Request) -> Response:
    async def pieces(send: Callable[[bytes], Awaitable[None]]) -> None:
        for _ in range(16):
            await send(PIECE)

    return Response(pieces)


async def wait(request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response("Hello, world!\n")


# --- who asks --------------------------------------------------------------------------------------------------------


class Counted:
    """``with Counted():`` puts a mark before and a mark behind. Garbage of before is not collected in between."""

    def __enter__(self) -> None:
        gc.collect()
        gc.freeze()
        os.getsid(0)

    def __exit__(self, *_: object) -> None:
        os.getsid(0)


def repeat(step: Callable[[], object], times: int) -> None:
    """Take a step over and over."""
    for _ in range(WARM_UP * CONNECTIONS):
        step()
    with Counted():
        for _ in range(times):
            step()


async def ask(
    serve: Callable[..., Awaitable[None]],
    app: Handler,
    request: bytes,
    client: type[ClientConnection],
    body: bytes,
    path: str,
    times: int,
) -> None:
    """Have so many requests answered by a server on a socket at ``path``, and compare every answer."""
    clients: list[socket.socket] = []
    kept = client is fastcgi.ClientConnection

    async def turn() -> list[bytes]:
        if not kept or not clients:
            clients[:] = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS)]
            for each in clients:
                each.connect(path)
                each.setblocking(False)
        for each in clients:
            each.send(request)
        await wait_all_tasks_blocked()
        answers = [each.recv(65_536) for each in clients]
        if not kept:
            for each in clients:
                each.close()
        return answers

    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **status: serve(app, f"unix:{path}", **status))
        right = await turn()
        for answer in right:
            _compare(client(), answer, body)
        for _ in range(WARM_UP - 1):
            if await turn() != right:
                sys.exit("the same question had another answer")
        with Counted():
            for _ in range(times // CONNECTIONS):
                if await turn() != right:
                    sys.exit("the same question had another answer")
        for each in clients:
            each.close()
        nursery.cancel_scope.cancel()


def _compare(client: ClientConnection, answer: bytes, body: bytes) -> None:
    client.send_request(client.first_id, VARIABLES)
    events = [*client.receive_data(answer), *([] if client.reusable else client.receive_data(b""))]
    found = b"".join([getattr(event, "data", b"") for event in events])
    if not isinstance(events[0], HeadReceived) or not isinstance(events[-1], ResponseEnded) or found != body:
        sys.exit(f"a wrong answer: {answer!r}")


# --- the cases -------------------------------------------------------------------------------------------------------


def _fastcgi_request(body: bytes = b"") -> bytes:
    client = fastcgi.ClientConnection()
    return b"".join([
        client.send_request(1, _variables(body), keep_connection=True),
        client.send_body(1, body) if body else b"",
        client.end_body(1),
    ])  # fmt: skip


def _scgi_request() -> bytes:
    return scgi.ClientConnection().send_request(0, VARIABLES | {"CONTENT_LENGTH": "0"})


def _variables(body: bytes) -> dict[str, str]:
    if not body:
        return VARIABLES
    about = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/octet-stream", "CONTENT_LENGTH": str(len(body))}
    return VARIABLES | about


def _codec(times: int) -> None:
    server, data = fastcgi.ServerConnection(), _fastcgi_request()

    def step() -> bytes:
        server.receive_data(data)
        return server.data_to_send() + server.answer(1, b"Status: 200 OK\r\nContent-Length: 14\r\n\r\n", HELLO)

    repeat(step, times)


def _environ(times: int) -> None:
    event = fastcgi.ServerConnection().receive_data(_fastcgi_request())[0]
    if not isinstance(event, RequestReceived):
        sys.exit(f"not a request: {event!r}")
    rules = environ.Rules()
    repeat(lambda: environ.build(event.environ, "fastcgi", rules), times)


class Yard:
    """Something to work on that has nothing of gateways in it."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def say(self, name: str, value: bytes) -> None:
        self.said[name] = value.decode().strip()


def _yardstick(times: int) -> None:
    pairs = [(name, f" {value} ".encode()) for name, value in VARIABLES.items()]

    def step() -> str:
        yard = Yard()
        for name, value in pairs:
            yard.say(name, value)
        try:
            return ", ".join([f"{name}={value}" for name, value in yard.said.items() if value]) + yard.said["NO"]
        except KeyError:
            return ""

    repeat(step, times)


class Case(NamedTuple):
    """Something to be counted. ``run`` does it so many times."""

    name: str
    title: str
    run: Callable[[int], None]


def _served(
    serve: Callable[..., Awaitable[None]],
    client: type[ClientConnection],
    request: bytes,
    app: Handler,
    body: bytes = HELLO,
) -> Callable[[int], None]:
    def run(times: int) -> None:
        if times % CONNECTIONS:
            raise ValueError(f"{CONNECTIONS} requests are made at a time: {times} are no multiple of that")
        with tempfile.TemporaryDirectory(prefix="hot-path-") as folder:
            # Deadlines are looked at every now and then: how often that is must not depend on the machine.
            trio.run(ask, serve, app, request, client, body, f"{folder}/socket", times, clock=MockClock())

    return run


_over_fastcgi = partial(_served, fastcgi.serve, fastcgi.ClientConnection)
_over_scgi = partial(_served, scgi.serve, scgi.ClientConnection)

CASES = (
    Case("yardstick", "what has nothing of gateways in it", _yardstick),
    Case("fastcgi-hello", "FastCGI, hello", _over_fastcgi(_fastcgi_request(), hello)),
    Case("fastcgi-echo", "FastCGI, echo of 10 KiB", _over_fastcgi(_fastcgi_request(UPLOAD), echo, UPLOAD)),
    Case(
        "fastcgi-stream",
        "FastCGI, an answer in 16 pieces of 1 KiB",
        _over_fastcgi(_fastcgi_request(), stream, PIECE * 16),
    ),
    Case("fastcgi-wait", "FastCGI, a handler that waits once", _over_fastcgi(_fastcgi_request(), wait)),
    Case("scgi-hello", "SCGI, hello, with its connection", _over_scgi(_scgi_request(), hello)),
    Case("fastcgi-codec", "FastCGI without I/O: a request taken, an answer made", _codec),
    Case("environ", "the variables checked and mended", _environ),
)


def main(names: Iterable[str], times: int) -> None:
    """Run each case in a process of its own, lest one show in the figures of another; they begin with all that this one
    has imported. Says which process it was."""
    for case in CASES:
        if case.name not in names:
            continue
        child = os.fork()
        if not child:
            case.run(times)
            sys.exit()
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{case.name}: wait status {status}")
        print(case.name, child, flush=True)


if __name__ == "__main__":
    main(sys.argv[2:], int(sys.argv[1]))
