"""What ``gateways config`` prints: accepted by the server's own checker, and serving, with a real backend behind it.

Each configuration is printed by the command, pasted as it is, checked and run; the backend is started by the very
command that the configuration names in its first lines.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shlex
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.cli.program import Program, ask, command, environment, poll, run
from tests.interop.client import Answer, Exchange, fetch, open_request
from tests.interop.servers import (
    SERVER_NAME,
    FrontEnd,
    check_generated,
    free_port,
    private_folder,
    python_script,
    require,
    running_generated,
)

#: An application that tells what it was sent, and one that streams.
APP = """\
import json

import trio

from gateways import Response

released = None
begun = 0


async def app(request):
    global released, begun
    if released is None:
        released = trio.Event()
    where = request.path_info.rpartition("/")[2]
    if where == "release":
        released.set()
        return Response("released")
    if where == "begun":
        return Response(str(begun))
    if where == "stream":
        begun += 1

        async def pieces(send):
            await send("one\\n")
            await released.wait()
            await send("two\\n")

        return Response(pieces, content_type="text/event-stream")
    body = await request.body.read()
    return Response.json({
        "method": request.method,
        "script_name": request.script_name,
        "path_info": request.path_info,
        "query": request.query_string,
        "type": request.content_type,
        "body": body.decode("latin-1"),
        "sent": request.environ_as_sent,
        "environ": dict(request.environ),
        "remote": request.remote_addr,
        "user": request.remote_user,
    })
