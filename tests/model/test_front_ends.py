"""Where the path variables of real front ends end up: what each sends in which configuration, what a handler sees.

The rows were measured on Debian 12; the requests are ``/app/a%2Fb%20c/%E2%82%AC`` and kin.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest

from gateways import RemoteProtocolError, Request
from gateways._model.environ import Rules
from tests.captures import Capture, load_web

NGINX = {"SERVER_SOFTWARE": "nginx/1.22.1"}
APACHE = {"SERVER_SOFTWARE": "Apache/2.4.71 (Debian)"}
LIGHTTPD = {"SERVER_SOFTWARE": "lighttpd/1.4.69"}
HAPROXY = {"SERVER_SOFTWARE": "HAProxy 2.6.12-1+deb12u4"}
CADDY = {"SERVER_SOFTWARE": "Caddy/2.6.2"}
H2O = {"SERVER_SOFTWARE": "h2o/2.2.5"}
MINI = {"SERVER_SOFTWARE": "mini_httpd/1.30 26Oct2018"}
BUSYBOX = {"SERVER_SOFTWARE": "busybox httpd/1.35.0"}

EURO = "/app/a/b c/€"
BELOW = "/a/b c/€"
RAW = "/app/a%2Fb%20c/%E2%82%AC"

Seen = tuple[str, str, str]  # path, script_name, path_info


@attrs.frozen
class Row:
    """``sent`` are pairs where a server repeats a variable; ``seen`` is a number where the answer is that status."""

    front_end: str
    protocol: str
    sent: Mapping[str, str] | tuple[tuple[str, str], ...]
    seen: Seen | int
    at_app: Seen | int  # the same with serve(mount="/app")


ROWS = [
    Row(
        "nginx, stock fastcgi_params",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": EURO, "DOCUMENT_URI": EURO, "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "nginx, stock fastcgi_params, the mount itself",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": "/app", "DOCUMENT_URI": "/app", "REQUEST_URI": "/app"},
        ("/app", "", "/app"),
        ("/app", "/app", ""),
    ),
    Row(
        "nginx, stock fastcgi_params, merged and resolved",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": "/app/double/x", "REQUEST_URI": "/app//double//slash/../x"},
        ("/app/double/x", "", "/app/double/x"),
        ("/app/double/x", "/app", "/double/x"),
    ),
    Row(
        "nginx, split",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": "/app", "PATH_INFO": BELOW, "DOCUMENT_URI": EURO},
        (EURO, "/app", BELOW),
        (EURO, "/app", BELOW),
    ),
    Row(
        "nginx, split, no rest",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": "/app", "PATH_INFO": "", "DOCUMENT_URI": "/app"},
        ("/app", "/app", ""),
        ("/app", "/app", ""),
    ),
    Row(
        "nginx, split, /application",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": "/app", "PATH_INFO": "lication", "DOCUMENT_URI": "/application"},
        404,
        404,
    ),
    Row(
        "nginx, SCRIPT_NAME '' and PATH_INFO on top of fastcgi_params",
        "fastcgi",
        (*NGINX.items(), ("SCRIPT_NAME", EURO), ("SCRIPT_NAME", ""), ("PATH_INFO", EURO), ("DOCUMENT_URI", EURO)),
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "nginx, stock scgi_params",
        "scgi",
        {"DOCUMENT_URI": EURO, "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "Apache, ProxyPass fcgi",
        "fastcgi",
        {**APACHE, "SCRIPT_NAME": EURO, "REQUEST_URI": RAW},
        (EURO, EURO, ""),
        (EURO, "/app", BELOW),
    ),
    Row(
        "Apache, ProxyPass scgi, trailing slash",
        "scgi",
        {**APACHE, "SCRIPT_NAME": "/app/", "REQUEST_URI": "/app/"},
        ("/app/", "/app", "/"),
        ("/app/", "/app", "/"),
    ),
    Row(
        "Apache, ProxyPass with nocanon",
        "fastcgi",
        {**APACHE, "SCRIPT_NAME": "/app//double//x", "REQUEST_URI": "/app//double//slash/../x"},
        ("/app//double//x", "/app//double//x", ""),
        ("/app//double//x", "/app", "//double//x"),
    ),
    Row(
        "Apache, SetHandler proxy:fcgi, mod_fcgid, ScriptAlias",
        "fastcgi",
        {**APACHE, "SCRIPT_NAME": "/app", "PATH_INFO": BELOW, "REQUEST_URI": RAW},
        (EURO, "/app", BELOW),
        (EURO, "/app", BELOW),
    ),
    Row(
        "Apache, SetHandler, NoDecode",
        "fastcgi",
        {**APACHE, "SCRIPT_NAME": "/app", "PATH_INFO": "/a%2Fb c/€", "REQUEST_URI": RAW},
        ("/app/a%2Fb c/€", "/app", "/a%2Fb c/€"),
        ("/app/a%2Fb c/€", "/app", "/a%2Fb c/€"),
    ),
    Row(
        "Apache, ScriptAlias, no rest",
        "cgi",
        {**APACHE, "SCRIPT_NAME": "/app", "REQUEST_URI": "/app"},
        ("/app", "/app", ""),
        ("/app", "/app", ""),
    ),
    Row(
        "Apache, RewriteRule to a cgi-script at /",
        "cgi",
        {**APACHE, "SCRIPT_NAME": "", "PATH_INFO": EURO, "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "Apache, absolute-form target",
        "fastcgi",
        {**APACHE, "SCRIPT_NAME": "/app", "PATH_INFO": "/abs", "REQUEST_URI": "http://host/app/abs?q=1"},
        ("/app/abs", "/app", "/abs"),
        ("/app/abs", "/app", "/abs"),
    ),
    Row(
        "Apache, authorizer",
        "fastcgi",
        {**APACHE, "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "lighttpd /app",
        "fastcgi",
        {**LIGHTTPD, "SCRIPT_NAME": "/app", "PATH_INFO": BELOW, "REQUEST_URI": RAW},
        (EURO, "/app", BELOW),
        (EURO, "/app", BELOW),
    ),
    Row(
        "lighttpd /app, /application",
        "fastcgi",
        {**LIGHTTPD, "SCRIPT_NAME": "/application", "REQUEST_URI": "/application"},
        ("/application", "/application", ""),
        404,
    ),
    Row(
        "lighttpd / with fix-root-scriptname",
        "scgi",
        {**LIGHTTPD, "SCRIPT_NAME": "", "PATH_INFO": EURO, "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "lighttpd / without it",
        "fastcgi",
        {**LIGHTTPD, "SCRIPT_NAME": "/app", "PATH_INFO": BELOW, "REQUEST_URI": RAW},
        (EURO, "/app", BELOW),
        (EURO, "/app", BELOW),
    ),
    Row(
        "lighttpd / without it, the root",
        "fastcgi",
        {**LIGHTTPD, "SCRIPT_NAME": "/", "REQUEST_URI": "/"},
        ("/", "", "/"),
        404,
    ),
    Row(
        "HAProxy, no path-info",
        "fastcgi",
        {**HAPROXY, "SCRIPT_NAME": EURO, "REQUEST_URI": RAW},
        (EURO, EURO, ""),
        (EURO, "/app", BELOW),
    ),
    Row(
        "HAProxy, no path-info, index appended",
        "fastcgi",
        {**HAPROXY, "SCRIPT_NAME": "/app/index.py", "REQUEST_URI": "/app/"},
        ("/app/index.py", "/app/index.py", ""),
        ("/app/index.py", "/app", "/index.py"),
    ),
    Row(
        "HAProxy, path-info, neither merged nor resolved",
        "fastcgi",
        {**HAPROXY, "SCRIPT_NAME": "/app", "PATH_INFO": "//double//slash/../x"},
        ("/app//double//slash/../x", "/app", "//double//slash/../x"),
        ("/app//double//slash/../x", "/app", "//double//slash/../x"),
    ),
    Row(
        "HAProxy, path-info, /application",
        "fastcgi",
        {**HAPROXY, "SCRIPT_NAME": "/application"},
        ("/application", "/application", ""),
        404,
    ),
    Row(
        "Caddy, no split",
        "fastcgi",
        {**CADDY, "SCRIPT_NAME": "", "PATH_INFO": EURO, "DOCUMENT_URI": "", "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "Caddy, no split, dots as they are",
        "fastcgi",
        {**CADDY, "SCRIPT_NAME": "", "PATH_INFO": "/app/../../etc/passwd", "DOCUMENT_URI": ""},
        ("/app/../../etc/passwd", "", "/app/../../etc/passwd"),
        ("/app/../../etc/passwd", "/app", "/../../etc/passwd"),
    ),
    Row(
        "Caddy, split .py and rewrite",
        "fastcgi",
        {**CADDY, "SCRIPT_NAME": "/app.py", "PATH_INFO": "/x", "DOCUMENT_URI": "/app.py"},
        ("/app.py/x", "/app.py", "/x"),
        404,
    ),
    Row(
        "Caddy, split without a match",
        "fastcgi",
        {**CADDY, "SCRIPT_NAME": EURO, "PATH_INFO": "", "DOCUMENT_URI": EURO},
        (EURO, EURO, ""),
        (EURO, "/app", BELOW),
    ),
    Row(
        "Caddy, handle_path /app*, /application",
        "fastcgi",
        {**CADDY, "SCRIPT_NAME": "/app.py", "PATH_INFO": "lication", "DOCUMENT_URI": "/app.py"},
        404,
        404,
    ),
    Row(
        "h2o, connect, whatever the mount",
        "fastcgi",
        {**H2O, "SCRIPT_NAME": "", "PATH_INFO": EURO, "REQUEST_URI": RAW},
        (EURO, "", EURO),
        (EURO, "/app", BELOW),
    ),
    Row(
        "h2o, OPTIONS *",
        "fastcgi",
        {**H2O, "SCRIPT_NAME": "", "PATH_INFO": "/*", "REQUEST_URI": "*"},
        ("/*", "", "/*"),
        404,
    ),
    Row(
        "h2o, file.custom-handler .py",
        "fastcgi",
        {**H2O, "SCRIPT_NAME": "/app.py", "PATH_INFO": "/rest"},
        ("/app.py/rest", "/app.py", "/rest"),
        404,
    ),
    Row(
        "mini_httpd",
        "cgi",
        {**MINI, "SCRIPT_NAME": "/app", "PATH_INFO": BELOW},
        (EURO, "/app", BELOW),
        (EURO, "/app", BELOW),
    ),
    Row(
        "busybox",
        "cgi",
        {**BUSYBOX, "SCRIPT_NAME": "/app", "PATH_INFO": ""},
        ("/app", "/app", ""),
        ("/app", "/app", ""),
    ),
    Row("uWSGI, /application", "cgi", {"SCRIPT_NAME": "/app", "PATH_INFO": "lication"}, 404, 404),
    Row(
        "fcgiwrap behind nginx",
        "cgi",
        {**NGINX, "SCRIPT_NAME": "/app", "DOCUMENT_URI": "/app"},
        ("/app", "/app", ""),
        ("/app", "/app", ""),
    ),
]


def seen(row: Row, mount: str | None) -> Seen | int:
    pairs = row.sent if isinstance(row.sent, tuple) else tuple(row.sent.items())
    try:
        request = Request([("REQUEST_METHOD", "GET"), *pairs], protocol=row.protocol, rules=Rules(mount=mount))
    except RemoteProtocolError as error:
        return error.status
    return request.path, request.script_name, request.path_info


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.front_end)
def test_front_end_as_it_splits_by_itself(row: Row) -> None:
    assert seen(row, None) == row.seen


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.front_end)
def test_front_end_under_a_mount(row: Row) -> None:
    assert seen(row, "/app") == row.at_app


# --- the rows of header fields and lengths


@pytest.mark.parametrize(
    ("front_end", "sent", "seen"),
    [
        ("nginx repeats", [("HTTP_X", "1"), ("HTTP_X", "2")], {"HTTP_X": "1, 2"}),
        ("Apache joins", [("HTTP_X", "1, 2")], {"HTTP_X": "1, 2"}),
        ("nginx repeats cookies", [("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
        ("Apache and Caddy join cookies wrongly", [("HTTP_COOKIE", "a=1, b=2")], {"HTTP_COOKIE": "a=1, b=2"}),
        ("h2o joins cookies without a space", [("HTTP_COOKIE", "a=1;b=2")], {"HTTP_COOKIE": "a=1;b=2"}),
        ("h2o repeats the type", [("CONTENT_TYPE", "a/b"), ("CONTENT_TYPE", "c/d")], {"CONTENT_TYPE": "c/d"}),
        ("Caddy sends empty names of hosts", [("REMOTE_HOST", ""), ("REMOTE_IDENT", ""), ("AUTH_TYPE", "")], {}),
        ("nginx sends an empty type and length", [("CONTENT_TYPE", ""), ("CONTENT_LENGTH", "")], {}),
        ("nginx and Caddy pass Proxy:", [("HTTP_PROXY", "http://evil/")], {}),
        ("uWSGI keeps a folded line", [("HTTP_X", "a\r\n b")], {"HTTP_X": "a\r\n b"}),
        ("Caddy's chunked upload", [("CONTENT_LENGTH", "-1")], {}),
        ("Apache streams", [("HTTP_TRANSFER_ENCODING", "chunked")], {"HTTP_TRANSFER_ENCODING": "chunked"}),
        ("an empty header", [("HTTP_X", "")], {}),
    ],
)
def test_front_end_header_fields_and_lengths(front_end: str, sent: list[tuple[str, str]], seen: dict[str, str]) -> None:
    request = Request([("REQUEST_METHOD", "GET"), *sent], protocol="fastcgi")
    added = {"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "GATEWAY_INTERFACE"}
    assert {name: value for name, value in request.environ.items() if name not in added} == seen


# --- the captures themselves

#: (front end, request) of captures that end in a refusal, and with what status and why.
REFUSALS = {
    ("caddy", "path-prefix-only"): (404, "handle_path /app* takes /application and cuts it in a word"),
    ("h2o", "path-nul"): (400, "%00 arrives as a NUL"),
    ("haproxy", "path-nul"): (400, "%00 arrives as a NUL, or PARAMS break off before it"),
    ("haproxy", "nul-in-header"): (400, "a NUL in a header field is passed on"),
    ("haproxy", "path-bad-escape"): (400, "aborted before the end of PARAMS"),
    ("haproxy", "options-star"): (400, "aborted before the end of PARAMS"),
    ("nginx", "get-path-query"): (400, "a configuration without any fastcgi_params"),
}

CAPTURES = [capture for capture in load_web() if capture.params is not None]


def request_of(capture: Capture) -> Request:
    pairs = [(decode(name), decode(value)) for name, value in capture.params or ()]
    return Request(pairs, protocol={"fcgi": "fastcgi"}.get(capture.protocol, capture.protocol))


def decode(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def test_every_capture_is_a_request_by_the_laws_or_a_known_refusal() -> None:
    refused: dict[tuple[str, str], int] = {}
    for capture in CAPTURES:
        key = (capture.front_end, capture.request)
        try:
            request = request_of(capture)
        except RemoteProtocolError as error:
            refused[key] = error.status
            continue
        assert request.path == request.script_name + request.path_info, capture.id
        assert not request.script_name.endswith("/"), capture.id
        assert "HTTP_PROXY" not in request.environ, capture.id
        assert "REMOTE_USER" not in request.environ or capture.front_end not in ("nginx", "haproxy"), capture.id
        assert Request(request.environ, protocol=request.protocol) == request, capture.id
    assert refused == {key: status for key, (status, _) in REFUSALS.items()}


@pytest.mark.parametrize("name", ["get-encoded", "get-app", "get-app-slash", "get-slashes-dotdot", "get-path-query"])
def test_one_application_at_app_sees_one_path_behind_every_front_end(name: str) -> None:
    """What each makes of a path, once it is split by the mount: told apart by whether it merges and resolves."""
    below: dict[str, set[str]] = {}
    for capture in CAPTURES:
        known = (capture.front_end, capture.request) in REFUSALS and capture.config == "fcgi-bare"
        if capture.request == name and capture.mount == "/app" and not known:
            request = request_of(capture)
            inner = Request(request.environ, protocol=request.protocol, rules=Rules(mount=""))
            if (mounted := inner.mounted("/app")) is not None:
                below.setdefault(mounted.path_info, set()).add(capture.front_end)
    expected = {
        "get-encoded": {BELOW, "/a%2Fb c/€"},
        "get-app": {""},
        "get-app-slash": {"/", "/index.py"},
        "get-path-query": {"/a/b"},
        "get-slashes-dotdot": {"/double/x", "//double//slash/../x", "//double//x"},
    }
    assert below.keys() <= expected[name]
    assert {"nginx", "apache", "lighttpd"} <= set().union(*below.values())
