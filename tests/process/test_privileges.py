"""Giving up root. In processes of their own, for there is no way back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateways._process.privileges import drop, group_number, user_entry
from tests.cli.program import environment

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

WHO = "print(os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.environ['HOME'], os.environ['USER'])\n"


def outcome(code: str) -> subprocess.CompletedProcess[str]:
    """What code says that drops privileges."""
    start = "import os\nfrom gateways._process.privileges import drop\n"
    return subprocess.run(
        [sys.executable, "-c", start + code], env=environment(), capture_output=True, text=True, check=False
    )


@root
def test_D09_user_group_and_supplementary_groups_are_given_up() -> None:
    nobody = user_entry("nobody")
    assert nobody is not None
    uid, gid = nobody.pw_uid, nobody.pw_gid
    groups = sorted(os.getgrouplist("nobody", gid))
    done = outcome("os.setgroups([0, 4])\ndrop('nobody')\n" + WHO)
    assert done.stdout == f"{(uid,) * 3} {(gid,) * 3} {groups} {nobody.pw_dir} nobody\n", done.stderr


@root
@pytest.mark.parametrize("back", ["os.setuid(0)", "os.setgid(0)", "os.setgroups([0])", "drop('root')"])
def test_D09_there_is_no_way_back(back: str) -> None:
    done = outcome(f"drop('nobody')\n{back}\n")
    assert done.returncode == 1
    assert "PermissionError" in done.stderr


@root
def test_numbers_without_an_entry_do() -> None:
    done = outcome("drop(54321, 54322)\nprint(os.getresuid(), os.getresgid(), os.getgroups())\n")
    assert done.stdout == "(54321, 54321, 54321) (54322, 54322, 54322) [54322]\n", done.stderr


@root
def test_a_group_alone_leaves_the_user() -> None:
    done = outcome("drop(None, 54322)\nprint(os.getresuid(), os.getresgid(), os.getgroups())\n")
    assert done.stdout == "(0, 0, 0) (54322, 54322, 54322) [54322]\n", done.stderr


@root
def test_who_is_that_user_already_stays_it() -> None:
    done = outcome("drop('nobody')\ndrop('nobody')\ndrop(None)\nprint('still here')\n")
    assert done.stdout == "still here\n", done.stderr


def test_a_user_or_group_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no user 'no-such-user'"):
        drop("no-such-user")
    with pytest.raises(ValueError, match="there is no group 'no-such-group'"):
        drop(None, "no-such-group")
    with pytest.raises(ValueError, match="name the group, too"):
        drop("54321")


def test_numbers_are_taken_from_text() -> None:
    assert group_number("54322") == 54322
    assert user_entry("54321") is None
