"""Threads of from_wsgi: how many, whose, and what becomes of them when the client leaves; bodies that never pile up."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from gateways import Handler, Limits, Request, Response, fastcgi, wsgi
from gateways.events import BodyReceived, ResponseEnded
from gateways.testing import Server, serving, variables
from gateways.wsgi import from_wsgi
from tests.wsgi.behaviours import TEXT, Application, Environ, Start
from tests.wsgi.tools import PATIENCE, ROOT

#: Far more than all buffers on the way of an answer, or of a body, together.
MUCH = 50_000_000
#: As much as those buffers may hold: of the sockets, the engine and the adapter.
BUFFERED = 2_000_000


@asynccontextmanager
async def served(application: Application, threads: int = 40, limits: Limits | None = None) -> AsyncGenerator[Server]:
    with trio.fail_after(PATIENCE):
        async with serving(from_wsgi(application, threads=threads), "fastcgi", "unix", limits=limits) as server:
            yield server


async def happened(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, PATIENCE)


class Client:
    """A client that reads when it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._protocol = fastcgi.ClientConnection()

    async def begin(self, length: int | None = None) -> None:
        announced = {} if length is None else {"CONTENT_LENGTH": str(length)}
        request = self._protocol.send_request(1, variables("POST", environ=announced))
        await self._stream.send_all(request + (self._protocol.end_body(1) if length is None else b""))

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(self._protocol.send_body(1, data))

    async def end(self) -> None:
        await self._stream.send_all(self._protocol.end_body(1))

    async def receive(self) -> tuple[int, bool]:
        """So many bytes of the body, and whether those were all."""
        received = bytes(await self._stream.receive_some())
        assert received
        events = self._protocol.receive_data(received)
        size = sum(len(event.data) for event in events if isinstance(event, BodyReceived))
        return size, any(isinstance(event, ResponseEnded) for event in events)

    async def leave(self) -> None:
        await self._stream.aclose()


# --- a client that leaves --------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_the_iteration() -> None:
    closed = threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.set()

    async with served(application) as server:
        client = Client(await server.connect())
        await client.begin()
        await client.receive()
        await client.leave()
        await happened(closed)
        assert server.errors == []


async def test_a_client_that_leaves_ends_what_writes() -> None:
    errors: list[BaseException] = []
    over = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        try:
            while True:
                write(bytes(10_000))
        except OSError as error:
            errors.append(error)
            over.set()
        return []

    async with served(application) as server:
        client = Client(await server.connect())
        await client.begin()
        await client.receive()
        await client.leave()
        await happened(over)
    assert isinstance(errors[0], ConnectionAbortedError)


async def test_a_client_that_leaves_ends_what_reads() -> None:
    errors: list[BaseException] = []
    began, over = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        began.set()
        try:
            environ["wsgi.input"].read(1_000_000)
        except OSError as error:
            errors.append(error)
        over.set()
        start_response("200 OK", TEXT)
        return [b"nobody sees this"]

    async with served(application) as server:
        client = Client(await server.connect())
        await client.begin(1_000_000)
        await client.send(b"not all")
        await happened(began)
        await client.leave()
        await happened(over)
        assert server.errors == []
    assert isinstance(errors[0], ConnectionAbortedError)


async def test_an_application_that_fails_when_nobody_waits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    began, gone = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        began.set()
        assert gone.wait(PATIENCE)
        raise KeyError("too late")

    async with served(application) as server:
        client = Client(await server.connect())
        await client.begin()
        await happened(began)
        await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        gone.set()
        while "too late" not in caplog.text:
            await trio.lowlevel.checkpoint()


