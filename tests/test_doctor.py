"""The doctor: what it says of what real web servers sent, what it says in the log, and the page that shows it."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways import Limits, Request, Response, URLMap, doctor
from gateways._model.advice import _TEXTS, unseen
from gateways._model.handler import drive
from gateways._net.serving import EXAMINED
from gateways.doctor import SEVERITIES, Advice, examine
from tests.captures import load_small_web, load_web
from tests.captures.decoding import PROTOCOLS, decode, pairs
from tests.net.tools import FASTCGI, SCGI, running, variables

#: Configuration -> what its captures are told, whatever the requests. All others are told nothing of this kind.
OF_THE_CONFIGURATION = {
    "apache.fcgi-proxypass": {"whole-path", "proxy-filename"},
    "apache.fcgi-proxypass-noslash": {"whole-path", "proxy-filename"},
    "apache.fcgi-proxypass-root": {"whole-path", "proxy-filename"},
    "apache.fcgi-nocanon": {"whole-path", "proxy-filename"},
    "apache.fcgi-generic": {"whole-path"},
    "apache.fcgi-pathinfo-var": {"proxy-filename"},
    "apache.fcgi-sethandler": {"proxy-filename"},
    "apache.fcgi-sethandler-file": {"proxy-filename"},
    "apache.fcgi-auth": {"whole-path", "proxy-filename"},
    "apache.fcgi-tls": {"whole-path", "proxy-filename"},
    "apache.fcgi-unix": {"whole-path", "proxy-filename"},
    "apache.scgi-proxypass": {"whole-path", "proxy-filename"},
    "apache.scgi-root": {"whole-path", "proxy-filename"},
    "apache.scgi-sethandler": {"proxy-filename"},
    "apache.scgi-tls": {"whole-path", "proxy-filename"},
    # handle_path /app*, asked for /application
    "caddy.fcgi-handlepath": {"split"},
    # split .py, which no path holds
    "caddy.fcgi-tls": {"whole-path"},
    "haproxy.fcgi-root": {"whole-path"},
    "haproxy.fcgi-tls": {"whole-path"},
    # path-info does not match "/"
    "haproxy.fcgi-mpx": {"root-script-name"},
    # mini_httpd never says it
    "mini-httpd.cgi": {"request-uri"},
    "nginx.fcgi-root": {"nginx-root", "host-port"},
    "nginx.fcgi-split": {"script-filename", "host-port"},
    "nginx.fcgi-pathinfo": {"server-name", "host-port"},
    "nginx.fcgi-keepalive": {"nginx-root", "host-port"},
    "nginx.fcgi-raw": {"nginx-root", "host-port"},
    "nginx.fcgi-tls": {"nginx-root", "script-filename", "host-port"},
    "nginx.fcgi-ext-auth": {"script-filename", "host-port", "remote-user"},
    "nginx.fcgi-authreq": {"nginx-root", "host-port"},
    "nginx.fcgi-bare": {"no-variables"},
    "nginx.scgi-root": {"nginx-root", "host-port"},
    "nginx.scgi-prefix": {"host-port", "nginx-scgi-length"},
    "nginx.scgi-tls": {"nginx-root", "host-port"},
}

#: What is said of requests that a client wrote on purpose, from the machine of the web server.
OF_THE_REQUEST = {"forwarded", "forwarded-proto", "proxy-header", "header-twice"}

#: Configurations that are as they should be: no request of theirs may look wrong.
RECOMMENDED = (
    "nginx.fcgi-pathinfo",
    "apache.fcgi-sethandler",
    "apache.fcgid",
    "apache.cgid",
    "apache.cgid-rewrite",
    "apache-prefork.cgi",
    "lighttpd.fcgi-prefix",
    "lighttpd.fcgi-root-fix",
    "lighttpd.fcgi-spawn",
    "lighttpd.scgi-root-fix",
    "lighttpd.cgi",
    "caddy.fcgi-root",
    "haproxy.fcgi-prefix",
    "h2o.fcgi-root",
    "busybox.cgi",
)


def names(advice: list[Advice]) -> set[str]:
    return {each.name for each in advice}


def of_captures() -> dict[str, list[Advice]]:
    """What is said of all captures of each configuration, those of authorizers included."""
    found: dict[str, list[Advice]] = defaultdict(list)
    for capture in load_web():
        for arrived in decode(capture):
            found[f"{capture.front_end}.{capture.config}"] += examine(
                arrived.environ, protocol=PROTOCOLS[capture.protocol], role=arrived.role
            )
    return found


def test_D12_what_is_said_of_real_web_servers_is_what_is_listed() -> None:
    found = {configuration: names(advice) - OF_THE_REQUEST for configuration, advice in of_captures().items()}
    assert {configuration: said for configuration, said in found.items() if said} == OF_THE_CONFIGURATION


def test_nothing_is_wrong_with_the_recommended_configurations() -> None:
    found = of_captures()
    for configuration in RECOMMENDED:
        said = names([each for each in found[configuration] if each.severity != "hint"])
        assert said <= OF_THE_REQUEST, configuration


def test_with_the_mount_told_nothing_is_said_of_paths() -> None:
    about_paths = {"whole-path", "nginx-root", "root-script-name", "split", "no-path"}
    for capture in load_web():
        for arrived in decode(capture):
            advice = examine(arrived.environ, protocol=PROTOCOLS[capture.protocol], role=arrived.role, mount="/app")
            assert not names(advice) & about_paths


def test_nothing_is_wrong_with_small_web_servers() -> None:
    for capture in load_small_web():
        if capture.env and capture.backend_protocol != "cgi":  # Gopher servers run scripts with less than CGI demands
            advice = examine(pairs(capture.env), protocol=capture.backend_protocol)
            assert {each.severity for each in advice} <= {"hint"}, capture.id


# --- each advice

NGINX = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/x",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/x",
    "DOCUMENT_URI": "/x",
    "REMOTE_ADDR": "192.0.2.7",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "nginx/1.22.1",
    "SERVER_NAME": "gateways.test",
    "SERVER_PORT": "80",
    "HTTP_HOST": "gateways.test",
}
APACHE = NGINX | {"SERVER_SOFTWARE": "Apache/2.4.71 (Debian)", "SCRIPT_FILENAME": "proxy:fcgi://127.0.0.1:4000/srv/x"}
HAPROXY = NGINX | {"SERVER_SOFTWARE": "HAProxy 2.6.12"}
LOCAL = {"REMOTE_ADDR": "127.0.0.1"}


def but(environ: Mapping[str, str], *without: str, **changed: str) -> list[tuple[str, str]]:
    """The variables with others in them, and without some."""
    return [(name, value) for name, value in {**environ, **changed}.items() if name not in without]


CASES: list[tuple[str, list[tuple[str, str]], dict[str, Any], str]] = [
    ("no-variables", but(NGINX, "REQUEST_METHOD"), {}, "include fastcgi_params;"),
    ("no-variables", [("HTTP_HOST", "x")], {"protocol": "scgi"}, "include scgi_params;"),
    ("content-length", but(NGINX, CONTENT_LENGTH="+5"), {}, "CONTENT_LENGTH"),
    ("content-length", but(NGINX, CONTENT_LENGTH="5, 5"), {}, "CONTENT_LENGTH"),
    ("content-length", but(NGINX, CONTENT_LENGTH="-1"), {"protocol": "scgi"}, "CONTENT_LENGTH"),
    ("content-length", [*NGINX.items(), ("CONTENT_LENGTH", "5"), ("CONTENT_LENGTH", "6")], {}, "CONTENT_LENGTH"),
    ("split", but(NGINX, SCRIPT_NAME="/app", PATH_INFO="lication"), {}, "--mount /app"),
    ("nginx-root", but(NGINX, "PATH_INFO"), {}, "fastcgi_param PATH_INFO $fastcgi_script_name;"),
    ("nginx-root", but(NGINX, "PATH_INFO"), {"protocol": "scgi"}, "scgi_param PATH_INFO $document_uri;"),
    ("no-path", but(HAPROXY, "SCRIPT_NAME", "PATH_INFO", "DOCUMENT_URI"), {}, "SCRIPT_NAME and PATH_INFO"),
    ("whole-path", but(APACHE, "PATH_INFO", SCRIPT_NAME="/app/x"), {}, "--mount"),
    ("whole-path", but(HAPROXY, "PATH_INFO", SCRIPT_NAME="/app/x"), {}, "--mount"),
    ("root-script-name", but(NGINX, SCRIPT_NAME="/", SERVER_SOFTWARE="lighttpd/1.4.69"), {}, '"fix-root-scriptname"'),
    ("script-name", but(NGINX, "SCRIPT_NAME"), {}, 'SCRIPT_NAME "";'),
    ("request-uri", but(NGINX, "REQUEST_URI"), {}, "REQUEST_URI $request_uri;"),
    ("proxy-filename", but(APACHE), {}, "ProxyFCGIBackendType GENERIC"),
    ("script-filename", but(NGINX, SCRIPT_FILENAME="/srv/x.php"), {}, "include fastcgi_params;"),
    ("remote-addr", but(NGINX, "REMOTE_ADDR"), {}, "REMOTE_ADDR $remote_addr;"),
    ("remote-addr-unix", but(NGINX, REMOTE_ADDR="unix:"), {}, "set_real_ip_from unix:;"),
    ("forwarded", but(NGINX, **LOCAL, HTTP_X_FORWARDED_FOR="192.0.2.1"), {}, "set_real_ip_from 127.0.0.1;"),
    ("forwarded", but(APACHE, **LOCAL, HTTP_X_FORWARDED_FOR="192.0.2.1"), {}, "RemoteIPHeader X-Forwarded-For"),
    ("forwarded", but(HAPROXY, **LOCAL, HTTP_X_FORWARDED_FOR="192.0.2.1"), {}, "--trust-forwarded"),
    ("forwarded-proto", but(APACHE, **LOCAL, HTTP_X_FORWARDED_PROTO="https"), {}, "SetEnvIf X-Forwarded-Proto"),
    ("trust-forwarded", but(NGINX), {"trust_forwarded": True}, "HTTP_X_FORWARDED_FOR $remote_addr;"),
    ("https", but(NGINX, SERVER_PORT="443"), {}, "HTTPS $https if_not_empty;"),
    ("remote-user", but(NGINX, REMOTE_USER="me"), {}, "--trust-remote-user"),
    ("authorization", but(NGINX, Authorization="Basic x"), {}, "CGIPassAuth On"),
    ("authorization-kept", but(HAPROXY, AUTH_TYPE="Basic"), {}, "pass-header Authorization"),
    (
        "header-twice",
        [*NGINX.items(), ("HTTP_X_REAL_IP", "192.0.2.1"), ("HTTP_X_REAL_IP", "192.0.2.2")],
        {},
        "underscores_in_headers off;",
    ),
    ("proxy-header", but(NGINX, HTTP_PROXY="http://192.0.2.1/"), {"protocol": "scgi"}, 'scgi_param HTTP_PROXY "";'),
    ("code-variables", but(NGINX, PHP_VALUE="auto_prepend_file=/x"), {}, "take PHP_VALUE out"),
    ("code-variables", but(NGINX, UWSGI_FILE="/x.py"), {}, "take UWSGI_FILE out"),
    ("server-name", but(NGINX, SERVER_NAME="_"), {}, "server_name example.org;"),
    ("host-port", but(NGINX, SERVER_PORT="8080"), {}, "HTTP_HOST $http_host;"),
    (
        "nginx-scgi-length",
        but(NGINX, "SERVER_SOFTWARE", CONTENT_LENGTH="0", HTTP_CONTENT_LENGTH="5"),
        {"protocol": "scgi"},
        "scgi_request_buffering on;",
    ),
    ("empty-name", [*NGINX.items(), ("", "x")], {}, "configuration"),
    ("deadline", but(NGINX), {"request_timeout": 90}, "fastcgi_read_timeout 90s;"),
    ("deadline", but(NGINX), {"request_timeout": 90, "protocol": "scgi"}, "scgi_read_timeout 90s;"),
    ("deadline", but(APACHE), {"request_timeout": 90}, "ProxyTimeout 90"),
    ("keep-connection", but(NGINX), {"keep_connection": False}, "fastcgi_keep_conn on;"),
]


@pytest.mark.parametrize(
    ("name", "environ", "settings", "mend"), [pytest.param(*case, id=f"{case[0]}, {case[3]}") for case in CASES]
)
def test_an_advice_has_the_line_that_mends_it(
    name: str, environ: list[tuple[str, str]], settings: dict[str, Any], mend: str
) -> None:
    [advice] = [each for each in examine(environ, **settings) if each.name == name]
    assert mend in advice.mend
    assert "@" not in str(advice)
    assert "\n" not in str(advice)


def test_every_advice_is_tried() -> None:
    assert {case[0] for case in CASES} == set(_TEXTS)


def test_every_advice_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "doctor.rst").read_text(encoding="utf-8")
    described = dict(re.findall(r"^   \* - ``([\w-]+)``\n     - (\w+)$", page, re.MULTILINE))
    assert described == {name: severity for name, (severity, _, _) in _TEXTS.items()}


def test_the_worst_comes_first() -> None:
    environ = but(NGINX, "PATH_INFO", HTTP_PROXY="http://192.0.2.1/", PHP_VALUE="x")
    found = [each.severity for each in examine(environ, request_timeout=90)]
    assert found == ["wrong", "risk", "check", "hint"]
    assert set(found) == set(SEVERITIES)


def test_nothing_is_said_of_what_is_as_it_should_be() -> None:
    assert examine(NGINX) == []
    assert examine(NGINX, request_timeout=60, keep_connection=True) == []


def test_D06_what_a_visitor_writes_into_x_forwarded_is_nothing_to_follow() -> None:
    forged = but(NGINX, HTTP_X_FORWARDED_FOR="198.51.100.1", HTTP_X_FORWARDED_PROTO="https")
    assert examine(forged) == []


def test_a_proxy_that_the_web_server_knows_of_is_no_longer_spoken_of() -> None:
    known = but(NGINX, REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR="192.0.2.1")
    assert examine(known) == []


def test_D04_a_field_that_is_written_twice_in_two_ways_is_a_risk() -> None:
    twice = [("HTTP_X_AUTH_USER", "alice"), ("HTTP_X_AUTH_USER", "mallory")]
    for software in ("nginx/1.22.1", "lighttpd/1.4.69", "h2o/2.2.5"):
        [advice] = examine([*but(NGINX, SERVER_SOFTWARE=software), *twice])
        assert (advice.name, advice.severity) == ("header-twice", "risk")
    # HAProxy drops fields with an underscore, so these were two in earnest.
    assert "header-twice" not in names(examine([*but(HAPROXY), *twice]))
    # Of the two, Caddy hands on one.
    assert any("request_header -*_*" in text for text in unseen("caddy"))


def test_D11_credentials_that_do_not_come_through_are_seen_or_spoken_of() -> None:
    assert names(examine(but(HAPROXY, AUTH_TYPE="Basic", REMOTE_USER="me"))) == {"authorization-kept", "remote-user"}
    assert examine(but(HAPROXY, AUTH_TYPE="Basic", HTTP_AUTHORIZATION="Basic x")) == []
    for server in ("apache", "mod_fcgid"):
        assert any("CGIPassAuth On" in text for text in unseen(server))


def test_D05_no_variable_says_which_code_is_run() -> None:
    for name in ("PHP_VALUE", "PHP_ADMIN_VALUE", "UWSGI_FILE", "UWSGI_MODULE"):
        [advice] = examine(but(NGINX, **{name: "/srv/evil.py"}))
        assert (advice.name, advice.severity) == ("code-variables", "hint")


def test_D07_a_deadline_longer_than_the_patience_of_the_web_server_is_worth_a_look() -> None:
    for software, patience in (("nginx/1.22.1", 60), ("Apache/2.4.71", 60), ("h2o/2.2.5", 30)):
        environ = but(APACHE, SERVER_SOFTWARE=software)
        assert "deadline" not in names(examine(environ, request_timeout=patience))
        assert "deadline" in names(examine(environ, request_timeout=patience + 1))
    # lighttpd and Caddy wait for ever.
    assert "deadline" not in names(examine(but(NGINX, SERVER_SOFTWARE="Caddy/2.6.2"), request_timeout=9000))


APACHE_BY_CGI = {
    "CONTEXT_DOCUMENT_ROOT": "/srv",
    "SCRIPT_FILENAME": "/srv/app.fcgi",
    "HTTP_X_FORWARDED_FOR": "192.0.2.1",
}
LIGHTTPD = {"REDIRECT_STATUS": "200", "DOCUMENT_ROOT": "/srv", "SCRIPT_NAME": "/"}


@pytest.mark.parametrize(
    ("environ", "mend"),
    [
        (but(NGINX, "SERVER_SOFTWARE", HTTP_PROXY="x"), "fastcgi_param HTTP_PROXY"),
        (but(NGINX, SERVER_SOFTWARE="mine", REMOTE_IDENT="", HTTP_PROXY="x"), "request_header -Proxy"),
        (but(NGINX, "DOCUMENT_URI", SERVER_SOFTWARE="mine", **LOCAL, **APACHE_BY_CGI), "RemoteIPHeader"),
        (but(NGINX, "DOCUMENT_URI", SERVER_SOFTWARE="mine", **LIGHTTPD), '"fix-root-scriptname" => "enable"'),
    ],
)
def test_a_web_server_that_hides_its_name_is_told_by_what_it_sends(environ: list[tuple[str, str]], mend: str) -> None:
    [advice] = examine(environ)
    assert mend in advice.mend


def test_fields_that_come_twice_and_say_nothing_of_who_somebody_is_are_in_order() -> None:
    assert examine([*NGINX.items(), ("HTTP_X_COLOUR", "a"), ("HTTP_X_COLOUR", "b"), ("SCRIPT_NAME", "")]) == []


def test_advice_is_compared_by_value() -> None:
    one, same = (examine(but(NGINX, HTTP_PROXY="x"))[0] for _ in range(2))
    [other] = examine(but(NGINX, SERVER_NAME="_"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "proxy-header"
    assert repr(one).startswith("Advice('proxy-header', 'risk', ")


def test_what_cannot_be_seen_is_said_of_every_server() -> None:
    for server in ("nginx", "apache", "mod_fcgid", "lighttpd", "haproxy", "caddy", "h2o", ""):
        assert unseen(server)
        assert not any("{}" in text for text in unseen(server))


_NAMES = st.sampled_from(
    sorted({*NGINX, *APACHE, "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "CONTENT_LENGTH", "", "UWSGI_X"})
)
_VALUES = st.one_of(
    st.text(), st.sampled_from(["", "/", "/x", "nginx/1", "Apache", "lighttpd", "HAProxy", "Caddy", "443", "unix:"])
)


@given(
    environ=st.lists(st.tuples(st.one_of(_NAMES, st.text()), _VALUES)),
    protocol=st.sampled_from(["fastcgi", "scgi", "cgi"]),
    trusting=st.booleans(),
)
def test_whatever_is_sent_the_doctor_does_not_fail(
    environ: list[tuple[str, str]], protocol: str, trusting: bool
) -> None:
    for advice in examine(environ, protocol=protocol, trust_forwarded=trusting, request_timeout=90):
        assert advice.severity in SEVERITIES
        assert advice.what
        assert advice.why
        assert advice.mend


# --- the log


async def hello(_request: Request) -> Response:
    return Response("hello")


def said(caplog: pytest.LogCaptureFixture, name: str = "") -> list[logging.LogRecord]:
    return [record for record in caplog.records if f"advice ({name}" in record.getMessage()]


async def test_advice_is_logged_once_for_a_listener(caplog: pytest.LogCaptureFixture) -> None:
    async with running(hello) as backend:
        for _ in range(3):
            await backend.ask(dict(but(NGINX, HTTP_PROXY="http://192.0.2.1/")))
    [record] = said(caplog)
    assert record.name == "gateways.doctor"
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith('mend it with: fastcgi_param HTTP_PROXY "";')


async def test_only_the_first_requests_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    async with running(hello) as backend:
        for _ in range(EXAMINED):
            await backend.ask(NGINX)
        await backend.ask(dict(but(NGINX, HTTP_PROXY="http://192.0.2.1/")))
    assert said(caplog) == []


async def test_a_request_that_is_refused_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    async with running(hello) as backend:
        assert (await backend.ask({"HTTP_HOST": "gateways.test"})).status == 400
    [record] = said(caplog)
    assert record.getMessage().endswith("mend it with: include fastcgi_params;")


async def test_what_a_repair_has_said_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    async with running(hello) as backend:
        await backend.ask(dict(but(NGINX, "PATH_INFO")))
    assert [record for record in caplog.records if "repaired (nginx-root)" in record.getMessage()]
    assert said(caplog) == []


async def test_hints_are_for_those_who_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="gateways")
    async with running(hello) as backend:
        await backend.ask(dict(but(NGINX, SERVER_NAME="_")))
    assert [record.levelname for record in said(caplog, "server-name")] == ["DEBUG"]


async def test_D07_the_log_tells_of_a_deadline_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateways")
    async with running(hello, limits=Limits(request_timeout=90)) as backend:
        for _ in range(2):
            await backend.ask(NGINX)
    assert [record.levelname for record in said(caplog)] == ["INFO"]


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI], ids=["fastcgi", "scgi"])
async def test_nothing_is_said_to_who_is_no_web_server(protocol: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a health check, which has its own idea of variables."""
    caplog.set_level(logging.DEBUG, logger="gateways")
    async with running(hello, protocol=protocol) as backend:
        await backend.ask(variables(CONTENT_LENGTH="0"))
    assert said(caplog) == []


