"""Which of several media types a client wants (RFC 9110 section 12.5.1, and what the small web is made of)."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NATIVE = {
    "gemini": ("text/gemini", "text/plain"),
    "titan": ("text/gemini", "text/plain"),
    "spartan": ("text/gemini", "text/plain"),
    "gopher": ("application/gopher-menu", "text/plain"),
}


def preferred(scheme: str, accept: str, offered: "Sequence[str]") -> str:
    """The one of the media types offered that serves the client best."""
    if not offered:
        raise TypeError("preferred() takes the media types that there are")
    if scheme in _NATIVE:
        for wanted in _NATIVE[scheme]:
            for each in offered:
                if _essence(each) == wanted:
                    return each
        return offered[0]
    ranges = _ranges(accept)
    # A browser names text/html, and says */* for everything that it does not know.
    best = max(offered, key=lambda each: (_quality(_essence(each), ranges), _essence(each) == "text/html"))
    return best


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip(" \t").lower()


def _ranges(accept: str) -> "dict[str, float]":
    """The weight of each media range of an Accept field; what is malformed counts as not there."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = item.split(";")
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.strip(" \t").partition("=")
            if key.lower() == "q":
                digits = value.replace(".", "", 1)
                weight = float(value) if digits.isascii() and digits.isdigit() and len(value) <= 5 else 0.0
        if name.strip(" \t"):
            ranges[name.strip(" \t").lower()] = weight
    return ranges


def _quality(essence: str, ranges: "dict[str, float]") -> float:
    if not ranges:
        return 1.0
    family = essence.partition("/")[0] + "/*"
    return ranges.get(essence, ranges.get(family, ranges.get("*/*", 0.0)))
