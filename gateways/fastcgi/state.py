"""What becomes of every record at every moment: the states of FastCGI, as tables that both connections run on.

FastCGI 1.0 sections 3.3, 5 and 6. A machine is a table from a state and an *arrival* to a :class:`Step`: a deed, which
is a method of the connection, and the state that follows. An arrival is the type of a record that has content, or its
negative for one that is empty, which ends a stream. Every state lists every arrival.

The documentation draws these tables, and does not build while one is undrawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from gateways.fastcgi.wire import (
    ABORT_REQUEST,
    AUTHORIZER,
    BEGIN_REQUEST,
    DATA,
    END_REQUEST,
    FILTER,
    PARAMS,
    RESPONDER,
    STDERR,
    STDIN,
    STDOUT,
)

__all__ = ["INPUT", "MACHINES", "OUTPUT", "RESPONSE", "Machine", "Step", "bind"]


@attrs.frozen
class Step:
    """What is done with an arrival, and the state after it. The deed may choose one of ``others`` instead."""

    deed: str
    to: str
    others: tuple[str, ...] = ()


@attrs.frozen
class Machine:
    """One state machine: a table with the words that explain it.

    ``states`` tells each state with what it means, the first one is where a request begins; ``arrivals`` tells each
    arrival with its name, ``deeds`` each deed with what it does; ``steps`` is the table, by state and arrival.
    """

    title: str
    about: str
    states: Mapping[str, str]
    arrivals: Mapping[int, str]
    deeds: Mapping[str, str]
    steps: Mapping[str, Mapping[int, Step]]


def bind(machine: Machine, owner: type) -> dict[str, dict[int, tuple[Any, str]]]:
    """The table to run on: (method, next state) by state and arrival. ``owner`` has a method ``_deed`` for each."""
    return {
        state: {arrival: (getattr(owner, f"_{step.deed}"), step.to) for arrival, step in row.items()}
        for state, row in machine.steps.items()
    }


#: The rows of a table as they are written down: a deed alone stays in its state.
_Rows = dict[str, dict[int, Step | str]]


def _machine(
    title: str,
    about: str,
    states: Mapping[str, str],
    arrivals: Mapping[int, str],
    deeds: Mapping[str, str],
    rows: _Rows,
    default: str,
) -> Machine:
    """A machine of the rows that are given, and ``default`` for the arrivals that they do not name."""
    steps: dict[str, dict[int, Step]] = {}
    for state in [state for state in states if state in rows]:
        full = {arrival: rows[state].get(arrival, default) for arrival in arrivals}
        steps[state] = {arrival: Step(step, state) if isinstance(step, str) else step for arrival, step in full.items()}
    done = {step.deed for row in steps.values() for step in row.values()}
    return Machine(
        title,
        about,
        {state: meaning for state, meaning in states.items() if state in rows},
        arrivals,
        {deed: meaning for deed, meaning in deeds.items() if deed in done},
        steps,
    )


_WITH_ARTICLE: Final = {RESPONDER: "a responder", AUTHORIZER: "an authorizer", FILTER: "a filter"}


# --- The application's side: the life of a request id ----------------------------------------------------------------

_ANY_INPUT: Final = {
    BEGIN_REQUEST: "BEGIN_REQUEST",
    PARAMS: "PARAMS",
    -PARAMS: "end of PARAMS",
    STDIN: "STDIN",
    -STDIN: "end of STDIN",
    DATA: "DATA",
    -DATA: "end of DATA",
    ABORT_REQUEST: "ABORT_REQUEST",
    END_REQUEST: "our END_REQUEST",
}

_INPUT_STATES: Final = {
    "inactive": "No request has this id.",
    "params": "The meta-variables are coming in. Nothing can be answered yet (section 6.2).",
    "stdin": "The request was announced, and its body is coming in.",
    "data": "The body is in, and the file to filter is coming in.",
    "over": "Everything is in. The answer is owed.",
    "dropped": "The answer is owed, but what still comes in is of no use: the request was refused or aborted, or its "
    "role reads nothing more.",
    "late": "The request has ended before its input did. What belongs to it still arrives, of any size.",
}

_INPUT_DEEDS: Final = {
    "begin": "A request begins. Or it is rejected, with CANT_MPX_CONN, OVERLOADED or UNKNOWN_ROLE (section 5.5).",
    "take_params": "Kept, up to ``max_params_bytes``.",
    "end_params": "The request is announced, and its body as far as it came early. Or it is refused, where it cannot "
    "be built, and answered with the status of the error.",
    "keep_early": "Kept, up to ``body_buffer``: against the order of section 6.2, but harmless while it is little.",
    "end_early": "Remembered.",
    "take_body": "Handed on.",
    "end_body": "The end of the body is announced.",
    "take_data": "Handed on.",
    "end_data": "The end of the file is announced.",
    "abort": "The handler is cancelled, and its end is awaited for a while (section 5.4).",
    "answer_abort": "END_REQUEST is sent at once: nobody above knows this request.",
    "ended": "The id is free.",
    "drop": "Dropped, without a word.",
    "forget": "Dropped. Nothing more of the request can come.",
    "ignore": "Ignored, as section 3.3 says, and counted: not without end.",
    "close": "Against the protocol: the connection closes, and every request on it is aborted.",
    "forbid": "A mistake of the program: LocalProtocolError.",
}


def _input(role: int, about: str) -> Machine:
    """PARAMS for all roles; then STDIN, unless it is an authorizer; then DATA for a filter (sections 6.2 to 6.4)."""
    last = DATA if role == FILTER else STDIN
    begin: dict[int, Step | str] = {BEGIN_REQUEST: Step("begin", "params", others=("late",))}
    not_again: dict[int, Step | str] = dict.fromkeys((BEGIN_REQUEST, PARAMS, -PARAMS), "close")
    unanswerable: dict[int, Step | str] = {END_REQUEST: "forbid"}
    open_input: dict[int, Step | str] = {
        **not_again,
        ABORT_REQUEST: Step("abort", "dropped"),
        END_REQUEST: Step("ended", "late"),
    }
    dropped: dict[int, Step | str] = dict.fromkeys((STDIN, -STDIN, DATA, -DATA), "drop")

    rows: _Rows = {
        "inactive": {**begin, **unanswerable},
        "params": {
            BEGIN_REQUEST: "close",
            PARAMS: "take_params",
            -PARAMS: Step("end_params", "stdin", others=("over", "dropped")),
            STDIN: "keep_early",
            -STDIN: "end_early",
            ABORT_REQUEST: Step("answer_abort", "late"),
            **unanswerable,
        },
        "stdin": {**open_input, STDIN: "take_body", -STDIN: Step("end_body", "over")},
        "over": {**not_again, ABORT_REQUEST: "abort", END_REQUEST: Step("ended", "inactive")},
        "dropped": {**open_input, **dropped, -last: Step("drop", "over")},
        "late": {
            **begin,
            **dict.fromkeys((PARAMS, -PARAMS, ABORT_REQUEST), "drop"),
            **dropped,
            -last: Step("forget", "inactive"),
            **unanswerable,
        },
    }
    if role == AUTHORIZER:
        del rows["stdin"]
        rows["params"] |= {-PARAMS: Step("end_params", "dropped"), STDIN: "ignore", -STDIN: "ignore"}
    if role == FILTER:
        # One stream after the other (section 6.4). To the other roles DATA means nothing.
        out_of_order: dict[int, Step | str] = dict.fromkeys((DATA, -DATA), "close")
        rows["params"] |= {-PARAMS: Step("end_params", "stdin", others=("data", "dropped")), **out_of_order}
        rows["stdin"] |= {-STDIN: Step("end_body", "data"), **out_of_order}
        rows["data"] = {**open_input, DATA: "take_data", -DATA: Step("end_data", "over")}
    title = f"A request to {_WITH_ARTICLE[role]}, in the application"
    return _machine(title, about, _INPUT_STATES, _ANY_INPUT, _INPUT_DEEDS, rows, default="ignore")


#: Role -> what becomes of the records of a request, in the application.
INPUT: Final = {
    RESPONDER: _input(
        RESPONDER, "Meta-variables, then a body (section 6.2). The answer may begin before the body ends."
    ),
    AUTHORIZER: _input(
        AUTHORIZER,
        "Meta-variables alone (section 6.3). lighttpd ends a STDIN all the same and Apache does not; neither is "
        "minded, nor waited for.",
    ),
    FILTER: _input(FILTER, "Meta-variables, then a body, then the file to filter, in this order (section 6.4)."),
}


# --- The web server's side: what it may send --------------------------------------------------------------------------

_ANY_OUTPUT: Final = {STDIN: "STDIN", -STDIN: "end of STDIN", DATA: "DATA", -DATA: "end of DATA"}

_OUTPUT_STATES: Final = {
    "stdin": "The meta-variables were sent, and the body is being sent.",
    "data": "The file to filter is being sent.",
    "sent": "Everything was sent.",
}

_OUTPUT_DEEDS: Final = {
    "send_stream": "Sent in records; no bytes make no record, for that would end the stream.",
    "end_stream": "An empty record is sent.",
    "leave_out": "Nothing is sent: the role has no such stream, or it was ended before.",
    "forbid": "A mistake of the program: LocalProtocolError.",
}


def _output(role: int, about: str) -> Machine:
    rows: _Rows = {"sent": {-STDIN: "leave_out", -DATA: "leave_out"}}
    if role == FILTER:
        rows["data"] = {-STDIN: "leave_out", DATA: "send_stream", -DATA: Step("end_stream", "sent")}
        rows["stdin"] = {STDIN: "send_stream", -STDIN: Step("end_stream", "data")}
    elif role == RESPONDER:
        rows["stdin"] = {STDIN: "send_stream", -STDIN: Step("end_stream", "sent"), -DATA: "leave_out"}
    title = f"A request to {_WITH_ARTICLE[role]}, in the web server"
    return _machine(title, about, _OUTPUT_STATES, _ANY_OUTPUT, _OUTPUT_DEEDS, rows, default="forbid")


#: Role -> what a web server sends after the meta-variables of a request.
OUTPUT: Final = {
    RESPONDER: _output(RESPONDER, "One stream, the body (section 6.2)."),
    AUTHORIZER: _output(AUTHORIZER, "No stream (section 6.3)."),
    FILTER: _output(FILTER, "The body, then the file (section 6.4)."),
}


# --- The web server's side: what it gets ------------------------------------------------------------------------------

_ANY_RESPONSE: Final = {
    STDOUT: "STDOUT",
    -STDOUT: "end of STDOUT",
    STDERR: "STDERR",
    -STDERR: "end of STDERR",
    END_REQUEST: "END_REQUEST",
    ABORT_REQUEST: "our ABORT_REQUEST",
}

_RESPONSE_STATES: Final = {
    "head": "The head of the response is not whole yet.",
    "body": "The head was announced, and the body is coming in.",
    "ended": "STDOUT has ended; END_REQUEST is still to come.",
    "failed": "The response has failed. Its END_REQUEST frees the id.",
    "aborted": "The request was given up (section 5.4). The application still has to end it.",
    "over": "The id is free.",
}

_RESPONSE_DEEDS: Final = {
    "read_head": "Kept until the blank line. Then the head is announced, and what follows is body. A head that is "
    "none, or is too long, fails the response.",
    "miss_head": "The response fails: it has no head.",
    "take_body": "Handed on.",
    "take_log": "Handed on for the error log, up to ``max_stderr``.",
    "refuse_more": "The response fails: there is more of it after its end.",
    "complete": "The response is complete. With a protocol status other than REQUEST_COMPLETE it fails (section 5.5).",
    "complete_unended": "The response is complete, for PHP never ends STDOUT; but it has failed where an application "
    "status says that it broke off, and with a protocol status other than REQUEST_COMPLETE.",
    "complete_headless": "The response fails, because of the protocol status or for want of a head.",
    "drop": "Dropped.",
    "give_up": "The application is asked to stop.",
    "forbid": "A mistake of the program: LocalProtocolError.",
    "fail_connection": "The connection fails: whoever reads on gives one client the response of another.",
}

_LOG: Final[dict[int, Step | str]] = {STDERR: "take_log"}
_GIVE_UP: Final[dict[int, Step | str]] = {ABORT_REQUEST: Step("give_up", "aborted")}

#: What becomes of the records of a response, in the web server.
RESPONSE: Final = _machine(
    "A response, in the web server",
    "A CGI response on STDOUT, text for the error log on STDERR, and an end (sections 5.3, 5.5 and 6.2). The "
    "application is not trusted: half a response never passes for a whole one.",
    _RESPONSE_STATES,
    _ANY_RESPONSE,
    _RESPONSE_DEEDS,
    {
        "head": {
            **_LOG,
            **_GIVE_UP,
            STDOUT: Step("read_head", "head", others=("body", "failed")),
            -STDOUT: Step("miss_head", "failed"),
            END_REQUEST: Step("complete_headless", "over"),
        },
        "body": {
            **_LOG,
            **_GIVE_UP,
            STDOUT: "take_body",
            -STDOUT: Step("drop", "ended"),
            END_REQUEST: Step("complete_unended", "over"),
        },
        "ended": {
            **_LOG,
            **_GIVE_UP,
            STDOUT: Step("refuse_more", "failed"),
            END_REQUEST: Step("complete", "over"),
        },
        "failed": {ABORT_REQUEST: "give_up", END_REQUEST: Step("drop", "over")},
        "aborted": {**_LOG, **_GIVE_UP, END_REQUEST: Step("complete", "over")},
        "over": {**dict.fromkeys(_ANY_RESPONSE, "fail_connection"), ABORT_REQUEST: "forbid"},
    },
    default="drop",
)

#: Every machine there is, for whoever draws them.
MACHINES: Final = (*INPUT.values(), *OUTPUT.values(), RESPONSE)
