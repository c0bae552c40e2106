"""The programs, commands and configurations in docs/coming-from.rst, as they stand there."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

import gateways
from gateways.cli import dev, serve
from tests.cli.program import PATIENCE, Program, command, get, serving
from tests.interop.client import fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import SERVER_NAME, FrontEnd, front_end, python_script, require
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "coming-from.rst"
TEXT = PAGE.read_text(encoding="utf-8")
#: The name of each program, and of .htaccess -> its text.
FILES = {name: text for language in ("python", "apache") for name, text in blocks(PAGE, language) if name}
COMMANDS = [
    line.removeprefix("$ ") for _, text in blocks(PAGE, "console") for line in text.splitlines() if line[:2] == "$ "
]
#: What configurations stand on the page for each server.
SITES = {
    language: [text for caption, text in blocks(PAGE, language) if not caption]
    for language in ("nginx", "apache", "lighttpd")
}

#: What Debian's mod_rewrite needs, and a host that lets its customers have .htaccess.
HOST = """LoadModule rewrite_module @MODULES@/mod_rewrite.so
<Directory "@FOLDER@/htdocs">
  AllowOverride All
</Directory>"""


# --- what stands there


def commands_of(verb: str) -> list[list[str]]:
    """The words behind ``gateways serve`` or ``gateways dev``."""
    words = [shlex.split(line) for line in COMMANDS]
    return [each[2:] for each in words if each[:2] == ["gateways", verb]]


def test_everything_is_there() -> None:
    assert set(FILES) == {"guestbook.py", "guestbook.fcgi", "guestbook.cgi", "dispatch.fcgi", ".htaccess"}
    assert {server: len(sites) for server, sites in SITES.items()} == {"nginx": 1, "apache": 1, "lighttpd": 2}
    assert (len(commands_of("serve")), len(commands_of("dev")), len(COMMANDS)) == (6, 1, 8)


def test_the_flags_in_the_tables_exist() -> None:
    parsers: list[argparse.ArgumentParser] = []
    for verb in (serve, dev):
        parsers.append(argparse.ArgumentParser(add_help=False))
        verb._add_arguments(parsers[-1])
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    # The second column of each row, with its further lines.
    cells = re.findall(r"^     - (.*\n(?:       .*\n)*)", TEXT, re.MULTILINE)
    named = {flag for cell in cells for flag in re.findall(r"--[a-z-]+", cell)}
    assert len(named) == 13
    assert named - known == set()


# --- programs that a web server starts


@pytest.fixture(scope="module")
def srv() -> Iterator[Path]:
    """What /srv/app stands for: a folder that other users can reach as well, with the application in it."""
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "guestbook.py").write_text(FILES["guestbook.py"])
        yield folder


def program(name: str, srv: Path) -> str:
    """One of the programs, with a Python and a folder to import from that there are here."""
    first, _, rest = FILES[name].partition("\n")
    assert first == "#!/srv/app/env/bin/python"
    assert '"/srv/app"' in rest
    return python_script(rest.replace("/srv/app", str(srv)))


def configuration(server: str, script: str, site: str, mount: str = "/app") -> Configuration:
    for place in ("/srv/app/guestbook.fcgi", "/srv/app/guestbook.cgi"):
        site = site.replace(place, "@SCRIPT@")
    return Configuration(
        id=f"coming-from-{server}",
        server=server,
        protocol="cgi" if script.endswith(".cgi") else "fastcgi",
        transport="unix",
        mount=mount,
        mount_option=None,
        script=script,
        site=site.replace("/run/app.sock", "@FOLDER@/app.sock"),
    )


async def welcome(web: FrontEnd, target: str) -> str:
    answer = await fetch(web.port, "GET", target)
    assert answer.status == 200, answer
    return answer.body.decode()


@pytest.mark.parametrize("site", SITES["lighttpd"])
async def test_lighttpd_starts_the_program_that_took_the_place_of_flups(srv: Path, site: str) -> None:
    spawned = configuration("lighttpd", "guestbook.fcgi", site)
    with front_end(spawned, program("guestbook.fcgi", srv)) as web:
        assert await welcome(web, "/app/a%20b?c") == "Welcome to /app|/a b\n"


async def test_apache_runs_the_script_that_took_the_place_of_CGIHandlers(srv: Path) -> None:
    [site] = SITES["apache"]
    with front_end(configuration("apache2", "guestbook.cgi", site), program("guestbook.cgi", srv)) as web:
        assert await welcome(web, "/app/a%20b?c") == "Welcome to /app|/a b\n"


async def test_dispatch_fcgi_and_its_htaccess_make_a_site_of_a_folder(srv: Path) -> None:
    text = program("dispatch.fcgi", srv)
    with front_end(configuration("apache2", "htdocs/dispatch.fcgi", HOST, ""), text) as web:
        for folder in (web.folder / "htdocs", web.folder / "htdocs" / "club"):
            folder.mkdir(exist_ok=True)
            (folder / ".htaccess").write_text(FILES[".htaccess"])
            (folder / "dispatch.fcgi").write_text(text)
            (folder / "dispatch.fcgi").chmod(0o755)
            (folder / "here.txt").write_text("a file")
        for below in ("", "/club"):
            assert await welcome(web, f"{below}/a%20b?c") == f"Welcome to {below}|/a b\n"
            assert await welcome(web, f"{below}/") == f"Welcome to {below}|/\n"
            assert await welcome(web, f"{below}/here.txt") == "a file"


async def test_the_same_program_is_a_CGI_script_where_there_is_no_mod_fcgid(srv: Path) -> None:
    text = program("dispatch.fcgi", srv)
    htaccess = FILES[".htaccess"].replace("fcgid-script .fcgi", "cgi-script .cgi").replace("dispatch.f", "dispatch.")
    with front_end(configuration("apache2", "htdocs/dispatch.cgi", HOST, ""), text) as web:
        (web.folder / "htdocs" / ".htaccess").write_text(htaccess)
        assert await welcome(web, "/a%20b?c") == "Welcome to |/a b\n"


# --- programs that somebody else starts


@attrs.frozen
class Called:
    status: int
    location: str | None
    body: bytes


async def ask(address: str, path: str, script_name: str = "") -> Called:
    """Ask the application at an address, "PROTOCOL:WHERE", as a web server would."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": SERVER_NAME,
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
    }
    protocol, _, where = address.partition(":")
    client: Any = getattr(gateways, protocol)
    call = await client.call(where, environ)
    body = bytearray()

    async def take(chunk: bytes) -> None:
        body.extend(chunk)

    response = call.response()
    await call(take)
    return Called(response.status, response.headers.get("location"), bytes(body))


