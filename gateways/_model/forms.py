"""HTML forms: the body of a request as texts and uploaded files.

``application/x-www-form-urlencoded`` is read by the rules of the query string. ``multipart/form-data`` (RFC 7578, and
form submission in the HTML standard) is taken apart by the package ``multipart``, of the extra "forms". This module is
loaded when the first form is asked for.
"""

import io
import os

from gateways._model.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from gateways._model.headers import MultiMap
from gateways._model.request import _form_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from typing import Any

    from gateways._model.request import Request

    #: ``Request.run_sync``
    RunSync = Callable[..., Awaitable[Any]]

#: The files of a form are in memory up to this size, all of them together; beyond it they go to disk in such pieces.
_IN_MEMORY = 262_144
_PIECE = 65_536
#: More than this is not decoded in the event loop.
_LONG = 65_536

#: The encodings that a part may choose for itself. Any other is left to the form: a client should not pick a codec.
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "iso-8859-1"}


class Form(MultiMap):
    """The texts of a form under their names, in their order, repeats kept; the files are in ``files``.

    >>> form = Form([("tag", "a"), ("tag", "b")])
    >>> form["tag"], form.get_all("tag"), form.get("name", "nobody"), len(form.files)
    ('a', ['a', 'b'], 'nobody', 0)

    Files take memory, and disk space if they are large, as long as anything refers to the form or to one of them: for
    most handlers until they return. ``close()``, or the end of ``with form:``, lets go of them at once.
    """

    __slots__ = ("_spool", "files")

    def __init__(
        self,
        fields: "Sequence[tuple[str, str]]" = (),
        files: "Sequence[tuple[str, Upload]]" = (),
        spool: "_Spool | None" = None,
    ) -> None:
        super().__init__(fields)
        #: The uploaded files.
        self.files = Files(files)
        self._spool = spool

    def close(self) -> None:
        """Let go of the files: reading them raises ValueError from now on."""
        if self._spool is not None:
            self._spool.close()

    def __enter__(self) -> "Form":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Two forms with the same texts need not have the same files.

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        # Without the texts: passwords would end up in logs.
        return f"<Form of {list(self)!r} and the files {list(self.files)!r}>"


class Files:
    """Uploaded files under the names of their fields, in their order, repeats kept. Iterating gives the names, once
    each."""

    __slots__ = ("_uploads",)

    def __init__(self, uploads: "Sequence[tuple[str, Upload]]" = ()) -> None:
        self._uploads = tuple(uploads)

    def __getitem__(self, name: str) -> "Upload":
        upload = self.get(name)
        if upload is None:
            raise KeyError(name)
        return upload

    def get(self, name: str) -> "Upload | None":
        """The first file of a name, or None."""
        for field, upload in self._uploads:
            if field == name:
                return upload
        return None

    def get_all(self, name: str) -> "list[Upload]":
        """Every file of a name, in order."""
        return [upload for field, upload in self._uploads if field == name]

    def __contains__(self, name: object) -> bool:
        return any(field == name for field, _ in self._uploads)

    def items(self) -> "tuple[tuple[str, Upload], ...]":
        """Every (name, file), in order."""
        return self._uploads

    def __iter__(self) -> "Iterator[str]":
        return iter(dict(self._uploads))

    def __len__(self) -> int:
        return len(self._uploads)

    def __repr__(self) -> str:
        return f"Files({list(self._uploads)!r})"


