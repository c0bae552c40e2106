"""Running CGI programs: real processes, in the engine's own way and behind a real connection."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateways import Body, LimitExceeded, Limits, LocalProtocolError, RemoteProtocolError, Request, Response, cgi
from gateways._model.handler import Handler
from gateways._model.request import BytesSource
from gateways.events import BodyReceived
from tests.cgi.tools import OK, Asked, Lifeline, ask
from tests.net.tools import FASTCGI, PATIENCE, SCGI, running, variables

ROOT = Path(cgi.__file__).parents[2]
MIB = 1 << 20


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE):
        yield


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Makes a shell script into a handler."""

    def make(text: str, *arguments: str, **settings: Any) -> Handler:
        file = tmp_path / "program.cgi"
        file.write_text("#!/bin/sh\n" + text, encoding="utf-8")
        file.chmod(0o755)
        return cgi.script(file, *arguments, **settings)

    return make


@pytest.fixture
def python(tmp_path: Path) -> Any:
    """Makes an application into a handler that runs it as a CGI script."""

    def make(text: str, **settings: Any) -> Handler:
        file = tmp_path / "program.py"
        file.write_text(f"import gateways\n{text}\ngateways.cgi.run(app)\n", encoding="utf-8")
        return cgi.script(sys.executable, file, environ={"PYTHONPATH": str(ROOT)}, **settings)

    return make


# --- answers -----------------------------------------------------------------------------------------------------


async def test_a_shell_script_answers(shell: Any) -> None:
    text = "printf 'Status: 201 Made\\nX-A: 1\\nX-A: 2\\nConnection: close\\n\\n'; echo \"$REQUEST_METHOD $PATH_INFO\""
    answer = await ask(shell(text), Request(variables("DELETE", "/x y")))
    assert (answer.status, answer.headers, answer.body) == (201, {"X-A": "2"}, b"DELETE /x y\n")


async def test_an_application_of_ours_answers(python: Any) -> None:
    text = """
async def app(request):
    return gateways.Response(repr((request.method, request.path, request.query_string, await request.body.read())))
"""
    request = Request(variables("POST", "/é", QUERY_STRING="a=b", CONTENT_LENGTH="4"), b"body")
    answer = await ask(python(text), request)
    assert answer.body.decode() == repr(("POST", "/é", "a=b", b"body"))


async def test_ten_mebibytes_go_in_and_come_back(shell: Any) -> None:
    sent = os.urandom(MIB) * 10
    answer = await ask(shell(OK + "exec cat"), Request(variables("POST", CONTENT_LENGTH=str(len(sent))), sent))
    assert answer.body == sent


async def test_a_body_without_length_gets_one(shell: Any) -> None:
    handler = shell(OK + "echo $CONTENT_LENGTH; cat", limits=Limits(max_read=5))
    request = Request(variables("POST"))
    assert (await ask(handler, request)).body == b"0\n"
    request = Request([*variables("POST").items()], body=unannounced(b"hello"))
    assert (await ask(handler, request)).body == b"5\nhello"
    request = Request([*variables("POST").items()], body=unannounced(b"hello!"))
    with pytest.raises(LimitExceeded):
        await ask(handler, request)


def unannounced(data: bytes) -> Any:
    """A body of unknown length."""
    return Body(BytesSource(data), None)


# --- what a program is given -------------------------------------------------------------------------------------


async def test_nothing_of_the_request_is_an_argument(shell: Any) -> None:
    request = Request(variables(QUERY_STRING="-d+auto_prepend_file"))
    answer = await ask(shell(OK + 'printf "%s|" "$@"', "always", "the same"), request)
    assert answer.body == b"always|the same|"


