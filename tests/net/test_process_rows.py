"""What the operating system does to a server: too many of everything, and who is there; bugs stay where they are."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import resource
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import Limits, Listen, Request, Response, Tally
from gateways._net import serving
from gateways._net.address import BindError
from gateways._net.connection import Connection
from tests.net.tools import FASTCGI, PATIENCE, POST, running, unix, variables


@pytest.fixture(params=["tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else unix(tmp_path)


async def read_all(request: Request) -> Response:
    return Response(f"{len(await request.body.read())}")


# --- O01 to O05: descriptors, connections, pipes -------------------------------------------------------------------


@contextlib.contextmanager
def descriptors_up_to(soft: int) -> Generator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < soft:
        pytest.skip(f"no more than {before[1]} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Told(logging.Handler):
    """Tells when the log has said something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.event = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.event.set()


@contextlib.contextmanager
def told(text: str) -> Generator[trio.Event]:
    handler = Told(text)
    logging.getLogger("gateways").addHandler(handler)
    yield handler.event
    logging.getLogger("gateways").removeHandler(handler)


async def test_O01_a_server_that_has_run_out_of_descriptors_goes_on_as_soon_as_there_are_some(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(read_all, where) as backend:
        first, second = await backend.connect(), await backend.connect()
        await first.ask(keep=True)
        await first.answer()
        unix_path = backend.addresses[0].removeprefix("unix:") if backend.addresses[0].startswith("unix:") else None
        third = socket.socket(socket.AF_UNIX if unix_path else socket.AF_INET)
        with told("cannot accept connections") as complained, contextlib.ExitStack() as taken:
            with descriptors_up_to(max(map(int, os.listdir("/proc/self/fd"))) + 50):
                with contextlib.suppress(OSError):
                    while True:
                        taken.callback(os.close, os.dup(third.fileno()))
                third.connect(unix_path or ("127.0.0.1", int(backend.addresses[0].rpartition(":")[2])))
                with trio.fail_after(PATIENCE):
                    await complained.wait()
                # Those who are here already are served.
                for peer in (first, second):
                    await peer.ask(POST, b"hello", stream_id=2, keep=True)
                    assert (await peer.answer(2)).body == b"5"
            taken.close()
        assert (await backend.ask(POST, b"hello")).body == b"5"
        third.close()
    assert "Traceback" not in caplog.text


async def test_O03_descriptors_above_1024_are_served_like_others(where: str) -> None:
    with contextlib.ExitStack() as taken, descriptors_up_to(2048):
        spare = os.open("/dev/null", os.O_RDONLY)
        taken.callback(os.close, spare)
        while os.dup(spare) < 1100:
            pass
        taken.callback(os.closerange, spare + 1, 1101)
        async with running(read_all, where) as backend:
            peers = [await backend.connect() for _ in range(10)]
            for peer in peers:
                await peer.ask(POST, b"hello")
            assert [(await peer.answer()).body for peer in peers] == [b"5"] * 10


async def test_O04_hundreds_of_idle_connections_are_kept_and_each_is_served(where: str) -> None:
    tally = Tally()
    with descriptors_up_to(2048):
        async with running(read_all, where, tally=tally) as backend:
            peers = [await backend.connect() for _ in range(500)]
            for peer in peers:
                await peer.ask(keep=True)
            for peer in peers:
                await peer.answer()
            assert tally.connections == 500
            for peer in (peers[0], peers[250], peers[499]):
                await peer.ask(POST, b"hello", stream_id=2, keep=True)
                assert (await peer.answer(2)).body == b"5"
            assert tally.connections == 500


async def test_O04_no_more_connections_than_the_cap_are_open() -> None:
    tally = Tally()
    async with running(read_all, limits=Limits(max_connections=20), tally=tally) as backend:
        peers = [await backend.connect() for _ in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        assert tally.connections == 20
        for peer in peers[:20]:
            await peer.stream.aclose()
        with trio.fail_after(PATIENCE):
            await peers[20].ask(POST, b"hello")
            assert (await peers[20].answer()).body == b"5"


async def test_O05_a_peer_that_leaves_while_it_is_written_to_ends_its_request_and_nothing_else(where: str) -> None:
    ended = trio.Event()

    async def large(request: Request) -> Response:
        if request.path == "/":
            return Response("fine")

        async def body(send: Any) -> None:
            try:
                while True:
                    await send(bytes(100_000))
            finally:
                ended.set()

        return Response(body)

    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    async with running(large, where) as backend:
        peer = await backend.connect()
        await peer.ask(variables(path="/large"))
        await peer.receive()
        await peer.stream.aclose()
        with trio.fail_after(PATIENCE):
            await ended.wait()
        assert (await backend.ask()).body == b"fine"


# --- O22, O25, O26: what goes wrong stays where it is --------------------------------------------------------------


async def test_O25_a_bug_in_the_engine_costs_one_connection(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tally = Tally()
    take = Connection.take

    def broken(self: Connection, data: bytes) -> None:
        if b"/bug" in data:
            raise RuntimeError("a bug of ours")
        take(self, data)

    monkeypatch.setattr(Connection, "take", broken)
    async with running(read_all, where, tally=tally) as backend:
        good, bad = await backend.connect(), await backend.connect()
        await good.ask(keep=True)
        await good.answer()
        await bad.ask(variables(path="/bug"))
        await bad.closed()
        await good.ask(POST, b"hello", stream_id=2)
        assert (await good.answer(2)).body == b"5"
        assert (tally.running, tally.waiting) == (0, 0)
    assert "a bug of ours" in caplog.text


async def test_O26_an_error_in_a_task_of_a_handler_ends_its_request_alone(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise RuntimeError("in the background")

    async def handler(request: Request) -> Response:
        if request.path == "/":
            return Response("fine")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError

    tally = Tally()
    async with running(handler, where, tally=tally) as backend:
        good = await backend.connect()
        assert (await backend.ask(variables(path="/bad"))).status == 500
        await good.ask()
        assert (await good.answer()).body == b"fine"
        assert (tally.running, tally.waiting) == (0, 0)
    assert "in the background" in caplog.text


async def test_O17_a_request_that_runs_out_of_memory_is_a_500_and_the_next_is_served(where: str) -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/greedy":
            raise MemoryError
        return Response("fine")

    async with running(handler, where) as backend:
        assert (await backend.ask(variables(path="/greedy"))).status == 500
        assert (await backend.ask()).body == b"fine"


# --- D01, D02: who may connect -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux tells who connects")
@pytest.mark.parametrize("mine", [os.getuid(), pwd.getpwuid(os.getuid()).pw_name])
async def test_D02_a_user_that_is_allowed_may_connect_to_a_unix_socket(mine: int | str, tmp_path: Path) -> None:
    async with running(read_all, Listen(unix(tmp_path), allow_users=[mine])) as backend:
        assert (await backend.ask(POST, b"hello")).body == b"5"


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux tells who connects")
async def test_D02_a_user_that_is_not_allowed_is_hung_up_on_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(read_all, Listen(unix(tmp_path), allow_users=[os.getuid() + 1])) as backend:
        peer = await backend.connect()
        assert await peer.closed() == "eof"
    assert f"refused process {os.getpid()} of user {os.getuid()}" in caplog.text


async def test_D02_a_user_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="no user 'no-such-user'"):
        await serving.serve(FASTCGI, read_all, Listen(unix(tmp_path), allow_users=["no-such-user"]))


async def test_D01_an_inherited_public_socket_is_exempt() -> None:
    with socket.create_server(("0.0.0.0", 0)) as inherited:
        async with running(read_all, f"fd:{os.dup(inherited.fileno())}") as backend:
            assert backend.addresses == [f"0.0.0.0:{inherited.getsockname()[1]}"]
