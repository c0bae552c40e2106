"""Many requests on one connection: HAProxy, the one web server that does so, and our own client on a bare socket.

FastCGI 1.0 sections 3.3, 4.1 and 5.5. Requests that wait are let go by events, so whatever is answered before that was
answered beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from gateways import Limits, Request, Response, fastcgi
from gateways.events import BodyReceived
from gateways.fastcgi import wire
from tests.interop.client import Answer, fetch, open_request
from tests.interop.configurations import CONFIGURATIONS, Configuration
from tests.interop.servers import FrontEnd, accepts, front_end
from tests.net.tools import Backend, Peer, running, unix, variables

#: Seconds for anything here.
PATIENCE = 20.0
#: Bytes of an upload, of one that nobody reads (more than the body buffer holds), and of one that is more than the
#: spool takes where that is SPOOL.
SIZES = {"upload": 200_000, "unread": 1_000_000, "flood": 2_000_000}
SPOOL = 1_500_000
#: Bytes of a large answer, more than the buffers of a unix socket hold.
LARGE = 1_000_000

# --- fifty requests --------------------------------------------------------------------------------------------------

#: Requests that wait until they are let go: before their answer; within it; before it, without having read their body.
SLOW = [*(f"/wait/{number}" for number in range(9)), *(f"/stream/{number}" for number in range(4))]
UNREADING = [f"/unread/{number}" for number in range(4)]
#: Requests that are answered at once: small ones, uploads, large answers.
FAST = [
    *(f"/fast/{number}" for number in range(17)),
    *(f"/upload/{number}" for number in range(8)),
    *(f"/large/{number}" for number in range(8)),
]
ALL = [*SLOW, *UNREADING, *FAST]


def _body(path: str) -> bytes | None:
    """The body of a request, unlike any other."""
    size = SIZES.get(path.split("/")[1])
    return None if size is None else (path.encode() * size)[:size]


def _answer(path: str) -> bytes:
    """The body of its answer, unlike any other."""
    kind = path.split("/")[1]
    if kind == "large":
        return (path.encode() * LARGE)[:LARGE]
    if kind == "upload":
        return hashlib.sha256(_body(path) or b"").digest()
    return f"first {path}, last {path}".encode()


class Changing:
    """Something to wait for until it looks as it should."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._changed.wait()


class Site(Changing):
    """The handler of them all."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[str] = set()
        self.cancelled: set[str] = set()
        self.go_on = trio.Event()

    async def __call__(self, request: Request) -> Response:
        path = request.path
        kind = path.split("/")[1]
        if kind == "large":
            return Response(_answer(path))
        if kind == "upload":
            digest = hashlib.sha256()
            async for chunk in request.body:
                digest.update(chunk)
            return Response(digest.digest())
        if kind == "stream":

            async def body(send: Callable[[str], Awaitable[None]]) -> None:
                await send(f"first {path}, ")
                await self.wait(path)
                await send(f"last {path}")

            return Response(body)
        if kind != "fast":
            await self.wait(path)
        if kind == "flood":
            await request.body.read()
        return Response(_answer(path))

    async def wait(self, path: str) -> None:
        """Wait to be let go, or cancelled."""
        self.waiting.add(path)
        self.changed()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.cancelled.add(path)
            raise
        finally:
            self.waiting.discard(path)
            self.changed()


# --- what passes between a web server and us -------------------------------------------------------------------------


@attrs.define
class Conversation:
    """One connection of the web server, as its records tell it."""

    begun: list[int] = attrs.Factory(list)
    aborted: list[int] = attrs.Factory(list)
    rejected: list[int] = attrs.Factory(list)
    active: set[int] = attrs.Factory(set)
    bodies: int = 0  #: that have come to their end
    most: int = 0  #: active at a time
    values: dict[str, str] = attrs.Factory(dict)  #: what it was told of us

    def note(self, kind: int, stream_id: int, content: bytes) -> None:
        if kind == wire.BEGIN_REQUEST:
            self.begun.append(stream_id)
            self.active.add(stream_id)
            self.most = max(self.most, len(self.active))
        elif kind == wire.ABORT_REQUEST:
            self.aborted.append(stream_id)
        elif kind == wire.END_REQUEST:
            self.active.discard(stream_id)
            if content[4] != wire.REQUEST_COMPLETE:
                self.rejected.append(stream_id)
        elif kind == wire.STDIN and not content:
            self.bodies += 1
        elif kind == wire.GET_VALUES_RESULT:
            self.values = dict(wire.decode_pairs(content))


class Relay(Changing):
    """Passes on what comes, and takes notes."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.conversations: list[Conversation] = []
        self._backend = backend

    async def __call__(self, web: trio.SocketStream) -> None:
        conversation = Conversation()
        self.conversations.append(conversation)
        host, _, port = self._backend.rpartition(":")
        application = await trio.open_tcp_stream(host, int(port))
        async with application, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, web, application, conversation)
            await self._pass_on(application, web, conversation)
            nursery.cancel_scope.cancel()

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, conversation: Conversation) -> None:
        scanner = wire.RecordScanner()
        try:
            async for data in source:
                for kind, stream_id, content, _ in scanner.scan(bytes(data)):
                    conversation.note(kind, stream_id, content)
                    self.changed()
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(sink)


