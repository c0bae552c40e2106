"""Application side of SCGI: rows S01 to S12 of the compliance page and SH01 to SH20 of the hostile inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
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
from gateways.events import (
    ServerConnection as Interface,
)
from gateways.scgi import ServerConnection
from tests.captures import Capture, SmallWebCapture, load_small_web, load_web
from tests.feeding import cut, cuts, feed, refusal


def netstring(block: bytes) -> bytes:
    return b"%d:%b," % (len(block), block)


def request(*pairs: tuple[str, str], body: bytes = b"") -> bytes:
    """A request with these headers and no others."""
    return netstring("".join([f"{name}\0{value}\0" for name, value in pairs]).encode()) + body


def received(*pairs: tuple[str, str]) -> RequestReceived:
    return RequestReceived(0, "responder", pairs, False)


LENGTH_0, LENGTH_3, SCGI = ("CONTENT_LENGTH", "0"), ("CONTENT_LENGTH", "3"), ("SCGI", "1")
HELLO = request(LENGTH_3, SCGI, ("REQUEST_METHOD", "POST"), body=b"abc")

TABLE: list[tuple[str, bytes, list[Event]]] = [
    ("no body", request(LENGTH_0, SCGI), [received(LENGTH_0, SCGI), BodyEnded(0)]),
    (
        "body of the announced length",
        HELLO,
        [received(LENGTH_3, SCGI, ("REQUEST_METHOD", "POST")), BodyReceived(0, b"abc"), BodyEnded(0)],
    ),
    (
        "body still on its way",
        HELLO[:-1],
        [received(LENGTH_3, SCGI, ("REQUEST_METHOD", "POST")), BodyReceived(0, b"ab")],
    ),
    ("S03 empty value", request(LENGTH_0, ("A", "")), [received(LENGTH_0, ("A", "")), BodyEnded(0)]),
    ("S03 UTF-8 value", request(LENGTH_0, ("A", "€")), [received(LENGTH_0, ("A", "€")), BodyEnded(0)]),
    (
        "S03 bytes that are no UTF-8",
        netstring(b"CONTENT_LENGTH\x000\0A\0\xe9\0"),
        [received(LENGTH_0, ("A", "\udce9")), BodyEnded(0)],
    ),
    (
        "SH08 length not first",
        request(SCGI, LENGTH_3, body=b"abc"),
        [received(SCGI, LENGTH_3), BodyReceived(0, b"abc"), BodyEnded(0)],
    ),
    ("SH09 length missing", request(SCGI), [received(SCGI), BodyEnded(0)]),
    (
        "SH09 length empty",
        request(("CONTENT_LENGTH", ""), SCGI),
        [received(("CONTENT_LENGTH", ""), SCGI), BodyEnded(0)],
    ),
    (
        "SH12 length twice, the same",
        request(LENGTH_3, LENGTH_3, body=b"abc"),
        [received(LENGTH_3, LENGTH_3), BodyReceived(0, b"abc"), BodyEnded(0)],
    ),
    ("SH13 no SCGI header", request(LENGTH_0), [received(LENGTH_0), BodyEnded(0)]),
    ("SH13 SCGI 2", request(LENGTH_0, ("SCGI", "2")), [received(LENGTH_0, ("SCGI", "2")), BodyEnded(0)]),
    (
        "SH14 duplicate names, as nginx repeats headers",
        request(LENGTH_0, ("HTTP_X", "1"), ("HTTP_X", "2")),
        [received(LENGTH_0, ("HTTP_X", "1"), ("HTTP_X", "2")), BodyEnded(0)],
    ),
    (
        "SH15 empty name: the model drops it",
        request(LENGTH_0, ("", "x")),
        [received(LENGTH_0, ("", "x")), BodyEnded(0)],
    ),
    (
        "SH17 bytes behind the body",
        request(LENGTH_3, body=b"abcdef"),
        [received(LENGTH_3), BodyReceived(0, b"abc"), BodyEnded(0)],
    ),
    (
        "SH17 a second request behind the first",
        request(LENGTH_3, body=b"abc") + request(LENGTH_0),
        [received(LENGTH_3), BodyReceived(0, b"abc"), BodyEnded(0)],
    ),
    ("SH17 bytes behind no body", request(LENGTH_0) + b"GET /", [received(LENGTH_0), BodyEnded(0)]),
    (
        "nginx with scgi_request_buffering off announces less than the client",
        request(("CONTENT_LENGTH", "1"), ("HTTP_CONTENT_LENGTH", "3"), body=b"abc"),
        [received(("CONTENT_LENGTH", "1"), ("HTTP_CONTENT_LENGTH", "3")), BodyReceived(0, b"abc"), BodyEnded(0)],
    ),
    ("nothing", b"", []),
    ("half a length", b"12", []),
    ("half a header block", HELLO[:20], []),
    ("a block without its comma yet", request(LENGTH_0)[:-1], []),
]


@pytest.mark.parametrize(("data", "events"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_S03_S07_SH08_SH09_SH12_SH13_SH14_SH15_SH17_a_request(data: bytes, events: list[Event]) -> None:
    for pieces in cuts(data):
        assert feed(ServerConnection(), pieces) == events


FAILING: list[tuple[str, bytes, str]] = [
    ("SH01 eleven digits", b"90000000000:", "more than 10 digits"),
    ("SH02 100 000 digits", b"9" * 100_000, "more than 10 digits"),
    ("SH03 minus", b"-5:", "got b'-'"),
    ("SH03 no digits", b":", "got b':'"),
    ("SH03 plus", b"+70:", "got b'+'"),
    ("SH03 blank", b" 70:", "got b' '"),
    ("SH04 leading zero", b"070:", "leading zero"),
    ("SH05 semicolon for the comma", request(LENGTH_0)[:-1] + b";", "expected the ','"),
    ("SH07 empty netstring", b"0:,", "netstring of length 0"),
    (
        "SH18 HTTP",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "these are HTTP bytes: point the web server at this port with scgi_pass",
    ),
    (
        "SH18 FastCGI",
        b"\x01\x01\x00\x01\x00\x08\x00\x00",
        "these are FastCGI records: let the web server use scgi_pass",
    ),
    ("SH18 TLS", b"\x16\x03\x01\x02\x00\x01\x00", "these are TLS bytes"),
]


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in FAILING], ids=[row[0] for row in FAILING])
def test_S01_S02_SH01_SH02_SH03_SH04_SH05_SH07_SH18_what_is_no_netstring_fails_the_connection(
    data: bytes, message: str
) -> None:
    for pieces in cuts(data) if len(data) < 1000 else [[data]]:
        connection = ServerConnection()
        assert not connection.closing
        kind, _, text = refusal(feed(connection, pieces))
        assert kind is ConnectionFailed
        assert message in text
        assert connection.closing
        assert connection.receive_data(HELLO) == []
        assert connection.receive_data(b"") == []


def test_SH18_one_byte_of_another_protocol_is_enough() -> None:
    for byte in (b"G", b"\x01", b"\x16"):
        assert refusal(ServerConnection().receive_data(byte))[0] is ConnectionFailed


REFUSED: list[tuple[str, bytes, int, str]] = [
    ("SH06 no NUL at the end", netstring(b"CONTENT_LENGTH\x000"), 400, "not in NUL"),
    ("SH06 odd number of fields", netstring(b"CONTENT_LENGTH\x000\0SCGI\0"), 400, "without its value"),
    ("SH10 -1", request(("CONTENT_LENGTH", "-1")), 400, "not a number"),
    ("SH10 3x", request(("CONTENT_LENGTH", "3x")), 400, "not a number"),
    ("SH10 1e3", request(("CONTENT_LENGTH", "1e3")), 400, "not a number"),
    ("SH10 +3", request(("CONTENT_LENGTH", "+3")), 400, "not a number"),
    ("SH10 arabic three", request(("CONTENT_LENGTH", "٣")), 400, "not a number"),
    ("SH11 20 digits", request(("CONTENT_LENGTH", "1" * 20)), 413, "20 digits"),
    ("SH12 two lengths", request(LENGTH_3, ("CONTENT_LENGTH", "1"), body=b"abc"), 400, "both '1' and '3'"),
]


@pytest.mark.parametrize(("data", "status", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_S06_SH06_SH10_SH11_SH12_headers_that_mean_nothing_are_refused_and_can_be_answered(
    data: bytes, status: int, message: str
) -> None:
    for pieces in cuts(data + b"body"):
        connection = ServerConnection()
        kind, got, text = refusal(feed(connection, pieces))
        assert (kind, got) == (RequestRefused, status)
        assert message in text
        assert not connection.closing
        assert connection.send_head(0, b"Status: 400 Bad Request\r\n\r\n") == b"Status: 400 Bad Request\r\n\r\n"
        connection.end(0)
        assert connection.closing


def test_SH01_length_over_the_limit_is_answered_without_reading_or_keeping_the_block() -> None:
    # The row says "close": so it is, after an answer that tells a web server's administrator why.
    for data in (b"9000000000:", b"262145:CONTENT_LENGTH\0"):
        for pieces in cuts(data):
            connection = ServerConnection()
            kind, status, text = refusal(feed(connection, pieces))
            assert (kind, status) == (RequestRefused, 431)
            assert "limit max_params_bytes is 262144" in text
            assert connection.receive_data(bytes(100_000)) == []


def test_S02_block_as_long_as_the_limit_is_read() -> None:
    data = request(LENGTH_0)
    block = len(data) - len(b"17:,")
    assert feed(ServerConnection(limits=Limits(max_params_bytes=block)), [data]) == [received(LENGTH_0), BodyEnded(0)]
    (event,) = ServerConnection(limits=Limits(max_params_bytes=block - 1)).receive_data(data)
    assert isinstance(event, RequestRefused)
    assert isinstance(event.error, LimitExceeded)


def test_SH19_20_000_headers() -> None:
    data = request(LENGTH_0, *[(f"H{number}", "") for number in range(20_000)])
    assert refusal(ServerConnection().receive_data(data))[:2] == (RequestRefused, 431)


STRICT: list[tuple[str, bytes, str]] = [
    ("S04 SH08 length not first", request(SCGI, LENGTH_0), "the first header is 'SCGI'"),
    ("S04 SH09 length missing", request(SCGI), "the first header is 'SCGI'"),
    ("S04 SH09 length empty", request(("CONTENT_LENGTH", ""), SCGI), "with a value"),
    ("S05 SH13 SCGI missing", request(LENGTH_0), 'SCGI with the value "1"'),
    ("S05 SH13 SCGI 2", request(LENGTH_0, ("SCGI", "2")), 'SCGI with the value "1"'),
    ("S06 SH14 duplicate", request(LENGTH_0, SCGI, ("A", "1"), ("A", "1")), "'A' comes more than once"),
    ("S06 length twice", request(LENGTH_0, LENGTH_0, SCGI), "'CONTENT_LENGTH' comes more than once"),
    ("S03 SH15 empty name", request(LENGTH_0, SCGI, ("", "x")), "without a name"),
    (
        "unbuffered nginx",
        request(LENGTH_0, SCGI, ("HTTP_CONTENT_LENGTH", "3"), body=b"abc"),
        "CONTENT_LENGTH is 0, but the client announced 3",
    ),
    ("two lengths that differ", request(LENGTH_3, ("CONTENT_LENGTH", "1"), SCGI), "both '1' and '3'"),
]


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in STRICT], ids=[row[0] for row in STRICT])
def test_S03_S04_S05_S06_SH08_SH09_SH12_SH13_SH14_SH15_strict_refuses_what_the_specification_forbids(
    data: bytes, message: str
) -> None:
    for pieces in cuts(data):
        kind, status, text = refusal(feed(ServerConnection(strict=True), pieces))
        assert (kind, status) == (RequestRefused, 400)
        assert message in text


def test_S03_S05_strict_takes_what_the_specification_allows() -> None:
    # S05: SCGI may come anywhere. S03: a value may be empty since 2008.
    pairs = (LENGTH_3, ("A", ""), SCGI, ("HTTP_CONTENT_LENGTH", "3"))
    events = [received(*pairs), BodyReceived(0, b"abc"), BodyEnded(0)]
    assert feed(ServerConnection(strict=True), [request(*pairs, body=b"abc")]) == events


# --- the end of the stream -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"12", HELLO[:20], request(LENGTH_0)[:-1]])
def test_SH20_end_of_stream_before_there_is_a_request_is_silent(data: bytes) -> None:
    connection = ServerConnection()
    assert feed(connection, [data] if data else []) == []
    assert connection.receive_data(b"") == []
    assert connection.closing
    assert not connection.broken
    assert connection.receive_data(HELLO) == []


def test_SH16_end_of_stream_inside_the_body_aborts_and_never_ends_the_body() -> None:
    connection = ServerConnection()
    events = feed(connection, [request(("CONTENT_LENGTH", "10"), body=b"abc"), b"", b""])
    assert events == [received(("CONTENT_LENGTH", "10")), BodyReceived(0, b"abc"), RequestAborted(0)]
    assert connection.closing


def test_S11_end_of_stream_while_the_answer_is_due_aborts() -> None:
    assert feed(ServerConnection(), [HELLO, b""])[-1] == RequestAborted(0)
    connection = ServerConnection()
    connection.receive_data(HELLO)
    connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    assert connection.receive_data(b"") == [RequestAborted(0)]
    # Cancelling may take a while; what a handler still sends goes nowhere, but is no error.
    assert connection.send_body(0, b"late") == b"late"
    assert connection.end(0) == b""


def test_end_of_stream_after_a_refusal_aborts_its_answer() -> None:
    connection = ServerConnection()
    connection.receive_data(request(("CONTENT_LENGTH", "x")))
    assert connection.receive_data(b"") == [RequestAborted(0)]


def test_end_of_stream_after_the_answer_is_silent() -> None:
    connection = ServerConnection()
    connection.receive_data(HELLO)
    connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    connection.end(0)
    assert connection.receive_data(b"") == []


def test_expecting_from_the_first_byte_of_a_request_to_the_end_of_its_headers() -> None:
    connection = ServerConnection()
    assert not connection.expecting
    for at in range(len(HELLO) - len(b"abc")):
        connection.receive_data(HELLO[at : at + 1])
        assert bool(connection.expecting) is (at < len(HELLO) - len(b",abc"))


def test_nothing_of_the_input_is_kept_once_it_was_handed_on() -> None:
    for pieces in cuts(HELLO):
        connection = ServerConnection()
        feed(connection, pieces)
        # What a connection refers to is small, or shared by all of them.
        held = [getattr(connection, name) for name in dir(connection) if not name.startswith("__")]
        assert not [value for value in held if isinstance(value, bytes | bytearray | dict | list)]
        assert not hasattr(connection, "__dict__")


@pytest.mark.parametrize("end", [b"", b"x", b"99999:"])
def test_not_expecting_once_there_is_nothing_to_wait_for(end: bytes) -> None:
    connection = ServerConnection()
    connection.receive_data(b"9")
    assert connection.expecting
    connection.receive_data(end)
    assert not connection.expecting


# --- the answer ------------------------------------------------------------------------------------------------------


def test_S08_S09_answer_leaves_as_it_is_and_ends_the_connection() -> None:
    connection = ServerConnection()
    connection.receive_data(HELLO)
    sent = [
        connection.send_head(0, b"20 text/gemini\r\n"),
        connection.send_body(0, b""),
        connection.send_body(0, b"# hi"),
    ]
    assert b"".join(sent) == b"20 text/gemini\r\n# hi"
    assert not connection.closing
    assert connection.end(0, status=7) == b""
    assert connection.closing
    assert not connection.broken


@pytest.mark.parametrize("body", [b"", b"# hi"])
def test_S08_S09_whole_answer_is_head_body_and_end(body: bytes) -> None:
    at_once, by_steps = ServerConnection(), ServerConnection()
    for connection in (at_once, by_steps):
        connection.receive_data(HELLO)
    sent = by_steps.send_head(0, b"20 text/gemini\r\n") + by_steps.send_body(0, body) + by_steps.end(0, 7)
    assert at_once.answer(0, b"20 text/gemini\r\n", body, 7) == sent
    assert repr(at_once) == repr(by_steps) == "<scgi.ServerConnection reading rest, sending ended, closing>"


def test_answer_may_come_before_the_body_has() -> None:
    connection = ServerConnection()
    connection.receive_data(HELLO[:-2])
    connection.send_head(0, b"Status: 413 Content Too Large\r\n\r\n")
    connection.end(0)
    # S08: what still comes of the body is for nobody, but it is still the body.
    assert connection.receive_data(b"bc") == [BodyReceived(0, b"bc"), BodyEnded(0)]


def test_broken_answer_cuts_the_connection() -> None:
    connection = ServerConnection()
    connection.receive_data(HELLO)
    connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    assert connection.fail(0) == b""
    assert connection.closing
    assert connection.broken


def test_S12_there_is_no_channel_for_a_log() -> None:
    connection = ServerConnection()
    connection.receive_data(HELLO)
    assert connection.send_log(0, "something") == b""
    connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    assert connection.send_log(0, "something") == b""
    assert connection.data_to_send() == b""


def test_misuse_is_a_local_error() -> None:
    connection = ServerConnection()
    calls: list[Callable[[], object]] = [
        lambda: connection.send_head(0, b"Status: 200 OK\r\n\r\n"),
        lambda: connection.send_body(0, b"x"),
        lambda: connection.send_log(0, "x"),
        lambda: connection.end(0),
        lambda: connection.fail(0),
        lambda: connection.answer(0, b"Status: 200 OK\r\n\r\n", b"x"),
    ]

    def refused() -> list[int]:
        numbers: list[int] = []
        for number, call in enumerate(calls):
            try:
                call()
            except LocalProtocolError:
                numbers.append(number)
        return numbers

    assert refused() == [0, 1, 2, 3, 4, 5]
    connection.receive_data(HELLO)
    with pytest.raises(LocalProtocolError, match="the head is due"):
        connection.send_body(0, b"x")
    with pytest.raises(LocalProtocolError, match="stream 0, not 1"):
        connection.send_head(1, b"Status: 200 OK\r\n\r\n")
    connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    with pytest.raises(LocalProtocolError, match="the head was sent"):
        connection.send_head(0, b"Status: 200 OK\r\n\r\n")
    with pytest.raises(LocalProtocolError, match="the head was sent"):
        connection.answer(0, b"Status: 200 OK\r\n\r\n", b"")
    connection.end(0)
    assert refused() == [0, 1, 2, 3, 4, 5]


def test_failed_connection_has_nothing_to_answer() -> None:
    connection = ServerConnection()
    connection.receive_data(b"GET /")
    with pytest.raises(LocalProtocolError, match="no request is in"):
        connection.end(0)


def test_repr_shows_the_state() -> None:
    connection = ServerConnection()
    assert repr(connection) == "<scgi.ServerConnection reading length, sending idle>"
    connection.receive_data(HELLO[:-1])
    assert repr(connection) == "<scgi.ServerConnection reading body, sending head>"
    connection.receive_data(b"")
    assert repr(connection) == "<scgi.ServerConnection reading rest, sending head, closing>"
    connection.fail(0)
    assert repr(connection) == "<scgi.ServerConnection reading rest, sending ended, broken>"


def test_is_a_server_connection() -> None:
    connection: Interface = ServerConnection(limits=Limits(), roles=("responder", "filter"), strict=False)
    assert connection.receive_data(HELLO)[0] == received(LENGTH_3, SCGI, ("REQUEST_METHOD", "POST"))


# --- any bytes at all ------------------------------------------------------------------------------------------------

FIELD = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)
REQUESTS = st.builds(
    lambda pairs, body, rest: request(("CONTENT_LENGTH", str(len(body))), *pairs, body=body + rest),
    st.lists(st.tuples(FIELD, FIELD), max_size=4),
    st.binary(max_size=20),
    st.binary(max_size=5),
)


@given(data=REQUESTS | st.binary(max_size=60) | st.builds(netstring, st.binary(max_size=60)), choice=st.data())
def test_events_do_not_depend_on_how_the_stream_is_split(data: bytes, choice: st.DataObject) -> None:
    places = choice.draw(st.lists(st.integers(0, len(data)), max_size=10).map(sorted))
    eof = choice.draw(st.sampled_from([[], [b""]]))
    assert feed(ServerConnection(), [*cut(data, places), *eof]) == feed(ServerConnection(), [*cut(data, []), *eof])


def as_decoded(pairs: Pairs) -> Pairs:
    """Pairs in Latin-1, as the captures keep them, in the text that events have."""
    return tuple((name, value.encode("latin-1").decode("utf-8", "surrogateescape")) for name, value in pairs)


@pytest.mark.parametrize("capture", [c for c in load_web() if c.protocol == "scgi"], ids=lambda c: c.id)
def test_capture_of_a_web_server_decodes_to_what_was_recorded(capture: Capture) -> None:
    assert capture.params is not None
    expected = as_decoded(capture.params)
    every = list(cuts(capture.wire, seed=len(capture.wire)))
    for pieces in every if len(capture.wire) < 5000 else every[:1] + every[2:]:
        first, *rest = feed(ServerConnection(), pieces)
        assert first == RequestReceived(0, "responder", expected, False)
        body = b"".join([event.data for event in rest if isinstance(event, BodyReceived)])
        assert len(body) == capture.body_length
        # Where a client left in the middle of its body, the body has no end.
        announced = max(int(value) for name, value in expected if name.endswith("CONTENT_LENGTH"))
        assert (rest[-1:] == [BodyEnded(0)]) is (announced == len(body))


@pytest.mark.parametrize(
    "capture", [c for c in load_small_web() if c.backend_protocol == "scgi" and c.wire], ids=lambda c: c.id
)
def test_capture_of_a_small_web_server_decodes_to_what_was_recorded(capture: SmallWebCapture) -> None:
    assert capture.env is not None
    assert capture.wire is not None
    expected = as_decoded(capture.env)
    for pieces in cuts(capture.wire):
        first, *rest = feed(ServerConnection(), pieces)
        assert isinstance(first, RequestReceived)
        assert as_pairs(first.environ) == expected
        assert rest[-1] == BodyEnded(0)


def test_error_of_a_refusal_is_the_peers() -> None:
    (event,) = ServerConnection().receive_data(request(("CONTENT_LENGTH", "x")))
    assert isinstance(event, RequestRefused)
    assert isinstance(event.error, RemoteProtocolError)
