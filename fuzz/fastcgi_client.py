"""Whatever an application sends, in whatever pieces: every law of fuzz/laws.py holds, nothing raises, every response
ends or fails, alone or with its connection, and the pieces make no difference.

The first two bytes of an input choose the requests and the cuts; the rest is the stream.
"""

from __future__ import annotations

import random
from typing import Any

from fuzz.laws import ClientLaws
from fuzz.splits import Script, any_cuts, call, compare, play, tidy
from gateways import Limits
from gateways.fastcgi import ClientConnection

_ROLES = ("responder", "authorizer", "filter")


def check(data: bytes) -> None:
    """Raise AssertionError, or whatever else a connection raised, if the stream breaks a law."""
    if len(data) < 3:
        return
    choice, seed, stream = data[0], data[1], data[2:]
    limits = {"max_head": 100, "max_stderr": 10} if choice & 1 else {}
    requests = 1 + (choice >> 1) % 4
    steps: list[Any] = []
    for stream_id in range(1, 1 + requests):
        role = _ROLES[choice % 3] if stream_id == 2 else "responder"
        steps.append(("send_request", stream_id, role, not choice & 32))
        steps.append(("end_body", stream_id))
    if choice & 64:
        steps.append(("abort", 1))
    if choice & 128:
        steps.append(("get_values",))
    places = any_cuts(random.Random(seed), stream)
    script = Script("client", {"limits": limits}, (*steps, stream, ("receive_data", "")))
    different = compare(script, [places], tidy(play(script)))
    assert different is None, different

    connection = ClientConnection(limits=Limits(**limits))
    laws = ClientLaws(Limits(**limits).max_stderr)
    for stream_id in range(1, 1 + requests):
        laws.asked(stream_id)
    if choice & 64:
        laws.aborted.add(1)
    for step in steps:
        assert isinstance(call(connection, *step), bytes)
    for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
        laws.saw(connection.receive_data(stream[start:stop]))
        assert not (laws.failed and connection.reusable)
    ended = all(stage == "over" for stage in laws.stages.values())
    laws.saw(connection.receive_data(b""))
    assert ended or laws.failed, "the end of the stream left a response without an end"
    assert not connection.reusable
    assert connection.receive_data(stream) == []
    assert isinstance(call(connection, "send_request", 9, "responder", True), str)
    assert connection.values.keys() <= {"FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"}


def main() -> None:
    from fuzz.running import search

    search(check)


if __name__ == "__main__":
    main()