async def test_O20_no_value_of_a_request_writes_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    evil = "1\r\n2026-11-21 INFO all is well\x1b[2J"
    async with running(hello) as backend:
        await backend.ask(dict(but(NGINX, CONTENT_LENGTH=evil)))
    [record] = said(caplog)
    assert record.getMessage().isprintable()


# --- the page


def shown(handler: Any, environ: Mapping[str, str] | list[tuple[str, str]], *, protocol: str = "fastcgi") -> Response:
    response = drive(handler(Request(environ, protocol=protocol)))
    assert isinstance(response, Response)
    return response


def test_the_page_shows_what_was_sent_and_what_a_handler_sees() -> None:
    page = shown(doctor.app, but(NGINX, "PATH_INFO", SCRIPT_NAME="/x"))
    assert isinstance(page.body, str)
    assert page.content_type == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert "<h1>1 thing to mend</h1>" in page.body
    assert "fastcgi_param SCRIPT_NAME &quot;&quot;;" in page.body
    assert '<th scope="row">path_info</th><td>/x</td>' in page.body  # as repaired
    assert '<th scope="row">SCRIPT_NAME</th><td>/x</td>' in page.body  # as sent


def test_a_good_configuration_has_nothing_to_mend() -> None:
    page = shown(doctor.app, NGINX)
    assert isinstance(page.body, str)
    assert "<h1>Nothing is wrong</h1>" in page.body
    assert "<section" not in page.body


