"""The ASGI application of asgi.py, on trio."""

from __future__ import annotations

import trio

from bench.apps import asgi

app = asgi.site(trio.sleep)
