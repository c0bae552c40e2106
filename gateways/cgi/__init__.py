"""CGI (RFC 3875), both sides: be the script, or run scripts.

``gateways.cgi.run(app)`` is a whole CGI script; ``gateways.cgi.script(path)`` is a handler that runs one, and
``gateways.cgi.directory(folder)`` one that runs those in a folder.
"""

import sys

from gateways.cgi.guest import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.cgi.host import directory as directory
    from gateways.cgi.host import script as script

__all__ = ["directory", "run", "script"]

_LAZY = {"directory": "gateways.cgi.host", "script": "gateways.cgi.host"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    __import__(_LAZY[name])
    return getattr(sys.modules[_LAZY[name]], name)
