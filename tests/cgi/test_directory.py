"""A folder of CGI programs: which of them a path runs, what it is told, and how it ends, whatever it does."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gateways import Body, LimitExceeded, Limits, Reject, RemoteProtocolError, Request, Response, URLMap, cgi, events
from tests.cgi.tools import OK, Asked, Lifeline, ask, begin, program, python_program
from tests.net.tools import FASTCGI, PATIENCE, SCGI, running, variables

MIB = 1 << 20

#: Shows what a program is given that no shell changes on the way.
SHOW = OK + "exec env -0"


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(3 * PATIENCE):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with programs in it, and with much that is none."""
    folder = tmp_path / "cgi-bin"
    where = OK + 'printf "%s|%s" "$SCRIPT_NAME" "$PATH_INFO"'
    for name in ("a.cgi", "noext", "sub/b.cgi", "sub/deep/c.cgi", "a b+c=d%41.cgi", "Ⱥ/é.cgi"):
        program(folder / name, where)
    for name in (".hidden.cgi", ".git/hook", "a.cgi~", "#a.cgi#", "a.cgi.bak", "a.cgi.orig", "a.cgi.swp", "old/b.cgi~"):
        program(folder / name, where)
    program(folder / "source.cgi", "# the secret source", mode=0o644)
    program(folder / "sub" / "data.txt", "# the secret data", mode=0o600)
    program(tmp_path / "outside.cgi", where)
    program(tmp_path / "cgi-bin-too" / "outside.cgi", where)
    (folder / "out.cgi").symlink_to("../outside.cgi")
    (folder / "out").symlink_to("..")
    (folder / "beside").symlink_to(tmp_path / "cgi-bin-too")
    (folder / "in.cgi").symlink_to("sub/b.cgi")
    (folder / "in").symlink_to("sub")
    (folder / "loop.cgi").symlink_to("loop.cgi")
    (folder / "nothing.cgi").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.cgi", 0o777)
    return folder


def request(path: str, method: str = "GET", body: bytes = b"", **more: str) -> Request:
    if body:
        more["CONTENT_LENGTH"] = str(len(body))
    return Request(variables(method, path, **more), body)


async def refused(handler: Any, path: str) -> list[str]:
    """Ask for something that is a 404; what was written in the log about it."""
    answer = Asked()
    with pytest.raises(Reject) as caught:
        await ask(handler, request(path), answer)
    assert caught.value.status == 404
    return answer.log


# --- which program -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "script_name", "path_info"),
    [
        ("/a.cgi", "/a.cgi", ""),
        ("/a.cgi/", "/a.cgi", "/"),
        ("/a.cgi/x/y.cgi", "/a.cgi", "/x/y.cgi"),
        ("/a.cgi//x/", "/a.cgi", "//x/"),
        ("/a.cgi/../b.cgi", "/a.cgi", "/../b.cgi"),
        ("/a.cgi/.hidden~", "/a.cgi", "/.hidden~"),
        ("/noext/é\udcff", "/noext", "/é\udcff"),
        ("/sub/b.cgi", "/sub/b.cgi", ""),
        ("/sub/deep/c.cgi/x", "/sub/deep/c.cgi", "/x"),
        ("/a b+c=d%41.cgi/%41", "/a b+c=d%41.cgi", "/%41"),
        ("/Ⱥ/é.cgi/Ⱥ.cgi", "/Ⱥ/é.cgi", "/Ⱥ.cgi"),
        ("/in.cgi/x", "/in.cgi", "/x"),
        ("/in/b.cgi/x", "/in/b.cgi", "/x"),
    ],
)
async def test_a_path_is_split_behind_the_program(folder: Path, path: str, script_name: str, path_info: str) -> None:
    answer = await ask(cgi.directory(folder), request(path))
    assert answer.body.decode("utf-8", "surrogateescape") == f"{script_name}|{path_info}"


@pytest.mark.parametrize("path", ["/Ⱥ/É.cgi", "/ⱥ/é.cgi", "/A.CGI", "/a.cGi"])
async def test_E12_the_case_of_a_path_is_kept(folder: Path, path: str) -> None:
    if os.access(f"{folder}{path}", os.F_OK):
        pytest.skip("a file system that does not tell cases apart")
    await refused(cgi.directory(folder), path)


