"""Frameworks as their users have them, behind real web servers: Flask, Django, Starlette and FastAPI."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.tools import needs
from tests.interop.client import fetch, open_request
from tests.interop.configurations import Configuration
from tests.interop.frameworks.pages import FORM, MULTIPART, Page, Step, differences, multipart, through, walk
from tests.interop.frameworks.running import (
    MOUNT,
    behind,
    configuration,
    prepare_shelf,
    shelf_files,
    shelf_variables,
)
from tests.interop.servers import SERVER_NAME, SOCKET_MODE, FrontEnd, front_end, python_script, require
from tests.interop.test_cgi_servers import _process

#: 5 MiB in which no two neighbouring blocks of 4 KiB are equal.
BIG = b"".join(bytes([number % 251]) * 4096 for number in range(1280))

#: nginx and Apache over FastCGI and SCGI, where the application is below /app.
SOCKETS = (
    "nginx-fastcgi-stock-unix-app",
    "nginx-scgi-stock-unix-app",
    "apache2-fastcgi-proxypass-unix-app",
    "apache2-scgi-proxypass-unix-app",
)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """No tracebacks beside a failure: some pages are there to fail."""
    caplog.set_level("CRITICAL")


@contextmanager
def public_folder() -> Generator[Path]:
    """A folder that anybody may write to: CGI programs run as the user of their web server."""
    with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


# --- Flask -----------------------------------------------------------------------------------------------------------

_CGI = """
import os
os.environ["BLOG_DATA"] = {data!r}

import gateways
from gateways.wsgi import from_wsgi
from tests.interop.frameworks.blog import create_app

