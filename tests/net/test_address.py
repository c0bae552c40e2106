"""Address strings, and the listening sockets made of them."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateways import Listen
from gateways._net.address import Address, BindError, open_listeners, parse, systemd_sockets

GOOD = [
    ("unix:/run/app.sock", Address("unix", path="/run/app.sock")),
    ("unix:relative.sock", Address("unix", path="relative.sock")),
    ("127.0.0.1:4000", Address("tcp", host="127.0.0.1", port=4000)),
    ("localhost:0", Address("tcp", host="localhost", port=0)),
    ("[::1]:9000", Address("tcp", host="::1", port=9000)),
    ("fd:3", Address("fd", number=3)),
    ("systemd", Address("systemd")),
    ("systemd:web", Address("systemd", name="web")),
]
BAD = [
    "",
    "unix:",
    "unix:a\0b",
    "127.0.0.1",
    ":80",
    "::1:80",
    "host:",
    "host:x",
    "host:+1",
    "host:65536",
    "fd:",
    "fd:-1",
]


@pytest.mark.parametrize(("text", "address"), GOOD)
def test_an_address_is_read_and_written_alike(text: str, address: Address) -> None:
    assert parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unix:|not a"):
        parse(text)


async def bound(listen: Listen | str) -> list[str]:
    listeners = await open_listeners(Listen(listen) if isinstance(listen, str) else listen)
    addresses = [listener.address for listener in listeners]
    for listener in listeners:
        listener.close()
    return addresses


async def test_port_0_takes_a_free_port_and_says_which() -> None:
    [address] = await bound("127.0.0.1:0")
    assert int(address.rpartition(":")[2]) > 0


async def test_a_name_that_stands_for_two_families_is_bound_in_both_with_one_port() -> None:
    found = {info[0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    addresses = await bound("localhost:0")
    assert len(addresses) == len(found)
    assert len({address.rpartition(":")[2] for address in addresses}) == 1


@pytest.mark.parametrize("where", ["0.0.0.0:0", "[::]:0"])
async def test_D01_a_public_address_is_refused_unless_allowed(where: str) -> None:
    with pytest.raises(BindError, match="allow_public"):
        await bound(where)
    assert await bound(Listen(where, allow_public=True))


async def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BindError, match="Address already in use"):
        await bound(f"127.0.0.1:{taken.getsockname()[1]}")


async def test_an_unknown_host_is_a_clear_error() -> None:
    with pytest.raises(BindError, match="no such host"):
        await bound("no-such-host.invalid:1")


async def test_D02_a_socket_file_has_mode_0660_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        [listener] = await open_listeners(Listen(f"unix:{tmp_path}/s"))
        assert os.umask(0) == 0  # put back
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    listener.close()


async def test_a_socket_file_gets_the_mode_and_group_asked_for(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    [listener] = await open_listeners(Listen(f"unix:{tmp_path}/s", mode=0o600, group=group))
    made = (tmp_path / "s").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_gid) == (0o600, os.getgid())
    listener.close()


async def test_a_socket_file_gets_the_owner_asked_for(tmp_path: Path) -> None:
    mine = pwd.getpwuid(os.getuid()).pw_name
    [listener] = await open_listeners(Listen(f"unix:{tmp_path}/s", owner=mine))
    assert (tmp_path / "s").stat().st_uid == os.getuid()
    listener.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
async def test_a_socket_file_is_given_to_another_user_and_group(tmp_path: Path) -> None:
    [listener] = await open_listeners(Listen(f"unix:{tmp_path}/s", owner=65534, group=65533))
    made = (tmp_path / "s").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (65534, 65533, 0o660)
    listener.close()


async def test_an_unknown_owner_is_a_clear_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="no user 'no-such-user'"):
        await open_listeners(Listen(f"unix:{tmp_path}/s", owner="no-such-user"))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_D08_a_backlog_that_the_kernel_cuts_is_told_of(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "somaxconn").write_text("128\n")
    monkeypatch.setattr("gateways._net.address._SOMAXCONN", str(tmp_path / "somaxconn"))
    where = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
    await bound(Listen(where, backlog=128))
    assert not caplog.records
    await bound(Listen(where, backlog=129))
    [record] = caplog.records
    assert "no more than 128 connections can wait to be accepted, not 129" in record.getMessage()
    assert "net.core.somaxconn" in record.getMessage()


async def test_D08_where_the_kernel_does_not_tell_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateways._net.address._SOMAXCONN", str(tmp_path / "missing"))
    await bound(Listen("127.0.0.1:0", backlog=100_000))
    assert not caplog.records


def test_a_backlog_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="backlog"):
        Listen("127.0.0.1:0", backlog=0)


@pytest.mark.parametrize(("mode", "told"), [(0o777, True), (0o1777, False), (0o775, False)])
async def test_D02_a_folder_in_which_anybody_may_replace_the_socket_is_told_of(
    mode: int, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    await bound(f"unix:{folder}/s")
    assert [str(folder) in record.getMessage() for record in caplog.records] == [True] * told


async def test_D02_users_are_for_unix_sockets() -> None:
    with pytest.raises(ValueError, match="allow_users is for unix sockets"):
        await bound(Listen("127.0.0.1:0", allow_users=["root"]))
    with pytest.raises(ValueError, match="several names"):
        Listen("unix:/run/s", allow_users="root")


async def test_an_unknown_group_is_a_clear_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="no group"):
        await open_listeners(Listen(f"unix:{tmp_path}/s", group="no-such-group"))
    assert not (tmp_path / "s").exists()


async def test_O13_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert await bound(f"unix:{path}") == [f"unix:{path}"]


async def test_O13_a_live_socket_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(BindError, match="a server is running there"):
            await bound(f"unix:{path}")
        assert path.exists()


async def test_O13_an_address_that_is_given_twice_is_a_clear_error(tmp_path: Path) -> None:
    [first] = await open_listeners(Listen(f"unix:{tmp_path}/s"))
    with pytest.raises(BindError, match="this very process: was the address given twice"):
        await bound(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").exists()
    first.close()


@pytest.mark.parametrize("kind", ["file", "symlink", "folder"])
async def test_O13_what_is_no_socket_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BindError, match="not a socket"):
        await bound(f"unix:{path}")
    assert path.is_symlink() or path.exists()


async def test_O14_only_the_socket_file_made_here_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    [ours] = await open_listeners(Listen(f"unix:{path}"))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        ours.close()
        assert path.exists()


FORKED = """\
import os, sys, trio
from gateways import Listen
from gateways._net.address import open_listeners

