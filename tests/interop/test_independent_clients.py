"""Clients that others wrote, against our server on real sockets: in C, Perl, JavaScript and Python.

They are cgi-fcgi of libfcgi, the Perl module FCGI::Client, the npm packages fastcgi-client and fastcgi-stream, and
fcgi-client of PyPI. The programs in ``clients/`` drive those in other languages. What a client does wrong, or cannot
do, stands beside the tests that have to do without it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import fcgi_client  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
import trio

from gateways import Limits, Request, Response
from gateways._net import serving
from gateways.fastcgi import ServerConnection, wire
from tests.fastcgi.tools import END, PARAMS, STDIN, STDOUT
from tests.interop.servers import require
from tests.net.tools import running, unix, variables

#: Seconds for anything here.
PATIENCE = 60.0

CLIENTS = Path(__file__).parent / "clients"
PACKAGES = CLIENTS / "node_modules"

#: Bytes of every value, and more than fits into a record.
BODY = bytes(range(256)) * 300
#: An answer of many records in which no two neighbouring blocks are equal.
BIG = b"".join(bytes([number % 251]) * 4096 for number in range(60))
LOG = "a word for the log: Grüße"
COOKIES = ["a=1; Path=/", "b=2; Path=/x"]
APP_STATUS = 7


class Site:
    """The application, and what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.let_go = trio.Event()
        self.cancelled = trio.Event()

    async def answer(self, request: Request) -> Response:
        body = await request.body.read()
        self.seen.append((dict(request.environ_as_sent), body))
        match request.path_info:
            case "/big":
                return Response(BIG)
            case "/report":
                request.log(LOG)
                cookies = [("Set-Cookie", cookie) for cookie in COOKIES]
                return Response("noted", 201, cookies, app_status=APP_STATUS)
            case "/wait":
                return Response(self._wait, content_type="text/plain")
            case "/let-go":
                self.let_go.set()
                return Response("done")
            case _:
                return Response(body)

    async def _wait(self, send: Callable[[str | bytes], Awaitable[None]]) -> None:
        try:
            await send("first ")
            await self.let_go.wait()
            await send("last")
        except trio.Cancelled:
            self.cancelled.set()
            raise


class Recorded(ServerConnection):
    """Our side of a connection, with all that came."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.received = bytearray()

    def receive_data(self, data: bytes) -> list[Any]:
        self.received += data
        return super().receive_data(data)

    def records(self) -> list[wire.Record]:
        return list(wire.RecordScanner().scan(bytes(self.received)))


@attrs.frozen
class Server:
    """Our server: where it listens, the application, and the connections so far."""

    address: str
    site: Site
    connections: list[Recorded]

    def where(self, *names: str) -> dict[str, Any]:
        """The address under the names that a client has for a path, or for a host and a port."""
        if self.address.startswith("unix:"):
            return {names[0]: self.address.removeprefix("unix:")}
        host, _, port = self.address.rpartition(":")
        return {names[1]: host, names[2]: int(port)}


@asynccontextmanager
async def serving_on(listen: str, **limits: Any) -> AsyncGenerator[Server]:
    connections: list[Recorded] = []

    def connect(stream: object, **options: Any) -> Recorded:
        connections.append(Recorded(**options))
        return connections[-1]

    site = Site()
    protocol = serving.Protocol("fastcgi", connect, frozenset({1}))
    with trio.fail_after(PATIENCE):
        async with running(site.answer, listen, protocol, limits=Limits(**limits)) as backend:
            yield Server(backend.addresses[0], site, connections)


@pytest.fixture
def folder() -> Generator[Path]:
    with TemporaryDirectory(prefix="gw") as name:
        yield Path(name)


@pytest.fixture
async def server(folder: Path) -> AsyncGenerator[Server]:
    async with serving_on(unix(folder)) as started:
        yield started


# --- The clients -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Said:
    """What a client made of an answer. None: it does not tell."""

    stdout: bytes
    stderr: bytes | None
    status: int | None

    @property
    def head(self) -> list[str]:
        return self.stdout.partition(b"\r\n\r\n")[0].decode().split("\r\n")

    @property
    def body(self) -> bytes:
        return self.stdout.partition(b"\r\n\r\n")[2]


#: Ask a server once.
Ask = Callable[[Server, Mapping[str, str], bytes], Awaitable[Said]]


def posted(body: bytes, path: str = "/echo", **more: str) -> dict[str, str]:
    return variables("POST", path, CONTENT_LENGTH=str(len(body)), **more)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(data: str | None) -> bytes:
    return base64.b64decode(data or "")


async def drive(command: Sequence[str], order: object) -> Any:
    """Run one of our programs in ``clients/``: JSON in, JSON out."""
    done = await trio.run_process(command, stdin=json.dumps(order).encode(), capture_stdout=True)
    return json.loads(done.stdout)


async def by_cgi_fcgi(server: Server, environ: Mapping[str, str], body: bytes = b"") -> Said:
    """Its environment is the request's. It exits with the application status, as far as that fits."""
    done = await trio.run_process(
        cgi_fcgi_command(server),
        stdin=body,
        env=environ,
        check=False,
        capture_stdout=True,
        capture_stderr=True,
    )
    return Said(done.stdout, done.stderr, done.returncode)