class Upload:
    """One uploaded file: its bytes, and what the client says of it, none of which need be true."""

    __slots__ = ("_file", "_run_sync", "_spool", "_start", "content_type", "filename_as_sent", "size")

    def __init__(self, spool: "_Spool", filename_as_sent: str, content_type: "str | None", run_sync: "RunSync") -> None:
        #: The name that the client gives the file, which may be a path, and anything else.
        self.filename_as_sent = filename_as_sent
        #: Its media type, parameters included; None where the client gives none.
        self.content_type = content_type
        #: Its length in bytes.
        self.size = 0
        self._spool = spool
        self._start = spool.size
        self._run_sync = run_sync
        self._file: io.BufferedReader | None = None

    @property
    def filename(self) -> str:
        """The last part of the name that the client gives the file: without folders, and "" rather than "." or "..".

        It leads out of no folder, but it may still be the name of a file that is there, or begin with a dot.
        """
        last = self.filename_as_sent.replace("\\", "/").rpartition("/")[2]
        return "" if last == "." or last == ".." else last

    @property
    def file(self) -> "io.BufferedReader":
        """Its bytes as a binary file, readable and seekable, the same one each time. Reads of a large one block, for
        as long as the disk takes."""
        if self._file is None:
            self._file = io.BufferedReader(_Window(self._spool, self._start, self.size), _PIECE)
        return self._file

    async def save(self, path: "str | os.PathLike[str]") -> None:
        """Write it to a new file at ``path``, in a worker thread (inline under CGI).

        Raises FileExistsError where there is something already. What fails leaves no file behind. Cancelled, it
        leaves the copying to the thread, which goes on to its end.
        """
        await self._run_sync(_copy, _Window(self._spool, self._start, self.size), path)

    def __repr__(self) -> str:
        return f"<Upload {self.filename_as_sent!r} of {self.size} bytes>"


def _copy(source: "_Window", path: "str | os.PathLike[str]") -> None:
    with open(path, "xb") as target:
        try:
            while piece := source.read(_PIECE):
                target.write(piece)
            target.flush()
        except BaseException:
            os.unlink(path)
            raise


async def read_form(
    request: "Request",
    encoding: str,
    max_fields: int,
    max_field_bytes: int,
    max_file_bytes: "int | None",
    max_bytes: "int | None",
) -> Form:
    """Read the body of a request as a form: see :meth:`Request.form`."""
    "".encode(encoding)  # LookupError here rather than at the first text of a client's
    body = request.body
    if body._left != body.length:
        raise LocalProtocolError("the body was read before: a form is read once, keep what form() gave")
    content_type = request.content_type
    if content_type is None:
        if await body.receive_some(1):
            raise RemoteProtocolError("the body has no Content-Type: it is no form", status=415)
        return Form()
    kind = content_type.partition(";")[0].strip(" \t").lower()
    if kind == "multipart/form-data":
        texts = _Texts(encoding, max_fields, max_field_bytes, body._max_read)
        parts = _Parts(_boundary(content_type), texts, max_file_bytes, request.run_sync)
        return await _multipart(request, parts, max_bytes)
    if kind == "application/x-www-form-urlencoded":
        limit = body._max_read if max_bytes is None else min(max_bytes, body._max_read)
        raw = await body.read(limit)
        texts = _Texts(encoding, max_fields, max_field_bytes, limit)
        if len(raw) > _LONG:
            return await request.run_sync(_urlencoded, raw, texts)
        return _urlencoded(raw, texts)
    raise RemoteProtocolError(f"the body is {kind!r}, which is no form", status=415)


class _Texts:
    """Gathers the texts of a form, within their limits."""

    def __init__(self, encoding: str, max_fields: int, max_field_bytes: int, max_texts: int) -> None:
        self.encoding = encoding
        self.max_fields = max_fields
        self.fields: list[tuple[str, str]] = []
        self._max_field_bytes = max_field_bytes
        self._left = self._max_texts = max_texts

    def add(self, name: str, value: "bytes | bytearray", encoding: str) -> None:
        """One field whose value is complete; :meth:`check` and :meth:`count` have let it pass."""
        self.fields.append((name, value.decode(encoding, "surrogateescape")))

    def check(self, size: int) -> None:
        """Raise LimitExceeded for a value of more bytes than one may have."""
        if size > self._max_field_bytes:
            raise LimitExceeded(f"a field of the form is longer than {self._max_field_bytes} bytes (max_field_bytes)")

    def count(self, size: int) -> None:
        """Count bytes that stay in memory: names and values, also those of files."""
        self._left -= size
        if self._left < 0:
            raise LimitExceeded(f"the fields of the form are longer than {self._max_texts} bytes (Limits.max_read)")

    def too_many(self) -> LimitExceeded:
        """The error for a form with more fields than it may have, files included."""
        return LimitExceeded(f"the form has more than {self.max_fields} fields (max_fields)")


# --- application/x-www-form-urlencoded -------------------------------------------------------------------------------


