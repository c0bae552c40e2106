"""Testing applications: ask a handler in process, or serve it for a test and ask that.

Nothing is replaced: requests travel a real protocol through the engine that serves in production, over memory or over
sockets, so that a test sees what a client would see. Tests are async functions under trio (pytest-trio, for one).

>>> async def test_hello():
...     result = await gateways.testing.call(app, "GET", "/hello?name=world")
...     assert (result.status, result.text) == (200, "Hello, world!")
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, cast
from urllib.parse import quote, unquote, urlencode

import attrs
import trio
import trio.testing

from gateways import Application, Headers, Limits, Reject, RemoteProtocolError, Started
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

__all__ = ["Result", "Server", "call", "serving", "variables"]

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
RequestBody = bytes | str | Iterable[bytes] | AsyncIterable[bytes]
_Connect = Callable[[], Awaitable[trio.abc.Stream]]

_RECEIVE = 65_536
#: What a path in a request may hold without being encoded; "%" because it may be encoded already.
_URL_CHARACTERS = "/%:@!$&'()*+,;=~"


@attrs.frozen
class Result:
    """An answer as a client gets it.

    ``log`` has the lines that reached the web server's error log, by ``request.log`` or because a handler failed;
    only FastCGI carries them. ``app_status`` is FastCGI's. ``error`` tells how an answer broke after its head: None
    for one that came whole.
    """

    status: int
    headers: Headers
    body: bytes
    reason: str = ""
    log: tuple[str, ...] = ()
    app_status: int = 0
    error: RemoteProtocolError | None = attrs.field(default=None, eq=str)

    @property
    def text(self) -> str:
        """The body as UTF-8 text. Raises UnicodeDecodeError where it is none."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The value of a body that is JSON. Raises ValueError where it is none."""
        return json.loads(self.body)


async def call(
    app: Application,
    method: str = "GET",
    path: str = "/",
    *,
    query: str | Fields = "",
    headers: Fields = (),
    cookies: Mapping[str, str] | None = None,
    body: RequestBody = b"",
    environ: Mapping[str, str | None] | None = None,
    role: str = "responder",
    data: bytes = b"",
    protocol: str | ModuleType = "fastcgi",
    limits: Limits | None = None,
    mount: str | None = None,
    quirks: str | Iterable[str] = "auto",
    raise_errors: bool = True,
) -> Result:
    """Start an application, have it answer one request in this process, and shut it down.

    The request is described as in :meth:`Server.request`; ``protocol``, ``limits``, ``mount`` and ``quirks`` are those
    of :func:`serving`. What a handler raises, and did not mean as an answer as it does with Reject, is raised here, so
    that a test shows where it came from. With ``raise_errors=False`` the result is what a client would get: a clean
    500, or an answer that broke off.
    """
    async with serving(app, protocol, limits=limits, mount=mount, quirks=quirks) as server:
        try:
            result = await server.request(
                method,
                path,
                query=query,
                headers=headers,
                cookies=cookies,
                body=body,
                environ=environ,
                role=role,
                data=data,
            )
        finally:
            if raise_errors and server.errors:
                raise server.errors[0]
    return result


@contextlib.asynccontextmanager
async def serving(
    app: Application,
    protocol: str | ModuleType = "fastcgi",
    over: str = "memory",
    *,
    limits: Limits | None = None,
    mount: str | None = None,
    quirks: str | Iterable[str] = "auto",
) -> AsyncGenerator[Server]:
    """Serve an application while the block runs: ``async with serving(app, "scgi", "unix") as server``.

    ``protocol`` is the name of one ("fastcgi", "scgi", "http"), or a module that has what these have:
    ``ClientConnection`` and, as far as ``over`` needs them, ``serve`` and ``serve_stream``. ``over`` is "memory" (no
    socket is opened), "unix" or "tcp" (a socket in a temporary folder, a free port of 127.0.0.1). The other arguments
    are those of ``serve``.

    When the block ends, connections that are still open are closed, which cancels what runs on them, and the
    application is shut down. Raises whatever it raises while it starts up or shuts down, and ValueError for another
    ``over``. A handler's errors are
    answered as in production, and kept in :attr:`Server.errors`.
    """
    module = import_module(f"gateways.{protocol}") if isinstance(protocol, str) else protocol
    journal = _Journal()
    options = {"limits": limits, "mount": mount, "quirks": quirks, "log": journal.logger}
    if over not in _CARRIERS:
        raise ValueError(f"an application is served over {', '.join(_CARRIERS)}, not {over!r}")
    async with _CARRIERS[over](app, module, options) as (address, connect):
        server = Server(module, address, connect, limits or Limits(), journal.errors)
        try:
            yield server
        finally:
            await server._hang_up()


