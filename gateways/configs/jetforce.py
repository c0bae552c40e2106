"""jetforce 1.0, which runs CGI scripts. It has no configuration file: this is a unit of systemd with its options."""

from __future__ import annotations

from gateways.configs import systemd
from gateways.configs.capsule import beside, heading, no_files, port_of, root_and_mount
from gateways.configs.site import Site, commented

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/systemd/system/jetforce.service"
CHECK = (
    "systemd-analyze verify /etc/systemd/system/jetforce.service && systemctl daemon-reload && "
    "systemctl enable --now jetforce"
)
GROUP = "jetforce"


def render(site: Site) -> str:
    """The text of jetforce.service. Raises Refused."""
    site.only("jetforce", "cgi")
    no_files("jetforce", site)
    # The folder of the scripts is one folder below its root, never the root itself.
    root, mount = root_and_mount("jetforce", site, segments=2)
    port = port_of(site)
    words = [
        beside(site, "jetforce"),
        *("--host", port.host or "::"),
        *("--port", str(port.number)),
        *("--hostname", site.server_name),
        *("--tls-certfile", f"/etc/jetforce/{site.server_name}.crt"),
        *("--tls-keyfile", f"/etc/jetforce/{site.server_name}.key"),
        *("--dir", root),
        *("--cgi-dir", mount.split("/")[1]),
    ]
    options = [" ".join(pair) for pair in zip(words[1::2], map(_word, words[2::2]), strict=True)]
    lines = [
        *commented([*heading(site, "jetforce", mount=False), "Its environment is empty but for the request."]),
        "",
        "[Unit]",
        f"Description=Gemini server of {site.server_name}",
        "After=network.target",
        "",
        "[Service]",
        "# Without --tls-cafile any certificate of a client is let through, and its fingerprint is in TLS_CLIENT_HASH.",
        " \\\n    ".join([f"ExecStart={_word(words[0])}", *options]),
        "# What jetforce prints is every answer of the script.",
        "StandardOutput=null",
        "# The script runs as this user. It may write below StateDirectory, /var/lib/jetforce, and in /tmp.",
        f"User={site.user or 'jetforce'}",
        "StateDirectory=jetforce",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "Restart=on-failure",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    return systemd.quoted(text, command=True)
