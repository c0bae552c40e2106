"""One request, whatever carried it: the environ, the body, and views of both.

RFC 3875 section 4. A Request is read only; ``mounted`` gives a shifted copy.
"""

import sys

from gateways._model import environ as laws
from gateways._model.errors import GatewayError, IncompleteBody, LimitExceeded
from gateways._model.headers import MultiMap, RequestHeaders, as_pairs, is_number
from gateways._model.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    import io
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any, Protocol, TypeVar

    from gateways._model.certificate import ClientCertificate
    from gateways._model.environ import Variables
    from gateways._model.forms import Form
    from gateways._model.policy import Begun
    from gateways._model.response import Response

    T = TypeVar("T")

    class Source(Protocol):
        """Where the bytes of a body come from."""

        async def receive(self, max_bytes: int) -> bytes:
            """Some bytes, at most that many; ``b""`` at the end."""
            ...

        def receive_blocking(self, max_bytes: int) -> bytes:
            """The same for a worker thread."""
            ...


_CHUNK = 65_536
_DEFAULTS = Limits()


class Body:
    """The bytes that came with a request, readable once: complete, or an exception.

    Read it with ``async for chunk in body``, ``await body.read()`` or ``await body.receive_some()``; from a worker
    thread through ``body.file``. Every way raises :class:`IncompleteBody` when the body ends before its
    announced length. A client that leaves cancels the handler instead.
    """

    __slots__ = ("_file", "_left", "_max_read", "_source", "length")

    def __init__(self, source: "Source", length: "int | None", *, max_read: "int | None" = None) -> None:
        #: The announced length in bytes, or None where only the end of the stream tells.
        self.length = length
        self._source = source
        self._left = length
        self._max_read = _DEFAULTS.max_read if max_read is None else max_read
        self._file: io.BufferedReader | None = None

    async def receive_some(self, max_bytes: int = _CHUNK) -> bytes:
        """The next bytes, at least one and at most ``max_bytes``; ``b""`` once the body is complete."""
        if self._left == 0:
            return b""
        return self._count(await self._source.receive(self._wanted(max_bytes)))

    async def read(self, limit: "int | None" = None) -> bytes:
        """The rest of the body as one value.

        Raises :class:`LimitExceeded` (answered with 413) when it is longer than ``limit`` bytes, by default
        ``Limits.max_read``, before more than that is held in memory.
        """
        allowed = self._max_read if limit is None else limit
        self._check(self._left or 0, allowed)
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.receive_some():
            size += len(chunk)
            self._check(size, allowed)
            chunks.append(chunk)
            if self._left == 0:
                break
        return b"".join(chunks)

    def __aiter__(self) -> "Body":
        # Not a generator: one that a handler leaves early would have to be closed.
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.receive_some()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    @property
    def file(self) -> "io.BufferedReader":
        """The body as a blocking binary file, for code in a worker thread (a plain ``def`` handler, for one).

        The same file each time: what it has buffered would be lost to a second one.
        """
        if self._file is None:
            self._file = _body_file(self)
        return self._file

    def _receive_blocking(self, max_bytes: int) -> bytes:
        if self._left == 0:
            return b""
        return self._count(self._source.receive_blocking(self._wanted(max_bytes)))

    def _wanted(self, max_bytes: int) -> int:
        # Never past the announced length: python's and mini_httpd's CGI stdin goes on with the next request.
        return max_bytes if self._left is None else min(max_bytes, self._left)

    def _count(self, chunk: bytes) -> bytes:
        if self._left is None:
            if not chunk:
                self._left = 0
        elif chunk:
            self._left -= len(chunk)
        else:
            raise IncompleteBody(f"the body ended {self._left} bytes before its announced length of {self.length}")
        return chunk

    @staticmethod
    def _check(size: int, allowed: int) -> None:
        if size > allowed:
            raise LimitExceeded(f"the body is longer than {allowed} bytes")

    def __repr__(self) -> str:
        return f"<Body length={self.length} left={self._left}>"


