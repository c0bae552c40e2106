"""What is taken for a native, a WSGI and an ASGI application, and that each is then served as one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any
from wsgiref.simple_server import demo_app
from wsgiref.validate import validator

import pytest

import gateways
from gateways import Request, Response, Roles, URLMap
from gateways.asgi import from_asgi, to_asgi
from gateways.cli.interface import adapted, detect, made
from gateways.cli.loading import LoadError
from gateways.wsgi import from_wsgi, to_wsgi
from tests.cli.program import Program, ask, command, environment, get, run, serving

# --- callables of every kind


async def handler(request: Request) -> Response:
    return Response("native")


def plain_handler(request: Request) -> Response:
    return Response("native")


async def handler_with_an_option(request: Request, verbose: bool = False) -> Response:
    return Response("native")


async def handler_for_tests_too(request: Any = None) -> Response:
    return Response("native")


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def wsgi_by_other_names(env: Any, respond: Any, /) -> Generator[bytes, None, None]:
    yield b""


def wsgi_with_an_option(environ: Any, start_response: Any, more: Any = None) -> list[bytes]:
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def asgi_that_passes_on(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    return asgi(scope, receive, send)


async def asgi_that_may_be_called_otherwise(scope: Any, receive: Any = None, send: Any = None) -> None: ...


@asynccontextmanager
async def starts_up() -> AsyncGenerator[Any, None]:
    yield handler


class Manager:
    async def __aenter__(self) -> Any:
        return handler

    async def __aexit__(self, *error: object) -> None: ...


class Site:
    """As Flask, Bottle and Django's WSGIHandler are made."""

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return self.wsgi_app(environ, start_response)

    def wsgi_app(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class AsyncSite:
    """As Starlette, FastAPI and Django's ASGIHandler are made."""

    def __init__(self, debug: bool = False, routes: Any = None) -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def handle(self, request: Request) -> Response:
        return Response("native")


class CallChosenLate:
    """As Sentry's middleware is made."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = asgi


class IterableAnswer:
    """An application as a class, as PEP 3333 has it."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


class AwaitableAnswer:
    """As Starlette's HTTPEndpoint is made."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Generator[Any, None, None]:
        yield


class Page(Response):
    def __init__(self, request: Request) -> None:
        super().__init__(request.path)


class Settings:
    def __init__(self, name: str, colour: str) -> None: ...


class Double:
    """ASGI 2."""

    def __init__(self, place: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class NamedDouble:
    def __init__(self, scope: Any) -> None: ...


class DoubleSite:
    def __call__(self, scope: Any) -> Any: ...


def double(scope: Any) -> Any: ...


def decorated(application: Callable[..., Any]) -> Any:
    @wraps(application)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return application(*args, **kwargs)

    return wrapper


def decorated_async(application: Callable[..., Any]) -> Any:
    @wraps(application)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await application(*args, **kwargs)

    return wrapper


def requested(function: Callable[[Request], Any]) -> Any:
    """A decorator that changes what is called how."""

    @wraps(function)
    def wsgi(environ: Any, start_response: Any) -> Any: ...

    return wsgi


def hidden(application: Callable[..., Any]) -> Any:
    """A decorator that does not say what it wraps."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return application(*args, **kwargs)

    return wrapper


def configured(setting: str, *rest: Any) -> None: ...


def unsigned(request: Any) -> None: ...


unsigned.__signature__ = "not a signature"  # type: ignore[attr-defined]  # as with much that is written in C


def late_defaults(first: Any = None, second: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("application", "interface"),
    [
        (handler, "native"),
        (plain_handler, "native"),
        (handler_with_an_option, "native"),
        (handler_for_tests_too, "native"),
        (Roles(handler), "native"),
        (URLMap({"": handler}), "native"),
        (AsyncSite().handle, "native"),
        (Page, "native"),
        (starts_up, "native"),
        (starts_up(), "native"),
        (Manager(), "native"),
        (gateways.cgi.script("/bin/true"), "native"),
        (gateways.forward("fastcgi:unix:/nowhere"), "native"),
        (from_wsgi(demo_app), "native"),
        (from_asgi(asgi), "native"),
        (wsgi, "wsgi"),
        (wsgi_by_other_names, "wsgi"),
        (wsgi_with_an_option, "wsgi"),
        (demo_app, "wsgi"),
        (validator(demo_app), "wsgi"),
        (Site(), "wsgi"),
        (Site().wsgi_app, "wsgi"),
        (IterableAnswer, "wsgi"),
        (to_wsgi(handler), "wsgi"),
        (asgi, "asgi"),
        (asgi_that_passes_on, "asgi"),
        (asgi_that_may_be_called_otherwise, "asgi"),
        (AsyncSite(), "asgi"),
        (AwaitableAnswer, "asgi"),
        (CallChosenLate(), "asgi"),
        (to_asgi(handler), "asgi"),
        (partial(handler), "native"),
        (partial(wsgi_with_an_option, more=5), "wsgi"),
        (partial(AsyncSite()), "asgi"),
        (decorated(handler), "native"),
        (decorated_async(handler), "native"),
        (decorated(wsgi), "wsgi"),
        (decorated(asgi), "asgi"),
        (decorated_async(asgi), "asgi"),
        (decorated(decorated(Site().wsgi_app)), "wsgi"),
        (requested(plain_handler), "wsgi"),
        (len, "native"),
    ],
)
def test_interface_is_told_by_how_a_call_is_made(application: object, interface: str) -> None:
    assert detect(application, "APP") == interface
    assert adapted(application, "APP")[1] == interface


@pytest.mark.parametrize("module", ["werkzeug.wrappers.request", "webob.dec"])
def test_wrappers_that_look_like_handlers_are_known_by_their_module(module: str) -> None:
    # werkzeug's Request.application and WebOb's wsgify.
    made_there: dict[str, Any] = {"__name__": module, "handler": plain_handler, "wraps": wraps}
    exec(
        "@wraps(handler)\ndef function(*args): ...\nclass Object:\n    def __call__(self, req, *args): ...", made_there
    )
    assert detect(made_there["function"], "APP") == "wsgi"
    assert detect(made_there["Object"](), "APP") == "wsgi"


GUARANTEE = "ASGI 3 of it with asgiref.compatibility.guarantee_single_callable"


async def lacks_the_decorator() -> AsyncGenerator[Any, None]:
    yield handler


async def two(a: Any, b: Any) -> None: ...


async def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


def none() -> None: ...


def only_by_keyword(*, request: Any) -> None: ...


def create_app(settings: Any = None) -> Any: ...


@pytest.mark.parametrize(
    ("application", "said"),
    [
        (5, "APP is of type int and cannot be called"),
        ("app", "APP is of type str and cannot be called"),
        (Double, GUARANTEE),
        (NamedDouble, GUARANTEE),
        (DoubleSite(), GUARANTEE),
        (double, GUARANTEE),
        (decorated(double), GUARANTEE),
        (Site, "APP is a class and no application by itself"),
        (AsyncSite, "APP is a class and no application by itself"),
        (Settings, "APP is a class and no application by itself"),
        (none, "APP takes no arguments; if it makes the application, say --factory"),
        (partial(starts_up), "APP takes no arguments; if it makes the application, say --factory"),
        (create_app, "APP(settings: 'Any' = None) -> 'Any' needs no arguments; if it makes the application"),
        (late_defaults, "needs no arguments; if it makes the application, say --factory"),
        (lacks_the_decorator, "takes @asynccontextmanager"),
        (two, "APP(a, b) is an async callable, but not as a handler, WSGI or ASGI has it; say which it is with"),
        (four, "--interface native, wsgi or asgi"),
        (only_by_keyword, "APP(*, request: 'Any') -> 'None' is a callable, but not as"),
        (hidden(handler), "APP(*args: 'Any', **kwargs: 'Any') -> 'Any' could be native or wsgi or asgi; say which"),
        (configured, "could be native or wsgi or asgi; say which it is with --interface native, wsgi or asgi"),
        (print, "could be native or wsgi or asgi"),
        (unsigned, "APP could be native or wsgi or asgi"),
    ],
)
def test_what_cannot_be_told_is_refused(application: object, said: str) -> None:
    with pytest.raises(LoadError) as raised:
        adapted(application, "APP")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("application", "interface"),
    [
        (hidden(handler), "native"),
        (hidden(wsgi), "wsgi"),
        (hidden(asgi), "asgi"),
        (Manager(), "native"),
        (Settings, "native"),
        (double, "native"),
    ],
)
def test_what_is_said_counts(application: object, interface: str) -> None:
    assert adapted(application, "APP", interface=interface)[1] == interface


