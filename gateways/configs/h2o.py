"""h2o 2.2, which speaks FastCGI. Its configuration is YAML, of which JSON is a part."""

from __future__ import annotations

import json

from gateways.configs.site import KEEP, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/h2o/h2o.conf, in place of its hosts"
CHECK = "h2o -t -c /etc/h2o/h2o.conf && systemctl restart h2o"
GROUP = "debian-h2o"


def render(site: Site) -> str:
    """The text for h2o.conf, from ``hosts:`` on. Raises Refused."""
    protocol = site.only("h2o", "fastcgi", several=False)
    port = site.port
    # h2o names no mount: PATH_INFO is the whole path.
    lines = commented(site.heading("h2o", protocol))
    body = [
        "listen:",
        *([f"  host: {quoted(port.host)}"] if port.host else []),
        f"  port: {port.number}",
        "# For TLS: ssl: {certificate-file: ..., key-file: ...} below port",
        "paths:",
    ]
    for path, folder in site.static:
        body += [
            f"  {quoted(path)}:",
            f"    file.dir: {quoted(folder)}",
            '    header.set: "X-Content-Type-Options: nosniff"',
        ]
    [backend] = site.backends
    body += [f"  {quoted(site.mount or '/')}:", *_refusing_proxy(), "    fastcgi.connect:"]
    if backend.path:
        body += [f"      port: {quoted(backend.path)}", "      type: unix"]
    elif backend.port is not None:
        body += [
            f"      host: {quoted(str(backend.port.host))}",
            f"      port: {backend.port.number}",
            "      type: tcp",
        ]
    less = "Let --timeout-request be less" if site.timeout_request is None else "More than --timeout-request"
    body += [
        "# There are no files: this is only what DOCUMENT_ROOT says.",
        "fastcgi.document_root: /nonexistent",
        f"# Milliseconds of silence. {less}, so that it is the application that answers.",
        f"fastcgi.timeout.io: {1000 * site.patience}",
        f"# Connections are kept, for less time than --timeout-idle ({5 * KEEP} seconds).",
        f"fastcgi.timeout.keepalive: {1000 * KEEP}",
    ]
    settings = [
        *(
            []
            if site.max_body is None
            else ["# Bytes of a request body; above it 413.", f"limit-request-body: {site.max_body}"]
        ),
        "# h2o hands on every field that a client sends: X_Auth_User, which an application cannot tell from",
        "# X-Auth-User, and X-Forwarded-For as well. Believe none of them behind it, and no --trust-forwarded.",
        "# It collects a request's body, and passes an answer on as it comes.",
    ]
    name = site.server_name if port.number == 80 else f"{site.server_name}:{port.number}"
    return "\n".join([*lines, "", *settings, "hosts:", f"  {quoted(name)}:", *indented(body)]) + "\n"


def _refusing_proxy() -> list[str]:
    return [
        "    # Refused: a field Proxy, which programs take for the proxy of outgoing requests.",
        "    mruby.handler: |",
        '      Proc.new {|env| env["HTTP_PROXY"] ? [400, {}, ["400 Bad Request\\n"]] : [399, {}, []] }',
    ]


def quoted(text: str) -> str:
    """A string of YAML."""
    return json.dumps(text, ensure_ascii=False)
