"""The dialect of Gopher (RFC 1436): nothing but the body; what went wrong is a menu too.

A client knows from the link that it followed whether to expect a text, a menu or bytes. Texts and menus end in a line
with a period, which the servers leave to their scripts.
"""

from gateways._model.dialects.voice import Phrase, Voice, clean, scheme_of
from gateways._model.environ import unquote
from gateways._model.headers import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gateways._model.asking import Asking
    from gateways._model.response import Response

_MENU = "application/gopher-menu"


class Gopher(Voice):
    """Answers over Gopher."""

    __slots__ = ()

    def page(self, media_type: str, body: "Any") -> Phrase:
        essence = media_type.partition(";")[0].strip().lower()
        is_text = essence == _MENU or essence.startswith("text/")
        return Phrase(b"", body, TextFilter() if is_text else None)

    def nothing(self) -> Phrase:
        return Phrase(b"", b"", TextFilter())

    def redirect(self, reference: str, *, permanent: bool) -> Phrase:
        scheme = scheme_of(reference)
        label = clean(f"See {reference}")
        if scheme == "gopher":
            authority, _, path = reference.partition("://")[2].partition("/")
            host, _, port = authority.partition(":")
            kind, selector = path[:1] or "1", unquote(path[1:])
            return self._menu(kind, label, selector, host, port or "70")
        if scheme or reference.startswith("//"):
            return self._menu("h", label, f"URL:{reference}")
        return self._menu("1", label, _selector(self.resolve(reference)))

    def error(self, status: int, message: str, response: "Response") -> Phrase:
        return self._menu("3", message, "", "error.host", "1")

    def ask(self, response: "Asking") -> Phrase:
        if response.kind == "input":
            return self._menu("7", response.text, _selector(self.path))
        if response.kind == "sensitive":
            return self._menu("3", "This cannot be asked for without encryption", "", "error.host", "1")
        return self._menu("3", response.text, "", "error.host", "1")

    def _menu(self, kind: str, text: str, selector: str, host: str = "", port: str = "") -> Phrase:
        """A menu of one line."""
        host = host or self.environ.get("SERVER_NAME", "localhost")
        port = port or self.environ.get("SERVER_PORT", "")
        fields = [clean(text), clean(selector), clean(host), port if is_number(port) else "70"]
        return Phrase(b"", (kind + "\t".join(fields) + "\n").encode("utf-8", "replace"), TextFilter())


def _selector(reference: str) -> str:
    """The selector that a path and query are for a server. What cannot stand in one stays encoded."""
    path, question, query = reference.partition("?")
    decoded = unquote(path)
    if any(character < " " or character == "\x7f" for character in decoded):
        decoded = path
    return decoded + question + query


class TextFilter:
    """Makes a text one of Gopher's: lines that end in CRLF, a lone period doubled, a period at the end."""

    __slots__ = ("_at_start", "_held")

    def __init__(self) -> None:
        #: What may still turn out to be a line of its own, or the end of one.
        self._held = b""
        #: Whether what is held begins a line.
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        """Take some of the text."""
        *lines, last = (self._held + data).split(b"\n")
        out = bytearray()
        for line in lines:
            out += self._whole(line.removesuffix(b"\r"))
            self._at_start = True
        self._held = b""
        if self._at_start and last in (b"", b".", b"\r", b".\r"):
            self._held = last
        else:
            self._held = last[-1:] if last.endswith(b"\r") else b""
            out += last.removesuffix(b"\r")
            self._at_start = False
        return bytes(out)

    def end(self) -> bytes:
        """Give what is left, and the period."""
        rest = b""
        if self._held or not self._at_start:
            rest = self._whole(self._held.removesuffix(b"\r"))
        return rest + b".\r\n"

    def _whole(self, line: bytes) -> bytes:
        return (b".." if line == b"." and self._at_start else line) + b"\r\n"
