"""FastCGI over sockets: the pure protocol, driven by the shared engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gateways._model.limits import Limits
from gateways._net import calling, serving
from gateways._net.stream import AnyStream
from gateways.fastcgi.client import ClientConnection
from gateways.fastcgi.server import ServerConnection

__all__ = ["CLIENT", "PROTOCOL", "call", "serve", "serve_stream"]


def _connect(stream: AnyStream, *, limits: Limits, roles: Sequence[str], strict: bool) -> ServerConnection:
    return ServerConnection(limits=limits, roles=roles, strict=strict)


PROTOCOL = serving.Protocol("fastcgi", _connect, frozenset({1}))  # every record begins with the version

#: Serve an application over FastCGI: :func:`gateways._net.serving.serve` with the protocol filled in.
serve = partial(serving.serve, PROTOCOL)

#: The same on one connection that exists already: :func:`gateways._net.serving.serve_stream`.
serve_stream = partial(serving.serve_stream, PROTOCOL)

CLIENT = calling.Client(ClientConnection)

#: Have an application answer over FastCGI: :func:`gateways._net.calling.call` with the client filled in.
call = partial(calling.call, CLIENT)
