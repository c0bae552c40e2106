"""Web server and gateway in one, without I/O: HTTP/1.1 in, the events of a gateway protocol out. For development.

h11 reads and writes HTTP (RFC 9112); this module is what nginx is in production: it makes meta-variables (RFC 3875
section 4.1) of a request and an HTTP response of a CGI response head. One request at a time: browsers do not
pipeline, and a client that does is answered once and disconnected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from email.utils import formatdate

import h11

from gateways._model.dialects.cgi import parse_head
from gateways._model.environ import unquote
from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways._model.headers import HOP_BY_HOP, is_number
from gateways._model.limits import Limits
from gateways.events import (
    BodyEnded,
    BodyReceived,
    ConnectionFailed,
    Event,
    Pairs,
    RequestAborted,
    RequestReceived,
    RequestRefused,
)

SERVER_SOFTWARE = "gateways/dev"


class ServerConnection:
    """One HTTP connection, seen from the application. See :class:`gateways.events.ServerConnection`.

    Every stream_id is 0 and every request a responder's, whatever ``roles`` offers; h11 is strict as it is.
    ``environ`` holds the variables that only the socket knows (REMOTE_ADDR, SERVER_PORT ...); they are added to every
    request and win over what the client said.

    >>> connection = ServerConnection(environ={"REMOTE_ADDR": "127.0.0.1"})
    >>> request, end = connection.receive_data(b"GET /a%20b?c HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    >>> variables = dict(request.environ)
    >>> variables["PATH_INFO"], variables["QUERY_STRING"], variables["REMOTE_ADDR"]
    ('/a b', 'c', '127.0.0.1')
    """

    name = "http"

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        roles: Iterable[str] = (),
        strict: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.shared = False
        self.expecting: tuple[int, ...] = ()
        self.closing = False
        self.broken = False
        self._limits = Limits() if limits is None else limits
        self._environ = dict(environ or {})
        self._http = h11.Connection(h11.SERVER, self._limits.max_params_bytes)
        # What comes: "head", "body", then "rest", which is never looked at.
        self._reading = "head"
        # What may go: nothing while "idle", a "head" once there is a request, then "body".
        self._sending = "idle"
        self._head_bytes = 0
        self._last = False  # nothing is read after this request
        self._to_send = b""

    def __repr__(self) -> str:
        closing = ", broken" if self.broken else ", closing" if self.closing else ""
        return f"<http.ServerConnection reading {self._reading}, sending {self._sending}{closing}>"

    def retire(self, environ: Mapping[str, str] | None = None) -> None:
        """Make the answer to the next request, or to the one that is there, the last."""
        self._last = True

    # --- what comes in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the client, split anywhere; ``b""`` is the end of the stream.

        Never raises for them. What is no HTTP is a RequestRefused where an answer may still be understood, else a
        ConnectionFailed. What comes behind a request before its answer has ended (pipelining) is dropped, and the
        connection is closed after the answer.
        """
        events = self._take(data) if data else self._end_of_stream()
        self.expecting = (0,) if self._reading == "head" and self._head_bytes > 0 else ()
        return events

    def _take(self, data: bytes) -> list[Event]:
        if self.closing:
            return []
        if self._reading == "rest":
            self._last = True
            return []
        return list(self._events(data))

    def _end_of_stream(self) -> list[Event]:
        gone = self._sending != "idle" and not self.closing
        self._reading = "rest"
        self.closing = True
        return [RequestAborted(0)] if gone else []

    def _events(self, data: bytes) -> Iterator[Event]:
        if self._reading == "head":
            if not self._head_bytes and data[0] <= 0x20:
                yield self._failed(RemoteProtocolError(_not_http(data[0])))
                return
            self._head_bytes += len(data)
        self._http.receive_data(data)
        while self._reading != "rest":
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                yield from self._violation(error)
                return
            match event:
                case h11.Request():
                    yield self._take_request(event)
                case h11.Data():
                    yield BodyReceived(0, bytes(event.data))
                case h11.EndOfMessage():
                    self._reading = "rest"
                    # What is in h11's buffer now would be a pipelined request.
                    self._last = self._last or bool(self._http.trailing_data[0])
                    yield BodyEnded(0)
                case _:
                    return

    def _violation(self, error: h11.RemoteProtocolError) -> Iterator[Event]:
        if self._reading == "body":
            yield RequestAborted(0)
            yield self._failed(RemoteProtocolError(f"not an HTTP request body: {error}"))
        elif error.error_status_hint == 431:
            yield self._refused(self._head_too_long())
        else:
            yield self._refused(RemoteProtocolError(f"not an HTTP request: {error}", status=error.error_status_hint))

    def _failed(self, error: RemoteProtocolError) -> Event:
        self._reading = "rest"
        self.closing = True
        return ConnectionFailed(error)

    def _refused(self, error: RemoteProtocolError) -> Event:
        self._reading = "rest"
        self._sending = "head"
        self._last = True
        return RequestRefused(0, "responder", error)

    def _head_too_long(self) -> RemoteProtocolError:
        limit = self._limits.max_params_bytes
        return LimitExceeded(f"an HTTP request head over {limit} bytes, the limit max_params_bytes", status=431)

    def _take_request(self, request: h11.Request) -> Event:
        # h11 compares with its limit only when a head is still incomplete. Measured like this, one that comes in a
        # single piece fares no better than one that comes in many.
        if self._head_bytes - len(self._http.trailing_data[0]) > self._limits.max_params_bytes:
            return self._refused(self._head_too_long())
        try:
            pairs = _meta_variables(request, self._environ)
            if len(pairs) > self._limits.max_params:
                raise LimitExceeded(f"more than {self._limits.max_params} meta-variables (max_params)", status=431)
        except RemoteProtocolError as error:
            return self._refused(error)
        self._reading = "body"
        self._sending = "head"
        if self._http.they_are_waiting_for_100_continue:
            self._to_send += self._http.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        return RequestReceived(0, "responder", pairs, keep_connection=_persistent(request))

    # --- what goes out -----------------------------------------------------------------------------------------------

    def send_head(self, stream_id: int, head: bytes) -> bytes:
        """The HTTP response head for a CGI response head. h11 chooses the framing; Date and Server are added.

        Hop-by-hop fields are left out: they are about this connection, not the application's business (RFC 3875
        section 6.3.4). Raises LocalProtocolError for what is no CGI response head, before there is a request, for a
        second head, and after the end; the first of these leaves room for another try.
        """
        self._check(stream_id, "head")
        try:
            found = parse_head(head, len(head))
            if found is None or found[3] != len(head):
                raise LocalProtocolError(f"not a whole CGI response head: {head[-80:]!r}")
            status, reason, fields, _ = found
            response = h11.Response(
                status_code=status, reason=_bytes(reason), headers=_response_headers(fields, close=self._last)
            )
        except (RemoteProtocolError, h11.LocalProtocolError) as error:
            raise LocalProtocolError(str(error)) from error
        data = self._send(response)
        self._sending = "body"
        return data

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """The data, framed as the head announced it; ``b""`` sends nothing.

        Raises LocalProtocolError before the head, after the end, and for more than Content-Length, HEAD, 204 or 304
        allow; that breaks the connection.
        """
        self._check(stream_id, "body")
        return self._send(h11.Data(data=data)) if data else b""

    def send_log(self, stream_id: int, text: str) -> bytes:
        """Nothing: there is no web server whose log this could go to.

        Raises LocalProtocolError before there is a request and after the end.
        """
        self._check(stream_id, "head", "body")
        return b""

    def end(self, stream_id: int, status: int = 0) -> bytes:
        """End the answer; HTTP cannot carry ``status``. Then either the next request may come or ``closing`` is set.

        Without a head before it this gives up a request that was aborted. Raises LocalProtocolError before there is a
        request, after the end, and for less than Content-Length; that breaks the connection.
        """
        self._check(stream_id, "head", "body")
        data = self._send(h11.EndOfMessage()) if self._sending == "body" else b""
        self._sending = "idle"
        # DONE on both sides: the request was read to its end, and nobody asked to close.
        if self._last or self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self.closing = True
            return data
        self._http.start_next_cycle()
        self._reading = "head"
        self._head_bytes = 0
        return data

    def answer(self, stream_id: int, head: bytes, body: bytes, status: int = 0) -> bytes:
        """A whole answer: the head, the body and the end. Raises LocalProtocolError as they do."""
        return self.send_head(stream_id, head) + self.send_body(stream_id, body) + self.end(stream_id, status)

    def fail(self, stream_id: int) -> bytes:
        """End a broken answer by cutting the connection, without the end that its framing promised.

        Raises LocalProtocolError before there is a request and after the end.
        """
        self._check(stream_id, "head", "body")
        self._sending = "idle"
        self.closing = self.broken = True
        return b""

    def data_to_send(self) -> bytes:
        """The "100 Continue" for a client that waits for it before it sends its body."""
        data, self._to_send = self._to_send, b""
        return data

    def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._http.send(event)
        except h11.LocalProtocolError as error:
            self.closing = self.broken = True
            raise LocalProtocolError(str(error)) from error

    def _check(self, stream_id: int, *allowed: str) -> None:
        if stream_id != 0:
            raise LocalProtocolError(f"the one request at a time of an HTTP connection is stream 0, not {stream_id}")
        if self._sending not in allowed:
            due = {"idle": "no request is waiting for an answer", "head": "the head is due"}
            raise LocalProtocolError(due.get(self._sending, "the head was sent"))


def _not_http(byte: int) -> str:
    if byte == 0x16:
        return "these are TLS bytes: this server speaks plain HTTP, so the address begins with http://, not https://"
    return f"an HTTP request begins with a method, not with {bytes([byte])!r}"


# --- the request as meta-variables -----------------------------------------------------------------------------------


def _meta_variables(request: h11.Request, extra: Mapping[str, str]) -> Pairs:
    """What a CGI application is told about an HTTP request (RFC 3875 section 4.1).

    Raises RemoteProtocolError for what no CGI application could be told: see :func:`_check_request`.
    """
    fields = [(name.decode("ascii"), _text(value)) for name, value in request.headers]
    _check_request(request, {name for name, _ in fields})
    authority, target = _origin_form(request.target.decode("ascii"))
    if authority is None:
        authority = dict(fields).get("host", "")
    else:
        # The host of an absolute target counts, not the Host field (RFC 9112 section 3.2.2).
        fields = [(name, authority if name == "host" else value) for name, value in fields]
    path, _, query = target.partition("?")
    host, port = _host_and_port(authority)
    variables = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version.decode('ascii')}",
        "REQUEST_METHOD": request.method.decode("ascii"),
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": target,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path),
        "QUERY_STRING": query,
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port,
        **extra,
    }
    return (*variables.items(), *_header_variables(fields))


