"""Temporary files that have no name: how many there are, and that they go when nobody refers to them any more."""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Iterator

import pytest

__all__ = ["OnDisk", "on_disk"]


def nameless() -> set[int]:
    """The descriptors of temporary files: regular, and in no folder."""
    found = set()
    for descriptor in range(256):
        try:
            about = os.fstat(descriptor)
        except OSError:
            continue
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
            found.add(descriptor)
    return found


class OnDisk:
    """How many temporary files there are, beyond those that were there before."""

    def __init__(self) -> None:
        self._before = nameless()

    def __call__(self) -> int:
        return len(nameless() - self._before)


@pytest.fixture
def on_disk() -> Iterator[OnDisk]:
    """What goes, goes because nothing refers to it, and not because garbage is collected."""
    gc.collect()
    gc.disable()
    yield OnDisk()
    gc.enable()
