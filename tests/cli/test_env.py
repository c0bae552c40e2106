"""``gateways env``: what it serves, to whom, and what it does not show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import PATIENCE, Program, ask, command, environment, run

SECRET = {"HTTP_COOKIE": "id=verysecret", "HTTP_AUTHORIZATION": "Basic verysecret"}
CGI = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "GET",
    "REMOTE_ADDR": "192.0.2.7",
    "SCRIPT_NAME": "/env.cgi",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "QUERY_STRING": "json",
}


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


@contextmanager
def showing(*flags: str, cwd: Path) -> Generator[Program]:
    """``gateways env`` that has come to accept connections."""
    with Program(command("env", *flags), cwd=cwd) as program:
        program.wait_for("^stop with Ctrl-C$")
        yield program


def answer(address: str, path: str = "/x", **variables: str) -> dict[str, Any]:
    found = ask(address, path, QUERY_STRING="json", **variables)
    assert found is not None
    assert found.status == 200
    value: dict[str, Any] = json.loads(found.body)
    return value


def test_it_serves_the_page_where_it_is_told(tmp_path: Path, address: str) -> None:
    with showing("--bind", address, "--bind", "scgi:127.0.0.1:0", cwd=tmp_path) as program:
        bound = program.wait_for(r"^  (\S+)$", times=2)
        for each in bound:
            page = ask(each, "/x", SERVER_SOFTWARE="nginx/1.22.1", SERVER_NAME="_")
            assert page is not None
            assert "server_name example.org;" in page.body
            assert answer(each)["request"]["path_info"] == "/x"


def test_it_takes_the_flags_of_the_application(tmp_path: Path, address: str) -> None:
    flags = ["--bind", address, "--mount", "/app", "--trust-forwarded", "--timeout-request", "90"]
    with showing(*flags, cwd=tmp_path):
        seen = answer(address, "/app/x", SERVER_SOFTWARE="nginx/1.22.1", HTTP_X_FORWARDED_FOR="192.0.2.9")
        unset = answer(address, "/app/x", SERVER_SOFTWARE="nginx/1.22.1")
    assert (seen["request"]["script_name"], seen["request"]["remote_addr"]) == ("/app", "192.0.2.9")
    assert "deadline" in {advice["name"] for advice in seen["advice"]}
    assert "trust-forwarded" in {advice["name"] for advice in unset["advice"]}


def test_the_log_has_the_advice_too(tmp_path: Path, address: str) -> None:
    with showing("--bind", address, cwd=tmp_path) as program:
        ask(address, "/x", SERVER_SOFTWARE="nginx/1.22.1", REMOTE_ADDR="192.0.2.7", HTTP_PROXY="http://192.0.2.1/")
        program.wait_for(r'WARNING unix:\S+: advice \(proxy-header\): .*fastcgi_param HTTP_PROXY "";$')


@pytest.mark.parametrize(("flags", "masked"), [([], True), (["--show-secrets"], False)])
def test_secrets_are_masked_unless_they_are_asked_for(
    tmp_path: Path, address: str, flags: list[str], masked: bool
) -> None:
    with showing("--bind", address, *flags, cwd=tmp_path):
        assert ("verysecret" in str(answer(address, **SECRET))) is not masked


def test_it_is_a_cgi_script_where_a_web_server_runs_it(tmp_path: Path) -> None:
    done = run("env", cwd=tmp_path, environ=CGI | {"GATEWAYS_MOUNT": "/env.cgi"})
    head, _, body = done.stdout.partition("\n\n")
    assert head.startswith("Status: 200")
    value = json.loads(body)
    assert value["request"]["protocol"] == "cgi"
    assert (value["request"]["script_name"], value["request"]["path_info"]) == ("/env.cgi", "")
    assert value["request"]["remote_addr"] == "192.0.2.7"
    assert done.stderr == ""


def test_the_words_of_a_client_are_no_flags_of_a_cgi_script(tmp_path: Path) -> None:
    """A query without "=" comes as arguments (RFC 3875 section 4.4): it must not unmask anything (CVE-2012-1823)."""
    done = run("env", "--show-secrets", "--mount", "/nowhere", "x", cwd=tmp_path, environ=CGI | SECRET)
    assert done.returncode == 0
    assert done.stdout.startswith("Status: 200")
    assert "verysecret" not in done.stdout


def test_started_by_nobody_it_says_what_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        command("env"),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "there is nothing to serve" in done.stderr


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--mount", "app"], 2, "begins with a slash"),
        (["--timeout-request", "0"], 2, "request_timeout"),
        (["--bind", "fastcgi:0.0.0.0:4000"], 1, "allow"),
        (["--quirks", "nothing-such"], 2, "nothing-such"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, address: str, flags: list[str], status: int, text: str) -> None:
    bind = [] if "--bind" in flags else ["--bind", address]
    done = run("env", *bind, *flags, cwd=tmp_path)
    assert done.returncode == status
    assert text in done.stderr