async def test_a_thread_is_taken_until_it_has_really_ended() -> None:
    began = [threading.Event() for _ in range(3)]
    let_go = [threading.Event() for _ in range(3)]

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        number = int(environ["QUERY_STRING"])
        began[number].set()
        assert let_go[number].wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"%d" % number]

    async with served(application, threads=2) as server, trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(3)]
        answers = {}

        async def ask(number: int) -> None:
            with scopes[number]:
                answers[number] = (await server.request("GET", f"/?{number}")).body

        for number in (0, 1):
            nursery.start_soon(ask, number)
        await happened(began[0])
        await happened(began[1])
        scopes[0].cancel()  # its client leaves; its thread does not
        nursery.start_soon(ask, 2)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not began[2].is_set()
        let_go[0].set()
        await happened(began[2])
        let_go[1].set()
        let_go[2].set()
    assert answers == {1: b"1", 2: b"2"}


async def test_a_request_that_is_given_up_before_its_turn_is_never_begun() -> None:
    called = []
    let_go = [threading.Event(), threading.Event()]
    began = [threading.Event(), threading.Event()]

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        called.append(environ["QUERY_STRING"])
        if (number := environ["QUERY_STRING"]) in "01":
            began[int(number)].set()
            assert let_go[int(number)].wait(PATIENCE)
        start_response("200 OK", TEXT)
        return []

    async with served(application, threads=2) as server, trio.open_nursery() as nursery:
        for number in (0, 1):
            nursery.start_soon(server.request, "GET", f"/?{number}")
            await happened(began[number])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(server.request, "GET", "/?given-up")
                await trio.testing.wait_all_tasks_blocked(0.02)
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.02)
        for event in let_go:
            event.set()
        assert (await server.request("GET", "/?2")).status == 200
    assert sorted(called) == ["0", "1", "2"]


async def test_an_answer_that_nobody_wants_does_not_keep_its_thread() -> None:
    closed = threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("404 Not Found", TEXT)
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.set()

    inner = from_wsgi(application)

    async def handler(request: Request) -> Response:
        response = await inner(request)
        return Response("nicer", response.status)

    with trio.fail_after(PATIENCE):
        async with serving(handler, "fastcgi", "unix") as server:
            assert (await server.request()).body == b"nicer"
            await happened(closed)


# --- threads ---------------------------------------------------------------------------------------------------------


async def test_requests_run_at_the_same_time_each_in_a_thread() -> None:
    together = threading.Barrier(5)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        together.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"%d" % threading.get_ident()]

    threads = set()
    async with served(application) as server, trio.open_nursery() as nursery:

        async def ask() -> None:
            threads.add((await server.request()).body)

        for _ in range(5):
            nursery.start_soon(ask)
    assert len(threads) == 5


async def test_a_thread_is_used_again() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [b"%d" % threading.get_ident()]

    async with served(application) as server:
        threads = {(await server.request()).body for _ in range(20)}
    # The first may still be on its way back when the second request comes.
    assert len(threads) <= 2
    assert str(threading.get_ident()).encode() not in threads


async def test_a_thread_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "_IDLE", 0.001)
    threads: list[threading.Thread] = []

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        threads.append(threading.current_thread())
        start_response("200 OK", TEXT)
        return [b"here"]

    async with served(application) as server:
        for _ in range(3):
            assert (await server.request()).body == b"here"
            await trio.to_thread.run_sync(threads[-1].join, PATIENCE)
    assert len(set(threads)) == 3


async def test_inline_there_is_no_thread() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [b"%d" % threading.get_ident()]

    async with served(application, threads=1) as server:
        assert (await server.request()).body == b"%d" % threading.get_ident()


async def test_many_requests_are_answered_with_few_threads() -> None:
    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        for _ in range(int(environ["QUERY_STRING"]) % 4):
            yield environ["QUERY_STRING"].encode()

    answers = {}
    async with served(application, threads=3) as server, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            answers[number] = (await server.request("GET", f"/?{number}")).body

        for number in range(100):
            nursery.start_soon(ask, number)
    assert answers == {number: str(number).encode() * (number % 4) for number in range(100)}


