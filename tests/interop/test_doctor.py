"""The doctor behind real web servers: a bad configuration is named in the log, and the line that it gives mends it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import attrs
import pytest
import trio

import gateways
from gateways import Limits, Listen, Request, Response
from tests.interop import test_howto
from tests.interop.client import fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import SOCKET_MODE, front_end

Settings = Mapping[str, Any]
NOTHING_SET: Settings = MappingProxyType({})

#: What mends some things is told ``gateways serve``: its flag in the advice, and what that sets.
FLAGS: dict[str, dict[str, Any]] = {
    "--mount": {"mount": "/app"},
    "--trust-forwarded": {"trust_forwarded": True},
    "--trust-remote-user": {"trust_remote_user": True},
    "--timeout-request": {"limits": Limits(request_timeout=30)},
}


@attrs.frozen
class Case:
    """A site that is bad in one way, and one that is mended: as text, or by a flag of ``gateways serve``."""

    name: str
    server: str
    protocol: str
    bad: str
    mended: str
    fields: Sequence[tuple[str, str]] = ()
    path: str = "/app/x/y"
    settings: Settings = NOTHING_SET

    def __str__(self) -> str:
        return f"{self.name}-{self.server}-{self.protocol}{self.mended if self.mended in FLAGS else ''}"

    def configuration(self, site: str) -> Configuration:
        """The web server with this site, and a backend on a unix socket."""
        return Configuration(
            id=str(self),
            server=self.server,
            protocol=self.protocol,
            transport="unix",
            mount="",
            mount_option=None,
            script=None,
            site=site,
        )


# --- nginx

PARAMS = {"fastcgi": "include /etc/nginx/fastcgi_params;", "scgi": "include /etc/nginx/scgi_params;"}
SPLIT = {
    "fastcgi": 'fastcgi_param SCRIPT_NAME "";\nfastcgi_param PATH_INFO $fastcgi_script_name;',
    "scgi": 'scgi_param SCRIPT_NAME "";\nscgi_param PATH_INFO $document_uri;',
}
RECOMMENDED = {protocol: f"{PARAMS[protocol]}\n{SPLIT[protocol]}" for protocol in PARAMS}
BY_HAND = f"""fastcgi_param REQUEST_METHOD $request_method;
fastcgi_param SERVER_SOFTWARE nginx/$nginx_version;
{SPLIT["fastcgi"]}"""
INSIDE_A_SEGMENT = r"""fastcgi_split_path_info ^(/app)(/?.*)$;
include /etc/nginx/fastcgi_params;
fastcgi_param PATH_INFO $fastcgi_path_info;"""
#: Ends the server that the template has begun, for a line that goes beside it, and begins one that nobody asks.
BESIDE = "}}\n{}\nserver {{\nlisten unix:@FOLDER@/other.sock;"


def location(protocol: str, *lines: str) -> str:
    passed = "" if any("_pass " in line for line in lines) else f"{protocol}_pass @BACKEND@;"
    return "\n".join(("location / {", *lines, passed, "}"))


def nginx(
    name: str,
    bad: str,
    mended: str,
    *fields: tuple[str, str],
    protocol: str = "fastcgi",
    base: str | None = None,
    settings: Settings = NOTHING_SET,
) -> Case:
    """A case of a location with ``base`` (the recommended lines) and the one or the other in it."""
    base = RECOMMENDED[protocol] if base is None else base
    after = mended if mended in FLAGS else location(protocol, base, mended)
    return Case(name, "nginx", protocol, location(protocol, base, bad), after, fields, settings=settings)


PROXIED = ("X-Forwarded-For", "192.0.2.1")
BY_HTTPS = ("X-Forwarded-Proto", "https")
BASIC = ("Authorization", "Basic bWU6cHc=")
TWICE = (("X-Real-IP", "192.0.2.1"), ("X_Real_IP", "192.0.2.2"))
UNREPAIRED = {"quirks": "none"}

NGINX = [
    nginx("no-variables", "", PARAMS["fastcgi"], base=""),
    nginx("nginx-root", "", SPLIT["fastcgi"], base=PARAMS["fastcgi"], settings=UNREPAIRED),
    nginx("nginx-root", "", SPLIT["scgi"], base=PARAMS["scgi"], protocol="scgi", settings=UNREPAIRED),
    Case("split", "nginx", "fastcgi", location("fastcgi", INSIDE_A_SEGMENT), "--mount", path="/application"),
    nginx("remote-addr", "", "fastcgi_param REMOTE_ADDR $remote_addr;", base=BY_HAND),
    nginx("request-uri", "", "fastcgi_param REQUEST_URI $request_uri;", base=BY_HAND),
    nginx("proxy-header", "", 'fastcgi_param HTTP_PROXY "";', ("Proxy", "http://192.0.2.1/")),
    nginx("proxy-header", "", 'scgi_param HTTP_PROXY "";', ("Proxy", "http://192.0.2.1/"), protocol="scgi"),
    nginx("forwarded", "", "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Forwarded-For;", PROXIED),
    Case(
        "forwarded-proto",
        "nginx",
        "fastcgi",
        location("fastcgi", RECOMMENDED["fastcgi"]) + BESIDE.format(""),
        location("fastcgi", RECOMMENDED["fastcgi"], "fastcgi_param HTTPS $by_https if_not_empty;")
        + BESIDE.format("map $http_x_forwarded_proto $by_https { https on; }"),
        (BY_HTTPS,),
    ),
    nginx(
        "trust-forwarded", "", "fastcgi_param HTTP_X_FORWARDED_FOR $remote_addr;", settings=FLAGS["--trust-forwarded"]
    ),
    Case(
        "header-twice",
        "nginx",
        "fastcgi",
        f"underscores_in_headers on;\n{location('fastcgi', RECOMMENDED['fastcgi'])}",
        f"underscores_in_headers off;\n{location('fastcgi', RECOMMENDED['fastcgi'])}",
        TWICE,
    ),
    nginx("remote-user", "", "--trust-remote-user", BASIC),
    nginx("code-variables", "fastcgi_param PHP_VALUE auto_prepend_file=/x;", ""),
    Case(
        "script-filename",
        "nginx",
        "fastcgi",
        location("fastcgi", "include /etc/nginx/fastcgi.conf;", SPLIT["fastcgi"]),
        location("fastcgi", RECOMMENDED["fastcgi"]),
    ),
    nginx("host-port", "", "fastcgi_param HTTP_HOST $http_host;", ("Host", "gateways.test:81")),
    nginx("deadline", "", "--timeout-request", settings={"limits": Limits(request_timeout=90)}),
    nginx("keep-connection", "", "fastcgi_keep_conn on;\nfastcgi_pass kept;"),
]

# --- the others

PROXY_PASS = 'ProxyPass "/app" "@BACKEND@/app"'
REMOTE_IP = "LoadModule remoteip_module @MODULES@/mod_remoteip.so"
SET_ENV_IF = "LoadModule setenvif_module @MODULES@/mod_setenvif.so"
APACHE = [
    Case("whole-path", "apache2", "fastcgi", PROXY_PASS, "--mount"),
    Case("whole-path", "apache2", "scgi", PROXY_PASS, "--mount"),
    Case(
        "proxy-filename",
        "apache2",
        "fastcgi",
        PROXY_PASS,
        f"ProxyFCGIBackendType GENERIC\n{PROXY_PASS}",
        settings=UNREPAIRED,
    ),
    Case(
        "forwarded",
        "apache2",
        "fastcgi",
        f"{REMOTE_IP}\n{PROXY_PASS}",
        f"{REMOTE_IP}\nRemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n{PROXY_PASS}",
        (PROXIED,),
    ),
    Case(
        "forwarded-proto",
        "apache2",
        "scgi",
        f"{SET_ENV_IF}\n{PROXY_PASS}",
        f'{SET_ENV_IF}\nSetEnvIf X-Forwarded-Proto "^https$" HTTPS=on\n{PROXY_PASS}',
        (BY_HTTPS,),
    ),
    Case("keep-connection", "apache2", "fastcgi", PROXY_PASS, f"{PROXY_PASS} enablereuse=on"),
    Case(
        "deadline",
        "apache2",
        "scgi",
        PROXY_PASS,
        "--timeout-request",
        settings={"limits": Limits(request_timeout=90)},
    ),
]

AT_THE_ROOT = 'fastcgi.server = ( "/" => (( @BACKEND@, "check-local" => "disable" )) )'
FIXED = 'fastcgi.server = ( "/" => (( @BACKEND@, "check-local" => "disable", "fix-root-scriptname" => "enable" )) )'
MOD_ACCESS = 'server.modules += ( "mod_access" )'
LIGHTTPD = [
    Case("root-script-name", "lighttpd", "fastcgi", AT_THE_ROOT, FIXED, path="/", settings=UNREPAIRED),
    Case(
        "forwarded",
        "lighttpd",
        "fastcgi",
        FIXED,
        f'server.modules += ( "mod_extforward" )\nextforward.forwarder = ( "127.0.0.1" => "trust" )\n{FIXED}',
        (PROXIED,),
    ),
    Case(
        "header-twice",
        "lighttpd",
        "fastcgi",
        f"{MOD_ACCESS}\n{FIXED}",
        f'{MOD_ACCESS}\n$REQUEST_HEADER["X_Real_Ip"] != "" {{ url.access-deny = ( "" ) }}\n{FIXED}',
        TWICE,
    ),
]

FCGI_APP = """backend application
  use-fcgi-app application
  server one @BACKEND@ proto fcgi

