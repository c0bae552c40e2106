"""``gateways serve --workers N``: the flags, and how they become :func:`gateways.workers.run`."""

import argparse
import os

import gateways
from gateways import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gateways import Application, Limits, Listen
    from gateways.workers import Settings

__all__ = ["add_flags", "serve_with_workers", "wants_workers"]

_OTHERS = ("worker_timeout", "max_requests", "max_requests_jitter", "max_memory")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags about workers, in a group of their own."""
    add = parser.add_argument_group("workers", "several processes, replaced one by one (takes gunicorn)").add_argument
    add("--workers", type=_count, metavar="N", help="processes that serve (default: this one alone)")
    add(
        "--worker-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="a worker that takes longer to start up, or whose event loop stands still for longer, is killed "
        "(default 30)",
    )
    add("--max-requests", type=_count, metavar="N", help="replace a worker after so many requests")
    add("--max-requests-jitter", type=_whole, metavar="N", help="and up to so many more, at random")
    add("--max-memory", type=_count, metavar="BYTES", help="replace a worker that uses more memory than this")


def wants_workers(parser: argparse.ArgumentParser, options: argparse.Namespace) -> bool:
    """Whether the flags ask for workers, of which a CGI script has no use.

    Flags that make no sense without them end the program with status 2.
    """
    if options.workers is not None:
        return "GATEWAY_INTERFACE" not in os.environ
    for name in _OTHERS:
        if getattr(options, name) is not None:
            parser.error(f"--{name.replace('_', '-')} is for workers: say how many with --workers")
    return False


def serve_with_workers(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    limits: "Limits",
    bind: "list[Listen] | None",
    trust: "dict[str, Any]",
    *,
    on_start: "Callable[[list[str]], None]",
    before_fork: "Callable[[], object] | None" = None,
) -> int:
    """Serve with the workers that the flags ask for; the exit status. Without ``bind`` on what was handed down.

    ``before_fork`` is called once the sockets are open, here and in the process of ``--metrics``: to give up rights.
    """
    from gateways.cli.metrics import listener_from, watchable
    from gateways.cli.running import CANNOT_BIND, USAGE, load_or_exit, say

    try:
        from gateways.workers import run
    except ImportError as error:
        if type(error).__name__ != "MissingGunicorn":
            raise
        say(f"gateways: {error}")
        return USAGE
    from gateways._process.scoreboard import Scoreboard

    board = Scoreboard(256)  # two generations may be at work, and TTIN adds workers

    def load() -> "Application":
        app, _ = load_or_exit(parser, options, limits)
        return watchable(parser, options, app, board)

    try:
        wanted = bind or _handed_down(trust)
        settings = _settings(options)
    except ValueError as error:
        parser.error(str(error))
    if not wanted:
        say(launch.HELP)
        return USAGE
    listener = listener_from(options)
    monitor = None
    if listener is not None:
        from gateways.metrics import start_monitor

        say(f"metrics on {listener.address}")
        monitor = start_monitor(board, listener, in_child=before_fork)
    try:
        status: int = run(
            load,
            wanted,
            settings=settings,
            limits=limits,
            mount=options.mount,
            quirks=options.quirks.split(","),
            board=board,
            monitor=monitor,
            before_fork=before_fork,
            on_start=on_start,
        )
        return status
    except (OSError, ValueError) as error:
        say(f"gateways: {error}")
        return CANNOT_BIND if isinstance(error, OSError) else USAGE


def _handed_down(trust: "dict[str, Any]") -> "list[Listen]":
    """The sockets that systemd or a web server has passed."""
    addresses = launch.inherited()
    if addresses and trust["allow_from"] is None:
        trust = {**trust, "allow_from": launch.allowed_on_inherited(addresses)}
    return [gateways.Listen(each, **trust) for each in addresses]


def _settings(options: argparse.Namespace) -> "Settings":
    from gateways.workers import Settings

    given = {"workers": options.workers, "timeout": options.worker_timeout}
    given.update({name: getattr(options, name) for name in _OTHERS[1:]})
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _count(text: str) -> int:
    number = _whole(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"not a whole number above 0: {text!r}")
    return number


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}") from None
