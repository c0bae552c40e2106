"""Start real web servers, each from a private folder on a free loopback port, and end them.

A server runs in the foreground as our child, as whoever runs the tests; only Apache refuses to be root, and becomes
``www-data`` then. Nothing outside the folder is written.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import attrs
import pytest

from tests.interop.configurations import Configuration

#: The name of the site: SERVER_NAME of every server, and the Host header of our client.
SERVER_NAME = "gateways.test"
#: Mode of a backend's unix socket: as root, Apache connects to it as another user.
SOCKET_MODE = 0o666
#: Seconds that a server may take to start, and to stop.
PATIENCE = 20.0

_HERE = Path(__file__).parent
#: Debian keeps servers where an ordinary user's PATH does not look.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
_APACHE_USER = "www-data"
_APACHE_MODULES = "/usr/lib/apache2/modules"


class ServerFailed(Exception):
    """A web server did not start; the message ends with its error log."""


@attrs.frozen(eq=False)
class FrontEnd:
    """A running web server.

    ``address`` is where the backend has to listen ("unix:/tmp/gw.../app.sock", "127.0.0.1:4000"; with mode
    SOCKET_MODE if it is a socket file), and None where the web server starts the backend itself. ``group`` is the
    group of its processes.
    """

    configuration: Configuration
    folder: Path
    port: int
    address: str | None
    group: int = 0

    @property
    def bind(self) -> str:
        """The backend's address with its protocol in front, as ``gateways.serve`` takes it."""
        if self.address is None:
            raise ValueError(f"{self.configuration} starts its backend itself")
        return f"{self.configuration.protocol}:{self.address}"

    def error_log(self) -> str:
        """The last lines that the server (or a script that it ran) wrote to its error log."""
        log = self.folder / "error.log"
        return log.read_text(errors="replace")[-8000:] if log.exists() else ""

    def kill(self) -> None:
        """End it at once, with all its processes, as a crash would."""
        os.killpg(self.group, signal.SIGKILL)


@attrs.frozen
class _Server:
    """What is particular to one make of web server."""

    template: str
    needs: tuple[str, ...]  #: programs and files
    command: Callable[[Path], list[str]]  #: of the folder
    backend: Callable[[str, str, str], str]  #: of protocol, host or "unix", and port or path
    user: str  #: the line that root needs
    check: Callable[[Path], list[str]]  #: the command by which it says what it thinks of a configuration


def _nginx_backend(_protocol: str, host: str, port: str) -> str:
    return f"{host}:{port}"


def _apache_backend(protocol: str, host: str, port: str) -> str:
    scheme = {"fastcgi": "fcgi", "scgi": "scgi"}[protocol]
    return f"unix:{port}|{scheme}://localhost" if host == "unix" else f"{scheme}://{host}:{port}"


def _lighttpd_backend(_protocol: str, host: str, port: str) -> str:
    return f'"socket" => "{port}"' if host == "unix" else f'"host" => "{host}", "port" => {port}'


def _haproxy_backend(_protocol: str, host: str, port: str) -> str:
    return f"unix@{port}" if host == "unix" else f"{host}:{port}"


_SERVERS = {
    "nginx": _Server(
        "nginx.conf.in",
        ("nginx", "/etc/nginx/fastcgi_params", "/etc/nginx/scgi_params"),
        # -e: otherwise the log that was compiled in is opened first, which only root may do.
        lambda folder: ["nginx", "-p", f"{folder}/", "-e", f"{folder}/error.log", "-c", f"{folder}/server.conf"],
        _nginx_backend,
        "user root root;",
        lambda folder: ["nginx", "-t", "-p", f"{folder}/", "-e", f"{folder}/error.log", "-c", f"{folder}/server.conf"],
    ),
    "apache2": _Server(
        "apache.conf.in",
        ("apache2", f"{_APACHE_MODULES}/mod_proxy_fcgi.so", f"{_APACHE_MODULES}/mod_fcgid.so"),
        lambda folder: ["apache2", "-DFOREGROUND", "-f", f"{folder}/server.conf"],
        _apache_backend,
        f"User {_APACHE_USER}\nGroup {_APACHE_USER}",
        lambda folder: ["apache2", "-t", "-f", f"{folder}/server.conf"],
    ),
    "lighttpd": _Server(
        "lighttpd.conf.in",
        ("lighttpd",),
        lambda folder: ["lighttpd", "-D", "-f", f"{folder}/server.conf"],
        _lighttpd_backend,
        "",
        lambda folder: ["lighttpd", "-tt", "-f", f"{folder}/server.conf"],
    ),
    "haproxy": _Server(
        "haproxy.cfg.in",
        ("haproxy",),
        # -db: no daemon, and no supervisor either.
        lambda folder: ["haproxy", "-db", "-f", f"{folder}/server.conf"],
        _haproxy_backend,
        "",
        lambda folder: ["haproxy", "-c", "-f", f"{folder}/server.conf"],
    ),
    "caddy": _Server(
        "",
        ("caddy",),
        lambda folder: ["caddy", "run", "--config", f"{folder}/server.conf", "--adapter", "caddyfile"],
        _haproxy_backend,
        "",
        lambda folder: ["caddy", "validate", "--config", f"{folder}/server.conf", "--adapter", "caddyfile"],
    ),
    "h2o": _Server(
        "",
        ("h2o",),
        lambda folder: ["h2o", "-c", f"{folder}/server.conf"],
        _haproxy_backend,
        "user: root",
        lambda folder: ["h2o", "-t", "-c", f"{folder}/server.conf"],
    ),
}

