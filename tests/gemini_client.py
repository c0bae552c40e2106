"""A strict client of Gemini and Titan by Python's own ssl, certificates for it, and one that asks in memory."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateways import scgi
from gateways.testing import serving
from tests.model.dialects import strict_gemini

PATIENCE = 30.0


@attrs.frozen
class Answer:
    """What a client got; ``complete`` is whether the server said that it was all."""

    code: int
    meta: str
    body: bytes
    complete: bool = True

    @property
    def line(self) -> str:
        return f"{self.code} {self.meta}"

    @property
    def text(self) -> str:
        return self.body.decode()


@attrs.frozen
class Identity:
    """A key and the certificate for it in a file, and the SHA-256 of the certificate."""

    path: Path
    fingerprint: str


_KEYS: dict[str, Any] = {
    "ec": lambda: (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
    "rsa": lambda: (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "ed25519": lambda: (ed25519.Ed25519PrivateKey.generate(), None),
}


def identity(folder: Path, name: str | None, *, kind: str = "ec", days: int = 30) -> Identity:
    """A certificate that its owner has signed, for a name of his choice; it ends ``days`` from now."""
    key, algorithm = _KEYS[kind]()
    parts = [] if name is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(parts))
        .issuer_name(x509.Name(parts))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=100))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, algorithm)
    )
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    path = folder / f"{fingerprint[:8]}.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    return Identity(path, fingerprint)


def context(client: Identity | None = None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if version is not None:
        made.maximum_version = version
    if client is not None:
        made.load_cert_chain(client.path)
    return made


def connect(port: int, tls: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return tls.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


def received(connection: ssl.SSLSocket) -> tuple[bytes, bool]:
    """Everything up to the end, and whether the server said that this was the end (close_notify)."""
    data = b""
    try:
        while piece := connection.recv(65_536):
            data += piece
    except (ssl.SSLEOFError, ConnectionResetError):
        return data, False
    return data, True


def send(port: int, request: bytes, client: Identity | None = None, *, version: ssl.TLSVersion | None = None) -> Answer:
    """Send these bytes; the answer. Raises Refused for one that breaks a rule."""
    with connect(port, context(client, version=version)) as connection:
        connection.sendall(request)
        data, complete = received(connection)
    said = strict_gemini.read([data])
    return Answer(said.code, said.meta, said.body, complete)


def fetch(port: int, path: str, client: Identity | None = None) -> Answer:
    """Ask for a path over Gemini."""
    return send(port, f"gemini://localhost:{port}{path}\r\n".encode(), client)


def put(port: int, path: str, body: bytes, parameters: str = "", client: Identity | None = None) -> Answer:
    """Upload over Titan."""
    url = f"titan://localhost:{port}{path};size={len(body)}{parameters}\r\n"
    return send(port, url.encode() + body, client)


# --- in memory


def variables(url: str, **more: str) -> dict[str, str]:
    """The variables of a request, as most servers of Gemini send them."""
    parts = urlsplit(url)
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": parts.scheme.upper(),
        "SERVER_NAME": parts.hostname or "",
        "SERVER_PORT": str(parts.port or 1965),
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(parts.path),
        "QUERY_STRING": parts.query,
        f"{parts.scheme.upper()}_URL": url,
        **more,
    }


async def ask(
    app: Any, url: str, body: bytes = b"", *, mount: str | None = None, more: Mapping[str, str] | None = None
) -> Answer:
    """Have an application answer in this process, over SCGI."""
    client = scgi.ClientConnection()
    request = client.send_request(0, variables(url, **(more or {}))) + client.send_body(0, body) + client.end_body(0)
    async with serving(app, "scgi", mount=mount) as server:
        stream = await server.connect()
        await stream.send_all(request)
        packets: list[bytes] = []
        with trio.fail_after(PATIENCE):
            while packet := bytes(await stream.receive_some(65_536)):
                packets.append(packet)
        assert server.errors == []
    said = strict_gemini.read(packets)
    return Answer(said.code, said.meta, said.body)
