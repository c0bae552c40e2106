"""CGI/1.1 (RFC 3875), the rules that the model meets by itself.

C18 to C22, C41, C43 and C44 are for the script and the host.
"""

from __future__ import annotations

import pytest

from gateways import Reject, RemoteProtocolError, Request, Response
from gateways._model.dialects.cgi import parse_head
from gateways._model.environ import quote
from gateways._model.handler import drive
from tests.model.memory import answering, ask, make, raising

# --- request


def test_C01_a_variable_has_one_value_and_an_empty_one_is_the_same_as_none() -> None:
    request = Request([("REQUEST_METHOD", "GET"), ("SERVER_NAME", "A"), ("SERVER_NAME", "b"), ("CONTENT_TYPE", "")])
    assert request.environ["SERVER_NAME"] == "b"
    assert "CONTENT_TYPE" not in request.environ
    assert request.content_type is None


def test_C01_header_names_have_no_case_and_values_have() -> None:
    assert make(HTTP_X_Y="Value").headers["x-Y"] == "Value"


def test_C02_no_length_is_no_body() -> None:
    assert make(CONTENT_LENGTH="").content_length is None
    assert drive(make().body.read()) == b""


def test_C02_no_more_is_read_than_the_length_says() -> None:
    request = make(body=b"12345 and the next request", CONTENT_LENGTH="5")
    assert drive(request.body.read()) == b"12345"


