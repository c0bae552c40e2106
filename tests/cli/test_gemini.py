"""``gateways dev --gemini``: a server of Gemini and Titan in front of any application, and a strict client."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import Request
from gateways.cli import gemini, tls
from gateways.cli.errorpage import is_meta_variable
from tests.cli.program import Program, command, environment, get, poll, run
from tests.gemini_client import Identity, connect, context, fetch, identity, put, received, send
from tests.model.dialects import strict_gemini

WAYS = (None, "fastcgi", "scgi", "cgi")

APP = """\
import trio
from gateways import Reject, Response

async def app(request):
    match request.path_info:
        case "/environ":
            return Response.json(dict(request.environ))
        case "/boom":
            raise ValueError("first line\\nsecond")
        case "/reject":
            raise Reject(404, "no such page")
        case "/ask":
            text = await request.input()
            return Response.input("Name?") if text is None else Response(f"[{text}]")
        case "/large":
            return Response(b"x" * 3_000_000, content_type="application/octet-stream")
        case "/private":
            seen = request.client_certificate
            return Response(seen.fingerprint) if seen else Response.certificate_required("Who are you?")
        case "/breaks":
            async def body(send):
                await send("some" * 100_000)
                raise ValueError("broken in the middle")
            return Response(body, content_type="text/gemini")
        case "/waits":
            async def body(send):
                await send("begun")
                try:
                    await trio.sleep_forever()
                finally:
                    request.log("the reader has left")
            return Response(body, content_type="text/gemini")
    if request.method in ("PUT", "DELETE"):
        data = await request.body.read()
        token = request.environ.get("TITAN_TOKEN")
        return Response.json([request.method, request.path, request.content_type, token, data.decode()])
    return Response(f"{request.method} {request.script_name}|{request.path_info} {request.query_string}")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capsule")
    (path / "capsule.py").write_text(APP)
    return path


@contextmanager
def capsule(folder: Path, *arguments: str, state: str | None = None) -> Generator[tuple[Program, int]]:
    """The program, and the port of its front end for Gemini."""
    words = command("dev", "capsule.py", *arguments, "--port", "0", "--gemini", "0")
    where = {"XDG_STATE_HOME": state or str(folder / "state"), "GEMINI_URL": "gemini://inherited/"}
    with Program(words, cwd=folder, env=environment(where)) as program:
        program.wait_for("^stop with Ctrl-C$")
        [port] = program.wait_for(r"^  gemini://127\.0\.0\.1:(\d+)/")
        yield program, int(port)


@pytest.fixture(scope="module")
def port(folder: Path) -> Generator[int]:
    with capsule(folder) as (_, port):
        yield port


# --- the way of a request


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_answers(folder: Path, tmp_path: Path, way: str | None) -> None:
    client = identity(tmp_path, "bob")
    with capsule(folder, "--mount", "/app", *([] if way is None else ["--via", way])) as (program, port):
        assert f"  gemini://127.0.0.1:{port}/app/ (via {way or 'scgi'})" in program.text.splitlines()
        web = program.wait_for(r"^  http://([^/]+)/")[-1]
        assert get(web, "/app/a").body == "GET /app|/a "
        assert fetch(port, "/app/a%20b?q=1").text == "GET /app|/a b q=1"
        assert fetch(port, "/application").code == 51
        assert fetch(port, "/app/ask").line == "10 Name?"
        assert fetch(port, "/app/ask?J%C3%BCrgen+1").text == "[Jürgen+1]"
        assert fetch(port, "/app/reject").line == "51 no such page"
        assert fetch(port, "/app/boom").line == "42 ValueError: first line second"
        assert fetch(port, "/app/private").line == "60 Who are you?"
        assert fetch(port, "/app/private", client).text == client.fingerprint
        assert fetch(port, "/app/large").body == b"x" * 3_000_000
        sent = put(port, "/app/f", b"hello", ";mime=text/plain;token=a%20b")
        assert sent.text == '["PUT", "/app/f", "text/plain", "a b", "hello"]\n'
        program.wait_for("ValueError: first line$")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_both_front_ends_show_one_application(tmp_path: Path) -> None:
    (tmp_path / "capsule.py").write_text(
        "from contextlib import asynccontextmanager\nfrom gateways import Response\n"
        "@asynccontextmanager\nasync def app():\n    seen = []\n    async def handler(request):\n"
        "        seen.append(request.scheme)\n        return Response(' '.join(seen))\n    yield handler\n"
    )
    with capsule(tmp_path) as (program, port):
        [web] = program.wait_for(r"^  http://([^/]+)/")
        assert get(web, "/").body == "http"
        assert fetch(port, "/").text == "http gemini"
        assert get(web, "/").body == "http gemini http"


