"""What happens to an answer: heads, bodies of every form, errors before and after the first byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gateways import (
    IncompleteBody,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    Reject,
    RemoteProtocolError,
    Request,
    Response,
)
from gateways._model.handler import drive
from gateways._model.policy import ExcessBody, decide, is_expected, refusal, refuse, respond
from tests.model.memory import RUNNERS, MemorySink, Run, answering, ask, make, raising, under_trio

Send = Callable[[str | bytes], Awaitable[None]]

runs = pytest.mark.parametrize("run", RUNNERS)


# --- decide


def test_a_head_has_its_cgi_fields_first_and_says_how_long_the_body_is() -> None:
    answer = decide(Response("x", headers=[("A", "b")]), "GET", size=1)
    assert answer.head == (
        b"Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nA: b\r\nContent-Length: 1\r\n\r\n"
    )
    assert (answer.status, answer.length, answer.has_body) == (200, 1, True)


#: (response, method, size of its body) -> (length that is announced, whether a body follows, whether a type is said)
DECISIONS: list[tuple[Response, str, int | None, str | None, bool, bool]] = [
    (Response("x"), "GET", 1, "1", True, True),
    (Response("x"), "HEAD", 1, "1", False, True),
    (Response(""), "GET", 0, "0", False, False),
    (Response(b""), "HEAD", 0, "0", False, False),
    (Response("", content_type="a/b"), "GET", 0, "0", False, True),
    (Response([]), "GET", None, None, True, True),
    (Response([]), "HEAD", None, None, False, True),
    (Response([], headers={"Content-Length": "3"}), "GET", None, "3", True, True),
    (Response([], headers={"Content-Length": "3"}), "HEAD", None, "3", False, True),
    (Response([], headers={"Content-Length": "0"}), "GET", None, "0", True, False),
    (Response("x", headers={"Content-Length": "1"}), "GET", 1, "1", True, True),
    (Response("x", headers={"Content-Length": "01"}), "GET", 1, "01", True, True),
    (Response("", headers={"Content-Length": "3"}), "HEAD", 0, "3", False, False),
    (Response("x", 204), "GET", 1, None, False, False),
    (Response("x", 204, {"Content-Length": "1"}), "GET", 1, None, False, False),
    (Response("x", 204, content_type="a/b"), "GET", 1, None, False, True),
    (Response([], 204), "GET", None, None, False, False),
    (Response("x", 304), "GET", 1, None, False, False),
    (Response("", 304, {"Content-Length": "3"}), "GET", 0, "3", False, False),
    (Response([], 304, {"Content-Length": "3"}), "GET", None, "3", False, False),
    (Response("", 302), "POST", 0, "0", False, False),
    (Response("x", 500), "GET", 1, "1", True, True),
]


@pytest.mark.parametrize(("response", "method", "size", "length", "has_body", "has_type"), DECISIONS)
def test_decide(
    response: Response, method: str, size: int | None, length: str | None, has_body: bool, has_type: bool
) -> None:
    answer = decide(response, method, size=size)
    head = answer.head.decode()
    assert answer.has_body is has_body
    assert (f"\r\nContent-Length: {length}\r\n" in head) is (length is not None)
    assert head.count("Content-Length") == (length is not None)
    assert head.count("Content-Type") == has_type


@pytest.mark.parametrize(
    ("response", "method", "size"),
    [
        (Response("xy", headers={"Content-Length": "1"}), "GET", 2),
        (Response("x", headers={"Content-Length": "2"}), "GET", 1),
        (Response("", headers={"Content-Length": "2"}), "GET", 0),
        (Response("", headers={"Content-Length": "2"}), "POST", 0),
        (Response("x", headers={"Content-Length": "2"}), "HEAD", 1),
        (Response("x", headers={"Content-Length": "0"}), "GET", 1),
        (Response("x", 304, {"Content-Length": "2"}), "GET", 1),
    ],
)
def test_law_a_content_length_that_contradicts_the_body_is_an_error(response: Response, method: str, size: int) -> None:
    with pytest.raises(LocalProtocolError, match="Content-Length is"):
        decide(response, method, size=size)


def test_the_type_is_said_once_wherever_it_was_given() -> None:
    head = decide(Response("x", headers=[("A", "b"), ("content-type", "a/b")]), "GET", size=1).head
    assert head == b"Status: 200 OK\r\nContent-Type: a/b\r\nA: b\r\nContent-Length: 1\r\n\r\n"


def test_law_head_is_at_most_as_long_as_its_limit() -> None:
    response = Response("", headers={"X": "a" * 1000})
    size = len(decide(response, "GET", size=0).head)
    assert decide(response, "GET", size=0, max_head=size)
    with pytest.raises(LocalProtocolError, match=f"has {size} bytes, {size - 1} are allowed"):
        decide(response, "GET", size=0, max_head=size - 1)


# --- refusals


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (Reject(404), 404, "Not Found\n"),
        (Reject(404, "no such page"), 404, "no such page\n"),
        (ExceptionGroup("", [Reject(404)]), 404, "Not Found\n"),
        (ExceptionGroup("", [ExceptionGroup("", [Reject(404)])]), 404, "Not Found\n"),
        (ExceptionGroup("", [Reject(404), Reject(404)]), 500, "Internal Server Error\n"),
        (IncompleteBody("short"), 400, "Bad Request\n"),
        (LimitExceeded("long"), 413, "Content Too Large\n"),
        (LimitExceeded("many", status=431), 431, "Request Header Fields Too Large\n"),
        (RemoteProtocolError("no length", status=411), 411, "Length Required\n"),
        (LocalProtocolError("secret"), 500, "Internal Server Error\n"),
        (KeyError("secret"), 500, "Internal Server Error\n"),
    ],
)
def test_an_error_has_the_answer_that_it_wants_and_tells_no_more(error: Exception, status: int, body: str) -> None:
    response = refusal(error)
    assert (response.status, response.body, response.headers.items()) == (status, body, ())


def test_a_reject_brings_its_header_fields() -> None:
    response = refusal(Reject(401, headers=[("WWW-Authenticate", "Basic"), ("Content-Type", "text/html")]))
    assert response.headers["www-authenticate"] == "Basic"
    assert response.content_type == "text/html"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(Reject(404), True), (ExceptionGroup("", [Reject(404)]), True), (KeyError(), False), (IncompleteBody(""), False)],
)
def test_only_a_reject_is_no_news(error: Exception, expected: bool) -> None:
    assert is_expected(error) is expected


BAD_REJECTS: list[Any] = [
    Reject(404, headers=[("X", "a\nb")]),
    Reject(404, headers=[("Content-Length", "1000")]),
    Reject(404, headers=[("X-Sendfile", "/etc/passwd")]),
    Reject(404, headers=[("X", "a" * 40_000)]),
    Reject(404, headers=5),  # type: ignore[arg-type]
    Reject(404, "\ud800"),
    Reject(404, 5),  # type: ignore[arg-type]
    Reject(404.5),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("error", BAD_REJECTS)
@runs
def test_a_reject_that_cannot_be_sent_is_a_500_and_the_log_is_told_why(error: Reject, run: Run) -> None:
    exchange = ask(raising(error), run=run)
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error\n")
    assert exchange.reports == [error]
    assert any("cannot be sent" in note for note in error.__notes__)


def test_refuse_answers_what_never_became_a_request() -> None:
    sink = MemorySink()
    error = RemoteProtocolError("no REQUEST_METHOD")
    assert drive(refuse(error, "GET", sink)) == 0
    assert sink.head.startswith(b"Status: 400 Bad Request\r\n")
    assert sink.body == b"Bad Request\n"
    assert sink.reports == [error]


# --- respond: bodies of every form


async def push(send: Send) -> None:
    await send("é")
    await send(b"")  # never ends a stream
    await send(b"\xff")


async def pull() -> AsyncIterator[bytes | str]:
    yield "é"
    yield b""
    yield b"\xff"


def generate() -> Iterator[bytes | str]:
    yield "é"
    yield b"\xff"


STREAMS: list[Callable[[], Any]] = [lambda: push, pull, generate, lambda: ["é", b"\xff"]]


@pytest.mark.parametrize("make_body", STREAMS)
@runs
def test_a_streamed_body_goes_out_piece_by_piece_without_a_length(make_body: Callable[[], Any], run: Run) -> None:
    sink = MemorySink()
    exchange = ask(Response(make_body()), run=run, sink=sink)
    assert sink.writes == [b"\xc3\xa9", b"\xff"]
    assert exchange.field("Content-Length") is None
    assert exchange.field("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize(("body", "sent"), [("é", b"\xc3\xa9"), (b"\xff", b"\xff"), ("\udcff", b"\xff")])
@runs
def test_a_body_in_memory_goes_out_in_one_piece_with_its_length(body: str | bytes, sent: bytes, run: Run) -> None:
    sink = MemorySink()
    exchange = ask(Response(body), run=run, sink=sink)
    assert sink.writes == [sent]
    assert exchange.field("Content-Length") == str(len(sent))


@pytest.mark.parametrize("body", ["", b""])
def test_an_empty_body_is_not_written(body: str | bytes) -> None:
    sink = MemorySink()
    assert ask(Response(body), sink=sink).field("Content-Length") == "0"
    assert sink.writes == []
    assert not sink.committed


@runs
def test_a_file_goes_out_in_chunks_with_its_length(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 600_000)
    sink = MemorySink()
    exchange = ask(Response(path), run=run, sink=sink)
    assert exchange.field("Content-Length") == "600000"
    assert [len(chunk) for chunk in sink.writes] == [262_144, 262_144, 75_712]
    assert ask(Response.file(str(path)), run=run).body == b"x" * 600_000


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@runs
def test_an_empty_file(run: Run, tmp_path: Path, method: str) -> None:
    path = tmp_path / "file"
    path.touch()
    exchange = ask(Response(path), method, run=run)
    assert (exchange.field("Content-Length"), exchange.body) == ("0", b"")


@runs
def test_a_file_that_is_gone_is_a_500(run: Run, tmp_path: Path) -> None:
    exchange = ask(Response(tmp_path / "nothing"), run=run)
    assert (exchange.status, type(exchange.reports[0])) == (500, FileNotFoundError)


@runs
def test_HEAD_of_a_file_tells_its_length(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    exchange = ask(Response(path), "HEAD", run=run)
    assert (exchange.field("Content-Length"), exchange.body) == ("10", b"")


def test_a_file_that_grows_while_it_is_sent_is_cut_at_its_length(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")

    class Growing(MemorySink):
        async def start(self, answer: Any) -> None:
            with path.open("ab") as file:
                file.write(b"67")
            await super().start(answer)

    exchange = ask(Response(path), sink=Growing())
    assert (exchange.field("Content-Length"), exchange.body) == ("5", b"12345")
    assert [type(report) for report in exchange.reports] == [ExcessBody]


# --- every body is closed


class Closing:
    """A body that remembers how often it was begun and closed."""

    def __init__(self) -> None:
        self.begun = self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        self.begun += 1
        return iter([b"1", b"2"])

    def close(self) -> None:
        self.closed += 1


class AsyncClosing:
    """The same, asynchronous."""

    def __init__(self) -> None:
        self.begun = self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        yield b"1"
        yield b"2"

    async def aclose(self) -> None:
        self.closed += 1


Kind = type[Closing] | type[AsyncClosing]
kinds = pytest.mark.parametrize("kind", [Closing, AsyncClosing])


@kinds
@runs
def test_a_body_that_was_sent_is_closed(kind: Kind, run: Run) -> None:
    body = kind()
    assert ask(Response(body), run=run).body == b"12"
    assert (body.begun, body.closed) == (1, 1)


@kinds
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@runs
def test_a_body_that_is_dropped_is_closed_and_not_begun(kind: Kind, method: str, status: int, run: Run) -> None:
    body = kind()
    assert ask(Response(body, status), method, run=run).body == b""
    assert (body.begun, body.closed) == (0, 1)


@kinds
@runs
def test_a_body_whose_head_cannot_be_sent_is_closed(kind: Kind, run: Run) -> None:
    body = kind()
    exchange = ask(Response(body, headers={"X-Sendfile": "/x"}), run=run)
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error\n")
    assert (body.begun, body.closed) == (0, 1)


@kinds
@runs
def test_a_body_whose_reader_has_gone_is_closed(kind: Kind, run: Run) -> None:
    class Broken(MemorySink):
        async def write(self, data: bytes) -> None:
            await super().write(data)
            raise BrokenPipeError

    body = kind()
    with pytest.raises(BrokenPipeError):
        ask(Response(body), run=run, sink=Broken())
    assert (body.begun, body.closed) == (1, 1)


@kinds
def test_a_body_is_closed_when_its_request_is_cancelled(kind: Kind) -> None:
    class Stuck(MemorySink):
        async def write(self, data: bytes) -> None:
            await trio.sleep_forever()

    async def main() -> bool:
        with trio.move_on_after(0) as scope:
            await respond(answering(Response(body)), make(), Stuck(), limits=Limits())
        return scope.cancelled_caught

    body = kind()
    assert under_trio(main())
    assert (body.begun, body.closed) == (1, 1)


def test_a_file_is_closed_whether_it_is_sent_or_not(tmp_path: Path) -> None:
    """An open file would be a ResourceWarning, and warnings are errors here."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert ask(Response(path), "HEAD").status == 200
    assert ask(Response(path, headers={"Content-Length": "5"})).status == 500
    assert ask(Response(path, 304)).status == 304


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@runs
def test_law_HEAD_204_and_304_do_not_run_a_push_body(method: str, status: int, run: Run) -> None:
    async def never(send: Send) -> None:
        raise AssertionError

    exchange = ask(Response(never, status), method, run=run)
    assert (exchange.status, exchange.body, exchange.reports) == (status, b"", [])