class BytesSource:
    """A body that is in memory already."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def receive_blocking(self, max_bytes: int) -> bytes:
        """The next bytes."""
        chunk, self.data = self.data[:max_bytes], self.data[max_bytes:]
        return chunk

    async def receive(self, max_bytes: int) -> bytes:
        """The next bytes."""
        return self.receive_blocking(max_bytes)


def _body_file(body: Body) -> "io.BufferedReader":
    import io  # only for those who ask

    class BodyFile(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: "Any") -> int:
            chunk = body._receive_blocking(len(buffer))
            buffer[: len(chunk)] = chunk
            return len(chunk)

    return io.BufferedReader(BodyFile(), _CHUNK)


class Carrier:
    """What a transport lends to the requests it carries. This one serves where no transport does."""

    __slots__ = ()

    def log(self, text: str) -> None:
        """Pass a text on to whoever reads the error log."""
        sys.stderr.write(text + "\n")

    async def run_sync(self, function: "Callable[..., T]", *args: object) -> "T":
        """Run blocking code where it blocks nobody else."""
        return function(*args)

    async def answer(self, request: "Request", response: "Response") -> None:
        """Send a whole answer while its handler goes on."""
        raise _no_way_back()

    async def begin_answer(self, request: "Request", response: "Response") -> "Begun":
        """Send the head of an answer while its handler goes on."""
        raise _no_way_back()

    def body_of(self, request: "Request") -> Body:
        """The body of a request that was built without: asked for once at most."""
        return in_memory(b"", None)

    @property
    def disconnected(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return False

    def set_aside(self, handler: object, act: "Callable[[], object]") -> "Awaitable[None] | None":
        """What to await so that the requests are begun first that have come in with this one; then ``act`` is called,
        once for all that were set aside. None where that cannot be, not for this ``handler`` or not here."""
        return None


def _no_way_back() -> GatewayError:
    return GatewayError("this request was made by hand: there is nobody to send an answer to")


class Request:
    """One request.

    Made by the transports. To make one by hand, give the meta-variables and the body; the laws of the environment
    are applied to them, so RemoteProtocolError is raised for what no server could serve:

    >>> request = Request({"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app", "PATH_INFO": "/x"})
    >>> request.path, request.script_name, request.path_info, request.query_string
    ('/app/x', '/app', '/x', '')

    What a web server did not send is None; ``query_string``, ``script_name`` and ``path_info`` are always text.
    Two requests are equal when all that a handler can see of them is equal, but for ``protocol``,
    ``environ_as_sent``, ``remote_port`` and ``server_software``; bodies count as equal where both are unread and
    in memory and their bytes are the same.
    """

    __slots__ = (
        "_as_sent",
        "_body",
        "_carrier",
        "_cookies",
        "_data",
        "_environ_as_sent",
        "_headers",
        "_input",
        "_query",
        "environ",
        "path",
        "protocol",
        "role",
    )

    def __init__(
        self,
        environ: "Mapping[str, str] | Iterable[tuple[str, str]]",
        body: "Body | bytes" = b"",
        *,
        role: str = "responder",
        data: "Body | bytes" = b"",
        protocol: str = "cgi",
        rules: "laws.Rules | None" = None,
    ) -> None:
        pairs = as_pairs(environ)
        built, path, _ = laws.build(pairs, protocol, laws.Rules() if rules is None else rules)
        if isinstance(body, bytes):
            body = in_memory(body, content_length(built))
        if isinstance(data, bytes):
            data = in_memory(data, data_length(built))
        self._fill(built, path, pairs, body, role, data, protocol, Carrier())

    def _fill(
        self,
        environ: "dict[str, str]",
        path: str,
        as_sent: "Variables",
        body: "Body | None",
        role: str,
        data: "Body | None",
        protocol: str,
        carrier: Carrier,
    ) -> None:
        #: The meta-variables by the laws of the environment: one value a name, none of them empty but
        #: SCRIPT_NAME, PATH_INFO and QUERY_STRING, which are always there.
        self.environ = environ
        #: The decoded path, mount and all: ``script_name + path_info``. Dots and double slashes are as sent.
        self.path = path
        #: "responder", "authorizer" or "filter" (FastCGI section 6).
        self.role = role
        #: The gateway protocol: "fastcgi", "scgi", "cgi" or "http".
        self.protocol = protocol
        self._as_sent = as_sent
        self._carrier = carrier
        # Each made when it is first asked for.
        self._body = body
        self._data = data
        self._environ_as_sent: tuple[tuple[str, str], ...] | None = None
        self._headers: RequestHeaders | None = None
        self._query: MultiMap | None = None
        self._cookies: dict[str, str] | None = None

    @classmethod
    def _built(cls, *parts: "Any") -> "Request":
        """A request of parts that a transport has checked already; the arguments are those of ``_fill``.

        ``as_sent`` is a mapping or a sequence of pairs, as for ``environ.build``; ``body`` is None where the carrier
        makes it, ``data`` where there is none.
        """
        request = cls.__new__(cls)
        request._fill(*parts)
        return request

    @property
    def environ_as_sent(self) -> "tuple[tuple[str, str], ...]":
        """What came: (name, value) in wire order, repeats kept; HTTP_PROXY alone is left out."""
        if self._environ_as_sent is None:
            self._environ_as_sent = tuple([pair for pair in as_pairs(self._as_sent) if pair[0] != "HTTP_PROXY"])
        return self._environ_as_sent

    @property
    def body(self) -> Body:
        """The request body."""
        if self._body is None:
            self._body = self._carrier.body_of(self)
        return self._body

    @property
    def data(self) -> Body:
        """The file a filter works on, complete like the body; empty elsewhere."""
        if self._data is None:
            self._data = in_memory(b"", None)
        return self._data

    # --- the request line

    @property
    def method(self) -> str:
        """REQUEST_METHOD, in the case it was sent in."""
        return self.environ["REQUEST_METHOD"]

    @property
    def scheme(self) -> str:
        """ "http", "https", "gemini", "titan", "spartan", "gopher" or whatever else the client spoke."""
        return laws.scheme(self.environ)

    @property
    def script_name(self) -> str:
        """The path the application is mounted at: "" or "/x"."""
        return self.environ["SCRIPT_NAME"]

    @property
    def path_info(self) -> str:
        """The path below the mount, decoded: "" or "/x"."""
        return self.environ["PATH_INFO"]

    @property
    def raw_path(self) -> "str | None":
        """The path as the client wrote it, still percent-encoded, where the server tells (REQUEST_URI)."""
        return laws.raw_path(self.environ)

    @property
    def query_string(self) -> str:
        """What stands after "?", still percent-encoded."""
        return self.environ["QUERY_STRING"]

    @property
    def query(self) -> MultiMap:
        """The query string read as form fields, decoded; repeats kept."""
        if self._query is None:
            self._query = MultiMap(_form_fields(self.query_string))
        return self._query

    @property
    def url(self) -> str:
        """The URL of the request as far as the server tells (the Script-URI of RFC 3875 section 3.3)."""
        path = self.raw_path
        if path is None or not path.startswith("/"):
            path = laws.quote(self.path)
        query = self.query_string
        return f"{self.scheme}://{self._authority()}{path}{'?' + query if query else ''}"

    def _authority(self) -> str:
        host = self.environ.get("HTTP_HOST")
        if host:
            return host
        name = self.server_name or "localhost"
        if name.count(":") > 1 and not name.startswith("["):
            name = f"[{name}]"  # an IPv6 address; with one colon it is HAProxy's or mini_httpd's "host:port"
        port = self.server_port
        default = {"http": 80, "https": 443, "gemini": 1965, "titan": 1965, "spartan": 300, "gopher": 70}.get(
            self.scheme
        )
        return name if port is None or port == default or name.endswith(f":{port}") else f"{name}:{port}"

    # --- header fields

    @property
    def headers(self) -> RequestHeaders:
        """The header fields, by name without case."""
        if self._headers is None:
            self._headers = RequestHeaders(self.environ)
        return self._headers

    @property
    def cookies(self) -> "dict[str, str]":
        """The cookies by name; of several with one name the first, which has the longest path (RFC 6265)."""
        if self._cookies is None:
            self._cookies = _cookies(self.environ.get("HTTP_COOKIE", ""))
        return self._cookies

    @property
    def content_type(self) -> "str | None":
        """The media type of the body, parameters included."""
        return self.environ.get("CONTENT_TYPE")

    @property
    def content_length(self) -> "int | None":
        """The announced length of the body in bytes; None where none was announced."""
        return content_length(self.environ)

    async def form(
        self,
        *,
        encoding: str = "utf-8",
        max_fields: int = 1000,
        max_field_bytes: int = 1_048_576,
        max_file_bytes: "int | None" = None,
        max_bytes: "int | None" = 67_108_864,
    ) -> "Form":
        """Read the body as an HTML form, urlencoded or multipart: its texts, and the files in ``files``. Once.

        ``encoding`` is that of the page with the form; a byte that is none of it becomes a lone surrogate, as in
        ``query``. Raises :class:`LimitExceeded` (413) for more than ``max_fields`` texts and files, for a text of more
        than ``max_field_bytes``, a file of more than ``max_file_bytes``, a body of more than ``max_bytes``, and texts
        of more than ``Limits.max_read`` together; RemoteProtocolError for a form that is malformed (400) and for
        what is no form (415); LocalProtocolError when the body was read before. A request without a body is an empty
        form. Cancelled, or failed, it leaves no files behind.
        """
        from gateways._model.forms import read_form  # only for those who ask

        return await read_form(self, encoding, max_fields, max_field_bytes, max_file_bytes, max_bytes)

    async def input(self) -> "str | None":
        """What the user has typed in, when :meth:`Response.input` asked for it; None where nobody was asked yet.

        The query of Gemini, the search text of Gopher, what was uploaded over Spartan, the field ``input`` of a form
        over HTTP (which reads the body of a POST; a query without "=" counts as well). Decoded once. Raises what
        ``body.read()`` and :meth:`form` raise.
        """
        try:
            return self._input
        except AttributeError:
            from gateways._model.dialects.small_web import read_input  # only for those who ask

            self._input: str | None = await read_input(self)
            return self._input

    def preferred(self, *media_types: str) -> str:
        """Which of these media types the client is best served with: always one of them.

        Gemini, Titan and Spartan want text/gemini, Gopher application/gopher-menu, and all of them text/plain next.
        Over HTTP the Accept field decides (RFC 9110 section 12.5.1), and where it does not care, text/html comes first
        and then the order given. Raises TypeError where none are given.
        """
        from gateways._model.preferring import preferred

        return preferred(self.scheme, self.environ.get("HTTP_ACCEPT", ""), media_types)

    @property
    def client_certificate(self) -> "ClientCertificate | None":
        """The certificate that the client has shown, over Gemini and Titan; over HTTPS if the web server is told to
        send TLS_CLIENT_HASH, with the SHA-256 of it. Only its ``fingerprint`` tells who it is.
        """
        from gateways._model.certificate import client_certificate

        return client_certificate(self.scheme, self.environ)

    # --- the file of a filter

    @property
    def data_length(self) -> "int | None":
        """The length in bytes of the file that a filter works on (FCGI_DATA_LENGTH, FastCGI section 6.4)."""
        return data_length(self.environ)

    @property
    def data_last_modified(self) -> "datetime.datetime | None":
        """When the file that a filter works on was last changed, in UTC (FCGI_DATA_LAST_MOD)."""
        seconds = self.environ.get("FCGI_DATA_LAST_MOD")
        if seconds is None:
            return None
        import datetime  # only for those who ask

        return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)

    # --- who and where

    @property
    def remote_addr(self) -> "str | None":
        """The client's address, as the web server saw it."""
        return self.environ.get("REMOTE_ADDR")

    @property
    def remote_port(self) -> "int | None":
        """The client's port."""
        return _port(self.environ.get("REMOTE_PORT"))

    @property
    def remote_user(self) -> "str | None":
        """The user that the web server has verified."""
        return self.environ.get("REMOTE_USER")

    @property
    def server_name(self) -> "str | None":
        """The name the web server goes by; some servers take it from the Host field."""
        return self.environ.get("SERVER_NAME")

    @property
    def server_port(self) -> "int | None":
        """The web server's port."""
        return _port(self.environ.get("SERVER_PORT"))

    @property
    def server_software(self) -> "str | None":
        """The web server's name and version."""
        return self.environ.get("SERVER_SOFTWARE")

    # --- deeds

    def log(self, text: str) -> None:
        """Write to the error log: the web server's where the protocol can carry it (FCGI_STDERR), and ours."""
        self._carrier.log(text)

    async def run_sync(self, function: "Callable[..., T]", *args: object) -> "T":
        """Run blocking code in a worker thread and give back its result (inline under CGI).

        Cancellation abandons the thread's result.
        """
        return await self._carrier.run_sync(function, *args)

    async def answer(self, response: "Response") -> None:
        """Answer now: the client has the whole of ``response`` while the handler goes on with work of its own.

        The handler still gives this same ``response`` back in the end; what it raises then is logged. Raises what a
        handler would be answered with 500 for (LocalProtocolError, OSError for a file), and GatewayError where a
        request was made by hand. A CGI script's client waits for the end of the script all the same.
        """
        await self._carrier.answer(self, response)

    async def begin(self, response: "Response") -> "Begun":
        """Begin the answer now, for handlers that send a body from more than one task: gives back what sends it.

        ``await begun.send(chunk)`` is for any task of the handler's; the body of ``response`` is left out. The answer
        is complete when the handler gives this same ``response`` back, or with ``await begun.end()`` while it goes on.
        An error that the handler raises before is a clean 500 if nothing has left, and otherwise breaks the answer.
        Raises like :meth:`answer`.
        """
        return await self._carrier.begin_answer(self, response)

    @property
    def disconnected(self) -> bool:
        """Whether nobody waits for the answer any more. The handler is being cancelled then: for ``finally``."""
        return self._carrier.disconnected

    def mounted(self, prefix: str) -> "Request | None":
        """A copy with ``prefix`` moved from the front of ``path_info`` to the end of ``script_name``.

        None where ``path_info`` is not below the prefix on a segment boundary. Body and log are shared. Raises
        ValueError for a prefix that does not begin with a slash.
        """
        prefix = laws.check_mount(prefix)
        info = self.path_info
        if info != prefix and not info.startswith(prefix + "/"):
            return None
        environ = dict(self.environ)
        environ["SCRIPT_NAME"] += prefix
        environ["PATH_INFO"] = info[len(prefix) :]
        copy = Request._built(
            environ, self.path, self._as_sent, self.body, self.role, self._data, self.protocol, self._carrier
        )
        copy._environ_as_sent, copy._query, copy._cookies = self._environ_as_sent, self._query, self._cookies
        return copy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return (
            self.role == other.role
            and self.path == other.path
            and _comparable(self.environ) == _comparable(other.environ)
            and _same_bytes(self.body, other.body)
            and _same_bytes(self.data, other.data)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        query = "?" + self.query_string if self.query_string else ""
        return f"<Request {self.method} {self.path}{query} over {self.protocol}>"


def content_length(environ: "Mapping[str, str]") -> "int | None":
    """CONTENT_LENGTH of a built environ as a number of bytes."""
    value = environ.get("CONTENT_LENGTH")
    return None if value is None else int(value)


def data_length(environ: "Mapping[str, str]") -> "int | None":
    """FCGI_DATA_LENGTH of a built environ as a number of bytes."""
    value = environ.get("FCGI_DATA_LENGTH")
    return None if value is None else int(value)


def in_memory(data: bytes, length: "int | None") -> Body:
    """A body that is in memory already; ``length`` is what was announced, or None."""
    return Body(BytesSource(data), len(data) if length is None else length)


def _comparable(environ: "dict[str, str]") -> "dict[str, str]":
    return {name: value for name, value in environ.items() if name not in ("REMOTE_PORT", "SERVER_SOFTWARE")}


def _same_bytes(one: Body, other: Body) -> bool:
    if one is other:
        return True
    mine, theirs = one._source, other._source
    return isinstance(mine, BytesSource) and isinstance(theirs, BytesSource) and mine.data == theirs.data


def _port(value: "str | None") -> "int | None":
    return int(value) if value and is_number(value) and len(value) <= 5 else None


def _form_fields(text: str) -> "Iterable[tuple[str, str]]":
    for field in text.split("&"):
        if field:
            name, _, value = field.replace("+", " ").partition("=")
            yield laws.unquote(name), laws.unquote(value)


def _cookies(text: str) -> "dict[str, str]":
    cookies: dict[str, str] = {}
    for pair in text.split(";"):
        name, equals, value = pair.strip(" \t").partition("=")
        if equals and name not in cookies:
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1]
            cookies[name] = value
    return cookies
