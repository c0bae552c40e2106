"""The tables of states, row by row as sections 3.3 and 5 to 6 of the specification want them.

The tables are put together of parts that they share; here each is written out, so that a change of a part shows what it
changes.
"""

from __future__ import annotations

import pytest

from gateways.fastcgi import state
from gateways.fastcgi.state import Machine


def drawn(machine: Machine) -> str:
    """A machine as text: below each state what is done, with the state after it if that is another, and for which
    arrivals."""
    lines = [machine.title]
    for name, row in machine.steps.items():
        arrivals: dict[str, list[str]] = {}
        for arrival, step in row.items():
            stays = step.to == name and not step.others
            what = step.deed if stays else f"{step.deed} -> {' | '.join((step.to, *step.others))}"
            arrivals.setdefault(what, []).append(machine.arrivals[arrival])
        lines += [f"{name}:", *(f"    {what}: {', '.join(several)}" for what, several in arrivals.items())]
    return "\n".join(lines)


DRAWN = [
    """\
A request to a responder, in the application
inactive:
    begin -> params | late: BEGIN_REQUEST
    ignore: PARAMS, end of PARAMS, STDIN, end of STDIN, DATA, end of DATA, ABORT_REQUEST
    forbid: our END_REQUEST
params:
    close: BEGIN_REQUEST
    take_params: PARAMS
    end_params -> stdin | over | dropped: end of PARAMS
    keep_early: STDIN
    end_early: end of STDIN
    ignore: DATA, end of DATA
    answer_abort -> late: ABORT_REQUEST
    forbid: our END_REQUEST
stdin:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    take_body: STDIN
    end_body -> over: end of STDIN
    ignore: DATA, end of DATA
    abort -> dropped: ABORT_REQUEST
    ended -> late: our END_REQUEST
over:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    ignore: STDIN, end of STDIN, DATA, end of DATA
    abort: ABORT_REQUEST
    ended -> inactive: our END_REQUEST
dropped:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    drop: STDIN, DATA, end of DATA
    drop -> over: end of STDIN
    abort: ABORT_REQUEST
    ended -> late: our END_REQUEST
late:
    begin -> params | late: BEGIN_REQUEST
    drop: PARAMS, end of PARAMS, STDIN, DATA, end of DATA, ABORT_REQUEST
    forget -> inactive: end of STDIN
    forbid: our END_REQUEST""",
    """\
A request to an authorizer, in the application
inactive:
    begin -> params | late: BEGIN_REQUEST
    ignore: PARAMS, end of PARAMS, STDIN, end of STDIN, DATA, end of DATA, ABORT_REQUEST
    forbid: our END_REQUEST
params:
    close: BEGIN_REQUEST
    take_params: PARAMS
    end_params -> dropped: end of PARAMS
    ignore: STDIN, end of STDIN, DATA, end of DATA
    answer_abort -> late: ABORT_REQUEST
    forbid: our END_REQUEST
over:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    ignore: STDIN, end of STDIN, DATA, end of DATA
    abort: ABORT_REQUEST
    ended -> inactive: our END_REQUEST
dropped:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    drop: STDIN, DATA, end of DATA
    drop -> over: end of STDIN
    abort: ABORT_REQUEST
    ended -> late: our END_REQUEST
late:
    begin -> params | late: BEGIN_REQUEST
    drop: PARAMS, end of PARAMS, STDIN, DATA, end of DATA, ABORT_REQUEST
    forget -> inactive: end of STDIN
    forbid: our END_REQUEST""",
    """\
A request to a filter, in the application
inactive:
    begin -> params | late: BEGIN_REQUEST
    ignore: PARAMS, end of PARAMS, STDIN, end of STDIN, DATA, end of DATA, ABORT_REQUEST
    forbid: our END_REQUEST
params:
    close: BEGIN_REQUEST, DATA, end of DATA
    take_params: PARAMS
    end_params -> stdin | data | dropped: end of PARAMS
    keep_early: STDIN
    end_early: end of STDIN
    answer_abort -> late: ABORT_REQUEST
    forbid: our END_REQUEST
stdin:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS, DATA, end of DATA
    take_body: STDIN
    end_body -> data: end of STDIN
    abort -> dropped: ABORT_REQUEST
    ended -> late: our END_REQUEST
data:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    ignore: STDIN, end of STDIN
    take_data: DATA
    end_data -> over: end of DATA
    abort -> dropped: ABORT_REQUEST
    ended -> late: our END_REQUEST
over:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    ignore: STDIN, end of STDIN, DATA, end of DATA
    abort: ABORT_REQUEST
    ended -> inactive: our END_REQUEST
dropped:
    close: BEGIN_REQUEST, PARAMS, end of PARAMS
    drop: STDIN, end of STDIN, DATA
    drop -> over: end of DATA
    abort: ABORT_REQUEST
    ended -> late: our END_REQUEST
late:
    begin -> params | late: BEGIN_REQUEST
    drop: PARAMS, end of PARAMS, STDIN, end of STDIN, DATA, ABORT_REQUEST
    forget -> inactive: end of DATA
    forbid: our END_REQUEST""",
    """\
A request to a responder, in the web server
stdin:
    send_stream: STDIN
    end_stream -> sent: end of STDIN
    forbid: DATA
    leave_out: end of DATA
sent:
    forbid: STDIN, DATA
    leave_out: end of STDIN, end of DATA""",
    """\
A request to an authorizer, in the web server
sent:
    forbid: STDIN, DATA
    leave_out: end of STDIN, end of DATA""",
    """\
A request to a filter, in the web server
stdin:
    send_stream: STDIN
    end_stream -> data: end of STDIN
    forbid: DATA, end of DATA
data:
    forbid: STDIN
    leave_out: end of STDIN
    send_stream: DATA
    end_stream -> sent: end of DATA
sent:
    forbid: STDIN, DATA
    leave_out: end of STDIN, end of DATA""",
    """\
A response, in the web server
head:
    read_head -> head | body | failed: STDOUT
    miss_head -> failed: end of STDOUT
    take_log: STDERR
    drop: end of STDERR
    complete_headless -> over: END_REQUEST
    give_up -> aborted: our ABORT_REQUEST
body:
    take_body: STDOUT
    drop -> ended: end of STDOUT
    take_log: STDERR
    drop: end of STDERR
    complete_unended -> over: END_REQUEST
    give_up -> aborted: our ABORT_REQUEST
ended:
    refuse_more -> failed: STDOUT
    drop: end of STDOUT, end of STDERR
    take_log: STDERR
    complete -> over: END_REQUEST
    give_up -> aborted: our ABORT_REQUEST
failed:
    drop: STDOUT, end of STDOUT, STDERR, end of STDERR
    drop -> over: END_REQUEST
    give_up: our ABORT_REQUEST
aborted:
    drop: STDOUT, end of STDOUT, end of STDERR
    take_log: STDERR
    complete -> over: END_REQUEST
    give_up: our ABORT_REQUEST
over:
    fail_connection: STDOUT, end of STDOUT, STDERR, end of STDERR, END_REQUEST
    forbid: our ABORT_REQUEST""",
]


@pytest.mark.parametrize(
    ("machine", "text"),
    list(zip(state.MACHINES, DRAWN, strict=True)),
    ids=[machine.title for machine in state.MACHINES],
)
def test_F13_F14_F19_F34_F39_F40_what_becomes_of_every_record_at_every_moment(machine: Machine, text: str) -> None:
    assert drawn(machine) == text


def test_every_machine_is_for_its_role_or_for_the_response() -> None:
    assert list(state.INPUT) == list(state.OUTPUT) == [1, 2, 3]
    assert (*state.INPUT.values(), *state.OUTPUT.values(), state.RESPONSE) == state.MACHINES
