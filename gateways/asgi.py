"""ASGI applications as handlers, and handlers as ASGI applications.

``from_asgi`` puts an ASGI 3 application behind every protocol of this package, on trio or, as a second choice, on an
asyncio loop in a thread; ``to_asgi`` puts a handler behind every ASGI server. HTTP by version 2.5 of the specification,
and lifespan; no WebSocket, which no gateway protocol carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import trio

from gateways import (
    Application,
    Body,
    GatewayError,
    Handler,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    Request,
    Response,
    Roles,
    Started,
)

# To be the server of a handler takes the rules that all transports share.
from gateways._model import policy
from gateways._model.request import Carrier

if TYPE_CHECKING:
    from gateways._model.policy import Answer, Begun

__all__ = ["from_asgi", "to_asgi"]

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Every framework has types of its own for these three, and no two agree.
ASGIApplication = Callable[[Any, Any, Any], Awaitable[Any]]
#: Runs an ASGI application on one scope to its end.
_Run = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

_log = logging.getLogger("gateways")

_HINT = (
    "The application runs on asyncio, and this is trio. Say from_asgi(application, loop='asyncio'), which gives it an "
    "asyncio loop in a thread; if the framework has a WSGI application too, gateways.wsgi.from_wsgi is quicker."
)
#: Applications that are known to run on asyncio alone, by the module of their class.
_ASYNCIO_ONLY = ("django.core.handlers.asgi", "quart.app", "asgiref.wsgi")
_BUT_NOT = ("quart_trio.app",)

#: Fields about one connection: the web server's business, in either direction.
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_HTTP_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/2.0": "2", "HTTP/2": "2", "HTTP/3.0": "3", "HTTP/3": "3"}
#: Names that are remembered below: the others may be anything that clients think of.
_MAX_NAMES = 1000


class _ClientDisconnected(OSError):
    """``send`` was called although nobody waits for the answer any more."""


# --- an ASGI application as a handler -------------------------------------------------------------------------------


def from_asgi(
    application: ASGIApplication, *, loop: Literal["trio", "asyncio"] = "trio"
) -> Callable[[], AbstractAsyncContextManager[Handler]]:
    """An application of this package that has an ASGI application answer: ``gateways.run(from_asgi(app))``.

    It is a function that makes an async context manager: entered, it runs the lifespan of the ASGI application, and
    it yields the handler. To mount that beside others: ``async with from_asgi(app)() as handler``.

    With ``loop="asyncio"`` the application runs on an asyncio loop in a thread of its own.

    When the client leaves, ``receive()`` gives ``http.disconnect`` once, and everything that the application waits for
    is cancelled. Errors are answered as those of any handler; an application that returns without a whole answer has
    failed. Raises TypeError for what cannot be called and ValueError for another ``loop``. Starting raises GatewayError
    when the application says ``lifespan.startup.failed``, or when it is known to need asyncio and was not given it; one
    that refuses the lifespan does without.
    """
    if not callable(application):
        raise TypeError(f"an ASGI application is called with scope, receive and send; {application!r} cannot be")
    if loop not in ("trio", "asyncio"):
        raise ValueError(f"loop is 'trio' or 'asyncio', not {loop!r}")

    @contextlib.asynccontextmanager
    async def started() -> AsyncGenerator[Handler]:
        if loop == "trio" and _is_asyncio_only(application):
            raise GatewayError(_HINT)
        state: dict[str, Any] = {}
        async with contextlib.AsyncExitStack() as stack:
            run: _Run = application
            if loop == "asyncio":
                asyncio_loop = await stack.enter_async_context(_asyncio_thread())
                run = functools.partial(_run_in_asyncio, asyncio_loop, application)
            await stack.enter_async_context(_lifespan(run, state))
            yield _handler(run, state)

    return started


def _handler(run: _Run, state: dict[str, Any]) -> Handler:
    async def handler(request: Request) -> Response:
        dialogue = _Dialogue(request)
        try:
            await run(_scope(request, state), dialogue.receive, dialogue.send)
        except _ClientDisconnected:
            await trio.lowlevel.checkpoint()  # we are cancelled
            raise
        except Exception as error:
            if _wants_asyncio(error):
                error.add_note(_HINT)
            raise
        return dialogue.result()

    return handler


def _is_asyncio_only(application: object) -> bool:
    modules = {kind.__module__ for kind in type(application).__mro__}
    return not modules.isdisjoint(_ASYNCIO_ONLY) and modules.isdisjoint(_BUT_NOT)


def _wants_asyncio(error: BaseException) -> bool:
    """Whether an error is what asyncio raises where trio runs, or trio when it is given what asyncio waits for."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(_wants_asyncio(each) for each in group.exceptions)
    return isinstance(error, RuntimeError | TypeError) and _tells_of_asyncio(str(error))


