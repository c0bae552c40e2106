"""Arbiters with workers, as processes of their own, and what is seen of them from outside."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli import program
from tests.cli.program import PATIENCE, Program, ask, command, environment, poll

#: Answers with who answers; reads the body of a POST before that; and does what the paths say.
APP = """\
import os, signal, time
import trio
from gateways import Response

CODE = "first"
HOARD = []

async def app(request):
    if request.method == "POST":
        request.log(f"began {request.path}")
    if request.path == "/block":
        time.sleep(60)
    if request.path == "/shield":
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
    if request.path == "/hoard":
        HOARD.append(b"x" * 100_000_000)
    if request.path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    if request.path == "/wait":
        await request.body.read()
    return Response(f"{os.getpid()} {CODE} {request.protocol}")
"""


def write(folder: Path, code: str = "first") -> None:
    """The application as app.py. A byte-compiled one of the same second and size would be taken for it."""
    (folder / "app.py").write_text(APP.replace('"first"', f'"{code}"'))


@contextmanager
def workers(
    folder: Path, *arguments: str, count: int = 2, env: Mapping[str, str] | None = None, app: str = "app.py"
) -> Generator[Server, None, None]:
    """``gateways serve app.py --workers`` on a unix socket, with all workers ready."""
    if not (folder / "app.py").exists():
        write(folder)
    address = f"fastcgi:unix:{folder}/s"
    words = command("serve", app, "--bind", address, f"--workers={count}", *arguments)
    with Server(words, cwd=folder, env=environment(env)) as server:
        server.address = address
        server.wait_for("^stop with Ctrl-C$")
        yield server


class Call(program.Call):
    """A request that may be left unfinished."""

    def close(self) -> None:
        self._stream.close()


class Server(Program):
    """The arbiter."""

    def __init__(self, words: Sequence[str], **settings: Any) -> None:
        super().__init__(words, **settings)
        self.address = ""
        self._calls: list[Call] = []
        self._begun: list[str] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *arguments: object) -> None:
        left = children(self.pid)
        for call in self._calls:
            call.close()
        super().__exit__(None, None, None)
        for pid in left:  # of a test that has failed
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    def became_ready(self, generation: int, times: int = 1) -> list[int]:
        """Wait for so many workers of a generation; their process ids."""
        pattern = rf"worker (\d+) is ready \(generation {generation}\)"
        return [int(pid) for pid in self.wait_for(pattern, times=times)]

    def ask(self, path: str = "/") -> list[str]:
        """Who answers, with which code and over what."""
        answer = ask(self.address, path)
        assert answer is not None
        assert answer.status == 200
        return answer.body.split()

    def begin(self, path: str = "/wait") -> Call:
        """A request whose body is still to come, and which a worker has begun to answer."""
        call = Call(self.address, path, REQUEST_METHOD="POST", CONTENT_LENGTH="2")
        self._calls.append(call)
        self._begun.append(path)
        self.wait_for(rf"began {path}$", times=self._begun.count(path))
        return call

    def children(self) -> list[int]:
        return children(self.pid)

    def gone(self, pid: int) -> None:
        """Wait until a process is no more."""
        poll(lambda: not is_alive(pid), f"process {pid} has not ended")

    def count(self, number: int) -> None:
        """Wait until there are so many workers."""
        poll(lambda: len(self.children()) == number, f"there are not {number} workers but {self.children()}")


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.said = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(self.path)

    def close(self) -> None:
        self._socket.close()

    def wait_for(self, pattern: str) -> str:
        """Read until a message matches; that message."""
        while True:
            message = self._socket.recv(4096).decode()
            self.said += message + "\n\n"
            if re.search(pattern, message, re.MULTILINE):
                return message


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="it looks at other processes in /proc")
