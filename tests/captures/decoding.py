"""From the bytes of a capture to the requests in it, through the same code that serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import attrs

from gateways import Body, Request, fastcgi, scgi
from gateways._model.headers import as_pairs
from gateways._model.request import BytesSource
from gateways.cgi import guest
from gateways.events import BodyEnded, BodyReceived, Event, Pairs, RequestAborted, RequestReceived, ServerConnection
from tests.captures import Capture, Params
from tests.feeding import feed

#: The name of each protocol in the captures, and in the package.
PROTOCOLS = {"fcgi": "fastcgi", "scgi": "scgi", "cgi": "cgi"}
_ROLES = ("responder", "authorizer", "filter")

#: A way to cut bytes into pieces.
Cut = Callable[[bytes], list[bytes]]


@attrs.frozen
class Arrived:
    """One request as a protocol delivered it. ``complete``: the end of its body came."""

    stream_id: int
    role: str
    environ: Pairs
    body: bytes
    complete: bool
    aborted: bool


def whole(data: bytes) -> list[bytes]:
    return [data]


def pairs(params: Params) -> Pairs:
    """The variables of a manifest by the law of text: UTF-8, undecodable bytes as lone surrogates."""
    return tuple((_text(name.encode("latin-1")), _text(value.encode("latin-1"))) for name, value in params)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def decode(capture: Capture, cut: Cut = whole) -> list[Arrived]:
    """The requests in a capture, in the order in which they came."""
    if capture.protocol == "cgi":
        return [_of_process(capture)]
    connection = _connection(capture)
    arrived: list[Arrived] = []
    for turn in _turns(capture):
        arrived += _arrivals(_answered(connection, feed(connection, cut(turn))))
    return arrived


def events(capture: Capture, cut: Cut) -> list[Event]:
    """Every event of a FastCGI or SCGI capture, adjacent pieces of a body joined."""
    connection = _connection(capture)
    return [event for turn in _turns(capture) for event in _answered(connection, feed(connection, cut(turn)))]


def _connection(capture: Capture) -> ServerConnection:
    if capture.protocol == "fcgi":
        return fastcgi.ServerConnection(roles=_ROLES)
    return scgi.ServerConnection()


def _turns(capture: Capture) -> list[bytes]:
    """The bytes of a connection, parted where the web server had waited for our answer: before an id comes again."""
    if capture.fcgi is None or all(later.id != capture.fcgi.id for later in capture.more_requests):
        return [capture.wire]
    first = sum(8 + length + padding for _, length, padding in capture.fcgi.records)
    return [capture.wire[:first], capture.wire[first:]]


def _answered(connection: ServerConnection, events: list[Event]) -> list[Event]:
    """Answer the requests that are in, so that their ids are free again."""
    for event in events:
        if isinstance(event, BodyEnded):
            connection.send_head(event.stream_id, b"Status: 204 No Content\r\n\r\n")
            connection.end(event.stream_id)
    return events


def _arrivals(events: Iterable[Event]) -> Iterator[Arrived]:
    requests: dict[int, Arrived] = {}
    for event in events:
        match event:
            case RequestReceived(stream_id, role, environ, _):
                requests[stream_id] = Arrived(stream_id, role, as_pairs(environ), b"", complete=False, aborted=False)
            case BodyReceived(stream_id, data):
                so_far = requests[stream_id]
                requests[stream_id] = attrs.evolve(so_far, body=so_far.body + data)
            case BodyEnded(stream_id):
                requests[stream_id] = attrs.evolve(requests[stream_id], complete=True)
            case RequestAborted(stream_id):
                requests[stream_id] = attrs.evolve(requests[stream_id], aborted=True)
            case _:
                raise AssertionError(f"{event} of a real web server")
    return iter(requests.values())


def _of_process(capture: Capture) -> Arrived:
    """What a CGI script was given: an environment block, and the bytes on its stdin."""
    block, _, stdin = capture.wire.partition(b"\0\0")
    environ = tuple(
        (_text(name), _text(value)) for name, _, value in (entry.partition(b"=") for entry in block.split(b"\0"))
    )
    return Arrived(0, "responder", environ, stdin, complete=True, aborted=False)


def request_of(capture: Capture, arrived: Arrived) -> Request:
    """The Request that a handler is given. Raises RemoteProtocolError where one is refused instead."""
    protocol = PROTOCOLS[capture.protocol]
    if capture.protocol != "cgi":
        return Request(arrived.environ, arrived.body, role=arrived.role, protocol=protocol)
    # A script has to know from the variables alone how much of its stdin is the body.
    length = guest.body_length(Request(arrived.environ, protocol=protocol).environ)
    return Request(arrived.environ, Body(BytesSource(arrived.body), length), protocol=protocol)
