"""Rows E01 to E15 of the list of hostile inputs that are the model's: what a peer says in its meta-variables."""

from __future__ import annotations

import os

import pytest

from gateways import RemoteProtocolError, Request
from gateways._model.environ import Rules, build
from gateways._model.handler import drive
from tests.model.memory import make


def refused(*pairs: tuple[str, str], protocol: str = "cgi", **variables: str) -> int:
    with pytest.raises(RemoteProtocolError) as caught:
        make(*pairs, *variables.items(), protocol=protocol)
    return caught.value.status


def test_E01_httpoxy_never_reaches_a_handler() -> None:
    request = Request([("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil/"), ("HTTP_PROXY", "b")])
    assert "HTTP_PROXY" not in request.environ
    assert "HTTP_PROXY" not in dict(request.environ_as_sent)
    assert request.headers.get("proxy") is None


def test_E02_meta_variables_are_not_copied_to_the_process_environment() -> None:
    before = dict(os.environ)
    make(HTTP_X="1", PATH_INFO="/x", LD_PRELOAD="evil.so")
    assert dict(os.environ) == before


def test_E03_what_one_request_brings_the_next_does_not_see() -> None:
    rules = Rules()
    first, _, _ = build([("REQUEST_METHOD", "GET"), ("REMOTE_USER", "m"), ("HTTP_X", "1")], "fastcgi", rules)
    second, _, _ = build([("REQUEST_METHOD", "GET")], "fastcgi", rules)
    assert first["REMOTE_USER"] == "m"
    assert not {"REMOTE_USER", "HTTP_X"} & second.keys()


def test_E03_what_a_handler_writes_into_its_environ_stays_there() -> None:
    pairs = {"REQUEST_METHOD": "GET", "PATH_INFO": "/a/b"}
    one, other = Request(pairs), Request(pairs)
    inner = one.mounted("/a")
    assert inner is not None
    inner.environ["REMOTE_USER"] = "m"
    assert "REMOTE_USER" not in one.environ
    assert "REMOTE_USER" not in other.environ
    assert pairs == {"REQUEST_METHOD": "GET", "PATH_INFO": "/a/b"}


def test_E05_a_body_longer_than_its_length_is_seen_up_to_it() -> None:
    assert drive(Request({"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "3"}, b"12345").body.read()) == b"123"


@pytest.mark.parametrize("value", ["-5", "1e3", " +3", "5, 5", "1_0", "٣", "3 "])
@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "cgi", "http"])
def test_E06_a_length_that_is_no_number_is_400(value: str, protocol: str) -> None:
    assert refused(protocol=protocol, CONTENT_LENGTH=value) == 400


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "cgi", "http"])
def test_E06_a_length_of_20_digits_is_413(protocol: str) -> None:
    """The row says 400. Overruled by what holds for SCGI (SH11): over every protocol it is 413."""
    assert refused(protocol=protocol, CONTENT_LENGTH="1" * 20) == 413


def test_E06_minus_one_is_unknown_over_fastcgi_alone() -> None:
    assert make(protocol="fastcgi", CONTENT_LENGTH="-1").content_length is None
    assert refused(protocol="scgi", CONTENT_LENGTH="-1") == 400


def test_E07_an_empty_length_is_absent() -> None:
    request = make(CONTENT_LENGTH="")
    assert request.content_length is None
    assert "CONTENT_LENGTH" not in request.environ


@pytest.mark.parametrize("method", ["", "GET X", "M" * 10_240])
def test_E08_a_method_is_a_token_over_http(method: str) -> None:
    assert refused(REQUEST_METHOD=method) == 400


@pytest.mark.parametrize("pairs", [[], [("REQUEST_METHOD", "")]])
@pytest.mark.parametrize("protocol", ["GEMINI", "SPARTAN", "TITAN"])
def test_E08_a_missing_method_is_GET_over_gemini_and_kin(pairs: list[tuple[str, str]], protocol: str) -> None:
    assert Request([*pairs, ("SERVER_PROTOCOL", protocol)]).method == "GET"


@pytest.mark.parametrize("port", ["", "x", "-1", "80 80", "123456"])
@pytest.mark.parametrize("protocol", ["", "junk junk", "HTTP", "/", "HTTP/9.9"])
@pytest.mark.parametrize("name", ["", "_", "[::1]", "::1", "a b"])
def test_E09_junk_in_the_server_variables_crashes_nothing(port: str, protocol: str, name: str) -> None:
    request = make(SERVER_PORT=port, SERVER_PROTOCOL=protocol, SERVER_NAME=name)
    assert (request.server_port, request.scheme, request.server_name) == (None, "http", name or None)
    assert request.url == f"http://{'[::1]' if name == '::1' else name or 'localhost'}"


