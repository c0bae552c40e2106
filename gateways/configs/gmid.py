"""gmid 2.1, which speaks FastCGI."""

from __future__ import annotations

from gateways.configs.capsule import no_files, port_of, string
from gateways.configs.site import Backend, Site, commented, indented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/gmid.conf"
CHECK = "gmid -n && systemctl restart gmid"
GROUP = "gmid"

_ROOT = "/var/gemini"


def render(site: Site) -> str:
    """The text for gmid.conf. Raises Refused."""
    protocol = site.only("gmid", "fastcgi", several=False)
    no_files("gmid", site)
    port = port_of(site)
    lines = commented(site.heading("gmid", protocol))
    [backend] = site.backends
    body = [
        f"listen on {string(port.host) if port.host else '*'} port {port.number}",
        f"cert {string(f'/etc/gmid/{site.server_name}.crt')}",
        f"key {string(f'/etc/gmid/{site.server_name}.key')}",
        "# The files that it serves where the application is not asked.",
        f"root {string(_ROOT)}",
        "",
        "# Clients may show a certificate: its fingerprint is in TLS_CLIENT_HASH. The name in it, REMOTE_USER, is of",
        "# their own choice, and --trust-remote-user would be wrong.",
    ]
    # A pattern of the shell, of which "*" takes slashes too; without the slash before it, /app* would take /apple.
    for path in [site.mount, f"{site.mount}/*"] if site.mount else ["/*"]:
        body += [f"location {string(path)} {{", *indented(_fastcgi(site, backend)), "}"]
    user = [
        "# Started by root, gmid wants to be told a user, whose home it cannot leave then (chroot): what is said about",
        "# files and sockets below is seen from there.",
        f"# user {string(site.user or 'gmid')}",
        "",
    ]
    return "\n".join([*lines, "", *user, f"server {string(site.server_name)} {{", *indented(body), "}"]) + "\n"


def _fastcgi(site: Site, backend: Backend) -> list[str]:
    if backend.port is None:
        socket = f"socket {string(str(backend.path))}"
    else:
        socket = f"socket tcp {string(str(backend.port.host))} port {backend.port.number}"
    mount = [f"param SCRIPT_NAME = {string(site.mount)}"] if site.mount else []
    return ["fastcgi {", *indented([socket, *mount]), "}"]
