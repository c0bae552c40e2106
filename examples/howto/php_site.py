"""PHP behind some of the paths of a handler: every request below /forum runs one program."""

from typing import Any

from gateways import Request, Response, URLMap, forward

fpm: Any = forward("fastcgi:unix:/run/php/php8.2-fpm.sock")


async def forum(request: Request) -> Response:
    # PHP runs the file that SCRIPT_FILENAME names. Name it here, where no request can choose it.
    named = {"SCRIPT_FILENAME": "/srv/www/forum.php", "DOCUMENT_ROOT": "/srv/www"}
    response: Response = await fpm(Request({**request.environ, **named}, request.body))
    return response


async def hello(request: Request) -> Response:
    return Response(f"Hello, {request.remote_addr}!\n")


app = URLMap({"/forum": forum, "": hello})
