"""The configurations in docs/howto, as they stand there, in front of the handler of the README."""

from __future__ import annotations

import re
import textwrap
from functools import partial
from pathlib import Path

import pytest
import trio

import gateways
from gateways import Listen
from tests.interop.client import fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import SOCKET_MODE, front_end
from tests.interop.test_readme import PLACES, SERVERS, _handler_source, _program

PAGES = sorted((Path(__file__).parents[2] / "docs" / "howto").glob("*.rst"))

_UPSTREAM = re.compile(r"^upstream app \{.*?^\}\n", re.MULTILINE | re.DOTALL)


def _configurations() -> list[Configuration]:
    """Each block of configuration with the ``gateways serve`` command that stands before it on its page."""
    found: list[Configuration] = []
    for page in PAGES:
        command = ""
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", text, re.MULTILINE):
            language, shown = block[1], textwrap.dedent(block[2]).strip() + "\n"
            if language == "console":
                command = shown
            if language in SERVERS:
                found.append(_configuration(f"{page.stem}-{len(found)}-{language}", language, shown, command))
    return found


def _configuration(name: str, language: str, text: str, command: str) -> Configuration:
    spawned = re.search(r"/srv/app/app\.(cgi|fcgi)", text)
    bound = re.search(r"--bind (\w+):(\S+)", command)
    mount = re.search(r"--mount (\S+)", command)
    protocol = "cgi" if spawned and spawned[1] == "cgi" else "fastcgi" if spawned or not bound else bound[1]
    # The template has this group of connections, beside the server as it has to be.
    site = _UPSTREAM.sub("", text).replace("fastcgi_pass app;", "fastcgi_pass kept;")
    for place, stand_in in PLACES.items():
        site = site.replace(place, stand_in)
    return Configuration(
        id=f"{name}-{protocol}{'-spawned' if spawned else ''}",
        server=SERVERS[language],
        protocol=protocol,
        transport="tcp" if "4000" in text else "unix",
        mount="/app" if re.search(r'"/app"|location /app', text) else "",
        mount_option=None if spawned or not mount else mount[1],
        script=f"app.{spawned[1]}" if spawned else None,
        site=site,
    )


CONFIGURATIONS = _configurations()


def test_every_server_is_there() -> None:
    assert {configuration.server for configuration in CONFIGURATIONS} == set(SERVERS.values())
    assert len(CONFIGURATIONS) >= 14


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
async def test_a_configuration_of_the_howto_works(configuration: Configuration) -> None:
    if configuration.script is not None:
        with front_end(configuration, _program(configuration)) as web:
            answer = await fetch(web.port, "GET", "/app/x")
        assert (answer.status, answer.body) == (200, b"Hello, 127.0.0.1!\n")
        return
    module: dict[str, object] = {}
    exec(_handler_source(), module)
    with front_end(configuration) as web:
        address = web.address
        assert address is not None
        protocol = getattr(gateways, configuration.protocol)
        listen = Listen(address, mode=SOCKET_MODE)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(protocol.serve, module["app"], listen, mount=configuration.mount_option))
            answer = await fetch(web.port, "GET", f"{configuration.mount}/x")
            beside = await fetch(web.port, "GET", "/application") if configuration.mount else None
            nursery.cancel_scope.cancel()
    assert (answer.status, answer.body) == (200, b"Hello, 127.0.0.1!\n")
    assert beside is None or beside.status == 404
