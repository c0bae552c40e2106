"""kill -9 of workers under load: only what they were at may be lost, and each is replaced within a second.

python -m chaos.kills --workers 3 --kills 20
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from functools import partial
from pathlib import Path

import trio

from chaos import site
from chaos.clients import Outcome, Progress, ask_many


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m chaos.kills", description="Workers killed under load.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    outcome, replaced = trio.run(partial(kill_under_load, options))
    print(outcome)
    print(f"{len(replaced)} workers killed; replaced after {max(replaced, default=0):.2f} s at most")
    # A worker has about its share of the clients' requests in flight when it is killed.
    most = options.kills * options.clients
    sys.exit(outcome.asked - outcome.good > most or max(replaced, default=0) > 1)


async def kill_under_load(options: argparse.Namespace) -> tuple[Outcome, list[float]]:
    """What came of the requests, and how long each killed worker was missing, in seconds."""
    replaced: list[float] = []
    with site.folder() as folder:
        address = f"unix:{folder}/app.sock"
        arguments = [site.APP, "--bind", f"fastcgi:{address}", "--no-access-log", "--workers", str(options.workers)]
        async with (
            site.serving(folder, arguments) as server,
            site.nginx(folder, address, keep=True) as port,
            trio.open_nursery() as nursery,
        ):
            progress = Progress()

            async def kill() -> None:
                for number in range(options.kills):
                    await progress.reach((number + 1) * options.requests // (options.kills + 1))
                    victim = children(server.pid)[0]
                    os.kill(victim, signal.SIGKILL)
                    began = trio.current_time()
                    while victim in (found := children(server.pid)) or len(found) < options.workers:
                        await trio.sleep(0.01)
                    replaced.append(trio.current_time() - began)

            nursery.start_soon(kill)
            outcome = await ask_many(port, requests=options.requests, clients=options.clients, after_each=progress)
            nursery.cancel_scope.cancel()
    return outcome, replaced


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended, the eldest first."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if not _is_zombie(child)]


def _is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


if __name__ == "__main__":
    main()