@pytest.mark.parametrize(
    ("application", "interface", "said"),
    [
        (5, "native", "cannot be called"),
        (Manager(), "wsgi", "cannot be called"),
        (Manager(), "asgi", "cannot be called"),
        (double, "asgi", GUARANTEE),
        (Double, "asgi", GUARANTEE),
    ],
)
def test_what_cannot_be_so_is_refused_all_the_same(application: object, interface: str, said: str) -> None:
    with pytest.raises(LoadError) as raised:
        adapted(application, "APP", interface=interface)
    assert said in str(raised.value)


def test_the_usual_kinds_are_told_without_inspect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect", None)
    usual = [handler, plain_handler, starts_up, Roles(handler), wsgi, Site(), asgi, AsyncSite()]
    found = [detect(application, "APP") for application in usual]
    assert found == ["native"] * 4 + ["wsgi"] * 2 + ["asgi"] * 2
    with pytest.raises(ImportError):
        detect(decorated(handler), "APP")


async def async_factory() -> Any: ...


def test_a_factory_is_called_without_arguments() -> None:
    assert isinstance(made(Site, "APP"), Site)
    assert made(create_app, "APP") is None
    assert isinstance(made(partial(starts_up), "APP"), AbstractAsyncContextManager)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (wsgi, "APP(environ, start_response) takes arguments; without --factory it may be the application itself"),
        (async_factory, "APP is async, and no --factory"),
        (5, "APP is of type int and cannot be called"),
    ],
)
def test_what_is_no_factory_is_refused(factory: object, said: str) -> None:
    with pytest.raises(LoadError) as raised:
        made(factory, "APP")
    assert said in str(raised.value)


