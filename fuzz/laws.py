"""What holds for a FastCGI connection whatever comes in and whatever the program does: the laws, watched from outside.

No connection is trusted here, and none of its code is used: records are cut up anew. A law that is broken is an
AssertionError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from gateways.events import (
    BodyEnded,
    BodyReceived,
    ConnectionFailed,
    DataEnded,
    DataReceived,
    HeadReceived,
    LogReceived,
    RequestAborted,
    RequestReceived,
    RequestRefused,
    ResponseEnded,
    ResponseFailed,
)
from tests.fastcgi.tools import END, RESULT, STDERR, STDOUT, UNKNOWN

#: Type, request id, content.
Record = tuple[int, int, bytes]


def records(data: bytes) -> Iterator[Record]:
    """The records in what a connection gave out at once: whole, of version 1, and padded to a multiple of 8."""
    at = 0
    while at < len(data):
        version, kind, stream_id, length, padding, _ = struct.unpack_from(">BBHHBB", data, at)
        at += 8
        assert version == 1
        assert (length + padding) % 8 == 0
        assert at + length + padding <= len(data), "a record is cut short"
        assert not any(data[at + length : at + length + padding])
        yield kind, stream_id, data[at : at + length]
        at += length + padding


class _Open:
    """What was announced of a request that the program has not ended yet."""

    def __init__(self, role: str, stage: str) -> None:
        self.role = role
        #: "body", "data", "over" (all of the input was announced) or "aborted"
        self.stage = stage
        self.stdout_ended = False
        self.stderr_ended = False
        self.stderr_used = False


class ServerLaws:
    """Watches one ServerConnection: tell it every event and every byte, in their order."""

    def __init__(self) -> None:
        #: the requests that can be answered: announced, and not ended
        self.open: dict[int, _Open] = {}
        #: ids that were ended, once each
        self.ends = 0
        self.failed = False
        self.broken = False

    def saw(self, events: Iterable[Any]) -> None:
        """Events come in the order of the streams, for requests that are open, and none follows a failure."""
        for event in events:
            assert not self.failed, f"{event} after the failure of the connection"
            match event:
                case ConnectionFailed():
                    assert event.error.status >= 400
                    assert all(request.stage == "aborted" for request in self.open.values())
                    self.failed = True
                case RequestReceived() | RequestRefused():
                    assert 1 <= event.stream_id <= 65535
                    assert event.stream_id not in self.open, f"{event} for a request that is open"
                    stage = "over" if isinstance(event, RequestRefused) else "body"
                    self.open[event.stream_id] = _Open(event.role, stage)
                case _:
                    request = self.open[event.stream_id]
                    assert request.stage != "aborted", f"{event} after RequestAborted"
                    match event:
                        case RequestAborted():
                            request.stage = "aborted"
                        case BodyReceived():
                            assert event.data
                            assert (request.stage, request.role == "authorizer") == ("body", False), event
                        case BodyEnded():
                            assert request.stage == "body", event
                            request.stage = "data" if request.role == "filter" else "over"
                        case DataReceived():
                            assert event.data
                            assert request.stage == "data", event
                        case DataEnded():
                            assert request.stage == "data", event
                            request.stage = "over"
                        case _:
                            raise AssertionError(f"{event} is no event of a server")

    def made(self, data: bytes) -> list[Record]:
        """What the protocol answers by itself: management records, and the end of what was never announced, for an
        authorizer with a denial.

        It goes out before anything is done about the events that came with it: an id may end and begin again in them.
        """
        answers = list(records(data))
        denied: int | None = None
        for kind, stream_id, content in answers:
            assert not self.broken
            assert denied in (None, stream_id), f"the denial of request {denied} does not end"
            if kind in (STDOUT, END):
                assert stream_id not in self.open, f"an answer to request {stream_id}, which is open"
                denied = stream_id
            else:
                assert (kind in (RESULT, UNKNOWN), stream_id) == (True, 0), (kind, stream_id)
            if kind == END:
                app_status, status = struct.unpack(">IB3x", content)
                assert app_status == 0
                assert 0 <= status <= 3
                denied = None
        assert denied is None
        return answers

    def sent(self, stream_id: int, data: bytes) -> list[Record]:
        """What a call for an open request gave out: records of this request alone, none after its END_REQUEST, and
        STDERR never alone."""
        answers = list(records(data))
        kinds = [kind for kind, _, _ in answers]
        if kinds == [UNKNOWN]:  # goes before a reset
            return answers
        assert STDERR not in kinds or kinds[-1] in (STDOUT, END), kinds
        for kind, answered, content in answers:
            assert (answered, self.broken) == (stream_id, False)
            request = self.open[stream_id]  # and so nothing comes after END_REQUEST
            if kind == STDOUT:
                assert not request.stdout_ended
                request.stdout_ended = not content
            elif kind == STDERR:
                assert not request.stderr_ended
                request.stderr_ended = not content
                request.stderr_used = True
            else:
                assert (kind, len(content)) == (END, 8)
                if request.stdout_ended:
                    assert request.stderr_ended == request.stderr_used
                else:
                    assert struct.unpack(">IB3x", content) == (1, 0), "an end that makes half an answer look whole"
                self.ended(stream_id)
        return answers

    def ended(self, stream_id: int) -> None:
        """The program has ended a request: nothing more is seen or sent of it."""
        del self.open[stream_id]
        self.ends += 1


class ClientLaws:
    """Watches one ClientConnection: tell it every request and every event, in their order."""

    def __init__(self, max_log: int) -> None:
        self.max_log = max_log
        #: id -> "head", "body", or "over" once nothing more may be announced
        self.stages: dict[int, str] = {}
        self.logged: dict[int, int] = {}
        #: requests that were given up: the only ones that may end without a head
        self.aborted: set[int] = set()
        self.failed = False

    def asked(self, stream_id: int) -> None:
        self.stages[stream_id] = "head"
        self.logged[stream_id] = 0
        self.aborted.discard(stream_id)

    def saw(self, events: Iterable[Any]) -> None:
        """A head, then a body, then one end or failure, for requests that were made; none follows a failure."""
        for event in events:
            assert not self.failed, f"{event} after the failure of the connection"
            if isinstance(event, ConnectionFailed):
                assert event.error.status >= 500
                self.failed = True
                continue
            stage = self.stages[event.stream_id]
            assert stage != "over", f"{event} after the end of the response"
            match event:
                case HeadReceived():
                    assert (stage, 200 <= event.status <= 599) == ("head", True), event
                    self.stages[event.stream_id] = "body"
                case BodyReceived():
                    assert event.data
                    assert stage == "body", event
                case LogReceived():
                    assert event.data
                    self.logged[event.stream_id] += len(event.data)
                    assert self.logged[event.stream_id] <= self.max_log
                case ResponseEnded() | ResponseFailed():
                    whole = stage == "body" or event.stream_id in self.aborted
                    assert whole or isinstance(event, ResponseFailed), f"{event} without a head"
                    self.stages[event.stream_id] = "over"
                case _:
                    raise AssertionError(f"{event} is no event of a client")
