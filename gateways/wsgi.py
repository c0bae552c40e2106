"""WSGI applications as handlers, and handlers as WSGI applications (PEP 3333).

``from_wsgi`` puts a WSGI application behind every protocol of this package; ``to_wsgi`` puts a handler behind every
WSGI server. A CGI script may be made of a WSGI application, so whatever only a server needs, trio and threads, is
imported where it is used.
"""

import io
import sys

from gateways import (
    Body,
    GatewayError,
    Headers,
    LimitExceeded,
    Limits,
    RemoteProtocolError,
    Request,
    Response,
    Roles,
    Started,
)
from gateways._model.policy import refuse, respond
from gateways._model.request import Carrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterable, Iterator
    from queue import SimpleQueue
    from types import TracebackType
    from typing import Any, BinaryIO, Protocol, TypeVar

    import trio

    from gateways import Application
    from gateways._model.policy import Answer

    T = TypeVar("T")

    Environ = dict[str, Any]
    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

    class StartResponse(Protocol):
        """What an application calls to begin its answer."""

        def __call__(
            self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]: ...

    #: ``application(environ, start_response)``, as PEP 3333 has it.
    WSGIApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

__all__ = ["from_wsgi", "to_wsgi"]

#: A body of no more bytes than this is read before a thread is taken for its request.
_SMALL = 65_536
#: Bytes that an application may be ahead of its client, and bytes of the body that a thread asks for at once.
_WINDOW = 65_536
#: A list of pieces with no more bytes than this is sent as one piece.
_JOINED = 262_144
#: Bytes that are kept in memory of a body that has to be read first; the others are kept in a file.
_IN_MEMORY = 1_048_576
#: Characters of a line for the error log that has no end.
_LOG_LINE = 8192
#: Seconds that the event loop stands still for an application that may be done in less.
_MOMENT = 0.0002
#: Applications that it does not stand still for after one that took longer, at most.
_MOST_SKIPS = 255
#: Seconds that an application may take to shut down when its process ends.
_GOODBYE = 5.0
#: Seconds that a thread waits for work before it ends.
_IDLE = 10.0


def from_wsgi(
    application: "WSGIApplication", *, threads: int = 40, multiprocess: bool = False, max_spool: "int | None" = None
) -> "FromWSGI":
    """A handler that has a WSGI application answer (PEP 3333).

    Each request has a thread to itself, ``threads`` at a time; what comes beyond that waits for its turn. With
    ``threads=1`` there are none: the application runs in the event loop, which it holds up, and a body is read before
    that, ``max_spool`` bytes at most (by default those of :class:`Limits`; 413 for more). In a CGI script it runs
    without a thread in any case, and reads the body as it comes. ``multiprocess`` is what the application is told of
    other processes that run it; in a CGI script that is always so.

    A thread cannot be stopped from outside. When the client leaves, the application's next ``write()`` and its next
    read of the body raise ConnectionAbortedError, its iterable is not asked for more and is closed, and the thread is
    free for another request once it has really ended.

    Raises TypeError for an application that cannot be called, ValueError for a number of threads that is none.
    """
    if not callable(application):
        raise TypeError(f"a WSGI application can be called, {application!r} cannot")
    if type(threads) is not int or threads < 1:
        raise ValueError(f"threads takes a whole number above 0, not {threads!r}")
    return FromWSGI(application, threads, multiprocess, Limits().max_spool if max_spool is None else max_spool)


class FromWSGI:
    """A WSGI application as a handler: see :func:`from_wsgi`."""

    def __init__(self, application: "WSGIApplication", threads: int, multiprocess: bool, max_spool: int) -> None:
        self._application = application
        self._threads = threads
        self._multiprocess = multiprocess
        self._max_spool = max_spool
        self._pool: _Threads | None = None
        self._mail: _Mail | None = None

    def __repr__(self) -> str:
        return f"from_wsgi({self._application!r}, threads={self._threads})"

    async def __call__(self, request: Request) -> Response:
        """Have the application answer a request."""
        if self._threads == 1 or request.protocol == "cgi" or not _in_trio():
            return await self._call_inline(request)
        return await self._call_in_thread(request)

    async def _call_in_thread(self, request: Request) -> Response:
        environ = _environ(request)
        environ["wsgi.multithread"] = True
        environ["wsgi.multiprocess"] = self._multiprocess
        environ["wsgi.run_once"] = False
        pool = self._pool
        if pool is None:
            pool = self._pool = _Threads(self._threads)
        job = _Job(request, pool, self._mail_of_this_run())
        environ["wsgi.input"] = await _input(request, job.read)
        job.call = _Call(self._application, environ, job.log, job.send)
        if not pool.may_gather():
            pool.submit(job)
        else:
            pool.gather(job)
            turn = request._carrier.set_aside(self, pool.begin_gathered)
            if turn is None:
                pool.begin_gathered()
            else:
                await turn
        return await job.answer()

    def _mail_of_this_run(self) -> "_Mail":
        import trio

        token = trio.lowlevel.current_trio_token()
        if self._mail is None or self._mail.token is not token:
            self._mail = _Mail(token)
        return self._mail

    async def _call_inline(self, request: Request) -> Response:
        is_cgi = request.protocol == "cgi"
        environ = _environ(request)
        environ["wsgi.multithread"] = False
        environ["wsgi.multiprocess"] = is_cgi or self._multiprocess
        environ["wsgi.run_once"] = is_cgi
        environ["wsgi.input"] = body = request.body.file if is_cgi else await _spooled(request, self._max_spool)
        written = _Written()
        call = _Call(self._application, environ, request.log, written.append)
        return _InlineBody(call, call.pieces(written), body).begin()


