"""A client of Gemini that takes nothing but what the strictest of the servers in front takes from us.

What they refuse was found out with each: gmid answers 42, or leaves its client hanging; molly-brown ends at a first
line without a word, and knows only what it reads first; jetforce refuses an empty line of metadata, GmCapsule a long
one.
"""

from __future__ import annotations

import attrs

__all__ = ["Refused", "Said", "read"]

#: gmid looks for the end of the line in so many bytes, GmCapsule wants the whole of it below the other.
GMID_LINE = 1029
GMCAPSULE_LINE = 1024


class Refused(Exception):
    """A server in front would not pass this on, or would not survive it."""


@attrs.frozen
class Said:
    """An answer of Gemini."""

    code: int
    meta: str
    body: bytes


def read(packets: list[bytes]) -> Said:
    """What a backend has answered, packet by packet. Raises Refused."""
    if not packets or not packets[0]:
        raise Refused("nothing at all: molly-brown's CGI ends with all its clients")
    first = packets[0]
    if not first.partition(b"\n")[0].split():
        raise Refused("a first line without a word: molly-brown ends with all its clients")
    end = first[:GMID_LINE].find(b"\r\n")
    if end < 0:
        raise Refused("no end of the line in the first packet")
    line = first[:end]
    if end + 2 >= GMCAPSULE_LINE:
        raise Refused(f"a line of {end + 2} bytes")
    if not line[:2].isdigit() or line[2:3] != b" ":
        raise Refused(f"not two digits and a blank: {line!r}")
    code = int(line[:2])
    if not 10 <= code <= 69:
        raise Refused(f"no status of Gemini: {code}")
    meta = line[3:].decode("utf-8")
    if not meta.strip():
        raise Refused("no metadata")
    if any(character < " " or character == "\x7f" for character in meta):
        raise Refused(f"a control in the metadata: {meta!r}")
    body = b"".join(packets)[end + 2 :]
    if code // 10 != 2 and body:
        raise Refused(f"a body after {code}: some pass it on to the client")
    if code == 44 and not meta.isdigit():
        raise Refused(f"44 tells a number of seconds: {meta!r}")
    if code // 10 == 3 and not (meta.isascii() and meta.isprintable() and " " not in meta):
        raise Refused(f"not a URL: {meta!r}")
    return Said(code, meta, body)
