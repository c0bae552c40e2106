"""How the figures are taken: every server behind one nginx, all at once, and each has its turn."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from bench import accounting, backends, cgi_start, load, nginx
from bench.backends import BACKENDS, Backend, Failed, Running
from bench.load import Case
from bench.results import Figures, Results

#: How many bodies of 100 MiB in each round.
TRANSFERS = 2
#: The programs of bench/cgi_start.py that are shown, and how often each is started.
PROGRAMS = ("python -c pass", "gateways", "gateways, python -I", "gateways and trio", "wsgiref")
STARTS = 20

#: A server does something else than it should, or nothing.
_FAILURES = (Failed, OSError, http.client.HTTPException, subprocess.TimeoutExpired)


@attrs.frozen
class Plan:
    """What to measure: which backends in which case, how often, and for how many seconds each time.

    The servers run on the CPUs ``back``, nginx and the load on ``front``; anywhere if these are empty. ``compiled`` is
    the folder of a compiled build of gateways.
    """

    pairs: Mapping[Case, Sequence[Backend]]
    rounds: int
    seconds: int
    front: Sequence[int] = ()
    back: Sequence[int] = ()
    compiled: Path | None = None
    starts: int = STARTS


def cpus() -> tuple[list[int], list[int]]:
    """A CPU for nginx and the load, and one for the servers; nothing where there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[:1], allowed[1:2]) if len(allowed) > 1 else ([], [])


def measure(plan: Plan, results: Results, say: Callable[[str], None]) -> None:
    """Start everything, measure, and end everything. Figures and failures are added to ``results``."""
    behind = {case: group for case, group in plan.pairs.items() if case.kind in ("requests", "transfers") and group}
    if behind:
        with ExitStack() as stack:
            _Behind(plan, results, say, stack).measure(behind)
    # What is left is measured without nginx, and with nothing else there.
    for case, group in plan.pairs.items():
        if case.kind == "idle":
            for backend in group:
                say(f"{case.title}: {backend.title}")
                _measure_idle(case, backend, plan, results)
        if case.kind == "start":
            say(case.title)
            results.figures += _measure_starts(case, plan.starts)


