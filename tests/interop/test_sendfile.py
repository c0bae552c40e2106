"""Files that the web server sends: the commands and configurations in docs/sendfile.rst as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest

from tests.cli.program import PATIENCE, Program, environment, serving
from tests.interop import servers
from tests.interop.client import Answer, fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import FrontEnd, front_end, require
from tests.interop.test_howto import _configuration
from tests.interop.test_readme import SERVERS
from tests.test_docs import ROOT

TEXT = (ROOT / "docs" / "sendfile.rst").read_text(encoding="utf-8")

CONTENTS = b"0123456789" * 1000
#: Names that only some can be told.
NAMES = ("plain.html", "a b.txt", "100%.txt", "p%41.txt", "q?x#y.txt", "ü.txt", "tab\t.txt", "raw\udcff.txt")

APP = """
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

from starlette.responses import FileResponse

from gateways import Response, URLMap
from gateways.asgi import from_asgi

FILES = Path(__file__).parent / "files"


async def native(request):
    response = Response.file(FILES / unquote(request.path_info[1:], errors="surrogateescape"))
    for name, value in request.query.items():
        response = response.with_header(name, value)
    return response.with_header("X-Content-Type-Options", "nosniff")


async def missing(request):
    return Response(FILES / "missing.txt")


async def outside(request):
    return Response(FILES / ".." / "outside.txt")


async def asgi(scope, receive, send):
    path = str(FILES / scope["path"].rpartition("/")[2])
    headers = [(b"content-type", b"text/x-asgi"), (b"content-length", b"10000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.pathsend", "path": path})


async def starlette(scope, receive, send):
    await FileResponse(FILES / "plain.html")(scope, receive, send)


@asynccontextmanager
async def app():
    async with from_asgi(asgi)() as one, from_asgi(starlette)() as two:
        yield URLMap({"/native": native, "/missing": missing, "/outside": outside, "/asgi": one, "/starlette": two})
