"""``gateways serve APP --bind PROTOCOL:WHERE ...``: production. Without ``--bind``, for whoever started the process."""

import argparse
import os

import gateways
from gateways.cli.running import configure_logging, load_or_exit, run, say, starting
from gateways.cli.settings import add_app, add_limits, from_environment, ip_address, limits_from, octal
from gateways.launch import open_standard_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

_EPILOG = """\
WHERE is unix:/path, host:port, [v6]:port, fd:N or systemd[:name]. A wrong PROTOCOL is told which there are.
Every flag has an environment variable, GATEWAYS_MOUNT for --mount and so on; flags win.
Exit status: 0 (also after SIGTERM), 1 cannot bind, 2 usage, 3 the application did not start, 4 cannot import it.

  gateways serve app.py --bind fastcgi:unix:/run/app.sock --socket-group www-data --mount /app
  gateways serve mysite.wsgi --bind fastcgi:unix:/run/app.sock --threads 8
  gateways serve cgi-bin/ --bind fastcgi:unix:/run/cgi.sock --socket-group www-data --mount /cgi-bin
"""


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Serve until a signal says stop; the exit status."""
    _add_arguments(parser)
    options = parser.parse_args([*from_environment(parser, arguments), *arguments])
    limits = limits_from(parser, options)
    # Before anything else is opened: it would become the stdout of a program that was started without one.
    open_standard_descriptors()
    if "GATEWAY_INTERFACE" not in os.environ:  # a CGI script need not load logging
        configure_logging(access=not options.no_access_log)
    app, name = load_or_exit(parser, options, limits)
    try:
        trust = _trust(options)
        bind = [_listen(address, options, trust) for address in options.bind] or None
    except ValueError as error:
        parser.error(str(error))
    return run(
        options.app,
        starting(app),
        bind=bind,
        limits=limits,
        mount=options.mount,
        quirks=options.quirks.split(","),
        on_start=lambda addresses: _announce(name, addresses),
        **trust,
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add_app(parser)
    add("--bind", action="append", default=[], metavar="PROTOCOL:WHERE", help="serve there; may be repeated")
    add("--mount", metavar="/PATH", help="the path below which the application lives")
    add("--quirks", default="auto", metavar="auto|none|NAME,...", help="repair what servers get wrong (default auto)")
    add("--no-access-log", action="store_true", help="no line for each request")
    add("--socket-mode", type=octal, default=0o660, metavar="MODE", help="mode of socket files (default 0660)")
    add("--socket-group", metavar="NAME", help="group of socket files")
    trust = parser.add_argument_group("trust")
    add = trust.add_argument
    add("--allow-public", action="store_true", help="listen on addresses that other machines can reach")
    add("--allow-from", action="append", default=[], type=ip_address, metavar="IP", help="who may connect; repeatable")
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
    return gateways.Listen(
        address, mode=options.socket_mode, group=options.socket_group, allow_public=options.allow_public, **trust
    )


def _announce(name: str, addresses: list[str]) -> None:
    say(f"gateways {gateways.__version__} serving {name}")
    for address in addresses:
        say(f"  {address}")
    say("stop with Ctrl-C")
    if os.geteuid() == 0:
        say("warning: running as root; whoever finds a hole in the application owns the machine")
