"""Web-server side of SCGI, alone and against the application side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways._model.errors import LocalProtocolError
from gateways._model.headers import as_pairs
from gateways._model.limits import Limits
from gateways.events import (
    BodyEnded,
    BodyReceived,
    ClientEvent,
    ConnectionFailed,
    HeadReceived,
    RequestReceived,
    ResponseEnded,
)
from gateways.events import (
    ClientConnection as Interface,
)
from gateways.scgi import ClientConnection, ServerConnection
from tests.feeding import cut, cuts, feed


def asked(method: str = "GET", limits: Limits | None = None) -> ClientConnection:
    """A client that has sent a request without a body."""
    connection = ClientConnection(limits=limits)
    connection.send_request(0, {"REQUEST_METHOD": method})
    connection.end_body(0)
    return connection


# --- sending ---------------------------------------------------------------------------------------------------------


def test_request_puts_the_length_first_and_then_scgi() -> None:
    data = ClientConnection().send_request(0, {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "2"})
    assert data == b"44:CONTENT_LENGTH\x002\0SCGI\x001\0REQUEST_METHOD\0POST\0,"


@given(
    environ=st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
            lambda name: name not in ("CONTENT_LENGTH", "SCGI", "HTTP_CONTENT_LENGTH")
        ),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.just("\udcff")),
        max_size=5,
    ),
    body=st.binary(max_size=50),
)
def test_S01_S05_what_a_client_sends_a_strict_server_reads(environ: dict[str, str], body: bytes) -> None:
    client, server = ClientConnection(), ServerConnection(strict=True)
    data = client.send_request(0, {**environ, "CONTENT_LENGTH": str(len(body))})
    data += client.send_body(0, body) + client.end_body(0)
    first, *rest = feed(server, [data])
    assert isinstance(first, RequestReceived)
    assert as_pairs(first.environ) == (("CONTENT_LENGTH", str(len(body))), ("SCGI", "1"), *environ.items())
    assert rest == [*([BodyReceived(0, body)] if body else []), BodyEnded(0)]


def test_pairs_are_sent_in_their_order() -> None:
    client, server = ClientConnection(), ServerConnection()
    data = client.send_request(0, iter([("B", "1"), ("A", "2")]), keep_connection=True)
    (first, _) = server.receive_data(data)
    assert isinstance(first, RequestReceived)
    assert as_pairs(first.environ)[2:] == (("B", "1"), ("A", "2"))
    assert not client.reusable


def test_S07_body_is_as_long_as_announced() -> None:
    client = ClientConnection()
    client.send_request(0, [("CONTENT_LENGTH", "3")])
    assert client.send_body(0, b"ab") == b"ab"
    with pytest.raises(LocalProtocolError, match="1 bytes fewer"):
        client.end_body(0)
    with pytest.raises(LocalProtocolError, match="1 bytes more"):
        client.send_body(0, b"cd")
    assert client.send_body(0, b"") == b""
    assert client.send_body(0, b"c") == b"c"
    assert client.end_body(0) == b""


def test_abort_is_only_told_by_closing() -> None:
    client = ClientConnection()
    client.send_request(0, [("CONTENT_LENGTH", "3")])
    assert client.abort(0) == b""
    with pytest.raises(LocalProtocolError, match="the request has ended"):
        client.send_body(0, b"abc")
    assert asked().abort(0) == b""


def test_misuse_is_a_local_error() -> None:
    client = ClientConnection()
    for call in (client.end_body, client.abort, lambda stream_id: client.send_body(stream_id, b"x")):
        with pytest.raises(LocalProtocolError, match="no request was sent yet"):
            call(0)
    with pytest.raises(LocalProtocolError, match="stream 0, not 1"):
        client.send_request(1, {})
    with pytest.raises(LocalProtocolError, match="no role 'authorizer'"):
        client.send_request(0, {}, role="authorizer")
    with pytest.raises(LocalProtocolError, match="a NUL"):
        client.send_request(0, {"A": "\0"})
    # Nothing was sent, so a better request may still be.
    client.send_request(0, {})
    with pytest.raises(LocalProtocolError, match="was sent already"):
        client.send_request(0, {})
    client.end_body(0)
    with pytest.raises(LocalProtocolError, match="has ended"):
        client.end_body(0)


# --- receiving -------------------------------------------------------------------------------------------------------

HEAD = HeadReceived(0, 200, "OK", (("Content-Type", "text/plain"),))
BARE = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"

TABLE: list[tuple[str, str, bytes, list[ClientEvent]]] = [
    ("head alone", "GET", BARE, [HEAD, ResponseEnded(0)]),
    ("body to the end of the stream", "GET", BARE + b"abc", [HEAD, BodyReceived(0, b"abc"), ResponseEnded(0)]),
    ("LF line ends", "GET", b"Content-Type: text/plain\n\nabc", [HEAD, BodyReceived(0, b"abc"), ResponseEnded(0)]),
    (
        "body as long as announced",
        "GET",
        b"Status: 201 Made\r\nContent-Length: 3\r\n\r\nabc",
        [HeadReceived(0, 201, "Made", (("Content-Length", "3"),)), BodyReceived(0, b"abc"), ResponseEnded(0)],
    ),
    (
        "body longer than announced is cut",
        "GET",
        b"Status: 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",
        [HeadReceived(0, 200, "OK", (("Content-Length", "3"),)), BodyReceived(0, b"abc"), ResponseEnded(0)],
    ),
    (
        "length of a HEAD is not that of its answer",
        "HEAD",
        b"Status: 200 OK\r\nContent-Length: 3\r\n\r\n",
        [HeadReceived(0, 200, "OK", (("Content-Length", "3"),)), ResponseEnded(0)],
    ),
    (
        "304 has no body whatever its length says",
        "GET",
        b"Status: 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        [HeadReceived(0, 304, "Not Modified", (("Content-Length", "3"),)), ResponseEnded(0)],
    ),
    (
        "length twice, the same",
        "GET",
        b"Status: 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\na",
        [
            HeadReceived(0, 200, "OK", (("Content-Length", "1"), ("content-length", "1"))),
            BodyReceived(0, b"a"),
            ResponseEnded(0),
        ],
    ),
]


@pytest.mark.parametrize(("method", "data", "events"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_response(method: str, data: bytes, events: list[ClientEvent]) -> None:
    for pieces in cuts(data):
        connection = asked(method)
        assert feed(connection, [*pieces, b""]) == events
        assert connection.receive_data(b"late") == []
        assert not connection.reusable


BROKEN: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "closed after 0 bytes of a response head"),
    ("half a head", b"Status: 200 OK\r\n", "closed after 16 bytes of a response head"),
    ("no head", b"<html>\n\n", "not a header field"),
    ("an HTTP response", b"HTTP/1.1 200 OK\r\n\r\n", "not a header field"),
    ("shorter than announced", b"Status: 200 OK\r\nContent-Length: 3\r\n\r\nab", "closed 1 bytes before the end"),
    ("length that is none", b"Status: 200 OK\r\nContent-Length: 3x\r\n\r\n", "Content-Length of a response is '3x'"),
    (
        "two lengths",
        b"Status: 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "Content-Length of a response is '3' and '4'",
    ),
    ("20 digits", b"Status: 200 OK\r\nContent-Length: " + b"1" * 20 + b"\r\n\r\n", "is '1111"),
]


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_answer_that_is_no_whole_cgi_response_is_a_bad_gateway(data: bytes, message: str) -> None:
    for pieces in cuts(data):
        connection = asked()
        *_, last = feed(connection, [*[piece for piece in pieces if piece], b""])
        assert isinstance(last, ConnectionFailed)
        assert last.error.status == 502
        assert message in str(last.error)
        assert connection.receive_data(b"late") == []


def test_head_over_the_limit_is_a_bad_gateway() -> None:
    limits = Limits(max_head=len(BARE))
    assert feed(asked(limits=limits), [BARE + b"abc" * 100])[0] == HEAD
    for pieces in cuts(b"X-Long: 1\r\n" + BARE):
        (event,) = feed(asked(limits=limits), pieces)
        assert isinstance(event, ConnectionFailed)
        assert event.error.status == 502


@given(data=st.sampled_from([row[2] for row in TABLE]) | st.binary(max_size=60), choice=st.data())
def test_events_do_not_depend_on_how_the_stream_is_split(data: bytes, choice: st.DataObject) -> None:
    places = choice.draw(st.lists(st.integers(0, len(data)), max_size=10).map(sorted))
    assert feed(asked(), [*cut(data, places), b""]) == feed(asked(), [*cut(data, []), b""])


def test_repr_shows_the_state() -> None:
    connection = ClientConnection()
    assert repr(connection) == "<scgi.ClientConnection sending request, reading head>"
    connection.send_request(0, {})
    connection.receive_data(BARE)
    assert repr(connection) == "<scgi.ClientConnection sending body, reading body>"
    connection.abort(0)
    connection.receive_data(b"")
    assert repr(connection) == "<scgi.ClientConnection sending nothing, reading nothing>"


# --- both sides ------------------------------------------------------------------------------------------------------


def test_a_whole_exchange() -> None:
    web: Interface = ClientConnection()
    app = ServerConnection()
    data = web.send_request(0, {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "4"})
    (received,) = app.receive_data(data)
    assert isinstance(received, RequestReceived)
    assert dict(received.environ)["REQUEST_METHOD"] == "POST"
    assert app.receive_data(web.send_body(0, b"ping")) == [BodyReceived(0, b"ping"), BodyEnded(0)]
    web.end_body(0)
    assert web.receive_data(app.send_head(0, BARE)) == [HEAD]
    assert web.receive_data(app.send_body(0, b"pong")) == [BodyReceived(0, b"pong")]
    assert app.end(0) == b""
    assert app.closing
    assert web.receive_data(b"") == [ResponseEnded(0, 0)]
