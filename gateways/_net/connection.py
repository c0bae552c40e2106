"""The life of one connection: its bytes taken and turned into requests, their answers written, its deadlines kept.

Nothing here waits but for an answer to be written: a crew (:mod:`gateways._net.crew`) does that for many connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from gateways._model.environ import build
from gateways._model.errors import LimitExceeded, RemoteProtocolError
from gateways._net.exchange import DeadlineExceeded, Exchange
from gateways._net.stream import RECEIVE, AnyStream, Data
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
    from gateways._net.crew import Crew
    from gateways._net.serving import Service

__all__ = ["Connection"]

_TOO_MUCH_UNSENT = 262_144
_BEHIND = 65_536
#: Times that a handler may send before it is made to wait.
_TURNS = 4
#: Pieces of fewer bytes are put together while they wait to be sent.
_CRUMB = 4096
_NONE_DUE: dict[int, float] = {}


class Connection:
    """One stream and the requests on it."""

    __slots__ = (
        "_active_at",
        "_drained",
        "_half_closed",
        "_lingering",
        "_opened_at",
        "_owed",
        "_params_due",
        "_reading",
        "_tasks",
        "_turns",
        "_unsent",
        "_unsent_size",
        "_watched",
        "_write_due",
        "_written",
        "closed",
        "crew",
        "exchanges",
        "gone",
        "protocol",
        "service",
        "stream",
    )

    def __init__(self, service: Service, stream: AnyStream, crew: Crew) -> None:
        self.service = service
        self.stream = stream
        self.crew = crew
        self.protocol = service.protocol.connect(
            stream, limits=service.limits, roles=service.roles.offered, strict=service.listen.strict
        )
        self.exchanges: dict[int, Exchange] = {}
        #: The peer has left, or cannot be written to: nothing needs to be sent any more.
        self.gone = False
        #: The stream is closed.
        self.closed = False
        #: Tasks that write what could not be sent at once, for no handler.
        self._tasks = 0
        self._reading = True
        #: Whether the crew watches this connection: it wants to be read, and there is room.
        self._watched = False
        self._half_closed = False
        self._lingering: float | None = None
        self._drained = 0
        self._owed = False
        #: What could not be sent at once, in pieces, and how many bytes that is.
        self._unsent: deque[Data] = deque()
        self._unsent_size = 0
        #: Times that a handler has sent and was not made to wait.
        self._turns = 0
        #: Set when the task that writes has come to an end; None while no task does.
        self._written: trio.Event | None = None
        self._write_due: float | None = None
        #: When something last came in, or an answer ended.
        self._active_at = self._opened_at = crew.now
        #: When the variables of a request have to be in, by its id; 0 for bytes that tell of no request yet. None
        #: before the first request: a connection that says nothing at all is as slow as one that never comes to the
        #: end of its variables.
        self._params_due: dict[int, float] | None = None

    @staticmethod
    def deadline(seconds: float | None) -> float:
        """The moment that many seconds from now."""
        return float("inf") if seconds is None else trio.current_time() + seconds

    # --- what fails here ends this connection and no other

    @contextmanager
    def confining(self) -> Generator[None]:
        """Keep a bug of ours from the other connections."""
        try:
            yield
        except Exception:
            self.break_down()

    def break_down(self) -> None:
        """Give the connection up for the exception that is being handled: a bug of ours, whatever it is."""
        self.service.log.exception("%s: internal error", self.service.where)
        self._lose()

    def abandon(self) -> None:
        """Nobody reads any more: the server stops. Running handlers may still say goodbye."""
        for exchange in list(self.exchanges.values()):
            if exchange.scope is None:  # it has not begun, and never will
                exchange.discard()
                del self.exchanges[exchange.stream_id]
        if not self.exchanges:
            self._drop(self._unsent_size)
        self._stop_reading()

    def _close_when_done(self) -> None:
        """Close the stream when nothing is to come from it, and nothing to go out on it."""
        if not (self._reading or self.exchanges or self._tasks or self._unsent or self.closed):
            self.closed = True
            self.stream.close()
            self.crew.forget(self)
            self.service.forget(self)

    def settle(self) -> None:
        """After an answer: see to it that it gets out, and close when it was the last."""
        if self._unsent:
            self.write_in_background()
        elif self.exchanges:
            self.mind_reading()
        elif self._lingering is not None:
            pass
        elif self.protocol.broken:
            self._lose()
        elif self.gone:
            self._stop_reading()
        elif self.protocol.closing or self._half_closed:
            self._say_goodbye()
        elif not self._watched:
            self.mind_reading()

    def _say_goodbye(self) -> None:
        """Close in such a way that unread input does not turn the answer into a reset: end writing, then read on
        for a while (Go issue 4183, php's fcgi_close)."""
        if not self._reading or (not self._owed and self.stream.nothing_unread()):
            self._stop_reading()
            return
        self._lingering = self.deadline(self.service.limits.drain_timeout)
        self.stream.end_writing()
        self.mind_reading()

    # --- reading

    def read(self) -> None:
        """Take what has come in, from a stream that can be asked."""
        try:
            data = self.stream.receive_nowait(RECEIVE)
            if data is not None:
                self.take(data)
        except Exception:
            self.break_down()

    def take(self, data: bytes) -> None:
        """Take bytes from the peer; ``b""`` is the end of the stream."""
        self._active_at = self.crew.now
        if not self._reading:
            return
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
            _ON[type(event)](self, event)
        answers = self.protocol.data_to_send()
        if answers:
            self.send(answers)
        expecting = self.protocol.expecting
        if expecting or self._params_due:
            self._mind_params(expecting)
        elif self._params_due is None:
            self._params_due = _NONE_DUE
        if not self.exchanges:
            self.settle()

    def fileno(self) -> int:
        return self.stream.fileno()

    def mind_reading(self) -> None:
        """Have the stream watched while there is room for what it brings."""
        wanted = (
            self._reading and (not self.exchanges or not self._must_wait()) and self._unsent_size <= _TOO_MUCH_UNSENT
        )
        if wanted is not self._watched:
            self._watched = wanted
            if wanted:
                self.crew.watch(self)
            else:
                self.crew.unwatch(self)

    def _must_wait(self) -> bool:
        """Back-pressure: a request alone on its connection may fill its buffer and no more. With siblings it spills,
        because FastCGI has no window for each stream; and where siblings may come, until it cannot."""
        if len(self.exchanges) != 1 or self._lingering is not None:
            return False
        [exchange] = self.exchanges.values()
        inboxes = (exchange.inbox, exchange.data_inbox)
        if self.protocol.shared:
            return any(inbox.full and not inbox.has_room_for(RECEIVE) for inbox in inboxes)
        return any(inbox.full for inbox in inboxes)

    def _stop_reading(self) -> None:
        self._reading = False
        self.mind_reading()
        self._close_when_done()

    def _end_of_stream(self) -> None:
        complete = all(exchange.whole for exchange in self.exchanges.values())
        waits = self.exchanges and complete and self.stream.peer_half_closed()
        if waits or (self._unsent and not self.exchanges):
            # It has said all it wants to say and waits for the answer; or the answer is on its way out already.
            self._half_closed = True
        else:
            self.gone = True
            for event in self.protocol.receive_data(b""):
                _ON[type(event)](self, event)
        self._stop_reading()

    # --- events

    def _on_body(self, event: BodyReceived) -> None:
        exchange = self.exchanges.get(event.stream_id)
        if exchange is not None:
            inbox = exchange.inbox
            inbox.put(event.data, alone=len(self.exchanges) == 1 and not self.protocol.shared)
            if inbox.full:
                self.mind_reading()

    def _on_body_end(self, event: BodyEnded) -> None:
        exchange = self.exchanges.get(event.stream_id)
        if exchange is not None:
            exchange.end_body()

    def _on_data(self, event: DataReceived) -> None:
        exchange = self.exchanges.get(event.stream_id)
        if exchange is not None:
            exchange.data_inbox.put(event.data, alone=len(self.exchanges) == 1 and not self.protocol.shared)
            if exchange.data_inbox.full:
                self.mind_reading()

    def _on_data_end(self, event: DataEnded) -> None:
        exchange = self.exchanges.get(event.stream_id)
        if exchange is not None:
            exchange.data_inbox.end()

    def _on_abort(self, event: RequestAborted) -> None:
        exchange = self.exchanges.get(event.stream_id)
        if exchange is not None:
            exchange.cancel(nobody_waits=True)

    def _on_refusal(self, event: RequestRefused) -> None:
        self._open(event.stream_id, event.error)

    def _on_failure(self, event: ConnectionFailed) -> None:
        self.service.complain(str(event.error))
        self._abort_all()

    def _on_request(self, event: RequestReceived) -> None:
        service = self.service
        if service.unexamined:
            service.examine(event, self.protocol.name)
        try:
            environ, path, repairs = build(event.environ, self.protocol.name, service.rules)
        except RemoteProtocolError as error:
            self._open(event.stream_id, error)
            return
        if repairs:
            service.note_repairs(repairs)
        exchange = self._open(event.stream_id)
        exchange.make_request(environ, path, event.environ, event.role)
        if service.draining:
            self.retire(environ)

    def _open(self, stream_id: int, error: RemoteProtocolError | None = None) -> Exchange:
        exchange = Exchange(self, stream_id, self._active_at)
        if error is not None:
            exchange.refusal = error
        self.exchanges[stream_id] = exchange
        self.service.tally.begun += 1
        self.crew.ready.append(exchange)
        if self._params_due:
            # What is half read now is not what was half read before.
            self._params_due.pop(stream_id, None)
            self._params_due.pop(0, None)
        if len(self.exchanges) > 1 and not self._watched:
            self.mind_reading()
        return exchange

    def exchange_over(self, exchange: Exchange) -> None:
        """An answer has been handed over, or nobody wants it any more."""
        self.exchanges.pop(exchange.stream_id, None)
        self._owed = exchange.owed
        tally = self.service.tally
        tally.answered[exchange.status // 100] += 1
        tally.sent += exchange.sent
        if exchange.scope is not None:  # it has waited
            self._active_at = now = trio.current_time()
            tally.waiting -= 1
            seconds = now - exchange.started_at
            tally.took(seconds)
            slow = self.service.limits.slow_timeout
            if slow is not None and seconds > slow and not exchange.told_slow:
                exchange.report_slow(seconds)
        self.service.log_access(exchange)

    def _abort_all(self) -> None:
        for exchange in self.exchanges.values():
            exchange.cancel(nobody_waits=True)

    def _lose(self) -> None:
        """Give the connection up: nothing can be sent any more."""
        self.gone = True
        self._drop(self._unsent_size)
        self._write_due = None
        self._abort_all()
        self._reading = False
        self.mind_reading()
        self.stream.reset()
        self._close_when_done()

    # --- writing

    def send(self, data: bytes) -> None:
        """Send at once what the socket takes, keep the rest for :meth:`flushed`."""
        if self.gone:
            return
        if self._unsent:
            self._keep(data)
            self.mind_reading()
            return
        try:
            sent = self.stream.send_nowait(data)
        except Exception:
            self.break_down()
            return
        if sent != len(data):
            self._keep(data)
            self._first_sent(sent)

    def send_pieces(self, pieces: Iterable[Data]) -> None:
        """The same for several pieces, none of them empty. They are not copied."""
        if self.gone:
            return
        more = bool(self._unsent)
        for piece in pieces:
            self._keep(piece)
        if more:
            self.mind_reading()
            return
        try:
            sent = self.stream.send_pieces_nowait(self._unsent)
        except Exception:
            self.break_down()
            return
        self._first_sent(sent)

    def _first_sent(self, sent: int) -> None:
        if sent < 0:
            self._lose()
            return
        self._drop(sent)
        if self._unsent:
            self.mind_reading()
            self._write_due = self.deadline(self.service.limits.write_timeout)

    def _keep(self, data: Data) -> None:
        """Add to what is to be sent. Small pieces are put together: each by itself takes many times its size."""
        self._unsent_size += len(data)
        if len(data) < _CRUMB:
            last = self._unsent[-1] if self._unsent else None
            if isinstance(last, bytearray) and len(last) < _CRUMB:
                last += data
                return
            data = bytearray(data)
        self._unsent.append(data)

    def _drop(self, size: int) -> None:
        """Take off what has been sent, or is not to be; it may be gone meanwhile."""
        while size and self._unsent:
            piece = self._unsent.popleft()
            dropped = min(size, len(piece))
            if dropped < len(piece):
                self._unsent.appendleft(memoryview(piece)[dropped:])
            self._unsent_size -= dropped
            size -= dropped

    async def eased(self) -> None:
        """Wait until a handler may send more: while much is unsent, and every now and then in any case. One that sends
        as fast as its peer reads would keep the others from their turn."""
        self._turns += 1
        if self._turns >= _TURNS or self.behind:
            self._turns = 0
            await self.flushed()

    async def flushed(self) -> None:
        """Wait until everything is sent or the peer is gone, and once in any case. Cancelled, it leaves the rest for
        the next caller."""
        if not self._unsent:
            await trio.lowlevel.checkpoint()
        while self._unsent:
            if self._written is not None:
                await self._written.wait()
                continue
            self._written = written = trio.Event()
            try:
                await self._write()
            finally:
                self._written = None
                written.set()
                self.mind_reading()

    async def _write(self) -> None:
        # The handler may have had other things to do until now.
        self._write_due = self.deadline(self.service.limits.write_timeout)
        while self._unsent:
            sent = await self.stream.send_some(self._unsent[0])
            while sent > 0:
                self._drop(sent)
                sent = self.stream.send_pieces_nowait(self._unsent) if self._unsent else 0
            if sent < 0:
                self._lose()
                return
            self._write_due = self.deadline(self.service.limits.write_timeout) if self._unsent else None

    @property
    def behind(self) -> bool:
        """Whether so much waits to be sent that a handler should not add to it."""
        return self._unsent_size >= _BEHIND

    def write_in_background(self) -> None:
        """See to it that what could not be sent at once is sent although no handler waits for that."""
        if self._unsent and self._written is None and not self._tasks:
            self._tasks += 1
            self.crew.nursery.start_soon(self._write_out)

    async def _write_out(self) -> None:
        with self.confining():
            try:
                await self.flushed()
            finally:
                self._active_at = trio.current_time()  # the web server has its answer only now
                self._tasks -= 1
                self._close_when_done()
            self.settle()

    # --- time

    def _mind_params(self, expecting: Collection[int]) -> None:
        before = self._params_due
        if before is None:
            before = {0: self._first_due()}
        # The time runs from the first byte, which told of no request yet.
        new = before.get(0) or self.deadline(self.service.limits.params_timeout)
        self._params_due = {stream_id: before.get(stream_id, new) for stream_id in expecting}

    def _first_due(self) -> float:
        seconds = self.service.limits.params_timeout
        return float("inf") if seconds is None else self._opened_at + seconds

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
        elif now > (self._first_due() if self._params_due is None else min(self._params_due.values(), default=now)):
            self.service.complain("a request did not come to the end of its variables in time")
            self._lose()
        elif self.exchanges:
            if not self._watched and self.stream.peer_gone():
                self._lose()
            else:
                self._sweep_exchanges(now)
        elif self._params_due or self._unsent:
            pass
        elif now - self._active_at > self.service.patience:
            self.close_idle()

    def _sweep_exchanges(self, now: float) -> None:
        limits = self.service.limits
        for exchange in list(self.exchanges.values()):
            if now > exchange.goodbye_due:
                exchange.goodbye_due = float("inf")
                exchange.part()
                self.settle()
                continue
            seconds = now - exchange.started_at
            if limits.slow_timeout is not None and seconds > limits.slow_timeout and not exchange.told_slow:
                exchange.report_slow(seconds)
            for inbox in (exchange.inbox, exchange.data_inbox):
                since = inbox.waiting_since
                if limits.body_timeout is not None and since is not None and now - since > limits.body_timeout:
                    inbox.fail(LimitExceeded(f"no body data for {limits.body_timeout} seconds", status=408))
            if limits.request_timeout is not None and now - exchange.started_at > limits.request_timeout:
                late = f"the request took more than {limits.request_timeout} seconds"
                exchange.cancel(nobody_waits=False, error=DeadlineExceeded(late, status=504))

    @property
    def idle_since(self) -> float:
        """When it was last of use, where it is of none now; infinity where it is."""
        busy = self.exchanges or self._params_due or self._unsent or self._lingering is not None or self.gone
        return float("inf") if busy else self._active_at

    def close_idle(self) -> None:
        """Close although it is kept, but not upon a request that came while the process was busy elsewhere."""
        if not self.stream.unread():
            self._say_goodbye()

    def retire(self, environ: Mapping[str, str] | None = None) -> None:
        """The server is stopping: be done with the end of the next answer, or of those that are owed. If none comes,
        ``Service.patience`` ends before long. ``environ`` is that of a request."""
        retire = getattr(self.protocol, "retire", None)
        if environ is None:
            requests = [exchange.request for exchange in self.exchanges.values()]
            environ = next((request.environ for request in requests if request is not None), None)
        if retire is not None and not self.gone:
            retire(environ)
            answers = self.protocol.data_to_send()
            if answers:
                self.send(answers)
                self.write_in_background()


#: What becomes of each kind of event.
_ON: dict[type[Event], Callable[[Connection, Any], None]] = {
    RequestReceived: Connection._on_request,
    RequestRefused: Connection._on_refusal,
    BodyReceived: Connection._on_body,
    BodyEnded: Connection._on_body_end,
    DataReceived: Connection._on_data,
    DataEnded: Connection._on_data_end,
    RequestAborted: Connection._on_abort,
    ConnectionFailed: Connection._on_failure,
}