def test_what_the_application_is_told(port: int, tmp_path: Path) -> None:
    client = identity(tmp_path, "Zoë, \u2603", kind="rsa")
    environ = json.loads(fetch(port, "/environ?a%2Fb", client).text)
    assert environ["GEMINI_URL"] == f"gemini://localhost:{port}/environ?a%2Fb"
    assert environ["SERVER_PROTOCOL"] == "GEMINI"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", str(port))
    assert environ["TLS_CLIENT_HASH"] == client.fingerprint
    assert environ["TLS_CLIENT_SUBJECT_CN"] == "Zoë, \u2603"
    assert environ["TLS_VERSION"] == "TLSv1.3"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert "REMOTE_USER" not in environ


@pytest.mark.parametrize("name", ["GEMINI_URL", "TITAN_TOKEN", "TLS_CLIENT_HASH", "TLS_VERSION"])
def test_what_is_the_clients_to_say_is_not_taken_from_the_environment(name: str) -> None:
    assert is_meta_variable(name)


# --- certificates of clients


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificates_of_every_kind_are_taken(port: int, tmp_path: Path, kind: str, version: ssl.TLSVersion) -> None:
    client = identity(tmp_path, None, kind=kind)
    answer = send(port, f"gemini://localhost:{port}/private\r\n".encode(), client, version=version)
    assert answer.text == client.fingerprint


def test_an_expired_certificate_is_refused(port: int, tmp_path: Path) -> None:
    assert fetch(port, "/private", identity(tmp_path, "bob", days=-1)).code == 62


def test_a_certificate_that_cannot_be_read_is_refused(port: int, tmp_path: Path) -> None:
    client = identity(tmp_path, "bob")
    version_3, version_4 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"
    changed = der(client).replace(version_3, version_4)
    key = client.path.read_text().partition("-----BEGIN CERTIFICATE")[0]
    client.path.write_text(key + ssl.DER_cert_to_PEM_cert(changed))
    assert fetch(port, "/private", client).line == "62 This certificate cannot be read"
    assert fetch(port, "/").code == 20


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60), st.from_regex(rb"(gemini|titan)://[a-z0-9.:@\[\]]{0,9}/?[!-~]{0,30}", fullmatch=True)
    )
)
def test_every_request_line_is_refused_or_understood(line: bytes) -> None:
    try:
        request = gemini._Request.read(line, None, 1965)
    except gemini._Refused as error:
        refused = error.line
    else:
        told = request.variables()
        assert told["SERVER_NAME"]
        assert Request(told, bytes(request.size if request.size < 99 else 0)).scheme in ("gemini", "titan")
        return
    assert strict_gemini.read([refused]).code in (53, 59)