def _in_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    return trio.lowlevel.in_trio_run()


# --- the environment -------------------------------------------------------------------------------------------------


def _environ(request: Request) -> "Environ":
    """The variables of a request as PEP 3333 wants them, but for what depends on where the application runs."""
    environ: Environ = dict(request.environ)
    names = "".join(environ)
    if "." in names or not names.isascii() or not "".join(environ.values()).isascii():
        # Names with a dot stand for objects of servers and middleware, never for what came over a wire.
        environ = {_native(name): _native(value) for name, value in environ.items() if "." not in name}
    scheme = request.scheme
    environ.setdefault("SERVER_NAME", "localhost")
    environ.setdefault("SERVER_PROTOCOL", "HTTP/1.0")
    if request.server_port is None:
        environ["SERVER_PORT"] = "443" if scheme == "https" else "80"
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.url_scheme"] = scheme
    environ["wsgi.input_terminated"] = True  # it ends where the body ends, whether or not there is a CONTENT_LENGTH
    environ["wsgi.file_wrapper"] = FileWrapper
    return environ


def _native(text: str) -> str:
    """Text of our environ as the "native string" of WSGI: a character for each byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _text(native: str) -> str:
    """The way back."""
    return native if native.isascii() else native.encode("latin-1").decode("utf-8", "surrogateescape")


class _Input(io.RawIOBase):
    """A body to be read by a function that gives the next bytes, at most so many, and ``b""`` at the end."""

    def __init__(self, read: "Callable[[int], bytes]") -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Any") -> int:
        chunk = self._read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


async def _input(request: Request, read: "Callable[[int], bytes]") -> "BinaryIO":
    """The body of a request for an application in a thread, which reads it by ``read``.

    One that is short is read before, and one of unknown length as far as a first piece: as a rule it is here already,
    and where it is not, no thread has to wait for it. What is wrong with it is for the application to meet.
    """
    body = request.body
    if body.length == 0:
        return io.BytesIO()
    if body.length is not None and body.length > _SMALL:
        return io.BufferedReader(_Input(read), _WINDOW)
    start = b""
    failure: GatewayError | None = None
    try:
        while chunk := await body.receive_some():
            start += chunk
            if body.length is None:
                break
        else:
            return io.BytesIO(start)
    except GatewayError as error:
        failure = error

    def read_on(max_bytes: int) -> bytes:
        nonlocal start
        if start:
            piece, start = start[:max_bytes], start[max_bytes:]
            return piece
        if failure is not None:
            raise failure
        return read(max_bytes)

    return io.BufferedReader(_Input(read_on), _WINDOW)


async def _spooled(request: Request, most: int) -> "BinaryIO":
    """All of a body of any length, in memory or in a file without a name. Raises LimitExceeded for too long a one."""
    received = request.body.length or 0
    spool: Any = io.BytesIO()
    try:
        while received <= most and (chunk := await request.body.receive_some()):
            spool.write(chunk)
            received = max(received, spool.tell())
            if received > _IN_MEMORY and isinstance(spool, io.BytesIO):
                import tempfile

                start, spool = spool.getvalue(), tempfile.TemporaryFile()  # noqa: SIM115 - closed with the request
                spool.write(start)
        if received > most:
            raise LimitExceeded(f"the body is longer than {most} bytes")
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return spool  # type: ignore[no-any-return]


class _Errors:
    """``wsgi.errors``: its lines go to the log of the request."""

    def __init__(self, log: "Callable[[str], object]") -> None:
        self._log = log
        self._line = ""

    def write(self, text: str) -> None:
        """Log the lines that end here, and keep the beginning of the next."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log(line)
        if len(self._line) > _LOG_LINE:
            self.flush()

    def writelines(self, lines: "Iterable[str]") -> None:
        """The same for several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what there is of a line."""
        if self._line:
            line, self._line = self._line, ""
            self._log(line)


class FileWrapper:
    """``wsgi.file_wrapper``: what is left of a file, in pieces. Closes the file if that can be closed."""

    def __init__(self, file: "Any", block_size: int = _WINDOW) -> None:
        self._file = file
        self._block_size = max(block_size, _WINDOW)
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        piece: bytes = self._file.read(self._block_size)
        if not piece:
            raise StopIteration
        return piece


# --- one call of an application --------------------------------------------------------------------------------------