async def test_E12_names_that_are_no_text_are_names(folder: Path) -> None:
    file = os.fsencode(folder) + b"/\xc8\xff\xba.cgi"
    try:
        os.link(folder / "noext", file)
    except OSError:
        pytest.skip("a file system that takes UTF-8 alone")
    answer = await ask(cgi.directory(folder), request("/\udcc8\udcff\udcba.cgi/\udcff"))
    assert answer.body == b"/\xc8\xff\xba.cgi|/\xff"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "/.",
        "/..",
        "/missing.cgi",
        "/missing/a.cgi",
        "/sub",
        "/sub/",
        "/sub/missing",
        "//a.cgi",
        "/sub//b.cgi",
        "/./a.cgi",
        "/sub/../a.cgi",
        "/../outside.cgi",
        "/../cgi-bin-too/outside.cgi",
        "/sub/../../outside.cgi",
        "/..%2foutside.cgi",
        "/%2e%2e/outside.cgi",
        "/%2e%2e%2foutside.cgi",
        "/sub%2fb.cgi",
        "/a%2ecgi",
        "/a.cgi%00.txt",
        "/..\\outside.cgi",
        "/a.cgi.",
        "/a.cgi ",
        "/a.cgi::$DATA",
        "/etc/passwd",
        "//etc/passwd",
        "/.hidden.cgi",
        "/.git/hook",
        "/a.cgi~",
        "/#a.cgi#",
        "/a.cgi.bak",
        "/a.cgi.orig",
        "/a.cgi.swp",
        "/old/b.cgi~/x",
        "/loop.cgi",
        "/nothing.cgi",
        "/" + "x" * 5000,
        "/x" * 5000,
    ],
)
async def test_E17_nothing_else_is_a_program(folder: Path, path: str) -> None:
    assert await refused(cgi.directory(folder), path) == []


@pytest.mark.parametrize("path", ["/source.cgi", "/sub/data.txt", "/source.cgi/", "/source.cgi/x", "/pipe.cgi"])
async def test_E17_what_is_not_executable_is_404_and_the_log_tells_why(folder: Path, path: str) -> None:
    file = path.removesuffix("/").removesuffix("/x")
    assert await refused(cgi.directory(folder), path) == [f"{file} is not run: it is no executable file"]


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/out.cgi", "/out.cgi"),
        ("/out/outside.cgi/x", "/out/outside.cgi"),
        ("/out/cgi-bin-too/outside.cgi", "/out/cgi-bin-too/outside.cgi"),
        ("/beside/outside.cgi", "/beside/outside.cgi"),
    ],
)
async def test_E17_a_link_out_of_the_folder_is_404_and_the_log_tells_why(folder: Path, path: str, file: str) -> None:
    assert await refused(cgi.directory(folder), path) == [f"{file} is not run: it lies outside of {folder}"]


async def test_E17_a_path_with_NUL_is_refused_by_the_host_itself(folder: Path) -> None:
    # No transport lets it through.
    environ = variables("GET", "/a.cgi")
    asked = Request(environ)
    asked.environ["PATH_INFO"] = "/a.cgi\0.txt"
    with pytest.raises(Reject):
        await ask(cgi.directory(folder), asked)


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI])
@pytest.mark.parametrize("path", ["/source.cgi", "/source.cgi/", "/%2e%2e/outside.cgi", "/../outside.cgi", "/a.cgi~"])
async def test_E17_no_source_is_ever_shown(folder: Path, protocol: Any, path: str) -> None:
    async with running(cgi.directory(folder), protocol=protocol) as backend:
        answer = await backend.ask(variables("GET", path))
    assert answer.status == 404
    assert b"secret" not in answer.body
    assert b"#!" not in answer.body
    assert os.fsencode(folder) not in answer.body


async def test_a_folder_that_is_a_link_is_resolved_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("cgi-bin")
    handler = cgi.directory(tmp_path / "current")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("/")
    assert (await ask(handler, request("/a.cgi"))).body == b"/a.cgi|"


async def test_programs_come_and_go(folder: Path) -> None:
    handler = cgi.directory(folder)
    await refused(handler, "/new.cgi")
    file = program(folder / "new.cgi", OK + "echo new")
    assert (await ask(handler, request("/new.cgi"))).body == b"new\n"
    file.unlink()
    await refused(handler, "/new.cgi")


async def test_a_folder_is_mounted_as_any_application_is(folder: Path) -> None:
    async def home(request: Request) -> Response:
        return Response("home")

    app = URLMap({"/cgi-bin": cgi.directory(folder), "": home})
    async with running(app) as backend:
        answer = await backend.ask(variables("GET", "/cgi-bin/sub/b.cgi/x"))
        assert answer.body == b"/cgi-bin/sub/b.cgi|/x"
        assert (await backend.ask(variables("GET", "/cgi-binary"))).body == b"home"
        assert (await backend.ask(variables("GET", "/cgi-bin"))).status == 404
    async with running(cgi.directory(folder), mount="/app") as backend:
        answer = await backend.ask(variables("GET", "/app/a.cgi/x"))
        assert answer.body == b"/app/a.cgi|/x"


