"""The listener of those who watch: in a thread, in a process of its own, and with clients that mean no good."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateways._process import monitor
from gateways._process.monitor import bind
from gateways._process.scoreboard import Alone
from gateways.metrics import start_thread
from tests.cli.program import Answer, Program, connect, get, poll, refuses
from tests.metrics.tools import run_program, tally

# --- where it listens


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_D01_an_address_that_others_can_reach_is_refused_unless_it_is_meant(address: str) -> None:
    with pytest.raises(OSError, match="can be reached from other machines"):
        bind(address)


def test_an_address_that_others_can_reach_may_be_meant() -> None:
    listener = bind("0.0.0.0:0", allow_public=True)
    assert listener.address.startswith("0.0.0.0:")
    listener.close()


def test_a_socket_file_has_its_mode_and_is_removed_in_the_end(tmp_path: Path) -> None:
    listener = bind(f"unix:{tmp_path}/metrics.sock", mode=0o640)
    assert stat.S_IMODE(os.stat(tmp_path / "metrics.sock").st_mode) == 0o640
    listener.close()
    assert os.listdir(tmp_path) == []


def test_a_name_is_looked_up() -> None:
    listener = bind("localhost:0")
    assert listener.address.rpartition(":")[0] in ("127.0.0.1", "[::1]")
    listener.close()


@pytest.mark.parametrize("address", ["9113", "fd:3", "systemd", "http:127.0.0.1:9113", "127.0.0.1:http"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"not an address|not a number"):
        bind(address)


# --- in a thread


@pytest.fixture(autouse=True)
def ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread notices within this time that it is to end."""
    monkeypatch.setattr(monitor, "_EVERY", 0.05)


@contextmanager
def watched(address: str) -> Generator[str]:
    """The listener, answering; where it is."""
    listener = bind(address)
    thread = start_thread(Alone(tally(accepted=3)), listener)
    try:
        yield listener.address
    finally:
        thread.close()
        listener.close()


@pytest.fixture
def address() -> Generator[str]:
    with watched("127.0.0.1:0") as where:
        yield where


def test_it_answers_over_tcp(address: str) -> None:
    assert get(address, "/ping") == Answer(200, "pong\n")
    assert "\ngateways_connections_total 3.0\n" in get(address, "/metrics").body
    assert get(address, "/nothing").status == 404


def test_it_answers_over_a_unix_socket(tmp_path: Path) -> None:
    with watched(f"unix:{tmp_path}/metrics.sock") as where, connect(where) as client:
        client.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
        assert received(client).endswith(b"\r\n\r\npong\n")
    assert os.listdir(tmp_path) == []


def test_nobody_answers_after_the_end() -> None:
    with watched("127.0.0.1:0") as where:
        pass
    assert refuses(f"http:{where}")


def received(client: socket.socket) -> bytes:
    """All that comes."""
    data = b""
    while more := client.recv(65536):
        data += more
    return data


def test_what_is_no_http_is_refused_and_the_next_is_answered(address: str) -> None:
    with connect(address) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert b"Error code: 400" in received(client)
    assert get(address, "/ping").body == "pong\n"


@pytest.mark.parametrize("sent", [b"", b"GET /ping HTT", b"GET /ping HTTP/1.0\r\nX: 1"])
def test_a_slow_client_is_broken_off(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 0.1)
    with watched("127.0.0.1:0") as where, connect(where) as client:
        client.sendall(sent)
        assert b"200" not in received(client)


def test_only_so_many_clients_are_seen_to_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 1000.0)
    with watched("127.0.0.1:0") as where, ExitStack() as stack:
        clients = [stack.enter_context(connect(where)) for _ in range(monitor._CLIENTS)]
        with connect(where) as one_more:
            assert received(one_more) == b""
        clients[0].close()

        def answered() -> bool:
            with connect(where) as client:
                try:
                    client.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
                    return received(client).endswith(b"pong\n")
                except (ConnectionResetError, BrokenPipeError):
                    return False

        poll(answered, "a place that has become free")