def cgi_fcgi_command(server: Server) -> list[str]:
    return ["cgi-fcgi", "-bind", "-connect", server.address.removeprefix("unix:")]


async def through_perl(server: Server, *requests: dict[str, Any]) -> Any:
    order = {"connect": server.where("unix", "host", "port"), "requests": requests}
    return await drive(["perl", str(CLIENTS / "fcgi_client.pl")], order)


async def by_perl(server: Server, environ: Mapping[str, str], body: bytes = b"") -> Said:
    [answer] = await through_perl(server, {"env": dict(environ), "body": b64(body)})
    return Said(unb64(answer["stdout"]), unb64(answer["stderr"]), answer["status"])


def node(program: str) -> list[str]:
    """The command for a program; the packages that it uses are older than the newest ways to make a buffer."""
    return ["node", "--no-deprecation", str(CLIENTS / program)]


async def through_fastcgi_client(server: Server, *requests: dict[str, Any]) -> Any:
    order = {"connect": server.where("sockFile", "host", "port"), "requests": requests}
    return await drive(node("fastcgi_client.js"), order)


async def by_fastcgi_client(server: Server, environ: Mapping[str, str], body: bytes = b"") -> Said:
    outcome = await through_fastcgi_client(server, {"params": dict(environ), "body": b64(body)})
    [said] = _answers(outcome)
    return said


def _answers(outcome: Any) -> list[Said]:
    assert [answer for answer in outcome["answers"] if "error" in answer] == []
    return [Said(unb64(answer["stdout"]), unb64(answer["stderr"]), answer["status"]) for answer in outcome["answers"]]


#: A record as fastcgi-stream names and reads it: type, request id, contents.
Read = list[Any]
#: Records to send, and the record to wait for then, or "close".
Phase = tuple[list[list[Any]], Any]


async def through_fastcgi_stream(server: Server, *phases: Phase) -> list[Read]:
    order = {
        "connect": server.where("path", "host", "port"),
        "phases": [{"send": send, "until": until} for send, until in phases],
    }
    records: list[Read] = await drive(node("fastcgi_stream.js"), order)
    return records


def in_records(
    environ: Mapping[str, str], body: bytes = b"", *, stream_id: int = 1, role: int = 1, flags: int = 1
) -> list[list[Any]]:
    """A request for fastcgi-stream. Its Params takes pairs, and a length over 65,535 would wrap in its header."""
    return [
        ["BeginRequest", stream_id, role, flags],
        ["Params", stream_id, list(environ.items())],
        ["Params", stream_id, []],
        *(["StdIn", stream_id, b64(body[at : at + 65_535])] for at in range(0, len(body), 65_535)),
        ["StdIn", stream_id, ""],
    ]


