"""What is counted of connections and requests."""

from __future__ import annotations

import pytest
import trio

from gateways import Reject, Request, Response, Tally
from gateways._net import serving
from gateways._net.tally import DURATIONS
from tests.net.tools import FASTCGI, SCGI, running


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI], ids=lambda protocol: protocol.name)
async def test_requests_are_counted_by_the_hundreds_of_their_status(protocol: serving.Protocol) -> None:
    async def app(request: Request) -> Response:
        if request.query_string == "fail":
            raise ValueError
        if request.query_string == "no":
            raise Reject(404)
        return Response("12345")

    tally = Tally()
    async with running(app, protocol=protocol, tally=tally) as backend:
        for query in ("", "", "no", "fail"):
            await backend.ask({"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "QUERY_STRING": query})
    assert tally.begun == 4
    assert tally.answered == [0, 0, 2, 0, 1, 1]
    assert tally.running == 0
    assert tally.sent >= 10
    assert tally.durations == [4] + [0] * len(DURATIONS)


async def test_a_request_runs_from_its_variables_to_the_end_of_its_answer() -> None:
    tally, go_on = Tally(), trio.Event()

    async def app(request: Request) -> Response:
        await go_on.wait()
        return Response("at last")

    async with running(app, tally=tally) as backend:
        peer = await backend.connect()
        await peer.ask()
        with trio.fail_after(5):
            while not tally.running:
                await trio.lowlevel.checkpoint()
        assert (tally.accepted, tally.connections, tally.running) == (1, 1, 1)
        go_on.set()
        await peer.answer()
        assert tally.running == 0
        await peer.stream.aclose()
        with trio.fail_after(5):
            while tally.connections:
                await trio.lowlevel.checkpoint()
    assert sum(tally.waited) == 1
    assert tally.seconds > 0


async def test_a_request_whose_client_left_ends_without_a_status() -> None:
    tally, begun = Tally(), trio.Event()

    async def app(request: Request) -> Response:
        begun.set()
        await trio.sleep_forever()
        return Response()

    async with running(app, tally=tally) as backend:
        peer = await backend.connect()
        await peer.ask()
        await begun.wait()
        await peer.stream.aclose()
        with trio.fail_after(5):
            while tally.running:
                await trio.lowlevel.checkpoint()
    assert tally.answered == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("seconds", "class_"), [(0.0, 0), (0.005, 0), (0.0051, 1), (60.0, 12), (61.0, 13)])
def test_durations_are_classed_by_their_upper_ends(seconds: float, class_: int) -> None:
    tally = Tally()
    tally.answered[2] = 1
    tally.took(seconds)
    assert tally.durations.index(1) == class_
    assert sum(tally.durations) == 1