def test_who_shows_a_certificate_has_the_key_to_it(folder: Path, tmp_path: Path) -> None:
    """In TLS 1.2 a client can be made to show a certificate that it has only seen."""
    mine, stolen = identity(tmp_path, "mallory"), identity(tmp_path, "alice!!")
    while len(der(mine)) != len(der(stolen)):
        stolen = identity(tmp_path, "alice!!")
    with capsule(folder) as (program, port), socket.create_connection(("127.0.0.1", port), 30) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context(mine, version=ssl.TLSVersion.TLSv1_2).wrap_bio(incoming, outgoing)
        exchanged = b""
        with pytest.raises(ssl.SSLError, match=r"DECRYPT_ERROR|decrypt error"):  # noqa: PT012
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    exchanged += (sent := outgoing.read())
                    plain.sendall(sent.replace(der(mine), der(stolen)))
                    incoming.write(plain.recv(65_536))
        assert der(mine) in exchanged
        program.wait_for("^gateways: gemini: no TLS: ")


def der(client: Identity) -> bytes:
    return ssl.PEM_cert_to_DER_cert(client.path.read_text().partition("-----END PRIVATE KEY-----\n")[2])


# --- requests that are none


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        ("gemini://localhost:PORT", 20),
        ("GEMINI://LocalHost:PORT/", 20),
        ("gemini://127.0.0.1:PORT/", 20),
        ("gemini://localhost:PORT/" + "x" * 900, 20),
        ("gemini://localhost:PORT/" + "x" * 1024, 59),
        ("gemini://localhost/", 53),
        ("gemini://example.org:PORT/", 53),
        ("https://localhost:PORT/", 53),
        ("//localhost:PORT/", 59),
        ("/", 59),
        ("", 59),
        ("gemini://user@localhost:PORT/", 59),
        ("gemini://localhost:PORT/#top", 59),
        ("gemini://localhost:PORT/%zz", 59),
        ("gemini://localhost:PORT/%00", 59),
        ("gemini://localhost:PORT/a b", 59),
        ("gemini://localhost:PORT/\tb", 59),
        ("gemini://localhost:PORT/ü", 59),
        ("gemini://localhost:99999/", 59),
        ("gemini://[::1/", 59),
        ("titan://localhost:PORT/x", 59),
        ("titan://localhost:PORT/x;size=-1", 59),
        ("titan://localhost:PORT/x;size=99999999999", 59),
        ("titan://localhost:PORT/x;size=20000000", 59),
    ],
)
def test_request_lines(port: int, request_line: str, code: int) -> None:
    answer = send(port, request_line.replace("PORT", str(port)).encode() + b"\r\n")
    assert answer.code == code
    assert answer.complete


def test_a_request_in_pieces(port: int) -> None:
    with connect(port, context()) as connection:
        for byte in f"titan://localhost:{port}/x;size=3\r\nabc".encode():
            connection.sendall(bytes([byte]))
        data, complete = received(connection)
    assert data.endswith(b'["PUT", "/x", "text/gemini", null, "abc"]\n')
    assert complete


def test_deleting_and_editing_over_titan(port: int) -> None:
    deleted = put(port, "/x", b"", ";token=secret")
    assert deleted.text == '["DELETE", "/x", "text/gemini", "secret", ""]\n'
    assert send(port, f"titan://localhost:{port}/x;edit\r\n".encode()).text == "GET |/x "


