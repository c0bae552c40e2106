"""HAProxy 2.2 and later, which speaks FastCGI and spreads it over several machines."""

from __future__ import annotations

import re

from gateways.configs.site import Backend, Refused, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "the end of /etc/haproxy/haproxy.cfg"
CHECK = "haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy"
GROUP = "haproxy"

_NOT_FROM_CLIENTS = ("Proxy", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")


def render(site: Site) -> str:
    """The text for haproxy.cfg. Raises Refused."""
    protocol = site.only("HAProxy", "fastcgi")
    if site.static:
        raise Refused("HAProxy serves no files: leave --static to a web server, or the application")
    lines = commented(site.heading("HAProxy", protocol, mount="/"))
    if any(backend.path for backend in site.backends):
        lines += commented(
            ["Debian's HAProxy lives in /var/lib/haproxy (chroot): a socket has to be in there, or the line to go."]
        )
    for title, body in (
        (f"frontend {site.name}-clients", _frontend(site)),
        (f"backend {site.name}", _backend(site)),
        (f"fcgi-app {site.name}", _application(site)),
    ):
        lines += ["", title, *indented(body)]
    return "\n".join(lines) + "\n"


def _frontend(site: Site) -> list[str]:
    port = site.port
    limit = (
        []
        if site.max_body is None
        else [
            "# Bytes of a request body that is announced; above it 413. (--limit-read is for the others.)",
            f"http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt {site.max_body} }}",
        ]
    )
    lines = [
        "# For TLS: bind :443 ssl crt /etc/haproxy/site.pem alpn h2,http/1.1",
        f"bind {port if port.host else f':{port}'}",
        "mode http",
        "timeout client 60s",
        "timeout http-request 10s",
        "timeout http-keep-alive 60s",
        "",
        *limit,
        "# Not for clients to say: the proxy of outgoing requests, and (unless another proxy is in front, which",
        "# says so truly; then it is --trust-forwarded) who they are and how they came.",
        *[f"http-request del-header {name}" for name in _NOT_FROM_CLIENTS],
        '# X_Auth_User and X-Auth-User are one variable to an application: the one with "_" is dropped.',
        "option http-restrict-req-hdr-names delete",
        "",
    ]
    if site.mount:
        return [*lines, f"use_backend {site.name} if {{ path {site.mount} }} or {{ path_beg {site.mount}/ }}"]
    return [*lines, f"default_backend {site.name}"]


def _backend(site: Site) -> list[str]:
    less = "Let --timeout-request be less" if site.timeout_request is None else "More than --timeout-request"
    several = len(site.backends) > 1
    lines = [
        "mode http",
        f"use-fcgi-app {site.name}",
        "timeout connect 2s",
        f"# Silence. {less}, so that it is the application that answers.",
        f"timeout server {site.patience}s",
        "# HAProxy passes everything on as it comes: there is nothing to say for events and streams.",
        "",
        "# Tried again: what found nobody and, unless it may have had an effect, what got no answer.",
        "retries 3",
        "retry-on conn-failure empty-response",
        "http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE PUT DELETE }",
    ]
    if several:
        lines += ["# Another one is asked then.", "option redispatch 1", "balance leastconn"]
    check = ""
    if site.ping_path:
        host = site.server_name
        lines += [
            "",
            "# Every 2 seconds; 2 failures in a row and it is asked nothing more, until it has answered 2 times.",
            "option httpchk",
            f"http-check send meth GET uri {site.ping_path} ver HTTP/1.1 hdr Host {host}",
            "http-check expect status 200",
        ]
        check = " check inter 2s fall 2 rise 2"
    elif several:
        lines += ["# Whether it accepts connections, every 2 seconds. --ping-path asks it for an answer."]
        check = " check inter 2s fall 2 rise 2"
    observe = " observe layer4 error-limit 5 on-error mark-down" if several else ""
    lines += [""]
    for number, backend in enumerate(site.backends, 1):
        lines += [f"server {site.name}{number} {_address(backend)} proto fcgi{check}{observe}"]
    return lines


def _address(backend: Backend) -> str:
    return f"unix@{backend.path}" if backend.path else str(backend.port)


def _application(site: Site) -> list[str]:
    return [
        "# There are no files: this is only what DOCUMENT_ROOT says.",
        "docroot /nonexistent",
        "# SCRIPT_NAME is the mount, PATH_INFO what follows it.",
        f"path-info ^({re.escape(site.mount)})(/.*)?$",
        "# HAProxy keeps the Authorization field to itself otherwise.",
        "pass-header Authorization",
        "# Not what the client calls it.",
        f"set-param SERVER_NAME {site.server_name}",
        "log-stderr global",
    ]