[listener] = trio.run(open_listeners, Listen("unix:" + sys.argv[1]))
child = os.fork()
if not child:
    listener.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(os.path.exists(sys.argv[1]))
listener.close()
print(os.path.exists(sys.argv[1]))
"""


def test_O14_a_forked_process_leaves_the_socket_file_to_the_one_that_made_it(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FORKED, tmp_path / "s"], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("True\nFalse\n", "")


async def test_closing_removes_the_socket_file(tmp_path: Path) -> None:
    await bound(f"unix:{tmp_path}/s")
    assert not (tmp_path / "s").exists()


async def test_a_path_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="too long"):
        await bound(f"unix:{tmp_path}/{'x' * 120}")


async def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="No such file"):
        await bound(f"unix:{tmp_path}/missing/s")


async def test_an_inherited_listening_socket_is_used_and_its_address_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        number = os.dup(inherited.fileno())
        assert await bound(f"fd:{number}") == [f"127.0.0.1:{inherited.getsockname()[1]}"]


async def test_an_inherited_descriptor_that_does_not_listen_is_refused() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(BindError, match="not a listening one"):
        await bound(f"fd:{one.fileno()}")


async def test_an_inherited_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with (tmp_path / "f").open() as file, pytest.raises(BindError, match="is not a socket"):
        await bound(f"fd:{file.fileno()}")


def test_systemd_sockets_are_found_by_number_and_by_name() -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web:admin"}
    assert list(systemd_sockets(None, environ)) == [3, 4]
    assert list(systemd_sockets("admin", environ)) == [4]
    with pytest.raises(BindError, match="'other'"):
        systemd_sockets("other", environ)


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "x"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}])
def test_sockets_of_systemd_for_another_process_are_not_taken(environ: dict[str, str]) -> None:
    with pytest.raises(BindError, match="LISTEN_FDS"):
        systemd_sockets(None, environ)