def test_a_client_that_only_says_that_it_is_done_is_answered(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context().wrap_bio(incoming, outgoing)

        def step(action: Any) -> Any:
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    if data := plain.recv(65_536):
                        incoming.write(data)
                    else:
                        incoming.write_eof()

        step(client.do_handshake)
        client.write(f"gemini://localhost:{port}/x\r\n".encode())
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()  # close_notify, while the answer is still to come
        assert step(lambda: client.read(100)) == b"20 text/plain; charset=utf-8\r\nGET |/x "


# --- answers that are none


RAW = """\
import os, sys
name = os.environ["PATH_INFO"]
os.write(1, {
    "/number": b"200 OK\\r\\n", "/empty": b"", "/blank-line": b"\\r\\n", "/bare": b"20 text/gemini\\nhello",
    "/surplus": b"51 no\\r\\nbody", "/long": b"20 " + b"x" * 2000, "/blank": b"20  \\r\\n", "/seven": b"70 x\\r\\n",
    "/longest": b"20 " + b"x" * 1018 + b"\\r\\n", "/longer": b"20 " + b"x" * 1019 + b"\\r\\n",
    "/cgi": b"Status: 200 OK\\r\\n\\r\\nhello", "/status": b"20 text/plain\\r\\nhello",
}[name])
sys.exit(name == "/status")
"""


@pytest.mark.parametrize("name", ["number", "empty", "blank-line", "bare", "long", "longer", "blank", "seven", "cgi"])
async def test_what_is_no_answer_of_gemini_is_said_to_be_none(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await raw_answer(tmp_path, name)
    assert answer == (b"42 This was no answer for a server of Gemini: see the terminal\r\n", True)
    assert f"/{name}: " in capsys.readouterr().err


async def test_the_longest_line(tmp_path: Path) -> None:
    assert await raw_answer(tmp_path, "longest") == (b"20 " + b"x" * 1018 + b"\r\n", True)


@pytest.mark.parametrize(("name", "answer"), [("surplus", b"51 no\r\n"), ("status", b"20 text/plain\r\nhello")])
async def test_what_goes_wrong_later_is_an_answer_without_its_end(
    tmp_path: Path, name: str, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await raw_answer(tmp_path, name) == (answer, False)
    assert f"/{name}: " in capsys.readouterr().err


async def raw_answer(folder: Path, name: str) -> tuple[bytes, bool]:
    """What a client gets of a CGI program that writes what it likes, and whether that was all."""
    (folder / "raw.py").write_text(RAW)
    return await answer_of(gemini.over_cgi([sys.executable, str(folder / "raw.py")], {}), name)


async def answer_of(way: gemini.Way, name: str) -> tuple[bytes, bool]:
    """What a client gets for /NAME through the front end, and whether that was all."""
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(gemini.serve, way, "127.0.0.1", 0, tls.new_identity())
        port = int(address.rpartition(":")[2])

        def ask() -> tuple[bytes, bool]:
            with connect(port, context()) as connection:
                connection.sendall(f"gemini://localhost:{port}/{name}\r\n".encode())
                return received(connection)

        answer = await trio.to_thread.run_sync(ask)
        nursery.cancel_scope.cancel()
    return answer


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
@pytest.mark.parametrize("listening", [True, False])
async def test_an_application_that_hangs_up_or_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, listening: bool
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        if listening:
            socket_ = trio.socket.socket(trio.socket.AF_UNIX)
            await socket_.bind("s")
            socket_.listen()
            nursery.start_soon(trio.serve_listeners, hang_up, [trio.SocketListener(socket_)])
        answer = await answer_of(gemini.over_socket(protocol, "s"), "x")
        nursery.cancel_scope.cancel()
    assert answer == (b"42 This was no answer for a server of Gemini: see the terminal\r\n", True)


def test_an_answer_that_breaks_off_over_fastcgi_has_no_end(folder: Path) -> None:
    with capsule(folder, "--via", "fastcgi") as (program, port):
        answer = fetch(port, "/breaks")
        assert not answer.complete
        assert b"somesome".startswith(answer.body[:8])
        program.wait_for("ValueError: broken in the middle$")


@pytest.mark.parametrize("way", ["fastcgi", "scgi"])
def test_the_handler_is_cancelled_when_its_reader_leaves(folder: Path, way: str) -> None:
    with capsule(folder, "--via", way) as (program, port):
        connection = connect(port, context())
        connection.sendall(f"gemini://localhost:{port}/waits\r\n".encode())
        seen = b""
        while not seen.endswith(b"begun"):
            seen += connection.recv(100)
        connection.close()
        program.wait_for("the reader has left")


def test_bytes_that_are_no_tls_are_told_in_the_terminal(folder: Path) -> None:
    with capsule(folder) as (program, port):
        with socket.create_connection(("127.0.0.1", port), 30) as plain:
            plain.sendall(b"gemini://localhost/\r\n")
            while plain.recv(100):
                pass
        program.wait_for("^gateways: gemini: no TLS: ")
        assert fetch(port, "/").code == 20


# --- our certificate


def certificate_of(port: int) -> bytes:
    with connect(port, context()) as connection:
        found = connection.getpeercert(binary_form=True)
    assert found
    return found


def test_the_certificate_stays_the_same(folder: Path, tmp_path: Path) -> None:
    seen: list[bytes] = []
    for _ in range(2):
        with capsule(folder, state=str(tmp_path)) as (program, port):
            assert f"  the certificate of the capsule is kept in {tmp_path}/gateways" in program.text.splitlines()
            seen.append(certificate_of(port))
    assert seen[0] == seen[1]
    kept = tmp_path / "gateways" / "gemini.pem"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["gemini.pem"]


def test_clients_can_check_the_certificate(folder: Path, tmp_path: Path) -> None:
    with capsule(folder, state=str(tmp_path)) as (_, port):
        checking = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(certificate_of(port)))
        for name in ("localhost", "127.0.0.1"):
            with (
                socket.create_connection(("127.0.0.1", port), 30) as plain,
                checking.wrap_socket(plain, server_hostname=name) as connection,
            ):
                assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize("kept", [b"", b"nonsense", "expired"])
def test_a_certificate_that_is_good_for_nothing_is_made_anew(tmp_path: Path, kept: bytes | str) -> None:
    old = identity(tmp_path, "localhost", days=-1).path.read_bytes() if isinstance(kept, str) else kept
    (tmp_path / "gemini.pem").write_bytes(old)
    new = tls.kept_identity(tmp_path)
    assert new != old
    assert tls.kept_identity(tmp_path) == new


def test_without_a_place_for_it_the_certificate_is_made_each_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gateways").write_text("a file")
    with capsule(folder, state=str(tmp_path)) as (program, port):
        program.wait_for("a certificate cannot be kept in .*: clients will warn of a new one")
        assert fetch(port, "/").code == 20


def test_a_relative_place_for_it_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", "/home/someone")
    assert tls.state_folder() == Path("/home/someone/.local/state/gateways")


# --- starting


def test_without_pyopenssl_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "capsule.py").write_text(APP)
    hide = "import sys; sys.modules['OpenSSL'] = None; import gateways.cli; sys.exit(gateways.cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", hide, "dev", "capsule.py", "--gemini", "0"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "gateways: --gemini needs pyOpenSSL; install it with: pip install 'gateways[gemini]'\n"


def test_a_port_that_is_taken_is_status_1(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("dev", "capsule.py", "--port", "0", "--gemini", port, cwd=folder)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_a_public_address_has_to_be_meant(folder: Path) -> None:
    done = run("dev", "capsule.py", "--host", "0.0.0.0", "--port", "0", "--gemini", "0", cwd=folder)
    assert done.returncode == 1
    assert "--allow-public" in done.stderr
    assert "gemini://" not in done.stderr


def test_reloading_keeps_the_port(tmp_path: Path) -> None:
    app = tmp_path / "capsule.py"
    app.write_text("from gateways import Response\nasync def app(request): return Response('one')\n")
    with capsule(tmp_path, "--reload") as (program, port):
        assert fetch(port, "/").text == "one"
        app.write_text("from gateways import Response\nasync def app(request): return Response('two')\n")

        def changed() -> bool:
            try:
                return fetch(port, "/").text == "two"
            except (OSError, strict_gemini.Refused):
                return False  # between two children

        poll(changed, "the changed page")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_as_a_cgi_script_it_is_not_looked_at(folder: Path) -> None:
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "GEMINI", "PATH_INFO": "/x"}
    done = run("dev", "--gemini", "0", "capsule.py", cwd=folder, environ=variables)
    assert (done.returncode, done.stdout) == (0, "20 text/plain; charset=utf-8\nGET |/x ")