@pytest.fixture
def own(srv: Path, tmp_path: Path) -> Path:
    """The program that took the place of flup's, in a file."""
    path = tmp_path / "guestbook.fcgi"
    path.write_text(program("guestbook.fcgi", srv))
    path.chmod(0o755)
    return path


@pytest.fixture
def run_app() -> Iterator[str]:
    """What /run/app.sock stands for; its path must be short."""
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        yield f"{name}/app.sock"


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
async def test_a_listening_socket_as_fd_0_is_served_whatever_the_environment_lacks(
    own: Path, run_app: str, protocol: str
) -> None:
    """suEXEC leaves next to nothing of it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(run_app)
        listening.listen()
        started = Program([str(own)], cwd=Path("/"), env={"PATH": "/usr/bin:/bin"}, stdin=listening)
    with started:
        answer = await ask(f"{protocol}:unix:{run_app}", "/x", "/app")
        started.signal(signal.SIGTERM)
        assert started.wait() == 0
    assert (answer.status, answer.body) == (200, b"Welcome to /app|/x\n")


async def test_spawn_fcgi_starts_it(own: Path, run_app: str) -> None:
    require("spawn-fcgi")
    [line] = [line for line in COMMANDS if line.startswith("spawn-fcgi")]
    words = shlex.split(line.replace("/run/app.sock", run_app).replace("/srv/app/guestbook.fcgi", str(own)))
    with Program(words, cwd=Path("/")) as started:
        wait_for_socket(run_app)
        answer = await ask(f"fastcgi:unix:{run_app}", "/x", "/app")
        started.signal(signal.SIGTERM)
        assert started.wait() == 0
    assert (answer.status, answer.body) == (200, b"Welcome to /app|/x\n")


def wait_for_socket(path: str) -> None:
    """Nobody announces that spawn-fcgi listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        assert time.monotonic() < deadline, f"nobody listens on {path}"
        time.sleep(0.01)


