"""The same request over CGI, SCGI, FastCGI and HTTP: an equal Request for the handler, equal bytes for the web server.

CGI is the script's side in a process of its own for each request. A helper that has loaded everything forks it, so that
many are quick; a few are started from nothing.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn
from urllib.parse import quote

import attrs
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gateways
from gateways import Handler, Request, Response, cgi, fastcgi, scgi
from gateways.fastcgi import wire
from gateways.testing import Result, serving, variables

ROOT = str(Path(gateways.__file__).parents[1])

PATIENCE = 10.0
#: What a server knows of its socket and of itself. HTTP carries none of it, and its other end knows better.
OF_THE_SERVER = {"REMOTE_ADDR", "REQUEST_SCHEME", "HTTPS", "SERVER_NAME", "SERVER_PORT", "SERVER_SOFTWARE"}
ADDED_BY_HTTP = {"date", "server"}


@attrs.frozen
class Sent:
    """A request as a client means it."""

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    https: bool = False

    @property
    def environ(self) -> dict[str, str | None]:
        return {"HTTPS": "on", "REQUEST_SCHEME": "https", "SERVER_PORT": "443"} if self.https else {}

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return variables(
            self.method,
            self.path,
            query=self.query,
            headers=self.headers,
            cookies=dict(self.cookies),
            length=len(self.body),
            environ=self.environ,
        )


@attrs.frozen
class Seen:
    """What the handler was given, in a form that travels between processes."""

    environ: dict[str, str]
    path: str
    role: str
    body: bytes

    def request(self, without: Iterable[str] = ()) -> Request:
        """The request once more, its body in memory, so that it can be compared with others."""
        environ = {name: value for name, value in self.environ.items() if name not in without}
        if environ.get("CONTENT_LENGTH") == "0":
            del environ["CONTENT_LENGTH"]  # SCGI has a length always, the others where there is a body
        return Request(environ, self.body, role=self.role)


def probe(note: Callable[[Seen], object]) -> Handler:
    """A handler that notes what it sees; its answer says all of it that protocols share."""

    async def app(request: Request) -> Response:
        body = await request.body.read()
        note(Seen(dict(request.environ), request.path, request.role, body))
        if request.method == "BREW":
            return Response(status=204)
        fields = [field for field in request.headers.items() if field[0] not in ("connection", "content-length")]
        said = repr((request.path, request.query_string, request.cookies, sorted(fields))).encode()
        answer = Response(said + body, headers={"X-Query": request.query_string})
        if request.query_string:  # without a length
            answer = Response(iter([said, b"|", body]), 404, headers={"X-Path": quote(request.raw_path or "")})
        return answer.set_cookie("seen", "1").set_cookie("again", "2")

    return app


# --- CGI -------------------------------------------------------------------------------------------------------------


class Forked:
    """CGI scripts that are forked from a process which has loaded everything."""

    def __init__(self) -> None:
        program = "from tests.test_equivalence import fork_for_each; fork_for_each()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its stdin, which ends it
            pass

    def ask(self, sent: Sent, under_trio: bool) -> tuple[bytes, Seen]:
        """The output of a script, and what its handler has seen."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((sent.pairs, sent.body, under_trio), self._process.stdin)
        self._process.stdin.flush()
        status, output, seen = pickle.load(self._process.stdout)
        assert status == 0
        return output, pickle.loads(seen)


def fork_for_each() -> None:
    """What the process above runs: for each request a child, with pipes for stdin and stdout as fcgiwrap has them."""
    while True:
        try:
            pairs, body, under_trio = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        (stdin, feeding), (reading, stdout), (noted, noting) = os.pipe(), os.pipe(), os.pipe()
        os.write(feeding, body)  # less than a pipe holds
        os.close(feeding)
        child = os.fork()
        if child == 0:
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.environb.clear()
            os.environb.update({as_bytes(name): as_bytes(value) for name, value in pairs})
            be_script(noting, under_trio)
        for descriptor in (stdin, stdout, noting):
            os.close(descriptor)
        with open(reading, "rb") as output, open(noted, "rb") as notes:
            answer = (output.read(), notes.read())
        pickle.dump((os.waitpid(child, 0)[1], *answer), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def be_script(noting: int, under_trio: bool) -> NoReturn:
    try:
        cgi.run(probe(lambda seen: os.write(noting, pickle.dumps(seen))), trio=under_trio)
        os._exit(0)
    finally:
        os._exit(1)  # never back into the loop of the parent


def started(sent: Sent, folder: Path) -> tuple[bytes, Seen]:
    """The same from a script that is started anew, as web servers start it."""
    program = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from tests import test_equivalence as here\n"
        f"here.cgi.run(here.probe(lambda seen: open({str(folder / 'seen')!r}, 'wb').write(here.pickle.dumps(seen))))"
    )
    environ = {as_bytes(name): as_bytes(value) for name, value in sent.pairs}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environ, input=sent.body, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout, pickle.loads((folder / "seen").read_bytes())


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- the others ------------------------------------------------------------------------------------------------------


