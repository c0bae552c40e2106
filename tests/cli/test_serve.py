"""``gateways serve``: processes, signals, exit statuses and flags."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

import gateways
from tests.cli.program import HELLO, Call, Program, ask, command, environment, poll, refuses, run, serving

#: Reads the body, then answers or waits for ever.
SLOW = """\
import trio
from gateways import Response

async def app(request):
    await request.body.read()
    if request.path == "/forever":
        await trio.sleep_forever()
    return Response("done")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


# --- addresses


def test_several_protocols_are_served_at_once(folder: Path, address: str) -> None:
    binds = ["--bind", address, "--bind", "scgi:127.0.0.1:0", "--bind=http:127.0.0.1:0"]
    with serving("hello.py", *binds, cwd=folder) as program:
        bound = program.wait_for(r"^  (\S+)$", times=3)
        assert bound[0] == address
        answers = [ask(each, "/x") for each in bound]
    assert [answer and answer.body for answer in answers] == [
        "GET |/x by fastcgi\n",
        "GET |/x by scgi\n",
        "GET |/x by http\n",
    ]


def test_the_first_lines_tell_what_is_served_and_where(folder: Path, address: str) -> None:
    with serving("hello.py", "--bind", address, cwd=folder) as program:
        lines = program.text.splitlines()
    assert lines[:3] == [f"gateways {gateways.__version__} serving hello.py", f"  {address}", "stop with Ctrl-C"]


def test_mount_divides_the_path(folder: Path, address: str) -> None:
    with serving("hello.py", "--bind", address, "--mount", "/app", cwd=folder):
        inside, outside = ask(address, "/app/x"), ask(address, "/application")
    assert inside is not None
    assert inside.body == "GET /app|/x by fastcgi\n"
    assert outside is not None
    assert outside.status == 404


def test_a_folder_of_cgi_programs_is_served_under_the_limits(folder: Path, address: str) -> None:
    (folder / "cgi-bin").mkdir()
    for name, head in (("hello", "Content-Type: text/plain"), ("boasts", "Content-Type: text/" + "x" * 200)):
        (folder / "cgi-bin" / name).write_text(f"#!/bin/sh\nprintf '{head}\\n\\n'\necho $SCRIPT_NAME >&2; pwd -P")
        (folder / "cgi-bin" / name).chmod(0o755)
    flags = ["--bind", address, "--mount", "/cgi-bin", "--limit-head", "100"]
    with serving("cgi-bin", *flags, cwd=folder) as program:
        answers = [ask(address, f"/cgi-bin/{name}") for name in ("hello", "boasts", "nothing")]
        program.wait_for("/cgi-bin/hello$")
    assert [answer and answer.status for answer in answers] == [200, 502, 404]
    assert answers[0] is not None
    assert answers[0].body == f"{folder}/cgi-bin\n"


def test_socket_file_has_the_mode_asked_for(folder: Path, address: str) -> None:
    with serving("hello.py", "--bind", address, "--socket-mode", "0606", cwd=folder):
        assert stat.S_IMODE((folder / "app.sock").stat().st_mode) == 0o606


def test_a_peer_that_is_not_allowed_gets_no_answer(folder: Path) -> None:
    with serving("hello.py", "--bind", "scgi:127.0.0.1:0", "--allow-from", "192.0.2.1", cwd=folder) as program:
        [bound] = program.wait_for(r"^  (\S+)$")
        assert ask(bound) is None


# --- the log


def test_a_request_leaves_a_line(folder: Path, address: str) -> None:
    with serving("hello.py", "--bind", address, cwd=folder) as program:
        ask(address, "/seen", REMOTE_ADDR="192.0.2.7")
        program.wait_for(r'INFO 192\.0\.2\.7 "GET /seen" 200 \d+ \d+ms fastcgi$')


def test_the_access_log_can_be_switched_off(folder: Path, address: str) -> None:
    with serving("hello.py", "--bind", address, "--no-access-log", cwd=folder) as program:
        ask(address, "/seen")
        program.signal(signal.SIGTERM)
        program.wait()
        assert "/seen" not in program.text


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_F41_a_signal_lets_a_running_request_finish(folder: Path, address: str, number: signal.Signals) -> None:
    with serving("slow.py", "--bind", address, cwd=folder) as program:
        call = Call(address, "/", CONTENT_LENGTH="4")
        program.signal(number)
        poll(lambda: refuses(address), "no more connections are accepted")
        answer = call.finish(b"body")
        assert answer is not None
        assert answer.body == "done"
        assert program.wait() == 0
    assert not (folder / "app.sock").exists()


def test_a_second_signal_ends_at_once(folder: Path, address: str) -> None:
    with serving("slow.py", "--bind", address, "--timeout-shutdown-grace", "none", cwd=folder) as program:
        call = Call(address, "/forever", CONTENT_LENGTH="4")
        program.signal(signal.SIGTERM)
        poll(lambda: refuses(address), "no more connections are accepted")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        answer = call.finish()
        assert answer is None or answer.status == 503


