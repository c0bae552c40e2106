"""A server of Gemini and Titan for development: ``gateways dev APP --gemini PORT``.

It is to Gemini what ``gateways.http`` is to HTTP, a server in front that needs no setting up. Requests go on to the
application over SCGI, FastCGI or CGI with the variables that servers of Gemini have in common, and what comes back is
read as strictly as the strictest of them does it: whatever is answered here, gmid and molly-brown take too.
"""

import ipaddress
import os
import re
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from subprocess import PIPE
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateways import LocalProtocolError, fastcgi, scgi
from gateways.cli.running import say
from gateways.cli.tls import TlsFailed, TlsStream, is_valid_now, server_context

__all__ = ["Way", "over_cgi", "over_socket", "serve"]

#: Hands a request on: the variables and the body, and what takes the answer piece by piece.
Way = Callable[[Mapping[str, str], bytes, Callable[[bytes], Awaitable[None]]], Awaitable[None]]

_SOFTWARE = "gateways/dev"
_PORT = 1965
#: The longest URL (Gemini section "Requests").
_MAX_URL = 1024
#: The first line of an answer, with its end: GmCapsule takes no longer one.
_MAX_LINE = 1023
_MAX_UPLOAD = 16_777_216
#: Seconds that a client may take to say what it wants, to send an upload, and to read the last of an answer.
_PATIENCE = 30.0

_PRINTABLE = re.compile(rb"[!-~]*\Z")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LINE = re.compile(rb"[1-6][0-9] [^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*\Z")


class _Refused(Exception):
    """A request that the server in front answers by itself."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.line = f"{code} {text}\r\n".encode()


class _Broken(Exception):
    """An answer of the application that no server in front would pass on, or not to its end."""


# --- the server


async def serve(
    way: Way,
    host: str,
    port: int,
    identity: bytes,
    *,
    task_status: "trio.TaskStatus[list[str]]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; ``started`` hands out the addresses. ``identity`` is a key and a certificate, as PEM.

    Raises OSError for an address that cannot be had.
    """
    context = server_context(identity)
    listeners = await trio.open_tcp_listeners(port, host=host)
    names = _names(host)

    async def handler(stream: trio.SocketStream) -> None:
        try:
            await _answer(way, TlsStream(stream, context), stream.socket, names)
        except (TlsFailed, OSError) as error:
            say(f"gateways: gemini: {error}")

    found = [_authority(*each.socket.getsockname()[:2]) for each in listeners]
    await trio.serve_listeners(handler, listeners, task_status=_Renamed(task_status, found))  # type: ignore[arg-type]


class _Renamed:
    """A task status that hands out something else."""

    def __init__(self, status: "trio.TaskStatus[list[str]]", value: list[str]) -> None:
        self._status = status
        self._value = value

    def started(self, _: object) -> None:
        self._status.started(self._value)


def _names(host: str) -> frozenset[str] | None:
    """The hosts that URLs may name; None for all of them, where we listen on every address that there is."""
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return None
    except ValueError:
        pass
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()})


def _authority(host: str, port: int) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == _PORT else f"{host}:{port}"


async def _answer(way: Way, tls: TlsStream, socket: trio.socket.SocketType, names: frozenset[str] | None) -> None:
    """Serve one connection, which is one request."""
    try:
        with trio.fail_after(_PATIENCE):
            await tls.handshake()
            reader = _Reader(tls)
            request = _Request.read(await reader.line(), names, socket.getsockname()[1])
            body = await reader.exactly(request.size)
        shown = _certificate_variables(tls)
    except trio.TooSlowError:
        return
    except _Refused as refused:
        await tls.send_all(refused.line)
    else:
        environ = {**request.variables(), **_connection_variables(socket, tls), **shown}
        if not await _pass_on(way, environ, body, tls):
            return  # without a goodbye: what the client has is not the whole
    with trio.move_on_after(_PATIENCE), suppress(TlsFailed):
        await tls.say_goodbye()
        # Closed with bytes unread, the connection would be reset, and the answer lost.
        while await tls.receive_some():
            pass


