"""A protocol for the tests: one line asks, one answer comes, the connection ends.

``METHOD /path LENGTH\\n`` and that many bytes; the answer is a CGI response. Everything a protocol has to write is in
this folder; nothing in ``gateways`` knows of it.
"""

from tests.toy.toy.client import ClientConnection
from tests.toy.toy.server import ServerConnection
from tests.toy.toy.transport import serve, serve_stream

__all__ = ["ClientConnection", "ServerConnection", "serve", "serve_stream"]
