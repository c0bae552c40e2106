"""Pages of gemtext: one page, written line by line, for every network.

>>> page = Page()
>>> page.heading("Guest book")
>>> page.text("Be welcome.")
>>> page.link("/sign", "Sign it")
>>> print(page, end="")
# Guest book
Be welcome.
=> /sign Sign it

``page.response(request)`` is the page in the form that suits the client: gemtext, HTML, a menu of Gopher or plain text.
The text of a line is never more than that: whatever a visitor has typed in becomes no link and no tag.
"""

from gateways import Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateways import Request

__all__ = ["Line", "Page"]

#: Links that may be followed from a page of HTML; any other scheme (javascript: for one) is shown and leads nowhere.
SCHEMES = frozenset(
    {
        "finger",
        "ftp",
        "gemini",
        "gopher",
        "gophers",
        "http",
        "https",
        "mailto",
        "nex",
        "spartan",
        "tel",
        "titan",
        "xmpp",
    }
)

_KINDS = frozenset({"text", "link", "heading", "item", "quote", "preformatted"})
_MARKS = ("=>", "#", "* ", ">", "```")
_ITEM_TYPES = {
    ".gif": "g",
    ".gmi": "0",
    ".jpeg": "I",
    ".jpg": "I",
    ".mp3": "s",
    ".ogg": "s",
    ".pdf": "d",
    ".png": "I",
    ".txt": "0",
    ".webp": "I",
    ".zip": "9",
}
_GOPHER_WIDTH = 67


class Line:
    """One line, or one preformatted block: its ``kind``, its ``text``, and what goes with it.

    ``kind`` is "text", "link" (with ``url``), "heading" (with ``level`` 1 to 3), "item", "quote" or "preformatted"
    (with ``alt``, and lines in its text). What the text cannot hold is replaced: controls and, but for a preformatted
    block, ends of lines by a space; a text that would read as a line of another kind begins with a space. Raises
    ValueError for another kind or level, and for a URL that is empty or has blanks or controls in it. Immutable.
    """

    __slots__ = ("alt", "kind", "level", "text", "url")

    kind: str
    text: str
    url: str
    level: int
    alt: str

    def __init__(self, kind: str, text: str = "", *, url: str = "", level: int = 0, alt: str = "") -> None:
        if kind not in _KINDS:
            raise ValueError(f"a line of gemtext is one of {', '.join(sorted(_KINDS))}, not {kind!r}")
        if kind == "link":
            check_url(url)
        if kind == "heading" and level not in (1, 2, 3):
            raise ValueError(f"a heading is of level 1, 2 or 3, not {level!r}")
        if kind == "preformatted":
            # A line of three backquotes would end it.
            text = "\n".join([" " + each if each.startswith("```") else each for each in map(_plain, _lines(text))])
        elif kind == "text":
            text = _plain(text)
            if text.startswith(_MARKS):
                text = " " + text
        else:
            text = _plain(text).strip()
        set_once = object.__setattr__
        set_once(self, "kind", kind)
        set_once(self, "text", text)
        set_once(self, "url", url if kind == "link" else "")
        set_once(self, "level", level if kind == "heading" else 0)
        set_once(self, "alt", _plain(alt).strip() if kind == "preformatted" else "")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a line cannot be changed: {name}")

    def __str__(self) -> str:
        """The line as gemtext, without its end."""
        match self.kind:
            case "link":
                return f"=> {self.url} {self.text}".rstrip()
            case "heading":
                return f"{'#' * self.level} {self.text}".rstrip()
            case "item":
                return f"* {self.text}"
            case "quote":
                return f"> {self.text}".rstrip()
            case "preformatted":
                return f"```{self.alt}\n{self.text}\n```" if self.text else f"```{self.alt}\n```"
            case _:
                return self.text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Line):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Line.__slots__)

    def __hash__(self) -> int:
        return hash((self.kind, self.text, self.url, self.level, self.alt))

    def __repr__(self) -> str:
        return f"<Line {self.kind} {str(self)!r}>"


