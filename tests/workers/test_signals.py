"""What the arbiter does upon each signal."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.program import command, environment, poll, refuses
from tests.workers.tools import Manager, Server, is_alive, needs_proc, workers, write

pytestmark = needs_proc


def test_o06_sigterm_lets_what_runs_be_answered_and_the_exit_status_is_0(tmp_path: Path) -> None:
    with workers(tmp_path) as server:
        call = server.begin()
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server.address), "it still listens")
        answer = call.finish(b"ok")
        assert answer is not None
        assert answer.status == 200
        assert server.wait() == 0
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_o07_a_second_signal_cancels_what_runs_and_leaves_no_orphan(tmp_path: Path, number: signal.Signals) -> None:
    with workers(tmp_path) as server:
        pids = server.children()
        call = server.begin()
        server.signal(number)
        poll(lambda: refuses(server.address), "it still listens")
        server.signal(number)
        assert server.wait() == 0
        assert not any(map(is_alive, pids))
        answer = call.finish()
        assert answer is None or answer.status >= 500


def test_o07_a_second_signal_ends_a_handler_that_will_not_be_cancelled(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        [pid] = server.children()
        call = server.begin("/shield")
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server.address), "it still listens")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not is_alive(pid)
        assert call.finish() is None


def test_sigquit_cancels_what_runs_at_once(tmp_path: Path) -> None:
    with workers(tmp_path) as server:
        pids = server.children()
        server.begin()
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0
        assert not any(map(is_alive, pids))


def test_a_signal_from_the_terminal_reaches_all_processes_and_what_runs_is_answered(tmp_path: Path) -> None:
    with workers(tmp_path) as server:
        call = server.begin()
        for pid in [*server.children(), server.pid]:
            os.kill(pid, signal.SIGINT)
        poll(lambda: refuses(server.address), "it still listens")
        answer = call.finish(b"ok")
        assert answer is not None
        assert answer.status == 200
        assert server.wait() == 0


def test_o16_a_handler_that_will_not_end_is_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    with workers(tmp_path, "--timeout-shutdown-grace=0.2", "--timeout-goodbye=0.1", count=1) as server:
        [pid] = server.children()
        server.begin("/shield")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "did not end in time" in server.text
        assert not is_alive(pid)


def test_sigttin_and_sigttou_add_and_take_away_a_worker_but_never_the_last(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        [first] = server.children()
        server.signal(signal.SIGTTIN)
        server.became_ready(1, times=2)
        server.count(2)
        server.signal(signal.SIGTTOU)
        server.gone(first)
        server.count(1)
        server.signal(signal.SIGTTOU)
        server.wait_for(" 1 worker from now on$", times=2)
        server.signal(signal.SIGTTIN)
        server.became_ready(1, times=3)
        server.count(2)


def test_sigusr1_has_the_logs_of_all_processes_opened_anew(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with workers(tmp_path, f"--access-log={log}", count=1) as server:
        server.ask("/before")
        log.rename(tmp_path / "access.log.1")
        server.signal(signal.SIGUSR1)
        poll(log.exists, "no new log")  # the arbiter's; the worker's may be a moment later
        poll(lambda: bool(server.ask("/after")) and "/after" in log.read_text(), "no line in the new log")
        assert "/before" in (tmp_path / "access.log.1").read_text()


def test_the_terminal_that_goes_away_takes_the_server_with_it(tmp_path: Path) -> None:
    write(tmp_path)
    starter = (
        "import fcntl, os, sys, termios\n"
        "os.setsid()\n"
        "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])\n"
    )
    terminal, end = pty.openpty()
    serve = command("serve", "app.py", "--bind=fastcgi:unix:s", "--workers=1")[1:]
    words = [sys.executable, "-c", starter, str(end), *serve]
    with Server(words, cwd=tmp_path, env=environment(), pass_fds=[end]) as server:
        os.close(end)
        server.wait_for("^stop with Ctrl-C$")
        os.close(terminal)
        assert server.wait() == 0
        assert "reloading" not in server.text


def test_other_signals_change_nothing(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        before = server.children()
        server.signal(signal.SIGUSR2)
        server.signal(signal.SIGWINCH)
        server.wait_for("SIGUSR2 has no meaning here")
        server.ask()
        assert server.children() == before


def test_the_service_manager_is_told_of_start_reload_and_end(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    try:
        with workers(tmp_path, count=2, env={"NOTIFY_SOCKET": manager.path}) as server:
            assert "2 workers of generation 1" in manager.wait_for("^READY=1$")
            server.signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in manager.wait_for("^RELOADING=1$")
            assert "2 workers of generation 2" in manager.wait_for("^READY=1$")
            (tmp_path / "app.py").write_text("1/0")
            poll(lambda: len(server.children()) == 2, "the old workers are still there")
            server.signal(signal.SIGHUP)
            manager.wait_for("^RELOADING=1$")
            assert "the former goes on" in manager.wait_for("^READY=1$")
            write(tmp_path)
            server.signal(signal.SIGTERM)
            manager.wait_for("^STOPPING=1$")
            assert server.wait() == 0
    finally:
        manager.close()


def test_the_watchdog_of_the_service_manager_is_fed(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    try:
        with workers(tmp_path, count=1, env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "200000"}):
            began = time.monotonic()
            for _ in range(4):
                manager.wait_for("^WATCHDOG=1$")
            assert time.monotonic() - began >= 0.2  # no more often than needed
    finally:
        manager.close()
