from gateways import Request, Response
from gateways.gemtext import Page


async def app(request: Request) -> Response:
    name = await request.input()
    if name is None:
        return Response.input("What is your name?")
    page = Page()
    page.heading(f"Hello, {name}!")
    page.link("/", "Again")
    return page.response(request)
