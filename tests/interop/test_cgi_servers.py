"""Our CGI scripts under web servers that run them: each hands something over in its own way.

Apache with mod_cgid and lighttpd are in the table of configurations; here are Apache with mod_cgi, mini_httpd, busybox,
and nginx, which has fcgiwrap do it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.interop import servers
from tests.interop.client import Answer, fetch, open_request
from tests.interop.configurations import Configuration
from tests.interop.servers import accepts, free_port, front_end, python_script, require

#: Where every server has the script.
SCRIPT = "/cgi-bin/app.cgi"
BIG = b"".join(bytes([number % 251]) * 4096 for number in range(256))

PROGRAM = """
import os

import gateways
from gateways import Limits, Reject, Response

BIG = b"".join(bytes([number % 251]) * 4096 for number in range(256))

print("printed at the start")


async def probe(request):
    body = await request.body.read()
    seen = {
        "environ": request.environ,
        "path": request.path,
        "raw_path": request.raw_path,
        "script_name": request.script_name,
        "path_info": request.path_info,
        "query": request.query_string,
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "body": body.decode("latin-1"),
    }
    response = Response.json(seen)
    return response.with_header("X-Method", request.method)


async def early(request):
    return Response("no thanks", 413)


async def reject(request):
    raise Reject(404, "not here")


async def crash(request):
    raise RuntimeError("a secret")


async def late(request):
    async def body(send):
        await send("some")
        raise RuntimeError("a secret")

    return Response(body)


async def noisy(request):
    print("stray", flush=True)
    os.write(1, b"straight to fd 1")
    os.write(2, b"straight to fd 2")
    request.log("for the log")
    return Response("clean")


async def big(request):
    return Response(BIG)


async def redirect(request):
    return Response.redirect("/elsewhere")


async def duplex(request):
    async def body(send):
        await send("ready\\n")
        await send(await request.body.read())

    return Response(body)


async def length(request):
    return Response(str(sum([len(chunk) async for chunk in request.body])))


PAGES = {"/" + page.__name__: page for page in (early, reject, crash, late, noisy, big, redirect, duplex, length)}


async def app(request):
    return await PAGES.get(request.path_info, probe)(request)


gateways.run(app, limits=Limits(body_timeout=5, drain_timeout=0.5))
"""

_APACHE = """
ServerRoot @FOLDER@
DefaultRuntimeDir @FOLDER@
PidFile @FOLDER@/apache.pid
ErrorLog @FOLDER@/error.log
Listen 127.0.0.1:@PORT@
@USER@
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule cgi_module /usr/lib/apache2/modules/mod_cgi.so
StartServers 1
ServerName gateways.test
AllowEncodedSlashes On
<Directory />
  Require all granted
  Options +ExecCGI
