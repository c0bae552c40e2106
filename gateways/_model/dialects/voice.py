"""How a Response is said to clients that do not speak HTTP: what the dialects of the small web have in common.

A dialect says what becomes of each kind of response (``Voice.phrase``); the bytes are sent here, for all of them: the
line of metadata in one piece with what follows it, no header fields, a body only where the dialect has one.
"""

import os

from gateways._model.asking import MAX_TEXT, Asking, is_control
from gateways._model.environ import quote
from gateways._model.errors import LocalProtocolError
from gateways._model.headers import INTERNAL, is_number
from gateways._model.policy import Answer, Begun, _check_length, _FileBody, _open, _stream
from gateways._model.response import close, default_type, encode
from gateways._model.status import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from gateways._model.policy import EndingSink, Sink
    from gateways._model.request import Request
    from gateways._model.response import Response

    class Filter(Protocol):
        """What changes the bytes of a body on their way."""

        def feed(self, data: bytes) -> bytes:
            """Take some of the body, give what may leave of it."""
            ...

        def end(self) -> bytes:
            """Give what is left, and what marks the end."""
            ...


_TEMPORARY, _PERMANENT = (302, 303, 307), (301, 308)


def voice_of(name: str, environ: "Mapping[str, str]", request: "Request | None") -> "Voice":
    """What speaks a dialect. There is no request where none could be made of the variables."""
    path = "/" if request is None else request.raw_path or quote(request.path) or "/"
    if name == "gemini":
        from gateways._model.dialects.gemini import Gemini

        return Gemini(environ, path)
    if name == "spartan":
        from gateways._model.dialects.spartan import Spartan

        return Spartan(environ, path)
    from gateways._model.dialects.gopher import Gopher

    return Gopher(environ, path)


class Phrase:
    """A response as it is said: a line, or nothing, and a body, or nothing. ``filter`` changes the body on its way."""

    __slots__ = ("body", "filter", "head")

    def __init__(self, head: bytes, body: "Any" = b"", filter: "Filter | None" = None) -> None:
        self.head = head
        self.body = body
        self.filter = filter


class Voice:
    """One dialect, answering one request. ``path`` is that of the request, encoded as in a URL."""

    __slots__ = ("environ", "path")

    def __init__(self, environ: "Mapping[str, str]", path: str) -> None:
        self.environ = environ
        self.path = path

    def phrase(self, response: "Response") -> Phrase:
        """What is said for a response. Raises LocalProtocolError for one that means nothing outside HTTP."""
        for name in response.headers:
            if name.lower() in INTERNAL:
                raise LocalProtocolError(f"{name} makes a web server send files: there is none over {self.scheme}")
        if isinstance(response, Asking):
            return self.ask(response)
        status = response.status
        if status in _TEMPORARY or status in _PERMANENT:
            location = response.headers.get("location")
            if not location:
                raise LocalProtocolError(f"a {status} without a Location leads nowhere")
            return self.redirect(check_reference(location), permanent=status in _PERMANENT)
        if status >= 400:
            return self.error(status, _message(response), response)
        if status >= 300 or status == 206:
            raise LocalProtocolError(f"a {status} means something over HTTP alone, and this is {self.scheme}")
        if status in (204, 205):
            return self.nothing()
        media_type = default_type(response)
        if not media_type.isascii() or not media_type.isprintable() or len(media_type) > MAX_TEXT:
            raise LocalProtocolError(f"not a media type that can be sent: {media_type[:80]!r}")
        return self.page(media_type, response.body)

    # --- what a dialect decides

    def page(self, media_type: str, body: "Any") -> Phrase:
        """A body of its type."""
        raise NotImplementedError

    def nothing(self) -> Phrase:
        """Success, and no more to say."""
        raise NotImplementedError

    def redirect(self, reference: str, *, permanent: bool) -> Phrase:
        """Look there instead."""
        raise NotImplementedError

    def error(self, status: int, message: str, response: "Response") -> Phrase:
        """It failed; ``status`` is HTTP's."""
        raise NotImplementedError

    def ask(self, response: Asking) -> Phrase:
        """The client is wanted to give something."""
        raise NotImplementedError

    # --- what they have to decide it by

    @property
    def scheme(self) -> str:
        """What the client speaks."""
        return self.environ.get("SERVER_PROTOCOL", "").partition("/")[0].lower()

    def resolve(self, reference: str) -> str:
        """A reference without scheme and host as a whole path, with its query (RFC 3986 section 5)."""
        rest, question, query = reference.partition("#")[0].partition("?")
        if not rest:
            path = self.path
        elif rest.startswith("/"):
            path = rest
        else:
            path = self.path.rpartition("/")[0] + "/" + rest
        return _without_dots(path) + question + query

    # --- sending

    async def send(self, response: "Response", request: "Request | None", sink: "Sink") -> None:
        """Send a whole response. Its body is closed in any case."""
        phrase = await self._phrase(response)
        given: Any = response.body
        body = phrase.body
        size = None
        if isinstance(body, str | bytes):
            body = encode(body)
            size = len(body)
        elif isinstance(body, os.PathLike) and request is not None:
            file, size = await request.run_sync(_open, given)
            body = _FileBody(file, request)
        try:
            length = _announced(response, size) if phrase.body is given else size
            through = _Through(phrase, Answer(response.status, phrase.head, length, size != 0), sink)
            await through.start()
        except BaseException:
            await close(body)
            raise
        if isinstance(body, bytes):
            await through.write(body)
        else:
            await _stream(body, length, through)
        await through.finish()

    async def begin(self, response: "Response", given: "Response", sink: "EndingSink") -> Begun:
        """Send what comes before the body of a response, and give back what sends the body."""
        phrase = await self._phrase(response)
        begins = phrase.body is response.body
        length = _announced(response, None) if begins else None
        answer = Answer(response.status, phrase.head, length, begins)
        through = _Through(phrase, answer, sink)
        await through.start()
        if not begins:
            await through.write(encode(phrase.body))  # a page of ours, in place of the handler's body
        return _Begun(given, sink, answer, through)

    async def _phrase(self, response: "Response") -> Phrase:
        kept = None
        try:
            phrase = self.phrase(response)
            kept = phrase.body
        finally:
            if kept is not response.body:
                await close(response.body)
        return phrase


