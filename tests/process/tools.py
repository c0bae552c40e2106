"""The other ends of one process: a service manager that is told how it is, and its children."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cli.program import PATIENCE, Answer, Program, ask, command, environment, poll


class Manager:
    """A socket for NOTIFY_SOCKET, and what has come there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def wait_for(self, wanted: str) -> list[str]:
        """Wait for a message with a line that begins so; all of its lines."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = self._socket.recv(65536).decode().split("\n")
            self.lines += message
            if any(line.startswith(wanted) for line in message):
                return message
        raise TimeoutError(f"nothing begins with {wanted!r} in {self.lines}")


@contextmanager
def watched(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    words: list[str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> Generator[tuple[Program, Manager], None, None]:
    """``gateways serve`` (or another command) under a service manager, once it is ready."""
    manager = Manager(cwd.resolve() / "notify")
    try:
        given = environment({**(env or {}), "NOTIFY_SOCKET": str(manager.path)})
        with Program(words or command("serve", *arguments), cwd=cwd, env=given, pass_fds=pass_fds) as program:
            manager.wait_for("READY=1")
            yield program, manager
    finally:
        manager.close()


def reload(program: Program, manager: Manager) -> None:
    """Have the code loaded anew, and wait until nobody else serves any more."""
    program.signal(signal.SIGHUP)
    reloaded(program, manager)


def reloaded(program: Program, manager: Manager) -> None:
    """Wait until a reload has come to its end."""
    message = manager.wait_for("READY=1")
    assert not any("failed" in line for line in message), message
    poll(lambda: children(program.process.pid) == [], "the bridge has ended and is reaped")


def ask_until(address: str, pid: int) -> Answer:
    """Ask until a certain process answers (with its process id as the last word): another one may accept, too."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask(address)) is None or answer.body.split()[-1] != str(pid):
        assert time.monotonic() < deadline, f"process {pid} does not answer"
    return answer


def ask_until_alone(address: str, pid: int) -> None:
    """Ask until a certain process answers ten times in a row: the other one accepts no more."""
    deadline = time.monotonic() + PATIENCE
    row = 0
    while row < 10:
        answer = ask(address)
        row = row + 1 if answer is not None and answer.body.split()[-1] == str(pid) else 0
        assert time.monotonic() < deadline, f"process {pid} is not alone"


def children(pid: int) -> list[int]:
    """The children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(number) for number in (task / "children").read_text().split()]
    return found


def gone(pid: int) -> bool:
    """Whether there is no such process, or only what is left of it until it is reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
