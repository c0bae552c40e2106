"""The CGI protocol without I/O: what a program gets to know, and what its answer means."""

from __future__ import annotations

from typing import Any

import pytest

from gateways import Limits, LocalProtocolError
from gateways.cgi.wire import ClientConnection, program_environment
from gateways.events import BodyReceived, HeadReceived, ResponseEnded
from tests.feeding import cuts, feed, refusal

# --- the environment ---------------------------------------------------------------------------------------------

PASSED_ON = {
    "AUTH_TYPE": "Basic",
    "CONTENT_LENGTH": "3",
    "CONTENT_TYPE": "text/plain",
    "GEMINI_URL": "gemini://x/",
    "HTTPS": "on",
    "HTTP_HOST": "x",
    "HTTP_X_EMPTY": "",
    "PATH_INFO": "/é\udcff",
    "QUERY_STRING": "-d+x",
    "REDIRECT_STATUS": "200",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "1",
    "REQUEST_METHOD": "POST",
    "REQUEST_SCHEME": "https",
    "REQUEST_URI": "/a?-d+x",
    "DOCUMENT_URI": "/a",
    "SCRIPT_NAME": "",
    "SERVER_ADDR": "127.0.0.1",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SSL_CLIENT_S_DN": "CN=m",
    "TITAN_TOKEN": "t",
    "TLS_CLIENT_HASH": "h",
}


def test_meta_variables_are_passed_on_by_name() -> None:
    found = program_environment(PASSED_ON, {})
    assert {name: found[name] for name in PASSED_ON} == PASSED_ON
    assert found["GATEWAY_INTERFACE"] == "CGI/1.1"


@pytest.mark.parametrize(
    "name",
    [
        "BASH_ENV",
        "HTTP_PROXY",
        "IFS",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PATH",
        "PATH_TRANSLATED",
        "PERL5LIB",
        "PERL5OPT",
        "PYTHONPATH",
        "SCRIPT_FILENAME",
        "SSLKEYLOGFILE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "http_proxy",
    ],
)
def test_a_request_does_not_set(name: str) -> None:
    assert name not in program_environment({name: "/evil"}, {})


def test_a_request_does_not_change_what_the_host_sets() -> None:
    host = {"PATH": "/bin", "TZ": "UTC", "LC_ALL": "C", "LANG": "C"}
    environ = dict.fromkeys(host, "/evil") | {"GATEWAY_INTERFACE": "evil"}
    assert program_environment(environ, host) == program_environment({}, host)
    assert program_environment({}, host) == {**host, **program_environment({}, {})}


def test_secrets_of_the_host_stay_with_it() -> None:
    host = {"AWS_SECRET": "x", "HTTP_PROXY": "x", "PYTHONPATH": "x", "REMOTE_USER": "root", "HOME": "/root"}
    assert program_environment({}, host) == program_environment({}, {})


def test_C44_what_a_program_relies_on_is_there() -> None:
    assert program_environment({"REQUEST_METHOD": "GET", "QUERY_STRING": "", "SCRIPT_NAME": ""}, {}) == {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "QUERY_STRING": "",
        "REDIRECT_STATUS": "200",
        "REMOTE_ADDR": "0.0.0.0",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "SERVER_SOFTWARE": "gateways",
    }


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"HTTPS": "on"}, "SERVER_PORT", "443"),
        ({"HTTPS": "on", "SERVER_PORT": "8443"}, "SERVER_PORT", "8443"),
        ({"SERVER_PROTOCOL": "GEMINI", "SERVER_PORT": "1965"}, "SERVER_PROTOCOL", "GEMINI"),
        ({"REDIRECT_STATUS": "404"}, "REDIRECT_STATUS", "404"),
    ],
)
def test_what_the_web_server_says_counts(environ: dict[str, str], name: str, value: str) -> None:
    assert program_environment(environ, {})[name] == value


@pytest.mark.parametrize(
    ("method", "length", "found"),
    [("GET", "0", None), ("HEAD", "0", None), ("POST", "0", "0"), ("GET", "5", "5"), ("DELETE", "0", "0")],
)
def test_C44_a_length_of_nothing_is_announced_only_where_a_body_may_be(
    method: str, length: str, found: str | None
) -> None:
    environ = {"REQUEST_METHOD": method, "CONTENT_LENGTH": length}
    assert program_environment(environ, {}).get("CONTENT_LENGTH") == found


