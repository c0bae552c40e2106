"""The script's side of CGI: one request from the process environment and stdin, one answer on stdout.

RFC 3875. Started anew for every request, so nothing is imported here that a plain handler does not need; trio is
loaded only when the application has loaded it itself.
"""

import os
import stat
import sys

from gateways._model.environ import Rules, build, is_http
from gateways._model.errors import LimitExceeded, RemoteProtocolError
from gateways._model.handler import Resumed, Started, waits_without_a_loop
from gateways._model.limits import Limits
from gateways._model.policy import answer, begin_answer, refuse, respond
from gateways._model.request import Body, Carrier, Request, content_length

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Iterable
    from typing import Any, TypeVar

    from gateways._model.dialects.voice import Voice
    from gateways._model.handler import Application
    from gateways._model.policy import Answer, Begun
    from gateways._model.response import Response

    T = TypeVar("T")

_TRIO_WANTED = object()


def run(
    app: "Application",
    *,
    trio: "bool | None" = None,
    limits: "Limits | None" = None,
    mount: "str | None" = None,
    quirks: "str | Iterable[str]" = "auto",
    trust_remote_user: bool = False,
    trust_forwarded: bool = False,
    allow_headers: "Collection[str]" = (),
) -> None:
    """Be a CGI script: answer the one request this process was started for.

    ``trio`` decides whether the handler runs under trio; None means: when the application has imported it. The
    other arguments are those of ``serve``. What the application prints goes to stderr, never into the answer. A script
    whose file name begins with ``nph-`` answers with a whole HTTP response (RFC 3875 section 5).

    Errors: before anything was sent they become a 500, with details on stderr; after that the process ends with
    status 1 (SystemExit), which is all that CGI can show. So it is with a handler that calls ``sys.exit``, whatever
    status it wants. A web server that no longer listens ends the process quietly with status 1.
    """
    limits = limits or Limits()
    rules = Rules(quirks=quirks, mount=mount, trust_remote_user=trust_remote_user, trust_forwarded=trust_forwarded)
    pairs = _process_environment()
    os.environ.pop("HTTP_PROXY", None)  # httpoxy: urllib and others would believe it
    stdin = _Stdin(limits.body_timeout)
    sink = _Stdout(_take_stdout(), trio, _http_version(dict(pairs)))
    if allow_headers:
        from gateways._model.sendfile import AllowedHeaders  # few do

        allow_headers = AllowedHeaders(allow_headers)
    answer = _answer(app, pairs, stdin, sink, rules, limits, allow_headers)
    try:
        _drive(answer, trio)
        sink.flush()
        _drop_rest(stdin, dict(pairs), limits.drain_timeout)
    except (Exception, SystemExit) as error:
        if not sink.gone:
            sink.report(error)
        raise SystemExit(1) from None


async def _answer(
    app: "Application",
    pairs: "tuple[tuple[str, str], ...]",
    stdin: "_Stdin",
    sink: "_Stdout",
    rules: Rules,
    limits: Limits,
    allowed: "Collection[str]",
) -> None:
    sent = dict(pairs)
    method = sent.get("REQUEST_METHOD", "GET")
    try:
        environ, path, _ = build(pairs, "cgi", rules)
        length = body_length(environ, sent.get("HTTP_CONTENT_LENGTH", ""))
        body = Body(stdin, length, max_read=limits.max_read)
        data = Body(stdin, 0)
        carrier = _ScriptCarrier(sink, limits, allowed)
        request = Request._built(environ, path, pairs, body, "responder", data, "cgi", carrier)
        async with Started(app) as roles:
            await respond(roles, request, sink, limits=limits, allowed=allowed)
    except (Exception, SystemExit) as error:  # the latter would end the process without a word to the client
        if sink.committed:
            raise
        await refuse(error, method, sink)


def body_length(environ: "dict[str, str]", announced: str = "") -> "int | None":
    """How many bytes to read from stdin; None for all there are. ``announced`` is the Content-Length of the client.

    stdin may be a socket that never ends, so its end is awaited only where the server is known to have taken the
    chunks of an upload apart: Apache. Raises RemoteProtocolError with status 411 for a chunked body elsewhere
    (busybox leaves the framing on stdin), and for a body that the server keeps to itself (busybox has CONTENT_LENGTH
    and stdin for POST alone).
    """
    length = content_length(environ)
    if length is not None:
        return length
    if "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        if announced.strip("0"):
            raise RemoteProtocolError("the client announced a body, but the web server hands none on", status=411)
        return 0
    if environ.get("SERVER_SOFTWARE", "").startswith("Apache"):
        return None
    raise RemoteProtocolError("a chunked body, and no CONTENT_LENGTH from the web server", status=411)