class _Behind:
    """The servers and the nginx in front of them, for as long as ``stack`` is open."""

    def __init__(self, plan: Plan, results: Results, say: Callable[[str], None], stack: ExitStack) -> None:
        self.plan = plan
        self.results = results
        self.say = say
        self.folder = stack.enter_context(backends.scratch())
        self.servers: dict[str, Running] = {}
        #: by case and backend: what its memory grew by at the first transfer, and may have kept since
        self.grew: dict[tuple[str, str], int] = {}
        for backend in BACKENDS:
            if any(backend in group for group in plan.pairs.values()):
                self._start(backend, stack)
        self.nginx = stack.enter_context(nginx.started([*self.servers.values()], self.folder / "nginx", plan.front))

    def _start(self, backend: Backend, stack: ExitStack) -> None:
        self.say(f"starting {backend.title}")
        try:
            server = backends.started(backend, self.folder, self.plan.back, self.plan.compiled)
            self.servers[backend.name] = stack.enter_context(server)
        except Failed as error:
            self.results.failed[backend.name] = str(error)

    def measure(self, behind: Mapping[Case, Sequence[Backend]]) -> None:
        """Every round of every case."""
        warm: set[str] = set()
        works: dict[Case, list[Backend]] = {}
        for case, group in behind.items():
            self.say(f"trying {case.title}")
            works[case] = [one for one in group if one.name in self.servers and self._answers(case, one, warm)]
        for number in range(1, self.plan.rounds + 1):
            for case, group in works.items():
                self.say(f"round {number} of {self.plan.rounds}: {case.title}")
                # Every other round goes backwards, so that neighbours differ.
                for backend in group if number % 2 else reversed(group):
                    try:
                        self.results.figures.append(self._take(case, backend, number))
                    except (*_FAILURES, accounting.Changed) as error:
                        self._fails(case, backend, error)

    def _answers(self, case: Case, backend: Backend, warm: set[str]) -> bool:
        """Whether the answer is the right one, after some load as well; one that fails has no figures."""
        port = self.nginx.ports[backend.name]
        server = accounting.family(self.servers[backend.name].pid)
        accounting.forget_peak(server)
        memory = accounting.rss(server)
        try:
            load.check(case, port)
            self.grew[case.name, backend.name] = accounting.peak_rss(server) - memory
            if backend.name not in warm:
                warm.add(backend.name)
                load.wrk(case, port, 1, self.plan.front)
                load.check(case, port)
        except _FAILURES as error:
            self._fails(case, backend, error)
            return False
        return True

    def _fails(self, case: Case, backend: Backend, error: Exception) -> None:
        said = backends.tail(self.servers[backend.name].log)
        self.results.failed[f"{backend.name}, {case.name}"] = f"{type(error).__name__}: {error}\n{said}".strip()

    def _take(self, case: Case, backend: Backend, number: int) -> Figures:
        port = self.nginx.ports[backend.name]
        roots = (self.servers[backend.name].pid, self.nginx.pid)
        families = [accounting.family(root) for root in roots]
        accounting.forget_peak(families[0])
        memory = accounting.rss(families[0])
        before = [accounting.cpu_clocks(family) for family in families]
        if case.kind == "transfers":
            found = self._transfers(case, port)
        else:
            found = load.wrk(case, port, self.plan.seconds, self.plan.front)
        families = [accounting.family(root) for root in roots]
        after = [accounting.cpu_clocks(family) for family in families]
        figures = Figures(case.name, backend.name, number, pss=accounting.pss(families[0]), **found)
        if case.kind == "transfers":
            grew = accounting.peak_rss(families[0]) - memory
            figures = attrs.evolve(figures, grew=max(0, grew, self.grew[case.name, backend.name]))
        used = [
            accounting.cpu_between(*pair) / 1e3 / max(1, figures.requests) for pair in zip(before, after, strict=True)
        ]
        return attrs.evolve(figures, cpu=used[0], nginx=used[1])

    def _transfers(self, case: Case, port: int) -> dict[str, Any]:
        began = time.perf_counter()
        with backends.pinned(self.plan.front):
            load.transfer(case, port, TRANSFERS)
        return {"requests": TRANSFERS, "seconds": time.perf_counter() - began}


def _measure_idle(case: Case, backend: Backend, plan: Plan, results: Results) -> None:
    """A server of its own: its memory with a few connections, and with all of them."""
    number, few = load.may_open(case.connections), case.connections // 100
    with backends.scratch() as folder:
        try:
            with (
                backends.started(backend, folder, plan.back, plan.compiled) as server,
                load.Idle(backend.protocol, server.socket) as idle,
            ):
                idle.add(few)
                before = accounting.pss(accounting.family(server.pid))
                idle.add(number - few)
                idle.check()
                after = accounting.pss(accounting.family(server.pid))
        except _FAILURES as error:
            results.failed[f"{backend.name}, {case.name}"] = f"{type(error).__name__}: {error}"
            return
    each = (after - before) / (number - few)
    results.figures.append(Figures(case.name, backend.name, 1, requests=number, pss=after, each=each))


def _measure_starts(case: Case, rounds: int) -> list[Figures]:
    with backends.scratch() as folder:
        rows = cgi_start.rows(sys.executable, folder, backends.ROOT, installed=False)
        programs = [row for row in rows if row.name in PROGRAMS]
        for program in programs:
            cgi_start.check(program)
        taken = cgi_start.measure(programs, rounds)
    return [
        Figures(case.name, program.name, number, requests=1, cpu=seconds * 1e6)
        for program, times in zip(programs, taken, strict=True)
        for number, seconds in enumerate(times, 1)
    ]