@pytest.mark.parametrize("name", ["missing", "a.cgi"])
async def test_a_folder_is_wanted(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        cgi.directory(folder / name)


@pytest.mark.parametrize(("setting", "value"), [("timeout", 0), ("timeout", -1.0), ("max_programs", 0)])
async def test_settings_that_make_no_sense_are_refused(folder: Path, setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        cgi.directory(folder, **{setting: value})  # type: ignore[arg-type]


# --- what a program is given -------------------------------------------------------------------------------------


async def test_E01_E23_the_environment_of_a_program_is_chosen_on_both_sides(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(folder / "env.cgi", SHOW)
    host = {"SECRET": "s", "LD_LIBRARY_PATH": "/s", "AWS_SECRET_ACCESS_KEY": "s", "HTTP_PROXY": "s", "REMOTE_USER": "s"}
    for name, value in {**host, "PYTHONPATH": "/s", "LC_TIME": "C", "TZ": "UTC", "LANG": "C.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    evil = dict.fromkeys(
        ("BASH_ENV", "ENV", "HTTP_PROXY", "IFS", "LD_PRELOAD", "PATH", "PATH_TRANSLATED", "PERL5OPT", "PHP_VALUE",
         "PYTHONPATH", "PYTHONSTARTUP", "REDIRECT_URL", "RUBYOPT", "SCRIPT_FILENAME", "SHELLOPTS", "TZ"),
        "/evil",
    )  # fmt: skip
    sent = {"HTTP_X_Y": "é\udcff", "SSL_CLIENT_S_DN": "CN=m", "SERVER_NAME": "www.example", "SERVER_PORT": "8080"}
    asked = request("/env.cgi/info", "POST", b"four", **evil, **sent, CONTENT_TYPE="a/b", REMOTE_ADDR="192.0.2.7")
    environ = (await ask(cgi.directory(folder, environ={"DATA": "/srv"}), asked)).environ()
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):  # the shell's own
        environ.pop(name, None)
    assert environ == {
        **{name: value for name, value in os.environ.items() if name in ("LANGUAGE", "TMPDIR") or name[:3] == "LC_"},
        **sent,
        "CONTENT_LENGTH": "4",
        "CONTENT_TYPE": "a/b",
        "DATA": "/srv",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "LANG": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "PATH_INFO": "/info",
        "QUERY_STRING": "",
        "REDIRECT_STATUS": "200",
        "REMOTE_ADDR": "192.0.2.7",
        "REQUEST_METHOD": "POST",
        "SCRIPT_FILENAME": f"{folder}/env.cgi",
        "SCRIPT_NAME": "/env.cgi",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gateways",
        "TZ": "UTC",
    }


async def test_E23_SCRIPT_FILENAME_is_the_file_that_is_run(folder: Path) -> None:
    program(folder / "sub" / "env.cgi", SHOW)
    (folder / "linked.cgi").symlink_to("sub/env.cgi")
    environ = (await ask(cgi.directory(folder), request("/linked.cgi", SCRIPT_FILENAME="/etc/passwd"))).environ()
    assert environ["SCRIPT_FILENAME"] == f"{folder}/sub/env.cgi"
    assert environ["SCRIPT_NAME"] == "/linked.cgi"


async def test_what_one_request_brings_the_next_does_not_see(folder: Path) -> None:
    program(folder / "env.cgi", SHOW)
    handler = cgi.directory(folder)
    before = dict(os.environ)
    first = await ask(handler, request("/env.cgi", HTTP_X="1", REMOTE_USER="m", CONTENT_TYPE="a/b"))
    assert {"HTTP_X", "REMOTE_USER", "CONTENT_TYPE"} <= first.environ().keys()
    second = await ask(handler, request("/env.cgi"))
    assert not {"HTTP_X", "REMOTE_USER", "CONTENT_TYPE"} & second.environ().keys()
    assert os.environ == before


@pytest.mark.parametrize(
    ("info", "translated"),
    [
        ("", None),
        ("/", "/"),
        ("/a b/é", "/a b/é"),
        ("/.../x..y", "/.../x..y"),
        ("/..", None),
        ("/x/../../etc/passwd", None),
    ],
)
async def test_PATH_TRANSLATED_needs_a_document_root(
    folder: Path, tmp_path: Path, info: str, translated: str | None
) -> None:
    program(folder / "env.cgi", SHOW)
    asked = partial(request, "/env.cgi" + info, PATH_TRANSLATED="/evil", DOCUMENT_ROOT="/of/the/server")
    environ = (await ask(cgi.directory(folder), asked())).environ()
    assert "PATH_TRANSLATED" not in environ
    assert environ["DOCUMENT_ROOT"] == "/of/the/server"
    environ = (await ask(cgi.directory(folder, document_root=tmp_path), asked())).environ()
    assert environ.get("PATH_TRANSLATED") == (None if translated is None else f"{tmp_path}{translated}")
    assert environ["DOCUMENT_ROOT"] == str(tmp_path)


async def test_C44_a_password_is_passed_on_only_if_wanted(folder: Path) -> None:
    program(folder / "env.cgi", SHOW)
    asked = partial(request, "/env.cgi", HTTP_AUTHORIZATION="Basic bTpt")
    assert "HTTP_AUTHORIZATION" not in (await ask(cgi.directory(folder), asked())).environ()
    handler = cgi.directory(folder, pass_authorization=True)
    assert (await ask(handler, asked())).environ()["HTTP_AUTHORIZATION"] == "Basic bTpt"


@pytest.mark.parametrize("query", ["-d+auto_prepend_file%3dphp://input", "-s", "a+b", "--help", "/x", "a=b&c/d", "%41"])
async def test_E16_no_word_of_the_client_is_an_argument(folder: Path, query: str) -> None:
    program(folder / "argv.cgi", OK + 'printf "%s|" "$#" "$0" "$QUERY_STRING"')
    answer = await ask(cgi.directory(folder), request("/argv.cgi/-x", QUERY_STRING=query))
    assert answer.body.decode() == f"0|{folder}/argv.cgi|{query}|"


async def test_C19_a_program_runs_in_its_own_folder(folder: Path) -> None:
    program(folder / "sub" / "pwd.cgi", OK + "pwd -P")
    assert (await ask(cgi.directory(folder), request("/sub/pwd.cgi"))).body.decode() == f"{folder}/sub\n"


async def test_E22_a_program_inherits_three_descriptors_and_no_signal_is_ignored(folder: Path) -> None:
    text = """
import os, signal
print("Content-Type: text/plain\\n")
os.listdir("/dev/fd")
for number in range(256):
    try:
        os.fstat(number)
        print(number)
    except OSError:
        pass
print(os.getpgrp() == os.getsid(0) == os.getpid())
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
os.kill(os.getppid(), 0)
"""
    python_program(folder / "fds.cgi", text)
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)
    try:
        # The listener, and the connection of the request itself, are in this process too.
        async with running(cgi.directory(folder)) as backend:
            answer = await backend.ask(variables("GET", "/fds.cgi"))
        assert answer.body == b"0\n1\n2\nTrue\nset()\n"
    finally:
        os.close(ours)
        os.close(theirs)


async def test_E24_variables_too_long_for_a_process_are_431(folder: Path) -> None:
    async with running(cgi.directory(folder), limits=Limits(max_params_bytes=MIB)) as backend:
        answer = await backend.ask(variables("GET", "/a.cgi", HTTP_X="x" * 200_000))
    assert answer.status == 431
    assert b"Traceback" not in answer.body


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "headers", "body"),
    [
        ("printf 'Content-Type: a/b\\r\\n\\r\\nx'", 200, {"Content-Type": "a/b"}, b"x"),
        ("printf 'Content-Type: a/b\\n\\nx'", 200, {"Content-Type": "a/b"}, b"x"),
        ("printf 'content-type:a/b\\nSTATUS:418\\n\\n'", 418, {"content-type": "a/b"}, b""),
        ("printf 'Status: 404 Nowhere\\n\\n'", 404, {}, b""),
        ("printf 'Status: 204\\n\\n'", 204, {}, b""),
        ("printf 'Location: http://x/y#z\\n\\n'", 302, {"Location": "http://x/y#z"}, b""),
        ("printf 'Status: 303\\nLocation: /y\\n\\nsee'", 303, {"Location": "/y"}, b"see"),
        ("printf 'Content-Type: a/b\\nConnection: close\\nKeep-Alive: 1\\n\\n'", 200, {"Content-Type": "a/b"}, b""),
    ],
)  # fmt: skip
async def test_answers(folder: Path, text: str, status: int, headers: dict[str, str], body: bytes) -> None:
    program(folder / "it.cgi", text)
    answer = await ask(cgi.directory(folder), request("/it.cgi"))
    assert (answer.status, answer.headers, answer.body) == (status, headers, body)


