"""Whatever fails, and wherever: no task, no descriptor and no file is left behind, and the next request is fine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import (
    Limits,
    Listen,
    LocalProtocolError,
    Reject,
    RemoteProtocolError,
    Request,
    Response,
    Roles,
    fastcgi,
    scgi,
)
from gateways._model.handler import Handler
from gateways._net import serving
from gateways._net.address import Listener, open_listeners
from gateways._net.calling import Call, Upload, readable
from gateways._net.choosing import ChoosingConnection
from gateways._net.connection import Connection
from gateways._net.inbox import Inbox
from gateways._net.stream import AnyStream, Data, SocketStream
from gateways.fastcgi import wire
from tests.net.pairs import (
    asking,
    asking_scgi,
    connected,
    crew_alone,
    descriptors,
    narrow_pair,
    narrow_tcp_pair,
    nothing_left_open,
    pair,
    service_for,
    staffed,
    tasks,
    tcp_pair,
)
from tests.net.tools import FASTCGI, PATIENCE, POST, SCGI, Peer, running, unix, variables

Send = Callable[[bytes], Awaitable[None]]

RESET = struct.pack("ii", 1, 0)
#: More than both socket buffers of a connection hold.
BIG = 4_000_000


# --- an application with a handler for each kind of trouble ---------------------------------------------------------


async def troubled(request: Request) -> Response:
    """One handler that does it all: waits, reads, streams, logs, breaks, starts tasks."""
    name = request.path.removeprefix("/")
    await trio.lowlevel.checkpoint()
    match name:
        case "read":
            return Response(str(len(await request.body.read())))
        case "stream":
            return Response(_stream)
        case "generator":
            return Response(_generator())
        case "late":
            return Response(_breaks_late)
        case "early":
            raise RuntimeError("before the head")
        case "nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)
                request.log("in a nursery")
        case "big":
            return Response(b"b" * 200_000)
        case "forever":
            await trio.sleep_forever()
        case "denied":
            raise Reject(403)
        case _:
            pass
    return Response("fine")


async def _stream(send: Send) -> None:
    for _ in range(3):
        await send(b"s" * 1000)
        await trio.lowlevel.checkpoint()


async def _generator() -> AsyncIterator[bytes]:
    try:
        for _ in range(3):
            yield b"g" * 40_000
    finally:
        await trio.lowlevel.checkpoint()


async def _breaks_late(send: Send) -> None:
    await _stream(send)
    raise RuntimeError("after the head")


# --- conversations -----------------------------------------------------------------------------------------------

ABORT = wire.encode_record(wire.ABORT_REQUEST, 1)
FASTCGI_TALKS: dict[str, list[bytes]] = {
    "get": [asking("/")],
    "post": [asking("/read", b"x" * 5000)],
    "a body in pieces": [asking("/read", b"x" * 9)[:-12], asking("/read", b"x" * 9)[-12:]],
    "kept": [asking("/", keep=True), asking("/stream", keep=True), asking("/")],
    "pipelined": [asking("/", keep=True) + asking("/read", b"abc", stream_id=2, keep=True) + asking("/", stream_id=3)],
    "side by side, with a spool": [
        asking("/forever", b"x" * 100_000, keep=True, end=False),
        asking("/forever", stream_id=2, keep=True) + asking("/stream", stream_id=3, keep=True),
        wire.encode_record(wire.ABORT_REQUEST, 2) + ABORT,
    ],
    "aborted": [asking("/forever", keep=True), ABORT, asking("/")],
    "streamed": [asking("/stream")],
    "generated": [asking("/generator")],
    "big": [asking("/big")],
    "fails before the head": [asking("/early")],
    "fails after the head": [asking("/late")],
    "fails beside a sibling": [asking("/forever", stream_id=2, keep=True) + asking("/late", keep=True)],
    "early answer to an upload": [asking("/", b"u" * 70_000)],
    "nursery": [asking("/nursery")],
    "denied": [asking("/denied")],
    "no variables": [wire.encode_record(wire.BEGIN_REQUEST, 1, bytes([0, 1, 0, 0, 0, 0, 0, 0])), b"\1\4\0\1\0\0\0\0"],
    "values": [wire.encode_record(wire.GET_VALUES, 0, wire.encode_pairs([("FCGI_MAX_CONNS", "")])), asking("/")],
    "not FastCGI": [b"GET / HTTP/1.1\r\n\r\n"],
    "nonsense after a request": [asking("/forever", keep=True), b"nonsense" * 10],
}
SCGI_TALKS: dict[str, list[bytes]] = {
    "get": [asking_scgi("/")],
    "post in pieces": [asking_scgi("/read", b"x" * 5000)[:4000], asking_scgi("/read", b"x" * 5000)[4000:]],
    "streamed": [asking_scgi("/stream")],
    "generated": [asking_scgi("/generator")],
    "fails before the head": [asking_scgi("/early")],
    "fails after the head": [asking_scgi("/late")],
    "early answer to an upload": [asking_scgi("/", b"u" * 70_000)],
    "denied": [asking_scgi("/denied")],
    "refused": [b"9:A\0b\0c\0d\0e,"],
    "waits": [asking_scgi("/forever")],
    "not SCGI": [b"GET / HTTP/1.1\r\n\r\n"],
}
TALKS = [
    *((FASTCGI, name, talk) for name, talk in FASTCGI_TALKS.items()),
    *((SCGI, name, talk) for name, talk in SCGI_TALKS.items()),
]


class Faulty:
    """Any stream, of which one operation, counted from 0, and those after it go wrong in the way of ``fault``."""

    def __init__(self, inner: AnyStream, fault: str, at: int, scope: trio.CancelScope | None = None) -> None:
        self.inner = inner
        self.peer, self.here = inner.peer, inner.here
        self.count = 0
        self._fault = fault
        self._at = at
        self._scope = scope

    def _now(self, *faults: str) -> bool:
        """Whether this operation goes wrong in one of these ways."""
        self.count += 1
        failing = self.count > self._at
        if failing and self._fault == "bug":
            raise RuntimeError("a bug in the stream")
        if failing and self._scope is not None:
            self._scope.cancel()
        if failing and self._fault == "gone":
            self._cut()
        return failing and self._fault in faults

    def _cut(self) -> None:
        if self.inner.fileno() >= 0:
            with socket.socket(fileno=os.dup(self.inner.fileno())) as same, contextlib.suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        return self.inner.fileno()

    def _short(self, max_bytes: int) -> int:
        if self._fault == "short" and self.count > self._at:
            return 1 if self.count - self._at < 300 else 4999  # byte by byte, but not for ever
        return max_bytes

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return b"" if self._now("gone", "end") else self.inner.receive_nowait(self._short(max_bytes))

    async def receive(self, max_bytes: int) -> bytes:
        if self._now("gone", "end"):
            await trio.lowlevel.checkpoint()
            return b""
        return await self.inner.receive(self._short(max_bytes))

    def cork(self) -> None:
        self._now()
        self.inner.cork()

    def unread(self) -> bool:
        return self.inner.unread()

    def nothing_unread(self) -> bool:
        return self.inner.nothing_unread()

    def send_nowait(self, data: Data) -> int:
        if self._now("gone"):
            return -1
        if self.count > self._at and self._fault in ("short", "slow"):
            return self.inner.send_nowait(data[:1]) if self._fault == "short" else 0
        return self.inner.send_nowait(data)

    def send_pieces_nowait(self, pieces: Iterable[Data]) -> int:
        if self._now("gone"):
            return -1
        if self.count > self._at and self._fault in ("short", "slow"):
            return self.inner.send_pieces_nowait([next(iter(pieces))[:1]]) if self._fault == "short" else 0
        return self.inner.send_pieces_nowait(pieces)

    async def send_some(self, data: Data) -> int:
        await trio.lowlevel.checkpoint()
        if self._now("gone"):
            return -1
        return await self.inner.send_some(data[:499] if self.count > self._at and self._fault == "short" else data)

    def peer_half_closed(self) -> bool:
        return self.inner.peer_half_closed()

    def peer_gone(self) -> bool:
        return self._fault == "gone" or self.inner.peer_gone()

    def end_writing(self) -> None:
        self.inner.end_writing()

    def close(self) -> None:
        self.inner.close()

    def reset(self) -> None:
        self.inner.reset()


async def say(
    service: serving.Service,
    nursery: trio.Nursery,
    talk: list[bytes],
    fault: str = "none",
    at: int = 0,
    scope: trio.CancelScope | None = None,
) -> tuple[bytes, int]:
    """Have a conversation to its end: what came back, and how many operations on the stream it took."""
    ours, theirs = pair()
    faulty = Faulty(SocketStream(theirs), fault, at, scope)
    service.start(faulty, nursery)
    with ours:
        for part in talk:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                assert ours.send(part) == len(part)
            await trio.testing.wait_all_tasks_blocked()
        heard = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while piece := ours.recv(65536):
                heard += piece
                await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    for connection in list(service.connections):
        connection.sweep(trio.current_time())  # one that is not being read does not see the end by itself
    await service.idle()
    return heard, faulty.count


def parted(protocol: serving.Protocol, heard: bytes) -> dict[int, list[tuple[int, bytes]]]:
    """What was heard of each request: in which order those are answered that run side by side is anybody's guess."""
    if protocol is not FASTCGI:
        return {0: [(0, heard)]}
    found: dict[int, list[tuple[int, bytes]]] = {}
    for kind, stream_id, content, _ in wire.RecordScanner().scan(heard):
        found.setdefault(stream_id, []).append((kind, content))
    return found


