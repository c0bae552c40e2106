"""TLS for the development front end of Gemini: a certificate of our own, and streams that take any client's.

Clients of Gemini sign their certificates themselves. Python's ssl takes none that it cannot verify, so this is
pyOpenSSL, which the extra ``gemini`` installs.
"""

import datetime
import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

__all__ = ["TlsFailed", "TlsStream", "kept_identity", "new_identity", "server_context", "state_folder"]

_CHUNK = 16_384
#: Clients trust what they have seen first, for as long as it is valid.
_YEARS = datetime.timedelta(days=3650)
_FILE = "gemini.pem"


class TlsFailed(Exception):
    """A client and we do not get on over TLS."""


# --- our certificate


def state_folder() -> Path:
    """Where a program keeps what should outlast it (the XDG Base Directory Specification)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored.
    return Path(home if os.path.isabs(home) else Path.home() / ".local" / "state") / "gateways"


def kept_identity(folder: Path) -> bytes:
    """The key and certificate kept in a folder, as PEM; made anew where there are none, or none that are valid.

    Raises OSError when they cannot be kept.
    """
    path = folder / _FILE
    try:
        pem = path.read_bytes()
        if _is_valid(pem):
            return pem
    except FileNotFoundError:
        pass
    pem = new_identity()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its file is readable for us alone, and never half written.
    descriptor, temporary = tempfile.mkstemp(dir=folder)
    with open(descriptor, "wb") as file:
        file.write(pem)
    os.replace(temporary, path)
    return pem


def new_identity(*hosts: str) -> bytes:
    """A new key and the certificate for it, as PEM, for this machine by its local names and for ``hosts``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [_general_name(host) for host in ("localhost", "127.0.0.1", "::1", *hosts)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock elsewhere may be late.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_valid(pem: bytes) -> bool:
    try:
        load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return False
    return is_valid_now(certificate)


def is_valid_now(certificate: x509.Certificate) -> bool:
    """Whether it is neither too early nor too late for a certificate."""
    return certificate.not_valid_before_utc <= datetime.datetime.now(datetime.UTC) <= certificate.not_valid_after_utc


def server_context(pem: bytes) -> SSL.Context:
    """What a server needs for TLS: its identity, and that it asks for certificates and takes whichever comes."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.use_privatekey(load_pem_private_key(pem, None))  # type: ignore[arg-type]  # of the many kinds it is EC
    context.use_certificate(x509.load_pem_x509_certificate(pem))
    context.set_verify(SSL.VERIFY_PEER, _take_any)
    # A session that goes on would need the certificate kept with it.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context


def _take_any(*_: object) -> bool:
    """What is asked about each certificate. OpenSSL sees to it that the client has the key to it, whatever we say."""
    return True


# --- streams


class TlsStream:
    """The server's end of TLS on a stream. One task may receive while another sends."""

    def __init__(self, stream: trio.SocketStream, context: SSL.Context) -> None:
        self._stream = stream
        self._tls = SSL.Connection(context, None)
        self._tls.set_accept_state()
        self._sending = trio.Lock()
        #: Whether the client has said that nothing more comes from it.
        self.ended = False

    async def handshake(self) -> None:
        """Agree on keys. Raises TlsFailed where the two cannot, and for a client that leaves."""
        while True:
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                await self._flush()
                if not await self._receive():
                    raise TlsFailed("the client left before TLS was agreed on") from None
            except SSL.Error as error:
                await self._flush()  # the alert that says why
                raise TlsFailed(f"no TLS: {_reason(error)}") from error
            else:
                await self._flush()
                return

    async def receive_some(self) -> bytes:
        """Some bytes; ``b""`` at the end. Raises TlsFailed for bytes that are no TLS, and a connection that broke."""
        while True:
            try:
                return self._tls.recv(_CHUNK)
            except SSL.WantReadError:
                await self._flush()
                if not await self._receive():
                    return b""
            except SSL.ZeroReturnError:
                self.ended = True
                return b""
            except SSL.Error as error:
                raise TlsFailed(f"TLS broke: {_reason(error)}") from error

    async def send_all(self, data: bytes) -> None:
        """Send all of it. Raises TlsFailed when the client has left."""
        for start in range(0, len(data), _CHUNK):
            self._tls.send(data[start : start + _CHUNK])
            await self._flush()

    async def say_goodbye(self) -> None:
        """Say that what was sent is complete (close_notify)."""
        try:
            self._tls.shutdown()
        except SSL.Error:
            return  # TLS was never agreed on, or broke
        await self._flush()
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    @property
    def certificate(self) -> x509.Certificate | None:
        """The client's certificate, signed by whomever."""
        return self._tls.get_peer_certificate(as_cryptography=True)

    @property
    def version(self) -> str:
        """What was agreed on, such as "TLSv1.3"."""
        return self._tls.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        """The cipher in use."""
        return self._tls.get_cipher_name() or ""

    async def _receive(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(_CHUNK))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TlsFailed("the connection broke") from error
        if data:
            self._tls.bio_write(data)
        return data

    async def _flush(self) -> None:
        async with self._sending:
            while True:
                try:
                    data = self._tls.bio_read(_CHUNK)
                except SSL.WantReadError:
                    return  # nothing is left
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise TlsFailed("the client has left") from error


def _reason(error: SSL.Error) -> str:
    """What OpenSSL says in its last words: it has a list of (library, function, reason)."""
    found: Any = error.args[0] if error.args else None
    return str(found[-1][-1]) if found else type(error).__name__
