"""What signals do to ``gateways serve`` as one process."""

from __future__ import annotations

import ast
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import gateways
from gateways._process.life import FORCED
from tests.cli.program import Program, ask, command, poll, refuses, serving
from tests.process.conftest import Hold
from tests.process.tools import gone, reload, watched

APP = """\
import sys, time
import trio
from gateways import Response

async def app(request):
    if request.path == "/blocks":
        print("blocking", file=sys.stderr, flush=True)
        time.sleep(600)
    if request.path == "/shielded":
        print("shielded", file=sys.stderr, flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    body = await request.body.read()
    if request.path == "/forever":
        await trio.sleep_forever()
    return Response(f"{len(body)} bytes\\n")
"""

GOODBYE = ("--timeout-goodbye", "0.1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_O06_a_signal_to_stop_lets_what_has_begun_finish_and_is_success(
    folder: Path, address: str, hold: Hold, number: signal.Signals
) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        call = hold(address, "/", CONTENT_LENGTH="4")
        program.signal(number)
        manager.wait_for("STOPPING=1")
        poll(lambda: refuses(address), "no more connections are accepted")
        answer = call.finish(b"body")
        assert program.wait() == 0
    assert answer is not None
    assert answer.body == "4 bytes\n"


def test_O06_the_grace_of_a_request_ends(folder: Path, address: str, hold: Hold) -> None:
    with serving("app.py", "--bind", address, "--timeout-shutdown-grace", "0.1", cwd=folder) as program:
        call = hold(address, "/forever")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        answer = call.finish()
    assert answer is None or answer.status == 503


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_O07_a_second_signal_ends_at_once(
    folder: Path, address: str, hold: Hold, first: signal.Signals, second: signal.Signals
) -> None:
    with watched("app.py", "--bind", address, "--timeout-shutdown-grace=none", cwd=folder) as (program, manager):
        hold(address, "/forever", CONTENT_LENGTH="4")
        program.signal(first)
        manager.wait_for("STOPPING=1")
        program.signal(second)
        assert program.wait() == 0
    assert not (folder / "app.sock").exists()


def test_O07_quit_waits_for_nobody(folder: Path, address: str, hold: Hold) -> None:
    with serving("app.py", "--bind", address, "--timeout-shutdown-grace=none", cwd=folder) as program:
        hold(address, "/forever", CONTENT_LENGTH="4")
        program.signal(signal.SIGQUIT)
        assert program.wait() == 0
    assert not (folder / "app.sock").exists()


def test_O07_a_second_signal_is_heard_while_an_application_that_shields_its_start_starts(
    folder: Path, address: str
) -> None:
    (folder / "starting.py").write_text(
        "from contextlib import asynccontextmanager\nimport sys, trio\n@asynccontextmanager\nasync def app():\n"
        "    print('on my way', file=sys.stderr)\n    with trio.CancelScope(shield=True):\n"
        "        await trio.sleep_forever()\n    yield\n"
    )
    words = command("serve", "starting.py", "--bind", address, "--timeout-shutdown-grace=none", *GOODBYE)
    with Program(words, cwd=folder) as program:
        program.wait_for("on my way")
        program.signal(signal.SIGTERM)
        # Nothing tells that it was heard but that no other is pending: two would be one.
        poll(lambda: not pending(program.process.pid, signal.SIGTERM), "the first is heard")
        program.signal(signal.SIGTERM)
        assert program.wait() == FORCED
    assert "the end is forced" in program.text
    assert not (folder / "app.sock").exists()


@pytest.mark.parametrize("path", ["/shielded", "/blocks"])
def test_O07_a_second_signal_ends_what_does_not_let_itself_be_cancelled(
    folder: Path, address: str, hold: Hold, path: str
) -> None:
    with serving("app.py", "--bind", address, "--timeout-shutdown-grace=none", *GOODBYE, cwd=folder) as program:
        hold(address, path)
        program.wait_for("^(shielded|blocking)$")
        program.signal(signal.SIGTERM)
        poll(lambda: not pending(program.process.pid, signal.SIGTERM), "the first is heard")
        program.signal(signal.SIGTERM)
        assert program.wait() == FORCED
    assert ("time.sleep(600)" in program.text) == (path == "/blocks")
    assert not (folder / "app.sock").exists()