class _Call:
    """One call of a WSGI application, wherever that runs, and the rules of PEP 3333 for its answer.

    ``transmit`` is where the bytes go that the application gives to ``write()``.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        environ: "Environ",
        log: "Callable[[str], object]",
        transmit: "Callable[[bytes], object]",
    ) -> None:
        #: Whether the piece that was given last is the end of the answer.
        self.complete = False
        #: Whether that is so because there was but one.
        self.whole = False
        self._log = log
        self._application = application
        self._environ = environ
        self._errors = environ["wsgi.errors"] = _Errors(log)
        self._transmit = transmit
        self._status = 0
        self._headers: Headers | None = None
        self._committed = False
        #: Bytes that may still come; None where the application has not said how many there are.
        self._left: int | None = None

    def response(self, body: "Any") -> Response:
        """The answer with this body."""
        return Response(body, self._status, self._headers or ())

    def start_response(
        self, status: str, headers: "list[tuple[str, str]]", exc_info: "ExcInfo | None" = None, /
    ) -> "Callable[[bytes], object]":
        """Begin the answer, or with ``exc_info`` begin it anew while nothing of it has been sent."""
        if exc_info is not None:
            try:
                if self._committed:
                    raise exc_info[1] or RuntimeError("start_response came with no error, and too late for one")
            finally:
                exc_info = None  # it refers to this frame
        elif self._headers is not None:
            raise RuntimeError("start_response is called once, or again with exc_info")
        number, fields = _checked_status(status), _checked_headers(headers)
        self._status, self._headers = number, fields
        length = fields.get("content-length")
        self._left = None if length is None else int(length)
        return self.write

    def write(self, data: bytes) -> None:
        """Send some of the body, the old way."""
        if not isinstance(data, bytes):
            raise TypeError(f"write() takes bytes, not {type(data).__name__}")
        if data:
            if self._left is not None and len(data) > self._left:
                raise ValueError(f"{len(data)} bytes to write, but the Content-Length leaves room for {self._left}")
            self._transmit(self._admit(data))

    def pieces(self, written: "Iterable[bytes]" = ()) -> "Iterator[bytes]":
        """Run the application and give its body in pieces, none of them empty; ``written`` go first.

        Ended early, by its own ``close``, it closes the iterable of the application, as it does in any case.
        """
        result: Any = None
        try:
            result = self._application(self._environ, self.start_response)
            yield from written
            if type(result) in (list, tuple) and (len(result) < 2 or sum(map(len, result)) <= _JOINED):
                result = (b"".join(result),)
                self.complete = self.whole = self._headers is not None
            for piece in result:
                if not isinstance(piece, bytes):
                    raise TypeError(f"a WSGI application gives its body as bytes, not as {type(piece).__name__}")
                if not piece:
                    continue
                if self._left == 0:
                    # It has been asked once more than needed only so that it may come to its end.
                    self._errors.write(f"at least {len(piece)} bytes beyond the Content-Length were cut\n")
                    break
                yield self._admit(piece)
            if self._headers is None:
                raise RuntimeError("the application has not called start_response")
        except SystemExit as error:
            raise RuntimeError("the application called sys.exit()") from error
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
            self._errors.flush()

    def report(self, error: BaseException) -> None:
        """Log an error that comes too late to change the answer."""
        import traceback

        self._log("".join(traceback.format_exception(error)).rstrip("\n"))

    def _admit(self, piece: bytes) -> bytes:
        """The part of a piece that the Content-Length leaves room for, and from now on the head cannot be changed."""
        if self._headers is None:
            raise RuntimeError("the application has not called start_response")
        self._committed = True
        if self._left is not None:
            excess = len(piece) - self._left
            if excess > 0:
                self._errors.write(f"{excess} bytes beyond the Content-Length were cut\n")
                piece = piece[: self._left]
            self._left -= len(piece)
            self.complete = self.complete or not self._left
        return piece


def _checked_status(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"a status is a str, not {type(status).__name__}")
    if not (len(status) > 3 and status[:3].isascii() and status[:3].isdigit() and status[3] == " "):
        raise ValueError(f"a status is written like '200 OK', not {status!r}")
    if not status.isprintable():
        raise ValueError(f"a status holds no control characters: {status!r}")
    number = int(status[:3])
    if not 200 <= number <= 599:
        raise ValueError(f"an answer has a status from 200 to 599, not {status!r}")
    return number


def _checked_headers(headers: "list[tuple[str, str]]") -> Headers:
    if type(headers) is not list:
        raise TypeError(f"the header fields are a list, not {type(headers).__name__}")
    fields: list[tuple[str, str]] = []
    for field in headers:
        if type(field) is not tuple or len(field) != 2:
            raise TypeError(f"a header field is a tuple (name, value), not {field!r}")
        name, value = field
        if not isinstance(value, str):
            raise TypeError(f"the value of a header field is a str, not {type(value).__name__}")
        fields.append((name, _text(value.strip(" \t"))))
    return Headers(fields)


# --- without threads -------------------------------------------------------------------------------------------------


class _Written:
    """What an application wrote before it returned, kept until it can be sent: only a thread could send it at once."""

    def __init__(self) -> None:
        self._spool: Any = None

    def append(self, data: bytes) -> None:
        if self._spool is None:
            import tempfile

            self._spool = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed when it has been sent
        self._spool.write(data)

    def __iter__(self) -> "Iterator[bytes]":
        if self._spool is not None:
            with self._spool:
                self._spool.seek(0)
                while piece := self._spool.read(_WINDOW):
                    yield piece


class _InlineBody:
    """An answer that is made in the event loop (or without one), and its body, which is made as it is sent."""

    def __init__(self, call: _Call, pieces: "Any", body: "BinaryIO") -> None:
        self._call = call
        self._pieces = pieces
        self._body = body
        self._first = b""

    def begin(self) -> Response:
        """Run the application as far as the first piece of its answer, or to the end of one that is here as a whole."""
        try:
            self._first = first = next(self._pieces, b"")
            if first and not self._call.whole:
                return self._call.response(self)
            self._next()
        except BaseException:
            self.close()
            raise
        self.close()
        return self._call.response(first)

    def _next(self) -> bytes:
        try:
            piece: bytes = next(self._pieces, b"")
        except Exception as error:
            if not self._call.complete:
                raise
            self._call.report(error)
            return b""
        return piece

    def __aiter__(self) -> "_InlineBody":
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            piece, self._first = self._first, b""
            return piece
        if _in_trio():
            import trio

            # The piece before this one leaves now, before the application takes its time over the next.
            await trio.lowlevel.checkpoint()
        piece = self._next()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """The request is over."""
        try:
            self._pieces.close()
        finally:
            self._body.close()


# --- in threads ------------------------------------------------------------------------------------------------------


class _Job:
    """One request between the task of its handler and the thread of its application.

    The thread tells its news: the answer, more of its body, how much of the request's body it wants, an error. The
    task, which is the only one to touch the request, replies with bytes of the request's body, and with room for as
    many bytes as it has passed on. Neither is ever more than a window ahead of the other.
    """

    def __init__(self, request: Request, pool: "_Threads", mail: "_Mail") -> None:
        #: What the thread is to do; it is put here before that.
        self.call: _Call
        self._request = request
        self._pool = pool
        self._mail = mail
        self._context = pool.copy_context()
        self._news: list[tuple[str, Any]] = []
        self._replies: SimpleQueue[bytes | int | Exception] = pool.new_queue()
        self._task: trio.lowlevel.Task | None = None
        self._room = _WINDOW
        self._moment: _Moment | None = None
        self._begun = False
        self._told_all = False
        self._abandoned = False

    # --- the side of the task

    async def answer(self) -> Response:
        """Wait for the answer of the application, which a thread calls."""
        try:
            _, response = await self.next()
        except BaseException:
            self.abandon()
            raise
        return response  # type: ignore[no-any-return]

    def expect_news(self, moment: "_Moment") -> None:
        """Tell of the first news this way."""
        self._moment = moment

    def has_news(self) -> bool:
        """Whether there are any by now; those that come from now on wake the event loop."""
        self._moment = None
        return bool(self._news)

    async def next(self) -> "tuple[str, Any]":
        """The next news of the answer. Raises what the application raised."""
        while True:
            while not self._news:
                await self._wait()
            self._mail.deliver()  # what was logged before this comes before it
            kind, value = self._news.pop(0)
            if kind == "wants":
                await self._hand_in(value)
            elif kind == "failed":
                raise value
            else:
                return kind, value

    async def _wait(self) -> None:
        import trio

        def abort(_: object) -> "trio.lowlevel.Abort":
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """There are news."""
        if self._task is not None:
            task, self._task = self._task, None
            self._mail.reschedule(task)

    def fail(self, error: Exception) -> None:
        """There is no thread for it."""
        self._news.append(("failed", error))
        self.wake()

    async def _hand_in(self, max_bytes: int) -> None:
        try:
            self._replies.put(await self._request.body.receive_some(max_bytes))
        except Exception as error:
            self._replies.put(error)

    def make_room(self, size: int) -> None:
        """So many bytes have been passed on."""
        self._replies.put(size)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.leave()
        self._pool.withdraw(self)

    def leave(self) -> None:
        """The same for a job that has begun; takes no lock."""
        self._abandoned = True
        self._replies.put(_client_left())

    # --- the side of the thread

    def perform(self) -> None:
        """Call the application and tell of everything that it does."""
        self._context.run(self._perform)

    def _perform(self) -> None:
        if self._abandoned:
            return
        pieces: Any = self.call.pieces()
        try:
            try:
                for piece in pieces:
                    self.send(piece)
            finally:
                pieces.close()
            if not self._begun:
                self._tell("answer", self.call.response(b""))
            elif not self._told_all:
                self._tell("end", None)
        except BaseException as error:
            if not self._told_all and not self._abandoned:
                self._announce("failed", error if isinstance(error, Exception) else _as_failure(error))
            elif not isinstance(error, ConnectionAbortedError):
                self.call.report(error)
        finally:
            del self.call  # it refers back to here

    def send(self, piece: bytes) -> None:
        """Send a piece of the answer, and wait until there is room for the next."""
        self._told_all = self.call.complete
        if not self._begun:
            self._begun = True
            self._tell("answer", self.call.response(piece if self._told_all else _ThreadBody(self, piece)))
        else:
            self._tell("last" if self._told_all else "piece", piece)
        self._room -= len(piece)
        while self._room <= 0 and not self._told_all:
            self._reply()

    def read(self, max_bytes: int) -> bytes:
        """The next bytes of the request's body."""
        self._tell("wants", max_bytes)
        while (data := self._reply()) is None:
            pass
        return data

    def _tell(self, kind: str, value: object) -> None:
        if self._abandoned:
            raise _client_left()
        self._announce(kind, value)

    def _announce(self, kind: str, value: object) -> None:
        self._news.append((kind, value))
        moment, self._moment = self._moment, None
        if moment is None:
            self._mail.post(self.wake)
        else:
            moment.arrive()

    def _reply(self) -> bytes | None:
        """Wait for the next reply; None where that is room."""
        reply = self._replies.get()
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, int):
            self._room += reply
            return None
        return reply

    def log(self, text: str) -> None:
        """Log a text by the request, in the thread of its task."""
        self._mail.post(self._request.log, text)