"""

#: gateways config's name for a server -> the tests' name.
PROGRAMS = {name: name for name in ("nginx", "lighttpd", "caddy", "haproxy", "h2o")} | {"apache": "apache2"}

#: The most bytes of a body in these configurations.
LIMIT = 65_536


@attrs.frozen
class Case:
    """One configuration: a server, a protocol, a transport, a mount; and whether it streams."""

    server: str
    protocol: str
    transport: str
    mount: str
    streaming: bool = False

    def __str__(self) -> str:
        words = (self.server, self.protocol, self.transport, self.mount.strip("/") or "root")
        return "-".join((*words, "streaming")) if self.streaming else "-".join(words)


CASES = [
    *[
        case
        for server in ("nginx", "apache", "lighttpd")
        for case in (
            Case(server, "fastcgi", "unix", "", streaming=True),
            Case(server, "fastcgi", "tcp", "/app"),
            Case(server, "scgi", "unix", "/app", streaming=True),
            Case(server, "scgi", "tcp", ""),
        )
    ],
    Case("apache", "cgi", "script", "/app"),
    Case("lighttpd", "cgi", "script", "/app"),
    *[
        case
        for server in ("caddy", "haproxy", "h2o")
        for case in (Case(server, "fastcgi", "unix", "", streaming=True), Case(server, "fastcgi", "tcp", "/app"))
    ],
]

#: Servers that hand on a field of the client's whose name has an underscore in it, and cannot be told not to.
PASSES_UNDERSCORES = {"lighttpd", "h2o"}
#: Servers that do not let fields be taken out of a request.
PASSES_FORWARDED = {"h2o"}

#: Where each says how long it waits for an application that is silent.
PATIENCE_OF = {
    "nginx": r"_read_timeout (\d+)s;",
    "apache": r"(?: timeout=| CGIDScriptTimeout )(\d+)",
    "lighttpd": r'"read-timeout" => (\d+)',
    "caddy": r"read_timeout (\d+)s",
    "haproxy": r"timeout server (\d+)s",
    "h2o": r"fastcgi.timeout.io: (\d+)",
}

#: What no configuration mends: mod_proxy_scgi knows no other SCRIPT_FILENAME, and no empty SCRIPT_NAME.
#: h2o cannot take out of a request what a client says of itself.
UNAVOIDABLE = {
    ("apache", "scgi"): 'SCRIPT_FILENAME|SCRIPT_NAME (was|is) "/"',
    ("h2o", "fastcgi"): r"advice \(forwarded",
}


def config(*words: str, cwd: Path) -> str:
    """What the command prints."""
    printed = run("config", *words, cwd=cwd)
    assert printed.returncode == 0, printed.stderr
    assert printed.stderr.startswith("goes to ")
    return printed.stdout


def served_by(text: str) -> list[list[str]]:
    """The commands that a configuration names, as words."""
    return [shlex.split(line.lstrip("# ")) for line in re.findall(r"^#   (gateways serve .*)$", text, re.MULTILINE)]


@attrs.frozen
class Running:
    """A configuration at work: the web server, and the backend if it is a process of its own."""

    case: Case
    text: str
    folder: Path
    port: int
    web: FrontEnd
    backend: Program | None

    async def get(self, path: str, headers: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """What the application was sent, when this is asked for below the mount."""
        answer = await fetch(self.port, "GET", self.case.mount + path, [("Host", self.host), *headers])
        return told(answer)

    @property
    def host(self) -> str:
        return f"{SERVER_NAME}:{self.port}"


def told(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, (answer.status, answer.body[:300])
    assert answer.complete
    return dict(json.loads(answer.body))


@contextmanager
def at_work(case: Case, *more: str) -> Generator[Running]:
    """Print the configuration, check it, start the backend that it names and the web server."""
    require(PROGRAMS[case.server])
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        (folder / "app.py").write_text(APP)
        (folder / "files").mkdir()
        (folder / "files" / "hello.txt").write_text("a file\n")
        (folder / "secret.txt").write_text("a secret\n")
        port, text = printed(case, folder, *more)
        verdict = check_generated(PROGRAMS[case.server], text, folder)
        assert verdict.status == 0, verdict.text
        assert not re.search(r"(?i)\bwarn", without_loopback_notes(verdict.text)), verdict.text
        backend = stack.enter_context(started(text, folder)) if case.protocol != "cgi" else None
        web = stack.enter_context(running_generated(PROGRAMS[case.server], folder, port))
        yield Running(case, text, folder, port, web, backend)


def printed(case: Case, folder: Path, *more: str) -> tuple[int, str]:
    """The port, and what the command prints for this case."""
    port = free_port()
    program = folder / "gateways"
    if case.protocol == "cgi":
        (folder / "cgi").mkdir()
        program.write_text(python_script("from gateways.cli import main\nsys.exit(main())\n"))
        program.chmod(0o755)
        where = f"cgi:{folder}/cgi/app.cgi"
    else:
        address = f"unix:{folder}/app.sock" if case.transport == "unix" else f"127.0.0.1:{free_port(besides=port)}"
        where = f"{case.protocol}:{address}"
    words = [case.server, "app.py", "--bind", where, "--server-name", SERVER_NAME, "--listen", f"127.0.0.1:{port}"]
    words += ["--mount", case.mount] if case.mount else []
    words += ["--streaming"] if case.streaming else []
    words += ["--static", f"/static={folder}/files"] if case.server != "haproxy" else []
    words += ["--socket-group", grp.getgrgid(os.getgid()).gr_name, "--max-body", str(LIMIT), "--app-dir", str(folder)]
    text = config(*words, "--timeout-request", "30", "--program", str(program), *more, cwd=folder)
    if case.protocol == "cgi":
        [script] = re.findall(r"^#   (#!/bin/sh)\n#   (.*)$", text, re.MULTILINE)
        (folder / "cgi" / "app.cgi").write_text("\n".join(script) + "\n")
        (folder / "cgi" / "app.cgi").chmod(0o755)
    return port, text


@contextmanager
def started(text: str, folder: Path) -> Generator[Program]:
    """The backend, by the command in the configuration. The web server runs as somebody else here: any may connect."""
    [words] = served_by(text)
    with Program([*command(), *words[1:], "--socket-mode", "0666"], cwd=folder, env=environment()) as program:
        program.wait_for("^stop with Ctrl-C$")
        yield program


def without_loopback_notes(text: str) -> str:
    # Caddy says at the level of a warning that it serves plain HTTP, or that a Caddyfile could be indented otherwise.
    return "\n".join(line for line in text.splitlines() if "automatic HTTPS is completely disabled" not in line)


@pytest.fixture(scope="module", params=CASES, ids=str)
def running(request: pytest.FixtureRequest) -> Generator[Running]:
    with at_work(request.param) as running:
        yield running


# --- every configuration


async def test_D12_the_path_is_divided_at_the_mount_and_decoded_once(running: Running) -> None:
    sent = await running.get("/a%2Fb%20c/%E2%82%AC?x=1&y=%2F")
    assert (sent["script_name"], sent["path_info"]) == (running.case.mount, "/a/b c/€")
    assert sent["query"] == "x=1&y=%2F"
    sent = await running.get("/")
    assert (sent["script_name"], sent["path_info"]) == (running.case.mount, "/")


async def test_D12_the_mount_itself_and_a_path_that_only_begins_like_it(running: Running) -> None:
    if not running.case.mount:
        return
    sent = await running.get("")
    assert (sent["script_name"], sent["path_info"]) == ("/app", "")
    beside = await fetch(running.port, "GET", "/application", [("Host", running.host)])
    assert beside.status in (404, 503)
    assert b"script_name" not in beside.body
    assert beside.header("content-type") != "application/json"


async def test_a_body_arrives_with_its_type(running: Running) -> None:
    headers = [("Host", running.host), ("Content-Type", "text/x-test")]
    body = b"x" * 20_000
    answer = await fetch(running.port, "POST", f"{running.case.mount}/form", headers, body)
    sent = told(answer)
    assert (sent["method"], sent["type"], len(sent["body"])) == ("POST", "text/x-test", 20_000)


async def test_a_body_above_the_limit_is_refused(running: Running) -> None:
    answer = await fetch(
        running.port, "POST", f"{running.case.mount}/form", [("Host", running.host)], b"x" * (2 * LIMIT)
    )
    assert answer.status == 413


async def test_D11_Authorization_arrives(running: Running) -> None:
    sent = await running.get("/", [("Authorization", "Bearer sesame")])
    assert sent["environ"]["HTTP_AUTHORIZATION"] == "Bearer sesame"
    assert sent["user"] is None


async def test_Proxy_does_not_arrive(running: Running) -> None:
    headers = [("Host", running.host), ("Proxy", "http://evil.test/")]
    answer = await fetch(running.port, "GET", f"{running.case.mount}/", headers)
    if running.case.server == "h2o":
        assert answer.status == 400, "it cannot take a field out of a request, but refuse the request"
    else:
        assert "HTTP_PROXY" not in dict(told(answer)["sent"])


async def test_D04_a_field_with_an_underscore_does_not_pass_for_one_with_a_hyphen(running: Running) -> None:
    sent = await running.get("/", [("X_Auth_User", "admin"), ("X-Other", "kept")])
    assert sent["environ"]["HTTP_X_OTHER"] == "kept"
    arrived = "HTTP_X_AUTH_USER" in sent["environ"]
    assert arrived == (running.case.server in PASSES_UNDERSCORES)
    if arrived:
        assert "X_Auth_User" in running.text, "the configuration warns of it"


async def test_D06_clients_cannot_say_who_they_are(running: Running) -> None:
    fakes = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=6.6.6.6")]
    sent = await running.get("/", fakes)
    values = json.dumps(sent["environ"])
    assert ("6.6.6.6" in values) == (running.case.server in PASSES_FORWARDED)
    assert sent["remote"] == "127.0.0.1"
    if running.case.server in PASSES_FORWARDED:
        assert "no --trust-forwarded" in running.text


async def test_D05_no_parameter_selects_code(running: Running) -> None:
    sent = await running.get("/")
    names = {name for name, _ in sent["sent"]}
    assert not {name for name in names if name.startswith(("PHP_VALUE", "PHP_ADMIN", "UWSGI_")) or "=" in name}


async def test_a_streamed_answer_arrives_as_it_comes(running: Running) -> None:
    mount, host = running.case.mount, [("Host", running.host)]
    if running.case.streaming:
        async with open_request(running.port, "GET", f"{mount}/stream", host) as exchange:
            assert await exchange.receive_head() == 200
            assert await exchange.receive_body() == b"one\n"
            assert (await fetch(running.port, "GET", f"{mount}/release", host)).body == b"released"
            rest = b"".join([piece async for piece in pieces(exchange)])
            assert (rest, exchange.complete) == (b"two\n", True)
    elif running.case.protocol != "cgi":
        assert (await fetch(running.port, "GET", f"{mount}/release", host)).body == b"released"
        answer = await fetch(running.port, "GET", f"{mount}/stream", host)
        assert (answer.body, answer.complete) == (b"one\ntwo\n", True)


async def pieces(exchange: Exchange) -> AsyncGenerator[bytes]:
    while piece := await exchange.receive_body():
        yield piece


async def test_static_files_are_the_web_servers_and_lead_nowhere_else(running: Running) -> None:
    if running.case.server == "haproxy":
        return
    host = [("Host", running.host)]
    answer = await fetch(running.port, "GET", "/static/hello.txt", host)
    assert (answer.status, answer.body) == (200, b"a file\n")
    assert answer.header("x-content-type-options") == "nosniff"
    for path in (
        "/static../secret.txt",
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
    ):
        assert b"a secret" not in (await fetch(running.port, "GET", path, host)).body


async def test_D03_a_TCP_port_is_said_to_be_open_to_every_user(running: Running) -> None:
    assert ("Any user of this machine" in running.text) == (running.case.transport == "tcp")
    assert ("Whoever can open the socket" in running.text) == (running.case.transport == "unix")


def test_D07_the_web_server_is_more_patient_than_the_handler(running: Running) -> None:
    """30 seconds are the handler's (--timeout-request 30 in the command that the configuration names)."""
    [seconds] = re.findall(PATIENCE_OF[running.case.server], running.text, re.MULTILINE)
    assert int(seconds) * (0.001 if running.case.server == "h2o" else 1) > 30
    if running.case.protocol != "cgi":
        assert "--timeout-request 30" in running.text


