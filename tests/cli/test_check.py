"""``gateways check``: what it compares, what it leaves out, and what it says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.program import run

SAME = """\
import sys
from gateways import Reject, Response

async def app(request):
    if request.path_info == "/no-such-page":
        raise Reject(404)
    body = await request.body.read()
    hidden = ("connection", "content-length")
    fields = [field for field in request.headers.items() if field[0] not in hidden]
    seen = [request.method, request.path, request.url, request.query, fields, request.cookies, body]
    seen += [request.remote_addr, request.server_name, request.server_port, request.server_software]
    return Response(repr(seen) + "\\n", headers={"X-Colour": "blue"}).set_cookie("a", "1").set_cookie("b", "2")
"""

MIXED = """\
import os
import random
import sys
from gateways import Response

async def app(request):
    match request.path_info:
        case "/protocol":
            return Response(f"one\\nby {request.protocol}\\x1b[2J\\n", headers={"X-Carried-By": request.protocol})
        case "/random":
            return Response(str(random.random()), headers={"X-Protocol": request.protocol})
        case "/process":
            return Response(str(os.getpid()))
        case "/boom":
            raise KeyError("nowhere")
        case "/script":
            if request.protocol == "cgi":
                raise ValueError("only here")
        case "/late" if request.protocol == "scgi":
            import trio
            await trio.sleep_forever()
        case "/broken":
            async def body(send):
                await send("x" * 100_000)
                raise RuntimeError("in the middle")
            return Response(body)
    return Response("fine")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "same.py").write_text(SAME)
    (tmp_path / "mixed.py").write_text(MIXED)
    return tmp_path


def about(text: str) -> dict[str, str]:
    """What was said of each request, by its method and path."""
    found: dict[str, str] = {}
    for block in re.split(r"^(?=same |differs )", text, flags=re.MULTILINE)[1:]:
        first, _, rest = block.partition("\n")
        verdict, request, status = re.split(r" +(?=[A-Z]+ /)|: ", first, maxsplit=2)
        found[request] = f"{verdict}: {status}\n{rest}"
    return found


def test_X01_an_application_that_shows_its_request_is_the_same_everywhere(folder: Path) -> None:
    done = run("check", "same.py", "--request", "DELETE /items/1?really=yes", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "same.py over http, fastcgi, scgi, cgi"
    assert lines[1] == "same     GET /: 200 OK"
    assert lines[4:6] == ["same     POST / with a form: 200 OK", "same     GET /caf%C3%A9/a%20b%2Fc/%25: 200 OK"]
    assert lines[-3:] == [
        "same     GET /no-such-page: 404 Not Found",
        "same     DELETE /items/1?really=yes: 200 OK",
        "all 8 answers are the same",
    ]


def test_what_differs_is_shown_and_what_is_never_the_same_is_left_out(folder: Path) -> None:
    wanted = ["protocol", "random", "process", "boom", "script", "broken"]
    flags = [f"--request=GET /{path}" for path in wanted]
    done = run("check", "mixed.py", *flags, cwd=folder)
    said = about(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "4 of 13 answers differ; 2 were compared in part"
    assert said["GET /"] == "same: 200 OK\n"

    differs = said["GET /protocol"]
    assert "    --- fastcgi\n    +++ cgi\n" in differs
    assert "    -x-carried-by: fastcgi\n" in differs
    assert "    +x-carried-by: scgi\n" in differs
    assert "     one\\n\n    -by fastcgi\\x1b[2J\\n\n    +by http\\x1b[2J\\n\n" in differs

    assert (
        "not compared, for not even the same twice over one protocol: content-length, the body" in said["GET /random"]
    )
    assert "    +x-protocol: http\n" in said["GET /random"]
    assert said["GET /process"].startswith("same: 200 OK\n         not compared")

    assert said["GET /boom"] == (
        "same: 500 Internal Server Error\n         the handler raised KeyError: 'nowhere' (mixed.py, line 15)\n"
    )
    assert "    -200 OK\n" in said["GET /script"]
    assert "    cgi wrote to stderr: ValueError: only here\n" in said["GET /script"]
    assert "+++ scgi" not in said["GET /script"]
    # SCGI has no way to show it.
    assert said["GET /broken"].partition("\n")[2].splitlines()[:3] == [
        "         the handler raised RuntimeError: in the middle (mixed.py, line 25)",
        "    --- fastcgi",
        "    +++ scgi",
    ]
    assert "    -the answer breaks off\n" in said["GET /broken"]


def test_an_answer_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    done = run("check", "mixed.py", "--timeout=1", "--request=GET /late", cwd=folder)
    assert done.returncode == 1
    assert "    +++ scgi\n" in (said := about(done.stdout)["GET /late"])
    assert "    -200 OK\n" in said
    assert "    +none within 1 seconds\n" in said


def test_a_long_answer_is_cut_down_to_what_differs(folder: Path) -> None:
    (folder / "long.py").write_text(
        "from gateways import Response\nasync def app(request):\n"
        "    lines = [request.protocol] * 50 if request.query_string else ['x' * 1000 + request.protocol]\n"
        "    return Response('\\n'.join(lines))\n"
    )
    said = about(run("check", "long.py", cwd=folder).stdout)
    assert max(len(line) for text in said.values() for line in text.splitlines()) < 200
    assert f"-{'x' * 40}fastcgi\n" in said["GET /"]
    [many] = [text for request, text in said.items() if "name=" in request]
    assert many.count("    ... and ") == 3


def test_an_application_that_cannot_be_imported_is_status_4(folder: Path) -> None:
    done = run("check", "missing.py", cwd=folder)
    assert (done.returncode, done.stdout) == (4, "")
    assert "there is no file" in done.stderr


def test_an_application_that_does_not_start_is_status_3(folder: Path) -> None:
    (folder / "failing.py").write_text(
        "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def app():\n"
        "    raise ValueError('no such setting')\n    yield\n"
    )
    done = run("check", "failing.py", cwd=folder)
    assert done.returncode == 3
    assert "ValueError: no such setting" in done.stderr
    assert "failing.py did not start up" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--request", "GET"], "not a method and a path, such as 'GET /x?y=z': 'GET'"),
        (["--request", "GET x"], "not a method and a path"),
        (["--request", "GET /a b"], "not a method and a path"),
        (["--request", "G(T /"], "not a method and a path"),
        (["--timeout", "0"], "not a number of seconds: '0'"),
        (["--timeout", "soon"], "not a number of seconds: 'soon'"),
    ],
)
def test_wrong_flags_are_explained(folder: Path, flags: list[str], said: str) -> None:
    done = run("check", "same.py", *flags, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