def _as_failure(error: BaseException) -> RuntimeError:
    """For what would end more than this request: the application raised KeyboardInterrupt, or the like."""
    failure = RuntimeError(f"the application raised {type(error).__name__}")
    failure.__cause__ = error
    return failure


def _client_left() -> ConnectionAbortedError:
    return ConnectionAbortedError("nobody waits for this answer any more")


class _ThreadBody:
    """The body of an answer that comes from a thread."""

    def __init__(self, job: _Job, first: bytes) -> None:
        self._job = job
        self._first = first
        self._size = 0
        self._ended = False

    def __aiter__(self) -> "_ThreadBody":
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            piece, self._first = self._first, b""
        elif self._ended:
            raise StopAsyncIteration
        else:
            self._job.make_room(self._size)
            kind, piece = await self._job.next()
            self._ended = kind != "piece"
            if kind == "end":
                raise StopAsyncIteration
        self._size = len(piece)
        return piece

    async def aclose(self) -> None:
        self.__del__()

    def __del__(self) -> None:
        # It may never be begun: whoever asked for this answer may have preferred another.
        if not self._ended:
            self._ended = True
            self._job.leave()


class _Mail:
    """Calls from threads into an event loop. It is woken up once for all that have gathered."""

    def __init__(self, token: "trio.lowlevel.TrioToken") -> None:
        import trio

        self.token = token
        self.reschedule = trio.lowlevel.reschedule
        self._calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._coming = False

    def post(self, function: "Callable[..., object]", *arguments: object) -> None:
        """Have a function called in the event loop, soon and in order; what it raises is lost."""
        self._calls.append((function, arguments))
        if not self._coming:
            self._coming = True
            try:
                self.token.run_sync_soon(self._arrive)
            except RuntimeError:
                pass  # the event loop has ended, and with it everybody who would listen

    def _arrive(self) -> None:
        self._coming = False  # first: what is posted from now on comes by itself
        self.deliver()

    def deliver(self) -> None:
        """Make the calls that have gathered; in the event loop."""
        while self._calls:
            function, arguments = self._calls.pop(0)
            try:
                function(*arguments)
            except Exception:
                pass  # it would end the event loop


