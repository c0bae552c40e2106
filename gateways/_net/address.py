"""Addresses: the strings people write, and the listening sockets they stand for.

``unix:/path``, ``host:port``, ``[v6]:port``, ``fd:N`` and ``systemd[:name]``; which protocol is spoken there is for
the caller to know.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Generator, Iterable, Mapping, Sequence

import attrs
import trio

from gateways._model.sendfile import AllowedHeaders

__all__ = ["Address", "BindError", "Listen", "Listener", "open_listeners", "parse"]

_SD_FIRST = 3  # SD_LISTEN_FDS_START
_BACKLOG = 1024


def _addresses(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


@attrs.frozen
class Listen:
    """Where to listen, and how far to trust whoever connects there.

    ``address`` is ``unix:/path``, ``host:port``, ``[v6]:port``, ``fd:N`` or ``systemd[:name]``. ``mode`` and
    ``group`` are those of the socket file. ``strict`` insists on the letter of the protocol. ``allow_public``
    permits a host that is not loopback, ``allow_from`` names the IP addresses that may connect.
    ``trust_remote_user`` believes REMOTE_USER from servers that do not verify it (nginx, HAProxy),
    ``trust_forwarded`` takes the client's address and scheme from X-Forwarded-For and X-Forwarded-Proto.
    ``allow_headers`` names internal response headers (X-Accel-Redirect, X-Sendfile) that handlers may set. A mapping
    from names to folders makes them of answers that are a file there: ``{"X-Accel-Redirect": {"/srv/files":
    "/protected"}}`` for nginx, which knows /srv/files as /protected, ``{"X-Sendfile": ["/srv/files"]}`` for Apache
    and lighttpd.
    """

    address: str
    mode: int = attrs.field(default=0o660, kw_only=True)
    group: str | int | None = attrs.field(default=None, kw_only=True)
    strict: bool = attrs.field(default=False, kw_only=True)
    allow_public: bool = attrs.field(default=False, kw_only=True)
    allow_from: tuple[str, ...] | None = attrs.field(default=None, kw_only=True, converter=_addresses)
    trust_remote_user: bool = attrs.field(default=False, kw_only=True)
    trust_forwarded: bool = attrs.field(default=False, kw_only=True)
    allow_headers: AllowedHeaders = attrs.field(factory=AllowedHeaders, kw_only=True, converter=AllowedHeaders)


class BindError(OSError):
    """An address cannot be listened on; the message says why and what to do."""


@attrs.frozen
class Address:
    """An address string, read. ``kind`` is "unix", "tcp", "fd" or "systemd"."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0
    number: int = 0
    name: str | None = None

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd:{self.number}"
        if self.kind == "systemd":
            return "systemd" if self.name is None else f"systemd:{self.name}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Read an address string. Raises ValueError, naming the forms, for anything else."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path:
            raise ValueError("unix: wants the path of a socket file, such as unix:/run/app.sock")
        return Address("unix", path=path)
    if text.startswith("fd:"):
        return Address("fd", number=_number(text[3:], text, 2**31 - 1))
    if text == "systemd" or text.startswith("systemd:"):
        return Address("systemd", name=text[8:] or None)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or not host:
        colon = ""
    if not colon:
        raise ValueError(f"not an address: {text!r}; write unix:/path, host:port, [v6]:port, fd:N or systemd[:name]")
    return Address("tcp", host=host, port=_number(port, text, 65535))


