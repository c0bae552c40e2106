"""``gunicorn -k gateways.workers...``: our workers under the arbiter of those who run gunicorn themselves."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateways import launch, workers
from tests.cli.program import ask, environment, get, poll, refuses
from tests.workers.tools import Server, needs_proc, write

pytestmark = needs_proc

WSGI = """\
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {environ['wsgi.multiprocess']}".encode()]
"""


@contextmanager
def gunicorn(folder: Path, worker: str, *arguments: str, app: str = "app:app") -> Generator[Server, None, None]:
    if not (folder / "app.py").exists():
        write(folder)
    words = [sys.executable, "-m", "gunicorn", "-k", f"gateways.workers.{worker}", "-b", f"unix:{folder}/s"]
    words += ["--no-control-socket", *arguments, app]
    with Server(words, cwd=folder, env=environment()) as server:
        protocol = worker.removesuffix("Worker").lower()
        server.address = f"{protocol if protocol in launch.protocols() else 'fastcgi'}:unix:{folder}/s"
        poll(lambda: (folder / "s").exists() and not refuses(server.address), "it does not listen")
        yield server


def test_there_is_a_worker_for_each_protocol_and_for_nothing_else() -> None:
    for protocol in launch.protocols():
        found = getattr(workers, f"{protocol.upper()}Worker")
        assert issubclass(found, workers.GatewayWorker)
        assert found.protocol == protocol
        assert getattr(workers, f"{protocol.upper()}Worker") is found
    assert workers.FastCGIWorker.protocol == "fastcgi"
    with pytest.raises(AttributeError, match="has no attribute 'GopherWorker'"):
        workers.GopherWorker  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        workers.nothing  # noqa: B018


@pytest.mark.parametrize("worker", ["FastCGIWorker", "SCGIWorker", "GatewayWorker"])
def test_a_worker_of_gunicorn_serves_its_protocol_and_sigterm_lets_it_finish(tmp_path: Path, worker: str) -> None:
    with gunicorn(tmp_path, worker, "--workers=2") as server:
        pid, code, _ = server.ask()
        assert code == "first"
        assert int(pid) in server.children()
        call = server.begin()
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server.address), "it still listens")
        answer = call.finish(b"ok")
        assert answer is not None
        assert answer.status == 200
        assert server.wait() == 0


def test_the_any_worker_tells_the_protocol_by_the_first_byte(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "GatewayWorker"):
        for protocol in ("fastcgi", "scgi"):
            answer = ask(f"{protocol}:unix:{tmp_path}/s")
            assert answer is not None
            assert answer.body.split()[2] == protocol


def test_gunicorn_reloads_its_worker_and_replaces_it_after_so_many_requests(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "FastCGIWorker", "--max-requests=3") as server:
        first = server.ask()[0]
        write(tmp_path, "second")
        server.signal(signal.SIGHUP)
        poll(lambda: server.ask()[1] == "second", "the new code does not come")
        server.gone(int(first))
        second = server.ask()[0]
        server.ask()
        server.wait_for(rf"worker {second} has answered 3 requests")
        server.gone(int(second))
        assert server.ask()[0] not in (first, second)


def test_a_wsgi_application_is_told_of_the_other_processes(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(WSGI)
    with gunicorn(tmp_path, "FastCGIWorker", "--workers=2") as server:
        assert server.ask()[1] == "True"


def test_a_worker_of_gunicorn_notices_that_its_arbiter_is_gone(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "FastCGIWorker") as server:
        server.ask()
        [pid] = server.children()
        server.signal(signal.SIGKILL)
        server.gone(pid)


def test_a_worker_of_gunicorn_that_hangs_is_killed_and_says_where_it_was(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "FastCGIWorker", "--timeout=2") as server:
        old = server.ask()[0]
        call = server.begin("/block")
        server.wait_for(r"time\.sleep\(60\)")
        poll(lambda: not refuses(server.address) and str(server.children()) != f"[{old}]", "it is not replaced")
        assert call.finish() is None
        poll(lambda: old != server.ask()[0], "it still answers")


def test_our_lines_are_in_gunicorns_logs(tmp_path: Path) -> None:
    access, errors = tmp_path / "access", tmp_path / "errors"
    with gunicorn(tmp_path, "FastCGIWorker", f"--access-logfile={access}", f"--error-logfile={errors}") as server:
        server.ask("/seen")
        poll(lambda: "GET /seen" in access.read_text(), "no line of the request")
        assert ask(server.address, "/die") is None
        poll(lambda: errors.read_text().count("Booting worker") == 2, "no other worker")


def test_http_is_a_protocol_like_any_other(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "HTTPWorker", "-b", "127.0.0.1:0") as server:
        [where] = server.wait_for(r"http://(127\.0\.0\.1:\d+)")
        assert get(where, "/").body.split()[2] == "http"