# --- lengths of streams


@pytest.mark.parametrize("make_body", STREAMS)
@pytest.mark.parametrize(("length", "sent", "excess"), [(3, b"\xc3\xa9\xff", 0), (2, b"\xc3\xa9", 1), (0, b"", 3)])
@runs
def test_law_excess_beyond_the_content_length_is_cut_and_logged(
    make_body: Callable[[], Any], length: int, sent: bytes, excess: int, run: Run
) -> None:
    exchange = ask(Response(make_body(), headers={"Content-Length": str(length)}), run=run)
    assert (exchange.status, exchange.field("Content-Length"), exchange.body) == (200, str(length), sent)
    told = [f"{excess} bytes beyond the Content-Length of {length} were cut"] if excess else []
    assert [str(report) for report in exchange.reports] == told


@pytest.mark.parametrize("make_body", STREAMS)
@runs
def test_law_a_stream_that_ends_before_its_length_is_a_visible_break(make_body: Callable[[], Any], run: Run) -> None:
    with pytest.raises(LocalProtocolError, match="ended 2 bytes before its Content-Length of 5"):
        ask(Response(make_body(), headers={"Content-Length": "5"}), run=run)


def test_a_short_stream_of_which_nothing_has_left_is_a_500() -> None:
    exchange = ask(Response([b"x"], headers={"Content-Length": "5"}), sink=MemorySink(hold=10))
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error\n")


