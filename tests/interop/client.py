"""An HTTP/1.1 client for tests, on trio and h11: the browser's view, and that of a browser that misbehaves.

h11 reads answers, and tells whether one is whole (RFC 9112, section 8). Requests are written by hand, so that a
test can send what h11 would refuse.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import attrs
import h11
import trio

from tests.interop.servers import SERVER_NAME

#: Seconds that a request and its answer may take together.
TIMEOUT = 60.0

Headers = Sequence[tuple[str, str]]
#: None: no body and no length. bytes: sent with Content-Length. Anything else: each item is one chunk.
RequestBody = bytes | Iterable[bytes] | AsyncGenerator[bytes] | None


class Answer(NamedTuple):
    """What the client got.

    ``complete`` is False if the answer visibly broke off: the connection ended before the announced length or the
    last chunk, was reset, or carried more bytes than announced. Status 0 stands for no head at all.
    """

    status: int
    headers: list[tuple[str, str]]  #: names in lower case
    body: bytes
    complete: bool

    def header(self, name: str) -> str | None:
        """The value of a header, its values joined with ", " if it is repeated; None if it is absent."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None


class Exchange:
    """A connection on which one request is sent and its answer read as it comes."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, method: str) -> None:
        self.stream = stream  #: for tests that half-close it, or send more
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.complete = False
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        # h11 has to know the method, since no body follows an answer to HEAD; the bytes it would send are dropped.
        self._http.send(h11.Request(method=method, target="/", headers=[("Host", SERVER_NAME)]))
        self._http.send(h11.EndOfMessage())

    async def receive_head(self) -> int:
        """Wait for the answer's head and return its status (0 if the connection ended instead); 1xx is skipped."""
        while True:
            match await self._next_event():
                case h11.Response() as response:
                    self.status = response.status_code
                    self.headers = [(_text(name), _text(value)) for name, value in response.headers]
                    return self.status
                case None:
                    return 0
                case _:
                    pass

    async def receive_body(self) -> bytes:
        """Wait for the next piece of the answer's body; b"" is its end, and ``complete`` says which."""
        match await self._next_event():
            case h11.Data() as data:
                return bytes(data.data)
            case h11.EndOfMessage():
                self.complete = not self._http.trailing_data[0]
                return b""
            case _:
                return b""

    async def receive_answer(self) -> Answer:
        """Wait for the whole answer."""
        body = bytearray()
        if await self.receive_head():
            while piece := await self.receive_body():
                body += piece
        return Answer(self.status, self.headers, bytes(body), self.complete)

    async def _next_event(self) -> object | None:
        """The next event of h11, or None if the connection broke."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(bytes(await self.stream.receive_some(65_536)))
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return None
        return None if isinstance(event, h11.ConnectionClosed) else event


@attrs.frozen
class _Request:
    """The bytes of a request, and how they are sent."""

    head: bytes
    body: RequestBody = None
    chunked: bool = False

    async def send(self, stream: trio.abc.SendStream) -> None:
        """Send all of it, or as much as the server takes: its answer, if any, tells why it stopped."""
        try:
            await stream.send_all(self.head)
            if isinstance(self.body, AsyncGenerator):
                async with aclosing(self.body) as pieces:
                    async for piece in pieces:
                        await stream.send_all(self._frame(piece))
            else:
                for piece in [self.body] if isinstance(self.body, bytes) else self.body or ():
                    await stream.send_all(self._frame(piece))
            if self.chunked:
                await stream.send_all(b"0\r\n\r\n")
        except trio.BrokenResourceError:
            pass

    def _frame(self, piece: bytes) -> bytes:
        if not self.chunked or not piece:  # an empty chunk would end the body
            return piece
        return b"%x\r\n%b\r\n" % (len(piece), piece)


async def fetch(
    port: int,
    method: str,
    target: str,
    headers: Headers = (),
    body: RequestBody = None,
    *,
    timeout: float = TIMEOUT,
) -> Answer:
    """Send a request and return the answer; the body is sent while the answer is already being read.

    ``target`` is sent as it is. Host is added unless given; so is the body's framing, unless ``headers`` hold
    Content-Length or Transfer-Encoding: then the bytes are sent as they are. Raises trio.TooSlowError.
    """
    return await _fetch(port, method, _request(method, target, headers, body), timeout)


async def fetch_raw(port: int, request: bytes, method: str = "GET", *, timeout: float = TIMEOUT) -> Answer:
    """Send bytes, whatever they are, and return the answer, read as one to ``method``. Raises trio.TooSlowError."""
    return await _fetch(port, method, _Request(request), timeout)


@asynccontextmanager
async def open_request(
    port: int, method: str, target: str, headers: Headers = (), body: RequestBody = None
) -> AsyncGenerator[Exchange]:
    """Send a request as ``fetch`` does, then let the block read as much of the answer as it likes.

    The connection is closed at the end of the block: leave it early to disconnect.
    """
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await _request(method, target, headers, body).send(stream)
        yield Exchange(stream, method)


async def _fetch(port: int, method: str, request: _Request, timeout: float) -> Answer:
    with trio.fail_after(timeout):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(request.send, stream)
            answer = await Exchange(stream, method).receive_answer()
            nursery.cancel_scope.cancel()  # an answer may be whole before the request is
    return answer


def _request(method: str, target: str, headers: Headers, body: RequestBody) -> _Request:
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {SERVER_NAME}")
    lines += [f"{name}: {value}" for name, value in headers]
    framed = bool(names & {"content-length", "transfer-encoding"})
    chunked = not framed and not isinstance(body, bytes | None)
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif isinstance(body, bytes) and not framed:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape")
    return _Request(head, body, chunked)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
