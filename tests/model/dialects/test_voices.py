"""One neutral Response in every dialect: the table, and what no dialect may ever say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import Handler, Limits, LocalProtocolError, Reject, RemoteProtocolError, Request, Response, Roles
from gateways._model.environ import Rules, build
from gateways._model.handler import drive
from gateways._model.policy import answer as answer_now
from gateways._model.policy import begin_answer, refuse, respond
from gateways._model.request import Carrier
from gateways._model.status import REASONS
from tests.model.dialects import strict_gemini
from tests.model.memory import RUNNERS, MemorySink, Run, answering, ask, raising
from tests.model.strategies import header_fields

HERE = {"SERVER_NAME": "example.org", "SCRIPT_NAME": "/app", "PATH_INFO": "/a b"}
GEMINI = {**HERE, "SERVER_PROTOCOL": "GEMINI", "SERVER_PORT": "1965"}
TITAN = {**GEMINI, "SERVER_PROTOCOL": "TITAN", "CONTENT_LENGTH": "5"}
SPARTAN = {**HERE, "SERVER_PROTOCOL": "SPARTAN", "SERVER_PORT": "300"}
GOPHER = {**HERE, "SERVER_PROTOCOL": "RFC1436", "SERVER_PORT": "7070"}


def packets(handler: Handler | Response, variables: dict[str, str], *, run: Run = drive) -> list[bytes]:
    """What leaves for one request, as it would be written if the handler waited between any two pieces."""
    sink = MemorySink()
    if isinstance(handler, Response):
        handler = answering(handler)
    run(respond(handler, Request(variables), sink, limits=Limits()))
    writes = sink.writes or [b""]
    return [sink.head + writes[0], *writes[1:]]


def said(handler: Handler | Response, variables: dict[str, str], *, run: Run = drive) -> bytes:
    return b"".join(packets(handler, variables, run=run))


def menu(*rows: str) -> bytes:
    return "".join([row + "\r\n" for row in [*rows, "."]]).encode()


def failed(message: str) -> bytes:
    return menu(f"3{message}\t\terror.host\t1")


def with_retry(status: int, after: str) -> Response:
    return Response("slow down\n", status, [("Retry-After", after)])


#: (what, response, Gemini, Spartan, Gopher)
TABLE: list[tuple[str, Response, bytes, bytes, bytes]] = [
    (
        "text",
        Response("hi\n"),
        b"20 text/plain; charset=utf-8\r\nhi\n",
        b"2 text/plain; charset=utf-8\r\nhi\n",
        b"hi\r\n.\r\n",
    ),
    (
        "gemtext",
        Response("# hi\n", content_type="text/gemini; lang=en"),
        b"20 text/gemini; lang=en\r\n# hi\n",
        b"2 text/gemini\r\n# hi\n",
        b"# hi\r\n.\r\n",
    ),
    (
        "bytes",
        Response(b"\x00.\n"),
        b"20 application/octet-stream\r\n\x00.\n",
        b"2 application/octet-stream\r\n\x00.\n",
        b"\x00.\n",
    ),
    (
        "a menu",
        Response("1x\t/\th\t70\n", content_type="application/gopher-menu"),
        b"20 application/gopher-menu\r\n1x\t/\th\t70\n",
        b"2 application/gopher-menu\r\n1x\t/\th\t70\n",
        b"1x\t/\th\t70\r\n.\r\n",
    ),
    ("an empty body", Response(), b"20 text/plain; charset=utf-8\r\n", b"2 text/plain; charset=utf-8\r\n", b".\r\n"),
    ("204", Response(status=204), b"20 text/gemini\r\n", b"2 text/gemini\r\n", b".\r\n"),
    ("205", Response("x", 205), b"20 text/gemini\r\n", b"2 text/gemini\r\n", b".\r\n"),
    (
        "201",
        Response("made\n", 201),
        b"20 text/plain; charset=utf-8\r\nmade\n",
        b"2 text/plain; charset=utf-8\r\nmade\n",
        b"made\r\n.\r\n",
    ),
    (
        "input",
        Response.input("Your name?"),
        b"10 Your name?\r\n",
        b"2 text/gemini\r\n=: /app/a%20b Your name?\n",
        menu("7Your name?\t/app/a b\texample.org\t7070"),
    ),
    (
        "sensitive input",
        Response.input("Password", sensitive=True),
        b"11 Password\r\n",
        b"4 This cannot be asked for without encryption\r\n",
        failed("This cannot be asked for without encryption"),
    ),
    (
        "302",
        Response.redirect("/x?y"),
        b"30 /x?y\r\n",
        b"3 /x?y\r\n",
        menu("1See /x?y\t/x?y\texample.org\t7070"),
    ),
    (
        "303",
        Response("", 303, [("Location", "c")]),
        b"30 c\r\n",
        b"3 /app/c\r\n",
        menu("1See c\t/app/c\texample.org\t7070"),
    ),
    (
        "307",
        Response("", 307, [("Location", "../z")]),
        b"30 ../z\r\n",
        b"3 /z\r\n",
        menu("1See ../z\t/z\texample.org\t7070"),
    ),
    (
        "301",
        Response.redirect("https://example.com/", permanent=True),
        b"31 https://example.com/\r\n",
        b"2 text/gemini\r\n=> https://example.com/\n",
        menu("hSee https://example.com/\tURL:https://example.com/\texample.org\t7070"),
    ),
    (
        "308",
        Response("", 308, [("Location", "spartan://example.org/x")]),
        b"31 spartan://example.org/x\r\n",
        b"3 /x\r\n",
        menu("hSee spartan://example.org/x\tURL:spartan://example.org/x\texample.org\t7070"),
    ),
    (
        "to Gopher",
        Response.redirect("gopher://example.com:71/0/a%20b"),
        b"30 gopher://example.com:71/0/a%20b\r\n",
        b"2 text/gemini\r\n=> gopher://example.com:71/0/a%20b\n",
        menu("0See gopher://example.com:71/0/a%20b\t/a b\texample.com\t71"),
    ),
    (
        "certificate required",
        Response.certificate_required("Who are you?"),
        b"60 Who are you?\r\n",
        b"4 Who are you?\r\n",
        failed("Who are you?"),
    ),
    (
        "certificate required elsewhere",
        Response.certificate_required(scope="/app/"),
        b"30 /app/\r\n",
        b"4 A client certificate is required\r\n",
        failed("A client certificate is required"),
    ),
    (
        "certificate required here",
        Response.certificate_required("Who?", scope="/app/a%20b"),
        b"60 Who?\r\n",
        b"4 Who?\r\n",
        failed("Who?"),
    ),
    (
        "certificate not authorised",
        Response.certificate_refused("Not you"),
        b"61 Not you\r\n",
        b"4 Not you\r\n",
        failed("Not you"),
    ),
    (
        "certificate not valid",
        Response.certificate_refused("Expired", invalid=True),
        b"62 Expired\r\n",
        b"4 Expired\r\n",
        failed("Expired"),
    ),
    ("429", with_retry(429, "7"), b"44 7\r\n", b"4 slow down\r\n", failed("slow down")),
    ("429 until a date", with_retry(429, "Sun, 06 Nov 1994"), b"44 60\r\n", b"4 slow down\r\n", failed("slow down")),
    (
        "an error of several lines",
        Response("\n  no\tsuch \x00page  \nat all\n", 404),
        b"51 no such  page\r\n",
        b"4 no such  page\r\n",
        failed("no such  page"),
    ),
    ("an error as HTML", Response.html("<p>no</p>", 404), b"51 Not Found\r\n", b"4 Not Found\r\n", failed("Not Found")),
    ("an error of bytes", Response(b"no", 404), b"51 Not Found\r\n", b"4 Not Found\r\n", failed("Not Found")),
    ("an error without text", Response("", 599), b"40 Unknown\r\n", b"5 Unknown\r\n", failed("Unknown")),
]
ROWS = [pytest.param(*row[1:], id=row[0]) for row in TABLE]


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize(("response", "gemini", "spartan", "gopher"), ROWS)
def test_a_response_is_said_in_each_dialect(
    response: Response, gemini: bytes, spartan: bytes, gopher: bytes, run: Run
) -> None:
    assert said(response, GEMINI, run=run) == gemini
    assert said(response, SPARTAN, run=run) == spartan
    assert said(response, GOPHER, run=run) == gopher


#: Gemini's code for each status of an error.
CODES = {
    **dict.fromkeys([400, 405, 406, 411, 413, 414, 415, 422], 59),
    401: 60,
    403: 50,
    404: 51,
    410: 52,
    421: 53,
    429: 44,
    500: 42,
    501: 50,
    502: 43,
    503: 41,
    504: 43,
}


@pytest.mark.parametrize("status", [*range(400, 432), 451, 499, *range(500, 512), 599])
def test_an_error_has_its_code(status: int) -> None:
    for response in (Response("no\n", status), raising(Reject(status, "no"))):
        code = CODES.get(status, 50 if status < 500 else 40)
        assert said(response, GEMINI) == (b"44 60\r\n" if status == 429 else b"%d no\r\n" % code)
        assert said(response, SPARTAN) == (b"4 no\r\n" if status < 500 else b"5 no\r\n")
        assert said(response, GOPHER) == failed("no")


def page_row(answer: str) -> list[str]:
    """What the page of the documentation has for an answer: the status over HTTP, and the first lines elsewhere."""
    made: object = eval(answer, {"Response": Response, "Reject": Reject})
    handler = made if isinstance(made, Response) else raising(made)  # type: ignore[arg-type]
    lines = [said(handler, variables).partition(b"\r\n")[0].decode() for variables in (GEMINI, SPARTAN, GOPHER)]
    return [str(ask(handler).status), *[line.replace("\t", "→") for line in lines]]


def test_the_table_of_the_documentation_is_what_is_sent() -> None:
    page = (Path(__file__).parents[3] / "docs" / "small-web.rst").read_text(encoding="utf-8")
    rows = page.partition(":class: answers")[2].partition("\n\n* ")[0].split("   * - ``")[1:]
    assert len(rows) == 26
    for row in rows:
        answer, *cells = [cell.strip().removesuffix("``") for cell in row.split("\n     - ``")]
        assert cells == page_row(answer), answer


@pytest.mark.parametrize("status", [206, 300, 304, 305])
def test_what_means_something_over_http_alone_is_a_failure_elsewhere(status: int) -> None:
    response = Response("x", status)
    assert said(response, GEMINI) == b"42 Internal Server Error\r\n"
    assert said(response, SPARTAN) == b"5 Internal Server Error\r\n"
    assert said(response, GOPHER) == failed("Internal Server Error")


def test_a_redirect_without_a_location_is_a_failure() -> None:
    assert said(Response(status=302), GEMINI) == b"42 Internal Server Error\r\n"


@pytest.mark.parametrize("variables", [GEMINI, SPARTAN, GOPHER], ids=["gemini", "spartan", "gopher"])
@pytest.mark.parametrize("target", ["/é", "/a b", "/" + "x" * 1000])
def test_a_redirect_that_is_not_encoded_or_too_long_is_a_failure(target: str, variables: dict[str, str]) -> None:
    assert b"Internal Server Error" in said(Response.redirect(target), variables)


def test_a_media_type_that_cannot_be_sent_is_a_failure() -> None:
    for media_type in ("text/é", "text/plain; x=" + "y" * 1000, "a\tb"):
        assert said(Response("x", content_type=media_type), GEMINI) == b"42 Internal Server Error\r\n"


@pytest.mark.parametrize("error", [RuntimeError("secret"), ValueError(), LocalProtocolError("secret")])
def test_an_exception_tells_its_text_to_nobody(error: Exception) -> None:
    assert said(raising(error), GEMINI) == b"42 Internal Server Error\r\n"
    assert said(raising(error), SPARTAN) == b"5 Internal Server Error\r\n"
    assert said(raising(error), GOPHER) == failed("Internal Server Error")


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/doc?x", "gemini://example.org/doc?x"),
        ("doc", "gemini://example.org/app/doc"),
        ("gemini://example.com/", "gemini://example.com/"),
        ("//example.com/", "//example.com/"),
    ],
)
def test_a_redirect_after_an_upload_leads_back_to_gemini(target: str, sent: str) -> None:
    assert said(Response.redirect(target), TITAN) == f"30 {sent}\r\n".encode()
    other = said(Response.redirect("/doc"), {**TITAN, "SERVER_PORT": "1966"})
    assert other == b"30 gemini://example.org:1966/doc\r\n"


def test_fields_of_http_are_left_out() -> None:
    response = Response("x", headers=[("X-Y", "z"), ("ETag", '"1"')]).set_cookie("a", "b")
    assert said(response, GEMINI) == b"20 text/plain; charset=utf-8\r\nx"


def test_a_file_is_not_left_to_a_server_that_knows_nothing_of_it() -> None:
    response = Response("", headers=[("X-Accel-Redirect", "/x")])
    assert said(response, GEMINI) == b"42 Internal Server Error\r\n"


# --- metadata ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [Response.input, Response.certificate_required, Response.certificate_refused])
@pytest.mark.parametrize(
    "text", ["a\rb", "a\nb", "a\x00b", "a\tb", "a\x7fb", "a\x85b", "a\u2028b", "", " \u3000", "x" * 1001]
)
def test_text_that_cannot_be_metadata_is_refused(maker: Callable[[str], Response], text: str) -> None:
    with pytest.raises(ValueError, match="the text for the user"):
        maker(text)


@pytest.mark.parametrize("scope", ["app", "/a b", "/é", "/a\n"])
def test_a_scope_is_an_encoded_path(scope: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        Response.certificate_required(scope=scope)


def test_a_long_message_is_cut_between_characters() -> None:
    line = said(Response("€" * 400, 404), GEMINI)
    assert line == b"51 " + "€".encode() * 333 + b"\r\n"


# --- over HTTP ---------------------------------------------------------------------------------------------------


def test_input_over_http_is_a_form() -> None:
    answer = ask(Response.input('<Your "name"?>'))
    assert (answer.status, answer.field("Content-Type")) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    assert '<form method="get">' in page
    assert '<input name="input" type="text"' in page
    assert page.count("&lt;Your &quot;name&quot;?&gt;") == 2
    assert "<Your" not in page


def test_secret_input_over_http_is_posted() -> None:
    page = ask(Response.input("Password", sensitive=True)).body.decode()
    assert '<form method="post">' in page
    assert 'type="password"' in page


@pytest.mark.parametrize(
    "response",
    [
        Response.certificate_required("no", scope="/app/"),
        Response.certificate_refused("no"),
        Response.certificate_refused("no", invalid=True),
    ],
)
def test_certificates_over_http_are_a_403(response: Response) -> None:
    answer = ask(response)
    assert (answer.status, answer.body) == (403, b"no\n")


def test_what_asks_can_carry_fields_and_still_asks() -> None:
    response = Response.input("Name?").with_header("X-A", "b").set_cookie("c", "d")
    assert said(response, GEMINI) == b"10 Name?\r\n"
    assert ask(response).field("X-A") == "b"
    assert response != Response.input("Name?")
    assert said(Response.input("Name?").with_status(404), GEMINI) == b"51 Not Found\r\n"


def test_what_asks_for_the_same_is_equal() -> None:
    assert Response.input("Name?") == Response.input("Name?")
    assert Response.input("Name?") != Response.input("Name?", sensitive=True)
    assert Response.certificate_refused("x") != Response.certificate_refused("x", invalid=True)


# --- streams -----------------------------------------------------------------------------------------------------


class Pieces:
    """A body in pieces that tells whether it was closed."""

    def __init__(self, *pieces: str | bytes) -> None:
        self.closed = False
        self._pieces = iter(pieces)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("run", RUNNERS)
def test_a_stream_goes_on_behind_its_line(run: Run) -> None:
    async def body(send: Any) -> None:
        await send("one\n")
        await send(b"")
        await send("two\n")

    response = Response(body, content_type="text/gemini")
    assert packets(response, GEMINI, run=run) == [b"20 text/gemini\r\none\n", b"two\n"]
    assert packets(response, SPARTAN, run=run) == [b"2 text/gemini\r\none\n", b"two\n"]
    assert said(response, GOPHER, run=run) == b"one\r\ntwo\r\n.\r\n"


@pytest.mark.parametrize("status", [404, 204, 302, 304])
@pytest.mark.parametrize("variables", [GEMINI, SPARTAN, GOPHER], ids=["gemini", "spartan", "gopher"])
def test_a_stream_that_is_not_sent_is_closed(variables: dict[str, str], status: int) -> None:
    body = Pieces("secret")
    assert b"secret" not in said(Response(body, status, [("Location", "/x")]), variables)
    assert body.closed


@pytest.mark.parametrize("variables", [GEMINI, GOPHER], ids=["gemini", "gopher"])
def test_a_file_is_sent(variables: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00.\n" * 200_000)
    assert said(Response.file(path), variables).endswith(path.read_bytes())
    text = tmp_path / "a.txt"
    text.write_text("a\n.\nb")
    assert said(Response.file(text), GEMINI) == b"20 text/plain; charset=utf-8\r\na\n.\nb"
    assert said(Response.file(text), GOPHER) == b"a\r\n..\r\nb\r\n.\r\n"


def test_a_file_that_is_gone_is_a_clean_failure(tmp_path: Path) -> None:
    assert said(Response(tmp_path / "none"), GEMINI) == b"42 Internal Server Error\r\n"


def test_a_length_that_is_not_the_bodys_is_a_clean_failure() -> None:
    assert said(Response("abc", headers={"Content-Length": "2"}), GEMINI) == b"42 Internal Server Error\r\n"
    cut = said(Response(Pieces("abc", "d"), headers={"Content-Length": "2"}), GEMINI)
    assert cut == b"20 application/octet-stream\r\nab"


def test_a_failure_before_the_first_piece_is_clean() -> None:
    async def body(send: Any) -> None:
        raise RuntimeError("secret")

    for variables, line in ((GEMINI, b"42 Internal Server Error\r\n"), (GOPHER, failed("Internal Server Error"))):
        assert said(Response(body), variables) == line


def test_a_failure_after_the_first_piece_is_raised() -> None:
    async def body(send: Any) -> None:
        await send("some")
        raise RuntimeError("secret")

    for variables in (GEMINI, SPARTAN, GOPHER):
        with pytest.raises(RuntimeError):
            said(Response(body), variables)


TEXT = st.text(alphabet=".\r\nab", max_size=12).map(str.encode)


def slow_gopher_text(data: bytes) -> bytes:
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if lines[-1] == b"" and not data.endswith(b"\r"):
        lines = lines[:-1]
    return b"".join([(b".." if line == b"." else line) + b"\r\n" for line in [*lines]]) + b".\r\n"


@given(st.lists(TEXT, max_size=6))
def test_a_text_of_gopher_does_not_depend_on_how_it_comes(pieces: list[bytes]) -> None:
    response = Response(Pieces(*pieces), content_type="text/plain")
    assert said(response, GOPHER) == slow_gopher_text(b"".join(pieces))


# --- answers that begin or end before their handler ---------------------------------------------------------------


class Ending(MemorySink, Carrier):
    """A sink whose answers may end before their handler, and what its requests are carried by."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: Any = None
        self.ended = 0

    async def end(self, app_status: int) -> None:
        self.ended += 1

    async def answer(self, request: Request, response: Response) -> None:
        await answer_now(response, request, self, limits=Limits())

    async def begin_answer(self, request: Request, response: Response) -> Any:
        return await begin_answer(response, request, self, limits=Limits())


