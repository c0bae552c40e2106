"""Settings: flags, and the GATEWAYS_ environment variables that stand in for flags which are not given."""

import argparse
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from gateways import Limits

__all__ = ["add_limits", "fill_from_environment", "limits_from", "octal", "quirks", "words"]

_PREFIX = "GATEWAYS_"
_SWITCHES = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}


def add_limits(parser: argparse.ArgumentParser) -> None:
    """A flag for each field of Limits."""
    from gateways import Limits

    group = parser.add_argument_group("limits", 'Sizes are bytes, timeouts seconds; a timeout of "none" never ends.')
    for field, (default, meaning) in Limits.fields().items():
        flag = _flag(field)
        shown = "none" if default is None else f"{default:g}" if isinstance(default, float) else default
        kind: Callable[[str], Any] = _seconds if flag.startswith("--timeout-") else _whole
        help_text = f"{meaning} (default {shown})"
        group.add_argument(flag, dest=field, default=argparse.SUPPRESS, type=kind, metavar="N", help=help_text)


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


def limits_from(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> "Limits":
    """The Limits that the flags ask for; wrong values end the program with status 2."""
    from gateways import Limits

    try:
        return Limits(**{field: getattr(arguments, field) for field in Limits.fields() if field in arguments})
    except ValueError as error:
        parser.error(str(error))


def fill_from_environment(parser: argparse.ArgumentParser, environ: "Mapping[str, str]" = os.environ) -> None:
    """Let GATEWAYS_MOUNT stand for --mount, and so on; flags win.

    A variable for a limit that does not exist is an error: it is a slip of the pen, and the limit would be silently
    another.
    """
    known: set[str] = set()
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if flag.startswith("--")]
        if not flags:
            continue
        name = _PREFIX + flags[0].removeprefix("--").replace("-", "_").upper()
        known.add(name)
        if name in environ:
            action.default = _value(parser, action, name, environ[name])
    for name in environ:
        if name.startswith((f"{_PREFIX}LIMIT_", f"{_PREFIX}TIMEOUT_")) and name not in known:
            parser.error(f"the environment variable {name} stands for no limit")


def _value(parser: argparse.ArgumentParser, action: argparse.Action, name: str, text: str) -> "Any":
    try:
        if action.nargs == 0:
            return _SWITCHES[text.lower()] is not action.default
        value = [text] if action.type is None else text
        if isinstance(action, _Several):
            return [action.type(word) if action.type else word for word in text.split()]
        return value
    except KeyError:
        parser.error(f"{name} is {text!r}, but can only be one of {', '.join(_SWITCHES)}")
    except ValueError as error:
        parser.error(f"{name}: {error}")


# --- values


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def _seconds(text: str) -> "float | None":
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a number of seconds nor none: {text!r}") from None
