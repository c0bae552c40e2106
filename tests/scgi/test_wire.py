"""SCGI on the wire: netstrings, header blocks and their encoder (SCGI sections 3 and 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
from gateways.events import Pairs, Variables
from gateways.scgi import wire


@pytest.mark.parametrize(
    ("buffer", "found"),
    [
        (b"7:", (7, 2)),
        (b"70:CONTENT_LENGTH", (70, 3)),
        (b"9999999999:", (9_999_999_999, 11)),
        (b"7", None),
        (b"0", None),
        (b"1234567890", None),
    ],
)
def test_S01_length_of_a_netstring(buffer: bytes, found: tuple[int, int] | None) -> None:
    assert wire.read_length(buffer) == found
    assert wire.read_length(bytearray(buffer)) == found


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (b":", "at offset 0, got b':'"),
        (b"-5:", "at offset 0, got b'-'"),
        (b"+70:", "at offset 0, got b'+'"),
        (b" 70:", "at offset 0, got b' '"),
        (b"7 :", "at offset 1, got b' '"),
        (b"70;", "at offset 2, got b';'"),
        (b"\xd9\xa3:", "at offset 0, got b'\\xd9'"),
        (b"070:", "leading zero: b'07'"),
        (b"00:", "leading zero: b'00'"),
        (b"0:,", "length 0, or with a leading zero: b'0:'"),
        (b"12345678901", "more than 10 digits"),
        (b"9" * 100_000, "more than 10 digits"),
        (b"1234567890x", "more than 10 digits"),
    ],
)
def test_S01_what_is_no_length_is_refused_and_named(buffer: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        wire.read_length(buffer)
    assert str(caught.value).endswith(message)


@given(st.binary(max_size=14))
def test_verdict_on_a_length_is_reached_at_the_same_byte_however_it_is_cut(data: bytes) -> None:
    def verdict(buffer: bytes) -> object:
        try:
            return wire.read_length(buffer)
        except RemoteProtocolError as error:
            return str(error)

    verdicts = [verdict(data[:end]) for end in range(1, len(data) + 1)]
    first = next((found for found in verdicts if found is not None), None)
    assert verdict(data or b"1") == first


@pytest.mark.parametrize(
    ("block", "variables"),
    [
        (b"A\0b\0", {"A": "b"}),
        (b"A\0\0", {"A": ""}),
        (b"B\0\0A\0\0", {"B": "", "A": ""}),
        (b"A\x001\0A\x002\0", (("A", "1"), ("A", "2"))),
        (b"A\x001\0B\0\0A\x001\0", (("A", "1"), ("B", ""), ("A", "1"))),
        (b"\0x\0", {"": "x"}),
        ("É\0€\0".encode(), {"É": "€"}),
        (b"A\0\xff\xe2\x82\0B\0\xac\0", {"A": "\udcff\udce2\udc82", "B": "\udcac"}),
    ],
)
def test_S03_header_block(block: bytes, variables: Variables) -> None:
    decoded = wire.decode_headers(block, 10)
    assert decoded == variables
    assert as_pairs(decoded) == as_pairs(variables)  # the order as well


def slow_headers(block: bytes) -> Pairs | None:
    """The obvious decoder of section 3, one field at a time; None for what is no header block."""
    fields: list[str] = []
    while block:
        field, nul, block = block.partition(b"\0")
        if not nul:
            return None
        fields.append(field.decode("utf-8", "surrogateescape"))
    return None if len(fields) % 2 or not fields else tuple(zip(fields[::2], fields[1::2], strict=True))


@given(st.lists(st.sampled_from([b"\0", b"\0", b"A", b"B", b"\xc3\xa9", b"\xff"])).map(b"".join), st.integers(1, 6))
def test_decoding_a_block_at_once_equals_decoding_field_by_field(block: bytes, most: int) -> None:
    expected = slow_headers(block)
    if expected is None or len(expected) > most:
        with pytest.raises(RemoteProtocolError) as caught:
            wire.decode_headers(block, most)
        assert isinstance(caught.value, LimitExceeded) is (expected is not None)
        return
    decoded = wire.decode_headers(block, most)
    assert as_pairs(decoded) == expected
    assert isinstance(decoded, dict) is (len(dict(expected)) == len(expected))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"A\0b", "ends in b'b', not in NUL"),
        (b"", "ends in b'', not in NUL"),
        (b"A\0b\0C\0", "without its value"),
        (b"\0", "without its value"),
        (b"A\0\0" * 11 + b"A\0", "without its value"),
        (b"A\0\0" * 11 + b"A", "ends in b'A', not in NUL"),
    ],
)
def test_SH06_block_without_its_last_nul_or_with_an_odd_number_of_fields(block: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        wire.decode_headers(block, 10)


def test_SH19_more_pairs_than_allowed() -> None:
    assert len(wire.decode_headers(b"A\0\0" * 10, 10)) == 10
    with pytest.raises(LimitExceeded, match="11 meta-variables, the limit max_params is 10") as caught:
        wire.decode_headers(b"A\0\0" * 11, 10)
    assert caught.value.status == 431


def test_encoded_request_begins_with_length_and_scgi() -> None:
    pairs = [("A", "b"), ("SCGI", "2"), ("CONTENT_LENGTH", "5"), ("EMPTY", ""), ("É", "€\udcff")]
    block = b"CONTENT_LENGTH\x005\0SCGI\x001\0A\0b\0EMPTY\0\0" + "É\0€".encode() + b"\xff\0"
    assert wire.encode_request(pairs) == b"%d:" % len(block) + block + b","


@pytest.mark.parametrize("pairs", [[], [("CONTENT_LENGTH", "")], [("CONTENT_LENGTH", "0")]])
def test_encoded_request_always_says_how_long_its_body_is(pairs: list[tuple[str, str]]) -> None:
    assert wire.encode_request(pairs) == b"24:CONTENT_LENGTH\x000\0SCGI\x001\0,"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("", "x")], "without a name"),
        ([("A\0", "x")], "a NUL"),
        ([("A", "\0")], "a NUL"),
        ([("A", "1"), ("A", "1")], "given twice"),
        ([("SCGI", "1"), ("SCGI", "1")], "given twice"),
        ([("CONTENT_LENGTH", "-1")], "not a number"),
        ([("CONTENT_LENGTH", "٣")], "not a number"),
        ([("CONTENT_LENGTH", "9" * 20)], "20 digits"),
        ([("A", "\ud800")], "cannot be encoded"),
        ([("A", b"bytes")], "are text"),
        ([(b"A", "text")], "are text"),
        ([("A", 1)], "are text"),
    ],
)
def test_what_the_wire_cannot_carry_is_a_local_error(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        wire.encode_request(pairs)