def begun(handler: Handler, variables: dict[str, str]) -> tuple[bytes, int]:
    sink = Ending()
    request = Request(variables)
    request._carrier = sink
    drive(respond(handler, request, sink, limits=Limits()))
    return sink.head + sink.body, sink.ended


@pytest.mark.parametrize("end", [True, False])
def test_an_answer_may_begin_before_its_handler_ends(end: bool) -> None:
    async def handler(request: Request) -> Response:
        response = Response(content_type="text/gemini")
        sending = await request.begin(response)
        await sending.send("one\n.")
        await sending.send("\ntwo")
        if end:
            await sending.end()
        return response

    assert begun(handler, GEMINI) == (b"20 text/gemini\r\none\n.\ntwo", int(end))
    assert begun(handler, GOPHER) == (b"one\r\n..\r\ntwo\r\n.\r\n", int(end))


def test_an_answer_that_has_no_body_begins_without_one() -> None:
    async def handler(request: Request) -> Response:
        response = Response.input("Name?")
        sending = await request.begin(response)
        await sending.send("lost")
        return response

    assert begun(handler, GEMINI) == (b"10 Name?\r\n", 0)
    assert begun(handler, SPARTAN) == (b"2 text/gemini\r\n=: /app/a%20b Name?\n", 0)
    assert begun(handler, GOPHER)[0] == menu("7Name?\t/app/a b\texample.org\t7070")


