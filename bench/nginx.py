"""One nginx with one worker in front of every server: its configuration, and how it is started."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from bench.backends import APPS, PATIENCE, Backend, Failed, Running, end, find, pinned, tail

_CONFIGURATION = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}

http {{
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_temp_path {folder}/client_body;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  proxy_temp_path {folder}/proxy;
  uwsgi_temp_path {folder}/uwsgi;
{servers}}}
"""

_UPSTREAM = """
  upstream {name} {{
    server unix:{socket} max_fails=0;
    {kept}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
{location}
    }}
  }}
"""

_KEPT = "keepalive 512; keepalive_requests 1000000000;"

#: What nginx's own fastcgi_params and scgi_params say, but for the path: WSGI, ASGI and PHP look for it in PATH_INFO.
_PARAMS = {
    "QUERY_STRING": "$query_string",
    "REQUEST_METHOD": "$request_method",
    "CONTENT_TYPE": "$content_type",
    "CONTENT_LENGTH": "$content_length",
    "SCRIPT_NAME": '""',
    "PATH_INFO": "$fastcgi_script_name",
    "REQUEST_URI": "$request_uri",
    "DOCUMENT_URI": "$document_uri",
    "DOCUMENT_ROOT": "$document_root",
    "SERVER_PROTOCOL": "$server_protocol",
    "REQUEST_SCHEME": "$scheme",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SERVER_SOFTWARE": "nginx/$nginx_version",
    "REMOTE_ADDR": "$remote_addr",
    "REMOTE_PORT": "$remote_port",
    "SERVER_ADDR": "$server_addr",
    "SERVER_PORT": "$server_port",
    "SERVER_NAME": "$server_name",
    "REDIRECT_STATUS": "200",
}


@attrs.frozen
class Front:
    """The nginx that is running, and the port where it has each server, by name."""

    pid: int
    ports: Mapping[str, int]


@contextmanager
def started(backends: Sequence[Running], folder: Path, cpus: Iterable[int]) -> Generator[Front]:
    """Run it on these CPUs, in front of these servers, until the block ends. Raises Failed if it does not start."""
    program = find("nginx")
    if program is None:
        raise Failed("nginx is not installed")
    folder.mkdir()
    ports = dict(zip((running.backend.name for running in backends), _free_ports(len(backends)), strict=True))
    (folder / "nginx.conf").write_text(configuration(backends, ports, folder))
    log = folder / "error.log"
    with pinned(cpus):
        process = subprocess.Popen(
            [program, "-p", f"{folder}/", "-e", str(log), "-c", str(folder / "nginx.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        for port in ports.values():
            _wait_until_it_listens(process, port, log)
        yield Front(process.pid, ports)
    finally:
        end(process)


def configuration(backends: Sequence[Running], ports: Mapping[str, int], folder: Path) -> str:
    """The whole configuration file."""
    servers = [
        _UPSTREAM.format(
            name=running.backend.name,
            socket=running.socket,
            kept=_KEPT if running.backend.kept else "# a connection for each request",
            port=ports[running.backend.name],
            location="\n".join(f"      {line};" for line in _location(running.backend)),
        )
        for running in backends
    ]
    # Workers of an nginx that root started are another user otherwise, who may not connect to sockets of root.
    user = "user root root;" if os.geteuid() == 0 else ""
    return _CONFIGURATION.format(user=user, folder=folder, servers="".join(servers))


def _location(backend: Backend) -> list[str]:
    if backend.protocol == "http":
        lines = [f"proxy_pass http://{backend.name}", "proxy_http_version 1.1", "proxy_set_header Host $host"]
        return [*lines, 'proxy_set_header Connection ""'] if backend.kept else lines
    params = dict(_PARAMS)
    if backend.protocol == "scgi":
        del params["CONTENT_LENGTH"]  # nginx sends it first by itself
        params["SCGI"] = "1"
    lines = [f"{backend.protocol}_param {name} {value}" for name, value in params.items()]
    if backend.script:
        lines.append(f"{backend.protocol}_param SCRIPT_FILENAME {backend.script.format(apps=APPS)}")
    if backend.protocol == "fastcgi" and backend.kept:
        lines.append("fastcgi_keep_conn on")
    return [*lines, f"{backend.protocol}_pass {backend.name}"]


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(int(PATIENCE / 0.02)):
        with socket.socket() as probe:
            try:
                probe.connect(("127.0.0.1", port))
                return
            except ConnectionRefusedError:
                pass
        try:
            status = process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        raise Failed(f"nginx ended with status {status}\n{tail(log)}")
    raise Failed(f"nginx does not listen after {PATIENCE:g} s\n{tail(log)}")