#: Server -> what stands around the text that ``gateways config`` prints for it.
_AROUND = {
    "nginx": "nginx.conf.in",
    "apache2": "apache.conf.in",
    "lighttpd": "lighttpd.conf.in",
    "haproxy": "haproxy.cfg.in",
    "caddy": "Caddyfile.in",
    "h2o": "h2o.conf.in",
}


def require(*programs: str) -> None:
    """Skip the test if one of these programs (or files, by absolute path) is not installed.

    With GATEWAYS_REQUIRE_SERVERS=1 in the environment, as in CI, the test fails instead.
    """
    missing = [
        program
        for program in programs
        if not (Path(program).exists() if program.startswith("/") else shutil.which(program, path=_PATH))
    ]
    if missing:
        _cannot_run(f"not installed: {', '.join(missing)}")


def _cannot_run(reason: str) -> NoReturn:
    if os.environ.get("GATEWAYS_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port(*, besides: int = 0) -> int:
    """A loopback TCP port that nobody listens on, and not ``besides``.

    It lies below the range from which systems choose ports for outgoing connections: none can take it meanwhile,
    nor can our own attempts to connect to it meet themselves.
    """
    while True:
        port = 16_384 + secrets.randbelow(16_384)
        if port == besides:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # taken: try another
            return port


@contextmanager
def front_end(
    configuration: Configuration, script: str | None = None, *, address: str | None = None
) -> Generator[FrontEnd]:
    """Run a web server in this configuration until the block ends; it accepts connections when the block begins.

    ``script`` is the text of the file that a configuration with ``.script`` runs (see ``python_script``). ``address``
    is that of a backend which several web servers share; each has one of its own otherwise. Blocks the thread for up
    to a few tenths of a second at both ends. An exception that leaves the block carries the error log as a note.

    Raises ServerFailed; skips or fails the test, as ``require`` does, if the server is not installed.
    """
    server = _SERVERS[configuration.server]
    require(*server.needs)
    if (script is None) != (configuration.script is None):
        raise ValueError(f"{configuration} runs {configuration.script or 'no script'}")
    # Not pytest's folder: the path of a unix socket has at most 107 bytes, and Apache's user has to reach it.
    with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as name:
        port = free_port()
        web = FrontEnd(configuration, Path(name), port, address or _backend_address(configuration, name, port))
        _write_files(web, server, script)
        with _process(server.command(web.folder), web) as group:
            try:
                yield attrs.evolve(web, group=group)
            except Exception as error:
                error.add_note(f"error log of {configuration}:\n{web.error_log()}")
                raise


@attrs.frozen
class Verdict:
    """What a web server says of its configuration: its exit status, and all that it writes."""

    status: int
    text: str


@contextmanager
def private_folder() -> Generator[Path]:
    """A folder for one web server, which every user may enter."""
    with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "htdocs").mkdir()
        yield folder


