from collections.abc import AsyncIterator
from itertools import count

import trio

from gateways import Request, Response


async def app(request: Request) -> Response:
    async def ticks() -> AsyncIterator[str]:
        try:
            for number in count():
                yield f"{number}\n"
                await trio.sleep(1)
        finally:
            request.log("the reader has left")

    return Response(ticks(), headers={"X-Accel-Buffering": "no"})
