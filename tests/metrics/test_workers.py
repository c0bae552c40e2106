"""Metrics of several processes: aggregated, and there when any of them is not."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.program import Answer, Call, Program, ask, get, poll, serving
from tests.metrics.tools import samples

pytest.importorskip("gunicorn")

APP = """\
import os, sys, time
from gateways import Response

async def app(request):
    if request.path == "/block":
        sys.stderr.write(f"blocked: {os.getpid()}\\n")
        sys.stderr.flush()
        time.sleep(3600)
    return Response(f"{os.getpid()}")
"""

COUNTERS = ("_total", "_bucket", "_count", "_sum")


class Counters:
    """What was told so far, none of which may ever go back."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._last: dict[tuple[str, ...], float] = {}

    def read(self) -> dict[tuple[str, ...], float]:
        told = samples(get(self._where, "/metrics").body)
        for name, value in self._last.items():
            if name[0].endswith(COUNTERS):
                assert told[name] >= value, name
        self._last = told
        return told

    def wait_for(self, value: float, *name: str) -> None:
        poll(lambda: self.read()[name] == value, f"{name} to become {value}")


def start(tmp_path: Path) -> tuple[str, list[str]]:
    (tmp_path / "app.py").write_text(APP)
    address = f"fastcgi:unix:{tmp_path}/a"
    return address, ["app.py", "--bind", address, "--workers", "2", "--metrics", "127.0.0.1:0"]


def where_is(program: Program) -> str:
    [where] = program.wait_for("^metrics on (.*)$")
    return where


def status_of(where: str) -> list[dict[str, int]]:
    processes: list[dict[str, int]] = json.loads(get(where, "/status?json&full").body)["processes"]
    return processes


def test_the_counts_of_all_workers_are_added_up_and_outlive_them(tmp_path: Path) -> None:
    address, arguments = start(tmp_path)
    with serving(*arguments, cwd=tmp_path) as program:
        where = where_is(program)
        counters = Counters(where)
        for _ in range(20):
            ask(address)
        counters.wait_for(20, "gateways_requests_total", "code=2xx")
        os.kill(status_of(where)[0]["pid"], signal.SIGKILL)
        counters.wait_for(1, "gateways_workers_died_total")
        counters.wait_for(2, "gateways_workers", "state=ready")
        program.signal(signal.SIGHUP)
        counters.wait_for(5, "gateways_workers_started_total")
        counters.wait_for(2, "gateways_workers", "state=ready")
        for _ in range(10):
            ask(address)
        counters.wait_for(30, "gateways_requests_total", "code=2xx")
        assert counters.read()["gateways_workers_died_total",] == 1


def test_O15_it_tells_while_every_worker_is_blocked(tmp_path: Path) -> None:
    address, arguments = start(tmp_path)
    with serving(*arguments, "--ping-path", "/ping", cwd=tmp_path) as program:
        where = where_is(program)
        assert ask(address, "/ping") == Answer(200, "pong\n")
        calls = [Call(address, "/block") for _ in range(2)]
        blocked = program.wait_for(r"^blocked: (\d+)$", times=2)
        assert len(set(blocked)) == 2
        assert get(where, "/ping") == Answer(200, "pong\n")
        assert {str(each["pid"]) for each in status_of(where)} == set(blocked)
        for pid in blocked:
            os.kill(int(pid), signal.SIGKILL)
        assert [call.finish() for call in calls] == [None, None]