async def by_fastcgi_stream(server: Server, environ: Mapping[str, str], body: bytes = b"") -> Said:
    records = await through_fastcgi_stream(server, (in_records(environ, body), ["EndRequest", 1]))
    assert records[-1] == ["EndRequest", 1, records[-1][2], wire.REQUEST_COMPLETE]
    return Said(_stream(records, "StdOut"), _stream(records, "StdErr"), records[-1][2])


def _stream(records: list[Read], kind: str, stream_id: int = 1) -> bytes:
    return b"".join(unb64(record[2]) for record in records if record[:2] == [kind, stream_id])


async def by_fcgi_client(server: Server, environ: Mapping[str, str], body: bytes = b"") -> Said:
    """It reads until the connection ends, so it cannot keep one; and adds STDERR to the answer, where it came."""
    answer = await fcgi_client_says(fcgi_client.FastCGIClient, server, "request", environ, body)
    return Said(bytes(answer), None, None)


async def fcgi_client_says(kind: Any, server: Server, method: str, *arguments: Any, **options: Any) -> Any:
    """What a method of a new client of this kind returns; it blocks a thread meanwhile."""
    client = kind(server.address.replace("unix:", "unix://"), timeout=PATIENCE)
    return await trio.to_thread.run_sync(partial(getattr(client, method), *arguments, **options))


#: What fits into one record: fcgi-client sends a body in one, and its length wraps beyond that.
ONE_RECORD = 65_535
ALL: dict[str, Ask] = {
    "cgi-fcgi": by_cgi_fcgi,
    "FCGI::Client": by_perl,
    "fastcgi-client": by_fastcgi_client,
    "fastcgi-stream": by_fastcgi_stream,
    "fcgi-client": by_fcgi_client,
}
#: What has to be installed for each. The package of PyPI is, with all that the tests import.
NEEDS: dict[str, tuple[str, ...]] = {
    "cgi-fcgi": ("cgi-fcgi",),
    "FCGI::Client": ("perl", "/usr/share/perl5/FCGI/Client.pm"),
    "fastcgi-client": ("node", str(PACKAGES / "fastcgi-client")),
    "fastcgi-stream": ("node", str(PACKAGES / "fastcgi-stream")),
    "fcgi-client": (),
}


# Not within the tests: what trio runs cannot say why it is skipped.


@pytest.fixture(params=ALL)
def client(request: pytest.FixtureRequest) -> str:
    require(*NEEDS[request.param])
    return str(request.param)


@pytest.fixture
def cgi_fcgi() -> None:
    require(*NEEDS["cgi-fcgi"])


@pytest.fixture
def perl_client() -> None:
    require(*NEEDS["FCGI::Client"])


@pytest.fixture
def fastcgi_client() -> None:
    require(*NEEDS["fastcgi-client"])


@pytest.fixture
def fastcgi_stream() -> None:
    require(*NEEDS["fastcgi-stream"])


# --- What all of them can do -----------------------------------------------------------------------------------------


async def test_F20_a_get_is_seen_as_it_was_sent(client: str, server: Server) -> None:
    environ = variables("GET", "/echo", QUERY_STRING="a=1&b=%C3%A9", EMPTY="", HTTP_X_127="x" * 127)
    environ["HTTP_X_" + "LONG_" * 30] = "y" * 1000
    if client != "fcgi-client":  # it knows ASCII alone
        environ["HTTP_X_TEXT"] = "Grüße, 世界"
    said = await ALL[client](server, environ, b"")
    assert said.head[0] == "Status: 200 OK"
    assert said.body == b""
    assert server.site.seen == [(environ, b"")]


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_F17_a_body_and_its_echo_keep_every_byte(client: str, transport: str, folder: Path) -> None:
    body = BODY[:ONE_RECORD] if client == "fcgi-client" else BODY
    async with serving_on(unix(folder) if transport == "unix" else "127.0.0.1:0") as server:
        said = await ALL[client](server, posted(body), body)
        assert said.head[0] == "Status: 200 OK"
        assert said.body == body
        assert server.site.seen == [(posted(body), body)]


