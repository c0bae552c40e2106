"""Logs: what their lines say, what they never say, where they go, and that they never stop the serving."""

from __future__ import annotations

import contextvars
import json
import logging
import logging.config
import logging.handlers
import os
import re
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import AccessEntry, Limits, Reject, Request, Response, Tally, http, logs
from gateways._net.lines import printable
from gateways._process import outlet
from tests.cli.program import HELLO, ask, poll, run, serving
from tests.net.tools import FASTCGI, GET, SCGI, Peer, running, variables

ACCESS = "gateways.access"

#: What a web server sends with a request of a browser.
BROWSER = variables(
    path="/some/page",
    QUERY_STRING="x=1",
    REQUEST_URI="/some/page?x=1",
    REMOTE_ADDR="192.0.2.7",
    HTTP_USER_AGENT="Mozilla/5.0",
    HTTP_REFERER="http://example.org/",
    HTTP_X_TRACE="abc",
    SERVER_NAME="example.com",
)


class Lines(logging.Handler):
    """The lines that a formatter makes of what is logged, and the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))


@pytest.fixture
def access() -> Iterator[Lines]:
    """What the access log is told, formatted while the request is at hand."""
    yield from _listening(ACCESS, logs.AccessFormatter())


@pytest.fixture
def errors() -> Iterator[Lines]:
    """What the error log is told."""
    yield from _listening("gateways", logs.ErrorFormatter())


def _listening(name: str, formatter: logging.Formatter) -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger(name)
    lines.setFormatter(formatter)
    lines.addFilter(lambda record: record.name == name)
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)


async def hello(request: Request) -> Response:
    return Response("hello", headers=[("ETag", '"v1"'), ("X-Part", "a"), ("X-Part", "b")])


async def line_for(lines: Lines, format: str, environ: dict[str, str] = BROWSER) -> str:
    """What the access log says in a format of one request for ``hello``."""
    lines.setFormatter(logs.AccessFormatter(format))
    async with running(hello) as backend:
        await backend.ask(environ)
    [line] = lines.lines
    return line


# --- atoms


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("%(h)s %(l)s", "192.0.2.7 -"),
        ("%(r)s", "GET /some/page?x=1 HTTP/1.1"),
        ("%(m)s %(U)s %(q)s %(H)s", "GET /some/page x=1 HTTP/1.1"),
        ("%(s)s %(B)s %(b)s", "200 5 5"),
        ("%(f)s|%(a)s", "http://example.org/|Mozilla/5.0"),
        ("%(T)s", "0"),
        pytest.param("%(p)s", f"<{os.getpid()}>", id="%(p)s"),
        ("%({x-trace}i)s %({X-Trace}i)s %({x-other}i)s", "abc abc -"),
        ("%({etag}o)s %({X-Part}o)s %({x-other}o)s", '\\"v1\\" a, b -'),
        ("%({SERVER_NAME}e)s %({NOTHING}e)s", "example.com -"),
        ("%(protocol)s", "fastcgi"),
        ("100%% of %(m)s", "100% of GET"),
        ("combined", None),
    ],
)
async def test_an_atom_stands_for_what_gunicorn_has_it_stand_for(
    access: Lines, format: str, expected: str | None
) -> None:
    line = await line_for(access, format)
    if expected is not None:
        assert line == expected
    else:
        time = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
        before, rest = "192.0.2.7 - - ", ' "GET /some/page?x=1 HTTP/1.1" 200 5 "http://example.org/" "Mozilla/5.0"'
        assert re.fullmatch(re.escape(before) + time + re.escape(rest), line)


async def test_a_line_is_written_in_the_context_of_the_handler(access: Lines) -> None:
    """As users of structlog and the like expect: what the handler has bound is in all lines about its request."""
    user = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    def look(record: logging.LogRecord) -> bool:
        seen.append(user.get())
        return True

    async def app(request: Request) -> Response:
        user.set(request.path.strip("/"))
        if request.path == "/carol":
            await trio.lowlevel.checkpoint()
        return Response("hello")

    access.addFilter(look)
    async with running(app) as backend:
        for name in ("alice", "bob", "carol"):
            peer = await backend.connect()
            await peer.ask(variables(path=f"/{name}"))
            await peer.answer()
    assert seen == ["alice", "bob", "carol"]


async def test_durations_have_the_units_of_their_atoms(access: Lines) -> None:
    seconds, milli, micro, decimal = (await line_for(access, "%(T)s %(M)s %(D)s %(L)s")).split()
    assert seconds == "0"
    assert int(micro) // 1000 == int(milli)
    assert re.fullmatch(r"\d+\.\d{6}", decimal)
    assert int(float(decimal) * 1_000_000 + 0.5) - int(micro) in (0, 1)


async def test_the_head_of_a_streamed_answer_is_known_when_it_has_ended(access: Lines) -> None:
    access.setFormatter(logs.AccessFormatter("%({content-type}o)s %(B)s"))

    async def numbers() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000
            await trio.lowlevel.checkpoint()

    async def streams(request: Request) -> Response:
        return Response(numbers(), content_type="text/csv")

    async with running(streams) as backend:
        await backend.ask()
    assert access.lines == ["text/csv 300000"]


async def test_what_there_is_none_of_is_a_dash(access: Lines) -> None:
    atoms = ["h", "l", "u", "r", "m", "U", "q", "H", "f", "a", "{x}i", "{x}e"]
    access.setFormatter(logs.AccessFormatter(" ".join(f"%({atom})s" for atom in atoms)))
    async with running(hello) as backend:
        await backend.ask({**GET, "CONTENT_LENGTH": "many"})  # refused before it is a request
    assert access.lines == [" ".join("-" for _ in atoms)]


@pytest.mark.parametrize("format", ["%(X)s", "%(h)d", "%h", "%({x}y)s", "%({}i)s", "100%", "%(h"])
def test_what_is_no_atom_is_an_error_that_names_the_atoms(format: str) -> None:
    with pytest.raises(ValueError, match=r"the atoms are %\(h\)s .*%\(L\)s.*%\(id\)s.*%\(\{variable\}e\)s") as raised:
        logs.AccessFormatter(format)
    assert format in str(raised.value)


# --- nothing secret


SECRET = "c2VjcmV0"


async def test_nothing_secret_is_told_whatever_the_format_asks_for(access: Lines) -> None:
    async def cookie(request: Request) -> Response:
        return Response("", headers=[("Set-Cookie", f"session={SECRET}")])

    names = ["authorization", "Proxy-Authorization", "cookie", "X-Api-Key"]
    as_variables = [f"HTTP_{name.upper().replace('-', '_')}" for name in names]
    more = ["REDIRECT_REDIRECT_HTTP_AUTHORIZATION", "PHP_AUTH_PW"]
    atoms = [f"%({{{name}}}i)s" for name in names] + [f"%({{{name}}}e)s" for name in [*as_variables, *more]]
    access.setFormatter(logs.AccessFormatter(" ".join([*atoms, "%({set-cookie}o)s"])))
    async with running(cookie) as backend:
        await backend.ask({**GET, **dict.fromkeys([*as_variables, *more], SECRET)})
        await backend.ask(GET)
    assert access.lines[0] == " ".join(["[redacted]"] * (len(atoms) + 1))
    assert access.lines[1] == " ".join(["-"] * len(atoms) + ["[redacted]"])


async def test_nothing_secret_is_in_the_JSON(access: Lines) -> None:
    access.setFormatter(logs.JSONFormatter())
    secrets = dict.fromkeys(["HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_PROXY_AUTHORIZATION"], SECRET)
    async with running(hello) as backend:
        await backend.ask({**BROWSER, **secrets})
    assert SECRET not in access.lines[0]


# --- JSON


#: Of the access log, but for the time and the duration.
JSON_FIELDS = {
    "id": "f00",
    "remote_addr": "192.0.2.7",
    "remote_user": None,
    "method": "GET",
    "target": "/some/page?x=1",
    "path": "/some/page",
    "query": "x=1",
    "version": "HTTP/1.1",
    "status": 200,
    "sent": 5,
    "referer": "http://example.org/",
    "user_agent": "Mozilla/5.0",
    "protocol": "fastcgi",
    "pid": os.getpid(),
}


async def test_the_JSON_form_has_native_values(access: Lines) -> None:
    access.setFormatter(logs.JSONFormatter())
    async with running(hello) as backend:
        await backend.ask({**BROWSER, "REQUEST_ID": "f00"})
    found = json.loads(access.lines[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", found.pop("time"))
    assert 0 <= found.pop("seconds") < 10
    assert found == JSON_FIELDS


async def test_a_request_that_was_refused_is_JSON_too(access: Lines) -> None:
    access.setFormatter(logs.JSONFormatter())
    async with running(hello) as backend:
        await backend.ask({**GET, "CONTENT_LENGTH": "many"})
    found = json.loads(access.lines[0])
    assert (found["method"], found["path"], found["status"]) == (None, None, 400)


async def test_errors_can_be_JSON_with_the_id_and_the_traceback(errors: Lines) -> None:
    errors.setFormatter(logs.JSONFormatter())

    async def fails(request: Request) -> Response:
        raise RuntimeError("out of\norder")

    async with running(fails) as backend:
        await backend.ask({**GET, "UNIQUE_ID": "f00"})
    found = json.loads(errors.lines[0])
    assert (found["level"], found["logger"], found["id"]) == ("error", "gateways", "f00")
    assert found["message"] == "GET /: the handler failed"
    assert found["traceback"].endswith("RuntimeError: out of\norder")


# --- ids


async def fails_at_path(request: Request) -> Response:
    if request.path == "/fails":
        raise RuntimeError("out of order")
    request.log("a note")
    return Response("")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"REQUEST_ID": "a1", "UNIQUE_ID": "b2", "HTTP_X_REQUEST_ID": "c3"}, "a1"),
        ({"UNIQUE_ID": "b2", "HTTP_X_REQUEST_ID": "c3"}, "b2"),
        ({"HTTP_X_REQUEST_ID": "c3-d4.e5:f6"}, "c3-d4.e5:f6"),
        ({"HTTP_X_REQUEST_ID": "x" * 129}, None),
        ({"HTTP_X_REQUEST_ID": "two words"}, None),
        ({"HTTP_X_REQUEST_ID": "a\x1b[2J"}, None),
        ({"REQUEST_ID": "ü", "UNIQUE_ID": "b2"}, "b2"),
        ({}, None),
    ],
)
async def test_lines_about_a_request_have_one_id_the_web_servers_if_it_is_sane(
    access: Lines, errors: Lines, given: dict[str, str], expected: str | None
) -> None:
    access.setFormatter(logs.AccessFormatter("%(id)s"))
    async with running(fails_at_path) as backend:
        await backend.ask({**variables(path="/fails"), **given})
    [line] = errors.lines
    found = re.match(r"[\d-]+ [\d:,]+ ERROR \[(\S+)\] GET /fails: the handler failed\n", line)
    assert found is not None
    assert access.lines == [found[1]]
    if expected is None:
        assert re.fullmatch(rf"{os.getpid():x}-\d+", found[1])
    else:
        assert found[1] == expected


async def test_requests_that_bring_no_id_get_one_each(access: Lines) -> None:
    access.setFormatter(logs.AccessFormatter("%(id)s"))
    async with running(hello) as backend:
        for _ in range(3):
            await backend.ask()
    assert len(set(access.lines)) == 3


async def test_the_default_line_ends_in_the_id_where_other_lines_have_it(access: Lines, errors: Lines) -> None:
    async with running(fails_at_path) as backend:
        await backend.ask({**BROWSER, "REQUEST_ID": "f00"})
    async with running(hello) as backend:
        await backend.ask({**BROWSER, "REQUEST_ID": "f00"})
    head = r'[\d-]+ [\d:,]+ INFO 192\.0\.2\.7 "GET /some/page\?x=1" 200 \d+ \d+ms fastcgi'
    assert re.fullmatch(rf"{head} \[f00\]", access.lines[0])
    assert re.fullmatch(head, access.lines[1])
    assert "WARNING [f00] GET /some/page?x=1: a note" in errors.lines[0]


# --- injection

#: What ends a line, rules a terminal, or turns the writing around: CR, LF, ESC, DEL, C1 controls and the like.
NASTY = "\r\n\x1b[2J\x7f\x9b31m\u2028\u2029\u202e\x00\x08"
ESCAPED = r"\r\n\x1b[2J\x7f\x9b31m\u2028\u2029\u202e\x00\x08"


@pytest.mark.parametrize("format", ["default", "combined", '"%({x-nasty}i)s" "%({NASTY}e)s" "%(U)s" "%(r)s"', "json"])
async def test_O20_nothing_in_a_request_ends_a_line_of_the_access_log_or_rules_the_terminal(
    access: Lines, format: str
) -> None:
    access.setFormatter(logs.JSONFormatter() if format == "json" else logs.AccessFormatter(format))
    nasty = NASTY.replace("\x00", "")  # which nobody gets past the protocol
    environ = variables(path=f"/{nasty}", HTTP_USER_AGENT=nasty, HTTP_REFERER=nasty, HTTP_X_NASTY=nasty, NASTY=nasty)
    async with running(hello) as backend:
        await backend.ask(environ)
    [line] = access.lines
    assert line.isprintable()
    assert "2028" in line


def test_O20_surrogates_are_escaped_and_lines_can_be_written() -> None:
    assert printable("caf\udce9") == "caf\\udce9"
    assert printable(NASTY) == ESCAPED


async def test_O20_a_quotation_mark_does_not_end_its_field(access: Lines) -> None:
    line = await line_for(access, '"%(a)s" %(s)s', {**GET, "HTTP_USER_AGENT": 'x" 500 \\" y'})
    assert line == '"x\\" 500 \\\\\\" y" 200'


async def test_O20_a_traceback_cannot_pass_for_lines_of_the_log(errors: Lines) -> None:
    forged = "2026-11-21 18:00:00,000 INFO 192.0.2.9 logged in"

    async def fails(request: Request) -> Response:
        raise RuntimeError(f"no page {request.path}")

    async with running(fails) as backend:
        await backend.ask(variables(path=f"/x\n{forged}\x1b[2J"))
    first, *rest = errors.lines[0].split("\n")
    assert first.endswith(": the handler failed")
    assert f"    {forged}\\x1b[2J" in rest
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize("protocol", [FASTCGI])
async def test_O20_what_goes_to_the_log_of_the_web_server_is_escaped_too(protocol: object) -> None:
    async def logs_it(request: Request) -> Response:
        request.log(f"one{NASTY}two\nthree")
        raise RuntimeError(f"four{NASTY}five")

    async with running(logs_it) as backend:
        answer = await backend.ask()
    lines = answer.log.decode().removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    # The ends of lines are kept, and what follows them is indented.
    assert [line[:4] for line in lines] == ["one\\", "    ", "    ", "Runt", "    "]
    assert lines[2] == "    three"


# --- D10


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_D10_no_traceback_and_no_message_of_an_exception_reaches_a_client(protocol: str, errors: Lines) -> None:
    async def fails(request: Request) -> Response:
        raise RuntimeError(SECRET)

    if protocol == "http":
        async with trio.open_nursery() as nursery:
            [where] = await nursery.start(http.serve, fails, "127.0.0.1:0")
            stream = await trio.open_tcp_stream("127.0.0.1", int(where.rpartition(":")[2]))
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                whole = b"".join([bytes(chunk) async for chunk in stream])
            nursery.cancel_scope.cancel()
        assert whole.startswith(b"HTTP/1.1 500 ")
    else:
        async with running(fails, protocol=FASTCGI if protocol == "fastcgi" else SCGI) as backend:
            answer = await backend.ask()
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        whole = repr(answer.headers).encode()
    assert SECRET.encode() not in whole
    assert b"Traceback" not in whole
    assert SECRET in errors.lines[0]


# --- one line for each request


async def test_a_request_has_one_line_whatever_becomes_of_it(access: Lines) -> None:
    access.setFormatter(logs.AccessFormatter("%(U)s %(s)s"))
    started, released = trio.Event(), trio.Event()

    async def numbers() -> AsyncIterator[bytes]:
        yield b"1"
        await trio.lowlevel.checkpoint()
        yield b"2"

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise RuntimeError

    async def app(request: Request) -> Response:
        match request.path:
            case "/waits":
                await trio.lowlevel.checkpoint()
            case "/streams":
                return Response(numbers())
            case "/breaks":
                return Response(breaks())
            case "/fails":
                raise RuntimeError
            case "/rejects":
                raise Reject(404)
            case "/hangs":
                started.set()
                await trio.sleep_forever()
            case "/early":
                response = Response("early")
                await request.answer(response)
                await trio.lowlevel.checkpoint()
                return response
            case "/stubborn":
                started.set()
                with trio.CancelScope(shield=True):
                    await released.wait()
            case _:
                pass
        return Response("")

    tally = Tally()
    async with running(app, tally=tally, limits=Limits(goodbye_timeout=0.05)) as backend:
        for path in ("/", "/waits", "/streams", "/breaks", "/fails", "/rejects", "/early"):
            await backend.ask(variables(path=path))
        for path in ("/hangs", "/stubborn"):
            started = trio.Event()
            peer: Peer = await backend.connect()
            await peer.ask(variables(path=path), keep=True)
            await started.wait()
            await peer.send(peer.client.abort(1))
            await peer.answer()
        released.set()
        await trio.testing.wait_all_tasks_blocked()
    assert access.lines == [
        "/ 200",
        "/waits 200",
        "/streams 200",
        "/breaks 200",
        "/fails 500",
        "/rejects 404",
        "/early 200",
        "/hangs -",
        "/stubborn -",
    ]
    assert tally.begun == len(access.lines)


async def test_the_records_are_those_of_logging_with_an_entry_as_their_message(access: Lines) -> None:
    async with running(hello) as backend:
        await backend.ask(BROWSER)
    [record] = access.records
    made = logging.LogRecord(ACCESS, logging.INFO, "", 0, None, None, None)
    assert record.__dict__.keys() >= made.__dict__.keys()
    assert (record.name, record.levelname, record.process) == (ACCESS, "INFO", os.getpid())
    assert abs(record.created - made.created) < 60
    assert isinstance(record.msg, AccessEntry)
    assert record.getMessage() == str(record.msg)
    assert (record.msg.status, record.msg.sent, record.msg.protocol) == (200, 5, "fastcgi")


async def test_a_factory_of_records_is_asked(access: Lines) -> None:
    class Own(logging.LogRecord):
        pass

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Own)
    try:
        async with running(hello) as backend:
            await backend.ask()
    finally:
        logging.setLogRecordFactory(before)
    assert [type(record) for record in access.records] == [Own]


# --- where lines go


def logger_to(handler: logging.Handler, name: str = "tests.logs") -> logging.Logger:
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


def pipe_in(folder: Path) -> tuple[logging.Logger, int]:
    """A logger that writes to a named pipe, and the other end of that, from which nobody reads yet."""
    path = folder / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    handler = logs.LineHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return logger_to(handler), reader


def read_until(reader: int, end: bytes) -> bytes:
    """What comes out of a pipe, until it ends so."""
    os.set_blocking(reader, True)
    found = bytearray()
    while not found.endswith(end):
        found += os.read(reader, 65536)
    return bytes(found)


def test_O19_a_reader_who_is_slow_gets_every_line_whole_and_in_order(tmp_path: Path) -> None:
    logger, reader = pipe_in(tmp_path)
    lines = [f"{number} " + "x" * (number % 7000) for number in range(100)]  # several times what a pipe holds
    for line in lines:
        logger.info("%s", line)
    assert read_until(reader, (lines[-1] + "\n").encode()).decode().splitlines() == lines


def test_O19_lines_that_nobody_reads_are_dropped_and_counted(tmp_path: Path) -> None:
    logger, reader = pipe_in(tmp_path)
    number = 0
    lost = logger.handlers[0]._outlet  # type: ignore[attr-defined]
    while lost.lost < 10:
        logger.info("%d %s", number, "x" * 5000)
        number += 1
    kept = number - lost.lost
    found = read_until(reader, f"{kept - 1} {'x' * 5000}\n".encode()).decode().splitlines()
    assert found == [f"{each} {'x' * 5000}" for each in range(kept)]
    logger.info("the end")
    assert read_until(reader, b"the end\n") == b"10 lines of the log could not be written here\nthe end\n"


def test_O19_a_full_disk_stops_nothing_and_is_told_of(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full")
    (tmp_path / "log").symlink_to("/dev/full")
    handler = logs.LineHandler(tmp_path / "log")
    handler.setFormatter(logs.ErrorFormatter())
    logger = logger_to(handler)
    for _ in range(3):
        logger.warning("lost")
    (tmp_path / "log").unlink()
    outlet.outlets[str(tmp_path / "log")].reopen()
    logger.warning("found")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("WARNING 3 lines of the log could not be written here")
    assert second.endswith("WARNING found")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_what_waits_is_written_by_one_process_alone(tmp_path: Path) -> None:
    logger, reader = pipe_in(tmp_path)
    for number in range(30):
        logger.info("%d %s", number, "x" * 5000)
    child = os.fork()
    if not child:
        try:
            logger.handlers[0].flush()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = read_until(reader, f"29 {'x' * 5000}\n".encode()).decode().splitlines()
    assert [line.split()[0] for line in found] == [str(number) for number in range(30)]


def test_a_line_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    handler = logs.LineHandler(tmp_path / "log")
    logger_to(handler).info("%d", "x")
    assert "a line of the log could not be made: TypeError(" in (tmp_path / "log").read_text()


# --- configuring


@pytest.fixture
def restored() -> Iterator[logging.Logger]:
    """The logger of the package, put back as it was in the end."""
    loggers = [logging.getLogger(name) for name in ("gateways", ACCESS)]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield loggers[0]
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    logs._added.clear()


def test_configured_twice_it_is_as_the_second_time_says(tmp_path: Path, restored: logging.Logger) -> None:
    logs.configure(error_file=tmp_path / "one", access_file=tmp_path / "one")
    restored.info("1")
    logs.configure(error_file=tmp_path / "two", access=False, level="warning")
    restored.info("not this")
    restored.warning("2")
    assert (tmp_path / "one").read_text().endswith(" INFO 1\n")
    assert (tmp_path / "two").read_text().endswith(" WARNING 2\n")
    assert len((tmp_path / "two").read_text().splitlines()) == 1
    assert not logging.getLogger(ACCESS).isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    "wrong",
    [{"access_format": "%(X)s"}, {"level": "loud"}, {"error_file": "/no/such/folder/x"}, {"config": "/no/such/file"}],
)
def test_what_cannot_be_configured_changes_nothing(
    tmp_path: Path, restored: logging.Logger, wrong: dict[str, Any]
) -> None:
    logs.configure(error_file=tmp_path / "log", access=False)
    with pytest.raises((ValueError, OSError)):
        logs.configure(**wrong)
    restored.info("as before")
    assert (tmp_path / "log").read_text().endswith(" INFO as before\n")


def test_a_configuration_of_the_application_does_not_end_the_log(tmp_path: Path, restored: logging.Logger) -> None:
    """Django, for one, has logging.config close every handler there is."""
    logs.configure(error_file=tmp_path / "log")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    restored.info("still here")
    assert (tmp_path / "log").read_text().endswith(" INFO still here\n")


# --- reopening


def test_files_are_opened_anew_by_name_and_no_line_is_lost(tmp_path: Path) -> None:
    plain = logging.FileHandler(tmp_path / "plain")
    rotating = logging.handlers.RotatingFileHandler(tmp_path / "rotating", delay=True)
    behind = logging.FileHandler(tmp_path / "behind")
    loggers = {
        "ours": logger_to(logs.LineHandler(tmp_path / "ours"), "tests.ours"),
        "plain": logger_to(plain, "tests.plain"),
        "rotating": logger_to(rotating, "tests.rotating"),
        "behind": logger_to(logging.handlers.MemoryHandler(1, target=behind), "tests.behind"),
    }
    try:
        for name, logger in loggers.items():
            logger.info("one")
            (tmp_path / name).rename(tmp_path / f"{name}.1")
            logger.info("two")  # between logrotate's move and its signal
        logs.reopen()
        for name, logger in loggers.items():
            logger.info("three")
            assert (tmp_path / f"{name}.1").read_text() == "one\ntwo\n", name
            assert (tmp_path / name).read_text() == "three\n", name
    finally:
        for logger in loggers.values():
            logger.handlers.clear()
        for handler in (plain, rotating, behind):
            handler.close()


def test_a_file_that_cannot_be_opened_anew_stays_and_a_line_says_so(tmp_path: Path, errors: Lines) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    logger = logger_to(logs.LineHandler(folder / "log"))
    folder.rename(tmp_path / "moved")
    logs.reopen()
    logger.info("still here")
    assert (tmp_path / "moved" / "log").read_text() == "still here\n"
    assert any(
        line.endswith(f"cannot open the log {folder}/log anew: No such file or directory") for line in errors.lines
    )
    outlet.outlets.pop(str(folder / "log"))


# --- the page about logs

PAGE = Path(__file__).parent.parent / "docs" / "logging.rst"


def test_the_page_has_every_atom_with_what_it_stands_for() -> None:
    rows = re.findall(r"^   \* - ``%(.*)``\n     - (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {f"({name})s": meaning for name, (meaning, _) in logs._ATOMS.items()} | {
        "({header}i)s": "a header field of the request",
        "({header}o)s": "a header field of the response",
        "({variable}e)s": "a meta-variable",
        "%": "a percent sign",
    }


def test_the_formats_on_the_page_are_formats() -> None:
    formats = re.findall(r"--access-log-format ('[^']+'|\w+)", PAGE.read_text(encoding="utf-8"))
    assert len(formats) == 3
    for format in formats:
        if format != "json":
            logs.AccessFormatter(format.strip("'"))


def test_the_configuration_on_the_page_is_served_with(folder: Path, address: str) -> None:
    [block] = re.findall(r"code-block:: toml\n\n((?:   .*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
    (folder / "log.toml").write_text(textwrap.dedent(block))
    (folder / "hello.py").write_text(HELLO.replace("    return", "    request.log('a note')\n    return"))
    with serving("hello.py", "--bind", address, "--log-config=log.toml", cwd=folder) as program:
        ask(address, "/seen", REMOTE_ADDR="192.0.2.7")
        program.wait_for(r'"message":"GET /seen: a note"')
    assert (folder / "access.log").read_text().startswith("192.0.2.7 - - [")


def test_fields_of_the_JSON_are_on_the_page() -> None:
    record = logging.LogRecord(ACCESS, logging.INFO, "", 0, "", None, None)
    text = PAGE.read_text(encoding="utf-8")
    fields = [*json.loads(logs.JSONFormatter().format(record)), *JSON_FIELDS]
    assert [name for name in fields if name not in ("level", "logger", "message") and f"``{name}``" not in text] == []


# --- the command line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


def test_access_and_error_log_go_to_files_in_the_format_asked_for(folder: Path, address: str) -> None:
    (folder / "hello.py").write_text(HELLO.replace("    return", "    request.log('a note')\n    return"))
    flags = ["--access-log=access.log", "--error-log=error.log", "--access-log-format=%(m)s %(U)s %(id)s"]
    with serving("hello.py", "--bind", address, *flags, cwd=folder) as program:
        ask(address, "/seen", REQUEST_ID="f00")
        poll(lambda: (folder / "access.log").read_text() == "GET /seen f00\n", "the line is there")
        program.signal(signal.SIGTERM)
        program.wait()
    assert "/seen" not in program.text
    assert "WARNING [f00] GET /seen: a note" in (folder / "error.log").read_text()


def test_SIGUSR1_opens_the_files_anew(folder: Path, address: str) -> None:
    log = folder / "access.log"
    with serving("hello.py", "--bind", address, "--access-log=access.log", cwd=folder) as program:
        ask(address, "/one")
        poll(lambda: "/one" in log.read_text(), "the line is there")
        log.rename(folder / "access.log.1")
        ask(address, "/two")
        poll(lambda: "/two" in (folder / "access.log.1").read_text(), "the line is in the old file")
        program.signal(signal.SIGUSR1)
        poll(log.exists, "there is a new file")
        ask(address, "/three")
        poll(lambda: "/three" in log.read_text(), "the line is in the new file")
    assert "/three" not in (folder / "access.log.1").read_text()
    assert "/two" not in log.read_text()


def test_the_level_of_the_error_log_leaves_the_access_log_alone(folder: Path, address: str) -> None:
    (folder / "hello.py").write_text(HELLO.replace("    return", "    request.log('a note')\n    return"))
    with serving("hello.py", "--bind", address, "--log-level=error", cwd=folder) as program:
        ask(address, "/seen")
        program.wait_for('INFO - "GET /seen" 200')
        assert "a note" not in program.text


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--access-log-format=%(X)s"], "%(X)s is no atom; the atoms are %(h)s"),
        (["--access-log-format=%h"], "has a % that begins no atom"),
        (["--access-log=no/such/folder/log"], "cannot log to "),
        (["--log-config=nothing.toml"], "cannot log to nothing.toml: No such file"),
        (["--log-config=broken.toml"], "broken.toml: "),
        (["--log-config=wrong.json"], "wrong.json does not configure logging: "),
        (["--log-config=wrong.ini"], "wrong.ini does not configure logging: "),
        (["--log-config=wrong.json", "--access-log=x"], "--access-log says nothing beside --log-config"),
        (["--log-level=loud"], "invalid choice: 'loud'"),
    ],
)
def test_what_makes_no_sense_is_a_mistake_at_the_start(
    folder: Path, address: str, flags: list[str], complaint: str
) -> None:
    (folder / "broken.toml").write_text("[[[")
    (folder / "wrong.json").write_text('{"handlers": {"x": {"class": "no.such.Class"}}}')
    (folder / "wrong.ini").write_text("[loggers]\n")
    done = run("serve", "hello.py", "--bind", address, *flags, cwd=folder)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


TOML = """\
[formatters.line]
"()" = "gateways.logs.AccessFormatter"
format = "%(U)s"
[handlers.file]
class = "logging.FileHandler"
filename = "config.log"
formatter = "line"
[loggers."gateways.access"]
handlers = ["file"]
"""

JSON = """\
{"formatters": {"line": {"()": "gateways.logs.AccessFormatter", "format": "%(U)s"}},
 "handlers": {"file": {"class": "gateways.logs.LineHandler", "filename": "config.log", "formatter": "line"}},
 "root": {"handlers": ["file"]}}
