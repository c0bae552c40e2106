"""What the tests of metrics share: tallies with known numbers, programs that fork, and readers of what is told."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateways import Tally
from tests.cli.program import environment

PATIENCE = 60.0


def tally(**numbers: float) -> Tally:
    """A tally with these numbers; ``answered_2=3`` is three answers with a status of the two hundreds."""
    made = Tally()
    for name, number in numbers.items():
        simple, _, index = name.partition("_")
        if index:
            getattr(made, simple)[int(index)] = number
        else:
            setattr(made, name, number)
    return made


def numbers(counted: Tally) -> dict[str, object]:
    """A tally, to be compared."""
    return {name: getattr(counted, name) for name in Tally.__slots__}


def run_program(code: str, *arguments: str, cwd: Path | None = None) -> str:
    """What a program prints that forks: a process with the threads of the tests must not."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def samples(exposition: str) -> dict[tuple[str, ...], float]:
    """The exposition as Prometheus' own parser reads it: (name, label=value, ...) -> value."""
    return {
        (sample.name, *[f"{label}={value}" for label, value in sorted(sample.labels.items())]): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
