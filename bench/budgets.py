"""What gateways may cost, next to others in the same run: first what is asked for, then what would be better still."""

from __future__ import annotations

import attrs

from bench.results import Results


@attrs.frozen
class Budget:
    """In this case, a figure of ``ours`` is at most so many times that of ``peer``; KiB where there is no peer."""

    case: str
    ours: str
    peer: str
    at_most: float
    then: float | None = None
    figure: str = "cpu"


BUDGETS = (
    Budget("hello", "gateways-fastcgi", "uvicorn", 1.2, 1.0),
    Budget("hello", "gateways-fastcgi", "go", 0.75),
    Budget("hello", "gateways-fastcgi", "uwsgi-fastcgi", 1.1),
    Budget("hello", "gateways-fastcgi", "hypercorn-trio", 0.08),
    Budget("hello", "gateways-fastcgi-compiled", "uvicorn", 1.0),
    Budget("hello", "gateways-fastcgi-compiled", "libfcgi", 1.2, 0.9),
    Budget("hello", "gateways-scgi", "uwsgi-scgi", 2.0, 1.6),
    Budget("hello", "gateways-scgi", "flup-scgi", 0.5),
    Budget("echo", "gateways-fastcgi", "uvicorn", 1.3, 1.0),
    Budget("echo", "gateways-fastcgi", "go", 0.7),
    Budget("hello", "gateways-wsgi", "flup-fastcgi", 0.9, 0.6),
    Budget("hello", "gateways-wsgi", "fcgisgi-wsgi", 0.9, 0.6),
    Budget("hello", "gateways-asgi", "fcgisgi-asgi", 0.9, 0.6),
    Budget("hello", "gateways-asgi", "hypercorn-trio", 0.2),
    Budget("upload", "gateways-fastcgi", "go", 1.3, 1.0),
    Budget("download", "gateways-fastcgi", "go", 1.3, 1.0),
    # Memory that does not grow with the body: of 100 MiB, what a few buffers take.
    Budget("upload", "gateways-fastcgi", "", 4096, figure="grew"),
    Budget("download", "gateways-fastcgi", "", 4096, figure="grew"),
    Budget("idle", "gateways-fastcgi", "", 5, 3, figure="each"),
    Budget("cgi", "gateways", "python -c pass", 1.35, 1.2),
    Budget("wait", "gateways-fastcgi", "uvicorn", 1.5, 1.1),
)


@attrs.frozen
class Verdict:
    """What became of a budget: the factor or the KiB that was found, None where something was not measured."""

    budget: Budget
    found: float | None

    @property
    def met(self) -> str:
        """In a word or a few."""
        if self.found is None:
            return "not measured"
        if self.found > self.budget.at_most:
            return f"missed by {self.found / self.budget.at_most - 1:.0%}"
        if self.budget.then is None or self.found > self.budget.then:
            return "met"
        return "met, and the second"


def judge(results: Results) -> list[Verdict]:
    """Every budget, next to what was measured."""
    return [
        Verdict(
            budget,
            results.ratio(budget.case, budget.ours, budget.peer, budget.figure)
            if budget.peer
            else results.median(budget.case, budget.ours, budget.figure),
        )
        for budget in BUDGETS
    ]


def wanted() -> dict[str, list[str]]:
    """The backends that the budgets need in each case."""
    found: dict[str, list[str]] = {}
    for budget in BUDGETS:
        names = found.setdefault(budget.case, [])
        names += [name for name in (budget.ours, budget.peer) if name and name not in names]
    return found
