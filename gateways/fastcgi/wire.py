"""FastCGI on the wire, seen from neither side: records, name-value pairs, and a reader for human eyes.

FastCGI 1.0: the record header of section 3.3, the name-value pairs of section 3.4, the constants of section 8. One
scanner of records and one scanner of pairs serve both connections and :func:`dissect` alike.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

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
_HEADER: Final = struct.Struct(">BBHHBB")
#: role, flags, reserved
_BEGIN_BODY: Final = struct.Struct(">HB5x")
#: application status, protocol status, reserved
_END_BODY: Final = struct.Struct(">IB3x")

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
        return _HEADER.pack(VERSION, kind, stream_id, length, padding, 0) + content + bytes(padding)
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
    parts: list[bytes | memoryview] = []
    view = memoryview(data)
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        padding = -len(piece) % 8
        parts += _HEADER.pack(VERSION, kind, stream_id, len(piece), padding, 0), piece, bytes(padding)
    return b"".join(parts)


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
    _at_least_8(BEGIN_REQUEST, content)
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
    _at_least_8(END_REQUEST, content)
    app_status, protocol_status = _END_BODY.unpack_from(content)
    return app_status, protocol_status


def _at_least_8(kind: int, content: bytes) -> None:
    if len(content) < 8:
        raise RemoteProtocolError(f"{type_name(kind)} of {len(content)} bytes, 8 are needed")


class RecordScanner:
    """Cuts a stream of bytes, split anywhere, into records.

    What is not a whole record yet is kept, never more than one record.
    """

    __slots__ = ("_need", "_rest", "offset")

    def __init__(self) -> None:
        self._rest = bytearray()
        #: bytes that the record at the start of ``_rest`` takes, as far as its header tells
        self._need = HEADER_LENGTH
        #: where in the stream the next record begins, in bytes
        self.offset = 0

    @property
    def partial(self) -> bool:
        """Whether a record has begun to arrive that is not whole yet."""
        return bool(self._rest)

    def scan(self, data: bytes) -> Iterator[Record]:
        """The records that ``data`` completes. Take them all, or give the scanner up.

        Errors: RemoteProtocolError for a version other than 1 (section 3.3).
        """
        rest = self._rest
        if rest:
            if len(rest) + len(data) < self._need:
                rest += data
                return
            data = b"".join((rest, data))
            rest.clear()
        start, end = 0, len(data)
        self._need = HEADER_LENGTH
        while end - start >= HEADER_LENGTH:
            version, kind, stream_id, length, padding, _ = _HEADER.unpack_from(data, start)
            if version != VERSION:
                raise self._not_fastcgi(data[start : start + HEADER_LENGTH])
            content = start + HEADER_LENGTH
            stop: int = content + length + padding
            if stop > end:
                self._need = stop - start
                break
            self.offset += stop - start
            yield kind, stream_id, data[content : content + length], padding
            start = stop
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
    parts: list[bytes] = []
    for name, value in pairs:
        raw_name, raw_value = _encode_text(name), _encode_text(value)
        parts += _encode_length(len(raw_name)), _encode_length(len(raw_value)), raw_name, raw_value
    return b"".join(parts)


def _encode_text(text: str) -> bytes:
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


# --- For human eyes ----------------------------------------------------------------------------------------------


@attrs.frozen
class Dissected:
    """One record, explained; ``str()`` is one line. A ``type`` of None marks where the stream is broken."""

    #: Where the record begins, in bytes from the start of the stream.
    offset: int
    type: int | None
    id: int
    length: int
    padding: int
    meaning: str
    #: Section of the FastCGI 1.0 specification.
    section: str

    def __str__(self) -> str:
        if self.type is None:
            return f"{self.offset:08x}  BROKEN             {self.meaning} (section {self.section})"
        size = f"{self.length}+{self.padding}"
        return (
            f"{self.offset:08x}  {type_name(self.type):<17}  id {self.id:<5}  {size:<9}  "
            f"{self.meaning} (section {self.section})"
        )


def dissect(data: bytes) -> Iterator[Dissected]:
    r"""Explain a stream of FastCGI records, of either direction, one object per record.

    Never raises for what the bytes hold: a broken stream yields one last object that says what is wrong and where.

    >>> for record in dissect(b"\1\2\0\1\0\0\0\0" + b"GET / HTTP/1.1"):
    ...     print(record)
    00000000  ABORT_REQUEST      id 1      0+0        the web server gives the request up (section 5.4)
    00000008  BROKEN             version 71 instead of 1 in the record at byte 8 (section 3.3)
    """
    scanner = RecordScanner()
    params = _ParamsReader()
    offset = 0
    try:
        for kind, stream_id, content, padding in scanner.scan(data):
            yield Dissected(
                offset,
                kind,
                stream_id,
                len(content),
                padding,
                _meaning(kind, stream_id, content, params),
                TYPES[kind][1] if kind in TYPES else "4.2",
            )
            offset = scanner.offset
    except RemoteProtocolError as error:
        yield _broken(offset, str(error))
        return
    if rest := data[offset:]:
        yield _broken(offset, f"the stream ends {_inside(rest)}")
    for stream_id, left in params.unfinished():
        problem = f"the stream ends {left} bytes into a name-value pair of request {stream_id}"
        yield _broken(len(data), problem, "3.4")


def _broken(offset: int, problem: str, section: str = "3.3") -> Dissected:
    return Dissected(offset, None, 0, 0, 0, problem, section)


def _inside(rest: bytes) -> str:
    if len(rest) < HEADER_LENGTH:
        return f"inside a header: {len(rest)} of 8 bytes"
    _, kind, stream_id, length, padding, _ = _HEADER.unpack_from(rest)
    have = len(rest) - HEADER_LENGTH
    return f"inside {type_name(kind)} of request {stream_id}: {have} of {length}+{padding} bytes"


class _ParamsReader:
    """Follows PARAMS across records: a pair may begin in one and end in another (section 3.3)."""

    def __init__(self) -> None:
        self._rest: dict[int, bytes] = {}

    def forget(self, stream_id: int) -> None:
        self._rest.pop(stream_id, None)

    def read(self, stream_id: int, content: bytes) -> str:
        block = self._rest.pop(stream_id, b"") + content
        if not content:
            return "end of the meta-variables" + (f", malformed: {len(block)} bytes into a pair" if block else "")
        pairs, stop = scan_pairs(block)
        if stop == len(block):
            return _names(pairs)
        self._rest[stream_id] = block[stop:]
        return f"{_names(pairs)}; the next one goes on in another record"

    def unfinished(self) -> list[tuple[int, int]]:
        return [(stream_id, len(rest)) for stream_id, rest in self._rest.items()]


def _names(pairs: list[tuple[str, str]], shown: int = 5) -> str:
    """How many pairs, and what they are called. Values stay out of it: they may be secret."""
    count = f"{len(pairs)} meta-variable{'' if len(pairs) == 1 else 's'}"
    names = ", ".join(_printable(name) for name, _ in pairs[:shown])
    more = ", ..." if len(pairs) > shown else ""
    return f"{count}: {names}{more}" if pairs else count


def _printable(text: str) -> str:
    """A text that cannot break a line or a terminal."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _meaning(kind: int, stream_id: int, content: bytes, params: _ParamsReader) -> str:
    """One record in words."""
    if kind == PARAMS:
        return params.read(stream_id, content)
    if kind in (BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST):
        params.forget(stream_id)  # nothing more of what was begun will come
    try:
        return _MEANINGS.get(kind, _explain_unknown)(content)
    except RemoteProtocolError as error:
        return f"malformed: {error}"


