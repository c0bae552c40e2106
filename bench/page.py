"""The page of the documentation about speed, and its picture, of what one run of bench.web found.

    python -m bench.page result.json

writes docs/performance.rst and docs/_static/performance.svg. The words of the page are here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from bench import report
from bench.backends import ROOT
from bench.report import Table
from bench.results import US, Results

_INTRODUCTION = """\
Performance
===========

What a request costs an application server behind nginx, next to other servers behind the same nginx. All figures are of
one run on one machine, at the end of this page; the ratios say more than the figures do, and on your machine you get
others: :ref:`how to measure <measure>`.

.. raw:: html
   :file: _static/performance.svg

CPU time of the server and of nginx for one request, in microseconds: hello world, 32 connections. Shorter is cheaper.
How long the bar of nginx is depends on the protocol as well, and most of all on whether nginx keeps connections to the
server open; FastCGI and HTTP can, SCGI cannot.

How it is measured
------------------

* Every server runs as one process, on a Unix socket, with its own settings, and serves the same small site in its own
  language. It does not write an access log. Ours has its limits and deadlines on, and watches for clients that leave.
* One nginx with one worker stands in front of all, and keeps connections to a server open where that server can answer
  others meanwhile. nginx and the load (wrk) share one CPU, the server that has its turn has another one.
* CPU time is what the kernel counted, user and system, for the processes of the server with all their threads,
  divided by the number of answers. It depends less on the mood of the machine than the time that passed.
* In each round, of {rounds}, each server had {seconds} s for each case, in turns. A figure is the median over the
  rounds, and "to us" is the median of the ratios to gateways over FastCGI, each within its round: 2.00 costs twice as
  much.
* Before anything is measured each answer is compared with the right one. A server that fails a single request of a
  case has no figures there, but a number of errors.
* Memory is the proportional set size of all processes of a server, after the load.
"""

_NOTES = {
    "hello-1": "One request at a time: every one of them wakes the server from its sleep.",
    "hello-256": "Servers whose queue of waiting connections is shorter than that refuse some of them.",
    "stream": "The answer leaves in 16 pieces, without a Content-Length.",
    "wait": "Servers with one thread, or none to spare, wait for one request after the other, as req/s shows.",
    "upload": "nginx has the whole body in a file before the server sees it. What the memory of the server grew by "
    "meanwhile is what it needs for the body.",
    "download": "nginx takes the answer as fast as it comes, and keeps what the client does not take yet in a file.",
    "idle": "Memory of the process for each open connection that had one answer and waits for the next request, "
    "without nginx. What the kernel needs for a socket is not in it.",
    "cgi": "CPU time of a whole process that answers one request; ``python -c pass`` does nothing at all.",
}

_BUDGETS = """\
What was aimed at
-----------------

Before the servers of gateways were made fast, it was written down what they might cost next to others. The factor that
was found is the cost of the first divided by the cost of the second.
"""

_MEASURE = """\
.. _measure:

Measure it yourself
-------------------

On Linux, in a copy of the project, with the packages of Debian that ``bench/README.md`` names:

.. code-block:: console

   $ python3 -m bench.setup /tmp/bench
   $ /tmp/bench/bin/python -m bench.web --json result.json
   $ /tmp/bench/bin/python -m bench.page result.json

