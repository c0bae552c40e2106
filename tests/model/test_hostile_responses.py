"""Rows R01 to R30 of the list of hostile inputs: what a handler gives, and what must become of it.

What the model and its policy decide, over a sink in memory; each front end's part comes with the front ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import gateways
from gateways import Limits, LocalProtocolError, Reject, RemoteProtocolError, Response
from gateways._model.dialects.cgi import parse_head
from gateways._model.headers import INTERNAL
from gateways._model.policy import decide, respond
from tests.model.memory import RUNNERS, MemorySink, Run, answering, ask, make, raising, under_trio
from tests.model.refusals import ALL, RESPONSES, refused, survivors

Send = Callable[[str | bytes], Awaitable[None]]

runs = pytest.mark.parametrize("run", RUNNERS)


def rows(*ids: str) -> pytest.MarkDecorator:
    """Parametrize over the refusals of these rows."""
    chosen = {what: attempt for what, attempt in RESPONSES.items() if what.startswith(ids)}
    return pytest.mark.parametrize("attempt", chosen.values(), ids=chosen)


@pytest.mark.parametrize("answer", [None, b"no header block", object()])
@runs
def test_R01_whatever_a_handler_gives_back_there_is_a_head(answer: object, run: Run) -> None:
    exchange = ask(answering(answer), run=run)
    assert (exchange.status, exchange.field("Content-Type")) == (500, "text/plain; charset=utf-8")


@pytest.mark.parametrize("body", ["", b"", []])
def test_R02_an_answer_without_a_body_has_a_head(body: str | bytes | list[bytes]) -> None:
    assert ask(Response(body)).head.startswith(b"Status: 200 OK\r\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [("<html>", "text/plain; charset=utf-8"), (b"<html>", "application/octet-stream")],
)
def test_R03_no_content_type_is_invented_as_html(body: str | bytes, expected: str) -> None:
    assert ask(Response(body)).field("Content-Type") == expected


@rows("R04", "R05", "R06")
def test_R04_R05_R06_a_status_is_a_number_from_200_to_599(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="status from 200 to 599"):
        attempt()


def test_R04_a_handler_that_gives_a_bad_status_is_a_500() -> None:
    async def handler(request: gateways.Request) -> Response:
        return Response("x", 1000)

    assert ask(handler).status == 500


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("body", ["body", b"body", [b"body"]])
def test_R07_the_body_of_HEAD_204_and_304_is_dropped(method: str, status: int, body: str | bytes | list[bytes]) -> None:
    exchange = ask(Response(body, status), method)
    assert exchange.body == b""
    assert status != 204 or exchange.field("Content-Length") is None


def test_R07_a_content_length_on_204_is_dropped() -> None:
    assert ask(Response("", 204, {"Content-Length": "0"})).field("Content-Length") is None


@rows("R08")
def test_R08_there_is_one_status_and_it_is_no_field(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="argument of its own"):
        attempt()
    assert ask(Response("x")).head.lower().count(b"status") == 1


def test_R09_a_redirect_always_says_its_status() -> None:
    assert ask(Response.redirect("/x")).head.startswith(b"Status: 302 Found\r\nLocation: /x\r\n")


def test_R09_a_location_without_a_status_is_read_as_302() -> None:
    assert parse_head(b"Location: http://h/\n\n", 100) == (302, "Found", (("Location", "http://h/"),), 21)


def test_R10_a_location_with_status_200_is_refused() -> None:
    """Apache would answer with the page at that path, in the name of the client (RFC 3875 section 6.2.2)."""
    with pytest.raises(LocalProtocolError, match="a status of its own"):
        decide(Response("", headers=[("Location", "/elsewhere")]), "GET", size=0)


@pytest.mark.parametrize("location", ["/x", "http://h/x"])
def test_R10_no_answer_of_ours_is_a_local_redirect(location: str) -> None:
    """RFC 3875 section 6.2.2: Location and nothing else. Ours have a Status each; the redirect is the client's."""
    exchange = ask(Response.redirect(location))
    assert exchange.head.startswith(b"Status: 302")
    assert exchange.field("Content-Length") == "0"


@rows("R11", "R12")
def test_R11_R12_fields_of_the_connection_are_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="is about one connection"):
        attempt()


@rows("R13")
def test_R13_a_second_content_length_is_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="given twice"):
        attempt()


@rows("R14")
def test_R14_a_content_length_is_ascii_digits(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="takes ASCII digits"):
        attempt()


@runs
def test_R15_a_stream_shorter_than_its_content_length_is_raised_to_the_transport(run: Run) -> None:
    sink = MemorySink()
    with pytest.raises(LocalProtocolError, match="ended 95 bytes before its Content-Length of 100"):
        ask(Response([b"12345"], headers={"Content-Length": "100"}), run=run, sink=sink)
    assert sink.body == b"12345"


@runs
def test_R15_a_value_shorter_than_its_content_length_is_a_500(run: Run) -> None:
    exchange = ask(Response("12345", headers={"Content-Length": "100"}), run=run)
    assert (exchange.status, exchange.field("Content-Length")) == (500, "22")


@runs
def test_R16_a_stream_longer_than_its_content_length_is_cut_and_logged(run: Run) -> None:
    exchange = ask(Response([b"12345", b"67"], headers={"Content-Length": "3"}), run=run)
    assert (exchange.body, exchange.field("Content-Length")) == (b"123", "3")
    assert [str(report) for report in exchange.reports] == ["4 bytes beyond the Content-Length of 3 were cut"]


@rows("R17")
def test_R17_CR_LF_and_NUL_are_refused_before_the_first_byte(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"CR, LF or NUL|encode it first"):
        attempt()


