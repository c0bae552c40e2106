"""One request on its way through: the handler run under its scope, its answer framed and handed to the connection.

An exchange is at once the sink of the policy (it collects the answer and decides when it leaves) and the carrier
that the Request logs and runs threads through.
"""

from __future__ import annotations

import contextvars
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import trio

from gateways._model.environ import is_http
from gateways._model.errors import GatewayError, LocalProtocolError, Reject, RemoteProtocolError
from gateways._model.handler import SET_ASIDE, Resumed, SetAside, drive
from gateways._model.policy import NGINX_HEAD, Answer, Begun, ExcessBody, answer, begin_answer, refuse, respond
from gateways._model.request import Body, Carrier, Request, content_length, data_length
from gateways._net.access import new_request_id, target
from gateways._net.inbox import NOTHING, Inbox
from gateways._net.lines import indented, printable
from gateways._net.stream import Data

if TYPE_CHECKING:
    from gateways._model.dialects.voice import Voice
    from gateways._model.handler import Handler
    from gateways._model.response import Response
    from gateways._net.connection import Connection
    from gateways.events import Variables

__all__ = ["DeadlineExceeded", "Exchange", "ServerStopping", "Stepper", "new_stepper"]

T = TypeVar("T")

#: An answer begins to leave when this much of it has gathered, and whenever the handler is about to wait.
_FLUSH_AT = 65_536
#: The rest leaves in pieces of this size: one that is larger does not fit into the buffer of a socket anyway.
_MORE_AT = 131_072
#: Chunks of so many bytes on average are large.
_LARGE = 16_384


class DeadlineExceeded(RemoteProtocolError):
    """A request took longer than ``Limits.request_timeout``."""


class Full(Reject):
    """A request that came while ``Limits.max_running`` others were running."""

    def __init__(self) -> None:
        super().__init__(503, "the server is busy", [("Retry-After", "1")])


async def _full(request: Request) -> Response:
    raise Full


class ServerStopping(RemoteProtocolError):
    """A request that had not been answered when the grace of a shutdown was over."""


#: What steps the coroutine of one exchange after the other.
Stepper = Generator[Any, "Exchange", None]
#: What a stepper yields when it is ready for the next.
_ENDED = object()


def new_stepper() -> Stepper:
    """A stepper, ready for the first exchange.

    Python hands what a coroutine gives back to whoever steps it as an exception, which is dear, but to what awaits it
    as a value.
    """
    stepper = cast("Stepper", _stepping())
    next(stepper)
    return stepper


@types.coroutine
def _stepping() -> Generator[Any, Any, None]:
    exchange: Any = yield _ENDED
    while True:
        exchange.app_status = yield from exchange.coroutine
        if exchange.scope is not None:
            return  # it has waited, so that this is stepped by trio
        exchange = yield _ENDED


