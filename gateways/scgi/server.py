"""Application side of SCGI, without I/O: one request, then its answer, then the end of the connection.

Sections 2 to 4 of the SCGI specification (protocol.txt, 2008-06-23).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateways._model.environ import scgi_length
from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
from gateways._model.limits import Limits
from gateways.events import (
    BodyEnded,
    BodyReceived,
    ConnectionFailed,
    Event,
    RequestAborted,
    RequestReceived,
    RequestRefused,
)
from gateways.scgi import wire

#: The same for every connection, whose one request is 0.
_BODY_ENDED = BodyEnded(0)


class ServerConnection:
    """One SCGI connection, seen from the application. See :class:`gateways.events.ServerConnection`.

    Every stream_id is 0 and every request a responder's: SCGI knows no others, whatever ``roles`` offers. Without
    ``strict`` a request is taken as real servers send them: CONTENT_LENGTH anywhere, empty or absent (0), repeated
    names, no SCGI field. With it they are refused with 400.

    >>> connection = ServerConnection()
    >>> connection.receive_data(b"24:CONTENT_LENGTH\\x002\\x00SCGI\\x001\\x00,")
    [RequestReceived(stream_id=0, role='responder', environ={'CONTENT_LENGTH': '2', 'SCGI': '1'}, \
keep_connection=False)]
    >>> connection.receive_data(b"hi")
    [BodyReceived(stream_id=0, data=b'hi'), BodyEnded(stream_id=0)]
    """

    name = "scgi"
    shared = False

    __slots__ = (
        "_body_left",
        "_buffer",
        "_headers_at",
        "_headers_end",
        "_limits",
        "_reading",
        "_sending",
        "_strict",
        "broken",
        "closing",
        "expecting",
    )

    def __init__(
        self, *, limits: Limits | None = None, roles: Iterable[str] = ("responder",), strict: bool = False
    ) -> None:
        self.expecting: tuple[int, ...] = ()
        self.closing = False
        self.broken = False
        self._limits = Limits() if limits is None else limits
        self._strict = strict
        # What has come: "length", "headers", "body", then "rest", which is never looked at.
        self._reading = "length"
        # A request that is not whole yet, and nothing else ever.
        self._buffer: bytearray | None = None
        self._headers_at = 0  # where the header block begins
        self._headers_end = 0  # where its comma is
        self._body_left = 0
        # What may go: nothing while "idle", a "head" once there is a request, then "body", until it "ended".
        self._sending = "idle"

    def __repr__(self) -> str:
        closing = ", broken" if self.broken else ", closing" if self.closing else ""
        return f"<scgi.ServerConnection reading {self._reading}, sending {self._sending}{closing}>"

    # --- what comes in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the web server, split anywhere; ``b""`` is the end of the stream.

        Never raises for them. Bytes behind the body are dropped unread: they are no second request, and what nginx
        sends there with ``scgi_request_buffering off`` is the rest of a body it announced too short.
        """
        if not data:
            return self._end_of_stream()
        if self._reading == "body":
            return self._take_body(data)
        if self._reading == "rest":
            return []
        try:
            return self._take_netstring(data)
        except RemoteProtocolError as error:
            self._drop_input()
            self.closing = True
            return [ConnectionFailed(error)]

    def _end_of_stream(self) -> list[Event]:
        # Before the request is known this is a health check or a web server that thought better of it. After that it
        # is the client that left: SCGI has no other way to say so.
        gone = self._sending in ("head", "body") and not self.closing
        self._drop_input()
        self.closing = True
        return [RequestAborted(0)] if gone else []

    def _drop_input(self) -> None:
        self._reading = "rest"
        self._forget()

    def _forget(self) -> None:
        self._buffer = None
        self.expecting = ()

    def _keep(self, data: bytes | bytearray) -> list[Event]:
        if self._buffer is None:
            self._buffer = bytearray(data)
            self.expecting = (0,)
        return []

    def _take_netstring(self, data: bytes | bytearray) -> list[Event]:
        """Look for the header block in the data. Raises RemoteProtocolError where no netstring is."""
        if self._buffer is not None:
            self._buffer += data
            data = self._buffer
        if self._reading == "length":
            found = wire.read_length(data)
            if found is None:
                return self._keep(data)
            length, start = found
            limit = self._limits.max_params_bytes
            if length > limit:
                # Nothing of the block is read, kept or waited for, and a web server still learns why.
                return self._refuse(
                    LimitExceeded(f"{length} bytes of headers, the limit max_params_bytes is {limit}", status=431)
                )
            end = start + length
            if len(data) <= end:
                self._headers_at, self._headers_end, self._reading = start, end, "headers"
                return self._keep(data)
        else:
            start, end = self._headers_at, self._headers_end
            if len(data) <= end:
                return self._keep(data)
        wire.check_comma(data[end])
        if isinstance(data, bytes):  # it came in one piece
            return self._take_headers(data[start:end], data[end + 1 :])
        self._forget()
        return self._take_headers(bytes(data[start:end]), bytes(data[end + 1 :]))

    def _take_headers(self, block: bytes, rest: bytes) -> list[Event]:
        try:
            variables = wire.decode_headers(block, self._limits.max_params)
            length = scgi_length(variables)
            if self._strict:
                pairs = as_pairs(variables)
                wire.check_strict(pairs)
                if length != scgi_length(pairs[:1]):
                    raise RemoteProtocolError(f"CONTENT_LENGTH is {pairs[0][1]}, but the client announced {length}")
        except RemoteProtocolError as error:
            return self._refuse(error)
        self._sending = "head"
        received = RequestReceived(0, "responder", variables, False)
        if not length:
            self._reading = "rest"
            return [received, _BODY_ENDED]
        self._reading = "body"
        self._body_left = length
        return [received, *self._take_body(rest)]

    def _refuse(self, error: RemoteProtocolError) -> list[Event]:
        self._drop_input()
        self._sending = "head"
        return [RequestRefused(0, "responder", error)]

    def _take_body(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if data and self._body_left:
            data = data[: self._body_left]
            self._body_left -= len(data)
            events.append(BodyReceived(0, data))
        if not self._body_left:
            self._reading = "rest"
            events.append(_BODY_ENDED)
        return events

    # --- what goes out -----------------------------------------------------------------------------------------------

    def send_head(self, stream_id: int, head: bytes) -> bytes:
        """The head as it is: SCGI does not frame responses (section 2).

        Raises LocalProtocolError before there is a request, for a second head, and after the end.
        """
        self._check(stream_id, "head")
        self._sending = "body"
        return head

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """The data as it is. Raises LocalProtocolError before the head and after the end."""
        self._check(stream_id, "body")
        return data

    def answer(self, stream_id: int, head: bytes, body: bytes, status: int = 0) -> bytes:
        """A whole answer as it is: the same as ``send_head``, ``send_body`` and ``end``.

        Raises LocalProtocolError before there is a request, after a head, and after the end.
        """
        self._check(stream_id, "head")
        self._sending = "ended"
        self.closing = True
        return head + body

    def send_log(self, stream_id: int, text: str) -> bytes:
        """Nothing: SCGI has no channel for the error log of the web server.

        Raises LocalProtocolError before there is a request and after the end.
        """
        self._check(stream_id, "head", "body")
        return b""

    def end(self, stream_id: int, status: int = 0) -> bytes:
        """End the answer by ending the connection; SCGI cannot carry ``status``.

        Without a head before it this gives up a request that was aborted. Raises LocalProtocolError before there is a
        request and after the end.
        """
        self._check(stream_id, "head", "body")
        self._sending = "ended"
        self.closing = True
        return b""

    def fail(self, stream_id: int) -> bytes:
        """End a broken answer: only a reset tells the web server, and on unix sockets nothing does.

        Raises LocalProtocolError before there is a request and after the end.
        """
        self.end(stream_id)
        self.broken = True
        return b""

    def data_to_send(self) -> bytes:
        """Nothing, ever: SCGI itself answers nothing."""
        return b""

    def _check(self, stream_id: int, *allowed: str) -> None:
        if stream_id != 0:
            raise LocalProtocolError(f"the one request of an SCGI connection is stream 0, not {stream_id}")
        if self._sending not in allowed:
            due = {"idle": "no request is in", "head": "the head is due", "body": "the head was sent"}
            raise LocalProtocolError(due.get(self._sending, "the answer has ended"))
