"""What happens to an answer, decided once for every protocol.

``decide`` turns a Response into the bytes of a head and the body that may follow it; ``refusal`` turns an error into
a Response; ``respond`` runs a handler and puts the two together over a sink that a transport provides. No I/O
happens here but through that sink.
"""

import os

from gateways._model.environ import USUAL_HTTP
from gateways._model.errors import GatewayError, LocalProtocolError, Reject, RemoteProtocolError
from gateways._model.handler import invoke
from gateways._model.headers import INTERNAL
from gateways._model.limits import Limits
from gateways._model.response import Meter, Response, close, default_type, encode, pour
from gateways._model.status import REASONS, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any, BinaryIO, Protocol

    from gateways._model.dialects.voice import Voice
    from gateways._model.handler import Handler
    from gateways._model.request import Request

    class Sink(Protocol):
        """Where one answer goes.

        It may have a method ``take(answer, data)`` as well, which does what ``start`` and ``write`` do, but at once,
        and tells whether it could: most answers are small and whole.
        """

        #: Whether anything has left, so that a clean error is no longer possible.
        committed: bool

        async def start(self, answer: "Answer") -> None:
            """Take the head, to be sent together with what follows. A second call replaces the first."""

        async def write(self, data: bytes) -> None:
            """Take some of the body, never empty."""

        def report(self, error: BaseException) -> None:
            """Tell the log about an error that the client learns only the status of."""

    class EndingSink(Sink, Protocol):
        """One whose answer may end before its handler does."""

        #: What the handler has begun by itself.
        begun: "Begun | None"

        async def end(self, app_status: int) -> None:
            """The answer is complete, and its handler goes on."""


_FILE_CHUNK = 262_144
#: A body of no more bytes, or characters, than this is taken at once by a sink that can.
_SMALL = 16_384
_STATUS_LINES = {status: f"Status: {status} {phrase}\r\n" for status, phrase in REASONS.items()}
#: nginx reads a response head into one buffer of this size by default (fastcgi_buffer_size).
NGINX_HEAD = 4096


class Answer:
    """A response as it will leave: status, head, length of the body (None: unknown) and whether there is one."""

    __slots__ = ("has_body", "head", "length", "status")

    def __init__(self, status: int, head: bytes, length: "int | None", has_body: bool) -> None:
        self.status = status
        self.head = head
        self.length = length
        self.has_body = has_body


def decide(
    response: Response,
    method: str,
    size: "int | None" = None,
    max_head: int = 32_768,
    allowed: "Collection[str]" = (),
) -> Answer:
    """Settle what leaves for a response.

    ``size`` is the length of its body in bytes where that is known. The bodies of answers to HEAD and of 204 and
    304 are dropped here and nowhere else (HAProxy answers 502 to a surplus one). Raises LocalProtocolError for a
    Content-Length that contradicts the body, for a header field that only ``allowed`` may unlock, for a Location
    that would be a local redirect (RFC 3875 section 6.2.2: Apache answers with another page then), and for a head of
    more than ``max_head`` bytes.
    """
    status, given = response.status, response.headers.items()
    bodiless = status == 204 or status == 304
    if not given and size and not bodiless:
        # What most answers come to: the same as below, said in one go.
        line = _STATUS_LINES.get(status) or _status_line(status)
        head = f"{line}Content-Type: {default_type(response)}\r\nContent-Length: {size}\r\n\r\n"
        return Answer(status, _limited(head, max_head), size, method != "HEAD")
    has_body = not bodiless and method != "HEAD" and size != 0
    fields: list[tuple[str, str]] = []
    # The length of a file that the web server sends in place of the body says nothing about the body.
    replaced = bool(given and allowed) and any(name.lower() in INTERNAL for name, _ in given)
    announced = response.headers.get("content-length") if given and not replaced else None
    if response.content_type or not (bodiless or size == 0 or announced == "0"):
        fields.append(("Content-Type", default_type(response)))
    length = size
    for name, value in given:
        lower = name.lower()
        if lower == "content-type" or (lower == "content-length" and (replaced or status == 204)):
            continue
        if not value:
            continue  # the same as a field that is not sent (RFC 3875 section 6.3)
        if lower in INTERNAL and lower not in allowed:
            raise LocalProtocolError(f"{name} makes a web server send files: allow it by name for this listener")
        if lower == "location" and status == 200:
            raise LocalProtocolError("a Location wants a status of its own: 201, or one that redirects")
        if lower == "content-length":
            length = int(value)
            # An answer to HEAD, and a 304, may announce the length of a body that they were not given.
            left_out = size == 0 and (bodiless or method == "HEAD")
            if size is not None and length != size and not left_out:
                raise LocalProtocolError(f"Content-Length is {value}, but the body has {size} bytes")
        fields.append((name, value))
    if size is not None and not bodiless and announced is None:
        fields.append(("Content-Length", str(size)))
    return Answer(status, _limited(_head(status, fields), max_head), length, has_body)


