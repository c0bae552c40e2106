"""The web server's side of a connection: one request to an application, and its answer as it comes.

Drives any sans-IO client connection over any stream. The application is not trusted: a broken answer is never handed
on as a complete one.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Protocol, TypeAlias, cast

import attrs
import trio

from gateways._model.errors import LimitExceeded, RemoteProtocolError
from gateways._model.headers import HOP_BY_HOP
from gateways._model.limits import Limits
from gateways._model.response import Response
from gateways._net.address import Address, parse
from gateways._net.lines import printable
from gateways._net.stream import AnyStream, SocketStream
from gateways.events import (
    BodyReceived,
    ClientConnection,
    ClientEvent,
    ConnectionFailed,
    HeadReceived,
    LogReceived,
    Pairs,
    ResponseEnded,
    ResponseFailed,
)

__all__ = ["Call", "Client", "LineLog", "Source", "Upload", "accompany", "call", "measured", "readable"]

_CHUNK = 65_536

Environ: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]


class Source(Protocol):
    """Where the bytes of a request body come from: a Body, any ``trio.abc.ReceiveStream``."""

    async def receive_some(self, max_bytes: int, /) -> bytes | bytearray:
        """Some bytes, at most that many; ``b""`` at the end. Cancelled, it has taken nothing."""
        ...


class _Connect(Protocol):
    """How a protocol makes its sans-IO connection for one call."""

    def __call__(self, *, limits: Limits) -> ClientConnection: ...


class _SendsData(Protocol):
    """What the connection of a protocol has besides that knows the role "filter" (FastCGI section 6.4)."""

    def send_data(self, stream_id: int, data: bytes) -> bytes: ...
    def end_data(self, stream_id: int) -> bytes: ...


@attrs.frozen
class Client:
    """What the engine has to know of a protocol to make calls over it.

    ``needs_length`` tells that a body must not be sent without its CONTENT_LENGTH.
    """

    connect: _Connect
    needs_length: bool = False


@attrs.frozen
class Upload:
    """One stream of a request: where its bytes come from, and how the protocol frames and ends them."""

    source: Source
    frame: Callable[[bytes], bytes]
    end: Callable[[], bytes]


async def call(
    client: Client,
    address: str,
    environ: Environ,
    body: bytes | Source = b"",
    *,
    role: str = "responder",
    data: bytes | Source = b"",
    limits: Limits | None = None,
    log: Callable[[str], None] | None = None,
) -> Call:
    """Send a request to the application at an address and wait for the head of its answer.

    ``<protocol>.call`` is this function with ``client`` filled in. ``address`` is ``unix:/path``, ``host:port`` or
    ``[v6]:port``. ``body`` is bytes, a :class:`~gateways.Body`, or anything else with ``receive_some``, such as
    trio's streams; an async generator will not do, because it does not survive being interrupted, and the body is
    interrupted when the answer begins before its end. ``data`` is the file for the role "filter". ``log`` gets the
    lines that the application writes to the error log; by default the logger "gateways" does.

    The answer goes on while its :meth:`Call.__call__` runs; whoever does not want it calls :meth:`Call.aclose`.

    Errors: ValueError for an address that cannot be read or is none to connect to; LocalProtocolError for variables
    that the protocol cannot carry; RemoteProtocolError with status 502 or 503 when nobody answers, or not by the
    rules; LimitExceeded (413) for a body without CONTENT_LENGTH, over a protocol that needs one, of more than
    ``limits.max_read`` bytes; whatever reading the body raises.

    Cancellation: the connection is cut, which tells the application to stop.
    """
    limits = limits or Limits()
    where = parse(address)
    connection = client.connect(limits=limits)
    if client.needs_length:
        environ, body = await measured(environ, body, limits.max_read)
    number = connection.first_id
    request = connection.send_request(number, environ, role=role)
    uploads: list[Upload] = []
    if role != "authorizer":  # which has no body (FastCGI section 6.3)
        uploads.append(
            Upload(readable(body), partial(connection.send_body, number), partial(connection.end_body, number))
        )
    if role == "filter":
        sender = cast("_SendsData", connection)
        uploads.append(Upload(readable(data), partial(sender.send_data, number), partial(sender.end_data, number)))
    started = Call(await _connect(where), connection, uploads, limits=limits, log=log)
    await started.start(request)
    return started


async def measured(environ: Environ, body: bytes | Source, most: int) -> tuple[dict[str, str], bytes | Source]:
    """The same request with a CONTENT_LENGTH, for which the body is read first where that is missing.

    Raises LimitExceeded (413) for more than ``most`` bytes.
    """
    known = dict(environ)
    if known.get("CONTENT_LENGTH"):
        return known, body
    if not isinstance(body, bytes):
        body = await _read(body, most)
    known["CONTENT_LENGTH"] = str(len(body))
    return known, body


async def _read(source: Source, most: int) -> bytes:
    whole = bytearray()
    while chunk := await source.receive_some(_CHUNK):
        whole += chunk
        if len(whole) > most:
            raise LimitExceeded(f"a body without CONTENT_LENGTH that is longer than {most} bytes")
    return bytes(whole)


class _Bytes:
    """A body that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    async def receive_some(self, max_bytes: int, /) -> bytes:
        chunk = self._data[self._at : self._at + max_bytes]
        self._at += len(chunk)
        return chunk