def _number(text: str, whole: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise ValueError(f"not a number from 0 to {most} in {whole!r}: {text!r}")
    return int(text)


@attrs.define
class Listener:
    """One listening socket: ``address`` tells where, with the real port."""

    socket: socket.socket
    address: str
    _file: tuple[str, int, int] | None = None

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still the one made here. Closing twice does no harm."""
        if self.socket.fileno() < 0:
            return
        # The file first: once the socket is closed, the file of another server may be given the number of ours.
        if self._file is not None:
            path, device, inode = self._file
            with contextlib.suppress(OSError):  # gone already, or in a folder that has become read only
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == (device, inode):
                    os.unlink(path)
        with contextlib.suppress(RuntimeError):  # closed outside of trio, nobody waits there
            trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


async def open_listeners(listen: Listen, environ: Mapping[str, str] = os.environ) -> list[Listener]:
    """Bind what a Listen asks for; a host name may stand for several sockets.

    A stale socket file is replaced; a live one, and a file that is no socket, are refused. Raises ValueError for an
    address that cannot be read and BindError for one that cannot be had.
    """
    address = parse(listen.address)
    if address.kind == "unix":
        return [_bind_unix(address.path, listen)]
    if address.kind == "fd":
        return [_inherit(address.number)]
    if address.kind == "systemd":
        return [_inherit(number) for number in systemd_sockets(address.name, environ)]
    return await _bind_tcp(address, listen)


def systemd_sockets(name: str | None, environ: Mapping[str, str]) -> Sequence[int]:
    """The descriptors systemd passed (LISTEN_FDS, LISTEN_FDNAMES), all or those of one name. See sd_listen_fds(3).

    Raises BindError when there are none for this process.
    """
    count = environ.get("LISTEN_FDS", "")
    if not count.isdigit() or environ.get("LISTEN_PID") not in (None, str(os.getpid())):
        raise BindError("systemd passed no sockets (LISTEN_FDS): start this from a .socket unit")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    numbers = range(_SD_FIRST, _SD_FIRST + int(count))
    found = [n for n in numbers if name is None or (n - _SD_FIRST < len(names) and names[n - _SD_FIRST] == name)]
    if not found:
        raise BindError(f"systemd passed no socket named {name!r}; the names are {', '.join(names)}")
    return found


def _inherit(number: int) -> Listener:
    try:
        inherited = socket.socket(fileno=number)
        listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise BindError(f"descriptor {number} is not a socket: {error.strerror}") from error
    if not listening:
        inherited.detach()
        raise BindError(f"descriptor {number} is a socket, but not a listening one")
    inherited.setblocking(False)
    os.set_inheritable(number, False)
    return Listener(inherited, describe(inherited))


def describe(listening: socket.socket) -> str:
    """Where a socket listens, in the form people write."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return str(Address("tcp", host=name[0], port=name[1]))


async def _bind_tcp(address: Address, listen: Listen) -> list[Listener]:
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise BindError(f"no such host: {address.host!r} ({error.strerror})") from error
    listeners: list[Listener] = []
    port = address.port
    with _closing_on_error(listeners):
        for family, kind, number, _, where in found:
            host = str(where[0])
            if not listen.allow_public and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
                raise BindError(
                    f"{host} can be reached from other machines, and whoever connects there can forge every variable "
                    "of a request; use a unix socket or 127.0.0.1, or say allow_public (--allow-public)"
                )
            bound = socket.socket(family, kind, number)
            listeners.append(Listener(bound, ""))
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind((where[0], port, *where[2:]))
                bound.listen(_BACKLOG)
            except OSError as error:
                raise BindError(f"cannot listen on {address}: {error.strerror}") from error
            port = bound.getsockname()[1]  # port 0: the same one for every family
            listeners[-1].address = describe(bound)
    return listeners


@contextlib.contextmanager
def _closing_on_error(listeners: list[Listener]) -> Generator[None]:
    try:
        yield
    except BaseException:
        for listener in listeners:
            listener.close()
        raise


def _bind_unix(path: str, listen: Listen) -> Listener:
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener = Listener(bound, f"unix:{path}")
    with _closing_on_error([listener]):
        bound.setblocking(False)
        # The mode from birth on: a chmod afterwards would leave a moment in which anybody may connect.
        before = os.umask(0o777 & ~listen.mode)
        try:
            bound.bind(path)
        except OSError as error:
            reason = "the path is too long (107 bytes at most)" if error.errno is None else error.strerror
            raise BindError(f"cannot listen on unix:{path}: {reason}") from error
        finally:
            os.umask(before)
        made = os.lstat(path)
        listener._file = (path, made.st_dev, made.st_ino)
        if listen.group is not None:
            _give_to_group(path, listen.group)
        bound.listen(_BACKLOG)
    return listener


def _give_to_group(path: str, group: str | int) -> None:
    import grp

    try:
        number = group if isinstance(group, int) else grp.getgrnam(group).gr_gid
        os.chown(path, -1, number)
    except KeyError:
        raise BindError(f"there is no group {group!r} to give the socket to") from None
    except OSError as error:
        raise BindError(f"cannot give the socket to the group {group!r}: {error.strerror}") from error


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BindError(f"cannot listen on unix:{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(f"cannot listen on unix:{path}: something that is not a socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        outcome = probe.connect_ex(path)
    if outcome != errno.ECONNREFUSED:
        raise BindError(f"cannot listen on unix:{path}: a server is running there")
    os.unlink(path)
