"""FastCGI on the wire, seen from neither side: records and name-value pairs.

FastCGI 1.0: the record header of section 3.3, the name-value pairs of section 3.4, the constants of section 8. One
scanner of records and one scanner of pairs serve both connections and :func:`gateways.fastcgi.dissect` alike; what most
requests look like is read by a shorter way, with the same result.

This module may be compiled: ``__file__`` tells. It is plain Python either way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError

VERSION: Final = 1
HEADER_LENGTH: Final = 8
#: Content of one record at most, in bytes (section 3.3).
MAX_CONTENT: Final = 65_535
#: What longer data is cut into: large enough to cost little, and a multiple of 8, so that nothing is padded.
PIECE: Final = 32_768

# Record types (section 8).
BEGIN_REQUEST: Final = 1
ABORT_REQUEST: Final = 2
END_REQUEST: Final = 3
PARAMS: Final = 4
STDIN: Final = 5
STDOUT: Final = 6
STDERR: Final = 7
DATA: Final = 8
GET_VALUES: Final = 9
GET_VALUES_RESULT: Final = 10
UNKNOWN_TYPE: Final = 11

#: The request id of management records, which concern the connection as a whole (section 3.3).
NULL_REQUEST_ID: Final = 0

#: The one flag of FCGI_BEGIN_REQUEST: the web server, not the application, closes the connection (section 5.1).
KEEP_CONN: Final = 1

# Roles (section 6).
RESPONDER: Final = 1
AUTHORIZER: Final = 2
FILTER: Final = 3

# Protocol statuses of FCGI_END_REQUEST (section 5.5).
REQUEST_COMPLETE: Final = 0
CANT_MPX_CONN: Final = 1
OVERLOADED: Final = 2
UNKNOWN_ROLE: Final = 3

# What FCGI_GET_VALUES can ask for (section 4.1).
MAX_CONNS: Final = "FCGI_MAX_CONNS"
MAX_REQS: Final = "FCGI_MAX_REQS"
MPXS_CONNS: Final = "FCGI_MPXS_CONNS"

#: Record type -> its name without "FCGI_", and the section of the specification that describes it.
TYPES: Final[dict[int, tuple[str, str]]] = {
    BEGIN_REQUEST: ("BEGIN_REQUEST", "5.1"),
    ABORT_REQUEST: ("ABORT_REQUEST", "5.4"),
    END_REQUEST: ("END_REQUEST", "5.5"),
    PARAMS: ("PARAMS", "5.2"),
    STDIN: ("STDIN", "5.3"),
    STDOUT: ("STDOUT", "5.3"),
    STDERR: ("STDERR", "5.3"),
    DATA: ("DATA", "5.3"),
    GET_VALUES: ("GET_VALUES", "4.1"),
    GET_VALUES_RESULT: ("GET_VALUES_RESULT", "4.1"),
    UNKNOWN_TYPE: ("UNKNOWN_TYPE", "4.2"),
}
ROLES: Final[dict[int, str]] = {RESPONDER: "responder", AUTHORIZER: "authorizer", FILTER: "filter"}
ROLE_NUMBERS: Final[dict[str, int]] = {name: number for number, name in ROLES.items()}
STATUSES: Final[dict[int, str]] = {
    REQUEST_COMPLETE: "REQUEST_COMPLETE",
    CANT_MPX_CONN: "CANT_MPX_CONN",
    OVERLOADED: "OVERLOADED",
    UNKNOWN_ROLE: "UNKNOWN_ROLE",
}

#: version, type, request id, content length, padding length, reserved
HEADER: Final = struct.Struct(">BBHHBx")
#: role, flags, reserved
_BEGIN_BODY: Final = struct.Struct(">HB5x")
#: application status, protocol status, reserved
_END_BODY: Final = struct.Struct(">IB3x")
#: A header whose version and type are read as one number, and the whole of an FCGI_BEGIN_REQUEST without padding.
_START: Final = struct.Struct(">HHHBx")
_BEGIN: Final = struct.Struct(">HHHBxHB5x")
_BEGIN_START: Final = VERSION << 8 | BEGIN_REQUEST
_PARAMS_START: Final = VERSION << 8 | PARAMS
_STDIN_START: Final = VERSION << 8 | STDIN
_STDOUT_START: Final = VERSION << 8 | STDOUT
_END_START: Final = VERSION << 8 | END_REQUEST
#: What follows the last bytes of a response, by their padding: that, the end of STDOUT, and FCGI_END_REQUEST.
_TAILS: Final = tuple(struct.Struct(f">{padding}x HH4x HHH2x I4x") for padding in range(8))
#: Padding, by its length.
_ZEROS: Final = tuple(bytes(length) for length in range(256))

#: What :meth:`RecordScanner.scan` gives: type, request id, content, length of the padding.
Record = tuple[int, int, bytes, int]


def type_name(kind: int) -> str:
    """The name of a record type, "type 99" for a number the specification does not know."""
    return TYPES[kind][0] if kind in TYPES else f"type {kind}"


# --- Records (section 3.3) ---------------------------------------------------------------------------------------


def encode_record(kind: int, stream_id: int, content: bytes = b"", padding: int | None = None) -> bytes:
    """One record, padded to a multiple of 8 bytes unless ``padding`` (0 to 255) says otherwise.

    Errors: LocalProtocolError for more than 65,535 bytes and for numbers that do not fit; nothing is masked, because
    a length that wraps lets content pass for records (CVE-2026-55203).
    """
    length = len(content)
    if padding is None:
        padding = -length % 8
    try:
        return HEADER.pack(VERSION, kind, stream_id, length, padding) + content + _ZEROS[padding]
    except struct.error as error:
        raise LocalProtocolError(
            f"no record has type {kind}, request id {stream_id}, {length} bytes and {padding} bytes of padding: {error}"
        ) from None


def encode_stream(kind: int, stream_id: int, data: bytes) -> bytes:
    """The records that carry some bytes of a stream: one where they fit, pieces of 32 KiB where not, none for none.

    No bytes make no record because an empty record would end the stream (section 3.3).
    """
    if len(data) <= MAX_CONTENT:
        return encode_record(kind, stream_id, data) if data else b""
    return b"".join(encode_pieces(kind, stream_id, data))


def encode_pieces(kind: int, stream_id: int, data: bytes) -> list[bytes | memoryview]:
    """The same in pieces, none of them empty, to be sent one after the other: ``data`` is not copied."""
    parts: list[bytes | memoryview] = []
    view = memoryview(data)
    most = MAX_CONTENT if len(data) <= MAX_CONTENT else PIECE
    for start in range(0, len(data), most):
        piece = view[start : start + most]
        padding = -len(piece) % 8
        parts += HEADER.pack(VERSION, kind, stream_id, len(piece), padding), piece
        if padding:
            parts.append(_ZEROS[padding])
    return parts


def encode_begin(stream_id: int, role: int, flags: int) -> bytes:
    """FCGI_BEGIN_REQUEST (section 5.1).

    Errors: LocalProtocolError unless ``role`` is 0 to 65,535 and ``flags`` 0 to 255.
    """
    try:
        body = _BEGIN_BODY.pack(role, flags)
    except struct.error:
        raise LocalProtocolError(f"no request begins with role {role!r} and flags {flags!r}") from None
    return encode_record(BEGIN_REQUEST, stream_id, body)


def decode_begin(content: bytes) -> tuple[int, int]:
    """Role and flags of FCGI_BEGIN_REQUEST; bytes beyond the eighth are ignored.

    Errors: RemoteProtocolError for less than 8 bytes.
    """
    at_least_8(BEGIN_REQUEST, content)
    role, flags = _BEGIN_BODY.unpack_from(content)
    return role, flags


def encode_end(stream_id: int, app_status: int = 0, protocol_status: int = REQUEST_COMPLETE) -> bytes:
    """FCGI_END_REQUEST (section 5.5).

    Errors: LocalProtocolError unless ``app_status`` is 0 to 2**32 - 1 and ``protocol_status`` 0 to 255.
    """
    try:
        body = _END_BODY.pack(app_status, protocol_status)
    except struct.error:
        raise LocalProtocolError(
            f"an application status is 0 to 2**32 - 1, not {app_status!r}, "
            f"and a protocol status 0 to 255, not {protocol_status!r}"
        ) from None
    return encode_record(END_REQUEST, stream_id, body)


def decode_end(content: bytes) -> tuple[int, int]:
    """Application status and protocol status of FCGI_END_REQUEST.

    Errors: RemoteProtocolError for less than 8 bytes.
    """
    at_least_8(END_REQUEST, content)
    app_status, protocol_status = _END_BODY.unpack_from(content)
    return app_status, protocol_status


def encode_answer(stream_id: int, data: bytes, app_status: int = 0) -> bytes:
    """A whole response: the records of ``data`` on STDOUT, the end of STDOUT and FCGI_END_REQUEST.

    Errors: LocalProtocolError as of :func:`encode_record` and :func:`encode_end`.
    """
    length = len(data)
    if 0 < length <= MAX_CONTENT:
        padding = -length & 7
        try:
            return b"".join(
                (
                    _START.pack(_STDOUT_START, stream_id, length, padding),
                    data,
                    _TAILS[padding].pack(_STDOUT_START, stream_id, _END_START, stream_id, 8, app_status),
                )
            )
        except struct.error:
            pass  # one of the numbers does not fit: below is said which
    end = encode_end(stream_id, app_status)
    return encode_stream(STDOUT, stream_id, data) + encode_record(STDOUT, stream_id) + end


def at_least_8(kind: int, content: bytes) -> None:
    """Raise RemoteProtocolError for the content of a record that is too short for its type."""
    if len(content) < 8:
        raise RemoteProtocolError(f"{type_name(kind)} of {len(content)} bytes, 8 are needed")


def read_request(data: bytes) -> tuple[int, int, int, bytes, int] | None:
    """The start of the usual request: (request id, role, flags, PARAMS block, offset behind the end of PARAMS).

    None unless ``data`` begins with FCGI_BEGIN_REQUEST, one record of PARAMS and the empty one, all whole and of one
    request. :class:`RecordScanner` then finds out what it is.
    """
    try:
        start, stream_id, length, padding, role, flags = _BEGIN.unpack_from(data)
        if start != _BEGIN_START or length != 8 or stream_id == NULL_REQUEST_ID:
            return None
        at: int = HEADER_LENGTH + 8 + padding
        start, same_id, length, padding = _START.unpack_from(data, at)
        if start != _PARAMS_START or same_id != stream_id or length == 0:
            return None
        at += HEADER_LENGTH
        stop: int = at + length
        end = stop + padding
        start, same_id, length, padding = _START.unpack_from(data, end)
        if start != _PARAMS_START or same_id != stream_id or length != 0:
            return None
    except struct.error:
        return None  # data ends inside one of the headers
    end += HEADER_LENGTH + padding
    return (stream_id, role, flags, data[at:stop], end) if end <= len(data) else None


def read_body(data: bytes, stream_id: int) -> bytes | None:
    """The body that ``data`` is the whole of: one record of STDIN and the empty one. None for anything else."""
    if len(data) < 2 * HEADER_LENGTH:
        return None
    start, same_id, length, padding = _START.unpack_from(data)
    if start != _STDIN_START or same_id != stream_id or length == 0:
        return None
    end: int = HEADER_LENGTH + length + padding
    if len(data) != end + HEADER_LENGTH or _START.unpack_from(data, end) != (_STDIN_START, stream_id, 0, 0):
        return None
    return data[HEADER_LENGTH : HEADER_LENGTH + length]


class RecordScanner:
    """Cuts a stream of bytes, split anywhere, into records.

    What is not a whole record yet is kept, never more than one record. Whoever takes bytes off the stream before the
    scanner sees them, while nothing is kept, adds their number to ``offset``.
    """

    __slots__ = ("_need", "offset", "partial")

    def __init__(self) -> None:
        #: a record that has begun to arrive and is not whole yet
        self.partial = bytearray()
        #: bytes that it takes, as far as its header tells
        self._need = HEADER_LENGTH
        #: where in the stream the next record begins, in bytes
        self.offset = 0

    def scan(self, data: bytes) -> Iterator[Record]:
        """The records that ``data`` completes. Take them all, or give the scanner up.

        Errors: RemoteProtocolError for a version other than 1 (section 3.3).
        """
        rest = self.partial
        if rest:
            if len(rest) + len(data) < self._need:
                rest += data
                return
            data = b"".join((rest, data))
            rest.clear()
            self._need = HEADER_LENGTH
        start, end = 0, len(data)
        content = HEADER_LENGTH
        while content <= end:
            version, kind, stream_id, length, padding = HEADER.unpack_from(data, start)
            if version != VERSION:
                raise self._not_fastcgi(data[start:content])
            stop: int = content + length + padding
            if stop > end:
                self._need = stop - start
                rest += memoryview(data)[start:]
                return
            self.offset += stop - start
            yield kind, stream_id, data[content : content + length], padding
            start = stop
            content = start + HEADER_LENGTH
        if start < end:
            rest += memoryview(data)[start:]

    def _not_fastcgi(self, header: bytes) -> RemoteProtocolError:
        problem = f"version {header[0]} instead of 1 in the record at byte {self.offset}"
        if self.offset == 0 and (guess := guess_protocol(header)):
            problem = f"{guess} on a FastCGI port: {problem}"
        return RemoteProtocolError(problem)


def guess_protocol(start: bytes) -> str:
    """What the first 8 bytes of a stream look like if not FastCGI, in words; "" where they look like nothing known.

    The usual mistakes: ``proxy_pass`` for ``fastcgi_pass``, https for http, one port too far.
    """
    word = start.replace(b"/", b" ").partition(b" ")[0]
    digits, colon, _ = start.partition(b":")
    if word == b"PROXY":
        return "the PROXY protocol"
    if len(word) >= 3 and word.isalpha() and word.isupper():
        return "HTTP"
    if start.startswith(b"\x16\x03"):
        return "TLS"
    if colon and digits.isdigit():
        return "SCGI"
    return ""


# --- Name-value pairs (section 3.4) ------------------------------------------------------------------------------


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Name-value pairs: lengths below 128 take one byte, others four. Text is UTF-8 with surrogateescape.

    Errors: LocalProtocolError for anything but text, and for text that has no bytes or too many.
    """
    given: Iterable[Any] = pairs  # compiled code would check the types of the annotation, with a TypeError
    parts: list[bytes] = []
    for name, value in given:
        raw_name, raw_value = _encode_text(name), _encode_text(value)
        parts += _encode_length(len(raw_name)), _encode_length(len(raw_value)), raw_name, raw_value
    return b"".join(parts)