async def test_C33_a_local_redirect_goes_to_the_client_and_nothing_is_run_for_it(folder: Path) -> None:
    program(folder / "from.cgi", "printf 'Location: /a.cgi?x=1\\n\\n'")
    answer = await ask(cgi.directory(folder), request("/from.cgi"))
    assert (answer.status, answer.headers, answer.body) == (302, {"Location": "/a.cgi?x=1"}, b"")


async def test_fields_may_come_more_than_once(folder: Path) -> None:
    program(folder / "it.cgi", "printf 'Set-Cookie: a=1\\nSet-Cookie: b=2\\nContent-Type: a/b\\n\\n'")
    response = await begin(cgi.directory(folder), request("/it.cgi"))
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    await response.body.aclose()


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 200 OK\\r\\nContent-Type: a/b",
        "Content-Type: a/b\\nContent-Type: c/d",
        "Content-Type: a/b\\n folded",
        "Content-Type : a/b",
        "Status: 200\\nStatus: 404",
        "Status: 100",
        "Status: OK",
        "Status: 2000",
        "X-Only: 1",
        "Content-Type: a/b\\nContent-Length: 1\\nContent-Length: 2",
        "Content-Type: a/b\\nContent-Length: -1",
        "<html>",
    ],
)
async def test_C36_what_is_no_head_is_502(folder: Path, head: str) -> None:
    program(folder / "it.cgi", f"printf '{head}\\n\\n<p>secret'")
    async with running(cgi.directory(folder)) as backend:
        answer = await backend.ask(variables("GET", "/it.cgi"))
    assert (answer.status, answer.ended) == (502, "complete")
    assert b"secret" not in answer.body