def _haproxy(name: str, rule: str = "") -> Configuration:
    """HAProxy in one of the configurations of the table, with one more rule, and over TCP, where a relay is easy."""
    configuration = next(each for each in CONFIGURATIONS if each.id.startswith(f"haproxy-fastcgi-{name}-"))
    site = configuration.site.replace("backend application\n", f"backend application\n{rule}\n")
    return attrs.evolve(configuration, transport="tcp", site=site)


@asynccontextmanager
async def _behind_haproxy(
    configuration: Configuration, site: Site, limits: Limits | None = None
) -> AsyncGenerator[tuple[FrontEnd, Relay]]:
    """Serve the site behind HAProxy, with a relay between them."""
    with front_end(configuration) as web:
        async with trio.open_nursery() as nursery:
            serve = partial(fastcgi.serve, site, "127.0.0.1:0", mount="/", limits=limits)
            [backend] = await nursery.start(serve)
            relay = Relay(backend)
            port = int(str(web.address).rpartition(":")[2])
            await nursery.start(partial(trio.serve_tcp, relay, port, host="127.0.0.1"))
            yield web, relay
            assert accepts(web.port)  # it has not died of our answers
            nursery.cancel_scope.cancel()


class Clients(Changing):
    """Clients of a web server, and the answers they have got."""

    def __init__(self, port: int, nursery: trio.Nursery) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {}
        self.first_pieces: set[str] = set()
        self._port = port
        self._nursery = nursery

    def ask(self, *paths: str) -> None:
        """Send requests, all at once."""
        for path in paths:
            self._nursery.start_soon(self._ask, path)

    async def _ask(self, path: str) -> None:
        if path.startswith("/stream/"):
            self.answers[path] = await self._watch(path)
        else:
            body = _body(path)
            method = "GET" if body is None else "POST"
            self.answers[path] = await fetch(self._port, method, path, body=body, timeout=PATIENCE)
        self.changed()

    async def _watch(self, path: str) -> Answer:
        async with open_request(self._port, "GET", path) as exchange:
            await exchange.receive_head()
            body = await exchange.receive_body()
            self.first_pieces.add(path)
            self.changed()
            while piece := await exchange.receive_body():
                body += piece
        return Answer(exchange.status, exchange.headers, body, exchange.complete)

    def right(self) -> set[str]:
        """The requests whose answers came whole, and are theirs."""
        return {
            path
            for path, answer in self.answers.items()
            if answer.complete and (answer.status, answer.body) == (200, _answer(path))
        }


# --- behind HAProxy --------------------------------------------------------------------------------------------------


async def _upload(path: str, clients: Clients, site: Site, relay: Relay) -> None:
    """Send a request whose body nobody reads, and wait until that has passed HAProxy.

    HAProxy 2.6 has one buffer for all requests of a connection. If a body has left some room there, but not enough for
    the variables of the next request, it gives that request up: BEGIN_REQUEST, ABORT_REQUEST and a 500 of its own.
    """
    before = sum(each.bodies for each in relay.conversations)
    clients.ask(path)
    await relay.until(lambda: sum(each.bodies for each in relay.conversations) > before)
    await site.until(lambda: path in site.waiting)