class _Through:
    """Between a voice and a sink: puts a filter on the body, and a first byte of it where the dialect has no head."""

    __slots__ = ("_answer", "_filter", "_headless", "_sink", "committed")

    def __init__(self, phrase: Phrase, answer: Answer, sink: "Sink") -> None:
        self.committed = False
        self._answer = answer
        self._filter = phrase.filter
        self._headless = not phrase.head
        self._sink = sink

    async def start(self, answer: "Answer | None" = None) -> None:
        await self._sink.start(self._answer)

    async def write(self, data: bytes) -> None:
        await self._write(data if self._filter is None else self._filter.feed(data))

    async def finish(self) -> None:
        """The body is complete."""
        if self._filter is not None:
            await self._write(self._filter.end())

    async def _write(self, data: bytes) -> None:
        if self._headless and data:
            # A protocol sends a head before anything else.
            self._headless = False
            self._answer.head, data = data[:1], data[1:]
            await self._sink.start(self._answer)
        if data:
            await self._sink.write(data)

    def report(self, error: BaseException) -> None:
        self._sink.report(error)


class _Begun(Begun):
    """An answer in a dialect that goes out while its handler goes on."""

    __slots__ = ("_through",)

    def __init__(self, response: "Response", sink: "EndingSink", answer: Answer, through: _Through) -> None:
        super().__init__(response, sink, answer)
        self._through = through

    async def send(self, chunk: "str | bytes") -> None:
        data = encode(chunk)
        if self._meter is not None:
            data = self._meter.admit(data)
            if data:
                await self._through.write(data)

    async def end(self) -> None:
        if not self._ended:
            _check_length(self._meter, self._sink)
            await self._through.finish()
        await super().end()

    async def finish(self, response: "Response") -> None:
        await super().finish(response)
        if not self._ended:
            await self._through.finish()


# --- words -------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """A text as one line that can be metadata: no control characters, at most 1000 bytes, cut between characters."""
    line = "".join([" " if is_control(character) else character for character in text]).strip()
    return line.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore")


def check_reference(reference: str) -> str:
    """A URL, absolute or relative, that can be sent. Raises LocalProtocolError for one that was not encoded."""
    if not reference.isascii() or not reference.isprintable() or " " in reference:
        raise LocalProtocolError(f"a URL is percent-encoded ASCII, not {reference[:80]!r}")
    if len(reference) > MAX_TEXT:
        raise LocalProtocolError(f"a URL of {len(reference)} bytes: {MAX_TEXT} can be sent")
    return reference


def scheme_of(reference: str) -> str:
    """The scheme of a URL; "" for a relative reference."""
    scheme, colon, _ = reference.partition(":")
    plain = scheme.replace("+", "").replace("-", "").replace(".", "")
    return scheme.lower() if colon and scheme[:1].isalpha() and plain.isalnum() and scheme.isascii() else ""


def retry_after(response: "Response") -> str:
    """For how many seconds a client is to wait."""
    seconds = response.headers.get("retry-after", "")
    return seconds if seconds and is_number(seconds) and len(seconds) <= 9 else "60"


def _message(response: "Response") -> str:
    """What an error says in one line: its text, where it has one, else the reason phrase."""
    text = ""
    if isinstance(response.body, str) and default_type(response).startswith("text/plain"):
        text = clean(response.body.strip().partition("\n")[0])
    return text or reason(response.status)


def _announced(response: "Response", size: "int | None") -> "int | None":
    """The length of a body that is known or was announced. Raises LocalProtocolError where the two differ."""
    announced = response.headers.get("content-length")
    if announced is None:
        return size
    if size is not None and int(announced) != size:
        raise LocalProtocolError(f"Content-Length is {announced}, but the body has {size} bytes")
    return int(announced)


def _without_dots(path: str) -> str:
    """A path without "." and ".." segments (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
