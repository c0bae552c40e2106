"""The processes: nginx and the servers behind it, each in the foreground, from a private folder, on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

__all__ = ["APP", "ROOT", "folder", "free_port", "nginx", "program", "serving", "tail"]

ROOT = Path(__file__).parent.parent
APP = f"{ROOT / 'chaos' / 'app.py'}"
#: Seconds that a process may take to start, and to stop.
PATIENCE = 20.0

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))

_NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/client_body;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  proxy_temp_path {folder}/proxy;
  uwsgi_temp_path {folder}/uwsgi;
  upstream app {{
    server {where} max_fails=0;
    {kept}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_NAME "";
      fastcgi_param PATH_INFO $fastcgi_script_name;
      {keep_conn}
      fastcgi_pass app;
    }}
  }}
}}
"""


@contextmanager
def folder() -> Generator[Path]:
    """A folder for sockets, configurations and logs."""
    with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as name:
        yield Path(name)


def program(name: str) -> str:
    """Where a program is. Ends the command, saying so, if it is not installed."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        sys.exit(f"{name} is not installed")
    return found


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def nginx(into: Path, address: str, *, keep: bool) -> AsyncGenerator[int]:
    """nginx in front of a FastCGI server at "unix:..." or "host:port"; gives the port."""
    port = free_port()
    text = _NGINX.format(
        folder=into,
        user="user root root;" if os.geteuid() == 0 else "",
        where=address,
        port=port,
        kept="keepalive 64;" if keep else "# a connection for each request",
        keep_conn="fastcgi_keep_conn on;" if keep else "",
    )
    (into / "nginx.conf").write_text(text)
    command = [program("nginx"), "-p", f"{into}/", "-e", f"{into}/error.log", "-c", f"{into}/nginx.conf"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        await listening(port)
        yield port
    finally:
        end(process)


@asynccontextmanager
async def serving(
    into: Path,
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    command: Sequence[str] = (sys.executable, "-m", "gateways", "serve"),
    log: str = "server.log",
) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """``gateways serve`` with these arguments, once it has said that it is ready; its log is a file."""
    with Notifications(into / f"{log}.notify") as ready, (into / log).open("ab") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {}), "NOTIFY_SOCKET": str(ready.path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
        )
        try:
            await ready.wait_for("READY=1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ready.drop)  # whoever does not listen holds up those who talk
                yield process
                nursery.cancel_scope.cancel()
        finally:
            end(process)


class Notifications:
    """The socket that a service manager would have: sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._lines: list[str] = []

    def __enter__(self) -> Notifications:
        self.path.unlink(missing_ok=True)
        # A bind to a path does not wait.
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        raw.bind(str(self.path))
        raw.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(raw)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)

    async def drop(self) -> None:
        """Take notice of nothing, for ever."""
        while True:
            await self._socket.recv(65536)

    async def wait_for(self, line: str) -> None:
        """Wait until that has been said."""
        with trio.fail_after(PATIENCE):
            while line not in self._lines:
                self._lines += (await self._socket.recv(65536)).decode().split("\n")
        self._lines.clear()


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-lines:])


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and see to it that it does."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def listening(port: int) -> None:
    """Wait until somebody listens on a loopback port."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return
