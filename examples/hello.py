"""A greeting that says how the request came: the same file serves every protocol. /?name=you greets you."""

from gateways import Request, Response


async def app(request: Request) -> Response:
    name = request.query.get("name") or "world"
    return Response(
        f"Hello, {name}!\n\n"
        f"{request.protocol} carried your request for {request.path} here, and this answer back to you.\n"
    )