def test_what_is_sent_beyond_the_announced_length_is_cut_and_an_end_is_said_once() -> None:
    async def handler(request: Request) -> Response:
        response = Response(headers=[("Content-Length", "2")], content_type="text/gemini")
        sending = await request.begin(response)
        await sending.send("one")
        await sending.send("two")
        await sending.end()
        await sending.end()
        return response

    assert begun(handler, GEMINI) == (b"20 text/gemini\r\non", 1)


@pytest.mark.parametrize(
    ("reference", "spartan", "gopher"),
    [
        ("?x=1", b"3 /app/a%20b?x=1\r\n", "/app/a b?x=1"),
        ("/a%0Ab", b"3 /a%0Ab\r\n", "/a%0Ab"),
    ],
)
def test_a_redirect_is_resolved_where_clients_do_not(reference: str, spartan: bytes, gopher: str) -> None:
    assert said(Response.redirect(reference), SPARTAN) == spartan
    assert f"\t{gopher}\t".encode() in said(Response.redirect(reference), GOPHER)


def test_what_asks_is_equal_to_nothing_else() -> None:
    assert Response.input("Name?") != Response("Name?")
    assert Response.input("Name?") != "Name?"


def test_a_prompt_is_text() -> None:
    prompt: Any = 5
    with pytest.raises(TypeError, match="metadata is text, not int"):
        Response.input(prompt)


