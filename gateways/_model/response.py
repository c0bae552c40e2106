"""The answer of a handler: a plain value, rendered later in the dialect of whoever asked.

RFC 3875 section 6, RFC 9110. Everything that must not reach the wire is refused when the value is made, also under
``python -O``.
"""

import os

from gateways._model.headers import Headers, check_value, is_token
from gateways._model.status import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
    from typing import Any

    from gateways._model.headers import MultiMap

    Send = Callable[[str | bytes], Awaitable[None]]
    ResponseBody = (
        str
        | bytes
        | os.PathLike[str]
        | Callable[[Send], Awaitable[None]]
        | AsyncIterable[str | bytes]
        | Iterable[str | bytes]
    )
    HeaderFields = MultiMap | Mapping[str, str] | Iterable[tuple[str, str]]

_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_NO_HEADERS = Headers()


class Response:
    """Status, header fields and body.

    ``body`` is text (UTF-8), bytes, a path (its file is sent), a push callable ``async def body(send)``, or an
    iterable, plain or asynchronous, of bytes or text; iterables are closed in any case. ``status`` is 200 to 599.
    ``content_type`` is by default ``text/plain; charset=utf-8`` for text and ``application/octet-stream`` for
    anything else, never HTML. ``app_status`` is what a program would pass to exit(), for FastCGI.

    Raises ValueError for a status outside the range and for header fields that must not be sent (see
    :class:`Headers`), TypeError for a body of another kind.
    """

    __slots__ = ("app_status", "authorizes", "body", "content_type", "headers", "status")

    def __init__(
        self,
        body: "ResponseBody" = "",
        status: int = 200,
        headers: "HeaderFields" = (),
        *,
        content_type: "str | None" = None,
        app_status: int = 0,
    ) -> None:
        if type(status) is not int or not 200 <= status <= 599:
            raise ValueError(f"a response has a status from 200 to 599, not {status!r}")
        if type(app_status) is not int or not 0 <= app_status <= 0xFFFFFFFF:
            raise ValueError(f"app_status is a number from 0 to 2**32 - 1, not {app_status!r}")
        if not isinstance(body, str) and not _is_body(body):
            raise TypeError(f"a body is text, bytes, a path, an iterable or a push callable, not {body!r}")
        self.status = status
        self.headers = given = _NO_HEADERS if headers == () else Headers(headers)
        if content_type is not None:
            check_value("content_type", content_type)
            if "content-type" in given:
                raise ValueError("the content type is given twice")
        elif given is not _NO_HEADERS:
            content_type = given.get("content-type")
        self.content_type = content_type
        self.body = body
        self.app_status = app_status
        #: Whether it lets a request pass an authorizer: made by :meth:`authorize` alone.
        self.authorizes = False

    @classmethod
    def html(cls, text: str, status: int = 200, headers: "HeaderFields" = ()) -> "Response":
        """A page of HTML."""
        return cls(text, status, headers, content_type="text/html; charset=utf-8")

    @classmethod
    def json(cls, value: object, status: int = 200, headers: "HeaderFields" = ()) -> "Response":
        """A value as JSON. Raises what ``json.dumps`` raises for a value it cannot render."""
        import json  # only for those who ask: it loads re

        return cls(json.dumps(value) + "\n", status, headers, content_type="application/json")

    @classmethod
    def redirect(cls, url: str, permanent: bool = False) -> "Response":
        """Send the client to another URL: 302, or 301 when permanent. The URL must be encoded already."""
        return cls("", 301 if permanent else 302, [("Location", url)])

    @staticmethod
    def input(prompt: str, sensitive: bool = False) -> "Response":
        """Ask the user for a line of text: see ``await request.input()``. Over HTTP this is a form.

        Raises ValueError for a prompt that is empty, has a control character in it, or is longer than 1000 bytes.
        """
        from gateways._model.asking import for_input  # only for those who ask

        return for_input(prompt, sensitive)

    @staticmethod
    def certificate_required(
        message: str = "A client certificate is required", *, scope: "str | None" = None
    ) -> "Response":
        """Have the client show a certificate: see ``Request.client_certificate``. Over HTTP a 403.

        Clients use a certificate for the path at which they were asked for it, and for what lies below. With a
        ``scope``, a path encoded as in a URL, they are first sent there: its handler has to ask as well. Raises
        ValueError like :meth:`input`.
        """
        from gateways._model.asking import for_certificate

        return for_certificate("required", message, scope)

    @staticmethod
    def certificate_refused(message: str = "This certificate is not the one", *, invalid: bool = False) -> "Response":
        """Tell the client that its certificate is not one for this, or good for nothing. Over HTTP a 403."""
        from gateways._model.asking import for_certificate

        return for_certificate("invalid" if invalid else "refused", message)

    @classmethod
    def authorize(cls, **variables: str) -> "Response":
        """Let a request pass an authorizer (FastCGI section 6.3); the variables are handed to the responder.

        Nothing else does: any other answer of an authorizer refuses the request. Raises ValueError for a name that is
        no token and for a value that cannot be sent.
        """
        for name in variables:
            if not is_token(name):
                raise ValueError(f"not the name of a variable: {name!r}")
        response = cls("", 200, [(f"Variable-{name}", value) for name, value in variables.items()])
        response.authorizes = True
        return response

    @classmethod
    def file(cls, path: "str | os.PathLike[str]", *, content_type: "str | None" = None) -> "Response":
        """A file; its type is guessed from its name. Raises FileNotFoundError and kin when there is none."""
        os.stat(path)
        if content_type is None:
            import mimetypes  # only for those who ask

            content_type, encoding = mimetypes.guess_type(os.fspath(path))
            if encoding is not None:
                content_type = _BYTES
            elif content_type is not None and content_type.startswith("text/"):
                content_type += "; charset=utf-8"
        return cls(_Path(os.fspath(path)), content_type=content_type)

    def with_header(self, name: str, value: str) -> "Response":
        """A copy with one more header field. Raises ValueError like the constructor."""
        return self._copy(self.status, [*self.headers.items(), (name, value)])

    def with_status(self, status: int) -> "Response":
        """A copy with another status, which no longer authorizes. Raises ValueError like the constructor."""
        copy = self._copy(status, self.headers)
        copy.authorizes = False
        return copy

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: "int | None" = None,
        path: "str | None" = "/",
        domain: "str | None" = None,
        secure: bool = False,
        http_only: bool = True,
        same_site: "str | None" = "Lax",
    ) -> "Response":
        """A copy that sets a cookie (RFC 6265). ``max_age`` is in seconds; 0 deletes the cookie.

        Raises ValueError for a name that is no token and a value that a cookie cannot hold.
        """
        if not is_token(name):
            raise ValueError(f"a cookie is named by a token, not {name!r}")
        if not value.isascii() or not value.isprintable() or any(character in ' ",;\\' for character in value):
            raise ValueError(f"a cookie cannot hold {value!r}: encode it first")
        parts = [f"{name}={value}"]
        for attribute, setting in (("Max-Age", max_age), ("Path", path), ("Domain", domain), ("SameSite", same_site)):
            if setting is not None:
                if ";" in str(setting):
                    raise ValueError(f"a cookie's {attribute} cannot hold {setting!r}")
                parts.append(f"{attribute}={setting}")
        parts += ["Secure"] * secure + ["HttpOnly"] * http_only
        return self.with_header("Set-Cookie", "; ".join(parts))

    def _copy(self, status: int, headers: "HeaderFields") -> "Response":
        content_type = None if "content-type" in self.headers else self.content_type
        copy = Response(self.body, status, headers, content_type=content_type, app_status=self.app_status)
        copy.authorizes = self.authorizes
        return copy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Response.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Response {self.status} {reason(self.status)} {default_type(self)}>"


