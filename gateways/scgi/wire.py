"""SCGI on the wire, without I/O: one netstring of header fields, then the body. Seen from both sides.

Sections 3 and 4 of the SCGI specification (protocol.txt, 2008-06-23). What fields *mean* is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateways._model.environ import parse_length
from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways.events import Pairs, Variables

#: More digits than any header block has. int() of a hundred thousand of them would be a way to burn the CPU.
MAX_DIGITS = 10

#: What the first byte tells about bytes that are not SCGI. Only the first: a peer that sends no second one must not
#: keep us waiting, and the verdict must not hang on how the stream was split.
_FOREIGN = {
    0x01: "these are FastCGI records: let the web server use scgi_pass here (nginx), not fastcgi_pass",
    0x16: "these are TLS bytes: SCGI is spoken in the clear, encryption ends at the web server",
    **dict.fromkeys(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "these are HTTP bytes: point the web server at this port with scgi_pass, not proxy_pass, "
        "and the browser at the web server",
    ),
}


def read_length(buffer: bytes | bytearray) -> tuple[int, int] | None:
    """The length that opens a netstring and the offset behind its colon; None while it is not whole.

    Raises RemoteProtocolError at the first byte that does not belong: a sign, a blank, a leading zero, the eleventh
    digit, or the greeting of another protocol. An empty netstring is refused too: CONTENT_LENGTH is always there.
    """
    colon = buffer.find(b":", 0, MAX_DIGITS + 1)
    digits = buffer[: MAX_DIGITS + 1 if colon < 0 else colon]
    if not digits.isdigit() or len(digits) > MAX_DIGITS or (digits[0] == 0x30 and len(buffer) > 1):
        raise RemoteProtocolError(_not_a_length(buffer))
    return (int(digits), colon + 1) if colon >= 0 else None


def _not_a_length(buffer: bytes | bytearray) -> str:
    """What is wrong with the first byte of ``buffer`` that does not belong in a length."""
    for offset, byte in enumerate(buffer[:MAX_DIGITS]):
        if offset == 1 and buffer[0] == 0x30:
            return f"a netstring of length 0, or with a leading zero: {bytes(buffer[:2])!r}"
        if not 0x30 <= byte <= 0x39:
            found = f"expected a digit of the netstring's length at offset {offset}, got {bytes([byte])!r}"
            return f"{found}: {_FOREIGN[byte]}" if offset == 0 and byte in _FOREIGN else found
    return f"the netstring's length has more than {MAX_DIGITS} digits"


def check_comma(byte: int) -> None:
    """Raise RemoteProtocolError unless a byte is the comma that ends a netstring."""
    if byte != 0x2C:
        raise RemoteProtocolError(f"expected the ',' that ends a netstring, got {bytes([byte])!r}")


def decode_headers(block: bytes, max_params: int) -> Variables:
    """The variables of a header block in wire order, UTF-8 with surrogateescape: a dictionary, or (name, value) pairs
    where a name comes more than once.

    Raises LimitExceeded (431) for more than ``max_params`` pairs; RemoteProtocolError (400) for a block that does not
    end in NUL or that ends between a name and its value.
    """
    # NUL is one byte in UTF-8 and part of no other character, so the order of decoding and splitting does not matter.
    fields = block.decode("utf-8", "surrogateescape").split("\0", 2 * max_params)
    if fields.pop() or len(fields) % 2 or not fields:
        raise _not_headers(block, max_params)
    parts = iter(fields)
    variables = dict(zip(parts, parts, strict=True))
    return variables if 2 * len(variables) == len(fields) else tuple(zip(fields[::2], fields[1::2], strict=True))


def _not_headers(block: bytes, max_params: int) -> RemoteProtocolError:
    if not block.endswith(b"\0"):
        return RemoteProtocolError(f"the header block ends in {block[-1:]!r}, not in NUL")
    count, odd = divmod(block.count(b"\0"), 2)
    if odd:
        return RemoteProtocolError("the header block ends after a name, without its value")
    return LimitExceeded(f"{count} meta-variables, the limit max_params is {max_params}", status=431)


def check_strict(pairs: Pairs) -> None:
    """Raise RemoteProtocolError (400) for what section 3 forbids and real web servers do all the same.

    CONTENT_LENGTH comes first and is not empty; SCGI is "1"; no name is empty and none comes twice.
    """
    if pairs[0][0] != "CONTENT_LENGTH" or not pairs[0][1]:
        raise RemoteProtocolError(f"the first header is {pairs[0][0][:80]!r}, not a CONTENT_LENGTH with a value")
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RemoteProtocolError(f"the header {twice[:80]!r} comes more than once")
    if "" in names:
        raise RemoteProtocolError("a header without a name")
    if dict(pairs).get("SCGI") != "1":
        raise RemoteProtocolError('no header SCGI with the value "1"')


def encode_request(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The netstring that opens a request: CONTENT_LENGTH first, SCGI=1 second, the rest in its order.

    A missing or empty CONTENT_LENGTH is sent as 0, a SCGI among the variables is replaced. Raises LocalProtocolError
    for what the wire cannot carry: a NUL, an empty name, a name twice, a length that is no number, anything but text.
    """
    untyped: Iterable[Any] = pairs  # compiled code would check the types of the annotation, with a TypeError
    fields = {"CONTENT_LENGTH": "", "SCGI": "1"}
    given: set[str] = set()
    for name, value in untyped:
        _check_pair(name, value)
        if name in given:
            raise LocalProtocolError(f"the variable {name!r} is given twice (SCGI section 3)")
        given.add(name)
        if name != "SCGI":
            fields[name] = value
    fields["CONTENT_LENGTH"] = fields["CONTENT_LENGTH"] or "0"
    try:
        parse_length(fields["CONTENT_LENGTH"])
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None
    try:
        block = "".join([f"{name}\0{value}\0" for name, value in fields.items()]).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"a variable cannot be encoded: {error}") from None
    return b"%d:%b," % (len(block), block)


def _check_pair(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise LocalProtocolError(f"names and values are text: {name!r} is {value!r}")
    if not name:
        raise LocalProtocolError(f"a variable without a name, with the value {value!r}")
    if "\0" in name or "\0" in value:
        raise LocalProtocolError(f"a NUL in the variable {name!r}, where NUL separates (SCGI section 3)")
