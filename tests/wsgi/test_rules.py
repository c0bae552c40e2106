"""What from_wsgi holds applications to, and what becomes of those that break a rule."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from gateways import IncompleteBody, LocalProtocolError, scgi
from gateways.testing import Result, serving, variables
from gateways.wsgi import from_wsgi
from tests.wsgi.behaviours import BIG, TEXT, Application, Environ, Start
from tests.wsgi.tools import PATIENCE, ask

both = pytest.mark.parametrize("threads", [40, 1], ids=["in a thread", "inline"])


async def outcome(application: Application, threads: int, **about: Any) -> tuple[Result, list[Exception]]:
    """The answer, and what was logged as a failure."""
    with trio.fail_after(PATIENCE):
        async with serving(from_wsgi(application, threads=threads), "fastcgi", "unix") as server:
            return await server.request(**about), server.errors


def starts(*arguments: Any, body: Any = (b"body",)) -> Application:
    def application(environ: Environ, start_response: Start) -> Any:
        start_response(*arguments)
        return body() if callable(body) else body

    return application


def twice(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)
    return [b"body"]


def late(environ: Environ, start_response: Start) -> Iterator[bytes]:
    yield b"body"
    start_response("200 OK", TEXT)


def leave(environ: Environ, start_response: Start) -> list[bytes]:
    sys.exit(3)


def writes(data: Any, *headers: tuple[str, str]) -> Application:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [*TEXT, *headers])(data)
        return []

    return application


@both
@pytest.mark.parametrize(
    ("application", "error", "message"),
    [
        (starts(200, TEXT), TypeError, "a status is a str, not int"),
        (starts(b"200 OK", TEXT), TypeError, "a status is a str, not bytes"),
        (starts("200", TEXT), ValueError, "written like '200 OK', not '200'"),
        (starts("20 OK", TEXT), ValueError, "written like '200 OK'"),
        (starts("٢٠٠ OK", TEXT), ValueError, "written like '200 OK'"),
        (starts("200  OK\r\nX-Evil: 1", TEXT), ValueError, "control characters"),
        (starts("100 Continue", TEXT), ValueError, "from 200 to 599"),
        (starts("600 What", TEXT), ValueError, "from 200 to 599"),
        (starts("200 OK", tuple(TEXT)), TypeError, "a list, not tuple"),
        (starts("200 OK", [["X", "1"]]), TypeError, r"a tuple \(name, value\)"),
        (starts("200 OK", [("X", "1", "2")]), TypeError, r"a tuple \(name, value\)"),
        (starts("200 OK", [("X", 1)]), TypeError, "is a str, not int"),
        (starts("200 OK", [(b"X", "1")]), TypeError, "header name is text"),
        (starts("200 OK", [("X", "\u20ac")]), UnicodeEncodeError, "latin-1"),
        (starts("200 OK", [("X Y", "1")]), ValueError, "a token, not 'X Y'"),
        (starts("200 OK", [("X", "1\r\nY: 2")]), ValueError, "CR, LF or NUL"),
        (starts("200 OK", [("Connection", "close")]), ValueError, "about one connection"),
        (starts("200 OK", [("Transfer-Encoding", "chunked")]), ValueError, "about one connection"),
        (starts("200 OK", [("Status", "404")]), ValueError, "not a header field"),
        (starts("200 OK", [("Content-Length", "-1")]), ValueError, "ASCII digits"),
        (starts("200 OK", TEXT, body=["text"]), TypeError, "str"),
        (starts("200 OK", TEXT, body=lambda: iter(["text"])), TypeError, "as bytes, not as str"),
        (starts("200 OK", TEXT, body=b"bytes"), TypeError, "as bytes, not as int"),
        (starts("200 OK", TEXT, body=None), TypeError, "NoneType"),
        (starts("200 OK", [*TEXT, ("Content-Length", "9")]), LocalProtocolError, "Content-Length is 9"),
        (twice, RuntimeError, "called once"),
        (late, RuntimeError, "has not called start_response"),
        (lambda environ, start_response: [], RuntimeError, "has not called start_response"),
        (lambda environ, start_response: [b"body"], RuntimeError, "has not called start_response"),
        (lambda environ, start_response: iter([b""]), RuntimeError, "has not called start_response"),
        (leave, RuntimeError, r"called sys.exit\(\)"),
        (writes("text"), TypeError, r"write\(\) takes bytes, not str"),
        (writes(b"12345", ("Content-Length", "4")), ValueError, "leaves room for 4"),
    ],
)
async def test_a_broken_rule_is_an_error_of_the_application(
    application: Application, error: type[Exception], message: str, threads: int
) -> None:
    result, [raised] = await outcome(application, threads)
    assert (result.status, result.body, result.error) == (500, b"Internal Server Error\n", None)
    assert isinstance(raised, error)
    with pytest.raises(error, match=message):
        raise raised


def test_what_cannot_be_called_is_no_application() -> None:
    with pytest.raises(TypeError, match="can be called, 3 cannot"):
        from_wsgi(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, True, 2.0, None])
def test_threads_are_a_number(threads: Any) -> None:
    with pytest.raises(ValueError, match="a whole number above 0"):
        from_wsgi(starts("200 OK", TEXT), threads=threads)


async def test_an_application_that_raises_what_is_no_exception_ends_its_request_alone() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        raise KeyboardInterrupt

    result, [error] = await outcome(application, 40)
    assert result.status == 500
    assert isinstance(error.__cause__, KeyboardInterrupt)


@both
async def test_blanks_around_a_value_are_dropped(threads: int) -> None:
    result, errors = await outcome(starts("200 OK", [("X-One", " 1\t")]), threads)
    assert (result.headers["x-one"], errors) == ("1", [])


# --- exc_info --------------------------------------------------------------------------------------------------------


async def test_with_exc_info_and_too_late_the_error_is_raised_and_the_answer_breaks() -> None:
    arrived = threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"first"
        assert arrived.wait(PATIENCE)
        try:
            raise KeyError("of the application")
        except KeyError:
            start_response("500 Oops", TEXT, sys.exc_info())
        yield b"never"

    await breaks(application, arrived, KeyError)


async def test_an_error_after_the_first_piece_breaks_the_answer() -> None:
    arrived = threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"first"
        assert arrived.wait(PATIENCE)
        raise KeyError("of the application")

    await breaks(application, arrived, KeyError)


async def test_an_answer_that_is_shorter_than_its_length_breaks() -> None:
    arrived = threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [*TEXT, ("Content-Length", "100")])
        yield b"first"
        assert arrived.wait(PATIENCE)

    await breaks(application, arrived, LocalProtocolError)


async def breaks(application: Application, arrived: threading.Event, error: type[Exception]) -> None:
    """Ask, tell when the first piece has arrived, and see the answer break off after it."""
    with trio.fail_after(PATIENCE):
        async with serving(from_wsgi(application), "scgi", "unix") as server:
            stream = await server.connect()
            await stream.send_all(scgi.ClientConnection().send_request(0, variables()))
            received = b""
            while not received.endswith(b"first"):
                chunk = await stream.receive_some()
                assert chunk
                received += chunk
            arrived.set()
            try:
                rest = await stream.receive_some()
            except trio.BrokenResourceError:
                rest = b""
            assert rest == b""
            [raised] = server.errors
            assert isinstance(raised, error)


@both
async def test_exc_info_may_be_given_before_anything_else(threads: int) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        try:
            raise KeyError
        except KeyError:
            start_response("503 Busy", TEXT, sys.exc_info())
        return [b"later"]

    result, errors = await outcome(application, threads)
    assert (result.status, result.body, errors) == (503, b"later", [])


# --- close -----------------------------------------------------------------------------------------------------------


class Pieces:
    """An iterable that notes how often it is closed."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = iter(pieces)
        self.closed = 0
        self.over = threading.Event()

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        if isinstance(piece, Exception):
            raise piece
        return piece  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed += 1
        self.over.set()