async def test_a_body_goes_in_and_comes_out_as_it_is(folder: Path) -> None:
    program(folder / "echo.cgi", OK + "exec cat")
    sent = bytes(range(256)) * 4096
    assert (await ask(cgi.directory(folder), request("/echo.cgi", "POST", sent))).body == sent


async def test_output_is_as_long_as_it_is(folder: Path) -> None:
    program(folder / "long.cgi", OK + "exec head -c 20000000 /dev/zero")
    received = 0

    async def count(data: str | bytes) -> None:
        nonlocal received
        received += len(data)

    response = await begin(cgi.directory(folder), request("/long.cgi"))
    await response.body(count)
    assert received == 20_000_000


# --- bad programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "mode", "message"),
    [
        ("#!/no/such/interpreter\n", 0o755, "the interpreter that its first line names is not there"),
        ("#!/bin/sh\r\n", 0o755, "the interpreter that its first line names is not there"),
        ("echo Content-Type: text/plain\n", 0o755, "it is no program, and no script with a #! line"),
        ("", 0o755, "it is no program"),
    ],
)
async def test_E21_a_program_that_cannot_be_started_is_502_and_the_log_tells_why(
    folder: Path, first: str, mode: int, message: str
) -> None:
    file = folder / "bad.cgi"
    file.write_bytes(first.encode())
    file.chmod(mode)
    with pytest.raises(RemoteProtocolError, match=message) as caught:
        await ask(cgi.directory(folder), request("/bad.cgi"))
    assert caught.value.status == 502


@pytest.mark.parametrize("protocol", [FASTCGI, SCGI])
@pytest.mark.parametrize("end", ["exit 3", "kill -KILL $$", "kill -SEGV $$"])
async def test_E21_a_bad_end_is_502_before_the_head_and_a_break_after_it(folder: Path, protocol: Any, end: str) -> None:
    program(folder / "before.cgi", end)
    program(folder / "after.cgi", OK + "printf half; cat >/dev/null; " + end)
    async with running(cgi.directory(folder), protocol=protocol) as backend:
        answer = await backend.ask(variables("GET", "/before.cgi"))
        assert (answer.status, answer.ended) == (502, "complete")
        peer = await backend.connect()
        await peer.ask(variables("POST", "/after.cgi", CONTENT_LENGTH="1"), end_body=False)
        while not any(isinstance(event, events.HeadReceived) for event in peer.events):
            await peer.receive()
        await peer.send(peer.client.send_body(peer.stream_id, b"x") + peer.client.end_body(peer.stream_id))
        answer = await peer.answer()
        assert (answer.status, answer.body, answer.ended) == (200, b"half", "reset")


async def test_E21_no_output_at_all_is_502(folder: Path) -> None:
    program(folder / "none.cgi", "exit 0")
    with pytest.raises(RemoteProtocolError, match="without an answer") as caught:
        await ask(cgi.directory(folder), request("/none.cgi"))
    assert caught.value.status == 502


