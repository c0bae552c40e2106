"""The application side: rows W of the hostile inputs and F of the conformance list, each split in every way."""

from __future__ import annotations

import random
import struct
import tracemalloc
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
    RequestAborted,
    RequestReceived,
    RequestRefused,
)
from gateways.fastcgi import ServerConnection, wire
from gateways.fastcgi.server import CUT, MAX_IGNORED, MAX_UNSENT, Statistics
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    DATA,
    END,
    ENVIRON,
    GET,
    GET_VALUES,
    KEEP,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    Failed,
    Refused,
    begin,
    check,
    end,
    feed,
    joined,
    pair,
    rec,
    request,
)

ALL_ROLES = ("responder", "authorizer", "filter")


def got(stream_id: int = 1, environ: Any = ENVIRON, role: str = "responder", keep: bool = True) -> RequestReceived:
    return RequestReceived(stream_id, role, tuple(environ), keep)


def connected(data: bytes, **options: Any) -> ServerConnection:
    connection = ServerConnection(**options)
    feed(connection, [data])
    return connection


def records(data: bytes) -> list[tuple[int, int, bytes]]:
    return [record[:3] for record in wire.RecordScanner().scan(data)]


# --- The usual ---


def test_a_request_becomes_events() -> None:
    check(request(body=b"hello"), [got(), BodyReceived(1, b"hello"), BodyEnded(1)])


def test_F34_a_response_may_begin_before_the_body_ends() -> None:
    connection = connected(request(body=None))
    assert connection.send_body(1, b"x") == wire.encode_record(STDOUT, 1, b"x")


def test_F34_no_response_before_the_end_of_params() -> None:
    connection = connected(begin())
    for call in (connection.send_head, connection.send_body):
        with pytest.raises(LocalProtocolError, match="request 1 cannot be answered before"):
            call(1, b"x")
    with pytest.raises(LocalProtocolError):
        connection.end(1)


def test_F32_F33_F35_an_answer_is_head_body_and_the_end_of_its_streams() -> None:
    connection = connected(request())
    head = b"Status: 200 OK\r\n\r\n"
    assert connection.send_head(1, head) == wire.encode_record(STDOUT, 1, head)
    assert connection.send_body(1, b"hello") == wire.encode_record(STDOUT, 1, b"hello")
    assert connection.end(1) == rec(STDOUT, 1) + end(1)
    assert not connection.closing


def test_F33_an_empty_body_is_not_sent_as_a_record() -> None:
    connection = connected(request())
    assert connection.send_head(1, b"") == connection.send_body(1, b"") == b""


def test_a_head_travels_in_one_record() -> None:
    connection = connected(request())
    assert [len(content) for _, _, content in records(connection.send_head(1, b"x" * 40_000))] == [40_000]


def test_a_long_body_is_split() -> None:
    body = random.Random(1).randbytes(300_000)
    sent = records(connected(request()).send_body(1, body))
    assert b"".join(content for _, _, content in sent) == body
    assert {(kind, stream_id) for kind, stream_id, _ in sent} == {(STDOUT, 1)}


@pytest.mark.parametrize("status", [0, 1, 255, 2**32 - 1])
def test_F32_end_carries_the_application_status(status: int) -> None:
    assert connected(request()).end(1, status).endswith(struct.pack(">IB3x", status, 0))


@pytest.mark.parametrize("status", [-1, 2**32])
def test_F32_a_wrong_application_status_changes_nothing(status: int) -> None:
    connection = connected(request())
    with pytest.raises(LocalProtocolError, match="application status"):
        connection.end(1, status)
    assert connection.end(1) == rec(STDOUT, 1) + end(1)


def test_F14_nothing_is_sent_after_the_end() -> None:
    connection = connected(request())
    connection.end(1)
    calls: list[Callable[[], bytes]] = [
        lambda: connection.send_head(1, b"x"),
        lambda: connection.send_body(1, b"x"),
        lambda: connection.send_log(1, "x"),
        lambda: connection.end(1),
        lambda: connection.fail(1),
        lambda: connection.send_body(2, b""),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError, match="is not active"):
            call()


def test_F14_an_id_is_used_again_with_a_clean_state() -> None:
    connection = connected(request(params=GET + pair(b"REMOTE_USER", b"a"), body=b"first"))
    connection.send_log(1, "log")
    connection.end(1)
    assert feed(connection, [request(body=b"2")]) == [got(), BodyReceived(1, b"2"), BodyEnded(1)]
    assert connection.end(1) == rec(STDOUT, 1) + end(1)


@pytest.mark.parametrize("stream_id", [1, 2, 255, 256, 0x0100 + 1, 0x8000, 65534, 65535])
def test_F15_W16_every_id_up_to_65535_works_and_is_that_of_the_answer(stream_id: int) -> None:
    connection = check(request(stream_id), [got(stream_id), BodyEnded(stream_id)])
    assert records(connection.send_body(stream_id, b"x") + connection.end(stream_id)) == [
        (STDOUT, stream_id, b"x"),
        (STDOUT, stream_id, b""),
        (END, stream_id, bytes(8)),
    ]


def test_F06_without_keep_conn_the_connection_closes_after_its_request() -> None:
    connection = connected(request(flags=0))
    connection.send_head(1, b"x")
    assert not connection.closing
    connection.end(1)
    assert connection.closing
    assert connection.receive_data(request(2)) == connection.receive_data(b"") == []