def _encode_text(text: Any) -> bytes:
    if not isinstance(text, str):
        raise LocalProtocolError(f"names and values are text, not {type(text).__name__}")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"a name or value cannot be encoded: {error}") from None


def _encode_length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    if length > 0x7FFF_FFFF:
        raise LocalProtocolError(f"a name or value of {length} bytes is over 2**31 - 1")
    return (length | 0x8000_0000).to_bytes(4, "big")


def scan_pairs(block: bytes, most: int | None = None) -> tuple[list[tuple[str, str]], int]:
    """The whole pairs at the start of a block, and where the first pair that is not whole begins.

    A declared length is compared with what is there and never allocates anything. Errors: LimitExceeded with
    status 431 for more than ``most`` pairs.
    """
    # One decoding of the whole block and slices of the text are the fastest way there is in plain Python; the few
    # names and values that are not ASCII are decoded again, each on its own.
    text = block.decode("latin-1")
    pairs: list[tuple[str, str]] = []
    start, end = 0, len(block)
    try:
        # A pair takes two bytes at least, so this many rounds are enough for any block.
        for _ in range((end // 2 if most is None else most) + 1):
            if start == end:
                break
            at = start
            name_length = block[at]
            if name_length < 0x80:
                at += 1
            else:
                name_length = int.from_bytes(block[at : at + 4], "big") & 0x7FFF_FFFF
                at += 4
            value_length = block[at]
            if value_length < 0x80:
                at += 1
            else:
                value_length = int.from_bytes(block[at : at + 4], "big") & 0x7FFF_FFFF
                at += 4
            middle = at + name_length
            stop = middle + value_length
            if stop > end:
                break  # the block ends inside this pair
            name, value = text[at:middle], text[middle:stop]
            pairs.append((name if name.isascii() else _utf8(name), value if value.isascii() else _utf8(value)))
            start = stop
    except IndexError:
        pass  # the block ends inside the lengths of a pair
    if most is not None and len(pairs) > most:
        raise LimitExceeded(f"more than {most} name-value pairs", status=431)
    return pairs, start


def _utf8(latin1: str) -> str:
    return latin1.encode("latin-1").decode("utf-8", "surrogateescape")


def decode_pairs(block: bytes, most: int | None = None) -> list[tuple[str, str]]:
    """All pairs of a complete block.

    Errors: RemoteProtocolError where the block ends inside a pair, LimitExceeded with status 431 for more than
    ``most`` pairs.
    """
    pairs, stop = scan_pairs(block, most)
    if stop < len(block):
        raise RemoteProtocolError(
            f"name-value pair {len(pairs) + 1} is cut short: it begins at byte {stop} of {len(block)}"
        )
    return pairs


def read_plain(block: bytes, most: int) -> dict[str, str] | None:
    """The pairs of a complete block as a dictionary in wire order, where nothing about them is out of the ordinary.

    None for a block that ends inside a pair, holds anything but ASCII or a name of over 127 bytes, gives a name twice,
    or has more than ``most`` pairs. :func:`decode_pairs` then decodes it, or says what is wrong.
    """
    text = block.decode("latin-1")
    pairs: dict[str, str] = {}
    at = plain = count = 0
    end = len(block)
    try:
        if block.isascii():  # so that every length takes one byte
            while at < end:
                name = at + 2
                middle = name + block[at]
                at = middle + block[at + 1]
                pairs[text[name:middle]] = text[middle:at]
                count += 1
        while at < end:
            name = at + 2
            middle = name + block[at]
            length = block[at + 1]
            if length > 127:
                # Four bytes of length, which are not ASCII. All between them and the last such has to be; this goes
                # for the length of the name as well, so that it is known to be one byte.
                if not text[plain : at + 1].isascii():
                    return None
                name += 3
                middle += 3
                plain = name
                length = int.from_bytes(block[name - 4 : name], "big") & 0x7FFF_FFFF
            at = middle + length
            pairs[text[name:middle]] = text[middle:at]
            count += 1
    except IndexError:
        return None  # the block ends inside the lengths of a pair
    if at != end or not text[plain:].isascii() or len(pairs) != count or count > most:
        return None
    return pairs
