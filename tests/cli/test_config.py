"""``gateways config``: what it prints and what it refuses, without any web server (that is tests/interop)."""

from __future__ import annotations

import argparse
import configparser
import re
import shlex
import shutil
import subprocess
import textwrap
import tomllib
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
#: How each server of the small web is told of an application.
SCRIPT = ["--bind", "cgi:/srv/gemini/cgi-bin/app", "--mount", "/cgi-bin/app"]
SMALL_WEB = {
    "molly-brown": ["--bind", "scgi:unix:/run/app.sock", "--mount", "/app"],
    "gmid": [*BIND, "--mount", "/app"],
    "jetforce": SCRIPT,
    "gmcapsule": SCRIPT,
    "stargazer": ["--bind", "scgi:127.0.0.1:4000", "--mount", "/app"],
    "gophernicus": SCRIPT,
    "pygopherd": SCRIPT,
}
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


def bind(server: str) -> list[str]:
    """Words by which a server is told of an application."""
    return SMALL_WEB.get(server, BIND)


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
    status, text, hint = say(capsys, server, "shop.py", *bind(server), *HERE)
    assert status == 0
    assert hint.startswith("goes to /etc/") or "/etc/haproxy/haproxy.cfg" in hint
    assert "shop" in text
    assert text.endswith("\n")
    assert "None" not in text
    place = bind(server)[1]
    assert server == "systemd" or f"--bind {place} " in text or place.removeprefix("cgi:") in text
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
    status, text, why = say(capsys, server, app, *bind(server), "--name", "app")
    assert (status, text) == (2, "")
    assert "cannot be printed on one line" in why