"""


@attrs.frozen
class Row:
    configuration: Configuration
    #: The words behind "gateways serve".
    words: list[str]

    def __str__(self) -> str:
        return str(self.configuration)


def _rows() -> Iterator[Row]:
    """Each configuration on the page with the command before it, and the same over SCGI."""
    command = ""
    for block in re.finditer(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", TEXT, re.MULTILINE):
        language, text = block[1], textwrap.dedent(block[2]).strip() + "\n"
        if language == "console":
            command = text.removeprefix("$ gateways serve ")
        elif language in SERVERS:
            found = _configuration(f"sendfile-{language}", language, text, command)
            site = found.site.replace("/srv/files", "@FOLDER@/files")
            if language == "apache":
                site = f"LoadModule xsendfile_module @MODULES@/mod_xsendfile.so\n{site}"
            yield Row(attrs.evolve(found, site=site), shlex.split(command))
            site = site.replace("fastcgi.server", "scgi.server").replace("fcgi://", "scgi://")
            site = site.replace("$fastcgi_script_name", "$document_uri").replace("fastcgi", "scgi")
            name = found.id.replace("fastcgi", "scgi")
            over_scgi = attrs.evolve(found, id=name, protocol="scgi", site=site)
            yield Row(over_scgi, shlex.split(command.replace("fastcgi:", "scgi:")))


ROWS = [*_rows()]


def test_every_server_is_there() -> None:
    assert [(row.configuration.server, row.configuration.protocol) for row in ROWS] == [
        (server, protocol) for server in SERVERS.values() for protocol in ("fastcgi", "scgi")
    ]


@attrs.define
class Site:
    web: FrontEnd
    _program: Program
    _asked: int = 0

    @property
    def is_nginx(self) -> bool:
        return self.web.configuration.server == "nginx"

    async def get(self, path: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        return await fetch(self.web.port, method, self.web.configuration.mount + path, headers)

    async def is_handed_over(self, path: str) -> bool:
        """Whether the web server sends this file, and we nothing: the access log tells."""
        self._asked += 1
        asked = f"{path}{'&' if '?' in path else '?'}X-Number={self._asked}"
        answer = await self.get(asked)
        assert (answer.status, answer.body) == (200, CONTENTS), answer
        [sent] = self._program.wait_for(rf'X-Number={self._asked}" 200 (\d+) ')
        assert sent in ("0", str(len(CONTENTS)))
        return sent == "0"


@pytest.fixture(scope="module", params=ROWS, ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    row: Row = request.param
    if row.configuration.server == "apache2":
        require(f"{servers._APACHE_MODULES}/mod_xsendfile.so")
    with front_end(row.configuration) as web:
        (web.folder / "files" / "sub").mkdir(parents=True)
        for name in (*NAMES, "sub/deep.txt"):
            (web.folder / "files" / name).write_bytes(CONTENTS)
        (web.folder / "outside.txt").write_bytes(CONTENTS)
        (web.folder / "files" / "link.txt").symlink_to(web.folder / "outside.txt")
        (web.folder / "app.py").write_text(APP)
        address = str(web.address).removeprefix("unix:")
        words = [word.replace("/run/app.sock", address) for word in row.words]
        words = [word.replace("=/srv/files", f"={web.folder}/files") for word in words]
        with serving(*words, "--socket-mode", "0666", cwd=web.folder) as program:
            yield Site(web, program)


@pytest.mark.parametrize("page", ["native", "asgi"])
async def test_a_file_of_the_folder_is_sent_by_the_web_server(site: Site, page: str) -> None:
    assert await site.is_handed_over(f"/{page}/plain.html")


async def test_the_whole_file_arrives_with_its_length_and_the_type_that_the_application_says(site: Site) -> None:
    for page, kind in (("native", "text/html; charset=utf-8"), ("asgi", "text/x-asgi")):
        for method, body in (("GET", CONTENTS), ("HEAD", b"")):
            answer = await site.get(f"/{page}/plain.html", method=method)
            assert (answer.status, answer.body, answer.complete) == (200, body, True)
            assert answer.header("content-length") == "10000"
            assert answer.header("content-type") == kind
            assert answer.header("x-sendfile") is None
            assert answer.header("x-accel-redirect") is None


async def test_a_FileResponse_of_starlette_arrives(site: Site) -> None:
    answer = await site.get("/starlette")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, CONTENTS, "10000")


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_arrives_by_one_way_or_the_other(site: Site, name: str) -> None:
    # Encoded twice: lighttpd refuses to be asked for some of them.
    path = f"/native/{quote(quote(name, errors='surrogateescape'))}"
    answer = await site.get(path)
    assert (answer.status, answer.body) == (200, CONTENTS)
    told = site.is_nginx or name in ("plain.html", "a b.txt", "q?x#y.txt", "ü.txt")
    assert await site.is_handed_over(path) is told


async def test_a_file_in_a_folder_below_is_handed_over(site: Site) -> None:
    assert await site.is_handed_over("/native/sub/deep.txt")


@pytest.mark.parametrize("path", ["/native/link.txt", "/outside", "/native/plain.html?Content-Encoding=x"])
async def test_what_is_elsewhere_or_encoded_is_sent_by_the_application(site: Site, path: str) -> None:
    assert not await site.is_handed_over(path)


async def test_a_file_that_is_not_there_is_the_applications_own_error(site: Site) -> None:
    answer = await site.get("/missing")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")


async def test_a_field_arrives_that_nginx_has_to_be_told_of(site: Site) -> None:
    answer = await site.get("/native/plain.html")
    assert answer.header("x-content-type-options") == "nosniff"


async def test_nobody_can_ask_for_what_nginx_keeps_for_the_application(site: Site) -> None:
    if site.is_nginx:
        assert (await site.get("/protected/plain.html")).status == 404
    else:
        assert (await site.get("/files/plain.html")).status == 404


# --- as a CGI script

CGI = """
import sys
import gateways.cgi
from gateways import Response

async def app(request):
    if request.path_info == "/named":
        return Response("", headers={"X-Sendfile": sys.argv[1]})
    return Response.file(sys.argv[1])

gateways.cgi.run(app, allow_headers=@ALLOWED@)
"""


@pytest.mark.parametrize("allowed", ['["X-Sendfile"]', '{"X-Sendfile": [sys.argv[2]]}'])
def test_a_cgi_script_allows_fields_and_folders_as_a_listener_does(tmp_path: Path, allowed: str) -> None:
    """Apache with mod_xsendfile and lighttpd (cgi.x-sendfile) look at those as well."""
    file = tmp_path / "file.txt"
    file.write_text("in the file")
    program = CGI.replace("@ALLOWED@", allowed)
    answers: dict[str, str] = {}
    for path in ("/named", "/sent"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(file), str(tmp_path)],
            env=environment({"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "PATH_INFO": path}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        answers[path] = done.stdout
    assert f"X-Sendfile: {file}\n" in answers["/named"]
    assert (f"X-Sendfile: {file}\n" in answers["/sent"]) is ("argv" in allowed)
    assert answers["/sent"].endswith("in the file") is ("argv" not in allowed)