# --- the command line

WSGI = """\
import threading

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    here = "inline" if threading.current_thread() is threading.main_thread() else "a thread"
    threads = environ["wsgi.multithread"]
    return [f"WSGI {environ['SCRIPT_NAME']}|{environ['PATH_INFO']} in {here} {threads}\\n".encode()]

def create_app(config=None):
    return application
"""

ASGI = """\
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        message = await receive()
        scope["state"]["started"] = message["type"]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    text = f"ASGI {scope['root_path']}|{scope['path']} after {scope['state']['started']}\\n"
    await send({"type": "http.response.body", "body": text.encode()})
"""

OTHERS = {
    "double.py": "def app(scope): ...",
    "hidden.py": "def app(*args): ...",
    "making.py": "def create_app(): return 5\ndef app(): raise LookupError('no settings')",
    "refusing.py": "async def app(scope, receive, send):\n    await receive()\n"
    "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n",
    "flask_like.py": "class Flask:\n    def __call__(self, environ, start_response): ...\n"
    "Flask.__module__ = 'flask.app'\nsite = Flask()\ndef index(): ...\n",
    "handler.py": "from gateways import Response\nasync def app(request):\n    return Response('handled')\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old.py").write_text(WSGI)
    (tmp_path / "new.py").write_text(ASGI)
    for name, text in OTHERS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