def _tells_of_asyncio(text: str) -> bool:
    phrases = ("no running event loop", "no current event loop", "other framework like asyncio")
    return any(phrase in text for phrase in phrases)


# --- its scope


def _scope(request: Request, state: dict[str, Any]) -> dict[str, Any]:
    environ = request.environ
    headers: list[tuple[bytes, bytes]] = []
    for variable, value in environ.items():
        name = _HEADERS.get(variable)
        if name is None:
            name = _remember(_HEADERS, variable, _header(variable))
        if name:
            headers.append((name, value.encode("utf-8", "surrogateescape")))
    raw_path = request.raw_path
    client, server = environ.get("REMOTE_ADDR"), environ.get("SERVER_NAME")
    scheme = request.scheme
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": _HTTP_VERSIONS.get(environ.get("SERVER_PROTOCOL", ""), "1.0"),
        "method": environ["REQUEST_METHOD"].upper(),
        "scheme": scheme,
        "path": request.path or "/",
        "raw_path": None if raw_path is None else raw_path.encode("utf-8", "surrogateescape"),
        "query_string": environ["QUERY_STRING"].encode("utf-8", "surrogateescape"),
        "root_path": environ["SCRIPT_NAME"],
        "headers": headers,
        "client": None if client is None else (client, request.remote_port or 0),
        "server": None if server is None else (server, request.server_port or (443 if scheme == "https" else 80)),
        "state": state.copy(),
        "extensions": {
            "http.response.pathsend": {},
            "gateways": {"environ": environ, "role": request.role, "protocol": request.protocol},
        },
    }


def _header(variable: str) -> bytes:
    """The header field that a meta-variable is; empty for one that is none, or none of the application's business."""
    if variable in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        name = variable
    elif variable.startswith("HTTP_"):
        name = variable.removeprefix("HTTP_")
    else:
        return b""
    name = name.lower().replace("_", "-")
    return b"" if name in _HOP_BY_HOP else name.encode("utf-8", "surrogateescape")