def _parted(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What came out of a handler, parted: its own failures, and what concerns the whole server (that it is being
    cancelled, KeyboardInterrupt, SystemExit). A nursery may raise both at once."""
    stopping = trio.current_effective_deadline() == float("-inf")

    def is_failure(each: BaseException) -> bool:
        # A Cancelled that nobody has sent us was kept from another request; passed on, it would stop the server.
        return isinstance(each, Exception) or (isinstance(each, trio.Cancelled) and not stopping)

    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(is_failure)
    return (error, None) if is_failure(error) else (None, error)


class Exchange(Carrier):
    """One request and its answer. Begun by the leader of a crew, finished in the same task if it waits."""

    # What most requests never change stands here, so that it need not be set for each.

    #: What a handler that waits is cancelled by; None before it does.
    scope: trio.CancelScope | None = None
    request: Request | None = None
    refusal: RemoteProtocolError | None = None
    committed = False
    #: The status and the number of body bytes that were sent, for the access log.
    status = 0
    sent = 0
    #: The id that lines of the log have been given, None before there are any.
    named: str | None = None
    #: Whether the log tells already that it takes long.
    told_slow = False
    #: Whether, when the answer had ended, there was more of the request to come.
    owed = False
    #: When a handler that was cancelled has had the time to come to its end.
    goodbye_due = float("inf")
    data_inbox = NOTHING
    _inbox: Inbox | None = None
    _stopped_by: RemoteProtocolError | None = None
    _nobody_waits = False
    _head = b""
    _sent_head = b""
    _gathered = 0
    _over = False
    #: The answer that the handler has begun by itself.
    begun: Begun | None = None
    #: What makes another dialect than CGI's of the answer.
    voice: Voice | None = None
    #: The app status of an answer that is complete while its handler goes on.
    _ended_with: int | None = None
    _error: BaseException | None = None
    #: What answers the request, and the app status that it has given back.
    coroutine: Coroutine[Any, Any, int]
    app_status: int
    _stepper: Stepper
    _trap: Any
    _task: trio.lowlevel.Task
    #: What the handler runs in, once it has begun.
    context: contextvars.Context | None = None

    def __init__(self, connection: Connection, stream_id: int, now: float) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.started_at = now
        self._chunks: list[bytes] = []

    def make_request(self, environ: dict[str, str], path: str, as_sent: Variables, role: str) -> None:
        """Put the Request together from parts that have been checked."""
        data = None
        if role == "filter":
            self.data_inbox = self._new_inbox()
            max_read = self.connection.service.limits.max_read
            data = Body(self.data_inbox, data_length(environ), max_read=max_read)
        self.request = Request._built(environ, path, as_sent, None, role, data, self.connection.protocol.name, self)

    # --- what comes in

    def _new_inbox(self) -> Inbox:
        limits = self.connection.service.limits
        return Inbox(limits.body_buffer, limits.max_spool, self.connection.mind_reading)

    @property
    def inbox(self) -> Inbox:
        """Where the body comes in: made when something does, or when somebody looks."""
        if self._inbox is None:
            self._inbox = self._new_inbox()
        return self._inbox

    def end_body(self) -> None:
        """The web server has sent all of the body, which is most often nothing."""
        if self._inbox is None:
            self._inbox = NOTHING
        else:
            self._inbox.end()

    @property
    def whole(self) -> bool:
        """Whether all is in that the web server has to send."""
        return self._inbox is not None and self._inbox.ended and self.data_inbox.ended

    # --- running

    def begin(self, scope: trio.CancelScope) -> bool:
        """Run the handler up to its first wait; whether that was the end, or it is set aside until it is begun again.
        If not, ``scope`` is the request's from now on, and :meth:`rest` has to follow.
        """
        crew = self.connection.crew
        context = self.context
        if context is None:
            if self._nobody_waits or self._stopped_by is not None:
                self.conclude_cancelled()
                return True
            self.coroutine = self._answering()
            self.context = context = contextvars.copy_context()
            stepper = crew.stepper
        else:
            stepper = self._stepper
        try:
            # Whatever it yields is for trio to judge: None is what ``await asyncio.sleep(0)`` waits for.
            trap = context.run(stepper.send, self)
            if trap is _ENDED:
                self._conclude(self.app_status)
                return True
        except BaseException as error:
            self._error = error  # raised by rest()
            crew.stepper = new_stepper()
        else:
            if stepper is crew.stepper:
                crew.stepper = new_stepper()
            self._stepper = stepper
            if trap is SET_ASIDE:
                crew.set_aside(self)
                return True
            self._trap = trap
        self._task = trio.lowlevel.current_task()
        self.scope = scope
        self.connection.service.tally.waiting += 1
        if self._nobody_waits or self._stopped_by is not None:
            scope.cancel()
        return False

    async def rest(self) -> None:
        """Go on from the first wait to the end, in the same task."""
        if self._error is not None:
            raise self._error
        await Resumed(self._stepper, self._trap, self._before_wait, self.context)
        self._conclude(self.app_status)

    def cancel(self, *, nobody_waits: bool, error: RemoteProtocolError | None = None) -> None:
        """Cancel the handler: because nobody waits for its answer, or because of an error that is the answer."""
        self._nobody_waits = self._nobody_waits or nobody_waits
        self._stopped_by = self._stopped_by or error
        if self.scope is not None and not self.scope.cancel_called:
            self.goodbye_due = self.connection.deadline(self.connection.service.limits.goodbye_timeout)
            self.scope.cancel()

    def part(self) -> None:
        """End the request although its handler, cancelled, does not come to its end. Nothing that it still sends goes
        anywhere."""
        self._say(logging.WARNING, "the handler goes on although it was cancelled")
        self._task = trio.lowlevel.current_task()  # who speaks for it from now on
        self.conclude_cancelled()

    def _answering(self) -> Coroutine[Any, Any, int]:
        """What is to be awaited to have the request answered; it gives the app status that concludes the answer."""
        service = self.connection.service
        if self.request is None:
            return refuse(self.refusal or GatewayError("no request"), "GET", self)
        handler: Handler = service.roles
        if service.tally.waiting >= service.limits.max_running:
            service.tally.full += 1
            running = f"{service.tally.waiting} requests are running"
            service.complain(f"full: {running}; more are answered with 503", most=1)
            handler = _full
        return respond(handler, self.request, self, service.limits, service.listen.allow_headers)

    async def fail(self, error: BaseException) -> None:
        """See to an error that the handler, or the whole server, has ended with. Raises what concerns the server."""
        failure, other = _parted(error)
        if failure is not None and (other is not None or self._unanswerable):
            self.report(failure)
        if other is None:
            self._conclude_broken(error)
            return
        # Cancelled from outside: the server stops. What can be said in a moment is said.
        self._conclude_broken(ServerStopping("the server is stopping", status=503))
        goodbye = self.connection.deadline(self.connection.service.limits.goodbye_timeout)
        with trio.CancelScope(shield=True, deadline=goodbye):
            await self.connection.flushed()
        if failure is None:
            raise error
        raise other from None

    @property
    def _unanswerable(self) -> bool:
        """Whether an error can no longer become an answer, so that nothing but the log tells of it."""
        return self._over or self.committed or self._nobody_waits or self.connection.gone

    def _conclude(self, app_status: int) -> None:
        """The answer is complete: send what is left of it and its end in one piece."""
        protocol = self.connection.protocol
        if self._over:
            self.connection.service.finished(self)  # parted from its handler, or answered before
            return
        if self._head:
            body = b"".join(self._chunks)
            self.sent += len(body)
            self.committed = True
            self._finish(protocol.answer(self.stream_id, self._head, body, app_status))
        else:
            self._finish(self._frames() + protocol.end(self.stream_id, app_status))

    def conclude_cancelled(self) -> None:
        """The handler was cancelled, and has come to its end unless there was nothing to begin."""
        if self._over:
            self.connection.service.finished(self)  # it was faster, or is parted from its handler
        elif self._nobody_waits:
            self._finish(b"" if self.connection.gone else self.connection.protocol.end(self.stream_id, 0))
        else:
            self._conclude_broken(self._stopped_by or GatewayError("cancelled"))

    def _conclude_broken(self, error: BaseException) -> None:
        """The answer broke: a clean error while that is possible, else as visibly as the protocol can."""
        protocol = self.connection.protocol
        if self._over or self._nobody_waits:
            self.conclude_cancelled()
        elif self._ended_with is not None:
            self._conclude(self._ended_with)
        elif self.connection.gone:
            self._finish(b"")
        elif not self.committed:
            drive(refuse(error, "GET" if self.request is None else self.request.method, self))
            self._finish(self._frames() + protocol.end(self.stream_id, 0))
        elif self.request is not None and not is_http(self.request.environ):
            # gmid waits for ever for the end of a Gemini answer that was cut off.
            self._finish(self._frames() + protocol.end(self.stream_id, 1))
        else:
            self._finish(self._frames() + protocol.fail(self.stream_id))

    def _finish(self, last: bytes) -> None:
        self._over = True
        self.owed = not self.whole
        self.discard()
        if last:
            if self.connection.service.draining and self.connection.protocol.closing:
                self.connection.stream.cork()
            self.connection.send(last)
        self.connection.exchange_over(self)
        if self.scope is None:
            # The request knows us as its carrier: let them not keep each other until the garbage is collected.
            self.request = None

    def break_down(self) -> None:
        """Give the whole connection up for a bug of ours, the exception that is being handled."""
        self._over = True
        self.discard()
        if self.connection.exchanges.pop(self.stream_id, None) is not None:
            tally = self.connection.service.tally
            tally.answered[0] += 1
            tally.waiting -= self.scope is not None
        self.connection.break_down()

    def discard(self) -> None:
        """Let go of what an exchange holds that never came to its end."""
        if self._inbox is not NOTHING:
            self.inbox.close()
        if self.data_inbox is not NOTHING:
            self.data_inbox.close()

    # --- the sink of the policy

    def take(self, answer: Answer, data: bytes) -> bool:
        if self._over:
            return False
        self._take_head(answer)
        if data:
            self._chunks.append(data)
            self._gathered = len(data)
        return True

    async def start(self, answer: Answer) -> None:
        if self._over:
            await self._refuse_more()
        self._take_head(answer)

    def _take_head(self, answer: Answer) -> None:
        self._head = answer.head
        self._chunks.clear()
        self._gathered = 0
        self.status = answer.status
        if len(answer.head) > NGINX_HEAD:
            self.connection.service.log.warning(
                "a response head of %d bytes: nginx takes %d unless fastcgi_buffer_size (scgi_buffer_size) is raised",
                len(answer.head),
                NGINX_HEAD,
            )

    async def write(self, data: bytes) -> None:
        if self._over:
            await self._refuse_more()
        self._chunks.append(data)
        self._gathered += len(data)
        # Only the handler's own task is seen to wait (_before_wait); tasks that it has started are not.
        if self.scope is not None and trio.lowlevel.current_task() is not self._task:
            self._flush()
            await self.connection.flushed()
        elif self._gathered >= (_MORE_AT if self.committed else _FLUSH_AT) or (
            self.committed and self.connection.behind
        ):
            self._flush()
            await self.connection.eased()

    async def end(self, app_status: int) -> None:
        """The answer is complete, and its handler goes on: it leaves when that waits next, or comes to its end."""
        if self._over:
            await self._refuse_more()
        self._ended_with = app_status
        self.committed = True  # no error takes its place any more
        if self.scope is not None and trio.lowlevel.current_task() is not self._task:
            self._end_before_handler(app_status)
            await self.connection.flushed()

    def _end_before_handler(self, app_status: int) -> None:
        self.connection.service.trailing.add(self)
        request = self.request
        self._conclude(app_status)
        self.request = request  # the log may have to tell of it
        self.connection.settle()

    async def _refuse_more(self) -> NoReturn:
        # A handler may have given ``send`` away, or not have come to its end when it was cancelled: then it hears that.
        # Its stream_id may belong to another request by now.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise LocalProtocolError("this answer has ended: nothing more can be sent")

    def _flush(self) -> None:
        if not self._chunks or self._gathered < _LARGE * len(self._chunks):
            frames = self._frames()
            if frames:
                self.connection.send(frames)
            return
        # Large chunks are not put together: to copy them, and to have the memory for that, costs like sending them.
        chunks, self._chunks = self._chunks, []
        pieces: list[Data] = [self._frames()]
        protocol = self.connection.protocol
        in_pieces = getattr(protocol, "frame_body", None)
        for chunk in chunks:
            if in_pieces is None:
                pieces.append(protocol.send_body(self.stream_id, chunk))
            else:
                pieces += in_pieces(self.stream_id, chunk)
        self.sent += self._gathered
        self._gathered = 0
        self.committed = True
        self.connection.send_pieces([piece for piece in pieces if piece])

    def _frames(self) -> bytes:
        """What has gathered, framed: the whole head in one record, in one write with what follows it."""
        protocol, frames = self.connection.protocol, b""
        if self._head:
            frames = protocol.send_head(self.stream_id, self._head)
            self._sent_head, self._head = self._head, b""
        if self._chunks:
            self.sent += self._gathered
            frames += protocol.send_body(self.stream_id, b"".join(self._chunks))
            self._chunks.clear()
            self._gathered = 0
        if frames:
            self.committed = True
        return frames

    def _before_wait(self) -> None:
        if self._over:
            return
        try:
            if self._ended_with is not None:
                self._end_before_handler(self._ended_with)
                return
            if self._chunks:  # a lone head may still become a clean error
                self._flush()
            self.connection.write_in_background()
        except Exception:
            # Raised here, between two steps of the handler, it would leave it suspended for ever.
            self.connection.break_down()

    def report(self, error: BaseException) -> None:
        if isinstance(error, RemoteProtocolError | ExcessBody):
            self._say(logging.WARNING, printable(str(error)))
        else:
            self._say(logging.ERROR, "the handler failed", error)
        if not self._over:
            self.connection.protocol.send_log(self.stream_id, indented(f"{type(error).__name__}: {error}") + "\n")

    def report_slow(self, seconds: float) -> None:
        """Tell the log, once, that the request has taken so long; while it goes on, also what it is doing."""
        self.told_slow = True
        self.connection.service.tally.slow += 1
        if self._over:
            self._say(logging.WARNING, f"took {seconds:.1f} seconds")
            return
        from gateways._net.slow import task_tree  # few servers ever need it

        try:
            tree = "  (it has not begun)" if self.scope is None else task_tree(self.coroutine, self._task)
        except Exception as error:  # whatever Python and trio have changed inside, the request is not to suffer for it
            tree = printable(f"  (what it does cannot be shown: {error!r})")
        self._say(logging.WARNING, f"has been running for {seconds:.1f} seconds\n{tree}")

    def _say(self, level: int, text: str, error: BaseException | None = None) -> None:
        log = self.connection.service.log
        log.log(level, "%s: %s", self.describe(), text, exc_info=error, extra={"request_id": self.request_id})

    @property
    def request_id(self) -> str:
        """What lines of the log about this request have in common: the web server's name for it, or one of ours."""
        if self.named is None:
            self.named = new_request_id(self.request)
        return self.named

    @property
    def head(self) -> bytes:
        """The head of the answer."""
        return self._head or self._sent_head

    def describe(self) -> str:
        """The request in a few words for the log, control characters escaped."""
        if self.request is None:
            return "a request that was refused"
        return printable(f"{self.request.method} {target(self.request)}")

    # --- the carrier of the Request

    def log(self, text: str) -> None:
        self._say(logging.WARNING, printable(text))
        if not self._over:
            data = self.connection.protocol.send_log(self.stream_id, indented(text) + "\n")
            if data:
                self.connection.send(data)

    def body_of(self, request: Request) -> Body:
        limits = self.connection.service.limits
        return Body(self.inbox, content_length(request.environ), max_read=limits.max_read)

    async def answer(self, request: Request, response: Response) -> None:
        service = self.connection.service
        await answer(response, request, self, limits=service.limits, allowed=service.listen.allow_headers)

    async def begin_answer(self, request: Request, response: Response) -> Begun:
        service = self.connection.service
        return await begin_answer(response, request, self, limits=service.limits, allowed=service.listen.allow_headers)

    @property
    def disconnected(self) -> bool:
        return self._nobody_waits or self.connection.gone

    def set_aside(self, handler: object, act: Callable[[], object]) -> SetAside | None:
        # Whoever called the handler, if not we, may be in a scope that must be left before another is entered.
        if self.scope is not None or handler is not self.connection.service.roles.responder:
            return None
        self.connection.crew.before_going_on(act)
        return SetAside()

    async def run_sync(self, function: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