def _limited(text: str, most: int) -> bytes:
    head = text.encode("utf-8", "surrogateescape")
    if len(head) > most:
        raise LocalProtocolError(f"the response head has {len(head)} bytes, {most} are allowed")
    return head


def render_head(status: int, fields: "Iterable[tuple[str, str]]") -> bytes:
    """The head of a CGI response, blank line included.

    Status comes first (busybox wants that) and is always sent: without it mod_proxy_fcgi, Caddy and h2o leave a
    redirect at 200. The fields are trusted to be valid.
    """
    return _head(status, fields).encode("utf-8", "surrogateescape")


def _head(status: int, fields: "Iterable[tuple[str, str]]") -> str:
    head = _STATUS_LINES.get(status) or _status_line(status)
    for name, value in fields:
        head += f"{name}: {value}\r\n"
    return head + "\r\n"


def _status_line(status: int) -> str:
    return f"Status: {status} {reason(status)}\r\n"


def refusal(error: BaseException) -> Response:
    """The answer that an error wants: its own status where it has one, otherwise a 500 that tells nothing."""
    error = _unwrapped(error)
    if isinstance(error, Reject):
        try:
            response = Response((error.detail or reason(error.status)) + "\n", error.status, error.headers)
            decide(response, "GET", size=len(encode(response.body)))
        except (LocalProtocolError, TypeError, ValueError) as flaw:
            error.add_note(f"this Reject cannot be sent: {flaw}")
            return _plain(500)
        return response
    return _plain(error.status if isinstance(error, RemoteProtocolError) else 500)


def is_expected(error: BaseException) -> bool:
    """Whether an error is an answer rather than a failure, so that the log need not explain it."""
    return isinstance(_unwrapped(error), Reject)


