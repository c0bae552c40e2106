"""Launching: many addresses at once, and whoever started this process."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import gateways
from gateways import Handler, Listen, Request, Response, launch
from tests.cli.program import HELLO, Call, Program, ask, command, environment, poll, refuses, run

# --- serve


async def hello(request: Request) -> Response:
    return Response(f"{request.script_name}|{request.path_info} by {request.protocol}")


async def answer_of(address: str, path: str = "/") -> str:
    answer = await trio.to_thread.run_sync(ask, address, path)
    assert answer is not None
    return answer.body


async def test_serve_hands_out_addresses_in_order_with_their_protocols(tmp_path: Path, nursery: trio.Nursery) -> None:
    listen: list[str | Listen] = [
        f"fastcgi:unix:{tmp_path}/a",
        "scgi:127.0.0.1:0",
        Listen(f"scgi:unix:{tmp_path}/b", mode=0o600),
    ]
    bound: list[str] = await nursery.start(partial(gateways.serve, hello, listen, mount="/m"))
    port = bound[1].rpartition(":")[2]
    assert bound == [f"fastcgi:unix:{tmp_path}/a", f"scgi:127.0.0.1:{port}", f"scgi:unix:{tmp_path}/b"]
    assert [await answer_of(each, "/m/x") for each in bound] == ["/m|/x by fastcgi", "/m|/x by scgi", "/m|/x by scgi"]
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    nursery.cancel_scope.cancel()


async def test_serve_starts_the_application_once_and_stops_it(tmp_path: Path) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler, None]:
        log.append("up")
        yield hello
        log.append("down")

    stop = trio.Event()
    listen = [f"fastcgi:unix:{tmp_path}/a", f"scgi:unix:{tmp_path}/b"]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(gateways.serve, app, listen, stop=stop))
        assert log == ["up"]
        stop.set()
    assert log == ["up", "down"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "listen", ["gopher:unix:/x", "unix:/x", "fastcgi", "fastcgi:", "cli:127.0.0.1:0", "_net:x", "", []]
)
async def test_serve_refuses_what_names_no_protocol(listen: str | list[str]) -> None:
    with pytest.raises(ValueError, match="address to serve on"):
        await gateways.serve(hello, listen)


async def test_serve_names_the_protocols_there_are() -> None:
    with pytest.raises(ValueError, match="one of fastcgi, http, scgi, or any"):
        await gateways.serve(hello, "gopher:unix:/x")


async def test_an_address_that_cannot_be_had_is_a_plain_error_and_nothing_stays_bound(tmp_path: Path) -> None:
    listen = [f"fastcgi:unix:{tmp_path}/a", f"scgi:unix:{tmp_path}/missing/b"]
    with pytest.raises(OSError, match="cannot listen on"):
        await gateways.serve(hello, listen)
    assert os.listdir(tmp_path) == []


async def test_what_an_application_raises_while_it_starts_is_raised_as_it_is(tmp_path: Path) -> None:
    cause = KeyError("why")

    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler, None]:
        raise LookupError("no database") from cause
        yield hello

    with pytest.raises(LookupError, match="no database") as raised:
        await gateways.serve(app, f"fastcgi:unix:{tmp_path}/a")
    assert raised.value.__cause__ is cause


async def test_several_errors_stay_together(tmp_path: Path) -> None:
    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler, None]:
        raise ExceptionGroup("start-up", [KeyError("one"), LookupError("two")])
        yield hello

    with pytest.raises(ExceptionGroup) as raised:
        await gateways.serve(app, f"fastcgi:unix:{tmp_path}/a")
    assert [str(error) for error in raised.value.exceptions] == ["'one'", "two"]


def test_protocols_are_found_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gopher", "_private", "no_transport"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        if name != "no_transport":
            (tmp_path / name / "transport.py").write_text("")
    monkeypatch.setattr(gateways, "__path__", [*gateways.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    assert launch.protocols() == ["fastcgi", "gopher", "http", "scgi"]


# --- who started us


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (None, None),
        ("192.0.2.1", ("192.0.2.1",)),
        ("192.0.2.1,2001:DB8::1", ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_F04_web_server_addresses(text: str | None, allowed: tuple[str, ...] | None) -> None:
    environ = {} if text is None else {"FCGI_WEB_SERVER_ADDRS": text}
    assert launch.allowed_addresses(environ) == allowed


@pytest.mark.parametrize(
    "text", ["", ",", "localhost", "192.0.2.1,", "192.0.2.01", "192.0.2", "192.0.2.1, 192.0.2.2", "192.0.2.0/24"]
)
def test_F04_web_server_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="FCGI_WEB_SERVER_ADDRS"):
        launch.allowed_addresses({"FCGI_WEB_SERVER_ADDRS": text})


@pytest.mark.parametrize(
    ("count", "names", "addresses"),
    [
        ("1", None, ["any:fd:3"]),
        ("1", "scgi", ["scgi:fd:3"]),
        ("3", "scgi.socket:web.socket:http", ["scgi:fd:3", "any:fd:4", "http:fd:5"]),
        ("2", "scgi", ["scgi:fd:3", "any:fd:4"]),
        ("0", None, []),
        ("two", None, []),
        ("²", None, []),
    ],
)
def test_sockets_of_systemd(count: str, names: str | None, addresses: list[str]) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    if names is not None:
        environ["LISTEN_FDNAMES"] = names
    with standard_input(os.open(os.devnull, os.O_RDONLY)):
        assert launch.inherited(environ) == addresses


def test_sockets_for_another_process_are_not_ours() -> None:
    with standard_input(os.open(os.devnull, os.O_RDONLY)):
        assert launch.inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
        assert launch.inherited({"LISTEN_FDS": "1"}) == []


@contextmanager
def standard_input(descriptor: int | None) -> Generator[None, None, None]:
    """Have a descriptor (or none) as fd 0 for a while; it is closed."""
    saved = os.dup(0)
    try:
        if descriptor is None:
            os.close(0)
        else:
            os.dup2(descriptor, 0)
            os.close(descriptor)
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6])
def test_F02_a_listening_socket_on_fd_0_is_found(tmp_path: Path, family: socket.AddressFamily) -> None:
    hosts: dict[int, Any] = {
        socket.AF_UNIX: f"{tmp_path}/s",
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
    }
    # That getpeername fails with ENOTCONN, as section 2.2 has it, is also so for a socket whose peer has gone, and for
    # one that nobody listens on: what is asked is whether it accepts connections.
    with socket.socket(family) as listening:
        try:
            listening.bind(hosts[family])
        except OSError:
            pytest.skip("no such addresses here")
        listening.listen()
        with standard_input(os.dup(listening.fileno())):
            assert launch.inherited({}) == ["any:fd:0"]


def test_F02_a_connected_socket_on_fd_0_is_the_stdin_of_a_cgi_script() -> None:
    ours, theirs = socket.socketpair()
    with ours, standard_input(theirs.detach()):
        assert launch.inherited({}) == []


def test_fd_0_may_be_closed() -> None:
    with standard_input(None):
        assert launch.inherited({}) == []


# --- run, as a program of its own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "main.py").write_text(
        "import sys\nbefore = set(sys.modules)\nimport gateways\nfrom hello import app\n"
        "settings = eval(sys.argv[1]) if len(sys.argv) > 1 else {}\n"
        "gateways.run(app, on_start=lambda bound: print('bound', *bound, file=sys.stderr, flush=True), **settings)\n"
        "print('loaded', sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    return tmp_path


def main(settings: str = "{}") -> list[str]:
    return [sys.executable, "main.py", settings]


#: Gives a program descriptors from 3 on, as systemd does; the arguments are those descriptors, a dash, the command.
AS_SYSTEMD = [
    sys.executable,
    "-c",
    "import os, sys\ndash = sys.argv.index('-')\nfor at, number in enumerate(sys.argv[1:dash]):\n"
    "    os.dup2(int(number), 3 + at)\nos.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execv(sys.argv[dash + 1], sys.argv[dash + 1:])\n",
]


@contextmanager
def listening_at(where: str) -> Generator[socket.socket, None, None]:
    unix = where.startswith("unix:")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET6 if ":" in where else socket.AF_INET) as listening:
        listening.bind(where.removeprefix("unix:") if unix else (where, 0))
        listening.listen()
        yield listening


def where_is(listening: socket.socket) -> str:
    name = listening.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def test_F41_run_binds_and_stops(folder: Path) -> None:
    with Program(main(f"dict(bind='fastcgi:unix:{folder}/s', mount='/app')"), cwd=folder) as program:
        assert program.wait_for("^bound (.*)$") == [f"fastcgi:unix:{folder}/s"]
        answer = ask(f"fastcgi:unix:{folder}/s", "/app/x")
        assert answer is not None
        assert answer.body == "GET /app|/x by fastcgi\n"
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_run_serves_the_sockets_of_systemd(folder: Path) -> None:
    with listening_at(f"unix:{folder}/one") as one, listening_at(f"unix:{folder}/two") as two:
        # Out of the way of 3 and 4, which they are to become.
        numbers = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 10) for each in (one, two)]
        words = [*AS_SYSTEMD, *[str(number) for number in numbers], "-", *main()]
        env = environment({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "scgi:web.socket"})
        with Program(words, cwd=folder, pass_fds=numbers, env=env) as program:
            program.wait_for("^bound ")
            for number in numbers:
                os.close(number)
            scgi, fastcgi = ask(f"scgi:unix:{folder}/one"), ask(f"fastcgi:unix:{folder}/two")
    assert scgi is not None
    assert scgi.body == "GET |/ by scgi\n"
    assert fastcgi is not None
    assert fastcgi.body == "GET |/ by fastcgi\n"


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
def test_run_serves_on_fd_0_what_each_connection_speaks(folder: Path, protocol: str) -> None:
    with listening_at(f"unix:{folder}/s") as listening, Program(main(), cwd=folder, stdin=listening) as program:
        assert program.wait_for("^bound (.*)$") == [f"any:unix:{folder}/s"]
        answer = ask(f"{protocol}:unix:{folder}/s")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert answer is not None
    assert answer.body == f"GET |/ by {protocol}\n"


def test_F01_run_needs_no_descriptor_but_fd_0(folder: Path) -> None:
    # FastCGI section 2.2. Whatever trio opens must not become stdout.
    (folder / "hello.py").write_text(
        "import os\nfrom gateways import Response\nasync def app(request):\n"
        "    os.write(1, b'stray')\n    print('stray')\n    request.log('stray')\n    return Response('served')\n"
    )
    words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *main()]
    with listening_at(f"unix:{folder}/s") as listening, Program(words, cwd=folder, stdin=listening) as program:
        answer = ask(f"fastcgi:unix:{folder}/s")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert answer is not None
    assert answer.body == "served"


def test_F04_W54_an_inherited_tcp_socket_is_warned_about_unless_it_is_said_who_may_connect(folder: Path) -> None:
    with listening_at("127.0.0.1") as listening:
        with Program(main(), cwd=folder, stdin=listening) as program:
            program.wait_for("^bound ")
            assert "name the web servers in FCGI_WEB_SERVER_ADDRS" in program.text
        env = environment({"FCGI_WEB_SERVER_ADDRS": "127.0.0.1"})
        with Program(main(), cwd=folder, stdin=listening, env=env) as program:
            program.wait_for("^bound ")
            assert "FCGI_WEB_SERVER_ADDRS" not in program.text
            answer = ask(f"fastcgi:{where_is(listening)}")
    assert answer is not None
    assert answer.status == 200


def test_F03_run_looks_at_no_argument(folder: Path) -> None:
    # Neither at those that a web server appends nor at the name of the program, which need not be there.
    (folder / "bare.py").write_text(
        "import sys\nfrom hello import app\nif sys.argv[1:] == ['none']:\n    sys.argv.clear()\n"
        "import gateways\n"
        "gateways.run(app, on_start=lambda bound: print('bound', *bound, file=sys.stderr, flush=True))\n"
    )
    for arguments in (["none"], ["--bind", "scgi:127.0.0.1:0", "--help", "q=1+2", "--no-such-flag"]):
        words = [sys.executable, "bare.py", *arguments]
        (folder / "s").unlink(missing_ok=True)
        with listening_at(f"unix:{folder}/s") as listening, Program(words, cwd=folder, stdin=listening) as program:
            assert program.wait_for("^bound (.*)$") == [f"any:unix:{folder}/s"]
            answer = ask(f"fastcgi:unix:{folder}/s")
        assert answer is not None
        assert answer.body == "GET |/ by fastcgi\n"


@pytest.mark.parametrize("where", ["127.0.0.1", "::1"])
def test_F04_a_web_server_that_is_listed_is_served(folder: Path, where: str) -> None:
    if where == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")
    env = environment({"FCGI_WEB_SERVER_ADDRS": "192.0.2.1,127.0.0.1,::1"})
    with listening_at(where) as listening, Program(main(), cwd=folder, stdin=listening, env=env) as program:
        program.wait_for("^bound ")
        answer = ask(f"fastcgi:{where_is(listening)}")
    assert answer is not None
    assert answer.status == 200


def has_ipv6() -> bool:
    try:
        with listening_at("::1"):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("where", ["127.0.0.1", "unix:{folder}/s"])
def test_F04_W54_a_web_server_that_is_not_listed_is_refused(folder: Path, where: str) -> None:
    # FastCGI section 3.2: so is every connection that is not over TCP/IP.
    env = environment({"FCGI_WEB_SERVER_ADDRS": "192.0.2.1,192.0.2.2"})
    with (
        listening_at(where.format(folder=folder)) as listening,
        Program(main(), cwd=folder, stdin=listening, env=env) as program,
    ):
        program.wait_for("^bound ")
        assert ask(f"fastcgi:{where_is(listening)}") is None


def test_F04_W54_a_list_of_web_servers_that_cannot_be_read_keeps_it_from_starting(folder: Path) -> None:
    env = environment({"FCGI_WEB_SERVER_ADDRS": "localhost"})
    with (
        listening_at("127.0.0.1") as listening,
        Program(command("serve", "hello.py"), cwd=folder, stdin=listening, env=env) as program,
    ):
        assert program.wait() == 2
    assert "FCGI_WEB_SERVER_ADDRS wants IP addresses" in program.text


def test_addresses_that_are_allowed_in_code_win_over_the_variable(folder: Path) -> None:
    env = environment({"FCGI_WEB_SERVER_ADDRS": "192.0.2.1"})
    with (
        listening_at("127.0.0.1") as listening,
        Program(main("dict(allow_from=['127.0.0.1'])"), cwd=folder, stdin=listening, env=env) as program,
    ):
        program.wait_for("^bound ")
        assert ask(f"fastcgi:{where_is(listening)}") is not None


def test_run_is_a_cgi_script_and_loads_no_server_for_it(folder: Path) -> None:
    env = environment({"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "PATH_INFO": "/x"})
    with Program(main(), cwd=folder, env=env, stdout=subprocess.PIPE) as program:
        answer, _ = program.process.communicate(timeout=30)
    assert answer.endswith(b"GET |/x by cgi\n")


def test_run_loads_neither_trio_nor_attrs_for_a_cgi_script(folder: Path) -> None:
    env = environment({"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"})
    with Program(main(), cwd=folder, env=env, stdout=subprocess.DEVNULL) as program:
        assert program.wait() == 0
    assert "'gateways.cgi.guest'" in program.text
    for module in ("trio", "attr", "typing", "logging", "enum", "re", "argparse", "urllib", "socket"):
        assert f"'{module}'" not in program.text


def test_run_started_by_nobody_explains_itself(folder: Path) -> None:
    with Program(main(), cwd=folder) as program:
        assert program.wait() == 2
    assert "Nothing has started this as a gateway program" in program.text


def test_F41_a_signal_lets_a_request_finish_and_a_second_does_not(folder: Path) -> None:
    (folder / "hello.py").write_text(
        "from gateways import Response\nasync def app(request):\n    await request.body.read()\n"
        "    return Response('x')\n"
    )
    address = f"fastcgi:unix:{folder}/s"
    with Program(main(f"dict(bind={address!r})"), cwd=folder) as program:
        program.wait_for("^bound ")
        call = Call(address, CONTENT_LENGTH="1")
        program.signal(signal.SIGINT)
        poll(lambda: refuses(address), "no more connections are accepted")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        call.finish()


def test_python_m_gateways_is_the_command_line(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.startswith("gateways ")
