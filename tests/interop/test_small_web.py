"""Gemini, Titan and Gopher through real servers: one site, the same answers behind each of them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.cli.program import poll
from tests.interop.servers import SERVER_NAME, accepts, python_script
from tests.interop.small_web import (
    BIN,
    GEMINI,
    GMCAPSULE,
    GOPHER,
    JETFORCE,
    MOLLY_CGI,
    MOLLY_SCGI,
    PATIENCE,
    SERVERS,
    Capsule,
    Said,
    Server,
    capsule,
    read_all,
    read_gemini,
    read_text,
)
from tests.interop.small_web_site import EXITING, LARGE, MANY, ODD

#: Those that pass an answer on as it comes.
STREAMING = (MOLLY_SCGI, JETFORCE)


@pytest.fixture(scope="module", params=GEMINI, ids=str)
def gemini(request: pytest.FixtureRequest) -> Iterator[Capsule]:
    with capsule(request.param) as running:
        yield running


@pytest.fixture(scope="module", params=GOPHER, ids=str)
def gopher(request: pytest.FixtureRequest) -> Iterator[Capsule]:
    with capsule(request.param) as running:
        yield running


# --- Gemini


def test_a_page(gemini: Capsule) -> None:
    said = gemini.ask()
    assert (said.code, said.meta) == (20, "text/gemini")
    mount = gemini.server.mount
    assert said.body.decode().splitlines() == ["# Hello", f"gemini, {mount}", f"=> {mount}/name Your name"]


def test_a_question_and_its_answer(gemini: Capsule) -> None:
    assert gemini.ask("/name") == Said(10, "What is your name?")
    assert gemini.ask("/name?Ada%20L%C3%B6velace+1") == Said(
        20, "text/plain; charset=utf-8", b"Hello, Ada L\xc3\xb6velace+1!\n"
    )


def test_a_redirect(gemini: Capsule) -> None:
    assert gemini.ask("/moved") == Said(30, f"{gemini.server.mount}/there?x=1")


def test_not_found(gemini: Capsule) -> None:
    assert gemini.ask("/nowhere") == Said(51, "no page nowhere")


def test_a_handler_that_fails_says_nothing_of_itself(gemini: Capsule) -> None:
    assert gemini.ask("/fails") == Said(42, "Internal Server Error")


def test_a_body_that_breaks_is_no_whole_body(gemini: Capsule) -> None:
    said = gemini.ask("/breaks")
    # Where the answer is passed on as it comes, nobody can take the line back. The others see the exit status.
    assert said.code == (20 if gemini.server in STREAMING else 42)
    assert said.body in (b"", b"some\n" * MANY)
    assert "secret" not in said.meta


def test_the_same_is_told_of_a_request(gemini: Capsule) -> None:
    said = gemini.ask("/told/a%20b?x=1&y=%2F")
    mount = gemini.server.mount
    assert json.loads(said.body) == {
        "scheme": "gemini",
        "method": "GET",
        "script_name": mount,
        "path_info": "/told/a b",
        "query": "x=1&y=%2F",
        "input": "x=1&y=/",
        "remote_addr": "127.0.0.1",
        "server_name": SERVER_NAME,
    }


def test_what_only_begins_like_the_mount_is_not_below_it(gemini: Capsule) -> None:
    # GmCapsule knows it by itself, and has nothing at that path.
    assert gemini.ask(url=gemini.url("told")).code == (50 if gemini.server is GMCAPSULE else 51)


def test_a_log_in_with_certificates(gemini: Capsule) -> None:
    """Two are let in, each as who they are; the third, who bears the name of the first, is not."""
    assert gemini.identities is not None
    assert gemini.ask("/private") == Said(60, "Who are you?")
    for who in ("alice", "bob"):
        said = gemini.ask("/private", who)
        fingerprint = gemini.identities.fingerprints[who]
        assert (said.code, said.body.decode()) == (20, f"{fingerprint} {who} None\n")
    assert gemini.ask("/private", "eve") == Said(61, "Not you")


def test_a_larger_body_arrives_whole(gemini: Capsule) -> None:
    said = gemini.ask("/large")
    assert (said.code, said.meta) == (20, "application/octet-stream")
    assert said.body == (bytes(range(256)) * (LARGE // 256 + 1))[:LARGE]


@pytest.mark.parametrize("gemini", STREAMING, ids=str, indirect=True)
def test_an_answer_is_passed_on_as_it_comes(gemini: Capsule) -> None:
    with gemini.connect() as stream:
        stream.sendall(gemini.url("/stream").encode() + b"\r\n")
        received = b""
        while not received.endswith(b"one\n"):
            piece = stream.recv(65536)
            assert piece
            received += piece
        gemini.open_gate()
        assert read_gemini(received + read_all(stream)).body == b"one\ntwo\n"


# --- Titan


@pytest.fixture(scope="module")
def titan() -> Iterator[Capsule]:
    with capsule(GMCAPSULE) as running:
        yield running


def put(titan: Capsule, text: bytes, who: str | None, parameters: str = "") -> Said:
    url = titan.url(f"/wiki;size={len(text)}{parameters}", "titan")
    return titan.ask(who=who, url=url, body=text)


def test_an_upload(titan: Capsule) -> None:
    text = bytes(range(256)) * 300
    said = put(titan, text, "alice", ";mime=text/gemini;token=a%20b")
    assert said == Said(30, f"gemini://{SERVER_NAME}:{titan.port}/app/uploaded")
    assert (titan.folder / "uploaded").read_bytes() == text
    assert (titan.folder / "uploaded-how").read_text() == f"PUT text/gemini {len(text)} a b"
    assert titan.ask("/uploaded").code == 20


def test_an_upload_of_nothing_deletes(titan: Capsule) -> None:
    assert put(titan, b"x", "bob").code == 30
    assert put(titan, b"", "bob") == Said(20, "text/plain; charset=utf-8", b"deleted\n")
    assert not (titan.folder / "uploaded").exists()


def test_an_upload_by_somebody_else_is_refused(titan: Capsule) -> None:
    (titan.folder / "uploaded").unlink(missing_ok=True)
    assert put(titan, b"x", "eve") == Said(61, "Not you")
    assert put(titan, b"x", None).code == 60
    assert not (titan.folder / "uploaded").exists()


def test_an_upload_above_the_limit_does_not_reach_the_script(titan: Capsule) -> None:
    (titan.folder / "uploaded").unlink(missing_ok=True)
    # 100000 in the configuration. GmCapsule hangs up, with or without a word.
    with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
        assert put(titan, b"x" * 100_001, "alice").code in (50, 59)
    assert put(titan, b"x" * 100_000, "eve") == Said(61, "Not you")
    assert not (titan.folder / "uploaded").exists()


@pytest.mark.parametrize("server", [MOLLY_SCGI, MOLLY_CGI, JETFORCE], ids=str)
def test_the_others_do_not_take_uploads(server: Server) -> None:
    with capsule(server) as running:
        assert running.ask(who="alice", url=running.url("/wiki;size=1", "titan"), body=b"x").code == 53


# --- Gopher


def test_a_menu(gopher: Capsule) -> None:
    mount, port = gopher.server.mount, gopher.port
    front, *rest = read_text(gopher.select())
    assert front.startswith("iHello\t")
    assert rest[0].startswith(f"igopher, {mount}?\t")
    assert rest[1] == f"1Your name\t{mount}?/name\t{SERVER_NAME}\t{port}"


def test_a_question_and_its_answer_over_gopher(gopher: Capsule) -> None:
    mount, port = gopher.server.mount, gopher.port
    assert read_text(gopher.select("/name")) == [f"7What is your name?\t{mount}?/name\t{SERVER_NAME}\t{port}"]
    assert read_text(gopher.select("/name", "Ada L")) == ["Hello, Ada L!"]


def test_the_same_is_told_of_a_request_over_gopher(gopher: Capsule) -> None:
    assert json.loads(gopher.select("/told?x=1", "Ada L")) == {
        "scheme": "gopher",
        "method": "GET",
        "script_name": f"{gopher.server.mount}?",
        "path_info": "/told",
        "query": "x=1",
        "input": "Ada L",
        "remote_addr": "127.0.0.1",
        "server_name": SERVER_NAME,
    }


def test_a_redirect_over_gopher(gopher: Capsule) -> None:
    mount = gopher.server.mount
    assert read_text(gopher.select("/moved")) == [
        f"1See {mount}?/there?x=1\t{mount}?/there?x=1\t{SERVER_NAME}\t{gopher.port}"
    ]


def test_errors_over_gopher(gopher: Capsule) -> None:
    assert read_text(gopher.select("/nowhere")) == ["3no page nowhere\t\terror.host\t1"]
    assert read_text(gopher.select("/fails")) == ["3Internal Server Error\t\terror.host\t1"]
    assert read_text(gopher.select("/private")) == ["3Who are you?\t\terror.host\t1"]


def test_a_body_that_breaks_has_no_end_over_gopher(gopher: Capsule) -> None:
    assert gopher.select("/breaks") == b"some\r\n" * MANY


def test_a_larger_body_arrives_whole_over_gopher(gopher: Capsule) -> None:
    assert gopher.select("/large") == (bytes(range(256)) * (LARGE // 256 + 1))[:LARGE]


def test_an_answer_is_passed_on_as_it_comes_over_gopher(gopher: Capsule) -> None:
    with socket.create_connection(("127.0.0.1", gopher.port), PATIENCE) as stream:
        stream.sendall(gopher.server.mount.encode() + b"?/stream\r\n")
        received = b""
        while not received.endswith(b"one\r\n"):
            piece = stream.recv(65536)
            assert piece
            received += piece
        gopher.open_gate()
        assert read_text(received + read_all(stream)) == ["one", "two"]


def test_words_of_the_client_are_not_words_of_the_command(gopher: Capsule) -> None:
    assert read_text(gopher.select("-c import --help"))[0].startswith("iHello\t")


# --- nothing that we answer ends molly-brown


@pytest.fixture(scope="module", params=[MOLLY_SCGI, MOLLY_CGI], ids=str)
def molly(request: pytest.FixtureRequest) -> Iterator[Capsule]:
    with capsule(request.param) as running:
        yield running


@pytest.mark.parametrize("name", ODD)
def test_no_answer_of_ours_ends_molly_brown(molly: Capsule, name: str) -> None:
    if molly.server is MOLLY_SCGI and name in EXITING:
        with capsule(MOLLY_SCGI) as running:
            survives(running, name)
    else:
        survives(molly, name)


def survives(molly: Capsule, name: str) -> None:
    with molly.connect() as stream:
        stream.sendall(molly.url(f"/odd/{name}").encode() + b"\r\n")
        data = read_all(stream)
    assert "secret" not in read_gemini(data).meta
    assert lives(molly)


def lives(molly: Capsule) -> bool:
    return accepts(molly.port) and molly.ask(url=f"gemini://{SERVER_NAME}:{molly.port}/nothing").code == 51


@pytest.mark.parametrize("page", ["waits", "stream"], ids=["before it answers", "while it answers"])
def test_a_backend_that_is_killed_does_not_end_molly_brown(page: str) -> None:
    with capsule(MOLLY_SCGI) as running:
        assert running.backend is not None
        with running.connect() as stream:
            stream.sendall(running.url(f"/{page}").encode() + b"\r\n")
            running.open_gate()  # it is at work on this
            running.backend.process.kill()
            read_all(stream)
        assert lives(running)
        assert running.ask().code == 42


def test_an_answer_that_is_none_does_end_molly_brown() -> None:
    """That this can be told: a script of somebody else's, which says nothing."""
    with capsule(MOLLY_CGI, script=lambda _text, _folder: "#!/bin/sh\n") as running:
        with running.connect() as stream, contextlib.suppress(ssl.SSLEOFError, ConnectionError):
            stream.sendall(running.url("").encode() + b"\r\n")
            assert read_all(stream) == b""
        poll(lambda: not accepts(running.port), "the end of molly-brown")
        assert "panic" in running.web.error_log()


