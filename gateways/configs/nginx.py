"""nginx, which speaks FastCGI and SCGI (1.22 of Debian 12)."""

from __future__ import annotations

import re

from gateways.configs.site import KEEP, Backend, Refused, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/nginx/conf.d/{name}.conf"
CHECK = "nginx -t && systemctl reload nginx"
GROUP = "www-data"

_VARIABLES = (
    ("QUERY_STRING", "$query_string"),
    ("REQUEST_METHOD", "$request_method"),
    ("CONTENT_TYPE", "$content_type"),
    ("REQUEST_URI", "$request_uri"),
    ("DOCUMENT_URI", "$document_uri"),
    ("SERVER_PROTOCOL", "$server_protocol"),
    ("REQUEST_SCHEME", "$scheme"),
    ("HTTPS", "$https if_not_empty"),
    ("REMOTE_ADDR", "$remote_addr"),
    ("REMOTE_PORT", "$remote_port"),
    ("SERVER_ADDR", "$server_addr"),
    ("SERVER_PORT", "$server_port"),
    ("SERVER_NAME", "$server_name"),
)
#: nginx writes CONTENT_LENGTH itself over SCGI. Without SERVER_SOFTWARE we know its SCGI, and mend its lengths.
_OF_FASTCGI = (
    ("CONTENT_LENGTH", "$content_length"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx/$nginx_version"),
)
_OF_SCGI = (("SCGI", "1"),)
_NOT_FROM_CLIENTS = ("FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO")


def render(site: Site) -> str:
    """The text for /etc/nginx/conf.d. Raises Refused."""
    protocol = site.only("nginx", "fastcgi", "scgi")
    group = f"gateways_{site.name.replace('-', '_')}"
    lines = commented(site.heading("nginx", protocol))
    lines += ["", *_upstream(site, protocol, group), "", "server {"]
    lines += indented(_server(site))
    for path, folder in site.static:
        lines += ["", *indented(_static(path, folder))]
    lines += ["", *indented(_location(site, protocol, group)), "}"]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string of nginx. Raises Refused for "$", which begins a variable and cannot be written otherwise."""
    if "$" in text:
        raise Refused(f'nginx takes "$" for a variable, and knows no other way to write it: {text!r}')
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _upstream(site: Site, protocol: str, group: str) -> list[str]:
    several = " max_fails=1 fail_timeout=5s" if len(site.backends) > 1 else ""
    lines = [f"server {_address(backend)}{several};" for backend in site.backends]
    if len(site.backends) > 1:
        lines = [
            "# The one with the fewest requests is next. One that fails is left alone for 5 seconds.",
            "least_conn;",
            *lines,
        ]
    if protocol == "fastcgi":
        lines += [
            f"# Connections that each worker of nginx keeps, for less time than --timeout-idle ({5 * KEEP} seconds).",
            "keepalive 16;",
            f"keepalive_timeout {KEEP}s;",
        ]
    return [f"upstream {group} {{", *indented(lines), "}"]


def _address(backend: Backend) -> str:
    return f"unix:{backend.path}" if backend.path else str(backend.port)


def _server(site: Site) -> list[str]:
    port = site.port
    listen = [f"listen {port};"] if port.host else [f"listen {port};", f"listen [::]:{port};"]
    limit = "0" if site.max_body is None else str(site.max_body)
    return [
        "# For TLS: listen 443 ssl; ssl_certificate ...; ssl_certificate_key ...;",
        *listen,
        f"server_name {site.server_name};",
        "server_tokens off;",
        "",
        '# X_Auth_User and X-Auth-User are one variable to an application: the one with "_" is dropped. nginx takes',
        "# these two lines from the default server of a port, so they belong there as well if that is another one.",
        "underscores_in_headers off;",
        "ignore_invalid_headers on;",
        "",
        "# Bytes of a request body; above it 413. 0 is no limit.",
        f"client_max_body_size {limit};",
    ]


def _static(path: str, folder: str) -> list[str]:
    # With a slash at the end of one only, /static../ would lead out of the folder.
    return [
        f"location ^~ {path}/ {{",
        f"    alias {quoted(folder.rstrip('/') + '/')};",
        "    add_header X-Content-Type-Options nosniff;",
        "}",
    ]


def _location(site: Site, protocol: str, group: str) -> list[str]:
    if site.mount:
        # \z and (?s): a path with a line break in it is divided like any other.
        lines = [
            "# SCRIPT_NAME is the mount, PATH_INFO what follows it, line breaks included (%0A).",
            rf'location ~ "(?s)^{re.escape(site.mount)}(?<gateways_path_info>/.*)?\z" {{',
        ]
        rest = "$gateways_path_info"
    else:
        lines = ["location / {"]
        rest = "$document_uri"
    body = [
        *_variables(site, protocol, rest),
        "",
        *_manners(site, protocol),
        "",
        f"{protocol}_pass {group};",
    ]
    return [*lines, *indented(body), "}"]


def _variables(site: Site, protocol: str, rest: str) -> list[str]:
    own = _OF_FASTCGI if protocol == "fastcgi" else _OF_SCGI
    # Debian's fastcgi_params say $host, which has no port: browsers name it in Origin, and forms are refused.
    host = "$host" if site.port.number in (80, 443) else "$host:$server_port"
    split = (("SCRIPT_NAME", f'"{site.mount}"'), ("PATH_INFO", rest))
    lines = [_param(protocol, *pair) for pair in (*_VARIABLES, *own, *split)]
    lines += [
        "# The host of the request line before that of the Host field.",
        _param(protocol, "HTTP_HOST", host),
        "# Not for clients to say: the proxy of outgoing requests, and (unless another proxy is in front, which",
        "# says so truly; then it is --trust-forwarded) who they are and how they came.",
        _param(protocol, "HTTP_PROXY", '"" if_not_empty'),
        *[_param(protocol, f"HTTP_{name}", '"" if_not_empty') for name in _NOT_FROM_CLIENTS],
        "# REMOTE_USER is left out: nginx fills it from credentials that nobody has checked. With auth_basic, add",
        f"# {_param(protocol, 'REMOTE_USER', '$remote_user')}  and serve with --trust-remote-user.",
    ]
    return lines


def _param(protocol: str, name: str, value: str) -> str:
    return f"{protocol}_param {name} {value};"


def _manners(site: Site, protocol: str) -> list[str]:
    lines = [f"{protocol}_keep_conn on;"] if protocol == "fastcgi" else []
    lines += [f"{protocol}_connect_timeout 5s;"]
    if site.timeout_request is None:
        lines += ["# Seconds of silence. Let --timeout-request be less, so that it is the application that answers."]
    else:
        lines += ["# Seconds of silence: more than --timeout-request, so that it is the application that answers."]
    lines += [f"{protocol}_read_timeout {site.patience}s;"]
    lines += _streaming(site, protocol)
    if len(site.backends) > 1:
        lines += [
            "",
            "# Asked again elsewhere: what found nobody, what got no answer, and what found an application that is",
            "# full; POST, PATCH and LOCK only if nothing of them has been sent. Never later than after 10 seconds.",
            f"{protocol}_next_upstream error timeout invalid_header http_503;",
            f"{protocol}_next_upstream_tries {len(site.backends)};",
            f"{protocol}_next_upstream_timeout 10s;",
        ]
    return lines


def _streaming(site: Site, protocol: str) -> list[str]:
    if protocol == "fastcgi":
        if site.streaming:
            return [
                "# Answers are passed on as they come, and so are uploads (which are then asked once only).",
                "fastcgi_buffering off;",
                "fastcgi_request_buffering off;",
            ]
        return [
            "# For events and streams: an answer with X-Accel-Buffering: no, or for all answers (--streaming)",
            "# fastcgi_buffering off;",
            "# and for uploads that the handler reads as they come",
            "# fastcgi_request_buffering off;",
        ]
    lines = (
        ["# Answers are passed on as they come.", "scgi_buffering off;"]
        if site.streaming
        else [
            "# For events and streams: an answer with X-Accel-Buffering: no, or for all answers (--streaming)",
            "# scgi_buffering off;",
        ]
    )
    return [*lines, "# Without it nginx announces bodies as shorter than they are.", "scgi_request_buffering on;"]