def readable(body: bytes | Source) -> Source:
    """A body of either kind as a Source. Raises TypeError for anything else."""
    if isinstance(body, bytes):
        return _Bytes(body)
    if not hasattr(body, "receive_some"):
        raise TypeError(f"a request body is bytes or something with receive_some(), not {type(body).__name__}")
    return body


# --- connecting --------------------------------------------------------------------------------------------------


async def _connect(address: Address) -> SocketStream:
    """A connection to an application. Raises RemoteProtocolError (503 when it is busy, else 502) and ValueError."""
    if address.kind not in ("unix", "tcp"):
        raise ValueError(f"{address} is for listening; connect to unix:/path, host:port or [v6]:port")
    try:
        connected = _connect_unix(address.path) if address.kind == "unix" else await _connect_tcp(address)
        try:
            return SocketStream(connected)
        except OSError:
            connected.close()  # gone between then and now
            raise
    except BlockingIOError:
        raise RemoteProtocolError(f"the application at {address} accepts no more connections", status=503) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise RemoteProtocolError(f"cannot connect to the application at {address}: {reason}", status=502) from error


def _connect_unix(path: str) -> socket.socket:
    # Never waits: connect(2) succeeds at once or says EAGAIN, when the queue of the listener is full.
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        connected.connect(path)
    except OSError:
        connected.close()
        raise
    return connected


async def _connect_tcp(address: Address) -> socket.socket:
    stream = await trio.open_tcp_stream(address.host, address.port)
    return socket.socket(fileno=stream.socket.detach())


# --- the call ----------------------------------------------------------------------------------------------------


