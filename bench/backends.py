"""The servers that are measured, one entry each, and how one is started and ended.

Every entry serves the same site, which bench/apps has in several languages, with one process that answers requests, on
a Unix socket. Settings are the server's own, but that nothing is logged for a request, that kept connections stay open
while other servers have their turn, and that a listening socket holds as many waiting connections as the load opens.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
APPS = ROOT / "bench" / "apps"
#: Where programs are looked for: Debian keeps servers where an ordinary user's PATH does not look.
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"))
#: Seconds that a server may take to start, and to stop.
PATIENCE = 20.0
_BACKLOG = 1024


class Failed(Exception):
    """A server does not do what it should; the message ends with what it said."""


@attrs.frozen(eq=False)
class Backend:
    """One server.

    In ``command`` and ``build`` these are filled in: {python} that runs us, {socket} where to listen, {apps} the folder
    of the site, {folder} a private one. ``build`` comes first, once; ``files`` are written to the private folder
    before that. With ``on_stdin`` the listening socket is the server's standard input.
    ``kept`` says whether nginx keeps connections to it open: not where a connection takes the only process there is,
    or where the protocol has no way to. ``holds_many`` is for those that can have 10,000 connections open.
    """

    name: str
    title: str
    protocol: str  #: "fastcgi", "scgi" or "http"
    command: tuple[str, ...]
    distributions: tuple[str, ...] = ()  #: of Python, that it needs; the first one's version is the server's
    modules: tuple[str, ...] = ()  #: of Python
    programs: tuple[str, ...] = ()  #: by name, and files by absolute path
    version: tuple[str, ...] = ()  #: the command that prints its version, where that is no distribution's
    build: tuple[str, ...] = ()
    files: Mapping[str, str] = attrs.field(factory=dict[str, str])
    script: str = ""  #: SCRIPT_FILENAME, for a server that wants one
    on_stdin: bool = False
    kept: bool = True
    holds_many: bool = False
    compiled: bool = False  #: it is a compiled build of gateways, in a folder that is named when it is run

    def missing(self) -> list[str]:
        """What it needs that is not installed."""
        lacking = [name for name in self.distributions if not _installed(name)]
        lacking += [name for name in self.modules if importlib.util.find_spec(name) is None]
        lacking += [name for name in self.programs if find(name) is None]
        return lacking

    def find_version(self) -> str:
        """What its version is, in its own words; "" where it says nothing."""
        if self.version:
            said = subprocess.run(
                [find(self.version[0]) or self.version[0], *self.version[1:]],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            return next(iter((said.stdout or said.stderr).splitlines()), "").strip()
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in self.distributions)


_GATEWAYS = ("{python}", "-m", "gateways", "serve", "--no-access-log")
_LIBRARY = ("{python}", "-m", "bench.apps.library")
_GUNICORN = (
    "{python}",
    "-m",
    "gunicorn",
    "--bind",
    "unix:{socket}",
    "--workers",
    "1",
    "--keep-alive",
    "75",
    "--no-control-socket",
)
_UWSGI = ("uwsgi", "--wsgi-file", "{apps}/wsgi.py", "--processes", "1", "--disable-logging", "--listen", "1024")
_HYPERCORN = (
    "{python}",
    "-m",
    "hypercorn",
    "--bind",
    "unix:{socket}",
    "--workers",
    "1",
    "--keep-alive",
    "300",
    "--backlog",
    "1024",
)
_PHP_FPM = next(
    (name for name in ("php-fpm", "php-fpm8.4", "php-fpm8.3", "php-fpm8.2") if shutil.which(name, path=PATH)), "php-fpm"
)
_PHP_CONF = """\
[global]
error_log = {folder}/php.log
daemonize = no
[www]
listen = {socket}
listen.backlog = 1024
pm = static
pm.max_children = 1
php_admin_value[post_max_size] = 0
php_admin_value[enable_post_data_reading] = 0
php_admin_value[output_buffering] = 0
"""

#: Ours come first, and what all are compared with is the very first.
BACKENDS = (
    Backend(
        "gateways-fastcgi",
        "gateways, FastCGI",
        "fastcgi",
        (*_GATEWAYS, "{apps}/native.py", "--bind", "fastcgi:unix:{socket}"),
        holds_many=True,
    ),
    Backend(
        "gateways-fastcgi-compiled",
        "gateways, FastCGI, compiled",
        "fastcgi",
        (*_GATEWAYS, "{apps}/native.py", "--bind", "fastcgi:unix:{socket}"),
        holds_many=True,
        compiled=True,
    ),
    Backend(
        "gateways-scgi",
        "gateways, SCGI",
        "scgi",
        (*_GATEWAYS, "{apps}/native.py", "--bind", "scgi:unix:{socket}"),
        kept=False,
    ),
    Backend(
        "gateways-scgi-compiled",
        "gateways, SCGI, compiled",
        "scgi",
        (*_GATEWAYS, "{apps}/native.py", "--bind", "scgi:unix:{socket}"),
        kept=False,
        compiled=True,
    ),
    Backend(
        "gateways-http",
        "gateways, HTTP, for development",
        "http",
        (*_GATEWAYS, "{apps}/native.py", "--bind", "http:unix:{socket}"),
        holds_many=True,
    ),
    Backend(
        "gateways-wsgi",
        "gateways, WSGI over FastCGI",
        "fastcgi",
        (*_GATEWAYS, "{apps}/adapted_wsgi.py", "--bind", "fastcgi:unix:{socket}"),
        modules=("gateways.wsgi",),
    ),
    Backend(
        "gateways-asgi",
        "gateways, ASGI over FastCGI",
        "fastcgi",
        (*_GATEWAYS, "{apps}/adapted_asgi.py", "--bind", "fastcgi:unix:{socket}"),
        modules=("gateways.asgi",),
    ),
    Backend(
        "uvicorn",
        "uvicorn (uvloop, httptools)",
        "http",
        (
            *("{python}", "-m", "uvicorn", "bench.apps.asgi:app", "--uds", "{socket}", "--loop", "uvloop"),
            *("--http", "httptools", "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "300"),
        ),
        distributions=("uvicorn", "uvloop", "httptools"),
        holds_many=True,
    ),
    Backend(
        "hypercorn-trio",
        "Hypercorn on trio",
        "http",
        (*_HYPERCORN, "--worker-class", "trio", "bench.apps.asgi_trio:app"),
        distributions=("hypercorn", "trio"),
        holds_many=True,
    ),
    Backend(
        "hypercorn-asyncio",
        "Hypercorn on asyncio",
        "http",
        (*_HYPERCORN, "bench.apps.asgi:app"),
        distributions=("hypercorn",),
    ),
    Backend(
        "granian",
        "granian, ASGI",
        "http",
        (
            *("{python}", "-m", "granian", "--uds", "{socket}", "--interface", "asgi", "--workers", "1"),
            # It has as many open connections as this says, however many are idle; otherwise 1,024.
            *("--no-ws", "--backpressure", "12000", "--log-level", "warning", "bench.apps.asgi:app"),
        ),
        distributions=("granian",),
        holds_many=True,
    ),
    Backend(
        "gunicorn-sync",
        "gunicorn, sync",
        "http",
        (*_GUNICORN, "--worker-class", "sync", "bench.apps.wsgi:app"),
        distributions=("gunicorn",),
        kept=False,
    ),
    Backend(
        "gunicorn-gthread",
        "gunicorn, gthread",
        "http",
        (*_GUNICORN, "--worker-class", "gthread", "--threads", "4", "bench.apps.wsgi:app"),
        distributions=("gunicorn",),
    ),
    Backend(
        "uwsgi-fastcgi",
        "uWSGI, FastCGI",
        "fastcgi",
        (*_UWSGI, "--fastcgi-socket", "{socket}"),
        distributions=("uWSGI",),
        programs=("uwsgi",),
        kept=False,
    ),
    Backend(
        "uwsgi-scgi",
        "uWSGI, SCGI",
        "scgi",
        (*_UWSGI, "--scgi-socket", "{socket}"),
        distributions=("uWSGI",),
        programs=("uwsgi",),
        kept=False,
    ),
    Backend(
        "flup-fastcgi",
        "flup, FastCGI",
        "fastcgi",
        (*_LIBRARY, "flup-fastcgi", "{socket}"),
        distributions=("flup",),
    ),
    Backend(
        "flup-scgi",
        "flup, SCGI",
        "scgi",
        (*_LIBRARY, "flup-scgi", "{socket}"),
        distributions=("flup",),
        kept=False,
    ),
    Backend("flipflop", "flipflop", "fastcgi", (*_LIBRARY, "flipflop"), distributions=("flipflop",), on_stdin=True),
    Backend(
        "fcgisgi-asgi",
        "fcgisgi, ASGI",
        "fastcgi",
        (*_LIBRARY, "fcgisgi-asgi"),
        distributions=("fcgisgi",),
        on_stdin=True,
    ),
    Backend(
        "fcgisgi-wsgi",
        "fcgisgi, WSGI",
        "fastcgi",
        (*_LIBRARY, "fcgisgi-wsgi"),
        distributions=("fcgisgi",),
        on_stdin=True,
    ),
    Backend(
        "php-fpm",
        "php-fpm, 1 child",
        "fastcgi",
        # --allow-to-run-as-root changes nothing for other users.
        (_PHP_FPM, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", "{folder}/php-fpm.conf"),
        programs=(_PHP_FPM,),
        version=(_PHP_FPM, "--version"),
        files={"php-fpm.conf": _PHP_CONF},
        script="{apps}/site.php",
        kept=False,
    ),
    Backend(
        "go",
        "Go, net/http/fcgi",
        "fastcgi",
        ("{folder}/site-go",),
        programs=("go",),
        version=("go", "version"),
        build=("go", "build", "-o", "{folder}/site-go", "{apps}/site.go"),
        on_stdin=True,
        holds_many=True,
    ),
    Backend(
        "libfcgi",
        "libfcgi, C",
        "fastcgi",
        ("{folder}/site-c",),
        programs=("gcc", "/usr/include/fcgiapp.h"),
        version=("pkg-config", "--modversion", "fcgi"),
        build=("gcc", "-O2", "-o", "{folder}/site-c", "{apps}/site.c", "-lfcgi"),
        on_stdin=True,
        kept=False,
    ),
)


@attrs.define
class Running:
    """A server that is running, or about to: ``start`` it first."""

    backend: Backend
    folder: Path
    pid: int = 0

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "socket"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / "log"


@contextmanager
def started(backend: Backend, parent: Path, cpus: Iterable[int], compiled: Path | None = None) -> Generator[Running]:
    """Run the server on these CPUs until the block ends; it accepts connections when the block begins.

    It lives in a folder of its own in ``parent``. ``compiled`` is the folder that has the compiled build in it. Raises
    Failed, with its output, if it does not start.
    """
    folder = parent / backend.name
    running = Running(backend, folder)
    words = {"python": sys.executable, "socket": str(running.socket), "apps": str(APPS), "folder": str(folder)}
    folder.mkdir()
    for name, text in backend.files.items():
        (folder / name).write_text(text.format(**words))
    if backend.build:
        _build([word.format(**words) for word in backend.build])
    command = [word.format(**words) for word in backend.command]
    if backend.compiled and compiled is None:
        raise ValueError(f"{backend.name} takes the folder of the compiled build")
    path = [str(compiled), str(ROOT)] if backend.compiled else [str(ROOT)]
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": os.pathsep.join(path)}
    with open(running.log, "ab") as log, _standard_input(running) as stdin, pinned(cpus):
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=stdin, stdout=log, stderr=log, start_new_session=True
        )
    running.pid = process.pid
    try:
        _wait_until_it_listens(process, running)
        yield running
    finally:
        end(process)


@contextmanager
def scratch() -> Generator[Path]:
    """A private folder until the block ends; its path is short, as that of a Unix socket has to be."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


