"""Launching: one application on many addresses at once, or on whatever this process was started with.

The program's view, above every protocol: FastCGI section 2 (initial process state) and 3.2 (who may connect),
sd_listen_fds(3), and the environment of RFC 3875. A CGI script that calls ``run`` pays for every import here on each
request, so whatever only a server needs is imported where it is used.
"""

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    import trio

    from gateways import Application, Limits, Listen, Tally
    from gateways._process.reloading import Handover

__all__ = [
    "allowed_addresses",
    "allowed_on_inherited",
    "divide",
    "inherited",
    "open_standard_descriptors",
    "protocols",
    "run",
    "serve",
    "start",
]

_SD_FIRST = 3  # SD_LISTEN_FDS_START

#: Stands for a protocol: each connection tells its own by its first byte (0x01 FastCGI, a digit SCGI).
ANY = "any"

#: What ``run`` says when it has nothing to run on.
HELP = """\
Nothing has started this as a gateway program, so there is nothing to serve. It would be by

  CGI       a web server that runs it for each request: make it executable and put it into cgi-bin
  FastCGI   a web server that passes it a listening socket as its standard input:
            lighttpd (bin-path), Apache (mod_fcgid), spawn-fcgi
  systemd   a .socket unit with FileDescriptorName=fastcgi or FileDescriptorName=scgi

To see it in a browser:          gateways dev app.py
To listen on an address:         gateways serve app.py --bind fastcgi:unix:/tmp/app.sock
The same in the program itself:  gateways.run(app, bind="fastcgi:unix:/tmp/app.sock")
"""


def protocols() -> "list[str]":
    """The names of the protocols there are: the sub-packages of gateways that have a ``transport`` module."""
    from importlib.util import find_spec
    from pkgutil import iter_modules

    import gateways

    packages = [found.name for found in iter_modules(gateways.__path__) if found.ispkg and found.name[0] != "_"]
    return sorted(name for name in packages if find_spec(f"gateways.{name}.transport"))


async def serve(
    app: "Application",
    listen: "str | Listen | Sequence[str | Listen]",
    *,
    limits: "Limits | None" = None,
    mount: "str | None" = None,
    quirks: "str | Iterable[str]" = "auto",
    log: "logging.Logger | None" = None,
    stop: "trio.Event | None" = None,
    tally: "Tally | None" = None,
    task_status: "trio.TaskStatus[list[str]] | None" = None,
) -> None:
    """Serve one application on all these addresses at once.

    ``listen`` is "PROTOCOL:WHERE" ("fastcgi:unix:/run/app.sock", "scgi:127.0.0.1:4000"), a :class:`Listen` whose
    address is written so, or several of either; the protocol "any" leaves it to the first byte of each connection. The
    application is started once. ``started`` hands out the bound addresses, protocol and all, in the order of
    ``listen``. ``mount``, ``quirks``, ``stop`` and ``tally`` are as in the ``serve`` of each protocol.

    Errors: ValueError for a protocol that does not exist and for settings that make no sense, OSError for an address
    that cannot be had, and whatever the application raises while it starts up or shuts down.

    Cancellation: as in the ``serve`` of each protocol; nothing is left listening.
    """
    from functools import partial

    import trio

    from gateways import Started

    wanted = divide(listen)
    try:
        async with Started(app) as roles, trio.open_nursery() as nursery:
            bound: list[str] = []
            for protocol, where in wanted:
                start = partial(
                    _serve_of(protocol),
                    roles,
                    where,
                    limits=limits,
                    mount=mount,
                    quirks=quirks,
                    log=log,
                    stop=stop,
                    tally=tally,
                )
                bound += [f"{protocol}:{address}" for address in await nursery.start(start)]
            (task_status or trio.TASK_STATUS_IGNORED).started(bound)
    except BaseExceptionGroup as group:
        error = _sole(group)
        raise error from error.__cause__


def divide(listen: "str | Listen | Sequence[str | Listen]") -> "list[tuple[str, Listen]]":
    """Each address as its protocol and where that is to listen. Raises ValueError for protocols there are not."""
    import attrs

    from gateways import Listen

    wanted = [listen] if isinstance(listen, str | Listen) else listen
    known = protocols()
    divided: list[tuple[str, Listen]] = []
    for each in wanted:
        settings = Listen(each) if isinstance(each, str) else each
        protocol, _, where = settings.address.partition(":")
        if protocol not in (*known, ANY) or not where:
            raise ValueError(
                f"not an address to serve on: {settings.address!r}; write PROTOCOL:WHERE, such as "
                f"fastcgi:unix:/run/app.sock, where the protocol is one of {', '.join(known)}, or {ANY}"
            )
        divided.append((protocol, attrs.evolve(settings, address=where)))
    if not divided:
        raise ValueError("no address to serve on")
    return divided


def _serve_of(protocol: str) -> "Any":
    from importlib import import_module

    if protocol != ANY:
        return import_module(f"gateways.{protocol}").serve
    from gateways._net.choosing import serve_any

    return serve_any([import_module(f"gateways.{name}.transport").PROTOCOL for name in protocols()])


