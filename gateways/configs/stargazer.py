"""stargazer 1.3, which speaks SCGI over TCP and runs CGI scripts. Its configuration is an INI file."""

from __future__ import annotations

from gateways.configs.capsule import heading, no_files, port_of, root_and_mount
from gateways.configs.site import Refused, Site, commented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/stargazer.ini"
CHECK = "systemctl restart stargazer && systemctl status stargazer"
GROUP = "stargazer"

_ROOT = "/srv/gemini"


def render(site: Site) -> str:
    """The text of stargazer.ini. Raises Refused."""
    protocol = site.only("stargazer", "scgi", "cgi", several=False)
    no_files("stargazer", site)
    port = port_of(site)
    host = port.host or "::"
    host = f"[{host}]" if ":" in host else host
    if protocol == "scgi":
        address = site.backends[0].port
        if address is None:
            raise Refused("stargazer speaks SCGI over TCP alone: say --bind scgi:127.0.0.1:4000")
        root = _ROOT
        lines = site.heading("stargazer", protocol, mount="/")
        route = [f"[{site.server_name}:{site.mount or '/'}]", "scgi = true", f"scgi-address = {address}"]
    else:
        root, mount = root_and_mount("stargazer", site, segments=2)
        lines = heading(site, "stargazer", mount=False)
        route = [
            f"[{site.server_name}:{mount.rpartition('/')[0]}]",
            f"root = {root}",
            "cgi = true",
            "# Seconds.",
            f"cgi-timeout = {site.patience}",
        ]
    text = [
        *commented(lines),
        "",
        f"listen = {host}:{port.number}",
        "",
        "[:tls]",
        "# stargazer makes certificates where there are none.",
        "store = /var/lib/gemini/certs",
        f"organization = {site.server_name}",
        "",
        "# The first route that fits is taken.",
        *route,
    ]
    if site.mount or protocol == "cgi":
        text += [
            "",
            "# The files that it serves where the application is not asked.",
            f"[{site.server_name}]",
            f"root = {root}",
        ]
    return "\n".join(text) + "\n"