async def test_F26_W18_fifty_requests_through_haproxy_share_a_connection_and_none_stalls_another() -> None:
    site = Site()
    async with _behind_haproxy(_haproxy("multiplexed"), site) as (web, relay), trio.open_nursery() as nursery:
        clients = Clients(web.port, nursery)
        clients.ask(*SLOW)
        await site.until(lambda: site.waiting == set(SLOW))
        for path in UNREADING:
            await _upload(path, clients, site, relay)
        slow = {*SLOW, *UNREADING}
        assert site.waiting == slow
        bodies = [path for path in FAST if _body(path)]
        clients.ask(*set(FAST).difference(bodies))
        await clients.until(lambda: len(clients.answers) == len(FAST) - len(bodies))
        for path in bodies:
            clients.ask(path)
            await clients.until(partial(clients.answers.__contains__, path))
        assert clients.right() == set(FAST)
        assert site.waiting == slow
        await clients.until(lambda: len(clients.first_pieces) == 4)  # what is streamed comes as it is sent
        site.go_on.set()
        await clients.until(lambda: len(clients.answers) == len(ALL))
        assert clients.right() == set(ALL)
    [conversation] = relay.conversations
    assert len(set(conversation.begun)) == len(ALL)
    assert conversation.most > len(slow)
    assert conversation.values == {"FCGI_MAX_REQS": "128", "FCGI_MPXS_CONNS": "1"}
    assert (conversation.rejected, conversation.aborted) == ([], [])


async def test_F37_what_haproxy_gives_up_in_a_burst_costs_no_other_request() -> None:
    site = Site()
    site.go_on.set()
    async with _behind_haproxy(_haproxy("multiplexed"), site) as (web, relay), trio.open_nursery() as nursery:
        clients = Clients(web.port, nursery)
        clients.ask(*ALL)
        await clients.until(lambda: len(clients.answers) == len(ALL))
    given_up = {path for path, answer in clients.answers.items() if answer.status == 500}
    assert clients.right() == set(ALL) - given_up
    assert sum(len(each.aborted) for each in relay.conversations) == len(given_up)
    assert not any(each.active for each in relay.conversations)


async def test_without_multiplexing_haproxy_opens_a_connection_for_each() -> None:
    site = Site()
    async with _behind_haproxy(_haproxy("stock"), site) as (web, relay), trio.open_nursery() as nursery:
        clients = Clients(web.port, nursery)
        clients.ask(*SLOW, *UNREADING)
        await site.until(lambda: len(site.waiting) == len(SLOW) + len(UNREADING))
        clients.ask(*FAST)
        await clients.until(lambda: len(clients.answers) == len(FAST))
        site.go_on.set()
        await clients.until(lambda: len(clients.answers) == len(ALL))
        assert clients.right() == set(ALL)
    assert len(relay.conversations) >= len(SLOW) + len(UNREADING)
    assert all(each.most == 1 for each in relay.conversations)


async def test_W37_a_request_that_comes_after_a_body_nobody_reads_is_answered_beside_it() -> None:
    site = Site()
    async with _behind_haproxy(_haproxy("multiplexed"), site) as (web, relay), trio.open_nursery() as nursery:
        clients = Clients(web.port, nursery)
        await _upload("/unread/0", clients, site, relay)
        clients.ask("/fast/0")
        await clients.until(lambda: len(clients.answers) == 1)
        clients.ask("/upload/0")
        await clients.until(lambda: len(clients.answers) == 2)
        assert site.waiting == {"/unread/0"}
        site.go_on.set()
        await clients.until(lambda: len(clients.answers) == 3)
        assert clients.right() == {"/unread/0", "/fast/0", "/upload/0"}
    assert [each.most for each in relay.conversations] == [2]


async def test_F30_haproxy_told_of_one_request_at_a_time_opens_a_connection_for_each() -> None:
    site = Site()
    paths = [f"/wait/{number}" for number in range(8)]
    limits = Limits(max_ids=1)
    async with (
        _behind_haproxy(_haproxy("multiplexed"), site, limits) as (web, relay),
        trio.open_nursery() as nursery,
    ):
        clients = Clients(web.port, nursery)
        for path in paths:
            # One by one: it asks on each new connection, and gives it all the requests that come before the answer.
            clients.ask(path)
            await site.until(partial(site.waiting.__contains__, path))
        site.go_on.set()
        await clients.until(lambda: len(clients.answers) == len(paths))
        assert clients.right() == set(paths)
    assert [each.most for each in relay.conversations] == [1] * len(paths)
    assert all(each.values["FCGI_MPXS_CONNS"] == "0" for each in relay.conversations)
    assert not any(each.rejected for each in relay.conversations)


