"""Requests of Gemini, Titan, Spartan and Gopher beyond those that were captured, and what a handler asks of any."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import ClientCertificate, LocalProtocolError, RemoteProtocolError, Request
from gateways._model.dialects.small_web import normal_fingerprint
from gateways._model.environ import Rules
from gateways._model.handler import drive

GEMINI = {"SERVER_PROTOCOL": "GEMINI"}
DIGEST = "a93c47b5a4d3d08e248f1bc438152fce61c00344ceaedc6323fa723702bd0ec0"
SHOWN = {**GEMINI, "TLS_CLIENT_HASH": DIGEST}
FORM = {"CONTENT_TYPE": "application/x-www-form-urlencoded", "REQUEST_METHOD": "POST", "SERVER_PROTOCOL": "HTTP/1.1"}


def get(**more: str) -> dict[str, str]:
    return {"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET", **more}


def typed(variables: dict[str, str], body: bytes = b"") -> str | None:
    return drive(Request(variables, body).input())


# --- paths -------------------------------------------------------------------------------------------------------


def test_the_url_keeps_what_the_other_variables_lose() -> None:
    url = "gemini://example.org:1966/app/a%2Fb/../c?x%20y#z"
    request = Request({**GEMINI, "GEMINI_URL": url, "SCRIPT_NAME": "/app", "PATH_INFO": "/a/c", "QUERY_STRING": "x y"})
    assert (request.script_name, request.path_info) == ("/app", "/a/b/../c")
    assert (request.raw_path, request.query_string) == ("/app/a%2Fb/../c", "x%20y")


@pytest.mark.parametrize(
    ("variables", "split"),
    [
        ({"GEMINI_URL": "gemini://h"}, ("", "/")),
        ({"GEMINI_URL": "gemini://h/x"}, ("", "/x")),  # gemserv tells nothing else
        ({"GEMINI_URL": "gemini://h/application", "SCRIPT_NAME": "/app", "PATH_INFO": "/b"}, ("/app", "/b")),
        ({"GEMINI_URL": "not a url", "SCRIPT_NAME": "/app", "PATH_INFO": "/b"}, ("/app", "/b")),
        ({"GEMINI_URL_PATH": "", "SCRIPT_NAME": "", "PATH_INFO": ""}, ("", "/")),
        ({"GEMINI_URL_PATH": "a/b", "SCRIPT_NAME": "", "PATH_INFO": "/a/b"}, ("", "/a/b")),
        ({"GEMINI_URL_PATH": "a/b", "SCRIPT_NAME": "", "PATH_INFO": "/b"}, ("/a", "/b")),
        ({"SCRIPT_PATH": "/app", "SCGI": "1", "PATH_INFO": ""}, ("/app", "")),
        ({"SCRIPT_PATH": "/app", "SCGI": "1", "PATH_INFO": "le/x"}, ("", "/apple/x")),  # molly-brown
        ({"SCRIPT_PATH": "/app/", "SCGI": "1", "PATH_INFO": "le"}, ("/app", "/le")),
        ({"SCRIPT_PATH": "/", "SCGI": "1", "PATH_INFO": "a"}, ("", "/a")),
        ({"GEMINI_URL": "gemini://h/app/x", "SCRIPT_NAME": "/app/", "PATH_INFO": "x"}, ("/app", "/x")),  # GmCapsule
        ({"SCRIPT_PATH": "/srv/cgi-bin/app", "PATH_INFO": "a"}, ("", "/a")),
        ({"SCRIPT_NAME": "/srv/x", "SCRIPT_FILENAME": "/srv/x", "PATH_INFO": "/a"}, ("", "/a")),
        ({"SCRIPT_NAME": "/srv/x", "PATH_TRANSLATED": "/srv/x", "PATH_INFO": "/a"}, ("", "/a")),
    ],
)
def test_mount_and_path_are_found_wherever_the_server_has_them(
    variables: dict[str, str], split: tuple[str, str]
) -> None:
    request = Request({**GEMINI, **variables}, protocol="scgi")
    assert (request.script_name, request.path_info) == split


def test_the_program_itself_is_no_place_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """vger, kaori and hodhod have the path of the file in SCRIPT_NAME."""
    monkeypatch.setattr("sys.argv", ["/srv/cgi/app"])
    variables = {**GEMINI, "SCRIPT_NAME": "/srv/cgi/app", "PATH_INFO": "/a"}
    assert Request(variables, protocol="cgi").script_name == ""
    assert Request(variables, protocol="scgi").script_name == "/srv/cgi/app"
    request = Request(variables, protocol="cgi", rules=Rules(mount="/cgi/app"))
    assert (request.script_name, request.path_info) == ("/cgi/app", "/a")


def test_what_is_below_a_script_of_gopher_stands_behind_a_question_mark() -> None:
    variables = {
        "SERVER_PROTOCOL": "RFC1436",
        "SCRIPT_NAME": "/cgi-bin/app",
        "SELECTOR": "/cgi-bin/app?/sign?x=1",
        "QUERY_STRING": "/sign?x=1",
    }
    request = Request(variables, protocol="cgi")
    assert (request.script_name, request.path_info, request.query_string) == ("/cgi-bin/app?", "/sign", "x=1")
    by_hand = Request(variables, protocol="cgi", rules=Rules(mount="/cgi-bin/app"))
    assert (by_hand.script_name, by_hand.path_info) == ("/cgi-bin/app", "")
    whole = Request({**variables, "PATH_INFO": "/sign"}, protocol="cgi")
    assert (whole.script_name, whole.path_info) == ("/cgi-bin/app", "/sign")


def test_a_search_that_is_also_the_query_is_no_query() -> None:
    """gophernicus has both in one."""
    variables = {
        "SERVER_PROTOCOL": "RFC1436",
        "SCRIPT_NAME": "/cgi-bin/app",
        "SELECTOR": "/cgi-bin/app",
        "SEARCHREQUEST": "two words",
        "QUERY_STRING": "two words",
    }
    request = Request(variables, protocol="cgi")
    assert request.query_string == ""
    assert drive(request.input()) == "two words"


def test_a_mount_takes_the_path_of_the_url_apart() -> None:
    variables = {**GEMINI, "GEMINI_URL": "gemini://h/app/x", "SCRIPT_NAME": "/srv", "PATH_INFO": "/y"}
    request = Request(variables, rules=Rules(mount="/app"))
    assert (request.script_name, request.path_info) == ("/app", "/x")
    with pytest.raises(RemoteProtocolError, match="not below the mount"):
        Request(variables, rules=Rules(mount="/other"))


def test_a_nul_in_the_url_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="NUL"):
        Request({**GEMINI, "GEMINI_URL": "gemini://h/a%00"})


# --- Titan and Spartan -------------------------------------------------------------------------------------------


def test_an_upload_is_a_PUT_with_its_size_and_type() -> None:
    variables = {
        "SERVER_PROTOCOL": "TITAN",
        "TITAN_URL": "titan://h/app/doc",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/doc",
        "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "text/plain",
        "TITAN_TOKEN": "a%20b",
    }
    request = Request(variables, b"hello")
    assert (request.method, request.scheme, request.path_info) == ("PUT", "titan", "/doc")
    assert (request.content_length, request.content_type) == (5, "text/plain")
    assert request.environ["TITAN_TOKEN"] == "a b"
    assert drive(request.body.read()) == b"hello"
    assert drive(request.input()) is None


@pytest.mark.parametrize(
    ("parameters", "method", "length", "media_type", "token"),
    [
        (";size=5;mime=text/plain;token=a%3Bb", "PUT", 5, "text/plain", "a;b"),
        (";mime=text%2Fgemini;size=10", "PUT", 10, "text/gemini", None),
        (";size=0", "DELETE", 0, None, None),
        (";edit", "GET", None, None, None),
        ("", "GET", None, None, None),
    ],
)
def test_parameters_that_the_server_left_on_the_path_are_taken_off(
    parameters: str, method: str, length: int | None, media_type: str | None, token: str | None
) -> None:
    request = Request({"SERVER_PROTOCOL": "TITAN", "TITAN_URL": f"titan://h/doc{parameters}?q"})
    assert (request.method, request.path, request.query_string) == (method, "/doc", "q")
    assert (request.content_length, request.content_type) == (length, media_type)
    assert request.environ.get("TITAN_TOKEN") == token
    assert ("TITAN_EDIT" in request.environ) == (parameters == ";edit")


def test_nothing_is_deleted_because_a_server_does_not_tell_the_size() -> None:
    assert Request({"SERVER_PROTOCOL": "TITAN", "PATH_INFO": "/doc"}).method == "GET"


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not a number"):
        Request({"SERVER_PROTOCOL": "TITAN", "TITAN_URL": "titan://h/doc;size=+5"})


@pytest.mark.parametrize("name", ["DATA_LENGTH", "CONTENT_LENGTH"])
def test_data_sent_over_spartan_is_a_POST(name: str) -> None:
    request = Request({"SERVER_PROTOCOL": "SPARTAN", name: "5", "REQUEST_METHOD": ""}, b"hell\xff")
    assert (request.method, request.content_length) == ("POST", 5)
    assert drive(request.input()) == "hell\udcff"
    assert Request({"SERVER_PROTOCOL": "SPARTAN", name: "0"}).method == "GET"


# --- input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (GEMINI, None),
        ({**GEMINI, "QUERY_STRING": ""}, None),
        ({**GEMINI, "QUERY_STRING": "a+b%2Bc%2525"}, "a+b+c%25"),
        ({**GEMINI, "GEMINI_URL": "gemini://h/x?"}, ""),
        ({**GEMINI, "GEMINI_URL": "gemini://h/x"}, None),
        ({**GEMINI, "GEMINI_URL": "gemini://h/x?a+b", "QUERY_STRING": "a b"}, "a+b"),
        ({**GEMINI, "QUERY_STRING": "a", "GEMINI_SEARCH_STRING": "b"}, "a"),
        ({"SERVER_PROTOCOL": "SPARTAN", "QUERY_STRING": "a%20b"}, "a b"),
        ({"SERVER_PROTOCOL": "SPARTAN"}, None),
        ({"SELECTOR": "/x", "SEARCHREQUEST": "a%20b\t+"}, "a%20b"),
        ({"SELECTOR": "/x?a%20b", "SEARCHREQUEST": ""}, "a b"),
        ({"SELECTOR": "/x?a", "SEARCHREQUEST": "b"}, "b"),
        ({"SELECTOR": "/x", "SEARCHREQUEST": ""}, None),
        (get(QUERY_STRING="input=a+b%21&x=y"), "a b!"),
        (get(QUERY_STRING="input="), ""),
        (get(QUERY_STRING="x=y"), None),
        (get(QUERY_STRING="a+b%20c"), "a+b c"),
        (get(), None),
    ],
)
def test_input_is_decoded_once_wherever_it_is(variables: dict[str, str], text: str | None) -> None:
    assert typed(variables) == text


def test_input_of_a_form_that_was_posted() -> None:
    assert typed({**FORM, "CONTENT_LENGTH": "9"}, b"input=a+b") == "a b"
    assert typed({**FORM, "CONTENT_LENGTH": "3"}, b"x=y") is None
    assert typed({**FORM, "CONTENT_LENGTH": "7", "CONTENT_TYPE": "text/plain"}, b"input=a") is None


def test_input_can_be_asked_for_again_though_the_body_was_read() -> None:
    request = Request({**FORM, "CONTENT_LENGTH": "7"}, b"input=a")
    assert [drive(request.input()), drive(request.input())] == ["a", "a"]
    with pytest.raises(LocalProtocolError, match="read"):
        drive(request.form())


# --- certificates ------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["", "SHA256:", "sha256:"]), st.booleans(), st.booleans())
def test_a_fingerprint_is_the_same_however_it_is_written(digest: bytes, name: str, upper: bool, colons: bool) -> None:
    text = digest.hex(":") if colons else digest.hex()
    assert normal_fingerprint(name + (text.upper() if upper else text)) == digest.hex()


def test_a_fingerprint_may_be_base64() -> None:
    assert normal_fingerprint("qTxHtaTT0I4kjxvEOBUvzmHAA0TOrtxjI_pyNwK9DsA=") == DIGEST
    assert normal_fingerprint("SHA256:qTxHtaTT0I4kjxvEOBUvzmHAA0TOrtxjI/pyNwK9DsA") == DIGEST


@pytest.mark.parametrize(
    "text", ["", "x", DIGEST[:-1], DIGEST + "0", "g" + DIGEST[1:], "SHA1:" + DIGEST, "٣" * 64, "é" * 43]
)
def test_what_is_no_fingerprint_names_nobody(text: str) -> None:
    assert normal_fingerprint(text) == ""
    variables = {**GEMINI, "TLS_CLIENT_HASH": text, "TLS_CLIENT_SUBJECT_CN": "bob", "REMOTE_USER": "bob"}
    request = Request(variables)
    assert request.client_certificate is None
    assert "TLS_CLIENT_SUBJECT_CN" not in request.environ


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"TLS_CLIENT_SUBJECT_CN": "bob", "REMOTE_USER": "/CN=eve"}, "bob"),
        ({"REMOTE_USER": "bob"}, "bob"),
        ({"REMOTE_USER": "/CN=bob"}, "bob"),
        ({"REMOTE_USER": "/O=x/CN=a/b\\xC3\\xA9\\xZZ/UID=1"}, "a/bé\\xZZ"),
        ({"TLS_CLIENT_SUBJECT": "O=x, CN=bob"}, "bob"),
        ({"TLS_CLIENT_SUBJECT": "/O=x"}, None),
        ({"TLS_CLIENT_SUBJECT": "O=x"}, None),
        ({"REMOTE_USER": ""}, None),
    ],
)
def test_the_common_name_is_found_wherever_it_is(variables: dict[str, str], name: str | None) -> None:
    certificate = Request({**SHOWN, **variables}).client_certificate
    assert certificate is not None
    assert certificate.common_name == name


@pytest.mark.parametrize(
    ("protocol", "trusted"),
    [("GEMINI", True), ("TITAN", True), ("SPARTAN", False), ("gopher/1.0", False), ("HTTP/1.1", False)],
)
def test_a_certificate_is_believed_where_there_is_tls(protocol: str, trusted: bool) -> None:
    variables = {"SERVER_PROTOCOL": protocol, "TLS_CLIENT_HASH": DIGEST, "REQUEST_METHOD": "GET"}
    assert (Request(variables).client_certificate is not None) == trusted


def test_a_web_server_may_be_told_to_pass_a_certificate_on_but_a_client_cannot() -> None:
    assert Request(get(HTTPS="on", TLS_CLIENT_HASH=DIGEST.upper())).client_certificate == ClientCertificate(DIGEST)
    assert Request(get(HTTPS="on", HTTP_TLS_CLIENT_HASH=DIGEST)).client_certificate is None


def test_certificates_are_equal_by_their_fingerprint_alone() -> None:
    one, other = ClientCertificate(DIGEST, common_name="a"), ClientCertificate(DIGEST, common_name="b")
    assert one == other
    assert {one: 1}[other] == 1
    assert one != ClientCertificate("0" * 64, common_name="a")
    assert one != DIGEST
    assert DIGEST in repr(one)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T10:51:23Z", datetime(2026, 11, 20, 10, 51, 23, tzinfo=UTC)),
        ("2026-11-20T10:51:23", datetime(2026, 11, 20, 10, 51, 23, tzinfo=UTC)),
        ("2026-11-20T12:51:23+02:00", datetime(2026, 11, 20, 10, 51, 23, tzinfo=UTC)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9" * 40, None),
        ("Nov 20 2026", None),
        (None, None),
    ],
)
def test_validity_is_a_time_or_unknown(text: str | None, moment: datetime | None) -> None:
    certificate = ClientCertificate(DIGEST, not_before=text, not_after=text)
    assert (certificate.not_before, certificate.not_after) == (moment, moment)


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:44672", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]:44672", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("unknown", None),
        ("beef", None),
        ("", None),
    ],
)
def test_an_address_is_one_or_is_not_there(sent: str, address: str | None) -> None:
    assert Request({**GEMINI, "REMOTE_ADDR": sent}).remote_addr == address


# --- media types -------------------------------------------------------------------------------------------------

OFFERED = ("text/gemini", "text/html", "text/plain", "application/json")


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        ("", "text/html"),
        ("*/*", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/gemini, */*;q=0.1", "text/gemini"),
        ("application/json", "application/json"),
        ("text/*;q=0.5, text/plain", "text/plain"),
        ("text/html;q=0, */*", "text/gemini"),
        ("TEXT/PLAIN ; Q=1.0, text/html;q=0.9", "text/plain"),
        ("text/html;q=nan, text/plain;q=0.1", "text/plain"),
        ("text/html;q=\u0661, text/plain;q=0.1", "text/plain"),
        ("image/png", "text/html"),
        (",;,q=1", "text/html"),
    ],
)
def test_over_http_the_accept_field_decides(accept: str, best: str) -> None:
    assert Request(get(HTTP_ACCEPT=accept)).preferred(*OFFERED) == best


@pytest.mark.parametrize(
    ("variables", "offered", "best"),
    [
        (GEMINI, OFFERED, "text/gemini"),
        (GEMINI, ("text/html", "text/plain"), "text/plain"),
        (GEMINI, ("text/html", "text/gemini; lang=en"), "text/gemini; lang=en"),
        (GEMINI, ("image/png", "text/html"), "image/png"),
        ({"SERVER_PROTOCOL": "SPARTAN"}, OFFERED, "text/gemini"),
        ({"SERVER_PROTOCOL": "RFC1436"}, OFFERED, "text/plain"),
        ({"SERVER_PROTOCOL": "RFC1436"}, ("text/plain", "application/gopher-menu"), "application/gopher-menu"),
        (get(), ("application/json", "text/plain"), "application/json"),
    ],
)
def test_each_network_has_a_type_of_its_own(variables: dict[str, str], offered: Any, best: str) -> None:
    assert Request(variables).preferred(*offered) == best


def test_something_has_to_be_offered() -> None:
    with pytest.raises(TypeError, match="media types"):
        Request(GEMINI).preferred()


@given(st.text(max_size=30))
def test_any_accept_field_picks_one_of_what_is_offered(accept: str) -> None:
    assert Request(get(HTTP_ACCEPT=accept.replace("\0", ""))).preferred(*OFFERED) in OFFERED


# --- whatever may come -------------------------------------------------------------------------------------------

_NAMES = st.sampled_from([
    "GEMINI_URL", "TITAN_URL", "GEMINI_URL_PATH", "SCRIPT_NAME", "SCRIPT_PATH", "PATH_INFO", "SCGI", "QUERY_STRING",
    "SELECTOR", "REQUEST", "SEARCHREQUEST", "X_GOPHER_SEARCH", "QUERY_STRING_SEARCH", "CONTENT_LENGTH", "DATA_LENGTH",
    "TLS_CLIENT_HASH", "TLS_CLIENT_SUBJECT", "REMOTE_USER", "REMOTE_ADDR", "TITAN_TOKEN", "GATEWAYS_DIALECT",
])  # fmt: skip
_VALUES = st.text(max_size=12) | st.sampled_from(
    ["gemini://h/a%20b?c", "titan://h/a;size=3;token=%", "/a", "a", "3", DIGEST, "/CN=\\xff\\x0", "1.2.3.4:5", "gopher"]
)
_PROTOCOLS = st.sampled_from(["GEMINI", "TITAN", "SPARTAN", "RFC1436", "gopher/1.0", "", "HTTP/1.1"])


@given(
    st.dictionaries(_NAMES, _VALUES), _PROTOCOLS, st.sampled_from([None, "", "/a"]), st.sampled_from(["cgi", "scgi"])
)
def test_anything_becomes_a_lawful_request_or_is_refused(
    variables: dict[str, str], server_protocol: str, mount: str | None, protocol: str
) -> None:
    try:
        request = Request(
            {**variables, "SERVER_PROTOCOL": server_protocol}, protocol=protocol, rules=Rules(mount=mount)
        )
    except RemoteProtocolError:
        return
    assert request.path == request.script_name + request.path_info
    assert request.script_name == "" or (request.script_name[0] == "/" and request.script_name[-1] != "/")
    assert request.path_info == "" or request.path_info[0] == "/"
    empty = {name for name, value in request.environ.items() if not value}
    assert empty <= {"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"}
    for made in ("url", "query", "scheme", "client_certificate", "raw_path", "remote_addr"):
        getattr(request, made)
