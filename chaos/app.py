"""What is served while things go wrong: an answer that takes 60 ms and says what was sent."""

import trio

from gateways import Request, Response

#: Seconds that each request takes.
PAUSE = 0.06


async def app(request: Request) -> Response:
    """The body of the request, and its query, after a while."""
    body = await request.body.read()
    await trio.sleep(PAUSE)
    return Response(request.query_string.encode() + b" " + body)
