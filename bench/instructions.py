"""How many instructions a request takes, which does not depend on how busy the machine is: for CI.

    python -m bench.instructions             # shows them next to those recorded in instructions.toml
    python -m bench.instructions --check     # and fails when one is more than 10 % over
    python -m bench.instructions --record    # writes them down instead

valgrind's callgrind counts what a process executes, without the kernel. What is counted is in hot_path.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import attrs

from bench import hot_path
from bench.hot_path import MARK

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(__file__).with_suffix(".toml")
#: Requests that are counted in each case.
TIMES = 320
#: How far a figure may be from the recorded one.
TOLERANCE = 0.10
#: How far that of the yardstick may be before this counts as another build of Python.
SAME_BUILD = 0.02

YARDSTICK = "yardstick"
CGI = "cgi-start"
TITLES = {case.name: case.title for case in hot_path.CASES} | {CGI: "a CGI script, beyond python -c pass"}

#: Nothing else is in the environment of what is counted: its size, and the order of sets, would show.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(ROOT),
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/hello",
    "SCRIPT_NAME": "/hello",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
}
_TIMEOUT = 300.0

_HEADING = """\
# What bench/instructions.py found: instructions per request, for each build of Python that it was recorded with.
# Not to be edited by hand: python -m bench.instructions --record
"""


class Failed(Exception):
    """Nothing was counted."""


# --- counting --------------------------------------------------------------------------------------------------------


def count(names: Iterable[str]) -> dict[str, int]:
    """The instructions that one request of each case takes. Raises Failed."""
    requests = [name for name in names if name != CGI]
    with ThreadPoolExecutor() as pool:
        started = pool.submit(_count_start) if CGI in names else None
        totals = between_marks([sys.executable, "-m", "bench.hot_path", str(TIMES), *requests])
        found = {name: round(total / TIMES) for name, total in totals.items()}
        return found if started is None else found | {CGI: started.result()}


def between_marks(command: list[str]) -> dict[str, int]:
    """The instructions between the two marks of each process that ``command`` names: a name and an id on each line of
    what it prints. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        said = _callgrind(f"{folder}/%p", command, f"--dump-before={MARK}").split()
        found: dict[str, int] = {}
        for name, process in zip(said[::2], said[1::2], strict=True):
            # A file for what was before the first mark, one for what was before the second one, one for the rest.
            parts = sorted(path for path in Path(folder).iterdir() if path.stem == process)
            if [part.suffix for part in parts] != ["", ".1", ".2"]:
                raise Failed(f"{name}: {len(parts) - 1} marks instead of 2: is {MARK}() what callgrind calls it?")
            found[name] = _total(parts[2])
    return found


def _count_start() -> int:
    """What a CGI script takes from start to end, less what Python does. Without site: what is installed is no matter of
    ours."""
    totals: list[int] = []
    for arguments in ([str(ROOT / "examples" / "hello.cgi")], ["-c", "pass"]):
        command = [sys.executable, "-S", *arguments]
        _run(command)  # to have it compiled
        with tempfile.NamedTemporaryFile(prefix="instructions-") as file:
            _callgrind(file.name, command)
            totals.append(_total(Path(file.name)))
    return totals[0] - totals[1]


