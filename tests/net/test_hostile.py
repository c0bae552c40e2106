"""What goes wrong on the wire of FastCGI (W) and what its rules ask for (F), seen from the other end of a socket."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import Limits, LocalProtocolError, Reject, Request, Response, Roles, fastcgi
from gateways._net import serving
from gateways._net.connection import Connection
from gateways._net.stream import SocketStream
from gateways.fastcgi import dissect, wire
from tests.fastcgi.tools import ABORT, BEGIN, GET_VALUES, PARAMS, RESULT, STDERR, STDIN, STDOUT, UNKNOWN, begin, rec
from tests.fastcgi.tools import GET as METHOD
from tests.fastcgi.tools import end as end_record
from tests.fastcgi.tools import pair as param
from tests.fastcgi.tools import request as framed
from tests.net.pairs import (
    asking,
    connected,
    descriptors,
    narrow_pair,
    nothing_left_open,
    pair,
    service_for,
    staffed,
    tasks,
    tcp_pair,
)
from tests.net.tools import GET, PATIENCE, POST, Peer, running, unix, variables

Send = Callable[[bytes], Awaitable[None]]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else unix(tmp_path)


class Waiting:
    """A handler that waits below /wait until it is let go or cancelled, and answers at once elsewhere."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.go_on = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, request: Request) -> Response:
        if request.path != "/wait":
            return Response("fine")
        self.started.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return Response("waited")


