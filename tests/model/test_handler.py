from __future__ import annotations

import contextvars
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import pytest
import trio

from gateways import Application, GatewayError, Handler, Reject, Request, Response, Roles, URLMap
from gateways._model import handler as handler_module
from gateways._model.handler import Resumed, Started, as_roles, awaitable, drive, invoke, is_async
from gateways._model.request import Carrier
from tests.model.memory import RUNNERS, Run, ask, make, under_trio


async def native(request: Request) -> Response:
    return Response(request.path)


def plain(request: Request) -> Response:
    return Response(request.path)


class Callable_:
    async def __call__(self, request: Request) -> Response:
        return Response(request.path)

    async def method(self, request: Request) -> Response:
        return Response(request.path)

    def plain(self, request: Request) -> Response:
        return Response(request.path)


async def with_prefix(prefix: str, request: Request) -> Response:
    return Response(request.path)


def returns_awaitable(request: Request) -> Awaitable[Response]:
    return native(request)


ASYNC: list[Handler] = [
    native,
    Callable_(),
    Callable_().method,
    functools.partial(with_prefix, "x"),
    functools.partial(functools.partial(with_prefix, "x")),
]
PLAIN: list[Handler] = [plain, Callable_().plain, functools.partial(plain), returns_awaitable]


@pytest.mark.parametrize("handler", ASYNC)
def test_a_coroutine_function_is_told_without_calling_it(handler: Handler) -> None:
    assert is_async(handler)


@pytest.mark.parametrize("handler", [*PLAIN, len, Callable_, object()])
def test_anything_else_is_not_async(handler: object) -> None:
    assert not is_async(handler)


class CountingCarrier(Carrier):
    """Counts the calls that would have gone to a worker thread."""

    calls = 0

    async def run_sync(self, function: Callable[..., Any], *args: object) -> Any:
        self.calls += 1
        return function(*args)


@pytest.mark.parametrize(("handlers", "calls"), [(ASYNC, 0), (PLAIN, 1)])
@pytest.mark.parametrize("run", RUNNERS)
def test_handlers_of_every_kind_answer_and_only_plain_ones_leave_the_task(
    handlers: list[Handler], calls: int, run: Run
) -> None:
    for handler in handlers:
        carrier = CountingCarrier()
        request = make(PATH_INFO="/x")
        request._carrier = carrier
        assert run(invoke(handler, request)) == Response("/x")
        assert carrier.calls == calls
        assert run(Roles(handler)(request)) == Response("/x")
        assert carrier.calls == 2 * calls
        assert run(invoke(Roles(handler), request)) == Response("/x")
        assert carrier.calls == 3 * calls


class Cached:
    """Wraps a coroutine function the way functools.partial does, and may answer by itself."""

    def __init__(self, func: Handler) -> None:
        self.func = func

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        return Response("cached") if request.path == "/known" else native(request)


@pytest.mark.parametrize(("path", "answer"), [("/known", "cached"), ("/x", "/x")])
def test_a_wrapper_of_a_coroutine_function_may_give_its_answer_without_waiting(path: str, answer: str) -> None:
    wrapped: Any = Cached(native)
    assert drive(Roles(wrapped)(make(PATH_INFO=path))) == Response(answer)


@pytest.mark.parametrize("handler", ASYNC[:3])
def test_nothing_stands_between_a_role_and_a_handler_that_makes_coroutines(handler: Handler) -> None:
    assert awaitable(handler) is handler


def test_a_handler_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    roles, app = Roles(plain), URLMap({"": functools.partial(plain)})
    monkeypatch.setattr(handler_module, "is_async", None)
    assert drive(roles(make(PATH_INFO="/x"))) == Response("/x")
    assert drive(app(make(PATH_INFO="/x"))) == Response("/x")


# --- roles


def test_roles_pass_a_request_on_by_its_role() -> None:
    async def guard(request: Request) -> Response:
        return Response.authorize(REMOTE_USER="m")

    def sieve(request: Request) -> Response:
        return Response("filtered")

    app = Roles(native, authorizer=guard, filter=sieve)
    assert app.offered == ("responder", "authorizer", "filter")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}
    assert ask(app, request=Request(environ)).body == b"/x"
    assert ask(app, request=Request(environ, role="authorizer")).field("Variable-REMOTE_USER") == "m"
    assert ask(app, request=Request(environ, role="filter")).body == b"filtered"


