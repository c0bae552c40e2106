"""The listening sockets of a process: opened before it gives up root, kept while those who serve on them are replaced.

Who serves gets duplicates, as ``fd:N``. The socket itself stays here, and with it whatever waits to be accepted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

import attrs

from gateways._net.address import Listen, parse
from gateways._process.listeners import open_before_fork

__all__ = ["Bound", "Sockets", "open_sockets"]


@attrs.define
class Bound:
    """A listening socket, the address it was asked for with, and the file (path, device, inode) made for it, if any."""

    address: str
    number: int
    file: tuple[str, int, int] | None = None
    #: Whether it was handed over by a process before this one.
    kept: bool = False

    def remove_file(self) -> None:
        """Remove the socket file, if it is still the one made here and not another server's."""
        if self.file is None:
            return
        path, device, inode = self.file
        with contextlib.suppress(OSError):  # gone already, or in a folder that has become read only
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (device, inode):
                os.unlink(path)
        self.file = None

    def close(self) -> None:
        """Close this process's descriptor. Closing twice does no harm."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1


class Sockets:
    """The sockets of a process, with what is to be known to serve on each."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Listen, str, Bound]] = []
        #: Handed over, but no longer asked for.
        self.unwanted: list[Bound] = []

    @property
    def bound(self) -> list[Bound]:
        """Those that are served on."""
        return [bound for _, _, bound in self._pairs]

    def add(self, protocol: str, listen: Listen, bound: Bound) -> None:
        """Serve there, too."""
        self._pairs.append((listen, protocol, bound))

    def to_serve(self) -> list[Listen]:
        """What ``gateways.serve`` is to listen on: a duplicate of each socket, which is the server's to close."""
        return [
            attrs.evolve(listen, address=f"{protocol}:fd:{os.dup(bound.number)}")
            for listen, protocol, bound in self._pairs
        ]

    def keep_old(self) -> None:
        """Close those that were not handed over: who serves for a while only can do without."""
        for _, _, bound in self._pairs:
            if not bound.kept:
                bound.remove_file()
                bound.close()
        self._pairs = [pair for pair in self._pairs if pair[2].kept]

    def drop_unwanted(self) -> None:
        """Close those that were handed over and not asked for."""
        _release(self.unwanted)
        self.unwanted = []

    def give_up(self, others: bool) -> None:
        """What the end of this process does: with ``others`` those that were handed over go on without it."""
        if others:
            self.keep_old()
        else:
            self.release()

    def release(self, *, files: bool = True) -> None:
        """Listen no more; ``files`` are removed if they are still those made here."""
        _release([*self.bound, *self.unwanted], files=files)


def _release(sockets: Iterable[Bound], *, files: bool = True) -> None:
    for bound in sockets:
        # The file first: once the socket is closed, the file of another server may be given the number of ours.
        if files:
            bound.remove_file()
        bound.close()


def open_sockets(wanted: Sequence[tuple[str, Listen]], handed: Iterable[Bound] = ()) -> Sockets:
    """Open what is wanted (a protocol, and where), but for the addresses whose sockets were handed over.

    Errors: those of ``open_before_fork``; nothing that was opened here stays open then.
    """
    sockets = Sockets()
    left = list(handed)
    try:
        for protocol, listen in wanted:
            address = f"{protocol}:{listen.address}"
            found = [bound for bound in left if bound.address == address]
            left = [bound for bound in left if bound.address != address]
            for bound in found or _open(address, listen):
                sockets.add(protocol, listen, bound)
    except BaseException:
        sockets.keep_old()
        raise
    sockets.unwanted = left
    return sockets


def _open(address: str, listen: Listen) -> list[Bound]:
    file = None
    opened = open_before_fork(listen)
    where = parse(listen.address)
    if where.kind == "unix":
        path = os.path.abspath(where.path)
        made = os.lstat(path)
        file = (path, made.st_dev, made.st_ino)
    # Detached, a Listener has nothing left to close or to remove.
    return [Bound(address, listener.socket.detach(), file) for listener in opened]
