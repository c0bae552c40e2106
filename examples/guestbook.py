"""A guest book for HTTP, Gemini, Spartan and Gopher. It is kept in guestbook.txt, or where GUESTBOOK says."""

import os
from datetime import UTC, datetime

from gateways import Reject, Request, Response
from gateways.gemtext import Page

BOOK = os.environ.get("GUESTBOOK", "guestbook.txt")
LONGEST, SHOWN = 500, 50

# What changes something is a POST over HTTP: a GET may be sent by whoever looks ahead, and again by every reload.
FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sign the guest book</title>
<h1>Sign the guest book</h1>
<form method="post">
<p><label>Your line<br><input name="input" maxlength="500" autofocus></label> <button>Sign</button>
</form>
"""


async def app(request: Request) -> Response:
    if request.path_info == "/sign":
        return await sign(request)
    if request.path_info in ("", "/"):
        return await show(request)
    raise Reject(404)


async def show(request: Request) -> Response:
    page = Page()
    page.heading("Guest book")
    page.link(f"{request.script_name}/sign", "Sign it")
    for day, text in await request.run_sync(entries):
        page.heading(day, level=3)
        page.quote(text)  # one line of text, whatever is in it: it becomes no link and no HTML
    return page.response(request)


async def sign(request: Request) -> Response:
    if request.scheme in ("http", "https") and request.method != "POST":
        return Response.html(FORM)
    text = await request.input()
    line = " ".join((text or "").split())  # an end of line would begin another entry
    if not line:
        return Response.input("Your line")
    if len(line) > LONGEST:
        raise Reject(400, f"A line has {LONGEST} characters at most")
    await request.run_sync(add, line)
    return Response.redirect(f"{request.script_name}/")


def add(line: str) -> None:
    entry = f"{datetime.now(UTC):%Y-%m-%d}\t{line}\n"
    with open(BOOK, "ab", buffering=0) as file:  # one write at the end of the file: no two entries get mixed
        file.write(entry.encode("utf-8", "replace"))


def entries() -> list[tuple[str, str]]:
    try:
        with open(BOOK, encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    found = [line.partition("\t") for line in lines if "\t" in line]
    return [(day, text) for day, _, text in reversed(found[-SHOWN:])]
