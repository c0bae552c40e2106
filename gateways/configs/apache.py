"""Apache httpd 2.4, which speaks FastCGI and SCGI (mod_proxy_fcgi, mod_proxy_scgi) and runs CGI scripts."""

from __future__ import annotations

import os.path
import re
import shlex

from gateways.configs.site import KEEP, Backend, Refused, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/apache2/sites-available/{name}.conf"
CHECK = "a2ensite {name} && apachectl configtest && systemctl reload apache2"
GROUP = "www-data"

_NOT_FROM_CLIENTS = ("Proxy", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")


def render(site: Site) -> str:
    """The text for /etc/apache2/sites-available. Raises Refused."""
    protocol = site.only("Apache", "fastcgi", "scgi", "cgi")
    lines = commented(_cgi_heading(site) if protocol == "cgi" else site.heading("Apache", protocol, mount="/"))
    lines += commented(["", f"a2enmod {_modules(site, protocol)}"])
    port = site.port
    lines += ["", f"Listen {port}"] if site.listen else []
    lines += ["", f"<VirtualHost {port if port.host else f'*:{port}'}>", *indented(_server(site, protocol))]
    if protocol == "cgi":
        lines += ["", *indented(_script(site))]
    else:
        if len(site.backends) > 1:
            lines += ["", *indented(_balancer(site, protocol))]
        lines += ["", *indented(_proxy(site, protocol))]
    for path, folder in site.static:
        lines += ["", *indented(_static(path, folder, protocol))]
    lines += ["</VirtualHost>"]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string of Apache. Raises Refused for what begins a variable, and for a backslash, which joins lines."""
    if "${" in text or "%{" in text or "\\" in text:
        raise Refused(f"Apache takes ${{, %{{ and a backslash for something else: {text!r}")
    return '"' + text.replace('"', '\\"') + '"'


def _modules(site: Site, protocol: str) -> str:
    if protocol == "cgi":
        return "alias cgid headers"
    names = ["alias", "headers", "proxy", *{"fastcgi": ["proxy_fcgi", "rewrite"], "scgi": ["proxy_scgi"]}[protocol]]
    return " ".join([*names, *(["proxy_balancer", "lbmethod_bybusyness"] if len(site.backends) > 1 else [])])


def _server(site: Site, protocol: str) -> list[str]:
    limit = 0 if site.max_body is None else site.max_body
    # mod_proxy_fcgi of 2.4 does not look at LimitRequestBody.
    announced = [
        "RewriteEngine On",
        f'RewriteCond expr "%{{HTTP:Content-Length}} -gt {limit}"',
        "RewriteRule ^ - [R=413,L]",
    ]
    return [
        "# For TLS: a2enmod ssl; <VirtualHost *:443>; SSLEngine on; SSLCertificateFile ...; SSLCertificateKeyFile ...",
        f"ServerName {site.server_name}",
        "# SERVER_NAME and SERVER_PORT are those above, and not what a client claims.",
        "UseCanonicalName On",
        "UseCanonicalPhysicalPort On",
        "",
        "# %2F in a path reaches the application as a slash; otherwise it is a 404.",
        "AllowEncodedSlashes On",
        "",
        "# Bytes of a request body; above it 413. 0 is no limit.",
        f"LimitRequestBody {limit}",
        *(
            ["# The same for mod_proxy_fcgi, where the body has a length.", *announced]
            if protocol == "fastcgi" and limit
            else []
        ),
        "",
        "# Not for clients to say: the proxy of outgoing requests, and (unless another proxy is in front, which",
        "# says so truly; then it is --trust-forwarded) who they are and how they came. Fields with an underscore in",
        "# their name, which could pass for others, Apache drops by itself.",
        *[f"RequestHeader unset {name}" for name in _NOT_FROM_CLIENTS],
    ]


def _static(path: str, folder: str, protocol: str) -> list[str]:
    inside = quoted(folder.rstrip("/") + "/")
    return [
        *([f'<Location "{path}/">', '    ProxyPass "!"', "</Location>"] if protocol != "cgi" else []),
        f'Alias "{path}/" {inside}',
        f"<Directory {inside}>",
        "    Require all granted",
        "    Options None",
        "    AllowOverride None",
        "    Header set X-Content-Type-Options nosniff",
        "</Directory>",
    ]


def _settings(site: Site, protocol: str) -> str:
    reuse = f"enablereuse=on ttl={KEEP} " if protocol == "fastcgi" else ""
    flush = "flushpackets=on " if site.streaming else ""
    return f"{reuse}{flush}connectiontimeout=5 timeout={site.patience}"


def _scheme(protocol: str) -> str:
    return {"fastcgi": "fcgi", "scgi": "scgi"}[protocol]


def _address(site: Site, backend: Backend) -> str:
    scheme = _scheme(backend.protocol)
    # Workers are told apart by what stands for the host.
    return (
        f"unix:{backend.path}|{scheme}://{site.name.replace('_', '-')}"
        if backend.path
        else f"{scheme}://{backend.port}"
    )


def _proxy(site: Site, protocol: str) -> list[str]:
    where = site.mount or "/"
    [only, *others] = site.backends
    target = f"balancer://{site.name}" if others else _address(site, only)
    settings = "" if others else f" {_settings(site, protocol)} retry=0"
    body = [*([] if others else _about(site, protocol)), f'ProxyPass "{target}{where}"{settings}']
    if protocol == "fastcgi":
        body += [
            "# Plain variables: the mount and what follows it, and none about the files of this machine.",
            "ProxyFCGIBackendType GENERIC",
            f'ProxyFCGISetEnvIf "reqenv(\'SCRIPT_NAME\') =~ m#(?s)^{re.escape(site.mount)}(/.*)?\\z#" PATH_INFO "$1"',
            f'ProxyFCGISetEnvIf "true" SCRIPT_NAME "{site.mount}"',
            *[
                f'ProxyFCGISetEnvIf "true" !{name}'
                for name in (
                    "SCRIPT_FILENAME",
                    "DOCUMENT_ROOT",
                    "CONTEXT_DOCUMENT_ROOT",
                    "CONTEXT_PREFIX",
                    "PATH",
                    "SCRIPT_URL",
                    "SCRIPT_URI",
                )
            ],
        ]
    else:
        body += [
            "# mod_proxy_scgi refuses a body without a length (411), and sends an address for SCRIPT_FILENAME, which",
            "# gateways serve mends, and says so once. FastCGI is the better choice here.",
        ]
    body += ["# Apache keeps the Authorization field to itself otherwise.", "CGIPassAuth On"]
    return [f'<Location "{where}">', *indented(body), "</Location>"]


def _about(site: Site, protocol: str) -> list[str]:
    lines: list[str] = []
    if protocol == "fastcgi":
        lines += [f"# Connections are kept, for less time than --timeout-idle ({5 * KEEP} seconds)."]
    less = "Let --timeout-request be less" if site.timeout_request is None else "More than --timeout-request"
    lines += [f"# timeout: seconds of silence. {less}, so that it is the application that answers."]
    lines += ["# retry=0: an application that was away is asked again at once, and not after a minute."]
    if site.streaming:
        lines += ["# flushpackets: answers are passed on as they come."]
    else:
        lines += ["# For events and streams add flushpackets=on (--streaming)."]
    return lines


def _balancer(site: Site, protocol: str) -> list[str]:
    members = [
        f'BalancerMember "{_address(site, backend)}" {_settings(site, protocol)} retry=5' for backend in site.backends
    ]
    return [
        *_about(site, protocol)[:-2],
        "# One that cannot be reached is left alone for 5 seconds (retry=5), and its request asked of the next.",
        "# One that was asked and gives no answer costs the request: Apache does not ask twice.",
        f'<Proxy "balancer://{site.name}">',
        *indented([*members, "ProxySet lbmethod=bybusyness"]),
        "</Proxy>",
    ]


def _cgi_heading(site: Site) -> list[str]:
    script = str(site.backends[0].path)
    words = [site.program, "serve", site.app, *site.flags]
    return [
        f"{site.app} as a CGI script, a process for each request. {script} is, executable,",
        "",
        "  #!/bin/sh",
        f"  cd {shlex.quote(site.app_dir)} && exec {shlex.join(words)}",
        "",
        "or, which starts faster, a Python program with gateways.cgi.run(app). Nothing that is said after its name is",
        "handed on: those are words of the client.",
    ]


def _script(site: Site) -> list[str]:
    script = quoted(str(site.backends[0].path))
    where = site.mount or "/"
    folder = quoted(os.path.dirname(str(site.backends[0].path)) or "/")
    # "/" is replaced by the path of the script, which has to end likewise.
    target = script if site.mount else f'{script[:-1]}/"'
    return [
        f'ScriptAlias "{where}" {target}',
        f"<Directory {folder}>",
        "    Require all granted",
        "    Options ExecCGI",
        "    AllowOverride None",
        "</Directory>",
        f'<Location "{where}">',
        *indented(
            [
                "# Apache keeps the Authorization field to itself otherwise.",
                "CGIPassAuth On",
            ]
        ),
        "</Location>",
        "# Seconds of silence; a script has no other deadline.",
        f"CGIDScriptTimeout {site.patience}s",
        "# As another user than Apache's (mod_suexec): the script and its folder belong to that user and are writable",
        "# by nobody else, below the folder that suexec was built for (suexec -V; Debian: /var/www).",
        f"# SuexecUserGroup {site.user or 'app'} {site.user or 'app'}",
    ]