</Directory>
ScriptAlias /cgi-bin/ @FOLDER@/cgi-bin/
"""


@attrs.frozen
class Host:
    """A web server that runs the script; ``name`` is a key of HOSTS or "fcgiwrap"."""

    name: str
    port: int
    folder: Path

    def error_log(self) -> str:
        return (self.folder / "error.log").read_text(errors="replace")


def apache(folder: Path, port: int) -> list[str]:
    require("apache2", "/usr/lib/apache2/modules/mod_cgi.so")
    text = _APACHE.replace("@FOLDER@", str(folder)).replace("@PORT@", str(port))
    (folder / "server.conf").write_text(text.replace("@USER@", "User www-data\nGroup www-data" if _root() else ""))
    return ["apache2", "-DFOREGROUND", "-f", f"{folder}/server.conf"]


def mini_httpd(folder: Path, port: int) -> list[str]:
    require("mini_httpd")
    user = ["-u", "www-data"] if _root() else []
    return ["mini_httpd", "-D", "-h", "127.0.0.1", "-p", str(port), "-d", str(folder), "-c", "cgi-bin/*", *user]


def busybox(folder: Path, port: int) -> list[str]:
    require("busybox")
    user = ["-u", "www-data"] if _root() else []
    return ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(folder), *user]


HOSTS: dict[str, Callable[[Path, int], list[str]]] = {"apache": apache, "mini_httpd": mini_httpd, "busybox": busybox}


def _root() -> bool:
    return os.geteuid() == 0


@contextlib.contextmanager
def _process(command: list[str], folder: Path, ready: Callable[[], bool]) -> Generator[None]:
    """Run a server until the block ends; it is ready when the block begins."""
    environment = {"PATH": servers._PATH, "LANG": "C.UTF-8"}
    with open(folder / "error.log", "ab") as log:
        process = subprocess.Popen(
            command,
            executable=shutil.which(command[0], path=servers._PATH),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + servers.PATIENCE
        while not ready():
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline, (folder / "error.log").read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        yield
    finally:
        servers._end(process)


@contextlib.contextmanager
def _fcgiwrap(folder: Path) -> Generator[int]:
    """nginx in front of it; the port of nginx."""
    require("fcgiwrap")
    split = Configuration(
        id="nginx-fcgiwrap",
        server="nginx",
        protocol="fastcgi",
        transport="unix",
        mount="",
        mount_option=None,
        script=None,
        site=f"""location /cgi-bin/ {{
          include /etc/nginx/fastcgi_params;
          fastcgi_split_path_info ^(/cgi-bin/[^/]+)(.*)$;
          fastcgi_param SCRIPT_FILENAME {folder}$fastcgi_script_name;
          fastcgi_param PATH_INFO $fastcgi_path_info;
          fastcgi_pass @BACKEND@;
        }}""",
    )
    with front_end(split) as web:
        address = str(web.address)
        waits = Path(address.removeprefix("unix:")).exists
        with _process(["fcgiwrap", "-c", "2", "-s", address], folder, waits):
            if _root():
                os.chmod(address.removeprefix("unix:"), servers.SOCKET_MODE)
            yield web.port


@contextlib.contextmanager
def _folder() -> Generator[Path]:
    # Not pytest's: other users have to reach it.
    with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "cgi-bin").mkdir()
        script = folder / "cgi-bin" / "app.cgi"
        script.write_text(python_script(PROGRAM))
        script.chmod(0o755)
        shutil.copy(script, folder / "cgi-bin" / "nph-app.cgi")
        yield folder


@pytest.fixture(scope="module", params=[*HOSTS, "fcgiwrap"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Each web server in turn, for all tests here."""
    name = str(request.param)
    with _folder() as folder:
        if name == "fcgiwrap":
            with _fcgiwrap(folder) as port:
                yield Host(name, port, folder)
        else:
            port = free_port()
            with _process(HOSTS[name](folder, port), folder, lambda: accepts(port)):
                yield Host(name, port, folder)


async def seen(host: Host, method: str = "GET", target: str = "", body: bytes | None = None) -> dict[str, Any]:
    """What the handler saw of a request."""
    answer = await fetch(host.port, method, SCRIPT + target, body=body)
    assert answer.status == 200, answer
    saw: dict[str, Any] = json.loads(answer.body)
    return saw


def only(*names: str) -> pytest.MarkDecorator:
    """For tests of some of the web servers."""
    return pytest.mark.parametrize("host", names, indirect=True, scope="module")


async def headless(host: Host, target: str, *headers: tuple[str, str]) -> Answer:
    """The answer to a POST whose body does not follow its head."""
    async with open_request(host.port, "POST", SCRIPT + target, headers) as exchange:
        return await exchange.receive_answer()


async def test_C05_C07_C10_a_path_and_a_query_arrive(host: Host) -> None:
    # busybox answers 404 by itself to an encoded slash.
    path = "/a/b%20c/%E2%82%AC" if host.name == "busybox" else "/a%2Fb%20c/%E2%82%AC"
    saw = await seen(host, target=path + "?q=%41&b")
    assert (saw["script_name"], saw["path_info"], saw["query"]) == (SCRIPT, "/a/b c/€", "q=%41&b")
    assert saw["path"] == SCRIPT + "/a/b c/€"
    # mini_httpd does not say what the client wrote, and busybox says it decoded.
    raw = {"mini_httpd": None, "busybox": SCRIPT + "/a/b c/€"}.get(host.name, SCRIPT + path)
    assert saw["raw_path"] == raw


async def test_C07_without_a_path_and_a_query_both_are_empty(host: Host) -> None:
    saw = await seen(host)
    assert (saw["script_name"], saw["path_info"], saw["query"], saw["body"]) == (SCRIPT, "", "", "")


async def test_C18_C19_words_of_a_query_are_no_options_and_the_script_runs_in_its_folder(host: Host) -> None:
    saw = await seen(host, target="?foo+--help+-x")
    # Apache and mini_httpd make arguments of them; nothing of ours looks at those.
    assert saw["argv"] == ([] if host.name in ("busybox", "fcgiwrap") else ["foo", "--help", "-x"])
    assert saw["query"] == "foo+--help+-x"
    assert saw["cwd"] == str(host.folder / "cgi-bin")


async def test_C16_the_answer_to_HEAD_has_a_head_alone(host: Host) -> None:
    answer = await fetch(host.port, "HEAD", SCRIPT + "/x")
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    assert answer.header("x-method") == "HEAD"


