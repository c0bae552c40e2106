"""What goes wrong on the wire of SCGI (SH) and what its rules ask for (S), seen from the other end of a socket."""

from __future__ import annotations

import contextlib
import logging
import socket
import tracemalloc
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from gateways import Limits, Listen, Request, Response
from gateways._net import serving
from gateways._net.stream import SocketStream
from tests.net.pairs import asking_scgi, descriptors, nothing_left_open, pair, service_for, staffed, tasks
from tests.net.test_hostile import RESET_ON_CLOSE, Waiting, everything, fine, read_all, until
from tests.net.tools import PATIENCE, SCGI, running, unix, variables


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else unix(tmp_path)


def netstring(block: bytes) -> bytes:
    return b"%d:%b," % (len(block), block)


def request(*pairs: tuple[str, str], body: bytes = b"") -> bytes:
    """A request with these headers and no others."""
    return netstring("".join([f"{name}\0{value}\0" for name, value in pairs]).encode()) + body


LENGTH_0, LENGTH_3, ONE = ("CONTENT_LENGTH", "0"), ("CONTENT_LENGTH", "3"), ("SCGI", "1")
ASKED = (("REQUEST_METHOD", "POST"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("SCRIPT_NAME", ""), ("PATH_INFO", "/"))
HELLO = request(LENGTH_3, ONE, *ASKED, body=b"abc")


class Seeing:
    """A handler that keeps what it was given, and answers with its body."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(await request.body.read())


# --- What is not SCGI --------------------------------------------------------------------------------------------

#: Bytes that begin a connection -> (they, what the log says of them).
VIOLATIONS = {
    "SH01, eleven digits": (b"90000000000:", "more than 10 digits"),
    "SH02, 100,000 digits": (b"9" * 100_000, "more than 10 digits"),
    "SH03, a minus": (b"-5:", "got b'-'"),
    "SH03, no digit": (b":", "got b':'"),
    "SH03, a plus": (b"+70:", "got b'+'"),
    "SH03, a blank": (b" 70:", "got b' '"),
    "SH04, a leading zero": (b"070:", "with a leading zero"),
    "SH05, a semicolon for the comma": (request(LENGTH_0, *ASKED)[:-1] + b";", "expected the ',' that ends"),
    "SH07, nothing in it": (b"0:,", "a netstring of length 0"),
    "SH18, HTTP": (b"GET / HTTP/1.1\r\n\r\n", "these are HTTP bytes: point the web server at this port with scgi_pass"),
    "SH18, FastCGI": (b"\1\1\0\1\0\10\0\0", "these are FastCGI records: let the web server use scgi_pass"),
    "SH18, TLS": (b"\x16\3\1\2\0\1\0\1\xfc\3\3", "these are TLS bytes"),
    "SH18, one byte of FastCGI": (b"\1", "these are FastCGI records"),
}


@pytest.mark.parametrize("row", VIOLATIONS)
async def test_S01_S02_S11_SH01_SH02_SH03_SH04_SH05_SH07_SH18_what_is_no_netstring_closes_its_connection_alone(
    row: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, said = VIOLATIONS[row]
    neighbour = Waiting()
    async with running(neighbour, protocol=SCGI) as backend:
        good, bad = await backend.connect(), await backend.connect()
        await good.ask(variables(path="/wait"))
        await neighbour.started.wait()
        with contextlib.suppress(trio.BrokenResourceError):  # it may be closed before all is sent
            await bad.send(data)
        with trio.fail_after(1):  # nothing is waited for: not the rest of a length, nor what TLS would say next
            assert await everything(bad) == b""
        assert [(await backend.ask()).body for _ in range(5)] == [b"fine"] * 5
        assert not neighbour.cancelled.is_set()
        neighbour.go_on.set()
        assert (await good.answer()).body == b"waited"
    [record] = caplog.records
    assert said in record.getMessage()
    assert record.levelno == logging.WARNING


async def test_S02_SH01_SH02_a_length_costs_no_memory_until_its_bytes_are_there() -> None:
    service = service_for(fine, SCGI, max_params_bytes=1 << 33)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            service.start(SocketStream(theirs), nursery)
            await trio.testing.wait_all_tasks_blocked()
            tracemalloc.start()
            try:
                ours.send(b"8000000000:CONTENT_LENGTH")
                await trio.testing.wait_all_tasks_blocked()
                assert tracemalloc.get_traced_memory()[1] < 200_000
            finally:
                tracemalloc.stop()
            ours.close()
            await service.idle()


# --- Requests that cannot be built -------------------------------------------------------------------------------

#: A request -> (its bytes, the status that answers it, what the log says).
REFUSED = {
    "SH01, more than the limit": (b"9000000000:", 431, "the limit max_params_bytes is 262144"),
    "SH06, no NUL at the end": (netstring(b"CONTENT_LENGTH\x000"), 400, "not in NUL"),
    "SH06, a name without a value": (netstring(b"CONTENT_LENGTH\x000\0SCGI\0"), 400, "without its value"),
    "SH10, -1": (request(("CONTENT_LENGTH", "-1"), *ASKED), 400, "not a number: '-1'"),
    "SH10, 3x": (request(("CONTENT_LENGTH", "3x"), *ASKED, body=b"abc"), 400, "not a number: '3x'"),
    "SH10, 1e3": (request(("CONTENT_LENGTH", "1e3"), *ASKED), 400, "not a number: '1e3'"),
    "SH10, +3": (request(("CONTENT_LENGTH", "+3"), *ASKED, body=b"abc"), 400, "not a number: '+3'"),
    "SH10, a digit of another script": (request(("CONTENT_LENGTH", "٣"), *ASKED, body=b"abc"), 400, "not a number"),
    "SH11, 20 digits": (request(("CONTENT_LENGTH", "1" * 20), *ASKED), 413, "20 digits"),
    "SH12, two lengths": (
        request(LENGTH_3, ("CONTENT_LENGTH", "1"), *ASKED, body=b"abc"),
        400,
        "CONTENT_LENGTH is both '1' and '3'",
    ),
    "SH19, 20,000 headers": (
        request(LENGTH_0, *ASKED, *[(f"H{number}", "") for number in range(20_000)]),
        431,
        "the limit max_params is 1000",
    ),
    "a NUL cannot be sent, but a name with = can": (request(LENGTH_0, *ASKED, ("A=B", "x")), 400, "not the name"),
}


@pytest.mark.parametrize("row", REFUSED)
async def test_S02_S06_SH01_SH06_SH10_SH11_SH12_SH19_what_is_no_request_is_answered_without_its_handler(
    row: str, caplog: pytest.LogCaptureFixture
) -> None:
    # An answer, where closing would do: whoever set up the web server sees why. Then it closes.
    data, status, said = REFUSED[row]
    handler = Seeing()
    async with running(handler, protocol=SCGI) as backend:
        peer = await backend.connect()
        await peer.send(data)
        answer = await peer.answer()
        assert (answer.status, answer.ended) == (status, "complete")
        assert (await backend.ask()).status == 200
    assert len(handler.requests) == 1
    [record] = caplog.records
    assert said in record.getMessage()
    assert record.levelno == logging.WARNING


# --- Requests that break the letter ------------------------------------------------------------------------------

#: A request that real web servers send, or might -> (its bytes, what the handler sees of it, what strict says).
SLOPPY: dict[str, tuple[bytes, Mapping[str, str | None], str]] = {
    "SH08, the length not first": (
        request(ONE, *ASKED, LENGTH_3, body=b"abc"),
        {"CONTENT_LENGTH": "3"},
        "the first header is 'SCGI'",
    ),
    "SH09, no length": (request(ONE, *ASKED), {"CONTENT_LENGTH": None}, "the first header is 'SCGI'"),
    "SH09, an empty length": (
        request(("CONTENT_LENGTH", ""), ONE, *ASKED),
        {"CONTENT_LENGTH": None},
        "not a CONTENT_LENGTH with a value",
    ),
    "SH12, the same length twice": (
        request(LENGTH_3, ONE, LENGTH_3, *ASKED, body=b"abc"),
        {"CONTENT_LENGTH": "3"},
        "'CONTENT_LENGTH' comes more than once",
    ),
    "SH13, no SCGI": (request(LENGTH_3, *ASKED, body=b"abc"), {"SCGI": None}, 'no header SCGI with the value "1"'),
    "SH13, SCGI 2": (
        request(LENGTH_3, ("SCGI", "2"), *ASKED, body=b"abc"),
        {"SCGI": "2"},
        'no header SCGI with the value "1"',
    ),
    "SH14, a header twice": (
        request(LENGTH_3, ONE, *ASKED, ("HTTP_X", "a"), ("HTTP_X", "b"), body=b"abc"),
        {"HTTP_X": "a, b"},
        "'HTTP_X' comes more than once",
    ),
    "SH14, cookies twice": (
        request(LENGTH_3, ONE, *ASKED, ("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2"), body=b"abc"),
        {"HTTP_COOKIE": "a=1; b=2"},
        "'HTTP_COOKIE' comes more than once",
    ),
    "SH14, another name twice": (
        request(LENGTH_3, ONE, *ASKED, ("DUP", "1"), ("DUP", "2"), body=b"abc"),
        {"DUP": "2"},
        "'DUP' comes more than once",
    ),
    "SH15, an empty name": (
        request(LENGTH_3, ONE, *ASKED, ("", "x"), body=b"abc"),
        {"": None},
        "a header without a name",
    ),
}


@pytest.mark.parametrize("row", SLOPPY)
async def test_S04_S05_S06_SH08_SH09_SH12_SH13_SH14_SH15_web_servers_are_sloppy_and_are_served(row: str) -> None:
    data, seen, _ = SLOPPY[row]
    handler = Seeing()
    async with running(handler, protocol=SCGI) as backend:
        peer = await backend.connect()
        await peer.send(data)
        answer = await peer.answer()
    assert (answer.status, answer.ended) == (200, "complete")
    assert answer.body == (b"" if row.startswith("SH09") else b"abc")
    [request] = handler.requests
    assert {name: request.environ.get(name) for name in seen} == seen


@pytest.mark.parametrize("row", SLOPPY)
async def test_S03_S04_S05_S06_SH08_SH09_SH12_SH13_SH14_SH15_and_are_refused_by_the_letter(
    row: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, _, said = SLOPPY[row]
    handler = Seeing()
    async with running(handler, Listen("127.0.0.1:0", strict=True), SCGI) as backend:
        peer = await backend.connect()
        await peer.send(data)
        answer = await peer.answer()
        assert (answer.status, answer.ended) == (400, "complete")
        peer = await backend.connect()
        await peer.send(HELLO)
        assert (await peer.answer()).body == b"abc"
    assert len(handler.requests) == 1
    [record] = caplog.records
    assert said in record.getMessage()


async def test_SH15_a_name_that_is_dropped_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(fine, protocol=SCGI) as backend:
        for _ in range(2):
            peer = await backend.connect()
            await peer.send(SLOPPY["SH15, an empty name"][0])
            assert (await peer.answer()).status == 200
    assert [record.getMessage().count("a variable without a name was dropped") for record in caplog.records] == [1]


async def test_S03_S10_the_handler_sees_what_was_sent_and_little_else(where: str) -> None:
    handler = Seeing()
    sent = (LENGTH_0, ONE, ("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/a"), ("EMPTY", ""), ("X", "€"))
    async with running(handler, where, SCGI) as backend:
        peer = await backend.connect()
        await peer.send(request(*sent))
        assert (await peer.answer()).status == 200
    [seen] = handler.requests
    # Filled in: what every CGI program may rely on. An empty value is the same as none.
    assert seen.environ == {
        "CONTENT_LENGTH": "0",
        "SCGI": "1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/a",
        "PATH_INFO": "",
        "QUERY_STRING": "",
        "X": "€",
        "GATEWAY_INTERFACE": "CGI/1.1",
    }
    assert seen.environ_as_sent == sent


# --- Bodies and ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["half", "close"])
async def test_S07_SH16_a_body_cut_off_by_the_end_of_the_stream_is_never_a_short_body(where: str, leave: str) -> None:
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

    async with running(handler, where, SCGI) as backend:
        peer = await backend.connect()
        await peer.ask(variables("POST", CONTENT_LENGTH="10"), b"abc", end_body=False)
        await reading.wait()
        if leave == "half":
            await peer.stream.send_eof()  # whoever still reads gets no answer to half a request
            assert await everything(peer) == b""
        else:
            await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(PATIENCE):
            await ended.wait()
    assert outcomes == ["cancelled"]


@pytest.mark.parametrize("behind", [b"x", b"\r\n", HELLO, b"GET / HTTP/1.1\r\n\r\n", b"y" * 40_000])
async def test_S07_S08_SH17_what_follows_the_body_is_for_nobody_and_the_answer_is_whole(
    where: str, behind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Seeing()
    async with running(handler, where, SCGI) as backend:
        peer = await backend.connect()
        await peer.send(HELLO + behind)
        answer = await peer.answer()
        assert (answer.status, answer.body) == (200, b"abc")
        assert await peer.closed() == "eof"  # no reset, which could lose the answer
    assert len(handler.requests) == 1
    assert caplog.records == []


async def test_S08_every_answer_ends_with_its_connection(where: str) -> None:
    async with running(read_all, where, SCGI) as backend:
        for body in (b"", b"hello"):
            peer = await backend.connect()
            await peer.send(asking_scgi("/", body))
            assert (await peer.answer()).body == b"%d" % len(body)
            assert peer.over == "eof"


async def test_S09_an_answer_is_a_CGI_response() -> None:
    async with running(fine, protocol=SCGI) as backend:
        peer = await backend.connect()
        await peer.send(HELLO)
        head, _, body = (await everything(peer)).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"Status: 200 OK"
    assert body == b"fine"


@pytest.mark.parametrize("data", [b"", b"1", HELLO[:2], HELLO[:40], HELLO[: HELLO.index(b",")]])
async def test_SH20_who_leaves_before_there_is_a_request_leaves_no_trace(
    where: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Seeing()
    with nothing_left_open():
        async with running(handler, where, SCGI) as backend:
            before = tasks()
            for _ in range(3):
                peer = await backend.connect()
                if data:
                    await peer.send(data)
                await peer.stream.aclose()
            await until(lambda: tasks() == before)
    assert caplog.records == []
    assert handler.requests == []


async def test_S11_a_peer_that_leaves_cancels_the_handler(where: str) -> None:
    handler = Waiting()
    async with running(handler, where, SCGI) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/wait"))
        await handler.started.wait()
        await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(PATIENCE):
            await handler.cancelled.wait()


async def test_S11_a_half_close_is_told_apart_on_a_unix_socket_and_cannot_be_over_TCP(where: str) -> None:
    handler = Waiting()
    async with running(handler, where, SCGI) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/wait"))
        await handler.started.wait()
        await peer.stream.send_eof()
        if where.startswith("unix:"):
            handler.go_on.set()
            assert (await peer.answer()).body == b"waited"
        else:
            with trio.fail_after(PATIENCE):
                await handler.cancelled.wait()


async def test_S11_resets_in_the_middle_of_bodies_leave_nothing_and_are_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(read_all, protocol=SCGI) as backend:
        assert (await backend.ask()).status == 200
        await trio.aclose_forcefully(backend.peers.pop().stream)
        before = descriptors(), tasks()
        for _ in range(10):
            peer = await backend.connect()
            await peer.ask(variables("POST", CONTENT_LENGTH="100000"), b"x" * 50_000, end_body=False)
            peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            peer.stream.socket.close()
            backend.peers.remove(peer)
        await until(lambda: (descriptors(), tasks()) == before)
    assert caplog.records == []


async def test_S11_an_upload_that_nobody_reads_is_heard_out_and_its_answer_is_not_reset(where: str) -> None:
    async with running(fine, where, SCGI) as backend:
        peer = await backend.connect()
        with trio.fail_after(PATIENCE):
            await peer.ask(variables("POST", CONTENT_LENGTH="3000000"), b"x" * 3_000_000)
        assert (await peer.answer()).body == b"fine"
        assert await peer.closed() == "eof"


async def test_S12_what_a_handler_logs_is_in_the_log_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        request.log("something to say")
        return Response("fine")

    async with running(handler, protocol=SCGI) as backend:
        answer = await backend.ask()
    assert (answer.body, answer.log) == (b"fine", b"")
    assert "something to say" in caplog.text


# --- nginx with scgi_request_buffering off -----------------------------------------------------------------------


def unbuffered(announced: str, real: str) -> bytes:
    """The headers of an upload whose end nginx has not read yet: CONTENT_LENGTH counts what it has."""
    length = ("CONTENT_LENGTH", announced)
    more = (("DOCUMENT_URI", "/"), ("REQUEST_URI", "/"), ("HTTP_CONTENT_LENGTH", real))
    return request(length, ONE, *ASKED, *more)


@pytest.mark.parametrize("announced", ["0", "4"])
async def test_S07_E13_a_length_that_counts_what_nginx_has_read_is_mended_and_logged_once(
    where: str, announced: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Seeing()
    async with running(handler, where, SCGI) as backend:
        for _ in range(2):
            peer = await backend.connect()
            await peer.send(unbuffered(announced, "18") + b"a body")
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(b" in two pieces")
            answer = await peer.answer()
            assert (answer.status, answer.body, answer.ended) == (200, b"a body in two piec", "complete")
    assert [request.content_length for request in handler.requests] == [18, 18]
    mended = [record.getMessage() for record in caplog.records if "scgi_request_buffering" in record.getMessage()]
    assert len(mended) == 1
    assert "set scgi_request_buffering on;" in mended[0]


async def test_S07_E13_the_rest_of_such_a_body_is_awaited_until_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handler = Seeing()
    ours, theirs = pair()
    with ours:
        async with trio.open_nursery() as nursery:
            serve = partial(serving.serve_stream, SCGI, handler, theirs, limits=Limits(body_timeout=5))
            nursery.start_soon(serve)
            ours.send(unbuffered("0", "18"))
            await trio.sleep(4)
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            await trio.sleep(3)
            assert ours.recv(65_536).startswith(b"Status: 408 Request Timeout\r\n")
            ours.close()
    [request] = handler.requests
    assert request.content_length == 18


async def test_S07_E13_by_the_letter_such_a_request_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with running(fine, Listen("127.0.0.1:0", strict=True), SCGI) as backend:
        peer = await backend.connect()
        await peer.send(unbuffered("0", "18"))
        assert (await peer.answer()).status == 400
    assert "CONTENT_LENGTH is 0, but the client announced 18" in caplog.text


# --- Slow ones ---------------------------------------------------------------------------------------------------


async def dripped(peer: socket.socket, data: bytes) -> float:
    """Send a byte every five seconds; the time at which the other end has closed."""
    for number in data:
        await trio.sleep(5)
        try:
            peer.send(bytes([number]))
        except BrokenPipeError:
            break
    return trio.current_time()


async def test_S02_a_byte_every_five_seconds_does_not_put_off_the_deadline(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = service_for(fine, SCGI, params_timeout=10)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            nursery.start_soon(service.sweep)
            service.start(SocketStream(theirs), nursery)
            assert 15 <= await dripped(ours, HELLO) <= 21
            await service.idle()
            nursery.cancel_scope.cancel()
    [record] = caplog.records
    assert "a request did not come to the end of its variables in time" in record.getMessage()


async def test_S01_one_byte_at_a_time_is_a_request_like_any_other() -> None:
    handler = Seeing()
    service = service_for(handler, SCGI)
    ours, theirs = pair()
    with ours:
        async with staffed(service) as nursery:
            service.start(SocketStream(theirs), nursery)
            for number in HELLO:
                ours.send(bytes([number]))
                await trio.testing.wait_all_tasks_blocked()
            assert ours.recv(65_536).endswith(b"\r\n\r\nabc")
            ours.close()
            await service.idle()
    assert len(handler.requests) == 1