gateways.cgi.run(from_wsgi(create_app()))
"""

_FCGIWRAP = Configuration(
    id="nginx-cgi-fcgiwrap",
    server="nginx",
    protocol="fastcgi",
    transport="pipe",
    mount=MOUNT,
    mount_option=None,
    script="app.cgi",
    site="""location @MOUNT@ {
      include /etc/nginx/fastcgi_params;
      fastcgi_split_path_info ^(@MOUNT@)(.*)$;
      fastcgi_param SCRIPT_FILENAME @SCRIPT@;
      fastcgi_param PATH_INFO $fastcgi_path_info;
      fastcgi_pass unix:@FOLDER@/fcgiwrap.sock;
    }""",
)

_PASSWORD = b"name=Zo%C3%AB&password=tr%26s+"
_POST = "/posts/gr%C3%BC%C3%9Fe-aus-%E4%B8%96%E7%95%8C/"
_PICTURE = multipart(
    {"title": "Grüße aus 世界", "text": "<Hier> & dort"}, {"picture": ("ein bild.png", "image/png", BIG[:300_000])}
)
#: What is done with the blog, from an empty one on.
VISIT = [
    Step("empty the blog", 204, "/tools/reset", "POST"),
    Step("an empty blog", 200, "/"),
    Step("the mount without a slash", 308, ""),
    Step("register", 302, "/accounts/register", "POST", (FORM,), _PASSWORD),
    Step("register again", 409, "/accounts/register", "POST", (FORM,), _PASSWORD),
    Step("a message in the session", 200, "/accounts/login"),
    Step("a page for authors", 302, "/write?a=b%20c"),
    Step("log in with a wrong password", 200, "/accounts/login", "POST", (FORM,), b"name=Zo%C3%AB&password=x"),
    Step("log in", 303, "/accounts/login", "POST", (FORM,), _PASSWORD),
    Step("write, as an author", 200, "/write"),
    Step("a post without a title", 400, "/write", "POST", (MULTIPART,), multipart({"title": "", "text": ""}, {})),
    Step("a post with a picture", 302, "/write", "POST", (MULTIPART,), _PICTURE),
    Step("the post", 200, _POST),
    Step("the post without its slash", 308, _POST.removesuffix("/")),
    Step("its picture", 200, "/pictures/ein_bild.png"),
    Step("a part of its picture", 206, "/pictures/ein_bild.png", "GET", (("Range", "bytes=100-199"),)),
    Step(
        "its picture, which is known", 304, "/pictures/ein_bild.png", "GET", (("If-None-Match", '"of-ein_bild.png"'),)
    ),
    Step("all posts", 200, "/?q=%C3%A9&q=a+b&page=2"),
    Step("HEAD", 200, "/", "HEAD"),
    Step("the style", 200, "/static/style.css"),
    Step("the request", 200, "/tools/request/a%20b/%E4%B8%96?x=1&x=%C3%A9&y="),
    Step(
        "a request with JSON",
        200,
        "/tools/request/json",
        "POST",
        (
            ("Content-Type", "application/json"),
            ("Authorization", "Basic bTpnw7zDn2U="),
            ("Accept-Language", "de, en;q=0.5"),
        ),
        b'{"a": ["\xc3\xa9", 1]}',
    ),
    Step("pieces", 200, "/tools/numbers?count=50000&word=%C3%A9"),
    Step("a long body", 200, "/tools/digest", "POST", (("Content-Type", "application/octet-stream"),), BIG),
    Step("a body that is too long", 413, "/tools/digest", "POST", (FORM,), BIG * 3 + b"12345678" * 200_000),
    Step("a missing page", 404, "/nothing/here"),
    Step("a method that is not allowed", 405, "/tools/numbers", "DELETE"),
    Step("options", 200, "/write", "OPTIONS"),
    Step("a bug", 500, "/tools/boom"),
    Step("delete", 302, _POST + "delete", "POST", (FORM,), b""),
    Step("log out", 302, "/accounts/logout"),
    Step("the blog, empty again", 200, "/"),
]


@contextmanager
def _fcgiwrap(script: str) -> Generator[FrontEnd]:
    """nginx with fcgiwrap behind it, which runs the script for each request."""
    require("fcgiwrap")
    with front_end(_FCGIWRAP, script) as web:
        socket = web.folder / "fcgiwrap.sock"
        with _process(["fcgiwrap", "-c", "2", "-s", f"unix:{socket}"], web.folder, socket.exists):
            socket.chmod(SOCKET_MODE)
            yield web


@pytest.fixture(scope="module")
def blogs() -> Iterator[dict[str, FrontEnd]]:
    """The Flask site behind every protocol and two web servers; the CGI programs have data of their own."""
    needs("flask")
    with ExitStack() as stack:
        folders = [stack.enter_context(public_folder()) for _ in range(3)]
        scripts = [python_script(_CGI.format(data=str(folder))) for folder in folders[1:]]
        apache = configuration("apache2-cgi-scriptalias-pipe-app")
        blog = ("tests.interop.frameworks.blog:create_app", "--factory")
        names = [*SOCKETS, apache.id, _FCGIWRAP.id]
        webs, _ = stack.enter_context(
            behind(map(configuration, SOCKETS), *blog, variables={"BLOG_DATA": str(folders[0])})
        )
        webs = [*webs, stack.enter_context(front_end(apache, scripts[0])), stack.enter_context(_fcgiwrap(scripts[1]))]
        yield dict(zip(names, webs, strict=True))


@pytest.fixture(scope="module")
def blog_by_itself() -> Iterator[Any]:
    """The pages of the Flask site with no server at all: as Flask's own client for tests has them."""
    needs("flask")
    from tests.interop.frameworks.blog import create_app

    with public_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "BLOG_DATA", str(folder))
        yield create_app().test_client(use_cookies=False)


async def _pages_by_itself(client: Any) -> dict[str, Page]:
    async def send(step: Step, headers: list[tuple[str, str]]) -> Page:
        answer = client.open(
            step.target, f"http://{SERVER_NAME}{MOUNT}", method=step.method, headers=headers, data=step.body
        )
        with answer:
            return Page(answer.status_code, list(answer.headers), answer.data)

    return await walk(VISIT, send)


async def test_flask_by_itself_answers_as_it_was_written(blog_by_itself: Any) -> None:
    pages = await _pages_by_itself(blog_by_itself)
    assert {step.name: pages[step.name].status for step in VISIT} == {step.name: step.status for step in VISIT}
    assert pages["a long body"].body.decode() == f"{len(BIG)} {hashlib.sha256(BIG).hexdigest()}\n"


