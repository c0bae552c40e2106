"""Web-server side of SCGI, without I/O: what a client of an application sends and reads back.

Sections 2 to 4 of the SCGI specification (protocol.txt, 2008-06-23); the answer is by custom a CGI response (RFC 3875
section 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateways._model.dialects.cgi import parse_head
from gateways._model.environ import parse_length
from gateways._model.errors import LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
from gateways._model.limits import Limits
from gateways.events import BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, Pairs, ResponseEnded
from gateways.scgi import wire


class ClientConnection:
    """One SCGI connection, seen from the web server. See :class:`gateways.events.ClientConnection`.

    It carries one request, whose stream_id is 0, and the application ends it by closing the connection.

    >>> connection = ClientConnection()
    >>> connection.send_request(0, {"REQUEST_METHOD": "GET"}) + connection.end_body(0)
    b'43:CONTENT_LENGTH\\x000\\x00SCGI\\x001\\x00REQUEST_METHOD\\x00GET\\x00,'
    """

    first_id = 0

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.reusable = False
        self._limits = Limits() if limits is None else limits
        # "request", "body", then "nothing" is what we may still send; "head", "body", then "nothing" what may come.
        self._sending = "request"
        self._reading = "head"
        self._head_request = False
        self._to_send = 0
        self._buffer = bytearray()
        self._to_come: int | None = None  # None where only the end of the stream ends the body

    def __repr__(self) -> str:
        return f"<scgi.ClientConnection sending {self._sending}, reading {self._reading}>"

    # --- what goes out -----------------------------------------------------------------------------------------------

    def send_request(
        self,
        stream_id: int,
        environ: Mapping[str, str] | Iterable[tuple[str, str]],
        *,
        role: str = "responder",
        keep_connection: bool = False,
    ) -> bytes:
        """The netstring that opens the request, CONTENT_LENGTH first ("0" where there is none) and then SCGI=1.

        ``keep_connection`` is a wish that SCGI cannot grant. Raises LocalProtocolError for a second request, a role
        other than "responder", a CONTENT_LENGTH that is no number, and for variables that the wire cannot carry: see
        :func:`gateways.scgi.wire.encode_request`.
        """
        self._check(stream_id, "request")
        if role != "responder":
            raise LocalProtocolError(f"SCGI has no role {role!r}, only responder")
        pairs = as_pairs(environ)
        data = wire.encode_request(pairs)
        values = dict(pairs)
        self._to_send = int(values.get("CONTENT_LENGTH") or 0)
        self._head_request = values.get("REQUEST_METHOD") == "HEAD"
        self._sending = "body"
        return data

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """The data as it is. Raises LocalProtocolError for more than CONTENT_LENGTH announced (section 3)."""
        self._check(stream_id, "body")
        if len(data) > self._to_send:
            raise LocalProtocolError(f"{len(data) - self._to_send} bytes more than CONTENT_LENGTH announced")
        self._to_send -= len(data)
        return data

    def end_body(self, stream_id: int) -> bytes:
        """Nothing: CONTENT_LENGTH has said where the body ends. Raises LocalProtocolError where it has not."""
        self._check(stream_id, "body")
        if self._to_send:
            raise LocalProtocolError(f"{self._to_send} bytes fewer than CONTENT_LENGTH announced")
        self._sending = "nothing"
        return b""

    def abort(self, stream_id: int) -> bytes:
        """Nothing: only closing the connection tells the application. Raises LocalProtocolError without a request."""
        self._check(stream_id, "body", "nothing")
        self._sending = "nothing"
        return b""

    def _check(self, stream_id: int, *allowed: str) -> None:
        if stream_id != 0:
            raise LocalProtocolError(f"the one request of an SCGI connection is stream 0, not {stream_id}")
        if self._sending not in allowed:
            due = {"request": "no request was sent yet", "body": "the request was sent already"}
            raise LocalProtocolError(due.get(self._sending, "the request has ended"))

    # --- what comes in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the application, split anywhere; ``b""`` is the end of the stream and of the response.

        Never raises for them: an answer that is no CGI response, or that is shorter than its Content-Length, is a
        ConnectionFailed with status 502. What goes beyond its Content-Length is cut, as nginx and lighttpd do.
        """
        try:
            match self._reading:
                case "head":
                    return self._take_head(data)
                case "body":
                    return self._take_body(data)
                case _:
                    return []
        except RemoteProtocolError as error:
            self._reading = "nothing"
            return [ConnectionFailed(error)]

    def _take_head(self, data: bytes) -> list[ClientEvent]:
        self._buffer += data
        found = parse_head(self._buffer, self._limits.max_head)
        if found is None:
            if not data:
                raise RemoteProtocolError(
                    f"the application closed after {len(self._buffer)} bytes of a response head", status=502
                )
            return []
        status, reason, headers, end = found
        if not self._head_request and status not in (204, 304):
            self._to_come = _content_length(headers)
        rest = bytes(self._buffer[end:])
        self._buffer = bytearray()
        self._reading = "body"
        return [HeadReceived(0, status, reason, headers), *(self._take_body(rest) if rest else ())]

    def _take_body(self, data: bytes) -> list[ClientEvent]:
        if not data:
            if self._to_come:
                raise RemoteProtocolError(
                    f"the application closed {self._to_come} bytes before the end of its response", status=502
                )
            self._reading = "nothing"
            return [ResponseEnded(0)]
        if self._to_come is not None:
            data = data[: self._to_come]
            self._to_come -= len(data)
        return [BodyReceived(0, data)] if data else []


def _content_length(headers: Pairs) -> int | None:
    """How long a response says it is, None where it does not. Raises RemoteProtocolError where that is no length."""
    values = sorted({value for name, value in headers if name.lower() == "content-length"})
    if not values:
        return None
    try:
        (value,) = values
        return parse_length(value)
    except (ValueError, RemoteProtocolError):
        said = " and ".join([repr(value[:40]) for value in values[:2]])
        raise RemoteProtocolError(f"the Content-Length of a response is {said}", status=502) from None
