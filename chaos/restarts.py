"""Restarts under socket activation, under load: the socket stays, one process after the other serves it.

    python -m chaos.restarts

The command is the service manager: it holds the socket and passes it on to ``systemd-socket-activate``, which starts
``gateways serve`` at the first connection. "rolling" starts the next process before it ends the one before;
"plain" ends it first, as ``systemctl restart`` does, while connections wait in the backlog.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from chaos import site
from chaos.clients import Outcome, Progress, ask_many

_FIRST = 3  # SD_LISTEN_FDS_START


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m chaos.restarts", description="Restarts under socket activation.")
    parser.add_argument("--requests", type=int, default=20_000, help="in each configuration (20000)")
    parser.add_argument("--restarts", type=int, default=20, help="in each configuration (20)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--case", action="append", choices=["rolling", "rolling-kept", "plain", "plain-kept"])
    options = parser.parse_args()
    failed = 0
    for case in options.case or ["rolling", "rolling-kept", "plain", "plain-kept"]:
        outcome, restarts = trio.run(partial(restart_under_load, case, options))
        print(f"{case}: {restarts} restarts: {outcome}", flush=True)
        failed += outcome.asked - outcome.good
    sys.exit(failed > 0)


async def restart_under_load(case: str, options: argparse.Namespace) -> tuple[Outcome, int]:
    """All requests of one case; what came of them, and how often the server was restarted."""
    manner, _, kept = case.partition("-")
    with site.folder() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = folder / "app.sock"
        listening.bind(str(path))
        listening.listen(1024)
        address = f"unix:{path}"
        current = await _start(folder, listening)
        restarts, progress = 0, Progress()

        async def restart() -> None:
            nonlocal current, restarts
            for number in range(options.restarts):
                await progress.reach((number + 1) * options.requests // (options.restarts + 1))
                before = current
                if manner == "plain":
                    await _stop(before)
                current = await _start(folder, listening)
                if manner == "rolling":
                    await _stop(before)
                restarts += 1

        try:
            async with site.nginx(folder, address, keep=bool(kept)) as port, trio.open_nursery() as nursery:
                nursery.start_soon(restart)
                outcome = await ask_many(port, requests=options.requests, clients=options.clients, after_each=progress)
                nursery.cancel_scope.cancel()
        finally:
            site.end(current)
    return outcome, restarts


async def _start(folder: Path, listening: socket.socket) -> subprocess.Popen[bytes]:
    """Start a server on a socket, until it is ready. Its first connection is ours, and says nothing."""
    with site.Notifications(folder / "notify") as ready:
        with (folder / "server.log").open("ab") as log:
            process = await trio.to_thread.run_sync(partial(_spawn, folder, listening, log.fileno()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_knock, folder / "app.sock")
            await ready.wait_for("READY=1")
            nursery.cancel_scope.cancel()
    return process


async def _knock(path: Path) -> None:
    """Connect again and again: whoever serves the socket already may be faster than the one that is to be started."""
    while True:
        stream = await trio.open_unix_socket(path)
        await trio.sleep(0.05)
        await stream.aclose()


def _spawn(folder: Path, listening: socket.socket, log: int) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "PYTHONPATH": str(site.ROOT),
        "NOTIFY_SOCKET": str(folder / "notify"),
        "LISTEN_FDS": "1",
    }
    # The socket has to be descriptor 3, and LISTEN_PID the process itself, which only a shell can know.
    script = f'exec {_FIRST}<&{listening.fileno()}; export LISTEN_PID=$$; exec "$@"'
    activate = [site.program("systemd-socket-activate"), "--setenv=PYTHONPATH", "--setenv=NOTIFY_SOCKET"]
    serve = [sys.executable, "-m", "gateways", "serve", site.APP, "--no-access-log"]
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *activate, *serve],
        cwd=site.ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[listening.fileno()],
    )


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    await trio.to_thread.run_sync(process.wait)


if __name__ == "__main__":
    main()
