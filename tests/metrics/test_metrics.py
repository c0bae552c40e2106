"""The exposition, read by Prometheus' own parser, and the pages beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import attrs
import pytest

import gateways
from gateways import Tally
from gateways._net.tally import DURATIONS
from gateways._process.scoreboard import Alone, Board, Scoreboard
from gateways.metrics import application
from tests.metrics.tools import samples, tally


@attrs.frozen
class Answer:
    status: str
    headers: dict[str, str]
    body: bytes


def ask(board: Board, path: str, method: str = "GET", query: str = "", **environ: str) -> Answer:
    """What the application answers, with wsgiref.validate between it and us."""
    asked: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        **environ,
    }
    setup_testing_defaults(asked)
    head: list[Any] = []
    body: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], None]:
        head.extend((status, headers))
        return body.append

    chunks: Any = validator(application(board))(asked, start_response)
    body.extend(chunks)
    chunks.close()
    return Answer(head[0], dict(head[1]), b"".join(body))


def metrics(board: Board) -> dict[tuple[str, ...], float]:
    return samples(ask(board, "/metrics").body.decode())


def test_what_was_served_is_told_by_the_names_that_prometheus_expects() -> None:
    counted = tally(
        accepted=9, closed=7, begun=12, answered_0=1, answered_2=6, answered_4=2, answered_5=1, full=1, slow=3, sent=999
    )
    told = metrics(Alone(counted))
    expected = {
        ("gateways_connections_total",): 9,
        ("gateways_connections_open",): 2,
        ("gateways_requests_total", "code=none"): 1,
        ("gateways_requests_total", "code=2xx"): 6,
        ("gateways_requests_total", "code=3xx"): 0,
        ("gateways_requests_total", "code=4xx"): 2,
        ("gateways_requests_total", "code=5xx"): 1,
        ("gateways_requests_running",): 2,
        ("gateways_requests_refused_total",): 1,
        ("gateways_requests_slow_total",): 3,
        ("gateways_response_body_bytes_total",): 999,
        ("gateways_workers", "state=starting"): 0,
        ("gateways_workers", "state=ready"): 1,
        ("gateways_workers", "state=draining"): 0,
        ("gateways_workers", "state=ended"): 0,
        ("gateways_workers_started_total",): 1,
        ("gateways_workers_died_total",): 0,
        ("gateways_worker_requests_running", "worker=0"): 2,
        ("gateways_info", f"version={gateways.__version__}"): 1,
    }
    assert {name: told[name] for name in expected} == expected
    others = {name[0] for name in told.keys() - expected.keys()}
    assert {name for name in others if not name.startswith("gateways_request_duration_seconds_")} == {
        "gateways_start_time_seconds",
        "gateways_worker_last_seen_seconds",
        "gateways_worker_resident_memory_bytes",
    }


def test_durations_are_a_histogram() -> None:
    counted = Tally()
    counted.answered[2] = 10  # seven of them never waited
    for seconds in (0.003, 0.3, 75.0):
        counted.took(seconds)
    told = metrics(Alone(counted))
    buckets = {name[1]: value for name, value in told.items() if name[0].endswith("_duration_seconds_bucket")}
    assert list(buckets) == [f"le={end}" for end in (*DURATIONS, "+Inf")]
    assert [buckets[f"le={end}"] for end in (0.005, 0.25, 0.5, 60.0, "+Inf")] == [8, 8, 9, 9, 10]
    assert told["gateways_request_duration_seconds_count",] == 10
    assert told["gateways_request_duration_seconds_sum",] == pytest.approx(75.303)


def test_no_counter_goes_back_when_workers_are_replaced() -> None:
    board = Scoreboard(3)
    counted = [tally() for _ in range(3)]
    slots = [board.take() for _ in counted]
    last: dict[tuple[str, ...], float] = {}
    for turn in range(30):
        for each, (slot, mine) in enumerate(zip(slots, counted, strict=True)):
            mine.accepted += 1
            mine.begun += 2
            mine.answered[2] += 1
            mine.took(0.3)
            mine.sent += 100
            board.publish(slot, mine, "ready")
            if turn % 3 == each:
                board.release(slot)
                slots[each] = board.take()
                counted[each] = tally()
        told = metrics(board)
        went_back = {
            name: (value, told.get(name))
            for name, value in last.items()
            if name[0].endswith(("_total", "_bucket", "_sum", "_count")) and told.get(name, 0) < value
        }
        assert went_back == {}
        last = told
    assert last["gateways_requests_total", "code=2xx"] == 90
    assert last["gateways_workers_started_total",] == 33
    assert last["gateways_workers_died_total",] == 30


def test_a_replaced_worker_makes_no_new_series() -> None:
    board = Scoreboard(2)
    names: list[set[tuple[str, ...]]] = []
    for _ in range(2):
        slot = board.take()
        board.publish(slot, tally(accepted=1), "ready")
        names.append(set(metrics(board)))
        board.release(slot)
    assert names[0] == names[1]


def test_openmetrics_is_spoken_to_those_who_ask_for_it() -> None:
    answer = ask(Alone(tally()), "/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_ping_says_whether_a_worker_is_ready() -> None:
    board = Scoreboard(2)
    slots = [board.take(), board.take()]
    assert (ask(board, "/ping").status, ask(board, "/ping").body) == (
        "503 Service Unavailable",
        b"no worker is ready\n",
    )
    board.publish(slots[1], tally(), "ready")
    assert (ask(board, "/ping").status, ask(board, "/ping").body) == ("200 OK", b"pong\n")
    board.publish(slots[1], tally(), "draining")
    assert ask(board, "/ping").status == "503 Service Unavailable"


def test_the_status_is_there_too() -> None:
    answer = ask(Alone(tally(accepted=3)), "/status", query="json&full")
    assert answer.headers["Content-Type"] == "application/json"
    told = json.loads(answer.body)
    assert (told["accepted conn"], len(told["processes"])) == (3, 1)


@pytest.mark.parametrize("path", ["/metrics", "/status", "/ping"])
def test_HEAD_tells_the_length_and_nothing_else(path: str) -> None:
    board = Scoreboard(1)
    board.publish(board.take(), tally(), "ready")
    answer = ask(board, path, "HEAD")
    assert (answer.status, answer.body) == ("200 OK", b"")
    assert int(answer.headers["Content-Length"]) >= len("pong\n")


@pytest.mark.parametrize("path", ["/metrics", "/status", "/ping"])
def test_other_methods_are_refused(path: str) -> None:
    answer = ask(Alone(tally()), path, "POST")
    assert (answer.status, answer.headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/../metrics"])
def test_there_is_nothing_else(path: str) -> None:
    assert ask(Alone(tally()), path).status == "404 Not Found"