async def test_E18_a_program_that_never_reads_its_body_answers(folder: Path) -> None:
    program(folder / "deaf.cgi", OK + "echo done")
    async with running(cgi.directory(folder)) as backend:
        sent = bytes(10 * MIB)
        answer = await backend.ask(variables("POST", "/deaf.cgi", CONTENT_LENGTH=str(len(sent))), sent)
    assert (answer.status, answer.body, answer.ended) == (200, b"done\n", "complete")


async def test_E18_a_program_that_neither_reads_nor_answers_is_504(folder: Path, lifeline: Lifeline) -> None:
    program(folder / "dead.cgi", lifeline.begin + "exec sleep 100")
    handler = cgi.directory(folder, timeout=0.1)
    with pytest.raises(RemoteProtocolError, match="silent for") as caught:
        await ask(handler, request("/dead.cgi", "POST", bytes(10 * MIB)))
    assert caught.value.status == 504
    await lifeline.gone()


async def test_E19_stderr_is_read_while_stdout_waits_for_the_client(folder: Path, lifeline: Lifeline) -> None:
    flood = "head -c 67108864 /dev/zero | tr '\\0' '\\n' >&2; "
    program(folder / "flood.cgi", OK + f"head -c {MIB} /dev/zero & {flood}{lifeline.begin}wait")
    answer = Asked()
    received = 0

    async def send(data: str | bytes) -> None:
        nonlocal received
        if not received:
            await lifeline.started()  # all of stderr has been taken meanwhile
        received += len(data)

    response = await begin(cgi.directory(folder, limits=Limits(max_stderr=100)), request("/flood.cgi"), answer)
    await response.body(send)
    assert received == MIB
    assert answer.log == []  # a hundred empty lines


async def test_E19_a_daemon_that_writes_to_stderr_for_ever_holds_up_nobody(folder: Path) -> None:
    text = """
import os
print("Content-Type: text/plain\\n\\nhello", flush=True)
ready, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while True:
        os.write(2, b"x" * 65536)
        os.write(told, b".")
os.read(ready, 1)
"""
    python_program(folder / "daemon.cgi", text)
    answer = await ask(cgi.directory(folder, limits=Limits(max_stderr=10)), request("/daemon.cgi"))
    assert (answer.body, answer.log) == (b"hello\n", ["x" * 10])


@pytest.fixture
async def lifeline(tmp_path: Path) -> AsyncIterator[Lifeline]:
    lifeline = Lifeline(tmp_path)
    yield lifeline
    lifeline.close()


QUICK = Limits(goodbye_timeout=0.1)