def _check_request(request: h11.Request, names: set[str]) -> None:
    if not request.http_version.startswith(b"1."):
        raise RemoteProtocolError(f"HTTP/{request.http_version.decode('ascii')} over HTTP/1.1", status=505)
    if request.method == b"CONNECT":
        raise RemoteProtocolError("CONNECT is for proxies", status=501)
    if {"transfer-encoding", "content-length"} <= names:
        raise RemoteProtocolError("both Transfer-Encoding and Content-Length (RFC 9112 section 6.3)")


def _origin_form(target: str) -> tuple[str | None, str]:
    """(authority, path and query) of a request target; the authority is None where the Host field names it.

    nginx, lighttpd and Caddy hand REQUEST_URI on without scheme and host. Raises RemoteProtocolError for the forms
    of CONNECT and ``OPTIONS *``, which no application can serve (RFC 9112 section 3.2).
    """
    if target.startswith("/"):
        return None, target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise RemoteProtocolError(f"a request target begins with a slash or with http://, unlike {target[:80]!r}")
    end = min([at for at in (rest.find("/"), rest.find("?")) if at >= 0], default=len(rest))
    path = rest[end:]
    return rest[:end], path if path.startswith("/") else "/" + path


def _host_and_port(authority: str) -> tuple[str, str]:
    """Host and port; the brackets of an IPv6 address stay (RFC 3875 section 4.1.14), the port is 80 unless said."""
    host, colon, port = authority.rpartition(":")
    if colon and (is_number(port) or not port):
        return host, port or "80"
    return authority, "80"


