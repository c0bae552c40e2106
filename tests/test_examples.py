"""The examples do what they say, in process and as programs of their own."""

from __future__ import annotations

import argparse
import hashlib
import os
import runpy
import socket
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import Roles, fastcgi
from gateways.events import BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, ResponseEnded
from gateways.testing import call, serving, variables
from tests.captures import load_web
from tests.test_docs import VERBS, commands

EXAMPLES = Path(__file__).parent.parent / "examples"
APPLICATIONS = ("digest", "hello", "mounted", "streaming")
#: For HTTP and the small web alike: tests/test_capsules.py.
CAPSULES = ("certificate", "guestbook", "wiki")
PATIENCE = 10.0


def load(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["app"]


def test_every_example_is_short_and_says_what_it_is() -> None:
    for path in sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.cgi")]):
        lines = path.read_text(encoding="utf-8").removeprefix("#!/usr/bin/env python3\n").splitlines()
        assert len(lines) < (150 if path.stem in CAPSULES else 40), path.name
        assert lines[0].startswith('"""'), path.name
        assert lines[0].endswith(('"""', ".")), path.name


def test_every_file_is_an_application_or_serves_one() -> None:
    applications = {*APPLICATIONS, *CAPSULES}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*applications, *(path.stem for path in PROGRAMS)}
    for name in applications:
        assert Roles(load(name))


def test_every_example_is_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.cgi")]:
        assert f"`{path.name}`" in readme, path.name


def test_every_command_in_the_readme_exists() -> None:
    found = [*commands(EXAMPLES / "README.md")]
    assert len(found) == 5
    for verb, *arguments in found:
        parser = argparse.ArgumentParser(allow_abbrev=False)
        VERBS[verb]._add_arguments(parser)
        assert (EXAMPLES.parent / parser.parse_args(arguments).app).is_file()


# --- hello -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_hello_says_what_carried_it(protocol: str) -> None:
    result = await call(load("hello"), "GET", "/caf%C3%A9?name=J%C3%BCrgen", protocol=protocol)
    assert result.text.startswith("Hello, Jürgen!\n")
    assert f"\n{protocol} carried your request for /café here" in result.text


async def test_hello_greets_the_world() -> None:
    assert (await call(load("hello"))).text.startswith("Hello, world!\n")


PROGRAMS = sorted(EXAMPLES.glob("hello_*.py"))


@contextmanager
def program(path: Path, *, ipv4: bool) -> Generator[tuple[subprocess.Popen[bytes], Any]]:
    """The program on a socket that listens already, so that there is nothing to wait for; and where that is."""
    with socket.socket(socket.AF_INET if ipv4 else socket.AF_UNIX) as listening:
        listening.bind(("127.0.0.1", 0) if ipv4 else "")  # a name that the kernel chooses
        listening.listen()
        command = [sys.executable, str(path), f"fd:{listening.fileno()}"]
        with subprocess.Popen(command, env=environment(), pass_fds=[listening.fileno()]) as process:
            try:
                yield process, listening.getsockname()
            finally:
                process.terminate()


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(EXAMPLES.parent), "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("ipv4", [True, False], ids=["tcp", "unix"])
async def test_program_serves_hello_over_its_protocol_until_it_is_told_to_stop(path: Path, ipv4: bool) -> None:
    if not ipv4 and sys.platform != "linux":
        pytest.skip("only Linux names unix sockets by itself")
    protocol = path.stem.removeprefix("hello_")
    with trio.fail_after(PATIENCE), program(path, ipv4=ipv4) as (process, where):
        text = await ask(protocol, where, ipv4=ipv4)
        assert f"\n{protocol} carried your request for /x here" in text
        process.terminate()
        assert await trio.to_thread.run_sync(process.wait) == 0


async def ask(protocol: str, where: Any, *, ipv4: bool) -> str:
    client = import_module(f"gateways.{protocol}").ClientConnection()
    number = 1 if protocol == "fastcgi" else 0
    request = client.send_request(number, variables("GET", "/x")) + client.end_body(number)
    connected = trio.socket.socket(socket.AF_INET if ipv4 else socket.AF_UNIX)
    await connected.connect(where)
    async with trio.SocketStream(connected) as stream:
        await stream.send_all(request)
        events: list[ClientEvent] = []
        while not events or not isinstance(events[-1], ResponseEnded | ConnectionFailed):
            events += client.receive_data(bytes(await stream.receive_some()))
    assert isinstance(events[0], HeadReceived)
    return b"".join(event.data for event in events if isinstance(event, BodyReceived)).decode()