@pytest.mark.parametrize("piece", [None, 5])
def test_a_piece_that_is_neither_bytes_nor_text_is_an_error(piece: Any) -> None:
    assert ask(Response([piece])).status == 500
    with pytest.raises(TypeError, match="bytes or text"):
        ask(Response([b"x", piece]))


# --- respond: errors


@runs
def test_an_error_before_the_head_is_a_clean_answer(run: Run) -> None:
    error = KeyError("secret")
    exchange = ask(raising(error), run=run)
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error\n")
    assert exchange.reports == [error]
    assert exchange.app_status == 0


@runs
def test_a_reject_is_an_answer_and_no_news(run: Run) -> None:
    exchange = ask(raising(Reject(401, "who?", {"WWW-Authenticate": "Basic"})), run=run)
    assert (exchange.status, exchange.body, exchange.reports) == (401, b"who?\n", [])
    assert exchange.field("WWW-Authenticate") == "Basic"


def test_HEAD_of_a_reject_has_no_body() -> None:
    exchange = ask(raising(Reject(404)), "HEAD")
    assert (exchange.status, exchange.field("Content-Length"), exchange.body) == (404, "10", b"")


@runs
def test_law_body_an_incomplete_body_that_is_not_caught_is_400(run: Run) -> None:
    async def handler(request: Request) -> Response:
        return Response(await request.body.read())

    request = Request({"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5"}, b"123")
    exchange = ask(handler, run=run, request=request)
    assert exchange.status == 400
    assert isinstance(exchange.reports[0], IncompleteBody)


