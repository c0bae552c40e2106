"""The scoreboard: every number arrives, over process boundaries, and what is counted never goes back."""

from __future__ import annotations

import json
import os
import time
from itertools import count

import pytest

from gateways import Tally
from gateways._process import scoreboard
from gateways._process.scoreboard import STATES, Alone, Scoreboard, rss
from tests.metrics.tools import numbers, run_program, tally


def a_full_tally() -> Tally:
    """Every number of it is another one."""
    each = count(1)
    made = Tally()
    for name in Tally.__slots__:
        old = getattr(made, name)
        setattr(made, name, [next(each) for _ in old] if isinstance(old, list) else next(each))
    made.seconds += 0.5
    return made


def test_every_number_of_a_tally_arrives() -> None:
    board = Scoreboard(3)
    slot = board.take()
    board.publish(slot, a_full_tally(), "ready")
    [row] = board.rows()
    assert numbers(row.tally) == numbers(a_full_tally())
    assert numbers(board.totals()) == numbers(a_full_tally())


def test_a_row_says_who_published_it_and_when() -> None:
    board = Scoreboard(3)
    board.take(1)
    before, now = time.monotonic(), time.time()
    slot = board.take(7)
    board.publish(slot, Tally(), "draining")
    row = board.rows()[1]
    assert (row.slot, row.pid, row.generation, row.state) == (1, os.getpid(), 7, "draining")
    assert before <= row.beat <= time.monotonic()
    assert now <= row.started <= time.time()
    assert abs(row.rss - rss()) < 2**24


@pytest.mark.parametrize("state", [state for state in STATES if state != "free"])
def test_every_state_can_be_told(state: str) -> None:
    board = Scoreboard(1)
    board.publish(board.take(), Tally(), state)
    assert [row.state for row in board.rows()] == [state]


def test_a_worker_is_starting_until_it_publishes() -> None:
    board = Scoreboard(1)
    board.take()
    assert [(row.state, row.pid) for row in board.rows()] == [("starting", 0)]


def test_the_counts_of_a_worker_outlive_it_and_its_row_is_used_again() -> None:
    board = Scoreboard(1)
    slot = board.take()
    board.publish(slot, tally(accepted=4, closed=4, begun=5, answered_2=5, sent=100, seconds=2.5, waited_3=2), "ended")
    board.release(slot)
    assert board.rows() == []
    assert board.take() == slot
    board.publish(slot, tally(accepted=1, begun=2, answered_2=1, sent=1, waited_3=1), "ready")
    total = board.totals()
    assert (total.accepted, total.begun, total.answered[2], total.sent, total.waited[3]) == (5, 7, 6, 101, 3)
    assert total.seconds == 2.5
    assert (total.connections, total.running) == (1, 1)


def test_what_a_worker_was_at_when_it_died_is_over_and_unanswered() -> None:
    board = Scoreboard(1)
    slot = board.take()
    board.publish(slot, tally(accepted=3, closed=1, begun=9, answered_2=6, waiting=3), "ready")
    board.release(slot)
    total = board.totals()
    assert (total.connections, total.running, total.waiting) == (0, 0, 0)
    assert (total.begun, total.answered) == (9, [3, 0, 6, 0, 0, 0])


def test_deaths_are_told_from_ends() -> None:
    board = Scoreboard(3)
    for state in ("ready", "ended", "ready", "draining"):
        slot = board.take()
        board.publish(slot, Tally(), state)
        board.release(slot)
    snapshot = board.snapshot()
    assert (snapshot.started, snapshot.died) == (4, 3)


def test_a_row_that_is_released_twice_counts_once() -> None:
    board = Scoreboard(2)
    slot = board.take()
    board.publish(slot, tally(accepted=2), "ready")
    board.release(slot)
    board.release(slot)
    assert (board.totals().accepted, board.snapshot().died) == (2, 1)


