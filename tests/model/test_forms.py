"""Forms without a server: what is in a body, however it is cut; what is refused; and where the bytes of files are."""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import tracemalloc
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import Body, IncompleteBody, LimitExceeded, LocalProtocolError, RemoteProtocolError, Request
from gateways._model import forms
from gateways._model.forms import Form
from gateways._model.handler import drive
from tests.model.form_bodies import CLIENTS, File, Sent, encode
from tests.model.nameless import OnDisk, on_disk

__all__ = ["on_disk"]

FENCE = "multipart/form-data; boundary=fence"


class Pieces:
    """A source of bytes in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def receive_blocking(self, max_bytes: int) -> bytes:
        data = self._left or next(self._pieces, b"")
        self._left = data[max_bytes:]
        return data[:max_bytes]

    async def receive(self, max_bytes: int) -> bytes:
        return self.receive_blocking(max_bytes)


def posted(
    content_type: str | None, body: bytes | Iterable[bytes], *, max_read: int | None = None, length: int | None = None
) -> Request:
    """A request with a form in it, whose body comes in these pieces."""
    pieces = [body] if isinstance(body, bytes) else body
    environ = {"REQUEST_METHOD": "POST"} | ({} if content_type is None else {"CONTENT_TYPE": content_type})
    return Request(environ, Body(Pieces(pieces), length, max_read=max_read))


def read(content_type: str | None, body: bytes | Iterable[bytes], **limits: Any) -> Form:
    return drive(posted(content_type, body).form(**limits))


def contents(form: Form) -> tuple[list[tuple[str, str]], list[File]]:
    """All that can be seen of a form."""
    files: list[File] = []
    for name, upload in form.files.items():
        data = upload.file.read()
        assert upload.size == len(data)
        files.append((name, upload.filename, upload.filename_as_sent, upload.content_type, data))
    return list(form.items()), files


def in_bytes(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    at = [0, *sorted(places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(at) if start < end]


def part(head: bytes, data: bytes = b"1") -> bytes:
    """A body with one part."""
    return b"--fence\r\n" + head + b"\r\n\r\n" + data + b"\r\n--fence--\r\n"


def field(name: bytes, value: bytes) -> bytes:
    """A part that is not the last."""
    return b'--fence\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value + b"\r\n"


def file(data: bytes, filename: bytes = b"a.txt") -> bytes:
    return part(b'Content-Disposition: form-data; name="f"; filename="' + filename + b'"', data)


END = b"--fence--\r\n"


# --- what is in a form


@pytest.mark.parametrize("client", CLIENTS)
def test_forms_of_browsers_and_other_programs_are_read_however_they_are_cut(client: str) -> None:
    sent = CLIENTS[client]
    expected = (sent.fields, sent.files)
    assert contents(read(sent.content_type, sent.body)) == expected
    assert contents(read(sent.content_type, in_bytes(sent.body))) == expected
    for seed in range(20):
        chance = random.Random(seed)
        places = [chance.randrange(len(sent.body) + 1) for _ in range(5)]
        assert contents(read(sent.content_type, cut(sent.body, places))) == expected


def test_a_boundary_is_seen_wherever_it_falls_in_a_long_body() -> None:
    for size in range(65_536 - 120, 65_536 + 5):
        body = field(b"a", b"1" * size) + file(b"\r\n")
        fields, files = contents(read(FENCE, body))
        assert fields == [("a", "1" * size)]
        assert files == [("f", "a.txt", "a.txt", None, b"\r\n")]


names = st.text(st.characters(exclude_characters="\0%\\", exclude_categories=["Cs"]), max_size=8)
values = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"\r\n--fenc", b"--fence", b"\r", b"\r\n\r\n--fen\r\n--f"])


@given(
    st.lists(st.tuples(names, values), max_size=4),
    st.lists(st.tuples(names, names, st.sampled_from([None, "text/plain", "x/y; z=ü"]), values), max_size=4),
    st.lists(st.integers(0, 600), max_size=6),
)
@settings(deadline=None)
def test_what_a_browser_sends_is_what_comes_out(
    texts: list[tuple[str, bytes]], files: list[tuple[str, str, str | None, bytes]], places: list[int]
) -> None:
    if any(
        b"\r\n--fence" in b"\r\n" + each for each in (*(value for _, value in texts), *(data for *_, data in files))
    ):
        return  # browsers choose another boundary
    sent = Sent(
        FENCE,
        b"",
        [(name, value.decode("utf-8", "surrogateescape")) for name, value in texts],
        [
            (name, "" if (last := filename.rpartition("/")[2]) in (".", "..") else last, filename, media_type, data)
            for name, filename, media_type, data in files
            if filename or data
        ],
    )
    body = encode(sent)
    form = read(FENCE, cut(body, [place % (len(body) + 1) for place in places]))
    assert contents(form) == (sent.fields, sent.files)


def outcome(content_type: str, pieces: Iterable[bytes]) -> Any:
    try:
        return contents(read(content_type, pieces))
    except RemoteProtocolError as error:
        return type(error), error.status


_LIKELY = [*in_bytes(b'\r\n-;=":\\%\0 \xffaf'), b"\r\n", b"--fence", b"\r\n--fence", b"--", b"Content-Length: 1\r\n"]


@given(
    st.sampled_from([sent.body.replace(sent.body.split(b"\r\n")[0], b"--fence") for sent in CLIENTS.values()]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.sampled_from(_LIKELY)), min_size=1, max_size=4),
    st.lists(st.integers(0, 2000), max_size=6),
)
@settings(deadline=None, max_examples=300)
def test_a_damaged_form_is_read_or_refused_and_the_same_however_it_is_cut(
    body: bytes, damages: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    for at, length, instead in damages:
        at %= len(body) + 1
        body = body[:at] + instead + body[at + length :]
    expected = outcome(FENCE, [body])
    assert outcome(FENCE, in_bytes(body)) == expected
    assert outcome(FENCE, cut(body, [place % (len(body) + 1) for place in places])) == expected


@pytest.mark.parametrize(
    "client", ["Safari: a page in ISO-8859-1", "a browser: urlencoded, and the page is in ISO-8859-1"]
)
def test_the_encoding_of_a_page_can_be_given(client: str) -> None:
    sent = CLIENTS[client]
    form = read(sent.content_type, sent.body, encoding="iso-8859-1")
    assert form["straße"] == "Müller"


def test_a_file_name_is_in_the_encoding_of_its_page_too() -> None:
    form = read(FENCE, file(b"1", "ä.txt".encode("cp1252")), encoding="cp1252")
    assert form.files["f"].filename == "ä.txt"


def test_an_encoding_that_there_is_not_is_an_error_before_anything_is_read() -> None:
    request = posted(FENCE, file(b"1"))
    with pytest.raises(LookupError, match="klingon"):
        drive(request.form(encoding="klingon"))
    assert drive(request.form()).files["f"].size == 1


def test_a_form_is_a_multi_map_of_its_texts() -> None:
    form = read("application/x-www-form-urlencoded", b"tag=a&tag=b&x=")
    assert (form["tag"], form.get_all("tag"), form["x"], form.get("y"), form.get("y", "z")) == (
        "a",
        ["a", "b"],
        "",
        None,
        "z",
    )
    assert (list(form), len(form), "tag" in form, "y" in form) == (["tag", "x"], 3, True, False)
    with pytest.raises(KeyError, match="y"):
        form["y"]
    assert (len(form.files), list(form.files)) == (0, [])


def test_the_files_of_a_form_are_apart_from_its_texts() -> None:
    body = field(b"a", b"1") + file(b"22", b"x.txt")[: -len(END)] + file(b"333", b"y.txt")
    form = read(FENCE, body)
    assert (list(form), list(form.files), len(form.files)) == (["a"], ["f"], 2)
    assert form.files["f"] is form.files.get("f")
    assert [(name, upload.filename) for name, upload in form.files.items()] == [("f", "x.txt"), ("f", "y.txt")]
    assert [upload.file.read() for upload in form.files.get_all("f")] == [b"22", b"333"]
    assert ("f" in form.files, "a" in form.files, "f" in form, form.files.get("a")) == (True, False, False, None)
    with pytest.raises(KeyError, match="a"):
        form.files["a"]


def test_a_form_shows_no_values_in_logs() -> None:
    form = read(FENCE, field(b"password", b"sesame") + file(b"22"))
    assert repr(form) == "<Form of ['password'] and the files ['f']>"
    assert repr(form.files) == "Files([('f', <Upload 'a.txt' of 2 bytes>)])"


def test_a_form_is_equal_to_itself_alone() -> None:
    one, other = read(FENCE, file(b"1")), read(FENCE, file(b"2"))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_a_request_without_a_body_is_an_empty_form() -> None:
    assert contents(read(None, b"")) == ([], [])


def test_a_form_is_read_once() -> None:
    request = posted(FENCE, file(b"1"), length=len(file(b"1")))
    inner = request.mounted("")
    assert inner is not None
    drive(inner.form())
    with pytest.raises(LocalProtocolError, match="read before"):
        drive(request.form())


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", ""),
        ("folder/", ""),
        ("..", ""),
        (".", ""),
        ("a/..", ""),
        ("C:\\x\\..", ""),
        ("...", "..."),
        (".htaccess", ".htaccess"),
        ("a\r\nb", "a\r\nb"),
        ("a:b", "a:b"),
        (" ", " "),
    ],
)
def test_the_name_of_a_file_leads_out_of_no_folder(sent: str, filename: str) -> None:
    body = encode(Sent(FENCE, b"", files=[("f", "", sent, None, b"1")]))
    upload = read(FENCE, body).files["f"]
    assert upload.filename == filename
    assert not set(upload.filename) & set("/\\\0")


# --- what is refused


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("multipart/form-data", b"", "boundary"),
        ("multipart/form-data; boundary=", b"", "boundary"),
        ("multipart/form-data; boundary=" + "b" * 71, b"", "boundary"),
        ('multipart/form-data; boundary="ü"', b"", "boundary"),
        ('multipart/form-data; boundary="a\tb"', b"", "boundary"),
        (FENCE, b"", "Unexpected end"),
        (FENCE, b"--fence\r", "Unexpected end"),
        (FENCE, b"--fence\r\n", "Unexpected end"),
        (FENCE, b"--other\r\n--other--", "Unexpected end"),
        (FENCE, b"preamble--fence--", "in front of first boundary"),
        (FENCE, b"--fence \r\n--fence--", "after first boundary"),
        (FENCE, b"--fence\n--fence--", "after first boundary"),
        (FENCE, field(b"a", b"1"), "Unexpected end"),
        (FENCE, field(b"a", b"1") + b"--fence-", "Unexpected end"),
        (FENCE, field(b"a", b"1") + b"--fence", "Unexpected end"),
        (FENCE, field(b"a", b"1") + b"--fencexx", "after boundary"),
        (FENCE, b"--fence\r\n\r\n1\r\n--fence--", "Content-Disposition"),
        (FENCE, part(b"Content-Type: text/plain"), "Content-Disposition"),
        (FENCE, part(b'Content-Disposition: attachment; name="a"'), "Content-Disposition"),
        (FENCE, part(b"no colon"), "Malformed"),
        (FENCE, part(b"a b: c"), "header name"),
        (FENCE, part(b' continued\r\nContent-Disposition: form-data; name="a"'), "continuation"),
        (FENCE, part(b'Content-Disposition: form-data; name="a\0"'), "NUL"),
        (FENCE, part(b'Content-Disposition: form-data; name="a"; filename="a\0.txt"'), "NUL"),
        (FENCE, part(b'Content-Disposition: form-data; name="a\rb"'), "CR"),
        (FENCE, part(b'Content-Disposition: form-data; name="a\nb"'), "LF"),
        (FENCE, part(b'Content-Disposition: form-data; name="a"\r\nContent-Length: 2'), "Content-Length"),
        (FENCE, part(b'Content-Disposition: form-data; name="a"\r\nContent-Length: +1'), "Content-Length"),
        (FENCE, part(b'Content-Disposition: form-data; name="a"\r\nContent-Length: 0'), "Content-Length"),
    ],
)
def test_a_malformed_form_is_400_however_it_is_cut(content_type: str, body: bytes, message: str) -> None:
    for pieces in ([body], in_bytes(body)):
        with pytest.raises(RemoteProtocolError, match=message) as caught:
            read(content_type, pieces)
        assert (type(caught.value), caught.value.status) == (RemoteProtocolError, 400)


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/json", "multipart/mixed; boundary=fence", "form"]
)
def test_a_body_that_is_no_form_is_415(content_type: str | None) -> None:
    with pytest.raises(RemoteProtocolError, match="no form") as caught:
        read(content_type, file(b"1"))
    assert caught.value.status == 415


MANY = b"".join([field(b"a", b"") for _ in range(999)])
PLAIN = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "body", "limits", "message"),
    [
        (FENCE, MANY + field(b"b", b"") + file(b"1"), {}, "more than 1000 fields"),
        (FENCE, MANY + field(b"b", b"") + file(b"", b""), {}, "more than 1000 fields"),
        (FENCE, field(b"a", b"") + field(b"a", b"") + END, {"max_fields": 1}, "more than 1 fields"),
        (PLAIN, b"a=1&" * 1000, {}, "more than 1000 fields"),
        (PLAIN, b"&" * 1000, {}, "more than 1000 fields"),
        (FENCE, field(b"a", b"12345") + END, {"max_field_bytes": 4}, "longer than 4 bytes .max_field_bytes"),
        (PLAIN, b"a=%31%32%33%34%35", {"max_field_bytes": 4}, "longer than 4 bytes .max_field_bytes"),
        (FENCE, file(b"12345"), {"max_file_bytes": 4}, "longer than 4 bytes .max_file_bytes"),
        (FENCE, file(b"1"), {"max_bytes": len(file(b"1")) - 1}, "max_bytes"),
        (PLAIN, b"a=123", {"max_bytes": 4}, "longer than 4 bytes"),
        (
            FENCE,
            field(b"a", b"1" * 2000) + field(b"b", b"1" * 2000) + END,
            {},
            "longer than 4000 bytes .Limits.max_read",
        ),
        (FENCE, field(b"n" * 4001, b"") + END, {}, "longer than 4000 bytes .Limits.max_read"),
        (FENCE, file(b"1", b"n" * 4001), {}, "longer than 4000 bytes .Limits.max_read"),
        (PLAIN, b"a=" + b"1" * 4000, {}, "longer than 4000 bytes"),
        (PLAIN, b"a=" + b"1" * 4000, {"max_bytes": None}, "longer than 4000 bytes"),
        (FENCE, part(b"X: " + b"x" * 5000), {}, "header length"),
        (FENCE, b"--fence\r\nX: " + b"x" * 5000, {}, "header length"),
        (FENCE, part(b'Content-Disposition: form-data; name="a"' + b"\r\nX: x" * 8), {}, "header count"),
    ],
)
def test_a_form_over_a_limit_is_413_however_it_is_cut(
    content_type: str, body: bytes, limits: dict[str, Any], message: str
) -> None:
    for pieces in ([body], in_bytes(body)):
        with pytest.raises(LimitExceeded, match=message) as caught:
            drive(posted(content_type, pieces, max_read=4000).form(**limits))
        assert caught.value.status == 413


def test_a_form_that_is_just_within_its_limits_is_read() -> None:
    body = field(b"a", b"1234") + file(b"1234")
    limits = {"max_fields": 2, "max_field_bytes": 4, "max_file_bytes": 4, "max_bytes": len(body)}
    assert contents(read(FENCE, body, **limits)) == ([("a", "1234")], [("f", "a.txt", "a.txt", None, b"1234")])
    assert len(read(FENCE, MANY + file(b"1"))) == 999
    assert read(PLAIN, b"a=%31%32%33%34", max_field_bytes=4, max_fields=1)["a"] == "1234"


def test_a_form_may_be_as_long_as_it_likes_if_that_is_allowed() -> None:
    assert read(FENCE, file(b"1"), max_bytes=None).files["f"].size == 1


def test_a_form_that_is_announced_too_long_is_refused_before_any_of_it_is_read() -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    with pytest.raises(LimitExceeded, match="longer than 67108864 bytes"):
        drive(posted(FENCE, never(), length=67_108_865).form())


@pytest.mark.parametrize("content_type", [FENCE, PLAIN])
def test_a_form_whose_body_ends_early_is_incomplete(content_type: str) -> None:
    body = file(b"1")
    with pytest.raises(IncompleteBody, match="1 bytes before"):
        drive(posted(content_type, body, length=len(body) + 1).form())


# --- where the bytes of files are


def large(files: int, size: int) -> tuple[list[bytes], Iterator[bytes]]:
    """Files full of noise, and a form of them in pieces."""
    data = [random.Random(number).randbytes(size) for number in range(files)]
    body = b"".join([file(each)[: -len(END)] for each in data]) + END
    return data, iter(cut(body, range(0, len(body), 60_000)))


def test_small_files_stay_in_memory(on_disk: OnDisk) -> None:
    data, body = large(4, 60_000)
    form = read(FENCE, body)
    assert [upload.file.read() for upload in form.files.get_all("f")] == data
    assert on_disk() == 0


def test_a_thousand_files_take_one_descriptor(on_disk: OnDisk) -> None:
    data, body = large(1000, 1000)
    form = read(FENCE, body)
    assert [upload.file.read() for upload in form.files.get_all("f")] == data
    assert on_disk() == 1


def test_files_on_disk_can_be_read_anywhere_side_by_side() -> None:
    data, body = large(3, 300_000)
    form = read(FENCE, body)
    one, other, last = (upload.file for upload in form.files.get_all("f"))
    for at in (0, 1, 65_535, 65_536, 250_000, 299_999, 300_000, 300_001):
        assert one.seek(at) == at
        assert other.seek(at - 300_001, 2) == at - 1 if at else other.seek(0) == 0
        assert one.read(10) == data[0][at : at + 10]
        assert other.read(70_000) == data[1][max(at - 1, 0) : max(at - 1, 0) + 70_000]
    assert last.read(1) == data[2][:1]
    assert (last.seek(4, 1), last.tell(), last.seekable(), last.readable(), last.writable()) == (
        5,
        5,
        True,
        True,
        False,
    )
    assert last.read() == data[2][5:]
    with pytest.raises(ValueError, match="before the file"):
        last.seek(-1)
    upload = form.files["f"]
    assert upload.file is upload.file


def test_a_file_of_any_size_takes_the_same_memory() -> None:
    block = bytes(65_536)

    def body(blocks: int) -> Iterator[bytes]:
        yield field(b"a", b"1") + file(b"")[: -len(b"\r\n" + END)]
        for _ in range(blocks):
            yield block
        yield b"\r\n" + END

    read(FENCE, body(8))  # whatever is loaded is loaded
    peaks = []
    for blocks in (64, 512):
        tracemalloc.start()
        try:
            form = read(FENCE, body(blocks))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert form.files["f"].size == blocks * len(block)
        form.close()
    assert max(peaks) < 1_500_000
    assert peaks[1] < peaks[0] * 1.1


def test_files_last_as_long_as_anything_refers_to_them(on_disk: OnDisk) -> None:
    data, body = large(1, 600_000)
    form = read(FENCE, body)
    upload = form.files["f"]
    del form
    file = upload.file
    del upload
    assert file.read() == data[0]
    assert on_disk() == 1
    del file
    assert on_disk() == 0


def test_a_form_that_is_closed_has_no_file_any_more(on_disk: OnDisk) -> None:
    _, body = large(1, 600_000)
    with read(FENCE, body) as form:
        file = form.files["f"].file
        file.read(1)
    assert on_disk() == 0
    with pytest.raises(ValueError, match="the form is closed"):
        file.read()
    form.close()
    read(PLAIN, b"").close()


@pytest.mark.parametrize(
    ("last", "limits", "refused"),
    [
        (b"", {}, "Unexpected end"),
        (b"\r\n--fence?\r\n", {}, "after boundary"),
        (b"", {"max_file_bytes": 500_000}, "max_file_bytes"),
    ],
)
def test_a_form_that_is_refused_leaves_no_file(
    on_disk: OnDisk, last: bytes, limits: dict[str, Any], refused: str
) -> None:
    there, problem = [], ""

    def body() -> Iterator[bytes]:
        yield from cut(file(bytes(600_000))[: -len(b"\r\n" + END)], range(0, 600_000, 60_000))
        there.append(on_disk())
        yield last

    try:
        read(FENCE, body(), **limits)
    except RemoteProtocolError as error:
        problem = str(error)
    assert refused in problem
    assert there in ([1], [])  # the limit is met before the end
    assert on_disk() == 0


def test_a_form_that_the_disk_has_no_room_for_is_507(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    _, body = large(1, 600_000)
    with pytest.raises(LimitExceeded, match="temporary file: No such file") as caught:
        read(FENCE, body)
    assert caught.value.status == 507


@pytest.mark.parametrize("size", [0, 1, 600_000])
def test_a_file_is_saved_to_a_new_file(tmp_path: Path, size: int) -> None:
    [data], body = large(1, size)
    upload = read(FENCE, body).files["f"]
    upload.file.read(100)  # which does not matter
    drive(upload.save(tmp_path / upload.filename))
    assert (tmp_path / "a.txt").read_bytes() == data
    (tmp_path / "a.txt").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        drive(upload.save(str(tmp_path / "a.txt")))
    assert (tmp_path / "a.txt").read_bytes() == b"mine"


def test_a_file_that_cannot_be_saved_leaves_nothing_behind(tmp_path: Path) -> None:
    _, body = large(1, 600_000)
    form = read(FENCE, body)
    form.close()
    with pytest.raises(ValueError, match="the form is closed"):
        drive(form.files["f"].save(tmp_path / "a.txt"))
    assert list(tmp_path.iterdir()) == []


# --- what is loaded


def test_a_long_urlencoded_form_is_decoded_where_it_blocks_nobody() -> None:
    request = posted(PLAIN, b"a=" + b"%31" * 30_000)
    asked: list[Callable[..., Any]] = []

    class Noting:
        async def run_sync(self, function: Callable[..., Any], *args: object) -> Any:
            asked.append(function)
            return function(*args)

    request._carrier = Noting()  # type: ignore[assignment]
    assert drive(request.form())["a"] == "1" * 30_000
    assert asked == [forms._urlencoded]


def other_package() -> types.ModuleType:
    """What python-multipart puts under the same name."""
    return types.ModuleType("multipart")


@pytest.mark.parametrize("module", [None, other_package()], ids=["nothing", "another"])
def test_without_multipart_a_form_with_files_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "multipart", module)
    with pytest.raises(ImportError, match=r"pip install 'gateways\[forms\]'"):
        read(FENCE, file(b"1"))
    assert read(PLAIN, b"a=1")["a"] == "1"


# --- cgi.FieldStorage


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 has no module cgi")
@pytest.mark.filterwarnings("ignore:'cgi' is deprecated")
@pytest.mark.parametrize("client", ["Firefox", "curl -F", "Python's requests", "a browser: urlencoded"])
def test_the_same_is_found_as_by_field_storage(client: str) -> None:
    import cgi
    import io

    sent = CLIENTS[client]
    body = sent.body.replace(b"\\", b"").replace(
        b'"1"', b"1"
    )  # FieldStorage knows quotes in names as little as RFC 7578
    storage: Any = cgi.FieldStorage(
        io.BytesIO(body),
        environ={"REQUEST_METHOD": "POST", "CONTENT_TYPE": sent.content_type, "CONTENT_LENGTH": str(len(body))},
        keep_blank_values=True,
    )
    form = read(sent.content_type, body)
    assert {*form, *form.files} == set(storage)
    for name in form:
        assert form.get(name) == storage.getfirst(name)
        assert form.get_all(name) == storage.getlist(name)
    for name, upload in form.files.items():
        theirs = storage[name]
        assert upload.filename == theirs.filename
        assert upload.content_type in (theirs.type, None)
        assert upload.file.read() == (theirs.value.encode() if isinstance(theirs.value, str) else theirs.value)