class _Path:
    """A path given as text, told apart from a body of text."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Path) and self._path == other._path

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._path)


def default_type(response: Response) -> str:
    """The media type a response goes out with."""
    if response.content_type:
        return response.content_type
    return _TEXT if isinstance(response.body, str) else _BYTES


def encode(chunk: "Any") -> bytes:
    """A piece of a body as bytes. Raises TypeError for anything but text or bytes."""
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "surrogateescape")
    if isinstance(chunk, bytearray):
        return bytes(chunk)
    if isinstance(chunk, memoryview):
        return chunk.tobytes()
    raise TypeError(f"a body is sent in pieces of bytes or text, not {type(chunk).__name__}")


def _is_body(body: object) -> bool:
    if isinstance(body, str | bytes | os.PathLike) or callable(body):
        return True
    return hasattr(body, "__aiter__") or (
        hasattr(body, "__iter__") and not isinstance(body, dict | bytearray | memoryview)
    )


def _is_push(body: object) -> bool:
    return callable(body) and not hasattr(body, "__aiter__")


async def pour(body: "Any", send: "Send") -> None:
    """Send a streamed body (push callable or iterable) piece by piece, and close what can be closed."""
    if _is_push(body):
        await body(send)
        return
    is_async = hasattr(body, "__aiter__")
    try:
        # Closing the body does not close the generator that its __iter__ or __aiter__ may be.
        iterator = body.__aiter__() if is_async else iter(body)
        try:
            if is_async:
                async for chunk in iterator:
                    await send(chunk)
            else:
                for chunk in iterator:
                    await send(chunk)
        finally:
            if iterator is not body:
                await close(iterator)
    finally:
        await close(body)


async def close(body: "Any") -> None:
    """Close an iterable body, run or not: generators must see the end of a request (RFC 3875 says nothing, PEP 3333
    does)."""
    if hasattr(body, "aclose"):
        await body.aclose()
    elif hasattr(body, "close"):
        body.close()


class Meter:
    """Holds a streamed body to its Content-Length."""

    __slots__ = ("excess", "left", "length")

    def __init__(self, length: "int | None") -> None:
        #: Bytes that were announced.
        self.length = length
        #: Bytes that are still to come; None where no length was announced.
        self.left = length
        #: Bytes that were cut.
        self.excess = 0

    def admit(self, chunk: bytes) -> bytes:
        """The part of a chunk that may be sent."""
        if self.left is None:
            return chunk
        admitted = chunk[: self.left]
        self.left -= len(admitted)
        self.excess += len(chunk) - len(admitted)
        return admitted
