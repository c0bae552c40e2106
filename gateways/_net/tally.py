"""What a process has served, counted: for those who watch it, and for those who decide when it is to be replaced."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["DURATIONS", "Tally"]

#: The upper ends, in seconds, of the classes by which requests are counted for how long they took. One more has no end.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Tally:
    """Connections and requests of the listeners that share it, counted from zero.

    All but ``waiting``, and what the properties tell, only grows. One thread counts; any may read, and what it reads
    may be of slightly different moments.
    """

    __slots__ = ("accepted", "answered", "begun", "closed", "full", "seconds", "sent", "slow", "waited", "waiting")

    def __init__(self) -> None:
        #: Connections that were accepted, and those that are over.
        self.accepted = 0
        self.closed = 0
        #: Requests whose meta-variables were complete.
        self.begun = 0
        #: Requests that are over, by the hundreds of their status; 0 for those that ended without an answer.
        self.answered = [0, 0, 0, 0, 0, 0]
        #: Requests whose handlers have begun and wait for something: what ``Limits.max_running`` is about.
        self.waiting = 0
        #: Requests that were refused because the server was full; they are among the answered too.
        self.full = 0
        #: Requests that were reported as slow.
        self.slow = 0
        #: Bytes of response bodies.
        self.sent = 0
        #: Requests that had to wait for something and are over, by duration (see DURATIONS), and all their seconds.
        #: A request that never waited takes no time that is worth a look at the clock: it is in the first class.
        self.waited = [0] * (len(DURATIONS) + 1)
        self.seconds = 0.0

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self.accepted - self.closed

    @property
    def running(self) -> int:
        """Requests that have begun and are not over."""
        return self.begun - sum(self.answered)

    @property
    def durations(self) -> list[int]:
        """Requests that are over, by duration: one number for each of DURATIONS, and one for the longer ones."""
        return [sum(self.answered) - sum(self.waited[1:]), *self.waited[1:]]

    def took(self, seconds: float) -> None:
        """Count the duration of a request that has waited."""
        self.waited[bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds
