"""A guard, the page that it guards, and guards that cannot speak: the programs of the tests of authorizers.

The guard is served in process, and started by Apache on fd 0; the script is this text with a line below it that calls
``gateways.run``. So it keeps to itself: no import of other tests.
"""

from collections.abc import AsyncGenerator

import trio

from gateways import Reject, Request, Response, Roles

#: What nobody may see whom the guard has not let pass.
SECRET = "the treasure is under the old oak"
#: What the guard says to those whom it turns away.
NO = "You shall not pass."


async def guard(request: Request) -> Response:
    """Do what the query names; "pass" alone lets pass."""
    match request.environ["REQUEST_URI"].partition("?")[2]:
        case "pass":
            length = request.environ.get("CONTENT_LENGTH", "none")
            seen = f"{len(await request.body.read())} bytes, length {length}"
            return Response.authorize(REMOTE_USER="ali", Mixed_Case="kept", HTTP_COOKIE="ours=1", GUARD_SAW=seen)
        case "401":
            raise Reject(401, NO, headers={"WWW-Authenticate": 'Basic realm="guard"'})
        case "403":
            raise Reject(403, NO)
        case "302":
            return Response.redirect("http://gateways.test/login")
        case "302-local":
            return Response.redirect("/login")
        case "204":
            return Response(b"", 204)
        case "200":
            return Response("Welcome.\n")
        case "200-variable":
            return Response("", 200, {"Variable-REMOTE_USER": "ali"})
        case "200-local":
            return Response("", 200, {"Location": "/login"})
        case "None":
            return None  # type: ignore[return-value]
        case "True":
            return True  # type: ignore[return-value]
        case "crash":
            raise RuntimeError("the guard has fallen")
        case "crash-later":
            return Response(_broken())
        case "silence":
            await trio.sleep_forever()
        case _:
            raise Reject(404)


async def _broken() -> AsyncGenerator[bytes]:
    yield NO.encode() * 10_000  # more than is kept back
    raise RuntimeError("the guard has fallen while it spoke")


async def page(request: Request) -> Response:
    """The page, and what was handed on to it."""
    body = await request.body.read()
    return Response.json({"secret": SECRET, "environ": request.environ, "body": len(body)})


#: For nginx, which asks in the role of a responder, serve ``guard`` itself.
app = Roles(page, authorizer=guard)

#: A backend on fd 0 that gives everyone the same ``answer`` once it has seen ``end_of_params``, and hangs up.
MUTE = """
import socket
listener = socket.socket(fileno=0)
while True:
    connection, _ = listener.accept()
    received = b""
    while {end_of_params!r} not in received and (data := connection.recv(65536)):
        received += data
    connection.sendall({answer!r})
    connection.close()
"""
