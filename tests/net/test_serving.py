"""The life of requests and connections, over real sockets: FastCGI and SCGI, TCP and unix."""

from __future__ import annotations

import contextvars
import logging
import os
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import Limits, Listen, Reject, Request, Response, Roles, scgi
from gateways._net import serving
from gateways.events import BodyReceived
from gateways.fastcgi import dissect, wire
from tests.net.tools import FASTCGI, GET, PATIENCE, POST, SCGI, Answer, Backend, running, unix, variables

PROTOCOLS = {"fastcgi": FASTCGI, "scgi": SCGI}


@pytest.fixture(params=["fastcgi", "scgi"])
def protocol(request: pytest.FixtureRequest) -> serving.Protocol:
    return PROTOCOLS[request.param]


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else unix(tmp_path)


class Waiting:
    """A handler that waits until it is let go or cancelled, and tells which."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.go_on = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, request: Request) -> Response:
        self.started.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return Response("waited")


#: How long the pieces of a body are: some are put together, some are sent as they are.
SIZES = (1, 70_000, 100, 16_384, 300_000, 5, 131_072, 65_536, 65_536, 20_000, 4, 40_000) * 3


async def mixed(request: Request) -> Response:
    async def pieces(send: Callable[[bytes], Awaitable[None]]) -> None:
        for number, size in enumerate(SIZES):
            await send(bytes([number]) * size)

    return Response(pieces)


async def read_all(request: Request) -> Response:
    return Response(f"{len(await request.body.read())}")


async def never_reads(request: Request) -> Response:
    return Response("early")


# --- answers -----------------------------------------------------------------------------------------------------


async def test_an_answer_in_pieces_of_all_sizes_comes_whole_to_a_slow_reader(
    where: str, protocol: serving.Protocol
) -> None:
    async with running(mixed, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        while not peer.over:
            await trio.testing.wait_all_tasks_blocked()  # until no more can be sent
            await peer.receive()
        answer = await peer.answer()
        assert answer.ended == "complete"
        assert answer.body == b"".join(bytes([number]) * size for number, size in enumerate(SIZES))


async def test_what_could_not_be_sent_at_once_goes_out_while_the_handler_waits_for_something_else(
    tmp_path: Path,
) -> None:
    near, far = socket.socketpair()
    with near, far:
        size = near.send(bytes(4_000_000), socket.MSG_DONTWAIT) + 30_000
    go_on = trio.Event()

    async def handler(request: Request) -> Response:
        async def pieces(send: Callable[[bytes], Awaitable[None]]) -> None:
            await send(bytes(size))
            await go_on.wait()

        return Response(pieces)

    async with running(handler, unix(tmp_path)) as backend:
        peer = await backend.connect()
        await peer.ask()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            while sum(len(event.data) for event in peer.events if isinstance(event, BodyReceived)) < size:
                await peer.receive()
        go_on.set()
        assert (await peer.answer()).ended == "complete"


async def test_a_fast_reader_of_one_answer_does_not_keep_others_from_theirs(tmp_path: Path) -> None:
    async def endless(request: Request) -> Response:
        async def pieces(send: Callable[[bytes], Awaitable[None]]) -> None:
            while True:
                await send(bytes(65_536))

        return Response("quick") if request.path == "/quick" else Response(pieces)

    async with running(endless, unix(tmp_path)) as backend, trio.open_nursery() as nursery:
        greedy = await backend.connect()
        await greedy.ask()

        async def read_on() -> None:
            while True:
                await greedy.stream.receive_some()

        nursery.start_soon(read_on)
        for _ in range(20):
            assert (await backend.ask(variables(path="/quick"))).body == b"quick"
        nursery.cancel_scope.cancel()


async def test_a_handler_that_does_not_wait_is_answered(where: str, protocol: serving.Protocol) -> None:
    async with running(read_all, where, protocol) as backend:
        answer = await backend.ask(POST, b"hello")
        assert (answer.status, answer.body, answer.ended) == (200, b"5", "complete")
        assert answer.headers["Content-Length"] == "1"


async def test_a_handler_that_waits_is_answered(where: str, protocol: serving.Protocol) -> None:
    async def waits(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response("done")

    async with running(waits, where, protocol) as backend:
        assert (await backend.ask()).body == b"done"


async def test_a_body_that_comes_after_the_handler_began_is_waited_for(where: str, protocol: serving.Protocol) -> None:
    began = trio.Event()

    async def reads_late(request: Request) -> Response:
        began.set()
        return await read_all(request)

    async with running(reads_late, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask(POST, b"he", end_body=False)
        await began.wait()
        await peer.send(peer.client.send_body(peer.stream_id, b"llo") + peer.client.end_body(peer.stream_id))
        assert (await peer.answer()).body == b"5"


async def test_a_plain_function_runs_in_a_worker_thread(protocol: serving.Protocol) -> None:
    def blocking(request: Request) -> Response:
        assert threading.current_thread() is not threading.main_thread()
        return Response(request.body.file.read())

    async with running(blocking, protocol=protocol) as backend:
        assert (await backend.ask(POST, b"hello")).body == b"hello"


async def test_large_bodies_pass_both_ways_whole(where: str, protocol: serving.Protocol) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.body)

    sent = os.urandom(10_000_000)
    async with running(echo, where, protocol) as backend:
        peer = await backend.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.ask, variables("POST", CONTENT_LENGTH=str(len(sent))), sent)
            answer = await peer.answer()
        assert (answer.body == sent, answer.ended) == (True, "complete")


async def test_what_is_sent_leaves_when_the_handler_waits(where: str, protocol: serving.Protocol) -> None:
    go_on = trio.Event()

    async def pieces(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("first")
            await go_on.wait()
            await send("second")

        return Response(body)

    async with running(pieces, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        with trio.fail_after(PATIENCE):
            while not any(getattr(event, "data", b"") == b"first" for event in peer.events):
                await peer.receive()
        go_on.set()
        assert (await peer.answer()).body == b"firstsecond"


async def test_R28_small_pieces_are_gathered_into_few_records() -> None:
    async def crumbs(request: Request) -> Response:
        return Response(b"x" for _ in range(100_000))

    async with running(crumbs) as backend:
        peer = await backend.connect()
        await peer.ask()
        answer = await peer.answer()
        assert len(answer.body) == 100_000
        assert len([event for event in peer.events if hasattr(event, "data")]) < 50


async def test_F06_several_requests_on_a_kept_connection_are_answered_in_turn() -> None:
    async with running(read_all) as backend:
        peer = await backend.connect()
        for body in (b"a", b"bb", b""):
            await peer.ask(variables("POST", CONTENT_LENGTH=str(len(body))), body, keep=True)
            answer = await peer.answer()
            assert answer.body == str(len(body)).encode()
            peer.events.clear()


async def test_F06_without_KEEP_CONN_the_connection_is_closed_after_the_answer(where: str) -> None:
    async with running(read_all, where) as backend:
        peer = await backend.connect()
        await peer.ask()
        assert (await peer.answer()).ended == "complete"
        assert await peer.closed() == "eof"


async def test_W18_a_waiting_request_does_not_hold_up_its_siblings() -> None:
    slow = Waiting()

    async def by_path(request: Request) -> Response:
        return await slow(request) if request.path == "/slow" else Response("fast")

    async with running(by_path) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/slow"), stream_id=1, keep=True)
        await slow.started.wait()
        await peer.ask(variables(path="/fast"), stream_id=2, keep=True)
        assert (await peer.answer(2)).body == b"fast"
        slow.go_on.set()
        assert (await peer.answer(1)).body == b"waited"


async def test_each_request_runs_in_a_context_of_its_own() -> None:
    mark = contextvars.ContextVar("mark", default="clean")

    async def marks(request: Request) -> Response:
        before = mark.get()
        mark.set("dirty")
        if request.path == "/wait":
            await trio.lowlevel.checkpoint()
        return Response(f"{before} {mark.get()}")

    async with running(marks) as backend:
        peer = await backend.connect()
        for path in ("/", "/wait", "/", "/wait"):
            await peer.ask(variables(path=path), keep=True)
            assert (await peer.answer()).body == b"clean dirty"
            peer.events.clear()


async def test_while_a_handler_blocks_the_next_connections_are_left_to_other_processes() -> None:
    """Who has accepted them has to answer them, however long that takes."""
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, listening.dup() as other:
        other.setblocking(False)
        begun: list[str] = []
        left: list[socket.socket] = []

        def as_another_process_would() -> None:
            while True:
                try:
                    left.append(other.accept()[0])
                except BlockingIOError:
                    return

        async def handler(request: Request) -> Response:
            begun.append(request.path)
            if len(begun) == 2:
                as_another_process_would()
            return Response("hello")

        peers: list[socket.socket] = []
        for number in range(6):
            peers.append(socket.create_connection(listening.getsockname()))
            client = scgi.ClientConnection()
            peers[-1].sendall(client.send_request(0, variables(path=f"/{number}")))
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda **status: scgi.serve(handler, f"fd:{listening.fileno()}", **status))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        listening.detach()  # the server has closed it
        for each in [*peers, *left]:
            each.close()
    assert (begun, len(left)) == (["/0", "/1"], 4)


async def test_an_application_is_started_before_the_first_request_and_shut_down_after_the_last() -> None:
    from contextlib import asynccontextmanager

    steps: list[str] = []

    @asynccontextmanager
    async def application() -> AsyncGenerator[Any]:
        steps.append("up")
        try:
            yield read_all
        finally:
            steps.append("down")

    async with running(application) as backend:
        assert steps == ["up"]
        assert (await backend.ask()).status == 200
        assert steps == ["up"]
    assert steps == ["up", "down"]


# --- cancellation ------------------------------------------------------------------------------------------------


async def test_a_peer_that_leaves_cancels_the_handler_within_a_second(where: str, protocol: serving.Protocol) -> None:
    handler = Waiting()
    async with running(handler, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        await handler.started.wait()
        await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(1):
            await handler.cancelled.wait()


async def test_a_peer_that_leaves_in_the_middle_of_a_body_cancels_the_handler(
    where: str, protocol: serving.Protocol
) -> None:
    cancelled = trio.Event()
    began = trio.Event()

    async def reads(request: Request) -> Response:
        began.set()
        try:
            await request.body.read()
        except trio.Cancelled:
            cancelled.set()
            raise
        raise AssertionError("a short body was taken for a whole one")

    async with running(reads, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask(POST, b"he", end_body=False)
        await began.wait()
        await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(1):
            await cancelled.wait()


async def test_F37_W41_ABORT_cancels_the_handler_and_gets_an_END_REQUEST() -> None:
    handler = Waiting()
    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        await handler.started.wait()
        await peer.send(peer.client.abort(1))
        with trio.fail_after(1):
            await handler.cancelled.wait()
        answer = await peer.answer()
        assert (answer.status, answer.body, answer.ended) == (0, b"", "complete")  # no head: nothing was answered


async def test_F14_F37_W41_after_an_ABORT_the_id_can_be_used_again() -> None:
    handler = Waiting()
    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        await handler.started.wait()
        await peer.send(peer.client.abort(1))
        await handler.cancelled.wait()
        handler.go_on.set()
        raw = await peer.stream.receive_some()
        assert raw[-16:-8][1:2] == b"\x03"  # FCGI_END_REQUEST
        second = type(peer)(peer.stream, type(peer.client)())
        await second.ask(keep=True)
        assert (await second.answer()).body == b"waited"


async def test_W44_a_half_close_on_a_unix_socket_is_answered(tmp_path: Path, protocol: serving.Protocol) -> None:
    handler = Waiting()
    async with running(handler, unix(tmp_path), protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        await peer.stream.send_eof()
        await handler.started.wait()
        handler.go_on.set()
        assert (await peer.answer()).body == b"waited"


async def test_a_peer_that_half_closed_and_then_leaves_cancels_the_handler(
    tmp_path: Path, protocol: serving.Protocol
) -> None:
    handler = Waiting()
    async with running(handler, unix(tmp_path), protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        await peer.stream.send_eof()
        await handler.started.wait()
        await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(1):
            await handler.cancelled.wait()


async def test_a_handler_that_is_streaming_is_cancelled_when_the_peer_leaves(
    where: str, protocol: serving.Protocol
) -> None:
    closed = trio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    async def streams(request: Request) -> Response:
        return Response(endless())

    async with running(streams, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        await peer.receive()
        await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(1):
            await closed.wait()


# --- failures ----------------------------------------------------------------------------------------------------


async def fails_at_once(request: Request) -> Response:
    raise RuntimeError("secret")


async def fails_later(request: Request) -> Response:
    async def body(send: Any) -> None:
        await send("some")
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret")

    return Response(body)


async def test_F41_R24_a_failure_before_the_head_is_a_clean_500(
    where: str, protocol: serving.Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(fails_at_once, where, protocol) as backend:
        answer = await backend.ask()
    assert (answer.status, answer.body, answer.ended) == (500, b"Internal Server Error\n", "complete")
    assert "RuntimeError: secret" in caplog.text


async def test_a_failure_before_the_first_byte_of_a_stream_is_a_clean_500(protocol: serving.Protocol) -> None:
    async def fails_before_sending(request: Request) -> Response:
        async def body(send: Any) -> None:
            await trio.lowlevel.checkpoint()
            raise RuntimeError("secret")

        return Response(body)

    async with running(fails_before_sending, protocol=protocol) as backend:
        answer = await backend.ask()
    assert (answer.status, answer.ended) == (500, "complete")


@pytest.mark.parametrize(
    ("protocol_name", "tcp", "ended"),
    [("fastcgi", True, "reset"), ("fastcgi", False, "eof"), ("scgi", True, "reset"), ("scgi", False, "complete")],
)
async def test_R25_a_failure_after_the_head_breaks_the_connection(
    protocol_name: str, tcp: bool, ended: str, tmp_path: Path
) -> None:
    where = "127.0.0.1:0" if tcp else unix(tmp_path)
    async with running(fails_later, where, PROTOCOLS[protocol_name]) as backend:
        answer = await backend.ask(keep=protocol_name == "fastcgi")
    # Over a unix socket SCGI has no way to tell a broken answer from a whole one: both end with the connection.
    assert answer.ended == ended


async def test_a_failure_beside_a_sibling_ends_with_app_status_1_and_spares_the_sibling() -> None:
    sibling = Waiting()

    async def by_path(request: Request) -> Response:
        return await sibling(request) if request.path == "/sibling" else await fails_later(request)

    async with running(by_path) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/sibling"), stream_id=1, keep=True)
        await sibling.started.wait()
        await peer.ask(variables(path="/broken"), stream_id=2, keep=True)
        received = b""
        while not (records := [record for record in dissect(received) if record.type == wire.END_REQUEST]):
            with trio.fail_after(PATIENCE):
                received += await peer.stream.receive_some()
        assert "application status 1" in records[0].meaning
        assert records[0].id == 2
        sibling.go_on.set()
        assert (await peer.answer(1)).body == b"waited"


async def test_an_answer_to_gemini_that_breaks_ends_with_END_REQUEST() -> None:
    async with running(fails_later) as backend:
        answer = await backend.ask(variables(SERVER_PROTOCOL="GEMINI", GATEWAYS_DIALECT="cgi"), keep=True)
    assert (answer.ended, answer.app_status) == ("complete", 1)


async def test_R15_a_body_shorter_than_its_content_length_breaks_visibly() -> None:
    async def short(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send(b"12345")
            await trio.lowlevel.checkpoint()

        return Response(body, headers={"Content-Length": "100"})

    async with running(short) as backend:
        assert (await backend.ask()).ended == "reset"


async def test_a_request_that_cannot_be_built_is_answered_and_the_handler_not_called(
    protocol: serving.Protocol,
) -> None:
    async def never(request: Request) -> Response:
        raise AssertionError("called")

    async with running(never, protocol=protocol, mount="/app") as backend:
        assert (await backend.ask(variables("GET X", "/app"))).status == 400
        assert (await backend.ask(variables(path="/application"))).status == 404


async def test_W28_no_variables_at_all_is_400() -> None:
    async with running(read_all) as backend:
        assert (await backend.ask({})).status == 400


async def test_W13_an_authorizer_request_without_an_authorizer_is_denied() -> None:
    async with running(read_all) as backend:
        answer = await backend.ask(GET, role="authorizer")
    assert answer.status == 403


async def test_F39_a_role_on_offer_is_played() -> None:
    async def guard(request: Request) -> Response:
        if request.headers.get("authorization") is None:
            raise Reject(401, headers=[("WWW-Authenticate", "Basic")])
        return Response.authorize(REMOTE_USER="m")

    async with running(Roles(responder=read_all, authorizer=guard)) as backend:
        refused = await backend.ask(GET, role="authorizer")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Basic")
        allowed = await backend.ask({**GET, "HTTP_AUTHORIZATION": "x"}, role="authorizer")
        assert (allowed.status, allowed.headers["Variable-REMOTE_USER"]) == (200, "m")


async def test_a_log_line_goes_to_the_web_server_and_to_our_log(caplog: pytest.LogCaptureFixture) -> None:
    async def logs(request: Request) -> Response:
        request.log("something\nto note")
        return Response("ok")

    async with running(logs) as backend:
        answer = await backend.ask()
    assert b"something\n    to note\n" in answer.log
    assert "something" in caplog.text


async def test_W52_an_early_answer_to_an_upload_arrives_whole(where: str, protocol: serving.Protocol) -> None:
    async with running(never_reads, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask(variables("POST", CONTENT_LENGTH="1000000"), b"x" * 1000, end_body=False)
        answer = await peer.answer()
        assert (answer.status, answer.body) == (200, b"early")


async def test_the_rest_of_an_upload_is_dropped_and_the_connection_kept() -> None:
    async with running(never_reads) as backend:
        peer = await backend.connect()
        await peer.ask(variables("POST", CONTENT_LENGTH="1000000"), b"x" * 1000, keep=True, end_body=False)
        assert (await peer.answer()).body == b"early"
        rest = wire.encode_stream(wire.STDIN, 1, b"x" * 999_000) + wire.encode_record(wire.STDIN, 1)
        await peer.send(rest)
        peer.events.clear()
        await peer.ask(GET, stream_id=2, keep=True)
        assert (await peer.answer(2)).body == b"early"


# --- back-pressure and limits ------------------------------------------------------------------------------------


async def test_W37_a_body_nobody_reads_stops_the_reading_of_a_lone_connection() -> None:
    handler = Waiting()
    async with running(handler, limits=Limits(body_buffer=1000)) as backend:
        peer = await backend.connect()
        await peer.ask(variables("POST", CONTENT_LENGTH=str(10**9)), end_body=False)
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                await peer.send(peer.client.send_body(1, b"x" * 60_000))
                sent += 60_000
        assert sent < 20_000_000  # what kernel buffers hold, and no more
        handler.go_on.set()


async def test_W37_with_siblings_a_body_spills_and_is_then_given_up_with_413() -> None:
    sibling = Waiting()
    go_on = trio.Event()

    async def by_path(request: Request) -> Response:
        if request.path == "/sibling":
            return await sibling(request)
        if request.path == "/last":
            return Response("everything before this has been read")
        await go_on.wait()
        return await read_all(request)

    limits = Limits(body_buffer=1000, max_spool=100_000)
    async with running(by_path, limits=limits) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/sibling"), stream_id=1, keep=True)
        await sibling.started.wait()
        for stream_id, size in ((2, 90_000), (3, 200_000)):
            await peer.ask(variables("POST", CONTENT_LENGTH=str(size)), b"x" * size, stream_id=stream_id, keep=True)
        await peer.ask(variables(path="/last"), stream_id=4, keep=True)
        assert (await peer.answer(4)).status == 200
        sibling.go_on.set()
        assert (await peer.answer(1)).status == 200  # siblings were served while both bodies lay unread
        go_on.set()
        assert (await peer.answer(2)).body == b"90000"
        assert (await peer.answer(3)).status == 413


async def test_read_refuses_more_than_its_limit_with_413(protocol: serving.Protocol) -> None:
    async with running(read_all, protocol=protocol, limits=Limits(max_read=4)) as backend:
        assert (await backend.ask(POST, b"hello")).status == 413


async def test_F09_W49_a_request_that_never_comes_to_its_end_is_cut_at_the_deadline(protocol: serving.Protocol) -> None:
    async with running(read_all, protocol=protocol, limits=Limits(params_timeout=0.2)) as backend:
        peer = await backend.connect()
        begun = peer.client.send_request(peer.stream_id, GET)
        await peer.send(begun[: len(begun) // 2])
        assert await peer.closed() in ("eof", "reset")


async def test_F09_a_connection_that_says_nothing_is_cut_at_the_deadline(protocol: serving.Protocol) -> None:
    async with running(read_all, protocol=protocol, limits=Limits(params_timeout=0.2)) as backend:
        peer = await backend.connect()
        assert await peer.closed() in ("eof", "reset")


async def test_F06_F09_W47_an_idle_kept_connection_is_closed_at_the_deadline() -> None:
    async with running(read_all, limits=Limits(idle_timeout=0.2)) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        assert (await peer.answer()).ended == "complete"
        assert await peer.closed() == "eof"


async def test_a_body_that_stops_coming_is_answered_with_408(protocol: serving.Protocol) -> None:
    async with running(read_all, protocol=protocol, limits=Limits(body_timeout=0.2)) as backend:
        peer = await backend.connect()
        await peer.ask(POST, b"he", end_body=False)
        assert (await peer.answer()).status == 408


async def test_a_request_over_its_deadline_is_cancelled_and_answered_with_504(protocol: serving.Protocol) -> None:
    handler = Waiting()
    async with running(handler, protocol=protocol, limits=Limits(request_timeout=0.2)) as backend:
        answer = await backend.ask()
        assert answer.status == 504
        assert handler.cancelled.is_set()


async def test_R27_a_peer_that_does_not_read_is_given_up_at_the_deadline(where: str) -> None:
    closed = trio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    async def streams(request: Request) -> Response:
        return Response(endless())

    async with running(streams, where, limits=Limits(write_timeout=0.3)) as backend:
        peer = await backend.connect()
        await peer.ask()
        with trio.fail_after(PATIENCE):
            await closed.wait()


async def test_F26_above_the_cap_connections_wait_for_one_to_end() -> None:
    handler = Waiting()
    async with running(handler, limits=Limits(max_connections=1)) as backend:
        first, second = await backend.connect(), await backend.connect()
        await first.ask()
        await handler.started.wait()
        await second.ask()
        handler.go_on.set()
        assert (await first.answer()).body == b"waited"
        assert (await second.answer()).body == b"waited"


# --- stopping ----------------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_running_requests_and_refuses_new_connections(
    where: str, protocol: serving.Protocol
) -> None:
    handler = Waiting()
    async with running(handler, where, protocol) as backend:
        peer = await backend.connect()
        await peer.ask()
        await handler.started.wait()
        backend.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(OSError):  # noqa: PT011 - refused, or no such file
            await backend.connect()
        handler.go_on.set()
        assert (await peer.answer()).body == b"waited"


async def test_F06_a_stop_closes_idle_kept_connections() -> None:
    async with running(read_all) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        await peer.answer()
        backend.stop.set()
        assert await peer.closed() == "eof"


async def test_after_the_grace_running_requests_are_cancelled_with_503() -> None:
    handler = Waiting()
    async with running(handler, limits=Limits(shutdown_grace=0.2)) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        await handler.started.wait()
        backend.stop.set()
        assert (await peer.answer()).status == 503


async def test_cancelling_serve_tells_the_web_server(where: str, protocol: serving.Protocol) -> None:
    handler = Waiting()
    answers: list[Answer] = []

    async def listen_for(backend: Backend) -> None:
        peer = await backend.connect()
        await peer.ask()
        answers.append(await peer.answer())

    async with trio.open_nursery() as nursery, running(handler, where, protocol) as backend:
        nursery.start_soon(listen_for, backend)
        await handler.started.wait()
    assert [answer.status for answer in answers] == [503]


# --- neighbours --------------------------------------------------------------------------------------------------

BAD = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 300,
    "noise": bytes(range(255, 0, -1)) * 4,
    "half a record": b"\x01\x01\x00\x01\x00\x08",
    "nothing": b"",
}


async def test_bad_connections_do_not_touch_good_ones(where: str, protocol: serving.Protocol) -> None:
    async with running(read_all, where, protocol) as backend:
        bad = [(await backend.connect(), data) for data in BAD.values() for _ in range(2)]
        for peer, data in bad:
            if data:
                await peer.send(data)
        answers = [await backend.ask(POST, b"hello") for _ in range(20)]
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"5")] * 20


@pytest.mark.parametrize("name", ["HTTP", "TLS", "noise"])
async def test_W50_another_protocol_on_the_port_is_hung_up_on_and_named(
    name: str, protocol: serving.Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(read_all, protocol=protocol) as backend:
        peer = await backend.connect()
        await peer.send(BAD[name])
        with trio.fail_after(1):
            assert await peer.closed() in ("eof", "reset")
    [record] = caplog.records
    # What nobody speaks is shown as it came.
    hint = {"fastcgi": "version 255 instead of 1", "scgi": "expected a digit"}[protocol.name]
    assert (hint if name == "noise" else f"{name} ") in record.getMessage()


async def test_a_bug_in_a_handler_that_cleans_up_badly_stays_in_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started = trio.Event()

    async def fails_in_cleanup(request: Request) -> Response:
        if request.path == "/":
            return Response("fine")
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            raise RuntimeError("in the cleanup")
        raise AssertionError

    async with running(fails_in_cleanup) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/bad"), keep=True)
        await started.wait()
        await peer.send(peer.client.abort(1))
        assert (await backend.ask()).body == b"fine"


async def test_the_access_log_has_a_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateways.access")
    async with running(read_all) as backend:
        await backend.ask(variables("POST", "/x\ny", CONTENT_LENGTH="5", REMOTE_ADDR="192.0.2.1"), b"hello")
    lines = [record.getMessage() for record in caplog.records if record.name == "gateways.access"]
    assert len(lines) == 1
    assert lines[0].startswith('192.0.2.1 "POST /x\\ny" 200 1 ')


async def test_O20_nothing_that_a_client_sends_can_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def logs(request: Request) -> Response:
        request.log(f"no page {request.path}")
        return Response("")

    forged = '\n192.0.2.9 "GET /forged" 200\x1b[2J'
    async with running(logs, Listen("127.0.0.1:0", trust_forwarded=True)) as backend:
        await backend.ask(variables(path=f"/x{forged}", REMOTE_ADDR=f"192.0.2.1{forged}"))
        await backend.ask(variables(HTTP_X_FORWARDED_FOR=f"192.0.2.1{forged}"))
    assert "forged" in caplog.text
    assert not any("\n" in record.getMessage() or "\x1b" in record.getMessage() for record in caplog.records)


async def test_a_worker_thread_of_a_cancelled_request_cannot_read_on() -> None:
    token = trio.lowlevel.current_trio_token()
    started, failed, let_go = trio.Event(), trio.Event(), threading.Event()

    def blocking(request: Request) -> Response:
        trio.from_thread.run_sync(started.set, trio_token=token)
        let_go.wait(PATIENCE)
        try:
            request.body.file.read()
        except BaseException:
            trio.from_thread.run_sync(failed.set, trio_token=token)
            raise
        return Response("never")

    async with running(blocking) as backend:
        peer = await backend.connect()
        await peer.ask(POST, b"he", end_body=False)
        await started.wait()
        await trio.aclose_forcefully(peer.stream)
        assert (await backend.ask({})).status == 400  # the loop has gone round: the request is cancelled
        let_go.set()
        with trio.fail_after(PATIENCE):
            await failed.wait()


def test_a_Listen_is_a_value() -> None:
    assert Listen("unix:/x", allow_headers=["X-Sendfile"]) == Listen("unix:/x", allow_headers=["x-sendfile"])


async def test_only_the_addresses_allowed_may_connect() -> None:
    async with running(read_all, Listen("127.0.0.1:0", allow_from=["192.0.2.1"])) as backend:
        peer = await backend.connect()
        assert await peer.closed() in ("eof", "reset")
    async with running(read_all, Listen("127.0.0.1:0", allow_from=["127.0.0.1"])) as backend:
        assert (await backend.ask()).status == 200


async def test_an_IPv4_peer_of_a_socket_for_both_families_is_known_by_its_own_address() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as inherited:
        port = inherited.getsockname()[1]
        listen = Listen(f"fd:{os.dup(inherited.fileno())}", allow_from=["127.0.0.1"])
        async with running(read_all, listen) as backend:
            backend.addresses[:] = [f"127.0.0.1:{port}"]
            assert (await backend.ask()).status == 200
