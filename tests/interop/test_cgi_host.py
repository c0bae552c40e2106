"""CGI programs in the languages they are written in, in a folder that we run, also behind nginx as fcgiwrap does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

import gateways
from gateways import Listen, cgi
from tests.cgi.tools import program
from tests.interop.client import fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import SOCKET_MODE, front_end, require
from tests.net.tools import PATIENCE, Answer, running, variables

#: One program in several languages: it counts its body, and says where it is and what it was asked.
PROGRAMS = {
    "sh": """\
printf 'Status: 201 Made\\r\\nContent-Type: text/plain; charset=utf-8\\r\\nX-Sum: a, b\\r\\n\\r\\n'
printf '%s|%s|%s|%s|%s' "$REQUEST_METHOD" "$SCRIPT_NAME" "$PATH_INFO" "$QUERY_STRING" "$(wc -c | tr -d ' ')"
""",
    "bash": """\
printf 'Status: 201 Made\\nContent-Type: text/plain; charset=utf-8\\nX-Sum: a, b\\n\\n'
LC_ALL=C read -r -N "${CONTENT_LENGTH:-0}" body
printf '%s|%s|%s|%s|%s' "$REQUEST_METHOD" "$SCRIPT_NAME" "$PATH_INFO" "$QUERY_STRING" "$(printf %s "$body" | wc -c)"
""",
    "perl": """\
use strict; use warnings;
binmode STDIN;
my $body = '';
read STDIN, $body, $ENV{CONTENT_LENGTH} // 0;
print "Status: 201 Made\\nContent-Type: text/plain; charset=utf-8\\nX-Sum: a, b\\n\\n";
print join '|', @ENV{qw(REQUEST_METHOD SCRIPT_NAME PATH_INFO QUERY_STRING)}, length $body;
""",
    "python3": """\
import os, sys
body = sys.stdin.buffer.read(int(os.environ.get("CONTENT_LENGTH", 0)))
print("Status: 201 Made\\nContent-Type: text/plain; charset=utf-8\\nX-Sum: a, b\\n")
names = "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"
fields = [os.environb[name.encode()] for name in names] + [b"%d" % len(body)]
sys.stdout.flush()
sys.stdout.buffer.write(b"|".join(fields))
""",
    "php-cgi": """\
<?php
header("Content-Type: text/plain; charset=utf-8", true, 201);
header("X-Sum: a, b");
echo implode("|", [$_SERVER["REQUEST_METHOD"], $_SERVER["SCRIPT_NAME"], $_SERVER["PATH_INFO"],
    $_SERVER["QUERY_STRING"], strlen(file_get_contents("php://input"))]);
""",
}


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(3 * PATIENCE):
        yield


def install(folder: Path, language: str, text: str, name: str = "it.cgi") -> None:
    """Write a program into the folder, if there is its language."""
    require(language)
    interpreter = sys.executable if language == "python3" else shutil.which(language)
    program(folder / name, text, interpreter=str(interpreter))


async def asked(folder: Path, environ: dict[str, str], body: bytes = b"") -> Answer:
    async with running(cgi.directory(folder), mount="/cgi-bin") as backend:
        return await backend.ask(environ, body)


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_in_any_language_answers(tmp_path: Path, language: str) -> None:
    install(tmp_path, language, PROGRAMS[language])
    body = b"x=1&y=" + b"z" * 100_000
    about = {"QUERY_STRING": "q=%41+b/c", "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "text/plain"}
    answer = await asked(tmp_path, variables("POST", "/cgi-bin/it.cgi/a b/é", **about), body)
    assert (answer.status, answer.ended) == (201, "complete"), answer.log
    fields = {name.lower(): value for name, value in answer.headers.items()}
    assert fields["content-type"] in ("text/plain; charset=utf-8", "text/plain;charset=utf-8")  # the latter: PHP
    assert fields["x-sum"] == "a, b"
    assert answer.body.decode() == f"POST|/cgi-bin/it.cgi|/a b/é|q=%41+b/c|{len(body)}"


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_in_any_language_answers_a_request_without_a_body(tmp_path: Path, language: str) -> None:
    install(tmp_path, language, PROGRAMS[language])
    answer = await asked(tmp_path, variables("GET", "/cgi-bin/it.cgi/"))
    assert (answer.status, answer.body) == (201, b"GET|/cgi-bin/it.cgi|/||0")


@pytest.mark.parametrize(
    "query", ["-s", "-d+allow_url_include%3don+-d+auto_prepend_file%3dphp://input", "-i", "%ADd+x", "--help", "-n"]
)
async def test_E16_php_takes_no_query_for_options(tmp_path: Path, query: str) -> None:
    install(tmp_path, "php-cgi", "<?php echo 'secret' . ' ' . count($argv ?? []);", "it.php")
    environ = variables("POST", "/cgi-bin/it.php", QUERY_STRING=query, CONTENT_LENGTH="20", CONTENT_TYPE="text/plain")
    answer = await asked(tmp_path, environ, b"<?php echo 'evil';?>")
    assert answer.status == 200
    assert answer.body.startswith(b"secret ")
    assert b"<?php" not in answer.body
    assert b"evil" not in answer.body


async def test_E17_php_runs_the_program_that_the_host_has_chosen(tmp_path: Path) -> None:
    install(tmp_path / "cgi-bin", "php-cgi", "<?php echo $_SERVER['SCRIPT_FILENAME'];", "it.php")
    other = tmp_path / "upload.txt"
    other.write_text("<?php echo 'evil';")
    handler = cgi.directory(tmp_path / "cgi-bin", document_root=tmp_path)
    evil = {"SCRIPT_FILENAME": str(other), "PATH_TRANSLATED": str(other), "REDIRECT_URL": "/upload.txt"}
    async with running(handler) as backend:
        answer = await backend.ask(variables("GET", "/it.php/upload.txt", **evil, ORIG_SCRIPT_FILENAME=str(other)))
    assert answer.body.decode() == f"{tmp_path}/cgi-bin/it.php"


async def test_a_folder_is_served_to_nginx_as_fcgiwrap_serves_it() -> None:
    configuration = Configuration(
        id="nginx-fastcgi-cgi-bin",
        server="nginx",
        protocol="fastcgi",
        transport="unix",
        mount="/cgi-bin",
        mount_option="/cgi-bin",
        script=None,
        site="location /cgi-bin/ { include /etc/nginx/fastcgi_params; fastcgi_pass @BACKEND@; }",
    )
    with front_end(configuration) as web:
        assert web.address is not None
        folder = web.folder / "cgi-bin"
        install(folder, "sh", PROGRAMS["sh"])
        program(folder / "source.cgi", PROGRAMS["sh"], mode=0o644)
        serve = partial(gateways.fastcgi.serve, cgi.directory(folder), mount=configuration.mount_option)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, Listen(web.address, mode=SOCKET_MODE))
            answer = await fetch(web.port, "POST", "/cgi-bin/it.cgi/a%20b?-s", body=[b"chunk", b"ed"])
            paths = ("source.cgi", "source.cgi/", "%2e%2e%2fserver.conf", "..%252fserver.conf", "it.cgi%00.txt", "")
            others = [await fetch(web.port, "GET", f"/cgi-bin/{path}") for path in paths]
            nursery.cancel_scope.cancel()
    assert (answer.status, answer.body) == (201, b"POST|/cgi-bin/it.cgi|/a b|-s|7")
    assert {other.status for other in others} <= {400, 404}
    assert not any(b"REQUEST_METHOD" in other.body or b"daemon off" in other.body for other in others)
