"""Calls: one request over a connection, and its answer as it comes, over FastCGI and SCGI and real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import (
    IncompleteBody,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    Request,
    Response,
    Roles,
    fastcgi,
    scgi,
)
from gateways._net.calling import Call, LineLog, accompany
from gateways._net.stream import PipeStream, TrioStream
from tests.net.tools import FASTCGI, GET, PATIENCE, POST, SCGI, running, unix, variables

CALLS: dict[str, Callable[..., Awaitable[Call]]] = {"fastcgi": fastcgi.call, "scgi": scgi.call}
PROTOCOLS = {"fastcgi": FASTCGI, "scgi": SCGI}
MIB = 1 << 20


@pytest.fixture(params=["fastcgi", "scgi"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else unix(tmp_path)


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE):
        yield


async def whole(answer: Call) -> bytes:
    """The rest of an answer."""
    pieces: list[bytes] = []

    async def send(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        pieces.append(data)

    await answer(send)
    return b"".join(pieces)


async def ignore(data: bytes) -> None:
    await trio.lowlevel.checkpoint()


class Fed:
    """A request body that is there bit by bit: what was put, until ``end``. Counts what was taken."""

    def __init__(self, *pieces: bytes) -> None:
        self._in, self._out = trio.open_memory_channel[bytes](1000)
        self.taken = 0
        for piece in pieces:
            self.put(piece)

    def put(self, data: bytes) -> None:
        self._in.send_nowait(data)

    def end(self) -> None:
        self._in.close()

    async def receive_some(self, max_bytes: int, /) -> bytes:
        try:
            data = await self._out.receive()
        except trio.EndOfChannel:
            return b""
        self.taken += len(data)
        return data


class Failing:
    """A request body that breaks when it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.now = trio.Event()

    async def receive_some(self, max_bytes: int, /) -> bytes:
        await self.now.wait()
        raise self._error


