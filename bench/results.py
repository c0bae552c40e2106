"""What a run of the benchmark found: every raw figure, and the medians and ratios that are made of them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import attrs

#: What all backends are compared with.
US = "gateways-fastcgi"


@attrs.frozen
class Figures:
    """One backend in one case in one round. Times are microseconds and memory is KiB; None was not measured.

    ``cpu`` and ``nginx`` are CPU time for each request, or for each transfer; ``grew`` is how far above what it had
    before a transfer the memory rose; ``each`` is memory for each idle connection.
    """

    case: str
    backend: str
    round: int
    requests: int = 0
    seconds: float = 0.0
    errors: int = 0
    cpu: float | None = None
    nginx: float | None = None
    p50: float | None = None
    p99: float | None = None
    pss: float | None = None
    grew: float | None = None
    each: float | None = None

    @property
    def rate(self) -> float | None:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else None


@attrs.define
class Results:
    """A whole run. ``about`` tells the command, the machine and the versions; the rest is by the name of a backend.

    ``failed`` are those that do not start or give wrong answers, ``missing`` those that are not installed, with what
    they lack.
    """

    about: dict[str, Any]
    cases: dict[str, str]
    titles: dict[str, str]
    versions: dict[str, str]
    commands: dict[str, str]
    kept: dict[str, bool]
    missing: dict[str, str] = attrs.field(factory=dict[str, str])
    failed: dict[str, str] = attrs.field(factory=dict[str, str])
    figures: list[Figures] = attrs.field(factory=list[Figures])

    def of(self, case: str, backend: str) -> list[Figures]:
        """The rounds that count: a server that did not answer every request as it should has no speed."""
        return [one for one in self.figures if (one.case, one.backend) == (case, backend) and not one.errors]

    def errors(self, case: str, backend: str) -> int:
        """How many requests had no answer, or a wrong one."""
        return sum(one.errors for one in self.figures if (one.case, one.backend) == (case, backend))

    def measured(self, case: str) -> list[str]:
        """The backends that have figures in this case, cheapest first and those with errors last."""
        names = dict.fromkeys(one.backend for one in self.figures if one.case == case)
        figure = "each" if case == "idle" else "cpu"
        order = {name: self.median(case, name, figure) for name in names}
        return sorted(names, key=lambda name: float("inf") if order[name] is None else float(order[name] or 0))

    def median(self, case: str, backend: str, figure: str) -> float | None:
        """The median of a figure over the rounds; None if there is none."""
        found = [getattr(one, figure) for one in self.of(case, backend)]
        found = [value for value in found if value is not None]
        return statistics.median(found) if found else None

    def ratio(self, case: str, backend: str, to: str, figure: str = "cpu") -> float | None:
        """How many times as much one takes as the other: the median of the ratios of each round; None if unknown.

        Of each round, because the machine may be faster in one than in the next.
        """
        others = {one.round: getattr(one, figure) for one in self.of(case, to)}
        found = [
            getattr(one, figure) / others[one.round]
            for one in self.of(case, backend)
            if getattr(one, figure) is not None and others.get(one.round)
        ]
        return statistics.median(found) if found else None

    def save(self, path: Path) -> None:
        """Write it as JSON, one line for each set of figures."""
        head = attrs.asdict(self, filter=lambda attribute, _: attribute.name != "figures")
        lines = [json.dumps({k: v for k, v in attrs.asdict(one).items() if v is not None}) for one in self.figures]
        text = json.dumps(head, indent=1)[:-2] + ',\n "figures": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
        path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what ``save`` wrote."""
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        read["figures"] = [Figures(**one) for one in read["figures"]]
        return cls(**read)
