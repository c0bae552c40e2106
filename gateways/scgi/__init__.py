"""SCGI: the protocol without I/O, both sides, and (loaded when first asked for) a server for it on trio."""

from __future__ import annotations

from gateways.scgi.client import ClientConnection
from gateways.scgi.server import ServerConnection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.scgi.transport import call, serve, serve_stream

__all__ = ["ClientConnection", "ServerConnection", "call", "serve", "serve_stream"]

#: Public names that cost trio to load, and where they are.
_LAZY = dict.fromkeys(("call", "serve", "serve_stream"), "gateways.scgi.transport")


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value
