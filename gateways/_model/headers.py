"""Header fields: what may be sent, and what came in.

Responses carry an ordered multi-map of validated fields; requests show the ``HTTP_*`` meta-variables through a lazy
view. RFC 9110 section 5, RFC 3875 sections 4.1.18 and 6.3.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

#: tchar of RFC 9110 section 5.6.2.
TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

#: Fields about one connection, not about the message: the web server's business (RFC 3875 section 6.3.4).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: Fields that make a web server send a file of its own choosing (nginx, lighttpd, Apache, h2o); others pass them on
#: to the client and disclose the path. Refused unless the listener allows them by name.
INTERNAL = frozenset(
    {
        "x-accel-redirect",
        "x-lighttpd-send-file",
        "x-lighttpd-send-tempfile",
        "x-reproxy-url",
        "x-sendfile",
        "x-sendfile2",
    }
)


#: Lower-case names that need no look at their characters, and that no rule below is about. One that is missing here
#: costs time and nothing else.
_USUAL = frozenset({
    "accept-ranges", "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
    "access-control-allow-origin", "access-control-expose-headers", "age", "allow", "cache-control",
    "content-disposition", "content-encoding", "content-language", "content-location", "content-range",
    "content-security-policy", "content-type", "cross-origin-opener-policy", "date", "etag", "expires",
    "last-modified", "link", "location", "permissions-policy", "pragma", "referrer-policy", "retry-after", "server",
    "server-timing", "set-cookie", "strict-transport-security", "vary", "www-authenticate", "x-content-type-options",
    "x-frame-options", "x-request-id",
})  # fmt: skip

#: Fields that a response has once.
_SINGLE = frozenset({"content-length", "content-type", "location"})


def is_token(text: str) -> bool:
    """Whether a text is a token of RFC 9110: not empty, and no character outside the set."""
    return bool(text) and TOKEN_CHARACTERS.issuperset(text)


def is_number(text: str) -> bool:
    """Whether a text is ASCII digits and nothing else (``int()`` would take "+3", "1_0" and "٣" as well)."""
    return text.isascii() and text.isdigit()


def check_value(what: str, value: str) -> None:
    """Raise ValueError for a text that must not stand in a header field: with CR, LF or NUL, with blanks at its ends
    (they would not survive every web server), with lone surrogates but those that stand for undecodable bytes.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} takes text, not {type(value).__name__}")
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"{what} holds CR, LF or NUL: {value!r}")
    if value != value.strip(" \t"):
        raise ValueError(f"{what} begins or ends with a blank: {value!r}")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ValueError(f"{what} cannot be encoded: {error}") from None


def check_field(name: str, value: str) -> None:
    """Raise ValueError for a field that a response must not carry (TypeError for anything but text)."""
    if not isinstance(name, str):
        raise TypeError(f"a header name is text, not {type(name).__name__}")
    lower = name.lower()
    if lower not in _USUAL or not name.isascii():  # the Kelvin sign in lower case is a plain k
        if not is_token(name):
            raise ValueError(f"a header name is a token, not {name!r}")
        if lower == "status":
            raise ValueError("the status is an argument of its own, not a header field")
        if lower in HOP_BY_HOP:
            raise ValueError(f"{name} is about one connection: the web server sends it, not the application")
    check_value(f"the header {name}", value)
    if lower == "content-length" and not is_number(value):
        raise ValueError(f"Content-Length takes ASCII digits, not {value!r}")


def as_pairs(fields: "MultiMap | Mapping[str, str] | Iterable[tuple[str, str]]") -> "tuple[tuple[str, str], ...]":
    """The (name, value) of a mapping, a multi-map, or something that gives them by itself."""
    items: Any = getattr(fields, "items", None)
    pairs: Any = fields if items is None else items()
    return tuple(pairs)


