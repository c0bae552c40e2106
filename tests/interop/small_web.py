"""Real servers of Gemini, Titan and Gopher, each in the configuration that ``gateways config`` prints; and clients.

The configuration is pasted as it is, but for the paths of the machine that it is meant for. The clients are strict:
what a client of the small web could not read is an error here.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import trustme

from tests.cli import program
from tests.interop import small_web_site
from tests.interop.configurations import Configuration
from tests.interop.servers import SERVER_NAME, FrontEnd, _process, free_port, private_folder, python_script, require

#: Seconds until a test gives up; only a failing one ever takes so long.
PATIENCE = 20.0

#: The programs that pip puts beside Python.
BIN = Path(sys.executable).parent


@attrs.frozen
class Server:
    """One way to serve the site: a server and a protocol. ``network`` is "gemini" or "gopher"."""

    name: str
    protocol: str
    network: str
    mount: str
    needs: tuple[str, ...]
    command: Callable[[Path, int], list[str]]  #: of the folder and the port

    def __str__(self) -> str:
        return f"{self.name}-{self.protocol}"


def _jetforce(folder: Path, _port: int) -> list[str]:
    unit = (folder / "server.conf").read_text().replace("\\\n", " ")
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return str(command).split()


def _gophernicus(folder: Path, port: int) -> list[str]:
    [options] = re.findall(r"^OPTIONS=(.*)$", (folder / "server.conf").read_text(), re.MULTILINE)
    # What Debian's socket unit does. No shared memory and no syslog; and it refuses to be root otherwise.
    extra = ["-nm", "-ns", *(["-nr"] if os.geteuid() == 0 else [])]
    listener = ["systemd-socket-activate", "--accept", "--inetd", f"--listen=127.0.0.1:{port}"]
    return [*listener, "/usr/sbin/gophernicus", *options.split(), *extra]


MOLLY_SCGI = Server(
    *("molly-brown", "scgi", "gemini", "/app"),
    ("molly-brown",),
    lambda folder, _: ["molly-brown", "-c", f"{folder}/server.conf"],
)
MOLLY_CGI = attrs.evolve(MOLLY_SCGI, protocol="cgi", mount="/cgi-bin/app")
JETFORCE = Server("jetforce", "cgi", "gemini", "/cgi-bin/app", (str(BIN / "jetforce"),), _jetforce)
GMCAPSULE = Server(
    *("gmcapsule", "cgi", "gemini", "/app"),
    (str(BIN / "gmcapsuled"),),
    lambda folder, _: [str(BIN / "gmcapsuled"), "-c", f"{folder}/server.conf"],
)
GOPHERNICUS = Server(
    *("gophernicus", "cgi", "gopher", "/cgi-bin/app"),
    ("/usr/sbin/gophernicus", "systemd-socket-activate"),
    _gophernicus,
)
PYGOPHERD = Server(
    *("pygopherd", "cgi", "gopher", "/cgi-bin/app"),
    ("pygopherd",),
    lambda folder, _: ["pygopherd", f"{folder}/server.conf"],
)

GEMINI = (MOLLY_SCGI, MOLLY_CGI, JETFORCE, GMCAPSULE)
GOPHER = (GOPHERNICUS, PYGOPHERD)
SERVERS = (*GEMINI, *GOPHER)


# --- certificates


class Identities:
    """The certificate of the server, and those of three clients, which nobody but their owners has signed."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.fingerprints: dict[str, str] = {}
        for name in ("alice", "bob", "eve"):
            # Eve says that she is alice: a name proves nothing.
            shown = trustme.CA().issue_cert(f"{name}@example.org", common_name="alice" if name == "eve" else name)
            file = folder / f"{name}.pem"
            shown.private_key_and_cert_chain_pem.write_to_path(file)
            self.files[name] = file
            der = ssl.PEM_cert_to_DER_cert(shown.cert_chain_pems[0].bytes().decode())
            self.fingerprints[name] = hashlib.sha256(der).hexdigest()
        self._site = self._authority.issue_cert(SERVER_NAME)

    def write(self, certificate: Path, key: Path) -> None:
        """Put the server's certificate where a configuration wants it."""
        for path, pems in ((certificate, self._site.cert_chain_pems), (key, [self._site.private_key_pem])):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(pem.bytes() for pem in pems))
            path.chmod(0o600)

    def context(self, who: str | None) -> ssl.SSLContext:
        """A client's side of TLS: it knows the server, and shows its own certificate, if it has one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._authority.configure_trust(context)
        if who is not None:
            context.load_cert_chain(self.files[who])
        return context


# --- running


@attrs.frozen(eq=False)
class Capsule:
    """A server that runs, with the site behind it."""

    server: Server
    folder: Path
    port: int
    web: FrontEnd
    identities: Identities | None
    #: ``gateways serve``, where it is not a script that answers.
    backend: program.Program | None

    # --- Gemini and Titan

    def url(self, path: str, scheme: str = "gemini") -> str:
        return f"{scheme}://{SERVER_NAME}:{self.port}{self.server.mount}{path}"

    def connect(self, who: str | None = None) -> ssl.SSLSocket:
        assert self.identities is not None
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        try:
            return self.identities.context(who).wrap_socket(
                plain, server_hostname=SERVER_NAME, suppress_ragged_eofs=False
            )
        except BaseException:
            plain.close()
            raise

    def ask(self, path: str = "", who: str | None = None, *, url: str | None = None, body: bytes = b"") -> Said:
        """One request over Gemini, or over Titan if the URL says so, with what is uploaded."""
        with self.connect(who) as stream:
            stream.sendall((url or self.url(path)).encode() + b"\r\n" + body)
            return read_gemini(read_all(stream))

    # --- Gopher

    def select(self, page: str = "", search: str | None = None) -> bytes:
        """What one selector gives. What is below a script stands behind a question mark."""
        selector = self.server.mount + (f"?{page}" if page else "")
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as stream:
            stream.sendall((selector if search is None else f"{selector}\t{search}").encode() + b"\r\n")
            return read_all(stream)

    def open_gate(self) -> None:
        """Let /stream go on: waits until it is at the gate."""
        with open(self.folder / "gate", "wb"):
            pass


@contextmanager
def capsule(
    server: Server,
    *,
    app: Path = Path(small_web_site.__file__),
    variables: Mapping[str, str] | None = None,
    script: Callable[[str, Path], str] | None = None,
) -> Generator[Capsule, None, None]:
    """Run a server in the configuration that ``gateways config`` prints for it, with the site or another app behind it.

    ``variables`` are for the environment of the application, with {folder} in them. ``script`` makes the text of the
    CGI script from that configuration and the folder. Skips or fails the test, as ``require`` does, if the server is
    not installed.
    """
    require(*server.needs)
    with private_folder() as folder:
        port = free_port()
        identities = Identities(folder) if server.network == "gemini" else None
        environ = {name: value.format(folder=folder) for name, value in (variables or {}).items()}
        site = app.read_text().replace('FOLDER = ""', f"FOLDER = {str(folder)!r}")
        (folder / "app.py").write_text(site)
        names = [] if identities is None else [identities.fingerprints[name] for name in ("alice", "bob")]
        (folder / "allowed").write_text("\n".join(names))
        os.mkfifo(folder / "gate")
        text = configuration(server, folder, port)
        (folder / "server.conf").write_text(text)
        if identities is not None:
            _write_certificates(server, folder, identities)
        if server.protocol == "cgi":
            place = _script(server, folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(script(text, folder) if script else _quick_script(server, folder, environ))
            place.chmod(0o755)
        about = Configuration(str(server), server.name, server.protocol, "", server.mount, None, None, "")
        web = FrontEnd(about, folder, port, None)
        try:
            with (
                _process(server.command(folder, port), web) as group,
                _backend(server, folder, text, environ) as backend,
            ):
                yield Capsule(server, folder, port, attrs.evolve(web, group=group), identities, backend)
        except Exception as error:
            error.add_note(f"error log of {server}:\n{web.error_log()}")
            raise


def configuration(server: Server, folder: Path, port: int) -> str:
    """What ``gateways config`` prints for a server, with the paths of a folder in it."""
    bind = f"cgi:{_script(server, folder)}" if server.protocol == "cgi" else f"scgi:unix:{folder}/app.sock"
    listen = str(port) if server.name in ("molly-brown", "gophernicus") else f"127.0.0.1:{port}"
    words = [server.name, "app.py", "--bind", bind, "--mount", server.mount, "--server-name", SERVER_NAME]
    words += ["--listen", listen, "--app-dir", str(folder), "--program", str(BIN / "gateways"), "--max-body", "100000"]
    printed = program.run("config", *words, cwd=folder)
    assert printed.returncode == 0, printed.stderr
    text = printed.stdout
    for place in ("/etc/molly-brown/certs", "/etc/jetforce", "/etc/gmcapsule/certs"):
        text = text.replace(place, f"{folder}/certs")
    text = text.replace("/var/lib/molly-brown", f"{folder}/htdocs")
    return text.replace("logmethod = syslog", "logmethod = none").replace("--socket-group ssl-cert ", "")


def _script(server: Server, folder: Path) -> Path:
    return folder / "app.cgi" if server.name == GMCAPSULE.name else Path(f"{folder}/htdocs{server.mount}")


def _quick_script(server: Server, folder: Path, environ: Mapping[str, str]) -> str:
    """A script that starts faster than the one that the configuration shows."""
    lines = [
        "import os",
        f"os.environ.update({dict(environ)!r})",
        f"sys.path.insert(0, {str(folder)!r})",
        "import gateways.cgi",
        "from app import app",
        f"gateways.cgi.run(app, mount={server.mount if server.network == 'gemini' else None!r})",
    ]
    return python_script("\n".join(lines) + "\n")


def _write_certificates(server: Server, folder: Path, identities: Identities) -> None:
    if server.name == GMCAPSULE.name:
        place = folder / "certs" / SERVER_NAME
        identities.write(place / "cert.pem", place / "key.pem")
    else:
        identities.write(folder / f"certs/{SERVER_NAME}.crt", folder / f"certs/{SERVER_NAME}.key")


@contextmanager
def _backend(
    server: Server, folder: Path, text: str, environ: Mapping[str, str]
) -> Generator[program.Program | None, None, None]:
    """Run the very ``gateways serve`` that the configuration names in its first lines."""
    if server.protocol == "cgi":
        yield None
        return
    [words] = re.findall(r"^#   gateways serve (.*)$", text, re.MULTILINE)
    with program.serving(*words.split(), cwd=folder, env=program.environment(environ)) as served:
        yield served


# --- reading


@attrs.frozen
class Said:
    """An answer of Gemini: two digits, one line, and a body behind a 2."""

    code: int
    meta: str
    body: bytes = b""


def read_all(stream: socket.socket) -> bytes:
    data = b""
    while piece := stream.recv(65536):
        data += piece
    return data


def read_gemini(data: bytes) -> Said:
    """An answer of Gemini, by the letter. Raises AssertionError for everything else."""
    line, end, body = data.partition(b"\r\n")
    assert end, f"no line: {data[:200]!r}"
    assert re.fullmatch(rb"[1-6][0-9] [^\x00-\x1f\x7f]+", line), f"not a line of Gemini: {line[:200]!r}"
    assert len(line) <= 1027
    assert line.startswith(b"2") or not body, f"a body behind {line[:200]!r}: {body[:200]!r}"
    return Said(int(line[:2]), line[3:].decode(), body)


def read_text(data: bytes) -> list[str]:
    """The lines of a text or menu of Gopher. Raises AssertionError for what does not end as they do."""
    assert data.endswith(b".\r\n"), data[-200:]
    text = data.decode()
    assert "\n" not in text.replace("\r\n", "")
    *lines, period, rest = text.split("\r\n")
    assert (period, rest) == (".", "")
    return [line[1:] if line.startswith("..") else line for line in lines]