@pytest.mark.parametrize("server", [MOLLY_SCGI, GMCAPSULE], ids=str)
def test_an_application_at_the_root(server: Server) -> None:
    with capsule(attrs.evolve(server, mount="")) as running:
        told = json.loads(running.ask("/told/a%20b").body)
        assert (told["script_name"], told["path_info"]) == ("", "/told/a b")
        assert running.ask("/").body.decode().splitlines()[-1] == "=> /name Your name"
        assert running.ask("/moved") == Said(30, "/there?x=1")


# --- the examples


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("server", GEMINI, ids=str)
def test_the_guest_book_over_gemini(server: Server) -> None:
    with capsule(server, app=EXAMPLES / "guestbook.py", variables={"GUESTBOOK": "{folder}/book.txt"}) as running:
        assert running.ask("/sign") == Said(10, "Your line")
        assert running.ask("/sign?Gr%C3%BC%C3%9Fe%0A%3D%3E%20x") == Said(30, f"{server.mount}/")
        page = running.ask("/")
        assert (page.code, page.meta) == (20, "text/gemini")
        assert page.body.decode().splitlines()[-1] == "> Grüße => x"


@pytest.mark.parametrize("server", GEMINI, ids=str)
def test_the_page_for_members_over_gemini(server: Server) -> None:
    variables = {"MEMBERS": "{folder}/members.txt"}
    with capsule(server, app=EXAMPLES / "certificate.py", variables=variables) as running:
        assert running.identities is not None
        of = running.identities.fingerprints
        (running.folder / "members.txt").write_text(f"{of['alice']} Alice A.\n{of['bob'].upper()} Bob B.\n")
        assert running.ask("/").code == 20
        assert running.ask("/members/").code == 60
        assert running.ask("/members/", "alice").body.startswith(b"# Welcome, Alice A.\n")
        assert running.ask("/members/", "bob").body.startswith(b"# Welcome, Bob B.\n")
        assert running.ask("/members/", "eve") == Said(61, f"Send the owner your fingerprint: {of['eve']}")