@asynccontextmanager
async def scripted(script: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """A backend of a few lines; the address where it listens. It closes when it has come to its end."""

    async def connected(stream: trio.SocketStream) -> None:
        async with stream:
            await script(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, connected, [listener])
        yield f"127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


def saying(data: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A backend that reads a request, says something, whatever it was asked, and closes."""

    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)

    return script


# --- answers -----------------------------------------------------------------------------------------------------


async def test_the_answer_has_head_and_body(where: str, protocol: str) -> None:
    async def handler(request: Request) -> Response:
        return Response(f"{request.method} {request.path}", 404, [("X-Cookie", "1"), ("X-Cookie", "2")])

    async with running(handler, where, PROTOCOLS[protocol]) as backend:
        answer = await CALLS[protocol](backend.addresses[0], variables("GET", "/x"))
        assert (answer.status, answer.reason) == (404, "Not Found")
        assert [value for name, value in answer.headers if name == "X-Cookie"] == ["1", "2"]
        assert await whole(answer) == b"GET /x"
        assert "closed, status 404" in repr(answer)


async def test_ten_mebibytes_go_up_and_come_back(where: str, protocol: str) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.body)

    sent = os.urandom(MIB) * 10
    async with running(echo, where, PROTOCOLS[protocol]) as backend:
        environ = variables("POST", CONTENT_LENGTH=str(len(sent)))
        answer = await CALLS[protocol](backend.addresses[0], environ, sent)
        assert await whole(answer) == sent


async def test_the_body_goes_on_being_sent_after_the_head_of_the_answer(where: str, protocol: str) -> None:
    async def echo(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("first:")
            async for chunk in request.body:
                await send(chunk)

        return Response(body)

    pieces = [bytes([number]) * 50_000 for number in range(100)]
    source = Fed()
    async with running(echo, where, PROTOCOLS[protocol]) as backend:
        environ = variables("POST", CONTENT_LENGTH=str(50_000 * 100))
        answer = await CALLS[protocol](backend.addresses[0], environ, source)
        # The call was waiting for the body when the head came, and must not have lost its place.
        for piece in pieces:
            source.put(piece)
        source.end()
        assert await whole(answer) == b"first:" + b"".join(pieces)


async def test_what_was_half_sent_when_the_head_came_is_sent_once(protocol: str) -> None:
    async def echo_later(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("first:")
            await read_on.wait()
            async for chunk in request.body:
                await send(chunk)

        return Response(body)

    read_on = trio.Event()
    sent = os.urandom(MIB) * 4  # more than the buffers on the way hold
    async with running(echo_later, "127.0.0.1:0", PROTOCOLS[protocol]) as backend:
        environ = variables("POST", CONTENT_LENGTH=str(len(sent)))
        answer = await CALLS[protocol](backend.addresses[0], environ, sent)
        read_on.set()
        assert await whole(answer) == b"first:" + sent


async def test_a_complete_answer_ends_the_upload(where: str, protocol: str) -> None:
    async def early(request: Request) -> Response:
        return Response("no, thanks")

    source = Fed(b"x")
    async with running(early, where, PROTOCOLS[protocol]) as backend:
        answer = await CALLS[protocol](backend.addresses[0], POST, source)
        assert await whole(answer) == b"no, thanks"
        source.put(b"y")
        await trio.testing.wait_all_tasks_blocked()
        assert source.taken <= 1


async def test_a_peer_that_stops_reading_is_still_heard(protocol: str) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        stream.socket.shutdown(socket.SHUT_RD)
        await stream.send_all(answer_bytes(protocol, b"Status: 413\r\n\r\n", b"too much"))

    async with scripted(script) as address:
        source = Fed(*[b"x" * 1000] * 50)
        answer = await CALLS[protocol](address, variables("POST", CONTENT_LENGTH="1000000"), source)
        assert (answer.status, await whole(answer)) == (413, b"too much")


async def test_body_without_length_is_read_first_over_scgi(where: str) -> None:
    async def length(request: Request) -> Response:
        return Response(f"{request.content_length} {len(await request.body.read())}")

    source = Fed(b"ab", b"cde")
    source.end()
    async with running(length, where, SCGI) as backend:
        assert await whole(await scgi.call(backend.addresses[0], variables("POST"), source)) == b"5 5"
        assert await whole(await scgi.call(backend.addresses[0], variables("POST"), b"abc")) == b"3 3"
        source = Fed(b"ab", b"cde")
        with pytest.raises(LimitExceeded) as caught:
            await scgi.call(backend.addresses[0], variables("POST"), source, limits=Limits(max_read=4))
        assert caught.value.status == 413


async def test_body_without_length_is_streamed_over_fastcgi(where: str) -> None:
    async def length(request: Request) -> Response:
        return Response(f"{request.content_length} {len(await request.body.read())}")

    source = Fed(b"ab", b"cde")
    source.end()
    async with running(length, where, FASTCGI) as backend:
        assert await whole(await fastcgi.call(backend.addresses[0], variables("POST"), source)) == b"None 5"


async def test_every_role_gets_its_streams() -> None:
    async def filtering(request: Request) -> Response:
        return Response(await request.body.read() + b"|" + await request.data.read())

    async def admit(request: Request) -> Response:
        return Response.authorize(REMOTE_USER="m")

    async with running(Roles(authorizer=admit, filter=filtering)) as backend:
        address = backend.addresses[0]
        answer = await fastcgi.call(address, POST, b"hello", role="filter", data=b"the file")
        assert await whole(answer) == b"hello|the file"
        answer = await fastcgi.call(address, POST, b"hello", role="authorizer")
        assert ("Variable-REMOTE_USER", "m") in answer.headers
        await answer.aclose()


# --- the answer as a Response ------------------------------------------------------------------------------------


async def test_fields_about_the_connection_are_not_passed_on() -> None:
    head = b"Connection: close, X-Hop\nKeep-Alive: 5\nX-Hop: 1\nX-End: 2\nContent-Type: a/b\nContent-Length: 2\n\nok"
    async with scripted(saying(head)) as address:
        answer = await scgi.call(address, GET)
        response = answer.response()
        assert response.headers.items() == (("X-End", "2"), ("Content-Type", "a/b"), ("Content-Length", "2"))
        assert response.content_type == "a/b"
        assert response.body is answer
        assert ("Keep-Alive", "5") in answer.headers
        await answer.aclose()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: a/b\nContent-Length: 1\nContent-Length: 1\n\n",
        b"Location: /a\nLocation: /b\n\n",
        b"Content-Type: a/b\nX: \x00\n\n",
        b"Content-Type: a/b\nX: a\rb\n\n",
        b"Content-Type: a/b\nno colon\n\n",
        b"Status: 100 Continue\n\n",
        b"Status: 99999\n\n",
        b"HTTP/1.1 200 OK\n\n",
        b"",
        b"Status: 200",
    ],
)
async def test_a_broken_head_is_an_error_with_status_502(head: bytes, protocol: str) -> None:
    async with scripted(saying(answer_bytes(protocol, head, b""))) as address:
        with pytest.raises(RemoteProtocolError) as caught:
            await CALLS[protocol](address, GET)
        assert caught.value.status == 502


# --- broken answers ----------------------------------------------------------------------------------------------


def answer_bytes(protocol: str, head: bytes, body: bytes, *, end: bool = True) -> bytes:
    """An answer on the wire; FastCGI's has an end of its own, unless that is left out."""
    if protocol == "scgi":
        return head + body
    server = fastcgi.ServerConnection()
    server.receive_data(fastcgi.ClientConnection().send_request(1, GET))
    data = server.send_head(1, head) if head else b""
    return data + server.send_body(1, body) + (server.end(1) if end else b"")


async def test_an_answer_that_breaks_off_is_never_complete(protocol: str) -> None:
    head = b"Content-Type: a/b\nContent-Length: 10\n\n"
    async with scripted(saying(answer_bytes(protocol, head, b"half", end=False))) as address:
        answer = await CALLS[protocol](address, GET)
        pieces: list[bytes] = []

        async def send(data: bytes) -> None:
            pieces.append(data)

        with pytest.raises(RemoteProtocolError) as caught:
            await answer(send)
        assert caught.value.status == 502
        assert b"".join(pieces) == b"half"
        assert "broken" in repr(answer)


async def test_a_handler_that_fails_after_its_head_breaks_the_answer(where: str, protocol: str) -> None:
    async def breaks(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("half")
            await trio.lowlevel.checkpoint()
            raise RuntimeError("on purpose")

        return Response(body, headers=[("Content-Length", "10")])

    async with running(breaks, where, PROTOCOLS[protocol]) as backend:
        answer = await CALLS[protocol](backend.addresses[0], GET)
        with pytest.raises(RemoteProtocolError):
            await whole(answer)


async def test_a_connection_that_ends_without_a_word_is_an_error() -> None:
    class Silent(scgi.ClientConnection):
        def receive_data(self, data: bytes) -> list[Any]:
            return []

    near, far = trio.testing.memory_stream_pair()
    call = Call(TrioStream(near), Silent(), [], limits=Limits())
    await far.send_all(b"x")
    await far.aclose()
    with pytest.raises(RemoteProtocolError, match="in the middle of an answer"):
        await call.start(b"")


async def test_an_end_before_the_head_is_an_error() -> None:
    from gateways.events import ResponseEnded

    class Headless(scgi.ClientConnection):
        def receive_data(self, data: bytes) -> list[Any]:
            return [ResponseEnded(0)]

    near, far = trio.testing.memory_stream_pair()
    await far.send_all(b"x")
    with pytest.raises(RemoteProtocolError, match="without a head"):
        await Call(TrioStream(near), Headless(), [], limits=Limits()).start(b"")


# --- connecting --------------------------------------------------------------------------------------------------


async def test_nobody_listens(tmp_path: Path, protocol: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    stale = unix(tmp_path, "stale")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(stale[5:])
    for address in (f"127.0.0.1:{free}", unix(tmp_path, "nothing"), stale, "unix:/" + "x" * 200):
        with pytest.raises(RemoteProtocolError, match="cannot connect to the application at") as caught:
            await CALLS[protocol](address, GET)
        assert caught.value.status == 502


async def test_a_full_queue_is_503(tmp_path: Path) -> None:
    address = unix(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address[5:])
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(address[5:])
        except BlockingIOError:
            pass
        with pytest.raises(RemoteProtocolError, match="accepts no more connections") as caught:
            await fastcgi.call(address, GET)
        for each in waiting:
            each.close()
        assert caught.value.status == 503


@pytest.mark.parametrize("address", ["fd:0", "systemd", "nonsense", "unix:", "127.0.0.1:70000"])
async def test_an_address_that_is_none_to_connect_to(address: str) -> None:
    with pytest.raises(ValueError, match=r"unix:/|not a number"):
        await fastcgi.call(address, GET)


async def test_what_the_protocol_cannot_carry_is_refused_before_connecting(protocol: str) -> None:
    with pytest.raises(LocalProtocolError):
        await CALLS[protocol]("127.0.0.1:1", {"A": "\0"})
    with pytest.raises(LocalProtocolError):
        await scgi.call("127.0.0.1:1", GET, role="authorizer")


async def test_an_async_generator_is_no_request_body() -> None:
    async def generator() -> AsyncIterator[bytes]:
        yield b""

    with pytest.raises(TypeError, match="receive_some"):
        await fastcgi.call("127.0.0.1:1", POST, generator())  # type: ignore[arg-type]


# --- the end of interest -----------------------------------------------------------------------------------------


class Watched:
    """A handler that sends the head of its answer, waits, and tells that it was cancelled."""

    def __init__(self, *, answer_first: bool) -> None:
        self._answer_first = answer_first
        self.started = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, request: Request) -> Response:
        if not self._answer_first:
            await self._wait()

        async def body(send: Any) -> None:
            await send("first")
            await self._wait()

        return Response(body)

    async def _wait(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise


@pytest.mark.parametrize("answer_first", [False, True])
async def test_cancellation_tells_the_application(where: str, protocol: str, answer_first: bool) -> None:
    handler = Watched(answer_first=answer_first)

    async def ask() -> None:
        await whole(await CALLS[protocol](address, POST, Fed()))

    async with running(handler, where, PROTOCOLS[protocol]) as backend, trio.open_nursery() as nursery:
        address = backend.addresses[0]
        nursery.start_soon(ask)
        await handler.started.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await handler.cancelled.wait()


@pytest.mark.parametrize("answer_first", [False, True])
async def test_a_request_body_that_breaks_ends_the_call(where: str, protocol: str, answer_first: bool) -> None:
    handler = Watched(answer_first=answer_first)
    async with running(handler, where, PROTOCOLS[protocol]) as backend:
        source = Failing(IncompleteBody("on purpose"))
        if answer_first:
            answer = await CALLS[protocol](backend.addresses[0], POST, source)
            source.now.set()
            with pytest.raises(IncompleteBody):
                await whole(answer)
        else:
            source.now.set()
            with pytest.raises(IncompleteBody):
                await CALLS[protocol](backend.addresses[0], POST, source)
        if handler.started.is_set():
            await handler.cancelled.wait()


async def test_send_that_fails_ends_the_call(where: str, protocol: str) -> None:
    async def send(data: bytes) -> None:
        raise ValueError("on purpose")

    handler = Watched(answer_first=True)
    async with running(handler, where, PROTOCOLS[protocol]) as backend:
        answer = await CALLS[protocol](backend.addresses[0], GET)
        with pytest.raises(ValueError, match="on purpose"):
            await answer(send)
        await handler.cancelled.wait()


async def test_unwanted_rest_may_come_to_its_end(where: str, protocol: str) -> None:
    ended = trio.Event()

    async def handler(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("some")
            await request.body.read()
            await send("more")
            ended.set()

        return Response(body)

    source = Fed()
    async with running(handler, where, PROTOCOLS[protocol]) as backend:
        answer = await CALLS[protocol](backend.addresses[0], POST, source)
        source.put(b"hello")
        source.end()
        await answer.aclose()
        assert ended.is_set()
        await answer.aclose()  # a second time is no harm


@pytest.mark.parametrize("limits", [Limits(drain_timeout=0.01), Limits(drain_bytes=4)])
async def test_unwanted_rest_is_cut_at_its_limits(where: str, protocol: str, limits: Limits) -> None:
    handler = Watched(answer_first=True)
    async with running(handler, where, PROTOCOLS[protocol]) as backend:
        answer = await CALLS[protocol](backend.addresses[0], GET, limits=limits)
        await answer.aclose()
        await handler.cancelled.wait()


async def test_unwanted_rest_that_breaks_is_a_line_in_the_log(protocol: str) -> None:
    lines: list[str] = []
    head = b"Content-Type: a/b\nContent-Length: 10\n\n"
    async with scripted(saying(answer_bytes(protocol, head, b"half", end=False))) as address:
        answer = await CALLS[protocol](address, GET, log=lines.append)
        await answer.aclose()
    assert len(lines) == 1
    assert "nobody wanted" in lines[0]


async def test_an_answer_that_is_all_there_needs_no_closing() -> None:
    closed = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer_bytes("fastcgi", b"Status: 304\r\n\r\n", b""))
        while await stream.receive_some():
            pass
        closed.set()

    async with scripted(script) as address:
        answer = await fastcgi.call(address, GET)
        await closed.wait()
        assert await whole(answer) == b""


# --- the log -----------------------------------------------------------------------------------------------------


async def test_the_log_of_the_application_is_passed_on() -> None:
    async def handler(request: Request) -> Response:
        request.log("one\ntwo")
        return Response("ok")

    lines: list[str] = []
    async with running(handler) as backend:
        assert await whole(await fastcgi.call(backend.addresses[0], GET, log=lines.append)) == b"ok"
    assert lines == ["one", "    two"]


async def test_without_a_log_of_its_own_a_call_logs_to_gateways(caplog: pytest.LogCaptureFixture) -> None:
    LineLog(None, 100).write(b"100 %s\n")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("gateways", "100 %s")]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b", b"\n", b"c"], ["ab", "c"]),
        ([b"a\r\n\n\nb"], ["a", "b"]),
        ([b"\xc3", b"\xa9\t\n"], ["é\t"]),
        ([b"\xff\n"], ["\\xff"]),
        ([b"\x1b[31m\x00\n"], ["\\x1b[31m\\x00"]),
        ([b"0123456789", b"abcdef\n", b"no more\n"], ["0123456789ab"]),
    ],
)
async def test_lines_of_a_log(pieces: list[bytes], lines: list[str]) -> None:
    found: list[str] = []
    log = LineLog(found.append, 12)
    for piece in pieces:
        log.write(piece)
    log.flush()
    log.flush()
    assert found == lines


# --- two at a time -----------------------------------------------------------------------------------------------


async def never() -> None:
    await trio.sleep_forever()


async def at_once() -> None:
    await trio.lowlevel.checkpoint()


async def fails() -> None:
    await trio.lowlevel.checkpoint()
    raise KeyError("on purpose")


async def test_the_end_of_the_main_part_ends_the_other() -> None:
    await accompany(at_once, never)


async def test_the_end_of_the_other_part_ends_nothing() -> None:
    with trio.move_on_after(0.01) as scope:
        await accompany(never, at_once)
    assert scope.cancelled_caught


@pytest.mark.parametrize(("main", "other"), [(fails, never), (never, fails), (fails, fails)])
async def test_an_error_of_either_part_ends_both_and_comes_alone(main: Any, other: Any) -> None:
    with pytest.raises(KeyError):
        await accompany(main, other)


# --- pipes -------------------------------------------------------------------------------------------------------


async def test_pipes_are_a_stream() -> None:
    (our_in, their_out), (their_in, our_out) = os.pipe(), os.pipe()
    near, far = PipeStream(our_in, our_out), PipeStream(their_in, their_out)
    sent = os.urandom(MIB)

    async def upload() -> None:
        left = bytearray(sent)
        while left:
            del left[: await near.send_some(left)]
        near.end_writing()
        assert await near.send_some(b"x") == -1

    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload)
        while data := await far.receive(10_000):
            received += data
    assert received == sent
    assert near.receive_nowait(1) is None
    assert await far.send_some(b"back") == 4
    assert near.receive_nowait(10) == b"back"
    assert (near.peer_gone(), near.peer_half_closed()) == (False, False)
    far.close()
    assert near.receive_nowait(10) == b""
    near.reset()
    assert near.receive_nowait(10) == await near.receive(10) == b""
    assert near.peer_gone()


async def test_a_pipe_that_nobody_reads_any_more_takes_nothing() -> None:
    reading, writing = os.pipe()
    stream = PipeStream(None, writing)
    while stream.send_nowait(bytes(65_536)):
        pass

    async def hang_up() -> None:
        await trio.testing.wait_all_tasks_blocked()
        os.close(reading)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        assert await stream.send_some(b"x") == -1
    stream.close()


async def test_closing_wakes_who_waits_on_a_pipe() -> None:
    (reading, far_writing), (far_reading, writing) = os.pipe(), os.pipe()
    stream = PipeStream(reading, writing)
    while stream.send_nowait(bytes(65_536)):
        pass
    found: list[object] = []

    async def receive() -> None:
        found.append(await stream.receive(1))

    async def send() -> None:
        found.append(await stream.send_some(b"x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        stream.close()
    os.close(far_writing)
    os.close(far_reading)
    assert set(found) == {b"", -1}