@both
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "pieces",
    [(), (b"one",), (b"one", b"two"), (KeyError(),), (b"one", KeyError()), ("text",), (BIG, BIG, BIG)],
    ids=["empty", "one", "two", "raises at once", "raises later", "text", "big"],
)
async def test_an_iterable_is_closed_once(pieces: tuple[Any, ...], method: str, threads: int) -> None:
    body = Pieces(*pieces)
    result, _ = await outcome(starts("200 OK", TEXT, body=body), threads, method=method)
    assert result.status in (200, 500)
    assert await trio.to_thread.run_sync(body.over.wait, PATIENCE)
    assert body.closed == 1


@both
async def test_an_iterable_is_closed_where_start_response_was_forgotten(threads: int) -> None:
    body = Pieces(b"one")
    result, _ = await outcome(lambda environ, start_response: body, threads)
    assert (result.status, body.closed) == (500, 1)


@both
async def test_an_iterable_is_closed_where_the_head_cannot_be_sent(threads: int) -> None:
    body = Pieces(b"one", b"two")
    result, errors = await outcome(starts("200 OK", [("X-Sendfile", "/etc/passwd")], body=body), threads)
    assert result.status == 500
    assert isinstance(errors[0], LocalProtocolError)
    assert await trio.to_thread.run_sync(body.over.wait, PATIENCE)
    assert body.closed == 1


