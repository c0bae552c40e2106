"""What a Response must refuse to be made of, as (what, how to try it): also run under ``python -O``."""

from __future__ import annotations

from collections.abc import Callable

from gateways import GatewayError, Reject, RemoteProtocolError, Request, Response
from gateways._model.environ import Rules
from gateways._model.policy import decide


def field(name: str, value: str) -> Callable[[], object]:
    return lambda: Response(headers=[(name, value)])


def status(value: object) -> Callable[[], object]:
    return lambda: Response(status=value)  # type: ignore[arg-type]


def request(**variables: str) -> Callable[[], object]:
    return lambda: Request({"REQUEST_METHOD": "GET", **variables})


RESPONSES: dict[str, Callable[[], object]] = {
    "R04 status abc": status("abc"),
    "R04 status 99": status(99),
    "R04 status 200.0": status(200.0),
    "R04 status True": status(True),
    "R05 status 1000": status(1000),
    "R05 status 600": status(600),
    "R06 status 100": status(100),
    "R06 status 101": status(101),
    "R06 status 103": status(103),
    "R06 status 199": status(199),
    "R08 a Status field": field("Status", "200 OK"),
    "R08 a status field": field("status", "200"),
    "R11 Transfer-Encoding": field("Transfer-Encoding", "chunked"),
    "R12 Connection": field("Connection", "close"),
    "R12 Keep-Alive": field("Keep-Alive", "timeout=5"),
    "R12 Upgrade": field("upgrade", "h2c"),
    "R12 Trailer": field("TRAILER", "X"),
    "R12 TE": field("TE", "trailers"),
    "R12 Proxy-Connection": field("Proxy-Connection", "close"),
    "R13 two Content-Length": lambda: Response(headers=[("Content-Length", "0"), ("content-length", "0")]),
    "R14 Content-Length +3": field("Content-Length", "+3"),
    "R14 Content-Length -1": field("Content-Length", "-1"),
    "R14 Content-Length 1_0": field("Content-Length", "1_0"),
    "R14 Content-Length Arabic": field("Content-Length", "٣"),
    "R14 Content-Length empty": field("Content-Length", ""),
    "R14 Content-Length 3, 3": field("Content-Length", "3, 3"),
    "R17 CR": field("X", "a\rb"),
    "R17 LF": field("X", "a\nb"),
    "R17 CRLF": field("X", "a\r\nSet-Cookie: b"),
    "R17 NUL": field("X", "a\0b"),
    "R17 LF at the end": field("X", "a\n"),
    "R17 CR in the content type": lambda: Response("x", content_type="a/b\r"),
    "R17 LF in a redirect": lambda: Response.redirect("/\nX: 1"),
    "R17 LF in a cookie": lambda: Response().set_cookie("a", "b\n"),
    "R17 LF in a cookie's path": lambda: Response().set_cookie("a", "b", path="/\nX: 1"),
    "R17 LF in a variable": lambda: Response.authorize(REMOTE_USER="m\nX: 1"),
    "R17 LF by with_header": lambda: Response().with_header("X", "a\nb"),
    "R18 a folded value": field("X", "a\r\n b"),
    "R19 a blank in a name": field("Name ", "x"),
    "R19 a colon in a name": field("Name:", "x"),
    "R20 an empty name": field("", "x"),
    "R20 HTTP/1.1 as a name": field("HTTP/1.1", "200"),
    "R20 a name of umlauts": field("Größe", "x"),
    "R20 a name with LF": field("X\nY", "x"),
    "R23 X-Accel-Redirect": lambda: decide(Response(headers={"X-Accel-Redirect": "/secret"}), "GET"),
    "R23 X-Sendfile": lambda: decide(Response(headers={"x-sendfile": "/etc/passwd"}), "GET"),
    "R22 a head over 32 KiB": lambda: decide(Response(headers={"X": "a" * 32_768}), "GET"),
    "R15 Content-Length that contradicts": lambda: decide(
        Response("x", headers={"Content-Length": "9"}), "GET", size=1
    ),
    "Reject 200": lambda: Reject(200),
}

REQUESTS: dict[str, Callable[[], object]] = {
    "E06 CONTENT_LENGTH -5": request(CONTENT_LENGTH="-5"),
    "E06 CONTENT_LENGTH 1e3": request(CONTENT_LENGTH="1e3"),
    "E06 CONTENT_LENGTH +3": request(CONTENT_LENGTH=" +3"),
    "E06 CONTENT_LENGTH 5, 5": request(CONTENT_LENGTH="5, 5"),
    "E06 CONTENT_LENGTH 1_0": request(CONTENT_LENGTH="1_0"),
    "E06 CONTENT_LENGTH of 20 digits": request(CONTENT_LENGTH="1" * 20),
    "E08 no method": request(REQUEST_METHOD=""),
    "E08 GET X": request(REQUEST_METHOD="GET X"),
    "E08 a method of 10 KB": request(REQUEST_METHOD="M" * 10_240),
    "E10 NUL": request(PATH_INFO="/\0"),
    "mount app": lambda: Rules(mount="app"),
}


ALL = {**RESPONSES, **REQUESTS}


def refused(attempt: Callable[[], object]) -> bool:
    """Whether an attempt ends in one of the errors that it should end in."""
    try:
        attempt()
    except (ValueError, RemoteProtocolError, GatewayError):
        return True
    return False


def survivors() -> list[str]:
    """What was not refused."""
    return [what for what, attempt in ALL.items() if not refused(attempt)]