@pytest.mark.parametrize("fault", ["gone", "end", "short", "slow", "bug"])
@pytest.mark.parametrize(
    ("protocol", "talk"), [pytest.param(of, talk, id=f"{of.name}, {name}") for of, name, talk in TALKS]
)
async def test_whichever_operation_on_the_stream_fails_nothing_leaks(
    protocol: serving.Protocol, talk: list[bytes], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = [asking("/") if protocol is FASTCGI else asking_scgi("/")]
    service = service_for(troubled, protocol)
    with nothing_left_open(), trio.fail_after(PATIENCE):
        async with staffed(service) as nursery:
            usual, operations = await say(service, nursery, talk)
            fine, _ = await say(service, nursery, good)
            assert b"200 OK" in fine
            for at in range(operations):
                heard, _ = await say(service, nursery, talk, fault, at)
                if fault in ("short", "slow"):
                    assert parted(protocol, heard) == parted(protocol, usual)
                else:
                    assert len(heard) <= len(usual)
                assert not service.connections
                assert crew_alone(nursery)
            assert (await say(service, nursery, good))[0] == fine
    if fault != "bug":
        assert "internal error" not in caplog.text


@pytest.mark.parametrize(
    ("protocol", "talk"), [pytest.param(of, talk, id=f"{of.name}, {name}") for of, name, talk in TALKS]
)
async def test_cancelled_at_whichever_operation_the_server_leaves_nothing(
    protocol: serving.Protocol, talk: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with nothing_left_open(), trio.fail_after(PATIENCE):
        service = service_for(troubled, protocol)
        async with staffed(service) as nursery:
            _, operations = await say(service, nursery, talk)
        for at in range(operations):
            service = service_for(troubled, protocol, goodbye_timeout=0.001)
            async with staffed(service) as nursery:
                await say(service, nursery, talk, at=at, scope=nursery.cancel_scope)
            assert not service.connections
    assert "internal error" not in caplog.text


@pytest.mark.parametrize("fault", ["gone", "end", "short", "bug"])
@pytest.mark.parametrize("path", ["/read", "/big", "/early"])
@pytest.mark.parametrize("protocol", [FASTCGI, SCGI], ids=["fastcgi", "scgi"])
async def test_whichever_operation_of_a_call_fails_it_is_answered_whole_or_raises(
    protocol: serving.Protocol, path: str, fault: str
) -> None:
    environ = variables("POST", path, CONTENT_LENGTH="70000", SCGI="1")
    service = service_for(troubled, protocol)

    async def make_call(nursery: trio.Nursery, fault: str, at: int) -> tuple[bytes, int]:
        ours, theirs = pair()
        service.start(SocketStream(theirs), nursery)
        faulty = Faulty(SocketStream(ours), fault, at)
        number = 1 if protocol is FASTCGI else 0
        client = fastcgi.ClientConnection() if protocol is FASTCGI else scgi.ClientConnection()
        request = client.send_request(number, environ)
        upload = Upload(readable(b"u" * 70_000), partial(client.send_body, number), partial(client.end_body, number))
        answer = Call(faulty, client, [upload], limits=Limits())
        pieces: list[bytes] = []

        async def send(data: bytes) -> None:
            await trio.lowlevel.checkpoint()
            pieces.append(data)

        try:
            await answer.start(request)
            await answer(send)
        finally:
            assert ours.fileno() == -1
            await service.idle()
        return b"".join(pieces), faulty.count

    with nothing_left_open(), trio.fail_after(PATIENCE):
        async with staffed(service) as nursery:
            usual, operations = await make_call(nursery, "none", 0)
            for at in range(operations):
                try:
                    assert (await make_call(nursery, fault, at))[0] == usual
                except RemoteProtocolError:
                    assert fault in ("gone", "end")
                except RuntimeError:
                    assert fault == "bug"
                assert crew_alone(nursery)


async def test_F37_W41_an_ABORT_in_the_middle_of_a_record_does_not_spoil_the_records_after_it() -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            while True:
                await send(b"x" * 60_000)

        return Response(body)

    async with connected(handler, make=narrow_pair) as (_, peer):
        await peer.ask(keep=True)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(peer.client.abort(1))
        await trio.testing.wait_all_tasks_blocked()
        assert (await peer.answer()).ended == "complete"
        await peer.ask(stream_id=2, keep=True)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(peer.client.abort(2))
        assert (await peer.answer(2)).ended == "complete"


PREFIXED = [
    (FASTCGI, asking("/read", b"hello", keep=True) + asking("/stream")),
    (FASTCGI, wire.encode_record(wire.GET_VALUES, 0) + asking("/forever", b"hello", keep=True) + ABORT),
    (SCGI, asking_scgi("/read", b"hello")),
]


@pytest.mark.parametrize(("make", "end"), [(pair, "eof"), (tcp_pair, "rst")])
@pytest.mark.parametrize(("protocol", "whole"), PREFIXED)
async def test_F07_W42_W43_W45_after_every_prefix_of_a_conversation_an_end_or_a_reset_leaves_nothing(
    protocol: serving.Protocol,
    whole: bytes,
    make: Callable[[], tuple[socket.socket, socket.socket]],
    end: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = [asking("/") if protocol is FASTCGI else asking_scgi("/")]
    service = service_for(troubled, protocol)
    with nothing_left_open(), trio.fail_after(PATIENCE):
        async with staffed(service) as nursery:
            for length in range(len(whole) + 1):
                ours, theirs = make()
                service.start(SocketStream(theirs), nursery)
                ours.send(whole[:length])
                await trio.testing.wait_all_tasks_blocked()
                if end == "rst":
                    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                ours.close()
                await service.idle()
                assert crew_alone(nursery)
            heard, _ = await say(service, nursery, good)
    assert b"200 OK" in heard
    assert "Traceback" not in caplog.text


async def test_O23_a_thousand_good_and_bad_requests_leave_nothing(tmp_path: Path) -> None:
    patience = Limits(drain_timeout=None)  # no clock decides anything here
    async with running(Roles(troubled), unix(tmp_path), limits=patience) as backend:
        path = backend.addresses[0].removeprefix("unix:")

        async def visit(talk: list[bytes]) -> None:
            stream = await trio.open_unix_socket(path)
            with contextlib.suppress(trio.BrokenResourceError):
                for part in talk:
                    await stream.send_all(part)
                if b"/forever" not in b"".join(talk):
                    await stream.receive_some()
            await stream.aclose()

        async def visits(count: int) -> None:
            talks = list(FASTCGI_TALKS.values())
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(visit, talks[number % len(talks)])

        before = descriptors(), tasks()
        for _ in range(20):
            await visits(50)
        assert (await backend.ask()).body == b"fine"
        while backend.peers:
            await trio.aclose_forcefully(backend.peers.pop().stream)
        with trio.move_on_after(PATIENCE):
            while (descriptors(), tasks()) != before:
                await trio.testing.wait_all_tasks_blocked()  # the last connections are still closing
        assert (descriptors(), tasks()) == before


# --- what a handler may do ---------------------------------------------------------------------------------------


async def test_what_a_task_of_the_handler_sends_leaves_at_once() -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            async def tick() -> None:
                await send(b"tick")
                await trio.sleep_forever()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)

        return Response(body)

    for protocol in (FASTCGI, SCGI):
        async with connected(handler, protocol) as (_, peer):
            await peer.ask()
            while not any(getattr(event, "data", b"") == b"tick" for event in peer.events):
                await peer.receive()


async def test_F14_nothing_can_be_sent_after_the_end_not_even_into_the_next_request_with_the_id() -> None:
    kept: list[Send] = []
    refused: list[LocalProtocolError] = []

    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            if kept:
                try:
                    await kept[0](b"for the first")
                except LocalProtocolError as error:
                    refused.append(error)
            kept.append(send)
            await send(b"for the second" if refused else b"first")

        return Response(body)

    async with connected(handler) as (_, peer):
        await peer.ask(keep=True)
        assert (await peer.answer()).body == b"first"
        peer.events.clear()
        await peer.ask()
        assert (await peer.answer()).body == b"for the second"
    assert len(refused) == 1


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0, None)])
async def test_waiting_in_the_way_of_asyncio_is_a_500_and_no_hang(wait: Callable[[], Awaitable[None]]) -> None:
    async def handler(request: Request) -> Response:
        await wait()
        return Response("never")

    async with connected(handler) as (_, peer):
        await peer.ask(keep=True)
        assert (await peer.answer()).status == 500
        assert (await again(peer)).status == 500


