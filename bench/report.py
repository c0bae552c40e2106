"""Tables of what was measured, for the terminal and for the documentation, from the same cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from bench.budgets import judge
from bench.results import US, Results


@attrs.frozen
class Table:
    """A heading, the names of the columns, and rows of texts; the first column is a name, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


#: kind of case -> (column, figure, how it is written)
_COLUMNS: dict[str, tuple[tuple[str, str, Callable[[float], str]], ...]] = {
    "requests": (
        ("CPU us", "cpu", "{:.1f}".format),
        ("nginx us", "nginx", "{:.1f}".format),
        ("req/s", "rate", "{:,.0f}".format),
        ("p50 ms", "p50", lambda value: f"{value / 1e3:.2f}"),
        ("p99 ms", "p99", lambda value: f"{value / 1e3:.2f}"),
        ("PSS MiB", "pss", lambda value: f"{value / 1024:.1f}"),
    ),
    "transfers": (
        ("CPU ms", "cpu", lambda value: f"{value / 1e3:.1f}"),
        ("nginx ms", "nginx", lambda value: f"{value / 1e3:.1f}"),
        ("grew by MiB", "grew", lambda value: f"{value / 1024:.1f}"),
    ),
    "idle": (
        ("KiB each", "each", "{:.1f}".format),
        ("PSS MiB", "pss", lambda value: f"{value / 1024:.1f}"),
    ),
    "start": (("CPU ms", "cpu", lambda value: f"{value / 1e3:.2f}"),),
}
_KINDS = {"upload": "transfers", "download": "transfers", "idle": "idle", "cgi": "start"}


def tables(results: Results) -> Iterator[Table]:
    """One for each case."""
    for case, title in results.cases.items():
        names = results.measured(case)
        if names:
            yield _case(results, case, title, names)


def _case(results: Results, case: str, title: str, names: Iterable[str]) -> Table:
    columns = _COLUMNS[_KINDS.get(case, "requests")]
    us = "gateways" if case == "cgi" else US
    rows: list[list[str]] = []
    for name in names:
        cells: list[str] = []
        for _, figure, write in columns:
            value = results.median(case, name, figure)
            cells.append("-" if value is None else write(value))
        ratio = results.ratio(case, name, us, columns[0][1])
        cells.insert(1, "-" if ratio is None else f"{ratio:.2f}")
        errors = results.errors(case, name)
        rows.append([results.titles.get(name, name) + (f", {errors} errors" if errors else ""), *cells])
    first, *others = [column for column, _, _ in columns]
    return Table(title, ["", first, "to us", *others], rows)


def budgets(results: Results) -> Table:
    """What was asked for, and what became of it."""
    rows: list[list[str]] = []
    for verdict in judge(results):
        budget = verdict.budget
        if budget.case not in results.cases:
            continue
        limits = [budget.at_most] if budget.then is None else [budget.at_most, budget.then]
        unit = "" if budget.peer else " KiB"
        against = results.titles.get(budget.peer, budget.peer) if budget.peer else _NOUNS[budget.figure]
        rows.append(
            [
                f"{results.titles.get(budget.ours, budget.ours)}: {results.cases[budget.case]}",
                against,
                ", then ".join(f"{limit:g}{unit}" for limit in limits),
                "-" if verdict.found is None else f"{verdict.found:.{2 if budget.peer else 1}f}{unit}",
                verdict.met,
            ]
        )
    return Table("Budgets", ["", "times", "at most", "found", ""], rows)


_NOUNS = {"grew": "growth of memory", "each": "memory of each"}


def text(table: Table) -> str:
    """A table for the terminal."""
    lines = [list(table.columns), *[list(row) for row in table.rows]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    # Numbers stand at the right: those columns in which any cell begins with a digit.
    right = [any(row[place][:1].isdigit() for row in table.rows) and place > 0 for place in range(len(widths))]
    drawn = [
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, "-" * len(table.title), *drawn, ""])
