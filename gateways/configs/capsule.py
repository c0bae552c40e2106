"""What the servers of the small web have in common: the script that they run, and the folder that they serve."""

from __future__ import annotations

import re
import shlex

from gateways.configs.site import Port, Refused, Site

__all__ = ["all_addresses", "beside", "heading", "no_files", "port_of", "root_and_mount", "script_of", "string"]

#: Gemini and Titan; Gopher.
GEMINI, GOPHER = 1965, 70
#: What every one of their languages takes as it stands, or in quotes.
_PLAIN = re.compile(r"/[A-Za-z0-9._@+/-]*[A-Za-z0-9._@+-]")


def port_of(site: Site, usual: int = GEMINI) -> Port:
    """Where the server listens: on the usual port, if nothing was said."""
    return site.listen or Port(None, usual)


def all_addresses(server: str, site: Site, usual: int = GEMINI) -> int:
    """The port of a server that cannot be told an address. Raises Refused where one is wanted."""
    port = port_of(site, usual)
    if port.host is not None:
        raise Refused(f"{server} listens on all addresses of the machine: say --listen {port.number}")
    return port.number


def no_files(server: str, site: Site) -> None:
    """Raises Refused where files are wanted at a path of their own."""
    if site.static:
        raise Refused(f"{server} serves the files of one folder, and the configuration names it: leave --static out")


def string(text: str) -> str:
    """A string of TOML or gmid. Only for text that was checked: there is nothing in it to quote."""
    return f'"{text}"'


def script_of(site: Site) -> str:
    """The path of the CGI script. Raises Refused for one that would have to be quoted."""
    script = str(site.backends[0].path)
    if not _PLAIN.fullmatch(script) or "//" in script or {".", ".."} & {*script.split("/")}:
        raise Refused(
            'a script that these servers take has an absolute path of letters, digits, ".", "_", "+", "@" and "-": '
            f"not {script!r}"
        )
    return script


def root_and_mount(server: str, site: Site, *, segments: int = 1) -> tuple[str, str]:
    """The folder that is served, and the mount: the script lies in that folder where the mount says.

    ``segments`` is how many the mount has at least. Raises Refused where the two do not fit.
    """
    script = script_of(site)
    if not site.mount.strip("/") or site.mount.count("/") < segments:
        example = "/cgi-bin/app" if segments > 1 else "/app"
        raise Refused(f"{server} finds a script by its path: say --mount {example} for one that is at that URL")
    root = script.removesuffix(site.mount)
    if root == script or not root:
        raise Refused(
            f"{server} finds a script by its path below the folder that it serves: for {site.mount} that is a file "
            f"such as /srv/gemini{site.mount}, not {script}"
        )
    return root, site.mount


def heading(site: Site, server: str, *, mount: bool, more: str = "") -> list[str]:
    """The lines that a configuration for a CGI script begins with. ``mount``: the server does not tell it."""
    words = [site.program, "serve", site.app, *(["--mount", site.mount] if mount and site.mount else []), *site.flags]
    return [
        f"{site.app} behind {server}, as a CGI script: a process for each request. {script_of(site)} is, executable",
        "for everybody,",
        "",
        "  #!/bin/sh",
        f"  cd {shlex.quote(site.app_dir)} && {more}exec {shlex.join(words)}",
        "",
        "or, which starts faster, a Python program with gateways.cgi.run(app).",
        "Every program in its folder can be run by anybody, so there is nothing else in it.",
    ]


def beside(site: Site, program: str) -> str:
    """Where pip has put a program: with ours."""
    return f"{site.program.rpartition('/')[0]}/{program}"