async def _pass_on(way: Way, environ: Mapping[str, str], body: bytes, tls: TlsStream) -> bool:
    """Have the application answer; whether the answer is complete. Cancelled when the client leaves."""
    relay = _Relay(tls)
    complete = False
    async with _nursery() as nursery:
        nursery.start_soon(_watch, tls, nursery.cancel_scope)
        try:
            await way(environ, body, relay.take)
            relay.end()
            complete = True
        except (_Broken, LocalProtocolError, OSError, trio.BrokenResourceError) as error:
            say(f"gateways: gemini: {environ.get('GEMINI_URL') or environ.get('TITAN_URL')}: {error}")
            if not relay.begun:
                await tls.send_all(b"42 This was no answer for a server of Gemini: see the terminal\r\n")
                complete = True
        nursery.cancel_scope.cancel()
    return complete


async def _watch(tls: TlsStream, scope: trio.CancelScope) -> None:
    """Cancel when the client leaves. One that only says that it is done may still be reading."""
    try:
        while await tls.receive_some():
            pass
    except TlsFailed:
        pass
    if not tls.ended:
        scope.cancel()


# --- requests


class _Reader:
    """Reads a request from its connection, never more than it may have."""

    def __init__(self, tls: TlsStream) -> None:
        self._tls = tls
        self._buffer = b""

    async def line(self) -> bytes:
        """The first line, without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0 and len(self._buffer) < _MAX_URL + 2:
            data = await self._tls.receive_some()
            if not data:
                raise TlsFailed("a client left before the end of its request")
            self._buffer += data
        if not 0 <= end <= _MAX_URL:
            raise _Refused(59, f"A URL has {_MAX_URL} bytes at most")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    async def exactly(self, size: int) -> bytes:
        """The bytes that follow the line."""
        body = bytearray(self._buffer[:size])
        while len(body) < size:
            data = await self._tls.receive_some()
            if not data:
                raise TlsFailed("a client left in the middle of its upload")
            body += data
        return bytes(body[:size])


@attrs.frozen
class _Request:
    """The URL that a client has sent, taken apart."""

    url: str
    parts: SplitResult
    port: int
    path: str
    parameters: Mapping[str, str]
    size: int

    @classmethod
    def read(cls, line: bytes, names: frozenset[str] | None, port: int) -> "_Request":
        """Raises _Refused for what is no URL, and for one that leads elsewhere."""
        parts, asked_port = _split(line)
        if parts.scheme not in ("gemini", "titan"):
            raise _Refused(53, "This server speaks Gemini and Titan, and asks nobody else")
        if asked_port != port or (names is not None and parts.hostname not in names):
            raise _Refused(53, "This server does not go by that name and port")
        path, parameters = parts.path, {}
        if parts.scheme == "titan":
            path, *given = path.split(";")
            parameters = {key: value for key, _, value in (each.partition("=") for each in given)}
        return cls(line.decode("ascii"), parts, port, path or "/", parameters, _size(parts.scheme, parameters))

    def variables(self) -> dict[str, str]:
        """What Gemini's servers tell of a request, and Titan's."""
        host = self.parts.hostname or ""
        shared = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": _SOFTWARE,
            "SERVER_PROTOCOL": "GEMINI",
            "SERVER_NAME": f"[{host}]" if ":" in host else host,
            "SERVER_PORT": str(self.port),
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(self.path, errors="surrogateescape"),
            "QUERY_STRING": self.parts.query,
        }
        if self.parts.scheme == "gemini":
            return {**shared, "REQUEST_METHOD": "GET", "GEMINI_URL": self.url, "GEMINI_URL_PATH": self.path}
        question, query = ("?" if "?" in self.url else ""), self.parts.query
        where = f"://{self.parts.netloc}{self.path}{question}{query}"
        if "edit" in self.parameters:
            # GmCapsule, whose client this is for, asks as if it were over Gemini.
            own = {"GEMINI_URL": f"gemini{where}", "GEMINI_URL_PATH": self.path, "TITAN_EDIT": "1"}
            return {**shared, "REQUEST_METHOD": "GET", **own}
        return {
            **shared,
            "SERVER_PROTOCOL": "TITAN",
            "TITAN_URL": f"titan{where}",
            "TITAN_URL_PATH": self.path,
            "CONTENT_LENGTH": str(self.size),
            "CONTENT_TYPE": unquote(self.parameters.get("mime", "")) or "text/gemini",
            **({"TITAN_TOKEN": self.parameters["token"]} if self.parameters.get("token") else {}),
        }


def _split(line: bytes) -> tuple[SplitResult, int]:
    """A request line as a URL, and its port. Raises _Refused."""
    url = line.decode("ascii", "replace")
    try:
        parts = urlsplit(url)
        port = _PORT if parts.port is None else parts.port
    except ValueError:
        raise _Refused(59, "This is no URL") from None
    if not _PRINTABLE.match(line) or not parts.scheme or not parts.netloc:
        raise _Refused(59, "This is no absolute URL in ASCII")
    if "@" in parts.netloc or "#" in url:
        raise _Refused(59, "A URL is sent without a user and without a fragment")
    if not parts.hostname or _BROKEN_ESCAPE.search(url) or "%00" in url:
        raise _Refused(59, "This is no URL")
    return parts, port


def _size(scheme: str, parameters: Mapping[str, str]) -> int:
    if scheme == "gemini" or "edit" in parameters:
        return 0
    size = parameters.get("size", "")
    if not (size.isascii() and size.isdigit()):
        raise _Refused(59, "An upload says its size: titan://host/path;size=5;mime=text/plain")
    if len(size) > 9 or int(size) > _MAX_UPLOAD:
        raise _Refused(59, f"An upload has {_MAX_UPLOAD} bytes at most here")
    return int(size)


def _connection_variables(socket: trio.socket.SocketType, tls: TlsStream) -> dict[str, str]:
    address, port = socket.getpeername()[:2]
    return {
        "REMOTE_ADDR": address,
        "REMOTE_HOST": address,
        "REMOTE_PORT": str(port),
        "TLS_VERSION": tls.version,
        "TLS_CIPHER": tls.cipher,
    }


def _certificate_variables(tls: TlsStream) -> dict[str, str]:
    """What is told of the client's certificate. Raises _Refused for one that is not valid now, or is none."""
    try:
        certificate = tls.certificate
        if certificate is None:
            return {}
        if not is_valid_now(certificate):
            raise _Refused(62, "This certificate has expired, or is not valid yet")
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = _value(names[0].value) if names else ""
        subject, issuer = certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
    except (ValueError, x509.InvalidVersion):
        raise _Refused(62, "This certificate cannot be read") from None
    return {
        "AUTH_TYPE": "CERTIFICATE",
        "REMOTE_USER": name,
        "TLS_CLIENT_HASH": f"SHA256:{certificate.fingerprint(hashes.SHA256()).hex()}",
        "TLS_CLIENT_SUBJECT": _value(subject),
        "TLS_CLIENT_SUBJECT_CN": name,
        "TLS_CLIENT_ISSUER": _value(issuer),
        "TLS_CLIENT_NOT_BEFORE": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "TLS_CLIENT_NOT_AFTER": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    }