def test_F06_the_connection_closes_under_nobody() -> None:
    connection = connected(request(1, flags=0) + request(2))
    connection.end(1)
    assert not connection.closing
    # A request that begins now is left to the next connection; what belongs to it is not held against anybody.
    assert feed(connection, [request(3, body=None) + rec(STDIN, 3, b"x") * 2000 + rec(STDIN, 3)]) == []
    assert not connection.closing
    assert connection.statistics() == Statistics(requests=2, active=1, rejected=0, ignored=1)


@pytest.mark.parametrize(("flags", "closing"), [(0, True), (KEEP, False)])
def test_F06_a_request_over_the_limits_is_kept_as_it_asked(flags: int, closing: bool) -> None:
    connection = connected(request(params=GET * 2, flags=flags), limits=Limits(max_params=1))
    connection.end(1)
    assert connection.closing is closing


def test_F06_last_call_ends_with_the_last_request() -> None:
    connection = connected(request(1, flags=0) + request(2) + request(3))
    for stream_id in (1, 3):
        connection.end(stream_id)
        assert not connection.closing
    connection.end(2)
    assert connection.closing


def test_statistics_and_repr_tell_the_state() -> None:
    connection = connected(request(1, flags=0) + request(2) + begin(3, role=9) + rec(STDOUT, 1))
    assert connection.statistics() == Statistics(requests=2, active=2, rejected=1, ignored=1)
    assert repr(connection) == "<fastcgi.ServerConnection open, 2 active of 2 requests>"
    connection.end(1)
    connection.end(2)
    assert repr(connection) == "<fastcgi.ServerConnection closing, 0 active of 2 requests>"
    broken = connected(request())
    broken.fail(1)
    assert repr(broken) == "<fastcgi.ServerConnection broken, 0 active of 1 requests>"


@pytest.mark.parametrize(
    ("data", "expecting"),
    [
        (b"", []),
        (b"\1", [0]),  # which request this will be is not known yet
        (begin(), [1]),
        (begin() + rec(PARAMS, 1, GET), [1]),
        (request(body=None), []),
        (request(1) + begin(2), [2]),
        (begin(3) + begin(2) + rec(PARAMS, 3, GET) + rec(PARAMS, 3) + begin(7), [2, 7]),
        (begin(2) + rec(ABORT, 2), []),
        (request(1)[:-1], []),
    ],
)
def test_a_connection_expects_the_rest_of_what_has_begun(data: bytes, expecting: list[int]) -> None:
    assert sorted(connected(data).expecting) == expecting


@pytest.mark.parametrize("roles", ["responder", ["responser"], ["responder", 1]])
def test_roles_are_checked(roles: Any) -> None:
    with pytest.raises(LocalProtocolError, match="roles takes a collection of responder, authorizer, filter"):
        ServerConnection(roles=roles)


# --- The log ---


def test_log_text_travels_with_the_next_bytes_of_the_response() -> None:
    connection = connected(request())
    assert connection.send_log(1, "first\n") == b""
    assert connection.send_log(1, "sécond\n") == b""
    assert records(connection.send_body(1, b"")) == []
    assert records(connection.send_head(1, b"head")) == [(STDERR, 1, "first\nsécond\n".encode()), (STDOUT, 1, b"head")]
    assert records(connection.send_body(1, b"body")) == [(STDOUT, 1, b"body")]
    connection.send_log(1, "third")
    assert records(connection.end(1)) == [
        (STDERR, 1, b"third"),
        (STDOUT, 1, b""),
        (STDERR, 1, b""),
        (END, 1, bytes(8)),
    ]


def test_a_body_in_pieces_is_the_same_body() -> None:
    whole, pieces = connected(request()), connected(request())
    assert pieces.frame_body(1, b"") == []
    for connection in (whole, pieces):
        connection.send_log(1, "text")
    for data in (b"first" * 10_000, b"second" * 20_000):
        assert b"".join(pieces.frame_body(1, data)) == whole.send_body(1, data)
    assert pieces.end(1) == whole.end(1)
    with pytest.raises(LocalProtocolError, match="request 1 is not active"):
        pieces.frame_body(1, b"more")


def test_F33_stderr_is_ended_if_it_was_used() -> None:
    connection = connected(request())
    connection.send_log(1, "x")
    connection.send_head(1, b"head")
    assert records(connection.end(1)) == [(STDOUT, 1, b""), (STDERR, 1, b""), (END, 1, bytes(8))]


def test_log_text_is_cut_at_its_limit_visibly() -> None:
    connection = connected(request(), limits=Limits(max_stderr=10))
    connection.send_log(1, "12345")
    connection.send_log(1, "67890")
    assert records(connection.send_body(1, b"x"))[0] == (STDERR, 1, b"1234567890")
    connection.send_log(1, "more")
    connection.send_log(1, "and more")
    assert records(connection.send_body(1, b"x"))[0] == (STDERR, 1, CUT)
    connection.send_log(1, "and more")
    assert records(connection.send_body(1, b"x")) == [(STDOUT, 1, b"x")]


def test_log_text_that_has_no_bytes_is_escaped() -> None:
    connection = connected(request())
    connection.send_log(1, "\ud800 \udcff")
    assert records(connection.send_body(1, b"x"))[0] == (STDERR, 1, rb"\ud800 \udcff")


# --- A response that breaks ---


def test_a_broken_response_alone_on_its_connection_breaks_the_connection() -> None:
    connection = connected(request())
    connection.send_body(1, b"half")
    [(kind, stream_id, content)] = records(connection.fail(1))
    assert (kind, stream_id, content) == (
        UNKNOWN,
        0,
        b"\3" + bytes(7),
    )  # which nobody asked for: nginx sees the break by it
    assert connection.closing
    assert connection.broken
    assert connection.receive_data(request(2)) == []


