"""Running the command line as its users do: a process of its own, real sockets, and bounded waiting."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType

import attrs

import gateways
from gateways import fastcgi, scgi
from gateways.events import BodyReceived, ConnectionFailed, HeadReceived, ResponseEnded

PACKAGE_FOLDER = str(Path(gateways.__file__).parent.parent)
#: Seconds until a test gives up; only a failing one ever takes so long.
PATIENCE = 30.0

HELLO = """\
from gateways import Response

async def app(request):
    return Response(f"{request.method} {request.script_name}|{request.path_info} by {request.protocol}\\n")
"""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own environment without what would configure or start a gateway program, and this package to import."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAYS_", "LISTEN_", "FCGI_")) and name != "GATEWAY_INTERFACE"
    }
    return kept | {"PYTHONPATH": PACKAGE_FOLDER} | dict(extra or {})


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateways", *arguments]


def run(
    *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Program:
    """A command that runs until it is stopped; what it writes to stderr is read line by line."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: socket.socket | int = subprocess.DEVNULL,
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            words,
            cwd=cwd,
            env=env or environment(),
            stdin=stdin.fileno() if isinstance(stdin, socket.socket) else stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        assert self.process.stderr is not None
        self._stderr = self.process.stderr
        self.text = ""

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._stderr.close()

    def wait_for(self, pattern: str, *, times: int = 1) -> list[str]:
        """Wait until stderr holds so many matches of a pattern; all of them (their group, where it has one)."""
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self._stderr, selectors.EVENT_READ)
            # A line that is still being written might match too early.
            while len(found := re.findall(pattern, self.text[: self.text.rfind("\n") + 1], re.MULTILINE)) < times:
                assert selector.select(deadline - time.monotonic()), f"no {pattern!r} in:\n{self.text}"
                data = os.read(self._stderr.fileno(), 65536)
                assert data, f"it ended with {self.process.wait()} and without {pattern!r}:\n{self.text}"
                self.text += data.decode()
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Read to the end of stderr; the exit status."""
        _, rest = self.process.communicate(timeout=PATIENCE)
        self.text += rest.decode()
        return self.process.returncode


@contextmanager
def serving(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Generator[Program, None, None]:
    """``gateways serve`` that has come to accept connections."""
    with Program(command("serve", *arguments), cwd=cwd, env=env) as program:
        program.wait_for("^stop with Ctrl-C$")
        yield program


def poll(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds that nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} seconds"
        with selectors.DefaultSelector() as nothing:
            nothing.select(0.02)


# --- clients


@attrs.frozen
class Answer:
    status: int
    body: str


def connect(where: str) -> socket.socket:
    """Connect to unix:/path or host:port."""
    if where.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(PATIENCE)
        try:
            stream.connect(where.removeprefix("unix:"))
        except OSError:
            stream.close()
            raise
        return stream
    host, _, port = where.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE)


def refuses(address: str) -> bool:
    """Whether nobody accepts connections there."""
    try:
        connect(address.partition(":")[2]).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


class Call:
    """A request to "fastcgi:..." or "scgi:...", sent without the end of its body."""

    def __init__(self, address: str, path: str = "/", **variables: str) -> None:
        protocol, _, where = address.partition(":")
        self._client = {"fastcgi": fastcgi, "scgi": scgi}[protocol].ClientConnection()
        self._number = 1 if protocol == "fastcgi" else 0
        self._stream = connect(where)
        environ = {
            "CONTENT_LENGTH": "0",
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "SERVER_PROTOCOL": "HTTP/1.1",
            **variables,
        }
        with suppress(BrokenPipeError, ConnectionResetError):  # refused; finish() tells
            self._stream.sendall(self._client.send_request(self._number, environ))

    def finish(self, body: bytes = b"") -> Answer | None:
        """Send the body and its end; the answer, or None if there is none."""
        data = self._client.send_body(self._number, body) + self._client.end_body(self._number)
        status, received, complete = 0, b"", False
        with self._stream:
            try:
                if data:  # to send nothing is an error, too, where the answer has come and the line is closed
                    self._stream.sendall(data)
                while not complete:
                    data = self._stream.recv(65536)
                    for event in self._client.receive_data(data):
                        match event:
                            case HeadReceived():
                                status = event.status
                            case BodyReceived():
                                received += event.data
                            case ResponseEnded():
                                complete = True
                            case ConnectionFailed():
                                return None
                            case _:
                                pass
            except (ConnectionResetError, BrokenPipeError):
                return None
        return Answer(status, received.decode())


def ask(address: str, path: str = "/", **variables: str) -> Answer | None:
    """One request over the protocol the address begins with."""
    if address.startswith("http:"):
        return get(address.removeprefix("http:"), path)
    return Call(address, path, **variables).finish()


def get(where: str, path: str) -> Answer:
    """One request over HTTP."""
    connection = HTTPConnection(where, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    finally:
        connection.close()
