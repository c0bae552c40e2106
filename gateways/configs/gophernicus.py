"""Gophernicus 3.1, which runs CGI scripts. systemd starts it for each request, with the options of one line."""

from __future__ import annotations

from gateways.configs.capsule import GOPHER, all_addresses, heading, no_files, root_and_mount
from gateways.configs.site import Site, commented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/default/gophernicus"
CHECK = "systemctl restart gophernicus.socket && printf '/caps.txt\\r\\n' | nc -N localhost 70"
GROUP = "_gophernicus"


def render(site: Site) -> str:
    """The text for /etc/default/gophernicus. Raises Refused."""
    site.only("Gophernicus", "cgi")
    no_files("Gophernicus", site)
    root, mount = root_and_mount("Gophernicus", site, segments=2)
    number = all_addresses("Gophernicus", site, GOPHER)
    folder = mount.rpartition("/")[0]
    options = [
        f"-h {site.server_name}",
        f"-p {number}",
        f"-r {root}",
        f"-c {folder}/",
        *("-nv", "-nu", "-np", "-nt", "-nH"),
    ]
    lines = [
        *heading(site, "Gophernicus", mount=False),
        "",
        f"Its selector is {mount}, and what is below it stands behind a question mark: {mount}?/page.",
        f"A link to it in a gophermap begins with 1 for a menu, 0 for a text, 7 for a question: 1Title{{TAB}}{mount}",
        "",
        "-nv: no other hosts; -nu: no pages of users; -np: clients say of no address that it is theirs (proxy",
        "protocol); -nt: no /server-status; -nH: no answers to browsers, whose HTTP/0.9 is not what a script answers.",
        *(
            []
            if number == GOPHER
            else [f"The port that it listens on, too, is in gophernicus.socket: ListenStream={number}"]
        ),
    ]
    return "\n".join([*commented(lines), "", f"OPTIONS={' '.join(options)}"]) + "\n"
