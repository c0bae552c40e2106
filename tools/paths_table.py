"""Write docs/paths.rst: where each web server and configuration puts the path, and what a handler sees of it.

Made of the captures in tests/captures, through the code that serves requests. Run it again after a change there:

    python -m tools.paths_table
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import attrs

from gateways import RemoteProtocolError
from gateways._model.environ import Rules, build
from tests.captures import Capture, load_web
from tests.captures.decoding import PROTOCOLS, decode

PAGE = Path(__file__).parent.parent / "docs" / "paths.rst"

#: The requests that show what a server does to a path, in the order of the page.
TELLING = (
    "root",
    "get-app",
    "get-app-slash",
    "get-path-query",
    "get-encoded",
    "get-slashes-dotdot",
    "path-encoded-dotdot",
    "path-encoded-mount",
    "path-prefix-only",
)

SERVERS = {
    "nginx": "nginx",
    "apache": "Apache",
    "apache-prefork": "Apache, prefork",
    "lighttpd": "lighttpd",
    "caddy": "Caddy",
    "haproxy": "HAProxy",
    "h2o": "h2o",
    "busybox": "BusyBox httpd",
    "mini-httpd": "mini_httpd",
}

#: What is particular to each configuration, in its own words.
CONFIGURATIONS = {
    "nginx.fcgi-root": "location / and the stock fastcgi_params",
    "nginx.fcgi-split": "location /app, fastcgi_split_path_info ^(/app)(/?.*)$, PATH_INFO $fastcgi_path_info",
    "nginx.fcgi-pathinfo": 'location /, SCRIPT_NAME "", PATH_INFO $fastcgi_script_name',
    "nginx.fcgi-keepalive": "location /, stock fastcgi_params, fastcgi_keep_conn on",
    "nginx.fcgi-raw": "location /, stock fastcgi_params, merge_slashes off, nothing buffered",
    "nginx.fcgi-tls": "location /, stock fastcgi.conf, TLS",
    "nginx.fcgi-ext-auth": r"rewrite to /app.py, fastcgi_split_path_info ^(.+?\.py)(/.*)$",
    "nginx.fcgi-authreq": "location /, stock fastcgi_params, auth_request /_auth",
    "nginx.fcgi-bare": "location / without fastcgi_params",
    "nginx.scgi-root": "location / and the stock scgi_params",
    "nginx.scgi-prefix": "location ~ ^(?<sn>/app)(?<pi>/.*)?$, SCRIPT_NAME $sn, PATH_INFO $pi",
    "nginx.scgi-tls": "location /, stock scgi_params, TLS",
    "apache.fcgi-proxypass": 'ProxyPass "/app" "fcgi://host:port/"',
    "apache.fcgi-proxypass-noslash": 'ProxyPass "/app" "fcgi://host:port"',
    "apache.fcgi-proxypass-root": 'ProxyPass "/" "fcgi://host:port/"',
    "apache.fcgi-nocanon": 'ProxyPass "/app" "fcgi://host:port/" nocanon, MergeSlashes Off',
    "apache.fcgi-generic": 'ProxyPass "/app" "fcgi://host:port/", ProxyFCGIBackendType GENERIC',
    "apache.fcgi-pathinfo-var": 'ProxyPass "/app" "fcgi://host:port/srv/app.py/extra", SetEnv proxy-fcgi-pathinfo 1',
    "apache.fcgi-sethandler": 'SetHandler "proxy:fcgi://host:port" in <Location "/app">',
    "apache.fcgi-sethandler-file": 'AliasMatch "^/app(/.*)?$", SetHandler "proxy:fcgi://host:port/"',
    "apache.fcgi-auth": 'ProxyPass "/app" "fcgi://host:port/", AuthType Basic',
    "apache.fcgi-tls": 'ProxyPass "/app" "fcgi://host:port/", TLS',
    "apache.fcgi-unix": 'ProxyPass "/app" "unix:/path|fcgi://localhost/"',
    "apache.fcgid": "Alias /app to a program of mod_fcgid",
    "apache.fcgid-wrapper": "Alias /app, FcgidWrapper, TLS",
    "apache.fcgid-authorizer": "FcgidAuthorizer",
    "apache.fcgid-access": "FcgidAccessChecker before a ScriptAlias",
    "apache.fcgid-authn": "FcgidAuthenticator before a ScriptAlias",
    "apache.authnz-fcgi": "mod_authnz_fcgi before a ScriptAlias",
    "apache.scgi-proxypass": 'ProxyPass "/app" "scgi://host:port/"',
    "apache.scgi-root": 'ProxyPass "/" "scgi://host:port/"',
    "apache.scgi-sethandler": 'SetHandler "proxy:scgi://host:port" in <Location "/app">',
    "apache.scgi-tls": 'ProxyPass "/app" "scgi://host:port/", TLS',
    "apache.cgid": "ScriptAlias /app",
    "apache.cgid-tls": "ScriptAlias /app, AllowEncodedSlashes NoDecode, TLS",
    "apache.cgid-rewrite": 'RewriteRule "^/(.*)$" to a script, H=cgi-script',
    "apache-prefork.cgi": "ScriptAlias /app",
    "lighttpd.fcgi-prefix": 'fastcgi.server = ( "/app" => ... )',
    "lighttpd.fcgi-root-fix": 'fastcgi.server = ( "/" => ... ) with fix-root-scriptname',
    "lighttpd.fcgi-root-nofix": 'fastcgi.server = ( "/" => ... ) without fix-root-scriptname',
    "lighttpd.fcgi-ext-stream": 'rewrite to /app.py, fastcgi.server = ( ".py" => ... )',
    "lighttpd.fcgi-spawn": 'fastcgi.server = ( "/app" => ... ) with bin-path',
    "lighttpd.fcgi-tls": 'fastcgi.server = ( "/app" => ... ), TLS',
    "lighttpd.fcgi-authorizer": 'mode authorizer at "/app" before ".py"',
    "lighttpd.authorizer-cgi": 'mode authorizer at "/app" before CGI at ".py"',
    "lighttpd.scgi-prefix": 'scgi.server = ( "/app" => ... )',
    "lighttpd.scgi-root-fix": 'scgi.server = ( "/" => ... ) with fix-root-scriptname',
    "lighttpd.scgi-tls-stream": 'scgi.server = ( "/app" => ... ), stream-request-body 2, TLS',
    "lighttpd.cgi": 'alias.url = ( "/app" => script )',
    "lighttpd.cgi-interp": 'rewrite to /app.py, cgi.assign = ( ".py" => interpreter )',
    "caddy.fcgi-root": "transport fastcgi",
    "caddy.fcgi-split": "rewrite to /app.py, split .py",
    "caddy.fcgi-handlepath": "handle_path /app*, rewrite to /app.py, split .py",
    "caddy.fcgi-php": "php_fastcgi, index index.py, split .py",
    "caddy.fcgi-tls": "split .py (which no path holds), TLS",
    "haproxy.fcgi-root": "fcgi-app without path-info, index index.py",
    "haproxy.fcgi-prefix": "path-info ^(/app)(/.*)?$, index index.py",
    "haproxy.fcgi-mpx": "path-info ^(/app)(/.*)?$, mpxs-conns",
    "haproxy.fcgi-tls": "fcgi-app without path-info, index index.py, TLS",
    "h2o.fcgi-root": 'fastcgi.connect at "/"',
    "h2o.fcgi-prefix": 'fastcgi.connect at "/app"',
    "h2o.fcgi-tls": 'fastcgi.connect at "/app", TLS',
    "h2o.fcgi-ext": "file.custom-handler for .py",
    "busybox.cgi": "/cgi-bin",
    "mini-httpd.cgi": "/cgi-bin",
}

HEAD = """\
.. Made by tools/paths_table.py of the captures in tests/captures: change those, not this.

