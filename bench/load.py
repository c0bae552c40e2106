"""What is asked of a server, and those who ask: wrk, and clients for large bodies and for idle connections."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import subprocess
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import attrs

from bench.backends import Failed, find, pinned
from gateways import fastcgi
from gateways.events import BodyEnded, BodyReceived, HeadReceived, ResponseEnded

_SCRIPT = Path(__file__).with_name("wrk.lua")
MIB = 1 << 20
#: Seconds that one answer may take.
_TIMEOUT = 30.0
_IDLE_TIMEOUT = 5.0

#: A browser's, and what a page's scripts and proxies add: with Host, 25 lines.
HEADERS = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-GB,en;q=0.8,de;q=0.5,fr;q=0.3",
    "Cache-Control": "max-age=0",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; csrftoken=fedcba9876543210; consent=yes; _v=1.2.3",
    "DNT": "1",
    "Forwarded": "for=192.0.2.43;proto=https",
    "If-Modified-Since": "Sat, 21 Nov 2026 10:00:00 GMT",
    "If-None-Match": '"0123456789abcdef"',
    "Origin": "https://www.example.org",
    "Pragma": "no-cache",
    "Priority": "u=0, i",
    "Referer": "https://www.example.org/a/page/that/was/here/before?with=a&query=string",
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Via": "1.1 cache.example.org",
    "X-Request-ID": "7b4d2a60-1c1e-4d7e-9f35-2f6c5a1b9d10",
    "X-Requested-With": "XMLHttpRequest",
}


@attrs.frozen(eq=False)
class Case:
    """Something that is measured.

    ``kind`` says who asks: "requests" is wrk with ``connections``; "transfers" is one client, for a body of ``size``
    bytes in either direction; "idle" holds ``connections`` open that have had one answer each; "start" is
    bench/cgi_start.py. ``posts`` is the size of the body that a request has.
    """

    name: str
    title: str
    kind: str = "requests"
    path: str = "/hello"
    connections: int = 32
    posts: int = 0
    gets: bytes | None = b"Hello, world!\n"  #: the answer; None for ``size`` bytes of it
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    size: int = 0


CASES = (
    Case("hello", "hello, 32 connections"),
    Case("hello-1", "hello, 1 connection", connections=1),
    Case("hello-256", "hello, 256 connections", connections=256),
    Case("headers", "hello with 25 request headers, 32 connections", headers=HEADERS),
    Case("echo", "echo of a 10 KiB POST, 32 connections", path="/echo", posts=10_240, gets=b"x" * 10_240),
    Case("stream", "16 pieces of 1 KiB, 32 connections", path="/stream", gets=(b"x" * 1023 + b"\n") * 16),
    Case("wait", "hello after a wait of 1 ms, 32 connections", path="/wait"),
    Case("upload", "100 MiB up", "transfers", "/upload", 1, posts=100 * MIB, gets=b"%d\n" % (100 * MIB)),
    Case("download", "100 MiB down", "transfers", f"/download?{100 * MIB}", 1, gets=None, size=100 * MIB),
    Case("idle", "10,000 idle connections", "idle", connections=10_000),
    Case("cgi", "the start of a CGI script", "start"),
)


def smaller(case: Case) -> Case:
    """The same with less to carry, for a quick look at whether it works."""
    match case.kind:
        case "idle":
            return attrs.evolve(case, connections=100, title="100 idle connections")
        case "transfers" if case.posts:
            return attrs.evolve(case, posts=MIB, gets=b"%d\n" % MIB, title="1 MiB up")
        case "transfers":
            return attrs.evolve(case, path=f"/download?{MIB}", size=MIB, title="1 MiB down")
        case _:
            return case


def check(case: Case, port: int) -> None:
    """Ask once through nginx. Raises Failed unless the answer is the right one: lest an error look quick."""
    transfer(case, port, 1)


def wrk(case: Case, port: int, seconds: float, cpus: Iterable[int]) -> dict[str, Any]:
    """Ask over and over for so long: {"requests", "seconds", "p50", "p99", "errors"}; p50 and p99 in microseconds."""
    program = find("wrk")
    if program is None:
        raise Failed("wrk is not installed")
    command = [program, "-t1", f"-c{case.connections}", f"-d{max(1, round(seconds))}s", "-s", str(_SCRIPT)]
    for name, value in case.headers.items():
        command += ["-H", f"{name}: {value}"]
    command += [f"http://127.0.0.1:{port}{case.path}", "--", str(case.posts)]
    with pinned(cpus):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _TIMEOUT, check=False)
    if done.returncode:
        raise Failed(f"wrk: status {done.returncode}\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def transfer(case: Case, port: int, times: int) -> None:
    """Ask so many times on one connection, and compare what comes back."""
    headers = {**case.headers, "Content-Type": "application/octet-stream"} if case.posts else dict(case.headers)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)) as client:
        for _ in range(times):
            if case.posts:
                headers["Content-Length"] = str(case.posts)
                client.request("POST", case.path, body=_blocks(case.posts), headers=headers)
            else:
                client.request("GET", case.path, headers=headers)
            with client.getresponse() as answer:
                _compare(case, answer)


def _blocks(size: int) -> Generator[bytes]:
    block = b"x" * MIB
    for start in range(0, size, MIB):
        yield block[: size - start]


def _compare(case: Case, answer: http.client.HTTPResponse) -> None:
    if case.gets is None:
        size = 0
        while chunk := answer.read(MIB):
            size += len(chunk)
        right, shown = size == case.size, f"{size} bytes"
    else:
        content = answer.read()
        right, shown = content == case.gets, repr(content[:200])
    if answer.status != 200 or not right:
        raise Failed(f"{case.name}: status {answer.status}, {shown}")


class Idle:
    """Clients of a server that ask for hello once each, right at its socket, and then keep their connection."""

    def __init__(self, protocol: str, path: Path) -> None:
        self._ask = {"fastcgi": _ask_fastcgi, "http": _ask_http}[protocol]
        self._path = str(path)
        self._open = ExitStack()
        self._clients: list[socket.socket] = []

    def __enter__(self) -> Idle:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, number: int) -> None:
        """So many more. Raises Failed for a wrong answer."""
        for _ in range(number):
            client = self._open.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(_IDLE_TIMEOUT)
            client.connect(self._path)
            self._ask(client)
            self._clients.append(client)

    def check(self) -> None:
        """Raises Failed if a connection was closed meanwhile: those would take no memory any more."""
        closed = 0
        for client in self._clients:
            client.setblocking(False)
            try:
                client.recv(1)  # which returns b"" at the end of the stream
            except BlockingIOError:
                continue
            closed += 1
        if closed:
            raise Failed(f"closed {closed} of {len(self._clients)} connections")


def may_open(connections: int) -> int:
    """Let us and those we start have so many connections open, or as many as the system allows: how many."""
    spare = 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + spare if hard == resource.RLIM_INFINITY else min(connections + spare, hard)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(connections, wanted - spare)


_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/hello",
    "REQUEST_URI": "/hello",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "REMOTE_ADDR": "127.0.0.1",
}


def _ask_fastcgi(client: socket.socket) -> None:
    web = fastcgi.ClientConnection()
    client.sendall(web.send_request(1, _ENVIRON, keep_connection=True) + web.end_body(1))
    events: list[Any] = []
    while not events or isinstance(events[-1], HeadReceived | BodyReceived | BodyEnded):
        events += web.receive_data(client.recv(65_536))
    if not web.reusable or not isinstance(events[-1], ResponseEnded):
        raise Failed(f"not kept: {events}")


def _ask_http(client: socket.socket) -> None:
    client.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\nHello, world!\n"):
        more = client.recv(65_536)
        if not more:
            raise Failed(f"not kept: {answer!r}")
        answer += more