async def again(peer: Peer) -> Any:
    peer.events.clear()
    await peer.ask()
    return await peer.answer()


async def test_the_first_step_of_a_handler_is_as_good_a_place_for_scopes_and_nurseries_as_any() -> None:
    seen: list[object] = []

    async def handler(request: Request) -> Response:
        task = trio.lowlevel.current_task()
        with trio.move_on_after(0.001) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        seen.append(scope.cancelled_caught)
        with trio.fail_after(PATIENCE):
            seen.append(await trio.to_thread.run_sync(lambda: "in a thread"))
            seen.append(trio.lowlevel.current_task() is task)
        return Response("fine")

    async with connected(handler) as (_, peer):
        await peer.ask()
        assert (await peer.answer()).body == b"fine"
    assert seen == [True, "in a thread", True]


async def test_an_async_generator_is_finalised_where_it_ran() -> None:
    closed: list[bool] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                yield b"one"
                await trio.sleep_forever()
        finally:
            closed.append(trio.lowlevel.in_trio_task())

    async def handler(request: Request) -> Response:
        return Response(pieces())

    async with connected(handler) as (_, peer):
        await peer.ask(keep=True)
        while not any(getattr(event, "data", b"") == b"one" for event in peer.events):
            await peer.receive()
        await peer.send(peer.client.abort(1))
        await peer.answer()
    assert closed == [True]