class Call:
    """One request on its way to an application, and the answer as it comes.

    ``status``, ``reason`` and ``headers`` are the head of the answer. The call itself is a push body, which ends when
    the answer is complete and raises when it breaks; the request body goes on being sent meanwhile.
    """

    def __init__(
        self,
        stream: AnyStream,
        connection: ClientConnection,
        uploads: Iterable[Upload],
        *,
        limits: Limits,
        log: Callable[[str], None] | None = None,
        half_close: bool = False,
    ) -> None:
        """``half_close`` shows the end of the request by the end of the stream, as on the stdin of a program."""
        self.status = 0
        self.reason = ""
        self.headers: Pairs = ()
        self._response = Response()
        self._stream = stream
        self._connection = connection
        self._limits = limits
        self._log = LineLog(log, limits.max_stderr)
        self._half_close = half_close
        self._uploads = deque(uploads)
        self._unsent = bytearray()
        self._sending = True
        self._events: deque[ClientEvent] = deque()
        self._state = "waiting"

    def response(self) -> Response:
        """The answer as a handler gives it back: without the fields that are about one connection only
        (RFC 9110 section 7.6.1), with this call as its body."""
        return self._response

    async def start(self, request: bytes) -> None:
        """Send the request, and its body until the head of the answer is there. Errors are those of :func:`call`."""
        self._unsent += request
        with self._cutting_on_failure():
            await self._while_sending(self._receive_head)
        self._state = "open"
        if self._events and isinstance(self._events[-1], ResponseEnded):
            self._close()  # nothing of the application is needed any more

    async def __call__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Pass the body of the answer on, piece by piece.

        Raises RemoteProtocolError when it breaks off, whatever reading the request body raises, and what ``send``
        raises. Cancelled or failed, it cuts the connection.
        """
        with self._cutting_on_failure():
            await self._while_sending(partial(self._pass_on, send))
        self._close()

    async def aclose(self) -> None:
        """Do without the rest of the answer.

        The application may come to the end of it, within ``limits.drain_bytes`` and ``limits.drain_timeout``: an
        answer to HEAD and a 304 are about to end anyway, and work should not be cut off for a body that nobody wants.
        """
        if self._state != "open":
            return
        timeout = self._limits.drain_timeout
        with self._cutting_on_failure(), trio.move_on_after(float("inf") if timeout is None else timeout):
            try:
                await self._while_sending(self._drop)
            except RemoteProtocolError as error:
                self._log.write(f"after the head of an answer whose body nobody wanted: {error}\n".encode())
        self._close()

    def _close(self) -> None:
        self._state = "closed"
        self._sending = False
        self._stream.close()
        self._log.flush()

    @contextlib.contextmanager
    def _cutting_on_failure(self) -> Generator[None]:
        """Cut the connection, so that the application notices, when the block is left by an exception."""
        try:
            yield
        except BaseException:
            self._state = "broken"
            self._sending = False
            self._stream.reset()
            self._log.flush()
            raise

    # --- what goes out

    async def _while_sending(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``main`` to its end; send what there is to send as long as that takes."""
        if self._sending:
            await accompany(main, self._send)
        else:
            await main()

    async def _send(self) -> None:
        """Send the request and its body. Cancelled at any wait it loses nothing, and the next run goes on there."""
        while self._sending:
            while self._unsent:
                sent = await self._stream.send_some(self._unsent)
                if sent < 0:
                    # An application need not read all of a body, nor any of it: its answer is what counts.
                    self._sending = False
                    return
                del self._unsent[:sent]
            await trio.lowlevel.checkpoint()
            if self._uploads:
                self._unsent += await self._next_frames(self._uploads[0])
            else:
                self._sending = False
                if self._half_close:
                    self._stream.end_writing()

    async def _next_frames(self, upload: Upload) -> bytes:
        data = await upload.source.receive_some(_CHUNK)
        if not self._sending:
            return b""  # the answer has ended meanwhile
        if data:
            return upload.frame(bytes(data))
        self._uploads.popleft()
        return upload.end()

    # --- what comes in

    async def _next_event(self) -> ClientEvent:
        """The next event that is neither for the log nor a failure, which is raised."""
        while True:
            while not self._events:
                data = await self._stream.receive(_CHUNK)
                self._events += self._connection.receive_data(data)
                if not data and not self._events:
                    raise RemoteProtocolError("the connection ended in the middle of an answer", status=502)
                if self._events and isinstance(self._events[-1], ResponseEnded | ResponseFailed | ConnectionFailed):
                    self._sending = False
            match event := self._events.popleft():
                case LogReceived(_, data):
                    self._log.write(data)
                case ResponseFailed(_, error) | ConnectionFailed(error):
                    raise error
                case _:
                    return event

    async def _receive_head(self) -> None:
        event = await self._next_event()
        if not isinstance(event, HeadReceived):
            raise RemoteProtocolError("an answer without a head", status=502)
        self.status, self.reason, self.headers = event.status, event.reason, event.headers
        try:
            self._response = Response(self, event.status, _end_to_end(event.headers))
        except ValueError as error:
            raise RemoteProtocolError(
                f"the answer has a header that cannot be passed on: {error}", status=502
            ) from None

    async def _pass_on(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        while not isinstance(event := await self._next_event(), ResponseEnded):
            if isinstance(event, BodyReceived):
                await send(event.data)

    async def _drop(self) -> None:
        size = 0
        while not isinstance(event := await self._next_event(), ResponseEnded):
            size += len(event.data) if isinstance(event, BodyReceived) else 0
            if size > self._limits.drain_bytes:
                return

    def __repr__(self) -> str:
        return f"<Call {self._state}{f', status {self.status}' if self.status else ''} over {self._connection!r}>"


def _end_to_end(fields: Pairs) -> list[tuple[str, str]]:
    """The fields that are about the message, not about the connection it came on (RFC 9110 section 7.6.1)."""
    dropped = set(HOP_BY_HOP)
    for name, value in fields:
        if name.lower() == "connection":
            dropped.update(option.strip(" \t").lower() for option in value.split(","))
    return [(name, value) for name, value in fields if name.lower() not in dropped]


async def accompany(main: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]]) -> None:
    """Run ``main`` in this task and ``other`` beside it; when ``main`` is done, ``other`` is cancelled.

    An exception of either ends both and is raised as it is, in no group.
    """
    failures: list[Exception] = []

    async def run(function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except Exception as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, other)
        await run(main)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]


class LineLog:
    """Passes what an application writes to its error log on to ours: line by line, control characters escaped, no
    more than ``most`` bytes."""

    def __init__(self, log: Callable[[str], None] | None, most: int) -> None:
        self._log = logging.getLogger("gateways").warning if log is None else log
        self._room = most
        self._line = b""

    def write(self, data: bytes) -> None:
        """Take bytes, cut anywhere."""
        data = data[: self._room]
        self._room -= len(data)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._pass_on(line)

    def flush(self) -> None:
        """Pass on the last line, if it does not end."""
        line, self._line = self._line, b""
        self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        if text:
            self._log(printable(text))
