"""Whatever a web server sends, in whatever pieces, and whatever the program answers: every law of fuzz/laws.py holds,
nothing raises, and the pieces make no difference.

The first two bytes of an input choose the options, what the program does, and the cuts; the rest is the stream.
"""

from __future__ import annotations

import random
from typing import Any

from fuzz.laws import ServerLaws
from fuzz.splits import Script, any_cuts, compare, play, tidy
from gateways import Limits
from gateways.events import BodyEnded, DataEnded, RequestAborted, RequestReceived, RequestRefused
from gateways.fastcgi import ServerConnection

#: Four ways to be limited, from the usual one to the narrowest.
_LIMITS: tuple[dict[str, int], ...] = (
    {},
    {"max_ids": 1},
    {"max_ids": 3, "max_params": 5, "max_stderr": 10},
    {"max_ids": 2, "max_params_bytes": 100, "body_buffer": 20, "max_stderr": 30},
)


def check(data: bytes) -> None:
    """Raise AssertionError, or whatever else a connection raised, if the stream breaks a law."""
    if len(data) < 3:
        return
    choice, seed, stream = data[0], data[1], data[2:]
    limits = _LIMITS[choice & 3]
    options: dict[str, Any] = {"strict": bool(choice & 4)}
    if choice & 8:
        options["roles"] = ["responder", "authorizer", "filter"]
    places = any_cuts(random.Random(seed), stream)
    script = Script("server", {**options, "limits": limits}, (stream, ("receive_data", "")))
    different = compare(script, [places], tidy(play(script)))
    assert different is None, different
    _answered(ServerConnection(limits=Limits(**limits), **options), stream, places, choice >> 4)


def _answered(connection: ServerConnection, stream: bytes, places: list[int], program: int) -> None:
    """Play the stream to a connection with a program behind it, under the eyes of the laws."""
    laws = ServerLaws()
    for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
        events = connection.receive_data(stream[start:stop])
        laws.made(connection.data_to_send())
        laws.saw(events)
        for event in events:
            _react(connection, laws, event, program)
        assert connection.closing or not laws.failed
        assert connection.statistics().active >= len(laws.open)
        if connection.closing:
            break
    for stream_id in list(laws.open):
        _finish(connection, laws, stream_id, program)
    laws.saw(connection.receive_data(b""))
    assert connection.closing
    assert connection.receive_data(stream) == []
    assert connection.data_to_send() == b""


def _react(connection: ServerConnection, laws: ServerLaws, event: Any, program: int) -> None:
    """What the program does about an event: at once, later, or never, depending on its number and the id."""
    stream_id: int | None = getattr(event, "stream_id", None)
    if stream_id not in laws.open:
        return
    request = laws.open[stream_id]
    match (program + stream_id) % 4, event:
        case _, RequestAborted():
            _finish(connection, laws, stream_id, 0)
        case 0, RequestReceived() | RequestRefused():
            _finish(connection, laws, stream_id, program)
        case 1, RequestReceived():
            _tell(connection, laws, stream_id, connection.send_head(stream_id, b"Status: 200 OK\r\n\r\n"))
        case 1, BodyEnded() if request.role != "filter":
            _finish(connection, laws, stream_id, program)
        case 1, DataEnded() | RequestRefused():
            _finish(connection, laws, stream_id, program)
        case 2, BodyEnded():
            assert connection.send_log(stream_id, "a text for the log") == b""
            _tell(connection, laws, stream_id, connection.send_body(stream_id, b"x"))
        case _:
            pass


def _finish(connection: ServerConnection, laws: ServerLaws, stream_id: int, program: int) -> None:
    """The end of a request, in a different way for each number of a program."""
    dead = laws.failed or connection.broken
    if program & 4:
        assert connection.send_log(stream_id, "the last words") == b""
    if program & 8:
        _tell(connection, laws, stream_id, connection.fail(stream_id))
    else:
        _tell(connection, laws, stream_id, connection.send_body(stream_id, b"body"))
        _tell(connection, laws, stream_id, connection.end(stream_id, program))
    if stream_id in laws.open:  # nothing was sent for it: the connection is no more
        assert dead or connection.closing
        laws.ended(stream_id)


def _tell(connection: ServerConnection, laws: ServerLaws, stream_id: int, sent: bytes) -> None:
    laws.sent(stream_id, sent)
    laws.broken = laws.broken or connection.broken


def main() -> None:
    from fuzz.running import search

    search(check)


if __name__ == "__main__":
    main()