def test_an_answer_may_end_before_its_handler() -> None:
    async def handler(request: Request) -> Response:
        response = Response("hi\n")
        await request.answer(response)
        return response

    assert begun(handler, GEMINI) == (b"20 text/plain; charset=utf-8\r\nhi\n", 1)


# --- which dialect -----------------------------------------------------------------------------------------------

OK = Response("x")
CGI = b"Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 1\r\n\r\nx"


@pytest.mark.parametrize(
    ("variables", "begins"),
    [
        ({"SERVER_PROTOCOL": "GEMINI"}, b"20 "),
        ({"SERVER_PROTOCOL": "gemini"}, b"20 "),
        ({"SERVER_PROTOCOL": "GEMINI/0.16.1"}, b"20 "),
        ({"SERVER_PROTOCOL": "TITAN"}, b"20 "),
        ({"SERVER_PROTOCOL": "Spartan"}, b"2 "),
        ({"SERVER_PROTOCOL": "gopher/1.0"}, b"x\r\n."),
        ({"SERVER_PROTOCOL": "RFC1436"}, b"x\r\n."),
        ({"SERVER_PROTOCOL": "HTTP/0.9", "SERVER_SOFTWARE": "Gophernicus/3.1.1 (Debian)"}, b"x\r\n."),
        ({"SELECTOR": "/x", "REQUEST": "/x"}, b"x\r\n."),
        ({"GATEWAY_INTERFACE": "CGI/1.0"}, b"x\r\n."),
        ({"SERVER_PROTOCOL": "GEMINI", "SERVER_SOFTWARE": "GLV-1.12556/1"}, CGI),
        ({"SERVER_PROTOCOL": "HTTP/1.0", "REQUEST_METHOD": "GET", "SERVER_SOFTWARE": "GLV-1.12556/1"}, CGI),
        ({"SERVER_PROTOCOL": "HTTP/0.9", "REQUEST_METHOD": "GET"}, CGI),
        ({"SERVER_PROTOCOL": "INCLUDED", "REQUEST_METHOD": "GET"}, CGI),
        ({"REQUEST_METHOD": "GET", "SELECTOR": "/x"}, CGI),
        ({"REQUEST_METHOD": "GET", "GATEWAY_INTERFACE": "CGI/1.0"}, CGI),
        ({"SERVER_PROTOCOL": "NEX"}, CGI),
        ({"SERVER_PROTOCOL": "GEMINI", "GATEWAYS_DIALECT": "cgi"}, CGI),
        ({"GATEWAYS_DIALECT": "gemini"}, b"20 "),
        ({"SERVER_PROTOCOL": "TITAN", "GATEWAYS_DIALECT": "gemini"}, b"20 "),
        ({"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET", "HTTP_GATEWAYS_DIALECT": "gemini"}, CGI),
    ],
)
def test_the_dialect_is_that_of_the_client(variables: dict[str, str], begins: bytes) -> None:
    assert said(OK, variables).startswith(begins)


