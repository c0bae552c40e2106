from gateways import Reject, Request, Response, Roles, URLMap
from hello import app as hello


async def where(request: Request) -> Response:
    return Response(f"mounted at {request.script_name!r}, asked for {request.path_info!r}\n")


async def guard(request: Request) -> Response:
    if request.headers.get("authorization") != "Bearer sesame":
        raise Reject(401, "Say the word.", headers={"WWW-Authenticate": "Bearer"})
    return Response.authorize(REMOTE_USER="ali")


pages = URLMap({"/where": where, "/private/where": where, "/guard": guard, "": hello})
app = Roles(pages, authorizer=guard)
