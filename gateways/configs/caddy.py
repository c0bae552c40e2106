"""Caddy 2, which speaks FastCGI."""

from __future__ import annotations

from gateways.configs.site import Backend, Refused, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/caddy/Caddyfile"
CHECK = "caddy validate --config /etc/caddy/Caddyfile --adapter caddyfile && systemctl reload caddy"
GROUP = "caddy"


def render(site: Site) -> str:
    """The text for a Caddyfile. Raises Refused."""
    protocol = site.only("Caddy", "fastcgi")
    port = site.port
    lines = commented(site.heading("Caddy", protocol))
    where = f"http://{site.server_name}" + ("" if port.number == 80 else f":{port.number}")
    bind = [] if port.host is None else [f"bind {port.host}"]
    body = [
        f"# Written as {site.server_name}, without http://, Caddy fetches a certificate for it.",
        *bind,
        *_server(site),
    ]
    for path, folder in site.static:
        body += ["", *_static(path, folder)]
    body += ["", *_application(site)]
    text = "\n".join([*lines, "", f"{where} {{", *indented(body, "\t"), "}"]) + "\n"
    if "{$" in text:  # replaced from the environment before anything is read, in comments as well
        raise Refused('Caddy takes "{$" for a variable of the environment wherever it stands')
    return text


def quoted(text: str) -> str:
    """A string of a Caddyfile. Raises Refused for braces, which are placeholders, and for backslashes."""
    if any(character in text for character in "{}\\"):
        raise Refused(f"Caddy takes braces for placeholders, and has no one way to write a backslash: {text!r}")
    return '"' + text.replace('"', '\\"') + '"'


def _server(site: Site) -> list[str]:
    limit = (
        []
        if site.max_body is None
        else ["# Bytes of a request body; above it 413.", "request_body {", f"\tmax_size {site.max_body}", "}"]
    )
    return [
        *limit,
        "# Not for clients to say: the proxy of outgoing requests; and a field with an underscore in its name, which",
        "# an application cannot tell from one with a hyphen. (X-Forwarded-For and its like Caddy sets by itself.)",
        "request_header -Proxy",
        "request_header -Forwarded",
        "request_header -*_*",
    ]


def _static(path: str, folder: str) -> list[str]:
    return [
        f"handle_path {path}/* {{",
        f"\troot * {quoted(folder)}",
        "\theader X-Content-Type-Options nosniff",
        "\tfile_server",
        "}",
    ]


def _application(site: Site) -> list[str]:
    if site.mount:
        lines = [f"@{site.name} path {site.mount} {site.mount}/*", f"handle @{site.name} {{"]
    else:
        lines = ["handle {"]
    addresses = " ".join(_address(backend) for backend in site.backends)
    lines += [f"\treverse_proxy {addresses} {{", *indented(_proxy(site), "\t\t"), "\t}", "}"]
    return [*lines, "", "handle {", "\trespond 404", "}"] if site.mount else lines


def _address(backend: Backend) -> str:
    return f"unix/{backend.path}" if backend.path else str(backend.port)


def _proxy(site: Site) -> list[str]:
    less = "Let --timeout-request be less" if site.timeout_request is None else "More than --timeout-request"
    lines = [
        "transport fastcgi {",
        "\t# There are no files: PATH_INFO is the whole path.",
        "\troot /nonexistent",
        "\tdial_timeout 5s",
        f"\t# Silence. {less}, so that it is the application that answers.",
        f"\tread_timeout {site.patience}s",
        "\twrite_timeout 60s",
        "}",
    ]
    if site.streaming:
        lines += ["# Answers are passed on as they come.", "flush_interval -1"]
    else:
        lines += [
            "# text/event-stream is passed on as it comes; so are all answers with (--streaming)",
            "# flush_interval -1",
        ]
    if len(site.backends) > 1:
        lines += [
            "# The one with the fewest requests is next. One that fails is left alone for 5 seconds, and its request",
            "# asked of another one if it is a GET (Caddy 2.6 does not even repeat a POST that found nobody).",
            "lb_policy least_conn",
            "lb_try_duration 5s",
            "max_fails 1",
            "fail_duration 5s",
        ]
    return lines
