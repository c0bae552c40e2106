"""GmCapsule 0.10, which runs CGI scripts for Gemini and Titan. Its configuration is an INI file."""

from __future__ import annotations

from gateways.configs.capsule import heading, no_files, port_of, script_of
from gateways.configs.site import Site, commented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/gmcapsule/{name}.ini"
CHECK = "gmcapsuled -c /etc/gmcapsule/{name}.ini"
GROUP = "gmcapsule"


def render(site: Site) -> str:
    """The text for the file that gmcapsuled -c takes. Raises Refused."""
    site.only("GmCapsule", "cgi")
    no_files("GmCapsule", site)
    script = script_of(site)
    port = port_of(site)
    # What follows a path that ends in a star begins without a slash, so the mount is for us to say.
    lines = heading(site, "GmCapsule", mount=True)
    lines += ["It inherits the environment of GmCapsule, and its answer is passed on when it has ended."]
    limit = 2**31 - 1 if site.max_body is None else site.max_body
    text = [
        *commented(lines),
        "",
        "[server]",
        f"host = {site.server_name}",
        f"address = {port.host or '::'}",
        f"port = {port.number}",
        "# cert.pem and key.pem in a folder with the name of the host. GmCapsule makes them where there are none, and",
        "# moves and renames what lies beside that folder: the folder is for it alone.",
        "certs = /etc/gmcapsule/certs",
        "# As many scripts at a time.",
        "processes = 4",
        "",
        "[titan]",
        "# Bytes of an upload; above it 50. They are in memory before the script is run.",
        f"upload_limit = {limit}",
        "# Nobody uploads anything without a certificate (60). Which one it is, the application has to look at.",
        "require_identity = true",
    ]
    paths = f"{site.mount} {site.mount}/*" if site.mount else "/*"
    for section, protocol in ((site.name, "gemini"), (f"{site.name}-uploads", "titan")):
        text += [
            "",
            f"[cgi.{section}]",
            f"protocol = {protocol}",
            f"host = {site.server_name}",
            f"path = {paths}",
            f"command = {script}",
        ]
    return "\n".join(text) + "\n"