async def test_zz_nothing_was_repaired_and_nothing_went_wrong(running: Running) -> None:
    """The last: what the backend has logged meanwhile."""
    if running.backend is None:
        return
    running.backend.process.terminate()
    running.backend.wait()
    lines = [line for line in running.backend.text.splitlines() if re.search(r"WARNING|ERROR|Traceback|advice", line)]
    excused = UNAVOIDABLE.get((running.case.server, running.case.protocol))
    assert [line for line in lines if not (excused and re.search(excused, line))] == []


# --- some of them


async def test_D14_a_CGI_script_under_Apache_sees_Authorization_and_no_words_of_the_query() -> None:
    """The script that the configuration shows hands on nothing that is said after its name (CVE-2012-1823)."""
    with at_work(Case("apache", "cgi", "script", "/app")) as running:
        sent = await running.get("/x?--help+--version", [("Authorization", "Basic bTpt")])
    assert (sent["script_name"], sent["path_info"], sent["query"]) == ("/app", "/x", "--help+--version")
    assert sent["environ"]["HTTP_AUTHORIZATION"] == "Basic bTpt"
    assert '"$@"' not in running.text
    assert "SuexecUserGroup" in running.text


async def test_D04_what_the_configuration_of_lighttpd_says_about_underscores_works() -> None:
    case = Case("lighttpd", "fastcgi", "unix", "/app")
    require("lighttpd")
    with private_folder() as folder:
        (folder / "app.py").write_text(APP)
        (folder / "files").mkdir()
        port, text = printed(case, folder)
        [line] = re.findall(r"^ *# (\$REQUEST_HEADER.*)$", text, re.MULTILINE)
        text = text.replace(f"# {line}", line)
        assert check_generated("lighttpd", text, folder).status == 0
        with started(text, folder), running_generated("lighttpd", folder, port):
            assert (await fetch(port, "GET", "/app/", [("X-Auth-User", "ali")])).status == 200
            assert (await fetch(port, "GET", "/app/", [("X_Auth_User", "ali")])).status == 403


