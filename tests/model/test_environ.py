"""The laws of the CGI environment, one test or more each."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import LimitExceeded, RemoteProtocolError
from gateways._model.environ import (
    Rules,
    build,
    check_mount,
    is_http,
    parse_length,
    quote,
    raw_path,
    scgi_length,
    scheme,
    unquote,
)
from tests.model.strategies import any_pairs, paths, protocols, wire_text

Pairs = list[tuple[str, str]]

AUTO = Rules()
NONE = Rules(quirks="none")


def built(*pairs: tuple[str, str], protocol: str = "fastcgi", rules: Rules = AUTO, **variables: str) -> dict[str, str]:
    """The environ that a GET with these variables ends in."""
    return build([("REQUEST_METHOD", "GET"), *variables.items(), *pairs], protocol, rules)[0]


def split(*pairs: tuple[str, str], rules: Rules = AUTO, **variables: str) -> tuple[str, str, str]:
    """(path, script_name, path_info)."""
    environ, path, _ = build([("REQUEST_METHOD", "GET"), *pairs, *variables.items()], "fastcgi", rules)
    return path, environ["SCRIPT_NAME"], environ["PATH_INFO"]


def refused(*pairs: tuple[str, str], protocol: str = "fastcgi", rules: Rules = AUTO, **variables: str) -> int:
    """The status that answers variables which no request can be built from."""
    with pytest.raises(RemoteProtocolError) as caught:
        built(*pairs, *variables.items(), protocol=protocol, rules=rules)
    return caught.value.status


# --- text


@pytest.mark.parametrize(("name", "value"), [("A\0B", "x"), ("A", "x\0y"), ("HTTP_PROXY", "\0"), ("\0", "")])
def test_law_text_a_NUL_in_a_name_or_value_is_400(name: str, value: str) -> None:
    assert refused((name, value)) == 400


def test_law_text_a_NUL_in_a_repeat_that_a_later_one_overrules_is_400() -> None:
    assert refused(("SCRIPT_NAME", "/a\0"), ("SCRIPT_NAME", "/b")) == 400


def test_law_text_a_NUL_that_decoding_brings_out_is_400() -> None:
    assert refused(REQUEST_URI="/a%00b") == 400


def test_law_text_values_are_kept_to_the_byte() -> None:
    every_byte = bytes(range(1, 256)).decode("utf-8", "surrogateescape")
    assert built(HTTP_X=every_byte)["HTTP_X"].encode("utf-8", "surrogateescape") == bytes(range(1, 256))


def test_law_text_nothing_is_decoded_twice() -> None:
    assert split(PATH_INFO="/%2541", SCRIPT_NAME="") == ("/%2541", "", "/%2541")
    assert split(REQUEST_URI="/%2541") == ("/%41", "", "/%41")


def test_the_environ_holds_no_empty_value_but_three() -> None:
    environ = built(CONTENT_TYPE="", REMOTE_USER="", HTTP_X="", SERVER_SOFTWARE="", QUERY_STRING="")
    assert {name for name, value in environ.items() if not value} == {"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"}


def test_script_name_path_info_and_query_string_are_always_there() -> None:
    environ = built()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("", "", "")


def test_gateway_interface_is_filled_in_where_it_was_not_sent() -> None:
    assert built()["GATEWAY_INTERFACE"] == "CGI/1.1"
    assert built(GATEWAY_INTERFACE="CGI/2.13")["GATEWAY_INTERFACE"] == "CGI/2.13"


@pytest.mark.parametrize("name", ["A=B", "A\nB", "A\x7f", "\x01"])
def test_a_name_that_no_process_environment_can_hold_is_400(name: str) -> None:
    assert refused((name, "x")) == 400


@pytest.mark.parametrize("name", ["proxy-fcgi-pathinfo", "HTTP_X.Y!", "Authorization", "\u00a0", "HTTP_\udcff"])
def test_an_odd_name_is_kept(name: str) -> None:
    assert built((name, "x"))[name] == "x"


def test_an_empty_name_is_dropped() -> None:
    assert "" not in built(("", "x"), ("", "y"))


# --- paths


@pytest.mark.parametrize(
    ("script", "info", "expected"),
    [
        ("", "", ("", "", "")),
        ("", "/", ("/", "", "/")),
        ("/app", "", ("/app", "/app", "")),
        ("/app", "/", ("/app/", "/app", "/")),
        ("/app", "/x", ("/app/x", "/app", "/x")),
        ("/app/", "", ("/app/", "/app", "/")),
        ("/app/", "/x", ("/app//x", "/app", "//x")),
        ("/app/", "x", ("/app/x", "/app", "/x")),
        ("/app//", "", ("/app//", "/app", "//")),
        ("/", "", ("/", "", "/")),
        ("//", "", ("//", "", "//")),
        ("", "//a/../b/./c/", ("//a/../b/./c/", "", "//a/../b/./c/")),
    ],
)
def test_law_paths_script_name_never_ends_in_a_slash_and_nothing_is_lost(
    script: str, info: str, expected: tuple[str, str, str]
) -> None:
    assert split(rules=NONE, SCRIPT_NAME=script, PATH_INFO=info) == expected


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"SCRIPT_NAME": "/s", "PATH_INFO": "/p", "DOCUMENT_URI": "/d", "REQUEST_URI": "/r"}, "/s/p"),
        ({"DOCUMENT_URI": "/d%41", "REQUEST_URI": "/r"}, "/d%41"),
        ({"SCRIPT_NAME": "", "PATH_INFO": "", "DOCUMENT_URI": "/d"}, "/d"),
        ({"REQUEST_URI": "/r%41?q=/x%41"}, "/rA"),
        ({"REQUEST_URI": "/r%E2%82%AC%FF"}, "/r€\udcff"),
        ({"REQUEST_URI": "http://host:80/r?q"}, "/r"),
        ({"REQUEST_URI": "http://host"}, "/"),
        ({"REQUEST_URI": "/r?u=http://host/x"}, "/r"),
        ({"REQUEST_URI": ""}, ""),
        ({}, ""),
    ],
)
def test_law_paths_where_the_path_comes_from(variables: dict[str, str], path: str) -> None:
    assert split(*variables.items(), rules=NONE)[0] == path


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a%2Fb?x", "/a%2Fb"),
        ("http://host/app/abs?q=1", "/app/abs"),
        ("http://host", "/"),
        ("http://host?q", "/"),
        ("//host/x", "//host/x"),
        ("*", "*"),
        ("", None),
        (None, None),
    ],
)
def test_law_paths_raw_path_is_that_of_the_request_uri(uri: str | None, expected: str | None) -> None:
    assert raw_path({} if uri is None else {"REQUEST_URI": uri}) == expected


@pytest.mark.parametrize(
    ("variables", "mount", "expected"),
    [
        ({"SCRIPT_NAME": "/app/x"}, "/app", ("/app/x", "/app", "/x")),
        ({"SCRIPT_NAME": "/app"}, "/app", ("/app", "/app", "")),
        ({"SCRIPT_NAME": "/app/"}, "/app/", ("/app/", "/app", "/")),
        ({"PATH_INFO": "/app/x"}, "/app", ("/app/x", "/app", "/x")),
        ({"SCRIPT_NAME": "/a", "PATH_INFO": "/b/c"}, "/a/b", ("/a/b/c", "/a/b", "/c")),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "/", ("/app/x", "", "/app/x")),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "", ("/app/x", "", "/app/x")),
        ({"SCRIPT_NAME": "/Ⱥ€", "PATH_INFO": "/x"}, "/Ⱥ€", ("/Ⱥ€/x", "/Ⱥ€", "/x")),
        ({"SCRIPT_NAME": "/app/", "PATH_INFO": "x"}, "/app", ("/app/x", "/app", "/x")),
        ({}, "/", ("", "", "")),
    ],
)
def test_law_paths_a_mount_splits_the_path_anew(
    variables: dict[str, str], mount: str, expected: tuple[str, str, str]
) -> None:
    assert split(*variables.items(), rules=Rules(mount=mount, quirks="none")) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"SCRIPT_NAME": "/application"},
        {"SCRIPT_NAME": "/app", "PATH_INFO": "lication"},
        {"PATH_INFO": "/other"},
        {"PATH_INFO": "/APP"},
        {"PATH_INFO": "app/x"},
        {},
    ],
)
def test_law_paths_what_is_not_below_the_mount_on_a_segment_boundary_is_404(variables: dict[str, str]) -> None:
    assert refused(*variables.items(), rules=Rules(mount="/app")) == 404


@pytest.mark.parametrize("variables", [{"SCRIPT_NAME": "/app", "PATH_INFO": "lication"}, {"PATH_INFO": "lication"}])
def test_law_paths_a_path_info_without_its_slash_over_http_is_404(variables: dict[str, str]) -> None:
    assert refused(*variables.items()) == 404


@pytest.mark.parametrize("mount", ["app", "a/b", " /app"])
def test_law_paths_a_mount_begins_with_a_slash(mount: str) -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        Rules(mount=mount)


@pytest.mark.parametrize(("mount", "expected"), [("", ""), ("/", ""), ("/a", "/a"), ("/a/", "/a"), ("/a/b", "/a/b")])
def test_law_paths_a_mount_has_one_form(mount: str, expected: str) -> None:
    assert check_mount(mount) == expected


def test_small_web_servers_leave_out_the_leading_slash() -> None:
    assert split(SERVER_PROTOCOL="GEMINI", SCRIPT_NAME="app", PATH_INFO="x/y") == ("/app/x/y", "/app", "/x/y")


@given(wire_text)
def test_unquote_undoes_quote(text: str) -> None:
    quoted = quote(text)
    assert unquote(quoted) == text
    assert quoted.isascii()


@pytest.mark.parametrize(
    ("quoted", "text"),
    [
        ("%41%2f%2F", "A//"),
        ("100%", "100%"),
        ("%4", "%4"),
        ("%zz%+1% 1%1_", "%zz%+1% 1%1_"),
        ("%%41", "%A"),
        ("%E2%82%AC", "€"),
        ("€%FF", "€\udcff"),
        ("a+b", "a+b"),
    ],
)
def test_unquote_decodes_once_and_leaves_what_is_no_escape(quoted: str, text: str) -> None:
    assert unquote(quoted) == text


# --- numbers


@pytest.mark.parametrize("value", ["0", "5", "007", "9" * 19])
def test_law_numbers_a_length_is_ascii_digits(value: str) -> None:
    assert built(CONTENT_LENGTH=value)["CONTENT_LENGTH"] == value
    assert parse_length(value) == int(value)


@pytest.mark.parametrize("value", ["+3", " 3", "3 ", "1_0", "٣", "1e3", "5, 5", "-5", "0x10", "3x"])
@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "cgi"])
def test_law_numbers_anything_else_is_400(value: str, protocol: str) -> None:
    assert refused(CONTENT_LENGTH=value, protocol=protocol) == 400


def test_law_numbers_a_length_beyond_all_lengths_is_413() -> None:
    with pytest.raises(LimitExceeded, match="20 digits") as caught:
        built(CONTENT_LENGTH="1" * 20)
    assert caught.value.status == 413


def test_law_numbers_an_empty_length_is_absent() -> None:
    assert "CONTENT_LENGTH" not in built(CONTENT_LENGTH="")


def test_law_numbers_minus_one_over_fastcgi_is_an_unknown_length() -> None:
    assert "CONTENT_LENGTH" not in built(CONTENT_LENGTH="-1")


@pytest.mark.parametrize("protocol", ["scgi", "cgi", "http"])
def test_law_numbers_minus_one_elsewhere_is_400(protocol: str) -> None:
    assert refused(CONTENT_LENGTH="-1", protocol=protocol) == 400


@pytest.mark.parametrize("values", [("5", "6"), ("5", "05"), ("5", "x"), ("-1", "5")])
def test_law_numbers_two_lengths_that_differ_are_400(values: tuple[str, str]) -> None:
    pairs = [("CONTENT_LENGTH", value) for value in values]
    assert refused(*pairs) == 400
    with pytest.raises(RemoteProtocolError, match="CONTENT_LENGTH is both"):
        scgi_length(pairs)


@pytest.mark.parametrize("values", [("5", "5"), ("5", ""), ("", "5"), ("", "5", "5")])
def test_law_numbers_repeats_that_agree_are_one_length(values: tuple[str, ...]) -> None:
    pairs = [("CONTENT_LENGTH", value) for value in values]
    assert built(*pairs)["CONTENT_LENGTH"] == "5"
    assert scgi_length(pairs) == 5


def test_law_numbers_repeats_that_say_nothing_are_absent() -> None:
    assert "CONTENT_LENGTH" not in built(("CONTENT_LENGTH", ""), ("CONTENT_LENGTH", ""))


@pytest.mark.parametrize(
    ("pairs", "length"),
    [
        ([], 0),
        ([("CONTENT_LENGTH", "")], 0),
        ([("CONTENT_LENGTH", "27")], 27),
        ([("CONTENT_LENGTH", "0"), ("HTTP_CONTENT_LENGTH", "18")], 18),
        ([("CONTENT_LENGTH", "18"), ("HTTP_CONTENT_LENGTH", "0")], 18),
        ([("CONTENT_LENGTH", "0"), ("HTTP_CONTENT_LENGTH", "18"), ("SERVER_SOFTWARE", "lighttpd/1.4.69")], 0),
        ([("CONTENT_LENGTH", "0"), ("HTTP_CONTENT_LENGTH", "x")], 0),
        ([("CONTENT_LENGTH", "0"), ("HTTP_CONTENT_LENGTH", "1" * 20)], 0),
    ],
)
def test_law_numbers_the_body_of_an_scgi_request(pairs: Pairs, length: int) -> None:
    assert scgi_length(pairs) == length


@pytest.mark.parametrize(("value", "status"), [("x", 400), ("-1", 400), ("1" * 20, 413)])
def test_law_numbers_an_scgi_length_that_is_none(value: str, status: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        scgi_length([("CONTENT_LENGTH", value)])
    assert caught.value.status == status


def test_law_numbers_the_http_copies_leave_the_environ() -> None:
    environ = built(
        CONTENT_LENGTH="5", HTTP_CONTENT_LENGTH="5", CONTENT_TYPE="a/b", HTTP_CONTENT_TYPE="c/d", protocol="cgi"
    )
    assert (environ["CONTENT_LENGTH"], environ["CONTENT_TYPE"]) == ("5", "a/b")
    assert not {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"} & environ.keys()


# --- duplicates


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("HTTP_ACCEPT", ("a", "b"), "a, b"),
        ("HTTP_COOKIE", ("a=1", "b=2"), "a=1; b=2"),
        ("HTTP_ACCEPT", ("a", "", "b"), "a, b"),
        ("HTTP_HOST", ("a", "b"), "b"),
        ("HTTP_AUTHORIZATION", ("a", "b"), "b"),
        ("HTTP_REFERER", ("a", "b"), "b"),
        ("HTTP_USER_AGENT", ("a", "b"), "b"),
        ("SCRIPT_NAME", ("/app", ""), ""),
        ("CONTENT_TYPE", ("a/b", "c/d"), "c/d"),
        ("SERVER_NAME", ("a", "b"), "b"),
    ],
)
def test_law_duplicates(name: str, values: tuple[str, ...], expected: str) -> None:
    assert built(*[(name, value) for value in values])[name] == expected


def slow_merge(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The law of duplicates, one pair at a time: slow and plain, to hold the quick one to."""
    merged: dict[str, str] = {}
    for name, value in pairs:
        adds_up = name.startswith("HTTP_") and name not in (
            "HTTP_HOST",
            "HTTP_AUTHORIZATION",
            "HTTP_REFERER",
            "HTTP_USER_AGENT",
        )
        if name in merged and adds_up and merged[name] and value:
            merged[name] += ("; " if name == "HTTP_COOKIE" else ", ") + value
        elif name in merged and adds_up:
            merged[name] = merged[name] or value
        else:
            merged[name] = value
    return {name: value for name, value in merged.items() if name and value}


