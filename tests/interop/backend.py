"""The application behind a web server: served by the test itself, or the text of a script that the server runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

import gateways
from gateways import Application, Listen
from tests.interop import site
from tests.interop.configurations import Configuration
from tests.interop.servers import SOCKET_MODE, FrontEnd, python_script

_SERVE = {"fastcgi": gateways.fastcgi.serve, "scgi": gateways.scgi.serve}


def site_script(configuration: Configuration) -> str:
    """The site as a script: CGI, or FastCGI on fd 0."""
    program = Path(site.__file__).read_text()
    return python_script(f"{program}\ngateways.run(app, mount={configuration.mount_option!r})\n")


@asynccontextmanager
async def serving(app: Application, web: FrontEnd) -> AsyncGenerator[None]:
    """Serve an application where the web server expects it, unless that runs it as a script."""
    configuration = web.configuration
    async with trio.open_nursery() as nursery:
        if web.address is not None:
            listen = Listen(web.address, mode=SOCKET_MODE)
            serve = _SERVE[configuration.protocol]
            await nursery.start(partial(serve, app, listen, mount=configuration.mount_option))
        yield
        nursery.cancel_scope.cancel()
