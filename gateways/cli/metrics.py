"""The flags by which a server lets itself be watched: ``--metrics``, ``--ping-path`` and ``--status-path``."""

import argparse
import os
from contextlib import asynccontextmanager, contextmanager

from gateways.cli.running import CANNOT_BIND, USAGE, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from gateways import Application, Roles, Tally
    from gateways._process.monitor import Listener
    from gateways._process.scoreboard import Alone, Board

__all__ = ["add_flags", "listener_from", "watchable", "watching"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags, in a group of their own."""
    add = parser.add_argument_group("watching").add_argument
    add(
        "--metrics",
        metavar="WHERE",
        help="answer /metrics (for Prometheus), /status and /ping over HTTP there: host:port or unix:/path",
    )
    add("--ping-path", metavar="/PATH", help='answer this path with "pong", in front of the application')
    add("--status-path", metavar="/PATH", help="answer this path with what the server is doing")


def watchable(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    app: "Application",
    board: "Board",
    refresh: "Callable[[], object] | None" = None,
) -> "Application":
    """The application with the pages in front of it that are asked for. Flags that make no sense end the program."""
    if options.ping_path is None and options.status_path is None:
        return app
    from gateways.status import watched

    mount = (options.mount or "").rstrip("/")
    for path in (options.ping_path, options.status_path):
        if path is not None and not path.startswith(f"{mount}/"):
            parser.error(f"{path} is not below the mount {mount}" if mount else f"{path!r} does not begin with a slash")
    try:
        return watched(app, board, ping=options.ping_path, status=options.status_path, refresh=refresh)
    except ValueError as error:
        parser.error(str(error))


def listener_from(options: argparse.Namespace) -> "Listener | None":
    """The listener for ``--metrics``; ends the program, saying why, when it cannot be had.

    To be called where no event loop runs, and before any fork.
    """
    if options.metrics is None:
        return None
    try:
        from gateways.metrics import bind
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        say("gateways: --metrics needs prometheus-client; install it with: pip install 'gateways[metrics]'")
        raise SystemExit(USAGE) from None
    try:
        return bind(
            options.metrics,
            allow_public=options.allow_public,
            mode=options.socket_mode,
            group=options.socket_group,
        )
    except (OSError, ValueError) as error:
        say(f"gateways: --metrics: {error}")
        raise SystemExit(CANNOT_BIND if isinstance(error, OSError) else USAGE) from None


@contextmanager
def watching(
    parser: argparse.ArgumentParser, options: argparse.Namespace, app: "Application"
) -> "Generator[tuple[Application, Tally | None]]":
    """For one process that serves: the application to be served, and what is to be counted meanwhile, if anything."""
    if options.metrics is None and options.ping_path is None and options.status_path is None:
        yield app, None
        return
    from gateways import Tally
    from gateways._process.reloading import taken
    from gateways._process.scoreboard import Alone

    tally = Tally()
    board = Alone(tally, "starting")
    app = _noting(watchable(parser, options, app, board), board)
    handover = taken()
    # A CGI script is there for one request, and a bridge until the process serves again that will listen there.
    listener = None
    if "GATEWAY_INTERFACE" not in os.environ and (handover is None or not handover.is_bridge):
        listener = listener_from(options)
    if listener is None:
        yield app, tally
        return
    from gateways.metrics import start_thread

    say(f"metrics on {listener.address}")
    thread = start_thread(board, listener)
    try:
        yield app, tally
    finally:
        thread.close()
        listener.close()


def _noting(app: "Application", board: "Alone") -> "Application":
    """The application, which notes whether it has started."""
    from gateways import Started

    @asynccontextmanager
    async def start() -> "AsyncGenerator[Roles]":
        async with Started(app) as roles:
            board.state = "ready"
            yield roles
            board.state = "draining"

    return start
