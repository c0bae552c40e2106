"""The scoreboard: what each worker has served so far, in memory that all processes share.

One process makes it and forks the workers, which inherit it. Each row is written by one process at a time, and read by
all. There are no locks that a process could die with: a row is there twice, the half that nobody reads is written, and
then one number is raised that says which half counts. The rows are of a fixed number and are used again.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterable
from typing import Any, Protocol

import attrs

from gateways._net.tally import DURATIONS, Tally

__all__ = ["DURATIONS", "STATES", "Alone", "Board", "Row", "Scoreboard", "Snapshot", "board_of", "rss"]

#: What a worker can be doing. "ended" says that it came to its end by itself.
STATES = ("free", "starting", "ready", "draining", "ended")

#: Half a row: which worker that is (counted from 1), generation, state, pid, memory, when it was started, when it
#: published last, and its tally. In the first row, that of the former workers, the first four are how many were ever
#: started, nothing, how many have died, and which was the last to go.
_HALF = struct.Struct(f"@5q2d{7 + 6 + len(DURATIONS) + 1}qd")
#: A row in words of eight bytes: how often it was written, and the two halves.
_WORDS = 1 + 2 * _HALF.size // 8
_FREE = STATES.index("free")


@attrs.frozen
class Row:
    """One worker, as it last published itself."""

    slot: int
    pid: int
    #: Each reload begins a new one.
    generation: int
    state: str
    #: When it was started: seconds since 1970.
    started: float
    #: When it published this, by the monotonic clock, which all processes of a machine share.
    beat: float
    #: Its memory in bytes; 0 where the operating system does not tell.
    rss: int
    tally: Tally


@attrs.frozen
class Snapshot:
    """All that a scoreboard tells, of one moment."""

    rows: list[Row]
    #: What the workers have served that are gone. Connections and requests that died with them are over, unanswered.
    former: Tally
    #: Workers that were ever started, and those of them that are gone without having ended by themselves.
    started: int
    died: int

    @property
    def total(self) -> Tally:
        """What all workers have served, the former ones too: what it counts never goes back."""
        return _sum(self.former, *[row.tally for row in self.rows])


class Board(Protocol):
    """What those who show it to somebody need of a scoreboard."""

    #: The process that manages the workers, and since when (seconds since 1970).
    manager: int
    since: float

    def snapshot(self) -> Snapshot: ...


class Alone:
    """The same where one process does it all: its tally as it is at this moment."""

    def __init__(self, tally: Tally, state: str = "ready") -> None:
        self.manager = os.getpid()
        self.since = time.time()
        #: What it is doing: for whoever knows.
        self.state = state
        self._tally = tally

    def snapshot(self) -> Snapshot:
        """The one row."""
        now = time.monotonic()
        row = Row(0, self.manager, 0, self.state, self.since, now, rss(), _sum(self._tally))
        return Snapshot([row], Tally(), started=1, died=0)


def board_of(counted: Board | Tally) -> Board:
    """A board, or one for the tally of this process."""
    return Alone(counted) if isinstance(counted, Tally) else counted


class Scoreboard:
    """A row for each of ``slots`` workers. Make it before the first fork, in the process that is to fork.

    That process calls :meth:`take` before it forks a worker and :meth:`release` when the worker is gone, the worker
    :meth:`publish`, again and again; any process and thread may read.
    """

    def __init__(self, slots: int = 256) -> None:
        self.slots = slots
        #: Whoever made it: the only process that may take and release rows.
        self.manager = os.getpid()
        #: When: seconds since 1970.
        self.since = time.time()
        self._memory = mmap.mmap(-1, (slots + 1) * _WORDS * 8)  # the first row is that of the former workers
        self._words = memoryview(self._memory).cast("Q")

    # --- writing

    def take(self, generation: int = 0) -> int | None:
        """A row for a worker that is about to be started. None when all are in use: nobody will see that worker."""
        for slot in range(self.slots):
            if self._load(slot + 1)[2] == _FREE:
                started, *others = self._load(0)
                serial, state, now = started + 1, STATES.index("starting"), time.monotonic()
                self._store(0, serial, *others)
                self._store(slot + 1, serial, generation, state, 0, 0, time.time(), now, *_numbers(Tally()))
                return slot
        return None

    def publish(self, slot: int | None, tally: Tally, state: str) -> None:
        """Say what this process has served and what it is doing. For the one process that the row was taken for."""
        if slot is None:
            return
        serial, generation, _, _, _, started, *_ = self._load(slot + 1)
        now = STATES.index(state), os.getpid(), rss(), started, time.monotonic()
        self._store(slot + 1, serial, generation, *now, *_numbers(tally))

    def release(self, slot: int | None) -> None:
        """A worker is gone, and its process has been waited for: keep its counts, and let others have its row."""
        if slot is None:
            return
        values = self._load(slot + 1)
        row = _row(slot, values)
        if row.state == "free":
            return
        started, _, died, _, _, _, _, *numbers = self._load(0)
        former = _sum(_tally(numbers), row.tally)
        former.closed, former.waiting = former.accepted, 0
        former.answered[0] += former.running
        # Whoever reads this knows by its number not to count the worker again.
        serial = values[0]
        self._store(0, started, 0, died + (row.state != "ended"), serial, 0, 0.0, 0.0, *_numbers(former))
        self._store(slot + 1, *values[:2], _FREE, *values[3:])

    def _store(self, index: int, *values: float) -> None:
        """Write the ``index``-th row."""
        at = index * _WORDS
        times = self._words[at] + 1
        _HALF.pack_into(self._memory, at * 8 + 8 + (times & 1) * _HALF.size, *values)
        self._words[at] = times

    # --- reading

    def snapshot(self) -> Snapshot:
        """All rows that are in use and the former workers, with no worker counted twice, or not at all."""
        while True:
            times = self._words[0]
            started, _, died, last, _, _, _, *numbers = self._load(0)
            loaded = [(slot, self._load(slot + 1)) for slot in range(self.slots)]
            rows = [_row(slot, values) for slot, values in loaded if values[2] != _FREE and values[0] != last]
            if self._words[0] == times:
                return Snapshot(rows, _tally(numbers), started, died)

    def rows(self) -> list[Row]:
        """The workers there are."""
        return self.snapshot().rows

    def totals(self) -> Tally:
        """What all workers have served, those that are gone too."""
        return self.snapshot().total

    def _load(self, index: int) -> Any:
        """The ``index``-th row as it was last written."""
        at = index * _WORDS
        while True:
            times = self._words[at]
            values = _HALF.unpack_from(self._memory, at * 8 + 8 + (times & 1) * _HALF.size)
            if self._words[at] == times:  # else it was written twice meanwhile, perhaps
                return values


def rss() -> int:
    """The memory that this process has in use, in bytes; 0 where the operating system does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:
            return int(statm.read(128).split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


# --- what is in a row


def _row(slot: int, values: Any) -> Row:
    _, generation, state, pid, memory, started, beat, *numbers = values
    return Row(slot, pid, generation, STATES[int(state)], started, beat, memory, _tally(numbers))


def _numbers(tally: Tally) -> list[float]:
    return [
        tally.accepted,
        tally.closed,
        tally.begun,
        tally.full,
        tally.slow,
        tally.sent,
        tally.waiting,
        *tally.answered,
        *tally.waited,
        tally.seconds,
    ]


def _tally(numbers: Iterable[Any]) -> Tally:
    tally = Tally()
    tally.accepted, tally.closed, tally.begun, tally.full, tally.slow, *others, tally.seconds = numbers
    tally.sent, tally.waiting, *lists = others
    classes = len(tally.answered)
    tally.answered, tally.waited = lists[:classes], lists[classes:]
    return tally


def _sum(*tallies: Tally) -> Tally:
    return _tally(map(sum, zip(*map(_numbers, tallies), strict=True)))
