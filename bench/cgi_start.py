"""What a CGI script costs to start: CPU time of whole processes, next to ``python -c pass``.

    python -m bench.cgi_start --rounds 40
    python -m bench.cgi_start --venv --rounds 40

A machine that is busy with something else spoils wall time more than CPU time, and it spoils both less when the rows
take turns: so each round runs every row once, and the figures are the minimum and the median over the rounds, user and
system time together, as the kernel counts them for the ended process.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

#: What a web server says of a request for a page; nothing else is in the environment of a script.
ENVIRON = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "PATH": os.defpath,
    "PATH_INFO": "",
    "QUERY_STRING": "",
    "REMOTE_ADDR": "127.0.0.1",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/hello.cgi",
    "SCRIPT_FILENAME": "/srv/cgi-bin/hello.cgi",
    "SCRIPT_NAME": "/hello.cgi",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "bench",
}

PATH = "import sys; sys.path.insert(0, {folder!r})\n"

HELLO = """\
import gateways.cgi
from gateways import Response

async def app(request):
    return Response("Hello, world!\\n")

gateways.cgi.run(app)
"""

WSGIREF = """\
from wsgiref.handlers import CGIHandler

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")])
    return [b"Hello, world!\\n"]

CGIHandler().run(app)
"""


class Row(NamedTuple):
    """One program to start over and over. Those that ``answer`` are to say hello."""

    name: str
    argv: list[str]
    answers: bool = False


def rows(python: str, folder: Path, package: Path, *, installed: bool) -> list[Row]:
    """Every program, with the scripts written to ``folder``; the first row is what the others are compared with.

    ``package`` is the folder that has gateways in it, for those that do not find it by themselves: all of them, unless
    it is installed, and one that goes without site-packages.
    """
    path = PATH.format(folder=str(package))
    plain = _write(folder / "hello.cgi", HELLO if installed else path + HELLO)
    bare = _write(folder / "bare.cgi", path + HELLO)
    trio = _write(folder / "trio.cgi", ("" if installed else path) + "import trio\n" + HELLO)
    wsgiref = _write(folder / "wsgiref.cgi", WSGIREF)
    return [
        Row("python -c pass", [python, "-c", "pass"]),
        Row("python -I -c pass", [python, "-I", "-c", "pass"]),
        Row("python -IS -c pass", [python, "-IS", "-c", "pass"]),
        Row("gateways", [python, plain], answers=True),
        Row("gateways, python -I", [python, "-I", plain], answers=True),
        Row("gateways, python -IS", [python, "-IS", bare], answers=True),
        Row("gateways by /usr/bin/env", ["/usr/bin/env", python, plain], answers=True),
        Row("gateways and trio", [python, trio], answers=True),
        Row("wsgiref", [python, wsgiref], answers=True),
        Row("wsgiref, python -I", [python, "-I", wsgiref], answers=True),
        Row("wsgiref, python -IS", [python, "-IS", wsgiref], answers=True),
        Row("true, which is no Python", [shutil.which("true") or "/bin/true"]),
    ]


def check(row: Row) -> None:
    """Run it once: lest a script that died early look quick, and to have everything compiled."""
    done = subprocess.run(row.argv, env=ENVIRON, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    complete = done.stdout.endswith(b"\r\n\r\nHello, world!\n") if row.answers else not done.stdout
    if done.returncode or done.stderr or not complete:
        sys.exit(f"{row.name}: status {done.returncode}, {done.stdout!r}, {done.stderr!r}")


def cpu(row: Row) -> float:
    """Seconds of CPU that one run takes, from fork to end."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    process = os.posix_spawn(row.argv[0], row.argv, ENVIRON, file_actions=files)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{row.name}: wait status {status}")
    return usage.ru_utime + usage.ru_stime


def measure(programs: list[Row], rounds: int) -> list[list[float]]:
    """The seconds of each program in each round. Every other round goes backwards, so that neighbours differ."""
    taken: list[list[float]] = [[] for _ in programs]
    turn = list(enumerate(programs))
    for _ in range(rounds):
        for place, program in turn:
            taken[place].append(cpu(program))
        turn.reverse()
    return taken


def show(programs: list[Row], taken: list[list[float]]) -> None:
    """A table of milliseconds, and of how many times as much as the first row that is."""
    print(f"{'CPU of one process':26}  {'minimum':>9}  {'times':>6}  {'median':>9}  {'times':>6}")
    least, usual = min(taken[0]), statistics.median(taken[0])
    for program, times in zip(programs, taken, strict=True):
        low, middle = min(times), statistics.median(times)
        print(
            f"{program.name:26}  {low * 1e3:6.2f} ms  {low / least:6.2f}  {middle * 1e3:6.2f} ms  {middle / usual:6.2f}"
        )


def fresh(folder: Path) -> str:
    """The Python of a new virtual environment with this tree installed in it as users have it, which takes an index."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(ROOT)]
    subprocess.run(install, check=True)
    return python


def said(python: str, code: str) -> str:
    """What ``code`` prints, run outside the checkout."""
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.cgi_start", description="What a CGI script costs to start.")
    parser.add_argument("--rounds", type=int, default=40, help="how many times each program runs (%(default)s)")
    parser.add_argument("--venv", action="store_true", help="install into a fresh virtual environment first")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    with tempfile.TemporaryDirectory(prefix="cgi-start-") as made:
        folder = Path(made)
        if options.venv:
            python = fresh(folder / "venv")
            where = said(python, "import gateways; print(gateways.__file__)")
        else:
            python = sys.executable
            spec = importlib.util.find_spec("gateways")
            where = str(spec.origin) if spec else str(ROOT / "gateways" / "__init__.py")
        programs = rows(python, folder, Path(where).parent.parent, installed=options.venv)
        for program in programs:
            check(program)
        version = said(python, "import platform; print(platform.python_implementation(), platform.python_version())")
        print(f"{version}, rounds: {options.rounds}, {'fresh environment' if options.venv else python}")
        show(programs, measure(programs, options.rounds))


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


if __name__ == "__main__":
    main()
