r"""FastCGI 1.0: the protocol without I/O for both sides, a reader for human eyes, and a server on trio.

>>> from gateways import fastcgi
>>> web, app = fastcgi.ClientConnection(), fastcgi.ServerConnection()
>>> data = web.send_request(1, {"REQUEST_METHOD": "GET"}) + web.end_body(1)
>>> for record in fastcgi.dissect(data):          # one line per record
...     print(f"{record.offset:3} {record.meaning}")
  0 a request begins, role responder; the application closes the connection afterwards
 16 1 meta-variable: REQUEST_METHOD
 48 end of the meta-variables
 56 end of the request body
>>> app.receive_data(data[:9])                    # split anywhere, nothing lost
[]
>>> for event in app.receive_data(data[9:]):
...     print(event)
RequestReceived(stream_id=1, role='responder', environ={'REQUEST_METHOD': 'GET'}, keep_connection=False)
BodyEnded(stream_id=1)
>>> answer = app.send_head(1, b"Status: 204 No Content\r\n\r\n") + app.end(1)
>>> web.receive_data(answer)[-1], app.closing
(ResponseEnded(stream_id=1, app_status=0), True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gateways.fastcgi.client import ClientConnection as ClientConnection
from gateways.fastcgi.dissecting import dissect as dissect
from gateways.fastcgi.server import ServerConnection as ServerConnection

if TYPE_CHECKING:
    from gateways.fastcgi.transport import call as call
    from gateways.fastcgi.transport import serve as serve
    from gateways.fastcgi.transport import serve_stream as serve_stream

__all__ = ["ClientConnection", "ServerConnection", "call", "dissect", "serve", "serve_stream"]

#: public name -> the module that has it, loaded when first asked for: the protocol alone needs no trio
_LAZY = dict.fromkeys(("call", "serve", "serve_stream"), "gateways.fastcgi.transport")


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