async def test_F10_an_answer_of_many_records_arrives_whole(client: str, server: Server) -> None:
    said = await ALL[client](server, variables("GET", "/big"), b"")
    assert f"Content-Length: {len(BIG)}" in said.head
    assert said.body == BIG
    assert said.status in {0, None}


async def test_F32_F35_cookies_the_log_and_the_application_status_arrive(client: str, server: Server) -> None:
    said = await ALL[client](server, variables("GET", "/report"), b"")
    if client == "fcgi-client":
        # It puts STDERR and STDOUT into one text, in the order of their records: ours come in this one.
        stderr, stdout = said.stdout[: len(LOG.encode()) + 1], said.stdout[len(LOG.encode()) + 1 :]
        said = Said(stdout, stderr, APP_STATUS)
    assert said.head[0] == "Status: 201 Created"
    assert [line for line in said.head if line.startswith("Set-Cookie")] == [f"Set-Cookie: {text}" for text in COOKIES]
    assert said.body == b"noted"
    assert said.stderr == f"{LOG}\n".encode()
    assert said.status == APP_STATUS


# --- cgi-fcgi --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cgi_fcgi")
async def test_F17_F20_cgi_fcgi_splits_a_large_environment_inside_pairs(server: Server) -> None:
    environ = posted(b"hello") | {f"HTTP_X_{number}": f"{number}" * 1000 for number in range(40)}
    assert (await by_cgi_fcgi(server, environ, b"hello")).body == b"hello"
    assert server.site.seen == [(environ, b"hello")]
    params = [content for kind, _, content, _ in server.connections[0].records() if kind == PARAMS and content]
    size, within = 0, 0
    block = b"".join(params)
    assert len(block) > 65_536
    for content in params[:-1]:
        size += len(content)
        within += wire.scan_pairs(block[:size])[1] < size
    assert within > 3


@pytest.mark.usefixtures("cgi_fcgi")
async def test_F36_a_cut_off_upload_of_cgi_fcgi_is_refused(server: Server) -> None:
    """At the end of its input it ends STDIN, however much was announced: only the length tells that it broke off."""
    environ = variables("POST", "/echo", CONTENT_LENGTH="1000")
    said = await by_cgi_fcgi(server, environ, b"x" * 100)
    assert said.head[0] == "Status: 400 Bad Request"
    assert server.site.seen == []
    [connection] = server.connections
    assert [record[:3] for record in connection.records() if record[0] == STDIN] == [
        (STDIN, 1, b"x" * 100),
        (STDIN, 1, b""),
    ]


@pytest.mark.usefixtures("cgi_fcgi")
async def test_F07_killing_cgi_fcgi_cancels_the_handler(server: Server) -> None:
    """It never sends FCGI_ABORT_REQUEST."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, cgi_fcgi_command(server), env=variables("GET", "/wait"), stdout=PIPE, check=False
        )
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        await read_until(process.stdout, b"first ")
        process.kill()
        await server.site.cancelled.wait()


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> None:
    data = b""
    while not data.endswith(end):
        more = await stream.receive_some()
        assert more, data
        data += more


# --- FCGI::Client ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("perl_client")
async def test_F20_a_length_of_127_may_take_four_bytes(server: Server) -> None:
    """Perl's FCGI::Client uses them from 127 on, one earlier than anybody has to."""
    environ = variables("GET", "/echo", A="x" * 127, B="y" * 126)
    await by_perl(server, environ)
    assert server.site.seen == [(environ, b"")]
    [connection] = server.connections
    assert b"\x01\x80\x00\x00\x7fAx" in connection.received
    assert b"\x01\x7eBy" in connection.received


@pytest.mark.usefixtures("perl_client")
async def test_F36_a_body_that_a_client_forgets_is_refused(server: Server) -> None:
    """FCGI::Client sends no body that is false to Perl, and "0" is."""
    said = await by_perl(server, posted(b"0"), b"0")
    assert said.head[0] == "Status: 400 Bad Request"
    assert server.site.seen == []


