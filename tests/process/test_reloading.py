"""``gateways serve`` as one process loads its code anew upon SIGHUP, and keeps its process id and all requests."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.program import Answer, Program, ask, environment, poll, serving
from tests.process.conftest import Hold
from tests.process.tools import ask_until, children, gone, reload, reloaded, wait_until_alone, watched
from tests.test_launch import AS_SYSTEMD, listening_at


def code(version: str) -> str:
    """An application that tells its version and its process. Of different lengths, for the cache of modules."""
    return (
        "import os\nfrom gateways import Response\nasync def app(request):\n    await request.body.read()\n"
        f"    return Response(f'{version} {{os.getpid()}}')\n#" + "x" * len(version)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(code("first"))
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fastcgi:unix:{tmp_path}/app.sock"


def version_and_pid(answer: Answer | None) -> tuple[str, int]:
    assert answer is not None
    version, pid = answer.body.split()
    return version, int(pid)


def reloads(program: Program) -> int:
    return program.text.count("INFO reloading\n")


def test_O08_new_code_is_served_by_the_same_process(folder: Path) -> None:
    with watched("app.py", "--bind", "scgi:127.0.0.1:0", cwd=folder) as (program, manager):
        [address] = program.wait_for(r"^  (\S+)$")
        pid = program.process.pid
        assert version_and_pid(ask(address)) == ("first", pid)
        (folder / "app.py").write_text(code("second"))
        program.signal(signal.SIGHUP)
        told = manager.wait_for("RELOADING=1")
        reloaded(program, manager)
        assert version_and_pid(ask(address)) == ("second", pid)
        poll(lambda: children(pid) == [], "the bridge has ended and is reaped")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert told[1].startswith("MONOTONIC_USEC=")


def test_O08_what_has_begun_is_finished_by_the_old_code_and_the_bridge_serves_meanwhile(
    folder: Path, address: str, hold: Hold
) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        pid = program.process.pid
        call = hold(address, "/", CONTENT_LENGTH="4")
        (folder / "app.py").write_text(code("second"))
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"process (\d+) serves with the new code")
        assert version_and_pid(ask_until(address, int(bridge)))[0] == "second"
        assert version_and_pid(call.finish(b"body")) == ("first", pid)
        reloaded(program, manager)
        assert version_and_pid(ask(address)) == ("second", pid)
        poll(lambda: gone(int(bridge)), "the bridge ends")
        assert (folder / "app.sock").exists()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert not (folder / "app.sock").exists()


def test_O08_the_bridge_answers_what_it_has_begun(folder: Path, address: str, hold: Hold) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        old = hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"process (\d+) serves with the new code")
        wait_until_alone(folder / "app.sock", program.process.pid)
        held = hold(address, "/", CONTENT_LENGTH="4")
        old.finish(b"body")
        manager.wait_for("READY=1")
        assert version_and_pid(held.finish(b"body"))[1] == int(bridge)
        poll(lambda: children(program.process.pid) == [], "the bridge has ended")


def test_O08_a_hundred_signals_are_one_reload(folder: Path, address: str, hold: Hold) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        call = hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGHUP)
        program.wait_for(r"process (\d+) serves with the new code")
        for _ in range(100):
            program.signal(signal.SIGHUP)
        call.finish(b"body")
        manager.wait_for("READY=1")
        # What was sent before the code was loaded asks for nothing more.
        program.signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        manager.wait_for("READY=1")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert reloads(program) == 2


def test_O08_signals_that_come_while_new_code_is_being_loaded_do_not_end_it(folder: Path, address: str) -> None:
    loading = (
        "import os, signal\nwith open('loaded', 'a') as file: file.write('x')\n"
        "if len(open('loaded').read()) == 3: os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    (folder / "app.py").write_text(loading + code("first"))
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        program.signal(signal.SIGHUP)
        manager.wait_for("READY=1")  # the third time: the bridge's was the second
        manager.wait_for("RELOADING=1")
        reloaded(program, manager)
        assert version_and_pid(ask(address)) == ("first", program.process.pid)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert (folder / "loaded").read_text() == "xxxxx"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("def (", "exit status 4"),
        ("import there_is_no_such_module", "exit status 4"),
        (
            "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def app():\n"
            "    raise OSError('no database')\n    yield\n",
            "exit status 3",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "exit status -9"),
    ],
)
def test_O09_code_that_does_not_start_leaves_the_old_serving(
    folder: Path, address: str, broken: str, said: str
) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        pid = program.process.pid
        (folder / "app.py").write_text(broken)
        program.signal(signal.SIGHUP)
        assert "STATUS=serving; the last reload has failed" in manager.wait_for("READY=1")
        assert version_and_pid(ask(address)) == ("first", pid)
        assert children(pid) == []
        (folder / "app.py").write_text(code("mended"))
        reload(program, manager)
        assert version_and_pid(ask(address)) == ("mended", pid)
        program.wait_for(f"the new code does not serve \\({said}\\); the old code goes on")


def test_O09_settings_that_are_wrong_leave_the_old_ones(folder: Path, address: str) -> None:
    (folder / "pyproject.toml").write_text("")
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        (folder / "pyproject.toml").write_text("[tool.gateways]\nmuont = '/app'\n")
        program.signal(signal.SIGHUP)
        manager.wait_for("READY=1")
        assert version_and_pid(ask(address)) == ("first", program.process.pid)
        program.wait_for(r"there is no setting 'muont'; is it 'mount'\?")


def test_O09_new_code_that_starts_once_and_then_no_more_goes_on_in_the_bridge(folder: Path, address: str) -> None:
    # The third time it is loaded is that in the old process.
    failing = (
        "with open('loaded', 'a') as file: file.write('x')\n"
        "if len(open('loaded').read()) == 3: raise OSError('no database, just now')\n"
    )
    (folder / "app.py").write_text(failing + code("first"))
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        pid = program.process.pid
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"the new code does not start any more; process (\d+)")
        ask_until(address, int(bridge))
        program.signal(signal.SIGHUP)  # or else after a second
        reloaded(program, manager)
        assert version_and_pid(ask(address)) == ("first", pid)
        poll(lambda: children(pid) == [], "the bridge has ended")
    assert "no database, just now" in program.text


def test_O09_who_waits_to_start_again_can_be_stopped(folder: Path, address: str) -> None:
    failing = (
        "with open('loaded', 'a') as file: file.write('x')\n"
        "if len(open('loaded').read()) == 3: raise OSError('no database, just now')\n"
    )
    (folder / "app.py").write_text(failing + code("first"))
    with watched("app.py", "--bind", address, cwd=folder) as (program, _):
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"the new code does not start any more; process (\d+)")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert gone(int(bridge))
    assert not (folder / "app.sock").exists()


def test_O12_the_bridge_ends_when_the_process_it_stands_in_for_is_killed(
    folder: Path, address: str, hold: Hold
) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, _):
        hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"process (\d+) serves with the new code")
        wait_until_alone(folder / "app.sock", program.process.pid)
        held = hold(address, "/", CONTENT_LENGTH="4")
        program.process.kill()
        program.wait_for("the process that this one stands in for is dead")
        poll(lambda: not (folder / "app.sock").exists(), "the path is free")
        with serving("app.py", "--bind", address, cwd=folder) as another:
            assert version_and_pid(ask(address)) == ("first", another.process.pid)
            assert version_and_pid(held.finish(b"body")) == ("first", int(bridge))
            poll(lambda: gone(int(bridge)), "no orphan is left")
            assert version_and_pid(ask(address)) == ("first", another.process.pid)


def test_O12_a_signal_to_stop_during_a_reload_ends_both_and_answers_everybody(
    folder: Path, address: str, hold: Hold
) -> None:
    with watched("app.py", "--bind", address, cwd=folder) as (program, _):
        pid = program.process.pid
        old = hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"process (\d+) serves with the new code")
        wait_until_alone(folder / "app.sock", program.process.pid)
        new = hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGTERM)
        poll(lambda: not (folder / "app.sock").exists(), "it has been heard")
        assert version_and_pid(old.finish(b"body")) == ("first", pid)
        assert version_and_pid(new.finish(b"body")) == ("first", int(bridge))
        assert program.wait() == 0
        assert gone(int(bridge))
    assert reloads(program) == 1


def test_O07_a_second_signal_during_a_reload_ends_both_at_once(folder: Path, address: str, hold: Hold) -> None:
    flags = ("--timeout-shutdown-grace", "none")
    with watched("app.py", "--bind", address, *flags, cwd=folder) as (program, _):
        hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGHUP)
        [bridge] = program.wait_for(r"process (\d+) serves with the new code")
        wait_until_alone(folder / "app.sock", program.process.pid)
        hold(address, "/", CONTENT_LENGTH="4")
        program.signal(signal.SIGTERM)
        poll(lambda: not (folder / "app.sock").exists(), "it has been heard")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert gone(int(bridge))


def test_O16_a_handler_that_shields_itself_does_not_stop_a_reload(folder: Path, address: str, hold: Hold) -> None:
    (folder / "app.py").write_text(
        "import sys, trio\nasync def app(request):\n    print('shielded', file=sys.stderr, flush=True)\n"
        "    with trio.CancelScope(shield=True):\n        await trio.sleep_forever()\n"
    )
    flags = ("--timeout-shutdown-grace", "0.1", "--timeout-goodbye", "0.1")
    with watched("app.py", "--bind", address, *flags, cwd=folder) as (program, manager):
        hold(address)
        program.wait_for("^shielded$")
        (folder / "app.py").write_text(code("second"))
        reload(program, manager)
        assert version_and_pid(ask(address)) == ("second", program.process.pid)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "the end is forced" in program.text


def test_a_path_that_leads_elsewhere_now_is_followed(tmp_path: Path, address: str) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "app.py").write_text(code(release))
    (tmp_path / "current").symlink_to("one")
    env = {"PWD": str(tmp_path / "current")}
    with watched("app.py", "--bind", address, cwd=tmp_path / "current", env=env) as (program, manager):
        assert version_and_pid(ask(address))[0] == "one"
        (tmp_path / "current").unlink()
        (tmp_path / "current").symlink_to("two")
        reload(program, manager)
        assert version_and_pid(ask(address))[0] == "two"


def test_other_addresses_are_taken_from_a_changed_configuration(folder: Path) -> None:
    kept, dropped, added = [f"scgi:unix:{folder}/{name}" for name in ("kept", "dropped", "added")]
    config = folder / "gateways.toml"
    config.write_text(f"bind = ['{kept}', '{dropped}']\n")
    with watched("app.py", "-c", "gateways.toml", cwd=folder) as (program, manager):
        before = (folder / "kept").stat().st_ino
        config.write_text(f"bind = ['{added}', '{kept}']\n")
        reload(program, manager)
        answers = [version_and_pid(ask(address)) for address in (kept, added)]
        assert answers == [("first", program.process.pid)] * 2
        assert (folder / "kept").stat().st_ino == before
        assert not (folder / "dropped").exists()


def test_sockets_of_systemd_are_kept(folder: Path) -> None:
    with listening_at(f"unix:{folder}/one") as one, listening_at("127.0.0.1") as two:
        numbers = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 10) for each in (one, two)]
        words = [
            *AS_SYSTEMD, *[str(number) for number in numbers], "-", sys.executable, "-m", "gateways", "serve", "app.py",
        ]  # fmt: skip
        env = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "scgi:web.socket"}
        with watched(words=words, cwd=folder, env=env, pass_fds=tuple(numbers)) as (program, manager):
            addresses = [f"scgi:unix:{folder}/one", f"fastcgi:127.0.0.1:{two.getsockname()[1]}"]
            for version in ("second", "the third"):
                (folder / "app.py").write_text(code(version.replace(" ", "-")))
                reload(program, manager)
                for address in addresses:
                    assert version_and_pid(ask(address)) == (version.replace(" ", "-"), program.process.pid)
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
        for number in numbers:
            os.close(number)
    assert (folder / "one").exists()


def test_nothing_is_inherited_from_a_reload(folder: Path, address: str) -> None:
    # Neither the variable that carries it nor a descriptor, by what the application starts in turn.
    look = (
        "import os, subprocess\n"
        "seen = subprocess.run(['sh', '-c', 'ls /proc/self/fd; env'], stdin=subprocess.DEVNULL, capture_output=True,"
        " close_fds=False, text=True).stdout.split('\\n')\n"
        "from gateways import Response\n"
        "async def app(request):\n    return Response('\\n'.join(x for x in seen if x.isdigit() or 'GATEWAYS' in x))\n"
    )
    (folder / "app.py").write_text(look)
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        before = ask(address)
        reload(program, manager)
        after = ask(address)
    assert before is not None
    assert before.body.split() == ["0", "1", "2", "3"]  # the third is of ls itself
    assert after == before


def test_descriptors_and_children_do_not_grow_with_reloads(folder: Path, address: str) -> None:
    (folder / "app.py").write_text(
        "import os\nfrom gateways import Response\nasync def app(request):\n"
        "    return Response(str(len(os.listdir('/proc/self/fd'))))\n"
    )
    with watched("app.py", "--bind", address, cwd=folder) as (program, manager):
        first = ask(address)
        for _ in range(3):
            reload(program, manager)
        last = ask(address)
    assert first is not None
    assert last == first


def test_a_program_of_ones_own_reloads_if_it_asks_for_it(folder: Path, address: str) -> None:
    (folder / "main.py").write_text(
        "import sys, gateways\nfrom app import app\n"
        f"gateways.run(app, bind={address!r}, reload=sys.argv[1] == 'yes')\nprint('after', file=sys.stderr)\n"
    )
    words = [sys.executable, "main.py", "yes"]
    with watched(words=words, cwd=folder) as (program, manager):
        (folder / "app.py").write_text(code("second"))
        reload(program, manager)
        assert version_and_pid(ask(address)) == ("second", program.process.pid)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert program.text.count("after") == 1


def test_without_being_asked_to_reload_a_program_is_ended_by_hup_as_ever(folder: Path, address: str) -> None:
    (folder / "main.py").write_text(
        "import gateways\nfrom app import app\nstarted = lambda bound: print('bound', flush=True)\n"
        f"gateways.run(app, bind={address!r})\n"
    )
    with watched(words=[sys.executable, "main.py"], cwd=folder) as (program, _):
        program.signal(signal.SIGHUP)
        assert program.wait() == -signal.SIGHUP


def test_a_terminal_that_goes_away_stops_the_server(folder: Path, address: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [
        sys.executable, "-c",
        "import os, sys\nos.setsid()\nimport fcntl, termios\nfcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'gateways', 'serve', 'app.py', '--bind', sys.argv[2]])\n",
        str(theirs), address,
    ]  # fmt: skip
    with Program(words, cwd=folder, env=environment(), pass_fds=[theirs]) as program:
        os.close(theirs)
        program.wait_for("^stop with Ctrl-C$")
        assert program.process.poll() is None
        os.close(ours)  # the terminal hangs up
        assert program.wait() == 0
    assert reloads(program) == 0
