"""The page that shows a developer what went wrong. Never in production: it tells everything."""

import sys
import traceback
from contextlib import asynccontextmanager
from html import escape

from gateways import Reject, RemoteProtocolError, Request, Response, Started
from gateways.cli.running import without_our_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateways import Application, Handler

__all__ = ["is_meta_variable", "showing_errors"]

# fmt: off
_META_VARIABLES = frozenset({
    "AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "DOCUMENT_ROOT", "DOCUMENT_URI", "GATEWAY_INTERFACE", "HTTPS",
    "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_IDENT", "REMOTE_PORT",
    "REMOTE_USER", "REQUEST_METHOD", "REQUEST_SCHEME", "REQUEST_URI", "SCRIPT_FILENAME", "SCRIPT_NAME",
    "SERVER_ADDR", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE", "TLS_CIPHER", "TLS_VERSION",
})
# fmt: on
_FAMILIES = ("HTTP_", "GEMINI_", "TITAN_", "TLS_CLIENT_")

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
pre {{ background: #f4f4f4; padding: 1em; overflow-x: auto; }}
th {{ text-align: left; font-weight: normal; vertical-align: top; padding-right: 2em; white-space: nowrap; }}
td {{ font-family: monospace; word-break: break-all; }}
</style>
<h1>{title}</h1>
<p>{method} {path}, over {protocol}</p>
<pre>{trace}</pre>
<h2>The request</h2>
<table>
{rows}
</table>
<p>This page is shown by <code>gateways dev</code> alone; a web server's visitors get a plain 500.</p>
"""


@asynccontextmanager
async def showing_errors(app: "Application") -> "AsyncGenerator[Handler, None]":
    """The application, with a page that explains every exception it raises before it has begun to answer."""
    async with Started(app) as roles:

        async def handler(request: Request) -> Response:
            try:
                response = await roles(request)
                if not isinstance(response, Response):
                    raise TypeError(f"a handler gives back a Response, not {type(response).__name__}")
                return response
            except (Reject, RemoteProtocolError):
                raise  # an answer in itself, and what the client did
            except Exception as error:
                return error_page(request, error)

        yield handler


def error_page(request: Request, error: Exception) -> Response:
    """The page for one error, which is written to stderr too; a line of text where no browser asks."""
    trace = "".join(traceback.format_exception(without_our_frames(error)))
    sys.stderr.write(trace)
    if request.scheme not in ("http", "https"):
        # What fits into one line, which is all that there is.
        return Response(f"{type(error).__name__}: {error}".replace("\n", " "), 500)
    rows = [(name, value) for name, value in sorted(request.environ.items()) if is_meta_variable(name)]
    page = _PAGE.format(
        title=escape(f"{type(error).__name__}: {error}"[:200]),
        method=escape(request.method),
        path=escape(request.path),
        protocol=escape(request.protocol),
        trace=escape(trace),
        rows="\n".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in rows),
    )
    # Paths may hold bytes that are no UTF-8 (surrogates); they are shown as what they are not.
    return Response.html(page.encode("utf-8", "replace").decode(), 500)


def is_meta_variable(name: str) -> bool:
    """Whether a variable is about the request. Under CGI the process environment is beside it, with its secrets."""
    return name in _META_VARIABLES or name.startswith(_FAMILIES)
