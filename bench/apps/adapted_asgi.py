"""The ASGI application of asgi_trio.py as a handler of gateways."""

from __future__ import annotations

from bench.apps import asgi_trio
from gateways.asgi import from_asgi

app = from_asgi(asgi_trio.app)
