"""Workers that fail, are killed, hang or grow, and an arbiter that dies."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.program import ask, command, environment, poll, refuses, run
from tests.workers.tools import Server, children, is_alive, needs_proc, workers, write

pytestmark = needs_proc


# --- at the first start


@pytest.mark.parametrize(
    ("source", "arguments", "status", "said"),
    [
        ("import nothing_of_that_name", [], 4, "No module named 'nothing_of_that_name'"),
        (
            "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def app():\n    1/0\n    yield\n",
            [],
            3,
            "ZeroDivisionError",
        ),
        ("async def app(request): pass", ["--threads=2"], 2, "--threads is for WSGI applications"),
    ],
)
def test_workers_that_cannot_start_end_the_program_with_the_status_of_one_process(
    tmp_path: Path, source: str, arguments: list[str], status: int, said: str
) -> None:
    (tmp_path / "app.py").write_text(source)
    done = run("serve", "app.py", "--bind=fastcgi:unix:s", "--workers=2", *arguments, cwd=tmp_path)
    assert done.returncode == status
    assert said in done.stderr
    assert not (tmp_path / "s").exists()


def test_an_address_that_cannot_be_had_ends_the_program_with_status_1(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "s").write_text("a file")
    done = run("serve", "app.py", "--bind=fastcgi:unix:s", "--workers=2", cwd=tmp_path)
    assert done.returncode == 1
    assert "something that is not a socket is in the way" in done.stderr
    assert (tmp_path / "s").read_text() == "a file"


def test_o11_a_worker_that_ends_at_once_is_started_ever_more_slowly_and_then_given_up(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os\nos._exit(1)\n")
    program = (
        "from gateways import cli\n"
        "from gateways.workers.arbiter import Arbiter\n"
        "Arbiter.BACKOFF = (0.1, 0.2, 0.4)\n"
        "raise SystemExit(cli.main(['serve', 'app.py', '--bind=fastcgi:unix:s', '--workers=2']))\n"
    )
    began = time.monotonic()
    with Server([sys.executable, "-c", program], cwd=tmp_path, env=environment()) as server:
        status = server.wait()
    assert status == 3
    assert re.findall(r"next worker is started in (.+) s", server.text) == ["0.1", "0.2", "0.4"]
    assert len(re.findall("has ended by itself", server.text)) == 2 + 3
    assert "no worker has started, 4 times in a row" in server.text
    assert time.monotonic() - began >= 0.7
    assert not (tmp_path / "s").exists()


def test_o11_others_go_on_while_a_worker_cannot_be_started(tmp_path: Path) -> None:
    with workers(tmp_path, count=2) as server:
        one, other = server.children()
        (tmp_path / "app.py").write_text("1/0")
        os.kill(one, signal.SIGKILL)
        server.wait_for("next worker is started in 0.1 s")
        server.wait_for("next worker is started in 0.2 s")
        assert server.ask()[0] == str(other)
        write(tmp_path, "second")
        server.became_ready(1, times=3)
        poll(lambda: server.ask()[1] == "second", "the new worker does not answer")


# --- killed


def test_o10_o18_a_killed_worker_loses_its_own_requests_and_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, count=2) as server:
        old = server.children()
        calls = [server.begin() for _ in range(6)]
        began = time.monotonic()
        os.kill(old[0], signal.SIGKILL)
        new = server.became_ready(1, times=3)[-1]
        replaced = time.monotonic() - began
        answers = [call.finish(b"ok") for call in calls]
        answered = {answer.body.split()[0] for answer in answers if answer is not None}
        assert answered <= {str(old[1])}
        for _ in range(20):
            assert server.ask()[0] in (str(old[1]), str(new))
        assert "was killed by SIGKILL" in server.text
        print(f"replaced in {replaced:.2f} s")


def test_a_request_that_kills_its_worker_each_time_does_not_end_the_server(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        for times in (2, 3):
            assert ask(server.address, "/die") is None
            server.became_ready(1, times=times)
        assert server.ask()


# --- the arbiter


def test_o12_workers_that_lose_their_arbiter_answer_what_runs_and_end(tmp_path: Path) -> None:
    with workers(tmp_path, count=2) as server:
        pids = server.children()
        call = server.begin()
        server.signal(signal.SIGKILL)
        server.wait_for("the arbiter is gone", times=2)
        poll(lambda: refuses(server.address), "they still listen")
        answer = call.finish(b"ok")
        assert answer is not None
        assert answer.status == 200
        for pid in pids:
            server.gone(pid)
        assert (tmp_path / "s").exists()  # nobody was left to remove it
        with workers(tmp_path, count=1) as next_one:
            assert next_one.ask()[1] == "first"


def test_o12_a_worker_that_still_starts_ends_with_its_arbiter(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys, trio\n"
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def app():\n"
        "    print('starting', file=sys.stderr, flush=True)\n"
        "    await trio.sleep(60)\n"
        "    yield\n"
    )
    with Server(
        command("serve", "app.py", "--bind=fastcgi:unix:s", "--workers=1"), cwd=tmp_path, env=environment()
    ) as server:
        server.wait_for("^starting$")
        [pid] = server.children()
        server.signal(signal.SIGKILL)
        server.gone(pid)


def test_o24_the_arbiter_has_no_thread_that_a_fork_could_lose(tmp_path: Path) -> None:
    env = {"PYTHONWARNINGS": "always::DeprecationWarning"}  # Python 3.12 warns of such a fork
    with workers(tmp_path, "--bind=scgi:localhost:0", "--metrics=127.0.0.1:0", count=2, env=env) as server:
        assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 2 workers of generation 2")
        assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1
        pids = children(server.pid)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not any(map(is_alive, pids))
        assert "fork" not in server.text


def test_a_reload_mends_what_could_not_be_started(tmp_path: Path) -> None:
    with workers(tmp_path, count=2) as server:
        (tmp_path / "app.py").write_text("1/0")
        os.kill(server.children()[0], signal.SIGKILL)
        server.wait_for("next worker is started in 0.2 s")
        write(tmp_path, "second")
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 2 workers of generation 2")
        assert server.ask()[1] == "second"


# --- hanging and growing


def test_o15_a_worker_whose_loop_is_blocked_shows_where_and_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, "--worker-timeout=2", count=1) as server:
        [old] = server.children()
        call = server.begin("/block")
        server.wait_for("time.sleep\\(60\\)")
        server.became_ready(1, times=2)
        assert f"worker {old} has not been heard of for 2 s" in server.text
        assert call.finish() is None
        assert server.ask()[0] != str(old)


def test_o17_a_worker_that_has_grown_is_replaced_by_one_that_is_ready_first(tmp_path: Path) -> None:
    with workers(tmp_path, "--max-memory=100000000", count=1) as server:
        [old] = server.children()
        assert server.ask("/hoard")[0] == str(old)
        server.wait_for(rf"worker {old} uses \d+ bytes of memory: another takes its place")
        [_, new] = server.became_ready(1, times=2)
        server.gone(old)
        assert server.ask()[0] == str(new)
        assert "killed" not in server.text


def test_a_worker_is_replaced_after_so_many_requests(tmp_path: Path) -> None:
    with workers(tmp_path, "--max-requests=3", "--max-requests-jitter=2", count=1) as server:
        [old] = server.children()
        answers = [server.ask() for _ in range(5)]
        assert {answer[0] for answer in answers} == {str(old)}
        server.wait_for(rf"worker {old} has answered 5 requests: another takes its place")
        server.became_ready(1, times=2)
        server.gone(old)
        assert server.ask()[0] != str(old)


def test_a_worker_that_cannot_be_replaced_goes_on(tmp_path: Path) -> None:
    with workers(tmp_path, "--max-requests=1", count=1) as server:
        (tmp_path / "app.py").write_text("1/0")
        [old] = server.children()
        server.ask()
        server.wait_for("next worker is started in 0.2 s")
        assert server.ask()[0] == str(old)
