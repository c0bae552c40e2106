"""``gateways config``: what it prints and what it refuses, without any web server (that is tests/interop)."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateways import cli, configs
from gateways.cli import config, serve
from gateways.configs import Backend, Refused
from gateways.configs.site import listen_at
from tests.cli import program
from tests.interop.servers import require

DOCS = Path(__file__).parents[2] / "docs"
BIND = ["--bind", "fastcgi:unix:/run/app.sock"]
#: What would depend on this machine otherwise.
HERE = ["--app-dir", "/srv/app", "--program", "/srv/app/env/bin/gateways"]

#: Text that means something in one of the languages, or in a shell.
NASTY = [
    "a b",
    "it's",
    'say "x"',
    "a;b",
    "$HOME",
    "${HOME}",
    "{$HOME}",
    "%h%{x}",
    "#{x}",
    "a\\",
    "{}",
    "*/",
    "ü€",
    "|x",
    "`x`",
]
UNPRINTABLE = ["a\nb", "a\rb", "a\0b", "a\tb", "\x1b[0m", "a\u2028b", "a\x85b", "a\udcffb"]


def say(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The command's exit status, and what it writes to stdout and stderr."""
    try:
        status = cli.main(["config", *words])
    except SystemExit as stop:
        status = int(str(stop.code))
    written = capsys.readouterr()
    return status, written.out, written.err


