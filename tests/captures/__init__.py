"""What real front ends put on the wire, recorded once and kept for good: see README.md in this folder.

``load_web()`` gives what web servers sent, ``load_small_web()`` what Gemini, Titan, Spartan and Gopher servers sent.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Capture", "FastCGIRequest", "SmallWebCapture", "load_small_web", "load_web"]

FOLDER = Path(__file__).parent

#: Decoded meta-variables in wire order, repeats kept. The text is Latin-1: ``.encode("latin-1")`` gives the bytes.
Params = tuple[tuple[str, str], ...]


@attrs.frozen
class FastCGIRequest:
    """One FastCGI request as the recorder read it from the wire.

    ``records`` are (type, content length, padding length) in wire order. ``params`` and the two ``body_...`` fields are
    given only for later requests of a capture: those of the first stand on the capture itself.
    """

    id: int
    role: int | None
    flags: int | None
    records: tuple[tuple[str, int, int], ...]
    params_complete: bool = False
    stdin_complete: bool = False
    abort: bool = False
    long_lengths: int = 0
    params: Params | None = None
    body_length: int | None = None
    body_sha256: str | None = None


@attrs.frozen
class Capture:
    """One request from an HTTP client through a web server, and the exact bytes that reached the backend.

    ``wire`` holds, for FastCGI and SCGI, all that one backend connection received, in order; for CGI, the environment
    block (NAME=VALUE NUL ...), one more NUL, then what the script read from stdin. ``cgi`` has argv, cwd, fds, and
    how stdin ended; it is None for the other protocols.
    """

    id: str
    front_end: str
    version: str
    config: str
    config_file: str
    request: str
    scheme: str
    mount: str
    protocol: str
    raw_request: tuple[bytes, ...]
    wire: bytes
    sha256: str
    response: str
    client_end: str
    params: Params | None = None
    body_length: int | None = None
    body_sha256: str | None = None
    body_in_file: bool = True
    fcgi: FastCGIRequest | None = None
    more_requests: tuple[FastCGIRequest, ...] = ()
    scgi: Mapping[str, Any] | None = None
    cgi: Mapping[str, Any] | None = None
    role: int | None = None
    backend_behaviour: str | None = None
    backend_connection: Mapping[str, Any] | None = None
    management_records: tuple[Any, ...] = ()
    note: str | None = None


@attrs.frozen
class SmallWebCapture:
    """One request to a Gemini, Titan, Spartan or Gopher server.

    ``wire`` is None where the server answered by itself. ``backend_protocol`` is "fastcgi", "scgi" or "cgi"; for CGI,
    ``wire`` is the environment block alone. ``body`` is what followed the SCGI headers, ``stdin`` what a CGI script or
    FastCGI application was given.
    """

    front_end: str
    version: str
    small_web_protocol: str
    backend_protocol: str
    name: str
    request: str
    client: str | None
    response: str | None
    wire: bytes | None
    sha256: str | None = None
    env: Params | None = None
    argv: tuple[str, ...] | None = None
    cwd: str | None = None
    fds: tuple[int, ...] | None = None
    stdin: str | None = None
    stdin_state: str | None = None
    body: str | None = None
    eof_after_request: bool | None = None
    odd: int | None = None
    role: int | None = None
    flags: int | None = None
    request_id: int | None = None
    leftover: int | None = None
    synthetic: bool = False
    note: str | None = None

    @property
    def id(self) -> str:
        """A name for this capture, unique among the small web's."""
        return f"{self.front_end}.{self.small_web_protocol}.{self.backend_protocol}.{self.name}"


@functools.cache
def load_web() -> list[Capture]:
    """Every capture of a web server, in the order of the files' names. Treat the list as read-only."""
    return [_web(row) for path in sorted(FOLDER.glob("web/*.jsonl.gz")) for row in _rows(path)]


@functools.cache
def load_small_web() -> list[SmallWebCapture]:
    """Every capture of a small-web server. Treat the list as read-only."""
    return [_small_web(row) for row in _rows(FOLDER / "smallweb.jsonl.gz")]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    # Wire bytes are kept as Latin-1 text: only "\n" ends a line here, never U+0085.
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def _web(row: dict[str, Any]) -> Capture:
    row["wire"] = row["wire"].encode("latin-1")
    row["raw_request"] = tuple(text.encode("latin-1") for text in row["raw_request"])
    row["management_records"] = tuple(row.get("management_records", ()))
    row["more_requests"] = tuple(_fastcgi(later) for later in row.get("more_requests", ()))
    if "fcgi" in row:
        row["fcgi"] = _fastcgi(row["fcgi"])
    if "params" in row:
        row["params"] = _params(row["params"])
    return Capture(**row)


def _fastcgi(row: dict[str, Any]) -> FastCGIRequest:
    row["records"] = tuple((kind, length, padding) for kind, length, padding in row["records"])
    if "params" in row:
        row["params"] = _params(row["params"])
    return FastCGIRequest(**row)


def _small_web(row: dict[str, Any]) -> SmallWebCapture:
    if row["wire"] is not None:
        row["wire"] = row["wire"].encode("latin-1")
    if "env" in row:
        row["env"] = _params(row["env"])
    for field in ("argv", "fds"):
        if field in row:
            row[field] = tuple(row[field])
    return SmallWebCapture(**row)


def _params(pairs: Iterable[tuple[str, str]]) -> Params:
    return tuple((name, value) for name, value in pairs)
