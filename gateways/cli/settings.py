"""Settings: the flags that verbs share, and what stands for flags that are not given.

That are environment variables, and then the keys of a configuration file. Both become flags, and so are read and
refused the same way.
"""

import argparse
import os

from gateways.cli.interface import INTERFACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gateways import Limits

__all__ = [
    "add_app",
    "add_config",
    "add_limits",
    "app_flags",
    "from_environment",
    "ip_address",
    "limits_from",
    "octal",
    "parsed",
]

_PREFIX = "GATEWAYS_"
_PROJECT = "pyproject.toml"
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
        type=count,
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


# --- what stands for flags


def add_config(parser: argparse.ArgumentParser) -> None:
    """The flag that names a configuration file."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="settings in TOML, keys named as flags (default: [tool.gateways] in the pyproject.toml here)",
    )


def parsed(
    parser: argparse.ArgumentParser, arguments: list[str], environ: "Mapping[str, str]" = os.environ
) -> argparse.Namespace:
    """The options: flags win over variables (GATEWAYS_MOUNT for --mount), and these over keys of a configuration file.

    What is wrong in any of them ends the program with status 2. So do a variable for a limit that does not exist and
    an unknown key: they were meant for others that do.
    """
    app = next(action for action in parser._actions if action.dest == "app")
    # Under CGI what follows APP may be the client's words: without an APP, its first word would be taken for one.
    as_script = "GATEWAY_INTERFACE" in environ
    if not as_script:
        app.nargs = "?"
    flags = _flags_of(parser)
    given = _given(parser, arguments)
    variables = _from_environment(parser, flags, given, environ)
    path = given.get("config") or environ.get(f"{_PREFIX}CONFIG")
    table = _read_file(parser, path)
    named = table.pop("app", None)
    if "app" not in given and not as_script:
        if named is None:
            parser.error("the following arguments are required: APP")
        if not isinstance(named, str):
            parser.error(f"{path or _PROJECT}: app = {named!r} is not a text")
        arguments = [*arguments, named]
    stated = {*given, *[flags[word.partition("=")[0]].dest for word in variables]}
    keys = _from_file(parser, flags, stated, path or _PROJECT, table)
    return parser.parse_args([*keys, *variables, *arguments])


def from_environment(
    parser: argparse.ArgumentParser, arguments: list[str], environ: "Mapping[str, str]" = os.environ
) -> list[str]:
    """The flags that variables stand for and ``arguments`` do not give, for a verb without a configuration file."""
    return _from_environment(parser, _flags_of(parser), _given(parser, arguments), environ)


def _flags_of(parser: argparse.ArgumentParser) -> "dict[str, argparse.Action]":
    flags = {action.option_strings[-1]: action for action in parser._actions if action.option_strings}
    del flags["--help"]
    return flags


def _given(parser: argparse.ArgumentParser, arguments: list[str]) -> "dict[str, Any]":
    """What the arguments themselves give, and no default."""
    nothing = object()
    marked = argparse.Namespace()
    for action in parser._actions:  # argparse has no public list of them
        setattr(marked, action.dest, None if isinstance(action.default, list) else nothing)
    found = vars(parser.parse_args(arguments, marked))
    return {name: value for name, value in found.items() if value is not None and value is not nothing}


def _from_environment(
    parser: argparse.ArgumentParser,
    flags: "dict[str, argparse.Action]",
    given: "dict[str, Any]",
    environ: "Mapping[str, str]",
) -> list[str]:
    """Several values of one flag have spaces between them; a switch is 1 or 0."""
    names = {_PREFIX + flag.strip("-").replace("-", "_").upper(): flag for flag in flags}
    found: list[str] = []
    for name, flag in names.items():
        action = flags[flag]
        if name not in environ or action.dest in given:
            continue
        value = environ[name]
        if action.nargs != 0:
            values = value.split() if isinstance(action.default, list) else [value]
            found += [f"{flag}={each}" for each in values]
            continue
        switch = _SWITCHES.get(value.lower())
        if switch is None:
            parser.error(f"{name} in the environment is {value!r}, not 1 or 0")
        found += [flag] if switch else []
    for name in environ:
        if name.startswith((f"{_PREFIX}LIMIT_", f"{_PREFIX}TIMEOUT_")) and name not in names:
            parser.error(f"{name} in the environment: there is no such limit")
    return found


def _read_file(parser: argparse.ArgumentParser, path: "str | None") -> "dict[str, Any]":
    """The table of settings, with the keys as flags are written."""
    if path is None and not os.path.exists(_PROJECT):
        return {}
    import tomllib

    name = path or _PROJECT
    try:
        with open(name, "rb") as file:
            table: dict[str, Any] = tomllib.load(file)
    except OSError as error:
        parser.error(f"cannot read {name}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        parser.error(f"{name} is not TOML: {error}")
    if os.path.basename(name) == _PROJECT:
        for part in ("tool", "gateways"):
            inner: Any = table.get(part, {})
            if not hasattr(inner, "items"):
                parser.error(f"{name}: [tool.gateways] is not a table")
            table = inner
        if path is not None and not table:
            parser.error(f"{name} has no table [tool.gateways]")
    return {key.replace("_", "-"): value for key, value in table.items()}


def _from_file(
    parser: argparse.ArgumentParser,
    flags: "dict[str, argparse.Action]",
    stated: set[str],
    path: str,
    table: "dict[str, Any]",
) -> list[str]:
    """The flags that the keys stand for, but for those that are ``stated`` elsewhere."""
    known = {flag.strip("-"): flag for flag in flags if flag != "--config"}
    found: list[str] = []
    for key, value in table.items():
        if key not in known:
            from difflib import get_close_matches

            nearest = get_close_matches(key, [*known, "app"], n=1)
            parser.error(f"{path}: there is no setting {key!r}" + (f"; is it {nearest[0]!r}?" if nearest else ""))
        flag = known[key]
        action = flags[flag]
        words = _words(action, flag, value)
        if words is None:
            parser.error(f"{path}: {key} = {value!r} is not {_wanted(action)}")
        if action.dest not in stated:
            found += words
    return found


def _words(action: argparse.Action, flag: str, value: object) -> "list[str] | None":
    """A flag with a value from a file, or None for a value of the wrong kind."""
    if action.nargs == 0:
        return ([flag] if value else []) if isinstance(value, bool) else None
    if isinstance(action.default, list):
        values: Any = [value] if isinstance(value, str) else value
        return [f"{flag}={each}" for each in values] if _are_texts(values) else None
    if isinstance(value, str) or (_takes_numbers(action) and type(value) in (int, float)):
        return [f"{flag}={value}"]
    return None


def _are_texts(values: "Any") -> bool:
    return values.__class__ is list and all(isinstance(each, str) for each in values)


def _takes_numbers(action: argparse.Action) -> bool:
    # TOML has octal numbers, but 660 is not one of them: a mode is a text.
    return action.type is not None and action.type not in (octal, ip_address, os.path.abspath)


def _wanted(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "true or false"
    if isinstance(action.default, list):
        return "a list of texts"
    return "a number or a text" if _takes_numbers(action) else "a text"


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


def count(text: str) -> int:
    """A whole number above 0."""
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
