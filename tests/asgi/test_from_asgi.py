"""ASGI applications behind every protocol: what they are told, and what becomes of what they send."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing

import gateways
from gateways import LocalProtocolError, Request, Response, Roles, URLMap, fastcgi
from gateways.asgi import from_asgi
from gateways.testing import Result, call, serving
from tests.asgi.tools import PATIENCE, App, Client, Message, Receive, Send, body, read, start, strict
from tests.toy import toy

PROTOCOLS: list[str | ModuleType] = ["fastcgi", "scgi", "http", toy]
MIB = 1 << 20


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol if isinstance(protocol, str) else "toy")
def protocol(request: pytest.FixtureRequest) -> str | ModuleType:
    param: str | ModuleType = request.param
    return param


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE):
        yield


async def ask(app: App, *args: Any, **how: Any) -> Result:
    return await call(from_asgi(strict(app)), *args, **how)


async def hello(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await start(send, 201, (b"content-type", b"text/plain"), (b"x-one", b"1"))
    await body(send, b"hello")


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    data = await read(receive)
    await start(send)
    await body(send, data)


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_a_whole_answer_arrives_as_it_was_sent_and_with_its_length(protocol: str | ModuleType) -> None:
    result = await ask(hello, protocol=protocol)
    assert (result.status, result.body) == (201, b"hello")
    fields = {name.lower(): value for name, value in result.headers.items()}
    assert (fields["content-type"], fields["x-one"], fields["content-length"]) == ("text/plain", "1", "5")


async def test_a_whole_answer_needs_no_wait_and_no_task() -> None:
    steps = 0

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += 1

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        before = steps, trio.lowlevel.current_statistics().tasks_living
        assert (await receive())["more_body"] is False
        await hello(scope, receive, send)
        assert (steps, trio.lowlevel.current_statistics().tasks_living) == before

    instrument = Steps()
    trio.lowlevel.add_instrument(instrument)
    try:
        async with serving(from_asgi(strict(app))) as server:
            client = await (await Client(server).ask()).until(end=True)
            assert client.status == 201
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def test_pieces_arrive_while_the_application_goes_on(protocol: str | ModuleType) -> None:
    go_on = trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"first,", more=True)
        await go_on.wait()
        await body(send, b"second,", more=True)
        await body(send, b"", more=True)
        await body(send, b"last")

    module = protocol if isinstance(protocol, ModuleType) else getattr(gateways, protocol)
    async with serving(from_asgi(strict(app)), protocol) as server:
        client = await (await Client(server, module).ask()).until(body=b"first,")
        go_on.set()
        await client.until(body=b"first,second,last")


async def test_pieces_may_come_from_a_task_of_the_application(protocol: str | ModuleType) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        async def write() -> None:
            await start(send)
            for number in range(3):
                await body(send, b"%d" % number, more=True)
                await trio.lowlevel.checkpoint()
            await body(send, b".")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)

    result = await ask(app, protocol=protocol)
    assert (result.status, result.body, result.error) == (200, b"012.", None)


async def test_the_first_piece_leaves_although_the_task_that_was_called_waits_for_another() -> None:
    go_on = trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        async def write() -> None:
            await start(send)
            await body(send, b"first", more=True)
            await go_on.wait()
            await body(send, b"last")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)

    async with serving(from_asgi(strict(app))) as server:
        client = await (await Client(server).ask()).until(body=b"first")
        go_on.set()
        await client.until(end=True)
        assert client.body == b"firstlast"


async def test_scopes_of_the_application_may_span_its_messages() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        with trio.move_on_after(math.inf):
            await start(send)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await body(send, b"a", more=True)
                nursery.cancel_scope.cancel()
        with trio.CancelScope():
            await trio.lowlevel.checkpoint()
            await body(send, b"b", more=True)
        await body(send, b"c")

    assert (await ask(app)).body == b"abc"


async def test_a_wrapper_may_hold_a_scope_around_the_handler() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        with trio.CancelScope():
            await body(send, b"a", more=True)
            await trio.lowlevel.checkpoint()
        await body(send, b"b")

    async with from_asgi(strict(app))() as handler:

        async def wrapped(request: Request) -> Response:
            with trio.fail_after(PATIENCE):
                return await handler(request)  # type: ignore[no-any-return, misc]

        result = await call(wrapped)
    assert (result.status, result.body, result.error) == (200, b"ab", None)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_no_body_where_none_belongs(protocol: str | ModuleType, method: str, status: int, pieces: int) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send, status)
        for _ in range(pieces - 1):
            await body(send, b"x", more=True)
        await body(send, b"x")

    result = await ask(app, method, protocol=protocol)
    assert (result.status, result.body, result.error) == (status, b"", None)


async def test_repeated_fields_keep_their_order_and_odd_bytes_survive() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send, 200, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-odd", b" \xff\xc3\xa9\t"))
        await body(send, b"x")

    headers = (await ask(app)).headers
    assert headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert headers["x-odd"] == "\udcffé"


@pytest.mark.parametrize(
    "name", [b"connection", b"Keep-Alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"proxy-connection"]
)
async def test_fields_about_the_connection_are_left_out(name: bytes) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send, 200, (name, b"chunked"))
        await body(send, b"x")

    result = await ask(app)
    assert result.status == 200
    assert name.decode() not in result.headers


async def test_other_kinds_of_bytes_are_a_body_too() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": bytearray(b"a"), "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"b")})

    assert (await ask(app)).body == b"ab"


async def test_keys_with_defaults_may_be_left_out() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    result = await ask(app)
    assert (result.status, result.body) == (200, b"")


# --- mistakes --------------------------------------------------------------------------------------------------------

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"x"}
PIECE: Message = {**BODY, "more_body": True}

MISTAKES: dict[str, tuple[list[Message], type[Exception], str]] = {
    "body first": ([BODY], LocalProtocolError, "before http.response.start"),
    "two starts": ([START, START], LocalProtocolError, "once"),
    "no such message": ([START, {"type": "http.response.push"}], LocalProtocolError, "not a message that was offered"),
    "trailers": ([{**START, "trailers": True}], LocalProtocolError, "not offered"),
    "body of text": ([START, {**BODY, "body": "x"}], TypeError, "bytes, not str"),
    "fields of text": ([{**START, "headers": [("a", "b")]}], TypeError, "pairs of bytes"),
    "status of text": ([{**START, "status": "200"}], ValueError, "status from 200 to 599"),
    "interim status": ([{**START, "status": 103}], ValueError, "status from 200 to 599"),
    "two fields in one": ([{**START, "headers": [(b"a", b"b\r\nc: d")]}], ValueError, "CR, LF or NUL"),
    "name with a blank": ([{**START, "headers": [(b"a b", b"c")]}], ValueError, "token"),
    "two lengths": ([{**START, "headers": [(b"content-length", b"1")] * 2}], ValueError, "twice"),
    "file of the server's": (
        [{**START, "headers": [(b"x-accel-redirect", b"/etc")]}, BODY],
        LocalProtocolError,
        "allow it by name",
    ),
    "wrong length": ([{**START, "headers": [(b"content-length", b"7")]}, BODY], LocalProtocolError, "Content-Length"),
    "no type": ([{}], KeyError, "type"),
}


@pytest.mark.parametrize("messages", MISTAKES.values(), ids=MISTAKES)
async def test_a_mistake_is_raised_where_it_was_made_and_answered_with_500(
    messages: tuple[list[Message], type[Exception], str],
) -> None:
    wrong, kind, text = messages

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for message in wrong[:-1]:
            await send(message)
        with pytest.raises(kind, match=text) as raised:
            await send(wrong[-1])
        raise raised.value

    result = await ask(app, raise_errors=False)
    assert (result.status, result.body) == (500, b"Internal Server Error\n")


async def test_a_mistake_that_is_caught_does_no_harm() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        with pytest.raises(LocalProtocolError):
            await body(send, b"too early")
        with pytest.raises(TypeError):
            await start(send, 200, ("text", "text"))  # type: ignore[arg-type]
        await start(send)
        with pytest.raises(TypeError):
            await body(send, "text")  # type: ignore[arg-type]
        await body(send, b"fine")

    assert (await ask(app)).body == b"fine"


async def nothing(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    pass


async def only_start(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await start(send)


async def unfinished(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await start(send)
    await body(send, b"x" * 100_000, more=True)


async def raises_first(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await start(send)
    raise ZeroDivisionError


async def raises_later(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await unfinished(scope, receive, send)
    raise ZeroDivisionError


async def too_short(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await start(send, 200, (b"content-length", b"200000"))
    await body(send, b"x" * 100_000, more=True)
    await body(send, b"")


async def swallows_its_mistake(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    try:
        await too_short(scope, receive, send)
    except LocalProtocolError:
        pass


async def raises_in_a_task(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_first, scope, receive, send)


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (nothing, LocalProtocolError),
        (only_start, LocalProtocolError),
        (raises_first, ZeroDivisionError),
        (raises_in_a_task, ExceptionGroup),
    ],
)
async def test_an_application_that_fails_before_anything_left_is_a_clean_500(
    protocol: str | ModuleType, app: App, error: type[Exception]
) -> None:
    async with serving(from_asgi(strict(app)), protocol) as server:
        result = await server.request()
        assert (result.status, result.body, result.error) == (500, b"Internal Server Error\n", None)
        assert [type(each) for each in server.errors] == [error]


@pytest.mark.parametrize("app", [unfinished, raises_later, too_short, swallows_its_mistake])
async def test_an_answer_that_breaks_off_is_seen_to(app: App) -> None:
    async with serving(from_asgi(strict(app)), "fastcgi", "tcp") as server:
        result = await server.request()
        assert result.status == 200
        assert result.error is not None
        assert len(server.errors) == 1


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_after_the_answer_spares_the_answer_and_is_logged(
    waits: bool, protocol: str | ModuleType
) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send, 500)
        await body(send, b"a page for errors, by the framework")
        if waits:
            await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with serving(from_asgi(strict(app)), protocol) as server:
        result = await server.request()
        assert (result.status, result.body) == (500, b"a page for errors, by the framework")
        await trio.testing.wait_all_tasks_blocked()
        assert [type(error) for error in server.errors] == [ZeroDivisionError]


async def test_what_is_sent_after_the_end_is_ignored() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        await body(send, b"more")
        await start(send, 404)
        await trio.lowlevel.checkpoint()
        await body(send, b"more", more=True)

    result = await ask(app)
    assert (result.status, result.body, result.error) == (201, b"hello", None)


ENDINGS: list[App] = [
    hello, echo, nothing, only_start, unfinished, raises_first, raises_later, too_short, swallows_its_mistake,
]  # fmt: skip


@pytest.mark.parametrize("app", ENDINGS)
async def test_a_request_ends_once_whatever_the_application_does(app: App) -> None:
    async with serving(from_asgi(strict(app)), "fastcgi") as server:
        client = await Client(server).ask()
        with trio.fail_after(PATIENCE):
            try:
                while await client.read():
                    pass
            except trio.BrokenResourceError:
                pass
    ends = [record for record in fastcgi.dissect(client.received) if "END_REQUEST" in str(record)]
    broken = app in (unfinished, raises_later, too_short, swallows_its_mistake)
    assert len(ends) == (0 if broken else 1)


# --- after the answer ------------------------------------------------------------------------------------------------


async def test_a_client_does_not_wait_for_work_that_is_done_afterwards() -> None:
    done, go_on = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        await go_on.wait()
        done.set()

    for protocol in ("fastcgi", "scgi", "http"):
        done, go_on = trio.Event(), trio.Event()
        async with serving(from_asgi(strict(app)), protocol, "unix") as server:
            assert (await server.request()).body == b"hello"
            assert not done.is_set()
            go_on.set()
            await done.wait()


async def test_a_server_that_stops_waits_for_work_that_is_done_afterwards() -> None:
    done = trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        done.set()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        assert (await server.request()).body == b"hello"
    assert done.is_set()


async def test_a_client_that_leaves_after_its_answer_does_not_cancel_the_work() -> None:
    done, go_on = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        await go_on.wait()
        done.set()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        client = await (await Client(server).ask()).until(end=True)
        await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await done.wait()


async def test_receive_after_the_answer_tells_of_the_disconnect() -> None:
    messages: list[Message] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        messages.extend([await receive(), await receive()])

    await ask(app, "POST", body=b"unread")
    assert messages == [{"type": "http.disconnect"}] * 2


@pytest.mark.parametrize("length", [0, 5])
async def test_who_waits_in_receive_hears_of_the_end_of_the_answer(length: int) -> None:
    messages: list[Message] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        async def listen() -> None:
            if not length:
                await receive()
            messages.append(await receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            await hello(scope, receive, send)

    async with serving(from_asgi(strict(app))) as server:
        client = await (await Client(server).ask("POST", length=length)).until(end=True)
        await client.leave()
    assert messages == [{"type": "http.disconnect"}]


# --- bodies of requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 300_000])
async def test_a_body_arrives_complete(protocol: str | ModuleType, data: bytes) -> None:
    assert (await ask(echo, "POST", body=data, protocol=protocol)).body == data


async def test_the_last_piece_of_a_body_of_known_length_says_so() -> None:
    messages: list[Message] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        messages.append(await receive())
        await hello(scope, receive, send)

    await ask(app, "POST", body=b"abc")
    assert messages == [{"type": "http.request", "body": b"abc", "more_body": False}]


@pytest.mark.parametrize("protocol", ["fastcgi", "http"])
async def test_a_body_of_unknown_length_comes_to_its_end(protocol: str) -> None:
    assert (await ask(echo, "POST", body=iter([b"a", b"b", b"c"]), protocol=protocol)).body == b"abc"


async def test_a_request_without_a_body_has_one_message() -> None:
    messages: list[Message] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        messages.append(await receive())
        await hello(scope, receive, send)

    await ask(app)
    assert messages == [{"type": "http.request", "body": b"", "more_body": False}]


async def test_a_body_that_ends_early_raises_and_is_a_400() -> None:
    result = await ask(echo, "POST", body=iter([b"abc"]), environ={"CONTENT_LENGTH": "9"}, raise_errors=False)
    assert result.status == 400


# --- the client leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
async def test_a_disconnect_is_a_message_once_and_a_cancellation_from_then_on(protocol: str) -> None:
    seen: list[object] = []
    waiting, over = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        waiting.set()
        seen.append(await receive())
        try:
            await receive()
        except trio.Cancelled:
            seen.append("cancelled")
            raise
        finally:
            over.set()

    async with serving(from_asgi(strict(app)), protocol, "unix") as server:
        client = await Client(server, getattr(gateways, protocol)).ask()
        await waiting.wait()
        await client.leave()
        await over.wait()
        assert seen == [{"type": "http.disconnect"}, "cancelled"]
        assert server.errors == []


async def test_an_application_may_end_by_itself_when_it_hears_of_the_disconnect() -> None:
    waiting, over = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        waiting.set()
        assert (await receive())["type"] == "http.disconnect"
        over.set()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await waiting.wait()
        await client.leave()
        await over.wait()


async def test_a_disconnect_during_the_body_is_a_message_too() -> None:
    seen: list[Message] = []
    waiting, over = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        waiting.set()
        seen.append(await receive())
        over.set()
        await trio.sleep_forever()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        client = await Client(server).ask("POST", length=10)
        await waiting.wait()
        await client.leave()
        await over.wait()
    assert seen == [{"type": "http.disconnect"}]


async def test_an_application_that_does_not_listen_is_cancelled() -> None:
    waiting, cancelled = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        waiting.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await waiting.wait()
        await client.leave()
        await cancelled.wait()


async def test_what_is_sent_to_nobody_is_an_oserror() -> None:
    waiting, over = trio.Event(), trio.Event()
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        await receive()
        waiting.set()
        await receive()
        try:
            with trio.CancelScope(shield=True):
                await body(send, b"x")
        except OSError as error:
            raised.append(error)
            raise
        finally:
            over.set()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await waiting.wait()
        await client.leave()
        await over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(raised) == 1
        assert server.errors == []  # nothing that the log need tell


async def test_a_timeout_of_the_applications_own_is_no_disconnect() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        with trio.CancelScope() as timeout:
            timeout.cancel()
            await receive()
        assert timeout.cancelled_caught
        await hello(scope, receive, send)

    assert (await ask(app)).status == 201


# --- slow peers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_send_waits_for_a_slow_reader(in_a_task: bool) -> None:
    sent = 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        async def write() -> None:
            nonlocal sent
            await start(send)
            for _ in range(64):
                await body(send, bytes(MIB), more=True)
                sent += MIB
            await body(send, b"")

        async with trio.open_nursery() as nursery:
            if in_a_task:
                nursery.start_soon(write)
            else:
                await write()

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        client = await Client(server).ask()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent < 4 * MIB
        size = 0
        while data := await client.stream.receive_some(MIB):
            size += len(data)
        assert sent == 64 * MIB
        assert size > sent


async def test_a_writer_waits_for_an_application_that_does_not_read() -> None:
    go_on = trio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await go_on.wait()
        await start(send)
        size = 0
        while (message := await receive())["more_body"]:
            size += len(message["body"])
        await body(send, b"%d" % (size + len(message["body"])))

    taken = 0
    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server, trio.open_nursery() as nursery:
        client = await Client(server).ask("POST", length=32 * MIB)

        async def upload() -> None:
            nonlocal taken
            for _ in range(32):
                await client.send_body(bytes(MIB))
                taken += MIB

        nursery.start_soon(upload)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert taken < 4 * MIB
        go_on.set()
        await client.until(body=b"%d" % (32 * MIB))


# --- files -----------------------------------------------------------------------------------------------------------


CONTENTS = b"of a file" * 100_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENTS)
    return path


def sending(path: Path, *headers: tuple[bytes, bytes]) -> App:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["extensions"]["http.response.pathsend"] == {}
        await start(send, 200, *headers)
        await send({"type": "http.response.pathsend", "path": str(path)})

    return app


async def test_a_file_is_sent_by_its_path(protocol: str | ModuleType, file: Path) -> None:
    result = await ask(sending(file), protocol=protocol)
    assert result.body == CONTENTS
    assert result.headers["content-length"] == "900000"


async def test_a_file_is_not_sent_to_head(file: Path) -> None:
    result = await ask(sending(file, (b"content-length", b"900000")), "HEAD")
    assert (result.status, result.body) == (200, b"")
    assert result.headers["content-length"] == "900000"


async def test_a_file_that_is_not_there_is_an_error_of_send(tmp_path: Path) -> None:
    async with serving(from_asgi(strict(sending(tmp_path / "none")))) as server:
        assert (await server.request()).status == 500
        assert [type(error) for error in server.errors] == [FileNotFoundError]


async def test_a_path_has_no_place_beside_pieces(file: Path) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"x", more=True)
        with pytest.raises(LocalProtocolError, match="instead of"):
            await send({"type": "http.response.pathsend", "path": str(file)})
        await body(send, b"y")

    assert (await ask(app)).body == b"xy"


async def test_an_application_that_cancels_its_own_sending_has_not_answered(file: Path) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        with trio.CancelScope() as timeout:
            timeout.cancel()
            await sending(file)(scope, receive, send)

    async with serving(from_asgi(strict(app)), "fastcgi", "unix") as server:
        assert (await server.request()).status == 500
        [error] = server.errors
        assert "cancelled its own sending" in str(error)


# --- roles, mounts --------------------------------------------------------------------------------------------------


async def test_an_authorizer_lets_nobody_pass_by_its_status_alone() -> None:
    async with from_asgi(strict(hello))() as handler:

        async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            assert scope["extensions"]["gateways"]["role"] == "authorizer"
            await start(send, 200)
            await body(send, b"consent?", more=True)
            await body(send, b"")

        async with from_asgi(strict(app))() as guard:
            result = await call(Roles(handler, authorizer=guard), role="authorizer")
        assert (await call(handler, role="authorizer")).status == 403
    assert result.status == 403


async def test_a_mounted_application_has_the_mount_as_its_root_path() -> None:
    seen: list[tuple[str, str]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen.append((scope["root_path"], scope["path"]))
        await start(send)
        await body(send, b"a", more=True)
        await body(send, b"b")

    async with from_asgi(strict(app))() as handler:
        site = URLMap({"/app": handler})
        assert (await call(site, path="/app/x")).body == b"ab"
        assert (await call(site, path="/app")).body == b"ab"
    assert seen == [("/app", "/app/x"), ("/app", "/app")]


# --- not for trio ----------------------------------------------------------------------------------------------------


async def needs_a_loop(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    import asyncio

    asyncio.get_running_loop()


async def waits_for_a_future(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@pytest.mark.parametrize("app", [needs_a_loop, waits_for_a_future])
async def test_an_application_that_turns_out_to_need_asyncio_is_told_apart_in_the_log(
    app: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        result = await ask(app, raise_errors=False)
    assert result.status == 500
    assert "from_asgi(application, loop='asyncio')" in caplog.text
    assert "from_wsgi" in caplog.text
