"""Answers that ask the client for something: a text, a certificate. Each is a page for HTTP, and more elsewhere."""

from gateways._model.headers import Headers
from gateways._model.response import Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways._model.response import HeaderFields

#: What goes into the one line of metadata, in bytes of UTF-8; with a status and an end it has to stay below 1024.
MAX_TEXT = 1000


class Asking(Response):
    """A response that asks. ``kind`` is "input", "sensitive", "required", "refused" or "invalid"; ``text`` is shown to
    the user, ``scope`` is where a certificate is wanted for.
    """

    __slots__ = ("kind", "scope", "text")

    def __init__(self, kind: str, text: str, body: str, status: int, scope: "str | None" = None) -> None:
        check_text(text)
        if scope is not None and (
            not scope.startswith("/") or not scope.isascii() or not scope.isprintable() or " " in scope
        ):
            raise ValueError(f"a scope is the path of a URL, encoded: {scope!r}")
        html = kind in ("input", "sensitive")
        super().__init__(body, status, content_type="text/html; charset=utf-8" if html else None)
        self.kind = kind
        self.text = text
        self.scope = scope

    def _copy(self, status: int, headers: "HeaderFields") -> Response:
        if status != self.status:
            return super()._copy(status, headers)  # which no longer asks
        copy = Asking(self.kind, self.text, str(self.body), status, self.scope)
        copy.headers = Headers(headers)
        return copy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Asking):
            return NotImplemented
        mine, theirs = (self.kind, self.text, self.scope), (other.kind, other.text, other.scope)
        return mine == theirs and super().__eq__(other) is True

    __hash__ = None


def for_input(prompt: str, sensitive: bool) -> Asking:
    """The response behind ``Response.input``."""
    check_text(prompt)  # before it becomes part of a page
    method, kind = ("post", "password") if sensitive else ("get", "text")
    page = (
        '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{_escape(prompt)}</title>\n</head>\n<body>\n'
        f'<form method="{method}">\n<p><label>{_escape(prompt)}<br>\n'
        f'<input name="input" type="{kind}" autofocus></label>\n<button>OK</button></p>\n</form>\n</body>\n</html>\n'
    )
    return Asking("sensitive" if sensitive else "input", prompt, page, 200)


def for_certificate(kind: str, message: str, scope: "str | None" = None) -> Asking:
    """The response behind ``Response.certificate_required`` and its kin."""
    return Asking(kind, message, message + "\n", 403, scope)


def check_text(text: str) -> None:
    """Raise ValueError for a text that cannot be metadata: empty, with a control character in it, or too long."""
    if not isinstance(text, str):
        raise TypeError(f"metadata is text, not {type(text).__name__}")
    if not text.strip():
        raise ValueError("the text for the user is empty")
    if any(is_control(character) for character in text):
        raise ValueError(f"the text for the user holds CR, LF or another control character: {text!r}")
    if len(text.encode("utf-8", "replace")) > MAX_TEXT:
        raise ValueError(f"the text for the user is longer than {MAX_TEXT} bytes")


def is_control(character: str) -> bool:
    """Whether a character would break a line of metadata, or what shows it."""
    return character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029"


def _escape(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
