"""Texts from others in lines of our log."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """A text for one line of a log: whatever could end the line or rule the terminal is escaped (CVE-2009-4492).

    All that is not printable, that is, but tabs.
    """
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() or each == "\t" else _escaped(each) for each in text])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