def test_a_broken_response_beside_others_ends_with_application_status_1() -> None:
    connection = connected(request(1) + request(2, flags=0))
    connection.send_log(1, "it broke")
    assert records(connection.fail(1)) == [(STDERR, 1, b"it broke"), (END, 1, b"\0\0\0\1\0\0\0\0")]
    assert not connection.closing
    assert not connection.broken
    assert connection.end(2) == rec(STDOUT, 2) + end(2)


# --- Records ---


@pytest.mark.parametrize("version", [0, 2])
def test_F11_W01_W02_another_version_closes_without_an_answer(version: int) -> None:
    check(rec(BEGIN, 1, bytes(8), version=version) + request(), [Failed(f"version {version} instead of 1")])


def test_W03_a_version_that_flips_aborts_the_request() -> None:
    connection = check(
        request(1) + request(2, body=None) + begin(3) + rec(STDIN, 1, version=2) + request(4),
        [got(1), BodyEnded(1), got(2), RequestAborted(1), RequestAborted(2), Failed("version 2 instead of 1")],
    )
    # Half an answer does not get an end that makes it look whole.
    assert connection.send_body(1, b"x") == connection.end(1) == connection.fail(2) == b""
    assert not connection.broken


def test_F28_W04_unknown_management_type_is_answered() -> None:
    check(
        rec(100, 0, b"abc", 5) + rec(0, 0) + request(),
        [got(), BodyEnded(1)],
        sent=rec(UNKNOWN, 0, b"\x64" + bytes(7)) + rec(UNKNOWN, 0, bytes(8)),
    )


def test_F28_W05_unknown_type_with_an_active_id_is_ignored() -> None:
    connection = check(
        request(body=None) + rec(100, 1, b"abc") + rec(STDIN, 1, b"x") + rec(STDIN, 1),
        [got(), BodyReceived(1, b"x"), BodyEnded(1)],
    )
    assert connection.statistics().ignored == 1


def values(*names: bytes) -> bytes:
    return rec(GET_VALUES, 0, b"".join(pair(name, b"") for name in names))