def test_a_signal_while_the_application_starts_ends_it(folder: Path, address: str) -> None:
    (folder / "starting.py").write_text(
        "from contextlib import asynccontextmanager\nimport sys, trio\n@asynccontextmanager\nasync def app():\n"
        "    print('on my way', file=sys.stderr)\n    await trio.sleep_forever()\n    yield\n"
    )
    with Program(command("serve", "starting.py", "--bind", address), cwd=folder) as program:
        program.wait_for("on my way")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_the_application_is_started_once_and_shut_down(folder: Path, address: str) -> None:
    (folder / "managed.py").write_text(
        "from contextlib import asynccontextmanager\nimport sys\nfrom hello import app as handler\n"
        "@asynccontextmanager\nasync def app():\n    print('up', file=sys.stderr)\n    yield handler\n"
        "    print('down', file=sys.stderr)\n"
    )
    with serving("managed.py", "--bind", address, "--bind", "scgi:127.0.0.1:0", cwd=folder) as program:
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        lines = program.text.splitlines()
    assert (lines.count("up"), lines.count("down")) == (1, 1)


# --- exit statuses


APPLICATIONS = {
    "broken.py": "def (",
    "lacking.py": "import there_is_no_such_module",
    "raising.py": "1 / 0",
    "named.py": "async def handler(request): ...",
    "number.py": "app = 5",
    "failing.py": "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def app():\n"
    "    raise OSError('no database')\n    yield\n",
    "failing_otherwise.py": "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def app():\n"
    "    raise ValueError('no such setting')\n    yield\n",
}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["hello.py", "--bind", "fastcgi:unix:/there/is/no/such/folder/app.sock"], 1, "cannot listen on unix:/there"),
        (["hello.py", "--bind", "scgi:0.0.0.0:0"], 1, "--allow-public"),
        (["hello.py", "--bind", "fastcgi:unix:{folder}/hello.py"], 1, "something that is not a socket is in the way"),
        (["hello.py", "--bind", "gopher:unix:/x"], 2, "one of fastcgi, http, scgi"),
        (["hello.py", "--bind", "unix:/x"], 2, "write PROTOCOL:WHERE"),
        (["hello.py", "--bind", "fastcgi:nowhere"], 2, "not an address: 'nowhere'"),
        (["hello.py", "--bind", "fastcgi:unix:{folder}/s", "--mount", "app"], 2, "app"),
        (["hello.py", "--bind", "fastcgi:unix:{folder}/s", "--quirks", "mine"], 2, "no repair is called 'mine'"),
        (["hello.py", "--limit-params", "0"], 2, "max_params takes a whole number above 0"),
        (["hello.py", "--limit-params", "+3"], 2, "not a whole number: '+3'"),
        (["hello.py", "--timeout-idle", "soon"], 2, "neither a number of seconds nor none: 'soon'"),
        (["hello.py", "--socket-mode", "0999"], 2, "not a file mode"),
        (["hello.py", "--allow-from", "example.org"], 2, "not an IP address: 'example.org'"),
        (["hello.py", "--lim", "3"], 2, "unrecognized arguments"),
        ([], 2, "required: APP"),
        (["failing.py"], 3, "OSError: no database"),
        (["failing_otherwise.py"], 3, "ValueError: no such setting"),
        (["number.py"], 4, "number.py is of type int and cannot be called"),
        (["missing.py"], 4, "there is no file {folder}/missing.py"),
        (["missing"], 4, "there is no module 'missing' in {folder}"),
        (["hello.py:nothing"], 4, "hello.py has no 'nothing'; it has app: write hello.py:app"),
        (["named.py"], 4, "named.py has no 'app' and no 'application'; it has handler: write named.py:handler"),
        (["named.py:not-a-name"], 4, "names no application"),
        (["broken.py"], 4, "SyntaxError"),
        (["lacking.py"], 4, "No module named 'there_is_no_such_module'"),
        (["raising.py"], 4, "ZeroDivisionError"),
    ],
)
def test_F41_what_goes_wrong_is_said_and_told_by_the_status(
    folder: Path, address: str, arguments: list[str], status: int, said: str
) -> None:
    for name, text in APPLICATIONS.items():
        (folder / name).write_text(text)
    words = [word.format(folder=folder) for word in arguments]
    if "--bind" not in words:
        words += ["--bind", address]
    done = run("serve", *words, cwd=folder)
    assert (done.returncode, said.format(folder=folder) in done.stderr) == (status, True), done.stderr


def test_a_port_in_use_is_status_1(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "hello.py", "--bind", f"scgi:127.0.0.1:{port}", cwd=folder)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_an_address_that_cannot_be_had_leaves_nothing_of_the_others(folder: Path, address: str) -> None:
    done = run("serve", "hello.py", "--bind", address, "--bind", "scgi:unix:/there/is/no/such/x", cwd=folder)
    assert done.returncode == 1
    assert not (folder / "app.sock").exists()