#: meta-variable -> name of the header field, empty for those that are none
_HEADERS: dict[str, bytes] = {}
#: name in http.response.start -> name as it is sent, empty for those that are left out
_FIELDS: dict[bytes, str] = {}

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _remember(names: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    if len(names) < _MAX_NAMES:
        names[key] = value
    return value


# --- its messages


class _Dialogue:
    """``receive`` and ``send`` for one request."""

    __slots__ = ("_begun", "_body_left", "_complete", "_failure", "_over", "_request", "_response", "_told", "_unread")

    def __init__(self, request: Request) -> None:
        self._request = request
        #: Whether there is more of the body to hand over, and how many bytes of it, where that is known.
        self._unread = True
        self._body_left = request.body.length
        self._response: Response | None = None
        self._begun: Begun | None = None
        #: Whether the last of the answer was sent, and what went wrong when it was.
        self._complete = False
        self._failure: BaseException | None = None
        #: For those who wait in ``receive``.
        self._over: trio.Event | None = None
        self._told = False

    async def receive(self) -> Message:
        try:
            if self._unread and not self._complete:
                return await self._receive_body()
            return await self._receive_disconnect()
        except trio.Cancelled:
            # The one message that the application has a right to. What it waits for next is cancelled.
            if self._told or not self._request.disconnected:
                raise
            self._told = True
            return {"type": "http.disconnect"}

    async def _receive_body(self) -> Message:
        try:
            chunk = await self._request.body.receive_some()
        except GatewayError:
            if self._complete:  # by another task, meanwhile
                return {"type": "http.disconnect"}
            raise
        if self._body_left is None:
            self._unread = bool(chunk)
        else:
            self._body_left -= len(chunk)
            self._unread = self._body_left > 0
        return {"type": "http.request", "body": chunk, "more_body": self._unread}

    async def _receive_disconnect(self) -> Message:
        if self._complete:
            await trio.lowlevel.checkpoint()  # some ask for ever
        else:
            if self._over is None:
                self._over = trio.Event()
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind, response = message["type"], self._response
        if self._complete:
            return  # to be ignored, the specification says
        if kind == "http.response.start":
            if response is not None:
                raise LocalProtocolError("http.response.start is sent once for each request")
            self._response = _response(message)
            return
        if response is None:
            raise LocalProtocolError(f"{kind!r} is sent before http.response.start")
        if self._request.disconnected:
            await trio.lowlevel.checkpoint()  # cancelled, unless it is shielded
            raise _ClientDisconnected("the client has left")
        if kind == "http.response.body":
            body = message.get("body", b"")
            if not isinstance(body, bytes):
                if not isinstance(body, bytearray | memoryview):
                    raise TypeError(f"the body of http.response.body is bytes, not {type(body).__name__}")
                body = bytes(cast("bytearray", body))
            if message.get("more_body", False):
                await self._continue(response, body)
            elif self._begun is None:
                await self._complete_with(response, body)
            else:
                await self._begun.send(body)
                await self._end(self._begun)
        elif kind == "http.response.pathsend":
            if self._begun is not None:
                raise LocalProtocolError("http.response.pathsend is instead of http.response.body, not beside it")
            await self._complete_with(response, Path(message["path"]))
        else:
            raise LocalProtocolError(f"not a message that was offered: {kind!r}")

    async def _continue(self, response: Response, body: bytes) -> None:
        if self._begun is None:
            self._begun = await self._request.begin(response)
        if body:
            await self._begun.send(body)

    async def _complete_with(self, response: Response, body: bytes | Path) -> None:
        self._close()
        response.body = body
        try:
            await self._request.answer(response)
        except BaseException as error:
            if response.body is body:  # it did not get as far as the end
                self._failure = error
            raise

    async def _end(self, begun: Begun) -> None:
        self._close()
        try:
            await begun.end()
        except Exception as error:
            self._failure = error
            raise

    def _close(self) -> None:
        self._complete = True
        if self._over is not None:
            self._over.set()

    def result(self) -> Response:
        """What the handler gives back, once the application has returned. Raises when that was too early."""
        if self._failure is not None:
            if isinstance(self._failure, Exception):
                raise self._failure
            raise LocalProtocolError("the application cancelled its own sending")
        if self._response is None:
            raise LocalProtocolError("the application returned without an answer")
        if not self._complete:
            raise LocalProtocolError("the application returned before its answer was complete")
        return self._response


def _response(message: Message) -> Response:
    """The head of a response, as http.response.start tells it."""
    if message.get("trailers", False):
        raise LocalProtocolError("http.response.trailers was not offered")
    fields: list[tuple[str, str]] = []
    for name, value in message.get("headers", ()):
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"the headers of http.response.start are pairs of bytes, not {(name, value)!r}")
        field = _FIELDS.get(name)
        if field is None:
            field = _remember(_FIELDS, name, _field(name))
        if field:
            fields.append((field, value.decode("utf-8", "surrogateescape").strip(" \t")))
    return Response(b"", message["status"], fields)


def _field(name: bytes) -> str:
    """The name of a field as HTTP/1 has it; empty for a field that is left out."""
    text = name.decode("utf-8", "surrogateescape")
    return "" if text.lower() in _HOP_BY_HOP else text.title()


# --- its lifespan


