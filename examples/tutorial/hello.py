from gateways import Request, Response


async def app(request: Request) -> Response:
    name = request.query.get("name") or "world"
    return Response(f"Hello, {name}! You asked for {request.path}, and {request.protocol} carried it.\n")