def _sole(error: BaseException) -> BaseException:
    """What trio's nurseries wrap: the error itself where it is the only one."""
    while True:
        match error:
            case BaseExceptionGroup(exceptions=[inner]):
                error = inner
            case _:
                return error


def run(
    app: "Application",
    *,
    bind: "str | Listen | Sequence[str | Listen] | None" = None,
    limits: "Limits | None" = None,
    mount: "str | None" = None,
    quirks: "str | Iterable[str]" = "auto",
    strict: bool = False,
    allow_from: "Iterable[str] | None" = None,
    trust_remote_user: bool = False,
    trust_forwarded: bool = False,
    allow_headers: "Collection[str]" = (),
    user: "str | int | None" = None,
    group: "str | int | None" = None,
    reload: bool = False,
    log: "logging.Logger | None" = None,
    tally: "Tally | None" = None,
    on_start: "Callable[[list[str]], None] | None" = None,
) -> None:
    """Be the whole program: serve the application to whoever started this process.

    Those are, in this order: ``bind`` if it is given; the sockets that systemd passed; a web server that passed a
    listening socket as fd 0 (FastCGI section 2.2); a web server that runs a CGI script. A socket of systemd speaks
    the protocol it is named for (FileDescriptorName); on any other inherited one each connection tells by its first
    byte whether it is FastCGI or SCGI. FCGI_WEB_SERVER_ADDRS says
    who may connect to inherited sockets, unless ``allow_from`` does. ``strict``, ``allow_from``,
    ``trust_remote_user``, ``trust_forwarded`` and ``allow_headers`` are those of :class:`Listen`, for CGI and for
    every address that is not given as a Listen of its own.

    The sockets are opened first. Then the process becomes ``user`` and ``group``, if they are given, and then the
    application is started.

    SIGTERM and SIGINT end it: running requests get ``limits.shutdown_grace`` seconds, a second signal ends them at
    once, and so does SIGQUIT. SIGUSR1 opens the files of the log anew (:func:`gateways.logs.reopen`). With ``reload``
    SIGHUP starts the program anew, with the command line that started it and the same process id, and another process
    serves meanwhile; nothing of the program after ``run`` is run then. The service manager is told (sd_notify(3)).
    ``on_start`` is called with the bound addresses once connections are accepted. ``tally`` is that of :func:`serve`.

    Errors: those of :func:`serve` and of :func:`gateways.cgi.run`; ValueError for a user that there is not and
    PermissionError when this process cannot become it; SystemExit with status 2, after an explanation on stderr, when
    nobody has started this process as a gateway program.
    """

    def begin() -> None:
        start(
            lambda: app,
            bind=bind,
            limits=limits,
            mount=mount,
            quirks=quirks,
            strict=strict,
            allow_from=allow_from,
            trust_remote_user=trust_remote_user,
            trust_forwarded=trust_forwarded,
            allow_headers=allow_headers,
            user=user,
            group=group,
            reload=reload,
            log=log,
            tally=tally,
            on_start=on_start,
        )

    if "GATEWAY_INTERFACE" in os.environ:
        begin()
        return
    from gateways._process.reloading import attempt

    attempt(begin)


def start(
    load: "Callable[[], Application]",
    *,
    bind: "str | Listen | Sequence[str | Listen] | None",
    limits: "Limits | None" = None,
    mount: "str | None" = None,
    quirks: "str | Iterable[str]" = "auto",
    strict: bool = False,
    allow_from: "Iterable[str] | None" = None,
    trust_remote_user: bool = False,
    trust_forwarded: bool = False,
    allow_headers: "Collection[str]" = (),
    user: "str | int | None" = None,
    group: "str | int | None" = None,
    reload: bool = False,
    log: "logging.Logger | None" = None,
    tally: "Tally | None" = None,
    on_start: "Callable[[list[str]], None] | None" = None,
) -> None:
    """:func:`run` for an application that is yet to be loaded: after the sockets, and with the rights it is to have."""
    open_standard_descriptors()
    handover = _handed_over()
    handed_down: list[str] = []
    if bind is None:
        # Sockets that were handed over are known by the addresses they were found under at first.
        handed_down = inherited() if handover is None else [each.address for each in handover.sockets]
    addresses = handed_down if bind is None else bind
    if not addresses and "GATEWAY_INTERFACE" in os.environ:
        from gateways import cgi

        cgi.run(
            load(),
            limits=limits,
            mount=mount,
            quirks=quirks,
            trust_remote_user=trust_remote_user,
            trust_forwarded=trust_forwarded,
            allow_headers=allow_headers,
        )
        return
    if not addresses:
        sys.stderr.write(HELP)
        raise SystemExit(2)
    if handed_down and allow_from is None:
        # Who was handed a socket over has been warned of it before.
        allow_from = allowed_on_inherited(handed_down, log, warn=handover is None)
    listen = _with_settings(
        addresses,
        strict=strict,
        allow_from=allow_from,
        trust_remote_user=trust_remote_user,
        trust_forwarded=trust_forwarded,
        allow_headers=allow_headers,
    )
    import logging
    from functools import partial

    from gateways import Limits, Tally, logs
    from gateways._process.life import Life
    from gateways._process.privileges import drop
    from gateways._process.sockets import open_sockets

    limits, tally = limits or Limits(), tally or Tally()
    sockets = open_sockets(divide(listen), () if handover is None else handover.sockets)
    try:
        if handover is not None and handover.is_bridge:
            sockets.keep_old()
        drop(user, group)
        app = load()
        serving = partial(
            serve, app, sockets.to_serve(), limits=limits, mount=mount, quirks=quirks, log=log, tally=tally
        )
        life = Life(
            serving,
            sockets,
            limits=limits,
            log=log or logging.getLogger("gateways"),
            tally=tally,
            handover=handover,
            reload=reload,
            on_start=on_start,
            reopen=logs.reopen,
        )
        life.run()
    except BaseExceptionGroup as several:
        error = _sole(several)
        raise error from error.__cause__
    finally:
        sockets.give_up(handover is not None and (handover.is_bridge or not handover.settled))