@contextlib.asynccontextmanager
async def _lifespan(run: _Run, state: dict[str, Any]) -> AsyncGenerator[None]:
    """Start an application up, and shut it down afterwards."""
    lifespan = _Lifespan(run, state)
    async with _open_nursery() as nursery:
        nursery.start_soon(lifespan.run)
        await lifespan.started.wait()
        if lifespan.failure is not None:
            raise lifespan.failure
        try:
            yield
        finally:
            lifespan.stopping.set()
            await lifespan.stopped.wait()
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _open_nursery() -> AsyncGenerator[trio.Nursery]:
    """A nursery that raises a single error as it is."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        error, *others = group.exceptions
        if others:
            raise
        raise error from error.__cause__


class _Lifespan:
    """The conversation about start and end."""

    def __init__(self, run: _Run, state: dict[str, Any]) -> None:
        self.started = trio.Event()
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.failure: GatewayError | None = None
        self._run = run
        self._state = state
        self._asked = 0

    async def run(self) -> None:
        asgi = {"version": "3.0", "spec_version": "2.0"}
        try:
            await self._run({"type": "lifespan", "asgi": asgi, "state": self._state}, self._receive, self._send)
        except Exception as error:
            if self.started.is_set():
                _log.error("the lifespan of the application failed", exc_info=error)
            elif _wants_asyncio(error):
                self.failure = GatewayError(_HINT)
                self.failure.__cause__ = error
            else:
                _log.info("the application does without lifespan: %r", error)
        finally:
            self.started.set()
            self.stopped.set()

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self.stopping.wait()
        if self._asked == 2:
            return {"type": "lifespan.shutdown"}
        await trio.sleep_forever()
        raise AssertionError  # for type checkers

    async def _send(self, message: Message) -> None:
        kind, text = message["type"], message.get("message", "")
        if kind == "lifespan.startup.complete" and not self.started.is_set():
            self.started.set()
        elif kind == "lifespan.startup.failed" and not self.started.is_set():
            self.failure = GatewayError(f"the application did not start: {text or 'it does not say why'}")
            if _tells_of_asyncio(text):
                self.failure.add_note(_HINT)
            self.started.set()
        elif kind == "lifespan.shutdown.complete" and self.stopping.is_set():
            self.stopped.set()
        elif kind == "lifespan.shutdown.failed" and self.stopping.is_set():
            _log.error("the application did not shut down: %s", text)
            self.stopped.set()
        else:
            raise LocalProtocolError(f"not the time for {kind!r}")


# --- an asyncio loop in a thread


@contextlib.asynccontextmanager
async def _asyncio_thread() -> AsyncGenerator[asyncio.AbstractEventLoop]:
    """An asyncio loop that runs in a thread meanwhile."""
    token = trio.lowlevel.current_trio_token()
    ready = trio.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        token.run_sync_soon(ready.set)
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="asyncio")
    thread.start()
    with trio.CancelScope(shield=True):
        await ready.wait()
    [(loop, stop)] = loops
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join)


async def _run_in_asyncio(
    loop: asyncio.AbstractEventLoop,
    application: ASGIApplication,
    scope: MutableMapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """Run an application in that loop; ``receive`` and ``send`` run here. Cancelled, it cancels the application, and
    waits for its end.
    """
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    errors: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        try:
            await application(scope, _from_asyncio(begin, receive), _from_asyncio(begin, send))
        except BaseException as error:  # SystemExit, for one, would end the loop
            errors.append(error)
        finally:
            token.run_sync_soon(ended.set)

    async with _open_nursery() as nursery:

        def begin(call: Callable[[], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
            def start() -> None:
                if ended.is_set():
                    _tell(loop, future.cancel)  # it left a task behind
                else:
                    nursery.start_soon(_settle, loop, call, future)

            token.run_sync_soon(start)

        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(main())))
        try:
            await ended.wait()
        except trio.Cancelled:
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            with trio.CancelScope(shield=True):
                await ended.wait()
            raise
        nursery.cancel_scope.cancel()
    for error in errors:
        if isinstance(error, Exception):
            raise error
        raise GatewayError(f"the application ended with {error!r}") from error


def _from_asyncio(
    begin: Callable[[Callable[[], Awaitable[Any]], asyncio.Future[Any]], None], function: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """A function of trio's as one for asyncio."""

    async def call(*args: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        begin(functools.partial(function, *args), future)
        return await future

    return call


async def _settle(
    loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[Any]], future: asyncio.Future[Any]
) -> None:
    """Call a function of trio's for somebody who waits in asyncio."""

    def settle(how: Callable[..., object], *result: object) -> None:
        if not future.done():
            how(*result)

    try:
        result = await call()
    except Exception as error:
        _tell(loop, settle, future.set_exception, error)
    except BaseException:
        _tell(loop, settle, future.cancel)
        raise
    else:
        _tell(loop, settle, future.set_result, result)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and whoever waited in it
        loop.call_soon_threadsafe(function, *args)


# --- a handler as an ASGI application -------------------------------------------------------------------------------


def to_asgi(app: Application, *, limits: Limits | None = None) -> ASGIApplication:
    """An ASGI 3 application that a handler answers for: ``hypercorn -k trio module:asgi``.

    The lifespan enters and leaves an application that is an async context manager; a handler by itself needs none.
    When the server tells of a disconnect, the handler is cancelled; while it leaves a body unread, that is not heard
    of. The answer is decided as everywhere, by ``limits`` as far as they are about requests and heads.

    A handler that uses trio needs a server that runs on trio (hypercorn). Under asyncio (uvicorn) only handlers can
    run that wait for nothing but the request, or for asyncio.
    """
    return _Hosted(app, limits or Limits())