"""

INI = """\
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = line
[logger_root]
handlers = file
[handler_file]
class = FileHandler
args = ("config.log",)
formatter = line
[formatter_line]
class = gateways.logs.AccessFormatter
format = %(U)s
"""


@pytest.mark.parametrize(("name", "text"), [("log.toml", TOML), ("log.json", JSON), ("log.ini", INI)])
def test_a_configuration_of_logging_says_it_all(folder: Path, address: str, name: str, text: str) -> None:
    (folder / name).write_text(text)
    log = folder / "config.log"
    with serving("hello.py", "--bind", address, "--log-config", name, cwd=folder) as program:
        ask(address, "/seen")
        poll(lambda: "/seen" in log.read_text(), "the line is there")
        program.signal(signal.SIGTERM)
        program.wait()
    assert "/seen\n" in log.read_text()
    assert "/seen" not in program.text


def test_O19_serving_goes_on_though_nobody_reads_stderr_and_the_lost_lines_are_counted(
    folder: Path, address: str
) -> None:
    end, theirs = os.pipe()
    command = [sys.executable, "-m", "gateways", "serve", "hello.py", "--bind", address]
    import subprocess

    from tests.cli.program import environment

    with open(end, "rb") as reader:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=theirs)
        try:
            os.close(theirs)
            while not reader.readline().startswith(b"stop with"):
                pass
            path = "/" + "x" * 20_000
            statuses = [getattr(ask(address, path), "status", None) for _ in range(100)]
            assert statuses == [200] * 100  # two megabytes of lines
            # Now somebody reads again: all that was kept comes, then the count, and a new line.
            lines = 0
            while lines < 50:
                lines += path.encode() in reader.readline()
            seen = b""
            while b"could not be written" not in seen:
                ask(address, "/again")
                seen = reader.readline()
                lines += path.encode() in seen
            dropped = int(seen.split()[3])
            assert lines + dropped == 100
        finally:
            process.terminate()
            process.wait(30)


def test_O19_serving_goes_on_though_the_disk_is_full(folder: Path, address: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full")
    flags = ["--access-log=/dev/full", "--error-log=/dev/full"]
    with serving("hello.py", "--bind", address, *flags, cwd=folder):
        statuses = [getattr(ask(address, "/x"), "status", None) for _ in range(5)]
    assert statuses == [200] * 5


def test_under_CGI_nothing_of_logging_is_loaded(folder: Path) -> None:
    (folder / "hello.py").write_text(
        HELLO + "import sys, atexit\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    )
    given = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "GATEWAYS_ACCESS_LOG": "access.log"}
    done = run("serve", "hello.py", cwd=folder, environ=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Status: 200")
    assert not {"logging", "gateways.logs", "gateways._net.access", "trio"} & set(done.stderr.split())
    assert not (folder / "access.log").exists()
