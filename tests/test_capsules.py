"""The examples for the small web: in memory, and through the development front end as its clients see them."""

from __future__ import annotations

import runpy
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio

from gateways.testing import call, serving
from tests.cli.program import Program, command, environment, get
from tests.gemini_client import PATIENCE, Answer, Identity, ask, fetch, identity, put

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["app"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- the guest book --------------------------------------------------------------------------------------------------


@pytest.fixture
def guestbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GUESTBOOK", str(tmp_path / "book.txt"))
    return load("guestbook")


HERE = "gemini://localhost"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_guest_book_over_gemini(guestbook: Any) -> None:
    assert (await ask(guestbook, f"{HERE}/sign")).line == "10 Your line"
    assert (await ask(guestbook, f"{HERE}/sign?Hello%20there")).line == "30 /"
    page = await ask(guestbook, f"{HERE}/")
    assert page.line == "20 text/gemini"
    assert page.text.startswith("# Guest book\n=> /sign Sign it\n### 20")
    assert page.text.endswith("\n> Hello there\n")


async def test_guest_book_over_http(guestbook: Any) -> None:
    form = await call(guestbook, "GET", "/sign?input=looking+ahead")
    assert '<form method="post">' in form.text
    signed = await call(guestbook, "POST", "/sign", headers=FORM, body=urlencode({"input": "Grüße"}))
    assert (signed.status, signed.headers["Location"]) == (302, "/")
    page = await call(guestbook)
    assert "<p>Grüße</p>" in page.text or "Grüße" in page.text
    assert "looking ahead" not in page.text


async def test_guest_book_over_gopher(guestbook: Any, tmp_path: Path) -> None:
    asked = await gopher(guestbook, "/sign")
    assert asked == b"7Your line\t/sign\tlocalhost\t70\r\n.\r\n"
    assert b"\t/\tlocalhost\t70\r\n" in await gopher(guestbook, "/sign", "From gopherspace")
    menu = await gopher(guestbook, "/")
    assert b"i> From gopherspace\t" in menu
    assert b"1Sign it\t/sign\tlocalhost\t70\r\n" in menu


@pytest.mark.parametrize(
    "text",
    [
        "one\n2026-01-01\ttwo",
        "one\r=> /evil click",
        "one\u2028two",
        "=> gemini://evil/ click",
        "<script>alert(1)</script>",
        "```",
        "# A heading",
        "\x1b[31m red \x00 \x85 \t",
    ],
)
async def test_an_entry_is_one_line_of_text_whatever_is_in_it(guestbook: Any, tmp_path: Path, text: str) -> None:
    await ask(guestbook, f"{HERE}/sign?{quote(text)}")
    await ask(guestbook, f"{HERE}/sign?next")
    assert (tmp_path / "book.txt").read_bytes().count(b"\n") == 2
    shown = (await ask(guestbook, f"{HERE}/")).text.splitlines()
    assert len(shown) == 6
    assert [line[0] for line in shown] == ["#", "=", "#", ">", "#", ">"]
    assert "\x1b" not in "".join(shown)
    html = (await call(guestbook)).text
    assert html.count("<a ") == 1
    assert "<script" not in html


async def test_entries_that_are_none_are_not_kept(guestbook: Any, tmp_path: Path) -> None:
    assert (await ask(guestbook, f"{HERE}/sign?%20%0A")).line == "10 Your line"
    assert (await ask(guestbook, f"{HERE}/sign?{'x' * 501}")).code == 59
    assert (await ask(guestbook, f"{HERE}/other")).code == 51
    assert not (tmp_path / "book.txt").exists()


async def test_guest_book_below_a_prefix(guestbook: Any) -> None:
    assert (await ask(guestbook, f"{HERE}/book/sign?x", mount="/book")).line == "30 /book/"
    assert "=> /book/sign Sign it" in (await ask(guestbook, f"{HERE}/book/", mount="/book")).text


async def test_many_guests_at_once_do_not_mix_their_lines(guestbook: Any) -> None:
    async def sign(number: int) -> None:
        await call(guestbook, "POST", "/sign", headers=FORM, body=f"input={'x' * 400}{number}")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(sign, number)
    shown = (await ask(guestbook, f"{HERE}/")).text.splitlines()[2:]
    assert sorted(shown[1::2]) == sorted(f"> {'x' * 400}{number}" for number in range(20))


async def gopher(app: Any, selector: str, search: str = "") -> bytes:
    """What Gopher's servers tell, and the bytes that come back."""
    more = {"SELECTOR": selector, "SEARCHREQUEST": search, "SERVER_PROTOCOL": "RFC1436", "SERVER_PORT": "70"}
    client = import_module("gateways.scgi").ClientConnection()
    environ = {"SERVER_NAME": "localhost", "REQUEST_METHOD": "GET", "PATH_INFO": selector, **more}
    async with serving(app, "scgi") as server:
        stream = await server.connect()
        await stream.send_all(client.send_request(0, environ) + client.end_body(0))
        received = b""
        with trio.fail_after(PATIENCE):
            while data := bytes(await stream.receive_some(65_536)):
                received += data
        assert server.errors == []
    return received


# --- the wiki --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WIKI", str(tmp_path / "wiki"))
    monkeypatch.setenv("WIKI_PASSWORD", "open sesame")
    return tmp_path / "wiki"


@pytest.fixture
def wiki(pages: Path) -> Any:
    return load("wiki")


async def titan(app: Any, path: str, text: bytes, token: str = "open%20sesame", mime: str = "text/gemini") -> Answer:
    more = {"CONTENT_LENGTH": str(len(text)), "CONTENT_TYPE": mime, "TITAN_TOKEN": token}
    return await ask(app, f"titan://localhost{path}", text, more={key: value for key, value in more.items() if value})


async def test_wiki_written_over_titan_and_read_over_gemini_and_http(wiki: Any, pages: Path) -> None:
    written = await titan(wiki, "/start", "# Start\n=> /cats Cats\nÜber".encode())
    assert written.line == "30 gemini://localhost/start"
    page = await ask(wiki, f"{HERE}/start")
    assert page.text == "# Start\n=> /cats Cats\nÜber\n\n=> /start/edit Edit this page\n=> / All pages\n"
    html = (await call(wiki, "GET", "/start")).text
    assert "<h1>Start</h1>" in html
    assert '<a href="/cats">Cats</a>' in html
    assert "=> /start start" in (await ask(wiki, f"{HERE}/")).text
    assert names_in(pages) == ["start.gmi"]


async def test_wiki_written_with_a_form(wiki: Any, pages: Path) -> None:
    form = await call(wiki, "GET", "/cats/edit")
    assert '<textarea name="text"' in form.text
    fields = urlencode({"text": "# Cats\r\n</textarea>&", "password": "open sesame"})
    saved = await call(wiki, "POST", "/cats/edit", headers=FORM, body=fields)
    assert (saved.status, saved.headers["Location"]) == (302, "/cats")
    assert (pages / "cats.gmi").read_bytes() == b"# Cats\n</textarea>&"
    assert "# Cats\n&lt;/textarea&gt;&amp;</textarea>" in (await call(wiki, "GET", "/cats/edit")).text


async def test_wiki_deleted_and_edited_over_titan(wiki: Any, pages: Path) -> None:
    await titan(wiki, "/start", b"old text")
    edited = await ask(wiki, f"{HERE}/start", more={"TITAN_EDIT": "1"})
    assert (edited.line, edited.body) == ("20 text/gemini", b"old text")
    assert (await titan(wiki, "/start", b"", token="wrong")).code == 50
    assert (await ask(wiki, f"{HERE}/start")).code == 20
    deleted = await ask(wiki, "titan://localhost/start", more={"CONTENT_LENGTH": "0", "TITAN_TOKEN": "open%20sesame"})
    assert deleted.line == "30 gemini://localhost/"
    assert (await ask(wiki, f"{HERE}/start")).code == 51


async def test_wiki_tells_gemini_where_to_upload(wiki: Any) -> None:
    page = await ask(wiki, "gemini://localhost:1966/start/edit")
    assert "=> titan://localhost:1966/start Upload" in page.text
    assert "=> titan://localhost:1966/start;edit Edit" in page.text


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "../start", "..%2Fstart", "%2E%2E%2Fx", "/etc", "a/b", "a/", "a%0A"),
        *(".hidden", "a.gmi", "A", "a b", "ü", "-a", "a" * 65),
    ],
)
async def test_a_name_never_leads_out_of_the_folder(wiki: Any, pages: Path, name: str) -> None:
    (pages.parent / "start.gmi").write_text("secret")
    for method in ("GET", "PUT", "DELETE"):
        result = await call(wiki, method, f"/{name}", body=b"x" if method == "PUT" else b"", raise_errors=False)
        assert result.status in (400, 404)
    assert (await titan(wiki, f"/{name}", b"x")).code in (51, 59)
    assert names_in(pages.parent) == ["start.gmi"]


