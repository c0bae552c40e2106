"""A small wiki: read it over HTTP, Gemini, Spartan and Gopher, write to it with a form or over Titan.

Its pages are files of gemtext in the folder wiki, or where WIKI says. Only who knows WIKI_PASSWORD can write.
"""

import hmac
import os
import re
import tempfile
from html import escape
from pathlib import Path

from gateways import Reject, Request, Response
from gateways.gemtext import Page

FOLDER = Path(os.environ.get("WIKI", "wiki"))
PASSWORD = os.environ.get("WIKI_PASSWORD", "")
LARGEST = 65_536  # bytes in a page
# A name is all that gets into the path of a file, so it has no dot and no slash in it.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Edit {name}</title>
<h1>Edit {name}</h1>
<form method="post">
<p><textarea name="text" rows="16" style="width: 100%; box-sizing: border-box" autofocus>
{text}</textarea>
<p><label>Password <input name="password" type="password" required></label> <button>Save</button>
</form>
"""


async def app(request: Request) -> Response:
    name, slash, action = request.path_info.removeprefix("/").partition("/")
    if not name and not slash:
        return await contents(request)
    if not NAME.fullmatch(name) or (slash and action != "edit"):
        raise Reject(404)
    if request.method in ("PUT", "DELETE"):  # Titan, and HTTP by hand
        return await upload(request, name)
    if "TITAN_EDIT" in request.environ:
        text = await request.run_sync(read, name)
        return Response(text or "", content_type="text/gemini")
    return await edit(request, name) if slash else await show(request, name)


# --- reading


async def contents(request: Request) -> Response:
    page = Page()
    page.heading("Wiki")
    for name in await request.run_sync(names):
        page.link(f"{request.script_name}/{name}", name)
    page.text("A page that is not there yet is made by editing it.")
    page.link(f"{request.script_name}/start/edit", "Edit the page “start”")
    return page.response(request)


async def show(request: Request, name: str) -> Response:
    text = await request.run_sync(read, name)
    page = Page.parse(text or "This page is still to be written.")
    page.text()
    page.link(f"{request.script_name}/{name}/edit", "Edit this page")
    page.link(f"{request.script_name}/", "All pages")
    return page.response(request, 200 if text is not None else 404)


# --- writing


async def edit(request: Request, name: str) -> Response:
    if request.scheme in ("http", "https"):
        return await edit_in_browser(request, name)
    if request.scheme != "gemini":
        raise Reject(400, "Pages are edited over Titan or HTTP")
    page = Page()
    page.heading(f"Edit {name}")
    page.text("Send a text to this address over Titan, with the password as the token.")
    target = request.url.partition("?")[0].replace("gemini:", "titan:", 1).removesuffix("/edit")
    page.link(target, "Upload")
    page.link(f"{target};edit", "Edit")
    return page.response(request)


async def edit_in_browser(request: Request, name: str) -> Response:
    if request.method != "POST":
        text = await request.run_sync(read, name) or ""
        return Response.html(FORM.format(name=name, text=escape(text)))
    form = await request.form(max_field_bytes=LARGEST)
    check_password(form.get("password") or "")
    await request.run_sync(write, name, (form.get("text") or "").replace("\r\n", "\n"))
    return Response.redirect(f"{request.script_name}/{name}")


async def upload(request: Request, name: str) -> Response:
    check_password(request.environ.get("TITAN_TOKEN", ""))
    if request.method == "DELETE":
        await request.run_sync(delete, name)
        return Response.redirect(f"{request.script_name}/")
    if not (request.content_type or "").startswith(("text/gemini", "text/plain")):
        raise Reject(415, "A page is text/gemini or text/plain")
    try:
        text = (await request.body.read(LARGEST)).decode()
    except UnicodeDecodeError:
        raise Reject(400, "A page is UTF-8") from None
    await request.run_sync(write, name, text)
    return Response.redirect(f"{request.script_name}/{name}")


def check_password(given: str) -> None:
    # A comparison that takes as long for a good guess as for a bad one.
    if not PASSWORD or not hmac.compare_digest(given.encode("utf-8", "replace"), PASSWORD.encode()):
        raise Reject(403, "That is not the password")


# --- files


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.gmi") if NAME.fullmatch(path.stem))


def read(name: str) -> str | None:
    try:
        return (FOLDER / f"{name}.gmi").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def write(name: str, text: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    # Under another name first: nobody ever reads half a page.
    with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
        file.write(text.encode("utf-8", "replace"))
    os.replace(file.name, FOLDER / f"{name}.gmi")


def delete(name: str) -> None:
    (FOLDER / f"{name}.gmi").unlink(missing_ok=True)