@pytest.mark.parametrize(("role", "status"), [("authorizer", 403), ("filter", 501)])
def test_law_trust_a_role_that_is_not_offered_is_refused_and_an_authorizer_denies(
    role: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request({"REQUEST_METHOD": "GET"}, role=role)
    with pytest.raises(Reject) as caught:
        drive(as_roles(native)(request))
    assert caught.value.status == status
    assert f"the role {role}" in capsys.readouterr().err


def test_roles_are_settled_when_they_are_made() -> None:
    roles: Any = Roles(native, filter=plain)
    assert (roles.responder, roles.authorizer, roles.filter) == (native, None, plain)
    with pytest.raises(AttributeError):
        roles.responder = plain


def test_a_kind_of_roles_with_a_call_of_its_own_is_asked() -> None:
    class Shouting(Roles):
        async def __call__(self, request: Request) -> Response:
            return Response((await super().__call__(request)).body.upper())  # type: ignore[union-attr]

    assert ask(Shouting(native), request=make(PATH_INFO="/x")).body == b"/X"


def test_roles_need_a_handler() -> None:
    with pytest.raises(ValueError, match="one role at least"):
        Roles()


def test_roles_show_what_they_hold() -> None:
    assert repr(Roles(authorizer=plain)) == f"Roles(authorizer={plain!r})"
    assert Roles(authorizer=plain).offered == ("authorizer",)


def test_a_handler_by_itself_is_the_responder() -> None:
    roles = Roles(native)
    assert as_roles(roles) is roles
    assert as_roles(native).responder is native


# --- applications that start up


class Manager:
    """An async context manager that is no generator."""

    def __init__(self, yields: object) -> None:
        self.yields = yields
        self.left: list[type[BaseException] | None] = []

    async def __aenter__(self) -> Any:
        return self.yields

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.left.append(kind)
        return kind is KeyError


def start(application: Any, error: Exception | None = None) -> Roles:
    async def run() -> Roles:
        async with Started(application) as roles:
            if error is not None:
                raise error
        return roles

    return drive(run())


def test_a_handler_needs_no_start() -> None:
    assert start(native).responder is native


def test_roles_need_no_start() -> None:
    roles = Roles(authorizer=native)
    assert start(roles) is roles


def test_an_application_may_be_a_function_that_makes_a_context_manager() -> None:
    life: list[str] = []

    @asynccontextmanager
    async def app() -> AsyncGenerator[Handler]:
        life.append("started")
        try:
            yield native
        finally:
            life.append("stopped")

    application: Application = app
    assert start(application).responder is native
    assert life == ["started", "stopped"]


def test_an_application_may_be_a_context_manager() -> None:
    manager = Manager(Roles(filter=plain))
    assert start(manager).filter is plain
    assert manager.left == [None]


def test_an_error_while_it_serves_reaches_the_context_manager_which_may_swallow_it() -> None:
    manager = Manager(native)
    with pytest.raises(ValueError, match="boom"):
        start(manager, ValueError("boom"))
    assert manager.left == [ValueError]

    async def swallowed() -> bool | None:
        return await started.__aexit__(KeyError, KeyError(), None)

    started = Started(manager)
    assert drive(swallowed()) is None  # not entered: nothing to leave
    drive(started.__aenter__())
    assert drive(swallowed()) is True


@pytest.mark.parametrize("application", [None, "app", Manager(None)])
def test_anything_else_is_no_application(application: Any) -> None:
    with pytest.raises(TypeError, match="is a handler or yields one"):
        start(application)


def test_a_wrapped_handler_is_not_taken_for_a_context_manager() -> None:
    @functools.wraps(native)
    async def wrapped(request: Request) -> Response:
        return await native(request)

    assert start(wrapped).responder is wrapped


# --- running without a loop, and going on under one


def test_drive_gives_back_what_a_coroutine_returns_and_raises_what_it_raises() -> None:
    async def fails() -> None:
        raise KeyError("x")

    assert drive(native(make(PATH_INFO="/x"))) == Response("/x")
    with pytest.raises(KeyError):
        drive(fails())


class Wait:
    """Something that waits: no loop would ever wake it."""

    def __await__(self) -> Generator[str, Any, Any]:
        return (yield "trap")


def test_a_coroutine_that_waits_without_a_loop_is_closed_and_an_error_says_so() -> None:
    closed = []

    async def waits() -> None:
        try:
            await Wait()
        finally:
            closed.append(True)

    with pytest.raises(GatewayError, match="no event loop runs"):
        drive(waits())
    assert closed == [True]


def test_resumed_goes_on_under_trio_with_a_coroutine_that_was_stepped_by_hand() -> None:
    async def steps() -> list[int]:
        done = [1]
        await trio.lowlevel.checkpoint()
        done.append(2)
        await trio.lowlevel.checkpoint()
        return [*done, 3]

    async def main() -> tuple[list[int], int]:
        waits: list[None] = []
        coroutine = steps()
        trap = coroutine.send(None)
        result = await Resumed(coroutine, trap, before_wait=lambda: waits.append(None))
        return result, len(waits)

    result, waits = under_trio(main())
    assert result == [1, 2, 3]
    assert waits >= 2


def test_resumed_passes_cancellation_and_errors_both_ways() -> None:
    seen: list[str] = []

    async def sleeps() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    async def main() -> bool:
        coroutine = sleeps()
        trap = coroutine.send(None)
        with trio.move_on_after(0) as scope:
            await Resumed(coroutine, trap)
        return scope.cancelled_caught

    assert under_trio(main())
    assert seen == ["cancelled"]


def test_resumed_throws_into_the_coroutine_what_the_loop_throws() -> None:
    seen: list[BaseException] = []

    async def waits() -> str:
        try:
            await Wait()
        except KeyError as error:
            seen.append(error)
        return str(await Wait())

    async def resume() -> str:
        coroutine = waits()
        return str(await Resumed(coroutine, coroutine.send(None)))

    error = KeyError("thrown")
    outer = resume()
    assert outer.send(None) == "trap"
    assert outer.throw(error) == "trap"
    assert seen == [error]
    with pytest.raises(StopIteration, match="sent"):
        outer.send("sent")


def test_resumed_runs_its_steps_in_the_context_that_it_is_given() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outer")

    async def reads() -> list[str]:
        variable.set("inner")
        await trio.lowlevel.checkpoint()
        return [variable.get()]

    async def main() -> tuple[list[str], str]:
        context = contextvars.copy_context()
        coroutine = reads()
        trap = context.run(coroutine.send, None)
        return await Resumed(coroutine, trap, context=context), variable.get()

    assert under_trio(main()) == (["inner"], "outer")
