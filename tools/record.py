"""Record what a web server and an application say to each other, byte by byte: for a report, or out of curiosity.

    python -m tools.record fastcgi:unix:/run/app.sock fastcgi:unix:/run/real.sock FOLDER

stands where the web server connects to (the first address) and passes everything on to where the application really
listens (the second). FOLDER gets two files for each connection, 0001.request and 0001.answer; over FastCGI each record
is explained as well. Ctrl-C ends it. What it records has passwords, cookies and bodies in it: look before you show it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import trio

from gateways import fastcgi
from gateways._net.address import parse

_RECEIVE = 65_536


async def record(
    here: str,
    there: str,
    folder: Path,
    *,
    say: Callable[[str], object] = print,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Pass connections on and write down what they carry, until cancelled. Addresses are as in ``gateways serve``."""
    protocol, _, where = here.partition(":")
    _, _, to = there.partition(":")
    target = parse(to)
    numbers = count(1)

    async def connect() -> trio.abc.Stream:
        if target.kind == "unix":
            return await trio.open_unix_socket(target.path)
        return await trio.open_tcp_stream(target.host, target.port)

    async def carry(source: trio.abc.Stream, sink: trio.abc.Stream, file: Path, name: str) -> None:
        """One direction, to its end. The file is written at once: nothing is lost by whatever comes then."""
        with file.open("wb", buffering=0) as kept:
            try:
                while data := await source.receive_some(_RECEIVE):
                    kept.write(data)
                    await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                say(f"{name}: cut")
            else:
                if isinstance(sink, trio.SocketStream):
                    with trio.move_on_after(1):
                        await sink.send_eof()

    async def serve(web: trio.abc.Stream) -> None:
        name = f"{next(numbers):04}"
        request, answer = folder / f"{name}.request", folder / f"{name}.answer"
        async with web, await connect() as application, trio.open_nursery() as nursery:
            nursery.start_soon(carry, web, application, request, name)
            await carry(application, web, answer, name)
            nursery.cancel_scope.cancel()  # the answer is over: nothing more is read of the request
        for file in (request, answer):
            say(f"{file} ({file.stat().st_size} bytes)")
            if protocol == "fastcgi":
                for line in fastcgi.dissect(file.read_bytes()):
                    say(f"  {line}")

    address = parse(where)
    if address.kind == "unix":
        listeners = [_listen(address.path)]
    else:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host or "127.0.0.1")
    task_status.started()
    await trio.serve_listeners(serve, listeners)


def _listen(path: str) -> trio.SocketListener:
    """A unix socket for its owner and group, in the place of whatever has been there."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen()
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


def main() -> int:
    """Record until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tools.record", description="Record the bytes of connections.")
    parser.add_argument("here", metavar="PROTOCOL:WHERE", help="where the web server connects to")
    parser.add_argument("there", metavar="PROTOCOL:WHERE", help="where the application listens")
    parser.add_argument("folder", type=Path, help="where the files go")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        trio.run(partial(record, options.here, options.there, options.folder))
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