@pytest.mark.parametrize(
    ("asked", "max_ids", "shared"),
    [
        ((b"FCGI_MPXS_CONNS",), 128, True),
        ((b"FCGI_MPXS_CONNS",), 1, False),
        ((b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS"), 128, False),
        ((), 128, False),
    ],
)
def test_who_asks_whether_we_multiplex_is_taken_to_do_so(asked: tuple[bytes, ...], max_ids: int, shared: bool) -> None:
    connection = connected(values(*asked), limits=Limits(max_ids=max_ids))
    assert connection.shared is shared
    feed(connection, [values(b"FCGI_MAX_CONNS")])
    assert connection.shared is shared


def test_F25_F26_W06_values_are_told() -> None:
    limits = Limits(max_connections=77, max_ids=5)
    asked = values(b"FCGI_MPXS_CONNS", b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS")
    told = pair(b"FCGI_MPXS_CONNS", b"1") + pair(b"FCGI_MAX_CONNS", b"77") + pair(b"FCGI_MAX_REQS", b"5")
    check(asked, [], sent=wire.encode_record(RESULT, 0, told), limits=limits)
    # One request at a time is no multiplexing: then there are as many requests as connections.
    limits = Limits(max_connections=77, max_ids=1)
    told = pair(b"FCGI_MPXS_CONNS", b"0") + pair(b"FCGI_MAX_CONNS", b"77") + pair(b"FCGI_MAX_REQS", b"77")
    check(asked, [], sent=wire.encode_record(RESULT, 0, told), limits=limits)


def test_F25_W07_unknown_values_are_left_out() -> None:
    check(values(b"FCGI_COLOUR"), [], sent=rec(RESULT, 0))


def test_F27_a_value_is_told_once_however_often_it_is_asked_for() -> None:
    check(
        values(*[b"FCGI_MPXS_CONNS"] * 100),
        [],
        sent=wire.encode_record(RESULT, 0, pair(b"FCGI_MPXS_CONNS", b"1")),
    )


def test_W08_values_asked_for_with_half_a_pair_close() -> None:
    check(rec(GET_VALUES, 0, b"\x7f\0ab"), [Failed("name-value pair 1 is cut short")])


def test_F25_W09_values_are_told_in_the_middle_of_a_request() -> None:
    check(
        begin() + values() + rec(PARAMS, 1, GET) + rec(PARAMS, 1) + values() + rec(STDIN, 1),
        [got(), BodyEnded(1)],
        sent=rec(RESULT, 0) * 2,
    )


def test_F16_values_asked_for_with_an_id_are_ignored() -> None:
    connection = check(begin() + rec(GET_VALUES, 1, GET) + request(2), [got(2), BodyEnded(2)])
    assert connection.statistics().ignored == 1


def test_W51_2000_questions_are_answered() -> None:
    data = values(b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS") * 2000 + request()
    connection = ServerConnection()
    assert feed(connection, [data]) == [got(), BodyEnded(1)]
    assert len(records(connection.data_to_send())) == 2000


def test_W51_answers_that_nobody_reads_are_bounded() -> None:
    connection = ServerConnection()
    events = feed(connection, [request() + rec(100, 0) * (MAX_UNSENT // 16)])
    assert events == [got(), BodyEnded(1)]
    assert len(connection._unsent) == MAX_UNSENT
    *before, failed = connection.receive_data(rec(100, 0))
    assert before == [RequestAborted(1)]
    assert "answers that the web server does not read" in str(failed.error)  # type: ignore[union-attr]
    assert len(connection.data_to_send()) == MAX_UNSENT


@pytest.mark.parametrize("length", [0, 4, 7])
def test_W10_a_short_begin_closes(length: int) -> None:
    check(
        rec(BEGIN, 1, bytes(length)) + request(2),
        [Failed(f"BEGIN_REQUEST of {length} bytes, 8 are needed")],
    )


def test_W11_a_long_begin_is_taken_for_its_first_8_bytes() -> None:
    long = rec(BEGIN, 1, b"\0\1\1\0\0\0\0\0more")
    check(long + request()[16:], [got(), BodyEnded(1)])
    check(long, [Failed("BEGIN_REQUEST of 12 bytes instead of 8")], strict=True)


@pytest.mark.parametrize("role", [0, 3, 99, 0x0101])
def test_F29_W12_a_role_that_is_not_offered_is_rejected(role: int) -> None:
    connection = check(
        request(1, body=b"x", role=role) + request(1),
        [got(), BodyEnded(1)],
        sent=end(1, 0, wire.UNKNOWN_ROLE),
    )
    assert connection.statistics() == Statistics(requests=1, active=1, rejected=1, ignored=0)
    check(request(1, role=role, flags=0) + request(1), [], sent=end(1, 0, wire.UNKNOWN_ROLE), closing=True)


def test_F29_a_responder_that_is_not_offered_is_rejected() -> None:
    check(request(), [], sent=end(1, 0, wire.UNKNOWN_ROLE), roles=("filter",))


def test_W12_the_upload_of_a_rejected_request_is_dropped_whatever_its_size() -> None:
    upload = rec(STDIN, 1, b"x" * 1000) * 3000 + rec(STDIN, 1)
    connection = ServerConnection()
    assert feed(connection, [begin(1, role=99) + rec(PARAMS, 1, GET) + rec(PARAMS, 1) + upload]) == []
    assert not connection.closing
    assert connection.statistics().ignored == 0
    filtered = ServerConnection()
    feed(filtered, [begin(1, role=3) + (upload + rec(DATA, 1, b"x") * 3000 + rec(DATA, 1))])
    assert not filtered.closing
    assert filtered.statistics().ignored == 0


@pytest.mark.parametrize("roles", [("responder",), ALL_ROLES])
def test_F39_W13_an_authorizer_is_always_asked(roles: tuple[str, ...]) -> None:
    # Where no authorizer is on offer the code above denies: UNKNOWN_ROLE, which section 5.5 has for this, is consent to
    # some web servers.
    check(request(role=2, body=None), [got(role="authorizer"), BodyEnded(1)], roles=roles)


@pytest.mark.parametrize(("max_ids", "status"), [(1, wire.CANT_MPX_CONN), (2, wire.OVERLOADED)])
def test_F39_W13_an_authorizer_that_is_rejected_is_denied_first(max_ids: int, status: int) -> None:
    # lighttpd takes an end without an answer for consent.
    denial = b"Status: 503 Service Unavailable\r\n\r\n"
    running = b"".join(request(stream_id) for stream_id in range(1, max_ids + 1))
    check(
        running + request(9, role=2, body=None),
        [event for stream_id in range(1, max_ids + 1) for event in (got(stream_id), BodyEnded(stream_id))],
        sent=wire.encode_record(STDOUT, 9, denial) + rec(STDOUT, 9) + end(9, 0, status),
        limits=Limits(max_ids=max_ids),
    )


def test_F39_an_authorizer_has_no_body() -> None:
    late = rec(STDIN, 1, b"x") * 1500 + rec(STDIN, 1)
    connection = check(request(role=2, body=None) + late, [got(role="authorizer"), BodyEnded(1)])
    assert connection.statistics().ignored == 0
    early = begin(1, role=2) + rec(STDIN, 1, b"x") + rec(PARAMS, 1)
    assert check(early, [got(role="authorizer", environ=()), BodyEnded(1)]).statistics().ignored == 1


def test_F29_W14_unknown_flags_are_ignored() -> None:
    connection = check(request(flags=0xFE), [got(keep=False), BodyEnded(1)])
    connection.end(1)
    assert connection.closing


def test_F16_W15_begin_with_id_0_closes() -> None:
    check(request(0), [Failed("BEGIN_REQUEST with id 0")])


def test_F16_other_records_with_id_0_are_ignored() -> None:
    check(rec(PARAMS, 0, GET) + rec(ABORT, 0) + request(), [got(), BodyEnded(1)])


@pytest.mark.parametrize(
    ("before", "events"),
    [
        (begin(), []),
        (request(body=None), [got(), RequestAborted(1)]),
        (request(), [got(), BodyEnded(1), RequestAborted(1)]),
    ],
)
def test_F18_W17_begin_for_an_active_id_closes_and_aborts(before: bytes, events: list[Any]) -> None:
    check(before + begin() + request(2), [*events, Failed("BEGIN_REQUEST for request 1, which is active")])


def test_W18_requests_are_multiplexed() -> None:
    data = (
        begin(1)
        + begin(2)
        + rec(PARAMS, 1, GET[:5])
        + rec(PARAMS, 2, GET + pair(b"A", b"2"))
        + rec(PARAMS, 1, GET[5:])
        + rec(PARAMS, 2)
        + rec(STDIN, 2, b"two")
        + rec(PARAMS, 1)
        + rec(STDIN, 1, b"one")
        + rec(STDIN, 2)
        + rec(STDIN, 1)
    )
    connection = check(
        data,
        [
            got(2, (*ENVIRON, ("A", "2"))),
            BodyReceived(2, b"two"),
            got(1),
            BodyReceived(1, b"one"),
            BodyEnded(2),
            BodyEnded(1),
        ],
    )
    assert connection.end(1) == rec(STDOUT, 1) + end(1)
    assert connection.end(2) == rec(STDOUT, 2) + end(2)


@pytest.mark.parametrize("flags", [0, KEEP])
def test_F26_F30_W18_without_multiplexing_a_second_request_is_rejected(flags: int) -> None:
    connection = check(
        request(1, body=None) + request(2, body=b"x", flags=flags) + rec(STDIN, 1, b"y") + rec(STDIN, 1),
        [got(), BodyReceived(1, b"y"), BodyEnded(1)],
        sent=end(2, 0, wire.CANT_MPX_CONN),
        limits=Limits(max_ids=1),
    )
    connection.end(1)
    assert connection.closing is not bool(flags)


def test_F26_F31_W19_ids_over_the_limit_are_rejected() -> None:
    connection = connected(b"".join(begin(i) for i in range(1, 1001)))
    assert connection.data_to_send() == b"".join(end(i, 0, wire.OVERLOADED) for i in range(129, 1001))
    assert connection.statistics() == Statistics(requests=128, active=128, rejected=872, ignored=0)
    assert feed(connection, [rec(PARAMS, 128, GET) + rec(PARAMS, 128)]) == [got(128)]


def test_F13_W20_records_for_unknown_ids_are_ignored() -> None:
    strays = rec(PARAMS, 5, GET) + rec(PARAMS, 5) + rec(STDIN, 6, b"x") + rec(DATA, 7, b"x") + rec(ABORT, 8)
    connection = check(
        strays + request(body=None) + strays + rec(STDIN, 1, b"y") + rec(STDIN, 1),
        [got(), BodyReceived(1, b"y"), BodyEnded(1)],
    )
    assert connection.statistics().ignored == 10


def test_W20_unknown_ids_are_ignored_up_to_a_limit() -> None:
    strays = rec(STDIN, 9, b"x") * MAX_IGNORED
    check(begin() + strays, [])
    check(begin() + strays + rec(ABORT, 9), [Failed("more than 1000 records that belong to no request")])


def test_W20_a_kept_connection_does_not_wear_out() -> None:
    connection = ServerConnection()
    for _ in range(3):
        assert feed(connection, [request()]) == [got(), BodyEnded(1)]
        connection.end(1)
        assert feed(connection, [rec(ABORT, 1) * MAX_IGNORED]) == []
    assert connection.statistics().ignored == 3 * MAX_IGNORED


def test_F13_W21_late_records_of_an_ended_request_are_ignored() -> None:
    connection = connected(request(body=None))
    connection.end(1)
    late = rec(STDIN, 1, b"late") + rec(ABORT, 1) + rec(STDIN, 1)
    assert feed(connection, [late]) == []
    assert connection.statistics().ignored == 0
    assert feed(connection, [late + request(1)]) == [got(), BodyEnded(1)]
    assert connection.statistics().ignored == 3


def test_F14_what_comes_after_the_end_of_a_late_upload_is_counted_like_any_stray() -> None:
    connection = connected(request(body=None))
    connection.end(1)
    feed(connection, [rec(STDIN, 1, b"late") + rec(STDIN, 1) + rec(STDIN, 1, b"later") + rec(ABORT, 1)])
    assert connection.statistics().ignored == 2
    # The same where the id was used again before the upload had ended.
    connection = connected(request(body=None))
    connection.end(1)
    feed(connection, [request(1)])
    connection.end(1)
    feed(connection, [rec(STDIN, 1)])
    assert connection.statistics().ignored == 1


def test_W52_the_rest_of_an_upload_that_was_answered_early_is_dropped_whatever_its_size() -> None:
    connection = connected(request(body=None))
    connection.send_head(1, b"Status: 413 Content Too Large\r\n\r\n")
    connection.end(1)
    for _ in range(50):
        assert connection.receive_data(rec(STDIN, 1, b"x" * 1000) * 50) == []
    assert feed(connection, [rec(STDIN, 1) + request(2)]) == [got(2), BodyEnded(2)]
    assert connection.statistics().ignored == 0


def test_W52_an_id_may_be_used_again_before_the_end_of_an_upload_that_was_answered_early() -> None:
    connection = connected(request(body=None))
    connection.end(1)
    assert feed(connection, [rec(STDIN, 1, b"late") + request(1, body=b"new")]) == [
        got(),
        BodyReceived(1, b"new"),
        BodyEnded(1),
    ]


def test_W21_W52_only_so_many_uploads_are_remembered_that_were_answered_early() -> None:
    connection = ServerConnection()
    # Half of them answered, half rejected: neither can be made to grow without end.
    for stream_id in range(1, 1003):
        feed(connection, [request(stream_id, body=None, role=1 if stream_id % 2 else 99)])
        if stream_id % 2:
            connection.end(stream_id)
    connection.data_to_send()
    assert feed(connection, [b"".join(rec(STDIN, stream_id, b"late") for stream_id in range(3, 1003))]) == []
    assert connection.statistics().ignored == 0
    feed(connection, [rec(STDIN, 1, b"late") + rec(STDIN, 2, b"late")])  # forgotten, and so it is counted
    assert connection.statistics().ignored == 2


def test_W21_the_end_of_such_an_upload_makes_room_for_another() -> None:
    connection = connected(request(1, body=None))
    connection.end(1)
    for _ in range(1001):
        feed(connection, [request(2, body=None)])
        connection.end(2)
        feed(connection, [rec(STDIN, 2)])
    assert feed(connection, [rec(STDIN, 1, b"late")]) == []
    assert connection.statistics().ignored == 0


# --- Meta-variables ---


@pytest.mark.parametrize("flags", [0, KEEP])
def test_F24_W22_a_last_pair_cut_short_is_refused_and_the_connection_closes_after_the_answer(flags: int) -> None:
    connection = check(
        request(params=GET + b"\5\5SHORT", body=b"dropped", flags=flags), [Refused(1, 400, "pair 2 is cut short")]
    )
    assert connection.send_head(1, b"Status: 400 Bad Request\r\n\r\n")
    assert not connection.closing
    connection.end(1)
    assert connection.closing


def test_F22_W23_huge_declared_lengths_allocate_nothing() -> None:
    huge = request(params=b"\xff" * 8 + b"A")
    check(huge, [Refused(1, 400, "pair 1 is cut short")])
    tracemalloc.start()
    try:
        connected(huge)
        asking = connected(rec(GET_VALUES, 0, b"\xff" * 8 + b"A"))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of 4 GiB that they declare
    finally:
        tracemalloc.stop()
    assert asking.closing


def test_F20_W24_lengths_below_128_may_take_four_bytes() -> None:
    check(request(params=pair(b"REQUEST_METHOD", b"GET", long=True)), [got(), BodyEnded(1)])


def test_F21_F22_F23_W25_W26_W27_pairs_are_delivered_as_they_came() -> None:
    # What empty, repeated and impossible names mean is for the model to say.
    environ = [("", "x"), ("DUP", "1"), ("A=B", ""), ("NUL\0", "\0"), ("DUP", "2"), ("", "")]
    params = b"".join(pair(name.encode(), value.encode()) for name, value in environ)
    check(request(params=params), [got(environ=environ), BodyEnded(1)])


def test_W28_no_params_at_all_are_an_empty_environment() -> None:
    check(request(params=b""), [got(environ=()), BodyEnded(1)])


def test_F17_W29_params_in_one_byte_records() -> None:
    params = GET + pair(b"X", b"y" * 300)
    data = begin() + b"".join(rec(PARAMS, 1, params[i : i + 1]) for i in range(len(params))) + rec(PARAMS, 1)
    check(data + rec(STDIN, 1), [got(environ=(*ENVIRON, ("X", "y" * 300))), BodyEnded(1)])


def test_W30_too_many_params_are_refused() -> None:
    data = begin() + rec(PARAMS, 1, b"\0\0" * 20_000) + rec(PARAMS, 1) + rec(STDIN, 1)
    connection = check(data, [Refused(1, 431, "more than 1000 name-value pairs")])
    connection.end(1)
    assert not connection.closing
    check(request(params=pair(b"A", b"") * 1000), [got(environ=[("A", "")] * 1000), BodyEnded(1)])


def test_W31_a_long_value_is_accepted_up_to_the_limit() -> None:
    value = b"v" * 70_000
    params = pair(b"X", value)
    split = rec(PARAMS, 1, params[:65535]) + rec(PARAMS, 1, params[65535:]) + rec(PARAMS, 1) + rec(STDIN, 1)
    check(begin() + split, [got(environ=[("X", value.decode())]), BodyEnded(1)])
    limits = Limits(max_params_bytes=len(params))
    check(begin() + split, [got(environ=[("X", value.decode())]), BodyEnded(1)], limits=limits)
    limits = Limits(max_params_bytes=len(params) - 1)
    refused = Refused(1, 431, f"meta-variables of more than {len(params) - 1} bytes")
    check(begin() + split, [refused], limits=limits)


def test_W31_params_over_the_limit_are_not_kept() -> None:
    connection = connected(begin())
    for _ in range(10):
        connection.receive_data(rec(PARAMS, 1, b"x" * 65535))
    assert connection._requests[1].params is None
    (refused,) = feed(connection, [rec(PARAMS, 1)])
    assert refused.error.status == 431


@pytest.mark.parametrize(
    ("before", "events"),
    [
        (request(body=None), [got(), RequestAborted(1)]),
        (request(), [got(), BodyEnded(1), RequestAborted(1)]),
        (request(params=b"\1"), [Refused(1, 400, "cut short"), RequestAborted(1)]),
        (request(body=None) + rec(ABORT, 1), [got(), RequestAborted(1)]),
    ],
)
@pytest.mark.parametrize("late", [GET, b""])
def test_F19_W32_params_after_their_end_close(before: bytes, events: list[Any], late: bytes) -> None:
    check(before + rec(PARAMS, 1, late), [*events, Failed("PARAMS after the end of the PARAMS of request 1")])


# --- Bodies ---


def test_W33_stdin_before_the_end_of_params_waits() -> None:
    data = begin() + rec(STDIN, 1, b"a") + rec(PARAMS, 1, GET) + rec(STDIN, 1, b"b") + rec(PARAMS, 1)
    check(data + rec(STDIN, 1, b"c") + rec(STDIN, 1), [got(), BodyReceived(1, b"abc"), BodyEnded(1)])


def test_W33_stdin_may_end_before_params_do() -> None:
    data = begin() + rec(STDIN, 1, b"a") + rec(STDIN, 1) + rec(PARAMS, 1, GET) + rec(PARAMS, 1)
    check(data, [got(), BodyReceived(1, b"a"), BodyEnded(1)])
    data = begin() + rec(STDIN, 1) + rec(STDIN, 1, b"ignored") + rec(PARAMS, 1, GET) + rec(PARAMS, 1)
    assert check(data, [got(), BodyEnded(1)]).statistics().ignored == 1


def test_W33_stdin_before_the_end_of_params_is_bounded() -> None:
    limits = Limits(body_buffer=10)
    data = begin() + rec(STDIN, 1, b"12345") * 2
    check(data + rec(PARAMS, 1), [got(environ=()), BodyReceived(1, b"1234512345")], limits=limits)
    check(
        request(2) + data + rec(STDIN, 1, b"6"),
        [got(2), BodyEnded(2), RequestAborted(2), Failed("more than 10 bytes of STDIN before the end of the PARAMS")],
        limits=limits,
    )


def test_W33_stdin_before_the_end_of_params_is_64_KiB_at_most() -> None:
    most = begin() + rec(STDIN, 1, b"x" * 65_535) + rec(STDIN, 1, b"x")
    assert joined(connected(most).receive_data(rec(PARAMS, 1, GET) + rec(PARAMS, 1))) == [
        got(),
        BodyReceived(1, b"x" * 65_536),
    ]
    [failed] = feed(ServerConnection(), [most + rec(STDIN, 1, b"x")])
    assert "more than 65536 bytes of STDIN before the end of the PARAMS" in str(failed.error)


@pytest.mark.parametrize("content", [b"a", b""])
def test_W33_strictly_stdin_comes_after_params(content: bytes) -> None:
    check(begin() + rec(STDIN, 1, content), [Failed("STDIN before the end of the PARAMS of request 1")], strict=True)


@pytest.mark.parametrize("more", [rec(STDIN, 1, b"b"), rec(STDIN, 1)])
def test_F19_W33_what_comes_after_the_early_end_of_stdin_is_ignored_and_counted(more: bytes) -> None:
    early = begin() + rec(STDIN, 1, b"a") + rec(STDIN, 1)
    rest = rec(PARAMS, 1, GET) + rec(PARAMS, 1)
    for data in (early + more + rest, early + rest + more):
        connection = check(data, [got(), BodyReceived(1, b"a"), BodyEnded(1)])
        assert connection.statistics().ignored == 1


def test_W33_early_stdin_of_a_refused_request_is_dropped() -> None:
    check(begin() + rec(STDIN, 1, b"a") + rec(PARAMS, 1, b"\1") + rec(PARAMS, 1), [Refused(1, 400, "cut short")])


def test_F10_W34_W53_any_padding_on_any_record() -> None:
    data = (
        rec(BEGIN, 1, b"\0\1\1" + bytes(5), 255)
        + rec(PARAMS, 1, GET, 255)
        + rec(PARAMS, 1, b"", 255)
        + rec(STDIN, 1, b"hello", 255)
        + rec(STDIN, 1, b"", 255)
    )
    check(data, [got(), BodyReceived(1, b"hello"), BodyEnded(1)])


def test_F10_W35_the_longest_record() -> None:
    body = random.Random(35).randbytes(65535)
    data = request(body=None) + rec(STDIN, 1, body, 255) + rec(STDIN, 1)
    check(data, [got(), BodyReceived(1, body), BodyEnded(1)])


def test_F19_W36_stdin_after_its_end_is_ignored_up_to_a_limit() -> None:
    data = request() + rec(STDIN, 1) * 999 + rec(STDIN, 1, b"late")
    connection = ServerConnection()
    assert feed(connection, [data]) == [got(), BodyEnded(1)]
    assert connection.statistics().ignored == 1000
    aborted, failed = feed(connection, [rec(STDIN, 1)])
    assert aborted == RequestAborted(1)
    assert "more than 1000 records" in str(failed.error)


@pytest.mark.parametrize("kind", [END, STDOUT, STDERR, RESULT, UNKNOWN])
@pytest.mark.parametrize("stream_id", [0, 1, 2])
def test_F18_W38_records_that_only_applications_send_are_ignored(kind: int, stream_id: int) -> None:
    data = request(body=None) + rec(kind, stream_id, bytes(8)) + rec(STDIN, 1)
    assert check(data, [got(), BodyEnded(1)]).statistics().ignored == 1
    wrong = Failed(f"{wire.type_name(kind)} from a web server")
    check(data, [got(), RequestAborted(1), wrong], strict=True)


def test_W39_data_for_a_responder_is_ignored() -> None:
    data = begin() + rec(DATA, 1, b"x") + rec(PARAMS, 1, GET) + rec(PARAMS, 1) + rec(DATA, 1, b"x")
    data += rec(STDIN, 1, b"y") + rec(STDIN, 1) + rec(DATA, 1)
    assert check(data, [got(), BodyReceived(1, b"y"), BodyEnded(1)]).statistics().ignored == 3


# --- Filters ---


def test_F40_a_filter_reads_params_stdin_and_data_in_this_order() -> None:
    data = request(role=3, body=b"form") + rec(DATA, 1, b"fi") + rec(STDIN, 1, b"late") + rec(DATA, 1, b"le")
    check(
        data + rec(DATA, 1) + rec(DATA, 1, b"late"),
        [
            got(role="filter"),
            BodyReceived(1, b"form"),
            BodyEnded(1),
            DataReceived(1, b"file"),
            DataEnded(1),
        ],
        roles=ALL_ROLES,
    )


@pytest.mark.parametrize("before", [begin(role=3), request(role=3, body=None)])
def test_F40_data_before_the_end_of_stdin_closes(before: bytes) -> None:
    connection = ServerConnection(roles=ALL_ROLES)
    events = feed(connection, [before + rec(DATA, 1, b"x")])
    assert "DATA before the end of the STDIN of request 1" in str(events[-1].error)


def test_F40_a_filter_that_answers_early_does_not_get_the_rest() -> None:
    connection = connected(request(role=3), roles=ALL_ROLES)
    connection.end(1)
    assert feed(connection, [rec(DATA, 1, b"x") * 2000 + rec(DATA, 1)]) == []
    assert connection.statistics().ignored == 0


# --- The end of a request or of everything ---


def test_F37_W40_abort_before_the_end_of_params_is_answered_here() -> None:
    late = rec(PARAMS, 1, GET) + rec(STDIN, 1, b"x")
    data = begin() + rec(PARAMS, 1, GET) + rec(ABORT, 1) + late + request(1)
    assert check(data, [got(), BodyEnded(1)], sent=end(1)).statistics().ignored == 0
    check(begin(flags=0) + rec(ABORT, 1) + request(2), [], sent=end(1), closing=True)


def test_F37_W41_abort_aborts_once_and_the_application_ends_the_request() -> None:
    data = request(body=None) + rec(STDIN, 1, b"x") + rec(ABORT, 1) * 2 + rec(STDIN, 1, b"y") + rec(STDIN, 1)
    connection = check(data, [got(), BodyReceived(1, b"x"), RequestAborted(1)])
    assert connection.statistics().ignored == 0
    assert connection.end(1) == rec(STDOUT, 1) + end(1)
    assert not connection.closing
    assert feed(connection, [request(1)]) == [got(), BodyEnded(1)]


def test_F37_abort_after_the_whole_body() -> None:
    connection = check(request() + rec(ABORT, 1), [got(), BodyEnded(1), RequestAborted(1)])
    connection.end(1)
    assert feed(connection, [rec(STDIN, 1)]) == []
    assert connection.statistics().ignored == 1


def test_abort_of_a_refused_request() -> None:
    check(request(params=b"\1") + rec(ABORT, 1), [Refused(1, 400, "cut short"), RequestAborted(1)])


@pytest.mark.parametrize("length", [0, 1, 7, 12, 16, 20, 33, 40])
def test_W42_end_of_stream_before_the_end_of_params_runs_nothing(length: int) -> None:
    connection = connected(request()[:length])
    assert connection.receive_data(b"") == []
    assert connection.closing
    assert connection.data_to_send() == b""


def test_F07_W43_end_of_stream_aborts_every_request() -> None:
    connection = connected(request(1) + request(2, body=None) + request(3) + rec(ABORT, 3) + begin(4))
    assert connection.receive_data(b"") == [RequestAborted(1), RequestAborted(2)]
    assert connection.closing
    assert not connection.broken
    assert connection.send_head(1, b"x") == connection.end(1) == connection.end(3) == b""
    assert connection.receive_data(b"") == []


def test_F07_end_of_stream_between_requests_is_normal() -> None:
    connection = connected(request())
    connection.end(1)
    assert connection.receive_data(b"") == []
    assert connection.closing


def test_W46_requests_may_follow_each_other_at_once() -> None:
    connection = check(
        request(1) + request(2, body=b"x"), [got(1), BodyEnded(1), got(2), BodyReceived(2, b"x"), BodyEnded(2)]
    )
    assert records(connection.end(1) + connection.end(2))[1::2] == [(END, 1, bytes(8)), (END, 2, bytes(8))]


def test_W50_another_protocol_is_named() -> None:
    check(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", [Failed("HTTP on a FastCGI port")])
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [Failed("TLS on a FastCGI port")])
    check(b"24:CONTENT_LENGTH\x000\x00SCGI\x001\x00,", [Failed("SCGI on a FastCGI port")])


def test_F10_W53_reserved_bytes_mean_nothing() -> None:
    data = bytearray(request(body=b"hello"))
    data[7] = 0xFF  # of the first header
    data[11:16] = b"\xff" * 5  # of FCGI_BEGIN_REQUEST
    check(bytes(data), [got(), BodyReceived(1, b"hello"), BodyEnded(1)])


# --- Whatever comes ---

_records = st.lists(
    st.one_of(
        st.builds(begin, st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, 1, 1, 1])),
        st.builds(rec, st.sampled_from([PARAMS, STDIN, DATA]), st.integers(1, 3), st.sampled_from([b"", GET, b"\1"])),
        st.builds(rec, st.integers(0, 12), st.integers(0, 3), st.binary(max_size=12), st.integers(0, 9)),
        st.builds(request, st.integers(1, 3), st.just(GET), st.sampled_from([None, b"", b"x"]), st.integers(1, 3)),
    ),
    max_size=8,
).map(b"".join)


@given(st.one_of(_records, st.binary(max_size=100)), st.lists(st.integers(0, 300), max_size=10), st.booleans())
def test_F17_W48_any_stream_gives_the_same_events_however_it_is_split(
    data: bytes, cuts: list[int], multiplex: bool
) -> None:
    limits = Limits() if multiplex else Limits(max_ids=1)
    whole, split = (ServerConnection(roles=ALL_ROLES, limits=limits) for _ in range(2))
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]
    assert joined(whole.receive_data(data) if data else []) == feed(split, pieces)
    assert whole.data_to_send() == split.data_to_send()
    assert (whole.closing, whole.statistics()) == (split.closing, split.statistics())


@given(_records)
def test_every_announced_request_can_be_ended_once(data: bytes) -> None:
    connection = ServerConnection(roles=ALL_ROLES)
    events = connection.receive_data(data + rec(99, 0))
    announced = {event.stream_id for event in events if isinstance(event, (RequestReceived, RequestRefused))}
    failed = any(isinstance(event, ConnectionFailed) for event in events)
    for stream_id in announced:
        answer = connection.send_head(stream_id, b"x") + connection.end(stream_id)
        assert [kind for kind, _, _ in records(answer)] == ([] if failed else [STDOUT, STDOUT, END])
        with pytest.raises(LocalProtocolError):
            connection.end(stream_id)