async def test_F37_haproxy_aborts_what_nobody_waits_for_and_the_siblings_live_on() -> None:
    site = Site()
    impatient = _haproxy("multiplexed", "  http-request set-timeout server 200ms if { path /wait/late }")
    siblings = {"/wait/0", "/stream/0", "/unread/0"}
    async with _behind_haproxy(impatient, site) as (web, relay), trio.open_nursery() as nursery:
        clients = Clients(web.port, nursery)
        clients.ask("/wait/0", "/stream/0")
        await site.until(lambda: len(site.waiting) == 2)
        await _upload("/unread/0", clients, site, relay)
        assert site.waiting == siblings
        # HAProxy aborts while it is still sending a body. Once that is sent, it lets the application finish.
        for path in ("/wait/left", "/wait/late"):
            async with open_request(web.port, "POST", path, [("Content-Length", "60000")], bytes(30_000)) as exchange:
                await site.until(partial(site.waiting.__contains__, path))
                if path == "/wait/late":
                    assert await exchange.receive_head() == 504
            await site.until(partial(site.cancelled.__contains__, path))
        assert site.waiting == siblings
        clients.ask("/fast/0")
        await clients.until(lambda: "/fast/0" in clients.answers)
        site.go_on.set()
        await clients.until(lambda: len(clients.answers) == 4)
        assert clients.right() == {*siblings, "/fast/0"}
    [conversation] = relay.conversations
    assert conversation.aborted == conversation.begun[3:5]
    assert not conversation.active  # each of them, aborted or not, got its FCGI_END_REQUEST
    assert site.cancelled == {"/wait/left", "/wait/late"}


# --- on one connection of our own ------------------------------------------------------------------------------------


async def _ask(peer: Peer, *paths: str, first: int = 1) -> dict[str, int]:
    """Send requests, some records of each in turn; returns their ids."""
    ids = {path: stream_id for stream_id, path in enumerate(paths, first)}
    requests = [_records(peer, path, stream_id) for path, stream_id in ids.items()]
    with trio.fail_after(PATIENCE):
        for turn in zip_longest(*requests, fillvalue=b""):
            await peer.send(b"".join(turn))
    return ids


def _records(peer: Peer, path: str, stream_id: int) -> Iterator[bytes]:
    body = _body(path)
    method, length = ("GET", {}) if body is None else ("POST", {"CONTENT_LENGTH": str(len(body))})
    yield peer.client.send_request(stream_id, variables(method, path, **length), keep_connection=True)
    pieces = [(body or b"")[start : start + 50_000] for start in range(0, len(body or b""), 50_000)]
    for piece in pieces[:-1]:
        yield peer.client.send_body(stream_id, piece)
    # In one: a body that is as long as announced may be answered before its end is sent.
    yield peer.client.send_body(stream_id, b"".join(pieces[-1:])) + peer.client.end_body(stream_id)


async def _assert_right(peer: Peer, ids: Mapping[str, int]) -> None:
    """Their answers come, whole and theirs."""
    for path, stream_id in ids.items():
        answer = await peer.answer(stream_id)
        assert (answer.status, answer.body, answer.ended) == (200, _answer(path), "complete"), path


async def _first_piece(peer: Peer, stream_id: int) -> None:
    """Wait for the first bytes of an answer's body."""
    with trio.fail_after(PATIENCE):
        while not any(isinstance(event, BodyReceived) and event.stream_id == stream_id for event in peer.events):
            await peer.receive()


async def test_W18_W37_fifty_requests_on_one_connection_do_not_hold_each_other_up() -> None:
    site = Site()
    paths = [*ALL, "/flood/0"]
    async with running(site, limits=Limits(body_buffer=10_000, max_spool=SPOOL)) as backend:
        peer = await backend.connect()
        ids = {path: stream_id for stream_id, path in enumerate(paths, 1)}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask, peer, *paths)
            await _assert_right(peer, {path: ids[path] for path in FAST})
        # What is answered after all has been sent, is answered after all has been read.
        await _assert_right(peer, await _ask(peer, "/fast/last", first=100))
        slow = {*SLOW, *UNREADING}
        assert site.waiting == {*slow, "/flood/0"}
        for path in slow:
            if path.startswith("/stream/"):
                await _first_piece(peer, ids[path])
        site.go_on.set()
        # More than the spool takes: that costs the one request it belongs to.
        assert (await peer.answer(ids["/flood/0"])).status == 413
        await _assert_right(peer, {path: ids[path] for path in slow})


