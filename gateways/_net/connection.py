"""The life of one connection: its bytes read and turned into requests, their answers written, its deadlines kept.

A connection is read by one task at a time. That task also runs the handlers; when one of them waits, a sibling task
takes over reading, so that a request that waits costs a task and one that does not costs none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateways._model.environ import build
from gateways._model.errors import LimitExceeded, RemoteProtocolError
from gateways._net.exchange import DeadlineExceeded, Exchange
from gateways._net.stream import AnyStream
from gateways.events import (
    BodyEnded,
    BodyReceived,
    ConnectionFailed,
    DataEnded,
    DataReceived,
    Event,
    RequestAborted,
    RequestReceived,
    RequestRefused,
)

if TYPE_CHECKING:
    from gateways._net.serving import Service

__all__ = ["Connection"]

_RECEIVE = 65_536
_TOO_MUCH_UNSENT = 262_144


class Connection:
    """One stream and the requests on it."""

    def __init__(self, service: Service, stream: AnyStream, nursery: trio.Nursery) -> None:
        self.service = service
        self.stream = stream
        self._nursery = nursery
        self.protocol = service.protocol.connect(
            stream, limits=service.limits, roles=service.roles.offered, strict=service.listen.strict
        )
        self.exchanges: dict[int, Exchange] = {}
        #: The peer has left, or cannot be written to: nothing needs to be sent any more.
        self.gone = False
        self._ready: deque[Exchange] = deque()
        self._tasks = 1
        self._reading = True
        self._half_closed = False
        self._lingering: float | None = None
        self._drained = 0
        self._owed = False
        self._room: trio.Event | None = None
        self._unsent = bytearray()
        self._writing = False
        self._written = trio.Event()
        self._write_due: float | None = None
        #: When the variables of a request have to be in, by its id; 0 for bytes that tell of no request yet. A
        #: connection that says nothing at all is as slow as one that never comes to the end of its variables.
        self._params_due = {0: self.deadline(service.limits.params_timeout)}
        self._idle_due: float | None = None

    @staticmethod
    def deadline(seconds: float | None) -> float:
        """The moment that many seconds from now."""
        return float("inf") if seconds is None else trio.current_time() + seconds

    # --- tasks

    async def run(self) -> None:
        """A task of the connection: read and run handlers until one of them waits or the connection is over."""
        await self._confine(self._lead)

    async def _confine(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of one task; what fails there ends this connection and no other."""
        try:
            await work()
        except Exception:
            self.break_down()
        finally:
            self._leave()

    def break_down(self) -> None:
        """Give the connection up for the exception that is being handled: a bug of ours, whatever it is, that must
        not reach the other connections."""
        self.service.log.exception("%s: internal error", self.service.where)
        self._lose()

    def _leave(self) -> None:
        """One task less; the last one closes the stream."""
        self._tasks -= 1
        if not self._tasks:
            self.stream.close()
            for exchange in self.exchanges.values():  # cancelled before they could begin
                exchange.discard()
            self.service.forget(self)

    async def _lead(self) -> None:
        while True:
            while self._ready:
                exchange = self._ready.popleft()
                if not exchange.begin():
                    self._tasks += 1
                    self._nursery.start_soon(self.run)
                    await exchange.rest()
                    await self._settle()
                    return
                await self._settle()
            if not self._reading:
                return
            await self._read()

    async def _settle(self) -> None:
        """After an answer: get it out, and close when it was the last."""
        if self._unsent:
            await self.flushed()
        if self.exchanges or self._ready or self._lingering is not None:
            return
        if self.protocol.broken:
            self._lose()
        elif self.gone:
            self._stop_reading()
        elif self.protocol.closing or self._half_closed or (self.service.draining and not self.protocol.expecting):
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Close in such a way that unread input does not turn the answer into a reset: end writing, then read on
        for a while (Go issue 4183, php's fcgi_close)."""
        self._lingering = self.deadline(self.service.limits.drain_timeout)
        self.stream.end_writing()
        self.make_room()
        if not self._reading:
            self.stream.close()

    # --- reading

    async def _read(self) -> None:
        if len(self._unsent) > _TOO_MUCH_UNSENT:
            await self.flushed()
        while self._must_wait():
            self._room = trio.Event()
            await self._room.wait()
            self._room = None
        data = await self.stream.receive(_RECEIVE)
        if self._lingering is not None:
            self._drained += len(data)
            # A web server that is still sending the body of an answered request has to be heard out: nginx and Apache
            # make a 502 or 503 of an answer when they cannot write on (nginx on a unix socket may even hang).
            if not data or (self._drained > self.service.limits.drain_bytes and not self._owed):
                self._stop_reading()
            return
        if not data:
            self._end_of_stream()
            return
        for event in self.protocol.receive_data(data):
            self._take(event)
        answers = self.protocol.data_to_send()
        if answers:
            self.send(answers)
        self._mind_time()
        if not self._ready:
            await self._settle()

    def _must_wait(self) -> bool:
        """Back-pressure: a request alone on its connection may fill its buffer and no more. With siblings it spills,
        because FastCGI has no window for each stream; and where siblings may come, until it cannot."""
        if len(self.exchanges) != 1 or self._lingering is not None:
            return False
        [exchange] = self.exchanges.values()
        inboxes = (exchange.inbox, exchange.data_inbox)
        if self.protocol.shared:
            return any(inbox.full and not inbox.has_room_for(_RECEIVE) for inbox in inboxes)
        return any(inbox.full for inbox in inboxes)

    def make_room(self) -> None:
        """Reading may go on."""
        if self._room is not None:
            self._room.set()

    def _stop_reading(self) -> None:
        self._reading = False
        if self._lingering is not None or not self.exchanges:
            self.stream.close()

    def _end_of_stream(self) -> None:
        complete = all(exchange.inbox.ended and exchange.data_inbox.ended for exchange in self.exchanges.values())
        waits = self.exchanges and complete and self.stream.peer_half_closed()
        if waits or (self._unsent and not self.exchanges):
            # It has said all it wants to say and waits for the answer; or the answer is on its way out already.
            self._half_closed = True
            self._reading = False
            return
        self.gone = True
        for event in self.protocol.receive_data(b""):
            self._take(event)
        self._stop_reading()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._receive_request(event)
            case BodyReceived(stream_id, data):
                if stream_id in self.exchanges:
                    self.exchanges[stream_id].inbox.put(data)
            case BodyEnded(stream_id):
                if stream_id in self.exchanges:
                    self.exchanges[stream_id].inbox.end()
            case DataReceived(stream_id, data):
                if stream_id in self.exchanges:
                    self.exchanges[stream_id].data_inbox.put(data)
            case DataEnded(stream_id):
                if stream_id in self.exchanges:
                    self.exchanges[stream_id].data_inbox.end()
            case RequestAborted(stream_id):
                if stream_id in self.exchanges:
                    self.exchanges[stream_id].cancel(nobody_waits=True)
            case RequestRefused(stream_id, _, error):
                self._open(stream_id, error)
            case ConnectionFailed(error):
                self.service.complain(str(error))
                self._abort_all()

    def _receive_request(self, event: RequestReceived) -> None:
        service = self.service
        try:
            environ, path, repairs = build(event.environ, self.protocol.name, service.rules)
        except RemoteProtocolError as error:
            self._open(event.stream_id, error)
            return
        if repairs:
            service.note_repairs(repairs)
        exchange = self._open(event.stream_id, None, expects_data=event.role == "filter")
        exchange.make_request(environ, path, event.environ, event.role)

    def _open(self, stream_id: int, error: RemoteProtocolError | None, *, expects_data: bool = False) -> Exchange:
        exchange = Exchange(self, stream_id, expects_data=expects_data)
        exchange.refusal = error
        self.exchanges[stream_id] = exchange
        self._ready.append(exchange)
        # What is half read now is not what was half read before.
        self._params_due.pop(stream_id, None)
        self._params_due.pop(0, None)
        return exchange

    def exchange_over(self, exchange: Exchange) -> None:
        """An answer has been handed over, or nobody wants it any more."""
        self.exchanges.pop(exchange.stream_id, None)
        self._owed = exchange.owed
        self.service.log_access(exchange)
        self.make_room()
        self._mind_time()

    def _abort_all(self) -> None:
        for exchange in self.exchanges.values():
            exchange.cancel(nobody_waits=True)

    def _lose(self) -> None:
        """Give the connection up: nothing can be sent any more."""
        self.gone = True
        self._unsent.clear()
        self._write_due = None
        self._abort_all()
        self._reading = False
        self.stream.reset()

    # --- writing

    def send(self, data: bytes) -> None:
        """Send at once what the socket takes, keep the rest for :meth:`flushed`."""
        if self.gone:
            return
        if self._unsent:
            self._unsent += data
            return
        sent = self.stream.send_nowait(data)
        if sent < 0:
            self._lose()
        elif sent < len(data):
            self._unsent += data[sent:]
            self._write_due = self.deadline(self.service.limits.write_timeout)

    async def flushed(self) -> None:
        """Wait until everything is sent or the peer is gone. Cancelled, it leaves the rest for the next caller."""
        while self._unsent:
            if self._writing:
                await self._written.wait()
                continue
            self._writing = True
            try:
                await self._write()
            finally:
                self._writing = False
                self._written.set()
                self._written = trio.Event()

    async def _write(self) -> None:
        while self._unsent:
            sent = await self.stream.send_some(self._unsent)
            if sent < 0:
                self._lose()
                return
            del self._unsent[:sent]
            if self._unsent:
                self._write_due = self.deadline(self.service.limits.write_timeout)
                await trio.lowlevel.checkpoint()  # a peer that reads as fast as we write would keep us here
            else:
                self._write_due = None

    def write_in_background(self) -> None:
        """See to it that what could not be sent at once is sent while the handler waits."""
        if self._unsent and not self._writing:
            self._tasks += 1
            self._nursery.start_soon(self._confine, self.flushed)

    # --- time

    def _mind_time(self) -> None:
        limits, expecting = self.service.limits, self.protocol.expecting
        if expecting:
            before = self._params_due
            # The time runs from the first byte, which told of no request yet.
            new = before.get(0) or self.deadline(limits.params_timeout)
            self._params_due = {stream_id: before.get(stream_id, new) for stream_id in expecting}
        elif self._params_due:
            self._params_due = {}
        idle = not self.exchanges and not expecting
        self._idle_due = self.deadline(limits.idle_timeout) if idle else None

    def sweep(self, now: float) -> None:
        """See whether any deadline has passed."""
        if self._lingering is not None:
            if now > self._lingering:
                self._stop_reading()
        elif self._write_due is not None and now > self._write_due:
            self.service.complain("the web server does not read its answer")
            self._lose()
        elif self.gone:
            pass  # nothing is due any more, whatever a handler still does
        elif self._params_due and now > min(self._params_due.values()):
            self.service.complain("a request did not come to the end of its variables in time")
            self._lose()
        elif self._idle_due is not None and now > self._idle_due and not self._unsent:
            self._say_goodbye()
        elif self.exchanges and (self._half_closed or self._room is not None) and self.stream.peer_gone():
            self._lose()
        else:
            self._sweep_exchanges(now)

    def _sweep_exchanges(self, now: float) -> None:
        limits = self.service.limits
        for exchange in list(self.exchanges.values()):
            if now > exchange.goodbye_due:
                exchange.goodbye_due = float("inf")
                self._tasks += 1
                self._nursery.start_soon(self._confine, partial(self._part, exchange))
                continue
            for inbox in (exchange.inbox, exchange.data_inbox):
                since = inbox.waiting_since
                if limits.body_timeout is not None and since is not None and now - since > limits.body_timeout:
                    inbox.fail(LimitExceeded(f"no body data for {limits.body_timeout} seconds", status=408))
            if limits.request_timeout is not None and now - exchange.started_at > limits.request_timeout:
                late = f"the request took more than {limits.request_timeout} seconds"
                exchange.cancel(nobody_waits=False, error=DeadlineExceeded(late, status=504))

    async def _part(self, exchange: Exchange) -> None:
        exchange.part()
        await self._settle()

    def drain(self) -> None:
        """The server is stopping: close unless an answer is owed, or on its way, or a request is half read."""
        busy = self.exchanges or self._unsent or self.protocol.expecting
        if not busy and self._lingering is None:
            self._say_goodbye()