def perl_records(
    environ: Mapping[str, str], body: bytes = b"", *, stream_id: int = 1, role: int = 1, flags: int = 1
) -> list[list[Any]]:
    """A request as calls of RecordFactory."""
    flat = [text for each in environ.items() for text in each]
    return [
        ["build_begin_request", stream_id, role, flags],
        ["build_params", stream_id, *flat],
        ["build_params", stream_id],
        ["build_stdin", stream_id, b64(body)],
        *([["build_stdin", stream_id, ""]] if body else []),
    ]


async def perl_conversation(server: Server, *phases: Phase) -> list[tuple[int, int, bytes]]:
    """Its request() knows neither FCGI_KEEP_CONN nor aborts; its RecordFactory makes the records all the same."""
    told = [{"send": send, "until": until} for send, until in phases]
    [answer] = await through_perl(server, {"phases": told})
    return [(kind, stream_id, unb64(content)) for kind, stream_id, content in answer["records"]]


def ends(records: Sequence[Sequence[Any]]) -> list[Any]:
    return [list(record[1:]) for record in records if record[0] in {END, "EndRequest"}]


@pytest.mark.usefixtures("perl_client")
async def test_F06_F14_perl_asks_again_on_a_kept_connection(server: Server) -> None:
    records = await perl_conversation(
        server,
        (perl_records(posted(b"one"), b"one"), END),
        (perl_records(variables("GET", "/big")), END),
        (perl_records(posted(b"three"), b"three", stream_id=65_535, flags=0), END),
    )
    bodies = [b"".join(content for kind, _, content in part if kind == STDOUT) for part in _answered(records)]
    assert [body.partition(b"\r\n\r\n")[2] for body in bodies] == [b"one", BIG, b"three"]
    assert ends(records) == [[1, bytes(8)], [1, bytes(8)], [65_535, bytes(8)]]
    assert len(server.connections) == 1


def _answered(records: Sequence[tuple[int, int, bytes]]) -> list[list[tuple[int, int, bytes]]]:
    """The records of one answer after another."""
    parts: list[list[tuple[int, int, bytes]]] = [[]]
    for record in records:
        parts[-1].append(record)
        if record[0] == END:
            parts.append([])
    return parts[:-1]


@pytest.mark.usefixtures("perl_client")
async def test_F37_perl_aborts_a_request(server: Server) -> None:
    abort = ["build_base", "2", 1, ""]  # FCGI_ABORT_REQUEST; its arguments are type, id and content
    records = await perl_conversation(
        server,
        (perl_records(variables("GET", "/wait")), STDOUT),
        ([abort], END),
        (perl_records(posted(b"next"), b"next"), END),
    )
    assert server.site.cancelled.is_set()
    first, second = _answered(records)
    assert b"last" not in b"".join(content for _, _, content in first)
    assert first[-1][:2] == (END, 1)
    assert second[-1] == (END, 1, bytes(8))


@pytest.mark.usefixtures("perl_client")
async def test_F29_perl_is_told_that_a_role_is_unknown(server: Server) -> None:
    records = await perl_conversation(
        server,
        (perl_records(posted(b"x"), b"x", role=9), END),
        (perl_records(posted(b"next"), b"next", stream_id=2), END),
    )
    assert records[0] == (END, 1, b"\0\0\0\0\3\0\0\0")
    assert records[-1] == (END, 2, bytes(8))
    assert [body for _, body in server.site.seen] == [b"next"]