Paths, by web server
====================

A web server tells an application its path in two pieces: ``SCRIPT_NAME``, where the application is mounted, and
``PATH_INFO``, the rest. Which part is which depends on the server and on its configuration. ``request.path`` is always
the whole; ``request.script_name`` and ``request.path_info`` are its pieces as the server made them. Where its division
is not what you want, ``serve(mount="/app")`` divides ``request.path`` anew.

Each row below was sent by a real server (their versions are those of Debian 12) and read by this package with its
defaults. A star marks a row that needed a repair, which is logged together with the configuration that makes it
needless; ``quirks="none"`` switches repairs off.
"""

PROTOCOL_NAMES = {"fcgi": "FastCGI", "scgi": "SCGI", "cgi": "CGI"}


@attrs.frozen
class Row:
    """One request: what the client asked for and what a handler sees, or why it never sees it."""

    capture: Capture
    role: str
    asked: str
    path: str
    script_name: str
    path_info: str
    repaired: bool
    refused: str = ""


def rows(captures: list[Capture]) -> list[Row]:
    """The telling requests of one configuration, or any one of them."""
    readable = [row for capture in captures for row in _row(capture)]
    telling = [row for row in readable if row.capture.request in TELLING] or readable[:1]
    once = {(row.role, row.asked): row for row in reversed(telling)}
    order = [(role, name) for role in ("authorizer", "responder") for name in (*TELLING, telling[0].capture.request)]
    return sorted(once.values(), key=lambda row: order.index((row.role, row.capture.request)))


def _row(capture: Capture) -> Iterator[Row]:
    asked = capture.raw_request[0].split(b" ", 2)[1].decode("utf-8", "backslashreplace")
    for arrived in decode(capture)[:1]:
        try:
            environ, path, repairs = build(arrived.environ, PROTOCOLS[capture.protocol], Rules())
        except RemoteProtocolError as error:
            yield Row(capture, arrived.role, asked, "", "", "", repaired=False, refused=f"{error.status}: {error}")
            continue
        repaired = bool({"nginx-root", "root-script-name"}.intersection(repairs))
        yield Row(capture, arrived.role, asked, path, environ["SCRIPT_NAME"], environ["PATH_INFO"], repaired)


def render() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for server in SERVERS for line in _section(server))])


def _section(server: str) -> Iterator[str]:
    captures = sorted((c for c in load_web() if c.front_end == server), key=_place)
    yield from (SERVERS[server], "-" * len(SERVERS[server]), "")
    yield from (".. list-table::", "   :header-rows: 1", "")
    yield from _cells("configuration", "asked for", "path", "script_name", "path_info")
    for (config, protocol), group in itertools.groupby(captures, key=lambda c: (c.config, c.protocol)):
        what = f"{PROTOCOL_NAMES[protocol]}: {_literal(CONFIGURATIONS[f'{server}.{config}'])}"
        for row in rows(list(group)):
            yield from _of(row, what)
            what = ""
    yield ""


def _place(capture: Capture) -> tuple[int, str]:
    """Where a capture stands on the page: in the order of CONFIGURATIONS."""
    return list(CONFIGURATIONS).index(f"{capture.front_end}.{capture.config}"), capture.protocol


def _of(row: Row, what: str) -> Iterator[str]:
    asked = _literal(row.asked) + (" (as authorizer)" if row.role == "authorizer" else "")
    if row.refused:
        return _cells(what, asked, row.refused.replace("'", "``"), "", "")
    star = "\\*" if row.repaired else ""
    return _cells(what, asked, _quoted(row.path), _quoted(row.script_name) + star, _quoted(row.path_info) + star)


def _cells(*texts: str) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f"   {' ' if number else '*'} - {text}".rstrip()


def _quoted(text: str) -> str:
    return _literal(f'"{text}"')


def _literal(text: str) -> str:
    return f"``{text}``"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
