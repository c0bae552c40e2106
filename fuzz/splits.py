"""Any stream gives equal events however it is split: streams by chance, valid and broken, each whole and in pieces.

    python -m fuzz.splits --rounds 1000000 [--seed 7]
    python -m fuzz.splits --replay '{"side": "server", ...}'

A *script* is what happens to one connection, in order: bytes that arrive, and calls of the program. It is played with
its bytes whole, then cut at random places. Everything that can be seen must be equal: events with the pieces of a body
joined, what the calls gave, what there is to send, and the state of the connection. One round is one script cut one
way. Exits with status 1, a script and the way to replay it if a round fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from gateways import Limits, LocalProtocolError
from gateways.events import ConnectionFailed
from gateways.fastcgi import ClientConnection, ServerConnection
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    DATA,
    GET,
    GET_VALUES,
    KEEP,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    begin,
    end,
    joined,
    pair,
    rec,
)

#: A method of the connection and its arguments. Bytes are written as text, in Latin-1, so that JSON can hold them.
Call = tuple[str, ...] | tuple[Any, ...]
Step = bytes | Call

#: How often a script is cut before another one is made: making one costs more than playing it.
CUTS: Final = 8

#: Arguments that are bytes, by method.
_TAKES_BYTES: Final = frozenset({"receive_data", "send_head", "send_body", "send_data"})


@attrs.frozen
class Script:
    """What happens to one connection: bytes arrive, and the program calls methods."""

    side: str
    options: dict[str, Any]
    steps: tuple[Step, ...]

    def connection(self) -> Any:
        """A fresh connection of the side that is tested."""
        options = dict(self.options)
        limits = Limits(**options.pop("limits", {}))
        make: Callable[..., Any] = ServerConnection if self.side == "server" else ClientConnection
        return make(limits=limits, **options)


@attrs.frozen
class Failure:
    """A script that shows a difference: ``places`` are the cuts of each step that is bytes."""

    script: Script
    places: list[list[int]]
    whole: object
    cut: object

    def __str__(self) -> str:
        stream = b"".join(step for step in self.script.steps if isinstance(step, bytes))
        return "\n".join(
            (
                f"{self.script.side}: different when cut",
                f"stream: {stream.hex()}",
                f"cuts:   {self.places}",
                f"whole:  {self.whole}",
                f"cut:    {self.cut}",
                f"replay: python -m fuzz.splits --replay '{dumps(self.script, self.places)}'",
            )
        )


@attrs.frozen
class Summary:
    """What a run did. ``failed`` counts the rounds, not the scripts, whose connection failed: broken input."""

    rounds: int
    streams: int
    events: int
    failed: int
    seconds: float
    seed: int
    failure: Failure | None = None

    def __str__(self) -> str:
        verdict = "FAILED" if self.failure else "all equal"
        return (
            f"{self.rounds} rounds of {self.streams} streams, {self.events} events, {self.failed} rounds of broken "
            f"streams: {verdict} in {self.seconds:.1f} s, seed {self.seed}"
        )


# --- Playing --------------------------------------------------------------------------------------------------------


def play(script: Script, places: Sequence[Sequence[int]] | None = None) -> list[Any]:
    """What there is to see of a script, step by step; ``places`` are the cuts of each step that is bytes."""
    connection = script.connection()
    server = script.side == "server"
    seen: list[Any] = []
    at = 0
    for step in script.steps:
        if isinstance(step, bytes):
            if places is None or not places[at]:
                events = connection.receive_data(step)
            else:
                events = []
                start = 0
                for place in places[at]:
                    events += connection.receive_data(step[start:place])
                    start = place
                events += connection.receive_data(step[start:])
            at += 1
        else:
            events = call(connection, *step)
        seen.append(events)
        if server:
            expecting = None if connection.closing else list(connection.expecting)
            seen.append(
                (
                    connection.data_to_send(),
                    connection.closing,
                    connection.broken,
                    connection.statistics(),
                    expecting,
                )
            )
        else:
            seen.append((connection.reusable, repr(connection)))
    if not server:
        seen.append(connection.values)
    return seen


def call(connection: Any, name: str, *arguments: Any) -> Any:
    """What a call gives, or the words of its error."""
    if name in _TAKES_BYTES:
        arguments = tuple(part.encode("latin-1") if isinstance(part, str) else part for part in arguments)
    try:
        if name == "send_request":
            stream_id, role, keep = arguments
            return connection.send_request(stream_id, {"REQUEST_METHOD": "GET"}, role=role, keep_connection=keep)
        return getattr(connection, name)(*arguments)
    except LocalProtocolError as error:
        return str(error)


def tidy(seen: list[Any]) -> list[Any]:
    """The same with the pieces of a body joined, and the status of each error, which events do not compare."""
    return [
        [(event, _status(event)) for event in joined(entry)] if isinstance(entry, list) else entry for entry in seen
    ]


def _status(event: Any) -> Any:
    error = getattr(event, "error", None)
    return error and (type(error).__name__, error.status)


def compare(script: Script, places: Sequence[Sequence[int]], whole: list[Any]) -> tuple[object, object] | None:
    """The first thing in which a script, cut, is not what it is when whole; None where nothing is."""
    cut = tidy(play(script, places))
    for entry, wanted in zip(cut, whole, strict=True):
        if entry != wanted:
            return wanted, entry
    return None


def run(rounds: int, seed: int) -> Summary:
    """Play random scripts. The same seed gives the same rounds."""
    dice = random.Random(seed)
    began = time.perf_counter()
    done = streams = seen_events = failed = 0
    failure: Failure | None = None
    while done < rounds and failure is None:
        script = any_script(dice)
        whole = tidy(play(script))
        streams += 1
        events = [event for entry in whole if isinstance(entry, list) for event, _ in entry]
        broken = any(isinstance(event, ConnectionFailed) for event in events)
        for _ in range(min(CUTS, rounds - done)):
            places = [any_cuts(dice, step) for step in script.steps if isinstance(step, bytes)]
            done += 1
            seen_events += len(events)
            failed += broken
            if different := compare(script, places, whole):
                failure = Failure(script, fewest_cuts(script, places, whole), *different)
                break
    return Summary(done, streams, seen_events, failed, time.perf_counter() - began, seed, failure)


def fewest_cuts(script: Script, places: list[list[int]], whole: list[Any]) -> list[list[int]]:
    """Fewer of the cuts that still show a difference, for whoever has to read it."""
    for at, row in enumerate(places):
        for place in list(row):
            fewer = [[other for other in line if (i, other) != (at, place)] for i, line in enumerate(places)]
            if compare(script, fewer, whole):
                places = fewer
    return places


# --- Writing a failure down -----------------------------------------------------------------------------------------


def dumps(script: Script, places: Sequence[Sequence[int]]) -> str:
    """One line that :func:`loads` reads: bytes are hexadecimal text, calls are lists."""
    steps = [step.hex() if isinstance(step, bytes) else list(step) for step in script.steps]
    return json.dumps({"side": script.side, "options": script.options, "steps": steps, "cuts": list(map(list, places))})


def loads(text: str) -> tuple[Script, list[list[int]]]:
    """A script and its cuts, from what :func:`dumps` wrote."""
    row = json.loads(text)
    steps = tuple(bytes.fromhex(step) if isinstance(step, str) else tuple(step) for step in row["steps"])
    return Script(row["side"], row["options"], steps), row["cuts"]


# --- Chance: where to cut -------------------------------------------------------------------------------------------


def any_cuts(dice: random.Random, data: bytes) -> list[int]:
    """Places to cut, ascending, none at the ends: an empty piece would be the end of the stream."""
    length = len(data)
    chance = dice.random()
    if length < 2:
        return []
    if chance < 0.02 and length <= 400:
        return list(range(1, length))
    if chance < 0.25:
        return [1 + int(dice.random() * (length - 1))]
    if chance < 0.35:
        near = _edges(data)
        return sorted({min(max(dice.choice(near) + dice.randint(-1, 1), 1), length - 1) for _ in range(3)})
    return sorted({1 + int(dice.random() * (length - 1)) for _ in range(2 + int(dice.random() * 7))})


def _edges(data: bytes) -> list[int]:
    """Where records begin and contents begin, as far as the stream is one of records."""
    edges = [0]
    at = 0
    while at + 8 <= len(data) and len(edges) < 200:
        length, padding = struct.unpack_from(">HB", data, at + 4)
        edges += at + 8, at + 8 + length
        at += 8 + length + padding
    return edges


# --- Chance: what to cut --------------------------------------------------------------------------------------------


def any_script(dice: random.Random) -> Script:
    """A script for either side; about every third is broken somewhere."""
    return _server_script(dice) if dice.random() < 0.6 else _client_script(dice)


def _server_script(dice: random.Random) -> Script:
    options: dict[str, Any] = {"roles": ["responder", "authorizer", "filter"][: 1 + int(dice.random() * 3)]}
    if dice.random() < 0.2:
        options["strict"] = True
    if dice.random() < 0.5:
        options["limits"] = {
            "max_ids": dice.choice((1, 2, 3, 128)),
            "max_params": dice.choice((3, 1000)),
            "max_params_bytes": dice.choice((40, 100_000)),
            "body_buffer": dice.choice((10, 65_536)),
            "max_stderr": dice.choice((10, 65_536)),
        }
    count = 1 + int(dice.random() * 3)
    ids = [1, 2, 3] if dice.random() < 0.8 else [1, 1, 65_535]
    lanes: list[list[Step]] = [list(_request(dice, stream_id)) for stream_id in ids[:count]]
    if dice.random() < 0.3:
        lanes.append([_management(dice) for _ in range(dice.randint(1, 3))])
    if dice.random() < 0.2:
        lanes.append([_stray(dice) for _ in range(dice.randint(1, 3))])
    if dice.random() < 0.001:
        lanes.append([rec(dice.choice((STDIN, ABORT, STDOUT)), 9) * 1010])
    if dice.random() < 0.0001:
        lanes.append([rec(200, 0) * 17_000])
    return Script("server", options, _steps(dice, lanes))


def _request(dice: random.Random, stream_id: int) -> Iterator[Step]:
    """One request as a web server might send it, and what the program does about it."""
    role = dice.choice((1, 1, 1, 1, 2, 3, 3, 9))
    keep = KEEP if dice.random() < 0.8 else 0
    if dice.random() < 0.05:
        yield rec(BEGIN, stream_id, struct.pack(">HB", role, keep) + bytes(dice.choice((4, 5, 9))), _padding(dice))
    else:
        yield begin(stream_id, role, keep)
    params = b"".join(_pair(dice) for _ in range(dice.choice((0, 1, 2, 5))))
    if dice.random() < 0.1:
        params = params[: int(dice.random() * len(params))]
    steps = [*_stream(dice, PARAMS, stream_id, params)]
    if dice.random() < 0.1:
        steps.insert(dice.randrange(len(steps) + 1), rec(STDIN, stream_id, b"early text"[: dice.randint(0, 10)]))
    steps += _stream(dice, STDIN, stream_id, _text(dice))
    if role == 3:
        steps += _stream(dice, DATA, stream_id, _text(dice))
    if dice.random() < 0.15:
        steps.insert(dice.randrange(len(steps) + 1), rec(ABORT, stream_id, padding=_padding(dice)))
    if dice.random() < 0.5:
        answer = dice.choice(_ANSWERS)
        at = dice.randint(2, max(2, len(steps)))
        yield from steps[:at]
        for name, *arguments in answer:
            yield (name, stream_id, *arguments)
        yield from steps[at:]
    else:
        yield from steps


_ANSWERS: Final[tuple[tuple[tuple[Any, ...], ...], ...]] = (
    (("send_head", "Status: 200 OK\r\n\r\n"), ("send_body", "hello"), ("end", 0)),
    (("send_head", "Status: 200 OK\r\n\r\n"), ("send_log", "something to tell"), ("send_body", ""), ("end", 7)),
    (("send_log", "nothing else to tell"), ("end", 0)),
    (("send_head", "Status: 200 OK\r\n\r\n"), ("fail",)),
    (("send_body", "half"),),
    (("end", 0),),
)


def _client_script(dice: random.Random) -> Script:
    options: dict[str, Any] = {}
    if dice.random() < 0.5:
        options["limits"] = {"max_head": dice.choice((20, 32_768)), "max_stderr": dice.choice((10, 65_536))}
    lanes: list[list[Step]] = [list(_response(dice, i + 1)) for i in range(1 + int(dice.random() * 3))]
    if dice.random() < 0.2:
        lanes.append([_stray(dice) for _ in range(dice.randint(1, 2))])
    if dice.random() < 0.3:
        values = b"".join(pair(name, b"%d" % dice.randint(0, 200)) for name in dice.sample(_VALUES, dice.randint(0, 4)))
        lanes.append([("get_values",), rec(RESULT, 0, values, _padding(dice)), rec(UNKNOWN, 0, bytes(8))])
    if dice.random() < 0.001:
        lanes.append([rec(dice.choice((UNKNOWN, 77)), 0) * 1010])
    return Script("client", options, _steps(dice, lanes))


def _response(dice: random.Random, stream_id: int) -> Iterator[Step]:
    """What the program asks for, and one response as an application might send it."""
    yield (
        "send_request",
        stream_id,
        dice.choice(("responder", "responder", "authorizer", "filter")),
        dice.random() < 0.8,
    )
    if dice.random() < 0.7:
        yield ("end_body", stream_id)
    steps = [*_stream(dice, STDOUT, stream_id, dice.choice(_HEADS) + _text(dice))]
    if dice.random() < 0.3:
        del steps[-1]  # PHP never ends STDOUT
    for _ in range(dice.choice((0, 0, 0, 1, 2))):
        steps.insert(dice.randrange(len(steps) + 1), rec(STDERR, stream_id, _text(dice), _padding(dice)))
    if dice.random() < 0.1:
        steps.insert(dice.randrange(len(steps) + 1), ("abort", stream_id))
    yield from steps
    if dice.random() < 0.95:
        yield end(stream_id, dice.choice((0, 0, 0, 1)), dice.choice((0,) * 20 + (1, 2, 3, 9)))


_HEADS: Final = (
    b"Status: 200 OK\r\n\r\n",
    b"Status: 200 OK\r\n\r\n",
    b"Status: 404 Not Found\nA: b\n\r\n",
    b"Content-Type: text/plain\n\n",
    b"Status: 302 Found\r\nLocation: /x\r\nX-Y: z\r\n\r\n",
    b"Status: 204\r\n\r\n",
    b"Status 200\r\n\r\n",
    b"Status: 99\n\n",
    b"\r\n",
    b"",
)
_VALUES: Final = (b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS", b"OTHER")


def _stream(dice: random.Random, kind: int, stream_id: int, data: bytes) -> list[Step]:
    """The records of one stream with its end, in as many pieces as it likes."""
    pieces: list[Step] = []
    while data:
        size = min(len(data), 65_535)
        if size < 1000 and dice.random() < 0.3:
            size = dice.randint(1, size)
        pieces.append(rec(kind, stream_id, data[:size], _padding(dice)))
        data = data[size:]
    return [*pieces, rec(kind, stream_id, b"", _padding(dice))]


def _steps(dice: random.Random, lanes: list[list[Step]]) -> tuple[Step, ...]:
    """The lanes shuffled together, each in its own order; records that follow each other are one stream of bytes."""
    if dice.random() < 0.5:
        order = [lane for lane in lanes for _ in lane]
        dice.shuffle(order)
        rows = [lane.pop(0) for lane in order]
    else:
        rows = [step for lane in lanes for step in lane]
    if dice.random() < 0.2:
        rows.append(("receive_data", ""))
    steps: list[Step] = []
    for together, group in itertools.groupby(rows, key=lambda step: isinstance(step, bytes)):
        if together:
            steps.append(b"".join(group))  # type: ignore[arg-type]
        else:
            steps += group
    if dice.random() < 0.3:
        at = dice.choice([i for i, step in enumerate(steps) if isinstance(step, bytes)])
        steps[at] = _spoilt(dice, steps[at])  # type: ignore[arg-type]
    return tuple(step for step in steps if step)


def _spoilt(dice: random.Random, data: bytes) -> bytes:
    """One small thing wrong somewhere."""
    at = dice.randrange(len(data))
    match dice.randrange(5):
        case 0:
            return data[:at] + bytes((dice.randrange(256),)) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            return data[:at] + dice.randbytes(dice.randint(1, 9)) + data[at:]
        case _:
            other = dice.randrange(len(data))
            return data[:at] + data[other : other + dice.randint(1, 40)] + data[at:]


def _management(dice: random.Random) -> bytes:
    names = b"".join(pair(name, b"") for name in dice.sample(_VALUES, dice.randint(0, 4)))
    match dice.randrange(4):
        case 0:
            return rec(dice.choice((0, 12, 100, 255)), 0, _text(dice), _padding(dice))
        case 1:
            return rec(GET_VALUES, dice.choice((0, 0, 1)), names[: dice.randint(0, 40)], _padding(dice))
        case _:
            return rec(GET_VALUES, 0, names, _padding(dice))


def _stray(dice: random.Random) -> bytes:
    """A record out of place."""
    return rec(dice.randint(0, 13), dice.choice((0, 1, 2, 4, 65_535)), _text(dice)[:100], _padding(dice))


def _pair(dice: random.Random) -> bytes:
    if dice.random() < 0.4:
        return GET
    long = dice.random() < 0.1
    name = b"X" * dice.choice((0, 1, 3, 127, 128)) if long else b"NAME"
    return pair(name, dice.choice((b"", b"value", b"\xff\xfe", b"v" * 130)), long)


def _text(dice: random.Random) -> bytes:
    """A content of mostly few bytes, rarely as many as a record holds."""
    chance = dice.random()
    if chance < 0.3:
        return b""
    if chance < 0.999:
        return b"0123456789abcdef" * 5 if chance < 0.4 else b"some text"[: 1 + int(chance * 9)]
    return bytes(dice.choice((255, 256, 4096, 65_535)))


def _padding(dice: random.Random) -> int:
    chance = dice.random()
    return 0 if chance < 0.6 else int(chance * 8) if chance < 0.95 else dice.randint(0, 255)


# --- The command ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.splits", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1_000_000, help="scripts played cut, each one way")
    parser.add_argument("--seed", type=int, help="repeat the rounds of an earlier run")
    parser.add_argument("--replay", metavar="JSON", help="play one script, as a failure printed it")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        script, places = loads(options.replay)
        different = compare(script, places, tidy(play(script)))
        print(Failure(script, places, *different) if different else "equal")
        return int(different is not None)
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    summary = run(options.rounds, seed)
    print(summary)
    if summary.failure:
        print(summary.failure)
    return int(summary.failure is not None)


if __name__ == "__main__":
    sys.exit(main())
