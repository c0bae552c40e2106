"""A handler behind the ASGI servers that people use, and frameworks that people use behind this one."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from gateways.asgi import from_asgi
from gateways.testing import call, serving
from tests.asgi.tools import PATIENCE, Client, needs
from tests.interop.client import fetch
from tests.interop.servers import accepts, free_port

HOSTED = """
from contextlib import asynccontextmanager
from gateways import Request, Response, URLMap
from gateways.asgi import to_asgi

async def echo(request):
    return Response(b"you sent " + await request.body.read(), headers={"X-Url": request.url})

async def pieces(request):
    async def body(send):
        for number in range(3):
            await send(f"{number},")
    return Response(body)

async def fail(request):
    raise ZeroDivisionError

def plain(request):
    return Response.json({"started": started, "protocol": request.protocol, "path": request.path_info})

started = []

@asynccontextmanager
async def site():
    started.append("yes")
    yield URLMap({"/echo": echo, "/pieces": pieces, "/fail": fail, "": plain})

app = to_asgi(site)
"""

SERVERS = {
    "hypercorn-trio": ("hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:{port}", "hosted:app"),
    "hypercorn-asyncio": ("hypercorn", "--bind", "127.0.0.1:{port}", "hosted:app"),
    "uvicorn": ("uvicorn", "--port", "{port}", "hosted:app"),
}


@contextmanager
def server_of_others(name: str, folder: Path) -> Generator[int]:
    """Run a server in the foreground from a private folder."""
    module, *options = SERVERS[name]
    needs(module)
    (folder / "hosted.py").write_text(HOSTED)
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *[option.format(port=port) for option in options]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
            stdout=output,
            stderr=output,
        )
    try:
        while not accepts(port):
            assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_handler_runs_under(name: str, tmp_path: Path) -> None:
    with server_of_others(name, tmp_path) as port:
        answer = await fetch(port, "GET", "/a%20b?c=d")
        assert (answer.status, answer.body) == (200, b'{"started": ["yes"], "protocol": "http", "path": "/a b"}\n')
        answer = await fetch(port, "POST", "/echo/x?y=%20", body=b"z" * 200_000)
        assert (answer.status, answer.body) == (200, b"you sent " + b"z" * 200_000)
        assert (await fetch(port, "GET", "/pieces")).body == b"0,1,2,"
        assert (await fetch(port, "GET", "/fail")).status == 500
        answer = await fetch(port, "HEAD", "/echo")
        assert (answer.status, answer.body) == (200, b"")


# --- frameworks ------------------------------------------------------------------------------------------------------


def load(*modules: str) -> Any:
    """The names of some modules together. These need not be installed, and type checkers need not know them."""
    needs(modules[0].partition(".")[0])
    names: dict[str, Any] = {}
    for module in modules:
        names |= vars(importlib.import_module(module))
    return SimpleNamespace(**names)


@pytest.fixture
def starlette_app(tmp_path: Path) -> Any:
    names = load(
        "starlette.applications",
        "starlette.background",
        "starlette.middleware",
        "starlette.middleware.base",
        "starlette.responses",
        "starlette.routing",
    )
    done: list[str] = []
    (tmp_path / "file.txt").write_text("of a file")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[dict[str, str]]:
        yield {"shared": "of the lifespan"}

    async def show(request: Any) -> Any:
        body = (await request.body()).decode()
        return names.JSONResponse(
            {
                "url": str(request.url),
                "path": request.url.path,
                "route": request.path_params["name"],
                "root": request.scope["root_path"],
                "body": body,
                "shared": request.state.shared,
                "cookie": request.cookies.get("a"),
            }
        )

    async def stream(request: Any) -> Any:
        async def pieces() -> AsyncGenerator[str]:
            for number in range(3):
                yield f"{number},"

        return names.StreamingResponse(pieces(), background=names.BackgroundTask(done.append, "background"))

    async def file(request: Any) -> Any:
        return names.FileResponse(tmp_path / "file.txt")

    async def fail(request: Any) -> Any:
        raise ZeroDivisionError

    async def tasks(request: Any) -> Any:
        return names.PlainTextResponse(",".join(done))

    async def mark(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-middleware"] = "yes"
        return response

    routes = [
        names.Route("/show/{name:path}", show, methods=["GET", "POST"]),
        names.Route("/stream", stream),
        names.Route("/file", file),
        names.Route("/fail", fail),
        names.Route("/tasks", tasks),
    ]
    return names.Starlette(
        routes=[*routes, names.Mount("/mounted", routes=routes)],
        middleware=[names.Middleware(names.BaseHTTPMiddleware, dispatch=mark)],
        lifespan=lifespan,
    )


# Its middleware leaves a generator behind when a route fails; it is collected here, not in some other test.
@pytest.mark.filterwarnings("ignore:Async generator 'starlette:ResourceWarning")
@pytest.mark.parametrize("loop", ["trio", "asyncio"])
@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_starlette(starlette_app: Any, loop: Any, protocol: str) -> None:
    async with serving(from_asgi(starlette_app, loop=loop), protocol) as server:
        result = await server.request("POST", "/show/a%20b?c=d", body=b"body", cookies={"a": "1"})
        assert result.json() == {
            "url": "http://localhost/show/a b?c=d",  # made of the path, not of the raw path
            "path": "/show/a b",
            "route": "a b",
            "root": "",
            "body": "body",
            "shared": "of the lifespan",
            "cookie": "1",
        }
        assert result.headers["x-middleware"] == "yes"
        assert (await server.request("GET", "/stream")).text == "0,1,2,"
        assert (await server.request("GET", "/file")).text == "of a file"
        assert (await server.request("HEAD", "/file")).headers["content-length"] == "9"
        assert (await server.request("GET", "/mounted/show/x")).json()["root"] == "/mounted"
        assert (await server.request("GET", "/none")).status == 404
        assert server.errors == []
        result = await server.request("GET", "/fail")
        assert (result.status, result.text) == (500, "Internal Server Error")
    assert [type(error) for error in server.errors] == [ZeroDivisionError]
    server.errors.clear()
    gc.collect()


async def test_starlette_below_a_mount(starlette_app: Any) -> None:
    async with serving(from_asgi(starlette_app), "fastcgi", mount="/app") as server:
        result = (await server.request("GET", "/app/show/x")).json()
    assert (result["root"], result["route"], result["url"]) == ("/app", "x", "http://localhost/app/show/x")


async def test_starlette_does_its_background_work_after_the_answer(starlette_app: Any) -> None:
    async with serving(from_asgi(starlette_app), "fastcgi", "unix") as server:
        assert (await server.request("GET", "/stream")).text == "0,1,2,"
    assert (await call(from_asgi(starlette_app), "GET", "/tasks")).text == "background"


async def test_quart_on_trio() -> None:
    names = load("quart_trio", "quart")
    app = names.QuartTrio("app")
    go_on, left = trio.Event(), trio.Event()

    async def echo() -> Any:
        return await names.request.get_data()

    async def stream() -> Any:
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"first"
            try:
                await go_on.wait()
            except trio.Cancelled:
                left.set()
                raise
            yield b"last"

        return pieces()

    app.post("/echo")(echo)
    app.get("/stream")(stream)
    async with serving(from_asgi(app), "fastcgi", "unix") as server:
        assert (await server.request("POST", "/echo", body=b"x" * 100_000)).body == b"x" * 100_000
        client = await (await Client(server).ask("GET", "/stream")).until(body=b"first")
        await client.leave()
        with trio.fail_after(PATIENCE):
            await left.wait()
        client = await (await Client(server).ask("GET", "/stream")).until(body=b"first")
        go_on.set()
        await client.until(body=b"firstlast")


async def test_quart_on_asyncio() -> None:
    names = load("quart")
    app = names.Quart("app")

    async def echo() -> Any:
        return await names.request.get_data()

    app.post("/echo")(echo)
    assert (await call(from_asgi(app, loop="asyncio"), "POST", "/echo", body=b"body")).body == b"body"


async def test_django_on_asyncio() -> None:
    needs("django")
    program = textwrap.dedent(
        """
        import django, trio
        from django.conf import settings
        from django.http import HttpResponse, StreamingHttpResponse
        from django.urls import path
        from gateways.asgi import from_asgi
        from gateways.testing import call, serving

        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")

        async def show(request):
            return HttpResponse(f"{request.path} {request.GET['a']} {request.META['SCRIPT_NAME']} {request.body!r}")

        def plain(request):
            return HttpResponse("plain")

        async def stream(request):
            async def pieces():
                for number in range(3):
                    yield f"{number},"
            return StreamingHttpResponse(pieces())

        urlpatterns = [path("show", show), path("plain", plain), path("stream", stream)]
        from django.core.asgi import get_asgi_application
        application = get_asgi_application()

        async def main():
            async with serving(from_asgi(application, loop="asyncio"), mount="/app") as server:
                assert (await server.request("GET", "/app/none")).status == 404
                assert (await server.request("GET", "/app/show?a=1")).text == "/app/show 1 /app b''"
                assert (await server.request("GET", "/app/plain")).text == "plain"
                assert (await server.request("GET", "/app/stream")).text == "0,1,2,"

        trio.run(main)
        print("ok")
        """
    )
    done = await trio.run_process(
        [sys.executable, "-c", program],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, b"ok\n"), done.stderr.decode()
