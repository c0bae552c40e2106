"""One handler over FastCGI, SCGI and CGI.

The names below are loaded when they are first used, because a classic CGI script pays for every import on each
request. Protocols are sub-packages: ``gateways.fastcgi``, ``gateways.scgi``, ``gateways.cgi``.
"""

import sys

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways import cgi as cgi
    from gateways import events as events
    from gateways import fastcgi as fastcgi
    from gateways import http as http
    from gateways import scgi as scgi
    from gateways import testing as testing
    from gateways._model.certificate import ClientCertificate as ClientCertificate
    from gateways._model.errors import GatewayError as GatewayError
    from gateways._model.errors import IncompleteBody as IncompleteBody
    from gateways._model.errors import LimitExceeded as LimitExceeded
    from gateways._model.errors import LocalProtocolError as LocalProtocolError
    from gateways._model.errors import ProtocolError as ProtocolError
    from gateways._model.errors import Reject as Reject
    from gateways._model.errors import RemoteProtocolError as RemoteProtocolError
    from gateways._model.forms import Files as Files
    from gateways._model.forms import Form as Form
    from gateways._model.forms import Upload as Upload
    from gateways._model.handler import Application as Application
    from gateways._model.handler import Handler as Handler
    from gateways._model.handler import Roles as Roles
    from gateways._model.handler import Started as Started
    from gateways._model.headers import Headers as Headers
    from gateways._model.limits import Limits as Limits
    from gateways._model.request import Body as Body
    from gateways._model.request import Request as Request
    from gateways._model.response import Response as Response
    from gateways._model.urlmap import URLMap as URLMap
    from gateways._net.access import AccessEntry as AccessEntry
    from gateways._net.address import Listen as Listen
    from gateways._net.tally import Tally as Tally
    from gateways.forwarding import forward as forward
    from gateways.launch import run as run
    from gateways.launch import serve as serve

#: public name -> where it lives; a name with no attribute is a module
_PUBLIC = {
    "AccessEntry": ("gateways._net.access", "AccessEntry"),
    "Application": ("gateways._model.handler", "Application"),
    "Body": ("gateways._model.request", "Body"),
    "ClientCertificate": ("gateways._model.certificate", "ClientCertificate"),
    "Files": ("gateways._model.forms", "Files"),
    "Form": ("gateways._model.forms", "Form"),
    "GatewayError": ("gateways._model.errors", "GatewayError"),
    "Handler": ("gateways._model.handler", "Handler"),
    "Headers": ("gateways._model.headers", "Headers"),
    "IncompleteBody": ("gateways._model.errors", "IncompleteBody"),
    "LimitExceeded": ("gateways._model.errors", "LimitExceeded"),
    "Limits": ("gateways._model.limits", "Limits"),
    "Listen": ("gateways._net.address", "Listen"),
    "LocalProtocolError": ("gateways._model.errors", "LocalProtocolError"),
    "ProtocolError": ("gateways._model.errors", "ProtocolError"),
    "Reject": ("gateways._model.errors", "Reject"),
    "RemoteProtocolError": ("gateways._model.errors", "RemoteProtocolError"),
    "Request": ("gateways._model.request", "Request"),
    "Response": ("gateways._model.response", "Response"),
    "Roles": ("gateways._model.handler", "Roles"),
    "Started": ("gateways._model.handler", "Started"),
    "Tally": ("gateways._net.tally", "Tally"),
    "URLMap": ("gateways._model.urlmap", "URLMap"),
    "Upload": ("gateways._model.forms", "Upload"),
    "cgi": ("gateways.cgi", ""),
    "events": ("gateways.events", ""),
    "fastcgi": ("gateways.fastcgi", ""),
    "forward": ("gateways.forwarding", "forward"),
    "http": ("gateways.http", ""),
    "run": ("gateways.launch", "run"),
    "scgi": ("gateways.scgi", ""),
    "serve": ("gateways.launch", "serve"),
    "testing": ("gateways.testing", ""),
}

__all__ = [
    "AccessEntry",
    "Application",
    "Body",
    "ClientCertificate",
    "Files",
    "Form",
    "GatewayError",
    "Handler",
    "Headers",
    "IncompleteBody",
    "LimitExceeded",
    "Limits",
    "Listen",
    "LocalProtocolError",
    "ProtocolError",
    "Reject",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Roles",
    "Started",
    "Tally",
    "URLMap",
    "Upload",
    "cgi",
    "events",
    "fastcgi",
    "forward",
    "http",
    "run",
    "scgi",
    "serve",
    "testing",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path, attribute = _PUBLIC[name]
    __import__(path)  # importlib would load warnings, for every CGI request
    value = getattr(sys.modules[path], attribute) if attribute else sys.modules[path]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