class _Moment:
    """Until some jobs have told their first news, or a moment has passed."""

    def __init__(self, lock: "threading.Lock", jobs: int) -> None:
        lock.acquire()
        self._lock = lock
        # Whoever takes the last of these opens the lock; to take one needs no lock of its own.
        self._awaited = [True] + [False] * (jobs - 1)

    def arrive(self) -> None:
        """One of them has; in its thread."""
        if self._awaited.pop():
            self._lock.release()

    def wait(self) -> None:
        """In the event loop, which stands still."""
        self._lock.acquire(timeout=_MOMENT)


class _Threads:
    """Threads that perform jobs, at most so many. Those that have nothing to do end after a while.

    A thread is called only when none is on its way: it calls the next itself, if there is still work. Several short
    jobs are done by one thread then, and one that takes its time holds up no other.
    """

    def __init__(self, most: int) -> None:
        import threading
        from collections import deque
        from contextvars import copy_context
        from queue import SimpleQueue

        self.copy_context = copy_context
        self.new_queue = SimpleQueue
        self._new_thread = threading.Thread
        self._new_lock = threading.Lock
        self._mutex = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._most = most
        self._count = 0
        #: The bells of the threads that have nothing to do. The last one to go idle is the first to be called.
        self._idle: list[threading.Lock] = []
        self._coming = False
        #: Those that have not been begun, and whether the event loop waits for those that have.
        self._gathered: list[_Job] = []
        self._attended = False
        #: Jobs that are not waited for because the ones before took their time: now, and after the next such one.
        self._skips = self._penalty = 0

    def may_gather(self) -> bool:
        """Whether the next job may be put to others, to be waited for together.

        Most applications have answered by the time that an event loop gets round to look for it, and while they run in
        Python it could not run anyway. So the event loop stands still for them, for a moment. One that takes longer (it
        waits for a database) is left to itself after that moment, and then the next ones are not waited for.
        """
        if self._skips:
            self._skips -= 1
            return False
        return bool(self._idle) and not self._coming

    def gather(self, job: _Job) -> None:
        """Put a job to the others that are to begin at once."""
        self._gathered.append(job)

    def begin_gathered(self) -> None:
        """Have them performed, and wait a moment for their first news."""
        jobs, self._gathered = self._gathered, []
        if not jobs:
            return  # somebody could not wait
        moment = _Moment(self._new_lock(), len(jobs))
        for job in jobs:
            job.expect_news(moment)
        with self._mutex:
            self._jobs.extend(jobs)
            self._call_one()
            self._attended = True  # one thread for all of them, as long as none takes its time
        moment.wait()
        with self._mutex:
            self._attended = False
            self._call_one()
        late = [job for job in jobs if not job.has_news()]
        if late:
            self._penalty = self._skips = min(2 * self._penalty + 1, _MOST_SKIPS)
        else:
            self._penalty //= 2

    def submit(self, job: _Job) -> None:
        """Have a job performed."""
        with self._mutex:
            self._jobs.append(job)
            self._call_one()
            stranded = [] if self._count else list(self._jobs)
            if stranded:
                self._jobs.clear()
        for each in stranded:
            each.fail(RuntimeError("no thread can be started: from_wsgi(application, threads=1) does without"))

    def withdraw(self, job: _Job) -> None:
        """A job need not be begun any more."""
        with self._mutex:
            try:
                self._jobs.remove(job)
            except ValueError:
                pass

    def _call_one(self) -> None:
        if self._coming or self._attended or not self._jobs:
            return
        if self._idle:
            self._idle.pop().release()
        elif self._count < self._most:
            try:
                self._new_thread(target=self._work, name="gateways.wsgi", daemon=True).start()
            except RuntimeError:
                return  # then it is for those there are
            self._count += 1
        else:
            return
        self._coming = True

    def _work(self) -> None:
        bell = self._new_lock()
        bell.acquire()
        called = True
        while True:
            with self._mutex:
                if called:
                    self._coming = called = False
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    self._idle.append(bell)
                self._call_one()
            if job is not None:
                job.perform()
                del job
                continue
            if not bell.acquire(timeout=_IDLE):
                with self._mutex:
                    if bell in self._idle:
                        self._idle.remove(bell)
                        self._count -= 1
                        return
                bell.acquire()  # called at the last moment
            called = True


