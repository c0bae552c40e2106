"""Find the state machines of all protocols, and what is wrong with them.

A protocol is a folder, and there is no list of them: any ``gateways/*/state.py`` may have MACHINES. The documentation
draws them (docs/machines.py), and tests/test_machines.py checks them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import gateways
from tools.drawing import Arrow

PACKAGE = Path(gateways.__file__).parent


class Step(Protocol):
    """What is done, the state that follows, and those that the deed may choose instead of it."""

    @property
    def deed(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def others(self) -> tuple[str, ...]: ...


class Machine(Protocol):
    """A table from a state and an arrival to a step, with the words for each. The first state is where it begins."""

    @property
    def title(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def states(self) -> Mapping[str, str]: ...
    @property
    def arrivals(self) -> Mapping[int, str]: ...
    @property
    def deeds(self) -> Mapping[str, str]: ...
    @property
    def steps(self) -> Mapping[str, Mapping[int, Step]]: ...


def files() -> list[Path]:
    """The files that may hold machines."""
    return sorted(PACKAGE.glob("*/state.py"))


def machines() -> dict[str, Machine]:
    """Every machine there is, by the name of its protocol and its title: "fastcgi: A response, in the web server"."""
    found: dict[str, Machine] = {}
    for path in files():
        protocol = path.parent.name
        for machine in getattr(importlib.import_module(f"gateways.{protocol}.state"), "MACHINES", ()):
            name = f"{protocol}: {machine.title}"
            if name in found:
                raise ValueError(f"two machines are called {name!r}")
            found[name] = machine
    return found


def faults(machine: Machine) -> list[str]:
    """What cannot be drawn, or would be drawn without a word."""
    return [*_faults(machine)]


def _faults(machine: Machine) -> Iterator[str]:
    steps = [(state, step) for state, row in machine.steps.items() for step in row.values()]
    for state, row in machine.steps.items():
        for arrival in machine.arrivals.keys() - row.keys():
            yield f"in {state!r} nothing is said of {machine.arrivals[arrival]}"
        for arrival in row.keys() - machine.arrivals.keys():
            yield f"in {state!r} there is an arrival without a name: {arrival}"
    for state, step in steps:
        for to in (step.to, *step.others):
            if to not in machine.steps:
                yield f"from {state!r} a step leads to {to!r}, which is no state"
    for kind, used, words in (
        ("state", set(machine.steps), machine.states),
        ("deed", {step.deed for _, step in steps}, machine.deeds),
    ):
        yield from (f"the {kind} {name!r} has no words" for name in sorted(used) if not words.get(name, "").strip())
        yield from (f"the {kind} {name!r} is never used" for name in words if name not in used)


def arrows(machine: Machine) -> list[Arrow]:
    """The steps that change the state, one arrow for all arrivals that lead from one state to the same other one."""
    labels: dict[tuple[str, str], list[str]] = {}
    for start in machine.states:
        for arrival, step in machine.steps[start].items():
            for end in dict.fromkeys((step.to, *step.others)):
                if end != start:
                    labels.setdefault((start, end), []).append(machine.arrivals[arrival])
    return [Arrow(start, end, tuple(names)) for (start, end), names in labels.items()]


def reachable(machine: Machine) -> set[str]:
    """The states that a request can be in."""
    reached: set[str] = set()
    waiting = [next(iter(machine.states))]
    while waiting:
        state = waiting.pop()
        if state not in reached:
            reached.add(state)
            waiting += [to for step in machine.steps[state].values() for to in (step.to, *step.others)]
    return reached
