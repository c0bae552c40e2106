"""``gateways serve APP --bind PROTOCOL:WHERE ...``: production. Without ``--bind``, for whoever started the process."""

import argparse
import os
from contextlib import asynccontextmanager
from functools import partial

import gateways
from gateways._process import HANDOVER
from gateways.cli.logs import add_flags as add_log_flags
from gateways.cli.logs import configure_logging
from gateways.cli.metrics import add_flags as add_metrics_flags
from gateways.cli.metrics import watching
from gateways.cli.running import load_or_exit, run, say, starting
from gateways.cli.settings import add_app, add_config, add_limits, count, ip_address, limits_from, octal, parsed
from gateways.cli.workers import add_flags as add_worker_flags
from gateways.cli.workers import serve_with_workers, wants_workers
from gateways.launch import open_standard_descriptors, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Any

__all__ = ["main"]

_EPILOG = """\
WHERE is unix:/path, host:port, [v6]:port, fd:N or systemd[:name]. A wrong PROTOCOL is told which there are.
Every flag has an environment variable, GATEWAYS_MOUNT for --mount and so on, and a key in [tool.gateways] of the
pyproject.toml of the working directory, mount = "/app"; flags win over variables, and these over keys.
Signals: HUP loads the code anew and loses no request, TERM and INT stop after the requests that have begun, a second
one or QUIT stops at once, USR1 opens the files of the logs anew.
Exit status: 0 (also after SIGTERM), 1 cannot bind, 2 usage, 3 the application did not start, 4 cannot import it,
5 the end was forced.

  gateways serve app.py --bind fastcgi:unix:/run/app.sock --socket-group www-data --mount /app
  gateways serve mysite.wsgi --bind fastcgi:unix:/run/app.sock --threads 8
  gateways serve cgi-bin/ --bind fastcgi:unix:/run/cgi.sock --socket-group www-data --mount /cgi-bin
"""


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Serve until a signal says stop; the exit status."""
    if HANDOVER not in os.environ:
        return _serve(parser, arguments)
    from gateways._process.reloading import attempt

    return attempt(lambda: _serve(parser, arguments)) or 0


def _serve(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    _add_arguments(parser)
    options = parsed(parser, arguments)
    limits = limits_from(parser, options)
    # Before anything else is opened: it would become the stdout of a program that was started without one.
    open_standard_descriptors()
    configure_logging(parser, options)
    try:
        trust = _trust(options)
        bind = [_listen(address, options, trust) for address in options.bind] or None
    except ValueError as error:
        parser.error(str(error))
    if options.allow_user and not bind:
        parser.error("--allow-user is for the unix sockets of --bind")
    if wants_workers(parser, options):
        announce = partial(_announce, options.app)
        drop = partial(_drop, options.user, options.group)
        return serve_with_workers(parser, options, limits, bind, trust, on_start=announce, before_fork=drop)
    # The application is loaded once the sockets are open and root has been given up.
    loaded: list[tuple[gateways.Application, str]] = []

    @asynccontextmanager
    async def app() -> "AsyncGenerator[gateways.Roles, None]":
        async with starting(loaded[0][0]) as roles:
            yield roles

    with watching(parser, options, app) as (watched, tally):

        def load() -> "gateways.Application":
            loaded.append(load_or_exit(parser, options, limits))
            return watched

        return run(
            options.app,
            load,
            begin=start,
            bind=bind,
            limits=limits,
            mount=options.mount,
            quirks=options.quirks.split(","),
            user=options.user,
            group=options.group,
            reload=True,
            tally=tally,
            on_start=lambda addresses: _announce(loaded[0][1], addresses),
            **trust,
        )


def _drop(user: "str | None", group: "str | None") -> None:
    from gateways._process.privileges import drop

    drop(user, group)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add_app(parser)
    add_config(parser)
    add("--bind", action="append", default=[], metavar="PROTOCOL:WHERE", help="serve there; may be repeated")
    add("--mount", metavar="/PATH", help="the path below which the application lives")
    add("--quirks", default="auto", metavar="auto|none|NAME,...", help="repair what servers get wrong (default auto)")
    add("--socket-mode", type=octal, default=0o660, metavar="MODE", help="mode of socket files (default 0660)")
    add("--socket-owner", metavar="NAME", help="owner of socket files")
    add("--socket-group", metavar="NAME", help="group of socket files")
    add("--backlog", type=count, metavar="N", help="connections that may wait to be accepted (default 2048)")
    add("--user", metavar="NAME", help="become this user once the sockets and logs are open, before the code is loaded")
    add("--group", metavar="NAME", help="become this group (default: that of the user)")
    trust = parser.add_argument_group("trust")
    add = trust.add_argument
    add("--allow-public", action="store_true", help="listen on addresses that other machines can reach")
    add("--allow-from", action="append", default=[], type=ip_address, metavar="IP", help="who may connect; repeatable")
    add(
        "--allow-user",
        action="append",
        default=[],
        metavar="NAME",
        help="whose processes may connect to unix sockets; repeatable",
    )
    add("--trust-remote-user", action="store_true", help="believe REMOTE_USER from servers that do not verify it")
    add("--trust-forwarded", action="store_true", help="take client and scheme from X-Forwarded-For and -Proto")
    add(
        "--allow-header",
        action="append",
        default=[],
        metavar="NAME[=FOLDER[:PATH]]",
        help="let handlers set X-Sendfile and the like; with a folder have the web server send the files in it, which "
        "X-Accel-Redirect knows as PATH; repeatable",
    )
    add("--strict", action="store_true", help="insist on the letter of the protocol")
    add_log_flags(parser)
    add_metrics_flags(parser)
    add_worker_flags(parser)
    add_limits(parser)


def _trust(options: argparse.Namespace) -> "dict[str, Any]":
    return {
        "strict": options.strict,
        "allow_from": options.allow_from or None,
        "trust_remote_user": options.trust_remote_user,
        "trust_forwarded": options.trust_forwarded,
        "allow_headers": _folders(options.allow_header),
    }


def _folders(words: list[str]) -> "dict[str, dict[str, str]]":
    """What --allow-header says: name -> folder -> what the web server calls it."""
    allowed: dict[str, dict[str, str]] = {}
    for word in words:
        name, _, mapped = word.partition("=")
        folder, _, path = mapped.partition(":")
        allowed.setdefault(name, {}).update({folder: path or folder} if folder else {})
    return allowed


def _listen(address: str, options: argparse.Namespace, trust: "dict[str, Any]") -> "gateways.Listen":
    backlog = {} if options.backlog is None else {"backlog": options.backlog}
    return gateways.Listen(
        address,
        mode=options.socket_mode,
        owner=options.socket_owner,
        group=options.socket_group,
        allow_public=options.allow_public,
        # TCP does not tell whose a peer is.
        allow_users=(options.allow_user or None) if _is_local(address) else None,
        **backlog,
        **trust,
    )


def _is_local(address: str) -> bool:
    return address.partition(":")[2].startswith(("unix:", "fd:", "systemd"))


def _announce(name: str, addresses: list[str]) -> None:
    say(f"gateways {gateways.__version__} serving {name}")
    for address in addresses:
        say(f"  {address}")
    say("stop with Ctrl-C")
    if os.geteuid() == 0:
        say("warning: running as root; whoever finds a hole in the application owns the machine: see --user")
