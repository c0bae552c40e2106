"""HUP after HUP under load: nothing may be lost.

python -m chaos.reloads                       # one process, unix and TCP, connections kept and not
python -m chaos.reloads --workers 2 --requests 50000 --reloads 50
"""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial

import trio

from chaos import site
from chaos.clients import Outcome, ask_many


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m chaos.reloads", description="Reloads under load.")
    parser.add_argument("--requests", type=int, default=50_000, help="in each configuration (50000)")
    parser.add_argument("--reloads", type=int, default=50, help="in each configuration (50)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, help="serve with that many workers instead of one process")
    parser.add_argument("--case", action="append", choices=["unix", "unix-kept", "tcp", "tcp-kept"], help="repeatable")
    options = parser.parse_args()
    failed = 0
    for case in options.case or ["unix", "unix-kept", "tcp", "tcp-kept"]:
        outcome, reloads = trio.run(partial(reload_under_load, case, options))
        print(f"{case}: {reloads} reloads: {outcome}", flush=True)
        failed += outcome.asked - outcome.good
    sys.exit(failed > 0)


async def reload_under_load(case: str, options: argparse.Namespace) -> tuple[Outcome, int]:
    """All requests in one configuration; what came of them, and how often the server was told to reload."""
    where, _, kept = case.partition("-")
    with site.folder() as folder:
        address = f"unix:{folder}/app.sock" if where == "unix" else f"127.0.0.1:{site.free_port()}"
        arguments = [site.APP, "--bind", f"fastcgi:{address}", "--no-access-log"]
        if options.workers:
            arguments += ["--workers", str(options.workers)]
        async with (
            site.serving(folder, arguments) as server,
            site.nginx(folder, address, keep=bool(kept)) as port,
        ):
            answered = reloads = 0

            def after_each() -> None:
                nonlocal answered, reloads
                answered += 1
                # Spread over the requests, and none at the very end.
                if answered * (options.reloads + 1) >= options.requests * (reloads + 1) and reloads < options.reloads:
                    reloads += 1
                    server.send_signal(signal.SIGHUP)

            outcome = await ask_many(port, requests=options.requests, clients=options.clients, after_each=after_each)
            if server.poll() is not None:
                outcome.bad[f"the server ended with {server.returncode}"] += 1
                outcome.good = min(outcome.good, outcome.asked - 1)
        if outcome.bad:
            print(site.tail(folder / "server.log", 300), site.tail(folder / "error.log"), sep="\n")
    return outcome, reloads


if __name__ == "__main__":
    main()