def _unwrapped(error: BaseException) -> BaseException:
    """What a task raised: trio's nurseries wrap the error of a child in a group."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if len(inner) == 1 and isinstance(error, BaseExceptionGroup):
        return _unwrapped(inner[0])
    return error


def _plain(status: int) -> Response:
    return Response(reason(status) + "\n", status)


async def respond(
    handler: "Handler", request: "Request", sink: "Sink", limits: Limits, allowed: "Collection[str]" = ()
) -> int:
    """Answer one request: run the handler, send what it gives, and give back the app status.

    An error before anything was sent becomes a clean answer; after that it is raised, for the transport to show as
    plainly as its protocol can. Cancellation passes through; bodies are closed in any case.
    """
    usual = request.environ.get("SERVER_PROTOCOL") in USUAL_HTTP
    if not usual:
        from gateways._model.dialects.small_web import find_voice  # few requests come this way

        find_voice(request.environ, request, sink)
    try:
        response = await invoke(handler, request)
        if not isinstance(response, Response):
            raise TypeError(f"a handler gives back a Response, not {type(response).__name__}")
        begun: Begun | None = getattr(sink, "begun", None)
        if begun is not None:
            await begun.finish(response)
        elif not (usual and _sent_at_once(response, request, sink, limits, allowed)):
            await _send(response, request, sink, limits, allowed)
        return response.app_status
    except Exception as error:
        if sink.committed:
            raise
        return await refuse(error, request.method, sink)


async def refuse(error: BaseException, method: str, sink: "Sink") -> int:
    """Answer with the status an error wants; also for requests that could not be built."""
    response = refusal(error)
    if response.status == 500 or not is_expected(error):
        sink.report(error)
    if getattr(error, "environ", None) is not None:
        from gateways._model.dialects.small_web import find_voice

        find_voice(error.environ, None, sink)  # type: ignore[attr-defined]
    voice: Voice | None = getattr(sink, "voice", None)
    if voice is not None:
        await voice.send(response, None, sink)
        return response.app_status
    await _send_whole(response, encode(response.body), method, sink)
    return response.app_status


async def answer(
    response: Response, request: "Request", sink: "EndingSink", *, limits: Limits, allowed: "Collection[str]" = ()
) -> None:
    """Send an answer while its handler goes on, which then gives back the same response."""
    _check_not_begun(sink)
    await _send(response, request, sink, limits, allowed)
    await Begun(response, sink, None).end()


async def begin_answer(
    response: Response, request: "Request", sink: "EndingSink", *, limits: Limits, allowed: "Collection[str]" = ()
) -> "Begun":
    """Send the head of an answer while its handler goes on, and give back what sends the body."""
    _check_not_begun(sink)
    consented = _consented(response, request)
    voice: Voice | None = getattr(sink, "voice", None)
    if voice is not None:
        return await voice.begin(consented, response, sink)
    answer = decide(consented, request.method, max_head=limits.max_head, allowed=allowed)
    await sink.start(answer)
    return Begun(response, sink, answer)


def _check_not_begun(sink: "EndingSink") -> None:
    if sink.begun is not None:
        raise LocalProtocolError("the answer has begun already")


class Begun:
    """An answer that goes out while its handler goes on. Made by ``Request.begin``."""

    __slots__ = ("_app_status", "_ended", "_meter", "_response", "_sink")

    def __init__(self, response: Response, sink: "EndingSink", answer: "Answer | None") -> None:
        self._response = response
        self._app_status = response.app_status
        self._sink = sink
        self._ended = False
        self._meter = None if answer is None or not answer.has_body else Meter(answer.length)
        sink.begun = self

    async def send(self, chunk: "str | bytes") -> None:
        """Send a piece of the body: waits while the client is slow."""
        data = encode(chunk)
        if self._meter is not None:
            data = self._meter.admit(data)
            if data:
                await self._sink.write(data)

    async def end(self) -> None:
        """Complete the answer while its handler goes on. Raises LocalProtocolError where some of it is missing."""
        if not self._ended:
            _check_length(self._meter, self._sink)
            self._ended = True
            await self._sink.end(self._app_status)

    async def finish(self, response: Response) -> None:
        """See whether the response that came back is the one that was sent, and all of it is there."""
        if response is not self._response:
            raise LocalProtocolError("the answer has begun already: its response can no longer be changed")
        self._sink.begun = None  # which has us as well
        if not self._ended:
            _check_length(self._meter, self._sink)


def _sent_at_once(
    response: Response, request: "Request", sink: "Sink", limits: Limits, allowed: "Collection[str]"
) -> bool:
    """Do what ``_send`` does over HTTP, without a coroutine, where the answer is small and whole; whether that could be
    done."""
    take: Callable[[Answer, bytes], bool] | None = getattr(sink, "take", None)
    body: Any = response.body
    if take is None or not isinstance(body, str | bytes) or len(body) > _SMALL or request.role == "authorizer":
        return False
    data = encode(body)
    answer = decide(response, request.environ["REQUEST_METHOD"], len(data), limits.max_head, allowed)
    return take(answer, data if answer.has_body else b"")


async def _send(
    response: Response, request: "Request", sink: "Sink", limits: Limits, allowed: "Collection[str]"
) -> None:
    response = _consented(response, request)
    if request.environ.get("SERVER_PROTOCOL") not in USUAL_HTTP:
        voice: Voice | None = getattr(sink, "voice", None)
        if voice is not None:
            await voice.send(response, request, sink)
            return
    body: Any = response.body
    if isinstance(body, str | bytes):
        data = body if isinstance(body, bytes) else encode(body)
        answer = decide(response, request.method, size=len(data), max_head=limits.max_head, allowed=allowed)
        await sink.start(answer)
        if answer.has_body:
            await sink.write(data)
    else:
        await _send_stream(response, request, sink, limits, allowed)


def _consented(response: Response, request: "Request") -> Response:
    if request.role == "authorizer" and response.status == 200 and not response.authorizes:
        # The status alone would let the request pass.
        request.log("the authorizer answered 200, but not with Response.authorize(): denied")
        return response.with_status(403)
    return response


async def _send_stream(
    response: Response, request: "Request", sink: "Sink", limits: Limits, allowed: "Collection[str]"
) -> None:
    body: Any = response.body
    size = None
    if isinstance(body, os.PathLike):
        folders = getattr(allowed, "folders", None)  # a listener without any need not have loaded the class
        if folders:
            from gateways._model.sendfile import can_be_handed_over, hand_over

            if can_be_handed_over(response):
                handed = await request.run_sync(hand_over, response, folders)
                if handed is not None:
                    await _send_whole(handed, b"", request.method, sink, limits.max_head, allowed)
                    return
        file, size = await request.run_sync(_open, response.body)
        body = _FileBody(file, request)
    try:
        answer = decide(response, request.method, size=size, max_head=limits.max_head, allowed=allowed)
        await sink.start(answer)
    except BaseException:
        await close(body)
        raise
    if answer.has_body:
        await _stream(body, answer.length, sink)
    else:
        await close(body)


async def _send_whole(
    response: Response,
    data: bytes,
    method: str,
    sink: "Sink",
    max_head: int = 32_768,
    allowed: "Collection[str]" = (),
) -> None:
    answer = decide(response, method, size=len(data), max_head=max_head, allowed=allowed)
    await sink.start(answer)
    if answer.has_body:
        await sink.write(data)


async def _stream(body: "Any", length: "int | None", sink: "Sink") -> None:
    meter = Meter(length)

    async def send(chunk: "str | bytes") -> None:
        admitted = meter.admit(encode(chunk))
        if admitted:
            await sink.write(admitted)

    await pour(body, send)
    _check_length(meter, sink)


def _check_length(meter: "Meter | None", sink: "Sink") -> None:
    if meter is None:
        return  # there is no body
    if meter.excess:
        sink.report(ExcessBody(f"{meter.excess} bytes beyond the Content-Length of {meter.length} were cut"))
    if meter.left:
        raise LocalProtocolError(f"the body ended {meter.left} bytes before its Content-Length of {meter.length}")


class ExcessBody(GatewayError):
    """A handler sent more than its Content-Length announced."""


def _open(path: "os.PathLike[str]") -> "tuple[BinaryIO, int]":
    file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by _FileBody
    return file, os.fstat(file.fileno()).st_size


class _FileBody:
    """An open file as an asynchronous iterable of chunks, read where it blocks nobody."""

    __slots__ = ("_file", "_request")

    def __init__(self, file: "BinaryIO", request: "Request") -> None:
        self._file = file
        self._request = request

    def __aiter__(self) -> "_FileBody":
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._request.run_sync(self._file.read, _FILE_CHUNK)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._file.close()