def _explain_begin(content: bytes) -> str:
    role, flags = decode_begin(content)
    after = "the connection stays open" if flags & KEEP_CONN else "the application closes the connection afterwards"
    return f"a request begins, role {ROLES.get(role, f'{role} (unknown)')}; {after}"


def _explain_abort(_content: bytes) -> str:
    return "the web server gives the request up"


def _explain_end(content: bytes) -> str:
    app_status, protocol_status = decode_end(content)
    status = STATUSES.get(protocol_status, f"protocol status {protocol_status} (unknown)")
    return f"{status}, application status {app_status}"


def _explain_bytes(what: str) -> Callable[[bytes], str]:
    def explain(content: bytes) -> str:
        if not content:
            return f"end of {what}"
        shown = ascii(content[:32])[1:] + ("..." if len(content) > 32 else "")
        return f"{len(content)} byte{'' if len(content) == 1 else 's'} of {what}: {shown}"

    return explain


def _explain_get_values(content: bytes) -> str:
    names = ", ".join(_printable(name) for name, _ in decode_pairs(content))
    return f"the web server asks for {names or 'nothing'}"


def _explain_result(content: bytes) -> str:
    values = ", ".join(f"{_printable(name)} = {_printable(value)}" for name, value in decode_pairs(content))
    return f"the application answers {values or 'that it knows none of these'}"


def _explain_unknown_type(content: bytes) -> str:
    _at_least_8(UNKNOWN_TYPE, content)
    return f"the application does not know records of type {content[0]}"


def _explain_unknown(_content: bytes) -> str:
    return "a record type that the specification does not know"


_MEANINGS: Final[dict[int, Callable[[bytes], str]]] = {
    BEGIN_REQUEST: _explain_begin,
    ABORT_REQUEST: _explain_abort,
    END_REQUEST: _explain_end,
    STDIN: _explain_bytes("the request body"),
    STDOUT: _explain_bytes("the response"),
    STDERR: _explain_bytes("text for the error log"),
    DATA: _explain_bytes("the file to filter"),
    GET_VALUES: _explain_get_values,
    GET_VALUES_RESULT: _explain_result,
    UNKNOWN_TYPE: _explain_unknown_type,
}
