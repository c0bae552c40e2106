"""``gateways env --bind PROTOCOL:WHERE``: a page that shows what a web server sends, and how to mend it."""

import argparse
import os

import gateways
from gateways.cli.logs import add_flags as add_log_flags
from gateways.cli.logs import configure_logging
from gateways.cli.running import run, say
from gateways.cli.settings import from_environment, ip_address, octal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

_EPILOG = """\
WHERE is unix:/path, host:port, [v6]:port, fd:N or systemd[:name]. Without --bind it answers whoever started it:
systemd, a web server that passes a socket, or one that runs it for each request (flags are taken from the environment
alone then, GATEWAYS_MOUNT for --mount). Give it the flags of the program that it stands in for.

  gateways env --bind fastcgi:unix:/run/app.sock --socket-group www-data --mount /app
"""


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Show each request what it was sent, until a signal says stop; the exit status."""
    _add_arguments(parser)
    # Under CGI the words after the name of the script can be the client's (RFC 3875 section 4.4): none is taken.
    under_cgi = "GATEWAY_INTERFACE" in os.environ
    given = [] if under_cgi else arguments
    options = parser.parse_args([*from_environment(parser, given), *given])
    configure_logging(parser, options)
    from gateways import Limits, doctor

    trust = {"trust_remote_user": options.trust_remote_user, "trust_forwarded": options.trust_forwarded}
    try:
        limits = Limits(request_timeout=options.timeout_request)
        app = doctor.handler(
            show_secrets=options.show_secrets, mount=options.mount, request_timeout=options.timeout_request, **trust
        )
        bind = [_listen(address, options, trust) for address in options.bind] or None
    except ValueError as error:
        parser.error(str(error))
    return run(
        "the page",
        app,
        bind=bind,
        limits=limits,
        mount=options.mount,
        quirks=options.quirks.split(","),
        allow_from=options.allow_from or None,
        on_start=_announce,
        **trust,
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--bind", action="append", default=[], metavar="PROTOCOL:WHERE", help="serve there; may be repeated")
    add(
        "--show-secrets",
        action="store_true",
        help="show Authorization, Cookie and the like, which are masked otherwise",
    )
    add("--mount", metavar="/PATH", help="the path below which the application lives")
    add("--quirks", default="auto", metavar="auto|none|NAME,...", help="repair what servers get wrong (default auto)")
    add("--timeout-request", type=float, metavar="N", help="seconds for a whole request, as the application has them")
    add("--socket-mode", type=octal, default=0o660, metavar="MODE", help="mode of socket files (default 0660)")
    add("--socket-group", metavar="NAME", help="group of socket files")
    add("--allow-public", action="store_true", help="listen on addresses that other machines can reach")
    add("--allow-from", action="append", default=[], type=ip_address, metavar="IP", help="who may connect; repeatable")
    add("--trust-remote-user", action="store_true", help="believe REMOTE_USER from servers that do not verify it")
    add("--trust-forwarded", action="store_true", help="take client and scheme from X-Forwarded-For and -Proto")
    add_log_flags(parser)


def _listen(address: str, options: argparse.Namespace, trust: "dict[str, Any]") -> "gateways.Listen":
    return gateways.Listen(
        address,
        mode=options.socket_mode,
        group=options.socket_group,
        allow_public=options.allow_public,
        allow_from=options.allow_from or None,
        **trust,
    )


def _announce(addresses: list[str]) -> None:
    say(f"gateways {gateways.__version__} shows what it is sent")
    for address in addresses:
        say(f"  {address}")
    say("stop with Ctrl-C")
