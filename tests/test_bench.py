"""The measurements of bench/ run, and show what they say they show. What they find is not tested: machines differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import cgi_start

ROOT = Path(__file__).parent.parent


def test_the_start_of_a_cgi_script_is_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cgi_start", "--rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    about, heading, *table = done.stdout.splitlines()
    assert about.endswith(f"rounds: 1, {sys.executable}")
    assert heading.split() == ["CPU", "of", "one", "process", "minimum", "times", "median", "times"]
    programs = cgi_start.rows(sys.executable, tmp_path, tmp_path, installed=False)
    assert [line[:26].rstrip() for line in table] == [program.name for program in programs]
    first = table[0].split()
    assert first[first.index("ms") + 1] == "1.00"