@pytest.mark.parametrize("value", ["x", "5 ", "-1", "1.5"])
def test_C02_a_length_that_is_not_digits_is_400(value: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        make(CONTENT_LENGTH=value)
    assert caught.value.status == 400


def test_C03_a_type_that_was_not_sent_is_none() -> None:
    assert make(body=b"{}", CONTENT_LENGTH="2").content_type is None
    assert make(CONTENT_TYPE="a/b; c=D").content_type == "a/b; c=D"


def test_C04_gateway_interface_is_kept_as_sent_and_filled_in_where_it_is_not() -> None:
    assert make(GATEWAY_INTERFACE="CGI/2.013").environ["GATEWAY_INTERFACE"] == "CGI/2.013"
    assert make().environ["GATEWAY_INTERFACE"] == "CGI/1.1"


@pytest.mark.parametrize("info", ["", "/", "/A/b", "/a//", "/é b"])
def test_C05_path_info_is_decoded_and_begins_with_a_slash_or_is_nothing(info: str) -> None:
    assert make(SCRIPT_NAME="/s", PATH_INFO=info).path_info == info


def test_C06_path_translated_may_hold_any_byte_and_may_be_absent() -> None:
    raw = b"/srv/\xff\x01\xc3"
    environ = make(PATH_TRANSLATED=raw.decode("utf-8", "surrogateescape")).environ
    assert environ["PATH_TRANSLATED"].encode("utf-8", "surrogateescape") == raw
    assert "PATH_TRANSLATED" not in make(PATH_TRANSLATED="").environ


@pytest.mark.parametrize("query", ["", "A=%41&a=b", "a%2Fb"])
def test_C07_the_query_string_is_always_there_and_still_encoded(query: str) -> None:
    assert make(QUERY_STRING=query).query_string == query
    assert make().query_string == ""


def test_C08_who_is_there() -> None:
    request = make(REMOTE_ADDR="::1", REMOTE_HOST="", REMOTE_IDENT="x", REMOTE_USER="m", AUTH_TYPE="bASIC")
    assert (request.remote_addr, request.remote_user) == ("::1", "m")
    assert "REMOTE_HOST" not in request.environ
    assert request.environ["AUTH_TYPE"] == "bASIC"


@pytest.mark.parametrize("method", ["GET", "get", "PROPFIND", "X-Y"])
def test_C09_a_method_is_a_token_in_its_own_case(method: str) -> None:
    assert make(REQUEST_METHOD=method).method == method


@pytest.mark.parametrize(("script", "seen"), [("", ""), ("/a b", "/a b"), ("/a/", "/a"), ("/", "")])
def test_C10_script_name_is_decoded_and_has_no_part_of_the_path_info(script: str, seen: str) -> None:
    assert make(SCRIPT_NAME=script, PATH_INFO="/x").script_name == seen


def test_C11_a_server_name_may_be_an_address() -> None:
    request = make(SERVER_NAME="[2001:db8::1]", SERVER_PORT="8080")
    assert (request.server_name, request.server_port) == ("[2001:db8::1]", 8080)
    assert request.url == "http://[2001:db8::1]:8080"


@pytest.mark.parametrize(
    ("protocol", "scheme"),
    [("HTTP/1.1", "http"), ("http/1.0", "http"), ("INCLUDED", "http"), ("Included", "http"), ("GEMINI", "gemini")],
)
def test_C12_server_protocol_has_no_case_and_may_be_included_or_another(protocol: str, scheme: str) -> None:
    assert make(SERVER_PROTOCOL=protocol).scheme == scheme


def test_C13_the_script_uri() -> None:
    sent = {"SCRIPT_NAME": "/a b", "PATH_INFO": "/c?d=é;x", "QUERY_STRING": "q=1", "SERVER_NAME": "h", "HTTPS": "on"}
    assert make(*sent.items(), SERVER_PORT="8443").url == "https://h:8443/a%20b/c%3Fd=%C3%A9;x?q=1"
    assert quote("%") == "%25"


def test_C14_header_fields_come_back_from_their_variables() -> None:
    request = make(HTTP_ACCEPT_LANGUAGE="cs", HTTP_CONTENT_TYPE="x/y", CONTENT_TYPE="a/b", HTTP_PROXY="evil")
    assert request.headers.items() == [("accept-language", "cs"), ("content-type", "a/b")]


@pytest.mark.parametrize("status", [405, 501])
def test_C15_a_handler_refuses_a_method_with_one_line(status: int) -> None:
    exchange = ask(raising(Reject(status, headers={"Allow": "GET"})), "FROBNICATE")
    assert (exchange.status, exchange.field("Allow")) == (status, "GET")


def test_C16_a_handler_sees_HEAD_and_its_body_is_not_sent() -> None:
    async def handler(request: Request) -> Response:
        return Response(f"the method is {request.method}")

    exchange = ask(handler, "HEAD")
    assert (exchange.field("Content-Length"), exchange.body) == (str(len("the method is HEAD")), b"")


def test_C17_the_protocol_can_be_asked_for() -> None:
    assert make(SERVER_PROTOCOL="HTTP/1.0").environ["SERVER_PROTOCOL"] == "HTTP/1.0"


# --- response


@pytest.mark.parametrize("answer", [None, Response(), Response([]), Response("", 204)])
def test_C30_there_is_always_an_answer(answer: object) -> None:
    assert ask(answering(answer)).head


def test_C31_a_head_a_blank_line_and_a_body() -> None:
    exchange = ask(Response("body"))
    assert exchange.head.endswith(b"\r\n\r\n")
    assert exchange.head.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("body", ["x", b"x", [b"x"]])
def test_C32_an_answer_with_a_body_has_a_content_type(body: str | bytes | list[bytes]) -> None:
    assert ask(Response(body)).field("Content-Type")
    assert ask(Response("")).field("Content-Type") is None


def test_C33_C34_C35_a_redirect_is_the_clients_and_says_so() -> None:
    exchange = ask(Response.redirect("/x#y"))
    assert (exchange.status, exchange.fields) == (302, (("Location", "/x#y"), ("Content-Length", "0")))
    document = ask(Response("moved", 307, {"Location": "http://h/"}))
    assert (document.status, document.field("Location"), document.body) == (307, "http://h/", b"moved")
    assert document.field("Content-Type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["Content-Type", "Location"])
def test_C36_each_field_of_cgi_is_there_once_at_most(name: str) -> None:
    with pytest.raises(ValueError, match="given twice"):
        Response(headers=[(name, "a"), (name.lower(), "b")])


def test_C36_an_empty_value_is_a_field_that_is_not_sent() -> None:
    exchange = ask(Response("x", headers={"X": "", "Y": "1"}, content_type=""))
    assert exchange.field("X") is None
    assert exchange.field("Y") == "1"
    assert exchange.field("Content-Type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize(("status", "line"), [(200, b"Status: 200 OK"), (599, b"Status: 599 Unknown")])
def test_C37_the_status_is_three_digits_and_a_reason(status: int, line: bytes) -> None:
    assert ask(Response(status=status)).head.split(b"\r\n")[0] == line


def test_C37_a_reason_may_be_empty_in_what_others_send() -> None:
    assert parse_head(b"Status: 404 \n\n", 100) == (404, "Not Found", (), 14)


def test_C38_text_says_its_charset_and_a_type_is_not_changed() -> None:
    assert ask(Response("é")).field("Content-Type") == "text/plain; charset=utf-8"
    assert ask(Response("<p>", content_type="text/html")).field("Content-Type") == "text/html"


@pytest.mark.parametrize("name", ["Connection", "Transfer-Encoding", "Keep-Alive", "Upgrade", "TE", "Trailer"])
def test_C39_fields_of_the_connection_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="about one connection"):
        Response(headers={name: "x"})


def test_C40_private_fields_pass() -> None:
    assert ask(Response(headers={"X-CGI-Mine": "1"})).field("X-CGI-Mine") == "1"


def test_C42_the_fields_of_cgi_come_first_and_lines_end_in_CRLF() -> None:
    head = ask(Response("x", headers=[("A", "1"), ("B", "2")])).head
    assert [line.split(b":")[0] for line in head.splitlines()][:2] == [b"Status", b"Content-Type"]
    assert head.count(b"\n") == head.count(b"\r\n")


def test_C42_LF_alone_is_accepted_from_others() -> None:
    assert parse_head(b"Content-Type: a/b\n\nbody", 100) == (200, "OK", (("Content-Type", "a/b"),), 19)