class _Hosted:
    """A handler behind an ASGI server."""

    def __init__(self, app: Application, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._handler: Handler | None = None
        if not _must_be_started(app):
            if not callable(app):
                raise TypeError(f"an application is a handler or yields one; {app!r} is neither")
            self._handler = app  # type: ignore[assignment]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            if self._handler is None:
                raise GatewayError("this application has to be started: the server has to support lifespan")
            visit = _OnTrio if trio.lowlevel.in_trio_run() else _OnAsyncio
            await visit(scope, receive, send, self._limits).attend(self._handler)
        else:
            raise ValueError(f"no gateway protocol carries {scope['type']!r}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        doing = "startup"
        try:
            async with Started(self._app) as self._handler:
                await send({"type": "lifespan.startup.complete"})
                await receive()
                doing = "shutdown"
        except Exception as error:
            _log.error("the application failed at %s", doing, exc_info=error)
            await send({"type": f"lifespan.{doing}.failed", "message": f"{type(error).__name__}: {error}"})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _must_be_started(app: object) -> bool:
    return hasattr(app, "__aenter__") or inspect.isasyncgenfunction(getattr(app, "__wrapped__", None))


class _Visit(Carrier):
    """One request from an ASGI server: the source of its body, the sink of its answer, the carrier of its Request."""

    begun: Begun | None = None

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, limits: Limits) -> None:
        self.committed = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._answer: Answer | None = None
        self._sent = 0
        self._ended = False
        self._gone = False
        #: What came of the body, and whether more is to come.
        self._chunk = b""
        self._more = True

    async def attend(self, handler: Handler) -> None:
        """Have the request answered, and cancel that when the client leaves."""
        raise NotImplementedError

    def _cancel(self) -> None:
        raise NotImplementedError

    def _watch(self) -> None:
        """See in another task to what comes after the body: the disconnect."""
        raise NotImplementedError

    async def _checkpoint(self) -> None:
        raise NotImplementedError

    async def _respond(self, handler: Handler) -> None:
        try:
            request = self._request()
        except RemoteProtocolError as error:
            await policy.refuse(error, self._scope["method"], self)
        else:
            if request.content_length in (None, 0) and "transfer-encoding" not in request.headers:
                await self._receive_message()  # there is no body: it comes at once
            roles = handler if isinstance(handler, Roles) else Roles(handler)
            await policy.respond(roles, request, self, limits=self._limits)
        await self.end(0)

    def _request(self) -> Request:
        pairs = list(_variables(self._scope))
        length = dict(pairs).get("CONTENT_LENGTH", "")
        number = int(length) if length.isascii() and length.isdigit() else None  # what else it is, Request says
        request = Request(pairs, Body(self, number, max_read=self._limits.max_read), protocol="http")
        request._carrier = self
        return request

    # --- the source of the body

    async def receive(self, max_bytes: int) -> bytes:
        while not self._chunk and self._more:
            await self._receive_message()
        chunk, self._chunk = self._chunk[:max_bytes], self._chunk[max_bytes:]
        return chunk

    def receive_blocking(self, max_bytes: int) -> bytes:
        raise NotImplementedError

    async def _receive_message(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.leave()
            await self._checkpoint()
            return
        self._chunk = bytes(message.get("body", b""))
        self._more = bool(message.get("more_body", False))
        if not self._more:
            self._watch()

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._ended:
            self.leave()

    def leave(self) -> None:
        """The client has left."""
        self._gone = True
        self._more = False
        self._cancel()

    # --- the sink of the answer

    async def start(self, answer: Answer) -> None:
        if self._ended or self.committed:
            raise LocalProtocolError("this answer has begun already")
        self._answer = answer

    async def write(self, data: bytes) -> None:
        if self._ended:
            raise LocalProtocolError("this answer has ended: nothing more can be sent")
        await self._start()
        self._sent += len(data)
        # The last piece says so, where it can be told: a small answer is two messages then.
        self._ended = self._answer is not None and self._sent == self._answer.length
        await self._post({"type": "http.response.body", "body": data, "more_body": not self._ended})

    async def _start(self) -> None:
        if self._answer is None or self.committed:
            return
        self.committed = True
        lines = self._answer.head.split(b"\r\n")[1:-2]
        headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
        await self._post({"type": "http.response.start", "status": self._answer.status, "headers": headers})

    async def end(self, app_status: int) -> None:
        if not self._ended:
            await self._start()
            self._ended = True
            await self._post({"type": "http.response.body", "body": b"", "more_body": False})

    async def _post(self, message: Message) -> None:
        if self._gone:
            await self._checkpoint()
        else:
            await self._send(message)

    def report(self, error: BaseException) -> None:
        self._explain(error)
        described = f"{self._scope['method']} {self._scope['path']!r}"
        if isinstance(error, RemoteProtocolError):
            _log.warning("%s: %s", described, error)
        else:
            _log.error("%s: the handler failed", described, exc_info=error)

    def _explain(self, error: BaseException) -> None:
        """Add to an error what is to be done about it."""

    # --- the carrier of the Request

    def log(self, text: str) -> None:
        _log.warning("%s %r: %s", self._scope["method"], self._scope["path"], text)

    async def answer(self, request: Request, response: Response) -> None:
        await policy.answer(response, request, self, limits=self._limits)

    async def begin_answer(self, request: Request, response: Response) -> Begun:
        return await policy.begin_answer(response, request, self, limits=self._limits)

    @property
    def disconnected(self) -> bool:
        return self._gone


class _OnTrio(_Visit):
    _nursery: trio.Nursery

    async def attend(self, handler: Handler) -> None:
        async with _open_nursery() as self._nursery:
            await self._respond(handler)
            self._nursery.cancel_scope.cancel()

    def _cancel(self) -> None:
        self._nursery.cancel_scope.cancel()

    def _watch(self) -> None:
        self._nursery.start_soon(self._wait_for_disconnect)

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run_sync(self, function: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)

    def receive_blocking(self, max_bytes: int) -> bytes:
        return trio.from_thread.run(self.receive, max_bytes)


class _OnAsyncio(_Visit):
    _worker: asyncio.Task[None]
    _watcher: asyncio.Task[None] | None = None

    async def attend(self, handler: Handler) -> None:
        self._worker = asyncio.create_task(self._respond(handler))
        try:
            await asyncio.wait((self._worker,))
        except asyncio.CancelledError:
            self._worker.cancel()
            raise
        finally:
            if self._watcher is not None:
                self._watcher.cancel()
        if not (self._gone and self._worker.cancelled()):
            self._worker.result()

    def _cancel(self) -> None:
        self._worker.cancel()

    def _watch(self) -> None:
        self._watcher = asyncio.create_task(self._wait_for_disconnect())

    async def _checkpoint(self) -> None:
        await asyncio.sleep(0)

    async def run_sync(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.to_thread(function, *args)

    def receive_blocking(self, max_bytes: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(self.receive(max_bytes), self._worker.get_loop()).result()

    def _explain(self, error: BaseException) -> None:
        foreign = ("must be called from async context", "got bad yield")
        if isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in foreign):
            error.add_note("The handler uses trio, and this server runs on asyncio. Hypercorn runs on trio: -k trio.")


def _variables(scope: MutableMapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The meta-variables of a scope, as a web server would send them."""
    yield "GATEWAY_INTERFACE", "CGI/1.1"
    yield "REQUEST_METHOD", scope["method"]
    version = scope["http_version"]
    yield "SERVER_PROTOCOL", f"HTTP/{version}" if "." in version else f"HTTP/{version}.0"
    scheme = scope.get("scheme", "http")
    yield "REQUEST_SCHEME", scheme
    if scheme == "https":
        yield "HTTPS", "on"
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    yield "SCRIPT_NAME", root
    # Servers do not agree on whether the one is part of the other.
    inside = path == root or path.startswith(root + "/")
    yield "PATH_INFO", path[len(root) :] if inside else path
    query, raw_path = scope.get("query_string", b""), scope.get("raw_path")
    yield "QUERY_STRING", _text(query)
    if raw_path is not None:
        yield "REQUEST_URI", _text(raw_path.partition(b"?")[0] + (b"?" + query if query else b""))
    for name, value in (("SERVER", scope.get("server")), ("REMOTE", scope.get("client"))):
        if value is not None and value[1] is not None:  # else it is a unix socket
            yield ("SERVER_NAME" if name == "SERVER" else "REMOTE_ADDR"), value[0]
            if value[1]:  # 0 is one that is not known
                yield f"{name}_PORT", str(value[1])
    for name, value in scope["headers"]:
        if b"_" in name:
            continue  # it would pass for another one, with "-"
        variable = _text(name).upper().replace("-", "_")
        yield (variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"), _text(value)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
