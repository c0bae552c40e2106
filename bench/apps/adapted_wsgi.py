"""The WSGI application of wsgi.py as a handler of gateways."""

from __future__ import annotations

from bench.apps import wsgi
from gateways.wsgi import from_wsgi

app = from_wsgi(wsgi.app)
