"""lighttpd 1.4, which speaks FastCGI and SCGI and runs CGI scripts."""

from __future__ import annotations

import re
import shlex

from gateways.configs.site import Backend, Refused, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/lighttpd/conf-available/90-{name}.conf"
CHECK = "lighty-enable-mod {name} && lighttpd -tt -f /etc/lighttpd/lighttpd.conf && systemctl reload lighttpd"
GROUP = "www-data"

_NOT_FROM_CLIENTS = ("Proxy", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
_MODULES = {"fastcgi": "mod_fastcgi", "scgi": "mod_scgi", "cgi": "mod_cgi"}


def render(site: Site) -> str:
    """The text for /etc/lighttpd/conf-available. Raises Refused."""
    protocol = site.only("lighttpd", "fastcgi", "scgi", "cgi")
    modules = ", ".join(f'"{name}"' for name in ("mod_alias", "mod_access", "mod_setenv", _MODULES[protocol]))
    lines = commented(_cgi_heading(site) if protocol == "cgi" else site.heading("lighttpd", protocol))
    if site.listen is None:
        condition = [f'$HTTP["host"] =~ "^{re.escape(site.server_name)}(?::[0-9]+)?$" {{']
    else:
        address = site.port if site.port.host else f"0.0.0.0:{site.port}"
        condition = [f'$SERVER["socket"] == "{address}" {{']
    body = _server(site)
    for path, folder in site.static:
        body += [
            "",
            f'alias.url += ( "{path}/" => {quoted(folder.rstrip("/") + "/")} )',
            f'$HTTP["url"] =~ "^{re.escape(path)}/" {{',
            '    setenv.add-response-header = ( "X-Content-Type-Options" => "nosniff" )',
            "}",
        ]
    body += ["", *(_script(site) if protocol == "cgi" else _application(site, protocol))]
    return "\n".join([*lines, "", f"server.modules += ( {modules} )", "", *condition, *indented(body), "}"]) + "\n"


def quoted(text: str) -> str:
    """A string of lighttpd. Raises Refused for quotes and backslashes, which it reads in several ways."""
    if '"' in text or "\\" in text:
        raise Refused(f"lighttpd has no one way to write a quote or a backslash: {text!r}")
    return f'"{text}"'


def _server(site: Site) -> list[str]:
    limit = 0 if site.max_body is None else -(-site.max_body // 1024)
    unset = ", ".join(f'"{name}" => ""' for name in _NOT_FROM_CLIENTS)
    return [
        '# For TLS: server.modules += ( "mod_openssl" ), ssl.engine = "enable", ssl.pemfile, ssl.privkey',
        f'server.name = "{site.server_name}"',
        "",
        "# KiB of a request body; above it 413. 0 is no limit.",
        f"server.max-request-size = {limit}",
        "",
        "# Not for clients to say: the proxy of outgoing requests, and (unless another proxy is in front, which",
        "# says so truly; then it is --trust-forwarded) who they are and how they came.",
        f"setenv.set-request-header = ( {unset} )",
        "# lighttpd hands on X_Auth_User, and an application cannot tell it from X-Auth-User.",
        "# Where it believes such a field because a module here sets it, refuse the other spellings of it:",
        '# $REQUEST_HEADER["X_Auth_User"] =~ "." { url.access-deny = ( "" ) }',
        "",
        *_streaming(site),
    ]


def _streaming(site: Site) -> list[str]:
    if site.streaming:
        return [
            "# Answers are passed on as they come, and so are uploads (then those without a length are refused, 411).",
            "server.stream-response-body = 1",
            "server.stream-request-body = 1",
        ]
    return [
        "# For events and streams (--streaming)",
        "# server.stream-response-body = 1",
        "# and for uploads that the handler reads as they come (then those without a length are refused, 411)",
        "# server.stream-request-body = 1",
    ]


def _application(site: Site, protocol: str) -> list[str]:
    several = len(site.backends) > 1
    hosts = [f"( {_address(backend)}," for backend in site.backends]
    less = "Let --timeout-request be less" if site.timeout_request is None else "More than --timeout-request"
    common = [
        '"check-local" => "disable",',
        '"connect-timeout" => 5,',
        f"# Seconds of silence. {less}, so that it is the application that answers.",
        f'"read-timeout" => {site.patience},',
        # 0: an application that was away is asked again at once.
        f'"disable-time" => {5 if several else 0}' + ("" if site.mount else ","),
    ]
    common += [] if site.mount else ["# PATH_INFO is the whole path.", '"fix-root-scriptname" => "enable"']
    entries: list[str] = []
    for number, host in enumerate(hosts):
        last = number == len(hosts) - 1
        entries += [host, *indented(common), ")" if last else "),"]
    balance = ['fastcgi.balance = "least-connection"' if protocol == "fastcgi" else 'scgi.balance = "least-connection"']
    lines = [
        *(
            ["# One that cannot be reached is left alone for 5 seconds. What was asked is not asked again."]
            if several
            else []
        ),
        *(balance if several else []),
        f'{protocol}.server = ( "{site.mount or "/"}" => (',
        *indented(entries),
        ") )",
    ]
    if site.mount:
        return [
            "# Compared by segments: lighttpd by itself would take /application for a path below /app.",
            f'$HTTP["url"] =~ "^{re.escape(site.mount)}(?:/|$)" {{',
            *indented(lines),
            "}",
        ]
    return _unless_static(site, lines)


def _unless_static(site: Site, lines: list[str]) -> list[str]:
    if not site.static:
        return lines
    paths = "|".join(re.escape(path) for path, _ in site.static)
    return [f'$HTTP["url"] !~ "^(?:{paths})/" {{', *indented(lines), "}"]


def _address(backend: Backend) -> str:
    if backend.path:
        return f'"socket" => "{backend.path}"'
    host, number = (backend.port.host, backend.port.number) if backend.port else ("", 0)
    return f'"host" => "{host}", "port" => {number}'


def _cgi_heading(site: Site) -> list[str]:
    words = [site.program, "serve", site.app, *site.flags]
    return [
        f"{site.app} as a CGI script, a process for each request. {site.backends[0].path} is, executable,",
        "",
        "  #!/bin/sh",
        f"  cd {shlex.quote(site.app_dir)} && exec {shlex.join(words)}",
        "",
        "or, which starts faster, a Python program with gateways.cgi.run(app).",
    ]


def _script(site: Site) -> list[str]:
    script = quoted(str(site.backends[0].path))
    # "/" is replaced by the path of the script, which has to end likewise.
    target = script if site.mount else f'{script[:-1]}/"'
    lines = [
        f'alias.url += ( "{site.mount or "/"}" => {target} )',
        'cgi.assign = ( "" => "" )',
        "# Bytes of an answer are passed on only when they are asked for, and a script that is silent is ended.",
        f'cgi.limits = ( "read-timeout" => {site.patience}, "tcp-fin-propagate" => "SIGTERM" )',
    ]
    if site.mount:
        return [f'$HTTP["url"] =~ "^{re.escape(site.mount)}(?:/|$)" {{', *indented(lines), "}"]
    return _unless_static(site, lines)
