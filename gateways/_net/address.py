"""Addresses: the strings people write, and the listening sockets they stand for.

``unix:/path``, ``host:port``, ``[v6]:port``, ``fd:N`` and ``systemd[:name]``; which protocol is spoken there is for
the caller to know.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import stat
import struct
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import attrs
import trio

from gateways._model.sendfile import AllowedHeaders

__all__ = ["Address", "BindError", "Listen", "Listener", "open_listeners", "parse", "peer_of", "user_number"]

_SD_FIRST = 3  # SD_LISTEN_FDS_START
#: The most connections that wait to be accepted, as far as the kernel lets them.
_SOMAXCONN = "/proc/sys/net/core/somaxconn"
#: struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("3i")


def _addresses(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _users(users: Iterable[str | int] | None) -> tuple[str | int, ...] | None:
    if isinstance(users, str):
        raise ValueError(f"allow_users takes several names, such as [{users!r}]")
    return None if users is None else tuple(users)


@attrs.frozen
class Listen:
    """Where to listen, and how far to trust whoever connects there.

    ``address`` is ``unix:/path``, ``host:port``, ``[v6]:port``, ``fd:N`` or ``systemd[:name]``. ``mode``, ``owner`` and
    ``group`` are those of the socket file. ``backlog`` is how many connections may wait to be accepted; a kernel that
    allows fewer is told of in the log. ``strict`` insists on the letter of the protocol. ``allow_public``
    permits a host that is not loopback, ``allow_from`` names the IP addresses that may connect, ``allow_users`` the
    users (by name or number) whose processes may, to a unix socket on Linux.
    ``trust_remote_user`` believes REMOTE_USER from servers that do not verify it (nginx, HAProxy),
    ``trust_forwarded`` takes the client's address and scheme from X-Forwarded-For and X-Forwarded-Proto.
    ``allow_headers`` names internal response headers (X-Accel-Redirect, X-Sendfile) that handlers may set. A mapping
    from names to folders makes them of answers that are a file there: ``{"X-Accel-Redirect": {"/srv/files":
    "/protected"}}`` for nginx, which knows /srv/files as /protected, ``{"X-Sendfile": ["/srv/files"]}`` for Apache
    and lighttpd.
    """

    address: str
    mode: int = attrs.field(default=0o660, kw_only=True)
    owner: str | int | None = attrs.field(default=None, kw_only=True)
    group: str | int | None = attrs.field(default=None, kw_only=True)
    backlog: int = attrs.field(default=2048, kw_only=True, validator=attrs.validators.ge(1))
    strict: bool = attrs.field(default=False, kw_only=True)
    allow_public: bool = attrs.field(default=False, kw_only=True)
    allow_from: tuple[str, ...] | None = attrs.field(default=None, kw_only=True, converter=_addresses)
    allow_users: tuple[str | int, ...] | None = attrs.field(default=None, kw_only=True, converter=_users)
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


class ListeningSocket(socket.socket):
    """A socket whose ``accept`` does not take twice as long as the call of the system.

    That looks up family and type for each connection, and makes members of enumerations of the numbers. And it gives
    the connection more than is wanted here: what does the work in a socket of Python's is its base class. That has no
    ``makefile``, for one.
    """

    __slots__ = ("family", "type")

    family: int  # type: ignore[assignment]
    type: int  # type: ignore[assignment]

    def __init__(self, *arguments: int, **more: int) -> None:
        super().__init__(*arguments, **more)
        self.family = int(super().family)  # pyright: ignore[reportIncompatibleMethodOverride]
        self.type = int(super().type)  # pyright: ignore[reportIncompatibleMethodOverride]

    def accept(self) -> tuple[socket.SocketType, Any]:  # type: ignore[override]
        # The way of socket.accept itself, which every Python since 3.0 has.
        listening: Any = self
        fd, peer = listening._accept()
        return socket.SocketType(self.family, self.type, self.proto, fd), peer


@attrs.define
class Listener:
    """One listening socket: ``address`` tells where, with the real port."""

    socket: socket.socket
    address: str
    #: The socket file: its path, device and inode, and the process that made it.
    _file: tuple[str, int, int, int] | None = None

    def remove_file(self) -> None:
        """Remove the socket file if it is still the one made here, by this process and not by the one it was forked
        from. Nobody finds the way here any more then."""
        if self._file is None or self.socket.fileno() < 0:
            return
        path, device, inode, maker = self._file
        self._file = None
        if maker != os.getpid():
            return
        with contextlib.suppress(OSError):  # gone already, or in a folder that has become read only
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (device, inode):
                os.unlink(path)

    def close(self) -> None:
        """Stop listening, and remove the socket file. Closing twice does no harm."""
        if self.socket.fileno() < 0:
            return
        # The file first: once the socket is closed, the file of another server may be given the number of ours.
        self.remove_file()
        with contextlib.suppress(RuntimeError):  # closed outside of trio, nobody waits there
            trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


async def open_listeners(
    listen: Listen, environ: Mapping[str, str] = os.environ, *, log: logging.Logger | None = None
) -> list[Listener]:
    """Bind what a Listen asks for; a host name may stand for several sockets.

    A stale socket file is replaced; a live one, and a file that is no socket, are refused. What works but is not as it
    should be is said in ``log``. Raises ValueError for an address that cannot be read and BindError for one that cannot
    be had.
    """
    log = log or logging.getLogger("gateways")
    address = parse(listen.address)
    if listen.allow_users is not None and address.kind == "tcp":
        raise ValueError(f"allow_users is for unix sockets, and {address} is none: TCP does not tell whose a peer is")
    if address.kind == "unix":
        return [_bind_unix(address.path, listen, log)]
    if address.kind == "fd":
        return [_inherit(address.number)]
    if address.kind == "systemd":
        return [_inherit(number) for number in systemd_sockets(address.name, environ)]
    return await _bind_tcp(address, listen, log)


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
        inherited = ListeningSocket(fileno=number)
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


async def _bind_tcp(address: Address, listen: Listen, log: logging.Logger) -> list[Listener]:
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
            bound = ListeningSocket(family, kind, number)
            listeners.append(Listener(bound, ""))
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind((where[0], port, *where[2:]))
                bound.listen(listen.backlog)
            except OSError as error:
                raise BindError(f"cannot listen on {address}: {error.strerror}") from error
            port = bound.getsockname()[1]  # port 0: the same one for every family
            listeners[-1].address = describe(bound)
    _check_backlog(address, listen.backlog, log)
    return listeners


@contextlib.contextmanager
def _closing_on_error(listeners: list[Listener]) -> Generator[None]:
    try:
        yield
    except BaseException:
        for listener in listeners:
            listener.close()
        raise


def _bind_unix(path: str, listen: Listen, log: logging.Logger) -> Listener:
    _remove_stale(path)
    bound = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM)
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
        listener._file = (path, made.st_dev, made.st_ino, os.getpid())
        # Nobody connects before listen().
        if listen.owner is not None:
            _give_away(path, "user", listen.owner, user_number(listen.owner), -1)
        if listen.group is not None:
            _give_away(path, "group", listen.group, -1, _group_number(listen.group))
        bound.listen(listen.backlog)
    _check_backlog(listener.address, listen.backlog, log)
    _check_folder(path, log)
    return listener


def _give_away(path: str, kind: str, name: str | int, user: int, group: int) -> None:
    try:
        os.chown(path, user, group)
    except OSError as error:
        raise BindError(f"cannot give the socket to the {kind} {name!r}: {error.strerror}") from error


def user_number(user: str | int) -> int:
    """The number of a user. Raises BindError where there is none of that name."""
    import pwd

    try:
        return user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise BindError(f"there is no user {user!r}") from None


def _group_number(group: str | int) -> int:
    import grp

    try:
        return group if isinstance(group, int) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise BindError(f"there is no group {group!r} to give the socket to") from None


def peer_of(connected: socket.socket) -> tuple[int, int] | None:
    """The process and the user at the other end of a unix socket: those who called connect() or listen() there. None
    where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    try:
        process, user, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    except OSError:
        return None
    return process, user


def _check_backlog(address: str | Address, backlog: int, log: logging.Logger) -> None:
    try:
        with open(_SOMAXCONN) as file:
            most = int(file.read())
    except (OSError, ValueError):
        return  # no Linux, or one that does not tell
    if most < backlog:
        log.warning(
            "%s: no more than %d connections can wait to be accepted, not %d: the kernel allows no more "
            "(sysctl net.core.somaxconn)",
            address,
            most,
            backlog,
        )


def _check_folder(path: str, log: logging.Logger) -> None:
    folder = os.path.dirname(path) or "."
    with contextlib.suppress(OSError):
        mode = os.stat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            log.warning(
                "unix:%s: any user may put another socket in its place: everybody may write to %s", path, folder
            )


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
        ours = outcome == 0 and (peer_of(probe) or (0,))[0] == os.getpid()
    if outcome in (errno.EACCES, errno.EPERM):
        raise BindError(f"cannot listen on unix:{path}: a socket is there, and it cannot be asked whether it is in use")
    if outcome != errno.ECONNREFUSED:
        hint = " (this very process: was the address given twice?)" if ours else ""
        raise BindError(f"cannot listen on unix:{path}: a server is running there{hint}")
    os.unlink(path)
