"""Several applications in one: each sees only its own part of the path, wherever the whole is mounted."""

from gateways import Reject, Request, Response, URLMap


async def home(request: Request) -> Response:
    if request.path_info not in ("", "/"):
        raise Reject(404)
    here = request.script_name
    return Response.html(f'<a href="{here}/blog/first">A post</a>, <a href="{here}/shop/cart">the cart</a>\n')


async def blog(request: Request) -> Response:
    return Response(f"post {request.path_info} of the blog at {request.script_name}\n")


async def cart(request: Request) -> Response:
    return Response(f"the cart of the shop, at {request.script_name}\n")


async def shop(request: Request) -> Response:
    return Response.redirect(f"{request.script_name}/cart")


app = URLMap(
    {
        "/blog": blog,
        "/shop": URLMap({"/cart": cart, "": shop}),
        "": home,
    }
)