# --- the other way ---------------------------------------------------------------------------------------------------


def to_wsgi(app: "Application", *, trio: "bool | None" = None, limits: "Limits | None" = None) -> "ToWSGI":
    """A WSGI application of a handler, or of anything else that ``serve`` takes, for any WSGI server (PEP 3333).

    ``trio`` decides whether the handler runs under trio; None means: when the application has imported it. Under trio
    there is one thread with an event loop for each process, in which the application is started at the first request.
    Without it a handler that does not wait runs in the thread that the server calls it in; one that waits fails.

    Bodies are passed on as they come, in both directions. When the server closes the answer early, the handler is
    cancelled. An error is answered as everywhere; once a part of the answer has been given to the server it is raised
    to it.
    """
    return ToWSGI(app, trio, limits or Limits())


class ToWSGI:
    """A handler as a WSGI application: see :func:`to_wsgi`."""

    def __init__(self, app: "Application", use_trio: "bool | None", limits: Limits) -> None:
        import threading

        self._app = app
        self._use_trio = use_trio
        self._limits = limits
        self._starting = threading.Lock()
        self._roles: Any = None
        self._loop: _Loop | None = None

    def __repr__(self) -> str:
        return f"to_wsgi({self._app!r})"

    def __call__(self, environ: "Environ", start_response: "StartResponse") -> "Iterable[bytes]":
        """Answer one request."""
        use_trio = "trio" in sys.modules if self._use_trio is None else self._use_trio
        if use_trio:
            loop = self._running_loop()
            answer: _Answer = _TrioAnswer(environ, self._limits, loop.roles, loop)
        else:
            answer = _Answer(environ, self._limits, self._started_roles())
        return answer.begin(start_response)

    def close(self) -> None:
        """End the event loop, if there is one: handlers are cancelled, and the application shuts down."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _started_roles(self) -> Roles:
        with self._starting:
            if self._roles is None:
                starting = Started(self._app).__aenter__()
                try:
                    starting.send(None)
                except StopIteration as stop:
                    self._roles = stop.value
                else:
                    starting.close()
                    raise _needs_trio()
            roles: Roles = self._roles
            return roles

    def _running_loop(self) -> "_Loop":
        import os

        with self._starting:
            if self._loop is None or self._loop.process != os.getpid():  # a fork leaves threads behind
                loop = _Loop(self._app)
                loop.start()  # one that cannot start is tried again for the next request
                self._loop = loop
            return self._loop


def _needs_trio() -> GatewayError:
    return GatewayError("the handler waits for something, but no event loop runs: to_wsgi(app, trio=True) has one")


class _Answer(Carrier):
    """One request of a WSGI server and its answer, without an event loop: the handler runs in the server's thread, and
    stands still while the server has a piece of its answer.

    The sink of the answer, the source of the body, and what the request logs and runs blocking code by.
    """

    def __init__(self, environ: "Environ", limits: Limits, roles: Roles) -> None:
        #: Whether the server has got anything, so that a clean error is no longer possible.
        self.committed = False
        self._environ = environ
        self._limits = limits
        self._roles = roles
        self._head = b""
        self._left: int | None = None
        self._input: Any = environ["wsgi.input"]

    # --- towards the server

    def begin(self, start_response: "StartResponse") -> "Iterable[bytes]":
        """Run the handler as far as its answer has begun."""
        pieces = self._pieces()
        first = next(pieces, b"")
        status, *fields = self._head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
        start_response(status.removeprefix("Status: "), headers)
        return _Pieces(first, pieces) if first else []

    def _pieces(self) -> "Iterator[bytes]":
        """The body as it is made. Ended early, it ends the handler, which may only finish what is complete already."""
        coroutine = self._run()
        error: GatewayError | None = None
        try:
            while True:
                try:
                    trap: object = coroutine.send(None) if error is None else coroutine.throw(error)
                except StopIteration:
                    return
                error = None
                if not isinstance(trap, _Piece):
                    error = _needs_trio()
                else:
                    yield self._count(trap.data)
        except GeneratorExit:
            if self._left == 0:
                self._finish(coroutine)
            raise
        finally:
            coroutine.close()

    @staticmethod
    def _finish(coroutine: "Any") -> None:
        try:
            while isinstance(coroutine.send(None), _Piece):
                pass
        except StopIteration:
            pass

    def _count(self, piece: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(piece)
        return piece

    # --- towards the handler

    async def _run(self) -> None:
        variables = [
            (_text(name), _text(value))
            for name, value in self._environ.items()
            if isinstance(value, str) and "." not in name
        ]
        try:
            request = Request(variables, self._body(), protocol="wsgi")
        except RemoteProtocolError as error:
            await refuse(error, self._environ.get("REQUEST_METHOD", "GET"), self)
            return
        request._carrier = self
        await respond(self._roles, request, self, limits=self._limits)

    def _body(self) -> Body:
        length: str = self._environ.get("CONTENT_LENGTH") or ""
        known = length.isascii() and length.isdigit()  # what is no number is refused by the request
        # Without a length only a server that says so ends the input where the body ends.
        unknown = None if self._environ.get("wsgi.input_terminated") else 0
        return Body(self, int(length) if known else unknown, max_read=self._limits.max_read)

    async def start(self, answer: "Answer") -> None:
        """Keep the head until there is a piece of the body, or the end."""
        self._head = answer.head
        self._left = answer.length

    async def write(self, data: bytes) -> None:
        """Hand a piece to the server, and go on when it wants the next."""
        self.committed = True
        await _Piece(data)

    def report(self, error: BaseException) -> None:
        """Log an error that the client learns only the status of."""
        if isinstance(error, RemoteProtocolError):
            self.log(f"gateways: {error}")
            return
        import traceback

        self.log("".join(traceback.format_exception(error)).rstrip("\n"))

    def log(self, text: str) -> None:
        """Write to the error log of the server."""
        errors = self._environ["wsgi.errors"]
        errors.write(text + "\n")
        errors.flush()

    async def receive(self, max_bytes: int) -> bytes:
        """The next bytes of the body."""
        return self._read(max_bytes)

    def receive_blocking(self, max_bytes: int) -> bytes:
        """The same for blocking code."""
        return self._read(max_bytes)

    def _read(self, max_bytes: int) -> bytes:
        # read() would wait until there are that many; PEP 3333 knows no other way, but servers do.
        data: bytes = getattr(self._input, "read1", self._input.read)(max_bytes)
        return data


class _Piece:
    """``await _Piece(data)`` has the server send it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __await__(self) -> "Generator[_Piece, None, None]":
        yield self


