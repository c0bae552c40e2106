"""The examples for the small web as people with browsers see them: Chromium, nginx, FastCGI."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.asgi.tools import needs
from tests.cli.program import PACKAGE_FOLDER
from tests.interop.client import fetch
from tests.interop.frameworks.running import MOUNT, behind, configuration
from tests.interop.servers import SERVER_NAME, require
from tests.interop.test_django_admin import Person, person

FORM = [("Content-Type", "application/x-www-form-urlencoded")]


@contextmanager
def example(name: str, folder: Path) -> Generator[int]:
    """The port of an nginx in front of an example, which is below /app."""
    variables = {
        "GUESTBOOK": str(folder / "book.txt"),
        "WIKI": str(folder / "wiki"),
        "WIKI_PASSWORD": "open sesame",
        "MEMBERS": str(folder / "members.txt"),
    }
    nginx = configuration("nginx-fastcgi-stock-unix-app")
    with behind([nginx], f"{PACKAGE_FOLDER}/examples/{name}.py", variables=variables) as ([web], _):
        yield web.port


@pytest.mark.parametrize(
    ("name", "path", "body", "location"),
    [
        ("guestbook", "/sign", b"input=Gr%C3%BC%C3%9Fe", "/"),
        ("wiki", "/start/edit", b"text=%23+Gr%C3%BC%C3%9Fe&password=open+sesame", "/start"),
    ],
)
async def test_what_is_sent_with_a_form_is_shown(
    tmp_path: Path, name: str, path: str, body: bytes, location: str
) -> None:
    with example(name, tmp_path) as port:
        sent = await fetch(port, "POST", MOUNT + path, headers=FORM, body=body)
        assert (sent.status, sent.header("location")) == (302, MOUNT + location)
        page = await fetch(port, "GET", MOUNT + location)
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    assert "Grüße" in page.body.decode()


async def test_members_only_behind_nginx(tmp_path: Path) -> None:
    with example("certificate", tmp_path) as port:
        assert (await fetch(port, "GET", f"{MOUNT}/")).status == 200
        assert (await fetch(port, "GET", f"{MOUNT}/members/")).status == 403


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    require("chromium", "chromedriver", "nginx")
    needs("selenium")
    return tmp_path / "profile"


@contextmanager
def somebody(name: str, folder: Path, profile: Path) -> Generator[Person]:
    with example(name, folder) as port, person(f"http://{SERVER_NAME}:{port}{MOUNT}", profile) as found:
        yield found


def test_a_guest_signs_the_book(tmp_path: Path, profile: Path) -> None:
    with somebody("guestbook", tmp_path, profile) as guest:
        guest.go("/")
        assert guest.texts("h1") == ["Guest book"]
        guest.press("a")
        assert guest.path == "/sign"
        guest.fill_in(input="<b>Grüße</b> from Zoë")
        guest.press("button")
        assert guest.path == "/"
        assert guest.texts("blockquote") == ["<b>Grüße</b> from Zoë"]


def test_an_author_writes_a_page(tmp_path: Path, profile: Path) -> None:
    with somebody("wiki", tmp_path, profile) as author:
        author.go("/")
        author.press("a[href$='/start/edit']")
        author.fill_in(text="# Start\n=> /app/cats Cats\n* one\n* two\n", password="wrong")
        author.press("button")
        assert author.texts("body") == ["That is not the password"]
        author.go("/start/edit")
        author.fill_in(text="# Start\n=> /app/cats Cats\n* one\n* two\n", password="open sesame")
        author.press("button")
        assert author.path == "/start"
        assert author.texts("h1") == ["Start"]
        assert author.texts("li") == ["one", "two"]
        author.press("a[href$='/cats']")
        assert "This page is still to be written." in author.texts("p")
        author.press("a[href$='/cats/edit']")
        assert author.texts("h1") == ["Edit cats"]


def test_a_visitor_reads_what_is_for_everybody(tmp_path: Path, profile: Path) -> None:
    with somebody("certificate", tmp_path, profile) as visitor:
        visitor.go("/")
        assert visitor.texts("h1") == ["The club"]
        visitor.press("a")
        assert visitor.texts("body") == ["Members log in with a certificate, over Gemini"]