@runs
def test_an_error_in_a_stream_before_anything_left_is_a_clean_answer(run: Run) -> None:
    async def body(send: Send) -> None:
        await send(b"x" * 5)
        raise KeyError

    exchange = ask(Response(body, headers={"X": "y"}), run=run, sink=MemorySink(hold=10))
    assert (exchange.status, exchange.field("X")) == (500, None)
    assert exchange.body == b"Internal Server Error\n"


@runs
def test_an_error_in_a_stream_after_the_head_has_left_is_raised(run: Run) -> None:
    async def body(send: Send) -> None:
        await send(b"x")
        raise KeyError("late")

    sink = MemorySink()
    with pytest.raises(KeyError, match="late"):
        ask(Response(body), run=run, sink=sink)
    assert sink.head.startswith(b"Status: 200 OK\r\n")
    assert sink.body == b"x"
    assert sink.reports == []


def test_cancellation_passes_through() -> None:
    async def waits(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async def main() -> bool:
        with trio.move_on_after(0) as scope:
            await respond(waits, make(), sink, limits=Limits())
        return scope.cancelled_caught

    sink = MemorySink()
    assert under_trio(main())
    assert (sink.head, sink.reports) == (b"", [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_the_process_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        ask(raising(error))


@pytest.mark.parametrize("answer", [None, "text", b"bytes", 200, ("x", 200), Response])
@runs
def test_anything_but_a_response_is_a_500(answer: object, run: Run) -> None:
    exchange = ask(answering(answer), run=run)
    assert exchange.status == 500
    assert "gives back a Response" in str(exchange.reports[0])


@pytest.mark.parametrize("body", ["x", [b"x"], push])
def test_the_app_status_is_handed_on(body: Any) -> None:
    assert ask(Response(body, app_status=3)).app_status == 3


def test_limits_cap_the_head() -> None:
    response = Response("x", headers={"X": "a" * 100})
    assert ask(response, limits=Limits(max_head=50)).status == 500
    assert ask(response, limits=Limits(max_head=500)).status == 200