class _Pieces:
    """The iterable that the server gets: a generator that has begun, and its first piece."""

    def __init__(self, first: bytes, rest: "Any") -> None:
        self._first = first
        self._rest = rest

    def __iter__(self) -> "_Pieces":
        return self

    def __next__(self) -> bytes:
        if self._first:
            piece, self._first = self._first, b""
            return piece
        following: bytes = next(self._rest)
        return following

    def close(self) -> None:
        self._rest.close()


class _TrioAnswer(_Answer):
    """The same with the handler in an event loop in another thread. What the server's objects are needed for is done in
    the server's thread, which waits for news of the handler all the time that the server does not need it."""

    def __init__(self, environ: "Environ", limits: Limits, roles: Roles, loop: "_Loop") -> None:
        import trio

        super().__init__(environ, limits, roles)
        self.news = loop.new_queue()
        self._loop = loop
        self._scope = trio.CancelScope()
        self._ahead = 0
        self._taken = trio.Event()
        self._asked = False
        self._replies: list[bytes | Exception] = []
        self._replied = trio.Event()

    # --- in the thread of the server

    def _pieces(self) -> "Iterator[bytes]":
        self._loop.have_run(self)
        kind, value = "", None
        try:
            while True:
                kind, value = self.news.get()
                if kind == "piece":
                    yield self._count(value)
                    self._loop.post(self._pass_on, len(value))
                elif kind == "wants":
                    self._answer_read(value)
                elif value is None:
                    return
                else:
                    raise value
        finally:
            if kind != "ended":
                self._wind_up()

    def _wind_up(self) -> None:
        """The server wants no more. The handler is cancelled, unless all of the answer has been given."""
        if self._left == 0:
            self._loop.post(self._pass_on, sys.maxsize)
        else:
            self._loop.post(self._scope.cancel)
        kind = ""
        while kind != "ended":
            kind, _ = self.news.get()
            if kind == "wants":
                self._loop.post(self._reply, _client_left())

    def _answer_read(self, max_bytes: int) -> None:
        reply: bytes | Exception
        try:
            reply = self._read(max_bytes)
        except Exception as error:
            reply = error
        self._loop.post(self._reply, reply)

    # --- in the event loop

    async def serve(self) -> None:
        """Run the handler to its end, and tell of that."""
        import trio

        error: Exception | None = GatewayError("the event loop has ended")
        try:
            with self._scope:
                await self._run()
            error = None
        except (trio.Cancelled, BaseExceptionGroup):
            raise
        except Exception as failure:
            error = failure
        except BaseException as failure:
            error = _as_failure(failure)
        finally:
            self.news.put(("ended", error))

    async def write(self, data: bytes) -> None:
        import trio

        self.committed = True
        self._ahead += len(data)
        self.news.put(("piece", data))
        while self._ahead > _WINDOW:
            self._taken = trio.Event()
            await self._taken.wait()

    def _pass_on(self, size: int) -> None:
        self._ahead -= size
        self._taken.set()

    async def receive(self, max_bytes: int) -> bytes:
        import trio

        if not self._asked:
            self._asked = True  # once, even if nobody waits for the reply any more: the next to ask gets it
            self._replied = trio.Event()
            self.news.put(("wants", max_bytes))
        while not self._replies:
            await self._replied.wait()
        reply = self._replies.pop()
        if isinstance(reply, bytes):
            if len(reply) > max_bytes:
                self._replies.append(reply[max_bytes:])
                return reply[:max_bytes]
            self._asked = False
            return reply
        self._asked = False
        raise reply

    def _reply(self, reply: "bytes | Exception") -> None:
        self._replies.append(reply)
        self._replied.set()

    def receive_blocking(self, max_bytes: int) -> bytes:
        import trio

        return trio.from_thread.run(self.receive, max_bytes)

    async def run_sync(self, function: "Callable[..., T]", *args: object) -> "T":
        import trio

        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