def test_O16_a_handler_that_shields_itself_is_ended_after_the_grace(folder: Path, address: str, hold: Hold) -> None:
    flags = ("--timeout-shutdown-grace=0.1", *GOODBYE)
    with serving("app.py", "--bind", address, *flags, cwd=folder) as program:
        hold(address, "/shielded")
        program.wait_for("^shielded$")
        program.signal(signal.SIGTERM)
        assert program.wait() == FORCED


def test_O15_where_the_loop_is_blocked_is_logged(folder: Path, address: str, hold: Hold) -> None:
    with serving("app.py", "--bind", address, "--timeout-blocked", "0.2", cwd=folder) as program:
        hold(address, "/blocks")
        program.wait_for("the event loop has been blocked for")
        program.wait_for(r"time\.sleep\(600\)")
        program.process.kill()


def pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has not yet taken notice of a signal."""
    [mask] = [
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd")
    ]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_usr1_opens_the_files_of_the_log_anew(folder: Path, address: str) -> None:
    with serving("app.py", "--bind", address, "--access-log", "access", cwd=folder) as program:
        ask(address, "/one")
        poll(lambda: "/one" in (folder / "access").read_text(), "the first request is logged")
        (folder / "access").rename(folder / "access.1")
        program.signal(signal.SIGUSR1)
        poll((folder / "access").exists, "the file is there again")
        ask(address, "/two")
        poll(lambda: "/two" in (folder / "access").read_text(), "the second request is logged")
    assert "/two" not in (folder / "access.1").read_text()


def test_signals_that_say_nothing_to_a_server_do_nothing(folder: Path, address: str) -> None:
    with serving("app.py", "--bind", address, cwd=folder) as program:
        for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT, signal.SIGPIPE):
            program.signal(number)
        answer = ask(address)
        assert answer is not None
        assert answer.body == "0 bytes\n"
        assert program.process.poll() is None


def test_a_program_of_ones_own_keeps_its_signal_handlers(folder: Path, address: str) -> None:
    (folder / "main.py").write_text(
        "import signal, sys, gateways\nfrom app import app\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('mine', file=sys.stderr, flush=True))\n"
        "started = lambda bound: print('bound', file=sys.stderr, flush=True)\n"
        f"gateways.run(app, bind={address!r}, on_start=started)\n"
        "print('then', signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, file=sys.stderr)\n"
    )
    with Program([sys.executable, "main.py"], cwd=folder) as program:
        program.wait_for("^bound$")
        program.signal(signal.SIGUSR1)
        program.wait_for("^mine$")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert program.text.endswith("then True\n")


# --- the service manager


def test_the_manager_is_told_of_each_state(folder: Path, address: str) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        program.signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert program.wait() == 0
    assert [line for line in manager.lines if not line.startswith("STATUS=")] == ["READY=1", "STOPPING=1"]


def test_ready_is_said_when_there_is_an_application_and_not_before(folder: Path, address: str) -> None:
    (folder / "starting.py").write_text(
        "from contextlib import asynccontextmanager\nimport trio\nfrom app import app as handler\n"
        "from gateways._process import sd_notify\n@asynccontextmanager\nasync def app():\n"
        "    sd_notify.status('starting')\n    yield handler\n"
    )
    with watched("starting.py", "--bind", address, cwd=folder) as (_, manager):
        assert ask(address) is not None
    assert [line.partition("=")[0] for line in manager.lines][:2] == ["STATUS", "READY"]


def test_a_watchdog_is_given_signs_of_life(folder: Path, address: str) -> None:
    env = {"WATCHDOG_USEC": "300000"}
    with watched("app.py", "--bind", address, cwd=folder, env=env) as (program, manager):
        for _ in range(3):
            manager.wait_for("WATCHDOG=1")
        assert program.process.poll() is None


# --- D09


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that every user can come to."""
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.geteuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o755)
    return tmp_path


