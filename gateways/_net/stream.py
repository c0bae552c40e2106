"""One connection as a stream of bytes, over a raw socket, a pair of pipes or any trio stream.

Sockets are used without trio's wrapper: an attempt first, trio's wait only when it would block.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

import trio

from gateways._net.address import describe

__all__ = ["RECEIVE", "AnyStream", "Data", "PipeStream", "SocketStream", "TrioStream"]

#: Bytes that are read at a time.
RECEIVE = 65_536

#: What is sent.
Data = bytes | bytearray | memoryview

#: Pieces that are sent with one call, at most: no system takes fewer than 16.
_PIECES = 16

#: What FIONREAD answers where there is nothing to read: an int.
_NONE = bytes(4)

#: Said with each call: an accepted socket blocks, and to change that takes a call of its own.
_AT_ONCE = socket.MSG_DONTWAIT
_RDHUP = getattr(select, "POLLRDHUP", 0)
_CORK = getattr(socket, "TCP_CORK", 0)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class AnyStream(Protocol):
    """What the driver asks of a connection. A peer that has gone is the end of the stream, never an error."""

    #: The client's and our own (host, port), None where there are none.
    peer: tuple[str, int] | None
    here: tuple[str, int] | None

    def fileno(self) -> int:
        """The descriptor that is readable when there is something to receive; -1 where there is none."""
        ...

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """What there is to receive: ``b""`` at the end, None when one has to wait for it."""
        ...

    async def receive(self, max_bytes: int) -> bytes:
        """Wait for bytes; ``b""`` is the end."""
        ...

    def unread(self) -> bool:
        """Whether something has come in that was not taken yet, as far as that can be told."""
        ...

    def nothing_unread(self) -> bool:
        """Whether it may be closed at once: nothing is unread, or under way, that would make a reset of that."""
        ...

    def send_nowait(self, data: Data) -> int:
        """Send what can be sent without waiting: the number of bytes, -1 when nobody is there to take them."""
        ...

    def send_pieces_nowait(self, pieces: Iterable[Data]) -> int:
        """The same for the first of several pieces and those that can go with it, where the stream can do that."""
        ...

    async def send_some(self, data: Data) -> int:
        """Wait until some of it can be sent, and send that; -1 when nobody is there to take it. Cancelled, it has sent
        nothing."""
        ...

    def peer_half_closed(self) -> bool:
        """After the end of the stream: whether the peer still reads."""
        ...

    def peer_gone(self) -> bool:
        """Whether the peer has left, seen without reading."""
        ...

    def cork(self) -> None:
        """Have what is sent from now on arrive together with the end of writing, as far as the stream can do that: a
        web server that keeps connections must not use this one again in between."""
        ...

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes."""
        ...

    def close(self) -> None:
        """Close; whoever waits on the stream is woken and sees its end."""
        ...

    def reset(self) -> None:
        """Close so that the peer notices that something broke, as far as the stream can say that."""
        ...


class SocketStream:
    """A connected socket, unix or TCP."""

    __slots__ = ("_closed", "_socket", "_waited_for", "here", "peer")

    def __init__(self, connected: socket.socket, *, unix: bool | None = None) -> None:
        self._socket = connected
        self._closed = False
        #: Whether a task has ever waited here: only then need any be told of the end.
        self._waited_for = False
        self.peer: tuple[str, int] | None = None
        self.here: tuple[str, int] | None = None
        if not (connected.family == socket.AF_UNIX if unix is None else unix):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer = connected.getpeername()[:2]
            self.here = connected.getsockname()[:2]

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        try:
            return self._socket.recv(max_bytes, _AT_ONCE)
        except BlockingIOError:
            return None
        except OSError:
            # A reset counts as the end, and so does our own close: ECONNRESET from a unix peer that closed with
            # unread data would otherwise end the whole server.
            return b""

    async def receive(self, max_bytes: int) -> bytes:
        self._waited_for = True
        while not self._closed:
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except (OSError, trio.ClosedResourceError):
                break
            data = self.receive_nowait(max_bytes)
            if data is not None:
                return data
        return b""

    def unread(self) -> bool:
        return fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, _NONE) != _NONE

    def nothing_unread(self) -> bool:
        # On a unix socket what was sent has arrived.
        return self.peer is None and not self.unread()

    def send_nowait(self, data: Data) -> int:
        try:
            return self._socket.send(data, _AT_ONCE)
        except BlockingIOError:
            return 0
        except OSError:
            return -1

    def send_pieces_nowait(self, pieces: Iterable[Data]) -> int:
        try:
            return self._socket.sendmsg(islice(pieces, _PIECES), (), _AT_ONCE)
        except BlockingIOError:
            return 0
        except OSError:
            return -1

    async def send_some(self, data: Data) -> int:
        self._waited_for = True
        sent = 0
        while not sent:
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except (OSError, trio.ClosedResourceError):
                return -1
            sent = self.send_nowait(data)
        return sent

    def peer_half_closed(self) -> bool:
        # On TCP a FIN says only that the peer will not write; most who send one have left.
        if self._closed or self.peer is not None or not _RDHUP:
            return False
        events = self._poll(_RDHUP)
        return bool(events & _RDHUP) and not events & (select.POLLHUP | select.POLLERR)

    def peer_gone(self) -> bool:
        if self._closed:
            return True
        lost = select.POLLHUP | select.POLLERR | (_RDHUP if self.peer is not None else 0)
        return bool(self._poll(_RDHUP) & lost)

    def _poll(self, wanted: int) -> int:
        poll = select.poll()
        poll.register(self._socket, wanted)
        found = poll.poll(0)
        return found[0][1] if found else 0

    def cork(self) -> None:
        if _CORK and self.peer is not None and not self._closed:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
            except OSError:
                pass  # the peer was faster

    def end_writing(self) -> None:
        if not self._closed:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer was faster

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._waited_for:
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def reset(self) -> None:
        if not self._closed and self.peer is not None:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # BSD and macOS refuse it once the peer has reset the connection itself
        self.close()

    def __repr__(self) -> str:
        return "<SocketStream closed>" if self._closed else f"<SocketStream {describe(self._socket)}>"