_REPEATED_NAMES = st.sampled_from(
    [
        "",
        "HTTP_",
        "HTTP_A",
        "HTTP_COOKIE",
        "HTTP_HOST",
        "HTTP_AUTHORIZATION",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
        "HTTPX",
    ]
)
_FEW_VALUES = st.sampled_from(["", "a", "b", ", ", "€"])


@given(st.lists(st.tuples(_REPEATED_NAMES, _FEW_VALUES)))
def test_law_duplicates_agrees_with_the_slow_way(pairs: Pairs) -> None:
    environ = built(*pairs, rules=NONE)
    ours = slow_merge(pairs)
    assert {name: environ[name] for name in environ if name.startswith("HTTP")} == ours


# --- method


@pytest.mark.parametrize("method", ["GET", "get", "FROBNICATE", "M-SEARCH", "M" * 1024])
def test_law_method_is_any_token(method: str) -> None:
    assert built(("REQUEST_METHOD", method))["REQUEST_METHOD"] == method


@pytest.mark.parametrize("method", ["", "GET X", "GET\n", "É", "M" * 1025])
def test_law_method_anything_else_is_400_over_http(method: str) -> None:
    assert refused(("REQUEST_METHOD", method)) == 400


@pytest.mark.parametrize("pairs", [[], [("REQUEST_METHOD", "")]])
@pytest.mark.parametrize(
    ("protocol", "method"), [("GEMINI", "GET"), ("SPARTAN", "GET"), ("TITAN", "GET"), ("HTTP/1.1", None), ("", None)]
)
def test_law_method_missing_is_GET_but_over_http(pairs: Pairs, protocol: str, method: str | None) -> None:
    if method is None:
        with pytest.raises(RemoteProtocolError, match="no REQUEST_METHOD"):
            build([*pairs, ("SERVER_PROTOCOL", protocol)], "scgi", AUTO)
    else:
        assert build([*pairs, ("SERVER_PROTOCOL", protocol)], "scgi", AUTO)[0]["REQUEST_METHOD"] == method


