"""The CGI dialect read back: a Status field, header fields, a blank line (RFC 3875 section 6).

For everything that reads a CGI response: clients, the CGI host, the development front end. It is written in
``gateways._model.policy``: a CGI script has none to read, and would load this module on every request.
"""

from gateways._model.errors import LimitExceeded, RemoteProtocolError
from gateways._model.headers import is_number, is_token
from gateways._model.status import reason


def parse_head(buffer: "bytes | bytearray", limit: int) -> "tuple[int, str, tuple[tuple[str, str], ...], int] | None":
    """Read the head of a CGI response: (status, reason, fields, bytes consumed), or None while it is not whole.

    Lines may end in CRLF or LF. The status is 302 where a Location came without one, else 200 (RFC 3875 section
    6.3.3). Raises RemoteProtocolError with status 502 for anything that is not a head: a line without a colon, a
    name that is no token, a folded line, a Status that is no number, no field of CGI's at all; LimitExceeded when
    the head is longer than ``limit`` bytes.
    """
    end = _end_of_head(buffer)
    if (len(buffer) if end is None else end) > limit:
        raise LimitExceeded(f"response head over {limit} bytes", status=502)
    if end is None:
        return None
    status: int | None = None
    phrase = ""
    fields: list[tuple[str, str]] = []
    lines = bytes(buffer[:end]).decode("utf-8", "surrogateescape").split("\n")
    for line in lines[:-2]:  # the last two are the blank line and what follows its end: nothing
        name, value = _field(line.removesuffix("\r"))
        if name.lower() == "status":
            if status is not None:
                raise RemoteProtocolError("a second Status field in a response head", status=502)
            status, phrase = _status(value)
        else:
            fields.append((name, value))
    names = {name.lower() for name, _ in fields}
    if status is None:
        if "location" not in names and "content-type" not in names:
            raise RemoteProtocolError(
                "a response head without Status, Content-Type or Location (RFC 3875 section 6.3)", status=502
            )
        status = 302 if "location" in names else 200
    return status, phrase or reason(status), tuple(fields), end


def _end_of_head(buffer: "bytes | bytearray") -> "int | None":
    """Where the blank line ends, whichever line ends are used."""
    if buffer[:1] == b"\n" or buffer[:2] == b"\r\n":
        return buffer.index(b"\n") + 1
    crlf = buffer.find(b"\n\r\n")
    # A blank line counts only before the other kind, so the body behind the head is not searched for it.
    bare = buffer.find(b"\n\n") if crlf < 0 else buffer.find(b"\n\n", 0, crlf + 1)
    if bare >= 0:
        return bare + 2
    return crlf + 3 if crlf >= 0 else None


def _field(line: str) -> "tuple[str, str]":
    name, colon, value = line.partition(":")
    if not colon or not is_token(name):
        raise RemoteProtocolError(f"not a header field in a response head: {line[:80]!r}", status=502)
    value = value.strip(" \t")
    if "\r" in value or "\0" in value:
        raise RemoteProtocolError(f"CR or NUL in the response header {name}", status=502)
    return name, value


def _status(value: str) -> "tuple[int, str]":
    number, _, phrase = value.partition(" ")
    if len(number) != 3 or not is_number(number) or not 200 <= int(number) <= 599:
        raise RemoteProtocolError(f"not a final status in a response head: {value[:80]!r}", status=502)
    return int(number), phrase.strip()