def _value(text: str | bytes) -> str:
    """A part of a name as a variable can hold it: it may be bytes, and have a NUL in it."""
    return (text if isinstance(text, str) else text.decode("utf-8", "replace")).replace("\0", "?")


# --- answers


class _Relay:
    """Passes an answer on to the client, as far as it is one."""

    def __init__(self, tls: TlsStream) -> None:
        #: Whether anything of it was passed on.
        self.begun = False
        self._tls = tls
        self._start = b""
        self._with_body = False

    async def take(self, data: bytes) -> None:
        """The next bytes of the answer. Raises _Broken."""
        if self.begun:
            await self._pass(data)
            return
        self._start += data
        end = self._start.find(b"\r\n", 0, _MAX_LINE)
        if end < 0:
            if len(self._start) >= _MAX_LINE:
                raise _Broken(f"no end of the first line in {_MAX_LINE} bytes: {self._start[:80]!r}")
            return
        line = self._start[:end]
        if not _LINE.match(line):
            raise _Broken(f"an answer begins with two digits, a space and a text, not with {line[:80]!r}")
        self.begun = True
        self._with_body = line.startswith(b"2")
        if self._with_body:
            await self._pass(self._start)
        else:
            await self._tls.send_all(self._start[: end + 2])
            await self._pass(self._start[end + 2 :])

    async def _pass(self, data: bytes) -> None:
        if data and not self._with_body:
            raise _Broken(f"only an answer that begins with 2 has a body: {data[:80]!r}")
        await self._tls.send_all(data)

    def end(self) -> None:
        """There is no more of it. Raises _Broken."""
        if not self.begun:
            raise _Broken(f"the answer ended without a first line: {self._start[:80]!r}")


