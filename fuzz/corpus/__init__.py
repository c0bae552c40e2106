"""The inputs that a search starts from: one folder for each target, one small file for each case.

    python -m fuzz.corpus

writes them again, from what web servers really sent and from the cases below. A finding becomes a case here, under a
name that says what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tests.captures import load_web
from tests.fastcgi.tools import (
    ABORT,
    BEGIN,
    DATA,
    GET,
    GET_VALUES,
    KEEP,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    begin,
    end,
    pair,
    rec,
    request,
)

FOLDER = Path(__file__).parent

#: One capture of each web server and each kind of input, by its id.
CAPTURES = (
    "apache.fcgi-generic.head",
    "apache.fcgid.cookie-x2",
    "caddy.fcgi-root.absolute-form",
    "h2o.fcgi-root.cookie-x2",
    "haproxy.fcgi-mpx.disconnect-waiting",
    "haproxy.fcgi-root.post-5",
    "haproxy.fcgi-root.post-slow-length",
    "lighttpd.fcgi-authorizer.get-app.auth-deny-403.auth",
    "lighttpd.fcgi-ext-stream.post-chunked-3",
    "nginx.fcgi-pathinfo.post-5",
    "nginx.fcgi-root.post-slow-chunked",
)

_ASKED = b"".join(pair(name, b"") for name in (b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS", b"OTHER"))
_HEAD = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"

#: Name -> the first byte of the input (see the target), and the stream.
SERVER = {
    "get": (0x00, request()),
    "post-in-pieces": (0x10, request(body=None) + rec(STDIN, 1, b"he", 6) + rec(STDIN, 1, b"llo", 255) + rec(STDIN, 1)),
    "connection-ends-with-the-request": (0x00, request(flags=0) + request(2)),
    "params-in-one-byte-records": (
        0x10,
        begin() + b"".join(rec(PARAMS, 1, GET[i : i + 1]) for i in range(len(GET))) + rec(PARAMS, 1) + rec(STDIN, 1),
    ),
    "authorizer": (0x08, request(role=2)),
    "filter": (0x18, request(role=3, body=b"form") + rec(DATA, 1, b"file") + rec(DATA, 1)),
    "filter-out-of-order": (0x18, request(role=3, body=None) + rec(DATA, 1, b"file")),
    "unknown-role": (0x00, request(role=9) + request(2)),
    "two-at-once": (0x10, begin(1) + begin(2) + request(2)[16:] + request(1)[16:]),
    "two-at-once-one-broken": (0x90, request(1, body=None) + request(2) + rec(STDIN, 1)),
    "one-at-a-time": (0x11, begin(1) + request(2) + request(1)[16:]),
    "overloaded": (0x13, begin(1) + begin(2) + begin(3) + request(2)[16:] + rec(STDIN, 3)),
    "begin-twice": (0x10, begin() + begin()),
    "begin-too-short": (0x00, rec(BEGIN, 1, struct.pack(">HB", 1, KEEP))),
    "begin-too-long": (0x04, rec(BEGIN, 1, struct.pack(">HB5x", 1, KEEP) + b"more")),
    "abort-before-params-end": (0x00, begin() + rec(PARAMS, 1, GET) + rec(ABORT, 1) + rec(PARAMS, 1) + request()),
    "abort": (0x30, request(body=None) + rec(STDIN, 1, b"x") + rec(ABORT, 1) + rec(STDIN, 1, b"y") + rec(STDIN, 1)),
    "early-answer-late-body": (0x00, request(body=None) + rec(STDIN, 1, b"late") + rec(STDIN, 1) + request()),
    "stdin-before-params": (0x13, begin() + rec(STDIN, 1, b"early") + rec(PARAMS, 1, GET) + rec(PARAMS, 1)),
    "too-much-stdin-before-params": (0x13, begin() + rec(STDIN, 1, b"early") * 5),
    "params-after-their-end": (0x10, request(body=None) + rec(PARAMS, 1, GET)),
    "params-cut-short": (0x00, request(params=GET + b"\5\5SHORT")),
    "params-of-4-gib": (0x00, request(params=b"\xff" * 8 + b"A")),
    "too-many-params": (0x02, request(params=GET * 9)),
    "get-values": (0x00, rec(GET_VALUES, 0, _ASKED, 3) + begin() + rec(GET_VALUES, 0, _ASKED) + request()[16:]),
    "unknown-types": (0x10, rec(100, 0, b"?") + request(body=None) + rec(100, 1, b"?") + rec(STDIN, 1)),
    "from-the-wrong-side": (0x10, request(body=None) + rec(STDOUT, 1, _HEAD) + end(1) + rec(STDIN, 1)),
    "version-2": (0x10, request(body=None) + rec(STDIN, 1, b"x", version=2)),
    "http": (0x00, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
}
CLIENT = {
    "response": (0x00, rec(STDOUT, 1, _HEAD + b"hello") + rec(STDOUT, 1) + end()),
    "response-like-php": (0x00, rec(STDOUT, 1, _HEAD + b"hello") + end()),
    "head-in-pieces": (0x00, rec(STDOUT, 1, _HEAD[:20], 4) + rec(STDOUT, 1, _HEAD[20:], 255) + rec(STDOUT, 1) + end()),
    "head-too-long": (0x01, rec(STDOUT, 1, b"X: " + b"y" * 200 + b"\r\n\r\n") + rec(STDOUT, 1) + end()),
    "no-head": (0x00, rec(STDOUT, 1) + end()),
    "bad-head": (0x02, rec(STDOUT, 1, b"<html>\n\n") + rec(STDERR, 1, b"why") + rec(STDOUT, 1) + end() + end(2, 0, 2)),
    "log": (0x01, rec(STDERR, 1, b"a longer text") + rec(STDOUT, 1, _HEAD) + rec(STDOUT, 1) + rec(STDERR, 1) + end()),
    "mixed": (
        0x06,
        b"".join(rec(STDOUT, i, _HEAD) for i in (3, 1, 2, 4))
        + b"".join(rec(STDOUT, i, b"body", i) for i in (4, 2, 1, 3))
        + b"".join(rec(STDOUT, i) + end(i) for i in (1, 2, 3, 4)),
    ),
    "broken-off-beside-another": (0x02, rec(STDOUT, 1, _HEAD) + end(1, 1) + rec(STDOUT, 2, _HEAD) + end(2)),
    "rejected": (0x06, end(1, 0, 1) + end(2, 0, 2) + end(3, 0, 3) + end(4, 0, 9)),
    "end-too-short": (0x00, rec(STDOUT, 1, _HEAD) + rec(3, 1, bytes(4))),
    "after-the-end": (0x00, rec(STDOUT, 1, _HEAD) + end() + rec(STDOUT, 1, b"more")),
    "stdout-after-its-end": (0x00, rec(STDOUT, 1, _HEAD) + rec(STDOUT, 1) + rec(STDOUT, 1, b"more") + end()),
    "of-nobody": (0x02, rec(STDOUT, 7, _HEAD)),
    "aborted": (0x40, rec(STDOUT, 1, _HEAD[:9]) + rec(STDERR, 1, b"stopping") + end(1, 1)),
    "values": (0x80, rec(RESULT, 0, pair(b"FCGI_MAX_REQS", b"50") + pair(b"OTHER", b"1")) + rec(UNKNOWN, 0, bytes(8))),
    "values-cut-short": (0x80, rec(RESULT, 0, b"\x0d\x02FCGI_MAX")),
    "version-0": (0x00, rec(STDOUT, 1, _HEAD) + rec(STDOUT, 1, b"x", version=0)),
    "http": (0x00, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


def cases() -> Iterator[tuple[str, str, bytes]]:
    """Target, name and bytes of every file."""
    captures = {capture.id: capture.wire for capture in load_web()}
    for name in CAPTURES:
        yield "fastcgi_server", name, b"\x18\x00" + captures[name]
    for target, named in (("fastcgi_server", SERVER), ("fastcgi_client", CLIENT)):
        for seed, (name, (choice, stream)) in enumerate(named.items()):
            yield target, name, bytes((choice, seed)) + stream


def write(folder: Path = FOLDER) -> int:
    """Write every file, and give their number."""
    count = 0
    for target, name, data in cases():
        (folder / target).mkdir(exist_ok=True)
        (folder / target / name).write_bytes(data)
        count += 1
    return count


def load(target: str) -> list[bytes]:
    """The inputs for one target, in the order of their names."""
    return [path.read_bytes() for path in sorted((FOLDER / target).iterdir())]
