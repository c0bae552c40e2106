"""A server that stops loses nothing: what is under way, what still comes on kept connections, and who waits to be
accepted."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from gateways import Limits, Request, Response, Tally, fastcgi, http
from gateways._net import serving
from gateways._net.stream import SocketStream
from gateways.fastcgi import dissect, wire
from tests.fastcgi.tools import BEGIN, GET_VALUES, rec
from tests.fastcgi.tools import end as end_record
from tests.fastcgi.tools import pair as param
from tests.net.pairs import asking, connected, pair, service_for, tcp_pair
from tests.net.tools import FASTCGI, PATIENCE, POST, SCGI, Peer, running, unix, variables

NGINX = variables(SERVER_SOFTWARE="nginx/1.22.1")


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else unix(tmp_path)


async def read_all(request: Request) -> Response:
    return Response(f"{len(await request.body.read())}")


class Waiting:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.go_on = trio.Event()

    async def __call__(self, request: Request) -> Response:
        self.started.set()
        await self.go_on.wait()
        return Response("waited")


# --- kept connections --------------------------------------------------------------------------------------------


async def test_O06_a_request_that_comes_on_a_kept_connection_after_the_stop_is_answered_and_then_it_closes(
    where: str,
) -> None:
    async with running(read_all, where) as backend:
        peer = await backend.connect()
        await peer.ask(NGINX, keep=True)
        await peer.answer()
        backend.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        await peer.ask(variables("POST", CONTENT_LENGTH="5"), b"hello", stream_id=2, keep=True)
        answer = await peer.answer(2)
        assert (answer.body, answer.ended) == (b"5", "complete")
        assert await peer.closed() == "eof"


@pytest.mark.parametrize("make", [pair, tcp_pair])
async def test_O15_a_request_that_came_while_the_loop_was_blocked_is_not_closed_upon(
    make: Callable[[], tuple[socket.socket, socket.socket]],
) -> None:
    async with connected(read_all, make=make, idle_timeout=5) as (service, peer):
        await peer.ask(NGINX, keep=True)
        await peer.answer()
        [connection] = service.connections
        # Sent, and not taken when the deadlines are looked at: as if that had been long ago.
        os.write(peer.stream.socket.fileno(), asking("/late", b"hello", stream_id=2, keep=True, web=peer.client))
        connection.sweep(trio.current_time() + 100)
        assert (await peer.answer(2)).body == b"5"


async def test_O06_a_connection_on_which_nothing_was_said_yet_is_served_after_the_stop(where: str) -> None:
    async with running(read_all, where) as backend:
        peer = await backend.connect()
        await backend.ask()  # so that the other one has been accepted, too
        backend.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        await peer.ask(POST, b"hello")
        assert (await peer.answer()).body == b"5"


async def test_O06_a_kept_connection_that_was_idle_for_a_while_closes_with_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "QUIET", 0.0)
    async with running(read_all) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)
        await peer.answer()
        backend.stop.set()
        assert await peer.closed() == "eof"


@pytest.mark.parametrize("quiet", [0.0, 3600.0])
async def test_O06_management_records_do_not_close_a_connection_that_is_about_to_be_used(quiet: float) -> None:
    service = service_for(read_all)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with trio.open_nursery() as nursery:
        service.start(SocketStream(theirs), nursery)
        service.patience = quiet
        service.draining = True
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), fastcgi.ClientConnection())
        await peer.send(rec(GET_VALUES, 0, param(b"FCGI_MPXS_CONNS", b"")))
        with trio.fail_after(PATIENCE):
            await peer.receive()
        await peer.ask()
        assert (await peer.answer()).ended == "complete"
        nursery.cancel_scope.cancel()
    ours.close()


# --- the last word -----------------------------------------------------------------------------------------------


def ended(software: str | None, *, keep: bool, late: bool = False) -> list[tuple[str, int]]:
    """The records (type and id) of an answer that ends while the server stops; ``late``: the stop came after it had
    begun."""
    app = fastcgi.ServerConnection()
    environ = variables() if software is None else variables(SERVER_SOFTWARE=software)
    if not late:
        app.retire()
    app.receive_data(fastcgi.ClientConnection().send_request(1, environ, keep_connection=keep))
    data = app.send_head(1, b"Status: 200 OK\r\n\r\n")
    app.retire(environ)
    data += app.end(1)
    assert app.closing
    return [(wire.type_name(record.type or 0), record.id) for record in dissect(data)]


@pytest.mark.parametrize("software", ["nginx/1.22.1", "HAProxy 2.6.12", None])
@pytest.mark.parametrize("late", [False, True])
def test_O06_who_keeps_connections_is_told_behind_the_last_end_that_no_more_is_wanted(
    software: str | None, late: bool
) -> None:
    records = ended(software, keep=True, late=late)
    assert [kind for kind, _ in records] == ["STDOUT", "STDOUT", "END_REQUEST", "GET_VALUES_RESULT"]
    assert records[-1][1] == 0


@pytest.mark.parametrize(("software", "keep"), [("Apache/2.4.62 (Debian)", True), ("nginx/1.22.1", False)])
def test_O06_nothing_follows_the_last_end_for_those_who_would_mind_it(software: str, keep: bool) -> None:
    assert [kind for kind, _ in ended(software, keep=keep)] == ["STDOUT", "STDOUT", "END_REQUEST"]


def test_O06_an_answer_in_one_piece_has_the_same_last_word() -> None:
    app = fastcgi.ServerConnection()
    app.receive_data(fastcgi.ClientConnection().send_request(1, NGINX, keep_connection=True))
    app.retire(NGINX)
    *_, last = dissect(app.answer(1, b"Status: 200 OK\r\n\r\n", b"x"))
    assert last.type == wire.GET_VALUES_RESULT
    assert app.closing


def test_O06_a_retired_connection_serves_all_that_overlaps_and_closes_with_the_last() -> None:
    web, app = fastcgi.ClientConnection(), fastcgi.ServerConnection()
    app.receive_data(web.send_request(1, NGINX, keep_connection=True))
    app.retire(NGINX)
    app.receive_data(web.send_request(2, NGINX, keep_connection=True))
    first = app.answer(1, b"Status: 200 OK\r\n\r\n", b"")
    assert not app.closing
    assert [*dissect(first)][-1].type == wire.END_REQUEST
    app.answer(2, b"Status: 200 OK\r\n\r\n", b"")
    assert app.closing


def test_O06_who_multiplexes_is_told_at_once_and_once() -> None:
    app = fastcgi.ServerConnection()
    app.receive_data(rec(GET_VALUES, 0, param(b"FCGI_MPXS_CONNS", b"")))
    app.data_to_send()
    app.retire()
    [told] = dissect(app.data_to_send())
    assert (told.type, told.id) == (wire.GET_VALUES_RESULT, 0)
    app.retire()
    assert app.data_to_send() == b""


def test_O06_http_says_that_the_connection_closes() -> None:
    app = http.ServerConnection()
    app.retire()
    app.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"connection: close" in app.answer(0, b"Status: 200 OK\r\n\r\n", b"").lower()
    assert app.closing


async def test_O06_over_tcp_the_last_answer_waits_for_the_end_of_the_connection() -> None:
    service = service_for(read_all)
    ours, theirs = tcp_pair()
    corked: list[int] = []

    class Watched(SocketStream):
        def end_writing(self) -> None:
            corked.append(theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
            super().end_writing()

    if not hasattr(socket, "TCP_CORK"):
        pytest.skip("only Linux has TCP_CORK")
    async with trio.open_nursery() as nursery:
        service.start(Watched(theirs), nursery)
        service.draining = True
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), fastcgi.ClientConnection())
        await peer.ask(keep=True)
        assert (await peer.answer()).ended == "complete"
        assert await peer.closed() == "eof"
        nursery.cancel_scope.cancel()
    assert corked == [1]
    ours.close()


# --- who waits to be accepted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI], ids=["fastcgi", "scgi"])
async def test_O06_those_who_have_connected_before_the_stop_are_answered(
    where: str, protocol: serving.Protocol
) -> None:
    async with running(read_all, where, protocol) as backend:
        peers = [await backend.connect() for _ in range(20)]
        # One step of the program: nobody is accepted between the last of these and the stop.
        late = []
        for _ in range(20):
            address = backend.addresses[0]
            if address.startswith("unix:"):
                raw = socket.socket(socket.AF_UNIX)
                raw.connect(address[5:])
            else:
                raw = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
            raw.setblocking(False)
            late.append(raw)
        backend.stop.set()
        for raw in late:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
            peers.append(Peer(stream, peers[0].client.__class__()))
        for peer in peers:
            await peer.ask(POST, b"hello")
        answers = [await peer.answer() for peer in peers]
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"5")] * 40
        for raw in late:
            raw.close()


# --- the end of patience -------------------------------------------------------------------------------------------


async def test_O07_a_server_that_is_told_to_end_at_once_while_it_drains_says_503(where: str) -> None:
    handler = Waiting()
    stop = trio.Event()
    statuses: list[int] = []
    async with trio.open_nursery() as clients, trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serving.serve(FASTCGI, handler, where, stop=stop, task_status=task_status)

        [address] = await nursery.start(serve)
        if address.startswith("unix:"):
            stream = await trio.open_unix_socket(address[5:])
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
        peer = Peer(stream, fastcgi.ClientConnection())
        await peer.ask()
        await handler.started.wait()

        async def listen() -> None:
            statuses.append((await peer.answer()).status)

        clients.start_soon(listen)
        stop.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await stream.aclose()
    assert statuses == [503]


async def test_no_goodbye_timeout_is_to_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    cleaned_up = trio.Event()

    async def stubborn(request: Request) -> Response:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10_000)
            cleaned_up.set()
        raise AssertionError

    service = service_for(stubborn, request_timeout=1, goodbye_timeout=None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with trio.open_nursery() as nursery:
        service.start(SocketStream(theirs), nursery)
        nursery.start_soon(service.sweep)
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), fastcgi.ClientConnection())
        await peer.send(asking("/", web=peer.client))
        await cleaned_up.wait()
        nursery.cancel_scope.cancel()
    assert trio.current_time() >= 10_000
    ours.close()


# --- full ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI], ids=["fastcgi", "scgi"])
async def test_D08_above_the_cap_of_running_requests_there_is_a_real_503(
    where: str, protocol: serving.Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    handler, tally = Waiting(), Tally()
    async with running(handler, where, protocol, limits=Limits(max_running=2), tally=tally) as backend:
        peers = [await backend.connect() for _ in range(2)]
        for peer in peers:
            await peer.ask()
        with trio.fail_after(PATIENCE):
            while tally.waiting < 2:
                await trio.testing.wait_all_tasks_blocked()
        answer = await backend.ask(POST, b"hello")
        assert (answer.status, answer.headers["Retry-After"], answer.ended) == (503, "1", "complete")
        assert tally.full == 1
        handler.go_on.set()
        assert [(await peer.answer()).body for peer in peers] == [b"waited"] * 2
        assert tally.waiting == 0
        assert (await backend.ask()).body == b"waited"
        assert tally.full == 1
    assert "2 requests are running" in caplog.text


async def test_D08_the_cap_of_running_requests_holds_for_all_who_share_a_tally() -> None:
    handler, tally = Waiting(), Tally()
    limits = Limits(max_running=1)
    async with (
        running(handler, limits=limits, tally=tally) as one,
        running(handler, limits=limits, tally=tally) as other,
    ):
        peer = await one.connect()
        await peer.ask()
        await handler.started.wait()
        assert (await other.ask()).status == 503
        handler.go_on.set()
        await peer.answer()


async def test_D08_handlers_that_do_not_wait_are_not_counted() -> None:
    async with running(read_all, limits=Limits(max_running=1)) as backend:
        peer = await backend.connect()
        await peer.send(
            b"".join([asking("/", stream_id=number, keep=True, web=peer.client) for number in range(1, 50)])
        )
        assert [(await peer.answer(number)).status for number in range(1, 50)] == [200] * 49


async def test_D08_a_kept_connection_that_idles_makes_room_for_another(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "QUIET", 0.01)
    async with running(read_all, where, limits=Limits(max_connections=2, drain_timeout=0.1)) as backend:
        kept = [await backend.connect() for _ in range(2)]
        for peer in kept:
            await peer.ask(keep=True)
            await peer.answer()
        assert (await backend.ask(POST, b"hello")).body == b"5"
        await kept[0].closed()  # the one that has idled for longest
    assert "2 are open (max_connections)" in caplog.text


async def test_D08_a_connection_with_a_request_on_it_does_not_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "QUIET", 0.01)
    handler = Waiting()
    async with running(handler, limits=Limits(max_connections=1, drain_timeout=0.1)) as backend:
        first, second = await backend.connect(), await backend.connect()
        await first.ask(keep=True)
        await handler.started.wait()
        await second.ask()
        handler.go_on.set()
        assert (await first.answer()).body == b"waited"
        assert (await second.answer()).body == b"waited"


async def test_D08_above_the_cap_of_ids_there_is_the_record_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    handler = Waiting()
    caplog.set_level(logging.ERROR)
    async with running(handler, limits=Limits(max_ids=2)) as backend:
        peer = await backend.connect()
        for number in (1, 2):
            await peer.ask(stream_id=number, keep=True)
        await handler.started.wait()
        await peer.send(rec(BEGIN, 3, bytes((0, 1, 1, 0, 0, 0, 0, 0))))
        with trio.fail_after(PATIENCE):
            assert await peer.stream.receive_some() == end_record(3, status=wire.OVERLOADED)
        handler.go_on.set()
        assert [(await peer.answer(number)).body for number in (1, 2)] == [b"waited"] * 2