def test_cgi_script_is_executable() -> None:
    assert (EXAMPLES / "hello.cgi").stat().st_mode & stat.S_IXUSR
    assert (EXAMPLES / "hello.cgi").read_text().startswith("#!/usr/bin/env python3\n")


def test_cgi_script_answers_what_apache_asks() -> None:
    [capture] = [capture for capture in load_web() if capture.id == "apache.cgid.get-path-query"]
    assert capture.params is not None
    variables = {name.encode("latin-1"): value.encode("latin-1") for name, value in capture.params}
    ours = {name.encode(): value.encode() for name, value in environment().items()}
    command = [sys.executable, str(EXAMPLES / "hello.cgi")]
    done = subprocess.run(command, env={**variables, **ours}, input=b"", capture_output=True, timeout=60, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 200 OK\r\n")
    assert b"\ncgi carried your request for /app/a/b here" in body
    assert done.stderr == b""


# --- streaming -------------------------------------------------------------------------------------------------------


async def test_streaming_ticks_until_the_reader_leaves(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(load("streaming")) as server:
        stream, web = await server.connect(), fastcgi.ClientConnection()
        await stream.send_all(web.send_request(1, variables("GET", "/events")) + web.end_body(1))
        events: list[ClientEvent] = []
        seen = b""
        while seen.count(b"\n\n") < 3:
            events += web.receive_data(bytes(await stream.receive_some()))
            seen = b"".join(event.data for event in events if isinstance(event, BodyReceived))
        assert seen == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert isinstance(events[0], HeadReceived)
        assert dict(events[0].headers)["Content-Type"] == "text/event-stream"
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert "the reader has left" in caplog.text
        assert server.errors == []


async def test_streaming_page_reads_its_events_where_it_is_mounted() -> None:
    assert 'EventSource("/events")' in (await call(load("streaming"))).text
    environ = {"SCRIPT_NAME": "/clock", "PATH_INFO": "/"}
    assert 'EventSource("/clock/events")' in (await call(load("streaming"), environ=environ)).text


# --- digest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_digest_of_a_body_in_memory(protocol: str) -> None:
    data = bytes(range(256)) * 1000
    result = await call(load("digest"), "PUT", body=data, protocol=protocol)
    assert result.text == f"{hashlib.sha256(data).hexdigest()} 256000 bytes\n"


async def test_digest_of_a_body_of_unknown_length() -> None:
    pieces = [b"a" * 10_000, b"b" * 20_000]
    for protocol in ("fastcgi", "http"):
        result = await call(load("digest"), "POST", body=pieces, protocol=protocol)
        assert result.text == f"{hashlib.sha256(b''.join(pieces)).hexdigest()} 30000 bytes\n"


async def test_digest_asks_for_a_file() -> None:
    result = await call(load("digest"))
    assert (result.status, result.headers["Allow"]) == (405, "POST, PUT")


# --- mounted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, '<a href="/blog/first">A post</a>, <a href="/shop/cart">the cart</a>\n'),
        ("/blog/first", 200, "post /first of the blog at /blog\n"),
        ("/blogs", 404, "Not Found\n"),
        ("/shop", 302, ""),
        ("/shop/cart", 200, "the cart of the shop, at /shop/cart\n"),
    ],
)
async def test_mounted(path: str, status: int, text: str) -> None:
    result = await call(load("mounted"), "GET", path)
    assert (result.status, result.text) == (status, text)
    assert result.headers.get("Location") == ("/shop/cart" if status == 302 else None)


async def test_mounted_below_a_prefix() -> None:
    result = await call(load("mounted"), "GET", "/site/blog/x", mount="/site")
    assert result.text == "post /x of the blog at /site/blog\n"
    assert (await call(load("mounted"), "GET", "/site/shop", mount="/site")).headers["Location"] == "/site/shop/cart"