@pytest.mark.parametrize("server", configs.SERVERS)
@pytest.mark.parametrize("app", NASTY, ids=ascii)
def test_an_APP_says_nothing_to_the_web_server(server: str, app: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, plain, _ = say(capsys, server, "app", *bind(server), "--name", "app", *HERE)
    status, text, why = say(capsys, server, app, *bind(server), "--name", "app", *HERE)
    if status == 2:
        assert server == "caddy"
        assert '"{$"' in why
        return
    if server == "systemd":
        changed = [line for line, other in zip(meant(text), meant(plain), strict=True) if line != other]
        assert [line.partition("=")[0] for line in changed] == ["ExecStart"]
    else:
        assert meant(text) == meant(plain)
        [line] = re.findall(r"^#   (?:cd .* exec /srv/app/env/bin/)?(gateways serve .*)$", text, re.MULTILINE)
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
        (["molly-brown", "app", *BIND], "does not speak fastcgi"),
        (["molly-brown", "app", "--bind", "scgi:127.0.0.1:4000"], "unix sockets alone"),
        (["molly-brown", "app", *SMALL_WEB["molly-brown"], "--listen", "127.0.0.1:1965"], "on all addresses"),
        (["molly-brown", "app", *SMALL_WEB["molly-brown"], "--static", "/a=/srv/a"], "leave --static out"),
        (["molly-brown", "app", "--bind", "cgi:/srv/app"], "by its path"),
        (["molly-brown", "app", "--bind", "cgi:/srv/app", "--mount", "/other"], "such as /srv/gemini/other"),
        (["molly-brown", "app", "--bind", "cgi:/app", "--mount", "/app"], "below the folder"),
        (["gmid", "app", "--bind", "scgi:127.0.0.1:4000"], "does not speak scgi"),
        (["gmid", "app", *BIND, *BIND], "one address"),
        (["jetforce", "app", *BIND], "does not speak fastcgi"),
        (["jetforce", "app", "--bind", "cgi:/srv/app", "--mount", "/app"], "--mount /cgi-bin/app"),
        (["gmcapsule", "app", "--bind", "cgi:/srv/a b"], "that these servers take"),
        (["gmcapsule", "app", "--bind", "cgi:/srv/a%(b)s"], "that these servers take"),
        (["gmcapsule", "app", "--bind", "cgi:/srv/../b"], "that these servers take"),
        (["stargazer", "app", "--bind", "scgi:unix:/run/app.sock"], "over TCP alone"),
        (["gophernicus", "app", *SCRIPT, "--listen", "127.0.0.1:70"], "on all addresses"),
        (["pygopherd", "app", *SCRIPT, "--bind", "cgi:/srv/b"], "one address"),
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


# --- the servers of the small web


def of(capsys: pytest.CaptureFixture[str], server: str, *words: str) -> str:
    status, text, why = say(capsys, server, "app.py", *(words or bind(server)), "--server-name", "example.org", *HERE)
    assert status == 0, why
    return text


def test_molly_brown_is_given_TOML(capsys: pytest.CaptureFixture[str]) -> None:
    over_scgi = tomllib.loads(of(capsys, "molly-brown"))
    assert (over_scgi["Port"], over_scgi["Hostname"]) == (1965, "example.org")
    assert over_scgi["SCGIPaths"] == {"/app": "/run/app.sock"}
    as_script = tomllib.loads(of(capsys, "molly-brown", *SCRIPT))
    assert as_script["DocBase"] + "/cgi-bin/app" == "/srv/gemini/cgi-bin/app"
    assert as_script["CGIPaths"] == ["/srv/gemini/cgi-bin/app"]
    at_the_root = tomllib.loads(of(capsys, "molly-brown", "--bind", "scgi:unix:/run/app.sock"))
    assert at_the_root["SCGIPaths"] == {"/": "/run/app.sock"}


@pytest.mark.parametrize("server", ["gmcapsule", "pygopherd"])
def test_what_is_an_INI_file_can_be_read(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    read = configparser.ConfigParser()
    read.read_string(of(capsys, server))
    if server == "gmcapsule":
        for section, protocol in (("cgi.app", "gemini"), ("cgi.app-uploads", "titan")):
            assert dict(read[section]) == {
                "protocol": protocol,
                "host": "example.org",
                "path": "/cgi-bin/app /cgi-bin/app/*",
                "command": "/srv/gemini/cgi-bin/app",
            }
    else:
        assert (read["pygopherd"]["root"], read["pygopherd"]["port"]) == ("/srv/gemini", "70")


def test_uploads_have_the_limit_of_bodies(capsys: pytest.CaptureFixture[str]) -> None:
    assert "upload_limit = 16777216\n" in of(capsys, "gmcapsule")
    assert "upload_limit = 5\n" in of(capsys, "gmcapsule", *SCRIPT, "--max-body", "5")
    assert "upload_limit = 2147483647\n" in of(capsys, "gmcapsule", *SCRIPT, "--max-body", "none")


def test_gmid_is_told_of_the_mount_and_nothing_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = of(capsys, "gmid", "--bind", "fastcgi:[::1]:4000", "--mount", "/app", "--listen", "[::1]:1966")
    assert re.findall(r"location (.*) \{", text) == ['"/app"', '"/app/*"']
    assert text.count('socket tcp "::1" port 4000\n') == text.count('param SCRIPT_NAME = "/app"\n') == 2
    assert 'listen on "::1" port 1966\n' in text
    at_the_root = of(capsys, "gmid", *BIND)
    assert re.findall(r"location (.*) \{", at_the_root) == ['"/*"']
    assert "SCRIPT_NAME" not in at_the_root


def test_stargazer_is_told_of_a_route(capsys: pytest.CaptureFixture[str]) -> None:
    def meaning(*words: str) -> str:
        return "\n".join(meant(of(capsys, "stargazer", *words)))

    assert "[example.org:/app]\nscgi = true\nscgi-address = 127.0.0.1:4000\n[example.org]" in meaning()
    assert "[example.org:/]\nscgi = true" in meaning("--bind", "scgi:127.0.0.1:4000")
    script = meaning(*SCRIPT, "--timeout-request", "7", "--listen", "127.0.0.1:1966")
    assert "[example.org:/cgi-bin]\nroot = /srv/gemini\ncgi = true\ncgi-timeout = 12\n[example.org]" in script
    assert script.startswith("listen = 127.0.0.1:1966\n")


def test_systemd_accepts_the_unit_of_jetforce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("systemd-analyze")
    (tmp_path / "jetforce").symlink_to(str(shutil.which("true")))
    text = of(capsys, "jetforce").replace("/srv/app/env/bin/jetforce", str(tmp_path / "jetforce"))
    (tmp_path / "jetforce.service").write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "jetforce.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("server", SMALL_WEB)
def test_a_name_in_a_certificate_is_not_to_be_believed(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trust-remote-user" not in "\n".join(meant(of(capsys, server)))


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


SHOWN = [
    (page.name, *each)
    for page in (DOCS / "configs.rst", DOCS / "scaling.rst", DOCS / "small-web-servers.rst")
    for each in shown(page)
]


def test_every_server_is_shown() -> None:
    assert {words[0] for _, words, _ in SHOWN} == set(configs.SERVERS)


@pytest.mark.parametrize(("page", "words", "text"), SHOWN, ids=[f"{page} {words[0]}" for page, words, _ in SHOWN])
def test_what_a_page_shows_is_what_the_command_prints(
    page: str, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = words.index("--") if "--" in words else len(words)
    _, printed, _ = say(capsys, *words[:ours], *HERE, *words[ours:])
    assert printed == text
