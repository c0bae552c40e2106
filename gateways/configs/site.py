"""What a configuration is made from: a site, its application, and where that listens.

Everything that ends up in a configuration is checked here against a small alphabet, or else quoted by the module that
writes it. What cannot be written safely is refused, never mended.
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Iterable

import attrs

__all__ = ["Backend", "Port", "Refused", "Site", "commented", "listen_at"]

#: Seconds by which a web server is more patient than the deadline of the handler behind it.
MARGIN = 5
#: Seconds that a web server waits for an answer where no deadline is known: what most of them do by themselves.
PATIENCE = 60
#: Seconds that a web server keeps an idle connection: less than ``gateways serve`` does (--timeout-idle, 300), so that
#: it is never the application that closes first.
KEEP = 60
#: The path of a socket file has to fit into the operating system's sockaddr_un.
_LONGEST_SOCKET = 107

_SEGMENTS = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_SOCKET = re.compile(r"/[A-Za-z0-9._@+/-]*[A-Za-z0-9._@+-]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]*")


class Refused(ValueError):
    """Something that cannot be put into a configuration; the message says what can."""


def printable(what: str, text: str) -> str:
    """Text of one line. Raises Refused for control characters, line breaks and bytes that are not UTF-8."""
    if not text.isprintable():
        raise Refused(f"{what} has characters that cannot be printed on one line: {text!r}")
    return text


def url_path(what: str, text: str) -> str:
    """A path of the site in its one form, "" or "/x". Raises Refused for anything that would need quoting in a URL."""
    path = text.rstrip("/")
    if (text and not text.startswith("/")) or not _SEGMENTS.fullmatch(path) or {".", ".."} & {*path.split("/")}:
        raise Refused(f'{what} is a path such as /app, of letters, digits, ".", "_", "~" and "-": not {text!r}')
    return path


def host_name(text: str) -> str:
    """The name of a host, or an IP address. Raises Refused for everything else."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise Refused(
                f'a host has letters, digits, "." and "-" in its name, or is an IP address: not {text!r}'
            ) from None
    return text


def account(what: str, text: str) -> str:
    """The name of a user or group. Raises Refused for one that useradd would not take either."""
    if not _ACCOUNT.fullmatch(text):
        raise Refused(f'{what} has small letters, digits, "_" and "-" in its name: not {text!r}')
    return text


def absolute(what: str, text: str) -> str:
    """An absolute path of one line. Raises Refused otherwise; whether it exists is not looked up."""
    if not printable(what, text).startswith("/"):
        raise Refused(f"{what} is an absolute path: not {text!r}")
    return text


@attrs.frozen
class Port:
    """A TCP port of a host; without a host, of all addresses of the machine."""

    host: str | None
    number: int

    def __str__(self) -> str:
        if self.host is None:
            return str(self.number)
        return f"[{self.host}]:{self.number}" if ":" in self.host else f"{self.host}:{self.number}"


