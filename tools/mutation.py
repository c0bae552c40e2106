"""Break the code in one small way at a time, and see whether the tests notice: python -m tools.mutation [FILE...].

A *mutant* is the program with one change (tools/mutants.py). It is *killed* by a test that fails, or one that never
ends; a mutant that survives shows what no test looks at. Those that nothing could tell from the original stand in
tools/mutation.toml, each with the reason; they do not count, and are run all the same, to see that they do survive.

Why a tool of our own: half of a protocol is tables and constants. mutmut 3 changes nothing outside functions and
nothing that is decorated, and what a function does during import counts there as not tested; cosmic-ray starts a Python
for each mutant, and has no operators for texts, statements and the entries of tables.

Everything happens in a copy of the project in a temporary folder, and no mutant is ever written to a file: one process
imports pytest and the libraries, and forks for each mutant a child that imports the package and its tests anew.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import hypothesis
import pytest

from tools.mutants import Mutant, mutants

ROOT = Path(__file__).parent.parent
MEMORY = 2 << 30


class Planted(importlib.abc.MetaPathFinder):
    """Gives out one module with other code than its file has."""

    def __init__(self, module: str, path: str, code: CodeType) -> None:
        self._module, self._path, self._code = module, path, code

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name != self._module:
            return None
        loader = importlib.machinery.SourceFileLoader(name, self._path)
        loader.get_code = lambda fullname: self._code  # type: ignore[method-assign]
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


def run_tests(tests: list[str]) -> int:
    """Run pytest in this process, once with each of these arguments, until something fails."""
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(any(pytest.main([*options, *shlex.split(arguments)]) for arguments in tests))


def rehearse(file: str, tests: list[str]) -> int:
    """Run the tests without a change; gives how many seconds a mutant may take. All libraries are imported after that,
    and the project is forgotten again, so that the children import it, with the mutant in it."""
    out, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    began = time.process_time()
    os.dup2(null, 1)
    status = run_tests(tests)
    os.dup2(out, 1)
    if status:
        raise SystemExit(f"{file}: some of these fail without any change: {', '.join(tests)}")
    for name in [name for name in sys.modules if name.split(".")[0] in {"gateways", "tests", "tools"}]:
        del sys.modules[name]
    return 5 + 4 * round(time.process_time() - began)


def in_child(act: Callable[[], int], seconds: int) -> int:
    """Start a process for ``act``, whose result is its exit status; gives its id. Signals end it if it takes longer."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(10 * seconds)
        status = act()
    finally:
        os._exit(status)


def outcome(status: int) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM}:
        return "timeout"
    return "killed" if status else "survived"


def run_mutants(file: str, tests: list[str], untouched: set[str], only: str, jobs: int) -> list[tuple[Mutant, str]]:
    """Every mutant of a file, with what became of it."""
    seconds = rehearse(file, tests)
    source = Path(file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    chosen = [mutant for mutant in mutants(tree, source, untouched) if mutant.where.startswith(only)]
    became: dict[int, str] = {}
    running: dict[int, int] = {}

    def try_out(mutant: Mutant) -> int:
        mutant.apply()  # to the child's own copy of the tree
        code = compile(ast.fix_missing_locations(tree), file, "exec")
        module = file.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, Planted(module, file, code))
        return run_tests(tests)

    for i, mutant in enumerate(chosen):
        running[in_child(lambda mutant=mutant: try_out(mutant), seconds)] = i  # type: ignore[misc]
        while len(running) >= jobs or (running and i + 1 == len(chosen)):
            child, status = os.wait()
            became[running.pop(child)] = outcome(status)
        if sys.stderr.isatty():
            print(f"\r{file}: {len(became)} of {len(chosen)} ", end="", file=sys.stderr, flush=True)
    return [(mutant, became[i]) for i, mutant in enumerate(chosen)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/mutation.sh", description="Mutation testing of the protocol code.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="one of those in tools/mutation.toml; all without any")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--least", type=float, default=90.0, metavar="PER_CENT", help="must be killed of each file")
    parser.add_argument("--only", default="", metavar="NAME", help="only functions and tables whose names begin so")
    options = parser.parse_args()
    notes = tomllib.loads((ROOT / "tools" / "mutation.toml").read_text(encoding="utf-8"))
    hypothesis.settings.register_profile(  # the same examples every time, and no search for a smaller one
        "mutation", derandomize=True, database=None, deadline=None, phases=list(hypothesis.Phase)[:3]
    )
    hypothesis.settings.load_profile("mutation")

    table = [f"{'':<30} mutants   killed  timeouts  survived  no difference    score   seconds"]
    good = True
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        for part in ("gateways", "tests", "tools", "pyproject.toml"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, Path(folder) / part)
        os.chdir(folder)
        sys.path.insert(0, folder)
        for file in options.files or notes["tests"]:
            began = time.monotonic()
            name = Path(file).name
            same = {(e["where"], e["text"], e["change"]): e["reason"] for e in notes["same"] if e["file"] == file}
            untouched = set(notes["untouched"].get(file, []))
            results = run_mutants(file, notes["tests"][file], untouched, options.only, options.jobs)
            counts: Counter[str] = Counter()
            for mutant, became in results:
                reason = same.get(mutant.name)
                counts["same" if reason else became] += 1
                if reason or became == "survived":
                    about = f"makes no difference: {reason}" if reason else "SURVIVED"
                    print(f"{name}:{mutant.line}  {mutant.where}  {about}\n    {mutant.text}\n    {mutant.change}")
                if reason and became != "survived":
                    print(f"    but it was noticed ({became}): tools/mutation.toml is wrong")
                    good = False
            if not options.only:
                for stale in same.keys() - {mutant.name for mutant, _ in results}:
                    print(f"{name}: there is no such mutant any more, tools/mutation.toml is wrong: {stale}")
                    good = False
            total = len(results) - counts["same"]
            score = 100 * (counts["killed"] + counts["timeout"]) / max(total, 1)
            good = good and score >= options.least
            table.append(
                f"{file:<30} {len(results):>7}  {counts['killed']:>7}  {counts['timeout']:>8}  "
                f"{counts['survived']:>8}  {counts['same']:>13}  {score:>6.1f}%  {time.monotonic() - began:>8.0f}"
            )
            sys.stdout.flush()
        os.chdir(ROOT)
    print("\n".join(["", *table]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
