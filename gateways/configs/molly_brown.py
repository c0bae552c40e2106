"""molly-brown of Debian 12, which speaks SCGI over unix sockets and runs CGI scripts. Its configuration is TOML."""

from __future__ import annotations

from gateways.configs.capsule import all_addresses, heading, no_files, root_and_mount, string
from gateways.configs.site import Refused, Site, commented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/molly-brown/{name}.conf"
CHECK = "systemctl restart molly-brown@{name} && systemctl status molly-brown@{name}"
GROUP = "ssl-cert"

_ROOT = "/var/lib/molly-brown"


def render(site: Site) -> str:
    """The text for /etc/molly-brown. Raises Refused."""
    protocol = site.only("molly-brown", "scgi", "cgi", several=False)
    no_files("molly-brown", site)
    number = all_addresses("molly-brown", site)
    if protocol == "scgi":
        if not site.backends[0].path:
            raise Refused("molly-brown speaks SCGI over unix sockets alone: say --bind scgi:unix:/run/app.sock")
        root, lines = _ROOT, _over_scgi(site)
    else:
        root, _ = root_and_mount("molly-brown", site)
        lines = heading(site, "molly-brown", mount=True)
        lines += ["It has 10 seconds, and its answer is passed on when it has ended: SCGI has neither of the two."]
    text = [
        *commented(lines),
        "",
        f"Port = {number}",
        "# Requests for another name are refused.",
        f"Hostname = {string(site.server_name)}",
        f"CertPath = {string(f'/etc/molly-brown/certs/{site.server_name}.crt')}",
        f"KeyPath = {string(f'/etc/molly-brown/certs/{site.server_name}.key')}",
        "# The files that it serves where the application is not asked.",
        f"DocBase = {string(root)}",
        'AccessLog = "-"',
        'ErrorLog = "-"',
        "",
        *_application(site, protocol),
    ]
    return "\n".join(text) + "\n"


def _over_scgi(site: Site) -> list[str]:
    return [
        *site.heading("molly-brown", "scgi", mount="/"),
        "Debian's unit forbids molly-brown such sockets. systemctl edit molly-brown@ has to say",
        "",
        "  [Service]",
        "  RestrictAddressFamilies=AF_UNIX",
    ]


def _application(site: Site, protocol: str) -> list[str]:
    if protocol == "cgi":
        return [
            "# What begins with this path is run.",
            f"CGIPaths = [{string(str(site.backends[0].path))}]",
        ]
    return [
        "# What begins with this path is asked of the application, /application for /app as well: --mount answers 51.",
        "[SCGIPaths]",
        f"{string(site.mount or '/')} = {string(str(site.backends[0].path))}",
    ]