async def test_a_connection_lost_between_the_first_step_and_the_wait_cancels_the_handler() -> None:
    cancelled: list[bool] = []

    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            await send(b"x")
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(True)

        return Response(body)

    service = service_for(handler)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            # The read is the first operation; the write of what the handler sent before it waits is the second.
            service.start(Faulty(SocketStream(theirs), "gone", 1), nursery)
            ours.send(asking("/"))
            await service.idle()
    assert cancelled == [True]


async def test_a_handler_that_shields_itself_ends_in_peace_and_says_nothing_more() -> None:
    go_on, started = trio.Event(), trio.Event()

    async def handler(request: Request) -> Response:
        with trio.CancelScope(shield=True):
            started.set()
            await go_on.wait()
        return Response("x" * 100_000)

    async with connected(handler) as (service, peer):
        await peer.ask()
        await started.wait()
        peer.stream.socket.close()
        await trio.testing.wait_all_tasks_blocked()
        for connection in service.connections:
            connection.sweep(trio.current_time())  # on a stream that is closed
        go_on.set()


async def test_F37_a_handler_that_ends_without_a_checkpoint_after_an_ABORT_still_ends_its_request() -> None:
    async def handler(request: Request) -> Response:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return Response("all the same")  # which is rude to trio, but happens

    async with connected(handler) as (_, peer):
        await peer.ask(keep=True)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(peer.client.abort(1))
        assert (await peer.answer()).ended == "complete"