@pytest.mark.parametrize("password", ["", "open", "open sesame!", "ö"])
async def test_only_who_knows_the_password_writes(wiki: Any, pages: Path, password: str) -> None:
    assert (await titan(wiki, "/start", b"x", token=quote(password))).line == "50 That is not the password"
    fields = urlencode({"text": "x", "password": password})
    assert (await call(wiki, "POST", "/start/edit", headers=FORM, body=fields)).status == 403
    assert names_in(pages) == []


async def test_without_a_password_nobody_writes(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WIKI_PASSWORD")
    assert (await titan(load("wiki"), "/start", b"x", token="")).code == 50
    assert names_in(pages) == []


@pytest.mark.parametrize(
    ("text", "mime", "line"),
    [
        (b"x" * 65_537, "text/gemini", "59 "),
        (b"\xff", "text/plain", "59 A page is UTF-8"),
        (b"x", "image/png", "59 A page is text/gemini or text/plain"),
    ],
)
async def test_what_is_no_page_is_not_taken(wiki: Any, pages: Path, text: bytes, mime: str, line: str) -> None:
    assert (await titan(wiki, "/start", text, mime=mime)).line.startswith(line)
    assert names_in(pages) == []


async def test_wiki_shows_no_script(wiki: Any) -> None:
    await titan(wiki, "/start", b"=> javascript:alert(1) click\n<script>alert(1)</script>\n")
    html = (await call(wiki, "GET", "/start")).text
    assert "<script" not in html
    assert 'href="javascript' not in html


async def test_wiki_below_a_prefix(wiki: Any) -> None:
    await titan(wiki, "/start", b"x")
    assert "=> /w/start start" in (await ask(wiki, f"{HERE}/w/", mount="/w")).text
    assert "=> titan://localhost/w/start Upload" in (await ask(wiki, f"{HERE}/w/start/edit?x", mount="/w")).text


# --- members ---------------------------------------------------------------------------------------------------------

ALICE, MALLORY = "a1" * 32, "b2" * 32


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "members.txt"
    path.write_text(f"{ALICE.upper()}  Alice of the club\n\nnonsense\n")
    monkeypatch.setenv("MEMBERS", str(path))
    return load("certificate")


def shown(fingerprint: str, name: str) -> dict[str, str]:
    return {"TLS_CLIENT_HASH": f"SHA256:{fingerprint}", "REMOTE_USER": name, "AUTH_TYPE": "CERTIFICATE"}


async def test_members_are_known_by_their_fingerprints(members: Any) -> None:
    assert (await ask(members, f"{HERE}/")).code == 20
    assert (await ask(members, f"{HERE}/members/")).code == 60
    assert (await ask(members, f"{HERE}/members")).code == 60
    assert (await ask(members, f"{HERE}/members/x")).code == 51
    page = await ask(members, f"{HERE}/members/", more=shown(ALICE, "somebody else"))
    assert page.text.startswith("# Welcome, Alice of the club\n")
    refused = await ask(members, f"{HERE}/members/", more=shown(MALLORY, "Alice of the club"))
    assert refused.line == f"61 Send the owner your fingerprint: {MALLORY}"
    empty = await ask(members, f"{HERE}/members/", more={"REMOTE_USER": "Alice of the club"})
    assert empty.code == 60


async def test_members_only_over_http(members: Any) -> None:
    assert (await call(members)).status == 200
    forged = {"TLS-Client-Hash": ALICE, "Remote-User": "Alice of the club"}
    result = await call(members, "GET", "/members/", headers=forged)
    assert (result.status, result.text) == (403, "Members log in with a certificate, over Gemini\n")
    # Behind plain HTTP nobody can have seen a certificate.
    assert (await call(members, "GET", "/members/", environ=shown(ALICE, ""))).status == 403


async def test_without_a_list_there_are_no_members(members: Any, tmp_path: Path) -> None:
    (tmp_path / "members.txt").unlink()
    assert (await ask(members, f"{HERE}/members/", more=shown(ALICE, ""))).code == 61


# --- all of them, through the development front end ------------------------------------------------------------------


@contextmanager
def developing(name: str, folder: Path, *arguments: str, **more: str) -> Generator[tuple[str, int]]:
    """Where an example is shown over HTTP, and the port for Gemini."""
    words = command("dev", str(EXAMPLES / f"{name}.py"), *arguments, "--port", "0", "--gemini", "0")
    variables = environment({"XDG_STATE_HOME": str(folder / "state"), **more})
    with Program(words, cwd=folder, env=variables) as program:
        program.wait_for("^stop with Ctrl-C$")
        [web] = program.wait_for(r"^  http://([^/]+)/")
        [port] = program.wait_for(r"^  gemini://127\.0\.0\.1:(\d+)/")
        yield web, int(port)


WAYS = ("fastcgi", "scgi", "cgi")


@pytest.mark.parametrize("way", WAYS)
def test_guest_book_in_the_development_front_end(tmp_path: Path, way: str) -> None:
    with developing("guestbook", tmp_path, "--via", way) as (web, port):
        assert fetch(port, "/sign").line == "10 Your line"
        assert fetch(port, "/sign?Hello%20there").line == "30 /"
        assert "> Hello there\n" in fetch(port, "/").text
        assert "Hello there" in get(web, "/").body
    assert (tmp_path / "guestbook.txt").read_text().endswith("\tHello there\n")


@pytest.mark.parametrize("way", WAYS)
def test_wiki_in_the_development_front_end(tmp_path: Path, way: str) -> None:
    with developing("wiki", tmp_path, "--via", way, WIKI_PASSWORD="open sesame") as (web, port):
        page = fetch(port, "/start/edit")
        assert f"=> titan://localhost:{port}/start Upload" in page.text
        written = put(port, "/start", b"# Start", ";mime=text/gemini;token=open%20sesame")
        assert written.line == f"30 gemini://localhost:{port}/start"
        assert fetch(port, "/start").text.startswith("# Start\n")
        assert put(port, "/start", b"x" * 100_000, ";token=open%20sesame").code == 59
        assert put(port, "/start", b"x", ";token=guess").code == 50
        assert "<h1>Start</h1>" in get(web, "/start").body
    assert (tmp_path / "wiki" / "start.gmi").read_text() == "# Start"


@pytest.mark.parametrize("way", WAYS)
def test_two_clients_log_in_with_certificates_that_bear_the_same_name(tmp_path: Path, way: str) -> None:
    alice, other = identity(tmp_path, "Alice"), identity(tmp_path, "Alice", kind="rsa")
    members = tmp_path / "members.txt"
    members.write_text(f"{alice.fingerprint} Alice\n")

    def visit(who: Identity | None) -> Answer:
        return fetch(port, "/members/", who)

    with developing("certificate", tmp_path, "--via", way) as (web, port):
        assert visit(None).code == 60
        assert visit(alice).text.startswith("# Welcome, Alice\n")
        assert visit(other).line == f"61 Send the owner your fingerprint: {other.fingerprint}"
        with members.open("a") as file:
            file.write(f"{other.fingerprint} Alice the younger\n")
        assert visit(other).text.startswith("# Welcome, Alice the younger\n")
        assert visit(alice).text.startswith("# Welcome, Alice\n")
        assert visit(None).code == 60
        assert get(web, "/members/").status == 403


@pytest.mark.parametrize("name", ["hello", "mounted"])
def test_other_examples_over_gemini(tmp_path: Path, name: str) -> None:
    with developing(name, tmp_path) as (_, port):
        assert fetch(port, "/").code == 20
