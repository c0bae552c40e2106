"""``gateways serve`` with an application, and web servers in front of it: below /app, wherever that is."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.cli.program import PACKAGE_FOLDER, Program, environment, serving
from tests.interop.configurations import CONFIGURATIONS, Configuration
from tests.interop.servers import SERVER_NAME, SOCKET_MODE, FrontEnd, front_end

MOUNT = "/app"
_BY_ID = {configuration.id: configuration for configuration in CONFIGURATIONS}


def configuration(name: str, *, site: str = "") -> Configuration:
    """That of the table, with more configuration text in front of its own."""
    found = _BY_ID[name]
    return attrs.evolve(found, id=f"{name}-framework", site=f"{site}\n{found.site}")


@contextmanager
def behind(
    configurations: Iterable[Configuration], *application: str, variables: Mapping[str, str] | None = None
) -> Generator[tuple[list[FrontEnd], Program]]:
    """Run a web server for each configuration, and one ``gateways serve`` behind all of them.

    ``application`` is APP with its flags; it is found from the folder of the project. In its environment are
    ``variables`` and SITE_ORIGINS, where browsers think that they are. What it writes to stderr has to fit into a
    pipe. It must end well when the block does.
    """
    with ExitStack() as stack:
        webs = [stack.enter_context(front_end(each)) for each in configurations]
        binds = [f"--bind={web.bind}" for web in webs]
        flags = [f"--mount={MOUNT}", f"--socket-mode={SOCKET_MODE:o}", "--no-access-log"]
        origins = {"SITE_ORIGINS": " ".join(f"http://{SERVER_NAME}:{web.port}" for web in webs)}
        env = environment({**origins, **(variables or {})})
        program = stack.enter_context(serving(*binds, *flags, *application, cwd=Path(PACKAGE_FOLDER), env=env))
        yield webs, program
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.text


# --- Django ----------------------------------------------------------------------------------------------------------

ADMINISTRATOR = "Zoë"
PASSWORD = secrets.token_urlsafe(12)


def shelf_variables(data: Path, *, debug: bool = False) -> dict[str, str]:
    """The environment of the Django site whose data are in a folder."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.interop.frameworks.shelf.settings",
        "DJANGO_SUPERUSER_USERNAME": ADMINISTRATOR,
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "SHELF_DATA": str(data),
        "SHELF_DEBUG": "1" if debug else "0",
    }


def prepare_shelf(data: Path) -> None:
    """Make the database, the administrator and the static files."""
    command = [sys.executable, "-m", "tests.interop.frameworks.shelf.prepare"]
    subprocess.run(command, cwd=PACKAGE_FOLDER, env=environment(shelf_variables(data)), check=True)


def shelf_files(data: Path) -> str:
    """For nginx: the static files and the uploads of the Django site, below the mount."""
    return f"""include /etc/nginx/mime.types;
    location = /favicon.ico {{ return 204; }}
    location {MOUNT}/static/ {{ alias {data}/static/; }}
    location {MOUNT}/media/ {{ charset utf-8; alias {data}/media/; }}"""
