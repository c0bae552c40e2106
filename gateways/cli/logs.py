"""The flags about logs, and what they set up. Nothing of logging is loaded before that: a CGI script has no logs."""

import argparse
import os

__all__ = ["add_flags", "configure_logging"]

_FLAGS = ("access_log", "access_log_format", "error_log", "log_level")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags about logs, in a group of their own."""
    add = parser.add_argument_group("logs", "FILE is opened anew on SIGUSR1; - is stderr").add_argument
    add("--no-access-log", action="store_true", help="no line for each request")
    add("--access-log", metavar="FILE", help="a line for each request goes there (default -)")
    add(
        "--access-log-format",
        metavar="FORMAT",
        help="default, common, combined, json, or a text with gunicorn's atoms, such as '%%(h)s %%(r)s %%(s)s'",
    )
    add("--error-log", metavar="FILE", help="all other lines go there (default -)")
    add("--log-level", choices=["debug", "info", "warning", "error", "critical"], help="of those (default info)")
    add("--log-config", metavar="FILE", help="logging.config in TOML, JSON or INI, in place of all these")


def configure_logging(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Set up the logs as the flags say; what makes no sense ends the program with status 2. Nothing under CGI."""
    if "GATEWAY_INTERFACE" in os.environ:
        return
    from gateways import logs

    given = [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(options, name) is not None]
    if options.log_config is not None and given:
        parser.error(f"{given[0]} says nothing beside --log-config: the file says it all")
    try:
        logs.configure(
            access=not options.no_access_log,
            access_format=options.access_log_format or "default",
            access_file=options.access_log or "-",
            error_file=options.error_log or "-",
            level=options.log_level or "info",
            config=options.log_config,
        )
    except OSError as error:
        parser.error(f"cannot log to {error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
