"""Settings of ``gateways serve`` from a configuration file, and which of several wins."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from gateways.cli import main
from gateways.cli.serve import _add_arguments
from gateways.cli.settings import parsed
from tests.cli.program import HELLO, ask, environment, run, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


def body(address: str, path: str) -> str:
    answer = ask(address, path)
    assert answer is not None
    return answer.body


def test_keys_of_pyproject_stand_for_flags(folder: Path, address: str) -> None:
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\n[tool.gateways]\napp = "hello.py"\nbind = ["{address}", "scgi:127.0.0.1:0"]\n'
        'mount = "/app"\nno-access-log = true\nstrict = false\ntimeout_idle = 1.5\nlimit-params = 20\n'
        'timeout-write = "none"\nsocket-mode = "0600"\n'
    )
    with serving(cwd=folder) as program:
        bound = program.wait_for(r"^  (\S+)$", times=2)
        assert body(address, "/app/x") == "GET /app|/x by fastcgi\n"
        assert body(bound[1], "/app/x") == "GET /app|/x by scgi\n"
        assert (folder / "app.sock").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_named_has_its_keys_at_the_top(folder: Path, address: str) -> None:
    (folder / "pyproject.toml").write_text('[tool.gateways]\nmount = "/other"\n')
    (folder / "mine.toml").write_text(f'app = "hello.py"\nbind = "{address}"\nmount = "/app"\n')
    for words, variables in ((["-c", "mine.toml"], {}), ([], {"GATEWAYS_CONFIG": "mine.toml"})):
        with serving(*words, cwd=folder, env=environment(variables)):
            assert body(address, "/app/x") == "GET /app|/x by fastcgi\n"


def test_flags_win_over_variables_and_these_over_keys(folder: Path, address: str) -> None:
    (folder / "pyproject.toml").write_text(
        f'[tool.gateways]\napp = "no.py"\nbind = ["scgi:127.0.0.1:0", "{address}"]\nmount = "/key"\nstrict = true\n'
    )
    variables = environment({"GATEWAYS_MOUNT": "/variable"})
    with serving("hello.py", "--bind", address, cwd=folder, env=variables) as program:
        assert program.wait_for(r"^  (\S+)$") == [address]
        assert body(address, "/variable/x") == "GET /variable|/x by fastcgi\n"
    with serving("hello.py", "--bind", address, "--mount=/flag", cwd=folder, env=variables):
        assert body(address, "/flag/x") == "GET /flag|/x by fastcgi\n"


def test_a_pyproject_without_a_table_says_nothing(folder: Path, address: str) -> None:
    (folder / "pyproject.toml").write_text('[tool.other]\nmount = "/other"\n')
    with serving("hello.py", "--bind", address, cwd=folder):
        assert body(address, "/x") == "GET |/x by fastcgi\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("muont = '/app'", "there is no setting 'muont'; is it 'mount'?"),
        ("limit_parms = 5", "there is no setting 'limit-parms'; is it 'limit-params'?"),
        ("[limits]\nparams = 5", "there is no setting 'limits'"),
        ("qqq = 1", "there is no setting 'qqq'\n"),
        ("config = 'other.toml'", "there is no setting 'config'"),
        ("help = true", "there is no setting 'help'"),
        ("mount = 5", "mount = 5 is not a text"),
        ("mount = ['/a']", "mount = ['/a'] is not a text"),
        ("strict = 'yes'", "strict = 'yes' is not true or false"),
        ("strict = 1", "strict = 1 is not true or false"),
        ("bind = [1]", "bind = [1] is not a list of texts"),
        ("bind = 1", "bind = 1 is not a list of texts"),
        ("socket-mode = 660", "socket-mode = 660 is not a text"),
        ("limit-params = true", "limit-params = True is not a number or a text"),
        ("limit-params = 1.5", "argument --limit-params: not a whole number: '1.5'"),
        ("limit-params = 0", "max_params takes a whole number above 0"),
        ("timeout-idle = 'soon'", "argument --timeout-idle: neither a number of seconds nor none: 'soon'"),
        ("allow-from = ['example.org']", "argument --allow-from: not an IP address: 'example.org'"),
        ("interface = 'rack'", "argument --interface: invalid choice: 'rack'"),
        ("app = 5", "app = 5 is not a text"),
        ("mount =", "is not TOML"),
    ],
)
def test_D13_what_is_wrong_in_a_file_is_an_error_at_the_start(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (folder / "mine.toml").write_text(text)
    words = [] if text.startswith("app") else ["hello.py"]
    assert status_of(*words, "-c", str(folder / "mine.toml")) == 2
    assert said in capsys.readouterr().err


def status_of(*words: str) -> int:
    """The exit status of ``gateways serve`` with settings that it refuses."""
    with pytest.raises(SystemExit) as raised:
        main(["serve", *words])
    assert isinstance(raised.value.code, int)
    return raised.value.code


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.toml", None, "cannot read missing.toml: No such file"),
        ("pyproject.toml", "[project]\n", "pyproject.toml has no table [tool.gateways]"),
        ("pyproject.toml", "[tool]\ngateways = 5\n", "[tool.gateways] is not a table"),
        ("pyproject.toml", "[tool.gateways]\nmuont = 5\n", "there is no setting 'muont'"),
    ],
)
def test_D13_a_file_that_does_not_do_is_an_error(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str | None,
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    if text is not None:
        (folder / name).write_text(text)
    assert status_of("hello.py", "--config", name) == 2
    assert said in capsys.readouterr().err


def test_without_an_application_anywhere_it_is_asked_for(folder: Path, address: str) -> None:
    (folder / "pyproject.toml").write_text("[tool.gateways]\nmount = '/x'\n")
    done = run("serve", "--bind", address, cwd=folder)
    assert done.returncode == 2
    assert "required: APP" in done.stderr


def test_F03_the_words_of_a_client_neither_name_a_file_nor_hide_a_setting(folder: Path) -> None:
    # RFC 3875 section 4.4. What follows the script may be the query.
    (folder / "evil.toml").write_text("app = 'evil.py'\n")
    (folder / "pyproject.toml").write_text("[tool.gateways]\nmount = '/app'\n")
    variables = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/app/x",
        "GATEWAYS_LIMIT_PARAMS": "100",
    }
    words = ["hello.py", "-c", "evil.toml", "--mount", "/", "--limit-params=1", "--strict"]
    done = run("serve", *words, cwd=folder, environ=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("GET /app|/x by cgi\n")


def test_F03_under_cgi_a_file_does_not_name_the_application(folder: Path) -> None:
    # Or else the first word of a client would be taken for one.
    (folder / "pyproject.toml").write_text("[tool.gateways]\napp = 'hello.py'\n")
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}
    assert run("serve", cwd=folder, environ=variables).returncode == 2


def test_every_flag_has_a_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run("serve", "--help", cwd=folder).stdout
    flags = set(re.findall(r"^  (?:-\w(?: \w+)?, )?--([\w-]+)", shown, re.MULTILINE)) - {"help", "config"}
    assert len(flags) > 40
    parser = argparse.ArgumentParser()
    _add_arguments(parser)
    known = {name.lstrip("-") for action in parser._actions for name in action.option_strings if name[:2] == "--"}
    assert known - {"help", "config"} == flags
    for flag in sorted(flags):
        (folder / "mine.toml").write_text(f"{flag} = [[]]\n")
        with pytest.raises(SystemExit):
            parsed(parser, ["hello.py", "-c", str(folder / "mine.toml")], {})
        assert f"{flag} = [[]] is not" in capsys.readouterr().err