WIKI = {"WIKI": "{folder}/wiki", "WIKI_PASSWORD": "open sesame"}


@pytest.mark.parametrize("server", GEMINI, ids=str)
def test_the_wiki_over_gemini(server: Server) -> None:
    with capsule(server, app=EXAMPLES / "wiki.py", variables=WIKI) as running:
        (running.folder / "wiki").mkdir()
        (running.folder / "wiki" / "start.gmi").write_text("# Grüße\n")
        assert f"=> {server.mount}/start start" in running.ask("/").body.decode().splitlines()
        assert running.ask("/start").body.decode().startswith("# Grüße\n")
        assert running.ask("/none").code == 51
        links = re.findall(r"^=> (titan://\S+) ", running.ask("/start/edit").body.decode(), re.MULTILINE)
        host = f"{SERVER_NAME}:{running.port}"
        assert links == [f"titan://{host}{server.mount}/start{end}" for end in ("", ";edit")]


def test_the_wiki_is_written_over_titan() -> None:
    with capsule(GMCAPSULE, app=EXAMPLES / "wiki.py", variables=WIKI) as running:

        def put(text: bytes, token: str, kind: str = "text/gemini") -> Said:
            url = running.url(f"/start;size={len(text)};mime={kind};token={token}", "titan")
            return running.ask(who="alice", url=url, body=text)

        assert put("# Grüße".encode(), "guess").code == 50
        assert put(b"x", "open%20sesame", "image/png").code == 59
        assert running.ask("/start").code == 51
        assert put("# Grüße".encode(), "open%20sesame") == Said(30, f"gemini://{SERVER_NAME}:{running.port}/app/start")
        assert running.ask("/start").body.decode().startswith("# Grüße\n")
        assert running.ask(who="alice", url=running.url("/start;edit", "titan")) == Said(
            20, "text/gemini", "# Grüße".encode()
        )