def asked(address: str, path: str = "/x") -> str:
    answer = ask(address, path)
    assert answer is not None
    assert answer.status == 200
    return answer.body


@pytest.mark.parametrize(
    ("words", "title", "body"),
    [
        (["old.py"], "old.py (WSGI)", "WSGI /app|/x in a thread True\n"),
        (["old"], "old (WSGI)", "WSGI /app|/x in a thread True\n"),
        (["old.py", "--threads", "1"], "old.py (WSGI)", "WSGI /app|/x in inline False\n"),
        (["old.py:create_app", "--factory"], "old.py:create_app() (WSGI)", "WSGI /app|/x in a thread True\n"),
        (["old.py", "--interface", "wsgi"], "old.py (WSGI)", "WSGI /app|/x in a thread True\n"),
        (["new.py"], "new.py (ASGI)", "ASGI /app|/app/x after lifespan.startup\n"),
        (["new", "--interface=asgi"], "new (ASGI)", "ASGI /app|/app/x after lifespan.startup\n"),
        (["handler", "--interface=native"], "handler", "handled"),
    ],
)
def test_applications_of_every_kind_are_served(
    folder: Path, address: str, words: list[str], title: str, body: str
) -> None:
    scgi = f"scgi:unix:{folder}/scgi.sock"
    with serving(*words, "--mount=/app", "--bind", address, "--bind", scgi, cwd=folder) as program:
        assert program.text.splitlines()[0] == f"gateways {gateways.__version__} serving {title}"
        assert [asked(address, "/app/x"), asked(scgi, "/app/x")] == [body, body]


def test_variables_stand_for_these_flags_too(folder: Path, address: str) -> None:
    variables = {"GATEWAYS_FACTORY": "1", "GATEWAYS_THREADS": "1", "GATEWAYS_INTERFACE": "wsgi"}
    with serving("old:create_app", "--bind", address, cwd=folder, env=environment(variables)):
        assert asked(address) == "WSGI |/x in inline False\n"


def test_a_body_longer_than_may_be_spooled_is_refused_without_threads(folder: Path, address: str) -> None:
    with serving("old.py", "--threads=1", "--limit-spool=3", "--bind", address, cwd=folder):
        answers = [ask(address, CONTENT_LENGTH=length) for length in ("0", "4")]
    assert [answer and answer.status for answer in answers] == [200, 413]


def test_modules_are_looked_for_in_app_dir_first(folder: Path, address: str) -> None:
    (folder / "elsewhere" / "src").mkdir(parents=True)
    (folder / "elsewhere" / "src" / "old.py").write_text(WSGI.replace("WSGI", "another"))
    with serving("old", "--app-dir", "elsewhere/src", "--bind", address, cwd=folder):
        assert asked(address) == "another |/x in a thread True\n"


