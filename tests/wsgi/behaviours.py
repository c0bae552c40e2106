"""Small WSGI applications, each with a request and with what has to come back, whatever carries them.

What a server owes to applications by PEP 3333, and what the handlers of Perl's Plack are tested for (PSGI is its
sibling), in our own words. Imported by CGI scripts too, so nothing here needs an event loop.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any

import attrs

__all__ = ["BEHAVIOURS", "BIG", "TEXT", "Behaviour"]

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, Start], Iterable[bytes]]
Headers = tuple[tuple[str, str], ...]

TEXT = [("Content-Type", "text/plain")]
#: More than any buffer on the way.
BIG = bytes(range(256)) * 2048


@attrs.frozen
class Behaviour:
    """An application, the request that it gets, and the answer that has to come of it."""

    application: Application
    method: str = "GET"
    path: str = "/"
    headers: Headers = ()
    body: bytes = b""
    environ: dict[str, str | None] = attrs.field(factory=dict)
    status: int = 200
    answer: bytes = b""
    #: Fields that the answer has, by name; None for one that it must not have.
    fields: dict[str, str | list[str] | None] = attrs.field(factory=dict)
    #: What it may not be checked for: wsgiref.validate wants more than PEP 3333 in places.
    validated: bool = True
    #: Variables that the other end of an HTTP connection cannot know.
    over_http: bool = True
    #: A part of what has to be in the error log.
    log: str = ""


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(**about: Any) -> Callable[[Application], Application]:
    """Add an application, under its name, to those that are tried over every protocol."""

    def add(application: Application) -> Application:
        BEHAVIOURS[getattr(application, "__name__")] = Behaviour(application, **about)  # noqa: B009
        return application

    return add


def show(*names: str) -> Application:
    """An application that shows some variables, absent ones as "-"."""

    def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return ["\n".join([str(environ.get(name, "-")) for name in names]).encode("latin-1")]

    return application


def shows(name: str, *names: str, **about: Any) -> None:
    BEHAVIOURS[name] = Behaviour(show(*names), **about)


# --- the request -----------------------------------------------------------------------------------------------------

shows("a_get_has_its_query", "REQUEST_METHOD", "QUERY_STRING", path="/?name=dan&x=%20", answer=b"GET\nname=dan&x=%20")
shows("a_request_without_a_query_has_an_empty_one", "QUERY_STRING", answer=b"")
shows("the_scheme_is_http", "wsgi.url_scheme", answer=b"http")
shows(
    "the_scheme_is_https_where_the_web_server_says_so",
    "wsgi.url_scheme",
    environ={"HTTPS": "on", "REQUEST_SCHEME": None},
    answer=b"https",
    over_http=False,
)
shows("a_header_field_is_a_variable", "HTTP_X_FOO", headers=(("X-Foo", "bar"),), answer=b"bar")
shows("a_value_of_a_header_field_may_be_long", "HTTP_X_FOO", headers=(("X-Foo", "x" * 5000),), answer=b"x" * 5000)
shows(
    "a_value_of_a_header_field_comes_as_it_is", "HTTP_X_FOO", headers=(("X-Foo", 'a, b;c="d"'),), answer=b'a, b;c="d"'
)
shows("a_repeated_header_field_is_joined", "HTTP_X_FOO", headers=(("X-Foo", "1"), ("X-Foo", "2")), answer=b"1, 2")
shows("bytes_of_a_header_field_are_latin_1", "HTTP_X_FOO", headers=(("X-Foo", "schön"),), answer="schön".encode())
shows(
    "the_cookie_is_one_variable",
    "HTTP_COOKIE",
    "COOKIE",
    headers=(("Cookie", "a=1; b=2"),),
    answer=b"a=1; b=2\n-",
)
shows(
    "the_authorization_is_passed_on",
    "HTTP_AUTHORIZATION",
    headers=(("Authorization", "Basic Og=="),),
    answer=b"Basic Og==",
)
shows(
    "type_and_length_of_a_body_have_no_prefix",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "HTTP_CONTENT_TYPE",
    "HTTP_CONTENT_LENGTH",
    method="POST",
    headers=(("Content-Type", "text/x-poem"),),
    body=b"roses",
    answer=b"text/x-poem\n5\n-\n-",
)
shows("there_is_no_proxy", "HTTP_PROXY", headers=(("Proxy", "evil.example"),), answer=b"-")
shows("the_target_is_as_the_client_wrote_it", "REQUEST_URI", path="/a%2Fb?c=%64", answer=b"/a%2Fb?c=%64")
shows("the_path_is_decoded_once", "PATH_INFO", path="/a%2525%20b", answer=b"/a%25 b")
shows("an_encoded_slash_is_decoded", "PATH_INFO", path="/a%2fb%2Fc", answer=b"/a/b/c")
shows("slashes_of_the_path_are_kept", "PATH_INFO", path="//a///b/", answer=b"//a///b/")
shows("bytes_of_the_path_are_latin_1", "PATH_INFO", path="/caf%C3%A9/%FF", answer=b"/caf\xc3\xa9/\xff")
shows(
    "script_name_and_path_info_are_divided_as_the_server_does",
    "SCRIPT_NAME",
    "PATH_INFO",
    path="/app/x",
    environ={"SCRIPT_NAME": "/app", "PATH_INFO": "/x"},
    answer=b"/app\n/x",
    over_http=False,
)
shows("script_name_is_there_when_it_is_empty", "SCRIPT_NAME", answer=b"")
shows("the_protocol_is_told", "SERVER_PROTOCOL", answer=b"HTTP/1.1")
shows(
    "name_and_port_of_the_server_are_made_up_where_nobody_tells_them",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    environ={"SERVER_NAME": None, "SERVER_PORT": None, "SERVER_PROTOCOL": None},
    answer=b"localhost\n80\nHTTP/1.0",
    over_http=False,
)
shows(
    "the_port_is_made_up_where_it_is_no_number",
    "SERVER_PORT",
    environ={"SERVER_PORT": "http", "HTTPS": "on"},
    answer=b"443",
    over_http=False,
)
shows(
    "a_server_may_be_named_by_an_address_of_ipv6",
    "SERVER_NAME",
    environ={"SERVER_NAME": "[::1]"},
    answer=b"[::1]",
    over_http=False,
)
shows(
    "variables_with_a_dot_do_not_come_over_a_wire",
    "paste.testing",
    "wsgi.run_once.x",
    environ={"paste.testing": "1", "wsgi.run_once.x": "1"},
    answer=b"-\n-",
    over_http=False,
)
shows("the_input_ends_by_itself", "wsgi.input_terminated", answer=b"True")
shows("the_version_is_1_0", "wsgi.version", answer=b"(1, 0)")
shows("other_methods_are_methods_too", "REQUEST_METHOD", method="DELETE", path="/x", answer=b"DELETE")


@behaviour(answer=b"native")
def the_environment_is_a_plain_dictionary_of_native_strings(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", TEXT)
    native = [type(name) is str and type(value) is str for name, value in environ.items() if "wsgi." not in name]
    environ["changed"] = "by the application"  # it may do that
    return [b"native" if type(environ) is dict and all(native) else b"not native"]


# --- the body of the request -----------------------------------------------------------------------------------------


def reads(name: str, read: Callable[[Any], bytes], **about: Any) -> None:
    """An application that answers with what it reads."""

    def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
        body = read(environ["wsgi.input"])
        start_response("200 OK", TEXT)
        return [body]

    BEHAVIOURS[name] = Behaviour(application, method="POST", **about)


def in_pieces(body: Any) -> bytes:
    return b"".join(iter(lambda: body.read(10_000), b""))


LINES = b"one\ntwo\n\nfour"

reads("a_post_has_its_body", lambda body: body.read(5), body=b"hello", answer=b"hello")
reads("a_read_ends_with_the_body", lambda body: body.read(100), body=b"hello", answer=b"hello")
reads(
    "after_the_end_there_is_nothing",
    lambda body: body.read(5) + body.read(5) + body.read(5),
    body=b"hello",
    answer=b"hello",
)
reads("a_request_without_a_body_has_an_empty_one", lambda body: body.read(5), answer=b"")
reads(
    "the_body_has_lines",
    lambda body: b"|".join([body.readline() for _ in range(5)]),
    body=LINES,
    answer=b"one\n|two\n|\n|four|",
)
reads("a_line_may_be_cut", lambda body: b"|".join([body.readline(2), body.readline(9)]), body=LINES, answer=b"on|e\n")
reads("the_body_is_iterated_by_lines", lambda body: b"|".join(body), body=LINES, answer=b"one\n|two\n|\n|four")
reads("all_lines", lambda body: b"|".join(body.readlines()), body=LINES, answer=b"one\n|two\n|\n|four")
reads("lines_up_to_a_hint", lambda body: b"|".join(body.readlines(2)), body=LINES, answer=b"one\n")
reads(
    "a_big_body_comes_whole",
    lambda body: sha256(in_pieces(body)).hexdigest().encode(),
    body=BIG,
    answer=sha256(BIG).hexdigest().encode(),
)
reads(
    "read_without_a_number_is_all_there_is",
    lambda body: b"%d" % len(body.read()),
    body=BIG,
    answer=b"%d" % len(BIG),
    validated=False,
)
reads("a_body_may_be_left_unread", lambda body: body.read(1), body=BIG, answer=b"\0")


@behaviour(method="POST", body=b"hello", answer=b"hello, read late")
def the_body_can_be_read_while_the_answer_is_made(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    yield environ["wsgi.input"].read(3)
    yield environ["wsgi.input"].read(3)
    yield b", read late"


# --- the answer ------------------------------------------------------------------------------------------------------


def answers(name: str, give: Callable[[], Iterable[bytes]], answer: bytes, **about: Any) -> None:
    def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return give()

    BEHAVIOURS[name] = Behaviour(application, answer=answer, **about)


answers("a_list_of_pieces", lambda: [b"a", b"", b"b"], b"ab", fields={"content-type": "text/plain"})
answers("a_tuple", lambda: (b"a", b"b"), b"ab", fields={"content-length": "2"}, validated=False)
answers("a_list_of_one_has_a_length", lambda: [b"0"], b"0", fields={"content-length": "1"}, validated=False)
answers("a_generator", lambda: (b"%d" % number for number in range(10)), b"0123456789", fields={"content-length": None})
answers("an_empty_list", list, b"")
answers("a_list_of_nothing", lambda: [b"", b""], b"")
answers("an_empty_generator", lambda: iter([]), b"")
answers("a_file", lambda: io.BytesIO(b"line\nline\n"), b"line\nline\n")
answers("a_big_answer", lambda: [BIG], BIG)
answers("many_pieces", lambda: (BIG[at : at + 1000] for at in range(0, len(BIG), 1000)), BIG)
answers("many_big_pieces", lambda: [BIG] * 4, BIG * 4)
answers("line_ends_are_left_alone", lambda: [b"a\r\nb\nc\r\n\r\n"], b"a\r\nb\nc\r\n\r\n")


@behaviour(answer=b"%s", validated=False)
def file_wrapper(environ: Environ, start_response: Start) -> Iterable[bytes]:
    file = io.BytesIO(b"skipped" + b"%s")
    file.seek(7)
    start_response("200 OK", TEXT)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 10)
    return wrapped


@behaviour(answer=BIG * 2)
def a_wrapped_file_of_some_size(environ: Environ, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(BIG * 2))
    return wrapped


@behaviour(status=404, answer=b"no", fields={"x-one": "1", "content-type": "text/plain"})
def a_status_and_header_fields(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("404 Not Found", [*TEXT, ("X-One", "1")])
    return [b"no"]


@behaviour(status=301, answer=b"", fields={"location": "http://elsewhere.example/x"})
def a_redirect(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("301 Moved Permanently", [*TEXT, ("Location", "http://elsewhere.example/x")])
    return []


@behaviour(answer=b"", fields={"set-cookie": ["a=1", "b=2"]})
def a_header_field_may_be_repeated(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return []


@behaviour(fields={"x-text": "schön"})
def bytes_of_a_header_field_go_out_as_they_are(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [*TEXT, ("X-Text", "schön".encode().decode("latin-1"))])
    return []


@behaviour(status=304, answer=b"", fields={"content-type": None, "content-length": None, "etag": '"x"'})
def not_modified_has_no_body(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("304 Not Modified", [("ETag", '"x"')])
    return [b"a mistake"]


@behaviour(status=204, answer=b"", fields={"content-type": None, "content-length": None})
def no_content_has_no_body(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("204 No Content", [])
    return []


@behaviour(method="HEAD", answer=b"", fields={"content-length": "5", "content-type": "text/plain"})
def head_has_the_length_and_no_body(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return [b"hello"]


@behaviour(method="HEAD", answer=b"", fields={"content-length": "5"})
def head_may_be_answered_without_a_body(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return []


@behaviour(method="HEAD", answer=b"")
def head_does_not_wait_for_the_end(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    while True:
        yield BIG


@behaviour(answer=b"wrote this, and returned that")
def write_goes_before_what_is_returned(environ: Environ, start_response: Start) -> list[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"wrote ")
    write(b"")
    write(b"this")
    return [b", and returned ", b"that"]


@behaviour(answer=BIG * 8)
def write_of_much(environ: Environ, start_response: Start) -> list[bytes]:
    write = start_response("200 OK", TEXT)
    for _ in range(8):
        write(BIG)
    return []


@behaviour(answer=b"late", validated=False)
def start_response_may_wait_for_the_first_piece(environ: Environ, start_response: Start) -> Iterator[bytes]:
    yield b""
    start_response("200 OK", TEXT)
    yield b"late"


@behaviour(answer=b"12345", fields={"content-length": "5"}, log="3 bytes beyond the Content-Length", validated=False)
def more_than_the_length_is_cut(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return [b"12345678"]


@behaviour(answer=b"12312", fields={"content-length": "5"}, log="beyond the Content-Length")
def more_pieces_than_the_length_are_cut(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    while True:
        yield b"123"


@behaviour(answer=b"again", fields={"x-first": None}, status=500)
def the_answer_may_begin_anew_before_it_is_sent(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [*TEXT, ("X-First", "1")])
    try:
        raise KeyError("of the application")
    except KeyError:
        start_response("500 Oops", TEXT, sys.exc_info())
    return [b"again"]


@behaviour(answer=b"Internal Server Error\n", status=500, log="KeyError: 'of the application'")
def an_application_that_raises(environ: Environ, start_response: Start) -> list[bytes]:
    raise KeyError("of the application")


@behaviour(answer=b"ok", log="said by the application")
def the_error_log(environ: Environ, start_response: Start) -> list[bytes]:
    environ["wsgi.errors"].write("said ")
    environ["wsgi.errors"].writelines(["by the ", "application\nand more"])
    environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return [b"ok"]
