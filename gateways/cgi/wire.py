"""Web server's side of CGI, without I/O: the environment of a program, and its answer on stdout.

RFC 3875 sections 4 (the environment), 6 (the response) and 7.2 (POSIX). Which program runs, and how, is for the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateways._model.dialects.cgi import parse_head
from gateways._model.environ import scheme
from gateways._model.errors import LocalProtocolError, RemoteProtocolError
from gateways._model.headers import as_pairs
from gateways._model.limits import Limits
from gateways.events import BodyReceived, ClientEvent, ConnectionFailed, HeadReceived, ResponseEnded

#: What a program may know of the process that starts it. Everything else in there is nobody's business;
#: busybox, uWSGI and fcgiwrap leak all of it.
_OF_THE_HOST = frozenset({"LANG", "LANGUAGE", "PATH", "TMPDIR", "TZ"})

#: What a request may set in the environment of a process. SCRIPT_FILENAME and PATH_TRANSLATED (RFC 3875 section 4.1.6)
#: are missing: php-cgi runs the files they name, so they are the host's to say.
_OF_THE_REQUEST = frozenset(
    {
        "AUTH_TYPE",
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "DOCUMENT_ROOT",
        "DOCUMENT_URI",
        "HTTPS",
        "PATH_INFO",
        "QUERY_STRING",
        "REDIRECT_STATUS",
        "REMOTE_ADDR",
        "REMOTE_HOST",
        "REMOTE_IDENT",
        "REMOTE_PORT",
        "REMOTE_USER",
        "REQUEST_METHOD",
        "REQUEST_SCHEME",
        "REQUEST_URI",
        "SCRIPT_NAME",
        "SERVER_ADDR",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
    }
)
_FAMILIES = ("HTTP_", "SSL_", "TLS_", "GEMINI_", "TITAN_")

#: Names of those families that libraries take for settings of their own: the proxy of outgoing requests (httpoxy,
#: CVE-2016-5385), the certificates that OpenSSL trusts.
_NEVER = frozenset({"HTTP_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"})

#: The web server has dealt with these (RFC 3875 section 4.1.18): passwords are no business of programs.
_CREDENTIALS = frozenset({"HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"})

#: What a program may rely on (RFC 3875 section 4.1), for requests that come without. No REMOTE_ADDR at all would pass
#: for a call from the command line, and a loopback address for one from the next room: this is nobody's address.
_DEFAULTS = {
    "REMOTE_ADDR": "0.0.0.0",
    "SERVER_NAME": "localhost",
    "SERVER_PROTOCOL": "HTTP/1.0",
    "SERVER_SOFTWARE": "gateways",
    # Not CGI's: php-cgi does not run without. It tells that a web server has chosen the program, not the client.
    "REDIRECT_STATUS": "200",
}


def program_environment(
    environ: Mapping[str, str], host: Mapping[str, str], *, pass_authorization: bool = False
) -> dict[str, str]:
    """The environment of a CGI program: a few variables of the host's own, and the meta-variables of a request.

    Both are chosen by name, so that no request sets LD_PRELOAD, PATH or PYTHONPATH, and no secret of the host gets out.
    ``pass_authorization`` lets the client's password in as well.
    """
    chosen = {name: value for name, value in host.items() if name in _OF_THE_HOST or name.startswith("LC_")}
    never = _NEVER if pass_authorization else _NEVER | _CREDENTIALS
    for name, value in environ.items():
        if name in _OF_THE_REQUEST or (name.startswith(_FAMILIES) and name not in never):
            chosen[name] = value
    if chosen.get("CONTENT_LENGTH") == "0" and environ.get("REQUEST_METHOD") in ("GET", "HEAD"):
        del chosen["CONTENT_LENGTH"]  # section 4.1.2: only with a body, but SCGI always has one, and so has lighttpd
    for name, value in _DEFAULTS.items():
        chosen.setdefault(name, value)
    chosen.setdefault("SERVER_PORT", "443" if scheme(chosen) == "https" else "80")
    chosen["GATEWAY_INTERFACE"] = "CGI/1.1"
    return chosen


class ClientConnection:
    """One run of a CGI program; see :class:`gateways.events.ClientConnection` for the interface.

    It carries one request, whose stream_id is 0: the environment goes its own way, the body is stdin as it is, the
    answer is stdout. The answer is complete when stdout has ended *and* the program has, with status 0.
    """

    first_id = 0

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.reusable = False
        self._limits = Limits() if limits is None else limits
        #: The head so far; None once it is parsed.
        self._head: bytearray | None = bytearray()
        self._ended = False
        self._status: int | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<cgi.ClientConnection {'over' if self._over else 'running'}>"

    # --- what goes out

    def send_request(
        self,
        stream_id: int,
        environ: Mapping[str, str] | Iterable[tuple[str, str]],
        *,
        role: str = "responder",
        keep_connection: bool = False,
    ) -> bytes:
        """Nothing: the environment is no part of the stream. ``keep_connection`` is a wish that CGI cannot grant.

        Raises LocalProtocolError for another role than "responder" and for what the environment of a process cannot
        hold: anything but text, NUL, a name that is empty or has "=" in it.
        """
        if role != "responder":
            raise LocalProtocolError(f"CGI has no role {role!r}, only responder")
        for name, value in as_pairs(environ):
            if not isinstance(name, str) or not isinstance(value, str):
                raise LocalProtocolError(f"names and values are text: {name!r} is {value!r}")
            if not name or "=" in name or "\0" in name + value:
                raise LocalProtocolError(f"the environment of a process cannot hold {name!r} with the value {value!r}")
        return b""

    def send_body(self, stream_id: int, data: bytes) -> bytes:
        """The data as it is."""
        return data

    def end_body(self, stream_id: int) -> bytes:
        """Nothing: closing stdin says it."""
        return b""

    def abort(self, stream_id: int) -> bytes:
        """Nothing: a signal says it."""
        return b""

    # --- what comes in

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from stdout; ``b""`` is its end. What is no CGI response is a ConnectionFailed with status 502."""
        if self._over:
            return []
        if not data:
            self._ended = True
            return self._end()
        if self._head is None:
            return [BodyReceived(0, data)]
        self._head += data
        try:
            return self._read_head(self._head)
        except RemoteProtocolError as error:
            return self._fail(error)

    def exited(self, status: int) -> list[ClientEvent]:
        """Take the exit status of the program, or minus the number of the signal that ended it."""
        self._status = status
        return self._end()

    def _read_head(self, head: bytearray) -> list[ClientEvent]:
        found = parse_head(head, self._limits.max_head)
        if found is None:
            return []
        status, reason, headers, end = found
        self._head = None
        events: list[ClientEvent] = [HeadReceived(0, status, reason, headers)]
        if end < len(head):
            events.append(BodyReceived(0, bytes(head[end:])))
        return events

    def _end(self) -> list[ClientEvent]:
        if self._over or not self._ended or self._status is None:
            return []
        if self._status:
            how = f"exit status {self._status}" if self._status > 0 else f"signal {-self._status}"
            return self._fail(RemoteProtocolError(f"the program ended with {how}", status=502))
        if self._head is not None:
            said = f"after {len(self._head)} bytes of a response head" if self._head else "without an answer"
            return self._fail(RemoteProtocolError(f"the program ended {said}", status=502))
        self._over = True
        return [ResponseEnded(0)]

    def _fail(self, error: RemoteProtocolError) -> list[ClientEvent]:
        self._over = True
        return [ConnectionFailed(error)]
