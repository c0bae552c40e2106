"""What is served over Gemini, Titan and Gopher in the tests. Its text becomes the CGI script, so it stands alone."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from gateways import Reject, Request, Response
from gateways.gemtext import Page

#: The folder of the test that runs; filled in.
FOLDER = ""

#: Bytes of /large: more than any buffer between us and the client.
LARGE = 1_500_000
#: Lines of a body that breaks: too many to be held back.
MANY = 40_000

#: Every kind of answer, by name, for what it may do to a server in front.
ODD: dict[str, Any] = {
    "empty": lambda: Response(),
    "empty-bytes": lambda: Response(b""),
    "empty-204": lambda: Response(status=204),
    "newlines": lambda: Response("\n\n\n"),
    "blank-error": lambda: Response("\n \n", 404),
    "binary": lambda: Response(bytes(range(256))),
    "chunks-empty": lambda: Response([b"", b"", b""]),
    "chunks-late": lambda: Response([b"", b"x", b""]),
    "long-prompt": lambda: Response.input("x" * 1000),
    "long-error": lambda: Response("x" * 5000, 400),
    "umlauts-error": lambda: Response("ü" * 5000, 400),
    "controls-error": lambda: Response("a\x00b\x7fc\td", 400),
    "crlf-error": lambda: Response("one\r\n20 text/gemini\r\ntwo", 500),
    "long-type": lambda: Response("x", content_type="text/" + "x" * 2000),
    "odd-type": lambda: Response("x", content_type="text/ü"),
    "html": lambda: Response.html("<p>x"),
    "cookies": lambda: Response("x").set_cookie("a", "b"),
    "redirect": lambda: Response.redirect("/x"),
    "redirect-far": lambda: Response.redirect("https://example.com/x"),
    "redirect-unencoded": lambda: Response.redirect("/ü x"),
    "redirect-long": lambda: Response.redirect("/" + "x" * 2000),
    "redirect-nowhere": lambda: Response(status=302),
    "not-modified": lambda: Response(status=304),
    "partial": lambda: Response("x", 206),
    "teapot": lambda: Response("x", 418),
    "slow-down": lambda: Response("x", 429, [("Retry-After", "5")]),
    "slow-down-when": lambda: Response("x", 429, [("Retry-After", "Fri, 31 Dec 2027 23:59:59 GMT")]),
    "app-status": lambda: Response("x", app_status=3),
    "length-lies": lambda: Response([b"one"], headers=[("Content-Length", "9")]),
    "length-short": lambda: Response([b"one"], headers=[("Content-Length", "1")]),
    "secret": lambda: Response.input("x", sensitive=True),
    "required": lambda: Response.certificate_required(),
    "refused": lambda: Response.certificate_refused(),
    "invalid": lambda: Response.certificate_refused(invalid=True),
    "scope": lambda: Response.certificate_required(scope="/elsewhere"),
    "file": lambda: Response.file(FOLDER + "/allowed"),
    "file-missing": lambda: Response.file(FOLDER + "/none"),
    "sendfile": lambda: Response("", headers=[("X-Sendfile", "/etc/passwd")]),
    "no-response": lambda: None,
    "wrong-chunk": lambda: Response([1]),  # type: ignore[list-item]
    "prompt-with-newline": lambda: Response.input("a\r\n20 text/plain"),
    "reject": lambda: _raised(Reject(403, "not\r\n20 you")),
    "reject-long": lambda: _raised(Reject(503, "x" * 3000)),
    "fails": lambda: _raised(RuntimeError("secret")),
    "fails-emptily": lambda: _raised(RuntimeError("\r\n")),
    "exits": lambda: _raised(SystemExit(0)),
    "exits-loudly": lambda: _raised(SystemExit(3)),
    "exits-in-words": lambda: _raised(SystemExit("secret")),
    "interrupted": lambda: _raised(KeyboardInterrupt()),
    "breaks": lambda: Response(_breaking),
    "breaks-at-once": lambda: Response(_breaking_at_once),
    "exits-while-sending": lambda: Response(_exiting),
}

#: Those that end the process that they run in.
EXITING = ("exits", "exits-loudly", "exits-in-words", "interrupted", "exits-while-sending")


def _raised(error: BaseException) -> Response:
    raise error


async def _breaking(send: Any) -> None:
    await send("some\n" * MANY)
    raise RuntimeError("secret")


async def _breaking_at_once(send: Any) -> None:
    raise RuntimeError("secret")


async def _exiting(send: Any) -> None:
    await send("some\n" * MANY)
    raise SystemExit(0)


async def app(request: Request) -> Response:
    where = request.path_info.strip("/")
    if request.scheme == "titan":
        return await upload(request)
    if where.startswith("odd/"):
        answer: Response = ODD[where.removeprefix("odd/")]()
        return answer
    page = PAGES.get(where)
    if page is None:
        raise Reject(404, f"no page {where}")
    given: Response = await page(request)
    return given


async def front(request: Request) -> Response:
    page = Page()
    page.heading("Hello")
    page.text(f"{request.scheme}, {request.path}")
    page.link(f"{request.script_name}/name", "Your name")
    return page.response(request)


async def name(request: Request) -> Response:
    given = await request.input()
    if given is None:
        return Response.input("What is your name?")
    return Response(f"Hello, {given}!\n")


async def moved(request: Request) -> Response:
    return Response.redirect(request.script_name + "/there?x=1")


async def fails(request: Request) -> Response:
    raise RuntimeError("secret")


async def breaks(request: Request) -> Response:
    return Response(_breaking, content_type="text/gemini")


async def private(request: Request) -> Response:
    certificate = request.client_certificate
    if certificate is None:
        return Response.certificate_required("Who are you?")
    if certificate.fingerprint not in read("allowed").decode().split():
        return Response.certificate_refused("Not you")
    return Response(f"{certificate.fingerprint} {certificate.common_name} {request.remote_user}\n")


async def told(request: Request) -> Response:
    """What we were told of the request."""
    return Response.json(
        {
            "scheme": request.scheme,
            "method": request.method,
            "script_name": request.script_name,
            "path_info": request.path_info,
            "query": request.query_string,
            "input": await request.input(),
            "remote_addr": request.remote_addr,
            "server_name": request.server_name,
        }
    )


async def large(request: Request) -> Response:
    async def body(send: Any) -> None:
        piece = bytes(range(256)) * 64
        for begin in range(0, LARGE, len(piece)):
            await send(piece[: LARGE - begin])

    return Response(body, content_type="application/octet-stream")


async def stream(request: Request) -> Response:
    """Sends a line, and another when the gate is opened: a FIFO that is opened for writing."""

    async def body(send: Any) -> None:
        await send("one\n")
        await request.run_sync(_wait_at_the_gate)
        await send("two\n")

    return Response(body, content_type="text/gemini")


async def waits(request: Request) -> Response:
    """Answers when the gate has been opened twice."""
    await request.run_sync(_wait_at_the_gate)
    await request.run_sync(_wait_at_the_gate)
    return Response("here")


def _wait_at_the_gate() -> None:
    with open(FOLDER + "/gate", "rb") as gate:
        gate.read()


async def upload(request: Request) -> Response:
    certificate = request.client_certificate
    if certificate is None or certificate.fingerprint not in read("allowed").decode().split():
        return Response.certificate_refused("Not you")
    place = FOLDER + "/uploaded"
    if "TITAN_EDIT" in request.environ:
        return Response.file(place)
    if request.method == "DELETE":
        os.unlink(place)
        return Response("deleted\n")
    body = await request.body.read()
    token = request.environ.get("TITAN_TOKEN")
    write("uploaded", body)
    write("uploaded-how", f"{request.method} {request.content_type} {request.content_length} {token}".encode())
    return Response.redirect(request.script_name + "/uploaded")


async def uploaded(request: Request) -> Response:
    return Response(hashlib.sha256(read("uploaded")).hexdigest() + "\n")


def read(name: str) -> bytes:
    with open(f"{FOLDER}/{name}", "rb") as file:
        return file.read()


def write(name: str, data: bytes) -> None:
    with open(f"{FOLDER}/{name}", "wb") as file:
        file.write(data)


PAGES = {
    "": front,
    "name": name,
    "moved": moved,
    "fails": fails,
    "breaks": breaks,
    "private": private,
    "told": told,
    "told/a b": told,
    "large": large,
    "stream": stream,
    "uploaded": uploaded,
    "waits": waits,
}