def test_our_own_frames_are_not_in_the_way_of_an_import_error(folder: Path, address: str) -> None:
    (folder / "raising.py").write_text("1 / 0")
    done = run("serve", "raising.py", "--bind", address, cwd=folder)
    assert "1 / 0" in done.stderr
    assert "loading.py" not in done.stderr


# --- settings from the environment


def test_variables_stand_for_flags(folder: Path, address: str) -> None:
    variables = {
        "GATEWAYS_BIND": f"{address} scgi:127.0.0.1:0",
        "GATEWAYS_MOUNT": "/app",
        "GATEWAYS_NO_ACCESS_LOG": "1",
        "GATEWAYS_TRUST_REMOTE_USER": "0",
    }
    with serving("hello.py", cwd=folder, env=environment(variables)) as program:
        program.wait_for(r"^  scgi:127.0.0.1:\d+$")
        answer = ask(address, "/app/x")
        assert answer is not None
        assert answer.body == "GET /app|/x by fastcgi\n"
        program.signal(signal.SIGTERM)
        program.wait()
    assert "GET /app/x" not in program.text


def test_flags_win_over_variables(folder: Path, address: str) -> None:
    variables = {"GATEWAYS_BIND": "scgi:127.0.0.1:0", "GATEWAYS_MOUNT": "/other"}
    with serving("hello.py", "--bind", address, "--mount=/app", cwd=folder, env=environment(variables)) as program:
        assert program.wait_for(r"^  (\S+)$") == [address]
        answer = ask(address, "/app/x")
    assert answer is not None
    assert answer.body == "GET /app|/x by fastcgi\n"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GATEWAYS_LIMIT_PARMAS", "5", "there is no such limit"),
        ("GATEWAYS_LIMIT_PARAMS", "many", "not a whole number: 'many'"),
        ("GATEWAYS_STRICT", "maybe", "not 1 or 0"),
    ],
)
def test_a_wrong_variable_is_an_error(folder: Path, address: str, name: str, value: str, said: str) -> None:
    done = run("serve", "hello.py", "--bind", address, cwd=folder, environ={name: value})
    assert done.returncode == 2
    assert said in done.stderr


# --- without --bind


def test_started_by_nobody_it_explains_itself(folder: Path) -> None:
    done = run("serve", "hello.py", cwd=folder)
    assert done.returncode == 2
    assert "--bind fastcgi:unix:/tmp/app.sock" in done.stderr
    assert done.stdout == ""


def test_it_is_a_cgi_script_where_a_web_server_says_so(folder: Path) -> None:
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "PATH_INFO": "/x"}
    done = run("serve", "--mount", "/", "hello.py", cwd=folder, environ=variables)
    assert done.stdout.startswith("Status: 200 OK")
    assert done.stdout.endswith("GET |/x by cgi\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_F03_a_query_cannot_configure_a_cgi_script(folder: Path) -> None:
    # RFC 3875 section 4.4: a query without "=" may be handed to a script as its arguments.
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "QUERY_STRING": "--bind+scgi:127.0.0.1:0"}
    done = run("serve", "hello.py", "--bind", "scgi:127.0.0.1:0", "--help", "more", cwd=folder, environ=variables)
    assert done.returncode == 0
    assert done.stdout.startswith("Status: 200 OK")


def test_F01_fastcgi_on_fd_0_with_every_other_descriptor_closed(folder: Path, address: str) -> None:
    # FastCGI section 2.2. The file that is opened first must not become stdout or stderr.
    (folder / "writing.py").write_text(
        "import os\nfrom gateways import Response\nnotes = open('notes', 'w')\nasync def app(request):\n"
        "    os.write(1, b'stray')\n    os.write(2, b'stray')\n    print('stray')\n    return Response('served')\n"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/app.sock")
        listening.listen()
        words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command("serve", "writing.py")]
        with Program(words, cwd=folder, stdin=listening) as program:
            answer = ask(address)
            assert answer is not None
            assert answer.body == "served"
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
    assert (folder / "notes").read_bytes() == b""


def test_every_limit_has_a_flag(folder: Path) -> None:
    help_text = run("serve", "--help", cwd=folder).stdout
    for field in gateways.Limits.fields():
        name = field.removeprefix("max_").replace("_", "-")
        assert f"--limit-{name} N" in help_text or f"--timeout-{name.removesuffix('-timeout')} N" in help_text


def test_a_limit_that_is_asked_for_is_kept(folder: Path, address: str) -> None:
    with serving("slow.py", "--bind", address, "--limit-read", "3", cwd=folder):
        answer = Call(address, "/", CONTENT_LENGTH="4").finish(b"body")
    assert answer is not None
    assert answer.status == 413


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is warned")
def test_root_is_warned(folder: Path, address: str) -> None:
    with serving("hello.py", "--bind", address, cwd=folder) as program:
        program.wait_for("^warning: running as root")
