"""The one handler file: whatever carries a request, this answers, and tells what it saw.

It is served in process, started by a web server on fd 0, run as a CGI script and shown by ``gateways dev``; a script
is this text with a line below it that calls ``gateways.run(app)``. So it keeps to itself: no import of other tests.
trio is imported by those answers alone that wait, as a CGI script should.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

import gateways
from gateways import Reject, Request, Response

Send = Callable[[str | bytes], Awaitable[None]]

#: 10 MiB in which no two neighbouring blocks of 4 KiB are equal, so that no mix-up passes unnoticed.
BIG = b"".join(bytes([number % 251]) * 4096 for number in range(2560))
#: Where an answer to HEAD says what the handler saw: such an answer has no body.
SEEN = "X-Seen"


async def probe(request: Request) -> Response:
    """Tell everything that was seen of the request."""
    length, digest = 0, hashlib.sha256()
    async for chunk in request.body:
        length += len(chunk)
        digest.update(chunk)
    seen = {
        "environ": request.environ,
        "path": request.path,
        "raw_path": request.raw_path,
        "script_name": request.script_name,
        "path_info": request.path_info,
        "body": f"{length} bytes {digest.hexdigest()[:16]}",
    }
    response = Response.json(seen)
    if request.method == "HEAD":
        response = response.with_header(SEEN, json.dumps(seen))
    return response


async def big(request: Request) -> Response:
    return Response(BIG)


async def push(request: Request) -> Response:
    async def body(send: Send) -> None:
        for number in range(100):
            await send(f"{number}\n")

    return Response(body, content_type="text/plain")


async def numbers(request: Request) -> Response:
    async def body() -> AsyncGenerator[bytes]:
        for number in range(100):
            yield b"%d\n" % number

    return Response(body())


async def stream(request: Request) -> Response:
    """A first piece, and a second one when the client says that it has seen the first (see ``Gate``)."""
    gate = int(request.query["gate"])
    import trio

    async def body(send: Send) -> None:
        await send("first\n")
        async with await trio.open_tcp_stream("127.0.0.1", gate) as client:
            await client.receive_some()
        await send("second\n")

    headers = [("X-Accel-Buffering", "no")] if "unbuffered" in request.query else []
    return Response(body, headers=headers, content_type="text/plain")


async def file(request: Request) -> Response:
    return Response.file(gateways.__file__, content_type="text/plain")


async def redirect(request: Request) -> Response:
    return Response.redirect(f"{request.script_name}/elsewhere?a=%C3%A9")


async def moved(request: Request) -> Response:
    return Response.redirect("http://elsewhere.test/", permanent=True)


async def cookies(request: Request) -> Response:
    return Response("two\n").set_cookie("a", "1").set_cookie("b", "2", path="/x", max_age=60)


async def headers(request: Request) -> Response:
    fields = [
        ("X-Repeat", "one"),
        ("X-Repeat", "two, three"),
        ("X-Text", "Grüße, 世界"),
        ("X-Bytes", b"caf\xe9".decode("utf-8", "surrogateescape")),
        ("X-Long", "x" * 2000),
        ("ETag", '"one"'),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Cache-Control", "no-store"),
        ("Vary", "Cookie"),
    ]
    return Response.html("<p>Grüße</p>\n", headers=fields)


async def long_head(request: Request) -> Response:
    return Response("long\n", headers=[(f"X-{number}", "x" * 1000) for number in range(6)])


async def no_content(request: Request) -> Response:
    return Response("", 204)


async def not_modified(request: Request) -> Response:
    return Response("", 304, [("ETag", '"one"')])


async def empty(request: Request) -> Response:
    return Response("")


async def odd_status(request: Request) -> Response:
    return Response("short and stout\n", 418)


async def reject(request: Request) -> Response:
    raise Reject(404, "nothing here", headers=[("X-Why", "because")])


async def forbid(request: Request) -> Response:
    raise Reject(401, headers=[("WWW-Authenticate", 'Basic realm="gateways"')])


async def boom(request: Request) -> Response:
    raise RuntimeError("a bug before the first byte")


async def late(request: Request) -> Response:
    """Break after the first piece has certainly left for the web server."""
    import trio

    async def body(send: Send) -> None:
        await send("first\n")
        await trio.sleep(0.05)
        raise RuntimeError("a bug after the first byte")

    return Response(body, content_type="text/plain")


async def late_length(request: Request) -> Response:
    """The same, with a length announced."""
    response = await late(request)
    return response.with_header("Content-Length", "1000")


PAGES = {
    f"/{page.__name__}": page
    for page in (
        big,
        boom,
        cookies,
        empty,
        file,
        forbid,
        headers,
        late,
        late_length,
        long_head,
        moved,
        no_content,
        not_modified,
        numbers,
        odd_status,
        push,
        redirect,
        reject,
        stream,
    )
}


async def app(request: Request) -> Response:
    return await PAGES.get(request.path_info, probe)(request)
