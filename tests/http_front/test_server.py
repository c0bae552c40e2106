"""The development front end without I/O: HTTP bytes in, gateway events out, and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways._model.environ import Rules, build
from gateways._model.errors import LimitExceeded, LocalProtocolError
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
from gateways.events import (
    ServerConnection as Interface,
)
from gateways.http import ServerConnection
from tests.feeding import cut, cuts, feed, refusal


def http(start: str, *fields: str, body: bytes = b"") -> bytes:
    """A request with these lines, and nothing added."""
    return "".join([line + "\r\n" for line in (start, *fields, "")]).encode() + body


GET = http("GET / HTTP/1.1", "Host: localhost:8000")
OK = b"Status: 200 OK\r\nContent-Length: 2\r\nDate: today\r\nServer: me\r\n\r\n"


def received(data: bytes, environ: dict[str, str] | None = None) -> RequestReceived:
    """The request that some bytes are, however they are split."""
    seen = []
    for pieces in cuts(data):
        first = feed(ServerConnection(environ=environ), pieces)[0]
        assert isinstance(first, RequestReceived), first
        seen.append(first)
    assert all(first == seen[0] for first in seen)
    return seen[0]


def variables(*args: str) -> dict[str, str]:
    return dict(received(http(*args)).environ)


# --- the request as meta-variables -----------------------------------------------------------------------------------


def test_request_becomes_meta_variables() -> None:
    data = http(
        "POST /caf%C3%A9/a%2Fb?x=1%202&y HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: test",
        "Content-Type: text/plain",
        "Content-Length: 2",
        body=b"hi",
    )
    assert received(data, {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "54321"}) == RequestReceived(
        0,
        "responder",
        (
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", "gateways/dev"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_SCHEME", "http"),
            ("REQUEST_URI", "/caf%C3%A9/a%2Fb?x=1%202&y"),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", "/café/a/b"),
            ("QUERY_STRING", "x=1%202&y"),
            ("SERVER_NAME", "localhost"),
            ("SERVER_PORT", "8000"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("REMOTE_PORT", "54321"),
            ("HTTP_HOST", "localhost:8000"),
            ("HTTP_USER_AGENT", "test"),
            ("CONTENT_TYPE", "text/plain"),
            ("CONTENT_LENGTH", "2"),
        ),
        True,
    )


def test_what_the_socket_knows_wins_over_what_the_client_says() -> None:
    environ = dict(received(GET, {"SERVER_PORT": "8080"}).environ)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "8080")
    names = [name for name, _ in as_pairs(received(GET, {"SERVER_PORT": "8080"}).environ)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("target", "uri", "path", "query"),
    [
        ("/", "/", "/", ""),
        ("/a?", "/a?", "/a", ""),
        ("/a?b?c", "/a?b?c", "/a", "b?c"),
        ("//a//b/../c/.", "//a//b/../c/.", "//a//b/../c/.", ""),
        ("/%2541", "/%2541", "/%41", ""),
        ("/%zz%4", "/%zz%4", "/%zz%4", ""),
        ("/%FF", "/%FF", "/\udcff", ""),
        ("/a+b", "/a+b", "/a+b", ""),
        ("http://example.org/a?b", "/a?b", "/a", "b"),
        ("HTTPS://example.org", "/", "/", ""),
        ("http://example.org?b/c", "/?b/c", "/", "b/c"),
    ],
)
def test_target(target: str, uri: str, path: str, query: str) -> None:
    environ = variables(f"GET {target} HTTP/1.1", "Host: localhost")
    assert (environ["REQUEST_URI"], environ["PATH_INFO"], environ["QUERY_STRING"]) == (uri, path, query)
    assert environ["SCRIPT_NAME"] == ""


def test_host_of_an_absolute_target_counts_and_the_host_field_does_not() -> None:
    environ = variables("GET http://example.org:81/ HTTP/1.1", "Host: other:82", "X-A: b")
    assert environ["HTTP_HOST"] == "example.org:81"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("example.org", "81")
    assert environ["HTTP_X_A"] == "b"


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("example.org", "example.org", "80"),
        ("example.org:8000", "example.org", "8000"),
        ("example.org:", "example.org", "80"),
        ("[::1]", "[::1]", "80"),
        ("[::1]:8000", "[::1]", "8000"),
        ("example.org:http", "example.org:http", "80"),
        ("", "localhost", "80"),
    ],
)
def test_host_names_server_and_port(host: str, name: str, port: str) -> None:
    environ = variables("GET / HTTP/1.1", f"Host: {host}")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)


def test_request_without_a_host() -> None:
    environ = variables("GET / HTTP/1.0")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["SERVER_PROTOCOL"]) == (
        "localhost",
        "80",
        "HTTP/1.0",
    )
    assert "HTTP_HOST" not in environ


def test_header_fields() -> None:
    data = http(
        "GET / HTTP/1.1", "Host: x", "X-Two: 1", "x-two: 2", "X_Two: 3", "Proxy: http://evil", "X-Empty:", "X-É: no"
    ).replace("X-É: no".encode(), b"X-Latin: \xe9 \xc3\xa9")
    pairs = [pair for pair in received(data).environ if pair[0].startswith("HTTP_")]
    assert pairs == [
        ("HTTP_HOST", "x"),
        ("HTTP_X_TWO", "1"),
        ("HTTP_X_TWO", "2"),
        ("HTTP_X_EMPTY", ""),
        ("HTTP_X_LATIN", "\udce9 é"),
    ]


def test_chunked_request_says_so_and_has_no_length() -> None:
    data = http(
        "POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"3;ext\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n"
    )
    for pieces in cuts(data):
        first, *rest = feed(ServerConnection(), pieces)
        assert isinstance(first, RequestReceived)
        environ = dict(first.environ)
        assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"
        assert "CONTENT_LENGTH" not in environ
        assert rest == [BodyReceived(0, b"abcde"), BodyEnded(0)]


def test_laws_of_the_model_take_every_variable_as_it_is() -> None:
    pairs = received(http("GET /a%20b?c HTTP/1.1", "Host: localhost:8000")).environ
    environ, path, notes = build(pairs, "http", Rules())
    assert (path, notes) == ("/a b", ())
    assert environ == dict(pairs)


@pytest.mark.parametrize(
    ("fields", "keep"),
    [
        (("GET / HTTP/1.1", "Host: x"), True),
        (("GET / HTTP/1.1", "Host: x", "Connection: keep-alive"), True),
        (("GET / HTTP/1.1", "Host: x", "Connection: upgrade", "Connection: Close"), False),
        (("GET / HTTP/1.0",), False),
        (("GET / HTTP/1.0", "Connection: keep-alive"), False),
    ],
)
def test_keep_connection_is_what_the_client_expects_and_what_happens(fields: tuple[str, ...], keep: bool) -> None:
    connection = ServerConnection()
    (first, _) = connection.receive_data(http(*fields))
    assert isinstance(first, RequestReceived)
    assert first.keep_connection is keep
    head = connection.send_head(0, OK)
    assert (b"Connection: close" in head) is not keep
    connection.send_body(0, b"hi")
    connection.end(0)
    assert connection.closing is not keep


# --- bodies, pieces and the end of the stream ------------------------------------------------------------------------

POST = http("POST / HTTP/1.1", "Host: x", "Content-Length: 3", body=b"abc")


def test_body_of_the_announced_length() -> None:
    for pieces in cuts(POST):
        _, *rest = feed(ServerConnection(), pieces)
        assert rest == [BodyReceived(0, b"abc"), BodyEnded(0)]


@given(
    data=st.sampled_from(
        [
            GET,
            POST,
            POST + GET,
            http("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
            http("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"3\r\nabcd"),
            http("POST / HTTP/1.1", "Host: x", "Expect: 100-continue", "Content-Length: 1", body=b"a"),
            http("GET / HTTP/1.1"),
        ]
    )
    | st.binary(max_size=60),
    choice=st.data(),
)
def test_events_do_not_depend_on_how_the_stream_is_split(data: bytes, choice: st.DataObject) -> None:
    places = choice.draw(st.lists(st.integers(0, len(data)), max_size=10).map(sorted))
    eof = choice.draw(st.sampled_from([[], [b""]]))
    assert feed(ServerConnection(), [*cut(data, places), *eof]) == feed(ServerConnection(), [*cut(data, []), *eof])


@pytest.mark.parametrize("data", [b"", b"GET / HT", GET[:-2]])
def test_end_of_stream_before_there_is_a_request_is_silent(data: bytes) -> None:
    connection = ServerConnection()
    assert feed(connection, [data, b""] if data else [b""]) == []
    assert connection.closing
    assert not connection.broken
    assert connection.receive_data(GET) == []


@pytest.mark.parametrize("data", [POST[:-1], POST])
def test_end_of_stream_before_the_answer_has_ended_aborts_once(data: bytes) -> None:
    connection = ServerConnection()
    assert feed(connection, [data, b""])[-1] == RequestAborted(0)
    assert connection.receive_data(b"") == []
    assert connection.closing
    assert connection.end(0) == b""
    assert connection.receive_data(b"") == []


def test_end_of_stream_between_requests_is_silent() -> None:
    connection = ServerConnection()
    answer(connection, GET)
    assert connection.receive_data(b"") == []
    assert connection.closing


def test_expecting_from_the_first_byte_of_a_request_to_the_end_of_its_head() -> None:
    connection = ServerConnection()
    assert not connection.expecting
    for _ in range(2):
        for at in range(len(GET)):
            connection.receive_data(GET[at : at + 1])
            assert bool(connection.expecting) is (at < len(GET) - 1)
        connection.send_head(0, OK)
        connection.send_body(0, b"hi")
        connection.end(0)
        assert not connection.expecting
    connection.receive_data(b"G")
    assert connection.expecting
    connection.receive_data(b"")
    assert not connection.expecting
    connection = ServerConnection()
    connection.receive_data(b"\x16")
    assert not connection.expecting


# --- refusals and failures -------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, bytes, int, str]] = [
    ("no Host", http("GET / HTTP/1.1"), 400, "Missing mandatory Host"),
    ("no request line", http("nonsense"), 400, "illegal request line"),
    ("blank in a field name", http("GET / HTTP/1.1", "Host : x"), 400, "illegal header line"),
    ("two lengths", http("GET / HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 2"), 400, "conflicting"),
    ("unknown coding", http("GET / HTTP/1.1", "Host: x", "Transfer-Encoding: gzip"), 501, "chunked is supported"),
    ("HTTP/2", http("PRI * HTTP/2.0", "", "SM", ""), 505, "HTTP/2.0 over HTTP/1.1"),
    ("CONNECT", http("CONNECT example.org:443 HTTP/1.1", "Host: x"), 501, "CONNECT is for proxies"),
    ("OPTIONS *", http("OPTIONS * HTTP/1.1", "Host: x"), 400, "begins with a slash or with http://, unlike '*'"),
    ("another scheme", http("GET ftp://x/ HTTP/1.1", "Host: x"), 400, "unlike 'ftp://x/'"),
    (
        "coding and length",
        http("POST / HTTP/1.1", "Host: x", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        "both Transfer-Encoding and Content-Length",
    ),
]


@pytest.mark.parametrize(("data", "status", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_request_that_cannot_be_served_is_refused_answered_and_disconnected(
    data: bytes, status: int, message: str
) -> None:
    for pieces in cuts(data):
        connection = ServerConnection()
        kind, got, text = refusal(feed(connection, pieces))
        assert (kind, got) == (RequestRefused, status)
        assert message in text
        assert not connection.closing
        head = connection.send_head(0, b"Status: 400 Bad Request\r\nContent-Length: 2\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close\r\n" in head
        assert connection.send_body(0, b"no") == b"no"
        assert connection.end(0) == b""
        assert connection.closing
        assert not connection.broken


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "begins with http://, not https://"),
        (b"\x01\x01\x00\x01\r\n\r\n", "begins with a method, not with b'\\x01'"),
        (b"\r\n\r\n", "begins with a method, not with b'\\r'"),
        (b" GET / HTTP/1.1\r\n\r\n", "begins with a method, not with b' '"),
    ],
)
def test_what_is_no_http_fails_the_connection_at_its_first_byte(data: bytes, message: str) -> None:
    for pieces in [*cuts(data), [data[:1]]]:
        connection = ServerConnection()
        kind, _, text = refusal(feed(connection, pieces))
        assert kind is ConnectionFailed
        assert message in text
        assert connection.closing
        assert connection.receive_data(GET) == []


def test_broken_chunk_aborts_the_request_and_fails_the_connection() -> None:
    data = http("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"1\r\na\r\nnonsense\r\n")
    for pieces in cuts(data):
        connection = ServerConnection()
        _, body, aborted, failed = feed(connection, pieces)
        assert body == BodyReceived(0, b"a")
        assert aborted == RequestAborted(0)
        assert isinstance(failed, ConnectionFailed)
        assert "illegal chunk header" in str(failed.error)
        assert connection.closing
        # The one whose request it was may still say that it has ended.
        connection.end(0)
        assert connection.receive_data(b"") == []


def test_chunk_header_without_end_fails_the_connection() -> None:
    connection = ServerConnection(limits=Limits(max_params_bytes=200))
    data = http("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"1;" + b"x" * 300)
    assert [type(event) for event in feed(connection, [data])] == [RequestReceived, RequestAborted, ConnectionFailed]


def test_head_over_the_limit_is_refused_whole_or_in_pieces() -> None:
    limits = Limits(max_params_bytes=len(POST) - len(b"abc"))
    for pieces in cuts(POST):
        assert isinstance(feed(ServerConnection(limits=limits), pieces)[0], RequestReceived)
    long = POST.replace(b"Host: x", b"Host: xx")
    endless = b"GET /" + b"x" * 500
    for pieces in [*cuts(long), [long[:-3]], *cuts(endless)]:
        (event,) = feed(ServerConnection(limits=limits), pieces)
        assert isinstance(event, RequestRefused)
        assert isinstance(event.error, LimitExceeded)
        assert event.error.status == 431
        assert "max_params_bytes" in str(event.error)


def test_size_of_a_head_is_measured_anew_for_every_request() -> None:
    connection = ServerConnection(limits=Limits(max_params_bytes=len(GET)))
    for _ in range(3):
        answer(connection, GET)
        assert not connection.closing


def test_more_variables_than_allowed() -> None:
    count = len(received(GET).environ)
    connection = ServerConnection(limits=Limits(max_params=count))
    assert isinstance(connection.receive_data(GET)[0], RequestReceived)
    (event,) = ServerConnection(limits=Limits(max_params=count - 1)).receive_data(GET)
    assert isinstance(event, RequestRefused)
    assert event.error.status == 431


# --- 100-continue ----------------------------------------------------------------------------------------------------


def test_expectation_is_met_at_once() -> None:
    connection = ServerConnection()
    connection.receive_data(http("POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Expect: 100-continue"))
    assert connection.data_to_send() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.data_to_send() == b""
    assert connection.receive_data(b"a") == [BodyReceived(0, b"a"), BodyEnded(0)]


def test_no_continue_without_expectation_or_after_a_refusal() -> None:
    connection = ServerConnection()
    connection.receive_data(POST)
    assert connection.data_to_send() == b""
    connection = ServerConnection(limits=Limits(max_params=1))
    connection.receive_data(http("POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Expect: 100-continue"))
    assert connection.data_to_send() == b""


# --- the answer ------------------------------------------------------------------------------------------------------


def answer(connection: ServerConnection, request: bytes, head: bytes = OK, *body: bytes) -> tuple[list[Event], bytes]:
    """Feed a request, answer it: (events, bytes sent)."""
    events = connection.receive_data(request)
    sent = connection.send_head(0, head)
    for piece in body or (b"hi",):
        sent += connection.send_body(0, piece)
    return events, sent + connection.end(0)


def test_answer_becomes_http() -> None:
    _, sent = answer(ServerConnection(), GET)
    assert sent == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: today\r\nServer: me\r\n\r\nhi"


def test_date_and_server_are_added_where_they_are_missing() -> None:
    _, sent = answer(ServerConnection(), GET, b"Status: 404 Gone Fishing\r\nContent-Length: 2\r\n\r\n")
    found = re.fullmatch(
        rb"HTTP/1\.1 404 Gone Fishing\r\nContent-Length: 2\r\nDate: (.*) GMT\r\nServer: gateways/dev\r\n\r\nhi", sent
    )
    assert found
    assert parsedate_to_datetime(found[1].decode())


def test_answer_of_unknown_length_is_chunked_or_ended_by_closing() -> None:
    head = b"Status: 200 OK\r\nDate: today\r\nServer: me\r\n\r\n"
    connection = ServerConnection()
    _, sent = answer(connection, GET, head, b"abc", b"", b"de")
    assert sent == (
        b"HTTP/1.1 200 OK\r\nDate: today\r\nServer: me\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert not connection.closing
    connection = ServerConnection()
    _, sent = answer(connection, http("GET / HTTP/1.0"), head, b"abc")
    assert sent == b"HTTP/1.1 200 OK\r\nDate: today\r\nServer: me\r\nConnection: close\r\n\r\nabc"
    assert connection.closing


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", OK),
        ("HEAD", b"Status: 200 OK\r\n\r\n"),
        ("GET", b"Status: 204 No Content\r\n\r\n"),
        ("GET", b"Status: 304 Not Modified\r\nETag: x\r\n\r\n"),
    ],
)
def test_answer_without_a_body(method: str, head: bytes) -> None:
    connection = ServerConnection()
    connection.receive_data(http(f"{method} / HTTP/1.1", "Host: x"))
    sent = connection.send_head(0, head)
    assert connection.send_body(0, b"") == b""
    sent += connection.end(0)
    assert sent.endswith(b"\r\n\r\n")
    assert not connection.closing
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(sent)
    assert type(client.next_event()) is h11.Response
    assert type(client.next_event()) is h11.EndOfMessage
    assert client.trailing_data == (b"", False)


def test_redirect_without_a_status_and_fields_about_the_connection() -> None:
    _, sent = answer(
        ServerConnection(),
        GET,
        b"Location: /x\nConnection: close\nKeep-Alive: 5\nTransfer-Encoding: gzip\nUpgrade: h2c\n"
        b"Content-Length: 2\nDate: today\nServer: me\nX: \xe9\xc3\xa9\n\n",
    )
    assert sent == (
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\nDate: today\r\nServer: me\r\n"
        b"X: \xe9\xc3\xa9\r\n\r\nhi"
    )


def test_upgrade_is_not_offered_but_the_request_is_answered() -> None:
    connection = ServerConnection()
    data = http("GET / HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c")
    for _ in range(2):
        events, sent = answer(connection, data)
        assert isinstance(events[0], RequestReceived)
        assert dict(events[0].environ)["HTTP_UPGRADE"] == "h2c"
        assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not connection.closing


def test_kept_connection_takes_one_request_after_the_other() -> None:
    connection = ServerConnection()
    for data, path in ((GET, "/"), (POST, "/"), (http("GET /b HTTP/1.1", "Host: x"), "/b")):
        events, sent = answer(connection, data)
        assert isinstance(events[0], RequestReceived)
        assert dict(events[0].environ)["PATH_INFO"] == path
        assert events[-1] == BodyEnded(0)
        assert sent.endswith(b"hi")
        assert not connection.closing


@pytest.mark.parametrize("pieces", [[GET + GET], [GET, GET], [GET + b"G", b"ET /"]])
def test_pipelined_request_is_dropped_and_the_connection_closed_after_the_answer(pieces: list[bytes]) -> None:
    connection = ServerConnection()
    events = feed(connection, pieces)
    assert [type(event) for event in events] == [RequestReceived, BodyEnded]
    assert not connection.closing
    assert b"\r\nConnection: close\r\n" in connection.send_head(0, OK)
    connection.send_body(0, b"hi")
    connection.end(0)
    assert connection.closing
    assert connection.receive_data(GET) == []


def test_answer_before_the_body_has_come_closes_the_connection() -> None:
    connection = ServerConnection()
    events, sent = answer(connection, POST[:-1])
    assert [type(event) for event in events] == [RequestReceived, BodyReceived]
    assert sent.endswith(b"hi")
    assert connection.closing
    assert not connection.broken
    assert connection.receive_data(b"c") == []


def test_broken_answer_cuts_the_connection_without_the_end_of_its_framing() -> None:
    connection = ServerConnection()
    connection.receive_data(GET)
    connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    connection.send_body(0, b"abc")
    assert connection.fail(0) == b""
    assert connection.closing
    assert connection.broken
    assert connection.receive_data(b"") == []


def test_request_that_is_given_up_without_a_head_closes_the_connection() -> None:
    connection = ServerConnection()
    connection.receive_data(GET)
    assert connection.end(0) == b""
    assert connection.closing


def test_there_is_no_channel_for_a_log() -> None:
    connection = ServerConnection()
    connection.receive_data(GET)
    assert connection.send_log(0, "something") == b""


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "not a whole CGI response head"),
        (b"Status: 200 OK\r\n", "not a whole CGI response head"),
        (b"Status: 200 OK\r\n\r\nbody", "not a whole CGI response head"),
        (b"20 text/gemini\r\n\r\n", "not a header field"),
        (b"Status: 200 OK\r\nContent-Length: x\r\n\r\n", "bad Content-Length"),
        (b"Status: 200 OK\r\nX: a\x0bb\r\n\r\n", "Illegal header value"),
    ],
)
def test_head_that_is_none_is_a_local_error_and_leaves_room_for_another(head: bytes, message: str) -> None:
    connection = ServerConnection()
    connection.receive_data(GET)
    with pytest.raises(LocalProtocolError, match=message):
        connection.send_head(0, head)
    assert connection.send_head(0, OK).startswith(b"HTTP/1.1 200 OK")
    assert not connection.closing


def two_bytes(connection: ServerConnection) -> None:
    connection.send_head(0, OK)


def no_bytes(connection: ServerConnection) -> None:
    connection.send_head(0, b"Status: 204 No Content\r\n\r\n")


@pytest.mark.parametrize(("head", "data"), [(two_bytes, b"abc"), (no_bytes, b"a")])
def test_more_body_than_allowed_breaks_the_connection(head: Callable[[ServerConnection], None], data: bytes) -> None:
    connection = ServerConnection()
    connection.receive_data(GET)
    head(connection)
    with pytest.raises(LocalProtocolError, match="Too much data"):
        connection.send_body(0, data)
    assert connection.closing
    assert connection.broken


def test_less_body_than_announced_breaks_the_connection() -> None:
    connection = ServerConnection()
    connection.receive_data(GET)
    connection.send_head(0, OK)
    connection.send_body(0, b"h")
    with pytest.raises(LocalProtocolError, match="Too little data"):
        connection.end(0)
    assert connection.closing
    assert connection.broken
    connection.fail(0)


def test_misuse_is_a_local_error() -> None:
    connection = ServerConnection()
    calls: list[Callable[[], object]] = [
        lambda: connection.send_head(0, OK),
        lambda: connection.send_body(0, b"x"),
        lambda: connection.send_log(0, "x"),
        lambda: connection.end(0),
        lambda: connection.fail(0),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError, match="no request is waiting"):
            call()
    connection.receive_data(GET)
    with pytest.raises(LocalProtocolError, match="the head is due"):
        connection.send_body(0, b"x")
    with pytest.raises(LocalProtocolError, match="stream 0, not 1"):
        connection.send_head(1, OK)
    connection.send_head(0, OK)
    with pytest.raises(LocalProtocolError, match="the head was sent"):
        connection.send_head(0, OK)


def test_repr_shows_the_state() -> None:
    connection = ServerConnection()
    assert repr(connection) == "<http.ServerConnection reading head, sending idle>"
    connection.receive_data(POST[:-1])
    assert repr(connection) == "<http.ServerConnection reading body, sending head>"
    connection.receive_data(b"")
    assert repr(connection) == "<http.ServerConnection reading rest, sending head, closing>"
    connection.fail(0)
    assert repr(connection) == "<http.ServerConnection reading rest, sending idle, broken>"


def test_is_a_server_connection() -> None:
    connection: Interface = ServerConnection(limits=Limits(), roles=("responder",), strict=True)
    assert isinstance(connection.receive_data(GET)[0], RequestReceived)
