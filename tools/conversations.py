"""Drawings for the documentation of what two sides of a protocol say to each other, as SVG.

One request, ``POST /hi`` with the body ``ping``, and its answer, ``pong``. What is drawn is read off the bytes that the
classes of the package make. docs/conversations.py puts the drawings into pages.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from gateways import fastcgi, http, scgi
from gateways.cgi.wire import program_environment
from tools.pictures import BODY, ENVIRON, _svg

WIDTH = 336
LEFT, RIGHT = 36, 300
STEP = 34
HEAD = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"
ANSWER = b"pong"


class Said(NamedTuple):
    """One arrow: which way, what kind of thing, and in words."""

    forth: bool
    kind: str
    words: str


def over_fastcgi() -> list[Said]:
    web, app = fastcgi.ClientConnection(), fastcgi.ServerConnection()
    request = web.send_request(1, ENVIRON) + web.send_body(1, BODY) + web.end_body(1)
    app.receive_data(request)
    answer = app.send_head(1, HEAD) + app.send_body(1, ANSWER) + app.end(1)
    said = [Said(True, "framing", "connects")]
    for forth, data in ((True, request), (False, answer)):
        for record in fastcgi.dissect(data):
            name = str(record).split()[1]
            length = int.from_bytes(data[record.offset + 4 : record.offset + 6], "big")
            kind = (
                {"PARAMS": "variables", "STDIN": "body", "STDOUT": "body"}.get(name, "framing") if length else "framing"
            )
            what = f"{length} bytes" if length else "the end"
            said.append(Said(forth, kind, name if name.endswith("REQUEST") else f"{name}, {what}"))
    assert app.closing
    return [*said, Said(False, "framing", "closes")]


def over_scgi() -> list[Said]:
    web, app = scgi.ClientConnection(), scgi.ServerConnection()
    variables = web.send_request(0, ENVIRON)
    app.receive_data(variables + web.send_body(0, BODY) + web.end_body(0))
    head, body = app.send_head(0, HEAD), app.send_body(0, ANSWER)
    app.end(0)
    assert app.closing
    return [
        Said(True, "framing", "connects"),
        Said(True, "variables", f"the variables, {len(variables)} bytes"),
        Said(True, "body", f"the body, {len(BODY)} bytes"),
        Said(False, "variables", f"the head, {len(head)} bytes"),
        Said(False, "body", f"the body, {len(body)} bytes"),
        Said(False, "framing", "closes"),
    ]


def over_cgi() -> list[Said]:
    environ = program_environment(ENVIRON, {})
    return [
        Said(True, "framing", "starts a process"),
        Said(True, "variables", f"{len(environ)} variables in its environment"),
        Said(True, "body", f"{len(BODY)} bytes on its standard input"),
        Said(False, "variables", f"the head on standard output, {len(HEAD)} bytes"),
        Said(False, "body", f"the body, {len(ANSWER)} bytes"),
        Said(False, "framing", "exits with status 0"),
    ]


def over_http() -> list[Said]:
    app = http.ServerConnection()
    lines = b"POST /hi HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n\r\n"
    app.receive_data(lines + BODY)
    head = app.send_head(0, HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n"))
    first = head.partition(b"\r\n")[0].decode()
    return [
        Said(True, "framing", "connects"),
        Said(True, "variables", f"POST /hi HTTP/1.1 and fields, {len(lines)} bytes"),
        Said(True, "body", f"the body, {len(BODY)} bytes"),
        Said(False, "variables", f"{first} and fields"),
        Said(False, "body", f"the body, {len(ANSWER)} bytes"),
    ]


#: Who speaks, and what they say.
CONVERSATIONS = {
    "fastcgi": ("web server", "application", over_fastcgi),
    "scgi": ("web server", "application", over_scgi),
    "cgi": ("web server", "program", over_cgi),
    "http": ("client", "web server", over_http),
}


def svg_of(protocol: str) -> str:
    """The conversation: a line for each side, an arrow for each thing that is sent."""
    one, other, speak = CONVERSATIONS[protocol]
    said = speak()
    bottom = 34 + STEP * len(said) + 4
    drawn = []
    for x, at, anchor, name in ((LEFT, 0, "start", one), (RIGHT, WIDTH, "end", other)):
        drawn.append(f'<text class="title" x="{at}" y="17" text-anchor="{anchor}">{escape(name)}</text>')
        drawn.append(f'<path class="arrow" d="M{x} 26V{bottom}"/>')
    for number, (forth, kind, words) in enumerate(said, 1):
        y = 34 + STEP * number - 6
        start, end, tip = (LEFT + 4, RIGHT - 8, 7) if forth else (RIGHT - 4, LEFT + 8, -7)
        middle = (LEFT + RIGHT) / 2
        drawn.append(
            f'<text x="{middle:g}" y="{y - 7}" text-anchor="middle">'
            f'<tspan class="{kind}">{escape(words)}</tspan></text>'
        )
        drawn.append(
            f'<path class="arrow" d="M{start} {y}H{end}"/><path class="head" d="M{end + tip} {y}l{-tip} -4v8z"/>'
        )
    listed = "; ".join(f"the {one if forth else other}: {words}" for forth, _, words in said)
    return _svg("conversation", WIDTH, bottom + 4, f"{listed}.", drawn)