@pytest.mark.parametrize(
    ("quirks", "variables", "scheme", "begins"),
    [
        ("speaks-gemini", {}, "gemini", b"20 "),
        (["auto", "speaks-gemini"], {"SERVER_PROTOCOL": "TITAN"}, "titan", b"20 "),
        ("speaks-spartan", {"SERVER_PROTOCOL": "HTTP/1.0", "REQUEST_METHOD": "GET"}, "spartan", b"2 "),
        ("speaks-gopher", {"REQUEST_METHOD": "GET"}, "gopher", b"x\r\n."),
        ("speaks-cgi", {"SERVER_PROTOCOL": "GEMINI"}, "gemini", CGI),
    ],
)
def test_the_dialect_is_set_by_hand(quirks: Any, variables: dict[str, str], scheme: str, begins: bytes) -> None:
    request = Request(variables, rules=Rules(quirks=quirks))
    sink = MemorySink()
    drive(respond(answering(OK), request, sink, limits=Limits()))
    assert request.scheme == scheme
    assert (sink.head + sink.body).startswith(begins)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (GEMINI, b"51 Not Found\r\n"),
        (SPARTAN, b"4 Not Found\r\n"),
        (GOPHER, failed("Not Found")),
        ({**GEMINI, "SERVER_SOFTWARE": "GLV-1.12556"}, b"Status: 404 Not Found\r\n"),
        ({**GEMINI, "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"}, b"Status: 404 Not Found\r\n"),
    ],
)
def test_what_is_outside_the_mount_is_not_found_in_the_words_of_the_client(
    variables: dict[str, str], line: bytes
) -> None:
    whole = {**variables, "GEMINI_URL": "gemini://example.org/elsewhere"}
    with pytest.raises(RemoteProtocolError) as caught:
        build(whole, "scgi", Rules(mount="/mount"))
    sink = MemorySink()
    drive(refuse(caught.value, "GET", sink))
    assert (sink.head + sink.body).startswith(line)