async def test_where_no_thread_can_be_started_the_error_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask(handler: Handler) -> None:
        async with serving(handler, "fastcgi") as server, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(server.request)
        assert [str(error) for error in server.errors] == [
            "no thread can be started: from_wsgi(application, threads=1) does without"
        ] * 3

    monkeypatch.setattr(threading.Thread, "start", no_more)
    with trio.fail_after(PATIENCE):
        await ask(from_wsgi(lambda environ, start_response: []))


def test_a_handler_outlives_an_event_loop() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [b"here"]

    handler = from_wsgi(application)

    async def ask() -> bytes:
        async with serving(handler, "fastcgi") as server:
            return (await server.request()).body

    assert [trio.run(ask) for _ in range(3)] == [b"here"] * 3


async def test_the_application_sees_the_context_of_its_request() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield variable.get().encode()
        variable.set("changed")
        yield variable.get().encode()

    inner = from_wsgi(application)

    async def handler(request: Request) -> Response:
        variable.set(request.query_string)
        return await inner(request)

    with trio.fail_after(PATIENCE):
        async with serving(handler, "fastcgi", "unix") as server:
            for name in ("one", "two"):
                assert (await server.request("GET", f"/?{name}")).body == name.encode() + b"changed"


# --- bodies never pile up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 65_536, 1_000_000])
@pytest.mark.parametrize("way", ["iterable", "write", "inline"])
async def test_an_answer_waits_for_a_slow_reader(way: str, size: int) -> None:
    produced = 0

    def pieces() -> Iterator[bytes]:
        nonlocal produced
        while produced < MUCH:
            produced += size
            yield bytes(size)

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        write = start_response("200 OK", TEXT)
        if way != "write":
            return pieces()
        for piece in pieces():
            write(piece)
        return iter([])

    async with served(application, threads=1 if way == "inline" else 40) as server:
        client = Client(await server.connect())
        await client.begin()
        received, over = await client.receive()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert produced - received < BUFFERED + 2 * size
        most = 0
        while not over:
            more, over = await client.receive()
            received += more
            most = max(most, produced - received)
        assert received == produced
        assert most < BUFFERED + 2 * size


async def test_a_body_waits_for_a_slow_application() -> None:
    sent = 0
    go = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        assert go.wait(PATIENCE)
        size, most = 0, 0
        while chunk := environ["wsgi.input"].read(10_000):
            size += len(chunk)
            most = max(most, sent - size)
        start_response("200 OK", TEXT)
        return [b"%d %d" % (size, most)]

    # max_ids: the engine need not keep a body for the sake of other requests on the connection.
    async with served(application, limits=Limits(max_ids=1)) as server, trio.open_nursery() as nursery:
        client = Client(await server.connect())
        await client.begin(MUCH)

        async def upload() -> None:
            nonlocal sent
            while sent < MUCH:
                await client.send(bytes(50_000))
                sent += 50_000
            await client.end()

        nursery.start_soon(upload)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert sent < BUFFERED
        go.set()
        over = False
        while not over:
            _, over = await client.receive()
    assert sent == MUCH


# --- requests that come in together ----------------------------------------------------------------------------------