@contextmanager
def pinned(cpus: Iterable[int]) -> Generator[None]:
    """Whatever is started in this block runs on these CPUs alone, for ever; all of them if there are none here."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cpus) or allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process group that this process began to end, and make it."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=PATIENCE / 4)
    except subprocess.TimeoutExpired:
        pass  # some take that as a wish to start again
    except ProcessLookupError:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # as is usual
    process.wait()


def find(program: str) -> str | None:
    """The file of a program, or of a file that is named by its absolute path."""
    if program.startswith("/"):
        return program if Path(program).exists() else None
    return shutil.which(program, path=PATH)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _build(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")


@contextmanager
def _standard_input(running: Running) -> Generator[int]:
    if not running.backend.on_stdin:
        yield subprocess.DEVNULL
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(running.socket))
        listener.listen(_BACKLOG)
        yield listener.fileno()


def _wait_until_it_listens(process: subprocess.Popen[bytes], running: Running) -> None:
    for _ in range(int(PATIENCE / 0.02)):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(running.socket))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                pass
        try:
            status = process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        raise Failed(f"{running.backend.name} ended with status {status}\n{tail(running.log)}")
    raise Failed(f"{running.backend.name} does not listen after {PATIENCE:g} s\n{tail(running.log)}")


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-500:]
