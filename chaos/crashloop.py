"""An application whose workers end as soon as they have started: the manager waits longer each time, and gives up.

python -m chaos.crashloop
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from chaos import site

#: Serves for a moment, so that it is no failure to start, and is gone.
APP = """\
import os
import trio
from contextlib import asynccontextmanager

async def die():
    await trio.sleep(0.05)
    os._exit(1)

@asynccontextmanager
async def app():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        yield handler
        nursery.cancel_scope.cancel()

async def handler(request):
    raise AssertionError
"""


def main() -> None:
    """The command."""
    with site.folder() as folder:
        (folder / "crashing.py").write_text(APP)
        arguments = [str(folder / "crashing.py"), "--bind", f"fastcgi:unix:{folder}/app.sock", "--workers", "2"]
        began = time.monotonic()
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateways", "serve", *arguments],
                cwd=site.ROOT,
                env={**os.environ, "PYTHONPATH": str(site.ROOT)},
                stdin=subprocess.DEVNULL,
                stderr=output,
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        code = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        print(f"gave up after {seconds:.1f} s with status {code}; {cpu:.1f} s of CPU, the workers' start included")
        print("\n".join(log.read_text(errors="replace").splitlines()[-3:]))
        sys.exit(code <= 0)


if __name__ == "__main__":
    main()