fcgi-app application
  docroot @FOLDER@/htdocs"""
HAPROXY = [
    Case("whole-path", "haproxy", "fastcgi", FCGI_APP, "--mount"),
    Case("forwarded", "haproxy", "fastcgi", FCGI_APP, "--trust-forwarded", (PROXIED,)),
    Case(
        "authorization-kept",
        "haproxy",
        "fastcgi",
        FCGI_APP,
        f"{FCGI_APP}\n  pass-header Authorization",
        (BASIC,),
    ),
]

CASES = NGINX + APACHE + LIGHTTPD + HAPROXY


async def hello(_request: Request) -> Response:
    return Response("hello")


async def advice(
    configuration: Configuration,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    path: str = "/app/x/y",
    fields: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """What the log says of one request: by the name of the advice, the line that mends."""
    caplog.clear()
    caplog.set_level(logging.DEBUG, logger="gateways")
    settings = dict(settings)
    trust = {name: settings.pop(name) for name in ("trust_forwarded", "trust_remote_user") if name in settings}
    with front_end(configuration) as web:
        assert web.address is not None
        listen = Listen(web.address, mode=SOCKET_MODE, **trust)
        async with trio.open_nursery() as nursery:
            serve = getattr(gateways, configuration.protocol).serve
            await nursery.start(partial(serve, hello, listen, **settings))
            answer = await fetch(web.port, "GET", path, fields)
            nursery.cancel_scope.cancel()
    found: dict[str, str] = {}
    for record in caplog.records:
        before, _, name_and_rest = record.getMessage().partition(": advice (")
        if name_and_rest and record.name == "gateways.doctor":
            assert before == listen.address
            name, _, rest = name_and_rest.partition("): ")
            found[name] = rest.partition("mend it with: ")[2]
    assert answer.status in {200, 403} or found  # it came through, or was denied on purpose
    return found


def words(text: str) -> set[str]:
    return set(text.replace("/etc/nginx/", "").replace(",", " ").split())


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_bad_configuration_is_named_and_the_line_in_the_log_mends_it(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    bad, request = case.configuration(case.bad), (caplog, case.path, case.fields)
    found = await advice(bad, case.settings, *request)
    assert case.name in found
    mend = found[case.name]
    if case.mended in FLAGS:
        assert case.mended in mend
        assert case.name not in await advice(bad, {**case.settings, **FLAGS[case.mended]}, *request)
    else:
        # Nothing is written but what the log said.
        assert words(case.mended) - words(case.bad) <= words(mend) | {"kept;"}
        assert case.name not in await advice(case.configuration(case.mended), case.settings, *request)


#: A site on another port than 80 has no better Debian parameters, and the recipes come before those for speed. Of an
#: address for SCRIPT_FILENAME nothing is to be feared.
HINTS = {"host-port", "keep-connection", "proxy-filename"}


@pytest.mark.parametrize("configuration", [each for each in test_howto.CONFIGURATIONS if each.script is None], ids=str)
async def test_there_is_nothing_to_say_of_the_configurations_of_the_howto(
    configuration: Configuration, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"mount": configuration.mount_option}
    found = await advice(configuration, settings, caplog, f"{configuration.mount}/x")
    assert set(found) <= HINTS


async def test_the_line_that_denies_a_field_with_an_underscore_denies_no_other() -> None:
    [case] = [each for each in LIGHTTPD if each.name == "header-twice"]
    with front_end(case.configuration(case.mended)) as web:
        assert web.address is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(gateways.fastcgi.serve, hello, Listen(web.address, mode=SOCKET_MODE))
            statuses = [(await fetch(web.port, "GET", "/x", [field])).status for field in TWICE]
            nursery.cancel_scope.cancel()
    assert statuses == [200, 403]