async def ask(protocol: ModuleType, sent: Sent) -> tuple[bytes, Seen]:
    """The bytes of the answer on the connection, and what the handler has seen."""
    notes: list[Seen] = []
    client = protocol.ClientConnection()
    number = client.first_id
    request = client.send_request(number, sent.pairs)
    request += client.send_body(number, sent.body) + client.end_body(number)
    with trio.fail_after(PATIENCE):
        async with serving(probe(notes.append), protocol) as server:
            stream = await server.connect()
            await stream.send_all(request)
            answer = b""
            while received := await stream.receive_some():
                answer += received
    [seen] = notes
    return answer, seen


async def ask_http(sent: Sent) -> tuple[Result, Seen]:
    notes: list[Seen] = []
    with trio.fail_after(PATIENCE):
        async with serving(probe(notes.append), "http") as server:
            result = await server.request(
                sent.method,
                sent.path,
                query=sent.query,
                headers=sent.headers,
                cookies=dict(sent.cookies),
                body=sent.body,
                environ=sent.environ,
            )
    [seen] = notes
    return result, seen


def stdout_of(answer: bytes) -> bytes:
    """The CGI response that a stream of FastCGI records carries."""
    records = list(wire.RecordScanner().scan(answer))
    assert records[-1][0] == wire.END_REQUEST
    return b"".join(content for kind, _, content, _ in records if kind == wire.STDOUT)


def check(sent: Sent, by_cgi: tuple[bytes, Seen]) -> None:
    """Compare what CGI made of a request with what the other protocols make of it."""
    answer, seen = by_cgi
    plain = seen.request({"LC_CTYPE"})  # Python's own, where there is no locale (PEP 538)
    for protocol in (scgi, fastcgi):
        received, other = trio.run(ask, protocol, sent)
        assert (stdout_of(received) if protocol is fastcgi else received) == answer
        assert other.request({"SCGI"}) == plain
        assert other.path == seen.path
    result, other = trio.run(ask_http, sent)
    assert other.request(OF_THE_SERVER | {"HTTP_CONNECTION"}) == seen.request(OF_THE_SERVER | {"LC_CTYPE"})
    assert other.path == seen.path
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = [f"{name}: {value}" for name, value in result.headers.items() if name.lower() not in ADDED_BY_HTTP]
    assert "\r\n".join([f"Status: {result.status} {result.reason}", *fields]).encode() == head
    assert result.body == body


# --- the requests ----------------------------------------------------------------------------------------------------

PIECES = [
    "/",
    "//",
    ".",
    "..",
    "a",
    "B",
    "%2F",
    "%2e",
    "%25",
    "%zz",
    "%C3%A9",
    "%ff",
    "é",
    "€",
    "😀",
    " ",
    "+",
    ";",
    "~",
    "&=",
]
characters = st.characters(exclude_categories=["Cc", "Cs"])
values = st.text(characters, max_size=12).map(lambda text: text.strip(" \t") or "-")
names = st.sampled_from(
    ["X-One", "x-one", "X-Two", "Accept", "Accept-Language", "User-Agent", "Referer", "X-Forwarded-For"]
)
tokens = st.text("abcXYZ019-_.", min_size=1, max_size=6)
requests = st.builds(
    Sent,
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"]),
    path=st.lists(st.sampled_from(PIECES), max_size=6).map(lambda pieces: "/" + "".join(pieces)),
    query=st.lists(st.sampled_from(["a=1", "&", "b=%20", "=", "%zz", "é", "?", "/", "+", "[]"]), max_size=5).map(
        "".join
    ),
    headers=st.lists(st.tuples(names, values), max_size=5).map(tuple),
    cookies=st.lists(st.tuples(tokens, tokens), max_size=3).map(tuple),
    body=st.binary(max_size=300),
    https=st.booleans(),
)

WHOLE = Sent(
    "POST",
    "/caf%C3%A9/a%20b%2Fc/€",
    "q=1&q=%C3%BC",
    (("X-One", "1"), ("X-One", "2"), ("Content-Type", "text/plain"), ("X-Text", "schön")),
    (("id", "1"), ("theme", "dark")),
    b"\0\xff body",
    True,
)


def test_X01_a_request_and_its_answer_are_the_same_over_every_protocol() -> None:
    with Forked() as scripts:

        @settings(max_examples=50, deadline=None)
        @given(sent=requests, under_trio=st.booleans())
        @example(sent=WHOLE, under_trio=False)
        def compare(sent: Sent, under_trio: bool) -> None:
            check(sent, scripts.ask(sent, under_trio))

        compare()


@pytest.mark.parametrize("sent", [Sent(), WHOLE, Sent("HEAD", "/%ff", "a b")], ids=["plain", "whole", "HEAD"])
def test_X01_so_they_are_from_a_script_that_is_started_anew(sent: Sent, tmp_path: Path) -> None:
    check(sent, started(sent, tmp_path))


def test_X01_the_comparison_sees_a_difference() -> None:
    """What is compared is not empty."""
    with Forked() as scripts:
        output, seen = scripts.ask(WHOLE, False)
    assert seen.request() != attrs.evolve(seen, body=b"other").request()
    assert seen.request() != attrs.evolve(seen, environ={**seen.environ, "HTTP_X_ONE": "1"}).request()
    assert output.startswith(b"Status: 404 Not Found\r\n")
    assert output.endswith(b"|" + WHOLE.body)
    for changed in (attrs.evolve(WHOLE, body=b""), attrs.evolve(WHOLE, path="/"), attrs.evolve(WHOLE, https=False)):
        with pytest.raises(AssertionError):
            check(changed, (output, seen))