class Server:
    """An application that is being served, and a client for it. Made by :func:`serving`."""

    def __init__(
        self,
        module: ModuleType,
        address: str | None,
        connect: _Connect,
        limits: Limits,
        errors: list[Exception],
    ) -> None:
        #: Where it listens ("unix:/tmp/.../app.sock", "127.0.0.1:40123"); None in memory.
        self.address = address
        #: What handlers raised so far and did not mean as an answer.
        self.errors = errors
        self._module = module
        self._connect = connect
        self._limits = limits
        self._streams: list[trio.abc.Stream] = []

    def __repr__(self) -> str:
        return f"<Server of {self._module.__name__} {'in memory' if self.address is None else f'at {self.address}'}>"

    async def connect(self) -> trio.abc.Stream:
        """A connection for bytes of your own; it is closed with the server at the latest."""
        stream = await self._connect()
        self._streams.append(stream)
        return stream

    async def _hang_up(self) -> None:
        for stream in self._streams:
            await trio.aclose_forcefully(stream)

    async def request(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        query: str | Fields = "",
        headers: Fields = (),
        cookies: Mapping[str, str] | None = None,
        body: RequestBody = b"",
        environ: Mapping[str, str | None] | None = None,
        role: str = "responder",
        data: bytes = b"",
    ) -> Result:
        """Send one request on a connection of its own and wait for the whole answer.

        ``path`` is what a client writes, percent-encoded (other characters are encoded for you), with a query or
        without; ``query`` may give the query apart, as text or as fields to be encoded. ``body`` is bytes, text, or
        an iterable of pieces, plain or async, which are sent one by one and whose length is not announced (over SCGI
        it has to be: give a Content-Length). ``environ`` adds meta-variables and replaces those of the same name;
        None leaves one out. ``data`` is the file for the role "filter"; its length is announced.

        Raises RemoteProtocolError when the connection ends without an answer, LocalProtocolError for what the protocol
        cannot carry. Cancelled, it closes the connection, as a client does who has left.
        """
        if isinstance(body, str):
            body = body.encode()
        if role == "filter":
            environ = {"FCGI_DATA_LENGTH": str(len(data)), **(environ or {})}
        pairs = variables(
            method,
            path,
            query=query,
            headers=headers,
            cookies=cookies,
            length=len(body) if isinstance(body, bytes) else None,
            environ=environ,
        )
        client: ClientConnection = self._module.ClientConnection(limits=self._limits)
        answer = _Answer()
        upload = _Upload(
            client, [body] if isinstance(body, bytes) else body, data if role == "filter" else None, answer
        )
        begin = client.send_request(upload.stream_id, pairs, role=role)
        stream = await self.connect()
        async with stream, _open_nursery() as nursery:
            nursery.start_soon(upload.send, stream, begin)
            await _receive(stream, client, answer)
            nursery.cancel_scope.cancel()  # an answer may come before the end of its request
        self._streams.remove(stream)
        return answer.result()