async def test_F37_an_ABORT_in_the_same_read_as_its_request_meets_it_before_it_has_begun() -> None:
    called: list[str] = []

    async def handler(request: Request) -> Response:
        called.append(request.path)
        return Response("fine")

    async with connected(handler) as (_, peer):
        web = peer.client
        await peer.send(asking("/aborted", keep=True, web=web) + web.abort(1) + asking("/", stream_id=2, web=web))
        assert (await peer.answer(1)).ended == "complete"
        assert (await peer.answer(2)).body == b"fine"
    assert called == ["/"]


# --- what a handler may raise ------------------------------------------------------------------------------------


async def fails_in_cleanup(request: Request) -> Response:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("in the cleanup")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await trio.sleep_forever()
    raise AssertionError


async def test_O26_an_error_beside_Cancelled_does_not_escape_from_a_server_that_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = service_for(fails_in_cleanup)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            service.start(SocketStream(theirs), nursery)
            ours.send(asking("/"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert b"503" in ours.recv(65536)
    assert "in the cleanup" in caplog.text
    assert not service.connections


async def test_O26_an_error_beside_Cancelled_of_an_aborted_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(fails_in_cleanup) as (_, peer):
        await peer.ask(keep=True)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(peer.client.abort(1))
        assert (await peer.answer()).ended == "complete"
    assert "in the cleanup" in caplog.text


async def test_a_Cancelled_kept_from_another_request_is_a_500_and_stops_nobody() -> None:
    kept: list[BaseException] = []

    async def handler(request: Request) -> Response:
        if kept:
            raise kept[0]
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except BaseException as error:
                kept.append(error)
                raise
        return Response("first")

    async with connected(handler) as (_, peer):
        await peer.ask(keep=True)
        assert (await peer.answer()).body == b"first"
        assert (await again(peer)).status == 500


async def test_KeyboardInterrupt_in_a_handler_ends_the_server_and_tells_the_web_server() -> None:
    async def handler(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    service = service_for(handler)
    ours, theirs = pair()
    with ours:
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the nursery is what raises
            async with staffed(service) as nursery:
                service.start(SocketStream(theirs), nursery)
                ours.send(asking("/"))
                await service.idle()
        assert b"503" in ours.recv(65536)
    assert caught.group_contains(KeyboardInterrupt)


async def test_requests_that_the_stop_comes_before_are_forgotten_quietly() -> None:
    async def handler(request: Request) -> Response:
        return Response("x" * BIG)

    service = service_for(handler, goodbye_timeout=0.01)
    ours, theirs = pair()
    with ours, nothing_left_open_but(theirs):
        async with staffed(service) as nursery:
            service.start(SocketStream(theirs), nursery)
            # The first answer is stuck, so that the second request has not begun.
            ours.send(asking("/", keep=True) + asking("/", b"y" * 1000, stream_id=2))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not service.connections


@contextlib.contextmanager
def nothing_left_open_but(closed: socket.socket) -> Generator[None]:
    """The same for a block in which this socket is closed."""
    before = descriptors()
    yield
    assert closed.fileno() == -1
    assert descriptors() == before - 1


# --- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["5", ""])
async def test_a_worker_thread_that_waits_for_a_body_is_let_go_when_the_request_is_over(length: str) -> None:
    outcomes: list[object] = []
    done = threading.Event()
    token = trio.lowlevel.current_trio_token()
    reading = trio.Event()

    def handler(request: Request) -> Response:
        trio.from_thread.run_sync(reading.set, trio_token=token)
        try:
            outcomes.append(request.body.file.read())
        except BaseException as error:
            outcomes.append(error)
        done.set()
        return Response("never")

    async with connected(handler) as (_, peer):
        await peer.ask(variables("POST", CONTENT_LENGTH=length or "-1"), b"he", end_body=False)
        await reading.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert await trio.to_thread.run_sync(done.wait, PATIENCE)
    assert [type(outcome).__name__ for outcome in outcomes] == ["GatewayError"]


async def test_a_body_has_one_reader_at_a_time() -> None:
    async def handler(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.body.read)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await request.body.read()
            nursery.cancel_scope.cancel()
        return Response(await request.body.read())

    async with connected(handler) as (_, peer):
        await peer.ask(POST, b"he", end_body=False)
        await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(peer.client.send_body(1, b"llo") + peer.client.end_body(1))
        assert (await peer.answer()).body == b"llo"  # the cancelled reader had taken the rest


async def test_a_spool_does_not_grow_however_much_passes_through() -> None:
    box = Inbox(10, 1000, lambda: None)
    sent = received = b""
    for number in range(500):
        piece = bytes([number % 251]) * 300
        box.put(piece, alone=False)
        sent += piece
        while len(sent) - len(received) > 600:
            received += await box.receive(170)
    spool = box._spool
    assert spool is not None
    assert os.fstat(spool._file.fileno()).st_size <= 1000
    box.end()
    while piece := await box.receive(10_000):
        received += piece
    assert received == sent


async def test_reading_stops_while_there_is_a_spool_and_goes_on_when_it_is_empty() -> None:
    room: list[bool] = []
    box = Inbox(10, 1000, lambda: room.append(box.full))
    box.put(b"x" * 10, alone=False)
    box.put(b"y" * 10, alone=False)
    assert await box.receive(100) == b"x" * 10
    assert box.full
    assert await box.receive(5) == b"y" * 5
    assert box.full
    assert await box.receive(100) == b"y" * 5
    assert not box.full
    assert room[-1] is False


async def test_an_upload_that_is_left_alone_is_held_back_and_not_given_up() -> None:
    spooled, upload_may_go_on = trio.Event(), trio.Event()

    async def handler(request: Request) -> Response:
        if request.path == "/sibling":
            await spooled.wait()
            return Response("sibling")
        await spooled.wait()
        first = await request.body.receive_some()
        await upload_may_go_on.wait()
        return Response(str(len(first + await request.body.read())))

    body = b"u" * 600_000
    async with connected(handler, body_buffer=1000, max_spool=200_000) as (_, peer):
        request = asking("/", body, keep=True, web=peer.client)
        # Beside the sibling a little of the upload is spooled; then it is alone, with more to come than a spool takes.
        await peer.send(asking("/sibling", stream_id=2, keep=True, web=peer.client) + request[:140_000])
        await trio.testing.wait_all_tasks_blocked()
        spooled.set()
        assert (await peer.answer(2)).body == b"sibling"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, request[140_000:])
            await trio.testing.wait_all_tasks_blocked()
            upload_may_go_on.set()
            assert (await peer.answer(1)).body == b"600000"


async def test_W37_an_upload_alone_on_a_connection_that_is_to_be_shared_is_held_back_when_the_spool_is_full() -> None:
    """It must not keep siblings from beginning, but nor is it given up for want of room while there are none."""
    upload_may_go_on = trio.Event()

    async def handler(request: Request) -> Response:
        if request.path == "/sibling":
            return Response("sibling")
        await upload_may_go_on.wait()
        return Response(str(len(await request.body.read())))

    body = b"u" * 2_000_000
    async with connected(handler, body_buffer=1000, max_spool=200_000) as (_, peer):
        web = peer.client
        assert isinstance(web, fastcgi.ClientConnection)
        upload = variables("POST", CONTENT_LENGTH=str(len(body)))
        await peer.send(web.get_values() + web.send_request(1, upload, keep_connection=True))
        await peer.send(web.send_body(1, body[:100_000]))
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(asking("/sibling", stream_id=2, keep=True, web=web))
        assert (await peer.answer(2)).body == b"sibling"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, web.send_body(1, body[100_000:]) + web.end_body(1))
            await trio.testing.wait_all_tasks_blocked()
            upload_may_go_on.set()
            assert (await peer.answer(1)).body == b"2000000"


@pytest.mark.parametrize("trouble", ["open", "write", "short write"])
async def test_O22_a_full_disk_costs_the_one_request_507(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with room for 10 bytes."""

        def __init__(self, *args: object, **options: object) -> None:
            if trouble == "open":
                raise OSError(errno.EMFILE, "Too many open files")
            self.room = 10 if trouble == "short write" else 0

        def seek(self, at: int) -> None:
            pass

        def write(self, data: bytes) -> int:
            written = min(self.room, len(data))
            if not written:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room -= written
            return written

        def close(self) -> None:
            pass

    async def handler(request: Request) -> Response:
        if request.path == "/sibling":
            await trio.testing.wait_all_tasks_blocked()
            return Response("sibling")
        await read.wait()
        return Response(await request.body.read())

    read = trio.Event()
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    async with connected(handler, body_buffer=1000) as (_, peer):
        sibling = asking("/sibling", stream_id=2, keep=True, web=peer.client)
        await peer.send(sibling + asking("/", b"u" * 100_000, keep=True, web=peer.client))
        assert (await peer.answer(2)).body == b"sibling"
        read.set()
        assert (await peer.answer(1)).status == 507


# --- the end of a connection ---------------------------------------------------------------------------------------


async def whole_answer(peer: Peer) -> int:
    """Read on until the end; how much of the body has come."""
    answer = await peer.answer()
    assert answer.ended == "complete"
    return len(answer.body)


async def gathered(request: Request) -> Response:
    """Done before the first byte has left."""
    await trio.lowlevel.checkpoint()
    return Response("x" * 60_000)


async def stuck_after_the_end(service: serving.Service, peer: Peer, **how: Any) -> Connection:
    """Ask for an answer all of which has been handed over, and does not fit into the buffers of the socket."""
    await peer.ask(**how)
    await trio.testing.wait_all_tasks_blocked()
    [connection] = service.connections
    assert connection._unsent
    assert not connection.exchanges
    return connection


async def test_a_stop_does_not_cut_an_answer_that_is_being_sent() -> None:
    async with connected(gathered, make=narrow_pair) as (service, peer):
        connection = await stuck_after_the_end(service, peer, keep=True)
        service.drain()
        assert await whole_answer(peer) == 60_000
        connection.sweep(trio.current_time() + 2)
        assert await peer.closed() == "eof"


async def test_the_idle_deadline_does_not_cut_an_answer_that_is_being_sent() -> None:
    async with connected(gathered, make=narrow_pair, idle_timeout=100) as (service, peer):
        connection = await stuck_after_the_end(service, peer, keep=True)
        connection._write_due = None
        connection.sweep(trio.current_time() + 101)
        assert await whole_answer(peer) == 60_000


@pytest.mark.parametrize("make", [narrow_pair, narrow_tcp_pair])
async def test_W44_a_half_close_does_not_cut_an_answer_that_is_being_sent(
    make: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    async with connected(gathered, make=make) as (service, peer):
        connection = await stuck_after_the_end(service, peer)
        await peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        connection.sweep(trio.current_time())
        assert await whole_answer(peer) == 60_000


async def test_a_stop_waits_for_a_request_that_is_half_read_when_the_one_before_it_is_answered() -> None:
    async with connected(troubled) as (service, peer):
        second = asking("/stream", stream_id=2, web=peer.client)
        await peer.send(asking("/forever", keep=True, web=peer.client) + second[:30])
        await trio.testing.wait_all_tasks_blocked()
        service.drain()
        await peer.send(second[30:])
        assert (await peer.answer(2)).body == b"s" * 3000


async def test_a_stop_between_requests_that_are_half_read_and_answered_keeps_the_connection() -> None:
    go_on = trio.Event()

    async def handler(request: Request) -> Response:
        await go_on.wait()
        return Response("fine")

    async with connected(handler) as (service, peer):
        second = asking("/", stream_id=2, keep=True, web=peer.client)
        await peer.send(asking("/", keep=True, web=peer.client) + second[:30])
        await trio.testing.wait_all_tasks_blocked()
        service.drain()
        go_on.set()
        assert (await peer.answer(1)).body == b"fine"
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(second[30:])
        assert (await peer.answer(2)).body == b"fine"
        assert await peer.closed() == "eof"


async def test_a_stop_tells_the_connections_of_every_listener_at_once(tmp_path: Path) -> None:
    both: Any = [unix(tmp_path, "a"), unix(tmp_path, "b")]
    async with running(troubled, both) as backend:
        busy = await backend.connect()
        await busy.ask(variables(path="/forever"))
        backend.addresses.reverse()
        idle = await backend.connect()
        await idle.ask(keep=True)
        assert (await idle.answer()).body == b"fine"
        backend.stop.set()
        assert await idle.closed() == "eof"
        assert not busy.over


async def test_a_connection_that_was_given_up_is_complained_of_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(send: Send) -> None:
        with trio.CancelScope(shield=True):
            await send(b"x" * BIG)
            await trio.sleep(100)

    async def stubborn(request: Request) -> Response:
        return Response(body)

    service = service_for(stubborn, write_timeout=10)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            ours.send(asking("/"))
            await service.idle()
            nursery.cancel_scope.cancel()
    assert trio.current_time() > 100
    assert caplog.text.count("does not read its answer") == 1


async def test_a_connection_that_pipelines_without_a_pause_is_not_taken_for_a_slow_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    requests = b"".join([asking("/", keep=True, stream_id=number) for number in range(1, 11)])
    service = service_for(troubled, params_timeout=10)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            # Every read ends in the middle of the variables of the next request.
            step, at = len(requests) // 10, 30
            ours.send(requests[:at])
            while at < len(requests):
                await trio.sleep(6)
                ours.send(requests[at : at + step])
                at += step
            await trio.testing.wait_all_tasks_blocked()
            assert ours.recv(65536).count(b"200 OK") == 10
            ours.send(requests[:30])
            await trio.sleep(11)  # and this is a slow one
            assert not service.connections
            nursery.cancel_scope.cancel()


async def test_a_TCP_peer_that_left_before_its_connection_was_served_is_no_error() -> None:
    ours, theirs = tcp_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    ours.close()
    with nothing_left_open_but(theirs):
        await fastcgi.serve_stream(troubled, theirs)


async def test_a_stream_is_closed_also_when_the_application_does_not_start() -> None:
    @asynccontextmanager
    async def application() -> AsyncGenerator[Handler]:
        raise RuntimeError("no start")
        yield troubled

    ours, theirs = pair()
    with ours, nothing_left_open_but(theirs), pytest.raises(RuntimeError, match="no start"):
        await fastcgi.serve_stream(application, theirs)


async def test_a_reset_that_the_system_refuses_is_a_close() -> None:
    class Refusing(socket.socket):
        def setsockopt(self, *args: Any) -> None:
            if args[1] == socket.SO_LINGER:
                raise OSError(errno.EINVAL, "Invalid argument")  # macOS, once the peer has reset the connection
            super().setsockopt(*args)

    ours, theirs = tcp_pair()
    with ours:
        refusing = Refusing(fileno=theirs.detach())
        SocketStream(refusing).reset()
        assert refusing.fileno() == -1


async def test_after_a_byte_that_no_protocol_begins_with_nothing_is_chosen() -> None:
    ours, theirs = pair()
    connection = ChoosingConnection([FASTCGI, SCGI], SocketStream(theirs), limits=Limits(), roles=(), strict=False)
    assert len(connection.receive_data(b"x")) == 1
    assert connection.receive_data(asking("/")) == []
    assert connection.name == "unknown"
    assert connection.closing
    ours.close()
    theirs.close()


# --- listeners ---------------------------------------------------------------------------------------------------


async def test_the_cap_on_connections_holds_over_several_listeners(tmp_path: Path) -> None:
    service = service_for(troubled, max_connections=1)
    listeners = [(await open_listeners(Listen(unix(tmp_path, name))))[0] for name in "ab"]
    peers = [socket.socket(socket.AF_UNIX) for _ in listeners]
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(service.accept, listener, nursery)
        await trio.testing.wait_all_tasks_blocked()
        for listener, peer in zip(listeners, peers, strict=True):
            peer.connect(listener.address.removeprefix("unix:"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.connections) == 1
        nursery.cancel_scope.cancel()
    for listener, peer in zip(listeners, peers, strict=True):
        listener.close()
        peer.close()


class Failing:
    """A listening socket whose accept() fails a number of times."""

    def __init__(self, real: socket.socket, code: int, times: int) -> None:
        self.real, self.code, self.times = real, code, times

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        self.times -= 1
        if self.times >= 0:
            raise OSError(self.code, os.strerror(self.code))
        return self.real.accept()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
async def test_O01_without_descriptors_accepting_is_tried_again_without_haste_and_told_once_a_second(
    code: int, tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = service_for(troubled)
    with socket.create_server(unix(tmp_path)[5:], family=socket.AF_UNIX) as real, socket.socket(socket.AF_UNIX) as peer:
        real.setblocking(False)
        failing: Any = Failing(real, code, 100)
        peer.connect(real.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.sweep)
            nursery.start_soon(service.accept, Listener(failing, "here"), nursery)
            while not service.connections:  # noqa: ASYNC110 - the clock is what is tested
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert 10 <= trio.current_time() <= 12
    assert 9 <= caplog.text.count("cannot accept connections") <= 12


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPERM])
async def test_O02_a_connection_lost_before_it_is_accepted_holds_up_nobody(
    code: int, tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = service_for(troubled)
    with socket.create_server(unix(tmp_path)[5:], family=socket.AF_UNIX) as real, socket.socket(socket.AF_UNIX) as peer:
        real.setblocking(False)
        failing: Any = Failing(real, code, 3)
        peer.connect(real.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.accept, Listener(failing, "here"), nursery)
            await trio.testing.wait_all_tasks_blocked()
            assert len(service.connections) == 1
            nursery.cancel_scope.cancel()
    assert not caplog.records


async def test_O14_a_listener_that_is_closed_twice_leaves_the_file_of_the_next_server_alone(tmp_path: Path) -> None:
    [old] = await open_listeners(Listen(unix(tmp_path)))
    old.close()
    [new] = await open_listeners(Listen(unix(tmp_path)))  # its file often gets the number that the old one had
    old.close()
    assert os.listdir(tmp_path) == ["s"]
    new.close()
    assert os.listdir(tmp_path) == []


# --- CGI ---------------------------------------------------------------------------------------------------------

SCRIPT = """\
from gateways import Response, cgi

async def handler(request):
    async def body(send):
        await send("x")
        if request.path == "/own":
            raise BrokenPipeError("of the database")
        while True:
            await send("x" * 100_000)
    return Response(body)

cgi.run(handler)
"""


@pytest.mark.parametrize("path", ["/own", "/closed"])
def test_E26_a_CGI_script_is_quiet_about_a_web_server_that_left_and_about_nothing_else(path: str) -> None:
    environ = {**os.environ, **variables(path=path), "GATEWAY_INTERFACE": "CGI/1.1"}
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with script:
        assert script.stdout is not None
        assert script.stderr is not None
        script.stdout.read(1)
        if path == "/closed":
            script.stdout.close()
        complaint = script.stderr.read().decode()
    assert script.returncode == 1
    assert ("of the database" in complaint) == (path == "/own")
    assert path == "/own" or not complaint
