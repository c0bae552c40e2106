"""The web server side: rows K of the hostile inputs, each split in every way, and both sides against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import Limits, LocalProtocolError
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
    ResponseEnded,
)
from gateways.fastcgi import ClientConnection, ServerConnection, wire
from gateways.fastcgi.client import MAX_IGNORED
from tests.fastcgi.tools import (
    ABORT,
    DATA,
    GET_VALUES,
    KEEP,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    Broken,
    Failed,
    begin,
    check_events,
    end,
    feed,
    matches,
    pair,
    rec,
)

HEAD = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"
GOT_HEAD = HeadReceived(1, 200, "OK", (("Content-Type", "text/plain"),))
ANSWER = rec(STDOUT, 1, HEAD + b"hello") + rec(STDOUT, 1) + end(1)
ANSWERED = [GOT_HEAD, BodyReceived(1, b"hello"), ResponseEnded(1)]


def asking(*ids: int, keep: bool = True, limits: Limits | None = None) -> ClientConnection:
    """A client that waits for answers to whole requests."""
    connection = ClientConnection(limits=limits)
    for stream_id in ids or (1,):
        connection.send_request(stream_id, {}, keep_connection=keep)
        connection.end_body(stream_id)
    return connection


def check(data: bytes, expected: list[Any], *ids: int, limits: Limits | None = None) -> ClientConnection:
    connection: ClientConnection = check_events(lambda: asking(*ids, limits=limits), data, expected)
    failed = bool(expected) and isinstance(expected[-1], Failed)
    assert connection.reusable is not failed
    if failed:
        assert connection.receive_data(ANSWER) == connection.receive_data(b"") == []
    return connection


# --- Sending ---


def test_a_request_is_begin_params_and_stdin() -> None:
    connection = ClientConnection()
    sent = connection.send_request(7, {"REQUEST_METHOD": "GET", "X": "€\udcff"})
    params = pair(b"REQUEST_METHOD", b"GET") + pair(b"X", b"\xe2\x82\xac\xff")
    assert sent == begin(7, flags=0) + wire.encode_record(PARAMS, 7, params) + rec(PARAMS, 7)
    assert connection.send_body(7, b"") == b""
    assert connection.send_body(7, b"12345678") == rec(STDIN, 7, b"12345678")
    assert connection.end_body(7) == rec(STDIN, 7)
    assert connection.end_body(7) == b""


def test_pairs_may_repeat_and_stay_in_order() -> None:
    sent = ClientConnection().send_request(1, iter([("A", "1"), ("A", "2")]), keep_connection=True)
    assert sent == begin(1, flags=KEEP) + wire.encode_record(PARAMS, 1, pair(b"A", b"1") + pair(b"A", b"2")) + rec(
        PARAMS, 1
    )


def test_K13_an_empty_environment_and_an_empty_body_are_sent() -> None:
    connection = ClientConnection()
    assert connection.send_request(1, {}) == begin(1, flags=0) + rec(PARAMS, 1)
    assert connection.end_body(1) == rec(STDIN, 1)


def test_K02_long_params_and_bodies_are_split() -> None:
    connection = ClientConnection()
    environ = {"LONG": "x" * 99_000}
    data = connection.send_request(1, environ) + connection.send_body(1, b"y" * 99_000) + connection.end_body(1)
    assert all(len(content) <= 65535 for _, _, content, _ in wire.RecordScanner().scan(data))
    assert feed(ServerConnection(), [data]) == [
        RequestReceived(1, "responder", tuple(environ.items()), False),
        BodyReceived(1, b"y" * 99_000),
        BodyEnded(1),
    ]


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"A": "x\0"}, "NUL in the meta-variable 'A'"),
        ({"A\0": "x"}, "NUL in the meta-variable"),
        ({"A": 1}, "names and values are text, not int"),
        ([(b"A", "x")], "names and values are text, not bytes"),
        ({"A": None}, "names and values are text, not NoneType"),
        ({"A": "\ud800"}, "cannot be encoded"),
    ],
)
def test_F21_only_text_without_nul_is_sent(environ: Any, problem: str) -> None:
    connection = ClientConnection()
    with pytest.raises(LocalProtocolError, match=problem):
        connection.send_request(1, environ)
    assert connection.send_request(1, {})


@pytest.mark.parametrize("stream_id", [0, -1, 65536])
def test_F15_ids_are_1_to_65535(stream_id: int) -> None:
    with pytest.raises(LocalProtocolError, match="takes an id from 1 to 65535"):
        ClientConnection().send_request(stream_id, {})


def test_an_id_carries_one_request_at_a_time() -> None:
    connection = asking(1)
    with pytest.raises(LocalProtocolError, match="that is not active, not 1"):
        connection.send_request(1, {})
    connection.receive_data(ANSWER)
    assert connection.send_request(1, {})


def test_an_unknown_role_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="the roles are responder, authorizer, filter, not 'cook'"):
        ClientConnection().send_request(1, {}, role="cook")


def test_F39_an_authorizer_gets_no_body() -> None:
    connection = ClientConnection()
    assert connection.send_request(1, {}, role="authorizer").startswith(begin(1, 2, 0))
    assert connection.end_body(1) == connection.end_data(1) == b""
    with pytest.raises(LocalProtocolError, match="not the turn of STDIN in request 1"):
        connection.send_body(1, b"x")


def test_F40_a_filter_gets_its_streams_in_order() -> None:
    connection = ClientConnection()
    assert connection.send_request(1, {}, role="filter").startswith(begin(1, 3, 0))
    with pytest.raises(LocalProtocolError, match="not the turn of DATA in request 1"):
        connection.send_data(1, b"x")
    with pytest.raises(LocalProtocolError, match="not the turn of DATA in request 1"):
        connection.end_data(1)
    connection.end_body(1)
    assert connection.send_data(1, b"12345678") == rec(DATA, 1, b"12345678")
    assert connection.end_data(1) == rec(DATA, 1)


def test_K14_nothing_more_is_sent_for_a_request_that_was_answered() -> None:
    connection = ClientConnection()
    connection.send_request(1, {}, keep_connection=True)
    assert feed(connection, [ANSWER]) == ANSWERED
    calls: list[Callable[[], bytes]] = [
        lambda: connection.send_body(1, b"x"),
        lambda: connection.end_body(1),
        lambda: connection.abort(1),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError, match="request 1 is not active"):
            call()
    # The body was never ended, and not every application drops what is left of it.
    assert not connection.reusable


@pytest.mark.parametrize("keep", [True, False])
def test_a_connection_is_reusable_if_it_was_kept(keep: bool) -> None:
    connection = asking(1, keep=keep)
    connection.receive_data(ANSWER)
    assert connection.reusable is keep
    assert repr(connection) == f"<fastcgi.ClientConnection {'reusable' if keep else 'open'}, 0 active>"


def test_a_connection_that_is_not_kept_once_is_not_reusable_whatever_follows() -> None:
    connection = ClientConnection()
    assert connection.first_id == 1
    connection.send_request(1, {}, keep_connection=False)
    connection.send_request(65_535, {}, keep_connection=True)
    assert not connection.reusable


def test_a_failed_connection_has_no_requests_any_more() -> None:
    connection = asking(1, 2)
    (failed,) = connection.receive_data(b"")
    assert matches(failed, Failed("the application closed the connection before the end of 1, 2", 502))
    with pytest.raises(LocalProtocolError, match="request 2 is not active"):
        connection.send_body(2, b"x")


def test_a_closed_connection_takes_no_request() -> None:
    connection = ClientConnection()
    assert connection.receive_data(b"") == []
    assert not connection.reusable
    assert repr(connection) == "<fastcgi.ClientConnection closed, 0 active>"
    with pytest.raises(LocalProtocolError, match="the connection is closed"):
        connection.send_request(1, {})


# --- Receiving ---


def test_a_response_becomes_events() -> None:
    check(ANSWER, ANSWERED)


def test_a_head_may_be_split_over_records_and_use_bare_newlines() -> None:
    head = b"Content-Type: text/plain\n\n"
    data = b"".join(rec(STDOUT, 1, head[i : i + 1]) for i in range(len(head)))
    check(data + rec(STDOUT, 1, b"x") + rec(STDOUT, 1) + end(), [GOT_HEAD, BodyReceived(1, b"x"), ResponseEnded(1)])


def test_a_response_may_have_no_body() -> None:
    check(rec(STDOUT, 1, HEAD) + rec(STDOUT, 1) + end(), [GOT_HEAD, ResponseEnded(1)])


def test_php_does_not_end_stdout() -> None:
    check(rec(STDOUT, 1, HEAD) + end(), [GOT_HEAD, ResponseEnded(1)])


def test_stdout_may_end_twice() -> None:
    check(rec(STDOUT, 1, HEAD) + rec(STDOUT, 1) * 2 + end(), [GOT_HEAD, ResponseEnded(1)])


def test_F35_log_and_response_may_interleave() -> None:
    data = rec(STDERR, 1, b"a") + rec(STDOUT, 1, HEAD[:9]) + rec(STDERR, 1, b"b") + rec(STDOUT, 1, HEAD[9:] + b"x")
    data += rec(STDERR, 1, b"c") + rec(STDERR, 1) + rec(STDOUT, 1, b"y") + rec(STDOUT, 1) + end()
    check(
        data,
        [
            LogReceived(1, b"ab"),
            GOT_HEAD,
            BodyReceived(1, b"x"),
            LogReceived(1, b"c"),
            BodyReceived(1, b"y"),
            ResponseEnded(1),
        ],
    )


def test_responses_may_interleave() -> None:
    two = HeadReceived(2, 404, "Not Found", ())
    data = rec(STDOUT, 2, b"Status: 404 Not Found\r\n") + ANSWER[:-16] + rec(STDOUT, 2, b"\r\nx") + rec(STDOUT, 2)
    check(
        data + end(2) + end(1),
        [GOT_HEAD, BodyReceived(1, b"hello"), two, BodyReceived(2, b"x"), ResponseEnded(2), ResponseEnded(1)],
        1,
        2,
    )


def test_K01_records_of_unknown_types_keep_the_framing() -> None:
    for padding in (0, 1, 255):
        check(rec(99, 1, b"x" * 65535, padding) + rec(UNKNOWN, 0, bytes(8), padding) + ANSWER, ANSWERED)


def test_K01_records_of_unknown_types_are_bounded() -> None:
    check(rec(99, 1) * MAX_IGNORED + ANSWER, ANSWERED)
    check(rec(99, 1) * MAX_IGNORED + rec(UNKNOWN, 0), [Failed("more than 1000 records that mean nothing", 502)])


@pytest.mark.parametrize(
    ("data", "events", "problem"),
    [
        (ANSWER + rec(STDOUT, 1, b"x"), ANSWERED, "STDOUT for request 1, which is not active"),
        (ANSWER + rec(STDERR, 1), ANSWERED, "STDERR for request 1, which is not active"),
        (ANSWER + end(), ANSWERED, "END_REQUEST for request 1, which is not active"),
        (rec(3, 1, b"short"), [], "END_REQUEST of 5 bytes, 8 are needed"),
        (rec(3, 1), [], "END_REQUEST of 0 bytes, 8 are needed"),
    ],
)
def test_K03_records_after_an_end_and_an_end_too_short_fail_the_connection(
    data: bytes, events: list[Any], problem: str
) -> None:
    check(data, [*events, Failed(problem, 502)])


@pytest.mark.parametrize(
    ("data", "events", "problem"),
    [
        (rec(STDOUT, 1, HEAD) + rec(STDOUT, 1) + rec(STDOUT, 1, b"x"), [GOT_HEAD], "STDOUT after the end of"),
        (rec(STDOUT, 1, HEAD) + rec(STDOUT, 1, b"x"), [GOT_HEAD, BodyReceived(1, b"x")], "broke off (application st"),
        (rec(STDOUT, 1), [], "request 1 ended without a whole response head"),
        (rec(STDOUT, 1, b"Fatal error\r\n\r\n"), [], "not a header field in a response head"),
    ],
)
def test_K03_a_response_that_fails_spares_its_siblings(data: bytes, events: list[Any], problem: str) -> None:
    """Once it has failed, nothing more of it is told, and its end frees the id."""
    two = rec(STDOUT, 2, HEAD) + rec(STDOUT, 2, b"two") + rec(STDOUT, 2) + end(2)
    more = b"" if "broke off" in problem else rec(STDOUT, 1, b"more") * 2 + rec(STDOUT, 1)
    connection = check(
        data + more + end(1, 1) + two,
        [
            *events,
            Broken(1, problem),
            HeadReceived(2, 200, "OK", GOT_HEAD.headers),
            BodyReceived(2, b"two"),
            ResponseEnded(2),
        ],
        1,
        2,
    )
    assert connection.reusable
    connection.send_request(1, {}, keep_connection=True)
    assert feed(connection, [ANSWER]) == ANSWERED


def test_a_connection_is_not_reusable_while_the_input_of_a_failed_request_is_owed() -> None:
    connection = ClientConnection()
    connection.send_request(1, {}, keep_connection=True)
    assert len(connection.receive_data(end(1, 0, wire.OVERLOADED))) == 1
    assert not connection.reusable


@pytest.mark.parametrize("length", [0, 3, 20, 60, 70])
def test_K04_a_close_before_the_end_is_a_failure(length: int) -> None:
    connection = asking(1)
    events = [*connection.receive_data(ANSWER[:length] or rec(99, 0)), *connection.receive_data(b"")]
    assert not any(isinstance(event, ResponseEnded) for event in events)
    failed = events[-1]
    assert isinstance(failed, ConnectionFailed)
    assert str(failed.error) == "the application closed the connection before the end of 1"
    assert failed.error.status == 502
    assert not connection.reusable
    assert connection.receive_data(b"") == []


@pytest.mark.parametrize("stream_id", [0, 2, 65535])
def test_K05_records_for_another_id_are_never_mixed_in(stream_id: int) -> None:
    check(rec(STDOUT, stream_id, HEAD), [Failed(f"STDOUT for request {stream_id}, which is not active", 502)])


def test_K06_the_log_of_a_response_is_capped() -> None:
    data = rec(STDERR, 1, b"123456") * 100 + ANSWER
    check(data, [LogReceived(1, b"1234561234"), *ANSWERED], limits=Limits(max_stderr=10))


@pytest.mark.parametrize(
    "head",
    [b"Status: 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"X-%d: y\r\n" * 10_000, b"x" * 40_000],
)
def test_K07_a_head_over_the_limit_fails(head: bytes) -> None:
    data = b"".join(rec(STDOUT, 1, head[i : i + 30_000]) for i in range(0, len(head), 30_000))
    check(data + ANSWER, [Broken(1, "response head over 32768 bytes")])


def test_a_head_that_is_none_fails() -> None:
    check(rec(STDOUT, 1, b"Fatal error\r\n\r\n"), [Broken(1, "not a header field in a response head")])


def test_K08_padding_is_skipped_wherever_it_is() -> None:
    data = rec(STDOUT, 1, HEAD, 255) + rec(STDOUT, 1, b"", 7) + rec(STDERR, 1, b"", 1)
    data += rec(3, 1, bytes(8), 255)
    connection = check(data, [GOT_HEAD, ResponseEnded(1)])
    connection.send_request(1, {}, keep_connection=True)
    assert feed(connection, [ANSWER]) == ANSWERED


def test_K10_a_close_between_requests_is_no_failure() -> None:
    connection = asking(1)
    assert feed(connection, [ANSWER]) == ANSWERED
    assert connection.reusable
    assert connection.receive_data(b"") == []
    assert not connection.reusable


@pytest.mark.parametrize(
    ("status", "problem", "answer"),
    [
        (wire.CANT_MPX_CONN, "FCGI_CANT_MPX_CONN", 503),
        (wire.OVERLOADED, "FCGI_OVERLOADED", 503),
        (wire.UNKNOWN_ROLE, "FCGI_UNKNOWN_ROLE", 502),
        (77, "answers protocol status 77", 502),
    ],
)
def test_F30_F31_F29_K11_a_rejection_is_a_failure_with_a_status(status: int, problem: str, answer: int) -> None:
    check(end(1, 0, status), [Broken(1, problem, answer)])
    for stdout_end in (b"", rec(STDOUT, 1)):
        check(rec(STDOUT, 1, HEAD) + stdout_end + end(1, 0, status), [GOT_HEAD, Broken(1, problem, answer)])


def test_K12_values_are_asked_for_and_kept() -> None:
    connection = asking(1)
    names = (b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS")
    asked = connection.get_values()
    assert asked == wire.encode_record(GET_VALUES, 0, b"".join(pair(name, b"") for name in names))
    assert connection.values == {}
    answer = rec(RESULT, 0, pair(b"FCGI_MAX_REQS", b"0") + pair(b"SPAM", b"x")) + ANSWER
    assert feed(connection, [answer]) == ANSWERED
    assert connection.values == {"FCGI_MAX_REQS": "0"}
    assert check(rec(RESULT, 1, b"\1") + ANSWER, ANSWERED).values == {}


def test_K12_values_cut_short_fail() -> None:
    check(rec(RESULT, 0, b"\1"), [Failed("name-value pair 1 is cut short", 502)])


@pytest.mark.parametrize("status", [1, 2**32 - 1])
def test_K15_an_application_status_is_told_and_the_response_kept(status: int) -> None:
    data = rec(STDOUT, 1, HEAD) + rec(STDOUT, 1) + end(1, status)
    check(data, [GOT_HEAD, ResponseEnded(1, status)])


@pytest.mark.parametrize("before", [b"", rec(STDOUT, 1), rec(STDOUT, 1, HEAD[:9])])
def test_a_response_without_a_whole_head_fails(before: bytes) -> None:
    for stdout_end in (rec(STDOUT, 1), b""):
        check(before + stdout_end + end(), [Broken(1, "request 1 ended without a whole response head")])


@pytest.mark.parametrize("answer", [end(), rec(STDOUT, 1) + end(1, 1), rec(STDOUT, 1, HEAD[:9]) + end()])
def test_F37_an_aborted_request_ends_whole_or_not(answer: bytes) -> None:
    connection = asking(1)
    assert connection.abort(1) == rec(ABORT, 1)
    (ended,) = connection.receive_data(answer)
    assert isinstance(ended, ResponseEnded)


def test_F37_what_comes_of_an_aborted_request_is_dropped_but_for_its_log() -> None:
    connection = asking(1)
    assert connection.receive_data(rec(STDOUT, 1, HEAD)) == [GOT_HEAD]
    connection.abort(1)
    assert feed(connection, [rec(STDOUT, 1, b"x"), rec(STDERR, 1, b"y")]) == [LogReceived(1, b"y")]
    assert connection.abort(1) == rec(ABORT, 1)  # once more does no harm
    assert connection.receive_data(rec(STDOUT, 1) + end(1, 7)) == [ResponseEnded(1, 7)]


def test_F35_F37_after_the_end_of_stdout_there_may_be_a_log_and_the_request_may_be_given_up() -> None:
    connection = asking(1)
    events = feed(connection, [rec(STDOUT, 1, HEAD) + rec(STDOUT, 1) + rec(STDERR, 1, b"late")])
    assert events == [GOT_HEAD, LogReceived(1, b"late")]
    assert connection.abort(1) == rec(ABORT, 1)
    assert feed(connection, [rec(STDERR, 1, b"later") + end(1, 3)]) == [LogReceived(1, b"later"), ResponseEnded(1, 3)]
    with pytest.raises(LocalProtocolError, match="request 1 is not active"):
        connection.abort(1)


def test_F37_a_response_that_has_failed_may_be_aborted_and_says_nothing_more() -> None:
    connection = asking(1)
    assert len(connection.receive_data(rec(STDOUT, 1))) == 1
    assert connection.abort(1) == rec(ABORT, 1)
    assert feed(connection, [ANSWER]) == []


def test_F11_an_application_that_speaks_http_is_named() -> None:
    check(b"HTTP/1.1 200 OK\r\n\r\n", [Failed("HTTP on a FastCGI port", 502)])
    check(ANSWER + b"Status: 200", [*ANSWERED, Failed("version 83 instead of 1", 502)])


# --- Both sides ---


def test_both_sides_agree_on_a_rejected_request() -> None:
    web, app = ClientConnection(), ServerConnection()
    app.receive_data(web.send_request(1, {}, role="filter") + web.end_body(1))
    (failed,) = web.receive_data(app.data_to_send())
    assert matches(failed, Broken(1, "FCGI_UNKNOWN_ROLE"))


def test_both_sides_agree_on_values() -> None:
    web, app = ClientConnection(), ServerConnection(limits=Limits(max_ids=3))
    app.receive_data(web.get_values())
    assert web.receive_data(app.data_to_send()) == []
    assert web.values == {"FCGI_MAX_CONNS": "10000", "FCGI_MAX_REQS": "3", "FCGI_MPXS_CONNS": "1"}


def test_both_sides_agree_on_a_response_that_breaks() -> None:
    web, app = ClientConnection(), ServerConnection()
    app.receive_data(b"".join(web.send_request(i, {}, keep_connection=True) for i in (1, 2)))
    web.receive_data(app.send_head(1, HEAD) + app.send_body(1, b"half"))
    (failed,) = web.receive_data(app.fail(1))
    assert matches(failed, Broken(1, "broke off"))
    assert web.receive_data(app.send_head(2, HEAD) + app.end(2))[-1] == ResponseEnded(2)


def test_both_sides_agree_on_an_abort() -> None:
    web, app = ClientConnection(), ServerConnection()
    app.receive_data(web.send_request(1, {}, keep_connection=True) + web.send_body(1, b"half"))
    assert app.receive_data(web.abort(1)) == [RequestAborted(1)]
    assert web.receive_data(app.end(1)) == [ResponseEnded(1)]


_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


@given(
    environ=st.lists(st.tuples(_text, _text), max_size=20),
    body=st.binary(max_size=300),
    file=st.binary(max_size=300),
    answer=st.binary(max_size=300),
    log=_text,
    status=st.integers(0, 2**32 - 1),
    step=st.integers(1, 500),
)
def test_whatever_one_side_says_the_other_understands(
    environ: list[tuple[str, str]], body: bytes, file: bytes, answer: bytes, log: str, status: int, step: int
) -> None:
    web, app = ClientConnection(), ServerConnection(roles=("filter",))
    data = web.send_request(9, environ, role="filter", keep_connection=True)
    data += web.send_body(9, body) + web.end_body(9) + web.send_data(9, file) + web.end_data(9)
    wanted: list[object] = [RequestReceived(9, "filter", tuple(environ), True)]
    wanted += [BodyReceived(9, body)] * bool(body) + [BodyEnded(9)]
    wanted += [DataReceived(9, file)] * bool(file) + [DataEnded(9)]
    assert feed(app, [data[i : i + step] for i in range(0, len(data), step)]) == wanted

    assert app.send_log(9, log) == b""
    data = app.send_head(9, HEAD) + app.send_body(9, answer) + app.end(9, status)
    wanted = [LogReceived(9, log.encode())] * bool(log)
    wanted += [HeadReceived(9, 200, "OK", GOT_HEAD.headers)]
    wanted += [BodyReceived(9, answer)] * bool(answer) + [ResponseEnded(9, status)]
    assert feed(web, [data[i : i + step] for i in range(0, len(data), step)]) == wanted
    assert web.reusable
    assert not app.closing


@given(st.binary(max_size=120), st.integers(1, 20))
def test_any_bytes_from_an_application_end_in_events(data: bytes, step: int) -> None:
    whole, split = asking(1), asking(1)
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    assert feed(whole, [data, b""] if data else [b""]) == feed(split, [*pieces, b""])
    assert not whole.reusable
