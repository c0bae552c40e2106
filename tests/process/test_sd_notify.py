"""What a service manager is told."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from gateways._process import sd_notify


@pytest.fixture(params=["file", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[socket.socket]:
    """Where NOTIFY_SOCKET leads to."""
    where = str(tmp_path / "notify") if request.param == "file" else f"@gateways-{os.getpid()}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(where.replace("@", "\0", 1))
    listening.settimeout(10)
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    yield listening
    listening.close()


def test_lines_arrive_in_one_message(manager: socket.socket) -> None:
    assert sd_notify.notify("READY=1", "STATUS=serving")
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving"


def test_each_state_has_its_line(manager: socket.socket) -> None:
    said = [
        sd_notify.ready(),
        sd_notify.ready("serving"),
        sd_notify.status("3 requests"),
        sd_notify.stopping("stopping"),
        sd_notify.watchdog(),
    ]
    assert said == [True] * 5
    assert [manager.recv(4096) for _ in said] == [
        b"READY=1",
        b"READY=1\nSTATUS=serving",
        b"STATUS=3 requests",
        b"STOPPING=1\nSTATUS=stopping",
        b"WATCHDOG=1",
    ]


def test_a_reload_is_told_with_the_time_at_which_it_began(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    assert sd_notify.reloading()
    after = time.monotonic_ns() // 1000
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_text_cannot_add_lines(manager: socket.socket) -> None:
    assert sd_notify.status("fine\nMAINPID=1\r\nSTOPPING=1")
    assert manager.recv(4096) == b"STATUS=fine MAINPID=1 STOPPING=1"


@pytest.mark.parametrize(
    "where", [None, "", "relative", "/there/is/no/such/socket", "@nobody-is-there", "/" + "x" * 200]
)
def test_a_manager_that_is_not_there_is_no_error(where: str | None) -> None:
    assert sd_notify.notify("READY=1", environ={} if where is None else {"NOTIFY_SOCKET": where}) is False


def test_a_manager_that_reads_nothing_is_no_error(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sd_notify, "_PATIENCE", 0.001)
    most = 10_000
    assert not all(sd_notify.status("x" * 1000) for _ in range(most))


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_the_manager_wants_a_sign_of_life(environ: dict[str, str], seconds: float | None) -> None:
    assert sd_notify.watchdog_interval(environ) == seconds
