"""Forwarding: one application in front of another, over every protocol there is."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateways import Limits, Request, Response, Roles, URLMap, forward
from gateways._model.handler import Handler
from tests.net.tools import FASTCGI, PATIENCE, SCGI, Answer, Backend, running, unix, variables

PROTOCOLS = {"fastcgi": FASTCGI, "scgi": SCGI}
MIB = 1 << 20


@pytest.fixture(params=["fastcgi", "scgi"])
def outer(request: pytest.FixtureRequest) -> Any:
    return PROTOCOLS[request.param]


@pytest.fixture(params=["fastcgi", "scgi"])
def inner(request: pytest.FixtureRequest) -> Any:
    return PROTOCOLS[request.param]


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE):
        yield


@asynccontextmanager
async def behind_another(
    handler: Any, outer: Any, inner: Any, wrap: Callable[[Handler], Handler] = lambda handler: handler
) -> AsyncGenerator[Backend]:
    """Serve a handler over the inner protocol, and what forwards to it over the outer one."""
    async with running(handler, protocol=inner) as backend:
        front = wrap(forward(f"{inner.name}:{backend.addresses[0]}"))
        async with running(front, protocol=outer) as server:
            yield server


async def ask_through(
    handler: Any,
    outer: Any,
    inner: Any,
    environ: dict[str, str],
    body: bytes = b"",
    *,
    wrap: Callable[[Handler], Handler] = lambda handler: handler,
    **how: Any,
) -> Answer:
    """Ask an application that is behind another one."""
    async with behind_another(handler, outer, inner, wrap) as server:
        return await server.ask(environ, body, **how)


# --- requests ----------------------------------------------------------------------------------------------------


class Keeping:
    """Keeps the request it answers, body and all."""

    request: Request | None = None

    async def __call__(self, request: Request) -> Response:
        body = await request.body.read()
        self.request = Request(request.environ_as_sent, body, role=request.role, protocol=request.protocol)
        return Response("kept", 201, [("X-Cookie", "1")])


@pytest.mark.parametrize("environ", [
    variables("POST", "/a/b c/é\udcff", QUERY_STRING="x=%20&y", CONTENT_LENGTH="5", CONTENT_TYPE="text/plain",
              HTTP_COOKIE="a=1; b=2", HTTP_HOST="example.org", REQUEST_URI="/a/b%20c?x=%20&y", REMOTE_ADDR="127.0.0.1",
              SERVER_NAME="example.org", SERVER_PORT="80", SERVER_SOFTWARE="test/1"),
    variables("PUT", "", SCRIPT_NAME="/app", CONTENT_LENGTH="5", HTTPS="on", HTTP_X_EMPTY=""),
])  # fmt: skip
async def test_the_application_behind_gets_an_equal_request(outer: Any, inner: Any, environ: dict[str, str]) -> None:
    direct, behind = Keeping(), Keeping()
    async with running(direct, protocol=outer) as server:
        expected = await server.ask(environ, b"hello")
    answer = await ask_through(behind, outer, inner, environ, b"hello")
    assert direct.request is not None
    assert behind.request is not None
    for request in (direct.request, behind.request):
        request.environ.pop("SCGI", None)  # the mark of that protocol
    assert behind.request == direct.request
    assert (answer.status, answer.body, answer.headers) == (expected.status, expected.body, expected.headers)


async def test_two_hops_are_as_good_as_none() -> None:
    direct, behind = Keeping(), Keeping()
    environ = variables("POST", "/x", CONTENT_LENGTH="5")
    async with running(direct) as server:
        await server.ask(environ, b"hello")
    async with (
        running(behind, protocol=SCGI) as backend,
        running(forward(f"scgi:{backend.addresses[0]}")) as middle,
        running(forward(f"fastcgi:{middle.addresses[0]}")) as server,
    ):
        assert (await server.ask(environ, b"hello")).status == 201
    assert behind.request is not None
    behind.request.environ.pop("SCGI")
    assert behind.request == direct.request


async def test_a_mounted_application_is_told_where_it_is(outer: Any, inner: Any) -> None:
    async def tell(request: Request) -> Response:
        return Response(f"{request.script_name} {request.path_info}")

    answer = await ask_through(
        tell, outer, inner, variables(path="/app/x"), wrap=lambda behind: URLMap({"/app": behind})
    )
    assert answer.body == b"/app /x"


async def test_the_proxy_of_the_client_is_not_passed_on() -> None:
    async def tell(request: Request) -> Response:
        return Response(str([name for name, _ in request.environ_as_sent if "PROXY" in name]))

    async def careless(request: Request) -> Response:
        request.environ["HTTP_PROXY"] = "evil"
        response = await behind(request)  # type: ignore[misc]
        assert isinstance(response, Response)
        return response

    async with running(tell) as backend:
        behind = forward(f"fastcgi:{backend.addresses[0]}")
        async with running(careless) as server:
            assert (await server.ask()).body == b"[]"


async def test_a_body_of_unknown_length(inner: Any) -> None:
    async def length(request: Request) -> Response:
        return Response(f"{len(await request.body.read())}")

    answer = await ask_through(length, FASTCGI, inner, variables("POST"), b"hello")
    assert answer.body == b"5"


async def test_a_body_of_unknown_length_that_is_too_long_for_scgi() -> None:
    async def never(request: Request) -> Response:
        raise AssertionError

    async with running(never, protocol=SCGI) as backend:
        behind = forward(f"scgi:{backend.addresses[0]}", limits=Limits(max_read=4))
        async with running(behind) as server:
            assert (await server.ask(variables("POST"), b"hello")).status == 413


async def test_roles_are_kept() -> None:
    async def filtering(request: Request) -> Response:
        return Response(await request.body.read() + b"|" + await request.data.read())

    async def admit(request: Request) -> Response:
        return Response.authorize(REMOTE_USER="m")

    async with running(Roles(authorizer=admit, filter=filtering)) as backend:
        behind = forward(f"fastcgi:{backend.addresses[0]}")
        async with running(Roles(authorizer=behind, filter=behind)) as server:
            answer = await server.ask(role="authorizer")
            assert (answer.status, answer.headers["Variable-REMOTE_USER"]) == (200, "m")
            peer = await server.connect()
            client: Any = peer.client
            await peer.ask(variables("POST", CONTENT_LENGTH="5"), role="filter")
            await peer.send(client.send_body(1, b"hello") + client.end_body(1))
            await peer.send(client.send_data(1, b"the file") + client.end_data(1))
            assert (await peer.answer()).body == b"hello|the file"


async def test_a_role_that_the_protocol_does_not_know_is_no_consent() -> None:
    async def never(request: Request) -> Response:
        raise AssertionError

    async with running(never, protocol=SCGI) as backend:
        behind = forward(f"scgi:{backend.addresses[0]}")
        async with running(Roles(authorizer=behind)) as server:
            assert (await server.ask(role="authorizer")).status == 500


# --- answers -----------------------------------------------------------------------------------------------------


async def test_ten_mebibytes_go_up_and_come_back(outer: Any, inner: Any) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.body, content_type="a/b")

    sent = os.urandom(MIB) * 10
    async with behind_another(echo, outer, inner) as server:
        peer = await server.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.ask, variables("POST", CONTENT_LENGTH=str(len(sent))), sent)
            answer = await peer.answer()
    assert answer.body == sent
    assert answer.ended == "complete"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
async def test_answers_without_a_body(outer: Any, inner: Any, method: str, status: int) -> None:
    async def handler(request: Request) -> Response:
        return Response("" if status != 200 else "body", status, [("ETag", '"x"')])

    async with running(handler, protocol=outer) as server:
        expected = await server.ask(variables(method))
    answer = await ask_through(handler, outer, inner, variables(method))
    assert answer.ended == "complete"
    assert (answer.status, answer.body, answer.headers) == (expected.status, b"", expected.headers)


async def test_answers_are_streamed(outer: Any, inner: Any) -> None:
    go_on = trio.Event()

    async def handler(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("first")
            await go_on.wait()
            await send("second")

        return Response(body)

    async with behind_another(handler, outer, inner) as server:
        peer = await server.connect()
        await peer.ask()
        while not any(getattr(event, "data", b"") == b"first" for event in peer.events):
            await peer.receive()
        go_on.set()
        assert (await peer.answer()).body == b"firstsecond"


async def test_an_application_that_breaks_after_its_head_breaks_the_answer(outer: Any, inner: Any) -> None:
    async def breaks(request: Request) -> Response:
        async def body(send: Any) -> None:
            await send("half")
            await trio.lowlevel.checkpoint()
            raise RuntimeError("on purpose")

        return Response(body, headers=[("Content-Length", "10")])

    answer = await ask_through(breaks, outer, inner, variables())
    assert answer.ended in ("reset", "eof", "failed")


async def test_an_application_that_breaks_before_its_head_is_502(outer: Any) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        for name in PROTOCOLS:
            async with running(forward(f"{name}:{address}"), protocol=outer) as server:
                assert (await server.ask()).status == 502
        nursery.cancel_scope.cancel()


async def test_an_application_that_is_not_there_is_502(outer: Any, inner: Any, tmp_path: Path) -> None:
    async with running(forward(f"{inner.name}:{unix(tmp_path)}"), protocol=outer) as server:
        assert (await server.ask()).status == 502
        assert (await server.ask(variables("POST", CONTENT_LENGTH="5"), b"hello")).status == 502


async def test_a_client_that_leaves_cancels_the_application_behind(outer: Any, inner: Any) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def waits(request: Request) -> Response:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with behind_another(waits, outer, inner) as server:
        peer = await server.connect()
        await peer.ask()
        await started.wait()
        await peer.stream.aclose()
        await cancelled.wait()


async def test_the_log_of_the_application_behind_goes_on_to_the_front(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        request.log("from behind")
        return Response("ok")

    answer = await ask_through(handler, FASTCGI, FASTCGI, variables())
    assert answer.log == b"from behind\n"
    assert len([record for record in caplog.records if "from behind" in record.getMessage()]) == 2
    assert caplog.records[0].levelno == logging.WARNING


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "",
        "fastcgi",
        "fastcgi:",
        "unix:/run/app.sock",
        "nonsense:127.0.0.1:1",
        "cgi:x",
        "http:127.0.0.1:1",
        "testing:x",
        "_net:x",
        "events:x",
        "a.b:x",
    ],
)
async def test_addresses_that_are_none_to_forward_to(address: str) -> None:
    with pytest.raises(ValueError, match="not an address to forward to"):
        forward(address)
