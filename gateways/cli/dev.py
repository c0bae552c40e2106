"""``gateways dev APP``: an application in a browser, over the protocol of your choice.

The HTTP front end is one more protocol of this process. With ``--via`` the request goes on from there over a private
unix socket, or to a subprocess for CGI, and so takes the way it will take in production. So does every request to the
front end of Gemini, which ``--gemini`` puts beside it.
"""

import argparse
import os
import sys
from contextlib import asynccontextmanager

import gateways
from gateways.cli.errorpage import is_meta_variable, showing_errors
from gateways.cli.loading import folder_of
from gateways.cli.running import (
    CANNOT_BIND,
    USAGE,
    load_or_exit,
    run,
    say,
    starting,
)
from gateways.cli.settings import add_app, app_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateways import Application, Handler

__all__ = ["main"]

_EPILOG = """\
  gateways dev app.py --via fastcgi --reload
  gateways dev cgi-bin/ --mount /cgi-bin
  gateways dev capsule.py --gemini 1965
"""

#: A stopping server waits this many seconds for running requests: a page that is for ever streaming holds up a reload.
_GRACE = 1.0

#: Gemini has no way of its own to an application: unless ``--via`` says otherwise, it takes this one.
_GEMINI_WAY = "scgi"


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Serve until a signal says stop; the exit status. Started as a CGI script, answer that one request."""
    _add_arguments(parser)
    options = parser.parse_args(arguments)
    as_script = "GATEWAY_INTERFACE" in os.environ
    if options.gemini is not None and not as_script and not _has_openssl():
        say("gateways: --gemini needs pyOpenSSL; install it with: pip install 'gateways[gemini]'")
        return USAGE
    if options.reload and not as_script:
        return _reloading(options)
    app, name = load_or_exit(parser, options)
    shown = showing_errors(starting(app))
    if as_script:
        gateways.cgi.run(shown, mount=options.mount)
        return 0
    from gateways import logs

    logs.configure()
    address = f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}"
    capsules: list[str] = []
    way = _way_to(shown, options) if options.gemini is None else _beside_gemini(shown, options, capsules)
    return run(
        options.app,
        way,
        bind=[gateways.Listen(f"http:{address}", allow_public=options.allow_public)],
        limits=gateways.Limits(shutdown_grace=_GRACE),
        # On the way to another process or socket the mount is for the other end to see to.
        mount=None if options.via else options.mount,
        on_start=lambda addresses: _announce(name, options, addresses, capsules),
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add_app(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="listen there (default 127.0.0.1)")
    add("--port", type=_port, default=8000, metavar="N", help="listen there (default 8000); 0 takes any free one")
    add("--via", choices=["fastcgi", "scgi", "cgi"], help="let requests travel over this protocol on their way")
    add("--gemini", type=_port, metavar="N", help="listen there for Gemini and Titan too, usually 1965; 0 as above")
    add("--mount", metavar="/PATH", help="the path below which the application lives")
    add("--reload", action="store_true", help="start again when a .py file changes (needs watchfiles)")
    add("--allow-public", action="store_true", help="listen on addresses that other machines can reach")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def _has_openssl() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("OpenSSL", "cryptography"))


def _announce(name: str, options: argparse.Namespace, addresses: list[str], capsules: list[str]) -> None:
    say(f"gateways {gateways.__version__} showing {name}; for development, not for production")
    via = f" (via {options.via})" if options.via else ""
    path = f"{(options.mount or '').rstrip('/')}/"
    for address in addresses:
        say(f"  http://{address.partition(':')[2]}{path}{via}")
    for address in capsules:
        say(f"  gemini://{address}{path} (via {options.via or _GEMINI_WAY})")
    if capsules:
        from gateways.cli import tls

        say(f"  the certificate of the capsule is kept in {tls.state_folder()}")
    say("stop with Ctrl-C")


# --- the ways


def _way_to(shown: "Application", options: argparse.Namespace) -> "Application":
    if options.via is None:
        return shown
    if options.via == "cgi":
        return _script(options)
    return _over_socket(shown, options.via, options.mount)


def _script(options: argparse.Namespace) -> "Handler":
    """A handler that runs this command for each request."""
    command = _script_command(options)
    return gateways.cgi.script(
        *command, cwd=os.getcwd(), environ=_script_environ(), timeout=None, pass_authorization=True
    )


@asynccontextmanager
async def _over_socket(shown: "Application", protocol: str, mount: "str | None") -> "AsyncGenerator[Handler, None]":
    """A handler that hands requests on to the application over a socket nobody else can reach."""
    async with _private_socket(shown, protocol, mount) as path:
        yield gateways.forward(f"{protocol}:unix:{path}")


@asynccontextmanager
async def _private_socket(shown: "Application", protocol: str, mount: "str | None") -> "AsyncGenerator[str, None]":
    """The path of a socket at which the application is served meanwhile."""
    from functools import partial
    from tempfile import TemporaryDirectory

    import trio

    with TemporaryDirectory(prefix="gateways-") as folder:
        path = f"{folder}/dev.sock"
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(gateways.serve, shown, f"{protocol}:unix:{path}", mount=mount))
            yield path
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _beside_gemini(
    shown: "Application", options: argparse.Namespace, capsules: list[str]
) -> "AsyncGenerator[Application, None]":
    """The application for the HTTP front end, with Gemini's beside it; ``capsules`` gets its addresses."""
    from contextlib import AsyncExitStack

    import trio

    from gateways.cli import gemini

    async with AsyncExitStack() as stack:
        if options.via == "cgi":
            app: Application = _script(options)
            way = gemini.over_cgi(_script_command(options), _script_environ())
        else:
            app = await stack.enter_async_context(gateways.Started(shown))
            protocol = options.via or _GEMINI_WAY
            path = await stack.enter_async_context(_private_socket(app, protocol, options.mount))
            way = gemini.over_socket(protocol, path)
            if options.via:
                app = gateways.forward(f"{protocol}:unix:{path}")
        nursery = await stack.enter_async_context(trio.open_nursery())
        capsules += await nursery.start(gemini.serve, way, options.host, options.gemini, _identity())
        yield app
        nursery.cancel_scope.cancel()