class Page:
    """A page of gemtext, made line by line. ``lines`` may be given and looked at; two with equal lines are equal.

    ``str(page)`` is the gemtext.
    """

    __slots__ = ("lines",)

    def __init__(self, lines: "Iterable[Line]" = ()) -> None:
        #: The lines, a list.
        self.lines = list(lines)

    @classmethod
    def parse(cls, text: str) -> "Page":
        """The page that a gemtext is. Every text is one: what is malformed is a line of text."""
        return cls(_parsed(_lines(text)))

    # --- writing

    def text(self, text: str = "") -> None:
        """Add text, a paragraph for each line of it; without any, a blank line."""
        self.lines += [Line("text", each) for each in _lines(text)]

    def link(self, url: str, label: str = "") -> None:
        """Add a link. The URL must be encoded already: ValueError for one with blanks or controls in it."""
        self.lines.append(Line("link", label, url=url))

    def heading(self, text: str, level: int = 1) -> None:
        """Add a heading of level 1, 2 or 3."""
        self.lines.append(Line("heading", text, level=level))

    def item(self, text: str) -> None:
        """Add an item of a list."""
        self.lines.append(Line("item", text))

    def quote(self, text: str) -> None:
        """Add a quotation, a line for each line of it."""
        self.lines += [Line("quote", each) for each in _lines(text)]

    def preformatted(self, text: str, alt: str = "") -> None:
        """Add a block that keeps its blanks and ends of lines; ``alt`` says what it shows to who cannot see it."""
        self.lines.append(Line("preformatted", text.removesuffix("\n"), alt=alt))

    # --- reading

    @property
    def title(self) -> str:
        """The first heading, or ""."""
        return next((line.text for line in self.lines if line.kind == "heading"), "")

    def __str__(self) -> str:
        return "".join([f"{line}\n" for line in self.lines])

    def to_html(self, *, title: "str | None" = None, language: "str | None" = None, whole: bool = True) -> str:
        """The page as HTML: a whole document, or with ``whole=False`` what stands in its body.

        All text is escaped; links with a scheme outside :data:`SCHEMES` are shown without leading anywhere.
        """
        body = "\n".join(_html(self.lines)) + "\n"
        if not whole:
            return body
        lang = f' lang="{_escape(language)}"' if language else ""
        title = _escape(self.title if title is None else title)
        head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>{title}</title>'
        # The text may be anybody's: a long word breaks, and what is preformatted scrolls by itself.
        style = "<style>body{overflow-wrap:anywhere}pre{overflow-x:auto}</style>"
        return f"<!doctype html>\n<html{lang}>\n<head>\n{head}\n{style}\n</head>\n<body>\n{body}</body>\n</html>\n"

    def to_gophermap(self, host: str, port: int = 70, *, base: str = "/") -> str:
        """The page as a menu of Gopher, without the period at its end. ``host`` and ``port`` are the server's own,
        where relative links lead; ``base`` is the path, encoded as in a URL, that they are relative to. Raises
        ValueError for a host that is empty or has blanks or controls in it.
        """
        if any(character.isspace() or character < " " for character in host) or not host:
            raise ValueError(f"not the name of a host: {host!r}")
        return "".join([line + "\r\n" for line in _gophermap(self.lines, host, port, base)])

    def to_text(self, width: int = 72) -> str:
        """The page as plain text, in lines of at most ``width`` characters where words let it."""
        return "".join([line + "\n" for line in _text(self.lines, width)])

    def response(self, request: "Request", status: int = 200) -> Response:
        """The page as an answer, in the form that ``request.preferred`` picks: gemtext, HTML, a menu or plain text."""
        wanted = request.preferred("text/gemini", "text/html", "application/gopher-menu", "text/plain")
        if wanted == "text/html":
            return Response.html(self.to_html(), status)
        if wanted == "application/gopher-menu":
            from urllib.parse import quote  # only over Gopher

            base = quote(request.path, errors="surrogateescape")
            menu = self.to_gophermap(request.server_name or "localhost", request.server_port or 70, base=base)
            return Response(menu, status, content_type=wanted)
        if wanted == "text/plain":
            return Response(self.to_text(), status)
        return Response(str(self), status, content_type="text/gemini")

    def __iter__(self) -> "Iterator[Line]":
        return iter(self.lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Page):
            return NotImplemented
        return self.lines == other.lines

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Page of {len(self.lines)} lines, {self.title!r}>"


# --- reading gemtext ---------------------------------------------------------------------------------------------


def _parsed(lines: "list[str]") -> "Iterator[Line]":
    if lines[-1] == "":
        lines = lines[:-1]  # the end of the last line
    block: list[str] | None = None
    alt = ""
    for line in lines:
        if line.startswith("```"):
            if block is None:
                block, alt = [], line[3:]
            else:
                yield Line("preformatted", "\n".join(block), alt=alt)
                block = None
        elif block is not None:
            block.append(line)
        else:
            yield _line(line)
    if block is not None:
        yield Line("preformatted", "\n".join(block), alt=alt)


def _line(line: str) -> Line:
    if line.startswith("=>"):
        url, _, label = _plain(line[2:]).strip().partition(" ")
        try:
            return Line("link", label, url=url)
        except ValueError:
            return Line("text", line)
    if line.startswith("#"):
        level = 3 if line.startswith("###") else 2 if line.startswith("##") else 1
        return Line("heading", line[level:], level=level)
    if line.startswith("* "):
        return Line("item", line[2:])
    if line.startswith(">"):
        return Line("quote", line[1:])
    return Line("text", line)


def _lines(text: str) -> "list[str]":
    return text.replace("\r\n", "\n").split("\n")