@pytest.mark.parametrize("name", [*SOCKETS, "apache2-cgi-scriptalias-pipe-app-framework", _FCGIWRAP.id])
async def test_flask_pages_are_equal_behind(name: str, blogs: dict[str, FrontEnd], blog_by_itself: Any) -> None:
    seen = await walk(VISIT, through(blogs[name].port))
    assert differences(await _pages_by_itself(blog_by_itself), seen) == []


# --- Starlette and FastAPI -------------------------------------------------------------------------------------------

_JSON = ("Content-Type", "application/json")
_UPLOAD = multipart({"title": "Grüße"}, {"upload": ("Brief an Zoë.bin", "application/x-thing", BIG)})
_UPLOADED = ["Grüße", "Brief an Zoë.bin", "application/x-thing", len(BIG), hashlib.sha256(BIG).hexdigest()]
_NUMBERS = "".join(f"{number}\n" for number in range(1000))


@contextmanager
def _site(module: str) -> Generator[dict[str, FrontEnd]]:
    """An ASGI application behind four web servers, on trio; its lifespan ends when it is stopped."""
    application = f"tests.interop.frameworks.{module}:app"
    with behind(map(configuration, SOCKETS), application) as (webs, program):
        assert f"serving {application} (ASGI)" in program.text
        yield dict(zip(SOCKETS, webs, strict=True))
    assert program.text.count("the lifespan is over") == 1


@pytest.fixture(scope="module")
def starlettes() -> Iterator[dict[str, FrontEnd]]:
    needs("starlette", "python_multipart")
    with _site("starlette_site") as webs:
        yield webs


@pytest.fixture(scope="module")
def fastapis() -> Iterator[dict[str, FrontEnd]]:
    needs("fastapi", "python_multipart")
    with _site("fastapi_site") as webs:
        yield webs


@pytest.mark.parametrize("name", SOCKETS)
async def test_starlette_behind(name: str, starlettes: dict[str, FrontEnd]) -> None:
    port = starlettes[name].port
    shown = {
        "word": "a b",
        "query": [["x", "1"], ["x", "é"]],
        "json": {"é": [1]},
        "root": MOUNT,
        "elsewhere": f"http://{SERVER_NAME}{MOUNT}/show/there",
        "library": "trio",
        "cookie": "1",
        "client": "127.0.0.1",
    }
    headers = [_JSON, ("Cookie", "a=1")]
    answer = await fetch(port, "POST", f"{MOUNT}/show/a%20b?x=1&x=%C3%A9", headers, '{"é": [1]}'.encode())
    seen = json.loads(answer.body)
    url = seen.pop("url")
    assert (answer.status, seen) == (200, shown)
    assert url.endswith("?x=1&x=%C3%A9")
    answer = await fetch(port, "POST", f"{MOUNT}/form", [MULTIPART], _UPLOAD)
    assert json.loads(answer.body) == _UPLOADED
    answer = await fetch(port, "POST", f"{MOUNT}/digest", body=BIG)
    assert (answer.status, answer.body.decode()) == (200, f"{len(BIG)} {hashlib.sha256(BIG).hexdigest()}")
    answer = await fetch(port, "GET", f"{MOUNT}/redirect")
    assert answer.status == 303
    assert answer.header("location") == f"http://{SERVER_NAME}{MOUNT}/show/there"
    assert answer.header("set-cookie") == f"a=1; Path={MOUNT}; SameSite=lax"
    answer = await fetch(port, "GET", f"{MOUNT}/numbers")
    assert (answer.body.decode(), answer.complete) == (_NUMBERS, True)
    answer = await fetch(port, "GET", f"{MOUNT}/numbers", [("Accept-Encoding", "gzip")])
    assert (gzip.decompress(answer.body).decode(), answer.header("content-encoding")) == (_NUMBERS, "gzip")
    answer = await fetch(port, "GET", f"{MOUNT}/static/style.css")
    assert (answer.status, answer.header("content-type")) == (200, "text/css; charset=utf-8")
    known = [("If-None-Match", str(answer.header("etag")))]
    assert (await fetch(port, "GET", f"{MOUNT}/static/style.css", known)).status == 304
    answer = await fetch(port, "GET", f"{MOUNT}/refuse")
    assert (answer.status, answer.body, answer.header("x-why")) == (403, b"not for you", "because")
    assert (await fetch(port, "GET", f"{MOUNT}/nothing")).status == 404
    answer = await fetch(port, "GET", f"{MOUNT}/boom")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")