# mini_httpd 1.30 closes a connection on which it has read a body together with its head.
@only("apache", "busybox", "fcgiwrap")
async def test_C02_a_body_arrives(host: Host) -> None:
    body = bytes(range(256)) * 4000
    saw = await seen(host, "POST", body=body)
    assert saw["body"].encode("latin-1") == body
    assert int(saw["environ"]["CONTENT_LENGTH"]) == len(body)


# The others read the whole request before any of the answer.
@only("mini_httpd", "busybox")
async def test_C02_E25_a_body_that_follows_the_first_bytes_of_its_answer_arrives(host: Host) -> None:
    """Under mini_httpd stdin is the socket of the client, which goes on behind the body and never ends."""
    async with open_request(host.port, "POST", SCRIPT + "/duplex", [("Content-Length", "5")]) as exchange:
        assert await exchange.receive_head() == 200
        assert await exchange.receive_body() == b"ready\n"
        await exchange.stream.send_all(b"hello and more")
        assert await exchange.receive_body() == b"hello"
        assert await exchange.receive_body() == b""


# mini_httpd 1.30 keeps to itself what it has read together with the head.
@only("apache", "busybox", "fcgiwrap")
async def test_C02_E13_the_body_of_a_PUT_arrives_or_is_refused(host: Host) -> None:
    answer = await fetch(host.port, "PUT", SCRIPT + "/length", body=b"hello")
    # busybox has a CONTENT_LENGTH and a stdin for POST alone: no body is not the same as an empty one.
    assert (answer.status, answer.body) == ((411, b"Length Required\n") if host.name == "busybox" else (200, b"5"))


async def test_E14_a_chunked_body_is_its_chunks_taken_apart_or_411(host: Host) -> None:
    if host.name == "mini_httpd":
        # It tells a script nothing of the chunks that it leaves on stdin: there is no body then.
        answer = await headless(host, "/length", ("Transfer-Encoding", "chunked"))
        assert (answer.status, answer.body) == (200, b"0")
        return
    answer = await fetch(host.port, "POST", SCRIPT + "/length", body=[b"hel", b"lo"])
    assert (answer.status, answer.body) == ((411, b"Length Required\n") if host.name == "busybox" else (200, b"5"))


async def test_E05_an_answer_may_come_before_the_body_has(host: Host) -> None:
    if host.name in ("mini_httpd", "busybox"):
        answer = await headless(host, "/early", ("Content-Length", "3000000"))
    else:
        answer = await fetch(host.port, "POST", SCRIPT + "/early", body=b"x" * 3_000_000)
    assert (answer.status, answer.body) == (413, b"no thanks")


@pytest.mark.parametrize(("page", "status", "body"), [("reject", 404, b"not here\n"), ("redirect", 302, b"")])
async def test_C34_C37_the_status_of_an_answer_arrives(host: Host, page: str, status: int, body: bytes) -> None:
    answer = await fetch(host.port, "GET", f"{SCRIPT}/{page}")
    assert (answer.status, answer.body) == (status, body)
    assert answer.header("location") == ("/elsewhere" if status == 302 else None)


async def test_C30_a_handler_that_fails_is_a_500_that_tells_the_client_nothing(host: Host) -> None:
    answer = await fetch(host.port, "GET", SCRIPT + "/crash")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")


async def test_C30_what_was_sent_before_a_failure_arrives(host: Host) -> None:
    # That it failed is in the exit status, which none of them looks at.
    answer = await fetch(host.port, "GET", SCRIPT + "/late")
    assert (answer.status, answer.body) == (200, b"some")


async def test_C41_stray_output_never_gets_into_an_answer(host: Host) -> None:
    answer = await fetch(host.port, "GET", SCRIPT + "/noisy")
    assert (answer.status, answer.body) == (200, b"clean")
    if host.name == "mini_httpd":
        return  # stdout and stderr are one pipe there, and nothing but the answer may leave on it
    with trio.fail_after(servers.PATIENCE):
        while "for the log" not in host.error_log():  # noqa: ASYNC110 - nobody announces it
            await trio.sleep(0.01)
    log = host.error_log()
    assert all(text in log for text in ("stray", "straight to fd 1", "straight to fd 2"))


async def test_a_large_answer_arrives_whole(host: Host) -> None:
    answer = await fetch(host.port, "GET", SCRIPT + "/big")
    assert (answer.body == BIG, answer.complete) == (True, True)


async def test_C43_an_NPH_script_has_its_status_whether_the_server_knows_of_them_or_not(host: Host) -> None:
    answer = await fetch(host.port, "GET", SCRIPT.replace("app.cgi", "nph-app.cgi") + "/reject")
    assert (answer.status, answer.body, answer.complete) == (404, b"not here\n", True)
    assert answer.header("status") is None
    if host.name != "fcgiwrap":  # behind nginx the web server makes HTTP of it
        assert answer.header("connection") == "close"
        assert answer.header("server") is None