def meant(text: str) -> list[str]:
    """A configuration without its comments and blank lines."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_the_servers_of_the_command_are_those_that_there_are() -> None:
    assert config._SERVERS == configs.SERVERS


@pytest.mark.parametrize("server", configs.SERVERS)
def test_the_text_goes_to_stdout_and_where_it_belongs_to_stderr(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, hint = say(capsys, server, "shop.py", *BIND, *HERE)
    assert status == 0
    assert hint.startswith("goes to /etc/") or "/etc/haproxy/haproxy.cfg" in hint
    assert "shop" in text
    assert text.endswith("\n")
    assert "None" not in text
    assert "--bind fastcgi:unix:/run/app.sock" in text or server == "systemd"
    assert max(map(len, text.splitlines())) <= 160


def test_it_is_a_program(tmp_path: Path) -> None:
    ended = program.run("config", "nginx", "no_such_module", *BIND, cwd=tmp_path)
    assert ended.returncode == 0, "the application is not loaded"
    assert ended.stdout.startswith("# no_such_module behind nginx over FastCGI.")


def test_the_command_that_it_names_is_one_of_gateways_serve(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--bind",
        "fastcgi:10.0.0.5:4000",
        "--allow-from",
        "10.0.0.1",
        "--mount",
        "/app",
        "--timeout-request",
        "7.5",
    ]
    status, text, _ = say(capsys, "nginx", "a b.py", *words, "--ping-path", "/app/ping", "--", "--threads", "3")
    assert status == 0
    [line] = re.findall(r"^#   (gateways serve .*)$", text, re.MULTILINE)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    serve._add_arguments(parser)
    options = parser.parse_args(shlex.split(line)[2:])
    assert (options.app, options.bind, options.mount) == ("a b.py", ["fastcgi:10.0.0.5:4000"], "/app")
    assert (options.request_timeout, options.threads, options.allow_public) == (7.5, 3, True)


# --- what is refused, and what is quoted


@pytest.mark.parametrize("server", configs.SERVERS)
@pytest.mark.parametrize("app", UNPRINTABLE, ids=ascii)
def test_an_APP_of_several_lines_is_refused(server: str, app: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, why = say(capsys, server, app, *BIND, "--name", "app")
    assert (status, text) == (2, "")
    assert "cannot be printed on one line" in why


@pytest.mark.parametrize("server", configs.SERVERS)
@pytest.mark.parametrize("app", NASTY, ids=ascii)
def test_an_APP_says_nothing_to_the_web_server(server: str, app: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, plain, _ = say(capsys, server, "app", *BIND, "--name", "app", *HERE)
    status, text, why = say(capsys, server, app, *BIND, "--name", "app", *HERE)
    if status == 2:
        assert server == "caddy"
        assert '"{$"' in why
        return
    if server == "systemd":
        changed = [line for line, other in zip(meant(text), meant(plain), strict=True) if line != other]
        assert [line.partition("=")[0] for line in changed] == ["ExecStart"]
    else:
        assert meant(text) == meant(plain)
        [line] = re.findall(r"^#   (gateways serve .*)$", text, re.MULTILINE)
        assert shlex.split(line)[2] == app


@pytest.mark.parametrize(
    ("app", "written"),
    [
        ("app.py", "app.py"),
        ("my app.py", '"my app.py"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\\", '"a\\\\"'),
        ("$HOME", "$$HOME"),
        ("%h", "%%h"),
        ("a;b", '"a;b"'),
        ("it's", '"it\'s"'),
    ],
)
def test_systemd_is_given_words_that_it_takes_as_they_are(
    app: str, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = say(capsys, "systemd", app, *BIND, "--name", "app", *HERE)
    assert f"ExecStart=/srv/app/env/bin/gateways serve {written}\n" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nginx", "app"], "Say --bind"),
        (["nginx", "app", "--bind", "http:127.0.0.1:80"], "web servers speak"),
        (["nginx", "app", "--bind", "fastcgi:fd:3"], "has to be told where"),
        (["nginx", "app", "--bind", "fastcgi:systemd"], "has to be told where"),
        (["nginx", "app", "--bind", "fastcgi:0.0.0.0:4000"], "can connect to"),
        (["nginx", "app", "--bind", "fastcgi:[::]:4000"], "can connect to"),
        (["nginx", "app", "--bind", "fastcgi:127.0.0.1:0"], "from 1 to 65535"),
        (["nginx", "app", "--bind", "fastcgi:::1:4000"], "in brackets"),
        (["nginx", "app", "--bind", "fastcgi:a;b:4000"], "a host has letters"),
        (["nginx", "app", "--bind", "fastcgi:unix:/run/a b.sock"], "a socket file"),
        (["nginx", "app", "--bind", "fastcgi:unix:/run/a;b.sock"], "a socket file"),
        (["nginx", "app", "--bind", "fastcgi:unix:/run/$x.sock"], "a socket file"),
        (["nginx", "app", "--bind", "fastcgi:unix:relative.sock"], "a socket file"),
        (["nginx", "app", "--bind", f"fastcgi:unix:/{'x' * 120}"], "107 characters"),
        (["nginx", "app", "--bind", "cgi:/srv/app.cgi"], "does not speak cgi"),
        (["nginx", "app", *BIND, "--bind", "scgi:127.0.0.1:4000"], "choose between"),
        (["caddy", "app", "--bind", "scgi:127.0.0.1:4000"], "does not speak scgi"),
        (["haproxy", "app", "--bind", "scgi:127.0.0.1:4000"], "does not speak scgi"),
        (["h2o", "app", *BIND, "--bind", "fastcgi:127.0.0.1:4000"], "one address"),
        (["nginx", "app", *BIND, "--mount", "app"], "a path such as /app"),
        (["nginx", "app", *BIND, "--mount", "/a b"], "a path such as /app"),
        (["nginx", "app", *BIND, "--mount", '/a"b'], "a path such as /app"),
        (["nginx", "app", *BIND, "--mount", "/a{1}"], "a path such as /app"),
        (["nginx", "app", *BIND, "--mount", "/a/../b"], "a path such as /app"),
        (["nginx", "app", *BIND, "--server-name", "a;b"], "a host has letters"),
        (["nginx", "app", *BIND, "--server-name", "a\nb"], "a host has letters"),
        (["nginx", "app", *BIND, "--listen", "80;"], "from 1 to 65535"),
        (["nginx", "app", *BIND, "--listen", "x y:80"], "a host has letters"),
        (["nginx", "app", *BIND, "--static", "/static"], "URL=FOLDER"),
        (["nginx", "app", *BIND, "--static", "/=/srv"], "a path of their own"),
        (["nginx", "app", *BIND, "--static", "/static=files"], "an absolute path"),
        (["nginx", "app", *BIND, "--static", "/static=/srv/a\nb"], "on one line"),
        (["nginx", "app", *BIND, "--static", "/static=/srv/$x"], "variable"),
        (["apache", "app", *BIND, "--static", "/static=/srv/${x}"], "Apache takes"),
        (["lighttpd", "app", *BIND, "--static", '/static=/srv/"'], "lighttpd has no one way"),
        (["caddy", "app", *BIND, "--static", "/static=/srv/{x}"], "placeholders"),
        (["haproxy", "app", *BIND, "--static", "/static=/srv/static"], "serves no files"),
        (["nginx", "app", *BIND, "--name", "a b"], "a name begins with"),
        (["nginx", "app", *BIND, "--socket-group", "a;b"], "the group"),
        (["systemd", "app", *BIND, "--user", "a\nb"], "the user"),
        (["systemd", "app", *BIND, "--static", "/static=/srv"], "settings of the web server"),
        (["systemd", "app", "--bind", "cgi:/srv/app.cgi"], "not by systemd"),
        (["systemd", "app", "--bind", "fastcgi:10.0.0.1:4000"], "--allow-from IP"),
        (["haproxy", "app", *BIND, "--ping-path", "/ping", "--mount", "/app"], "below the mount"),
        (["haproxy", "app", *BIND, "--ping-path", "/p q"], "a path such as"),
        (["nginx", "app", *BIND, "--max-body", "-1"], "whole number"),
        (["nginx", "app", *BIND, "--timeout-request", "0"], "number of seconds"),
        (["nginx", "app", *BIND, "--", "--x\ny"], "on one line"),
        (["nginx", "", *BIND], "APP is a module"),
        (["iis", "app", *BIND], "invalid choice"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else None,
)
def test_what_cannot_be_written_is_refused(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, said = say(capsys, *words)
    assert (status, text) == (2, "")
    assert why in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [("80", "80"), ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80"), ("example.org:443", "example.org:443")],
)
def test_addresses_to_listen_on(text: str, shown: str) -> None:
    assert str(listen_at(text)) == shown


def test_addresses_of_backends() -> None:
    shown = ["fastcgi:unix:/run/app.sock", "scgi:127.0.0.1:4000", "fastcgi:[::1]:4000", "cgi:/srv/app/app.cgi"]
    assert [str(Backend.parse(each)) for each in shown] == shown
    public = {
        each: Backend.parse(f"fastcgi:{each}:1").public
        for each in ("127.0.0.2", "[::1]", "localhost", "10.0.0.1", "web2")
    }
    assert public == {"127.0.0.2": False, "[::1]": False, "localhost": False, "10.0.0.1": True, "web2": True}
    with pytest.raises(Refused, match="an absolute path"):
        Backend.parse("cgi:app.cgi")


# --- settings that agree


@pytest.mark.parametrize(
    ("timeout", "nginx", "haproxy"), [("30", 35, 35), ("90.5", 96, 96), ("none", 60, 60)], ids=["30", "90.5", "none"]
)
def test_D07_the_web_server_waits_longer_than_the_handler_may_take(
    timeout: str, nginx: int, haproxy: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = say(capsys, "nginx", "app", *BIND, "--timeout-request", timeout)
    assert f"fastcgi_read_timeout {nginx}s;" in text
    _, text, _ = say(capsys, "haproxy", "app", *BIND, "--timeout-request", timeout)
    assert f"timeout server {haproxy}s" in text


def test_an_endless_body_is_said_as_each_server_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    def of(server: str) -> str:
        return say(capsys, server, "app", *BIND, "--max-body", "none")[1]

    assert "client_max_body_size 0;" in of("nginx")
    assert "LimitRequestBody 0" in of("apache")
    assert "R=413" not in of("apache")
    assert "server.max-request-size = 0" in of("lighttpd")
    assert "max_size" not in of("caddy")
    assert "413" not in of("haproxy")
    assert "limit-request-body" not in of("h2o")


def test_a_name_is_made_of_APP(capsys: pytest.CaptureFixture[str]) -> None:
    names = {
        app: config._name(app)
        for app in ("app.py", "/srv/my shop.py:app", "mysite.wsgi:application", "cgi-bin/", "3.py")
    }
    assert names == {
        "app.py": "app",
        "/srv/my shop.py:app": "my-shop",
        "mysite.wsgi:application": "mysite-wsgi",
        "cgi-bin/": "cgi-bin",
        "3.py": "app",
    }


# --- systemd


def units(text: str, folder: Path) -> dict[str, str]:
    """Put each part into the file that its first line names; all of them by name."""
    found = dict(
        re.findall(r"^# /etc/systemd/system/(\S+)\n(.*?)(?=^# /etc/systemd|\Z)", text, re.MULTILINE | re.DOTALL)
    )
    for name, unit in found.items():
        (folder / name).write_text(unit)
    return found


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (BIND, {"app.service", "app.socket"}),
        (
            [*BIND, "--bind", "scgi:127.0.0.1:4000", "--bind", "scgi:[::1]:4000", "--user", "app", "--mount", "/app"],
            {"app.service", "app-fastcgi.socket", "app-scgi.socket"},
        ),
        (
            [
                "--bind",
                "fastcgi:10.0.0.11:4000",
                "--allow-from",
                "10.0.0.1",
                "--allow-from",
                "fd00::1",
                "--timeout-request",
                "9",
            ],
            {"app.service", "app.socket"},
        ),
    ],
    ids=["unix", "several", "public"],
)
def test_systemd_accepts_its_units(
    words: Sequence[str], files: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require("systemd-analyze")
    executable = shutil.which("true")
    assert executable
    status, text, _ = say(
        capsys,
        "systemd",
        'a "b" $c %d.py',
        *words,
        "--name",
        "app",
        "--app-dir",
        "/srv/my app 100%",
        "--program",
        executable,
    )
    assert status == 0
    assert units(text, tmp_path).keys() == files
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in sorted(files))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_each_protocol_has_a_socket_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = say(capsys, "systemd", "app.py", *BIND, "--bind", "scgi:127.0.0.1:4000", *HERE)
    found = units(text, tmp_path)
    assert "ListenStream=/run/app.sock\n" in found["app-fastcgi.socket"]
    assert "FileDescriptorName=fastcgi\n" in found["app-fastcgi.socket"]
    assert "SocketMode=0660\n" in found["app-fastcgi.socket"]
    assert "ListenStream=127.0.0.1:4000\n" in found["app-scgi.socket"]
    assert "FileDescriptorName=scgi\n" in found["app-scgi.socket"]
    assert "Sockets=app-fastcgi.socket app-scgi.socket\n" in found["app.service"]
    assert "ExecStart=/srv/app/env/bin/gateways serve app.py\n" in found["app.service"]


def test_D01_a_port_for_other_machines_names_who_may_connect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = say(capsys, "systemd", "app.py", "--bind", "fastcgi:10.0.0.11:4000", "--allow-from", "10.0.0.1", *HERE)
    found = units(text, tmp_path)
    assert "IPAddressDeny=any\nIPAddressAllow=10.0.0.1\n" in found["app.socket"]
    assert "gateways serve app.py --allow-from 10.0.0.1\n" in found["app.service"]


# --- the pages


def shown(page: Path) -> Iterator[tuple[list[str], str]]:
    """Each command on a page that prints a configuration, and the block that shows what it prints."""
    blocks = re.findall(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", page.read_text("utf-8"), re.MULTILINE)
    command: list[str] = []
    for language, text in blocks:
        text = textwrap.dedent(text).strip("\n") + "\n"
        if language == "console":
            command = shlex.split(text.removeprefix("$ "))
        elif command[:2] == ["gateways", "config"]:
            yield command[2:], text
            command = []


SHOWN = [(page.name, *each) for page in (DOCS / "configs.rst", DOCS / "scaling.rst") for each in shown(page)]


def test_every_server_is_shown() -> None:
    assert {words[0] for _, words, _ in SHOWN} == set(configs.SERVERS)


@pytest.mark.parametrize(("page", "words", "text"), SHOWN, ids=[f"{page} {words[0]}" for page, words, _ in SHOWN])
def test_what_a_page_shows_is_what_the_command_prints(
    page: str, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = words.index("--") if "--" in words else len(words)
    _, printed, _ = say(capsys, *words[:ours], *HERE, *words[ours:])
    assert printed == text
