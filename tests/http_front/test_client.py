"""The client's side of HTTP without I/O: meta-variables out, answers in."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

from gateways import Limits, LocalProtocolError
from gateways.events import BodyEnded, BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, ResponseEnded
from gateways.http import ClientConnection, ServerConnection, client
from tests.feeding import cuts, feed

GET = {"REQUEST_METHOD": "GET", "HTTP_HOST": "localhost"}
CHUNKED = {"REQUEST_METHOD": "POST", "HTTP_HOST": "localhost", "HTTP_TRANSFER_ENCODING": "chunked"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def asked(environ: dict[str, str] = GET, *, keep_connection: bool = False) -> ClientConnection:
    """A connection whose request is out."""
    connection = ClientConnection()
    connection.send_request(0, environ, keep_connection=keep_connection)
    connection.end_body(0)
    return connection


def head(environ: dict[str, str]) -> list[bytes]:
    return ClientConnection().send_request(0, environ).split(b"\r\n")


# --- what goes out ---------------------------------------------------------------------------------------------------


def test_variables_become_a_request() -> None:
    environ = {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/caf%C3%A9?x=1",
        "PATH_INFO": "/never looked at",
        "HTTP_HOST": "localhost:8000",
        "HTTP_X_FANCY": "caf\u00e9 \udce9",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "2",
        "REMOTE_ADDR": "192.0.2.1",
    }
    assert head(environ) == [
        b"POST /caf%C3%A9?x=1 HTTP/1.1",
        b"host: localhost:8000",
        b"x-fancy: caf\xc3\xa9 \xe9",
        b"content-type: text/plain",
        b"content-length: 2",
        b"Connection: close",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({}, b"GET / HTTP/1.1"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/a b"}, b"GET /app/a%20b HTTP/1.1"),
        ({"PATH_INFO": "/", "QUERY_STRING": "a=b"}, b"GET /?a=b HTTP/1.1"),
        ({"REQUEST_URI": "", "PATH_INFO": "/x"}, b"GET /x HTTP/1.1"),
        ({"REQUEST_METHOD": "DELETE"}, b"DELETE / HTTP/1.1"),
    ],
)
def test_request_line(environ: dict[str, str], line: bytes) -> None:
    assert head(environ)[0] == line


def test_host_is_the_name_of_the_server_where_no_field_says_it() -> None:
    assert head({"SERVER_NAME": "example.test"})[1] == b"host: example.test"
    assert head({})[1] == b"host: localhost"


def test_kept_connection_is_not_asked_to_close() -> None:
    assert b"close" not in ClientConnection().send_request(0, GET, keep_connection=True)


def test_repeated_variables_are_repeated_fields() -> None:
    data = ClientConnection().send_request(0, [("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")])
    assert data.count(b"cookie: ") == 2


def test_body_of_unknown_length_is_chunked() -> None:
    connection = ClientConnection()
    connection.send_request(0, CHUNKED)
    assert connection.send_body(0, b"") == b""
    assert connection.send_body(0, b"hello") + connection.end_body(0) == b"5\r\nhello\r\n0\r\n\r\n"


def test_server_understands_what_the_client_sends() -> None:
    web, app = ClientConnection(), ServerConnection()
    data = web.send_request(0, CHUNKED) + web.send_body(0, b"hello") + web.end_body(0)
    assert feed(app, [data])[1:] == [BodyReceived(0, b"hello"), BodyEnded(0)]
    answer = app.send_head(0, b"Status: 200 OK\r\nX-Y: z\r\n\r\n") + app.send_body(0, b"world") + app.end(0)
    received, *rest = feed(web, [answer])
    assert isinstance(received, HeadReceived)
    assert (received.status, received.reason, ("X-Y", "z") in received.headers) == (200, "OK", True)
    assert rest == [BodyReceived(0, b"world"), ResponseEnded(0)]


@pytest.mark.parametrize(
    ("meaning", "attempt"),
    [
        ("another stream", lambda connection: connection.send_request(1, GET)),
        ("a role", lambda connection: connection.send_request(0, GET, role="authorizer")),
        ("a method that is no token", lambda connection: connection.send_request(0, {"REQUEST_METHOD": "A B"})),
        ("a field with LF", lambda connection: connection.send_request(0, {**GET, "HTTP_X": "a\nb"})),
        ("a body before the request", lambda connection: connection.send_body(0, b"x")),
        ("the end of a body before the request", lambda connection: connection.end_body(0)),
        ("a second request", lambda connection: [connection.send_request(0, GET) for _ in range(2)]),
        ("a longer body than announced", lambda connection: overlong(connection)),
    ],
)
def test_what_http_does_not_allow_is_a_local_error(meaning: str, attempt: Callable[[ClientConnection], object]) -> None:
    with pytest.raises(LocalProtocolError):
        attempt(ClientConnection())


def overlong(connection: ClientConnection) -> None:
    connection.send_request(0, {**GET, "CONTENT_LENGTH": "1"})
    connection.send_body(0, b"xx")


def test_abort_is_only_the_end_of_the_connection() -> None:
    assert asked().abort(0) == b""


# --- what comes in ---------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, bytes, list[ClientEvent]]] = [
    (
        "with a length",
        OK,
        [HeadReceived(0, 200, "OK", (("Content-Length", "2"),)), BodyReceived(0, b"hi"), ResponseEnded(0)],
    ),
    (
        "in chunks, whose field is about the connection",
        b"HTTP/1.1 404 Nope\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        [HeadReceived(0, 404, "Nope", (("X", "y"),)), BodyReceived(0, b"hi"), ResponseEnded(0)],
    ),
    (
        "after a 100",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        [HeadReceived(0, 204, "No Content", ()), ResponseEnded(0)],
    ),
]


@pytest.mark.parametrize(("data", "events"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answer_however_it_is_cut(data: bytes, events: list[ClientEvent]) -> None:
    for pieces in cuts(data):
        assert feed(asked(), pieces) == events


def test_answer_without_a_length_ends_with_the_stream() -> None:
    connection = asked()
    assert len(connection.receive_data(b"HTTP/1.0 200 OK\r\n\r\nhi")) == 2
    assert connection.receive_data(b"") == [ResponseEnded(0)]
    assert connection.receive_data(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x06\0\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    ],
)
def test_broken_answer_is_one_last_failure(data: bytes) -> None:
    connection = asked()
    events = [*(connection.receive_data(data) if data else ()), *connection.receive_data(b"")]
    failure = events[-1]
    assert isinstance(failure, ConnectionFailed)
    assert failure.error.status == 502
    assert connection.receive_data(b"more") == []
    assert not connection.reusable


def test_head_beyond_the_limit_is_a_failure() -> None:
    connection = ClientConnection(limits=Limits(max_params_bytes=100))
    connection.send_request(0, GET)
    connection.end_body(0)
    (failure,) = connection.receive_data(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200)
    assert isinstance(failure, ConnectionFailed)


def test_kept_connection_carries_the_next_request() -> None:
    connection = asked(keep_connection=True)
    assert not connection.reusable
    assert len(connection.receive_data(OK)) == 3
    assert connection.reusable
    connection.send_request(0, GET)
    connection.end_body(0)
    assert len(connection.receive_data(OK)) == 3
    assert not connection.reusable


def test_repr_shows_the_state() -> None:
    assert repr(ClientConnection()) == "<http.ClientConnection sending IDLE, reading IDLE>"


def test_example_in_the_docstring_holds() -> None:
    found = doctest.DocTestFinder().find(ClientConnection, globs=dict(vars(client)))
    runner = doctest.DocTestRunner()
    assert sum(runner.run(example).failed for example in found) == 0