@pytest.mark.parametrize("path", ["//", "/a//b", "/../x", "/a/./b", "/%2f", "/%00", "/a\r\nb", "/\udcff\udcfe", "/a b"])
def test_E10_a_path_is_kept_as_it_was_sent(path: str) -> None:
    request = make(PATH_INFO=path, REQUEST_URI="/%00?x")
    assert (request.path, request.path_info, request.raw_path) == (path, path, "/%00")


@pytest.mark.parametrize("name", ["PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "HTTP_X"])
def test_E10_NUL_is_400(name: str) -> None:
    assert refused((name, "/a\0b")) == 400


def test_E10_NUL_that_only_decoding_shows_is_400() -> None:
    assert refused(REQUEST_URI="/a%00b") == 400


@pytest.mark.parametrize("script", ["/app", "/somewhere/else/entirely", ""])
@pytest.mark.parametrize("info", ["", "/x\ny"])
@pytest.mark.parametrize("uri", ["/", "", "/app%0Ax", "*"])
@pytest.mark.parametrize("mount", [None, "", "/app"])
def test_E11_nothing_is_cut_by_the_length_of_something_else(
    script: str, info: str, uri: str, mount: str | None
) -> None:
    sent = {"SCRIPT_NAME": script, "PATH_INFO": info, "REQUEST_URI": uri}
    try:
        request = make(*sent.items(), rules=Rules(mount=mount))
    except RemoteProtocolError as refusal:
        status = refusal.status
    else:
        status = 200
        assert request.path == script + info or not script + info
    assert status == 200 or (status == 404 and (mount == "/app" or (script + info == "" and uri == "*")))


@pytest.mark.parametrize("prefix", ["/Ⱥ", "/İ", "/ß", "/\udcc8"])
def test_E12_a_split_is_exact_to_the_byte(prefix: str) -> None:
    """Lower-casing these changes their length: nothing here does."""
    request = make(PATH_INFO=prefix * 3 + "/x.php", rules=Rules(mount=prefix * 3))
    assert (request.script_name, request.path_info) == (prefix * 3, "/x.php")
    with pytest.raises(RemoteProtocolError):
        make(PATH_INFO=prefix.lower() + "/x", rules=Rules(mount=prefix.upper() + "x"))


def test_E13_the_plain_variables_win_over_their_http_copies() -> None:
    request = make(
        body=b"12345", CONTENT_LENGTH="5", HTTP_CONTENT_LENGTH="9", CONTENT_TYPE="a/b", HTTP_CONTENT_TYPE="evil/x"
    )
    assert (request.content_length, request.headers["content-length"]) == (5, "5")
    assert (request.content_type, request.headers["content-type"]) == ("a/b", "a/b")
    assert not {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"} & request.environ.keys()


def test_E13_the_http_copies_alone_are_nothing() -> None:
    request = make(HTTP_CONTENT_LENGTH="9", HTTP_CONTENT_TYPE="evil/x")
    assert (request.content_length, request.content_type) == (None, None)


def test_E13_but_nginx_over_scgi_without_buffering_announces_too_little() -> None:
    sent = {"CONTENT_LENGTH": "0", "HTTP_CONTENT_LENGTH": "18", "DOCUMENT_URI": "/"}
    assert make(*sent.items(), protocol="scgi").content_length == 18
    assert make(*sent.items(), protocol="scgi", rules=Rules(quirks="none")).content_length == 0
    assert make(*sent.items(), protocol="fastcgi").content_length == 0


@pytest.mark.parametrize("name", ["HTTP_TRANSFER_ENCODING", "HTTP_TE", "HTTP_CONNECTION", "HTTP_UPGRADE"])
def test_E14_fields_of_the_connection_frame_nothing(name: str) -> None:
    request = make((name, "chunked"), body=b"12345", CONTENT_LENGTH="3")
    assert request.content_length == 3
    assert drive(request.body.read()) == b"123"


@pytest.mark.parametrize(
    ("variables", "scheme"),
    [
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTPS": ""}, "http"),
        ({"HTTPS": "0"}, "http"),
        ({"HTTPS": "true"}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, "http"),
        ({"HTTP_HTTPS": "on"}, "http"),
    ],
)
def test_E15_the_scheme_is_the_servers_word(variables: dict[str, str], scheme: str) -> None:
    assert make(*variables.items()).scheme == scheme


def test_E15_forwarded_fields_count_where_they_are_trusted() -> None:
    sent = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_FOR": "1.2.3.4", "REMOTE_ADDR": "10.0.0.1"}
    assert make(*sent.items()).remote_addr == "10.0.0.1"
    trusted = make(*sent.items(), rules=Rules(trust_forwarded=True))
    assert (trusted.scheme, trusted.remote_addr) == ("https", "1.2.3.4")
