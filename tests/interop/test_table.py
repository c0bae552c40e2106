"""One handler file, one table of requests, through every server and protocol: equal requests, equal answers.

Equal to what the handler sees, and the client gets, without any web server between them: over our own HTTP front end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from functools import partial
from subprocess import PIPE

import attrs
import pytest
import trio
import trio.testing

import gateways
from gateways import Request
from tests.interop import site, table
from tests.interop.backend import serving, site_script
from tests.interop.client import Answer, fetch, fetch_raw, open_request
from tests.interop.conftest import ScriptFor
from tests.interop.servers import SERVER_NAME, FrontEnd
from tests.interop.table import ABSENT, ADDED, CHANGED, DIFFERENCES, REFUSED, REQUESTS, Asked, Difference

#: Fields that are about one connection or one moment.
_OF_THE_CONNECTION = {"connection", "date", "keep-alive", "server", "transfer-encoding"}
#: What equality of requests leaves out as well.
_OF_THE_CLIENT = {"REMOTE_PORT", "SERVER_SOFTWARE"}
#: Requests under way at once.
_AT_ONCE = 6
#: A body of more bytes is sent alone where requests share a connection: HAProxy 2.6 has one buffer for all of them, and
#: gives up, or sends incomplete, a request whose variables do not fit in beside it (haproxy issues 2568 and 3346).
_ALONE = 10_000
#: Seconds that a first piece may take to come where it comes before the last, and where it does not.
_PATIENCE, _IMPATIENCE = 20.0, 0.3


@pytest.fixture(scope="module")
def script_for() -> ScriptFor:
    return site_script


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """No pages of tracebacks beside a failure: some handlers of the site are there to fail."""
    caplog.set_level("CRITICAL", "gateways")


# --- the tests -------------------------------------------------------------------------------------------------------


async def test_requests_and_answers_are_equal(web: FrontEnd) -> None:
    configuration = web.configuration
    async with serving(site.app, web):
        seen = await _ask_all(configuration.id, configuration.mount, web.port)
    assert_equal_but_for_what_is_named(configuration.id, await _reference(configuration.mount), seen)


@pytest.mark.parametrize(("via", "mount"), table.DEV, ids=[table.dev_id(via, mount) for via, mount in table.DEV])
async def test_requests_and_answers_are_equal_in_development(via: str, mount: str) -> None:
    async with _dev(via, mount) as port:
        seen = await _ask_all(table.dev_id(via, mount), mount, port)
    assert_equal_but_for_what_is_named(table.dev_id(via, mount), await _reference(mount), seen)


def test_requests_have_names_of_their_own() -> None:
    assert len({asked.name for asked in REQUESTS}) == len(REQUESTS)


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: f"{row.kind} {', '.join(row.names)}")
def test_every_pattern_of_a_difference_fits_something(row: Difference) -> None:
    for pattern in row.where.split(" "):
        assert any(fnmatchcase(configuration, pattern.removeprefix("-")) for configuration in table.IDS), pattern
    for pattern in row.requests:
        assert any(fnmatchcase(asked.name, pattern) for asked in REQUESTS), pattern


def test_the_documentation_is_current() -> None:
    assert table.PAGE.read_text() == table.page(), "write it with: python -m tests.interop.table"


@asynccontextmanager
async def _dev(via: str, mount: str) -> AsyncGenerator[int]:
    """Run ``gateways dev``; yields its port."""
    command = [sys.executable, "-m", "gateways", "dev", "--port=0"]
    command += [f"--via={via}"] if via != "http" else []
    command += [f"--mount={mount}"] if mount else []
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, env=environment, stderr=PIPE, check=False)
        process = await nursery.start(start, [*command, site.__file__])
        said = ""
        while not (port := re.search(r"http://127\.0\.0\.1:(\d+)/.*\n", said)):
            piece = await process.stderr.receive_some()
            assert piece, said
            said += piece.decode()
        nursery.start_soon(_read_to_the_end, process.stderr)
        yield int(port[1])
        process.terminate()


async def _read_to_the_end(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


# --- comparing -------------------------------------------------------------------------------------------------------


def assert_equal_but_for_what_is_named(configuration: str, expected: dict[str, Seen], seen: dict[str, Seen]) -> None:
    """What differs has a row in the table, and every row a difference."""
    rows = table.differences_at(configuration)
    unnamed: list[str] = []
    met: set[tuple[Difference, str]] = set()
    for name in expected:
        here = [row for row in rows if row.is_in(name)]
        unnamed += [f"{name}: {text}" for text in _unnamed(expected[name], seen[name], here, met)]
    stale = [
        f"{row.kind} {name} in {', '.join(row.requests)}"
        for row in rows
        for name in row.names
        if (row, name) not in met
    ]
    if unnamed or stale:
        lines = ("differences without a name:", *unnamed[:40], "names without a difference:", *stale)
        pytest.fail("\n  ".join(lines), pytrace=False)


_REFERENCES: dict[str, dict[str, Seen]] = {}


async def _reference(mount: str) -> dict[str, Seen]:
    """What everything is like with no web server between; asked once for each mount."""
    if mount not in _REFERENCES:
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(gateways.http.serve, site.app, "127.0.0.1:0", mount=mount))
            _REFERENCES[mount] = await _ask_all("", mount, int(address.rpartition(":")[2]))
            nursery.cancel_scope.cancel()
    return _REFERENCES[mount]


def _unnamed(expected: Seen, seen: Seen, rows: list[Difference], met: set[tuple[Difference, str]]) -> Iterator[str]:
    """The differences that no row names; those that one does are added to ``met``."""
    if refused := _refused(expected, seen, rows):
        met.add(refused)
        return
    if (expected.environ is None) != (seen.environ is None):
        yield f"answered by someone else: {seen.answer}"
        return
    environ = seen.environ and dict(seen.environ)
    for kind, name, was, has_become in _differences(expected, seen):
        named = {(row, name) for row in rows if row.kind == kind and name in row.names}
        met |= named
        if not named:
            yield f"{kind} {name}: {was!r} -> {has_become!r}"
        elif environ is not None and expected.environ is not None:
            environ.pop(name, None)
            if name in expected.environ:
                environ[name] = expected.environ[name]
    # The point of it all: but for what is named, the handler sees an equal request.
    if attrs.evolve(seen, environ=environ).request != expected.request:
        yield "the requests are not equal"


def _refused(expected: Seen, seen: Seen, rows: list[Difference]) -> tuple[Difference, str] | None:
    """The row by which this answer is not the handler's but the server's own."""
    status = seen.answer["status"]
    for row in rows:
        if row.kind == REFUSED and status in row.names and seen.environ is None and seen.answer != expected.answer:
            return row, status
    return None


def _differences(expected: Seen, seen: Seen) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Each difference: its kind, the name of the variable or field, the value expected and the one seen."""
    before, after = _all(expected), _all(seen)
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield ABSENT, name, before[name], None
        elif name not in before:
            yield ADDED, name, None, after[name]
        elif before[name] != after[name]:
            yield CHANGED, name, before[name], after[name]


