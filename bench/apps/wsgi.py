"""The site of native.py as a WSGI application."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

PIECE = b"x" * 1023 + b"\n"
BLOCK = b"x" * 65_536


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")])
    return [b"Hello, world!\n"]


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
    return [body]


def stream(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (PIECE for _ in range(16))


def upload(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    size, left = 0, int(environ["CONTENT_LENGTH"])
    while left and (chunk := environ["wsgi.input"].read(min(left, 65_536))):
        size += len(chunk)
        left -= len(chunk)
    body = b"%d\n" % size
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def download(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    size = int(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))])
    return (BLOCK for _ in range(size // len(BLOCK)))


def wait(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    time.sleep(0.001)
    return hello(environ, start_response)


SITE = {"/hello": hello, "/echo": echo, "/stream": stream, "/upload": upload, "/download": download, "/wait": wait}


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return SITE[environ["PATH_INFO"]](environ, start_response)


#: the name that uWSGI looks for
application = app