# --- fastcgi-client --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fastcgi_client")
async def test_F25_F26_fastcgi_client_shares_a_connection_since_we_say_that_it_may(server: Server) -> None:
    """It keeps a connection only while requests are under way on it, so one that waits holds it open for the rest."""
    bodies = [f"body {number}".encode() * 20 for number in range(10)]
    outcome = await through_fastcgi_client(
        server,
        {"params": variables("GET", "/wait")},
        *({"params": posted(body), "body": b64(body), "after": [0, "output"]} for body in bodies),
        {"params": posted(b"again"), "body": b64(b"again"), "after": [10, "end"]},
        {"params": variables("GET", "/report"), "after": [11, "end"]},
        {"params": variables("GET", "/let-go"), "after": [12, "end"]},
    )
    limits = Limits()
    assert outcome["values"] == {
        "connections": limits.max_connections,
        "requests": limits.max_ids,
        "multiplexing": True,
    }
    waited, *echoed, again, reported, let_go = _answers(outcome)
    assert waited.body == b"first last"
    assert [said.body for said in echoed] == bodies
    assert again.body == b"again"
    assert (reported.stderr, reported.status) == (f"{LOG}\n".encode(), APP_STATUS)
    assert let_go.body == b"done"
    # One for the question, one for all requests.
    assert [connection.statistics().requests for connection in server.connections] == [0, 14]
    assert [record[0] for record in server.connections[0].records()] == [wire.GET_VALUES]


@pytest.mark.usefixtures("fastcgi_client")
async def test_F30_fastcgi_client_takes_a_connection_for_each_request_where_we_say_so(folder: Path) -> None:
    async with serving_on(unix(folder), max_ids=1) as server:
        outcome = await through_fastcgi_client(
            server,
            {"params": variables("GET", "/wait")},
            {"params": posted(b"beside"), "body": b64(b"beside"), "after": [0, "output"]},
            {"params": variables("GET", "/let-go"), "after": [1, "end"]},
        )
        assert outcome["values"]["multiplexing"] is False
        assert [said.body for said in _answers(outcome)] == [b"first last", b"beside", b"done"]
        assert [connection.statistics().requests for connection in server.connections] == [0, 1, 1, 1]


@pytest.mark.usefixtures("fastcgi_client")
async def test_F37_fastcgi_client_aborts_one_request_and_the_others_go_on(server: Server) -> None:
    outcome = await through_fastcgi_client(
        server,
        {"params": variables("GET", "/wait"), "abort": True},
        {"params": posted(BODY), "body": b64(BODY), "after": [0, "output"]},
    )
    aborted, beside = _answers(outcome)
    assert aborted.body == b"first "
    assert server.site.cancelled.is_set()
    assert beside.body == BODY


# --- fastcgi-stream --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fastcgi_stream")
async def test_F06_F14_fastcgi_stream_asks_again_on_a_kept_connection(server: Server) -> None:
    """It pads a record of n bytes with n modulo 8, which is another number than most use, and as good (F10)."""
    records = await through_fastcgi_stream(
        server,
        (in_records(posted(b"first"), b"first"), ["EndRequest", 1]),
        (in_records(posted(BODY), BODY), ["EndRequest", 1]),
        (in_records(variables("GET", "/big"), stream_id=65_535), ["EndRequest", 65_535]),
    )
    assert ends(records) == [[1, 0, 0], [1, 0, 0], [65_535, 0, 0]]
    bodies = [part.partition(b"\r\n\r\n")[2] for part in _stream(records, "StdOut").split(b"Status: ")]
    assert bodies == [b"", b"first", BODY]
    assert _stream(records, "StdOut", 65_535).endswith(BIG)
    [connection] = server.connections
    assert all(padding == len(content) % 8 for _, _, content, padding in connection.records())
    assert {padding for _, _, _, padding in connection.records()} > {0}


@pytest.mark.usefixtures("fastcgi_stream")
async def test_F06_a_connection_that_is_not_kept_is_closed(server: Server) -> None:
    records = await through_fastcgi_stream(server, (in_records(posted(b"x"), b"x", flags=0), "close"))
    assert ends(records) == [[1, 0, 0]]
    assert records[-1][0] == "EndRequest"


