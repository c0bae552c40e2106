"""One stream of bytes, cut in many ways: what comes out of a connection must not depend on the cuts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from gateways.events import BodyReceived, ConnectionFailed, RequestRefused

E = TypeVar("E", covariant=True)


class Receiver(Protocol[E]):
    def receive_data(self, data: bytes) -> Sequence[E]: ...


def cuts(data: bytes, seed: int = 0) -> Iterator[list[bytes]]:
    """The data whole, byte by byte, and cut at three random sets of places."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    dice = random.Random(seed)
    for _ in range(3):
        at = sorted(dice.sample(range(1, len(data)), min(dice.randint(1, 8), len(data) - 1))) if data else []
        yield cut(data, at)


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """The data cut at some places in ascending order; no piece is empty, for that would be the end of the stream."""
    edges = [0, *at, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


def feed(connection: Receiver[E], pieces: Iterable[bytes]) -> list[E | BodyReceived]:
    """Every event that comes of some pieces, adjacent pieces of a body joined."""
    events: list[E | BodyReceived] = []
    for piece in pieces:
        for event in connection.receive_data(piece):
            last = events[-1] if events else None
            if isinstance(event, BodyReceived) and isinstance(last, BodyReceived):
                assert event.data
                events[-1] = BodyReceived(last.stream_id, last.data + event.data)
            else:
                events.append(event)
    return events


def refusal(events: Sequence[object]) -> tuple[type, int, str]:
    """The error of the one event of a refused request or a failed connection: (event type, status, message)."""
    (event,) = events
    assert isinstance(event, RequestRefused | ConnectionFailed), event
    return type(event), event.error.status, str(event.error)
