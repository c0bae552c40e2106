"""The pages ``/ping`` and ``/status``: whether a server lives, and what it is doing, in the words of PHP-FPM.

A page is answered by the event loop itself, in front of the application, so that it is there when every handler waits
and every thread is busy. :mod:`gateways.metrics` has both on a listener of its own, which answers although the loop is
blocked.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from gateways import Application, Reject, Request, Response, Roles, Started, Tally
from gateways._process.scoreboard import Board, Row, board_of

__all__ = ["describe", "page", "watched"]

_PONG = "pong\n"
#: A page tells of this moment alone.
_HEADERS = {"Cache-Control": "no-store"}


def watched(
    app: Application,
    counted: Board | Tally,
    *,
    ping: str | None = None,
    status: str | None = None,
    refresh: Callable[[], object] | None = None,
) -> Callable[[], AbstractAsyncContextManager[Roles]]:
    """An application with these two pages in front of it. It is to be served with the tally ``counted``.

    A page is at exactly the path given, the mount included, and nowhere else; one that is None is not there.
    ``refresh`` is called before the status is told, so that it is up to date. Raises ValueError for paths that do not
    begin with a slash, or are the same.
    """
    board = board_of(counted)
    pages = {path: name for name, path in [("ping", ping), ("status", status)] if path is not None}
    if len(pages) < (ping is not None) + (status is not None):
        raise ValueError(f"{ping} cannot be both the ping and the status")
    for path in pages:
        if not path.startswith("/"):
            raise ValueError(f"not a path that requests have: {path!r}; it begins with a slash")

    @asynccontextmanager
    async def start() -> AsyncGenerator[Roles]:
        async with Started(app) as roles:

            async def responder(request: Request) -> Response:
                name = pages.get(request.path)
                if name is None:
                    return await roles(request)
                if request.method not in ("GET", "HEAD"):
                    raise Reject(405, headers={"Allow": "GET, HEAD"})
                if name == "ping":
                    return Response(_PONG, headers=_HEADERS)
                if refresh is not None:
                    refresh()
                content_type, body = page(board, request.query_string)
                return Response(body, headers=_HEADERS, content_type=content_type)

            # Whether a request may pass is asked of the application, also for these pages.
            yield Roles(responder, authorizer=roles.authorizer, filter=roles.filter)

    return start


def page(board: Board, query: str) -> tuple[str, str]:
    """The status as (Content-Type, text). Words in the query: "json", and "full" for a part about each worker."""
    words = query.split("&")
    report = describe(board, full="full" in words)
    if "json" in words:
        return "application/json", json.dumps(report) + "\n"
    workers = report.pop("processes", [])
    parts = [_lines(report), *[f"{'*' * 24}\n{_lines(worker)}" for worker in workers]]
    return "text/plain; charset=utf-8", "\n".join(parts)


def describe(board: Board, *, full: bool = False) -> dict[str, Any]:
    """What the status tells, under the names that it has in JSON. ``full`` adds a list, "processes"."""
    snapshot = board.snapshot()
    rows, total = snapshot.rows, snapshot.total
    active = sum([row.tally.running > 0 for row in rows])
    states = [row.state for row in rows]
    report = {
        "process manager": "none" if [row.pid for row in rows] == [board.manager] else "workers",
        "start time": int(board.since),
        "start since": int(time.time() - board.since),
        "accepted conn": total.accepted,
        "open conn": total.connections,
        "requests": sum(total.answered),
        "running requests": total.running,
        "slow requests": total.slow,
        "refused requests": total.full,
        "unanswered requests": total.answered[0],
        **{f"{hundreds}xx answers": total.answered[hundreds] for hundreds in range(2, 6)},
        "sent bytes": total.sent,
        "idle processes": len(rows) - active,
        "active processes": active,
        "total processes": len(rows),
        "starting processes": states.count("starting"),
        "draining processes": states.count("draining"),
        "started processes": snapshot.started,
        "died processes": snapshot.died,
    }
    return {**report, "processes": [_worker(row) for row in rows]} if full else report


def _worker(row: Row) -> dict[str, Any]:
    tally = row.tally
    return {
        "pid": row.pid,
        "state": row.state,
        "generation": row.generation,
        "start time": int(row.started),
        "start since": int(time.time() - row.started),
        "last seen": round(time.monotonic() - row.beat, 1),
        "memory": row.rss,
        "accepted conn": tally.accepted,
        "open conn": tally.connections,
        "requests": sum(tally.answered),
        "running requests": tally.running,
        "slow requests": tally.slow,
        "sent bytes": tally.sent,
    }


def _lines(report: dict[str, Any]) -> str:
    """A line for each, with the values below each other."""
    shown = {**report, "start time": datetime.fromtimestamp(report["start time"], UTC).isoformat(sep=" ")}
    return "".join([f"{name + ':':21}{value}\n" for name, value in shown.items()])
