"""SIGHUP: new workers with new code, one by one, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.cli.program import Answer, ask, poll
from tests.workers.tools import is_alive, needs_proc, workers, write

pytestmark = needs_proc


@pytest.mark.parametrize("count", [1, 3])
def test_sighup_loads_new_code_and_the_old_worker_answers_what_it_has_begun(tmp_path: Path, count: int) -> None:
    with workers(tmp_path, count=count) as server:
        old = server.children()
        assert server.ask()[1] == "first"
        call = server.begin()
        write(tmp_path, "second")
        server.signal(signal.SIGHUP)
        server.wait_for(f"reloaded: {count} workers? of generation 2")
        pid, code, _ = server.ask()
        assert code == "second"
        assert int(pid) not in old
        answer = call.finish(b"ok")
        assert answer is not None
        assert answer.body.split()[:2] == [answer.body.split()[0], "first"]
        assert int(answer.body.split()[0]) in old
        for each in old:
            server.gone(each)
        server.count(count)  # one that has ended is a child until the arbiter has taken notice


def test_there_is_always_a_worker_that_answers_while_the_only_one_is_replaced(tmp_path: Path) -> None:
    answers: list[Answer | None] = []
    enough = threading.Event()

    def ask_all_the_time(address: str) -> None:
        while not enough.is_set():
            answers.append(ask(address))

    with workers(tmp_path, "--no-access-log", count=1) as server:
        asking = threading.Thread(target=ask_all_the_time, args=[server.address])
        asking.start()
        try:
            for generation in (2, 3):
                server.signal(signal.SIGHUP)
                server.wait_for(f"reloaded: 1 worker of generation {generation}")
        finally:
            enough.set()
            asking.join()
    assert len(answers) > 2
    assert [each for each in answers if each is None or each.status != 200] == []
    assert len({each.body for each in answers if each is not None}) >= 2


def test_o08_a_hundred_sighups_are_two_reloads_at_most(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        for _ in range(100):
            server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 1 worker of generation 2")
        # Signals that came while generation 2 was started, perhaps; and one more reload, which comes after theirs.
        write(tmp_path, "second")
        server.signal(signal.SIGHUP)
        poll(lambda: server.ask()[1] == "second", "the new code does not come")
        server.count(1)
        assert "generation 5" not in server.text
        assert server.text.count("reloading: generation") <= 3


def test_o09_new_code_that_does_not_start_leaves_the_old_workers_at_work(tmp_path: Path) -> None:
    with workers(tmp_path, count=2) as server:
        old = server.children()
        (tmp_path / "app.py").write_text("import nothing_of_that_name\n")
        server.signal(signal.SIGHUP)
        server.wait_for("generation 2 does not start: generation 1 goes on")
        assert "No module named 'nothing_of_that_name'" in server.text
        assert sorted(server.children()) == sorted(old)
        assert server.ask()[1] == "first"
        write(tmp_path, "second")
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 2 workers of generation 3")
        assert server.ask()[1] == "second"


def test_o09_an_application_that_fails_while_it_starts_up_leaves_the_old_workers_at_work(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        old = server.children()
        (tmp_path / "app.py").write_text(
            "from contextlib import asynccontextmanager\n"
            "@asynccontextmanager\n"
            "async def app():\n"
            "    raise RuntimeError('no database')\n"
            "    yield\n"
        )
        server.signal(signal.SIGHUP)
        server.wait_for("generation 2 does not start: generation 1 goes on")
        assert "no database" in server.text
        assert server.children() == old
        assert server.ask()[1] == "first"


def test_new_code_that_takes_too_long_to_start_is_given_up(tmp_path: Path) -> None:
    with workers(tmp_path, "--worker-timeout=2", count=1) as server:
        old = server.children()
        (tmp_path / "app.py").write_text("import time\ntime.sleep(60)\n")
        server.signal(signal.SIGHUP)
        server.wait_for("generation 2 does not start: generation 1 goes on")
        assert "has not started up for 2 s" in server.text
        assert "time.sleep(60)" in server.text  # where it was
        assert server.children() == old
        assert server.ask()[1] == "first"


def test_the_socket_stays_the_same_over_a_reload_and_goes_with_the_arbiter_alone(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as server:
        path = tmp_path / "s"
        before = path.stat()
        [old] = server.children()
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 1 worker of generation 2")
        server.gone(old)
        assert path.stat().st_ino == before.st_ino
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not path.exists()


def test_o14_the_socket_of_another_server_is_not_removed(tmp_path: Path) -> None:
    with workers(tmp_path, count=1) as former:
        path = tmp_path / "s"
        path.unlink()
        with workers(tmp_path, count=1) as server:
            made = path.stat().st_ino
            former.signal(signal.SIGTERM)
            assert former.wait() == 0
            assert path.stat().st_ino == made
            assert server.ask()[1] == "first"


def test_a_worker_that_dies_while_others_are_replaced_is_replaced_too(tmp_path: Path) -> None:
    with workers(tmp_path, count=2) as server:
        old = server.children()
        write(tmp_path, "second")
        server.signal(signal.SIGHUP)
        os.kill(old[-1], signal.SIGKILL)
        server.wait_for("reloaded: 2 workers of generation 2")
        server.count(2)
        assert not any(map(is_alive, old))
        assert server.ask()[1] == "second"
