"""Handlers under WSGI servers: to_wsgi, with and without an event loop."""

from __future__ import annotations

import http.client
import io
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import attrs
import pytest
import trio

from gateways import Application, IncompleteBody, Limits, Reject, Request, Response, Roles, URLMap
from gateways.testing import serving
from gateways.wsgi import ToWSGI, from_wsgi, to_wsgi
from tests.wsgi.behaviours import BEHAVIOURS, BIG
from tests.wsgi.tools import PATIENCE, ROOT, handler_of

both = pytest.mark.parametrize("use_trio", [False, True], ids=["no event loop", "trio"])


@attrs.define
class Answer:
    """What a WSGI server is given."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    errors: str

    def field(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def environ_of(method: str = "GET", path: str = "/", body: bytes | None = None, **variables: Any) -> dict[str, Any]:
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body is not None:
        environ["CONTENT_LENGTH"] = str(len(body))
    return {**environ, **variables}


def ask(application: Any, method: str = "GET", path: str = "/", body: bytes | None = None, **variables: Any) -> Answer:
    """Be a WSGI server for one request."""
    environ = environ_of(method, path, body, **variables)
    errors = environ["wsgi.errors"]
    begun: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        begun.append((status, headers))
        return None

    pieces: Any = application(environ, start_response)
    try:
        received = b"".join(pieces)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    [(status, headers)] = begun
    return Answer(status, headers, received, errors.getvalue())


@pytest.fixture
def wsgi() -> Iterator[Any]:
    """to_wsgi, whose event loops end with the test."""
    made: list[ToWSGI] = []

    def make(app: Application, use_trio: bool, **options: Any) -> ToWSGI:
        made.append(to_wsgi(app, trio=use_trio, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def echo(request: Request) -> Response:
    async def body(send: Any) -> None:
        async for chunk in request.body:
            await send(chunk)

    return Response(body, content_type=request.content_type)


@both
def test_a_page(use_trio: bool, wsgi: Any) -> None:
    async def hello(request: Request) -> Response:
        return Response(f"Hello, {request.query['name']}!", 201, [("X-One", "1")])

    answer = ask(validator(wsgi(hello, use_trio)), path="/?name=dan")
    assert (answer.status, answer.body) == ("201 Created", b"Hello, dan!")
    assert answer.headers == [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-One", "1"),
        ("Content-Length", "11"),
    ]


@both
def test_paths_and_fields_keep_their_bytes(use_trio: bool, wsgi: Any) -> None:
    async def show(request: Request) -> Response:
        return Response(request.path + request.headers["x-text"], headers={"X-Text": "schön"})

    application = validator(wsgi(show, use_trio))
    answer = ask(application, path="/é", SCRIPT_NAME="/app", HTTP_X_TEXT="sch\xc3\xb6n \xff")
    assert answer.body == "/app/éschön ".encode() + b"\xff"
    assert answer.field("X-Text") == "sch\xc3\xb6n"


@both
@pytest.mark.parametrize("body", [b"", b"hello", BIG * 4], ids=["empty", "small", "big"])
def test_bodies_stream(body: bytes, use_trio: bool, wsgi: Any) -> None:
    answer = ask(validator(wsgi(echo, use_trio)), "POST", body=body, CONTENT_TYPE="text/x-poem")
    assert (answer.status, answer.field("Content-Type"), answer.body) == ("200 OK", "text/x-poem", body)


@both
def test_a_body_goes_no_further_than_its_length(use_trio: bool, wsgi: Any) -> None:
    application = wsgi(echo, use_trio)
    assert ask(application, "POST", body=b"hello", CONTENT_LENGTH="4").body == b"hell"
    assert ask(application, "POST", body=b"hello", CONTENT_LENGTH="").body == b""
    unknown: dict[str, Any] = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert ask(application, "POST", body=b"hello", **unknown).body == b"hello"


@both
def test_a_body_that_ends_early_raises(use_trio: bool, wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        with pytest.raises(IncompleteBody):
            await request.body.read()
        return Response("caught")

    async def careless(request: Request) -> Response:
        return Response(await request.body.read())

    assert ask(wsgi(app, use_trio), "POST", body=b"short", CONTENT_LENGTH="9").body == b"caught"
    assert ask(wsgi(careless, use_trio), "POST", body=b"short", CONTENT_LENGTH="9").status == "400 Bad Request"


@both
def test_a_body_has_a_limit_where_it_is_read_whole(use_trio: bool, wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        return Response(await request.body.read())

    assert ask(wsgi(app, use_trio, limits=Limits(max_read=4)), "POST", body=b"hello").status.startswith("413 ")


@both
def test_a_plain_function_is_a_handler_and_reads_the_body_as_a_file(use_trio: bool, wsgi: Any) -> None:
    def app(request: Request) -> Response:
        return Response(b"|".join(request.body.file))

    assert ask(wsgi(app, use_trio), "POST", body=b"one\ntwo\n").body == b"one\n|two\n"


@both
def test_a_plain_iterable_is_closed(use_trio: bool, wsgi: Any) -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    async def app(request: Request) -> Response:
        return Response(pieces())

    assert ask(validator(wsgi(app, use_trio))).body == b"onetwo"
    assert closed == [True]


@both
def test_errors_before_the_answer_are_answers(use_trio: bool, wsgi: Any) -> None:
    async def reject(request: Request) -> Response:
        raise Reject(403, "not you", [("X-Why", "because")])

    async def fail(request: Request) -> Response:
        raise KeyError("of the handler")

    answer = ask(validator(wsgi(reject, use_trio)))
    assert (answer.status, answer.body, answer.field("X-Why")) == ("403 Forbidden", b"not you\n", "because")
    answer = ask(validator(wsgi(fail, use_trio)))
    assert (answer.status, answer.body) == ("500 Internal Server Error", b"Internal Server Error\n")
    assert "KeyError: 'of the handler'" in answer.errors


@both
def test_a_request_that_breaks_the_laws_is_refused(use_trio: bool, wsgi: Any) -> None:
    answer = ask(wsgi(echo, use_trio), "POST", CONTENT_LENGTH="+3")
    assert answer.status == "400 Bad Request"
    assert "CONTENT_LENGTH" in answer.errors


@both
def test_an_error_after_the_first_piece_is_raised_to_the_server(use_trio: bool, wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("first")
            raise KeyError("of the handler")

        return Response(body)

    with pytest.raises(KeyError, match="of the handler"):
        ask(validator(wsgi(app, use_trio)))


@both
def test_head_and_bodiless_answers(use_trio: bool, wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        return Response("hello", int(request.query_string))

    application = wsgi(app, use_trio)
    answer = ask(application, "HEAD", "/?200")
    assert (answer.body, answer.field("Content-Length")) == (b"", "5")
    answer = ask(application, "GET", "/?204")
    assert (answer.status, answer.body, answer.field("Content-Length")) == ("204 No Content", b"", None)


@both
def test_the_log_is_the_server_s(use_trio: bool, wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        inner = request.mounted("/app")
        assert inner is not None
        inner.log("said by the handler")
        return Response(request.protocol)

    answer = ask(wsgi(app, use_trio), path="/app/x")
    assert (answer.body, answer.errors) == (b"wsgi", "said by the handler\n")


@both
def test_a_server_that_closes_early_ends_the_handler(use_trio: bool, wsgi: Any) -> None:
    ended = []

    async def app(request: Request) -> Response:
        async def body(send: Any) -> None:
            try:
                while True:
                    await send(BIG)
            finally:
                ended.append(True)

        return Response(body)

    pieces = wsgi(app, use_trio)(environ_of(), lambda *arguments: None)
    assert next(iter(pieces)) == BIG
    assert ended == []
    pieces.close()
    assert ended == [True]
    pieces.close()


@both
def test_a_handler_may_finish_when_all_of_its_length_is_out(use_trio: bool, wsgi: Any) -> None:
    finished = []

    async def app(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("12")
            await send("345")
            finished.append(True)

        return Response(body, headers={"Content-Length": "5"})

    pieces = wsgi(app, use_trio)(environ_of(), lambda *arguments: None)
    iterator = iter(pieces)
    assert [next(iterator), next(iterator)] == [b"12", b"345"]
    pieces.close()  # as a server may that has counted
    assert finished == [True]


@both
def test_an_answer_is_not_made_faster_than_the_server_takes_it(use_trio: bool, wsgi: Any) -> None:
    produced = 0

    async def app(request: Request) -> Response:
        async def body(send: Any) -> None:
            nonlocal produced
            for _ in range(500):
                produced += 10_000
                await send(bytes(10_000))

        return Response(body)

    taken = 0
    for piece in wsgi(app, use_trio)(environ_of(), lambda *arguments: None):
        taken += len(piece)
        assert produced - taken <= 80_000
    assert taken == 5_000_000


@both
def test_any_application_of_this_package_will_do(use_trio: bool, wsgi: Any) -> None:
    async def page(request: Request) -> Response:
        return Response(f"{request.script_name}|{request.path_info}")

    application = wsgi(Roles(URLMap({"/app": page})), use_trio)
    assert ask(application, path="/app/x").body == b"/app|/x"
    assert ask(application, path="/other").status == "404 Not Found"


#: Those of the table whose requests are the plainest.
PLAIN = [
    name
    for name, each in BEHAVIOURS.items()
    if each.method == "GET" and each.path == "/" and not each.environ and not each.headers
]


@both
@pytest.mark.parametrize("name", PLAIN)
def test_there_and_back(name: str, use_trio: bool, wsgi: Any) -> None:
    """A WSGI application as a handler as a WSGI application is what it was."""
    each = BEHAVIOURS[name]
    answer = ask(wsgi(handler_of(each), use_trio))
    assert (int(answer.status[:3]), answer.body) == (each.status, each.answer)
    assert each.log in answer.errors


# --- without an event loop -------------------------------------------------------------------------------------------


def test_without_an_event_loop_a_handler_that_waits_is_told_what_helps(wsgi: Any) -> None:
    class Never:
        def __await__(self) -> Generator[object, None, None]:
            yield object()

    async def app(request: Request) -> Response:
        await Never()
        return Response("never")

    answer = ask(wsgi(app, False))
    assert answer.status == "500 Internal Server Error"
    assert "to_wsgi(app, trio=True)" in answer.errors


def test_without_an_event_loop_an_application_starts_up_once(wsgi: Any) -> None:
    started = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[Any]:
        started.append(True)
        yield echo

    application = wsgi(app, False)
    assert [ask(application, "POST", body=b"x").body for _ in range(3)] == [b"x"] * 3
    assert started == [True]


def test_trio_is_used_where_it_has_been_imported() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from gateways import Response
from gateways.wsgi import to_wsgi

async def app(request):
    if request.query_string:
        import trio
        await trio.lowlevel.checkpoint()
    return Response("trio" in sys.modules and "trio" or "none")

application = to_wsgi(app)
environ = {{"REQUEST_METHOD": "GET", "wsgi.input": None, "wsgi.errors": sys.stderr}}
print(b"".join(application({{**environ, "QUERY_STRING": ""}}, lambda *begun: None)))
import trio
print(b"".join(application({{**environ, "QUERY_STRING": "wait"}}, lambda *begun: None)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("b'none'\nb'trio'\n", "")


# --- with one --------------------------------------------------------------------------------------------------------


def test_under_trio_a_handler_may_wait_and_have_tasks(wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        async def body(send: Any) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(send, b"%d" % number)

        await trio.lowlevel.checkpoint()
        return Response(body)

    assert sorted(ask(validator(wsgi(app, True))).body) == sorted(b"012")


def test_under_trio_all_requests_share_an_application_that_starts_up_and_shuts_down(wsgi: Any) -> None:
    happened: list[object] = []
    together = 0
    all_there: list[trio.Event] = []

    async def page(request: Request) -> Response:
        nonlocal together
        together += 1
        if together == 4:
            all_there[0].set()
        await all_there[0].wait()
        return Response("here")

    @asynccontextmanager
    async def app() -> AsyncGenerator[Any]:
        happened.append("started")
        all_there.append(trio.Event())
        yield page
        happened.append("ended")

    application = wsgi(app, True)
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(ask(application).body)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert bodies == [b"here"] * 4
    application.close()
    assert happened == ["started", "ended"]


def test_under_trio_what_goes_wrong_at_the_start_is_raised_and_tried_again(wsgi: Any) -> None:
    attempts: list[int] = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[Any]:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no database")
        yield echo

    application = wsgi(app, True)
    with pytest.raises(OSError, match="no database"):
        ask(application)
    assert ask(application, "POST", body=b"x").body == b"x"


def test_under_trio_a_handler_that_raises_what_is_no_exception_ends_its_request_alone(wsgi: Any) -> None:
    async def app(request: Request) -> Response:
        if request.query_string:
            raise SystemExit(3)
        return Response("fine")

    application = wsgi(app, True)
    with pytest.raises(RuntimeError, match="raised SystemExit"):
        ask(application, path="/?exit")
    assert ask(application).body == b"fine"


def test_under_trio_a_read_that_was_given_up_loses_nothing(wsgi: Any) -> None:
    let_go = threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert let_go.wait(PATIENCE)
            return super().read(size)

        read1 = read

    async def app(request: Request) -> Response:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.body.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        let_go.set()
        return Response(await request.body.receive_some(2) + b"|" + await request.body.read())

    slow: dict[str, Any] = {"wsgi.input": Slow(b"hello")}
    answer = ask(wsgi(app, True), "POST", body=b"hello", **slow)
    assert answer.body == b"he|llo"


def test_under_trio_closing_cancels_what_runs(wsgi: Any) -> None:
    began = threading.Event()
    ended = []

    async def app(request: Request) -> Response:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    application = wsgi(app, True)
    errors: list[BaseException] = []

    def request() -> None:
        try:
            ask(application)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=request)
    thread.start()
    assert began.wait(PATIENCE)
    application.close()
    thread.join(PATIENCE)
    assert ended == [True]
    assert "the event loop has ended" in str(errors[0])


# --- a server --------------------------------------------------------------------------------------------------------


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@both
def test_under_the_server_of_the_standard_library(use_trio: bool, wsgi: Any) -> None:
    server = make_server("127.0.0.1", 0, validator(wsgi(echo, use_trio)), handler_class=Quiet)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE)
        connection.request("POST", "/x", BIG, {"Content-Type": "text/x-poem"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, BIG)
        connection.close()
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


async def test_to_and_fro_over_fastcgi() -> None:
    """A handler as a WSGI application as a handler: its body and its answer stream through two threads."""
    application = to_wsgi(echo, trio=True)
    try:
        with trio.fail_after(PATIENCE):
            async with serving(from_wsgi(application), "fastcgi", "unix") as server:
                for body in (b"", b"hello", BIG * 4):
                    assert (await server.request("POST", body=body)).body == body
    finally:
        application.close()
