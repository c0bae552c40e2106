"""Pictures for the documentation, as SVG: one request as three protocols carry it, and the floors of the package.

They are made of what they show: the bytes are those of the real encoders, the names those of the folders. Text is
monospaced, and so its width is known without measuring it. Every picture is narrow enough for a telephone. The colours
are those of the page (docs/_static/custom.css), light or dark; docs/pictures.py puts the pictures there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

import attrs

import gateways
from gateways import fastcgi, scgi
from gateways.cgi.wire import program_environment

#: Of one character, in pixels.
CHARACTER = 6.7
LINE = 15
MARGIN = 8
#: Of one column of bytes, and of the floors.
COLUMN = 236
WIDTH = 336

# --- one request, three times ----------------------------------------------------------------------------------------

ENVIRON = {"REQUEST_METHOD": "POST", "PATH_INFO": "/hi", "CONTENT_LENGTH": "4"}
BODY = b"ping"


@attrs.frozen
class Span:
    """Some bytes. ``kind`` is "framing", "variables" or "body"; ``shown`` is how they are written."""

    kind: str
    data: bytes
    shown: str


@attrs.frozen
class Line:
    """Spans that stand beside each other."""

    spans: tuple[Span, ...]


@attrs.frozen
class Part:
    """Lines below a caption."""

    caption: str
    lines: tuple[Line, ...]


@attrs.frozen
class Column:
    """A request over one protocol. ``data`` is all that travels."""

    protocol: str
    travels: str
    data: bytes
    parts: tuple[Part, ...]


def _frame(data: bytes) -> Span:
    return Span("framing", data, data.hex(" "))


def _line(*spans: Span) -> Line:
    return Line(spans)


def columns() -> list[Column]:
    """The same request over CGI, SCGI and FastCGI."""
    return [_over_cgi(), _over_scgi(), _over_fastcgi()]


def _over_cgi() -> Column:
    environ = program_environment(ENVIRON, {})
    given = [(name, value) for name, value in environ.items() if name in ENVIRON]
    added = [(name, value) for name, value in environ.items() if name not in ENVIRON]
    block = b"".join(f"{name}={value}\0".encode() for name, value in [*given, *added])
    parts = (
        Part("the environment", tuple(_variable(name, "=", value, "\0") for name, value in given)),
        Part("and what CGI/1.1 asks for besides", tuple(_variable(name, "=", value, "\0") for name, value in added)),
        Part("standard input", (_line(Span("body", BODY, BODY.decode())),)),
    )
    return Column("CGI", "a process of its own", block + BODY, parts)


def _variable(name: str, between: str, value: str, end: str) -> Line:
    """A name and its value with the bytes that part them."""
    spans = [("variables", name), ("framing", between), ("variables", value), ("framing", end)]
    shown = {"\0": r"\0"}
    return Line(tuple(Span(kind, text.encode(), shown.get(text, text)) for kind, text in spans))


def _over_scgi() -> Column:
    web = scgi.ClientConnection()
    data = web.send_request(0, ENVIRON) + web.send_body(0, BODY) + web.end_body(0)
    length, _, rest = data.partition(b":")
    block, comma, body = rest[: int(length)], rest[int(length) : int(length) + 1], rest[int(length) + 1 :]
    texts = block.decode().split("\0")[:-1]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    parts = (
        Part("a netstring: its length", (_line(Span("framing", length + b":", f"{length.decode()}:")),)),
        Part("names and values", tuple(_variable(name, "\0", value, "\0") for name, value in pairs)),
        Part("its end", (_line(Span("framing", comma, ",")),)),
        Part("the body, as it is", (_line(Span("body", body, body.decode())),)),
    )
    return Column("SCGI", "a connection of its own", data, parts)


def _over_fastcgi() -> Column:
    web = fastcgi.ClientConnection()
    data = web.send_request(1, ENVIRON) + web.send_body(1, BODY) + web.end_body(1)
    parts: list[Part] = []
    for record in fastcgi.dissect(data):
        start = record.offset + 8
        header, content = data[record.offset : start], data[start : start + record.length]
        padding = data[start + record.length : start + record.length + record.padding]
        lines = [_line(_frame(header)), *_content(header[1], content)]
        if padding:
            lines.append(_line(_frame(padding)))
        parts.append(Part(_RECORDS[header[1]] if content else f"{_RECORDS[header[1]]}, empty: its end", tuple(lines)))
    return Column("FastCGI", "records on a connection", data, tuple(parts))


_RECORDS = {1: "BEGIN_REQUEST", 4: "PARAMS", 5: "STDIN"}


def _content(kind: int, content: bytes) -> Iterator[Line]:
    if kind == 5 and content:
        yield _line(Span("body", content, content.decode()))
    elif kind == 4:
        while content:
            name, value = content[0], content[1]  # one byte each: they are short
            pair, content = content[2 : 2 + name + value].decode(), content[2 + name + value :]
            lengths = _frame(bytes([name, value]))
            names = [Span("variables", text.encode(), text) for text in (pair[:name], pair[name:])]
            yield _line(lengths, Span("framing", b"", " "), names[0], Span("framing", b"", " "), names[1])
    elif content:
        yield _line(_frame(content))


def bytes_of(column: Column) -> bytes:
    """What its spans show, joined: all that travels."""
    return b"".join(span.data for part in column.parts for line in part.lines for span in line.spans)


def svg_of(column: Column) -> str:
    """One column of bytes."""
    drawn: list[str] = [
        f'<text class="title" x="{MARGIN}" y="17">{escape(column.protocol)}</text>',
        f'<text class="caption" x="{MARGIN}" y="33">{escape(column.travels)}, {len(column.data)} bytes</text>',
    ]
    y = 44.0
    for part in column.parts:
        height = 18 + LINE * len(part.lines) + 5
        drawn.append(f'<rect x="0.5" y="{y:g}" width="{COLUMN - 1}" height="{height}" rx="5"/>')
        drawn.append(f'<text class="caption" x="{MARGIN}" y="{y + 14:g}">{escape(part.caption)}</text>')
        for number, line in enumerate(part.lines, 1):
            spans = "".join(f'<tspan class="{each.kind}">{escape(each.shown)}</tspan>' for each in line.spans)
            drawn.append(f'<text x="{MARGIN}" y="{y + 14 + LINE * number:g}" xml:space="preserve">{spans}</text>')
        y += height + 5
    words = f"{column.protocol}: {', then '.join(part.caption for part in column.parts)}."
    return _svg("bytes", COLUMN, y, words, drawn)


def _svg(kind: str, width: float, height: float, words: str, drawn: list[str]) -> str:
    return (
        f'<svg class="picture {kind}" role="img" aria-label="{escape(words)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'
    )


# --- the floors ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Floor:
    """One floor: its number, what it is, and the files that are there."""

    number: str
    title: str
    about: str
    files: tuple[str, ...]
    #: What it talks to, outside of the package.
    outside: str = ""


def floors() -> list[Floor]:
    """The floors from the top, with the files that are there now."""
    package = Path(gateways.__file__).parent
    protocols = sorted(path.parent.name for path in package.glob("*/transport.py"))
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__", "events"}
    folders = {path.parent.name for path in package.glob("*/__init__.py")} - {
        *protocols,
        "_model",
        "_net",
        "_process",
        "cgi",
    }
    return [
        Floor(
            "5",
            "tools",
            "adapters, the command line, and what runs a server; against the public API",
            tuple(sorted(modules | folders)),
            "your application",
        ),
        Floor(
            "4",
            "transports, processes",
            "a protocol joined to the network; signals, users and workers",
            (*[f"{name}/transport" for name in protocols], "_process"),
        ),
        Floor("3", "the engine", "sockets, deadlines, cancellation; knows no protocol", ("_net",), "the web server"),
        Floor("2", "protocols", "each a class without I/O", ("cgi", *protocols, "events")),
        Floor("0, 1", "the model", "requests, responses, and the laws of the environ", ("_model",)),
    ]


#: What passes between the engine and a protocol.
SEAM = ("bytes → receive_data() → events", "send_head(), send_body(), end() → bytes")


def architecture() -> str:
    """The floors and the seam. Imports run downwards."""
    drawn: list[str] = []
    y, left = 4.0, 24
    inside = WIDTH - left - 2 * MARGIN
    top = y
    for floor in floors():
        names = textwrap.wrap(
            "  ".join(floor.files), int(inside / CHARACTER), break_long_words=False, break_on_hyphens=False
        )
        about = textwrap.wrap(floor.about, 52)
        height = 24 + 13 * len(about) + LINE * len(names) + 6
        drawn.append(f'<rect x="{left}" y="{y:g}" width="{WIDTH - left - 1}" height="{height}" rx="6"/>')
        drawn.append(
            f'<text class="title" x="{left + MARGIN}" y="{y + 18:g}">{escape(floor.title)}'
            f'<tspan class="caption">  floor {floor.number}</tspan></text>'
        )
        if floor.outside:
            drawn.append(
                f'<text class="caption outside" x="{WIDTH - MARGIN}" y="{y + 18:g}">⇄ {escape(floor.outside)}</text>'
            )
        at = y + 18
        for text in about:
            at += 13
            drawn.append(f'<text class="caption" x="{left + MARGIN}" y="{at:g}">{escape(text)}</text>')
        for text in names:
            at += LINE
            drawn.append(f'<text x="{left + MARGIN}" y="{at:g}">{escape(text)}</text>')
        y += height
        if floor.number == "3":
            y += 5
            drawn.append(f'<path class="seam" d="M{left} {y + 4:g}H{WIDTH - 1}"/>')
            for number, text in enumerate((f"the seam: {SEAM[0]}", SEAM[1])):
                drawn.append(
                    f'<text class="seam" x="{left + MARGIN}" y="{y + 18 + 14 * number:g}">{escape(text)}</text>'
                )
            y += 43
            drawn.append(f'<path class="seam" d="M{left} {y - 4:g}H{WIDTH - 1}"/>')
        y += 6
    bottom = y - 8
    drawn.append(f'<path class="arrow" d="M5 {top:g}V{bottom - 7:g}"/><path class="head" d="M5 {bottom:g}l-4 -7h8z"/>')
    drawn.append(f'<text class="caption" transform="translate(12 {top + 4:g}) rotate(90)">imports</text>')
    listed = "; ".join(f"floor {floor.number}, {floor.title}: {floor.about}" for floor in floors())
    return _svg("floors", WIDTH, y, f"The floors of the package, from the top: {listed}.", drawn)