def _plain(text: str) -> str:
    """A text as one line, its control characters turned into spaces; lone surrogates cannot be sent."""
    if text.isprintable():
        return text
    characters = [" " if _is_control(character) else character for character in text]
    return "".join(characters).encode("utf-8", "replace").decode()


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029"


def check_url(url: str) -> None:
    """Raise ValueError for a text that cannot be the URL of a link."""
    if not url or any(character.isspace() or _is_control(character) for character in url):
        raise ValueError(f"a URL has no blanks and no controls in it, and is not empty: {url!r}")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a URL with a lone surrogate: {url!r}") from None


def scheme_of(url: str) -> str:
    """The scheme of a URL in small letters; "" for a relative reference."""
    before = url.partition("/")[0].partition("?")[0].partition("#")[0]
    scheme, colon, _ = before.partition(":")
    return scheme.lower() if colon else ""


# --- other forms -------------------------------------------------------------------------------------------------


def _escape(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(character, entity)
    return text


def _html(lines: "Iterable[Line]") -> "Iterator[str]":
    inside = ""  # the list or quotation that is open
    for line in lines:
        belongs = {"item": "ul", "quote": "blockquote"}.get(line.kind, "")
        if belongs != inside:
            if inside:
                yield f"</{inside}>"
            if belongs:
                yield f"<{belongs}>"
            inside = belongs
        text = _escape(line.text)
        match line.kind:
            case "link":
                label = text or _escape(line.url)
                if scheme_of(line.url) in SCHEMES | {""}:
                    yield f'<p><a href="{_escape(line.url)}">{label}</a></p>'
                else:
                    yield f"<p>{label} ({_escape(line.url)})</p>"
            case "heading":
                yield f"<h{line.level}>{text}</h{line.level}>"
            case "item":
                yield f"<li>{text}</li>"
            case "preformatted":
                # HTML drops a first end of line, so there is one to drop.
                label = f' aria-label="{_escape(line.alt)}"' if line.alt else ""
                yield f"<pre{label}>\n{text}\n</pre>"
            case _:
                if text.strip():
                    yield f"<p>{text}</p>"
    if inside:
        yield f"</{inside}>"


def _gophermap(lines: "Iterable[Line]", host: str, port: int, base: str) -> "Iterator[str]":
    for line in lines:
        if line.kind == "link":
            yield _menu_item(line, host, port, base)
        elif line.kind == "preformatted":
            for each in line.text.split("\n"):
                yield _info(each)
        else:
            for each in _wrapped(line, _GOPHER_WIDTH):
                yield _info(each)


def _info(text: str) -> str:
    return f"i{text}\tfake\t(NULL)\t0"


def _menu_item(line: Line, host: str, port: int, base: str) -> str:
    label = line.text or line.url
    scheme = scheme_of(line.url)
    if scheme == "gopher":
        authority, _, path = line.url.partition("://")[2].partition("/")
        name, _, number = authority.partition(":")
        kind, selector = path[:1] or "1", _selector(path[1:])
        return f"{kind}{label}\t{selector}\t{name}\t{number or 70}"
    if scheme or line.url.startswith("//"):
        return f"h{label}\tURL:{line.url}\t{host}\t{port}"
    from urllib.parse import urljoin  # only for a relative link

    url = urljoin(base.partition("?")[0], line.url).partition("#")[0]
    name = url.partition("?")[0].rpartition("/")[2]
    suffix = name[name.rindex(".") :].lower() if "." in name else ""
    return f"{_ITEM_TYPES.get(suffix, '1')}{label}\t{_selector(url)}\t{host}\t{port}"


def _selector(url: str) -> str:
    """What a client sends for the path and query of a URL. Escapes that cannot be undone in a menu stay."""
    from urllib.parse import unquote

    path, question, query = url.partition("?")
    decoded = unquote(path, errors="surrogateescape")
    if any(_is_control(character) or "\ud800" <= character <= "\udfff" for character in decoded):
        decoded = path
    return decoded + question + query


def _text(lines: "Iterable[Line]", width: int) -> "Iterator[str]":
    for line in lines:
        if line.kind == "link":
            yield f"{line.text} <{line.url}>" if line.text else f"<{line.url}>"
        elif line.kind == "preformatted":
            yield from line.text.split("\n")
        else:
            yield from _wrapped(line, width)
            if line.kind == "heading" and line.level < 3:
                yield "=-"[line.level - 1] * min(len(line.text), width)


def _wrapped(line: Line, width: int) -> "Iterator[str]":
    """The text of a line in lines that are not too long, with its mark."""
    first, further = {"item": ("* ", "  "), "quote": ("> ", "> ")}.get(line.kind, ("", ""))
    row = ""
    for word in line.text.split():
        if row and len(first) + len(row) + 1 + len(word) > width:
            yield first + row
            first, row = further, word
        else:
            row = f"{row} {word}" if row else word
    yield (first + row).rstrip()