@pytest.mark.usefixtures("fastcgi_stream")
async def test_F17_requests_of_fastcgi_stream_overlap(server: Server) -> None:
    waiting, beside = in_records(variables("GET", "/wait")), in_records(posted(b"beside"), b"beside", stream_id=2)
    records = await through_fastcgi_stream(
        server,
        (waiting, ["StdOut", 1]),
        (beside, ["EndRequest", 2]),
        (in_records(variables("GET", "/let-go"), stream_id=3), ["EndRequest", 1]),
    )
    assert ends(records)[0] == [2, 0, 0]  # the first that began is not the first that ended
    assert [1, 0, 0] in ends(records)
    assert _stream(records, "StdOut", 1).endswith(b"first last")
    assert _stream(records, "StdOut", 2).endswith(b"beside")


@pytest.mark.usefixtures("fastcgi_stream")
async def test_F37_fastcgi_stream_aborts_a_request(server: Server) -> None:
    records = await through_fastcgi_stream(
        server,
        (in_records(variables("GET", "/wait")), ["StdOut", 1]),
        ([["AbortRequest", 1]], ["EndRequest", 1]),
        (in_records(posted(b"next"), b"next"), ["EndRequest", 1]),
    )
    assert server.site.cancelled.is_set()
    assert [(stream_id, status) for stream_id, _, status in ends(records)] == [(1, 0), (1, 0)]
    assert _stream(records, "StdOut").endswith(b"next")


@pytest.mark.usefixtures("fastcgi_stream")
@pytest.mark.parametrize("role", [3, 9, 65_535])
async def test_F29_fastcgi_stream_is_told_that_a_role_is_unknown(role: int, server: Server) -> None:
    records = await through_fastcgi_stream(
        server,
        (in_records(posted(b"x"), b"x", role=role), ["EndRequest", 1]),
        (in_records(posted(b"next"), b"next"), ["EndRequest", 1]),
    )
    assert ends(records) == [[1, 0, wire.UNKNOWN_ROLE], [1, 0, wire.REQUEST_COMPLETE]]
    assert [body for _, body in server.site.seen] == [b"next"]


@pytest.mark.usefixtures("fastcgi_stream")
async def test_F25_F28_fastcgi_stream_gets_answers_to_management_records(server: Server) -> None:
    limits = Limits()
    asked = [wire.MAX_CONNS, wire.MAX_REQS, wire.MPXS_CONNS, "FCGI_OTHER"]
    records = await through_fastcgi_stream(
        server,
        ([["GetValues", 0, asked]], ["GetValuesResult", 0]),
        ([[99, 0]], ["UnknownType", 0]),
        (in_records(posted(b"after"), b"after"), ["EndRequest", 1]),
    )
    [values, unknown, *rest] = records
    assert dict(values[2]) == {
        wire.MAX_CONNS: str(limits.max_connections),
        wire.MAX_REQS: str(limits.max_ids),
        wire.MPXS_CONNS: "1",
    }
    assert unknown == ["UnknownType", 0, 99]
    assert _stream(rest, "StdOut").endswith(b"after")


# --- fcgi-client -----------------------------------------------------------------------------------------------------


async def test_F11_a_length_that_wraps_ends_the_connection(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """fcgi-client masks the length of a longer body: what follows is read as records, and is none."""
    body = BODY[: ONE_RECORD + 11]
    said = await by_fcgi_client(server, posted(body), body)
    assert said.stdout == b""
    assert server.site.seen == []
    assert "version 10 instead of 1" in caplog.text
    assert (await by_fcgi_client(server, posted(b"fine"), b"fine")).body == b"fine"


async def test_the_client_for_php_asks_over_tcp() -> None:
    """It asks the socket for its address as a pair, and so does not work on a unix socket."""
    async with serving_on("127.0.0.1:0") as server:
        options = {"CONTENT_LENGTH": "3"}
        answer = await fcgi_client_says(fcgi_client.PHPFPMClient, server, "post", "/index.php", "a=1", options=options)
        assert answer.startswith("Status: 200 OK\r\n")
        assert answer.endswith("\r\n\r\na=1")
        [(environ, body)] = server.site.seen
        assert body == b"a=1"
        assert environ["SCRIPT_FILENAME"] == "/index.php"
        assert environ["SERVER_PORT"] == server.address.rpartition(":")[2]