def _handed_over() -> "Handover | None":
    if "GATEWAY_INTERFACE" in os.environ:
        return None
    from gateways._process.reloading import taken

    return taken()


def _with_settings(addresses: "str | Listen | Sequence[str | Listen]", **settings: "Any") -> "list[Listen]":
    from gateways import Listen

    several = [addresses] if isinstance(addresses, str | Listen) else addresses
    return [Listen(each, **settings) if isinstance(each, str) else each for each in several]


# --- what this process was started with


def open_standard_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed on /dev/null.

    A FastCGI program may be started with fd 0 alone (section 2.2). The next file or socket to be opened would become
    its stdout, and whatever is printed would go there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It takes the lowest free number, this one; child processes need it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has None for the streams it found closed.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - open for as long as the program runs
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def inherited(environ: "Mapping[str, str]" = os.environ) -> "list[str]":
    """The listening sockets this process was started with, as addresses to serve on; mostly there are none.

    systemd's first (LISTEN_FDS), else fd 0 if it is one.
    """
    return _from_systemd(environ) or ([f"{ANY}:fd:0"] if _listening(0) else [])


def _from_systemd(environ: "Mapping[str, str]") -> "list[str]":
    count = environ.get("LISTEN_FDS", "")
    # Without its number in LISTEN_PID the sockets were meant for a parent of this process.
    if not (count.isascii() and count.isdigit()) or environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (int(count) - len(names))
    known = protocols()
    # Without FileDescriptorName= a socket is named after its unit, as in "scgi.socket".
    spoken = [name.removesuffix(".socket") for name in names]
    return [f"{spoken[index] if spoken[index] in known else ANY}:fd:{_SD_FIRST + index}" for index in range(int(count))]


def _listening(descriptor: int) -> bool:
    """Whether a descriptor is a listening socket."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
    except OSError:
        return False
    import socket  # the stdin of a CGI script is mostly something else

    with socket.socket(fileno=os.dup(descriptor)) as probe:
        # Plainer than the ENOTCONN of getpeername that section 2.2 suggests: a socket may be neither.
        return bool(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def allowed_addresses(environ: "Mapping[str, str]") -> "tuple[str, ...] | None":
    """Who may connect, by FCGI_WEB_SERVER_ADDRS (FastCGI section 3.2); None where it is not set.

    Raises ValueError for a list that is not one of IP addresses with commas between them: who may connect is not for
    guessing. A connection that is not over TCP/IP is never allowed, as the specification has it.
    """
    text = environ.get("FCGI_WEB_SERVER_ADDRS")
    if text is None:
        return None
    import ipaddress

    allowed: list[str] = []
    try:
        for part in text.split(","):
            allowed.append(str(ipaddress.ip_address(part)))
    except ValueError as error:
        raise ValueError(f"FCGI_WEB_SERVER_ADDRS wants IP addresses with commas between them: {error}") from None
    return tuple(allowed)


def allowed_on_inherited(
    addresses: "Iterable[str]", log: "logging.Logger | None" = None, *, warn: bool = True
) -> "tuple[str, ...] | None":
    """Who may connect to the sockets this process was started with: see :func:`allowed_addresses`, and its errors.

    Where nobody says, each of them that is TCP is warned of.
    """
    allowed = allowed_addresses(os.environ)
    if allowed is None and warn:
        _warn_of_open_tcp(addresses, log)
    return allowed


def _warn_of_open_tcp(addresses: "Iterable[str]", log: "logging.Logger | None") -> None:
    import logging
    import socket

    for address in addresses:
        descriptor = int(address.rpartition(":")[2])
        with socket.socket(fileno=os.dup(descriptor)) as inherited_socket:
            if inherited_socket.family in (socket.AF_INET, socket.AF_INET6):
                (log or logging.getLogger("gateways")).warning(
                    "%s: whoever can connect to this TCP socket can forge every variable of a request; "
                    "name the web servers in FCGI_WEB_SERVER_ADDRS or allow_from (--allow-from)",
                    address,
                )
