"""Forwarding: a handler that passes its requests on to another application, over any protocol that can call.

A client is a handler, so any protocol comes in and any goes out; written against the public API alone.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from importlib import import_module
from typing import Any

from gateways import Handler, Limits, Request, Response

__all__ = ["forward"]


def forward(address: str, *, limits: Limits | None = None) -> Handler:
    """A handler that has another application answer, such as PHP: ``forward("fastcgi:unix:/run/php/php-fpm.sock")``.

    The application gets the request as it is now, SCRIPT_NAME and PATH_INFO included, in the same role, and its body
    as it comes. Its answer is passed on without the fields that are about one connection only. A body of unknown
    length goes over SCGI only once all of it is there, ``limits.max_read`` bytes at most.

    Raises ValueError when the address names no protocol that can be called. What the handler raises is answered by
    itself: 502 or 503 for an application that is not there or breaks the rules, 413 for a body that is too long.
    """
    name, _, where = address.partition(":")
    call = _caller(name)
    if call is None or not where:
        raise ValueError(f"not an address to forward to: {address!r}; write fastcgi:unix:/path or scgi:host:port")

    async def handler(request: Request) -> Response:
        environ = {name: value for name, value in request.environ.items() if name != "HTTP_PROXY"}
        if request.scheme not in ("http", "https"):
            environ["GATEWAYS_DIALECT"] = "cgi"  # a head is what can be read here, whatever the client speaks
        answer = await call(
            where, environ, request.body, role=request.role, data=request.data, limits=limits, log=request.log
        )
        response: Response = answer.response()
        if request.role == "authorizer" and response.status == 200:
            await answer.aclose()
            return _consent(response)
        return response

    return handler


def _consent(response: Response) -> Response:
    """The consent of another authorizer as our own, with its variables and whatever else it set."""
    consent = Response.authorize()
    for name, value in response.headers.items():
        if name.lower() not in ("content-type", "content-length"):
            consent = consent.with_header(name, value)
    return consent


def _caller(name: str) -> Callable[..., Any] | None:
    """The ``call`` of the protocol with this name; None where there is no such protocol, or it cannot call."""
    if not name.isidentifier() or name.startswith("_"):
        return None
    try:
        protocol: types.ModuleType = import_module(f"gateways.{name}")
    except ModuleNotFoundError:
        return None
    # A protocol is a package; other modules have functions of this name too.
    return getattr(protocol, "call", None) if hasattr(protocol, "__path__") else None
