"""``gateways serve APP --bind PROTOCOL:WHERE ...``: production. Without ``--bind``, for whoever started the process."""

import argparse

import gateways
from gateways.cli.running import CANNOT_IMPORT, configure_logging, load_or_explain, run, say, starting
from gateways.cli.settings import add_app, add_limits, from_environment, ip_address, limits_from, octal
from gateways.launch import open_standard_descriptors

__all__ = ["main"]

_EPILOG = """\
WHERE is unix:/path, host:port, [v6]:port, fd:N or systemd[:name]; the protocols are fastcgi and scgi.
Every flag can be given as an environment variable: GATEWAYS_MOUNT for --mount. Flags win.
Exit status: 0 (also after SIGTERM), 1 cannot bind, 2 usage, 3 the application did not start, 4 cannot import it.

  gateways serve app.py --bind fastcgi:unix:/run/app.sock --socket-group www-data --mount /app
"""


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Serve until a signal says stop; the exit status."""
    _add_arguments(parser)
    options = parser.parse_args([*from_environment(parser, arguments), *arguments])
    limits = limits_from(parser, options)
    # First of all: the next file opened must not become the stdout of a program that was started without one.
    open_standard_descriptors()
    app = load_or_explain(options.app)
    if app is None:
        return CANNOT_IMPORT
    trust = {
        "strict": options.strict,
        "allow_from": options.allow_from or None,
        "trust_remote_user": options.trust_remote_user,
        "trust_forwarded": options.trust_forwarded,
        "allow_headers": options.allow_header,
    }
    if options.bind:
        configure_logging(access=not options.no_access_log)
        bind = [
            gateways.Listen(
                address,
                mode=options.socket_mode,
                group=options.socket_group,
                allow_public=options.allow_public,
                **trust,
            )
            for address in options.bind
        ]
    else:
        bind = None
    ...
