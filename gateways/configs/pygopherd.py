"""pygopherd 3.0 of Debian 12, which runs scripts over Gopher. Its configuration is an INI file, and whole."""

from __future__ import annotations

from gateways.configs.capsule import GOPHER, heading, no_files, port_of, root_and_mount
from gateways.configs.site import Site, commented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/pygopherd/pygopherd.conf, in place of what is there"
CHECK = "systemctl restart pygopherd && systemctl status pygopherd"
GROUP = "gopher"


def render(site: Site) -> str:
    """The text of pygopherd.conf. Raises Refused."""
    site.only("pygopherd", "cgi")
    no_files("pygopherd", site)
    root, mount = root_and_mount("pygopherd", site)
    port = port_of(site, GOPHER)
    # pygopherd does not say that it runs a CGI script.
    lines = [
        *heading(site, "pygopherd", mount=False, more="export GATEWAY_INTERFACE=CGI/1.1 && "),
        'It is given words of the client after its name: never hand them on ("$@").',
        "",
        f"Its selector is {mount}, and what is below it stands behind a question mark: {mount}?/page.",
        f"A link to it in a gophermap begins with 1 for a menu, 0 for a text, 7 for a question: 1Title{{TAB}}{mount}",
    ]
    text = [
        *commented(lines),
        "",
        "[pygopherd]",
        f"servername = {site.server_name}",
        *([f"interface = {port.host}"] if port.host else []),
        f"port = {port.number}",
        f"root = {root}",
        "# A script needs its Python, and what that imports.",
        "usechroot = no",
        "detach = no",
        "servertype = ForkingTCPServer",
        "timeout = 60",
        "enable_tls = no",
        "# Clients are not shown where the code has failed.",
        "tracebacks = no",
        "abstract_headers = off",
        "abstract_entries = never",
        "mimetypes = /etc/pygopherd/mime.types:/etc/mime.types",
        "encoding = list(mimetypes.encodings_map.items())",
        "",
        "[logger]",
        "logmethod = syslog",
        "priority = LOG_INFO",
        "facility = LOG_DAEMON",
        "",
        "[GopherEntry]",
        "defaultmimetype = text/plain",
        "mapping = [['text/html', 'h'], ['text/.+', '0'], ['image/gif', 'g'], ['image/.+', 'I'], ['audio/.+', 's'],",
        "    ['application/gopher-menu', '1'], ['application/.+', '9'], ['.*', '0']]",
        "eaexts = {}",
        "",
        "[handlers.HandlerMultiplexer]",
        "# ExecHandler runs every file below the root that is executable for others.",
        "handlers = [url.HTMLURLHandler, gophermap.BuckGophermapHandler, scriptexec.ExecHandler, UMN.UMNDirHandler,",
        "    file.FileHandler]",
        "",
        "[handlers.dir.DirHandler]",
        r"ignorepatt = ~$|/\.|/gophermap$",
        "cachetime = 0",
        "cachefile = .cache.pygopherd.dir",
        "",
        "[handlers.UMN.UMNDirHandler]",
        "extstrip = none",
        "",
        "[handlers.ZIP.ZIPHandler]",
        "enabled = false",
        r"pattern = \.zip$",
        "",
        "[protocols.ProtocolMultiplexer]",
        "# Gopher alone: for its other protocols pygopherd writes a head of its own, and does not tell the script.",
        "protocols = [rfc1436.GopherProtocol]",
    ]
    return "\n".join(text) + "\n"