class Stubborn:
    """A handler that shields itself below /wait until the test lets it go, and then tries to say something."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.go_on = trio.Event()
        self.ended = trio.Event()
        self.refused: list[BaseException] = []

    async def __call__(self, request: Request) -> Response:
        return Response(self._stay if request.path == "/wait" else "fine")

    async def _stay(self, send: Send) -> None:
        self.started.set()
        try:
            with trio.CancelScope(shield=True):
                await self.go_on.wait()
                try:
                    await send(b"too late")
                except LocalProtocolError as error:
                    self.refused.append(error)
                    raise
        finally:
            self.ended.set()


async def fine(request: Request) -> Response:
    return Response("fine")


async def read_all(request: Request) -> Response:
    return Response(str(len(await request.body.read())))


async def exactly(peer: Peer, count: int) -> bytes:
    """So many bytes from the backend, as they come."""
    received = b""
    with trio.fail_after(PATIENCE):
        while len(received) < count:
            data = await peer.stream.receive_some(count - len(received))
            assert data, f"it closed after {received!r}"
            received += data
    return received


async def everything(peer: Peer) -> bytes:
    """All that the backend sends until it closes."""
    received = b""
    with trio.fail_after(PATIENCE), contextlib.suppress(trio.BrokenResourceError):
        while data := await peer.stream.receive_some():
            received += data
    return received


def values(*names: bytes) -> bytes:
    return rec(GET_VALUES, 0, b"".join(param(name, b"") for name in names))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.testing.wait_all_tasks_blocked()


# --- What breaks the protocol ------------------------------------------------------------------------------------

#: What is sent beside a request with id 1 whose handler waits -> (bytes, what the log says of them).
VIOLATIONS = {
    "W01": (rec(BEGIN, 2, bytes(8), version=0), "version 0 instead of 1"),
    "W02": (rec(BEGIN, 2, bytes(8), version=2) + framed(2), "version 2 instead of 1"),
    "W03": (begin(2) + rec(PARAMS, 2, METHOD) + rec(PARAMS, 2, version=2), "version 2 instead of 1"),
    "W08": (rec(GET_VALUES, 0, b"\x7f\0ab"), "cut short"),
    "W10": (rec(BEGIN, 2, bytes(4)), "BEGIN_REQUEST of 4 bytes"),
    "W15": (begin(0), "BEGIN_REQUEST with id 0"),
    "W17": (begin(1), "BEGIN_REQUEST for request 1, which is active"),
    "W20": (rec(STDIN, 9, b"x") * 1001, "more than 1000 records"),
    "W32": (rec(PARAMS, 1, METHOD), "PARAMS after the end of the PARAMS of request 1"),
    "W33": (begin(2) + rec(STDIN, 2, b"x" * 65_535) + rec(STDIN, 2, b"xx"), "more than 65536 bytes of STDIN"),
    "W36": (rec(STDIN, 1) * 1001, "more than 1000 records"),
}


@pytest.mark.parametrize("row", VIOLATIONS)
async def test_F11_F18_F19_W01_W02_W03_W08_W10_W15_W17_W20_W32_W33_W36_a_violation_closes_its_connection_alone(
    row: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, said = VIOLATIONS[row]
    victim, neighbour = Waiting(), Waiting()

    async def by_host(request: Request) -> Response:
        return await (victim if request.headers.get("host") == "victim" else neighbour)(request)

    async with running(by_host) as backend:
        good, bad = await backend.connect(), await backend.connect()
        await good.ask(variables(path="/wait"))
        await neighbour.started.wait()
        await bad.ask(variables(path="/wait", HTTP_HOST="victim"), keep=True)
        await victim.started.wait()
        with contextlib.suppress(trio.BrokenResourceError):  # it may be closed before all is sent
            await bad.send(data)
        assert await everything(bad) == b""
        with trio.fail_after(PATIENCE):
            await victim.cancelled.wait()
        assert [(await backend.ask()).body for _ in range(5)] == [b"fine"] * 5
        assert not neighbour.cancelled.is_set()
        neighbour.go_on.set()
        assert (await good.answer()).body == b"waited"
    [record] = caplog.records
    assert said in record.getMessage()
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize("version", [0, 2])
async def test_F11_W01_W02_nothing_is_said_to_who_speaks_another_version(version: int, where: str) -> None:
    async with running(fine, where) as backend:
        peer = await backend.connect()
        await peer.send(rec(BEGIN, 1, b"\0\1" + bytes(6), version=version))
        assert await everything(peer) == b""


async def test_the_log_has_a_few_lines_a_second_for_many_violations(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = service_for(fine)
    async with staffed(service) as nursery:
        for _ in range(50):
            ours, theirs = pair()
            with ours:
                service.start(SocketStream(theirs), nursery)
                ours.send(b"\2" * 8)
                await trio.testing.wait_all_tasks_blocked()
            await service.idle()
    assert trio.current_time() < 1
    assert len(caplog.records) == 5


# --- Requests that cannot be built -------------------------------------------------------------------------------

#: A PARAMS stream -> (its bytes, the status that answers it, whether the connection is kept).
REFUSED = {
    "W22, the last pair is cut short": (METHOD + b"\5\5SHORT", 400, False),
    "W23, pairs of 4 GiB": (METHOD + b"\xff" * 8 + b"A", 400, False),
    "W26, NUL in a name": (METHOD + param(b"A\0B", b"x"), 400, True),
    "W26, = in a name": (METHOD + param(b"A=B", b"x"), 400, True),
    "W26, a control character in a name": (METHOD + param(b"A\nB", b"x"), 400, True),
    "F21, NUL in a value": (METHOD + param(b"A", b"x\0y"), 400, True),
    "W28, nothing at all": (b"", 400, True),
    "W30, 20,000 empty pairs": (METHOD + b"\0\0" * 20_000, 431, True),
    "W31, more than 256 KiB": (METHOD + param(b"A", b"x" * 300_000), 431, True),
}


@pytest.mark.parametrize("row", REFUSED)
async def test_F21_F22_F24_W22_W23_W26_W28_W30_W31_what_is_no_request_is_answered_without_its_handler(
    row: str, caplog: pytest.LogCaptureFixture
) -> None:
    params, status, kept = REFUSED[row]
    called: list[str] = []

    async def handler(request: Request) -> Response:
        called.append(request.path)
        return Response("fine")

    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.ask(keep=True)  # so that the client knows the id
        assert (await peer.answer()).body == b"fine"
        peer.events.clear()
        peer.client.send_request(2, GET, keep_connection=True)
        records = wire.encode_stream(PARAMS, 2, params)
        await peer.send(begin(2) + records + rec(PARAMS, 2) + rec(STDIN, 2, b"dropped") + rec(STDIN, 2))
        answer = await peer.answer(2)
        assert (answer.status, answer.ended) == (status, "complete")
        if kept:
            await peer.ask(variables(path="/after"), stream_id=3)
            assert (await peer.answer(3)).body == b"fine"
        else:
            assert await peer.closed() == "eof"
    assert called == (["/", "/after"] if kept else ["/"])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_W25_an_empty_name_is_dropped_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[dict[str, str]] = []

    async def handler(request: Request) -> Response:
        seen.append(request.environ)
        return Response("fine")

    async with running(handler) as backend:
        peer = await backend.connect()
        peer.client.send_request(1, GET)
        await peer.send(framed(params=METHOD + param(b"", b"x") + param(b"A", b"1")))
        assert (await peer.answer()).body == b"fine"
    assert "" not in seen[0]
    assert seen[0]["A"] == "1"
    assert "a variable without a name was dropped" in caplog.text


# --- Management records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_ids", "told"), [(5, (b"77", b"5", b"1")), pytest.param(1, (b"77", b"77", b"0"), id="one at a time")]
)
async def test_F25_F26_F27_F28_W04_W06_W07_a_connection_may_ask_before_any_request(
    max_ids: int, told: tuple[bytes, bytes, bytes], where: str
) -> None:
    names = (wire.MAX_CONNS.encode(), wire.MAX_REQS.encode(), wire.MPXS_CONNS.encode())
    known = b"".join(param(name, value) for name, value in zip(names, told, strict=True))
    expected = wire.encode_record(RESULT, 0, known)
    unknown = rec(RESULT, 0) + rec(UNKNOWN, 0, b"\x64" + bytes(7))
    async with running(fine, where, limits=Limits(max_connections=77, max_ids=max_ids)) as backend:
        peer = await backend.connect()
        await peer.send(values(*names))
        assert await exactly(peer, len(expected)) == expected
        await peer.send(values(b"FCGI_COLOUR") + rec(100, 0, b"abc", 5))
        assert await exactly(peer, len(unknown)) == unknown
        await peer.ask()
        assert (await peer.answer()).body == b"fine"


async def test_F25_F28_W05_W09_questions_and_unknown_records_do_not_disturb_a_request() -> None:
    async with running(read_all) as backend:
        peer = await backend.connect()
        data = begin() + values() + rec(PARAMS, 1, METHOD + param(b"CONTENT_LENGTH", b"2")) + values()
        data += (
            rec(100, 1, b"abc") + rec(PARAMS, 1) + rec(STDIN, 1, b"x") + rec(100, 1) + values() + rec(STDIN, 1, b"y")
        )
        await peer.send(data)
        assert await exactly(peer, 24) == rec(RESULT, 0) * 3
        peer.client.send_request(1, GET, keep_connection=True)
        await peer.send(rec(STDIN, 1))
        assert (await peer.answer()).body == b"2"


async def test_W51_2000_questions_before_a_request_are_all_answered(where: str) -> None:
    answer = wire.encode_record(RESULT, 0, param(b"FCGI_MPXS_CONNS", b"1"))
    async with running(fine, where) as backend:
        peer = await backend.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, values(b"FCGI_MPXS_CONNS") * 2000)
            assert await exactly(peer, 2000 * len(answer)) == answer * 2000
        await peer.ask()
        assert (await peer.answer()).body == b"fine"


async def test_F09_W51_who_asks_without_end_and_does_not_read_is_held_back_and_then_left(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = service_for(fine, write_timeout=60)
    ours, theirs = narrow_pair()
    with ours:
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            [connection] = service.connections
            sent, last = 0, -1
            while sent > last:
                last = sent
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sent += ours.send(rec(100, 0) * 5000)
                await trio.testing.wait_all_tasks_blocked()
            # 16 bytes of answer for 8 of question: what waits is bounded, and then nothing more is read.
            assert connection._unsent_size < 600_000
            assert service.connections
            assert trio.current_time() < 1
            await service.idle()
            assert 60 <= trio.current_time() <= 62
            nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == ["a test: the web server does not read its answer"]


# --- Deadlines ---------------------------------------------------------------------------------------------------


async def drip(ours: socket.socket, service: serving.Service, data: bytes, pause: float) -> None:
    """Send one byte after the other with a pause before each, until the connection is closed."""
    for number in data:
        await trio.sleep(pause)
        if not service.connections:
            return
        ours.send(bytes([number]))
    raise AssertionError("it was sent to the end")


@contextlib.asynccontextmanager
async def slowly(service: serving.Service) -> AsyncGenerator[socket.socket]:
    """A connection to a service whose deadlines run; at the end it must be closed already."""
    ours, theirs = pair()
    with ours, nothing_left_open_but_both(ours, theirs):
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            yield ours
            assert not service.connections
            nursery.cancel_scope.cancel()


@contextlib.contextmanager
def nothing_left_open_but_both(ours: socket.socket, theirs: socket.socket) -> Generator[None]:
    before = descriptors()
    yield
    assert theirs.fileno() == -1
    assert descriptors() == before - 1


@pytest.mark.parametrize("already", [0, 3, 15, 30])
async def test_F09_W49_a_byte_every_five_seconds_does_not_put_off_the_deadline(
    already: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    # 10 seconds from the first byte to the end of the variables: in a header, when the id becomes known, or in PARAMS.
    data = framed(params=METHOD + param(b"A", b"x" * 50))
    service = service_for(fine)
    async with slowly(service) as ours:
        ours.send(data[:already] or data[:1])
        await drip(ours, service, data[already or 1 :], 5)
    assert 10 <= trio.current_time() <= 15.5  # seen at the pause after the tenth second
    assert [record.getMessage() for record in caplog.records] == [
        "a test: a request did not come to the end of its variables in time"
    ]


async def test_F09_W19_1000_beginnings_are_cut_at_the_deadline(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = service_for(fine)
    async with slowly(service) as ours:
        ours.send(b"".join(begin(number) for number in range(1, 1001)))
        await trio.testing.wait_all_tasks_blocked()
        overloaded = b"".join(end_record(number, 0, wire.OVERLOADED) for number in range(129, 1001))
        assert ours.recv(100_000) == overloaded
        await service.idle()
        assert 10 <= trio.current_time() <= 11
    assert len(caplog.records) == 1


async def test_F09_W49_siblings_that_complete_do_not_put_off_the_deadline_of_one_that_does_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = service_for(fine)
    async with slowly(service) as ours:
        ours.send(begin(7) + rec(PARAMS, 7, METHOD))
        for _ in range(3):
            await trio.sleep(3)
            ours.send(framed(1))
            await trio.testing.wait_all_tasks_blocked()
            assert b"200 OK" in ours.recv(65_536)
        await trio.sleep(3)
        assert not service.connections


async def test_F09_W49_a_request_has_its_whole_deadline_whatever_began_before_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = service_for(fine)
    async with slowly(service) as ours:
        for number in range(1, 5):
            # Each begins before the one before it has its variables.
            ours.send(begin(number) + rec(PARAMS, number, METHOD))
            if number > 1:
                ours.send(rec(PARAMS, number - 1) + rec(STDIN, number - 1))
                await trio.testing.wait_all_tasks_blocked()
                assert b"200 OK" in ours.recv(65_536)
            await trio.sleep(8)
        assert service.connections
        await trio.sleep(3)
        assert not service.connections


async def test_F06_F09_W47_the_idle_deadline_does_not_run_while_a_request_does_or_is_half_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(request: Request) -> Response:
        await trio.sleep(20)
        return Response("fine")

    service = service_for(slow, idle_timeout=2)
    async with slowly(service) as ours:
        ours.send(framed(1))
        await trio.sleep(20.5)
        assert b"200 OK" in ours.recv(65_536)
        ours.send(framed(2)[:30])
        await trio.sleep(8)
        ours.send(framed(2)[30:])
        await trio.sleep(20.5)
        assert b"200 OK" in ours.recv(65_536)
        assert service.connections
        await trio.sleep(2.5)  # and now it is idle
        assert ours.recv(1) == b""
        await trio.sleep(2.5)
        assert not service.connections


# --- The other end leaves ----------------------------------------------------------------------------------------


async def test_F05_connections_are_served_at_the_same_time(where: str) -> None:
    running_now: list[str] = []
    all_here = trio.Event()

    async def handler(request: Request) -> Response:
        running_now.append(request.path)
        if len(running_now) == 20:
            all_here.set()
        await all_here.wait()
        return Response(request.path)

    async with running(handler, where) as backend:
        peers = [await backend.connect() for _ in range(20)]
        for number, peer in enumerate(peers):
            await peer.ask(variables(path=f"/{number}"))
        assert [(await peer.answer()).body for peer in peers] == [b"/%d" % number for number in range(20)]


async def test_F07_an_end_between_requests_is_normal(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(fine, where) as backend:
        before = tasks()
        for count in range(3):
            peer = await backend.connect()
            for _ in range(count):
                await peer.ask(keep=True)
                assert (await peer.answer()).body == b"fine"
                peer.events.clear()
            await peer.stream.aclose()
        await until(lambda: tasks() == before)
    assert caplog.records == []


async def test_W42_a_request_that_ends_before_its_variables_do_runs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []

    async def handler(request: Request) -> Response:
        called.append(request.path)
        return Response("fine")

    whole = begin() + rec(PARAMS, 1, METHOD, 5) + rec(PARAMS, 1)
    service = service_for(handler)
    with nothing_left_open():
        async with staffed(service) as nursery:
            for length in range(len(whole) + 1):
                ours, theirs = pair()
                with ours:
                    service.start(SocketStream(theirs), nursery)
                    if length:
                        ours.send(whole[:length])
                    ours.shutdown(socket.SHUT_WR)
                    await service.idle()
                    heard = ours.recv(65_536)
                assert (len(called), heard) == ((1, heard) if length == len(whole) else (0, b""))
    assert caplog.records == []


async def test_F07_F36_W43_a_body_cut_off_by_the_end_of_the_stream_is_never_a_short_body(where: str) -> None:
    outcomes: list[str] = []
    reading, ended = trio.Event(), trio.Event()

    async def handler(request: Request) -> Response:
        reading.set()
        try:
            outcomes.append(f"{len(await request.body.read())} bytes")
        except trio.Cancelled:
            outcomes.append("cancelled")
            raise
        finally:
            ended.set()
        return Response("fine")

    async with running(handler, where) as backend:
        peer = await backend.connect()
        await peer.ask(POST, b"he", end_body=False)
        await reading.wait()
        await peer.stream.send_eof()  # half-closed: whoever still reads gets no answer to half a request
        with trio.fail_after(PATIENCE):
            await ended.wait()
        assert await everything(peer) == b""
    assert outcomes == ["cancelled"]


async def test_W45_resets_in_the_middle_of_bodies_leave_nothing_and_are_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(read_all) as backend:
        assert (await backend.ask()).status == 200
        await trio.aclose_forcefully(backend.peers.pop().stream)
        before = descriptors(), tasks()
        for _ in range(30):
            peer = await backend.connect()
            await peer.ask(variables("POST", CONTENT_LENGTH="100000"), b"x" * 50_000, end_body=False)
            peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            peer.stream.socket.close()
            backend.peers.remove(peer)
        assert (await backend.ask()).status == 200
        await trio.aclose_forcefully(backend.peers.pop().stream)
        await until(lambda: (descriptors(), tasks()) == before)
    assert caplog.records == []


# --- Bodies ------------------------------------------------------------------------------------------------------


async def test_F17_W48_one_byte_at_a_time_is_a_request_like_any_other() -> None:
    async with connected(read_all, make=tcp_pair) as (_, peer):
        peer.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in asking("/", b"hello", web=peer.client):
            await peer.send(bytes([number]))
            await trio.testing.wait_all_tasks_blocked()
        assert (await peer.answer()).body == b"5"


async def test_W46_requests_that_follow_each_other_at_once_are_all_answered(where: str) -> None:
    async with running(read_all, where) as backend:
        peer = await backend.connect()
        bodies = {1: b"", 2: b"xx", 3: b"xxx"}
        await peer.send(
            b"".join(
                asking("/", body, stream_id=number, keep=number < 3, web=peer.client) for number, body in bodies.items()
            )
        )
        answers = {number: (await peer.answer(number)).body for number in bodies}
        assert answers == {1: b"0", 2: b"2", 3: b"3"}
        assert await peer.closed() == "eof"


@pytest.mark.parametrize("size", [1, 2, 100])
async def test_W37_small_records_fill_little_more_memory_than_the_buffer(size: int) -> None:
    handler = Waiting()
    service = service_for(handler)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            service.start(SocketStream(theirs), nursery)
            ours.send(framed(body=None, params=METHOD + param(b"PATH_INFO", b"/wait")))
            await handler.started.wait()
            [connection] = service.connections
            [exchange] = connection.exchanges.values()
            crumbs = b"".join(rec(STDIN, 1, bytes([number % 251] * size)) for number in range(5000))
            tracemalloc.start()
            try:
                sent, last = 0, -1
                while sent > last:
                    last = sent
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            # Whole records, however much of them the socket takes.
                            sent += ours.send(crumbs[sent % len(crumbs) :])
                    await trio.testing.wait_all_tasks_blocked()
                grown = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
            assert exchange.inbox.full
            assert sent < 20_000_000  # what kernel buffers hold, and no more
            assert exchange.inbox._size < 2 * 65_536  # the buffer, and the read that filled it
            assert grown < 500_000
            handler.go_on.set()
            ours.shutdown(socket.SHUT_WR)
            await service.idle()


async def test_F08_W52_an_upload_that_nobody_reads_is_heard_out_and_its_answer_is_not_reset(where: str) -> None:
    async with running(fine, where) as backend:
        peer = await backend.connect()
        # Not a byte is read before everything is sent: the answer waits in the meantime, and a reset would lose it. So
        # more is read than ``drain_bytes``, for a web server that cannot send on makes a 502 of the answer.
        with trio.fail_after(PATIENCE):
            await peer.ask(variables("POST", CONTENT_LENGTH="3000000"), b"x" * 3_000_000)
        assert (await peer.answer()).body == b"fine"
        assert await peer.closed() == "eof"


async def test_F08_W52_an_upload_without_end_is_cut_when_its_answer_has_had_its_time(where: str) -> None:
    async with running(fine, where, limits=Limits(drain_timeout=0.2)) as backend:
        peer = await backend.connect()
        await peer.ask(variables("POST", CONTENT_LENGTH="-1"), end_body=False)
        assert (await peer.answer()).body == b"fine"
        cut = False
        with trio.fail_after(PATIENCE):
            while not cut:
                try:
                    await peer.send(rec(STDIN, 1, b"x" * 60_000))
                except trio.BrokenResourceError:
                    cut = True


@pytest.mark.parametrize(("body", "status"), [(b"hell", 400), (b"hello", 200), (b"hello, and more", 200)])
async def test_F36_a_body_is_as_long_as_its_CONTENT_LENGTH_or_an_error(body: bytes, status: int) -> None:
    async with running(read_all) as backend:
        answer = await backend.ask(POST, body, keep=True)
    assert answer.status == status
    assert status == 400 or answer.body == b"5"


# --- Answers -----------------------------------------------------------------------------------------------------


async def test_F32_the_application_status_of_an_answer_reaches_the_web_server() -> None:
    async def handler(request: Request) -> Response:
        return Response("x", app_status=2**32 - 1)

    async with running(handler) as backend:
        answer = await backend.ask(keep=True)
        assert (answer.ended, answer.app_status) == ("complete", 2**32 - 1)
        assert (await backend.ask({}, keep=True)).app_status == 0


async def test_an_answer_that_cannot_be_ended_breaks_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        response = Response("x")
        if request.path == "/spoiled":
            response.app_status = -1
        return response

    async with running(handler) as backend:
        broken = await backend.ask(variables(path="/spoiled"), keep=True)
        assert (await backend.ask(keep=True)).body == b"x"
    assert broken.ended != "complete"
    assert "the handler failed" in caplog.text
    assert "internal error" not in caplog.text


async def test_F33_writing_nothing_does_not_end_an_answer() -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            for piece in (b"", b"one", b"", b"two", b""):
                await send(piece)
                await trio.lowlevel.checkpoint()

        return Response(body)

    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.send(framed(flags=0))
        records = [(record.type, record.length) for record in dissect(await everything(peer))]
    assert [length == 0 for kind, length in records if kind == STDOUT] == [False] * (len(records) - 2) + [True]
    assert records[-1][0] == wire.END_REQUEST


async def test_F34_an_answer_may_begin_before_the_body_has_come() -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            await send(b"ready ")
            await send(await request.body.read())

        return Response(body)

    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.ask(POST, end_body=False)
        with trio.fail_after(PATIENCE):
            while not any(getattr(event, "data", b"") == b"ready " for event in peer.events):
                await peer.receive()
        await peer.send(peer.client.send_body(1, b"hello") + peer.client.end_body(1))
        assert (await peer.answer()).body == b"ready hello"


async def test_F35_F41_log_and_answer_keep_their_orders_and_the_end_comes_last() -> None:
    async def handler(request: Request) -> Response:
        async def body(send: Send) -> None:
            for number in range(3):
                request.log(f"log {number}")
                await send(b"out %d\n" % number)
                await trio.lowlevel.checkpoint()

        return Response(body)

    async with running(handler) as backend:
        peer = await backend.connect()
        await peer.send(framed(flags=0))
        raw = await everything(peer)
    found = [record[:3] for record in wire.RecordScanner().scan(raw)]
    assert b"".join(content for kind, _, content in found if kind == STDERR) == b"log 0\nlog 1\nlog 2\n"
    answer = b"".join(content for kind, _, content in found if kind == STDOUT)
    assert answer.endswith(b"\r\n\r\nout 0\nout 1\nout 2\n")
    assert b"log" not in answer
    assert [kind for kind, _, _ in found].count(wire.END_REQUEST) == 1
    assert found[-1][0] == wire.END_REQUEST


async def test_F38_an_answer_begins_with_its_Status_and_never_with_a_status_line() -> None:
    async with running(fine) as backend:
        for path in ("/", "/nph-script"):
            peer = await backend.connect()
            await peer.send(
                framed(params=b"".join(param(n.encode(), v.encode()) for n, v in variables(path=path).items()))
            )
            received = await exactly(peer, 24)
            assert received[8:] == b"Status: 200 OK\r\n"


# --- Roles -------------------------------------------------------------------------------------------------------


async def test_F39_an_authorizer_request_needs_neither_path_nor_length_and_has_no_body() -> None:
    async def guard(request: Request) -> Response:
        nothing = (request.script_name, request.path_info, request.content_length, await request.body.read())
        assert nothing == ("", "", None, b"")
        return Response.authorize(REMOTE_USER="m")

    async with running(Roles(authorizer=guard)) as backend:
        answer = await backend.ask({"REQUEST_METHOD": "GET"}, role="authorizer")
    assert (answer.status, answer.headers.get("Variable-REMOTE_USER"), answer.body) == (200, "m", b"")


async def test_F39_W13_whatever_an_authorizer_does_but_authorize_lets_nobody_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def guard(request: Request) -> Response:
        match request.environ.get("TEST"):
            case "crash":
                raise RuntimeError("no database")
            case "hang":
                await trio.sleep_forever()
            case "refuse":
                raise Reject(401, "who are you?")
            case "elsewhere":
                return Response("go to the desk\n", 302, [("Location", "/desk")])
            case "plain":
                return Response("not what an authorizer says")
            case _:
                pass
        return Response.authorize()

    # Status 200 is consent (section 6.3), so an answer that only happens to have it must not get out with it. The
    # rest of the answer is for the client.
    expected = {
        "crash": (500, b"Internal Server Error\n"),
        "refuse": (401, b"who are you?\n"),
        "elsewhere": (302, b"go to the desk\n"),
        "plain": (403, b"not what an authorizer says"),
    }
    async with running(Roles(authorizer=guard), limits=Limits(request_timeout=0.2)) as backend:
        assert (await backend.ask(variables(TEST="hang"), role="authorizer")).status == 504
    async with running(Roles(authorizer=guard)) as backend:
        for name, wanted in expected.items():
            answer = await backend.ask(variables(TEST=name), role="authorizer")
            assert (answer.status, answer.body) == wanted, name
        assert (await backend.ask(GET, role="authorizer")).status == 200
    assert "authoriz" in "".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


async def test_F29_W12_a_filter_that_is_not_offered_is_rejected(where: str) -> None:
    async with running(fine, where) as backend:
        peer = await backend.connect()
        await peer.send(framed(role=3))
        assert await exactly(peer, 16) == end_record(1, 0, wire.UNKNOWN_ROLE)
        await peer.ask(stream_id=2)  # the connection is kept
        assert (await peer.answer(2)).body == b"fine"
        closing = await backend.connect()
        await closing.send(framed(role=3, flags=0))
        assert await everything(closing) == end_record(1, 0, wire.UNKNOWN_ROLE)


FILTERED = variables("POST", CONTENT_LENGTH="4", FCGI_DATA_LENGTH="8", FCGI_DATA_LAST_MOD="86400")


async def sieve(request: Request) -> Response:
    """Tells what it reads, in the order of the specification."""
    if request.path == "/early":
        return Response("nothing of the file was needed")
    form, file = await request.body.read(), await request.data.read()
    return Response(f"{form.decode()} {file.decode()} {request.data_length} {request.data_last_modified}")


async def filter_by(peer: Peer, environ: dict[str, str], file: bytes | None) -> None:
    """Send a request for a filter, its file in two pieces; None is one that does not come."""
    client: Any = peer.client
    data = client.send_request(1, environ, role="filter") + client.send_body(1, b"form") + client.end_body(1)
    if file is not None:
        half = len(file) // 2
        data += client.send_data(1, file[:half]) + client.send_data(1, file[half:]) + client.end_data(1)
    await peer.send(data)


async def test_F40_a_filter_reads_parameters_body_and_file_in_this_order(where: str) -> None:
    async with running(Roles(filter=sieve), where) as backend:
        peer = await backend.connect()
        await filter_by(peer, FILTERED, b"the file")
        assert (await peer.answer()).body == b"form the file 8 1970-01-02 00:00:00+00:00"


@pytest.mark.parametrize(
    ("file", "status", "body"),
    [
        (b"the fil", 400, b"Bad Request\n"),
        (b"", 400, b"Bad Request\n"),
        (b"the file, and more", 200, b"form the file 8 1970-01-02 00:00:00+00:00"),
    ],
)
async def test_F40_the_file_of_a_filter_is_as_long_as_announced_or_an_error(
    file: bytes, status: int, body: bytes
) -> None:
    async with running(Roles(filter=sieve)) as backend:
        peer = await backend.connect()
        await filter_by(peer, FILTERED, file)
        answer = await peer.answer()
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    "wrong",
    [{"FCGI_DATA_LENGTH": "+8"}, {"FCGI_DATA_LENGTH": "-1"}, {"FCGI_DATA_LAST_MOD": "noon"}],
)
async def test_F40_numbers_of_a_filter_that_are_none_are_400(wrong: dict[str, str]) -> None:
    async with running(Roles(filter=sieve)) as backend:
        peer = await backend.connect()
        await filter_by(peer, FILTERED | wrong, b"the file")
        assert (await peer.answer()).status == 400


async def test_F40_a_filter_may_answer_before_its_file_was_read(where: str) -> None:
    async with running(Roles(filter=sieve), where) as backend:
        peer = await backend.connect()
        await filter_by(peer, FILTERED | {"PATH_INFO": "/early"}, None)
        assert (await peer.answer()).body == b"nothing of the file was needed"


async def test_F40_a_file_before_the_end_of_the_body_closes(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Roles(filter=sieve)) as backend:
        peer = await backend.connect()
        await peer.send(framed(role=3, body=None) + rec(wire.DATA, 1, b"x"))
        assert await everything(peer) == b""
    assert "DATA before the end of the STDIN of request 1" in caplog.text


# --- The end of a request whose handler does not end -------------------------------------------------------------


async def one_connection(service: serving.Service) -> Connection:
    await trio.testing.wait_all_tasks_blocked()
    [connection] = service.connections
    return connection


async def test_F14_F37_W41_an_ABORT_is_answered_after_a_goodbye_though_the_handler_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handler = Stubborn()
    service = service_for(handler)
    ours, theirs = pair()
    with ours, trio.fail_after(100):
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            ours.send(framed(1, params=METHOD + param(b"PATH_INFO", b"/wait")))
            await handler.started.wait()
            ours.send(rec(ABORT, 1))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                ours.recv(1)  # the application's own answer is waited for, for a second
            await trio.sleep(1.6)
            assert ours.recv(65_536).endswith(end_record(1))
            assert not handler.ended.is_set()
            # The id is free, and what the first handler says cannot get into the answer of the second.
            ours.send(framed(1))
            await trio.testing.wait_all_tasks_blocked()
            second = ours.recv(65_536)
            assert second.endswith(rec(STDOUT, 1) + end_record(1))
            assert b"fine" in second
            ours.send(framed(1, body=None))
            await trio.testing.wait_all_tasks_blocked()
            assert b"fine" in ours.recv(65_536)
            handler.go_on.set()
            await handler.ended.wait()
            assert [type(error) for error in handler.refused] == [LocalProtocolError]
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            ours.send(rec(STDIN, 1) + framed(2, flags=0))
            await trio.testing.wait_all_tasks_blocked()
            assert b"fine" in ours.recv(65_536)
            await service.idle()
            nursery.cancel_scope.cancel()


async def test_F37_a_bug_that_a_goodbye_brings_out_ends_its_connection_and_not_the_server(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Stubborn()
    service = service_for(handler)
    ours, theirs = pair()

    def fail(connection: fastcgi.ServerConnection, stream_id: int, status: int = 0) -> bytes:
        raise ZeroDivisionError

    with ours, trio.fail_after(100):
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            ours.send(framed(1, params=METHOD + param(b"PATH_INFO", b"/wait")))
            await handler.started.wait()
            monkeypatch.setattr(fastcgi.ServerConnection, "end", fail)
            ours.send(rec(ABORT, 1))
            await trio.sleep(2)
            assert "internal error" in caplog.text
            handler.go_on.set()
            await service.idle()
            # Deadlines are looked at as before.
            ours2, theirs2 = pair()
            with ours2:
                service.start(SocketStream(theirs2), nursery)
                ours2.send(b"\1")
                await trio.sleep(11)
                await service.idle()
            nursery.cancel_scope.cancel()


async def test_F37_a_connection_outlives_a_handler_that_ends_after_its_goodbye_and_its_peer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handler = Stubborn()
    with nothing_left_open(), trio.fail_after(100):
        async with connected(handler) as (service, peer):
            await peer.ask(variables(path="/wait"), keep=True)
            await handler.started.wait()
            await peer.send(peer.client.abort(1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.sweep)
                assert (await peer.answer()).ended == "complete"
                nursery.cancel_scope.cancel()
            peer.stream.socket.close()
            await trio.testing.wait_all_tasks_blocked()
            handler.go_on.set()


async def test_F09_a_request_over_its_deadline_is_answered_though_its_handler_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handler = Stubborn()
    service = service_for(handler, request_timeout=5)
    ours, theirs = pair()
    with ours, trio.fail_after(100):
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            ours.send(framed(1, params=METHOD + param(b"PATH_INFO", b"/wait")))
            await handler.started.wait()
            await trio.sleep(5)
            await trio.sleep(2.5)
            answer = ours.recv(65_536)
            assert b"Status: 504 Gateway Timeout\r\n" in answer
            assert answer.endswith(rec(STDOUT, 1) + end_record(1)) or b"request took more than" in answer
            assert not handler.ended.is_set()
            ours.send(framed(1))
            await trio.testing.wait_all_tasks_blocked()
            assert b"fine" in ours.recv(65_536)
            handler.go_on.set()
            await handler.ended.wait()
            assert len(handler.refused) == 1
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            ours.shutdown(socket.SHUT_WR)
            await service.idle()
            nursery.cancel_scope.cancel()


# --- Full --------------------------------------------------------------------------------------------------------


async def test_F31_over_the_cap_of_ids_a_request_is_OVERLOADED_and_the_others_are_served() -> None:
    handler = Waiting()
    async with running(handler, limits=Limits(max_ids=2)) as backend:
        peer = await backend.connect()
        for number in (1, 2):
            await peer.ask(variables(path="/wait"), stream_id=number, keep=True)
        await handler.started.wait()
        await peer.send(framed(3, body=b"x"))
        assert await exactly(peer, 16) == end_record(3, 0, wire.OVERLOADED)
        handler.go_on.set()
        assert [(await peer.answer(number)).body for number in (1, 2)] == [b"waited", b"waited"]
        await peer.ask(stream_id=4)
        assert (await peer.answer(4)).body == b"fine"


async def test_F31_a_request_whose_variables_are_in_is_answered_503_by_a_server_that_stops() -> None:
    # Never with FCGI_OVERLOADED, which web servers make an empty 200.
    handler = Waiting()
    async with running(handler, limits=Limits(shutdown_grace=0.1)) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/wait"), keep=True)
        await handler.started.wait()
        backend.stop.set()
        answer = await peer.answer()
    assert (answer.status, answer.ended) == (503, "complete")


async def test_F30_W18_one_request_at_a_time_where_that_is_the_limit() -> None:
    handler = Waiting()
    async with running(handler, limits=Limits(max_ids=1)) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/wait"), stream_id=1, keep=True)
        await handler.started.wait()
        await peer.send(framed(2))
        assert await exactly(peer, 16) == end_record(2, 0, wire.CANT_MPX_CONN)
        handler.go_on.set()
        assert (await peer.answer(1)).body == b"waited"
        await peer.ask(stream_id=2)
        assert (await peer.answer(2)).body == b"fine"