#: Characters that mean something in some configuration, and are part of a name here.
ODD = {
    "nginx": 'a b;c\'d "e" #f %g {h} ü',
    "apache": 'a b;c\'d "e" #f %g $h <i> ü',
    "lighttpd": "a b;c'd #e %f $g {h} ü",
    "caddy": 'a b;c\'d "e" #f %g $h ü',
    "h2o": 'a b;c\'d "e" #f %g $h {i} \\ ü',
}


@pytest.mark.parametrize("server", ODD)
async def test_folders_with_odd_names_are_quoted(server: str) -> None:
    require(PROGRAMS[server])
    with private_folder() as folder:
        odd = folder / ODD[server]
        odd.mkdir()
        (odd / "x.txt").write_text("found\n")
        port = free_port()
        words = [server, "app.py", "--bind", f"fastcgi:unix:{folder}/app.sock", "--listen", f"127.0.0.1:{port}"]
        text = config(*words, "--static", f"/static={odd}", "--server-name", SERVER_NAME, cwd=folder)
        verdict = check_generated(PROGRAMS[server], text, folder)
        assert verdict.status == 0, verdict.text
        with running_generated(PROGRAMS[server], folder, port):
            answer = await fetch(port, "GET", "/static/x.txt", [("Host", f"{SERVER_NAME}:{port}")])
    assert (answer.status, answer.body) == (200, b"found\n")


