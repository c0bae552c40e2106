"""systemd, which holds the sockets, and starts the application and watches it: a .service and the .socket units."""

from __future__ import annotations

from gateways.configs.site import Backend, Refused, Site

__all__ = ["CHECK", "GROUP", "PLACE", "render"]

PLACE = "/etc/systemd/system/, each part in the file that its first line names"
CHECK = (
    "systemd-analyze verify /etc/systemd/system/{name}.service && systemctl daemon-reload && "
    "systemctl enable --now {name}"
)
GROUP = "www-data"

_PLACE = "/etc/systemd/system/"
#: Seconds that systemd waits beyond those that running requests get (--timeout-shutdown-grace).
_STOP = 40


def render(site: Site) -> str:
    """The units, one after the other; each begins with a comment that names its file. Raises Refused."""
    protocols = list(dict.fromkeys(backend.protocol for backend in site.backends))
    if "cgi" in protocols:
        raise Refused("a CGI script is started by the web server, not by systemd")
    if site.static or site.streaming or site.max_body is not None:
        raise Refused("static files, streaming and the size of bodies are settings of the web server, not of systemd")
    if any(backend.public for backend in site.backends) and not site.allow_from:
        raise Refused(
            "other machines can reach this address, and whoever connects there can forge every variable of a request: "
            "say which may, --allow-from IP"
        )
    sockets = {
        protocol: f"{site.name}.socket" if len(protocols) == 1 else f"{site.name}-{protocol}.socket"
        for protocol in protocols
    }
    parts = [
        _socket(site, file, protocol, [each for each in site.backends if each.protocol == protocol])
        for protocol, file in sockets.items()
    ]
    return "\n".join([*parts, _service(site, list(sockets.values()))])


def quoted(text: str, *, command: bool = False) -> str:
    """A word of systemd: quoted, "%" doubled and, in a command, "$" as well."""
    text = text.replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    if text and all(character.isalnum() or character in "/._-+@=:,%$" for character in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _socket(site: Site, file: str, protocol: str, backends: list[Backend]) -> str:
    lines = [
        f"# {_PLACE}{file}",
        "[Unit]",
        f"Description=Where {site.name} listens for {protocol}",
        "",
        "[Socket]",
        *[f"ListenStream={backend.path or backend.port}" for backend in backends],
        "# The protocol that is spoken there.",
        f"FileDescriptorName={protocol}",
    ]
    if any(backend.path for backend in backends):
        lines += [
            "# Whoever can open it can pretend to be the web server: nobody but that and root.",
            f"SocketGroup={site.socket_group}",
            "SocketMode=0660",
        ]
    if any(backend.public for backend in backends):
        lines += ["# Refused by the kernel already, before --allow-from.", "IPAddressDeny=any"]
        lines += [f"IPAddressAllow={address}" for address in site.allow_from]
    lines += [f"Service={site.name}.service", "", "[Install]", "WantedBy=sockets.target", ""]
    return "\n".join(lines)


def _service(site: Site, sockets: list[str]) -> str:
    home = site.app_dir.startswith(("/home/", "/root/")) or site.program.startswith(("/home/", "/root/"))
    command = " ".join(quoted(word, command=True) for word in site.command(program=site.program))
    user = (
        [f"User={site.user}"]
        if site.user
        else ["# A user of its own that systemd invents. --user NAME is for one that owns files.", "DynamicUser=yes"]
    )
    lines = [
        f"# {_PLACE}{site.name}.service",
        "[Unit]",
        f"Description={site.name}, served by gateways",
        f"Requires={' '.join(sockets)}",
        "After=network.target",
        "",
        "[Service]",
        "# It says when it is ready, when it reloads, and that it is alive.",
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=60",
        *user,
        f"WorkingDirectory={_folder(site.app_dir)}",
        "# Without --bind it serves the sockets above.",
        f"ExecStart={command}",
        "# systemctl reload takes the code anew, and loses nothing; code that does not start leaves the old serving.",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "# systemctl stop: running requests get --timeout-shutdown-grace (30 seconds), then it is killed.",
        f"TimeoutStopSec={_STOP}",
        "KillMode=mixed",
        "Restart=on-failure",
        "RestartSec=1",
        f"Sockets={' '.join(sockets)}",
        "",
        "# What it may not do, since it need not. ReadWritePaths=, StateDirectory= give it folders to write to.",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if home else 'yes'}",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "UMask=0027",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def _folder(path: str) -> str:
    # WorkingDirectory= takes the rest of the line as it is.
    if path != path.strip() or path.endswith("\\"):
        raise Refused(f"systemd cannot work in a folder with such an end: {path!r}")
    return path.replace("%", "%%")