@pytest.mark.parametrize("pidfd", [True, False])
async def test_E20_a_daemon_that_keeps_stdout_open_does_not_keep_the_client(
    folder: Path, lifeline: Lifeline, pidfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no descriptor tells of the end of a process, it takes the deadline of a silent program."""

    def forbidden(pid: int) -> int:
        raise PermissionError

    program(folder / "daemon.cgi", OK + lifeline.begin + "echo hello; trap '' TERM; sleep 100 &")
    if not pidfd:
        monkeypatch.setattr(os, "pidfd_open", forbidden, raising=False)
    handler = cgi.directory(folder, limits=QUICK, timeout=60 if pidfd and sys.platform == "linux" else 1)
    answer = await ask(handler, request("/daemon.cgi"))
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert len(answer.log) == 1
    assert "keeps its stdout open" in answer.log[0]
    await lifeline.gone()


async def test_E20_a_daemon_with_a_session_of_its_own_does_not_keep_the_client_either(folder: Path) -> None:
    text = """
import os, signal
print("Content-Type: text/plain\\n\\nhello", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.alarm(5)
        signal.pause()
    os._exit(0)
os.wait()
"""
    python_program(folder / "daemon.cgi", text)
    answer = await ask(cgi.directory(folder, limits=QUICK), request("/daemon.cgi"))
    assert (answer.status, answer.body) == (200, b"hello\n")


async def test_E20_what_a_program_leaves_behind_may_write_to_its_end(folder: Path) -> None:
    program(folder / "both.cgi", OK + "(head -c 3000000 /dev/zero; printf end) & exit 0")
    answer = await ask(cgi.directory(folder), request("/both.cgi"))
    assert (len(answer.body), answer.body[-4:], answer.log) == (3_000_003, b"\0end", [])


async def test_E20_a_daemon_that_has_let_go_of_stdout_lives_on(
    folder: Path, lifeline: Lifeline, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    text = lifeline.begin + f"(exec >/dev/null 2>&1; read x <'{go}'; echo alive >&9) &\n"
    program(folder / "job.cgi", text + OK + "echo hello")
    answer = await ask(cgi.directory(folder), request("/job.cgi"))
    assert (answer.body, answer.log) == (b"hello\n", [])
    await lifeline.started()
    await trio.to_thread.run_sync(go.write_text, "x\n")
    await lifeline.started()
    await lifeline.gone()


async def test_a_program_that_closes_stdout_and_runs_on_has_answered_and_is_ended(
    folder: Path, lifeline: Lifeline
) -> None:
    program(folder / "on.cgi", OK + "echo hello\n" + lifeline.begin + "exec >/dev/null; exec sleep 100")
    answer = await ask(cgi.directory(folder, limits=QUICK), request("/on.cgi"))
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert answer.log == ["the program has closed its stdout and runs on; it is ended"]
    await lifeline.gone()


@pytest.mark.parametrize(("before", "timeout", "body"), [("", 0.1, b""), (OK + "echo hello\n", 1, b"hello\n")])
async def test_silence_has_an_end(folder: Path, lifeline: Lifeline, before: str, timeout: float, body: bytes) -> None:
    program(folder / "stuck.cgi", before + lifeline.begin + "exec sleep 100")
    answer = Asked()
    with pytest.raises(RemoteProtocolError, match=f"silent for {timeout} seconds") as caught:
        await ask(cgi.directory(folder, timeout=timeout), request("/stuck.cgi"), answer)
    assert caught.value.status == 504
    assert answer.body == body
    await lifeline.gone()


class Slow:
    """A client that is slower than a program may be, at the second of its bytes."""

    def __init__(self) -> None:
        self._seconds = [0, 1.2, 0]

    async def receive(self, max_bytes: int) -> bytes:
        await trio.sleep(self._seconds.pop(0))
        return b"x"


async def test_waiting_for_the_client_is_no_silence(folder: Path) -> None:
    """Neither for its body, nor while it does not take the answer."""
    program(folder / "echo.cgi", OK + "exec cat")
    body: Any = Slow()
    reader = Slow()
    received = b""

    async def send(data: str | bytes) -> None:
        nonlocal received
        assert isinstance(data, bytes)
        await reader.receive(1)
        received += data

    asked = Request(variables("POST", "/echo.cgi", CONTENT_LENGTH="2"), Body(body, 2))
    response = await begin(cgi.directory(folder, timeout=1), asked)
    await response.body(send)
    assert received == b"xx"


async def test_a_body_that_is_too_long_to_measure_starts_no_program(folder: Path, tmp_path: Path) -> None:
    program(folder / "touch.cgi", f"touch {tmp_path}/started")
    asked = request("/touch.cgi", "POST", b"123456")
    asked.environ.pop("CONTENT_LENGTH")
    with pytest.raises(LimitExceeded):
        await ask(cgi.directory(folder, limits=Limits(max_read=5)), asked)
    assert not (tmp_path / "started").exists()


async def test_only_so_many_programs_run_at_a_time(folder: Path, lifeline: Lifeline, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    program(folder / "wait.cgi", lifeline.begin + f"read x <'{go}'\n" + OK + "echo done")
    handler = cgi.directory(folder, max_programs=1)
    answers: list[Asked] = []

    async def one(path: str) -> None:
        answers.append(await ask(handler, request(path)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "/wait.cgi")
        await lifeline.started()
        nursery.start_soon(one, "/a.cgi")
        await trio.testing.wait_all_tasks_blocked()
        assert not answers
        await trio.to_thread.run_sync(go.write_text, "x\n")
    assert [answer.body for answer in answers] == [b"done\n", b"/a.cgi|"]


async def test_who_waits_too_long_for_a_place_gets_503(folder: Path, lifeline: Lifeline) -> None:
    text = lifeline.begin + OK + "while :; do echo tick; sleep 0.02; done"
    program(folder / "ticks.cgi", text)
    handler = cgi.directory(folder, max_programs=1, timeout=0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler, request("/ticks.cgi"))
        await lifeline.started()
        with pytest.raises(RemoteProtocolError, match="1 programs run already") as caught:
            await ask(handler, request("/a.cgi"))
        assert caught.value.status == 503
        nursery.cancel_scope.cancel()
    await lifeline.gone()
    assert (await ask(handler, request("/a.cgi"))).body == b"/a.cgi|"


async def test_every_end_makes_room_for_the_next(folder: Path) -> None:
    program(folder / "fails.cgi", "exit 1")
    program(folder / "half.cgi", OK + "printf half; exit 1")
    (folder / "bad.cgi").write_bytes(b"\0")
    (folder / "bad.cgi").chmod(0o755)
    handler = cgi.directory(folder, max_programs=1)
    for path in ("/fails.cgi", "/half.cgi", "/bad.cgi"):
        with pytest.raises(RemoteProtocolError):
            await ask(handler, request(path))
    response = await begin(handler, request("/a.cgi", "HEAD"))
    await response.body.aclose()
    assert (await ask(handler, request("/a.cgi"))).body == b"/a.cgi|"


# --- all at once -------------------------------------------------------------------------------------------------


@attrs.frozen
class Bad:
    """A bad program, and what its request has to come to."""

    text: str
    status: int
    body: bytes | None
    ended: str
    method: str = "GET"
    sent: bytes = b""


#: Each writes its number into pids first. Status 0 is no head at all.
BAD = {
    "never-reads": Bad(OK + "echo done", 200, b"done\n", "complete", "POST", bytes(10 * MIB)),
    "floods-stderr": Bad(
        OK + f"head -c {MIB} /dev/zero & head -c 67108864 /dev/zero >&2; wait", 200, bytes(MIB), "complete"
    ),
    "says-nothing": Bad("exit 0", 502, None, "complete"),
    "fails-late": Bad(OK + f"head -c {MIB} /dev/zero; exit 3", 200, bytes(MIB), "reset"),
    "is-killed": Bad(OK + f"head -c {MIB} /dev/zero; kill -KILL $$", 200, bytes(MIB), "reset"),
    "closes-stdout": Bad(OK + "echo done; exec >&-; exec sleep 100", 200, b"done\n", "complete"),
    "leaves-a-daemon": Bad(OK + "echo done; sleep 100 & exit 0", 200, b"done\n", "complete"),
    "promises-more": Bad(
        f"printf 'Content-Length: {2 * MIB}\\n{{}}'; head -c {MIB} /dev/zero", 200, bytes(MIB), "reset"
    ),
    "gives-more": Bad("printf 'Content-Length: 2\\n{}12345'", 200, b"12", "complete"),
    "endless-head": Bad("head -c 70000 /dev/zero | tr '\\0' x; exec sleep 100", 502, None, "complete"),
    "ignores-TERM": Bad("trap '' TERM; while :; do sleep 100; done", 504, None, "complete"),
    "is-stuck": Bad("exec sleep 100", 504, None, "complete"),
    "good": Bad(OK + "exec cat", 200, b"body" * MIB, "complete", "POST", b"body" * MIB),
}


@pytest.mark.skipif(sys.platform != "linux", reason="what is left is looked up in /proc")
async def test_E18_E19_E20_E21_bad_programs_at_once_harm_neither_each_other_nor_the_host(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    pids = tmp_path / "pids"
    for name, bad in BAD.items():
        text = bad.text.replace("{}", "Content-Type: text/plain\\n\\n")
        program(folder / name, f"echo $$ >>'{pids}'\n{text}")
    handler = cgi.directory(folder, timeout=4, limits=Limits(goodbye_timeout=0.3))
    await ask(handler, request("/good", "POST", b"x"))  # what is made once is there
    await trio.testing.wait_all_tasks_blocked()
    before, tasks = descriptors(), trio.lowlevel.current_statistics().tasks_living
    async with (
        running(handler, protocol=FASTCGI) as one,
        running(handler, protocol=SCGI) as other,
        trio.open_nursery() as nursery,
    ):
        for name, bad in BAD.items():
            nursery.start_soon(check, one.ask, name, bad)
            nursery.start_soon(check, other.ask, name, bad)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert descriptors() == before
    groups = {int(line) for line in pids.read_text().split()}
    assert len(groups) == 2 * len(BAD) + 1
    while living(groups):  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(0.01)  # they are killed; it is for the system to let go of them


async def check(ask: Callable[..., Awaitable[Any]], name: str, bad: Bad) -> None:
    more = {"CONTENT_LENGTH": str(len(bad.sent))} if bad.sent else {}
    answer = await ask(variables(bad.method, f"/{name}", **more), bad.sent)
    assert (answer.status, answer.ended) == (bad.status, bad.ended), name
    assert bad.body is None or answer.body == bad.body or (bad.ended != "complete" and bad.body.startswith(answer.body))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def living(groups: set[int]) -> list[int]:
    """The processes that are children of ours, or in these groups or sessions."""
    found: list[int] = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # gone meanwhile
        parent, group, session = map(int, fields[1:4])
        if parent == os.getpid() or (fields[0] != "Z" and {group, session} & groups):
            found.append(int(entry))
    return found