class PipeStream:
    """The ends of two pipes: one to receive from, one to send to; either may be None. It owns them."""

    __slots__ = ("_receiving", "_sending", "here", "peer")

    def __init__(self, receiving: int | None, sending: int | None) -> None:
        # As file objects, so that a stream which is forgotten does not leave its descriptors open.
        self._receiving = None if receiving is None else open(receiving, "rb", buffering=0)  # noqa: SIM115
        self._sending = None if sending is None else open(sending, "wb", buffering=0)  # noqa: SIM115
        for end in (self._receiving, self._sending):
            if end is not None:
                os.set_blocking(end.fileno(), False)
        self.peer: tuple[str, int] | None = None
        self.here: tuple[str, int] | None = None

    def fileno(self) -> int:
        return -1 if self._receiving is None else self._receiving.fileno()

    async def receive(self, max_bytes: int) -> bytes:
        while True:
            if self._receiving is None:
                return b""
            try:
                await trio.lowlevel.wait_readable(self._receiving)
            except trio.ClosedResourceError:
                return b""
            data = self.receive_nowait(max_bytes)
            if data is not None:
                return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        if self._receiving is None:
            return b""
        try:
            return os.read(self._receiving.fileno(), max_bytes)
        except BlockingIOError:
            return None

    def unread(self) -> bool:
        return False

    def nothing_unread(self) -> bool:
        return False

    def send_nowait(self, data: Data) -> int:
        if self._sending is None:
            return -1
        try:
            return os.write(self._sending.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            return -1  # EPIPE: whoever reads there has ended, or does not want to know

    def send_pieces_nowait(self, pieces: Iterable[Data]) -> int:
        return 0

    async def send_some(self, data: Data) -> int:
        while not (sent := self.send_nowait(data)):
            if self._sending is None:
                return -1
            try:
                await trio.lowlevel.wait_writable(self._sending)
            except trio.ClosedResourceError:
                return -1
        return sent

    def peer_half_closed(self) -> bool:
        return False

    def peer_gone(self) -> bool:
        return self._receiving is None and self._sending is None

    def cork(self) -> None:
        pass

    def end_writing(self) -> None:
        end, self._sending = self._sending, None
        if end is not None:
            trio.lowlevel.notify_closing(end)
            end.close()

    def close(self) -> None:
        self.end_writing()
        end, self._receiving = self._receiving, None
        if end is not None:
            trio.lowlevel.notify_closing(end)
            end.close()

    def reset(self) -> None:
        self.close()


class TrioStream:
    """A stapled pair of trio streams, such as ``trio.testing.memory_stream_pair`` makes."""

    __slots__ = ("_stream", "here", "peer")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.peer: tuple[str, int] | None = None
        self.here: tuple[str, int] | None = None

    def fileno(self) -> int:
        return -1

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return None

    def unread(self) -> bool:
        return False

    def nothing_unread(self) -> bool:
        return False

    async def receive(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def send_nowait(self, data: Data) -> int:
        return 0

    def send_pieces_nowait(self, pieces: Iterable[Data]) -> int:
        return 0

    async def send_some(self, data: Data) -> int:
        sent = bytes(data)  # there may be more in it by then
        try:
            await self._stream.send_all(sent)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return -1
        return len(sent)

    def peer_half_closed(self) -> bool:
        return False

    def peer_gone(self) -> bool:
        return False

    def cork(self) -> None:
        pass

    def end_writing(self) -> None:
        self._close("send_stream")

    def close(self) -> None:
        self._close("send_stream")
        self._close("receive_stream")

    def reset(self) -> None:
        self.close()

    def _close(self, half: str) -> None:
        close = getattr(getattr(self._stream, half, None), "close", None)
        if close is not None:
            close()
