"""Server-sent events: a page with a clock that ticks until its reader leaves. See them raw: curl -N URL/events"""

from collections.abc import Awaitable, Callable

import trio

from gateways import Request, Response, URLMap

PAGE = """<!doctype html>
<title>Clock</title>
<p>You have been here for <b id="seconds">0</b> seconds.</p>
<script>
  new EventSource("EVENTS").onmessage = event => document.getElementById("seconds").textContent = event.data
</script>
"""


async def page(request: Request) -> Response:
    return Response.html(PAGE.replace("EVENTS", f"{request.script_name}/events"))


async def events(request: Request) -> Response:
    async def ticks(send: Callable[[str], Awaitable[None]]) -> None:
        started = trio.current_time()
        try:
            while True:
                await send(f"data: {trio.current_time() - started:.0f}\n\n")
                await trio.sleep(1)
        finally:
            request.log("the reader has left")

    # nginx would collect an answer before it passes it on.
    return Response(ticks, headers={"X-Accel-Buffering": "no"}, content_type="text/event-stream")


app = URLMap({"/events": events, "": page})