def test_nothing_that_was_sent_becomes_markup() -> None:
    evil = "<script>alert('\"&')</script>\udce9"
    environ = but(
        NGINX, "PATH_INFO", SERVER_SOFTWARE="nginx/" + evil, HTTP_X_EVIL=evil, PHP_VALUE=evil, REMOTE_USER=evil
    )
    page = shown(doctor.app, [*environ, ("HTTP_<b>", "x"), ("PHP_VALUE<i>", "x")])
    assert isinstance(page.body, str)
    assert "<script" not in page.body
    assert "<b>" not in page.body
    assert not re.search(r"PHP_VALUE<i>", page.body)
    assert "&lt;script&gt;" in page.body
    assert "script-src" not in page.headers["Content-Security-Policy"]


SECRETS = {
    "HTTP_AUTHORIZATION": "Basic verysecret",
    "HTTP_PROXY_AUTHORIZATION": "verysecret",
    "Authorization": "verysecret",
    "HTTP_COOKIE": "session=verysecret",
    "HTTP_X_API_KEY": "verysecret",
    "HTTP_X_CSRF_TOKEN": "verysecret",
    "REMOTE_PASSWD": "verysecret",
}


@pytest.mark.parametrize("query", ["", "json"])
def test_secrets_are_masked_unless_they_are_asked_for(query: str) -> None:
    environ = {**NGINX, **SECRETS, "QUERY_STRING": query}
    assert "verysecret" not in str(shown(doctor.app, environ).body)
    assert str(shown(doctor.handler(show_secrets=True), environ).body).count("verysecret") == len(SECRETS)


