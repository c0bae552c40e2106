"""Three servers behind HAProxy, one killed and one drained under load: no request that may be asked again is lost.

python -m chaos.backends
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from pathlib import Path

import trio

from chaos import site
from chaos.clients import Outcome, ask_many

BACKENDS = 3


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m chaos.backends", description="Three servers behind HAProxy.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    outcome = trio.run(partial(lose_backends, options))
    print(outcome)
    sys.exit(outcome.good < outcome.asked)


async def lose_backends(options: argparse.Namespace) -> Outcome:
    """What came of requests without bodies while a third of them was killed, and another drained and started again."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(site.folder())
        ports = [site.free_port() for _ in range(BACKENDS)]
        servers = [
            await stack.enter_async_context(site.serving(folder, _arguments(port), log=f"server{number}.log"))
            for number, port in enumerate(ports)
        ]
        front = await stack.enter_async_context(_haproxy(folder, ports))
        answered = 0
        thirds: Iterator[Callable[[], None]] = iter(
            [
                lambda: os.kill(servers[0].pid, signal.SIGKILL),
                lambda: os.kill(servers[1].pid, signal.SIGTERM),
            ]
        )

        def after_each() -> None:
            nonlocal answered
            answered += 1
            if answered in (options.requests // 3, 2 * options.requests // 3):
                next(thirds)()

        return await ask_many(
            front, requests=options.requests, clients=options.clients, posts=False, after_each=after_each
        )


def _arguments(port: int) -> list[str]:
    return [site.APP, "--bind", f"fastcgi:127.0.0.1:{port}", "--no-access-log", "--ping-path", "/ping"]


@contextlib.asynccontextmanager
async def _haproxy(folder: Path, ports: list[int]) -> AsyncGenerator[int]:
    """HAProxy with the configuration that ``gateways config`` writes for these servers; gives its port."""
    port = site.free_port()
    backends = [f"--backend=fastcgi:127.0.0.1:{backend}" for backend in ports]
    command = [sys.executable, "-m", "gateways", "config", "haproxy", site.APP, f"--listen=127.0.0.1:{port}", *backends]
    text = subprocess.run(command, cwd=site.ROOT, check=True, capture_output=True, text=True).stdout
    (folder / "haproxy.cfg").write_text(text)
    process = subprocess.Popen(
        [site.program("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"], stdin=subprocess.DEVNULL
    )
    try:
        await site.listening(port)
        yield port
    finally:
        site.end(process)


if __name__ == "__main__":
    main()