def _header_variables(fields: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Header fields as variables, repeats kept (RFC 3875 section 4.1.18).

    Names with "_" are left out, as nginx does, for they would be taken for those with "-"; Proxy is, for HTTP_PROXY
    would be taken for the proxy setting of outgoing requests (httpoxy).
    """
    for name, value in fields:
        if name in ("content-type", "content-length"):
            yield name.upper().replace("-", "_"), value
        elif "_" not in name and name != "proxy":
            yield f"HTTP_{name.upper().replace('-', '_')}", value


def _persistent(request: h11.Request) -> bool:
    """Whether the client expects the connection to stay (RFC 9112 section 9.3); h11 keeps none of HTTP/1.0."""
    options = b",".join([value for name, value in request.headers if name == b"connection"]).lower().split(b",")
    return request.http_version >= b"1.1" and b"close" not in [option.strip() for option in options]


# --- the response ----------------------------------------------------------------------------------------------------


def _response_headers(fields: Pairs, *, close: bool) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in fields if name.lower() not in HOP_BY_HOP]
    names = {name.lower() for name, _ in kept}
    if "date" not in names:
        # The one look at the clock (RFC 9110 section 6.6.1): the bytes depend on it, nothing that happens does.
        kept.append(("Date", formatdate(usegmt=True)))
    if "server" not in names:
        kept.append(("Server", SERVER_SOFTWARE))
    if close:
        kept.append(("Connection", "close"))
    return [(name.encode("ascii"), _bytes(value)) for name, value in kept]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