async def test_the_environment_is_chosen(shell: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    request = Request(variables(HTTP_X="é\udcff", LD_PRELOAD="evil.so", HTTP_PROXY="evil"))
    answer = await ask(shell(OK + "exec env", environ={"MINE": "1", "HTTP_HOST": "mine"}), request)
    environ = dict(line.split(b"=", 1) for line in answer.body.splitlines())
    assert environ[b"HTTP_X"] == b"\xc3\xa9\xff"
    assert environ[b"MINE"] == b"1"
    assert environ[b"HTTP_HOST"] == b"mine"
    assert environ[b"PATH"] == os.environb[b"PATH"]
    assert environ[b"SCRIPT_FILENAME"] == os.fsencode(tmp_path / "program.cgi")
    assert not environ.keys() & {b"SECRET", b"LD_PRELOAD", b"HTTP_PROXY", b"PYTHONPATH"}


async def test_a_program_runs_in_the_directory_of_the_script(
    shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.fsencode(tmp_path) + b"\n"
    assert (await ask(shell(OK + "pwd -P"))).body == here
    monkeypatch.chdir(tmp_path.parent)
    assert (await ask(cgi.script("/bin/sh", tmp_path / "program.cgi"))).body == here
    assert (await ask(cgi.script("sh", Path(tmp_path.name, "program.cgi")))).body == here
    assert (await ask(shell(OK + "pwd -P", cwd="/"))).body == b"/\n"


async def test_a_program_has_a_session_of_its_own(python: Any) -> None:
    text = """
import os
async def app(request):
    return gateways.Response(f"{os.getpgrp() == os.getsid(0) == os.getpid()}")
"""
    assert (await ask(python(text))).body == b"True"


async def test_a_program_inherits_three_descriptors(python: Any) -> None:
    text = """
import os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
found = [number for number in range(100) if is_open(number)]
async def app(request):
    return gateways.Response(str(found))
"""
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)
    assert ours < 100
    assert (await ask(python(text))).body == b"[0, 1, 2]"
    os.close(ours)
    os.close(theirs)


# --- stdin and stderr --------------------------------------------------------------------------------------------


async def test_a_program_that_never_reads_stdin_answers(shell: Any) -> None:
    sent = bytes(10 * MIB)
    answer = await ask(shell(OK + "echo done"), Request(variables("POST", CONTENT_LENGTH=str(len(sent))), sent))
    assert answer.body == b"done\n"


async def test_stdin_ends_with_the_body(shell: Any) -> None:
    answer = await ask(shell("cat >/dev/null\n" + OK + "echo done"), Request(variables()))
    assert answer.body == b"done\n"


async def test_stderr_is_logged_and_capped_and_never_blocks(shell: Any) -> None:
    text = "echo early >&2\n" + OK + "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo done"
    answer = await ask(shell(text, limits=Limits(max_stderr=1000)))
    assert answer.body == b"done\n"
    assert answer.log == ["early", "x" * (1000 - len("early\n"))]


async def test_the_last_words_on_stderr_are_logged(shell: Any) -> None:
    answer = Asked()
    with pytest.raises(RemoteProtocolError):
        await ask(shell("echo 'no such database' >&2; exit 1"), answer=answer)
    assert answer.log == ["no such database"]


# --- bad ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 3", "exit status 3"),
        ("kill -KILL $$", "signal 9"),
        ("exit 0", "without an answer"),
        ("echo hello", "after 6 bytes of a response head"),
        ("printf 'hello\\n\\n'", "not a header field"),
        ("printf 'A: b\\n\\n'", "without Status"),
        ("printf 'Content-Type: a/b\\nContent-Length: x\\n\\n'", "cannot be passed on"),
        ("exec yes", "not a header field|response head over"),
    ],
)
async def test_an_end_before_the_head_is_502(shell: Any, text: str, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message) as caught:
        await ask(shell(text))
    assert caught.value.status == 502


@pytest.mark.parametrize(("text", "message"), [("exit 3", "exit status 3"), ("kill -TERM $$", "signal 15")])
async def test_a_bad_end_after_the_head_breaks_the_answer(shell: Any, text: str, message: str) -> None:
    answer = Asked()
    with pytest.raises(RemoteProtocolError, match=message):
        await ask(shell(OK + "echo half; " + text), answer=answer)
    assert (answer.status, answer.body) == (200, b"half\n")


async def test_a_program_that_cannot_be_run_is_an_error(tmp_path: Path, shell: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="No such file") as caught:
        await ask(cgi.script(tmp_path / "nothing"))
    assert caught.value.status == 502
    with pytest.raises(RemoteProtocolError, match="Permission denied") as caught:
        await ask(cgi.script(tmp_path))
    assert caught.value.status == 502
    with pytest.raises(RemoteProtocolError, match="too long") as caught:
        await ask(shell(OK), Request(variables(HTTP_X="x" * 200_000)))
    assert caught.value.status == 431


async def test_other_roles_are_refused(shell: Any) -> None:
    with pytest.raises(LocalProtocolError):
        await ask(shell(OK), Request(variables(), role="authorizer"))


async def test_a_command_is_wanted() -> None:
    with pytest.raises(ValueError, match="a program to run"):
        cgi.script()


# --- the end of interest -----------------------------------------------------------------------------------------


@pytest.fixture
async def lifeline(tmp_path: Path) -> AsyncIterator[Lifeline]:
    lifeline = Lifeline(tmp_path)
    yield lifeline
    lifeline.close()