class _Loop:
    """An event loop in a thread of its own, in which an application has been started."""

    def __init__(self, app: "Application") -> None:
        import os
        import threading
        from queue import SimpleQueue

        #: The process that has the thread.
        self.process = os.getpid()
        self.new_queue: Callable[[], SimpleQueue[tuple[str, Any]]] = SimpleQueue
        self.roles: Roles
        self._app = app
        self._failure: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateways.wsgi", daemon=True)
        self._token: trio.lowlevel.TrioToken
        self._stop: trio.Event
        self._nursery: trio.Nursery

    def start(self) -> None:
        """Return when the application has started. Raises what that raised."""
        import atexit

        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        atexit.register(self.close)

    def close(self) -> None:
        """Cancel what runs, shut the application down, and wait a little for that."""
        import atexit

        atexit.unregister(self.close)
        self.post(self._stop.set)
        self._thread.join(_GOODBYE)

    def post(self, function: "Callable[..., object]", *arguments: object) -> None:
        """Have something done in the event loop, unless that has ended."""
        try:
            self._token.run_sync_soon(function, *arguments)
        except RuntimeError:
            pass

    def have_run(self, answer: _TrioAnswer) -> None:
        """Have an answer made."""
        try:
            self._token.run_sync_soon(self._begin, answer)
        except RuntimeError:
            self._begin(answer)

    def _begin(self, answer: _TrioAnswer) -> None:
        if self._stop.is_set():
            answer.news.put(("ended", GatewayError("the event loop has ended")))
        else:
            self._nursery.start_soon(answer.serve)

    def _run(self) -> None:
        import trio

        try:
            trio.run(self._main)
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        import trio

        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with Started(self._app) as self.roles, trio.open_nursery() as self._nursery:
            self._started.set()
            try:
                await self._stop.wait()
                self._nursery.cancel_scope.cancel()
            finally:
                self._stop.set()