# --- trust


def test_law_trust_http_proxy_never_reaches_a_handler() -> None:
    assert "HTTP_PROXY" not in built(("HTTP_PROXY", "evil"), ("HTTP_PROXY", "worse"))


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({"SERVER_SOFTWARE": "nginx/1.22.1"}, False),
        ({"SERVER_SOFTWARE": "HAProxy 2.6.12-1+deb12u4"}, False),
        ({"DOCUMENT_URI": "/"}, False),  # nginx with its stock scgi_params
        ({"SERVER_SOFTWARE": "Apache/2.4.71 (Debian)"}, True),
        ({"SERVER_SOFTWARE": "Caddy/2.6.2", "DOCUMENT_URI": "/"}, True),
        ({}, True),
    ],
)
def test_law_trust_a_user_from_unverified_credentials_is_not_passed(variables: dict[str, str], kept: bool) -> None:
    sent = [("REMOTE_USER", "m"), ("AUTH_TYPE", "Basic"), *variables.items()]
    both = {"REMOTE_USER", "AUTH_TYPE"}
    assert both & built(*sent).keys() == (both if kept else set())
    assert both <= built(*sent, rules=Rules(trust_remote_user=True)).keys()


FORWARDED = {
    "REMOTE_ADDR": "10.0.0.1",
    "REMOTE_PORT": "4711",
    "HTTP_X_FORWARDED_FOR": "1.2.3.4, 2001:db8::1 ",
    "HTTP_X_FORWARDED_PROTO": " HTTPS",
}