def test_under_cgi_it_runs_without_a_thread(folder: Path) -> None:
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "PATH_INFO": "/x", "SCRIPT_NAME": "/cgi"}
    done = run("serve", "--factory", "old.py:create_app", "--threads=9", cwd=folder, environ=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("WSGI /cgi|/x in inline False\n")
    done = run("serve", "new.py", cwd=folder, environ=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("ASGI /cgi|/cgi/x after lifespan.startup\n")


@pytest.mark.parametrize("way", [None, "fastcgi", "cgi"])
def test_a_developer_sees_it_too(folder: Path, way: str | None) -> None:
    (folder / "src").mkdir()
    (folder / "old.py").rename(folder / "src" / "old.py")
    words = command("dev", "old:create_app", "--factory", "--app-dir=src", "--threads=1", "--port=0")
    with Program(words + ([f"--via={way}"] if way else []), cwd=folder) as program:
        [where] = program.wait_for(r"^  http://([^/]+)/")
        assert " showing old:create_app() (WSGI); " in program.text
        assert get(where, "/x").body == "WSGI |/x in inline False\n"


def test_a_change_below_app_dir_is_seen(folder: Path) -> None:
    pytest.importorskip("watchfiles")
    (folder / "src").mkdir()
    (folder / "old.py").rename(folder / "src" / "old.py")
    words = command("dev", "old:create_app", "--factory", "--app-dir=src", "--reload", "--port=0")
    with Program(words, cwd=folder) as program:
        program.wait_for("^stop with Ctrl-C$")
        (folder / "src" / "old.py").write_text(
            ASGI.replace("async def app", "def create_app():\n  return app\nasync def app")
        )
        program.wait_for(r"^stop with Ctrl-C$", times=2)
        where = program.wait_for(r"^  http://([^/]+)/")[-1]
        assert get(where, "/x").body == "ASGI |/x after lifespan.startup\n"


@pytest.mark.parametrize(
    ("words", "title"),
    [(["old.py:create_app", "--factory", "--threads=1"], "old.py:create_app() (WSGI)"), (["new"], "new (ASGI)")],
)
def test_check_asks_it_over_every_protocol(folder: Path, words: list[str], title: str) -> None:
    done = run("check", *words, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{title} over http, fastcgi, scgi, cgi"
    assert lines[-1] == "all 7 answers are the same"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["double.py"], 4, "gateways: double.py has the interface of ASGI 2"),
        (
            ["hidden.py"],
            4,
            "gateways: hidden.py(*args) could be native or wsgi or asgi; say which it is with --interface",
        ),
        (["old.py:create_app"], 4, "if it makes the application, say --factory"),
        (["old.py", "--factory"], 4, "gateways: old.py(environ, start_response) takes arguments"),
        (["making.py:create_app", "--factory"], 4, "gateways: making.py:create_app() is of type int"),
        (["making.py", "--factory"], 4, "LookupError: no settings"),
        (["flask_like.py"], 4, "has no 'app' and no 'application'; it has site: write flask_like.py:site"),
        (
            ["absent", "--app-dir=cgi-bin"],
            4,
            "gateways: there is no module 'absent' in {folder}/cgi-bin or on the path",
        ),
        (["old.py", "--interface", "flask"], 2, "invalid choice: 'flask'"),
        (["old.py", "--threads", "0"], 2, "not a whole number above 0: '0'"),
        (["old.py", "--threads", "-1"], 2, "--threads"),
        (["new.py", "--threads", "5"], 2, "--threads is for WSGI applications, and new.py is asgi"),
        (["old.py", "--app-dir", "nowhere"], 2, "argument --app-dir: there is no folder {folder}/nowhere"),
        (["cgi-bin", "--factory"], 2, "cgi-bin is a folder of CGI programs"),
        (["cgi-bin", "--interface=wsgi"], 2, "cgi-bin is a folder of CGI programs"),
        (["refusing.py"], 3, "no database"),
    ],
)
def test_what_goes_wrong_is_said_and_told_by_the_status(
    folder: Path, address: str, words: list[str], status: int, said: str
) -> None:
    (folder / "cgi-bin").mkdir()
    done = run("serve", *words, "--bind", address, cwd=folder)
    assert (done.returncode, said.format(folder=folder) in done.stderr) == (status, True), done.stderr


@pytest.mark.parametrize("verb", ["dev", "check"])
def test_other_verbs_refuse_the_same(folder: Path, verb: str) -> None:
    unclear, pointless = run(verb, "hidden.py", cwd=folder), run(verb, "new.py", "--threads=5", cwd=folder)
    assert (unclear.returncode, pointless.returncode) == (4, 2)
    assert "say which it is with --interface" in unclear.stderr
    assert "--threads is for WSGI applications" in pointless.stderr


def test_help_tells_the_default_number_of_threads(tmp_path: Path) -> None:
    default = inspect.signature(from_wsgi).parameters["threads"].default
    assert f"(default {default})" in " ".join(run("serve", "--help", cwd=tmp_path).stdout.split())
