"""``gateways serve`` with the flags by which it lets itself be watched."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import (
    Answer,
    Call,
    Program,
    ask,
    command,
    connect,
    environment,
    get,
    poll,
    refuses,
    run,
    serving,
)
from tests.metrics.tools import samples

APP = """\
import sys, time
from gateways import Response

async def app(request):
    if request.path == "/block":
        sys.stderr.write("blocked\\n")
        sys.stderr.flush()
        time.sleep(3600)
    return Response(f"the application at {request.path}")
"""

SLOW_START = """\
import sys
from contextlib import asynccontextmanager

import trio
from gateways import Response

async def hello(request):
    return Response("hello")

@asynccontextmanager
async def app():
    sys.stderr.write("starting\\n")
    sys.stderr.flush()
    await trio.to_thread.run_sync(sys.stdin.read)
    yield hello
"""

WSGI = """\
import sys, time

def application(environ, start_response):
    sys.stderr.write("a thread is busy\\n")
    sys.stderr.flush()
    time.sleep(3600)
"""


@pytest.fixture(autouse=True)
def apps(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "blocking.py").write_text(WSGI)


def test_the_metrics_are_told_and_the_pages_are_answered(tmp_path: Path) -> None:
    address = f"fastcgi:unix:{tmp_path}/a"
    flags = ["--metrics", "127.0.0.1:0", "--ping-path", "/ping", "--status-path", "/status"]
    with serving("app.py", "--bind", address, *flags, cwd=tmp_path) as program:
        [where] = program.wait_for("^metrics on (.*)$")
        assert ask(address, "/x") == Answer(200, "the application at /x")
        assert ask(address, "/ping") == Answer(200, "pong\n")

        def told() -> dict[tuple[str, ...], float]:
            return samples(get(where, "/metrics").body)

        # An answer is counted once it has been sent.
        poll(lambda: told()["gateways_requests_total", "code=2xx"] == 2, "two answers")
        assert told()["gateways_workers", "state=ready"] == 1
        answer = ask(address, "/status", QUERY_STRING="json")
        assert answer is not None
        assert json.loads(answer.body)["requests"] == 2
        poll(lambda: json.loads(get(where, "/status?json").body)["requests"] == 3, "three answers")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert refuses(f"http:{where}")


def test_without_the_flags_nothing_is_there(tmp_path: Path) -> None:
    address = f"fastcgi:unix:{tmp_path}/a"
    with serving("app.py", "--bind", address, cwd=tmp_path) as program:
        for path in ("/ping", "/status", "/metrics"):
            assert ask(address, path) == Answer(200, f"the application at {path}")
        assert "metrics" not in program.text


def test_O15_the_metrics_are_told_while_the_event_loop_is_blocked(tmp_path: Path) -> None:
    address = f"fastcgi:unix:{tmp_path}/a"
    with serving("app.py", "--bind", address, "--metrics", "127.0.0.1:0", cwd=tmp_path) as program:
        [where] = program.wait_for("^metrics on (.*)$")
        call = Call(address, "/block")
        program.wait_for("^blocked$")
        assert get(where, "/ping") == Answer(200, "pong\n")
        assert samples(get(where, "/metrics").body)["gateways_requests_running",] == 1
        assert json.loads(get(where, "/status?json").body)["active processes"] == 1
        program.process.kill()
        assert call.finish() is None


def test_the_pages_are_answered_while_every_thread_is_busy(tmp_path: Path) -> None:
    address = f"fastcgi:unix:{tmp_path}/a"
    flags = ["--threads", "2", "--ping-path", "/ping", "--status-path", "/status"]
    with serving("blocking.py", "--bind", address, *flags, cwd=tmp_path) as program:
        calls = [Call(address) for _ in range(3)]
        program.wait_for("^a thread is busy$", times=2)
        assert ask(address, "/ping") == Answer(200, "pong\n")
        answer = ask(address, "/status", QUERY_STRING="json")
        assert answer is not None
        assert json.loads(answer.body)["running requests"] == 4  # this one, too
        program.process.kill()
        assert [call.finish() for call in calls] == [None] * 3


def test_the_environment_names_them_too(tmp_path: Path) -> None:
    environ = environment({"GATEWAYS_METRICS": f"unix:{tmp_path}/metrics", "GATEWAYS_PING_PATH": "/alive"})
    with serving("app.py", "--bind", f"fastcgi:unix:{tmp_path}/a", cwd=tmp_path, env=environ) as program:
        program.wait_for("^metrics on unix:")
        assert ask(f"fastcgi:unix:{tmp_path}/a", "/alive") == Answer(200, "pong\n")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert not (tmp_path / "metrics").exists()


def test_it_is_not_ready_before_the_application_has_started(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SLOW_START)
    flags = ["--bind", f"fastcgi:unix:{tmp_path}/a", "--metrics", "127.0.0.1:0"]
    with Program(command("serve", "app.py", *flags), cwd=tmp_path, stdin=subprocess.PIPE) as program:
        [where] = program.wait_for("^metrics on (.*)$")
        program.wait_for("^starting$")
        assert get(where, "/ping") == Answer(503, "no worker is ready\n")
        assert samples(get(where, "/metrics").body)["gateways_workers", "state=starting"] == 1
        assert program.process.stdin is not None
        program.process.stdin.close()
        program.wait_for("^stop with Ctrl-C$")
        assert get(where, "/ping") == Answer(200, "pong\n")


def test_a_reload_keeps_the_listener(tmp_path: Path) -> None:
    with serving("app.py", "--bind", f"fastcgi:unix:{tmp_path}/a", "--metrics", "127.0.0.1:0", cwd=tmp_path) as program:
        [where] = program.wait_for("^metrics on (.*)$")
    flags = ["--bind", f"fastcgi:unix:{tmp_path}/a", "--metrics", where]
    with serving("app.py", *flags, cwd=tmp_path) as program:
        program.signal(signal.SIGHUP)
        program.wait_for("^stop with Ctrl-C$", times=2)
        assert get(where, "/ping") == Answer(200, "pong\n")


def test_a_reload_keeps_the_socket_file(tmp_path: Path) -> None:
    flags = ["--bind", f"fastcgi:unix:{tmp_path}/a", "--metrics", f"unix:{tmp_path}/metrics"]
    with serving("app.py", *flags, cwd=tmp_path) as program:
        program.signal(signal.SIGHUP)
        program.wait_for("^stop with Ctrl-C$", times=2)
        with connect(f"unix:{tmp_path}/metrics") as client:
            client.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--metrics", "0.0.0.0:0"], 1, "--metrics: 0.0.0.0 can be reached from other machines"),
        (["--metrics", "unix:/nowhere/at/all"], 1, "--metrics: cannot listen on unix:/nowhere/at/all"),
        (["--metrics", "9113"], 2, "--metrics: not an address: '9113'"),
        (["--ping-path", "ping"], 2, "'ping' does not begin with a slash"),
        (["--ping-path", "/x", "--status-path", "/x"], 2, "/x cannot be both the ping and the status"),
        (["--ping-path", "/ping", "--mount", "/app"], 2, "/ping is not below the mount /app"),
    ],
)
def test_what_makes_no_sense_ends_it_before_it_serves(
    flags: list[str], status: int, message: str, tmp_path: Path
) -> None:
    done = run("serve", "app.py", "--bind", f"fastcgi:unix:{tmp_path}/a", *flags, cwd=tmp_path)
    assert done.returncode == status
    assert message in done.stderr
    assert not (tmp_path / "a").exists()


def test_an_address_that_is_taken_ends_it(tmp_path: Path) -> None:
    with serving("app.py", "--bind", f"fastcgi:unix:{tmp_path}/a", "--metrics", "127.0.0.1:0", cwd=tmp_path) as first:
        [where] = first.wait_for("^metrics on (.*)$")
        done = run("serve", "app.py", "--bind", f"fastcgi:unix:{tmp_path}/b", "--metrics", where, cwd=tmp_path)
    assert done.returncode == 1
    assert f"--metrics: cannot listen on {where}: Address already in use" in done.stderr


def test_without_prometheus_client_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None; from gateways.cli import main; "
        f"sys.exit(main(['serve', 'app.py', '--bind', 'fastcgi:unix:{tmp_path}/a', '--metrics', '127.0.0.1:0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'gateways[metrics]'" in done.stderr


def test_a_cgi_script_with_these_flags_answers_and_listens_nowhere(tmp_path: Path) -> None:
    environ = environment(
        {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REQUEST_METHOD": "GET",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "/ping",
            "GATEWAYS_METRICS": f"unix:{tmp_path}/nowhere/metrics",
            "GATEWAYS_PING_PATH": "/ping",
        }
    )
    done = run("serve", "app.py", cwd=tmp_path, environ=environ)
    assert (done.returncode, done.stdout.rpartition("\n\n")[2]) == (0, "pong\n"), done.stderr