@both
async def test_an_error_of_close_is_logged_and_nothing_worse(threads: int, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"all of it"

        def close(self) -> None:
            try:
                raise KeyError("while it was closed")
            finally:
                over.set()

    with trio.fail_after(PATIENCE):
        application = starts("200 OK", [*TEXT, ("Content-Length", "9")], body=Body())
        async with serving(from_wsgi(application, threads=threads), "fastcgi", "unix") as server:
            result = await server.request()
            assert await trio.to_thread.run_sync(over.wait, PATIENCE)
            while "while it was closed" not in caplog.text:
                await trio.lowlevel.checkpoint()
    assert (result.status, result.body, result.error) == (200, b"all of it", None)


@both
async def test_a_generator_runs_to_its_end_although_its_length_is_reached(threads: int) -> None:
    ended = threading.Event()

    def application(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [*TEXT, ("Content-Length", "5")])
        yield b"hello"
        ended.set()

    result, errors = await outcome(application, threads)
    assert (result.body, errors) == (b"hello", [])
    assert await trio.to_thread.run_sync(ended.wait, PATIENCE)


# --- the body of the request -----------------------------------------------------------------------------------------


def count(environ: Environ, start_response: Start) -> list[bytes]:
    size = 0
    while chunk := environ["wsgi.input"].read(10_000):
        size += len(chunk)
    start_response("200 OK", TEXT)
    return [b"%d" % size]


@both
@pytest.mark.parametrize("length", [100, 1_000_000], ids=["small", "big"])
async def test_a_body_that_ends_early_raises(length: int, threads: int) -> None:
    announced = {"CONTENT_LENGTH": str(length)}
    result, _ = await outcome(count, threads, method="POST", body=b"x" * 50, environ=announced)
    assert result.status == 400


@pytest.mark.parametrize("length", [100, 1_000_000], ids=["small", "big"])
async def test_a_body_that_ends_early_can_be_answered(length: int) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start = environ["wsgi.input"].read(20)
        with pytest.raises(IncompleteBody):
            environ["wsgi.input"].read(100)
        start_response("200 OK", TEXT)
        return [start]

    announced = {"CONTENT_LENGTH": str(length)}
    result, errors = await outcome(application, 40, method="POST", body=b"x" * 50, environ=announced)
    assert (result.status, result.body, errors) == (200, b"x" * 20, [])


@both
@pytest.mark.parametrize("protocol", ["fastcgi", "http"])
@pytest.mark.parametrize("pieces", [[], [b"hello"], [b"hello", b" ", b"world"], [BIG] * 5])
async def test_a_body_of_unknown_length(pieces: list[bytes], protocol: str, threads: int) -> None:
    result = await ask(count, "POST", body=pieces, protocol=protocol, options={"threads": threads})
    assert result.body == b"%d" % sum(map(len, pieces))


async def test_inline_a_body_is_held_in_a_file_and_that_has_a_limit() -> None:
    handler = from_wsgi(count, threads=1, max_spool=3_000_000)
    with trio.fail_after(PATIENCE):
        async with serving(handler, "fastcgi", "unix") as server:
            for size in (1_048_576, 1_048_577, 3_000_000):
                assert (await server.request("POST", body=bytes(size))).body == b"%d" % size
            for body in (bytes(3_000_001), [bytes(1_000_000)] * 4):
                assert (await server.request("POST", body=body)).status == 413


# --- what the application is told of its surroundings ----------------------------------------------------------------


def flags(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", TEXT)
    names = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once")
    return [repr([environ[name] for name in names]).encode()]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, b"[True, False, False]"),
        ({"threads": 1}, b"[False, False, False]"),
        ({"multiprocess": True}, b"[True, True, False]"),
        ({"threads": 1, "multiprocess": True}, b"[False, True, False]"),
    ],
)
async def test_the_flags_are_true(options: dict[str, Any], told: bytes) -> None:
    assert (await ask(flags, options=options)).body == told


async def test_a_request_of_the_small_web_has_its_scheme() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [environ["wsgi.url_scheme"].encode()]

    environ = {"SERVER_PROTOCOL": "GEMINI", "GATEWAYS_DIALECT": "cgi"}
    assert b"gemini" in (await ask(application, environ=environ)).body


async def test_a_long_line_in_the_error_log_is_divided() -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        for _ in range(3):
            environ["wsgi.errors"].write("x" * 5000)
        start_response("200 OK", TEXT)
        return []

    assert [len(line) for line in (await ask(application)).log] == [10_000, 5000]
