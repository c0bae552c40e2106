"""HTTP, for development only: the protocol without I/O, and (loaded when first asked for) a server for it on trio.

It lets a newcomer see a handler in a browser without a web server. It is no production server.
"""

from __future__ import annotations

from gateways.http.client import ClientConnection
from gateways.http.server import ServerConnection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.http.transport import serve, serve_stream

__all__ = ["ClientConnection", "ServerConnection", "serve", "serve_stream"]

#: Public names that cost trio to load, and where they are.
_LAZY = dict.fromkeys(("serve", "serve_stream"), "gateways.http.transport")


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value