def everybody_has(path: str) -> bool:
    """Whether every user can come to a file."""
    found = Path(path).resolve()
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (found, *found.parents))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(
    not all(everybody_has(each) for each in (sys.base_prefix, sys.prefix, gateways.__file__.rpartition("/")[0])),
    reason="other users cannot run this Python",
)
def test_D09_the_code_is_loaded_and_run_as_the_user_asked_for_after_the_sockets_are_bound(open_folder: Path) -> None:
    folder = open_folder
    (folder / "who.py").write_text(
        "import os\nfrom gateways import Response\nloaded = os.geteuid(), os.getegid()\n"
        "async def app(request):\n    return Response(f'{loaded} {os.getresuid()} {os.getgroups()}')\n"
    )
    (folder / "private").mkdir(mode=0o755)  # where only root can bind
    address = f"fastcgi:unix:{folder}/private/s"
    with watched("who.py", "--bind", address, "--user", "nobody", cwd=folder) as (program, manager):
        before = ask(address)
        reload(program, manager)
        after = ask(address)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    import pwd

    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    assert before is not None
    assert before.body == f"{(uid, gid)} {(uid,) * 3} {os.getgrouplist('nobody', gid)}"
    assert after == before
    assert "running as root" not in program.text


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--user", "no-such-user"], 2, "there is no user 'no-such-user'"),
        (["--group", "no-such-group"], 2, "there is no group 'no-such-group'"),
    ],
)
def test_D09_a_user_that_there_is_not_is_an_error(
    folder: Path, address: str, flags: list[str], status: int, said: str
) -> None:
    with Program(command("serve", "app.py", "--bind", address, *flags), cwd=folder) as program:
        assert program.wait() == status
    assert said in program.text
    assert not (folder / "app.sock").exists()


# --- what nobody may do


def calls(path: Path) -> set[str]:
    """What a module calls, as it is written there."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


def test_O21_deadlines_are_of_a_clock_that_does_not_jump() -> None:
    package = Path(gateways.__file__).parent
    modules = [*package.glob("_net/*.py"), *package.glob("_process/*.py")]
    assert "trio.current_time" in calls(package / "_net" / "connection.py")
    jumping = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "time.localtime", "time.gmtime"}
    found = {path.name: calls(path) & jumping for path in modules}
    # These say when something was, for people to read.
    assert {name for name, what in found.items() if what} <= {"access.py", "scoreboard.py"}


def test_O24_nothing_that_serves_forks(folder: Path, address: str) -> None:
    (folder / "forked.py").write_text(
        "import os, sys\nfrom app import app\n"
        "os.register_at_fork(before=lambda: print('forked', file=sys.stderr, flush=True))\n"
    )
    with watched("forked.py", "--bind", address, cwd=folder) as (program, manager):
        program.signal(signal.SIGHUP)  # which starts a process
        manager.wait_for("READY=1")
        assert ask(address) is not None
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "serves with the new code" in program.text
    assert "forked" not in program.text.replace("forked.py", "")


def test_O14_a_socket_file_that_another_server_has_made_meanwhile_is_left_alone(folder: Path, address: str) -> None:
    with serving("app.py", "--bind", address, cwd=folder) as first:
        (folder / "app.sock").unlink()
        with serving("app.py", "--bind", address, cwd=folder):
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
            assert gone(first.process.pid)
            answer = ask(address)
    assert answer is not None
    assert answer.status == 200


def test_O14_a_socket_that_was_handed_down_keeps_its_file(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/app.sock")
        listening.listen()
        with Program(command("serve", "app.py"), cwd=folder, stdin=listening) as program:
            program.wait_for("^stop with Ctrl-C$")
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
    assert (folder / "app.sock").exists()