It takes about twenty minutes; ``--budgets`` or ``--case hello`` take less. This page is of:
"""


def page(results: Results) -> str:
    """The text of the page."""
    about = results.about
    parts = [_INTRODUCTION.format(rounds=about["rounds"], seconds=about["seconds"])]
    for table, case in zip(report.tables(results), _measured(results), strict=True):
        parts.append(_section(table, _NOTES.get(case, "")))
    parts.append(_BUDGETS + "\n" + _list_table(report.budgets(results), "46 22 12 10 14"))
    parts.append(_MEASURE + "\n" + _list_table(_about(results), "20 80"))
    parts.append(_section(_servers(results), "What is in braces is filled in when a server is started.", "22 20 12 46"))
    left_out = [f"* {results.titles[name]}: {what}" for name, what in results.missing.items()]
    if left_out:
        parts.append("These were not there to be measured:\n\n" + "\n".join(left_out) + "\n")
    return "\n".join(parts)


def plot(results: Results, case: str = "hello") -> str:
    """A picture: for every server a bar of its CPU time for a request, and behind it that of nginx."""
    bars = [
        (name, cpu, results.median(case, name, "nginx") or 0.0)
        for name in results.measured(case)
        if (cpu := results.median(case, name, "cpu")) is not None
    ]
    bars.sort(key=lambda bar: bar[1] + bar[2])
    longest = max((cpu + nginx for _, cpu, nginx in bars), default=1.0)
    label, room, row, value = 240, 380, 19, 95
    height = row * len(bars) + 30
    drawn: list[str] = []
    words: list[str] = []
    for place, (name, cpu, nginx) in enumerate(bars):
        top = place * row
        title = results.titles.get(name, name)
        first, second = room * cpu / longest, room * nginx / longest
        ours = " ours" if name.startswith("gateways") else ""
        drawn.append(
            f'<text class="name{ours}" x="{label - 8}" y="{top + 13}">{escape(title)}</text>'
            f'<rect class="server{ours}" x="{label}" y="{top + 3}" width="{first:.1f}" height="13"/>'
            f'<rect class="nginx" x="{label + first:.1f}" y="{top + 3}" width="{second:.1f}" height="13"/>'
            f'<text x="{label + first + second + 6:.1f}" y="{top + 13}">{cpu:.1f} + {nginx:.1f}</text>'
        )
        words.append(f"{title}: {cpu:.1f} and {nginx:.1f}.")
    legend = row * len(bars) + 12
    drawn.append(
        f'<rect class="server ours" x="{label}" y="{legend}" width="12" height="12"/>'
        f'<text x="{label + 18}" y="{legend + 10}">gateways</text>'
        f'<rect class="server" x="{label + 90}" y="{legend}" width="12" height="12"/>'
        f'<text x="{label + 108}" y="{legend + 10}">other servers</text>'
        f'<rect class="nginx" x="{label + 210}" y="{legend}" width="12" height="12"/>'
        f'<text x="{label + 228}" y="{legend + 10}">nginx in front</text>'
    )
    title = f"CPU microseconds for each request, server and nginx: {results.cases.get(case, case)}"
    width = label + room + value
    return (
        f'<svg class="bench" role="img" aria-labelledby="bench-title bench-desc" viewBox="0 0 {width} {height}" '
        f'style="max-width: {width}px" xmlns="http://www.w3.org/2000/svg">{_STYLE}'
        f'<title id="bench-title">{escape(title)}</title><desc id="bench-desc">{escape(" ".join(words))}</desc>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


#: The colours of the page where it is part of one, light or dark; others where it stands alone.
_STYLE = """<style>
svg.bench { display: block; width: 100%; height: auto; font: 12px sans-serif; }
svg.bench text { fill: var(--color-foreground-primary, #222); }
svg.bench text.name { text-anchor: end; }
svg.bench text.ours { font-weight: bold; }
svg.bench rect.server { fill: var(--color-foreground-muted, #777); }
svg.bench rect.server.ours { fill: var(--color-brand-primary, #0a4bff); }
svg.bench rect.nginx { fill: var(--color-background-border, #ccc); }
</style>"""


def _measured(results: Results) -> list[str]:
    return [case for case in results.cases if results.measured(case)]


def _section(table: Table, note: str, widths: str = "") -> str:
    heading = table.title[:1].upper() + table.title[1:]
    parts = [heading, "-" * len(heading), ""]
    if note:
        parts += [note, ""]
    return "\n".join(parts) + "\n" + _list_table(table, widths)


def _list_table(table: Table, widths: str = "") -> str:
    share = 66 // max(1, len(table.columns) - 1)
    widths = widths or " ".join(["34", *[str(share)] * (len(table.columns) - 1)])
    head = [".. list-table::", f"   :widths: {widths}"]
    if any(table.columns):
        head.append("   :header-rows: 1")
    rows = [table.columns, *table.rows] if any(table.columns) else table.rows
    return "\n".join([*head, "", *(line for row in rows for line in _cells(row))]) + "\n"


def _cells(row: Iterable[str]) -> Iterator[str]:
    for number, cell in enumerate(row):
        text = r"\-" if cell == "-" else cell.replace("*", r"\*")
        yield f"   {' ' if number else '*'} - {text}".rstrip()


def _about(results: Results) -> Table:
    rows = [
        (name, f"``{value}``" if name == "command" else str(value))
        for name, value in results.about.items()
        if name not in ("rounds", "seconds")
    ]
    return Table("", ["", ""], rows)


def _servers(results: Results) -> Table:
    rows = [
        (
            results.titles[name],
            "this project" if name.startswith("gateways") else version or "-",
            "kept" if results.kept[name] else "one each",
            f"``{results.commands[name]}``",
        )
        for name, version in results.versions.items()
    ]
    return Table("The servers", ["server", "version", "connections", "command"], rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description="The page about what bench.web found.")
    parser.add_argument("results", type=Path, help="what bench.web wrote with --json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="the folder of the documentation")
    options = parser.parse_args()
    results = Results.load(options.results)
    if results.median("hello", US, "cpu") is None:
        parser.error("these results have no figures of gateways for hello")
    (options.docs / "_static").mkdir(exist_ok=True)
    (options.docs / "performance.rst").write_text(page(results), encoding="utf-8")
    (options.docs / "_static" / "performance.svg").write_text(plot(results), encoding="utf-8")


if __name__ == "__main__":
    main()