def variables(
    method: str = "GET",
    path: str = "/",
    *,
    query: str | Fields = "",
    headers: Fields = (),
    cookies: Mapping[str, str] | None = None,
    length: int | None = 0,
    environ: Mapping[str, str | None] | None = None,
) -> Pairs:
    """The meta-variables of a request as a web server would send them; the arguments are those of
    :meth:`Server.request`, and ``length`` that of the body, None for one whose length is not announced.

    Raises ValueError for a query that is given twice.
    """
    path, mark, in_path = path.partition("?")
    query = query if isinstance(query, str) else urlencode(list(_items(query)))
    if mark and query:
        raise ValueError("the query is given twice: in the path and apart")
    target = quote(path, safe=_URL_CHARACTERS, errors="surrogateescape")
    query = quote(in_path or query, safe=_URL_CHARACTERS + "?[]", errors="surrogateescape")
    pairs = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "gateways.testing"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_SCHEME", "http"),
        ("REQUEST_METHOD", method),
        ("REQUEST_URI", target + (f"?{query}" if mark or query else "")),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", unquote(target, errors="surrogateescape")),
        ("QUERY_STRING", query),
        *_header_variables(headers, cookies, length).items(),
    ]
    environ = environ or {}
    pairs = [(name, value) for name, value in pairs if name not in environ]
    return (*pairs, *((name, value) for name, value in environ.items() if value is not None))


def _header_variables(headers: Fields, cookies: Mapping[str, str] | None, length: int | None) -> dict[str, str]:
    """Header fields as variables, repeats joined (RFC 3875 section 4.1.18); those that a request needs are added."""
    given = [(name.upper().replace("-", "_"), value) for name, value in _items(headers)]
    given += [("COOKIE", f"{name}={value}") for name, value in (cookies or {}).items()]
    found: dict[str, str] = {}
    for name, value in given:
        variable = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        separator = "; " if name == "COOKIE" else ", "
        # An empty one adds nothing (nor does it where web servers repeat a variable).
        found[variable] = separator.join(filter(None, (found.get(variable), value)))
    found.setdefault("HTTP_HOST", "localhost")
    if length:
        found.setdefault("CONTENT_LENGTH", str(length))
    elif length is None and "CONTENT_LENGTH" not in found:
        # As a web server announces a body that it passes on while it comes in.
        found["HTTP_TRANSFER_ENCODING"] = "chunked"
    return found


def _items(fields: Fields) -> Iterable[tuple[str, str]]:
    return cast("Mapping[str, str]", fields).items() if isinstance(fields, Mapping) else fields


# --- one request on a connection -------------------------------------------------------------------------------------


class _Answer:
    """The events of an answer, put together."""

    def __init__(self) -> None:
        self.over = False
        self._head: HeadReceived | None = None
        self._body: list[bytes] = []
        self._log = b""
        self._app_status = 0
        self._error: RemoteProtocolError | None = None

    def take(self, event: ClientEvent) -> None:
        match event:
            case HeadReceived():
                self._head = event
            case BodyReceived(_, data):
                self._body.append(data)
            case LogReceived(_, data):
                self._log += data
            case ResponseEnded(_, app_status):
                self._app_status = app_status
                self.over = True
            case ResponseFailed(_, error) | ConnectionFailed(error):
                self.fail(error)

    def fail(self, error: RemoteProtocolError) -> None:
        self._error = error
        self.over = True

    def result(self) -> Result:
        if self._head is None:
            raise self._error or RemoteProtocolError("the answer ended without a head", status=502)
        return Result(
            self._head.status,
            Headers(self._head.headers),
            b"".join(self._body),
            self._head.reason,
            tuple(self._log.decode("utf-8", "backslashreplace").splitlines()),
            self._app_status,
            self._error,
        )


async def _receive(stream: trio.abc.Stream, client: ClientConnection, answer: _Answer) -> None:
    while not answer.over:
        try:
            received = bytes(await stream.receive_some(_RECEIVE))
        except trio.BrokenResourceError:
            # Not for the protocol to judge: to SCGI the end of the stream is the end of the answer.
            answer.fail(RemoteProtocolError("the connection was reset", status=502))
            return
        for event in client.receive_data(received):
            answer.take(event)
        if not received and not answer.over:
            answer.fail(RemoteProtocolError("the connection ended without an answer", status=502))