def tells_path(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [environ["PATH_INFO"].encode()]


async def together(server: Server, paths: list[str]) -> dict[str, bytes]:
    """The answers to requests that arrive in one piece, over one connection."""
    client = fastcgi.ClientConnection()
    requests = [
        client.send_request(number, variables(path=path), keep_connection=True) + client.end_body(number)
        for number, path in enumerate(paths, 1)
    ]
    answers = dict.fromkeys(paths, b"")
    ended: set[int] = set()
    async with await server.connect() as stream:
        await stream.send_all(b"".join(requests))
        while len(ended) < len(paths):
            for event in client.receive_data(bytes(await stream.receive_some())):
                if isinstance(event, BodyReceived):
                    answers[paths[event.stream_id - 1]] += event.data
                elif isinstance(event, ResponseEnded):
                    ended.add(event.stream_id)
    return answers


async def test_requests_that_come_in_together_are_all_answered() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/fails":
            raise KeyError("as it should")
        start_response("200 OK", TEXT)
        return [environ["PATH_INFO"].encode()]

    paths = [f"/{number}" for number in range(8)]
    async with served(application) as server:
        for _ in range(3):  # there is a thread that waits for work the second time
            assert await together(server, paths) == {path: path.encode() for path in paths}
        mixed = await together(server, ["/one", "/fails", "/two"])
    assert mixed == {"/one": b"/one", "/fails": b"Internal Server Error\n", "/two": b"/two"}


async def test_requests_that_no_transport_carries_are_answered() -> None:
    handler = from_wsgi(tells_path)
    with trio.fail_after(PATIENCE):
        for path in ("/first", "/second", "/third"):
            response = await handler(Request(variables(path=path), protocol="scgi"))
            assert response.body == path.encode()
            await trio.testing.wait_all_tasks_blocked(0.02)  # so that the thread waits for work again


async def test_those_that_wait_for_each_other_have_a_thread_each() -> None:
    barrier = threading.Barrier(3)

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] != "/first":
            barrier.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"met"]

    async with served(application) as server:
        await server.request("GET", "/first")
        for _ in range(3):
            answers = await together(server, ["/a", "/b", "/c"])
            assert answers == {"/a": b"met", "/b": b"met", "/c": b"met"}


async def test_handlers_around_the_application_may_open_scopes() -> None:
    inner = from_wsgi(tells_path)

    async def patient(request: Request) -> Response:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery():
                return await inner(request)

    paths = [f"/{number}" for number in range(8)]
    with trio.fail_after(PATIENCE):
        async with serving(patient, "fastcgi", "unix") as server:
            for _ in range(3):
                assert await together(server, paths) == {path: path.encode() for path in paths}


async def test_one_that_takes_its_time_lets_those_that_came_with_it_be_answered() -> None:
    let_go = threading.Event()

    def application(environ: Environ, start_response: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert let_go.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [environ["PATH_INFO"].encode()]

    client = fastcgi.ClientConnection()
    async with served(application) as server:
        await server.request("GET", "/first")
        async with await server.connect() as stream:
            await stream.send_all(
                client.send_request(1, variables(path="/slow"), keep_connection=True)
                + client.end_body(1)
                + client.send_request(2, variables(path="/quick"), keep_connection=True)
                + client.end_body(2)
            )
            order: list[int] = []
            while len(order) < 2:
                events = client.receive_data(bytes(await stream.receive_some()))
                order += [event.stream_id for event in events if isinstance(event, ResponseEnded)]
                let_go.set()
    assert order == [2, 1]


# --- CGI -------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import gateways.cgi
from gateways.wsgi import from_wsgi

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield repr([environ["wsgi." + name] for name in ("run_once", "multithread", "multiprocess")]).encode()
    yield environ["wsgi.input"].read()
    unwanted = {{"trio", "threading", "queue", "attrs", "tempfile", "logging", "asyncio"}}
    yield repr(sorted(unwanted & set(sys.modules))).encode()

gateways.cgi.run(from_wsgi(application))
"""


def test_a_cgi_script_loads_nothing_that_only_servers_need(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT.format(root=str(ROOT))],
        capture_output=True,
        input=b"hello",
        env={"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5", "GATEWAY_INTERFACE": "CGI/1.1"},
        timeout=60,
        cwd=tmp_path,
    )
    assert done.stderr == b""
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 200 OK\r\n")
    assert body == b"[True, False, True]hello[]"


def test_a_cgi_script_streams(tmp_path: Path) -> None:
    """Its answer begins before the body of its request has come."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SCRIPT.format(root=str(ROOT))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5", "GATEWAY_INTERFACE": "CGI/1.1"},
        cwd=tmp_path,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        received = b""
        while b"[True, False, True]" not in received:
            received += os.read(process.stdout.fileno(), 1000)
        process.stdin.write(b"later")
        process.stdin.close()
        assert process.stdout.read() == b"later[]"
    assert process.returncode == 0