# --- commands


@contextmanager
def run_command(words: list[str], srv: Path, run_app: str) -> Generator[str]:
    """``gateways serve`` with these words; yields where it listens."""
    here = [word.replace("/run/app.sock", run_app).replace("127.0.0.1:4000", "127.0.0.1:0") for word in words]
    with serving(*here, cwd=srv) as started:
        [address] = started.wait_for(r"^  ((?:fastcgi|scgi):.*)$")
        yield address


GUESTBOOKS = [words for words in commands_of("serve") if words[0] == "guestbook.py"]
DJANGOS = [words for words in commands_of("serve") if words[0] == "mysite.wsgi"]


@pytest.mark.parametrize("words", GUESTBOOKS, ids=" ".join)
async def test_the_command_line_that_took_the_place_of_a_program_serves(
    words: list[str], srv: Path, run_app: str
) -> None:
    with run_command(words, srv, run_app) as address:
        answer = await ask(address, "/x", "/app")
    assert (answer.status, answer.body) == (200, b"Welcome to /app|/x\n")


async def test_nginx_reaches_what_took_the_place_of_uwsgi(srv: Path) -> None:
    [site] = SITES["nginx"]
    [words] = [words for words in GUESTBOOKS if "--timeout-request" in words]
    behind = Configuration(
        id="coming-from-nginx",
        server="nginx",
        protocol="fastcgi",
        transport="unix",
        mount="",
        mount_option=None,
        script=None,
        site=site.replace("unix:/run/app.sock", "@BACKEND@").replace("include ", "include /etc/nginx/"),
    )
    with front_end(behind) as web:
        socket_file = str(web.address).removeprefix("unix:")
        with run_command([*words, "--socket-mode", "0666"], srv, socket_file):
            assert await welcome(web, "/a%20b?c") == "Welcome to |/a b\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site as Django makes it."""
    folder = tmp_path_factory.mktemp("django")
    words = [sys.executable, "-m", "django", "startproject", "mysite", str(folder)]
    subprocess.run(words, check=True, timeout=PATIENCE)
    return folder


@pytest.mark.parametrize("words", DJANGOS, ids=" ".join)
async def test_what_took_the_place_of_runfcgi_serves_a_site_of_Django(
    words: list[str], project: Path, run_app: str
) -> None:
    mount = words[words.index("--mount") + 1] if "--mount" in words else ""
    with run_command(words, project, run_app) as address:
        # Apache's mod_proxy_fcgi has all of the path in SCRIPT_NAME; with a mount that does not matter.
        answer = await ask(address, *(("", f"{mount}/admin/") if mount else ("/admin/",)))
    assert (answer.status, answer.location) == (302, f"{mount}/admin/login/?next={mount}/admin/")


async def test_what_took_the_place_of_http_server_runs_the_programs_of_a_folder(srv: Path, run_app: str) -> None:
    (srv / "cgi-bin").mkdir()
    for name, mode in (("hello.py", 0o755), ("secret.py", 0o644)):
        path = srv / "cgi-bin" / name
        path.write_text(f"#!{sys.executable}\nprint('Content-Type: text/plain\\n\\nHello')\n")
        path.chmod(mode)
    [words] = commands_of("dev")
    with Program(command("dev", *words, "--port", "0"), cwd=srv) as shown:
        [where] = shown.wait_for(r"^  http://([^/]+)/")
        answers = [get(where, f"/cgi-bin/{name}") for name in ("hello.py", "secret.py")]
    [words] = [words for words in commands_of("serve") if words[0] == "cgi-bin/"]
    with run_command(words, srv, run_app) as address:
        answer = await ask(address, "/cgi-bin/hello.py")
    assert [(each.status, each.body) for each in answers] == [(200, "Hello\n"), (404, "Not Found\n")]
    assert (answer.status, answer.body) == (200, b"Hello\n")
