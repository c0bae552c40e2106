"""SCGI over sockets: the pure protocol, driven by the shared engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gateways._model.limits import Limits
from gateways._net import serving
from gateways._net.stream import AnyStream
from gateways.scgi.server import ServerConnection

__all__ = ["PROTOCOL", "serve"]


def _connect(stream: AnyStream, *, limits: Limits, roles: Sequence[str], strict: bool) -> ServerConnection:
    return ServerConnection(limits=limits, roles=roles, strict=strict)


PROTOCOL = serving.Protocol("scgi", _connect)

#: Serve an application over SCGI: :func:`gateways._net.serving.serve` with the protocol filled in.
serve = partial(serving.serve, PROTOCOL)
