"""HTTP over sockets, for development: the pure protocol, driven by the shared engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gateways._model.limits import Limits
from gateways._net import serving
from gateways._net.stream import AnyStream
from gateways.http.server import ServerConnection

__all__ = ["PROTOCOL", "serve", "serve_stream"]


def _connect(stream: AnyStream, *, limits: Limits, roles: Sequence[str], strict: bool) -> ServerConnection:
    # The addresses are all that HTTP itself does not say.
    known: dict[str, str] = {}
    if stream.peer is not None:
        known |= {"REMOTE_ADDR": stream.peer[0], "REMOTE_PORT": str(stream.peer[1])}
    if stream.here is not None:
        known |= {"SERVER_ADDR": stream.here[0], "SERVER_PORT": str(stream.here[1])}
    return ServerConnection(limits=limits, roles=roles, strict=strict, environ=known)


PROTOCOL = serving.Protocol("http", _connect)

#: Serve an application over HTTP: :func:`gateways._net.serving.serve` with the protocol filled in.
serve = partial(serving.serve, PROTOCOL)

#: The same on one connection that exists already: :func:`gateways._net.serving.serve_stream`.
serve_stream = partial(serving.serve_stream, PROTOCOL)