def listen_at(text: str) -> Port:
    """Read "80", "host:80" or "[v6]:80". Raises Refused."""
    host, _, number = text.rpartition(":")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) < 65536:
        raise Refused(f"a port is a number from 1 to 65535, perhaps with a host before it: not {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Refused(f"an IPv6 address stands in brackets, [::1]:80: not {text!r}")
    return Port(host_name(host) if host or text.startswith(":") else None, int(number))


@attrs.frozen
class Backend:
    """Where ``gateways serve`` listens, as a web server sees it.

    ``protocol`` is "fastcgi", "scgi" or "cgi"; ``path`` that of the socket file (of the script, for CGI), otherwise
    there is a ``port``.
    """

    protocol: str
    path: str | None = None
    port: Port | None = None

    @classmethod
    def parse(cls, text: str) -> Backend:
        """Read "fastcgi:unix:/run/app.sock", "scgi:127.0.0.1:4000" or "cgi:/srv/app/app.cgi". Raises Refused."""
        protocol, _, where = text.partition(":")
        if protocol == "cgi":
            return cls(protocol, path=absolute("the script after cgi:", where))
        if protocol not in ("fastcgi", "scgi"):
            raise Refused(f"web servers speak fastcgi, scgi or cgi to an application: not {protocol!r} ({text!r})")
        if where.startswith("unix:"):
            return cls(protocol, path=_socket(where.removeprefix("unix:")))
        if where.startswith(("fd:", "systemd")):
            raise Refused(f"a web server has to be told where: unix:/path or host:port, not {where!r}")
        port = listen_at(where)
        if port.host is None or port.host in ("0.0.0.0", "::"):
            raise Refused(f"the address has to be one that a web server can connect to, not {where!r}")
        return cls(protocol, port=port)

    def __str__(self) -> str:
        if self.protocol == "cgi":
            return f"cgi:{self.path}"
        return f"{self.protocol}:{self.port or f'unix:{self.path}'}"

    @property
    def public(self) -> bool:
        """Whether other machines may reach it."""
        if self.port is None or self.port.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(str(self.port.host)).is_loopback
        except ValueError:
            return True


def _socket(path: str) -> str:
    if not _SOCKET.fullmatch(path) or len(path) > _LONGEST_SOCKET:
        raise Refused(
            'a socket file that every server takes has an absolute path of letters, digits, ".", "_", "+", "@" and '
            f'"-", {_LONGEST_SOCKET} characters at most: not {path!r}'
        )
    return path


@attrs.frozen(kw_only=True)
class Site:
    """One application behind one web server. Raises Refused where something cannot be written into a configuration.

    ``name`` is what units, upstreams and files are called. ``timeout_request`` is the deadline of the handler,
    ``max_body`` the most bytes of a request body (None: no end), ``static`` pairs of a path of the site and the folder
    with its files. ``flags`` are further ones for ``gateways serve``.
    """

    app: str
    name: str
    backends: tuple[Backend, ...]
    mount: str = ""
    server_name: str = "localhost"
    #: None: port 80 as the server has it anyway.
    listen: Port | None = None
    static: tuple[tuple[str, str], ...] = ()
    streaming: bool = False
    timeout_request: float | None = None
    max_body: int | None = None
    socket_group: str = "www-data"
    ping_path: str | None = None
    allow_from: tuple[str, ...] = ()
    app_dir: str = "/srv/app"
    program: str = "/srv/app/env/bin/gateways"
    user: str | None = None
    flags: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not self.app or self.app.startswith("-"):
            raise Refused(f"APP is a module or a file: not {self.app!r}")
        printable("APP", self.app)
        if not _NAME.fullmatch(self.name):
            raise Refused(f'a name begins with a letter and has letters, digits, "_" and "-": not {self.name!r}')
        if not self.backends:
            raise Refused("where does the application listen? Say --bind, for example fastcgi:unix:/run/app.sock")
        if self.mount != url_path("the mount", self.mount):
            raise Refused(f"a mount has no slash at its end: not {self.mount!r}")
        host_name(self.server_name)
        for path, folder in self.static:
            if not url_path("the path of static files", path):
                raise Refused("static files have a path of their own, such as /static=/srv/static")
            absolute("the folder of static files", folder)
        account("the group of the socket", self.socket_group)
        if self.user is not None:
            account("the user", self.user)
        if self.ping_path is not None and not url_path("the path of the health check", self.ping_path):
            raise Refused("the health check has a path of its own, such as /ping")
        absolute("the folder of the application", self.app_dir)
        absolute("the gateways program", self.program)
        if self.ping_path is not None and not self.ping_path.startswith(f"{self.mount}/"):
            raise Refused(f"the health check is below the mount, {self.mount}: not at {self.ping_path!r}")
        for flag in self.flags:
            printable("a flag of gateways serve", flag)

    # --- for the modules

    def only(self, server: str, *protocols: str, several: bool = True) -> str:
        """The protocol of the backends. Raises Refused for one that the server does not speak, and for a mixture."""
        spoken = {backend.protocol for backend in self.backends}
        if len(spoken) > 1:
            raise Refused(
                f"{server} speaks one protocol to an application: choose between {' and '.join(sorted(spoken))}"
            )
        [protocol] = spoken
        if protocol not in protocols:
            raise Refused(f"{server} does not speak {protocol} to an application, but {' and '.join(protocols)}")
        if len(self.backends) > 1 and (not several or protocol == "cgi"):
            raise Refused(f"{server} knows one address for an application over {protocol}, not {len(self.backends)}")
        return protocol

    @property
    def patience(self) -> int:
        """Seconds that a web server waits: never less than the handler's deadline."""
        return PATIENCE if self.timeout_request is None else math.ceil(self.timeout_request) + MARGIN

    @property
    def port(self) -> Port:
        """Where the web server listens."""
        return self.listen or Port(None, 80)

    def command(
        self, backend: Backend | None = None, *, program: str = "gateways", mount: str | None = None
    ) -> list[str]:
        """The words of the ``gateways serve`` that the configuration is for; without a backend, for inherited sockets.

        ``mount`` is said where the web server leaves it to us, even if it is the root.
        """
        words = [program, "serve", self.app]
        if backend is not None:
            words += ["--bind", str(backend)]
            words += ["--socket-group", self.socket_group] if backend.path else []
            words += ["--allow-public"] if backend.public else []
        if backend is None or backend.public:
            for address in self.allow_from:
                words += ["--allow-from", address]
        where = self.mount or mount
        words += ["--mount", where] if where else []
        if self.timeout_request is not None:
            words += ["--timeout-request", f"{self.timeout_request:.12g}"]
        words += ["--ping-path", self.ping_path] if self.ping_path else []
        return [*words, *self.flags]

    def heading(self, server: str, protocol: str, *, mount: str | None = None) -> list[str]:
        """The lines that every configuration begins with."""
        spoken = {"fastcgi": "FastCGI", "scgi": "SCGI"}[protocol]
        lines = [f"{self.app} behind {server} over {spoken}. It is served by", ""]
        lines += [f"  {shlex.join(self.command(backend, mount=mount))}" for backend in self.backends]
        lines += [""]
        if any(backend.path for backend in self.backends):
            lines += [
                "Whoever can open the socket can pretend to be the web server: its mode is 0660, its group that of the",
                f"web server ({self.socket_group}).",
            ]
        if any(backend.port and not backend.public for backend in self.backends):
            lines += ["Any user of this machine can connect to a TCP port; where there are others, take a unix socket."]
        if any(backend.public for backend in self.backends):
            lines += [
                "What goes to other machines is neither encrypted nor signed, so it needs a network of its own, and",
                "--allow-from there with the address of this machine."
                if not self.allow_from
                else "--allow-from is the address of this machine there.",
            ]
        return lines


def commented(lines: Iterable[str], mark: str = "#") -> list[str]:
    """Lines as comments."""
    return [f"{mark} {line}".rstrip() for line in lines]


def indented(lines: Iterable[str], by: str = "    ") -> list[str]:
    """Lines, further to the right."""
    return [f"{by}{line}" if line else "" for line in lines]
