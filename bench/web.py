"""What gateways costs behind nginx, next to other servers behind the same nginx. README.md says how to read it.

    python -m bench.web --list
    python -m bench.web --budgets --json result.json
    python -m bench.web --case hello --case echo --backend uvicorn --rounds 3

Each server runs as one process on one CPU, nginx and the load on another one. In every round each has its turn in every
case, and a figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from bench import budgets, load, measuring, report
from bench.backends import BACKENDS, PATH, ROOT, Backend, find
from bench.load import CASES, Case
from bench.results import US, Results


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    if sys.platform != "linux":
        sys.exit("bench.web counts as Linux does, and runs nowhere else")
    parser = _parser()
    options = parser.parse_args(arguments)
    for name, least in (("rounds", 1), ("seconds", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is at least {least}")
    if options.compiled:
        options.compiled = options.compiled.resolve()
        if not any((options.compiled / "gateways").rglob("*.so")):
            parser.error(f"nothing in {options.compiled / 'gateways'} is compiled")
    missing = {one.name: _lacks(one, options.compiled) for one in BACKENDS}
    missing = {name: what for name, what in missing.items() if what}
    if options.list:
        _list(missing)
        return
    for program in ("nginx", "wrk"):
        if find(program) is None:
            sys.exit(f"{program} is not installed")
    cases = [load.smaller(case) if options.quick else case for case in CASES]
    pairs = _pairs(options, cases, missing)
    front, back = measuring.cpus()
    plan = measuring.Plan(
        pairs, options.rounds, options.seconds, front, back, options.compiled, 2 if options.quick else measuring.STARTS
    )
    results = _results(pairs, missing, _command(sys.argv[1:] if arguments is None else arguments), plan)
    began = time.monotonic()
    measuring.measure(plan, results, lambda text: _progress(f"{time.monotonic() - began:5.0f} s  {text}"))
    if options.json:
        results.save(options.json)
    show(results)


def show(results: Results) -> None:
    """Print everything: the tables, what was left out and why, and the budgets."""
    for name, value in results.about.items():
        print(f"{name}: {value}")
    print()
    for table in report.tables(results):
        print(report.text(table))
    print(report.text(report.budgets(results)))
    for name, what in results.missing.items():
        print(f"left out: {results.titles[name]}: {what}")
    for name, what in results.failed.items():
        print(f"failed: {name}: {what}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.web", description="What servers cost behind nginx.")
    add = parser.add_argument
    add("--case", action="append", choices=[case.name for case in CASES], help="this one alone; may be repeated")
    add("--backend", action="append", choices=[one.name for one in BACKENDS], help="this one, and ours; repeatable")
    add("--budgets", action="store_true", help="exactly what the table of budgets needs")
    add("--rounds", type=int, default=5, help="how many turns each has (%(default)s)")
    add("--seconds", type=int, default=1, help="how long a turn is, in whole seconds (%(default)s)")
    add("--quick", action="store_true", help="small bodies and few idle connections: to see whether it works")
    add("--json", type=Path, metavar="FILE", help="write every figure there, for bench.page")
    add("--compiled", type=Path, metavar="FOLDER", help="a folder with a compiled build of gateways in it")
    add("--list", action="store_true", help="say what there is, and end")
    return parser


def _pairs(options: argparse.Namespace, cases: Iterable[Case], missing: Iterable[str]) -> dict[Case, list[Backend]]:
    """Which backends to measure in which case. Ours is always there, to compare with."""
    pairs: dict[Case, list[Backend]] = {}
    asked = budgets.wanted()
    for case in cases:
        if (options.case and case.name not in options.case) or (options.budgets and case.name not in asked):
            continue
        group = [one for one in BACKENDS if one.name not in missing]
        if case.kind == "idle":
            group = [one for one in group if one.holds_many]
        if options.budgets:
            group = [one for one in group if one.name in asked[case.name]]
        if options.backend:
            group = [one for one in group if one.name in (US, *options.backend)]
        pairs[case] = group
    return pairs


def _lacks(backend: Backend, compiled: Path | None) -> str:
    if backend.compiled and compiled is None:
        return "no folder named with --compiled"
    lacking = backend.missing()
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def _list(missing: dict[str, str]) -> None:
    print("cases")
    for case in CASES:
        print(f"  {case.name:26} {case.title}")
    print("backends")
    for one in BACKENDS:
        lacks = f" ({missing[one.name]})" if one.name in missing else ""
        print(f"  {one.name:26} {one.title}{lacks}")


def _results(pairs: dict[Case, list[Backend]], missing: dict[str, str], command: str, plan: measuring.Plan) -> Results:
    used = [one for one in BACKENDS if any(one in group for group in pairs.values())]
    return Results(
        about={**_about(), "command": command, "rounds": plan.rounds, "seconds": plan.seconds},
        cases={case.name: case.title for case in pairs},
        titles={one.name: one.title for one in BACKENDS},
        versions={one.name: one.find_version() for one in used},
        commands={one.name: shlex.join(one.command).replace("'", "") for one in used},
        kept={one.name: one.kept for one in used},
        missing=missing,
    )


def _about() -> dict[str, str]:
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if os.path.exists("/etc/os-release") else ""
    processor = [
        line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "system": f"{system}, Linux {platform.release()} {platform.machine()}",
        "processor": f"{processor[0] if processor else 'unknown'}, {len(os.sched_getaffinity(0))} CPUs",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {_origin()}",
        "gateways": f"commit {_said('git', '-C', str(ROOT), 'describe', '--always', '--dirty')}",
        "trio": metadata_version("trio"),
        "nginx": _said("nginx", "-v").removeprefix("nginx version: "),
        "wrk": _said("wrk", "-v").partition("Copyright")[0].strip(),
    }


def _origin() -> str:
    """Whose build of Python this is. How it was compiled, which can cost a fifth, it does not tell."""
    return "the system's own" if sys.base_prefix == "/usr" else "not the system's own"


def metadata_version(distribution: str) -> str:
    """Its version, or "unknown" for a checkout that is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _said(program: str, *arguments: str) -> str:
    """The first line that a program prints; "unknown" if it fails."""
    environment = {**os.environ, "PATH": PATH}
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, check=False)
    except OSError:
        return "unknown"
    return next(iter((done.stdout or done.stderr).splitlines()), "unknown").strip()


def _command(arguments: Sequence[str]) -> str:
    """What was typed, without the folders of this machine."""
    return shlex.join(["python", "-m", "bench.web", *(Path(word).name if "/" in word else word for word in arguments)])


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
