"""What the tests of FastCGI share: records made without the library, and every way to split a stream."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from gateways.events import (
    BodyReceived,
    ConnectionFailed,
    DataReceived,
    LogReceived,
    RequestRefused,
    ResponseFailed,
)
from gateways.fastcgi import ServerConnection

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, RESULT, UNKNOWN = range(1, 12)
KEEP = 1


def rec(kind: int, stream_id: int, content: bytes = b"", padding: int = 0, version: int = 1) -> bytes:
    """One record as the specification draws it."""
    return struct.pack(">BBHHBB", version, kind, stream_id, len(content), padding, 0) + content + b"\xaa" * padding


def begin(stream_id: int = 1, role: int = 1, flags: int = KEEP) -> bytes:
    return rec(BEGIN, stream_id, struct.pack(">HB5x", role, flags))


def end(stream_id: int = 1, app_status: int = 0, status: int = 0) -> bytes:
    return rec(END, stream_id, struct.pack(">IB3x", app_status, status))


def pair(name: bytes, value: bytes, long: bool = False) -> bytes:
    """One name-value pair; ``long`` uses four bytes for lengths that need but one."""
    lengths = b"".join(
        struct.pack(">I", len(text) | 0x80000000) if long or len(text) > 127 else bytes([len(text)])
        for text in (name, value)
    )
    return lengths + name + value


GET = pair(b"REQUEST_METHOD", b"GET")
ENVIRON = (("REQUEST_METHOD", "GET"),)


def request(
    stream_id: int = 1, params: bytes = GET, body: bytes | None = b"", role: int = 1, flags: int = KEEP
) -> bytes:
    """A request as nginx frames it; a body of None is one that does not end."""
    data = begin(stream_id, role, flags)
    if params:
        data += rec(PARAMS, stream_id, params)
    data += rec(PARAMS, stream_id)
    if body is None:
        return data
    if body:
        data += rec(STDIN, stream_id, body)
    return data + rec(STDIN, stream_id)


@attrs.frozen
class Failed:
    """Stands for a ConnectionFailed whose message holds a text."""

    text: str
    status: int = 400


@attrs.frozen
class Broken:
    """Stands for a ResponseFailed whose message holds a text."""

    stream_id: int
    text: str
    status: int = 502


@attrs.frozen
class Refused:
    """Stands for a RequestRefused whose message holds a text."""

    stream_id: int
    status: int
    text: str
    role: str = "responder"


def matches(event: object, expected: object) -> bool:
    match expected:
        case Failed(text, status):
            return isinstance(event, ConnectionFailed) and text in str(event.error) and event.error.status == status
        case Broken(stream_id, text, status):
            return (
                isinstance(event, ResponseFailed)
                and (event.stream_id, event.error.status) == (stream_id, status)
                and text in str(event.error)
            )
        case Refused(stream_id, status, text, role):
            return (
                isinstance(event, RequestRefused)
                and (event.stream_id, event.error.status, event.role) == (stream_id, status, role)
                and text in str(event.error)
            )
        case _:
            return event == expected


def joined(events: list[Any]) -> list[Any]:
    """The events with adjacent pieces of the same body put together."""
    result: list[Any] = []
    for event in events:
        last: Any = result[-1] if result else None
        if (
            isinstance(event, (BodyReceived, DataReceived, LogReceived))
            and type(last) is type(event)
            and last.stream_id == event.stream_id
        ):
            result[-1] = attrs.evolve(last, data=last.data + event.data)
        else:
            result.append(event)
    return result


def splits(data: bytes) -> Iterator[list[bytes]]:
    """A stream whole, byte by byte (where it is short), and in random pieces."""
    yield [data]
    if len(data) < 5000:
        yield [data[i : i + 1] for i in range(len(data))]
    chance = random.Random(len(data))
    for count in (1, 2, 5, 30):
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(count))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        yield [piece for piece in pieces if piece]  # an empty piece would be the end of the stream


def feed(connection: Any, pieces: list[bytes]) -> list[Any]:
    return joined([event for piece in pieces for event in connection.receive_data(piece)])


def check_events(make: Callable[[], Any], data: bytes, expected: list[Any]) -> Any:
    """Feed a stream in every way, compare the events, and give back the connection that got it whole."""
    connections: list[Any] = []
    for pieces in splits(data):
        connection = make()
        connections.append(connection)
        events = feed(connection, pieces)
        assert len(events) == len(expected), events
        for event, wanted in zip(events, expected, strict=True):
            assert matches(event, wanted), (event, wanted)
    return connections[0]


def check(
    data: bytes,
    expected: list[Any],
    *,
    sent: bytes = b"",
    closing: bool | None = None,
    **options: Any,
) -> ServerConnection:
    """What a server makes of a stream, however it is split: its events, its own answers, whether it closes."""
    made: list[ServerConnection] = []

    def make() -> ServerConnection:
        made.append(ServerConnection(**options))
        return made[-1]

    check_events(make, data, expected)
    wanted = isinstance(expected[-1], Failed) if closing is None and expected else bool(closing)
    outcomes = {(c.closing, c.statistics(), repr(c)) for c in made}
    assert len(outcomes) == 1
    assert {c.closing for c in made} == {wanted}
    assert not any(c.broken for c in made)
    for connection in made:
        assert connection.data_to_send() == sent
        assert connection.data_to_send() == b""
    return made[0]
