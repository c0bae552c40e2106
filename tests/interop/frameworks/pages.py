"""Requests to an application in a fixed order, with cookies, and what it answers: the same wherever it runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import attrs

from tests.interop.client import fetch
from tests.interop.frameworks.running import MOUNT

FORM = ("Content-Type", "application/x-www-form-urlencoded")
_BOUNDARY = "a-boundary"
MULTIPART = ("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")

#: Fields of an answer that are about one connection, one moment or one server.
_NOT_COMPARED = {"connection", "date", "keep-alive", "server", "transfer-encoding"}


@attrs.frozen
class Step:
    """One request, and the status of its answer."""

    name: str
    status: int
    target: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


class Page(NamedTuple):
    """An answer: ``headers`` in order of their names, which are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


#: Sends a request, with these header fields, to where the application is.
Send = Callable[[Step, list[tuple[str, str]]], Awaitable[Page]]


def multipart(fields: dict[str, str], files: dict[str, tuple[str, str, bytes]]) -> bytes:
    """The body of a form with files, each a name, a type and what is in it."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    for name, (filename, kind, data) in files.items():
        parts.append(f'name="{name}"; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'.encode() + data)
    marks = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    return b"".join(marks + part + b"\r\n" for part in parts) + f"--{_BOUNDARY}--\r\n".encode()


def through(port: int) -> Send:
    """By HTTP, to a web server with the application at its mount."""

    async def send(step: Step, headers: list[tuple[str, str]]) -> Page:
        answer = await fetch(port, step.method, MOUNT + step.target, headers, step.body)
        assert answer.complete, step.name
        return Page(answer.status, answer.headers, answer.body)

    return send


async def walk(steps: Iterable[Step], send: Send) -> dict[str, Page]:
    """Send the requests one after the other, with the cookies that the answers set; the answers by their names."""
    cookies: dict[str, str] = {}
    pages: dict[str, Page] = {}
    for step in steps:
        cookie = [("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()))] if cookies else []
        status, headers, body = await send(step, [*step.headers, *cookie])
        for name, value in headers:
            if name.lower() == "set-cookie":
                key, _, text = value.partition(";")[0].partition("=")
                cookies[key] = text
        cookies = {key: text for key, text in cookies.items() if text}
        pages[step.name] = Page(status, sorted(map(_compared, headers)), body)
    return pages


def _compared(field: tuple[str, str]) -> tuple[str, str]:
    name, value = field[0].lower(), field[1]
    if name == "allow":  # a set, in the order of the day
        value = ", ".join(sorted(value.split(", ")))
    # What is signed has the time in it.
    return name, re.sub(r"^session=[^;]+", "session=...", value)


def differences(expected: dict[str, Page], seen: dict[str, Page]) -> list[str]:
    """What is not the same, a line each.

    A length that only one of the two announces is no difference, nor is the type of nothing (204), which Apache drops.
    """
    found: list[str] = []
    assert seen.keys() == expected.keys()
    for name, page in expected.items():
        other = seen[name]
        if page.status != other.status:
            found.append(f"{name}: status {page.status} became {other.status}")
        if page.body != other.body:
            found.append(f"{name}: body {page.body[:2000]!r} became {other.body[:2000]!r}")
        ours, theirs = _fields(page, other), _fields(other, page)
        if ours != theirs:
            found.append(f"{name}: header fields {ours} became {theirs}")
    return found


def _fields(page: Page, other: Page) -> list[tuple[str, str]]:
    left_out = set(_NOT_COMPARED)
    if not all("content-length" in dict(each.headers) for each in (page, other)):
        left_out.add("content-length")
    if page.status == 204:
        left_out.add("content-type")
    return [field for field in page.headers if field[0] not in left_out]