def test_an_error_of_the_engine_is_told_in_the_words_of_the_client() -> None:
    """A deadline, for one, that ends a request whose handler has not begun to answer."""
    sink = MemorySink()

    async def waits(request: Request) -> Response:
        await refuse(RemoteProtocolError("late", status=503), request.method, sink)
        return Response()

    drive(respond(waits, Request(GEMINI), sink, limits=Limits()))
    first = MemorySink()
    first.voice = sink.voice  # type: ignore[attr-defined]
    drive(refuse(RemoteProtocolError("late", status=503), "GET", first))
    assert first.head == b"41 Service Unavailable\r\n"


def test_a_role_that_is_not_played_is_refused_in_the_words_of_the_client() -> None:
    assert said(Roles(authorizer=answering(OK)), GEMINI) == b"50 Not Implemented\r\n"


# --- what no answer may do to a server ---------------------------------------------------------------------------


def test_the_strict_client_refuses_what_the_servers_refuse() -> None:
    refused = [
        [], [b""], [b"\r\n"], [b" \r\n"], [b"20 text/gemini\n"], [b"20 \r\n"], [b"20\r\n"], [b"200 OK\r\n"],
        [b"09 x\r\n"], [b"99 x\r\n"],
        [b"2", b"0 text/gemini\r\n"], [b"Status: 200 OK\r\n\r\n"], [b"20\ttext/gemini\r\n"],
        [b"51 Not Found\r\nbody"], [b"10 " + b"x" * 1019 + b"\r\n"], [b"10 " + b"x" * 2000 + b"\r\n"],
        [b"# no line at all\n"], [b"44 soon\r\n"], [b"30 /a b\r\n"], [b"10 a\x00b\r\n"],
    ]  # fmt: skip
    for each in refused:
        with pytest.raises(strict_gemini.Refused):
            strict_gemini.read(each)
    assert strict_gemini.read([b"20 text/gemini\r\n", b"hi"]) == strict_gemini.Said(20, "text/gemini", b"hi")


