"""Three backends on addresses of their own behind the configuration that ``gateways config`` prints for several.

One is killed and one is drained while requests keep coming: none that may be asked again is lost, none that may not is
done twice.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.cli.program import Program, command, environment, poll
from tests.interop.client import fetch
from tests.interop.servers import (
    SERVER_NAME,
    FrontEnd,
    check_generated,
    free_port,
    private_folder,
    require,
    running_generated,
)
from tests.interop.test_configs import config, served_by

#: It writes down each POST before it answers, and is busy for a moment. "/ping" is not its own.
APP = """\
import json
import os

import trio

from gateways import Reject, Request, Response


async def app(request: Request) -> Response:
    if request.path == "/ping":
        raise Reject(404)
    if request.method == "POST":
        with open(f"posted-{os.environ['BACKEND']}", "a") as file:
            file.write((await request.body.read()).decode() + "\\n")
    await trio.sleep(0.01)
    return Response.json({"backend": os.environ["BACKEND"], "path": request.path})
"""

CLIENTS = 12
#: How many requests there are before the first loss, between the two, and after the second.
REQUESTS = 120


@attrs.frozen
class Cluster:
    """The web server and the three processes behind it, by name."""

    web: FrontEnd
    folder: Path
    backends: dict[str, Program]

    def posted(self) -> list[str]:
        files = self.folder.glob("posted-*")
        return [line for file in files for line in file.read_text().splitlines()]


@contextmanager
def cluster(server: str, *flags: str, without_ping: str = "") -> Generator[Cluster]:
    require(server)
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        (folder / "app.py").write_text(APP)
        port = free_port()
        ports = [free_port(besides=port) for _ in range(3)]
        words = [server, "app.py", "--server-name", SERVER_NAME, "--listen", f"127.0.0.1:{port}", *flags]
        for number, each in enumerate(ports, 2):
            words += ["--backend", f"fastcgi:127.0.0.{number}:{each}"]
        text = config(*words, cwd=folder)
        verdict = check_generated(server, text, folder)
        assert verdict.status == 0, verdict.text
        backends: dict[str, Program] = {}
        for name, words in zip("abc", served_by(text), strict=True):
            if name == without_ping:
                words = [word for word in words if "ping" not in word]
            program = Program([*command(), *words[1:]], cwd=folder, env=environment({"BACKEND": name}))
            backends[name] = stack.enter_context(program)
        for program in backends.values():
            program.wait_for("^stop with Ctrl-C$")
        web = stack.enter_context(running_generated(server, folder, port))
        yield Cluster(web, folder, backends)


@attrs.define
class Load:
    """Clients that keep asking, every third time with a POST, and what came of it."""

    port: int
    served: list[str] = attrs.field(factory=list)
    lost: list[str] = attrs.field(factory=list)
    in_flight: set[str] = attrs.field(factory=set)
    answered: int = 0
    _sent: int = 0
    _changed: trio.Condition = attrs.field(factory=trio.Condition)

    async def ask(self, requests: int) -> None:
        """One client."""
        for _ in range(requests):
            self._sent += 1
            number = self._sent
            method = "POST" if number % 3 == 0 else "GET"
            name = f"{method} /{number}"
            self.in_flight.add(name)
            body = name.encode() if method == "POST" else None
            answer = await fetch(self.port, method, f"/{number}", [("Host", SERVER_NAME)], body)
            self.in_flight.remove(name)
            if answer.status == 200 and answer.complete:
                told = json.loads(answer.body)
                assert told["path"] == f"/{number}", "the answer to another request"
                self.served.append(told["backend"])
            else:
                self.lost.append(name)
            async with self._changed:
                self.answered += 1
                self._changed.notify_all()

    async def until(self, answered: int) -> None:
        async with self._changed:
            while self.answered < answered:
                await self._changed.wait()


@pytest.mark.parametrize("server", ["haproxy", "nginx", "caddy"])
async def test_one_killed_and_one_drained_lose_no_request_that_may_be_asked_again(server: str) -> None:
    flags = ["--ping-path", "/ping"] if server == "haproxy" else []
    with cluster(server, *flags) as running:
        load = Load(running.web.port)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(load.ask, 3 * REQUESTS // CLIENTS)
            await load.until(REQUESTS)
            assert set(load.served) == {"a", "b", "c"}, "all three are at work"
            running.backends["a"].signal(signal.SIGKILL)
            # Meanwhile nobody asks anything: this thread is theirs, too.
            running.backends["a"].process.wait()
            at_the_kill = set(load.in_flight)
            await load.until(2 * REQUESTS)
            assert load.in_flight, "somebody is being served"
            running.backends["b"].signal(signal.SIGTERM)
        drained = await trio.to_thread.run_sync(running.backends["b"].wait)
        posted = running.posted()
    assert drained == 0
    assert set(load.served[-CLIENTS:]) == {"c"}
    assert [name for name in load.lost if not name.startswith("POST")] == []
    if server != "caddy":  # it gives up on a POST that finds nobody, too
        assert set(load.lost) <= at_the_kill, "only what the killed one had in its hands"
    assert sorted(posted) == sorted(set(posted)), "none was done twice"
    assert len(load.served) + len(load.lost) == 3 * REQUESTS


async def test_HAProxy_asks_nothing_of_a_backend_that_does_not_answer_its_health_check() -> None:
    with cluster("haproxy", "--ping-path", "/ping", without_ping="b") as running:
        running.backends["a"].wait_for('"GET /ping" 200')
        running.backends["c"].wait_for('"GET /ping" 200')
        running.backends["b"].wait_for('"GET /ping" 404', times=2)
        poll(lambda: "Server app/app2 is DOWN" in running.web.error_log(), "HAProxy gives up on it")
        load = Load(running.web.port)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(load.ask, 2)
    assert set(load.served) == {"a", "c"}
    assert load.lost == []
