"""Settings: the flags that verbs share, and the GATEWAYS_ environment variables that stand for flags not given."""

import argparse
import os

from gateways.cli.interface import INTERFACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateways import Limits

__all__ = ["add_app", "add_limits", "app_flags", "from_environment", "ip_address", "limits_from", "octal"]

_PREFIX = "GATEWAYS_"
_SWITCHES = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}


def add_app(parser: argparse.ArgumentParser) -> None:
    """The positional argument APP with the flags about it, and nothing after it under CGI.

    There the words after the script's name can be the client's: many web servers make them of a query without "="
    (RFC 3875 section 4.4). Taken for flags they would let anybody configure us, which was php-cgi's CVE-2012-1823.
    """
    add = parser.add_argument_group("the application").add_argument
    words = "module[:attribute] or path/file.py[:attribute], attribute: app, or else application"
    add("app", metavar="APP", help=f"{words}; or a folder of CGI programs")
    if "GATEWAY_INTERFACE" in os.environ:
        parser.add_argument("ignored", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    add(
        "--interface",
        choices=["auto", *INTERFACES],
        default="auto",
        help="what APP is: a handler of gateways, WSGI or ASGI (default auto: told by how it can be called)",
    )
    add("--factory", action="store_true", help="APP is a function without arguments that gives the application")
    add(
        "--app-dir",
        type=os.path.abspath,
        metavar="DIR",
        help="look for modules there first (default: the working directory)",
    )
    add(
        "--threads",
        type=_count,
        metavar="N",
        help="requests that a WSGI application answers at once, a thread for each (default 40); 1 takes no threads",
    )


def app_flags(options: argparse.Namespace) -> list[str]:
    """The flags about APP, for another process that is to take it the same way. They go before it (see above)."""
    words = [] if options.interface == "auto" else [f"--interface={options.interface}"]
    words += ["--factory"] if options.factory else []
    words += [] if options.app_dir is None else [f"--app-dir={options.app_dir}"]
    words += [] if options.threads is None else [f"--threads={options.threads}"]
    return words


def add_limits(parser: argparse.ArgumentParser) -> None:
    """A flag for each field of Limits."""
    from gateways import Limits

    group = parser.add_argument_group("limits", 'sizes are bytes, timeouts seconds; a timeout of "none" never ends')
    for field, (default, meaning) in Limits.fields().items():
        flag = _flag(field)
        shown = "none" if default is None else f"{default:.12g}"
        group.add_argument(
            flag,
            dest=field,
            default=default,
            type=_seconds if flag.startswith("--timeout-") else _whole,
            metavar="N",
            help=f"{meaning} (default {shown})",
        )


def _flag(field: str) -> str:
    """max_params is --limit-params, body_buffer --limit-body-buffer, idle_timeout --timeout-idle."""
    if field.startswith("max_"):
        name = f"limit-{field.removeprefix('max_')}"
    elif field.endswith("_timeout"):
        name = f"timeout-{field.removesuffix('_timeout')}"
    elif field == "shutdown_grace":
        name = "timeout-shutdown-grace"
    else:
        name = f"limit-{field}"
    return "--" + name.replace("_", "-")


def limits_from(parser: argparse.ArgumentParser, options: argparse.Namespace) -> "Limits":
    """The Limits that the flags ask for; values that make no sense end the program with status 2."""
    from gateways import Limits

    try:
        return Limits(**{field: getattr(options, field) for field in Limits.fields()})
    except ValueError as error:
        parser.error(str(error))


def from_environment(
    parser: argparse.ArgumentParser, arguments: list[str], environ: "Mapping[str, str]" = os.environ
) -> list[str]:
    """The flags that environment variables stand for (GATEWAYS_MOUNT for --mount) and ``arguments`` do not give.

    Several values of one flag have spaces between them; a switch is 1 or 0. A variable for a limit that does not
    exist ends the program with status 2: it was meant for one that does.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    known: set[str] = set()
    found: list[str] = []
    for action in parser._actions:  # argparse has no public list of them
        if not action.option_strings or action.dest == "help":
            continue
        flag = action.option_strings[-1]
        name = _PREFIX + flag.strip("-").replace("-", "_").upper()
        known.add(name)
        if name in environ and flag not in given:
            found += _flags(parser, action, flag, name, environ[name])
    for name in environ:
        if name.startswith((f"{_PREFIX}LIMIT_", f"{_PREFIX}TIMEOUT_")) and name not in known:
            parser.error(f"{name} in the environment: there is no such limit")
    return found


def _flags(parser: argparse.ArgumentParser, action: argparse.Action, flag: str, name: str, value: str) -> "list[str]":
    if action.nargs != 0:
        values = value.split() if isinstance(action.default, list) else [value]
        return [f"{flag}={each}" for each in values]
    switch = _SWITCHES.get(value.lower())
    if switch is None:
        parser.error(f"{name} in the environment is {value!r}, not 1 or 0")
    return [flag] if switch else []


# --- kinds of values


def ip_address(text: str) -> str:
    """An IP address, written the way the operating system writes it."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an IP address: {text!r}") from None


def octal(text: str) -> int:
    """A file mode, such as 0660."""
    if not text.isascii() or not text.isdigit() or not text.strip("01234567") == "" or int(text, 8) > 0o777:
        raise argparse.ArgumentTypeError(f"not a file mode such as 0660: {text!r}")
    return int(text, 8)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"not a whole number above 0: {text!r}")
    return int(text)


def _seconds(text: str) -> "float | None":
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a number of seconds nor none: {text!r}") from None