def _urlencoded(raw: bytes, texts: _Texts) -> Form:
    if raw.count(b"&") >= texts.max_fields:
        raise texts.too_many()
    for name, value in _form_fields(raw.decode("utf-8", "surrogateescape")):
        data = value.encode("utf-8", "surrogateescape")
        texts.check(len(data))
        name = name.encode("utf-8", "surrogateescape").decode(texts.encoding, "surrogateescape")
        texts.add(name, data, texts.encoding)
    return Form(texts.fields)


# --- multipart/form-data ---------------------------------------------------------------------------------------------


def _boundary(content_type: str) -> str:
    """The boundary of a multipart body. Raises RemoteProtocolError for none, or for one that RFC 2046 rules out."""
    boundary = _library().parse_options_header(content_type)[1].get("boundary", "")
    if not (0 < len(boundary) <= 70 and boundary.isascii() and boundary.isprintable()):
        raise RemoteProtocolError("multipart/form-data takes a boundary of 1 to 70 printable characters")
    return str(boundary)


def _library() -> "Any":
    """The package ``multipart``, version 2."""
    try:
        import multipart  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        multipart = None
    # Version 1, and python-multipart, which may stand in its place, do not have this.
    if not hasattr(multipart, "parse_content_disposition"):
        raise ImportError("forms with files need the package multipart, version 2: pip install 'gateways[forms]'")
    return multipart


async def _multipart(request: "Request", parts: "_Parts", max_bytes: "int | None") -> Form:
    body = request.body
    size = 0
    _check_size(body.length or 0, max_bytes)
    try:
        while chunk := await body.receive_some():
            size += len(chunk)
            _check_size(size, max_bytes)
            parts.feed(chunk)
            if parts.spool.is_full:
                await parts.spool.spill(request.run_sync)
        return parts.end()
    except BaseException:
        parts.spool.close()  # now, however long somebody keeps the traceback
        raise


def _check_size(size: int, max_bytes: "int | None") -> None:
    if max_bytes is not None and size > max_bytes:
        raise LimitExceeded(f"the form is longer than {max_bytes} bytes (max_bytes)")


