"""What an ASGI application is told of a request, and what a handler is told by an ASGI server: the same, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateways import Request
from gateways.asgi import _HEADERS, _MAX_NAMES, _remember, _scope, _variables
from gateways.testing import call, variables
from tests.asgi.tools import check_scope
from tests.model.strategies import tokens


def scope_of(*pairs: tuple[str, str], **more: str) -> dict[str, Any]:
    scope = _scope(Request([("REQUEST_METHOD", "GET"), ("SERVER_PROTOCOL", "HTTP/1.1"), *pairs, *more.items()]), {})
    check_scope(scope)
    return scope


#: (meta-variables, key, value)
TABLE: list[tuple[dict[str, str], str, object]] = [
    ({}, "asgi", {"version": "3.0", "spec_version": "2.5"}),
    ({}, "http_version", "1.1"),
    ({"SERVER_PROTOCOL": "HTTP/1.0"}, "http_version", "1.0"),
    ({"SERVER_PROTOCOL": "HTTP/2.0"}, "http_version", "2"),
    ({"SERVER_PROTOCOL": "HTTP/3.0"}, "http_version", "3"),
    ({"SERVER_PROTOCOL": "INCLUDED"}, "http_version", "1.0"),
    ({"REQUEST_METHOD": "get"}, "method", "GET"),
    ({}, "scheme", "http"),
    ({"HTTPS": "on"}, "scheme", "https"),
    ({"SERVER_PROTOCOL": "GEMINI"}, "scheme", "gemini"),
    ({}, "path", "/"),
    ({"PATH_INFO": "/a b/é"}, "path", "/a b/é"),
    ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "path", "/app/x"),
    ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "root_path", "/app"),
    ({"SCRIPT_NAME": "/app"}, "path", "/app"),
    ({"PATH_INFO": "/x"}, "root_path", ""),
    ({"PATH_INFO": "/x"}, "raw_path", None),
    ({"PATH_INFO": "/a b", "REQUEST_URI": "/a%20b?c=%20"}, "raw_path", b"/a%20b"),
    ({"PATH_INFO": "/x", "REQUEST_URI": "http://host/x"}, "raw_path", b"/x"),
    ({}, "query_string", b""),
    ({"QUERY_STRING": "a=%20&b=\udcff"}, "query_string", b"a=%20&b=\xff"),
    ({}, "client", None),
    ({"REMOTE_ADDR": "::1", "REMOTE_PORT": "4000"}, "client", ("::1", 4000)),
    ({"REMOTE_ADDR": "::1"}, "client", ("::1", 0)),
    ({}, "server", None),
    ({"SERVER_NAME": "host", "SERVER_PORT": "8080"}, "server", ("host", 8080)),
    ({"SERVER_NAME": "host"}, "server", ("host", 80)),
    ({"SERVER_NAME": "host", "HTTPS": "on"}, "server", ("host", 443)),
    ({"HTTP_ACCEPT_LANGUAGE": "de"}, "headers", [(b"accept-language", b"de")]),
    ({"CONTENT_TYPE": "a/b", "CONTENT_LENGTH": "0"}, "headers", [(b"content-type", b"a/b"), (b"content-length", b"0")]),
    ({"HTTP_X": "\udcff\u20ac"}, "headers", [(b"x", b"\xff\xe2\x82\xac")]),
    ({"HTTP_CONNECTION": "close", "HTTP_TE": "trailers", "HTTP_TRANSFER_ENCODING": "chunked"}, "headers", []),
    ({"HTTP_UPGRADE": "h2c", "HTTP_KEEP_ALIVE": "1", "HTTP_PROXY": "http://evil"}, "headers", []),
]


@pytest.mark.parametrize(("given_variables", "key", "value"), TABLE)
def test_a_key_of_the_scope(given_variables: dict[str, str], key: str, value: object) -> None:
    assert scope_of(**given_variables)[key] == value


def test_repeated_fields_are_joined_as_the_laws_join_them() -> None:
    pairs = [("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2"), ("HTTP_X", "1"), ("HTTP_X", "2")]
    assert scope_of(*pairs)["headers"] == [(b"cookie", b"a=1; b=2"), (b"x", b"1, 2")]


def test_an_extension_has_what_asgi_has_no_place_for() -> None:
    request = Request({"REQUEST_METHOD": "GET", "DOCUMENT_ROOT": "/srv"}, role="filter", protocol="fastcgi")
    assert _scope(request, {})["extensions"]["gateways"] == {
        "environ": request.environ,
        "role": "filter",
        "protocol": "fastcgi",
    }


def test_scopes_share_nothing_that_an_application_may_change() -> None:
    request, state = Request({"REQUEST_METHOD": "GET"}), {"a": 1}
    one, other = _scope(request, state), _scope(request, state)
    for scope in (one, other):
        scope["state"]["b"] = 2
        scope["headers"].append((b"a", b"b"))
        scope["asgi"]["x"] = 1
        scope["extensions"]["x"] = {}
    assert state == {"a": 1}
    assert one["extensions"] is not other["extensions"]
    assert len(one["headers"]) == len(other["headers"]) == 1


def test_names_that_clients_think_of_do_not_fill_the_memory() -> None:
    for number in range(2 * _MAX_NAMES):
        scope_of(**{f"HTTP_X_{number}": "1"})
    assert len(_HEADERS) <= _MAX_NAMES
    assert scope_of(HTTP_X_OTHER="1")["headers"] == [(b"x-other", b"1")]
    _HEADERS.clear()
    assert _remember({}, "a", "b") == "b"


# --- there and back --------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
odd_texts = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
segments = st.lists(st.one_of(texts, odd_texts, st.sampled_from(["", ".", "..", "a b", "%2F"])), max_size=4)
field_names = tokens.map(lambda name: name.upper().replace("-", "_"))


@st.composite
def environs(draw: st.DrawFn) -> dict[str, str]:
    """Requests of all kinds, as web servers send them."""
    environ = dict(
        variables(
            draw(st.sampled_from(["GET", "POST", "PURGE"])),
            "/" + "/".join(draw(segments)).replace("?", ""),
            query=draw(st.sampled_from(["", "a=1&a=2", "x=%FF&y", "ä"])),
            headers=draw(st.dictionaries(tokens, odd_texts.map(str.strip), max_size=4)),
            environ={
                "REMOTE_PORT": "4000",
                "REQUEST_SCHEME": draw(st.sampled_from(["http", "https"])),
                "SERVER_PROTOCOL": draw(st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2.0"])),
            },
        )
    )
    environ["SCRIPT_NAME"] = draw(st.sampled_from(["", "/app", "/a b/c", "/%41"]))
    return environ


#: What a scope has no place for, or an application no business with.
LOST = {"SERVER_SOFTWARE", "HTTPS"} | {
    f"HTTP_{name}"
    for name in ("CONNECTION", "KEEP_ALIVE", "PROXY_CONNECTION", "TE", "TRAILER", "TRANSFER_ENCODING", "UPGRADE")
}


@given(environs())
@example(dict(variables(environ={"SCRIPT_NAME": "/app", "PATH_INFO": "/app/app"})))
@example(dict(variables(environ={"PATH_INFO": "", "REQUEST_URI": None})))
def test_a_request_survives_the_way_through_asgi(environ: dict[str, str]) -> None:
    request = Request(environ)
    scope = _scope(request, {})
    check_scope(scope)
    back = Request(list(_variables(scope)))
    expected = {name: value for name, value in request.environ.items() if name not in LOST}
    found = {name: value for name, value in back.environ.items() if name not in LOST}
    if not expected["SCRIPT_NAME"] and not expected["PATH_INFO"]:
        expected["PATH_INFO"] = "/"
    assert found == expected
    assert (back.scheme, back.raw_path) == (request.scheme, request.raw_path)


@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("", "/x", "", "/x"),
        ("/app", "/app/x", "/app", "/x"),  # as the specification has it
        ("/app", "/x", "/app", "/x"),  # as some servers have it
        ("/app", "/application", "/app", "/application"),
        ("/app", "/app", "/app", ""),
        ("/app/", "/app/x", "/app", "/x"),
        ("/", "/x", "", "/x"),
    ],
)
def test_a_path_is_split_whether_or_not_it_has_the_root_in_it(
    root_path: str, path: str, script_name: str, path_info: str
) -> None:
    scope = {**_scope(Request({"REQUEST_METHOD": "GET"}), {}), "root_path": root_path, "path": path}
    request = Request(list(_variables(scope)))
    assert (request.script_name, request.path_info) == (script_name, path_info)


def test_a_field_whose_name_would_pass_for_another_is_dropped() -> None:
    scope = _scope(Request({"REQUEST_METHOD": "GET"}), {})
    scope["headers"] = [(b"x-user", b"me"), (b"x_user", b"root"), (b"host", b"a"), (b"proxy", b"http://evil")]
    environ = Request(list(_variables(scope))).environ
    assert {name: value for name, value in environ.items() if name.startswith("HTTP_")} == {
        "HTTP_X_USER": "me",
        "HTTP_HOST": "a",
    }


def test_only_what_a_scope_must_have_is_enough() -> None:
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    request = Request(list(_variables(scope)))
    assert (request.path, request.scheme, request.raw_path, request.remote_addr) == ("/", "http", None, None)


def test_a_server_on_a_unix_socket_has_no_name() -> None:
    scope = {**_scope(Request({"REQUEST_METHOD": "GET"}), {}), "server": ("/run/app.sock", None)}
    assert Request(list(_variables(scope))).server_name is None


async def test_through_both_adapters_and_a_protocol() -> None:
    from gateways import Response
    from gateways.asgi import from_asgi, to_asgi

    async def handler(request: Request) -> Response:
        return Response(f"{request.url} {request.query['a']} {(await request.body.read()).decode()}")

    result = await call(from_asgi(to_asgi(handler)), "POST", "/a%20b?a=%C3%A9", body=b"body")
    assert result.text == "http://localhost/a%20b?a=%C3%A9 é body"
