"""Running an application for a verb: start-up errors and addresses become exit statuses, the log goes to stderr."""

import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager

from gateways import Started, launch
from gateways.cli.interface import adapted, made
from gateways.cli.loading import LoadError, is_cgi_folder, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import AsyncGenerator, Callable, Sequence
    from typing import Any

    from gateways import Application, Limits, Listen, Roles

__all__ = ["StartupFailed", "load_or_exit", "run", "say", "starting"]

CANNOT_BIND, USAGE, STARTUP_FAILED, CANNOT_IMPORT = 1, 2, 3, 4


class StartupFailed(Exception):
    """The application raised while it started up; the cause says what."""


def say(text: str) -> None:
    """Tell the user something, on stderr: under CGI stdout is the answer."""
    print(text, file=sys.stderr, flush=True)


def load_or_exit(
    parser: "ArgumentParser", options: "Namespace", limits: "Limits | None" = None
) -> "tuple[Application, str]":
    """The application that the flags of :func:`~gateways.cli.settings.add_app` name, and what messages call it.

    Where there is none, say why and end the program: with status 4, or 2 for flags that do not go together.
    """
    name: str = options.app
    if is_cgi_folder(name) and (options.factory or options.interface not in ("auto", "native")):
        parser.error(f"{name} is a folder of CGI programs: --factory and --interface say nothing about it")
    if options.app_dir is not None and not os.path.isdir(options.app_dir):
        parser.error(f"argument --app-dir: there is no folder {options.app_dir}")
    try:
        found = load(name, limits, app_dir=options.app_dir)
        if options.factory:
            found, name = made(found, name), f"{name}()"
        app, interface = adapted(
            found,
            name,
            interface=options.interface,
            threads=options.threads,
            limits=limits,
            multiprocess=getattr(options, "workers", None) is not None,
        )
    except LoadError as error:
        say(f"gateways: {error}")
        raise SystemExit(CANNOT_IMPORT) from None
    except Exception as error:
        _explain(error)
        say(f"gateways: {name} cannot be imported: see above")
        raise SystemExit(CANNOT_IMPORT) from None
    if options.threads is not None and interface != "wsgi":
        parser.error(f"--threads is for WSGI applications, and {name} is {interface}")
    return app, name if interface == "native" else f"{name} ({interface.upper()})"


@asynccontextmanager
async def starting(app: "Application") -> "AsyncGenerator[Roles, None]":
    """An application that raises StartupFailed for whatever goes wrong while it starts."""
    async with AsyncExitStack() as stack:
        try:
            roles = await stack.enter_async_context(Started(app))
        except Exception as error:
            raise StartupFailed from error
        yield roles


def run(
    name: str,
    app: "Any",
    *,
    begin: "Callable[..., None]" = launch.run,
    bind: "Sequence[Listen] | None",
    on_start: "Callable[[list[str]], None]",
    **settings: "Any",
) -> int:
    """:func:`gateways.run`, with errors explained on stderr and turned into an exit status.

    With :func:`gateways.launch.start` to ``begin`` with, ``app`` is what loads the application.
    """
    started = False

    def report(addresses: "list[str]") -> None:
        nonlocal started
        started = True
        on_start(addresses)

    try:
        begin(app, bind=bind, on_start=report, **settings)
    except StartupFailed as failed:
        _explain(failed.__cause__)
        say(f"gateways: {name} did not start up: see above")
        return STARTUP_FAILED
    except (OSError, ValueError) as error:
        if started:
            raise
        say(f"gateways: {error}")
        return CANNOT_BIND if isinstance(error, OSError) else USAGE
    return 0


def _explain(error: BaseException | None) -> None:
    """The traceback, from where the application's own code begins."""
    import traceback

    if error is not None:
        sys.stderr.write("".join(traceback.format_exception(without_our_frames(error))))


def without_our_frames(error: BaseException) -> BaseException:
    """The error with the frames left out that led from here to the application's code."""
    ours = os.path.dirname(os.path.dirname(__file__)) + os.sep
    frames = error.__traceback__
    while frames is not None and _is_foreign(frames.tb_frame.f_code.co_filename, ours):
        frames = frames.tb_next
    return error if frames is None else error.with_traceback(frames)


def _is_foreign(filename: str, ours: str) -> bool:
    return filename.startswith((ours, "<frozen importlib"))
