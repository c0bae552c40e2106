"""A page for members, who are known by their certificates: the fingerprints in members.txt, or where MEMBERS says."""

import os

from gateways import Reject, Request, Response
from gateways.gemtext import Page

# A line for each member, written by the owner of the capsule: the fingerprint of a certificate, and a name.
MEMBERS = os.environ.get("MEMBERS", "members.txt")


async def app(request: Request) -> Response:
    if request.path_info in ("", "/"):
        return welcome(request)
    if request.path_info.rstrip("/") == "/members":  # molly-brown takes the last slash off
        return await members_only(request)
    raise Reject(404)


def welcome(request: Request) -> Response:
    page = Page()
    page.heading("The club")
    page.text("Everybody can read this. What follows is for members, who log in with a certificate of their own.")
    page.link(f"{request.script_name}/members/", "Members only")
    return page.response(request)


async def members_only(request: Request) -> Response:
    certificate = request.client_certificate
    if certificate is None:
        return Response.certificate_required("Members log in with a certificate, over Gemini")
    # Never by certificate.common_name: whoever makes a certificate puts into it whatever name he likes.
    name = (await request.run_sync(members)).get(certificate.fingerprint)
    if name is None:
        return Response.certificate_refused(f"Send the owner your fingerprint: {certificate.fingerprint}")
    page = Page()
    page.heading(f"Welcome, {name}")
    page.text(f"Your certificate says that you are {certificate.common_name or 'nobody'}, which proves nothing.")
    page.text(f"It is yours alone: {certificate.fingerprint}")
    page.link(f"{request.script_name}/", "Back to the club")
    return page.response(request)


def members() -> dict[str, str]:
    """Fingerprint -> name, read anew each time, so that a new member need not wait."""
    try:
        with open(MEMBERS, encoding="utf-8") as file:
            lines = [line.split(maxsplit=1) for line in file]
    except FileNotFoundError:
        return {}
    return {words[0].lower(): words[1].strip() for words in lines if len(words) == 2}
