"""Texts from others in lines of our log."""

from __future__ import annotations

__all__ = ["indented", "printable", "quoted"]

#: Where a text has several lines, these stand before all but the first: none of them can pass for a line of the log.
_INDENT = "    "


def printable(text: str) -> str:
    """A text for one line of a log: whatever could end the line or rule the terminal is escaped (CVE-2009-4492).

    All that is not printable, that is, but tabs.
    """
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() or each == "\t" else _escaped(each) for each in text])


def quoted(text: str) -> str:
    """The same for a text that stands between quotation marks, which it can neither end nor feign to have escaped."""
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return printable(text)


def indented(text: str) -> str:
    """A text of several lines, such as a traceback: escaped like any other, and all lines but the first indented."""
    if "\n" not in text:
        return printable(text)
    return f"\n{_INDENT}".join([printable(line) for line in text.rstrip("\n").split("\n")])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
