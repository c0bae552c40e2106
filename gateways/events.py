"""What a gateway protocol says to the code above it, and the interfaces that speak it.

Every protocol, whatever its wire looks like, turns received bytes into the events below and takes calls that
return bytes to send. ``stream_id`` tells apart the requests of one connection (the request id of FastCGI; always
0 where a connection carries one request at a time). No I/O happens here and there is no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from gateways._model.errors import RemoteProtocolError
from gateways._model.headers import as_pairs

__all__ = [
    "BodyEnded",
    "BodyReceived",
    "ClientConnection",
    "ClientEvent",
    "ConnectionFailed",
    "DataEnded",
    "DataReceived",
    "Event",
    "HeadReceived",
    "LogReceived",
    "Pairs",
    "RequestAborted",
    "RequestReceived",
    "RequestRefused",
    "ResponseEnded",
    "ResponseFailed",
    "ServerConnection",
    "Variables",
]

#: Meta-variables as they came: (name, value) in wire order, repeats kept, UTF-8 with surrogateescape.
Pairs = tuple[tuple[str, str], ...]
#: The same, as a mapping in wire order where no name came twice; whoever gets it may keep it, but not change it.
Variables = Mapping[str, str] | Pairs


if TYPE_CHECKING:
    from attrs import frozen as _event
else:
    # Frozen for those who check types. To have it checked at run time makes each event three times as dear.
    _event = attrs.define(unsafe_hash=True)


@_event
class RequestReceived:
    """All meta-variables of a request are in. ``role`` is "responder", "authorizer" or "filter"."""

    stream_id: int
    role: str
    environ: Variables = attrs.field(eq=as_pairs)
    keep_connection: bool


@_event
class RequestRefused:
    """A request cannot be built from what came, but its sender can still be answered with ``error.status``.

    The stream stays open for the answer, just as after :class:`RequestReceived`.
    """

    stream_id: int
    role: str
    error: RemoteProtocolError = attrs.field(eq=str)


@_event
class BodyReceived:
    """Some bytes of a body, never empty: the request's on the server side, the response's on the client side."""

    stream_id: int
    data: bytes


@_event
class BodyEnded:
    """The end of the request body. Whether it is as long as announced is for the model to say."""

    stream_id: int


@_event
class DataReceived:
    """Some bytes of the file that a filter works on, never empty (FastCGI section 6.4)."""

    stream_id: int
    data: bytes


@_event
class DataEnded:
    """The end of the file that a filter works on."""

    stream_id: int


@_event
class RequestAborted:
    """Nobody waits for this request any more: the peer said so, or left."""

    stream_id: int


@_event
class HeadReceived:
    """Client side: the response head, parsed. ``status`` is from the Status field (200, or 302 with Location)."""

    stream_id: int
    status: int
    reason: str
    headers: Pairs


@_event
class LogReceived:
    """Client side: bytes for the error log (FCGI_STDERR), never empty."""

    stream_id: int
    data: bytes


@_event
class ResponseEnded:
    """Client side: the response is complete. ``app_status`` is what a program would have passed to exit()."""

    stream_id: int
    app_status: int = 0


@_event
class ResponseFailed:
    """Client side: the last event of a response that is not whole, or was refused. Others on the connection go on.

    ``error.status`` is what to answer with: 503 where the application is too busy, else 502.
    """

    stream_id: int
    error: RemoteProtocolError = attrs.field(eq=str)


@_event
class ConnectionFailed:
    """The peer broke the protocol; the last event of a connection. Close it after flushing.

    On the client side every response that has not ended has failed with it.
    """

    error: RemoteProtocolError = attrs.field(eq=str)


Event = (
    RequestReceived
    | RequestRefused
    | BodyReceived
    | BodyEnded
    | DataReceived
    | DataEnded
    | RequestAborted
    | ConnectionFailed
)
ClientEvent = HeadReceived | BodyReceived | LogReceived | ResponseEnded | ResponseFailed | ConnectionFailed


class ServerConnection(Protocol):
    """One byte stream seen from the application: what a new protocol has to write.

    The constructor takes the keywords ``limits`` (:class:`~gateways.Limits`), ``roles`` (the roles on offer) and
    ``strict`` (whether to insist on the letter of the specification).

    A protocol that keeps connections also has ``retire(environ=None)``, which the others can do without. It is called,
    as often as may be, when the server stops: ``closing`` is to be true with the end of the last request that is there
    or still comes, and the peer is to be told, as far as that can be said. ``environ`` is that of a request of this
    peer, if one is known.

    One whose ``send_body`` copies the data may have ``frame_body(stream_id, data)`` as well: the same bytes as a list
    of pieces, with the data itself in them. Large bodies are sent that way.
    """

    @property
    def name(self) -> str:
        """The gateway protocol, as :attr:`gateways.Request.protocol` tells it."""
        ...

    @property
    def closing(self) -> bool:
        """Whether to close the stream once everything was sent, after a bounded drain."""
        ...

    @property
    def broken(self) -> bool:
        """Whether to cut the stream (a reset on TCP), so that a broken answer is not taken for a complete one."""
        ...

    @property
    def shared(self) -> bool:
        """Whether the peer is about to begin requests beside others, so that the stream should be read on although the
        body of one is not."""
        ...

    @property
    def expecting(self) -> Collection[int]:
        """The stream_ids of requests that have begun to arrive and whose meta-variables are not all in: their deadlines
        run. 0 stands for bytes that tell of no request yet."""
        ...

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, split anywhere; ``b""`` is the end of the stream. Never raises for them."""
        ...

    def send_head(self, stream_id: int, head: bytes) -> bytes:
        """Bytes that carry a whole CGI response head, blank line included."""
        ...

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the response body; ``b""`` sends nothing and ends nothing."""
        ...

    def send_log(self, stream_id: int, text: str) -> bytes:
        """Bytes that carry text for the web server's error log; ``b""`` where there is no such channel."""
        ...

    def end(self, stream_id: int, status: int = 0) -> bytes:
        """End a response that is complete, or a request that was aborted. ``status`` is 0 to 2**32 - 1."""
        ...

    def answer(self, stream_id: int, head: bytes, body: bytes, status: int = 0) -> bytes:
        """A whole response at once: the same as ``send_head``, ``send_body`` and ``end``, in as few bytes as may be."""
        ...

    def fail(self, stream_id: int) -> bytes:
        """End a response that broke after its head, as visibly as the protocol can: see ``broken``."""
        ...

    def data_to_send(self) -> bytes:
        """Answers the protocol itself makes, each handed out once.

        They go out before anything is done about the events of the same ``receive_data``: the end of an aborted
        request and a new request with its id may come in one piece.
        """
        ...


class ClientConnection(Protocol):
    """One byte stream seen from the web server."""

    @property
    def first_id(self) -> int:
        """The stream_id of the first request on a connection."""
        ...

    @property
    def reusable(self) -> bool:
        """Whether the stream can carry another request once this one has ended."""
        ...

    def send_request(
        self,
        stream_id: int,
        environ: Mapping[str, str] | Iterable[tuple[str, str]],
        *,
        role: str = "responder",
        keep_connection: bool = False,
    ) -> bytes:
        """Bytes that open a request. Values of the wrong kind raise LocalProtocolError."""
        ...

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """Bytes that carry some of the request body; ``b""`` sends nothing and ends nothing."""
        ...

    def end_body(self, stream_id: int) -> bytes:
        """Bytes that end the request body."""
        ...

    def abort(self, stream_id: int) -> bytes:
        """Bytes that ask the application to stop; ``b""`` where only closing the stream says that."""
        ...

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the application; ``b""`` is the end of the stream."""
        ...