async def test_W37_an_unending_body_in_single_bytes_costs_its_own_request_alone() -> None:
    site = Site()
    async with running(site, limits=Limits(body_buffer=1000, max_spool=10_000)) as backend:
        peer = await backend.connect()
        siblings = await _ask(peer, "/wait/0", "/stream/0")
        await site.until(lambda: len(site.waiting) == 2)
        bytes_of_a_body = wire.encode_record(wire.STDIN, 3, b"x") * 20_000
        await peer.send(peer.client.send_request(3, variables("POST", "/flood/0"), keep_connection=True))
        await peer.send(bytes_of_a_body)
        await _assert_right(peer, await _ask(peer, "/fast/0", first=4))
        site.go_on.set()
        assert (await peer.answer(3)).status == 413
        # What still comes of it is dropped.
        await peer.send(bytes_of_a_body)
        await _assert_right(peer, siblings | await _ask(peer, "/fast/1", first=5))


async def test_W37_who_asks_whether_we_multiplex_is_answered_beside_a_body_that_nobody_reads() -> None:
    site = Site()
    async with running(site, limits=Limits(body_buffer=1000)) as backend:
        peer = await backend.connect()
        await peer.send(fastcgi.ClientConnection().get_values())
        unread = await _ask(peer, "/unread/0")
        await _assert_right(peer, await _ask(peer, "/fast/0", first=2))
        assert site.waiting == {"/unread/0"}
        site.go_on.set()
        await _assert_right(peer, unread)


# --- readers that stop -----------------------------------------------------------------------------------------------


async def _with_a_reader_that_stops(site: Site, backend: Backend) -> tuple[Peer, dict[str, int]]:
    """A connection on which a large answer cannot be sent, with siblings whose handlers wait."""
    peer = await backend.connect()
    ids = await _ask(peer, "/wait/0", "/stream/0", "/wait/1", "/large/0", "/upload/0")
    await site.until(lambda: len(site.waiting) == 3)
    await trio.testing.wait_all_tasks_blocked()  # until nothing more of the large answer is taken
    return peer, ids


async def test_W51_a_reader_that_stops_stops_no_handler_and_loses_nothing(tmp_path: Path) -> None:
    site = Site()
    async with running(site, unix(tmp_path)) as backend:
        peer, ids = await _with_a_reader_that_stops(site, backend)
        site.go_on.set()
        await site.until(lambda: not site.waiting)
        assert (await backend.ask(variables(path="/fast/0"))).status == 200  # on another connection
        assert not peer.events
        await _assert_right(peer, ids)


async def test_R27_W51_a_reader_that_stops_for_too_long_loses_its_connection(tmp_path: Path) -> None:
    site = Site()
    async with running(site, unix(tmp_path), limits=Limits(write_timeout=0.2)) as backend:
        peer, ids = await _with_a_reader_that_stops(site, backend)
        await site.until(lambda: site.cancelled == {"/wait/0", "/stream/0", "/wait/1"})
        assert (await peer.answer(ids["/large/0"])).ended in ("eof", "reset")
        site.go_on.set()
        assert (await backend.ask(variables(path="/fast/0"))).status == 200


async def test_W51_questions_whose_answers_nobody_reads_end_their_connection(tmp_path: Path) -> None:
    site = Site()
    async with running(site, unix(tmp_path), limits=Limits(write_timeout=0.2)) as backend:
        peer = await backend.connect()
        await _ask(peer, "/wait/0")
        await site.until(lambda: bool(site.waiting))
        questions = fastcgi.ClientConnection().get_values() * 2000

        async def ask_on() -> None:
            while True:
                await peer.send(questions)

        with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError):
            await ask_on()
        await site.until(lambda: site.cancelled == {"/wait/0"})
        site.go_on.set()
        assert (await backend.ask(variables(path="/fast/0"))).status == 200


# --- what we tell, and what is enforced ------------------------------------------------------------------------------


