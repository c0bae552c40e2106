"""The body of one request between the task that reads the connection and the handler that wants it."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable

import trio

from gateways._model.errors import GatewayError, LimitExceeded

__all__ = ["NOTHING", "Inbox"]

#: Pieces smaller than this many bytes are put together: each for itself would take many times its size in memory.
_CRUMB = 4096


class _Spool:
    """Bytes in an unlinked temporary file, first in, first out.

    A ring: however much passes through, the file never grows beyond ``capacity`` bytes.
    """

    __slots__ = ("_capacity", "_file", "_read", "_written")

    def __init__(self, capacity: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="gateways-", buffering=0)  # noqa: SIM115 - see close()
        self._capacity = capacity
        self._read = self._written = 0

    def __len__(self) -> int:
        return self._written - self._read

    @property
    def room(self) -> int:
        return self._capacity - len(self)

    def put(self, data: bytes) -> None:
        """Take bytes for which there is room. Raises OSError when the disk is full."""
        rest = memoryview(data)
        while rest:
            at = self._written % self._capacity
            self._file.seek(at)
            # Unbuffered, so a disk that fills up shows as a short write first and as an error then.
            written = self._file.write(rest[: self._capacity - at])
            self._written += written
            rest = rest[written:]

    def take(self, max_bytes: int) -> bytes:
        at = self._read % self._capacity
        self._file.seek(at)
        data = self._file.read(min(max_bytes, len(self), self._capacity - at))
        self._read += len(data)
        return data

    def close(self) -> None:
        self._file.close()


class Inbox:
    """A queue of body bytes with one reader: the Source of a Body.

    It is ``full`` with ``room`` bytes. What comes beyond that because siblings on the connection keep it read goes to a
    temporary file, up to ``max_spool`` bytes, and then the body is given up with a 413. ``on_room`` is called when
    reading may go on.
    """

    # What most bodies never change stands here, so that it need not be set for each.
    _size = 0
    _spool: _Spool | None = None
    _ended = False
    _closed = False
    _error: GatewayError | None = None
    _waiter: trio.Event | None = None
    #: Since when (trio's clock, seconds) the handler has been waiting for data; None when it is not.
    waiting_since: float | None = None

    def __init__(self, room: int, max_spool: int, on_room: Callable[[], None]) -> None:
        self._chunks: deque[bytes | bytearray] = deque()
        self._room = room
        self._max_spool = max_spool
        self._on_room = on_room

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the peer for now."""
        return (self._size >= self._room or self._spool is not None) and not self._ended

    def has_room_for(self, size: int) -> bool:
        """Whether that many bytes more can be kept, in the temporary file if need be."""
        room = self._max_spool if self._spool is None else self._spool.room
        return size <= room or self._ended

    @property
    def ended(self) -> bool:
        """Whether everything the peer has to send is in."""
        return self._ended

    def put(self, data: bytes, *, alone: bool) -> None:
        """Take some bytes from the peer; what comes after the end or an error is dropped.

        ``alone`` says that reading stops when this is full, so that no more than the rest of one read can follow.
        """
        if self._ended or self._error is not None:
            return
        if self._spool is None and (alone or self._size < self._room):
            self._append(data)
            self._size += len(data)
        else:
            self._spill(data)
        self._wake()

    def _append(self, data: bytes) -> None:
        last = self._chunks[-1] if self._chunks else None
        if len(data) >= _CRUMB:
            self._chunks.append(data)
        elif isinstance(last, bytearray) and len(last) < _CRUMB:
            last += data
        else:
            self._chunks.append(bytearray(data))

    def _spill(self, data: bytes) -> None:
        try:
            if self._spool is None:
                self._spool = _Spool(self._max_spool)
            if len(data) > self._spool.room:
                self.fail(LimitExceeded(f"over {self._max_spool} bytes of the body wait beside other requests"))
            else:
                self._spool.put(data)
        except OSError as error:
            # No space, no descriptor: this body is lost, its siblings on the connection are not.
            self.fail(LimitExceeded(f"cannot keep the body in a temporary file: {error.strerror}", status=507))

    def end(self) -> None:
        """The peer has sent everything."""
        self._ended = True
        self._wake()

    def fail(self, error: GatewayError) -> None:
        """Make the handler's next read raise; what it has not read is dropped."""
        self._error = error
        self._drop()
        self._wake()

    def close(self) -> None:
        """The request is over. A worker thread that it has left behind must not take this for the end of the body,
        nor wait for ever."""
        self._ended = self._closed = True
        if self._chunks or self._spool is not None:
            self._drop()
        self._wake()

    def _drop(self) -> None:
        self._chunks.clear()
        self._size = 0
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._on_room()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()

    async def receive(self, max_bytes: int) -> bytes:
        """The next bytes for the handler, ``b""`` at the end.

        Raises what :meth:`fail` was given, and trio.BusyResourceError while another task waits here.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._spool is not None:
                return self._take_spooled(self._spool, max_bytes)
            if self._closed:
                raise GatewayError("the request is over, and its body with it")
            if self._ended:
                return b""
            if self._waiter is not None:
                raise trio.BusyResourceError("another task is waiting for the body of this request")
            self._waiter = trio.Event()
            self.waiting_since = trio.current_time()
            try:
                await self._waiter.wait()
            finally:
                self._waiter = self.waiting_since = None
        chunk = bytes(self._chunks.popleft())
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        was_full = self.full
        self._size -= len(chunk)
        if was_full and not self.full:
            self._on_room()
        return chunk

    def _take_spooled(self, spool: _Spool, max_bytes: int) -> bytes:
        data = spool.take(max_bytes)
        if not spool:
            spool.close()
            self._spool = None
        self._on_room()
        return data

    def receive_blocking(self, max_bytes: int) -> bytes:
        """The same for a worker thread of trio's. Raises GatewayError once the request is over."""
        return trio.from_thread.run(self.receive, max_bytes)


#: What a request gets nothing through that has no such stream.
NOTHING = Inbox(0, 0, lambda: None)
NOTHING.end()