class _Upload:
    """A request on its way out: its body, and the file for the role "filter"."""

    def __init__(
        self,
        client: ClientConnection,
        body: Iterable[bytes] | AsyncIterable[bytes],
        data: bytes | None,
        answer: _Answer,
    ) -> None:
        self.stream_id = client.first_id
        self._client = client
        self._body = body
        self._data = data
        self._answer = answer

    async def send(self, stream: trio.abc.Stream, begin: bytes) -> None:
        """Send it piece by piece. An application need not read all of it; its answer tells."""
        try:
            await stream.send_all(begin)
            if isinstance(self._body, AsyncIterable):
                async for piece in self._body:
                    await stream.send_all(self._frame(piece))
            else:
                for piece in self._body:
                    await stream.send_all(self._frame(piece))
            await stream.send_all(self._end())
        except trio.BrokenResourceError:
            pass
        finally:
            aclose = getattr(self._body, "aclose", None)
            if aclose is not None:  # a generator, which may not have come to its end
                await aclose()

    def _frame(self, piece: bytes) -> bytes:
        # An authorizer has no body, not even an empty one; and nothing follows an answer.
        return b"" if self._answer.over or not piece else self._client.send_body(self.stream_id, piece)

    def _end(self) -> bytes:
        if self._answer.over:
            return b""
        end = self._client.end_body(self.stream_id)
        if self._data is not None:
            filters: Any = self._client  # FastCGI alone has this role
            end += filters.send_data(self.stream_id, self._data) + filters.end_data(self.stream_id)
        return end


# --- where the server is ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _in_memory(
    app: Application, module: ModuleType, options: dict[str, Any]
) -> AsyncGenerator[tuple[str | None, _Connect]]:
    """Every connection is a pair of streams, whose far end the protocol serves."""
    async with Started(app) as handler, _open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            here, there = trio.testing.memory_stream_pair()
            nursery.start_soon(partial(module.serve_stream, handler, there, **options))
            await trio.lowlevel.checkpoint()
            return here

        yield None, connect


@contextlib.asynccontextmanager
async def _on_socket(
    listen: str, app: Application, module: ModuleType, options: dict[str, Any]
) -> AsyncGenerator[tuple[str | None, _Connect]]:
    """A listening socket, as in production. "FOLDER" in its address is a new one."""
    stop = trio.Event()
    # Not the folder of a test: the path of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gateways-") as folder:
        listen = listen.replace("FOLDER", folder)
        async with _open_nursery() as nursery:
            [address] = await nursery.start(partial(module.serve, app, listen, stop=stop, **options))
            yield address, partial(_connect_to, address)
            stop.set()


async def _connect_to(address: str) -> trio.abc.Stream:
    if address.startswith("unix:"):
        return await trio.open_unix_socket(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


_CARRIERS: dict[str, Callable[..., contextlib.AbstractAsyncContextManager[tuple[str | None, _Connect]]]] = {
    "memory": _in_memory,
    "unix": partial(_on_socket, "unix:FOLDER/app.sock"),
    "tcp": partial(_on_socket, "127.0.0.1:0"),
}


@contextlib.asynccontextmanager
async def _open_nursery() -> AsyncGenerator[trio.Nursery]:
    """A nursery that raises a single error as it is: a test expects AssertionError, not a group around it."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        first, *others = group.exceptions
        if others:
            raise
        raise first from first.__cause__


class _Journal(logging.Handler):
    """Keeps what handlers raised, of all that the engine logs; the logger "gateways" gets everything as well."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        self.logger = logging.Logger("gateways.testing", logging.WARNING)
        self.logger.parent = logging.getLogger("gateways")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        meant = isinstance(error, Reject) and error.status == 500
        if isinstance(error, Exception) and not meant:
            self.errors.append(error)