class Records:
    """A bare connection: what comes back is kept as records, for a client may give up after a rejection."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.kept: list[tuple[int, int, bytes]] = []
        self._scanner = wire.RecordScanner()

    async def until(self, kind: int, stream_id: int) -> bytes:
        """Wait for a record of this kind; returns its content."""
        with trio.fail_after(PATIENCE):
            while True:
                for each in self.kept:
                    if each[:2] == (kind, stream_id):
                        return each[2]
                data = bytes(await self.peer.stream.receive_some())
                assert data, "the connection has ended"
                self.kept += [
                    (kind, stream_id, bytes(content)) for kind, stream_id, content, _ in self._scanner.scan(data)
                ]

    async def values(self) -> dict[str, str]:
        """Ask what the application can do."""
        await self.peer.send(fastcgi.ClientConnection().get_values())
        return dict(wire.decode_pairs(await self.until(wire.GET_VALUES_RESULT, wire.NULL_REQUEST_ID)))

    async def ended(self, stream_id: int) -> tuple[int, bytes]:
        """Wait for the end of a request; returns its protocol status and what came on STDOUT."""
        _, status = wire.decode_end(await self.until(wire.END_REQUEST, stream_id))
        mine = [content for kind, of, content in self.kept if (kind, of) == (wire.STDOUT, stream_id)]
        return status, b"".join(mine)


async def test_F30_told_of_one_request_at_a_time_a_second_one_is_rejected_and_the_first_undisturbed() -> None:
    site = Site()
    async with running(site, limits=Limits(max_ids=1)) as backend:
        peer = await backend.connect()
        records = Records(peer)
        assert (await records.values())["FCGI_MPXS_CONNS"] == "0"
        await _ask(peer, "/wait/0")
        await site.until(lambda: site.waiting == {"/wait/0"})
        await _ask(peer, "/upload/0", first=2)
        assert await records.ended(2) == (wire.CANT_MPX_CONN, b"")
        assert site.waiting == {"/wait/0"}
        site.go_on.set()
        status, answer = await records.ended(1)
        assert status == wire.REQUEST_COMPLETE
        assert answer.endswith(_answer("/wait/0"))
        await _ask(peer, "/fast/0", first=3)  # the connection is as good as ever
        assert (await records.ended(3))[0] == wire.REQUEST_COMPLETE


async def test_F26_F31_W19_the_number_of_requests_that_is_told_is_the_one_enforced() -> None:
    site = Site()
    async with running(site, limits=Limits(max_ids=3, max_connections=2)) as backend:
        peer = await backend.connect()
        records = Records(peer)
        assert await records.values() == {"FCGI_MAX_CONNS": "2", "FCGI_MAX_REQS": "3", "FCGI_MPXS_CONNS": "1"}
        await _ask(peer, "/wait/1", "/wait/2", "/wait/3", "/wait/4", "/wait/5")
        for stream_id in (4, 5):
            assert await records.ended(stream_id) == (wire.OVERLOADED, b"")
        await site.until(lambda: site.waiting == {"/wait/1", "/wait/2", "/wait/3"})
        site.go_on.set()
        for stream_id in (1, 2, 3):
            assert (await records.ended(stream_id))[0] == wire.REQUEST_COMPLETE
        await _ask(peer, "/fast/6", "/fast/7", "/fast/8", first=6)
        for stream_id in (6, 7, 8):
            assert (await records.ended(stream_id))[0] == wire.REQUEST_COMPLETE


async def test_F26_the_number_of_connections_that_is_told_is_the_one_enforced() -> None:
    site = Site()
    async with running(site, limits=Limits(max_connections=2)) as backend:
        peers = [await backend.connect() for _ in range(3)]  # the system accepts the third for us
        assert (await Records(peers[0]).values())["FCGI_MAX_CONNS"] == "2"
        for peer, path in zip(peers, ("/wait/0", "/wait/1", "/wait/2"), strict=True):
            await _ask(peer, path)
        await site.until(lambda: len(site.waiting) == 2)
        await trio.testing.wait_all_tasks_blocked()
        assert site.waiting == {"/wait/0", "/wait/1"}
        await peers[0].stream.aclose()
        await site.until(lambda: site.waiting == {"/wait/1", "/wait/2"})
        site.go_on.set()
        for peer, path in zip(peers[1:], ("/wait/1", "/wait/2"), strict=True):
            await _assert_right(peer, {path: 1})
