"""``gateways serve --workers``: addresses, inherited sockets, applications, and what all workers are together."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from tests.cli.program import ask, command, environment, get, run
from tests.workers.tools import Server, needs_proc, workers, write

pytestmark = needs_proc

WSGI = """\
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {environ['wsgi.multiprocess']} {environ['wsgi.multithread']}".encode()]
"""


def test_every_worker_serves_every_address(tmp_path: Path) -> None:
    with workers(tmp_path, "--bind=scgi:127.0.0.1:0", "--bind=http:127.0.0.1:0", count=2) as server:
        [where] = server.wait_for(r"^  (scgi:127\.0\.0\.1:\d+)$")
        [page] = server.wait_for(r"^  http:(127\.0\.0\.1:\d+)$")
        seen = set()
        # One of them cannot answer: it is stopped, and the other has all the work.
        for pid in server.children():
            os.kill(pid, signal.SIGSTOP)
            try:
                for answer in (ask(server.address), ask(where), get(page, "/")):
                    assert answer is not None
                    seen.add(tuple(answer.body.split()))
            finally:
                os.kill(pid, signal.SIGCONT)
        assert seen == {(str(pid), "first", each) for pid in server.children() for each in ("fastcgi", "scgi", "http")}


def test_the_socket_file_has_its_mode_and_is_not_touched_by_workers(tmp_path: Path) -> None:
    with workers(tmp_path, "--socket-mode=0600", count=1) as server:
        [worker] = server.children()
        before = (tmp_path / "s").stat()
        assert stat.S_IMODE(before.st_mode) == 0o600
        os.kill(worker, signal.SIGTERM)
        server.became_ready(1, times=2)
        assert (tmp_path / "s").stat().st_ino == before.st_ino
        assert server.ask()[1] == "first"


def test_a_public_address_takes_allow_public(tmp_path: Path) -> None:
    write(tmp_path)
    done = run("serve", "app.py", "--bind=fastcgi:0.0.0.0:0", "--workers=2", cwd=tmp_path)
    assert done.returncode == 1
    assert "--allow-public" in done.stderr


def test_a_listening_socket_as_standard_input_is_served_by_all_workers(tmp_path: Path) -> None:
    write(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        words = command("serve", "app.py", "--workers=2")
        with Server(words, cwd=tmp_path, env=environment(), stdin=listening) as server:
            server.wait_for("^stop with Ctrl-C$")
            for protocol in ("fastcgi", "scgi"):
                answer = ask(f"{protocol}:{where}")
                assert answer is not None
                assert answer.body.split()[1:] == ["first", protocol]


def test_the_sockets_of_systemd_are_served_by_all_workers_and_outlive_them(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "systemd"
    # LISTEN_PID is the number of the process that is to take them.
    starter = (
        "import os, sys\n"
        "number = int(sys.argv[1])\n"
        "os.dup2(number, 3)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='scgi')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'gateways', 'serve', 'app.py', '--workers=2'])\n"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        number = listening.fileno()
        for _ in range(2):
            words = [sys.executable, "-c", starter, str(number)]
            with Server(words, cwd=tmp_path, env=environment(), pass_fds=[number]) as server:
                server.wait_for("^stop with Ctrl-C$")
                answer = ask(f"scgi:unix:{path}")
                assert answer is not None
                assert answer.body.split()[2] == "scgi"
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
            assert path.exists()


def test_a_wsgi_application_has_its_threads_and_is_told_of_the_other_processes(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(WSGI)
    with workers(tmp_path, "--threads=2", count=2) as server:
        pid, multiprocess, multithread = server.ask()
        assert int(pid) in server.children()
        assert (multiprocess, multithread) == ("True", "True")


def test_limits_mount_and_trust_are_those_of_the_flags(tmp_path: Path) -> None:
    with workers(tmp_path, "--mount=/below", "--limit-params=20", "--trust-forwarded", count=1) as server:
        assert [each.status for each in (ask(server.address, "/below/x"), ask(server.address, "/x")) if each] == [
            200,
            404,
        ]
        many = {f"HTTP_X_{number}": "1" for number in range(20)}
        answer = ask(server.address, "/below", **many)
        assert answer is None or answer.status >= 400
        ask(server.address, "/below/forwarded", HTTP_X_FORWARDED_FOR="192.0.2.7", REMOTE_ADDR="127.0.0.1")
        server.wait_for(r"192\.0\.2\.7 .*/below/forwarded")


def test_the_status_tells_of_all_workers_and_of_those_that_are_gone(tmp_path: Path) -> None:
    with workers(tmp_path, "--status-path=/status", "--metrics=127.0.0.1:0", count=2) as server:
        [where] = server.wait_for(r"^metrics on (127\.0\.0\.1:\d+)$")
        for _ in range(4):
            server.ask()
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: 2 workers of generation 2")
        for pid in server.became_ready(1, times=2):
            server.gone(pid)
        answer = ask(server.address, "/status")
        assert answer is not None
        told = dict(re.findall(r"^(.+?): +(.+)$", answer.body, re.MULTILINE))
        assert told["process manager"] == "workers"
        assert told["total processes"] == "2"
        assert told["started processes"] == "4"
        assert told["died processes"] == "0"
        assert int(told["requests"]) >= 4
        metrics = get(where, "/metrics").body
        assert 'gateways_workers{state="ready"} 2.0' in metrics
        assert re.search(r"gateways_workers_started_total 4.0", metrics)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers=0"], "not a whole number above 0"),
        (["--workers=2", "--worker-timeout=1"], "timeout takes a number of 2 or more"),
        (["--max-requests=5"], "--max-requests is for workers: say how many with --workers"),
        (["--worker-timeout=5"], "--worker-timeout is for workers"),
    ],
)
def test_flags_that_make_no_sense_end_the_program_with_status_2(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    write(tmp_path)
    done = run("serve", "app.py", "--bind=fastcgi:unix:s", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_gunicorn_the_message_says_what_to_install(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "gunicorn.py").write_text("raise ModuleNotFoundError('no gunicorn here', name='gunicorn')\n")
    done = run("serve", "app.py", "--bind=fastcgi:unix:s", "--workers=2", cwd=tmp_path)
    assert done.returncode == 2
    assert "workers take gunicorn: pip install 'gateways[workers]'" in done.stderr


def test_gunicorns_own_settings_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("1/0\n")
    env = {"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --workers 7", "WEB_CONCURRENCY": "5"}
    with workers(tmp_path, count=1, env=env) as server:
        assert len(server.children()) == 1
        assert server.ask()[1] == "first"
