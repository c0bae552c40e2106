"""The configurations in README.md, as they stand there, each in front of the README's own handler."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import trio

import gateways
from gateways import Listen
from tests.interop.client import fetch
from tests.interop.configurations import Configuration
from tests.interop.servers import SOCKET_MODE, front_end, python_script

README = (Path(__file__).parents[2] / "README.md").read_text()
SERVERS = {"nginx": "nginx", "apache": "apache2", "lighttpd": "lighttpd"}
#: The paths and addresses of the README -> what stands for them in a private folder.
PLACES = {
    "/srv/app/app.cgi": "@SCRIPT@",
    "/srv/app/app.fcgi": "@SCRIPT@",
    "/run/app.sock": "@FOLDER@/app.sock",
    # a port of this run's own, as each server writes it
    "scgi://127.0.0.1:4000": "@BACKEND@",
    '"host" => "127.0.0.1", "port" => 4000': "@BACKEND@",
    "127.0.0.1:4000": "@BACKEND@",
    "include fastcgi_params": "include /etc/nginx/fastcgi_params",
    "include scgi_params": "include /etc/nginx/scgi_params",
}


def _configurations() -> list[Configuration]:
    found: list[Configuration] = []
    for language, text in re.findall(r"^```(nginx|apache|lighttpd)\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        spawned = re.search(r"/srv/app/app\.(cgi|fcgi)", text)
        protocol = "cgi" if "app.cgi" in text else "scgi" if "scgi" in text else "fastcgi"
        mount = "/app" if "/app" in text.replace("/run/app.sock", "") else ""
        site = text
        for place, stand_in in PLACES.items():
            site = site.replace(place, stand_in)
        found.append(
            Configuration(
                id=f"readme-{len(found)}-{language}-{protocol}{'-spawned' if spawned else ''}",
                server=SERVERS[language],
                protocol=protocol,
                transport="tcp" if "4000" in text else "unix",
                mount=mount,
                mount_option=None if spawned else mount or None,
                script=f"app.{spawned[1]}" if spawned else None,
                site=site,
            )
        )
    return found


CONFIGURATIONS = _configurations()


def _handler_source() -> str:
    found = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _program(configuration: Configuration) -> str:
    run = "gateways.cgi.run" if configuration.protocol == "cgi" else "gateways.run"
    return python_script(f"import gateways\n{_handler_source()}\n{run}(app)\n")


def test_every_server_is_shown_for_every_way_it_has() -> None:
    shown = {(each.server, each.protocol, each.script is not None) for each in CONFIGURATIONS}
    proxies = {(server, protocol, False) for server in SERVERS.values() for protocol in ("fastcgi", "scgi")}
    spawned = {(server, protocol, True) for server in ("apache2", "lighttpd") for protocol in ("fastcgi", "cgi")}
    assert shown == proxies | spawned


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
async def test_a_configuration_of_the_README_works(configuration: Configuration) -> None:
    module: dict[str, object] = {}
    exec(_handler_source(), module)
    if configuration.script is not None:
        with front_end(configuration, _program(configuration)) as web:
            answer = await fetch(web.port, "GET", "/app/x")
        assert (answer.status, answer.body) == (200, b"Hello, 127.0.0.1!\n")
        return
    with front_end(configuration) as web:
        address = web.address
        assert address is not None
        protocol = getattr(gateways, configuration.protocol)
        serve = partial(
            protocol.serve, module["app"], Listen(address, mode=SOCKET_MODE), mount=configuration.mount_option
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            answer = await fetch(web.port, "GET", f"{configuration.mount}/x")
            beside = await fetch(web.port, "GET", "/application") if configuration.mount else None
            nursery.cancel_scope.cancel()
    assert (answer.status, answer.body) == (200, b"Hello, 127.0.0.1!\n")
    assert beside is None or beside.status == 404