def _identity() -> bytes:
    """The key and the certificate of the capsule, which stay the same, for clients know a server by them."""
    from gateways.cli import tls

    folder = tls.state_folder()
    try:
        return tls.kept_identity(folder)
    except OSError as error:
        say(f"gateways: a certificate cannot be kept in {folder} ({error.strerror}): clients will warn of a new one")
        return tls.new_identity()


def _script_environ() -> dict[str, str]:
    """The environment of this process, as with every other way, but nothing in it that would pass for the client's."""
    return {name: value for name, value in os.environ.items() if not is_meta_variable(name)}


def _script_command(options: argparse.Namespace) -> list[str]:
    """Ourselves as a CGI script; the flags come before APP, for under CGI nothing after it is read."""
    return [sys.executable, "-m", "gateways", "dev", *app_flags(options), *_mount_flag(options), options.app]


# --- reloading


def _reloading(options: argparse.Namespace) -> int:
    """Run the server as a child, started anew whenever a .py file below the application's folder changes."""
    try:
        import watchfiles
    except ModuleNotFoundError:
        say("gateways: --reload needs watchfiles; install it with: pip install 'gateways[reload]'")
        return USAGE
    import logging
    import shlex

    try:
        port = options.port or _free_port(options.host)
        gemini = options.gemini or _free_port(options.host)
    except OSError as error:
        say(f"gateways: cannot listen on {options.host}: {error.strerror}")
        return CANNOT_BIND
    flags = [f"--host={options.host}", f"--port={port}"]
    flags += [f"--via={options.via}"] if options.via else []
    flags += [*app_flags(options), *_mount_flag(options)]
    flags += [] if options.gemini is None else [f"--gemini={gemini}"]
    flags += ["--allow-public"] if options.allow_public else []
    # Bytecode is told from its source by whole seconds and size: too coarse for one who edits fast.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    logging.getLogger("watchfiles").setLevel(logging.ERROR)  # its view of our child is not for the user
    watchfiles.run_process(
        folder_of(options.app, options.app_dir),
        target=shlex.join([sys.executable, "-m", "gateways", "dev", *flags, options.app]),
        target_type="command",
        watch_filter=watchfiles.PythonFilter(),
        callback=lambda changes: say(f"changed: {', '.join(sorted({path for _, path in changes}))}"),
    )
    return 0


def _free_port(host: str) -> int:
    """A port that nobody listens on, so that it stays the same from child to child."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        port: int = probe.getsockname()[1]
    return port


def _mount_flag(options: argparse.Namespace) -> list[str]:
    return [] if options.mount is None else [f"--mount={options.mount}"]