WORDS = st.text(max_size=30) | st.sampled_from(["\r\n", "20 x\r\n", "a\nb", "€" * 600, "\udcff", "  ", ".", "\x00"])
STATUSES = st.sampled_from([*REASONS, 209, 299, 399, 418, 499, 599])
BODIES = st.one_of(
    WORDS,
    st.binary(max_size=20),
    st.lists(WORDS, max_size=3).map(lambda texts: Pieces(*texts)),
)


@st.composite
def anything(draw: st.DrawFn) -> Any:
    """A handler that answers, or fails, in any way that it can."""
    fields = draw(header_fields)
    text = draw(WORDS)
    maker: Callable[[], Response] = draw(
        st.sampled_from(
            [
                lambda: Response(draw(BODIES), draw(STATUSES), fields),
                lambda: Response(draw(BODIES), draw(STATUSES), content_type=text),
                lambda: Response(draw(BODIES), draw(STATUSES), [("Location", text)]),
                lambda: Response(draw(BODIES), 429, [("Retry-After", text)]),
                lambda: Response.redirect(text, draw(st.booleans())),
                lambda: Response.input(text, draw(st.booleans())),
                lambda: Response.certificate_required(text, scope=draw(st.sampled_from([None, "/", text]))),
                lambda: Response.certificate_refused(text, invalid=draw(st.booleans())),
                lambda: Response.html(text, draw(STATUSES)),
            ]
        )
    )
    error = draw(st.sampled_from([None, RuntimeError(text), Reject(draw(st.integers(400, 599)), text, fields)]))

    async def handler(request: Request) -> Response:
        if error is not None:
            raise error
        return maker()  # may raise: what cannot be sent is refused where it is made

    return handler


@given(anything(), st.sampled_from([GEMINI, TITAN, {"SERVER_PROTOCOL": "GEMINI", "QUERY_STRING": "x"}]))
@settings(deadline=None, max_examples=300)
def test_no_answer_can_end_molly_brown_or_hang_gmid(handler: Handler, variables: dict[str, str]) -> None:
    assert strict_gemini.read(packets(handler, variables)).meta


@given(anything())
@settings(deadline=None)
def test_every_answer_of_spartan_begins_with_one_line(handler: Handler) -> None:
    line, end, body = said(handler, SPARTAN).partition(b"\r\n")
    assert end
    assert line[:2] in (b"2 ", b"3 ", b"4 ", b"5 ")
    assert line[2:].strip()
    assert len(line) < 1024
    assert not body or line[:1] == b"2"


@given(anything())
@settings(deadline=None)
def test_every_answer_of_gopher_that_is_a_menu_of_ours_is_one(handler: Handler) -> None:
    answer = said(handler, GOPHER)
    if answer.endswith(b"\terror.host\t1\r\n.\r\n"):
        assert answer.count(b"\r\n") == 2
        assert answer.count(b"\t") == 3
