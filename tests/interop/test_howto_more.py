"""What the pages of docs/howto show of frameworks, PHP, containers and further web servers, run as it stands there."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateways.cli import serve
from tests.asgi.tools import needs
from tests.cli.program import PACKAGE_FOLDER, Program, environment, poll, serving
from tests.interop.client import fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import (
    SERVER_NAME,
    FrontEnd,
    free_port,
    front_end,
    private_folder,
    require,
    running_generated,
)

DOCS = Path(PACKAGE_FOLDER) / "docs" / "howto"
EXAMPLES = Path(PACKAGE_FOLDER) / "examples" / "howto"


def block(page: str, name: str) -> str:
    """The code block of this name."""
    text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    found = re.search(
        rf"^\.\. code-block:: \w+\n(?:   :.*\n)*   :name: {name}\n(?:   :.*\n)*\n((?:   .*\n|\n)+)", text, re.MULTILINE
    )
    assert found is not None, name
    return textwrap.dedent(found[1]).strip() + "\n"


def served_by(page: str, number: int = 0) -> list[str]:
    """The words behind ``gateways serve`` in the command of a page."""
    commands = re.findall(r"^   \$ gateways serve (.*)$", (DOCS / f"{page}.rst").read_text("utf-8"), re.MULTILINE)
    return shlex.split(commands[number])


@contextmanager
def nginx(site: str, **places: str) -> Generator[FrontEnd]:
    """nginx with this in its server, the places of the page replaced."""
    places = {"/run/app.sock": "@FOLDER@/app.sock", **places}
    for place, stand_in in places.items():
        assert place in site
        site = site.replace(place, stand_in)
    site = re.sub(r"include (fastcgi_params|mime.types);", r"include /etc/nginx/\1;", site)
    configuration = Configuration("howto-more", "nginx", "fastcgi", "unix", "", None, None, site)
    with front_end(configuration) as web:
        yield web


@contextmanager
def application(words: list[str], web: FrontEnd, folder: Path) -> Generator[Program]:
    """``gateways serve`` with the words of a page, at the socket that the web server asks."""
    kept = [word for word in words if word not in ("--socket-group", "www-data", "caddy", "debian-h2o")]
    kept = [word.replace("unix:/run/app.sock", f"unix:{web.folder}/app.sock") for word in kept]
    kept = [str(folder) if word == "/srv/app" else word for word in kept]
    with serving(*kept, "--socket-mode=0666", cwd=folder, env=environment()) as program:
        yield program


# --- frameworks ------------------------------------------------------------------------------------------------------


async def test_flask() -> None:
    needs("flask")
    with private_folder() as folder:
        shutil.copy(EXAMPLES / "flask_site.py", folder)
        (folder / "static").mkdir()
        (folder / "static" / "site.css").write_text("p {}\n")
        places = {"/srv/app/static/": f"{folder}/static/"}
        with nginx(block("flask", "flask-nginx"), **places) as web, application(served_by("flask"), web, folder):
            front = await fetch(web.port, "GET", "/")
            assert front.body == b'<link rel="stylesheet" href="/static/site.css">\nHello, 127.0.0.1!\n'
            assert (await fetch(web.port, "GET", "/static/site.css")).body == b"p {}\n"
            form = [("Content-Type", "application/x-www-form-urlencoded")]
            assert (await fetch(web.port, "POST", "/shout", form, b"text=quiet")).body == b"QUIET\n"
            # Flask would have the static file as well: it was nginx that has sent it.
            (folder / "flask_site.py").unlink()
            assert (await fetch(web.port, "GET", "/static/site.css")).header("accept-ranges") == "bytes"


async def test_django() -> None:
    needs("django")
    with private_folder() as folder:
        run_django(folder, "-m", "django", "startproject", "mysite", ".")
        settings = folder / "mysite" / "settings.py"
        ending = block("django", "django-settings").replace("example.org", SERVER_NAME)
        settings.write_text(f"{settings.read_text()}\n{ending}")
        run_django(folder, "manage.py", "migrate")
        run_django(folder, "manage.py", "collectstatic", "--no-input")
        places = {"/srv/app/static/": f"{folder}/static/"}
        with nginx(block("django", "django-nginx"), **places) as web, application(served_by("django"), web, folder):
            page = await fetch(web.port, "GET", "/admin/login/")
            assert (page.status, b"Django administration" in page.body) == (200, True)
            sheet = await fetch(web.port, "GET", "/static/admin/css/base.css")
            assert (sheet.status, sheet.header("content-type")) == (200, "text/css")
            token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
            assert token is not None
            cookie = str(page.header("set-cookie")).partition(";")[0]
            # A form as a browser sends it, from a port that Debian's fastcgi_params leave out.
            headers = [
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Cookie", cookie),
                ("Host", f"{SERVER_NAME}:{web.port}"),
                ("Origin", f"http://{SERVER_NAME}:{web.port}"),
            ]
            body = b"username=a&password=b&csrfmiddlewaretoken=" + token[1]
            refused = await fetch(web.port, "POST", "/admin/login/", headers, body)
            assert (refused.status, b"Please enter the correct username" in refused.body) == (200, True)


def run_django(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(), check=True, capture_output=True, timeout=60)


async def test_fastapi() -> None:
    needs("fastapi")
    with private_folder() as folder:
        shutil.copy(EXAMPLES / "fastapi_site.py", folder)
        (folder / "static").mkdir()
        (folder / "static" / "site.css").write_text("p {}\n")
        places = {"/srv/app/static/": f"{folder}/static/"}
        with nginx(block("fastapi", "fastapi-nginx"), **places) as web, application(served_by("fastapi"), web, folder):
            host = f"{SERVER_NAME}:{web.port}"
            answer = await fetch(web.port, "GET", "/items/7?q=a%20b", [("Host", host)])
            assert json.loads(answer.body) == {
                "number": 7,
                "q": "a b",
                "url": f"http://{host}/items/7?q=a%20b",
                "from": "127.0.0.1",
            }
            assert (await fetch(web.port, "GET", "/static/site.css")).body == b"p {}\n"
            assert (await fetch(web.port, "GET", "/docs")).status == 200


# --- PHP -------------------------------------------------------------------------------------------------------------

_PHP = "<?php echo $_SERVER['REQUEST_METHOD'], '|', $_SERVER['SCRIPT_NAME'], '|', file_get_contents('php://input');\n"


@contextmanager
def php(folder: Path) -> Generator[str]:
    """PHP as a FastCGI server, and its socket."""
    require("php-cgi")
    socket = folder / "php.sock"
    # Children of its own would stay behind it.
    command = ["php-cgi", "-b", str(socket)]
    with subprocess.Popen(command, env=environment({"PHP_FCGI_CHILDREN": "0"}), cwd=folder) as process:
        try:
            poll(socket.exists, "php-cgi")
            socket.chmod(0o666)
            yield str(socket)
        finally:
            process.terminate()


async def test_php_and_we_side_by_side() -> None:
    with private_folder() as folder, php(folder) as socket:
        (folder / "app.py").write_text((Path(PACKAGE_FOLDER) / "examples" / "hello.py").read_text())
        site = block("php", "php-nginx")
        assert "root /srv/www;\n" in site
        site = site.replace("root /srv/www;\n", "")  # htdocs is it here
        with (
            nginx(site, **{"/run/php/php8.2-fpm.sock": socket}) as web,
            application(served_by("php"), web, folder),
        ):
            (web.folder / "htdocs" / "it.php").write_text(_PHP)
            (web.folder / "htdocs" / "it.txt").write_text("a file")
            assert (await fetch(web.port, "POST", "/it.php", body=b"ping")).body == b"POST|/it.php|ping"
            assert (await fetch(web.port, "GET", "/it.txt")).body == b"a file"
            ours = await fetch(web.port, "GET", "/any/page")
            assert b"fastcgi carried your request for /any/page here" in ours.body
            assert (await fetch(web.port, "GET", "/no.php")).status == 404
            assert (await fetch(web.port, "GET", "/it.txt/x.php")).status == 404


async def test_php_behind_a_handler() -> None:
    with private_folder() as folder, php(folder) as socket:
        (folder / "forum.php").write_text(_PHP)
        text = (EXAMPLES / "php_site.py").read_text()
        for place, stand_in in {"/srv/www": str(folder), "/run/php/php8.2-fpm.sock": socket}.items():
            assert place in text
            text = text.replace(place, stand_in)
        (folder / "app.py").write_text(text)
        root = "location / { include fastcgi_params; fastcgi_pass unix:/run/app.sock; }"
        with nginx(root) as web, application(served_by("php"), web, folder):
            answer = await fetch(web.port, "POST", "/forum/threads", body=b"ping")
            assert (answer.status, answer.body) == (200, b"POST|/forum|ping")
            assert (await fetch(web.port, "GET", "/x")).body == b"Hello, 127.0.0.1!\n"


# --- whole configurations --------------------------------------------------------------------------------------------

#: What the tests need besides: nothing outside the folder is written, and root stays root.
_ROOT = "user: root\n" if os.geteuid() == 0 else ""
_BESIDES = {
    "haproxy": ("global\n    nbthread 1\n    log stderr format raw local0 notice\n", ""),
    "caddy": ("{\n    admin off\n}\n", ""),
    "h2o": ("", f"num-threads: 1\n{_ROOT}pid-file: @FOLDER@/h2o.pid\ntemp-buffer-path: @FOLDER@\n"),
}


@pytest.mark.parametrize(("number", "server"), [*enumerate(_BESIDES)])
async def test_a_whole_configuration(number: int, server: str) -> None:
    require(server)
    with private_folder() as folder:
        port, backend = free_port(), free_port()
        before, behind = _BESIDES[server]
        text = before + block("other-servers", f"{server}-whole") + behind
        for place, stand_in in {
            ":8080": f"127.0.0.1:{port}" if server == "haproxy" else f":{port}",
            "port: 8080": f"port: {port}\n      host: 127.0.0.1",
            "127.0.0.1:4000": f"127.0.0.1:{backend}",
            "/run/app.sock": f"{folder}/app.sock",
            "@FOLDER@": str(folder),
        }.items():
            text = text.replace(place, stand_in)
        (folder / "server.conf").write_text(text)
        (folder / "app.py").write_text((Path(PACKAGE_FOLDER) / "examples" / "hello.py").read_text())
        words = [word.replace(":4000", f":{backend}") for word in served_by("other-servers", number)]
        with running_generated(server, folder, port) as web, application(words, web, folder) as program:
            answer = await fetch(port, "GET", "/any/page?name=Ada")
            assert (answer.status, answer.body[:11]) == (200, b"Hello, Ada!")
            assert b"fastcgi carried your request for /any/page here" in answer.body
            assert "repaired" not in program.text


# --- containers ------------------------------------------------------------------------------------------------------


def test_the_command_of_the_container_exists() -> None:
    text = block("containers", "dockerfile")
    command = re.search(r"^CMD (.*)$", text, re.MULTILINE)
    assert command is not None
    program, verb, *arguments = json.loads(command[1])
    assert (program, verb) == ("gateways", "serve")
    parser = argparse.ArgumentParser(allow_abbrev=False)
    serve._add_arguments(parser)
    assert parser.parse_args(arguments).bind == ["fastcgi:0.0.0.0:4000"]
    instructions = {line.split()[0] for line in text.splitlines()}
    assert instructions <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD"}


async def test_the_nginx_of_the_container() -> None:
    with private_folder() as folder:
        (folder / "app.py").write_text((Path(PACKAGE_FOLDER) / "examples" / "hello.py").read_text())
        inner = re.search(r"location.*\}(?=\n\}\n)", block("containers", "container-nginx"), re.DOTALL)
        assert inner is not None
        site = inner[0].replace("app:4000", "unix:/run/app.sock")
        words = ["app.py", "--bind", "fastcgi:unix:/run/app.sock"]
        with nginx(site) as web, application(words, web, folder):
            assert (await fetch(web.port, "GET", "/x")).body.startswith(b"Hello, world!")