def _all(seen: Seen) -> dict[str, str]:
    variables = {name: value for name, value in (seen.environ or {}).items() if name not in _OF_THE_CLIENT}
    return variables | {"body": seen.body} | {f"answer {name}": value for name, value in seen.answer.items()}


# --- asking ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Seen:
    """What the handler saw of a request (None where the answer does not tell), and what the client got."""

    environ: dict[str, str] | None
    body: str
    answer: dict[str, str]

    @property
    def request(self) -> Request | None:
        """The request as the handler saw it; its body is told by length and digest."""
        return None if self.environ is None else Request(self.environ, self.body.encode())


async def _ask_all(configuration: str, mount: str, port: int) -> dict[str, Seen]:
    """Send every request of the table, several at once."""
    seen: dict[str, Seen] = {}
    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def ask(asked: Asked, target: str) -> None:
        async with limiter:
            if target.partition("?")[0].endswith("/stream"):
                seen[asked.name] = await _ask_for_a_stream(asked, target, port, _streams(configuration, asked))
            else:
                seen[asked.name] = _read(asked, await _ask(asked, target, port), port)

    alone: list[tuple[Asked, str]] = []
    async with trio.open_nursery() as nursery:
        for asked in REQUESTS:
            target = asked.target_below(mount)
            if target is None:
                continue
            if "-multiplexed-" in configuration and asked.body_size > _ALONE:
                alone.append((asked, target))
            else:
                nursery.start_soon(ask, asked, target)
    for asked, target in alone:
        await ask(asked, target)
    return seen


