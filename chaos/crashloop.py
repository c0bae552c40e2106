"""Workers that end as soon as they have started: the manager waits longer each time, gives up, and does not spin.

    python -m chaos.crashloop

An application whose workers never come to serve is given up. One whose workers serve for a moment is not, because a
request that is fatal to them must not end the server for all: there the processor time counts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from chaos import site

#: Gone before it can serve.
NEVER = "import os; os._exit(1)"
#: Serves for a moment.
SOON = """\
import os, trio
from contextlib import asynccontextmanager

async def die():
    await trio.sleep(0.05)
    os._exit(1)

@asynccontextmanager
async def app():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        yield handler

async def handler(request):
    raise AssertionError
"""
#: Seconds after which a manager that does not give up is told to.
LONG = 90.0
#: Seconds in which the other one is watched.
WATCHED = 20.0


def main() -> None:
    """The command."""
    code, seconds, cpu = crash(NEVER, LONG)
    print(f"never ready: ended with status {code} after {seconds:.1f} s; {cpu:.1f} s of CPU, starting workers included")
    ended = code > 0 and seconds < LONG
    code, seconds, cpu = crash(SOON, WATCHED)
    print(f"ready for a moment: stopped after {seconds:.1f} s, status {code}; {cpu:.1f} s of CPU in that time")
    sys.exit(not ended or cpu > WATCHED / 4)


def crash(app: str, patience: float) -> tuple[int, float, float]:
    """Exit status, seconds until then, and seconds of CPU of all processes of a server with two such workers."""
    with site.folder() as folder:
        (folder / "crashing.py").write_text(app)
        before = os.times()
        process = _serve(folder)
        began = time.monotonic()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        code = process.wait()
        after = os.times()
        seconds = time.monotonic() - began
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        print(site.tail(folder / "log", 3))
    return code, seconds, cpu


def _serve(folder: Path) -> subprocess.Popen[bytes]:
    arguments = [str(folder / "crashing.py"), "--bind", f"fastcgi:unix:{folder}/app.sock", "--workers", "2"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gateways", "serve", *arguments],
            cwd=site.ROOT,
            env={**os.environ, "PYTHONPATH": str(site.ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


if __name__ == "__main__":
    main()