def test_law_trust_forwarded_fields_mean_nothing() -> None:
    environ = built(*FORWARDED.items())
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"], scheme(environ)) == ("10.0.0.1", "4711", "http")


def test_law_trust_forwarded_fields_mean_something_on_request() -> None:
    environ = built(*FORWARDED.items(), rules=Rules(trust_forwarded=True))
    assert environ["REMOTE_ADDR"] == "2001:db8::1"  # the last one: the proxy's own word
    assert "REMOTE_PORT" not in environ
    assert scheme(environ) == "https"


def test_law_trust_a_proxy_that_spoke_http_with_the_client() -> None:
    environ = built(HTTPS="on", HTTP_X_FORWARDED_PROTO="http", rules=Rules(trust_forwarded=True))
    assert scheme(environ) == "http"


@pytest.mark.parametrize("proto", ["", "ftp", "javascript"])
def test_law_trust_forwarded_fields_that_say_nothing_change_nothing(proto: str) -> None:
    environ = built(REMOTE_ADDR="10.0.0.1", HTTPS="on", HTTP_X_FORWARDED_PROTO=proto, rules=Rules(trust_forwarded=True))
    assert (environ["REMOTE_ADDR"], scheme(environ)) == ("10.0.0.1", "https")


# --- protocol and scheme


