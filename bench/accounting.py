"""What processes have used, as the kernel counts it: CPU time in nanoseconds, and memory. For Linux alone.

A server is a process and all its children. The CPU time of each is that of its whole thread group, threads that ended
included, read from its CPU clock: ``/proc/PID/stat`` counts in steps of 10 ms, and ``/proc/PID/schedstat`` one thread
only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


class Changed(Exception):
    """A process began or ended while it was measured, so that the figure is not whole."""


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            # The name may hold anything, blanks and parentheses too. Behind it: state, parent.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for member in found:  # which grows meanwhile
        found += children.get(member, [])
    return found


def cpu_clocks(pids: Iterable[int]) -> dict[int, int]:
    """The CPU time that each process has used since its start, user and system, in nanoseconds."""
    # clock_getcpuclockid(3) makes the number of a process's clock like this; Python has it for threads only.
    return {pid: time.clock_gettime_ns((~pid << 3) | 2) for pid in pids}


def cpu_between(before: dict[int, int], after: dict[int, int]) -> int:
    """Nanoseconds used from one reading to the next. Raises Changed if these are not the same processes."""
    if before.keys() != after.keys():
        raise Changed(f"the processes were {sorted(before)}, and are {sorted(after)}")
    return sum(after.values()) - sum(before.values())


def pss(pids: Iterable[int]) -> int:
    """KiB of memory: what a process has alone, and its part of what it shares (proportional set size)."""
    return sum(_field(pid, "smaps_rollup", "Pss") for pid in pids)


def rss(pids: Iterable[int]) -> int:
    """KiB of memory, where what is shared counts for each process (resident set size)."""
    return sum(_field(pid, "status", "VmRSS") for pid in pids)


def peak_rss(pids: Iterable[int]) -> int:
    """The most KiB that ``rss`` has been since ``forget_peak``."""
    return sum(_field(pid, "status", "VmHWM") for pid in pids)


def forget_peak(pids: Iterable[int]) -> None:
    """Let ``peak_rss`` begin again at what is used now."""
    for pid in pids:
        (PROC / str(pid) / "clear_refs").write_text("5")


def _field(pid: int, file: str, name: str) -> int:
    text = (PROC / str(pid) / file).read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) if found else 0
