"""``gateways config SERVER APP --bind PROTOCOL:WHERE``: the configuration of a web server, or the units of systemd.

The text goes to standard output, and nothing else does; where it belongs is said on standard error. The application is
not loaded, and nothing is looked at but the words of the command.
"""

import argparse
import os
import re
import shutil
import sys

from gateways.cli.running import say
from gateways.cli.settings import ip_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gateways.configs import Site

__all__ = ["main"]

_SERVERS = (
    *("nginx", "apache", "lighttpd", "caddy", "haproxy", "h2o", "systemd"),
    *("molly-brown", "gmid", "jetforce", "gmcapsule", "stargazer", "gophernicus", "pygopherd"),
)

_EPILOG = """\
Words after -- are further flags of gateways serve, such as -- --workers 4.
Exit status: 0, or 2 for what does not fit into the configuration, with the reason.

  gateways config nginx app.py --bind fastcgi:unix:/run/app.sock --server-name example.org > app.conf
  gateways config haproxy app.py --backend fastcgi:10.0.0.11:4000 --backend fastcgi:10.0.0.12:4000 --ping-path /ping
  gateways config systemd app.py --bind fastcgi:unix:/run/app.sock -- --workers 4
  gateways config molly-brown app.py --bind scgi:unix:/run/app.sock --mount /app --server-name example.org
"""


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Print a configuration; the exit status."""
    from gateways.configs import Refused, server

    _add_arguments(parser)
    ours, _, flags = _divided(arguments)
    options = parser.parse_args(ours)
    module = server(options.server)
    try:
        site = _site(options, flags, group=module.GROUP)
        text: str = module.render(site)
    except Refused as error:
        parser.error(str(error))
    sys.stdout.write(text)
    sys.stdout.flush()
    say(f"goes to {module.PLACE.format(name=site.name)}; then")
    say(f"  {module.CHECK.format(name=site.name)}")
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("server", choices=_SERVERS, metavar="SERVER", help=", ".join(_SERVERS))
    add("app", metavar="APP", help="what gateways serve is told; it is not loaded")
    add = parser.add_argument_group("the application").add_argument
    add(
        "--bind",
        action="append",
        default=[],
        metavar="PROTOCOL:WHERE",
        help="where gateways serve listens: fastcgi or scgi, and unix:/path or host:port; cgi:/path for a script; "
        "repeatable, for as many processes",
    )
    add(
        "--backend",
        action="append",
        default=[],
        metavar="PROTOCOL:WHERE",
        help="the same on another machine; requests are spread over all of them",
    )
    add("--mount", default="", metavar="/PATH", help="the path below which the application lives")
    add("--timeout-request", type=_seconds, metavar="N", help="its deadline for a request; the web server waits longer")
    add("--ping-path", metavar="/PATH", help="what it answers health checks at (haproxy)")
    add("--allow-from", action="append", default=[], type=ip_address, metavar="IP", help="who may connect; repeatable")
    add("--socket-group", metavar="NAME", help="group of socket files (default: the web server's in Debian)")
    add(
        "--app-dir",
        type=os.path.abspath,
        default=os.getcwd(),
        metavar="DIR",
        help="its folder (default: the working directory)",
    )
    add("--program", default=_program(), metavar="FILE", help="the gateways to run (default: this one)")
    add("--user", metavar="NAME", help="whom it runs as (systemd; default: a user that systemd invents)")
    add("--name", metavar="NAME", help="what it is called in the configuration (default: from APP)")
    add = parser.add_argument_group("the web server").add_argument
    add("--server-name", default="localhost", metavar="NAME", help="the host name of the site (default localhost)")
    add("--listen", metavar="[HOST:]PORT", help="where it listens (default 80; 1965 for Gemini, 70 for Gopher)")
    add("--static", action="append", default=[], metavar="URL=FOLDER", help="files that it serves; repeatable")
    add("--streaming", action="store_true", help="pass answers and uploads on as they come")
    add(
        "--max-body",
        type=_size,
        metavar="N",
        help='the most bytes of a request body (default 16777216, "none" has no end)',
    )


def _divided(arguments: list[str]) -> "tuple[list[str], str, list[str]]":
    if "--" not in arguments:
        return arguments, "", []
    place = arguments.index("--")
    return arguments[:place], "--", arguments[place + 1 :]


def _site(options: argparse.Namespace, flags: list[str], *, group: str) -> "Site":
    """What the options ask for. Raises Refused."""
    from gateways.configs import Backend, Site
    from gateways.configs.site import Refused, listen_at, url_path

    static: list[tuple[str, str]] = []
    for word in options.static:
        path, equals, folder = word.partition("=")
        if not equals:
            raise Refused(f"static files are said as URL=FOLDER, such as /static=/srv/static: not {word!r}")
        static.append((url_path("the path of static files", path), folder))
    max_body = options.max_body
    if max_body is None and options.server != "systemd":
        max_body = _MAX_BODY
    return Site(
        app=options.app,
        name=options.name or _name(options.app),
        backends=tuple(Backend.parse(word) for word in [*options.bind, *options.backend]),
        mount=url_path("the mount", options.mount),
        server_name=options.server_name,
        listen=None if options.listen is None else listen_at(options.listen),
        static=tuple(static),
        streaming=options.streaming,
        timeout_request=options.timeout_request,
        max_body=None if max_body == _ENDLESS else max_body,
        socket_group=options.socket_group or group,
        ping_path=options.ping_path,
        allow_from=tuple(options.allow_from),
        app_dir=options.app_dir,
        program=options.program,
        user=options.user,
        flags=tuple(flags),
    )


#: As much as one body.read() of the application takes (Limits.max_read).
_MAX_BODY = 16_777_216
_ENDLESS = -1


def _name(app: str) -> str:
    """A name made of APP: shop for /srv/shop.py, mysite-wsgi for mysite.wsgi:application."""
    stem = os.path.basename(app.partition(":")[0].rstrip("/")).removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-0123456789") or "app"


def _program() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "gateways")
    return beside if os.path.exists(beside) else shutil.which("gateways") or "/usr/local/bin/gateways"


def _seconds(text: str) -> "float | None":
    if text == "none":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 10_000_000:
        raise argparse.ArgumentTypeError(f"neither a number of seconds nor none: {text!r}")
    return seconds


def _size(text: str) -> int:
    if text == "none":
        return _ENDLESS
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"neither a whole number above 0 nor none: {text!r}")
    return int(text)