def test_R17_a_reject_cannot_smuggle_them_either() -> None:
    exchange = ask(raising(Reject(401, "x", [("WWW-Authenticate", "Basic\r\nSet-Cookie: a=1")])))
    assert (exchange.status, exchange.field("Set-Cookie")) == (500, None)


@rows("R18")
def test_R18_a_folded_value_is_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        attempt()


@rows("R19", "R20")
def test_R19_R20_a_name_is_a_token(attempt: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="a header name is a token"):
        attempt()


@pytest.mark.parametrize(
    "head", [b"Status: 200\nhello\n\n", b"Status: 200\nName : x\n\n", b"Status: 200\nX: a\n b\n\n"]
)
def test_R18_R19_they_are_refused_from_a_backend_too(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_head(head, 1000)


def test_R21_text_beyond_latin1_passes_as_utf8_bytes() -> None:
    """The row wants Latin-1 only. Overruled: header text uses the codec of the environ both ways, UTF-8 with
    surrogateescape, so any byte that came in can go out.
    """
    head = ask(Response("x", headers={"X": "é €", "Y": b"\xe9\xff".decode("utf-8", "surrogateescape")})).head
    assert b"\r\nX: \xc3\xa9 \xe2\x82\xac\r\nY: \xe9\xff\r\n" in head


def test_R21_what_stands_for_no_bytes_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="the header X cannot be encoded"):
        Response(headers={"X": "\ud800"})


@pytest.mark.parametrize(("size", "status"), [(32_000, 200), (32_768, 500)])
def test_R22_a_head_over_32_KiB_is_a_500(size: int, status: int) -> None:
    exchange = ask(Response("x", headers={"X": "a" * size}))
    assert exchange.status == status
    assert ["32768 are allowed" in str(report) for report in exchange.reports] == [True] * (status == 500)


@pytest.mark.parametrize("name", sorted(INTERNAL))
def test_R23_fields_that_make_a_server_send_files_are_refused_unless_allowed_by_name(name: str) -> None:
    response = Response("x", headers={name.title(): "/secret"})
    refused_exchange = ask(response)
    assert (refused_exchange.status, refused_exchange.field(name)) == (500, None)
    assert ask(response, allowed=[name]).field(name) == "/secret"


@runs
def test_R24_an_error_before_the_head_is_a_500_that_tells_nothing(run: Run) -> None:
    exchange = ask(raising(RuntimeError("password=hunter2")), run=run)
    assert exchange.status == 500
    assert b"hunter2" not in exchange.head + exchange.body
    assert b"Traceback" not in exchange.body


@runs
def test_R25_an_error_after_a_megabyte_is_raised_to_the_transport(run: Run) -> None:
    async def body(send: Send) -> None:
        for _ in range(16):
            await send(bytes(65_536))
        raise RuntimeError("late")

    sink = MemorySink()
    with pytest.raises(RuntimeError, match="late"):
        ask(Response(body), run=run, sink=sink)
    assert len(sink.body) == 1_048_576


def test_R26_a_client_that_left_cancels_the_handler_and_no_error_is_logged() -> None:
    ended = []

    async def body(send: Send) -> None:
        try:
            while True:
                await send(b"x")
                await trio.lowlevel.checkpoint()
        finally:
            ended.append(True)

    class Gone(MemorySink):
        async def write(self, data: bytes) -> None:
            await super().write(data)
            scope.cancel()

    async def main() -> None:
        with scope:
            await respond(answering(Response(body)), make(), sink, limits=Limits())

    scope, sink = trio.CancelScope(), Gone()
    under_trio(main())
    assert scope.cancelled_caught
    assert (ended, sink.reports) == ([True], [])


def test_R27_a_stream_goes_no_faster_than_its_sink_takes_it() -> None:
    produced: list[int] = []

    async def body(send: Send) -> None:
        for piece in range(3):
            produced.append(piece)
            await send(b"x" * 1000)

    class Slow(MemorySink):
        async def write(self, data: bytes) -> None:
            lag.append(len(produced) - len(self.writes))
            await super().write(data)

    lag: list[int] = []
    ask(Response(body), sink=Slow())
    assert lag == [1, 1, 1]


def test_R28_empty_pieces_are_not_written() -> None:
    """To join small ones is the transport's: it knows what is still unsent."""
    sink = MemorySink()
    ask(Response([b"", b"1", b"", "", b"2"]), sink=sink)
    assert sink.writes == [b"1", b"2"]


@pytest.mark.parametrize("what", ALL)
def test_R29_every_refusal_is_one(what: str) -> None:
    assert refused(ALL[what])


def test_R29_all_checks_are_active_under_python_O() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from tests.model.refusals import survivors\n"
        "print(__debug__, survivors())"
    )
    folders = {str(Path(gateways.__file__).parents[1]), str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-O", "-c", code, *folders],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.stdout.strip(), done.stderr) == ("False []", "")
    assert survivors() == []


def test_R30_no_text_with_CR_or_LF_can_become_part_of_a_head() -> None:
    """Nor of the line of metadata over Gemini, which is made of the same parts."""
    makers: list[Callable[[str], Response]] = [
        lambda text: Response(content_type=text),
        lambda text: Response(headers={"X": text}),
        lambda text: Response.redirect(text),
        lambda text: Response.authorize(X=text),
        lambda text: Response.input(text),
        lambda text: Response.certificate_required(text),
        lambda text: Response.certificate_refused(text),
    ]
    for text in ("a\rb", "a\nb", "a\r\nb"):
        for maker in makers:
            with pytest.raises(ValueError, match="CR, LF or"):
                maker(text)