def _callgrind(out: str, command: list[str], *options: str) -> str:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Failed("valgrind is not installed")
    return _run([valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", *options, *command])


def _total(path: Path) -> int:
    with path.open() as file:
        for line in file:
            if line.startswith("totals:"):
                return int(line.split()[1])
    raise Failed("callgrind wrote no total")


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


# --- what was recorded -----------------------------------------------------------------------------------------------


@attrs.frozen
class Build:
    """The figures of one build of Python. ``tag`` and the yardstick tell it from others; ``about`` is for people."""

    tag: str
    about: str
    figures: Mapping[str, int]

    def same(self, other: Build) -> bool:
        """Whether the figures can be compared."""
        return self.tag == other.tag and abs(self.figures[YARDSTICK] / other.figures[YARDSTICK] - 1) <= SAME_BUILD


def this_build(figures: Mapping[str, int]) -> Build:
    """The Python that runs this, with what was counted on it."""
    about = (
        platform.python_implementation(),
        platform.python_version(),
        platform.python_compiler(),
        *platform.libc_ver(),
        "trio",
        version("trio"),
    )
    return Build(f"{sys.implementation.cache_tag}-{platform.machine()}", " ".join(about), figures)


def read(path: Path) -> list[Build]:
    """All that was recorded."""
    if not path.exists():
        return []
    return [Build(**each) for each in tomllib.loads(path.read_text()).get("build", [])]


def write(path: Path, builds: Iterable[Build]) -> None:
    """Record all of these and nothing else."""
    tables = [_HEADING]
    for build in builds:
        lines = ["[[build]]", f'tag = "{build.tag}"', f'about = "{build.about}"', "[build.figures]"]
        tables.append("\n".join([*lines, *(f"{name} = {figure:_}" for name, figure in build.figures.items()), ""]))
    path.write_text("\n".join(tables))


def record(builds: Iterable[Build], found: Build) -> list[Build]:
    """These builds with what was found in the place of what had been. Cases that were not counted keep their figure."""
    kept: list[Build] = []
    for build in builds:
        if build.same(found):
            figures = {name: figure for name, figure in build.figures.items() if name in TITLES}
            found = attrs.evolve(found, figures={**figures, **found.figures})
        else:
            kept.append(build)
    return [*kept, found]


def compare(found: Mapping[str, int], recorded: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Complaints about figures that are too high; remarks on others that want recording."""
    complaints: list[str] = []
    remarks: list[str] = []
    for name, figure in found.items():
        before = recorded.get(name)
        if before is None:
            remarks.append(f"{name}: {figure:,} instructions, and nothing is recorded")
        elif figure > before * (1 + TOLERANCE):
            complaints.append(
                f"{name}: {figure:,} instructions, {figure / before - 1:.1%} over the recorded {before:,}"
            )
        elif figure < before * (1 - TOLERANCE):
            remarks.append(f"{name}: {figure:,} instructions, {1 - figure / before:.1%} below the recorded {before:,}")
    return complaints, remarks


# --- the command -----------------------------------------------------------------------------------------------------


def show(found: Build, recorded: Build | None) -> None:
    """A table, with how far each figure is from the recorded one."""
    print(f"{found.about}, {found.tag}")
    print(f"{'instructions of one':68}  {'now':>11}  {'recorded':>11}")
    for name, figure in found.figures.items():
        before = recorded.figures.get(name) if recorded else None
        then = f"{before:11,}  {figure / before - 1:+.1%}" if before else f"{'-':>11}"
        print(f"{name:14}  {TITLES[name]:52}  {figure:11,}  {then}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description="Instructions of a request.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="fail when a figure is more than 10 %% over the recorded one"
    )
    what.add_argument("--record", action="store_true", help=f"write the figures to {FILE.name}")
    parser.add_argument("--case", action="append", choices=[name for name in TITLES if name != YARDSTICK], help="only")
    options = parser.parse_args(arguments)
    names = [name for name in TITLES if name == YARDSTICK or not options.case or name in options.case]
    try:
        found = this_build(count(names))
    except Failed as error:
        sys.exit(str(error))
    builds = read(FILE)
    recorded = next((build for build in builds if build.same(found)), None)
    show(found, recorded)
    if options.record:
        write(FILE, record(builds, found))
        print(f"recorded in {FILE}")
    elif recorded is None:
        print("Nothing is recorded for this build of Python, so nothing is compared. Recorded are:")
        print(*(f"{build.about}, {build.tag}" for build in builds), sep="\n")
    else:
        complaints, remarks = compare(found.figures, recorded.figures)
        for text in [*complaints, *remarks]:
            print(text)
        again = "If that is meant to be: python -m bench.instructions --record"
        if complaints and options.check:
            sys.exit(again)
        if complaints or remarks:
            print(again)


if __name__ == "__main__":
    main()
