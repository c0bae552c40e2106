"""Servers that are libraries: ``python -m bench.apps.library NAME [SOCKET]`` serves the site with one of them.

Without SOCKET it listens on its standard input, as the FastCGI specification has it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import import_module

from bench.apps import asgi, wsgi


def main(name: str, socket: str = "") -> None:
    match name:
        case "flup-fastcgi":
            import_module("flup.server.fcgi").WSGIServer(wsgi.app, bindAddress=socket).run()
        case "flup-scgi":
            import_module("flup.server.scgi").WSGIServer(wsgi.app, bindAddress=socket, loggingLevel=logging.ERROR).run()
        case "flipflop":
            import_module("flipflop").WSGIServer(wsgi.app).run()
        case "fcgisgi-asgi":
            asyncio.run(import_module("fcgisgi").run_asgi_server(asgi.app))
        case "fcgisgi-wsgi":
            asyncio.run(import_module("fcgisgi").run_wsgi_server(wsgi.app))
        case _:
            sys.exit(f"no such server: {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
