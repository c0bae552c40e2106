"""Metrics for Prometheus, with ``/ping`` and ``/status`` beside them, on a listener of their own (extra "metrics").

What is told is read from a scoreboard that all workers write to, so that one page tells of all of them, and of those
that are gone. The listener answers although every handler waits and every event loop is blocked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, cast

from prometheus_client import (
    CollectorRegistry,
    make_wsgi_app,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import gateways
from gateways import Tally
from gateways._process.monitor import Monitor, Thread, bind
from gateways._process.scoreboard import DURATIONS, STATES, Board, Snapshot, board_of
from gateways.status import page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from gateways._process.monitor import Listener

__all__ = ["GatewaysCollector", "application", "bind", "start_monitor", "start_thread"]

#: What there is besides free rows.
_STATES = STATES[1:]


class GatewaysCollector(Collector):
    """The metrics of a server, for a registry of prometheus_client: ``REGISTRY.register(GatewaysCollector(tally))``."""

    def __init__(self, counted: Board | Tally) -> None:
        self._board = board_of(counted)

    def collect(self) -> Iterator[Metric]:
        """Every metric, all of the same moment."""
        snapshot = self._board.snapshot()
        yield from _served(snapshot.total)
        yield from _workers(snapshot)
        yield GaugeMetricFamily(
            "gateways_start_time_seconds", "When the server was started, in seconds since 1970.", self._board.since
        )
        info = GaugeMetricFamily("gateways_info", "The version of gateways.", labels=["version"])
        info.add_metric([gateways.__version__], 1)
        yield info


def _served(total: Tally) -> Iterator[Metric]:
    yield CounterMetricFamily("gateways_connections", "Connections that web servers have made.", total.accepted)
    yield GaugeMetricFamily("gateways_connections_open", "Connections that are open.", total.connections)
    requests = CounterMetricFamily(
        "gateways_requests",
        'Requests that are over, by the class of their status; "none" if there was no answer.',
        labels=["code"],
    )
    for hundreds, count in enumerate(total.answered):
        if hundreds != 1:  # an answer that is final is never one of those
            requests.add_metric([f"{hundreds}xx" if hundreds else "none"], count)
    yield requests
    yield GaugeMetricFamily("gateways_requests_running", "Requests that have begun and are not over.", total.running)
    yield CounterMetricFamily(
        "gateways_requests_refused", "Requests that were refused because the server was full.", total.full
    )
    yield CounterMetricFamily("gateways_requests_slow", "Requests that were reported as slow.", total.slow)
    yield CounterMetricFamily("gateways_response_body_bytes", "Bytes of response bodies.", total.sent)
    ends = [*map(str, DURATIONS), "+Inf"]
    yield HistogramMetricFamily(
        "gateways_request_duration_seconds",
        "How long requests took, from their first variables to the end of their answer.",
        buckets=list(zip(ends, accumulate(total.durations), strict=True)),
        sum_value=total.seconds,
    )


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    states = GaugeMetricFamily("gateways_workers", "Processes that serve, by what they are doing.", labels=["state"])
    for state in _STATES:
        states.add_metric([state], sum([row.state == state for row in snapshot.rows]))
    yield states
    yield CounterMetricFamily("gateways_workers_started", "Processes that were started to serve.", snapshot.started)
    yield CounterMetricFamily(
        "gateways_workers_died", "Processes that ended without saying so: killed, or crashed.", snapshot.died
    )
    # By its row: there are only so many of them, however often workers are replaced.
    memory, running, seen = [
        GaugeMetricFamily(f"gateways_worker_{name}", text, labels=["worker"])
        for name, text in [
            ("resident_memory_bytes", "Memory of one process."),
            ("requests_running", "Requests that have begun in one process and are not over."),
            ("last_seen_seconds", "Seconds since one process last told of itself, which it does twice a second."),
        ]
    ]
    now = time.monotonic()
    for row in snapshot.rows:
        worker = [str(row.slot)]
        memory.add_metric(worker, row.rss)
        running.add_metric(worker, row.tally.running)
        seen.add_metric(worker, max(0.0, now - row.beat))
    yield from (memory, running, seen)


def application(board: Board) -> WSGIApplication:
    """A WSGI application: ``/metrics``, ``/status`` (as in :mod:`gateways.status`), and ``/ping``.

    The ping is answered with 200 as long as one worker is ready to serve, else with 503.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GatewaysCollector(board))
    metrics = cast("WSGIApplication", make_wsgi_app(registry))

    def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path not in ("/metrics", "/status", "/ping"):
            status, content_type, text = "404 Not Found", _TEXT, "There are /metrics, /status and /ping.\n"
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, content_type, text = "405 Method Not Allowed", _TEXT, "GET and HEAD alone.\n"
        elif path == "/metrics":
            return metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        elif path == "/status":
            status, (content_type, text) = "200 OK", page(board, environ["QUERY_STRING"])
        elif any(row.state == "ready" for row in board.snapshot().rows):
            status, content_type, text = "200 OK", _TEXT, "pong\n"
        else:
            status, content_type, text = "503 Service Unavailable", _TEXT, "no worker is ready\n"
        allow = [("Allow", "GET, HEAD")] if status.startswith("405") else []
        start_response(status, [("Content-Type", content_type), ("Cache-Control", "no-store"), *allow])
        return [text.encode()]

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        head: list[tuple[str, list[tuple[str, str]]]] = []
        chunks: list[bytes] = []

        def keep(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Callable[[bytes], object]:
            head.append((status, headers))
            return chunks.append

        chunks.extend(plain(environ, keep))
        body, [(status, headers)] = b"".join(chunks), head
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer


_TEXT = "text/plain; charset=utf-8"


def start_thread(board: Board, listener: Listener) -> Thread:
    """Serve in a thread of this process, which never forks; ``close()`` ends it."""
    return Thread(listener, application(board))


def start_monitor(board: Board, listener: Listener, *, in_child: Callable[[], object] | None = None) -> Monitor:
    """Serve in a process of its own. For a process without threads that manages workers: see :class:`Monitor` for
    what it has to call. ``in_child`` is called there before anything is answered, to give up privileges.
    """
    return Monitor(listener, application(board), in_child=in_child)