class MultiMap:
    """Texts under names, in their order, repeats kept. Immutable. Iterating gives the names, once each.

    >>> query = MultiMap([("a", "1"), ("a", "2")])
    >>> query["a"], query.get_all("a"), query.get("b")
    ('1', ['1', '2'], None)
    """

    __slots__ = ("_fields", "_first")

    def __init__(self, fields: "MultiMap | Mapping[str, str] | Iterable[tuple[str, str]]" = ()) -> None:
        self._fields: tuple[tuple[str, str], ...] = as_pairs(fields)
        #: The first value of each name, by what is compared of it.
        self._first: dict[str, str] = {}
        for name, value in self._fields:
            self._first.setdefault(self._fold(name), value)

    @staticmethod
    def _fold(name: str) -> str:
        """The form of a name that is compared."""
        return name

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: "str | None" = None) -> "str | None":
        """The first value of a name, or the default."""
        return self._first.get(self._fold(name), default)

    def get_all(self, name: str) -> "list[str]":
        """Every value of a name, in order."""
        folded = self._fold(name)
        return [value for field, value in self._fields if self._fold(field) == folded]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._fold(name) in self._first

    def items(self) -> "tuple[tuple[str, str], ...]":
        """Every (name, value), in order."""
        return self._fields

    def __iter__(self) -> "Iterator[str]":
        return iter({self._fold(name): name for name, _ in self._fields}.values())

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = [(self._fold(name), value) for name, value in self._fields]
        return mine == [(self._fold(name), value) for name, value in other._fields]

    def __hash__(self) -> int:
        return hash(tuple([(self._fold(name), value) for name, value in self._fields]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._fields)!r})"


class Headers(MultiMap):
    """Header fields of a response, every one checked; names compare without case. Immutable.

    >>> fields = Headers([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    >>> fields["set-cookie"], fields.get_all("set-cookie"), "ETag" in fields
    ('a=1', ['a=1', 'b=2'], False)

    Raises ValueError for a field that must not be sent: a name that is no token, "Status" and fields about one
    connection, a value with CR, LF, NUL or blanks at its ends; and for a second Content-Length, Content-Type or
    Location.
    """

    __slots__ = ()

    def __init__(self, fields: "MultiMap | Mapping[str, str] | Iterable[tuple[str, str]]" = ()) -> None:
        if isinstance(fields, Headers):
            self._fields, self._first = fields._fields, fields._first
            return
        self._fields, self._first = as_pairs(fields), {}
        for name, value in self._fields:
            check_field(name, value)
            lower = name.lower()
            if lower not in self._first:
                self._first[lower] = value
            elif lower in _SINGLE:
                raise ValueError(f"{name} is given twice")

    @staticmethod
    def _fold(name: str) -> str:
        return name.lower()


class RequestHeaders:
    """The header fields of a request, read through its environ: names without case, "-" and "_" alike.

    ``HTTP_ACCEPT_LANGUAGE`` is ``headers["accept-language"]``; CONTENT_TYPE and CONTENT_LENGTH are found under their
    names too. Repeated fields arrive joined (RFC 3875 section 4.1.18). Read only.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: "Mapping[str, str]") -> None:
        self._environ = environ

    def get(self, name: str, default: "str | None" = None) -> "str | None":
        """The value of a field, or the default."""
        return self._environ.get(_variable(name), default)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _variable(name) in self._environ

    def items(self) -> "list[tuple[str, str]]":
        """Every field as (lower-case name, value)."""
        fields: list[tuple[str, str]] = []
        for variable, value in self._environ.items():
            if variable.startswith("HTTP_"):
                fields.append((variable[5:].lower().replace("_", "-"), value))
            elif variable == "CONTENT_TYPE" or variable == "CONTENT_LENGTH":
                fields.append((variable.lower().replace("_", "-"), value))
        return fields

    def __iter__(self) -> "Iterator[str]":
        return iter([name for name, _ in self.items()])

    def __len__(self) -> int:
        return len(self.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RequestHeaders):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RequestHeaders({dict(self.items())!r})"


def _variable(name: str) -> str:
    variable = name.upper().replace("-", "_")
    if variable == "CONTENT_TYPE" or variable == "CONTENT_LENGTH":
        return variable
    return "HTTP_" + variable