@pytest.mark.parametrize(
    ("protocol", "http"),
    [
        ("HTTP/1.1", True),
        ("http/1.0", True),
        ("HTTP/2.0", True),
        ("INCLUDED", True),
        ("", True),
        (None, True),
        ("/1.1", True),
        ("no token/1", True),
        ("GEMINI", False),
        ("SPARTAN", False),
        ("TITAN", False),
        ("gopher/1.0", False),
    ],
)
def test_law_protocol_what_is_http(protocol: str | None, http: bool) -> None:
    assert is_http({} if protocol is None else {"SERVER_PROTOCOL": protocol}) is http


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "http"),
        ({"SERVER_PROTOCOL": "INCLUDED"}, "http"),
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "ON"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTPS": "yes"}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"REQUEST_SCHEME": "ftp"}, "http"),
        ({"HTTPS": "off", "REQUEST_SCHEME": "http"}, "http"),
        ({"SERVER_PROTOCOL": "GEMINI", "HTTPS": "on"}, "gemini"),
        ({"SERVER_PROTOCOL": "Spartan/1"}, "spartan"),
        ({"SERVER_PROTOCOL": "TITAN"}, "titan"),
        ({"SERVER_PROTOCOL": "/1.1"}, "http"),
    ],
)
def test_law_scheme(variables: dict[str, str], expected: str) -> None:
    assert scheme(built(*variables.items())) == expected


