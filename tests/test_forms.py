"""Forms from end to end: sent over each protocol, read by the same handler."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import gateways
from gateways import Request, Response, cgi
from gateways.testing import Result, call, serving
from tests.cgi.tools import program
from tests.form_app import app, digest
from tests.model.form_bodies import CLIENTS, Sent, encode
from tests.model.nameless import OnDisk, on_disk

__all__ = ["on_disk"]

ROOT = str(Path(gateways.__file__).parents[1])
PATIENCE = 20.0
FENCE = "multipart/form-data; boundary=fence"
PLAIN = "application/x-www-form-urlencoded"
PROTOCOLS = ["fastcgi", "scgi", "http", "cgi", "cgi under trio"]

SMALL = Sent(FENCE, b"", [("name", "Zoë"), ("note", "")], [("file", "a.txt", "a.txt", "text/plain", b"small")])
LARGE = Sent(FENCE, b"", [("name", "x")], [("file", "n.bin", "n.bin", "x/y", random.Random(1).randbytes(1_500_000))])


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    """Sends a form over a protocol; CGI scripts are processes."""

    async def ask(protocol: str, content_type: str, body: bytes, query: str = "") -> Result:
        sent: dict[str, Any] = {"query": query, "body": body, "headers": {"Content-Type": content_type}}
        with trio.fail_after(PATIENCE):
            if not protocol.startswith("cgi"):
                async with serving(app, protocol, "unix") as server:
                    return await server.request("POST", "/", **sent)
            under_trio = protocol == "cgi under trio"
            script = program(
                tmp_path / "form.cgi",
                f"import sys\nsys.path[:0] = {[ROOT, *sys.path]!r}\nfrom tests.form_app import app\n"
                f"import gateways\ngateways.cgi.run(app, trio={under_trio})\n",
                interpreter=f"{sys.executable} -IS",
            )
            return await call(cgi.script(script), "POST", "/", **sent)

    return ask


def seen(sent: Sent) -> dict[str, Any]:
    files = [[name, filename, kind, len(data), digest(data)] for name, filename, _, kind, data in sent.files]
    return {"fields": [[name, value] for name, value in sent.fields], "files": files}


@pytest.mark.parametrize("sent", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_form_with_a_file_is_the_same_over_every_protocol(
    ask: Callable[..., Any], tmp_path: Path, protocol: str, sent: Sent
) -> None:
    saved = tmp_path / "saved"
    result: Result = await ask(protocol, FENCE, encode(sent), f"save={saved}")
    assert (result.status, result.json()) == (200, seen(sent))
    assert saved.read_bytes() == sent.files[0][-1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_form_without_files_is_the_same_over_every_protocol(ask: Callable[..., Any], protocol: str) -> None:
    result = await ask(protocol, PLAIN, b"a=Zo%C3%AB&b=+&a=")
    assert (result.status, result.json()) == (200, {"fields": [["a", "Zoë"], ["b", " "], ["a", ""]], "files": []})


async def test_a_cgi_script_loads_only_what_its_form_takes(ask: Callable[..., Any]) -> None:
    assert (await ask("cgi", PLAIN, b"a=1")).headers["X-Loaded"] == "-"
    assert "trio" not in (await ask("cgi", FENCE, encode(LARGE))).headers["X-Loaded"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_form_that_is_refused_is_answered_with_the_status_of_its_flaw(
    ask: Callable[..., Any], protocol: str
) -> None:
    async def status(content_type: str, body: bytes) -> int:
        return (await ask(protocol, content_type, body)).status  # type: ignore[no-any-return]

    assert await status("text/plain", b"a=1") == 415
    assert await status(FENCE, encode(SMALL)[:-10]) == 400
    assert await status(PLAIN, b"a=1&" * 5) == 413
    assert await status(FENCE, encode(LARGE) + bytes(2_000_000)) == 413


async def test_the_forms_of_browsers_arrive_in_pieces() -> None:
    sent = CLIENTS["Firefox"]

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(len(sent.body)):
            await trio.lowlevel.checkpoint()
            yield sent.body[at : at + 1]

    result = await call(app, "POST", headers={"Content-Type": sent.content_type}, body=pieces())
    assert result.json() == seen(sent)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> tuple[trio.Event, list[int]]:
    """An event for when a temporary file is opened, and the threads that open them."""
    event, threads = trio.Event(), list[int]()
    really = tempfile.TemporaryFile

    def noting(*args: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        trio.from_thread.run_sync(event.set)
        return really(*args, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", noting)
    return event, threads


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_files_are_written_in_threads_and_gone_when_the_client_leaves(
    protocol: str, on_disk: OnDisk, written: tuple[trio.Event, list[int]]
) -> None:
    begun, threads = written
    cancelled = trio.Event()

    async def handler(request: Request) -> Response:
        try:
            await request.form()
        except trio.Cancelled:
            cancelled.set()
            raise
        return Response("done")

    async def half() -> AsyncIterator[bytes]:
        yield encode(LARGE)[:1_000_000]
        await trio.sleep_forever()

    headers = {"Content-Type": FENCE, "Content-Length": str(len(encode(LARGE)))}
    with trio.fail_after(PATIENCE):
        async with serving(handler, protocol, "unix") as server, trio.open_nursery() as nursery:
            begin = lambda: server.request("POST", headers=headers, body=half())  # noqa: E731
            nursery.start_soon(begin)
            await begun.wait()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                await cancelled.wait()
                while on_disk():  # a thread that was left behind has to come to its end
                    await trio.testing.wait_all_tasks_blocked(0.01)
    assert threads != []
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "http"])
async def test_files_are_gone_when_the_handler_is_done(protocol: str, on_disk: OnDisk) -> None:
    there = []

    async def handler(request: Request) -> Response:
        form = await request.form()
        there.append(on_disk())
        return Response(f"{form.files['file'].size}")

    with trio.fail_after(PATIENCE):
        async with serving(handler, protocol, "unix") as server:
            result = await server.request("POST", headers={"Content-Type": FENCE}, body=encode(LARGE))
            assert (result.status, result.text) == (200, "1500000")
            assert there == [1]
            while on_disk():  # the client may have its answer before the request is let go of
                await trio.testing.wait_all_tasks_blocked(0.01)