@pytest.mark.parametrize("server", GOPHER, ids=str)
def test_the_guest_book_over_gopher(server: Server) -> None:
    with capsule(server, app=EXAMPLES / "guestbook.py", variables={"GUESTBOOK": "{folder}/book.txt"}) as running:
        here = f"{server.mount}?"
        end = f"{SERVER_NAME}\t{running.port}"
        assert read_text(running.select())[1] == f"1Sign it\t{here}/sign\t{end}"
        assert read_text(running.select("/sign")) == [f"7Your line\t{here}/sign\t{end}"]
        assert read_text(running.select("/sign", "Grüße => x")) == [f"1See {here}/\t{here}/\t{end}"]
        assert read_text(running.select("/"))[-1].startswith("i> Grüße => x\t")


@pytest.mark.parametrize("server", GOPHER, ids=str)
@pytest.mark.parametrize(
    ("name", "title"), [("guestbook", "Guest book"), ("wiki", "Wiki"), ("certificate", "The club")]
)
def test_the_front_pages_over_gopher(server: Server, name: str, title: str) -> None:
    with capsule(server, app=EXAMPLES / f"{name}.py", variables=WIKI | {"GUESTBOOK": "{folder}/book.txt"}) as running:
        assert read_text(running.select())[0].startswith(f"i{title}\t")


# --- what the configurations say


@pytest.mark.parametrize("server", [each for each in SERVERS if each.protocol == "cgi"], ids=str)
def test_the_script_that_the_configuration_shows(server: Server) -> None:
    def shown(text: str, folder: Path) -> str:
        [script] = re.findall(r"^#   (#!/bin/sh)\n#   (cd .*)$", text, re.MULTILINE)
        # Where the package is not installed, the program that is named has nothing to import.
        (folder / "program").write_text(python_script("import sys\nfrom gateways.cli import main\nsys.exit(main())\n"))
        (folder / "program").chmod(0o755)
        return "\n".join(script).replace(f"exec {BIN}/gateways ", f"exec {folder}/program ") + "\n"

    with capsule(server, script=shown) as running:
        if server.network == "gemini":
            assert running.ask("/name?Ada").body == b"Hello, Ada!\n"
            assert running.ask("/nowhere") == Said(51, "no page nowhere")
        else:
            assert read_text(running.select())[0].startswith("iHello\t")
            assert read_text(running.select("/name", "Ada")) == ["Hello, Ada!"]
