"""What real web servers sent, read by the code that serves them: whole, in pieces, and up to the Request."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable

import pytest

from gateways import IncompleteBody, RemoteProtocolError, Request
from gateways._model.handler import drive
from tests.captures import Capture, FastCGIRequest, load_web
from tests.captures.decoding import PROTOCOLS, Cut, decode, events, pairs, request_of, whole
from tests.feeding import cut
from tools import paths_table

#: Captures with variables of which no Request is made: (status, what the error says). Every other capture makes one.
REFUSED = {
    # A NUL in the path or in a header field; these servers alone let one through.
    "h2o.fcgi-prefix.path-nul": (400, "a NUL"),
    "h2o.fcgi-tls.path-nul": (400, "a NUL"),
    "haproxy.fcgi-tls.path-nul": (400, "a NUL"),
    "haproxy.fcgi-root.nul-in-header": (400, "a NUL"),
    # handle_path /app* takes "/application" apart inside a segment.
    "caddy.fcgi-handlepath.path-prefix-only": (404, "inside a segment"),
    # A configuration that passes no fastcgi_params.
    "nginx.fcgi-bare.get-path-query": (400, "no REQUEST_METHOD"),
    # busybox leaves the chunks of an upload on stdin as they are.
    "busybox.cgi.chunked-trailer": (411, "a chunked body"),
    "busybox.cgi.post-chunked-3": (411, "a chunked body"),
}

#: Captures in which no request comes to the end of its variables. HAProxy gives up after FCGI_BEGIN_REQUEST when it
#: cannot write the variables down (``OPTIONS *``, "%zz", a NUL), and after a request that timed out.
NO_REQUEST = {
    "haproxy.fcgi-root.path-bad-escape",
    "haproxy.fcgi-root.post-slow-length",
    "haproxy.fcgi-prefix.options-star",
    "haproxy.fcgi-mpx.options-star",
    "haproxy.fcgi-mpx.path-nul",
    "haproxy.fcgi-tls.options-star",
}

#: Captures whose body ends before its CONTENT_LENGTH.
INCOMPLETE = {
    # The client left in the middle.
    "apache.fcgi-generic.disconnect-mid-body",
    "apache.fcgi-nocanon.disconnect-mid-body",
    "apache.fcgi-sethandler.disconnect-mid-body",
    "apache.scgi-proxypass.disconnect-mid-body",
    "apache.scgi-root.disconnect-mid-body",
    "caddy.fcgi-tls.disconnect-mid-body",
    "nginx.scgi-prefix.disconnect-mid-body",
    # auth_request with fastcgi_pass_request_body off, which still announces the length.
    "nginx.fcgi-authreq.post-5.auth",
}

#: CGI scripts that are given more on stdin than the variables speak of: how much of it the handler reads.
LEFT_ON_STDIN = {
    # No CONTENT_LENGTH from a GET.
    "busybox.cgi.get-with-body": 0,
    # mini_httpd leaves the chunks as they are and does not say that there are any.
    "mini-httpd.cgi.chunked-empty": 0,
    "mini-httpd.cgi.chunked-trailer": 0,
    "mini-httpd.cgi.disconnect-mid-chunked": 0,
    "mini-httpd.cgi.te-and-cl": 3,
}

#: Captures in which the server tells another method than the client's.
METHOD_CHANGED = {"caddy.fcgi-root.method-lower": "POST"}


def by_configuration(captures: Iterable[Capture]) -> list[object]:
    """The captures as test parameters, those of one server and configuration together."""
    groups = itertools.groupby(captures, lambda capture: f"{capture.front_end}.{capture.config}.{capture.protocol}")
    return [pytest.param(list(group), id=name) for name, group in groups]


ALL = sorted(load_web(), key=lambda capture: (capture.front_end, capture.config, capture.protocol))
ON_SOCKETS = [capture for capture in ALL if capture.protocol != "cgi"]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected(capture: Capture) -> list[tuple[object, ...]]:
    """The manifest of every request that came to the end of its variables."""
    manifest: list[tuple[object, ...]] = []
    if capture.params is not None and capture.id not in NO_REQUEST:
        first = 0 if capture.fcgi is None else capture.fcgi.id
        manifest.append((first, role(capture.role), pairs(capture.params), capture.body_length, capture.body_sha256))
    for later in capture.more_requests:
        assert later.params is not None
        manifest.append((later.id, role(later.role), pairs(later.params), later.body_length, later.body_sha256))
    return manifest


def role(number: int | None) -> str:
    return "authorizer" if number == 2 else "responder"


@pytest.mark.parametrize("captures", by_configuration(ALL))
def test_capture_decodes_to_its_manifest(captures: list[Capture]) -> None:
    for capture in captures:
        found: list[tuple[object, ...]] = [
            (each.stream_id, each.role, each.environ, len(each.body), digest(each.body)) for each in decode(capture)
        ]
        if not capture.body_in_file:
            found = [(*each[:3], capture.body_length, capture.body_sha256) for each in found]
        assert found == expected(capture), capture.id


@pytest.mark.parametrize("captures", by_configuration(c for c in ALL if c.fcgi is not None))
def test_body_is_complete_where_the_recorder_saw_its_end(captures: list[Capture]) -> None:
    for capture in captures:
        assert capture.fcgi is not None
        recorded: list[FastCGIRequest] = [capture.fcgi, *capture.more_requests]
        ends = {each.id: each.stdin_complete for each in recorded}
        for each in decode(capture):
            # An authorizer is given no body, so it does not wait for one.
            assert each.complete == (ends[each.stream_id] or each.role == "authorizer"), capture.id
            assert not each.aborted, capture.id


@pytest.mark.parametrize("captures", by_configuration(ON_SOCKETS))
def test_events_do_not_depend_on_the_cuts(captures: list[Capture]) -> None:
    for capture in captures:
        once = events(capture, whole)
        assert events(capture, byte_by_byte) == once, capture.id
        for seed in range(3):
            assert events(capture, at_random(f"{capture.id} {seed}")) == once, (capture.id, seed)


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def at_random(seed: str) -> Cut:
    dice = random.Random(seed)
    return lambda data: cut(data, sorted(dice.sample(range(1, len(data)), min(dice.randint(1, 12), len(data) - 1))))


@pytest.mark.parametrize("captures", by_configuration(ALL))
def test_capture_makes_a_request_or_is_refused_as_listed(captures: list[Capture]) -> None:
    for capture in captures:
        for arrived in decode(capture):
            if capture.id in REFUSED:
                status, message = REFUSED[capture.id]
                with pytest.raises(RemoteProtocolError, match=message) as caught:
                    request_of(capture, arrived)
                assert caught.value.status == status
            else:
                check_laws(request_of(capture, arrived), capture)


def check_laws(request: Request, capture: Capture) -> None:
    assert request.protocol == PROTOCOLS[capture.protocol]
    assert request.scheme == capture.scheme, capture.id
    assert request.path == request.script_name + request.path_info, capture.id
    assert request.script_name == "" or request.script_name.startswith("/"), capture.id
    assert not request.script_name.endswith("/"), capture.id
    assert request.path_info == "" or request.path_info.startswith("/"), capture.id
    empty = {name for name, value in request.environ.items() if not value}
    assert empty <= {"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"}, capture.id
    assert "HTTP_PROXY" not in request.environ, capture.id
    assert "HTTP_PROXY" not in dict(request.environ_as_sent), capture.id
    assert "proxy:" not in request.environ.get("SCRIPT_FILENAME", ""), capture.id
    # These two fill it in from credentials that they did not check.
    assert request.remote_user is None or capture.front_end not in {"nginx", "haproxy"}, capture.id
    # Made when they are asked for: none of them may fail for what a real server sent.
    for made in ("url", "query", "cookies", "headers", "raw_path", "content_length", "server_port", "remote_port"):
        getattr(request, made)


@pytest.mark.parametrize(
    "captures", by_configuration(c for c in ALL if c.id not in REFUSED | dict.fromkeys(NO_REQUEST))
)
def test_request_says_what_the_client_said(captures: list[Capture]) -> None:
    for capture in captures:
        lines = {request_line(raw) for raw in capture.raw_request}
        for arrived in decode(capture):
            request = request_of(capture, arrived)
            method = METHOD_CHANGED.get(capture.id)
            said = {query for said_method, query in lines if request.method in {said_method, method}}
            assert request.query_string in said, capture.id


def request_line(raw: bytes) -> tuple[str, str]:
    """The method and the query string that a client sent."""
    method, target, _ = raw.partition(b"\r\n")[0].decode("utf-8", "surrogateescape").split(" ")
    return method, target.partition("?")[2]


@pytest.mark.parametrize("captures", by_configuration(c for c in ALL if c.id not in REFUSED and c.body_in_file))
def test_handler_reads_the_body_or_is_told_that_it_is_incomplete(captures: list[Capture]) -> None:
    for capture in captures:
        for arrived in decode(capture):
            body = request_of(capture, arrived).body
            if capture.id in INCOMPLETE:
                with pytest.raises(IncompleteBody):
                    drive(body.read())
            else:
                assert drive(body.read()) == arrived.body[: LEFT_ON_STDIN.get(capture.id)], capture.id


def test_the_tables_name_captures_and_nothing_else() -> None:
    named = [*REFUSED, *NO_REQUEST, *INCOMPLETE, *LEFT_ON_STDIN, *METHOD_CHANGED]
    assert set(named) - {capture.id for capture in ALL} == set()
    assert len(named) == len(set(named))


def test_no_request_is_made_where_the_variables_do_not_end() -> None:
    assert {capture.id for capture in ALL if not decode(capture)} == NO_REQUEST


def test_page_of_paths_is_current() -> None:
    assert paths_table.PAGE.read_text(encoding="utf-8") == paths_table.render(), "run: python -m tools.paths_table"


def test_page_of_paths_has_a_row_for_every_configuration() -> None:
    for configuration, group in itertools.groupby(ALL, lambda capture: f"{capture.front_end}.{capture.config}"):
        assert configuration in paths_table.CONFIGURATIONS
        assert paths_table.rows(list(group)), configuration