def check_generated(server: str, site: str, folder: Path) -> Verdict:
    """Write the configuration of a web server around what ``gateways config`` printed, and have the server check it."""
    kind = _SERVERS[server]
    require(*kind.needs)
    (folder / "site.conf").write_text(site)
    template = (_HERE / "configs" / "generated" / _AROUND[server]).read_text()
    names = {
        "SITE": site,
        "FOLDER": str(folder),
        "USER": kind.user if os.geteuid() == 0 else "",
        "MODULES": _APACHE_MODULES,
    }
    for name, value in names.items():
        template = template.replace(f"@{name}@", value)
    (folder / "server.conf").write_text(template)
    command = kind.check(folder)
    checked = subprocess.run(
        command,
        executable=shutil.which(command[0], path=_PATH),
        cwd=folder,
        env=_environment(server, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Verdict(checked.returncode, checked.stdout + checked.stderr)


@contextmanager
def running_generated(server: str, folder: Path, port: int) -> Generator[FrontEnd]:
    """Run a web server in the configuration that ``check_generated`` has written, until the block ends."""
    configuration = Configuration(f"generated-{server}", server, "", "", "", None, None, "")
    web = FrontEnd(configuration, folder, port, None)
    with _process(_SERVERS[server].command(folder), web) as group:
        try:
            yield attrs.evolve(web, group=group)
        except Exception as error:
            error.add_note(f"error log of {configuration}:\n{web.error_log()}")
            raise


def _backend_address(configuration: Configuration, folder: str, taken: int) -> str | None:
    if configuration.script is not None:
        return None
    if configuration.transport == "unix":
        return f"unix:{folder}/app.sock"
    return f"127.0.0.1:{free_port(besides=taken)}"


def _write_files(web: FrontEnd, server: _Server, script: str | None) -> None:
    web.folder.chmod(0o755)
    (web.folder / "htdocs").mkdir()
    if script is not None:
        program = web.folder / str(web.configuration.script)
        program.write_text(script)
        program.chmod(0o755)
    template = (_HERE / "configs" / server.template).read_text()
    (web.folder / "server.conf").write_text(_fill(template, _names(web, server)))


def _names(web: FrontEnd, server: _Server) -> dict[str, str]:
    configuration = web.configuration
    host, _, port = (web.address or "127.0.0.1:9").partition(":")
    return {
        "SITE": configuration.site,  # first: it holds names itself
        "FOLDER": str(web.folder),
        "PORT": str(web.port),
        "SERVER_NAME": SERVER_NAME,
        "USER": server.user if os.geteuid() == 0 else "",
        "MODULES": _APACHE_MODULES,
        "BACKEND": server.backend(configuration.protocol, host, port) if configuration.protocol != "cgi" else "",
        "MOUNT": configuration.mount,
        "PATH": configuration.mount or "/",
        "SCRIPT": str(web.folder / (configuration.script or "")),
        "SLASH": "" if configuration.mount else "/",  # "/" is replaced by the script's path, which must end likewise
    }


def _fill(template: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        template = template.replace(f"@{name}@", value)
    if unknown := re.findall(r"@[A-Z_]+@", template):
        raise ValueError(f"nothing to fill in for {unknown}")
    return template


@contextmanager
def _process(command: list[str], web: FrontEnd) -> Generator[int]:
    """Run the server as a child that has accepted a connection when the block begins, and has ended after it.

    Yields its process group.
    """
    executable = shutil.which(command[0], path=_PATH)
    with open(web.folder / "error.log", "ab") as log:
        process = subprocess.Popen(
            command,
            executable=executable,
            cwd=web.folder,
            env=_environment(web.configuration.server, web.folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: the server is ended below, with the group that it begins
        )
    try:
        _wait_until_it_accepts(process, web)
        yield process.pid
    finally:
        _end(process)


def _environment(server: str, folder: Path) -> dict[str, str]:
    """The server's environment, which its scripts may inherit: nothing of ours."""
    inherited = {"PATH": _PATH, "LANG": "C.UTF-8"}
    return inherited | {"HOME": str(folder)} if server == "caddy" else inherited  # it keeps certificates there


def _wait_until_it_accepts(process: subprocess.Popen[bytes], web: FrontEnd) -> None:
    deadline = time.monotonic() + PATIENCE
    while not accepts(web.port):
        try:
            status = process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
            raise ServerFailed(f"{web.configuration} is silent after {PATIENCE} s:\n{web.error_log()}") from None
        raise ServerFailed(f"{web.configuration} exited with status {status}:\n{web.error_log()}")


def accepts(port: int) -> bool:
    """Whether anybody accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except (ConnectionRefusedError, ConnectionResetError):  # the latter if it dies meanwhile
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Its process group still holds the workers of a killed server, backends that lighttpd does not wait for and, now
    # and then for a moment, helpers of Apache that keep the port open.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left; macOS says so in the second way


def python_script(program: str) -> str:
    """The text of a Python script that a web server can start: a ``#!`` line, our import path, and ``program``.

    Skips or fails the test, as ``require`` does, if there is no Python that the web server's user may start.
    """
    specs = [importlib.util.find_spec(name) for name in ("gateways", "trio")]
    paths = [str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin]
    # -B: the user it runs as may not write caches, and root should not leave any that others cannot replace.
    return f"#!{_interpreter()} -B\nimport sys\nsys.path[:0] = {paths!r}\n{program}"


@functools.cache
def _interpreter() -> str:
    """This Python; as root, one that Apache's user may start as well (ours may live in root's home)."""
    if os.geteuid() != 0 or shutil.which("apache2", path=_PATH) is None:
        return sys.executable
    new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [candidate, "-c", new_enough],
                user=_APACHE_USER,
                group=_APACHE_USER,
                extra_groups=[],
                cwd="/",
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue  # it may not, or it is too old
        return candidate
    _cannot_run(f"{_APACHE_USER} may not start {sys.executable}, and /usr/bin/python3 is not 3.11 or later")
