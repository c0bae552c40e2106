"""What bench.instructions counts is what is done, and a figure that is too high is complained of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from bench import hot_path, instructions
from bench.instructions import YARDSTICK, Build, Failed
from tests.interop.servers import require

ROOT = Path(__file__).parent.parent
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a process of its own")

BUILD = Build("cpython-311-x86_64", "CPython 3.11.7", {YARDSTICK: 70_000, "fastcgi-hello": 1000, "environ": 500})


SCRIPT = """
import os
for times in (1000, 3000):
    child = os.fork()
    if not child:
        os.getsid(0)
        for _ in [None] * times:
            pass
        os.getsid(0)
        os._exit(0)
    os.waitpid(child, 0)
    print(times, child, flush=True)
"""


def test_what_is_done_between_the_marks_is_counted() -> None:
    require("valgrind")
    found = instructions.between_marks([sys.executable, "-S", "-c", SCRIPT])
    assert list(found) == ["1000", "3000"]
    assert found["1000"] > 1000
    assert 2.9 < found["3000"] / found["1000"] < 3.1


def test_a_command_that_does_not_mark_is_noticed() -> None:
    require("valgrind")
    unmarked = "import os; print('name', os.getpid())"
    with pytest.raises(Failed, match="name: 0 marks instead of 2"):
        instructions.between_marks([sys.executable, "-S", "-c", unmarked])


def test_a_command_that_fails_is_noticed() -> None:
    require("valgrind")
    with pytest.raises(Failed, match=r"(?s)status 1.*no, thank you"):
        instructions.between_marks([sys.executable, "-S", "-c", "raise SystemExit('no, thank you')"])


@FORKS
def test_every_case_is_answered_rightly_and_in_a_process_of_its_own() -> None:
    names = [case.name for case in hot_path.CASES]
    done = subprocess.run(
        [sys.executable, "-m", "bench.hot_path", "32", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert said[::2] == names
    assert len(set(said[1::2])) == len(names)


def test_a_figure_more_than_ten_per_cent_over_the_recorded_one_is_complained_of() -> None:
    complaints, remarks = instructions.compare({"fastcgi-hello": 1101, "environ": 550}, BUILD.figures)
    assert complaints == ["fastcgi-hello: 1,101 instructions, 10.1% over the recorded 1,000"]
    assert remarks == []


def test_a_figure_that_wants_recording_is_remarked_on() -> None:
    complaints, remarks = instructions.compare({"fastcgi-hello": 899, "environ": 450, "new": 7}, BUILD.figures)
    assert complaints == []
    assert remarks == [
        "fastcgi-hello: 899 instructions, 10.1% below the recorded 1,000",
        "new: 7 instructions, and nothing is recorded",
    ]


def test_another_build_of_python_is_not_compared() -> None:
    def changed(tag: str = BUILD.tag, yardstick: int = 70_000) -> Build:
        return attrs.evolve(BUILD, tag=tag, figures={**BUILD.figures, YARDSTICK: yardstick})

    assert BUILD.same(changed(yardstick=71_000))
    assert not BUILD.same(changed(yardstick=72_000))
    assert not BUILD.same(changed(tag="cpython-312-x86_64"))


def test_what_is_recorded_replaces_the_figures_of_the_same_build_alone(tmp_path: Path) -> None:
    other = attrs.evolve(BUILD, tag="cpython-312-x86_64")
    gone = attrs.evolve(BUILD, figures={**BUILD.figures, "no case any more": 1})
    found = attrs.evolve(BUILD, about="CPython 3.11.8", figures={YARDSTICK: 70_001, "fastcgi-hello": 900})
    path = tmp_path / "figures.toml"
    assert instructions.read(path) == []
    instructions.write(path, instructions.record([gone, other], found))
    merged = {YARDSTICK: 70_001, "fastcgi-hello": 900, "environ": 500}
    assert instructions.read(path) == [other, attrs.evolve(found, figures=merged)]