@pytest.mark.parametrize("name", ["HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"])
def test_C44_a_password_is_passed_on_only_if_wanted(name: str) -> None:
    environ = {name: "Basic bTpt", "AUTH_TYPE": "Basic"}
    assert name not in program_environment(environ, {})
    assert program_environment(environ, {}, pass_authorization=True)[name] == "Basic bTpt"


# --- the request -------------------------------------------------------------------------------------------------


def test_a_request_is_its_body() -> None:
    connection = ClientConnection()
    sent = connection.send_request(0, {"REQUEST_METHOD": "POST", "A": ""}, keep_connection=True)
    sent += connection.send_body(0, b"bo") + connection.send_body(0, b"") + connection.send_body(0, b"dy")
    assert sent + connection.end_body(0) + connection.abort(0) == b"body"
    assert not connection.reusable


@pytest.mark.parametrize(
    ("environ", "role"),
    [
        ([("A", "\0")], "responder"),
        ([("A\0", "")], "responder"),
        ([("A=B", "")], "responder"),
        ([("", "x")], "responder"),
        ([("A", 1)], "responder"),
        ([(b"A", "1")], "responder"),
        ([("A", "1")], "authorizer"),
        ([("A", "1")], "filter"),
    ],
)
def test_what_no_process_can_be_given_is_refused(environ: Any, role: str) -> None:
    with pytest.raises(LocalProtocolError):
        ClientConnection().send_request(0, environ, role=role)


# --- the answer --------------------------------------------------------------------------------------------------

HEAD = b"Status: 404 Gone Away\r\nContent-Type: a/b\r\n\r\n"
HEAD_EVENT = HeadReceived(0, 404, "Gone Away", (("Content-Type", "a/b"),))


@pytest.mark.parametrize(
    ("meaning", "data", "events"),
    [
        ("head and body", HEAD + b"body", [HEAD_EVENT, BodyReceived(0, b"body")]),
        ("head alone", HEAD, [HEAD_EVENT]),
        ("LF only", HEAD.replace(b"\r", b""), [HEAD_EVENT]),
        ("redirect", b"Location: /x\n\n", [HeadReceived(0, 302, "Found", (("Location", "/x"),))]),
    ],
)
def test_answers(meaning: str, data: bytes, events: list[Any]) -> None:
    for pieces in cuts(data):
        connection = ClientConnection()
        assert feed(connection, pieces) == events, meaning
        assert "running" in repr(connection)
        assert connection.receive_data(b"") == []
        assert connection.exited(0) == [ResponseEnded(0)]
        assert connection.receive_data(b"more") == connection.exited(0) == []
        assert "over" in repr(connection)


def test_the_program_may_end_before_its_output_does() -> None:
    connection = ClientConnection()
    assert connection.exited(0) == []
    assert connection.receive_data(HEAD) == [HEAD_EVENT]
    assert connection.receive_data(b"") == [ResponseEnded(0)]


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"", 0, "the program ended without an answer"),
        (b"Status: 2", 0, "the program ended after 9 bytes of a response head"),
        (b"", 3, "the program ended with exit status 3"),
        (b"", -9, "the program ended with signal 9"),
        (HEAD, 3, "the program ended with exit status 3"),
        (HEAD + b"half", -15, "the program ended with signal 15"),
    ],
)
def test_bad_ends(data: bytes, status: int, text: str) -> None:
    for pieces in cuts(data):
        connection = ClientConnection()
        feed(connection, pieces if data else [])
        assert connection.exited(status) == []
        _, code, message = refusal(connection.receive_data(b""))
        assert (code, message) == (502, text)


@pytest.mark.parametrize("data", [b"no head\n\n", b"X: y\n\n", b"X" * 200, b"Status: 200\n" + b"X: y\n" * 100])
def test_what_is_no_response_is_refused_once(data: bytes) -> None:
    connection = ClientConnection(limits=Limits(max_head=100))
    assert refusal(connection.receive_data(data))[1] == 502
    assert connection.receive_data(HEAD) == connection.receive_data(b"") == connection.exited(0) == []