def test_a_client_that_is_gone_before_its_answer_is_not_worth_a_word(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(address) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
    assert get(address, "/ping").body == "pong\n"
    assert capsys.readouterr().err == ""


# --- in a process of its own

BEGIN = """
import os, signal, socket, sys, time
from urllib.request import urlopen
from gateways import Tally
from gateways._process import monitor
from gateways._process.scoreboard import Scoreboard
from gateways.metrics import bind, start_monitor

def ping():
    with urlopen(f"http://{listener.address}/ping", timeout=30) as answer:
        return answer.read()

def refused(address):
    try:
        socket.create_connection(address, 30).close()
    except ConnectionRefusedError:
        return True
    return False

monitor._PAUSE = 0.0
board = Scoreboard(2)
board.publish(board.take(), Tally(), "ready")
listener = bind("127.0.0.1:0")
"""


def in_process(code: str) -> str:
    return run_program(BEGIN + "\n".join(line.removeprefix("        ") for line in code.splitlines()))


def test_it_tells_what_workers_publish_that_were_forked_later() -> None:
    told = in_process("""
        watcher = start_monitor(board, listener)
        slot = board.take()
        child = os.fork()
        if not child:
            watcher.forget()
            tally = Tally()
            tally.accepted = 5
            board.publish(slot, tally, "ready")
            os._exit(0)
        os.waitpid(child, 0)
        with urlopen(f"http://{listener.address}/metrics", timeout=30) as answer:
            print([line for line in answer.read().decode().splitlines() if line.startswith("gateways_connections_t")])
        watcher.stop()
    """)
    assert told == "['gateways_connections_total 5.0']\n"


@pytest.mark.parametrize("reaped", ["os.waitpid(-1, 0)", "pass"], ids=["by another", "by itself"])
def test_it_is_started_again_when_it_dies(reaped: str) -> None:
    told = in_process(f"""
        watcher = start_monitor(board, listener)
        first = watcher.pid
        print(ping())
        watcher.check()
        print(watcher.pid == first)
        os.kill(first, signal.SIGKILL)
        {reaped}
        while watcher.pid == first:
            watcher.check()
        print(ping())
        watcher.stop()
    """)
    assert told == "b'pong\\n'\nTrue\nb'pong\\n'\n"


def test_O11_one_that_dies_at_once_is_not_started_all_the_time() -> None:
    told = in_process("""
        monitor._PAUSE = 1000.0
        watcher = start_monitor(board, listener, in_child=lambda: os._exit(1))
        first = watcher.pid
        os.waitpid(first, 0)
        for _ in range(100):
            watcher.check()
        print(watcher.pid == first)
        watcher.stop()
    """)
    assert told == "True\n"


def test_privileges_are_given_up_before_anything_is_answered() -> None:
    told = in_process("""
        reading, writing = os.pipe()
        watcher = start_monitor(board, listener, in_child=lambda: sys.stdout.write("given up") and sys.stdout.flush())
        print(ping())
        watcher.stop()
    """)
    assert told == "given upb'pong\\n'\n"


def test_one_that_cannot_start_says_why() -> None:
    told = in_process("""
        def refuse():
            raise PermissionError("not root")

        os.dup2(1, 2)
        watcher = start_monitor(board, listener, in_child=refuse)
        print("exit", os.waitstatus_to_exitcode(os.waitpid(watcher.pid, 0)[1]))
        watcher.stop()
    """)
    assert told.endswith("PermissionError: not root\nexit 1\n")


def test_a_signal_to_all_processes_of_a_service_does_not_end_it() -> None:
    told = in_process("""
        watcher = start_monitor(board, listener)
        ping()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(watcher.pid, number)
        print(ping())
        watcher.stop()
    """)
    assert told == "b'pong\\n'\n"


def test_nothing_is_left_of_it_in_the_end() -> None:
    told = in_process("""
        watcher = start_monitor(board, listener)
        address = listener.socket.getsockname()
        ping()
        watcher.stop()
        print(refused(address))
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no children")
    """)
    assert told == "True\nno children\n"


def test_it_holds_no_socket_of_the_managers_open_but_its_own() -> None:
    told = in_process("""
        serving = socket.create_server(("127.0.0.1", 0))
        address = serving.getsockname()
        watcher = start_monitor(board, listener)
        ping()
        serving.close()
        print(refused(address))
        watcher.stop()
    """)
    assert told == "True\n"


def test_a_worker_that_has_forgotten_it_does_not_hold_its_address() -> None:
    told = in_process("""
        watcher = start_monitor(board, listener)
        address = listener.socket.getsockname()
        ready, end = os.pipe(), os.pipe()
        if not os.fork():
            watcher.forget()
            os.close(end[1])
            os.write(ready[1], b"1")
            os.read(end[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        watcher.stop()
        print(refused(address))
        os.close(end[1])
        os.wait()
    """)
    assert told == "True\n"


def test_O12_it_ends_when_the_manager_is_killed(tmp_path: Path) -> None:
    code = BEGIN + "start_monitor(board, listener)\nprint(f'at {listener.address}', file=sys.stderr)\nsignal.pause()\n"
    with Program([sys.executable, "-c", code], cwd=tmp_path) as program:
        [where] = program.wait_for("^at (.*)$")
        assert get(where, "/ping") == Answer(200, "pong\n")
        program.signal(signal.SIGKILL)
        program.process.wait()
        poll(lambda: refuses(f"http:{where}"), "the end of the monitor")