def test_the_environment_of_a_cgi_script_is_masked() -> None:
    environ = {**NGINX, "PATH": "/usr/bin", "DATABASE_URL": "postgres://verysecret"}
    body = str(shown(doctor.app, environ, protocol="cgi").body)
    assert "verysecret" not in body
    assert "DATABASE_URL" in body


@pytest.mark.parametrize("how", [{"HTTP_ACCEPT": "application/json"}, {"QUERY_STRING": "json"}])
def test_the_same_as_json(how: dict[str, str]) -> None:
    response = shown(doctor.app, but(NGINX, HTTP_X_REPEATED="a", SERVER_NAME="_", **how))
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert isinstance(response.body, str)
    value = json.loads(response.body)
    assert value["server"] == "nginx"
    assert [each["name"] for each in value["advice"]] == ["server-name"]
    assert set(value["advice"][0]) == {"name", "severity", "what", "why", "mend"}
    assert value["request"]["path_info"] == "/x"
    assert ["HTTP_X_REPEATED", "a"] in value["environ"]


def test_the_page_can_be_mounted_in_an_application() -> None:
    mounted = URLMap({"/doctor": doctor.app, "": hello})
    page = shown(mounted, NGINX | {"PATH_INFO": "/doctor"})
    assert "What was sent" in str(page.body)


def test_a_mount_that_makes_no_sense_is_an_error() -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        examine(NGINX, mount="app")


def test_the_page_knows_what_its_listener_was_told() -> None:
    told = doctor.handler(trust_forwarded=True, request_timeout=90, mount="/")
    body = str(shown(told, but(NGINX, "PATH_INFO")).body)
    assert "trust-forwarded" in body
    assert "fastcgi_read_timeout 90s;" in body
    assert "nginx-root" not in body