@pytest.mark.parametrize("server", ["nginx", "apache", "lighttpd", "caddy", "haproxy"])
@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
async def test_requests_are_spread_over_several(server: str, protocol: str) -> None:
    if protocol == "scgi" and server in ("caddy", "haproxy"):
        return
    require(PROGRAMS[server])
    with private_folder() as folder, ExitStack() as stack:
        (folder / "app.py").write_text(APP)
        port = free_port()
        ports = [free_port(besides=port) for _ in range(2)]
        words = [server, "app.py", "--listen", f"127.0.0.1:{port}", "--server-name", SERVER_NAME, "--mount", "/app"]
        for each in ports:
            words += ["--backend", f"{protocol}:127.0.0.1:{each}"]
        text = config(*words, cwd=folder)
        verdict = check_generated(PROGRAMS[server], text, folder)
        assert verdict.status == 0, verdict.text
        programs = [Program([*command(), *words[1:]], cwd=folder, env=environment()) for words in served_by(text)]
        for program in programs:
            stack.enter_context(program).wait_for("^stop with Ctrl-C$")
        stack.enter_context(running_generated(PROGRAMS[server], folder, port))
        host = [("Host", f"{SERVER_NAME}:{port}")]
        answers: list[Answer] = []

        async def get() -> None:
            answers.append(await fetch(port, "GET", "/app/stream", host))

        def begun(where: str) -> int:
            answer = ask(where, "/app/begun")
            assert answer
            return int(answer.body)

        where = [f"{protocol}:127.0.0.1:{each}" for each in ports]
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(get)
            # Held until all are there, so that none of the two has nothing to do.
            await trio.to_thread.run_sync(poll, lambda: sum(map(begun, where)) == 8, "all are there")
            assert all(map(begun, where))
            for address in where:
                ask(address, "/app/release")
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"one\ntwo\n")] * 8
        sent = told(await fetch(port, "GET", "/app/x%2Fy", host))
        assert (sent["script_name"], sent["path_info"]) == ("/app", "/x/y")
