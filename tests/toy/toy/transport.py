"""The toy protocol over sockets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gateways import Limits
from gateways._net import serving
from gateways._net.stream import AnyStream
from tests.toy.toy.server import ServerConnection


def _connect(stream: AnyStream, *, limits: Limits, roles: Sequence[str], strict: bool) -> ServerConnection:
    return ServerConnection(limits=limits, roles=roles, strict=strict)


PROTOCOL = serving.Protocol("toy", _connect)
serve = partial(serving.serve, PROTOCOL)
serve_stream = partial(serving.serve_stream, PROTOCOL)