@pytest.mark.parametrize("head", ["", OK])
@pytest.mark.parametrize(
    "rest",
    [
        "sleep 100",
        "sleep 100 & sleep 100",
        "trap '' TERM; sleep 100 & while :; do wait; done",
    ],
)
async def test_cancellation_ends_the_whole_group(shell: Any, lifeline: Lifeline, head: str, rest: str) -> None:
    handler = shell(head + lifeline.begin + rest, limits=Limits(goodbye_timeout=0.1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await lifeline.started()
        nursery.cancel_scope.cancel()
    await lifeline.gone()


async def test_a_program_may_say_goodbye(shell: Any, lifeline: Lifeline, tmp_path: Path) -> None:
    handler = shell(f"trap 'touch {tmp_path}/goodbye; exit 0' TERM\n{lifeline.begin}sleep 100 & wait")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await lifeline.started()
        nursery.cancel_scope.cancel()
    await lifeline.gone()
    assert (tmp_path / "goodbye").exists()


async def test_a_daemon_that_keeps_stdout_is_ended_with_the_request(shell: Any, lifeline: Lifeline) -> None:
    handler = shell(OK + lifeline.begin + "sleep 100 & exit 0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await lifeline.started()
        nursery.cancel_scope.cancel()
    await lifeline.gone()


class Held:
    """Five bytes of a request body, once they are let go."""

    def __init__(self) -> None:
        self.go = trio.Event()

    async def receive(self, max_bytes: int) -> bytes:
        await self.go.wait()
        return b"hello"


async def test_an_unwanted_body_lets_the_program_end_by_itself(shell: Any, tmp_path: Path) -> None:
    held: Any = Held()
    request = Request(variables("HEAD", CONTENT_LENGTH="5"), Body(held, 5))
    response = await shell(OK + "echo body; cat > ended")(request)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(response.body.aclose)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
    assert (tmp_path / "ended").read_bytes() == b"hello"


async def test_a_program_that_goes_on_for_ever_is_ended(shell: Any, lifeline: Lifeline) -> None:
    handler = shell(lifeline.begin + OK + "exec sleep 100", limits=Limits(drain_timeout=0.05))
    response = await handler(Request(variables("HEAD")))
    await response.body.aclose()
    await lifeline.started()
    await lifeline.gone()


async def test_descriptors_are_given_back(shell: Any, tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/dev/fd"))

    await ask(shell(OK))
    before = count()
    await ask(shell(OK))
    for handler in (shell("exit 1"), cgi.script(tmp_path / "nothing")):
        with pytest.raises(RemoteProtocolError):
            await ask(handler)
    assert count() == before


# --- behind a connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI])
async def test_through_a_connection(shell: Any, protocol: Any) -> None:
    sent = os.urandom(MIB)
    async with running(shell(OK + "exec cat"), protocol=protocol) as backend:
        answer = await backend.ask(variables("POST", CONTENT_LENGTH=str(MIB)), sent)
        assert (answer.status, answer.body, answer.ended) == (200, sent, "complete")
        answer = await backend.ask(variables("HEAD"))
        assert (answer.status, answer.body, answer.ended) == (200, b"", "complete")
    async with running(shell("exit 1"), protocol=protocol) as backend:
        assert (await backend.ask()).status == 502
    async with running(shell(OK + "echo half; cat >/dev/null; exit 1"), protocol=protocol) as backend:
        peer = await backend.connect()
        await peer.ask(variables("POST", CONTENT_LENGTH="5"), end_body=False)
        while not any(isinstance(event, BodyReceived) for event in peer.events):
            await peer.receive()
        await peer.send(peer.client.send_body(peer.stream_id, b"hello"))
        answer = await peer.answer()
        assert (answer.status, answer.body, answer.ended) == (200, b"half\n", "reset")


async def test_a_program_may_forward(python: Any) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.body)

    sent = os.urandom(MIB)
    async with running(echo) as backend:
        handler = python(f"app = gateways.forward('fastcgi:{backend.addresses[0]}')")
        answer = await ask(handler, Request(variables("POST", CONTENT_LENGTH=str(MIB)), sent))
        assert answer.body == sent


async def test_a_client_that_leaves_ends_the_program(shell: Any, lifeline: Lifeline) -> None:
    async with running(shell(lifeline.begin + OK + "exec sleep 100")) as backend:
        peer = await backend.connect()
        await peer.ask()
        await lifeline.started()
        await peer.stream.aclose()
        await lifeline.gone()