def test_O23_rows_do_not_run_out_however_often_workers_are_replaced() -> None:
    board = Scoreboard(2)
    for _ in range(1000):
        slot = board.take()
        board.publish(slot, tally(accepted=1), "ended")
        board.release(slot)
    assert (board.totals().accepted, board.snapshot().started, board.rows()) == (1000, 1000, [])


def test_a_worker_beyond_the_last_row_is_not_seen_and_does_no_harm() -> None:
    board = Scoreboard(1)
    board.take()
    slot = board.take()
    assert slot is None
    board.publish(slot, tally(accepted=5), "ready")
    board.release(slot)
    assert (board.totals().accepted, len(board.rows())) == (0, 1)


def test_a_worker_that_is_killed_while_it_publishes_leaves_what_it_had_published_before() -> None:
    board = Scoreboard(1)
    slot = board.take()
    board.publish(slot, tally(accepted=1), "ready")
    told = board._words[scoreboard._WORDS]
    board.publish(slot, tally(accepted=2), "ready")
    board._words[scoreboard._WORDS] = told  # as if it had not come to its last store
    assert board.totals().accepted == 1
    board.release(slot)
    assert board.totals().accepted == 1
    assert board.rows() == []


def test_a_manager_that_is_killed_while_it_releases_a_row_has_no_worker_counted_twice() -> None:
    board = Scoreboard(1)
    slot = board.take()
    board.publish(slot, tally(accepted=1), "ready")
    told = board._words[scoreboard._WORDS]
    board.release(slot)
    board._words[scoreboard._WORDS] = told  # its counts were kept, but its row was not set free
    assert (board.totals().accepted, board.rows()) == (1, [])


def test_processes_that_were_forked_share_it() -> None:
    told = run_program("""
        import json, os
        from gateways import Tally
        from gateways._process.scoreboard import Scoreboard

        board = Scoreboard(4)
        children = []
        for accepted in (1, 2):
            slot = board.take()
            child = os.fork()
            if not child:
                tally = Tally()
                tally.accepted = accepted
                board.publish(slot, tally, "ready")
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        print(json.dumps([children, [[row.pid, row.tally.accepted] for row in board.rows()]]))
    """)
    children, rows = json.loads(told)
    assert rows == [[children[0], 1], [children[1], 2]]


def test_no_reader_ever_sees_a_count_go_back_while_workers_come_and_go() -> None:
    told = run_program("""
        import os, signal
        from gateways import Tally
        from gateways._process.scoreboard import Scoreboard

        board = Scoreboard(3)
        reader = os.fork()
        if not reader:
            signal.alarm(30)
            last = [0] * 4
            while last[3] < 1000:
                snapshot = board.snapshot()
                total = snapshot.total
                seen = [total.accepted, total.answered[2], sum(total.durations), snapshot.died]
                if any(new < old for new, old in zip(seen, last)):
                    os._exit(1)
                last = seen
            os._exit(0 if last[:3] == [3000] * 3 else 2)
        for _ in range(1000):
            slot, tally = board.take(), Tally()
            for _ in range(3):
                tally.accepted += 1
                tally.begun += 1
                tally.answered[2] += 1
                tally.took(0.3)
                board.publish(slot, tally, "ready")
            board.release(slot)
        print(os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]), board.totals().accepted)
    """)
    assert told == "0 3000\n"


def test_one_process_by_itself_tells_what_it_counts_at_this_moment() -> None:
    counted = tally(accepted=2, begun=1)
    board = Alone(counted)
    counted.answered[2] += 1
    counted.sent += 10
    snapshot = board.snapshot()
    assert numbers(snapshot.total) == numbers(counted)
    assert [(row.pid, row.state) for row in snapshot.rows] == [(os.getpid(), "ready")]
    assert (snapshot.started, snapshot.died) == (1, 0)


def test_what_was_read_does_not_change_afterwards() -> None:
    counted = Tally()
    read = Alone(counted).snapshot().rows[0].tally
    counted.answered[2] += 1
    assert read.answered[2] == 0