@pytest.mark.parametrize("name", SOCKETS)
async def test_fastapi_behind(name: str, fastapis: dict[str, FrontEnd]) -> None:
    port = fastapis[name].port
    item = b'{"name": "\xc3\xa9", "price": 1.5}'
    answer = await fetch(port, "PUT", f"{MOUNT}/items/7?q=a%20b", [_JSON, ("Cookie", "a=1")], item)
    assert (answer.status, json.loads(answer.body)) == (
        201,
        {
            "number": 7,
            "item": {"name": "é", "price": 1.5, "tags": []},
            "q": "a b",
            "storage": "open",
            "cookie": "1",
            "url": f"http://{SERVER_NAME}{MOUNT}/items/7?q=a%20b",
            "elsewhere": f"http://{SERVER_NAME}{MOUNT}/items/3",
            "library": "trio",
        },
    )
    assert int((await fetch(port, "GET", f"{MOUNT}/closed")).body) > 0
    answer = await fetch(port, "PUT", f"{MOUNT}/items/7", [_JSON], b'{"name": "x", "price": -1}')
    assert (answer.status, json.loads(answer.body)["detail"][0]["loc"]) == (422, ["body", "price"])
    answer = await fetch(port, "POST", f"{MOUNT}/form", [MULTIPART], _UPLOAD)
    assert json.loads(answer.body) == _UPLOADED
    answer = await fetch(port, "GET", f"{MOUNT}/numbers")
    assert (answer.body.decode(), answer.complete) == (_NUMBERS, True)
    described = json.loads((await fetch(port, "GET", f"{MOUNT}/openapi.json")).body)
    assert (described["servers"], "/items/{number}" in described["paths"]) == ([{"url": MOUNT}], True)
    answer = await fetch(port, "GET", f"{MOUNT}/refuse")
    assert (answer.status, answer.body, answer.header("x-why")) == (403, b'{"detail":"not for you"}', "because")
    assert (await fetch(port, "GET", f"{MOUNT}/items/x")).status == 405
    assert (await fetch(port, "GET", f"{MOUNT}/boom")).status == 500


@pytest.mark.parametrize("site", ["starlettes", "fastapis"])
async def test_a_task_of_an_answer_runs_when_it_has_been_sent(site: str, request: pytest.FixtureRequest) -> None:
    webs: dict[str, FrontEnd] = request.getfixturevalue(site)
    for name, web in webs.items():
        assert (await fetch(web.port, "POST", f"{MOUNT}/mail?name={name}", body=b"")).status == 202
        assert (await fetch(web.port, "GET", f"{MOUNT}/outbox?name={name}")).body == b"sent"


@pytest.mark.parametrize("name", SOCKETS)
async def test_who_leaves_what_has_no_end_cancels_it(name: str, starlettes: dict[str, FrontEnd]) -> None:
    port = starlettes[name].port
    async with open_request(port, "GET", f"{MOUNT}/endless?name={name}") as exchange:
        assert await exchange.receive_head() == 200
        assert await exchange.receive_body()
    assert (await fetch(port, "GET", f"{MOUNT}/left?name={name}")).body == b"left"


# --- Django ----------------------------------------------------------------------------------------------------------

#: Django's WSGI application, with static files that nginx has; its ASGI application, which has them itself.
SHELVES = ["wsgi", "asgi"]


@pytest.fixture(scope="module", params=SHELVES)
def shelf(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[FrontEnd]]]:
    """The Django site, behind nginx over FastCGI and Apache over SCGI, and which of the two interfaces it has."""
    needs("django")
    module = str(request.param)
    with public_folder() as data:
        prepare_shelf(data)
        variables = shelf_variables(data, debug=module == "asgi")
        if module == "asgi":
            # Django's own handler of static files asks where they are before any request has told it the mount.
            variables["SHELF_STATIC"] = f"{MOUNT}/static/"
        nginx = configuration("nginx-fastcgi-stock-unix-app", site=shelf_files(data) if module == "wsgi" else "")
        configurations = [nginx, configuration("apache2-scgi-proxypass-unix-app")]
        with behind(configurations, f"tests.interop.frameworks.shelf.{module}", variables=variables) as (webs, program):
            assert ("(WSGI)" in program.text) is (module == "wsgi")
            yield module, webs


async def test_django_behind(shelf: tuple[str, list[FrontEnd]]) -> None:
    _, webs = shelf
    for web in webs:
        port, agent = web.port, ("User-Agent", "somebody")
        answer = await fetch(port, "GET", f"{MOUNT}/where/a%20%C3%A9/?x=1&x=%C3%A9", [agent])
        assert json.loads(answer.body) == {
            "word": "a é",
            "query": {"x": ["1", "é"]},
            "method": "GET",
            "path": f"{MOUNT}/where/a é/",
            "path_info": "/where/a é/",
            "script": MOUNT,
            "reversed": f"{MOUNT}/where/%C3%A9/",
            "url": f"http://{SERVER_NAME}{MOUNT}/where/a%20%C3%A9/?x=1&x=%C3%A9",
            "address": "127.0.0.1",
            "agent": "somebody",
        }
        answer = await fetch(port, "GET", f"{MOUNT}/where/x")
        assert (answer.status, answer.header("location")) == (301, f"{MOUNT}/where/x/")
        answer = await fetch(port, "POST", f"{MOUNT}/digest/", body=BIG)
        assert answer.body.decode() == f"{len(BIG)} {hashlib.sha256(BIG).hexdigest()}"
        answer = await fetch(port, "GET", f"{MOUNT}/numbers/")
        assert (answer.status, answer.body.decode(), answer.complete) == (200, _NUMBERS, True)
        assert (await fetch(port, "GET", f"{MOUNT}/nothing/")).status == 404
        assert (await fetch(port, "GET", f"{MOUNT}/boom/")).status == 500


async def test_django_takes_an_upload_and_gives_it_back(shelf: tuple[str, list[FrontEnd]]) -> None:
    _, webs = shelf
    for web in webs:
        form = await fetch(web.port, "GET", f"{MOUNT}/upload/")
        cookie = str(form.header("set-cookie")).partition(";")[0]
        token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', form.body)
        assert token is not None
        fields = {"title": "Ein Bild", "csrfmiddlewaretoken": token[1].decode()}
        body = multipart(fields, {"file": ("bild.png", "image/png", BIG)})
        assert (await fetch(web.port, "POST", f"{MOUNT}/upload/", [MULTIPART], body)).status == 403
        kept = await fetch(web.port, "POST", f"{MOUNT}/upload/", [MULTIPART, ("Cookie", cookie)], body)
        assert (kept.status, str(kept.header("location"))[: len(f"{MOUNT}/documents/")]) == (302, f"{MOUNT}/documents/")
        answer = await fetch(web.port, "GET", str(kept.header("location")))
        assert (answer.status, answer.body) == (200, BIG)
        assert answer.header("content-disposition") == 'attachment; filename="Ein Bild.bin"'


async def test_django_has_its_static_files(shelf: tuple[str, list[FrontEnd]]) -> None:
    module, [nginx, _] = shelf
    page = await fetch(nginx.port, "GET", f"{MOUNT}/admin/login/")
    sheet = re.search(rf'href="({MOUNT}/static/admin/css/base.[\w.]*)"'.encode(), page.body)
    assert (page.status, sheet is not None) == (200, True), page.body
    assert sheet is not None
    answer = await fetch(nginx.port, "GET", sheet[1].decode())
    assert (answer.status, b"--primary" in answer.body) == (200, True)
    assert str(answer.header("content-type")).startswith("text/css")
    # nginx has entity tags, Django has none.
    assert (answer.header("etag") is None) is (module == "asgi")