class _Parts:
    """Makes a Form of the bytes of a multipart body, fed in pieces of any size."""

    def __init__(self, boundary: str, texts: _Texts, max_file_bytes: "int | None", run_sync: "RunSync") -> None:
        self.spool = _Spool()
        self._texts = texts
        self._max_file_bytes = max_file_bytes
        self._run_sync = run_sync
        self._library = _library()
        # Heads are taken as Latin-1, which loses nothing, because what they are in is for us to say.
        self._parser = self._library.PushMultipartParser(boundary, header_charset="latin-1")
        self._pending = bytearray()
        self._files: list[tuple[str, Upload]] = []
        self._count = 0
        # The part that is being read: its head, and what its bytes go to, one of the two.
        self._name = ""
        self._encoding = texts.encoding
        self._upload: Upload | None = None
        self._value = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take some more of the body. Raises RemoteProtocolError for what is malformed or over a limit."""
        # In blocks of one size: what the parser makes of some malformed heads depends on how they are cut.
        self._pending += chunk
        while len(self._pending) >= _PIECE:
            block = bytes(memoryview(self._pending)[:_PIECE])
            del self._pending[:_PIECE]
            self._parse(block)

    def end(self) -> Form:
        """The form, now that the body has ended. Raises as :meth:`feed`."""
        if self._pending:
            self._parse(bytes(self._pending))
        self._parse(b"")
        return Form(self._texts.fields, self._files, self.spool)

    def _parse(self, block: bytes) -> None:
        try:
            for event in self._parser.parse(block):
                if event is None:
                    self._end_part()
                elif isinstance(event, bytes):
                    self._take(event)
                else:
                    self._begin_part(event)
        except self._library.MultipartError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> RemoteProtocolError:
        kind = LimitExceeded if isinstance(error, self._library.ParserLimitReached) else RemoteProtocolError
        return kind(f"the form cannot be read: {error}")

    def _begin_part(self, head: "Any") -> None:
        self._count += 1
        if self._count > self._texts.max_fields:
            raise self._texts.too_many()
        for _, value in head.headerlist:
            if "\0" in value or "\r" in value or "\n" in value:
                raise RemoteProtocolError("the head of a part holds CR, LF or NUL")
        content_type = head.header("Content-Type")
        self._texts.count(len(head.name) + len(head.filename or "") + len(content_type or ""))
        self._name = self._decoded(head.name)
        self._encoding = _CHARSETS.get((head.charset or "").lower(), self._texts.encoding)
        self._upload = None
        self._value = bytearray()
        if head.filename is not None:
            content_type = None if content_type is None else self._decoded(content_type)
            self._upload = Upload(self.spool, self._decoded(head.filename), content_type, self._run_sync)

    def _decoded(self, text: str) -> str:
        return text.encode("latin-1").decode(self._texts.encoding, "surrogateescape")

    def _take(self, data: bytes) -> None:
        if self._upload is None:
            self._texts.check(len(self._value) + len(data))
            self._texts.count(len(data))
            self._value += data
            return
        self._upload.size += len(data)
        if self._max_file_bytes is not None and self._upload.size > self._max_file_bytes:
            raise LimitExceeded(f"a file of the form is longer than {self._max_file_bytes} bytes (max_file_bytes)")
        self.spool.append(data)

    def _end_part(self) -> None:
        if self._upload is None:
            self._texts.add(self._name, self._value, self._encoding)
        elif self._upload.filename_as_sent or self._upload.size:
            # Where no file was chosen, browsers send an empty one without a name.
            self._files.append((self._name, self._upload))


# --- where the bytes of files are ------------------------------------------------------------------------------------


class _Spool:
    """The bytes of all files of one form, one behind the other: on disk, and the last of them in memory.

    One file serves a whole form: a thousand uploads take one descriptor. It has no name, and what closes it is that
    nobody refers to it any more, because a worker thread may still be busy with it when its request is long over.
    """

    __slots__ = ("_disk", "_memory", "_on_disk")

    def __init__(self) -> None:
        self._disk: _Nameless | None = None
        self._on_disk = 0
        #: None once the spool is closed.
        self._memory: bytearray | None = bytearray()

    @property
    def size(self) -> int:
        return self._on_disk + len(self._open())

    @property
    def is_full(self) -> bool:
        """Whether so much is in memory that it should be spilled."""
        return len(self._open()) > _IN_MEMORY

    def append(self, data: bytes) -> None:
        memory = self._open()
        memory += data

    async def spill(self, run_sync: "RunSync") -> None:
        """Write what is in memory to disk. Raises LimitExceeded (507) when that cannot be done."""
        # The thread changes nothing here: it may go on when this has been cancelled.
        self._disk = await run_sync(self._write)
        self._on_disk += len(self._open())
        self._memory = bytearray()

    def _write(self) -> "_Nameless":
        memory, disk = self._open(), self._disk
        try:
            if disk is None:
                import tempfile  # only for large files

                with tempfile.TemporaryFile(buffering=0) as file:
                    disk = _Nameless(os.dup(file.fileno()))
            disk.append(memory)
        except OSError as error:
            problem = f"cannot keep the files of the form in a temporary file: {error.strerror}"
            raise LimitExceeded(problem, status=507) from error
        return disk

    def read(self, start: int, size: int) -> bytes:
        """Some bytes from ``start`` on, at most ``size``, and at least one if there is one."""
        memory = self._open()
        if start < self._on_disk and self._disk is not None:
            return self._disk.read(start, min(size, self._on_disk - start))
        start -= self._on_disk
        return bytes(memoryview(memory)[start : start + size])

    def close(self) -> None:
        self._disk = self._memory = None

    def _open(self) -> bytearray:
        if self._memory is None:
            raise ValueError("the form is closed")
        return self._memory


class _Nameless:
    """A temporary file that is gone when nobody refers to it. (A file object would warn that nobody has closed it.)"""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytearray) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, start)

    def __del__(self) -> None:
        os.close(self._descriptor)


class _Window(io.RawIOBase):
    """A part of a spool as a file."""

    def __init__(self, spool: _Spool, start: int, size: int) -> None:
        super().__init__()
        self._spool = spool
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = (0, self._at, self._size)[whence] + offset
        if at < 0:
            raise ValueError(f"cannot seek to {at}, before the file")
        self._at = at
        return at

    def readinto(self, buffer: "Any") -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._spool.read(self._start + self._at, wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
