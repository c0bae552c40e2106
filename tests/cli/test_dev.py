"""``gateways dev``: the same page whatever way it takes, error pages, and reloading."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateways import Reject, Request, Response, Roles, cli
from gateways.cli.errorpage import is_meta_variable, showing_errors
from tests.cli.program import Program, command, environment, get, poll, run

WAYS = (None, "fastcgi", "scgi", "cgi")

APP = """\
import os
from gateways import Reject, Response

async def app(request):
    match request.path_info:
        case "/boom":
            secret = os.environ["A_SECRET"]
            raise ValueError("<b>broken</b>")
        case "/reject":
            raise Reject(404, "no such page")
        case "/nothing":
            return None
    return Response(f"{request.method} {request.script_name}|{request.path_info} {request.query_string}\\n")
"""


def port_of(program: Program) -> str:
    """127.0.0.1:PORT of the last address that was printed."""
    return program.wait_for(r"^  http://([^/]+)/")[-1]


@contextmanager
def developing(*arguments: str, cwd: Path) -> Generator[Program, None, None]:
    words = command("dev", *arguments, "--port", "0")
    with Program(words, cwd=cwd, env=environment({"A_SECRET": "hush"})) as program:
        program.wait_for("^stop with Ctrl-C$")
        yield program


def via(way: str | None) -> list[str]:
    return [] if way is None else ["--via", way]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_pages(folder: Path, way: str | None) -> None:
    with developing("site.py", "--mount", "/app", *via(way), cwd=folder) as program:
        where = port_of(program)
        line = f"  http://{where}/app/" + (f" (via {way})" if way else "")
        assert line in program.text.splitlines()
        answers = [get(where, path) for path in ("/app/a%20b?q=1", "/app", "/app/reject", "/application")]
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert [(answer.status, answer.body) for answer in answers[:3]] == [
        (200, "GET /app|/a b q=1\n"),
        (200, "GET /app| \n"),
        (404, "no such page\n"),
    ]
    assert answers[3].status == 404


@pytest.mark.parametrize("way", WAYS)
def test_E17_a_folder_of_cgi_programs_is_run_and_not_shown(folder: Path, way: str | None) -> None:
    here = folder / "cgi-bin"
    here.mkdir()
    for name, mode in (("hello.cgi", 0o755), ("source.cgi", 0o644)):
        text = 'printf \'Content-Type: text/plain\\n\\n%s|%s|%s\' "$SCRIPT_NAME" "$PATH_INFO" "$QUERY_STRING"'
        (here / name).write_text(f"#!/bin/sh\n{text}\n")
        (here / name).chmod(mode)
    (folder / "site.py").chmod(0o755)
    paths = ("source.cgi", "source.cgi/", "..%2fsite.py", "%2e%2e/site.py", "%252e%252e%252fsite.py", "hello.cgi.", "")
    with developing("cgi-bin/", "--mount", "/cgi-bin", *via(way), cwd=folder) as program:
        where = port_of(program)
        answer = get(where, "/cgi-bin/hello.cgi/a%20b/?x=/y+z")
        others = [get(where, f"/cgi-bin/{path}") for path in paths]
    assert (answer.status, answer.body) == (200, "/cgi-bin/hello.cgi|/a b/|x=/y+z")
    assert [other.status for other in others] == [404] * len(paths)
    assert not any("#!" in other.body or "import" in other.body for other in others)


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_becomes_a_page_that_explains_it(folder: Path, way: str | None) -> None:
    with developing("site.py", *via(way), cwd=folder) as program:
        where = port_of(program)
        broken, nothing = get(where, "/boom"), get(where, "/nothing")
        program.wait_for("ValueError: <b>broken</b>$")
    assert (broken.status, nothing.status) == (500, 500)
    assert "&lt;b&gt;broken&lt;/b&gt;" in broken.body
    assert "<b>broken" not in broken.body
    assert "site.py" in broken.body
    assert "GET /boom, over " + (way or "http") in broken.body
    assert re.search("<tr><th>REQUEST_METHOD<td>GET", broken.body)
    assert "hush" not in broken.body
    assert "a handler gives back a Response, not NoneType" in nothing.body


@pytest.mark.parametrize("way", WAYS)
def test_an_application_that_cannot_be_imported_is_status_4(folder: Path, way: str | None) -> None:
    done = run("dev", "missing.py", "--port", "0", *via(way), cwd=folder)
    assert done.returncode == 4
    assert "there is no file" in done.stderr


@pytest.mark.parametrize("way", [None, "fastcgi", "scgi"])
def test_an_application_that_does_not_start_is_status_3(folder: Path, way: str | None) -> None:
    (folder / "failing.py").write_text(
        "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def app():\n"
        "    raise ValueError('no such setting')\n    yield\n"
    )
    done = run("dev", "failing.py", "--port", "0", *via(way), cwd=folder)
    assert done.returncode == 3
    assert "ValueError: no such setting" in done.stderr


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--port", "70000"], 2, "not a port: '70000'"),
        (["--via", "gopher"], 2, "invalid choice: 'gopher'"),
        (["--host", "0.0.0.0", "--port", "0"], 1, "--allow-public"),
    ],
)
def test_wrong_flags_are_explained(folder: Path, flags: list[str], status: int, said: str) -> None:
    done = run("dev", "site.py", *flags, cwd=folder)
    assert done.returncode == status
    assert said in done.stderr


def test_as_a_cgi_script_it_answers_one_request(folder: Path) -> None:
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "PATH_INFO": "/boom", "A_SECRET": "hush"}
    done = run("dev", "site.py", "--port", "nonsense", cwd=folder, environ=variables)
    assert done.returncode == 0
    assert done.stdout.startswith("Status: 500 ")
    assert "hush" not in done.stdout


# --- reloading

TEXT = "from gateways import Response\nasync def app(request): return Response({!r})\n"


def test_a_change_is_seen_and_a_syntax_error_waited_out(folder: Path) -> None:
    app = folder / "site.py"
    with developing("site.py", "--reload", cwd=folder) as program:
        where = port_of(program)
        assert get(where, "/").status == 200

        def shows(text: str) -> bool:
            try:
                return get(where, "/").body == text
            except OSError:
                return False  # between two children

        app.write_text(TEXT.format("two"))
        poll(lambda: shows("two"), "the changed page")

        app.write_text("def (")
        program.wait_for("SyntaxError")
        app.write_text(TEXT.format("three"))
        poll(lambda: shows("three"), "the page after the syntax error")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert f"changed: {app}" in program.text


def test_reloading_without_watchfiles_says_what_to_install(folder: Path) -> None:
    (folder / "watchfiles.py").write_text("raise ModuleNotFoundError('No module named watchfiles')")
    done = run("dev", "site.py", "--reload", cwd=folder)
    assert done.returncode == 2
    assert "pip install 'gateways[reload]'" in done.stderr


# --- the error page by itself


async def test_answers_in_themselves_are_left_alone() -> None:
    async def rejecting(request: Request) -> Response:
        raise Reject(403)

    async with showing_errors(rejecting) as handler:
        with pytest.raises(Reject):
            await handler(Request({"REQUEST_METHOD": "GET"}))  # type: ignore[misc]


async def test_the_page_shows_bytes_that_are_no_text() -> None:
    async def broken(request: Request) -> Response:
        raise ValueError(request.path)

    async with showing_errors(Roles(broken)) as handler:
        response = await handler(Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/\udcff"}))  # type: ignore[misc]
    assert response.status == 500
    assert "<p>GET /?, over cgi</p>" in str(response.body)


@pytest.mark.parametrize(
    ("name", "expected"), [("HTTP_HOST", True), ("PATH_INFO", True), ("PATH", False), ("A_SECRET", False)]
)
def test_what_is_shown_of_the_environment(name: str, expected: bool) -> None:
    assert is_meta_variable(name) is expected


def test_interrupted_by_the_keyboard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "gateways.cli.dev", Interrupted())
    assert cli.main(["dev", "site.py"]) == 130
