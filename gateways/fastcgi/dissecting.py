"""A reader of FastCGI for human eyes: what every record of a stream means, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from gateways._model.errors import RemoteProtocolError
from gateways.fastcgi.wire import (
    ABORT_REQUEST,
    BEGIN_REQUEST,
    DATA,
    END_REQUEST,
    GET_VALUES,
    GET_VALUES_RESULT,
    HEADER,
    HEADER_LENGTH,
    KEEP_CONN,
    PARAMS,
    ROLES,
    STATUSES,
    STDERR,
    STDIN,
    STDOUT,
    TYPES,
    UNKNOWN_TYPE,
    RecordScanner,
    at_least_8,
    decode_begin,
    decode_end,
    decode_pairs,
    scan_pairs,
    type_name,
)


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
    _, kind, stream_id, length, padding = HEADER.unpack_from(rest)
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
    at_least_8(UNKNOWN_TYPE, content)
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