def over_socket(protocol: str, path: str) -> Way:
    """The way over FastCGI or SCGI, to a unix socket."""
    return partial({"fastcgi": _over_fastcgi, "scgi": _over_scgi}[protocol], path)


async def _over_scgi(
    path: str, environ: Mapping[str, str], body: bytes, take: Callable[[bytes], Awaitable[None]]
) -> None:
    client = scgi.ClientConnection()
    request = client.send_request(0, environ) + client.send_body(0, body) + client.end_body(0)
    stream = await trio.open_unix_socket(path)
    async with stream, _nursery() as nursery:
        nursery.start_soon(_send, stream, request)
        while data := bytes(await stream.receive_some()):
            await take(data)
        nursery.cancel_scope.cancel()


async def _over_fastcgi(
    path: str, environ: Mapping[str, str], body: bytes, take: Callable[[bytes], Awaitable[None]]
) -> None:
    # The answer is no CGI response, so it is read by hand: FastCGI 1.0 sections 3.3 and 8.
    client = fastcgi.ClientConnection()
    request = client.send_request(1, environ) + client.send_body(1, body) + client.end_body(1)
    stream = await trio.open_unix_socket(path)
    received = b""
    async with stream, _nursery() as nursery:
        nursery.start_soon(_send, stream, request)
        while True:
            data = bytes(await stream.receive_some())
            if not data:
                raise _Broken("the connection ended before FCGI_END_REQUEST")
            received += data
            while len(received) >= 8:
                _, kind, _, length, padding = struct.unpack(">BBHHBx", received[:8])
                if len(received) < 8 + length + padding:
                    break
                content, received = received[8 : 8 + length], received[8 + length + padding :]
                if kind == 6:  # STDOUT
                    await take(content)
                elif kind == 7:  # STDERR
                    say(content.decode("utf-8", "backslashreplace").rstrip("\n"))
                elif kind == 3:  # END_REQUEST
                    if any(content[:5]):
                        raise _Broken("the application says that it has failed (FCGI_END_REQUEST)")
                    nursery.cancel_scope.cancel()
                    return


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # it answers without having read everything


def over_cgi(command: Sequence[str], environ: Mapping[str, str]) -> Way:
    """The way over CGI: the command is run for each request, with these variables besides the request's."""

    async def way(variables: Mapping[str, str], body: bytes, take: Callable[[bytes], Awaitable[None]]) -> None:
        encoded = {
            os.fsencode(name): value.encode("utf-8", "surrogateescape")
            for name, value in {**environ, **variables}.items()
        }
        async with _nursery() as nursery:
            run = cast("Any", partial)(
                trio.run_process, list(command), stdin=body, stdout=PIPE, env=encoded, check=False
            )
            process: trio.Process = await nursery.start(run)
            output = process.stdout
            if output is not None:  # which it is not
                while data := bytes(await output.receive_some()):
                    await take(data)
        if process.returncode:
            raise _Broken(f"the script ended with status {process.returncode}")

    return way


@asynccontextmanager
async def _nursery() -> "AsyncGenerator[trio.Nursery, None]":
    """A nursery out of which an error comes as it is."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = list(group.exceptions)
        if len(errors) > 1:
            raise
        raise errors[0] from errors[0].__cause__
