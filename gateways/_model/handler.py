"""Handlers: what they are, how they are called, and how an application that must start up hands one out."""

from gateways._model.errors import GatewayError, Reject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextlib import AbstractAsyncContextManager
    from contextvars import Context
    from types import TracebackType
    from typing import Any, TypeVar

    from gateways._model.request import Request
    from gateways._model.response import Response

    T = TypeVar("T")

    #: What answers a request: ``async def handler(request) -> Response``. A plain ``def`` runs in a worker thread.
    Handler = Callable[[Request], Awaitable[Response]] | Callable[[Request], Response]
    AsyncHandler = Callable[[Request], Coroutine[Any, Any, Response]]
    #: A handler, or an async context manager (or a function that makes one) which starts up and yields it.
    Application = Handler | AbstractAsyncContextManager[Handler] | Callable[[], AbstractAsyncContextManager[Handler]]
else:
    # Names for annotations; evaluating the types above would load modules that a CGI script never needs.
    Handler = Application = object

_COROUTINE, _ASYNC_GENERATOR = 0x80, 0x200  # inspect.CO_COROUTINE, inspect.CO_ASYNC_GENERATOR


def is_async(function: object) -> bool:
    """Whether calling this gives something to await, judged without calling it."""
    while (inner := getattr(function, "func", None)) is not None:  # functools.partial
        function = inner
    return _makes_coroutines(function)


def _makes_coroutines(function: object) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    return code is not None and bool(code.co_flags & _COROUTINE)


def awaitable(handler: "Handler") -> "AsyncHandler":
    """A handler of either kind as one to await. Which kind it is is seen here, once, and not at each request."""
    if _makes_coroutines(handler):
        return handler  # type: ignore[return-value]
    called_here = is_async(handler)

    async def call(request: "Request") -> "Response":
        result: Any = handler(request) if called_here else await request.run_sync(handler, request)
        return await result if hasattr(result, "__await__") else result  # type: ignore[no-any-return]

    return call


class Roles:
    """A handler for each FastCGI role (section 6 of its specification).

    An authorizer request without an authorizer is denied with 403, never let through; a role that is not offered is
    refused by the protocol where that is safe. Raises ValueError where there is no handler at all.
    """

    __slots__ = ("_awaitables", "_handlers")

    def __init__(
        self,
        responder: "Handler | None" = None,
        *,
        authorizer: "Handler | None" = None,
        filter: "Handler | None" = None,
    ) -> None:
        given = {"responder": responder, "authorizer": authorizer, "filter": filter}
        self._handlers = {role: handler for role, handler in given.items() if handler is not None}
        if not self._handlers:
            raise ValueError("Roles needs a handler for one role at least")
        self._awaitables = {role: awaitable(handler) for role, handler in self._handlers.items()}

    @property
    def responder(self) -> "Handler | None":
        """What answers ordinary requests."""
        return self._handlers.get("responder")

    @property
    def authorizer(self) -> "Handler | None":
        """What decides whether a request may pass."""
        return self._handlers.get("authorizer")

    @property
    def filter(self) -> "Handler | None":
        """What answers with a file of the web server's, made over."""
        return self._handlers.get("filter")

    @property
    def offered(self) -> "tuple[str, ...]":
        """The names of the roles that have a handler."""
        return tuple(self._handlers)

    def _player(self, request: "Request") -> "AsyncHandler":
        """What answers this request, to be called with it and awaited. Raises Reject for a role that is not played."""
        handler = self._awaitables.get(request.role)
        if handler is None:
            request.log(f"a request for the role {request.role}, which this application does not play")
            raise Reject(403 if request.role == "authorizer" else 501)
        return handler

    async def __call__(self, request: "Request") -> "Response":
        return await self._player(request)(request)

    def __repr__(self) -> str:
        return f"Roles({', '.join([f'{role}={handler!r}' for role, handler in self._handlers.items()])})"


def invoke(handler: "Handler", request: "Request") -> "Coroutine[Any, Any, Response]":
    """Call a handler of either kind; what it answers, whatever it is, is to be awaited."""
    if isinstance(handler, Roles) and type(handler) is Roles:  # a subclass may have a __call__ of its own
        return handler._player(request)(request)
    return awaitable(handler)(request)


def as_roles(handler: "Handler") -> Roles:
    """A handler by itself plays the responder."""
    return handler if isinstance(handler, Roles) else Roles(handler)


class Started:
    """An application, started: ``async with Started(app) as roles``.

    Accepts a handler, an async context manager that yields one, or a function made by ``@asynccontextmanager``.
    Raises TypeError for anything else.
    """

    __slots__ = ("_application", "_manager")

    def __init__(self, application: "Application") -> None:
        self._application = application
        self._manager: Any = None

    async def __aenter__(self) -> Roles:
        application: Any = self._application
        inner = getattr(getattr(application, "__wrapped__", None), "__code__", None)
        if inner is not None and inner.co_flags & _ASYNC_GENERATOR:
            application = application()
        if hasattr(application, "__aenter__"):
            self._manager = application
            application = await application.__aenter__()
        handler: Any = application
        if not callable(application):
            raise TypeError(f"an application is a handler or yields one; {application!r} is neither")
        return as_roles(handler)

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", traceback: "TracebackType | None"
    ) -> "bool | None":
        if self._manager is None:
            return None
        return await self._manager.__aexit__(kind, error, traceback)  # type: ignore[no-any-return]


def drive(coroutine: "Coroutine[Any, Any, T]") -> "T":
    """Run a coroutine that never waits, without an event loop.

    Raises GatewayError when it does wait: trio's primitives need a running trio.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise waits_without_a_loop()


def waits_without_a_loop() -> GatewayError:
    """The error for a handler that waits where nothing can wake it."""
    return GatewayError(
        "the handler waits for something, but no event loop runs: import trio in the application, or call "
        "gateways.cgi.run(app, trio=True)"
    )


#: What a coroutine yields that is set aside.
SET_ASIDE = object()


class SetAside:
    """What ``Carrier.set_aside`` gives back."""

    __slots__ = ()

    def __await__(self) -> "Generator[object, None, None]":
        yield SET_ASIDE


class Resumed:
    """``await Resumed(coroutine, trap)`` goes on with a coroutine that has been stepped by hand up to a wait.

    ``trap`` is what its last step yielded, for the event loop that now takes over. ``before_wait`` is called each
    time the coroutine is about to wait, ``context`` is the one it runs in.
    """

    __slots__ = ("_before_wait", "_coroutine", "_run", "_trap")

    def __init__(
        self,
        coroutine: "Coroutine[Any, Any, Any] | Generator[Any, Any, Any]",
        trap: "Any",
        before_wait: "Callable[[], None] | None" = None,
        context: "Context | None" = None,
    ) -> None:
        self._coroutine = coroutine
        self._trap = trap
        self._before_wait = before_wait
        self._run = _call if context is None else context.run

    def __await__(self) -> "Generator[Any, Any, Any]":
        trap = self._trap
        while True:
            if self._before_wait is not None:
                self._before_wait()
            step, value = self._coroutine.send, None
            try:
                value = yield trap
            except BaseException as error:
                step, value = self._coroutine.throw, error
            try:
                trap = self._run(step, value)
            except StopIteration as stop:
                return stop.value
            except BaseException:
                # An exception that was thrown in knows this frame: what the handler held would live on with it.
                del step, value
                raise


def _call(function: "Callable[[Any], T]", argument: "Any") -> "T":
    return function(argument)