async def _ask(asked: Asked, target: str, port: int) -> Answer:
    if isinstance(asked.body, tuple) and asked.slowly:
        return await fetch(port, asked.method, target, asked.headers, _slowly(asked.body))
    if isinstance(asked.body, tuple) or asked.version != "1.1":
        # In one write: Apache and nginx are told the length of a chunked body that is all there when they look.
        return await fetch_raw(port, _bytes(asked, target), asked.method)
    return await fetch(port, asked.method, target, asked.headers, asked.body)


async def _slowly(chunks: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for chunk in chunks:
        yield chunk
        await trio.testing.wait_all_tasks_blocked(0.05)  # time for the server to pass the chunk on


def _bytes(asked: Asked, target: str) -> bytes:
    lines = [f"{asked.method} {target} HTTP/{asked.version}", f"Host: {SERVER_NAME}"]
    lines += [f"{name}: {value}" for name, value in asked.headers]
    body = b""
    if isinstance(asked.body, tuple):
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*asked.body, b""))
    return "\r\n".join((*lines, "", "")).encode() + body


def _streams(configuration: str, asked: Asked) -> bool:
    rows = [row for row in table.differences_at(configuration) if row.is_in(asked.name)]
    return not any("answer first piece" in row.names for row in rows)


async def _ask_for_a_stream(asked: Asked, target: str, port: int, streams: bool) -> Seen:
    """The handler holds its second piece back until the first is here, or until it is clear that it will not come."""
    first_came, released = trio.Event(), trio.Event()

    async def gate(stream: trio.SocketStream) -> None:
        with trio.move_on_after(_PATIENCE if streams else _IMPATIENCE):
            await first_came.wait()
        released.set()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, gate, 0, host="127.0.0.1"))
        target += f"{'&' if '?' in target else '?'}gate={listener.socket.getsockname()[1]}"
        with trio.fail_after(2 * _PATIENCE):
            async with open_request(port, asked.method, target) as exchange:
                await exchange.receive_head()
                body = await exchange.receive_body()
                at_once = not released.is_set()
                first_came.set()
                while piece := await exchange.receive_body():
                    body += piece
        nursery.cancel_scope.cancel()
    seen = _read(asked, Answer(exchange.status, exchange.headers, body, exchange.complete), port)
    seen.answer["first piece"] = "at once" if at_once else "with the last"
    return seen


def _read(asked: Asked, answer: Answer, port: int) -> Seen:
    """What the handler told and the client got, without what is about one connection."""
    fields = {"status": str(answer.status), "complete": str(answer.complete), "body": _short(answer.body)}
    for name, _ in answer.headers:
        if name not in _OF_THE_CONNECTION:
            fields[name] = " | ".join(value for key, value in answer.headers if key == name)
    report = fields.pop(site.SEEN.lower(), "")
    if answer.body.startswith(b'{"environ"'):
        report = answer.body.decode()
    if asked.method != "HEAD":
        # With a length or in chunks: that is between client and server, and ``complete`` tells whether it was kept.
        fields.pop("content-length", None)
    if not report:
        return Seen(None, "", fields)
    if "content-length" in fields:  # of HEAD: what GET would have brought
        assert fields["content-length"] == str(len(report) + 1)
        fields["content-length"] = "that of GET"
    fields["body"] = "what the handler saw"
    told = json.loads(report)
    environ, body = told.pop("environ"), told.pop("body")
    assert environ.pop("SERVER_PORT") == str(port)  # the one variable that has to differ
    request = Request(environ)
    assert told == {name: getattr(request, name) for name in told}, "properties and environ disagree"
    return Seen(environ, body, fields)


def _short(body: bytes) -> str:
    if len(body) < 200:
        return body.decode("utf-8", "backslashreplace")
    return f"{len(body)} bytes, SHA-256 {hashlib.sha256(body).hexdigest()[:16]}"