def _process_environment() -> "tuple[tuple[str, str], ...]":
    # os.environ is decoded by the locale, which is not ours to choose.
    decoded: list[tuple[str, str]] = []
    for name, value in os.environb.items():
        decoded.append((name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")))
    return tuple(decoded)


def _http_version(environ: "dict[str, str]") -> "str | None":
    """The version of HTTP that the answer is to be in; None where the web server makes HTTP of it.

    The name of the file decides, as it does for Apache and mini_httpd (RFC 3875 section 5.2). Behind nginx it is
    fcgiwrap that starts scripts; it knows nothing of this, and the status would be lost.
    """
    if not os.path.basename(sys.argv[0]).startswith("nph-") or not is_http(environ):
        return None
    if environ.get("SERVER_SOFTWARE", "").startswith("nginx"):
        return None
    return "HTTP/1.1" if environ.get("SERVER_PROTOCOL", "").upper() == "HTTP/1.1" else "HTTP/1.0"


def _as_http(head: bytes, version: str) -> bytes:
    """The head of an HTTP response that says what the head of a CGI response says."""
    import time  # only for NPH scripts

    status, _, fields = head.partition(b"\r\n")
    added = "Connection: close\r\n"  # the end of the output is the end of the answer
    if b"\ndate:" not in head.lower():
        now = time.gmtime()
        day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]  # not strftime: these are English in every locale
        added += f"Date: {day}, {now.tm_mday:02} {month} {now.tm_year} {time.strftime('%H:%M:%S', now)} GMT\r\n"
    return version.encode() + status.removeprefix(b"Status:") + b"\r\n" + added.encode() + fields


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _take_stdout() -> int:
    """A private descriptor for the answer; from now on fd 1 is stderr, so that no stray print corrupts it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
            continue
        except OSError:
            pass
        if descriptor == 1:
            # Not /dev/null: an answer that nobody hears is no success. This is a pipe that nobody reads.
            _, writing = os.pipe()
            os.dup2(writing, 1)  # which was its other end
            os.close(writing)
        else:
            # It takes the lowest free number, this one; child processes need it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    out = os.dup(1)
    stray = 2
    if os.path.sameopenfile(1, 2) and not os.isatty(2):
        # mini_httpd has one pipe for both.
        stray = os.open(os.devnull, os.O_WRONLY)
        os.dup2(stray, 2)
    os.dup2(stray, 1)
    return out


def _drive(coroutine: "Coroutine[Any, Any, None]", use_trio: "bool | None") -> None:
    """Run the answer without an event loop, and move into trio once it turns out to be wanted."""
    if use_trio or (use_trio is None and "trio" in sys.modules):
        _run_in_trio(coroutine)
        return
    try:
        if coroutine.send(None) is not _TRIO_WANTED:
            coroutine.throw(waits_without_a_loop())
    except StopIteration:
        return
    _run_in_trio(coroutine)


def _run_in_trio(coroutine: "Coroutine[Any, Any, None]") -> None:
    """Go on with a coroutine under trio, whether or not it has begun."""
    import trio

    async def main() -> None:
        try:
            trap = coroutine.send(None)
        except StopIteration:
            return
        await Resumed(coroutine, trap)

    trio.run(main)


def _in_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    return trio.lowlevel.in_trio_run()


class _WantTrio:
    """``await _WantTrio()`` asks ``_drive`` to go on under trio."""

    def __await__(self) -> "Generator[Any, Any, None]":
        yield _TRIO_WANTED


def _drop_rest(stdin: "_Stdin", environ: "dict[str, str]", patience: "float | None") -> None:
    """Read what the handler has left of the body, until it does not come for ``patience`` seconds.

    stdin and stdout of a script under Apache's mod_cgid are one socket. Closed with unread input it is reset, and the
    answer is lost with it. fcgiwrap has a pipe, and loses the answer when that breaks.
    """
    if stdin.given_up or not stdin.is_stream():
        return
    try:
        length = body_length(environ)
    except (RemoteProtocolError, ValueError):
        return  # nobody knows how much there is
    left = sys.maxsize if length is None else length - stdin.taken
    while left > 0 and stdin.is_ready(patience) and (dropped := len(stdin.read(min(left, 65_536)))):
        left -= dropped


class _Stdin:
    """The body as it comes in on fd 0; without any of it for ``patience`` seconds it is given up with 408."""

    __slots__ = ("_patience", "given_up", "taken")

    def __init__(self, patience: "float | None") -> None:
        self.given_up = False
        self.taken = 0
        self._patience = patience

    def is_stream(self) -> bool:
        try:
            mode = os.fstat(0).st_mode
            return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)
        except OSError:
            return False

    def is_ready(self, patience: "float | None") -> bool:
        """Whether there is something to read, be it the end, before so many seconds have passed."""
        if patience is None:
            return True
        import select  # only when there is a body

        poll = select.poll()
        poll.register(0, select.POLLIN)
        return bool(poll.poll(patience * 1000))

    def read(self, max_bytes: int) -> bytes:
        try:
            data = os.read(0, max_bytes)
        except OSError:
            return b""  # closed, or not for reading: the same as an early end
        self.taken += len(data)
        return data

    def receive_blocking(self, max_bytes: int) -> bytes:
        if not self.is_ready(self._patience):
            raise self._late()
        return self.read(max_bytes)

    async def receive(self, max_bytes: int) -> bytes:
        if not _in_trio():
            return self.receive_blocking(max_bytes)
        import trio

        with trio.move_on_after(float("inf") if self._patience is None else self._patience) as scope:
            try:
                # Not a read in a thread: cancelled, it would swallow bytes.
                await trio.lowlevel.wait_readable(0)
            except OSError:
                pass  # a file, always ready
        if scope.cancelled_caught:
            raise self._late()
        return self.read(max_bytes)

    def _late(self) -> LimitExceeded:
        self.given_up = True
        return LimitExceeded(f"no body data for {self._patience} seconds", status=408)


_log = Carrier().log


class _ScriptCarrier(Carrier):
    """Logging to stderr; blocking code in a thread under trio, inline without."""

    __slots__ = ("_allowed", "_limits", "_sink")

    def __init__(self, sink: "_Stdout", limits: Limits, allowed: "Collection[str]") -> None:
        self._sink = sink
        self._limits = limits
        self._allowed = allowed

    async def run_sync(self, function: "Callable[..., T]", *args: object) -> "T":
        if not _in_trio():
            return function(*args)
        import trio

        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)

    async def answer(self, request: Request, response: "Response") -> None:
        await answer(response, request, self._sink, limits=self._limits, allowed=self._allowed)

    async def begin_answer(self, request: Request, response: "Response") -> "Begun":
        return await begin_answer(response, request, self._sink, limits=self._limits, allowed=self._allowed)


class _Stdout:
    """The answer on its way to the web server. The head waits for the first bytes of the body."""

    begun: "Begun | None" = None
    voice: "Voice | None" = None

    def __init__(self, descriptor: int, use_trio: "bool | None", version: "str | None") -> None:
        self.committed = False
        #: The web server no longer listens: what fails from now on is not worth a word.
        self.gone = False
        self._descriptor = descriptor
        self._head = b""
        self._use_trio = use_trio
        self._version = version

    async def start(self, answer: "Answer") -> None:
        self._head = answer.head if self._version is None else _as_http(answer.head, self._version)
        # The handler may have imported trio for a body that is only about to run.
        if self._use_trio is None and "trio" in sys.modules and not _in_trio():
            await _WantTrio()

    async def write(self, data: bytes) -> None:
        self._write(data)

    async def end(self, app_status: int) -> None:
        self.flush()  # the web server waits for the end of the script

    def flush(self) -> None:
        """Send a head that had no body to go with."""
        if self._head:
            self._write(b"")

    def _write(self, data: bytes) -> None:
        view = memoryview(self._head + data)
        self._head = b""
        self.committed = True
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except ConnectionError:  # a pipe breaks, a socket (mod_cgid gives one to its scripts) is reset
            self.gone = True
            raise

    def report(self, error: BaseException) -> None:
        if isinstance(error, RemoteProtocolError):
            _log(f"gateways: {error}")
            return
        import traceback  # only when something broke

        _log("".join(traceback.format_exception(error)))
