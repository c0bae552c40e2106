"""The command line. Each verb is a module of this folder, and only the one that is asked for is imported."""

import sys

import gateways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

#: verb -> (its module, what it does). A module has ``main(parser, arguments)``, which gives the exit status.
VERBS = {
    "serve": ("gateways.cli.serve", "serve an application to web servers over FastCGI, SCGI or CGI"),
    "dev": ("gateways.cli.dev", "see an application in a browser while writing it"),
    "check": ("gateways.cli.check", "see whether an application answers the same over every protocol"),
    "config": ("gateways.cli.config", "print the configuration of a web server that fits, or units of systemd"),
    "env": ("gateways.cli.env", "show what a web server sends, and what in its configuration to mend"),
}

_HELP = """\
usage: gateways VERB ...

{verbs}

gateways VERB --help says more about a verb, gateways --version which gateways this is.

For example:
  gateways dev app.py
  gateways serve app.py --bind fastcgi:unix:/run/app.sock --bind scgi:127.0.0.1:4000
"""


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run the command line and give back the exit status.

    0 is success (also after SIGTERM), 1 an address that cannot be had or answers that differ, 2 wrong usage, 3 an
    application that did not start up, 4 one that cannot be imported, 5 an end that was forced.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    first = arguments[0] if arguments else ""
    if first in VERBS:
        return _run(first, arguments[1:])
    if first in ("-h", "--help"):
        print(_help(), end="")
        return 0
    if first in ("-V", "--version"):
        print(f"gateways {gateways.__version__}")
        return 0
    print(_help(), end="", file=sys.stderr)
    if first:
        print(f"\ngateways: there is no verb {first!r}", file=sys.stderr)
    return 2


def _help() -> str:
    return _HELP.format(verbs="\n".join(f"  {verb:8} {meaning}" for verb, (_, meaning) in VERBS.items()))


def _run(verb: str, arguments: "list[str]") -> int:
    import argparse
    from importlib import import_module

    path, meaning = VERBS[verb]
    parser = argparse.ArgumentParser(
        prog=f"gateways {verb}",
        description=meaning[0].upper() + meaning[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    try:
        status: int = import_module(path).main(parser, arguments)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    return status
