"""What real web servers send, read off the recordings in tests/captures, for tables of the documentation.

docs/captured.py puts the tables into pages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.captures import Capture, load_web

#: Those of RFC 3875, section 4.1, and what web servers have added to them.
VARIABLES = """
AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE GATEWAY_INTERFACE PATH_INFO PATH_TRANSLATED QUERY_STRING REMOTE_ADDR REMOTE_HOST
REMOTE_IDENT REMOTE_USER REQUEST_METHOD SCRIPT_NAME SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_SOFTWARE

DOCUMENT_ROOT DOCUMENT_URI HTTPS REDIRECT_STATUS REMOTE_PORT REQUEST_SCHEME REQUEST_URI SCRIPT_FILENAME SERVER_ADDR
"""
#: Configurations that were made to send next to nothing.
BARE = ("fcgi-bare",)
#: How the names of the recordings are written; those that are not here are variants of others.
SERVERS = {
    "nginx": "nginx",
    "apache": "Apache",
    "lighttpd": "lighttpd",
    "haproxy": "HAProxy",
    "caddy": "Caddy",
    "h2o": "h2o",
    "mini-httpd": "mini_httpd",
    "busybox": "BusyBox",
}


def recorded(protocol: str) -> dict[str, list[Capture]]:
    """The requests to responders, by web server."""
    found: dict[str, list[Capture]] = defaultdict(list)
    for capture in load_web():
        role = capture.fcgi.role if capture.fcgi else None
        wanted = capture.protocol == protocol and capture.config not in BARE and role in (None, 1)
        if wanted and capture.front_end in SERVERS and capture.params:
            found[capture.front_end].append(capture)
    return {server: found[server] for server in SERVERS if server in found}


def variables(protocol: str) -> Iterator[tuple[str, str, str]]:
    """Each meta-variable, who sends it, and what it may be."""
    servers = recorded(protocol)
    for name in VARIABLES.split():
        always: list[str] = []
        sometimes: list[str] = []
        examples: list[str] = []
        for server, captures in servers.items():
            values = [dict(capture.params or ()).get(name) for capture in captures]
            examples += filter(None, values)
            if all(values):
                always.append(SERVERS[server])
            elif any(values):
                sometimes.append(SERVERS[server] + ("" if None in values else " (or empty)"))
            elif None not in values:
                sometimes.append(f"{SERVERS[server]} (empty)")
        if always or sometimes:
            who = ["all" if len(always) == len(servers) else ", ".join(always)] if always else []
            who += [f"now and then: {', '.join(sometimes)}"] if sometimes else []
            example = examples[0] if examples else ""
            yield (
                f"``{name}``",
                "; ".join(who),
                f"``{example[:40]}{'...' * (len(example) > 40)}``" if example else "\\-",
            )


def manners(protocol: str) -> Iterator[tuple[str, ...]]:
    """Each web server, and how it uses the protocol."""
    for server, captures in recorded(protocol).items():
        chunked = {
            dict(capture.params or ()).get("CONTENT_LENGTH")
            for capture in captures
            if capture.request == "post-chunked-3"
        }
        lengths = ", ".join(sorted("none" if length is None else f"``{length or 'empty'}``" for length in chunked))
        row = [f"{SERVERS[server]}\n\n{captures[0].version}", str(len(captures)), lengths or "not recorded"]
        if protocol == "fcgi":
            requests = [capture.fcgi for capture in captures if capture.fcgi]
            row += [
                _yes(request.flags and request.flags & 1 for request in requests),
                _yes(capture.management_records for capture in captures),
                _yes(capture.fcgi and capture.fcgi.abort for capture in _every(server)),
                _yes(padding for request in requests for _, _, padding in request.records),
            ]
        yield tuple(row)


def _every(server: str) -> list[Capture]:
    """Also those that hold no request: HAProxy's abort comes alone."""
    return [capture for capture in load_web() if capture.front_end == server and capture.protocol == "fcgi"]


def _yes(found: Iterable[object]) -> str:
    return "yes" if any(found) else "\\-"


_HEAD = ("web server", "recorded", "CONTENT_LENGTH of an upload in chunks")
HEADS = {
    "fcgi": (*_HEAD, "keeps connections", "asks GET_VALUES", "sends ABORT", "pads"),
    "scgi": _HEAD,
    "cgi": _HEAD,
}