# --- all of them


ANY_RULES = st.builds(
    Rules,
    quirks=st.sampled_from(["auto", "none", ("auto", "authorization")]),
    mount=st.sampled_from([None, "", "/", "/app"]),
    trust_remote_user=st.booleans(),
    trust_forwarded=st.booleans(),
)


@given(any_pairs, protocols, ANY_RULES)
@settings(deadline=None, max_examples=300)
def test_any_variables_are_a_request_by_all_laws_or_a_refusal(pairs: Pairs, protocol: str, rules: Rules) -> None:
    try:
        environ, path, notes = build(pairs, protocol, rules)
    except RemoteProtocolError as error:
        status = error.status
    else:
        status = 200
        check_laws(environ, path, protocol, rules)
        assert set(notes) <= set(rules.repairs)
    assert status == 200 or 400 <= status <= 499


@given(paths, paths, paths, ANY_RULES, protocols)
@settings(deadline=None, max_examples=300)
def test_any_paths_are_split_by_all_laws_or_refused(
    script: str, info: str, uri: str, rules: Rules, protocol: str
) -> None:
    pairs = [("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", script), ("PATH_INFO", info), ("REQUEST_URI", uri)]
    try:
        environ, path, _ = build(pairs, protocol, rules)
    except RemoteProtocolError as error:
        status = error.status
    else:
        status = 200
        check_laws(environ, path, protocol, rules)
        assert path == script + info or script == "/" or not script + info
    assert status in (200, 400, 404)


def check_laws(environ: dict[str, str], path: str, protocol: str, rules: Rules) -> None:
    """What holds of every environ, whatever was sent."""
    script, info = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    assert path == script + info
    assert not script or (script.startswith("/") and not script.endswith("/"))
    assert not info or info.startswith("/")
    assert rules.mount is None or script == rules.mount
    assert {name for name, value in environ.items() if not value} <= {"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"}
    assert not environ.keys() & {"", "HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"}
    assert not any("\0" in name or "\0" in value for name, value in environ.items())
    assert environ["REQUEST_METHOD"]
    assert environ.get("CONTENT_LENGTH", "0").isdigit()
    assert scheme(environ)
    # An environ that has been through the laws comes through them unchanged, with nothing left to repair.
    again, same_path, notes = build(list(environ.items()), protocol, rules)
    assert (again, same_path, notes) == (environ, path, ())
