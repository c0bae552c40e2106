"""What real servers of Gemini, Titan, Spartan and Gopher sent: one Request, whichever of them sent it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateways import Body, Request, fastcgi, scgi
from gateways._model.environ import Rules
from gateways._model.handler import drive
from gateways._model.headers import as_pairs
from gateways._model.request import BytesSource
from gateways.cgi import guest
from gateways.events import Event, Pairs, RequestReceived, ServerConnection
from tests.captures import SmallWebCapture, load_small_web
from tests.captures.decoding import pairs
from tests.feeding import cut, feed

ALL = [capture for capture in load_small_web() if capture.wire is not None]
#: GLV with "http = true" says that it is a web server.
AS_HTTP = [capture for capture in ALL if capture.synthetic and "http-mode" in capture.name]
#: A browser asked Gophernicus.
CAPTURES = [capture for capture in ALL if capture not in AS_HTTP]
IDS = [capture.id for capture in CAPTURES]

ALICE = "acbed5ed7ae3a0bea3c25ea0f7bb54d5483845f89dcd81d1a276e3e1009f4eba"
BOB = "a93c47b5a4d3d08e248f1bc438152fce61c00344ceaedc6323fa723702bd0ec0"
NO_NAME = "81fd000ae01df317006e17c8dbc6138ddf7043020ce562637afae85f5e908ee3"

#: Where the client found the script; None where the server does not tell.
MOUNTS = {
    ("gmid", "fastcgi"): "/app",
    ("gmid-strip", "fastcgi"): "/strip",
    ("gmid+slowcgi", "cgi"): "/slow",
    ("molly-brown", "scgi"): "/app",
    ("molly-brown-2023", "scgi"): "/app",
    ("molly-brown", "cgi"): "",
    ("molly-brown-2023", "cgi"): "",
    ("gmcapsule", "cgi"): "/app",
    ("jetforce", "cgi"): "/cgi-bin/app",
    ("gmnisrv", "cgi"): "/cgi-bin/app",
    ("GLV-1.12556", "scgi"): "/app",
    ("spsrv", "cgi"): "",
    ("geomyidae", "cgi"): "/app.cgi?",
    ("gophernicus", "cgi"): "/cgi-bin/app?",
    ("pygopherd", "cgi"): "/cgi-bin/app?",
    ("motsognir", "cgi"): "/app.cgi?",
}

#: name of the request -> (path below the mount, input). molly-brown over CGI, and it alone, drops a slash at the end.
PROMISED: dict[str, tuple[str, str | None]] = {
    "root": ("", None),
    "slash": ("/", None),
    "pathinfo-query": ("/a/b", "query text"),
    "euro": ("/€", None),
    "kv-newline": ("", "x=1&y=\nline"),
    "emptyquery": ("", ""),
    "plus": ("/a+b", "a+b"),
    "percent25": ("/100%", "100%"),
    "explicit-port": ("/p", None),
    "cert-alice-rsa": ("/who", None),
    "cert-bob-ed25519": ("/who", None),
    "cert-nocn": ("/who", None),
    "titan-delete": ("/doc", None),
    "titan-edit": ("/doc", None),
    "upload": ("", "hello"),
    "search": ("", "search term"),
    "args-search": ("", "search térm"),
    "http09": ("", "x=1"),
}
#: name -> input, where it differs by server: what follows "?" is not decoded by everybody.
ARGUMENTS = {"gophernicus": "query text", "pygopherd": "query text two", "geomyidae": "hello=world x"}


def request_of(capture: SmallWebCapture, rules: Rules | None = None) -> Request:
    """The Request that a handler is given, read from the bytes that came."""
    variables, body = decode(capture)
    bodiless = Request(variables, protocol=capture.backend_protocol, rules=rules)
    length = bodiless.content_length
    if capture.backend_protocol == "cgi":
        length = guest.body_length(bodiless.environ)
    return Request(variables, Body(BytesSource(body), length), protocol=capture.backend_protocol, rules=rules)


def decode(capture: SmallWebCapture) -> tuple[Pairs, bytes]:
    assert capture.wire is not None
    assert capture.env is not None
    if capture.backend_protocol == "cgi":
        sent = b"\0".join(f"{name}={value}".encode("latin-1") for name, value in capture.env)
        assert capture.wire.rstrip(b"\0") == sent
        return pairs(capture.env), (capture.stdin or "").encode("latin-1")
    received = [event for event in arrived(capture, [capture.wire]) if isinstance(event, RequestReceived)]
    assert len(received) == 1
    return as_pairs(received[0].environ), b""


def arrived(capture: SmallWebCapture, pieces: list[bytes]) -> list[Event]:
    protocols: dict[str, type[ServerConnection]] = {
        "fastcgi": fastcgi.ServerConnection,
        "scgi": scgi.ServerConnection,
    }
    return feed(protocols[capture.backend_protocol](), pieces)


@pytest.mark.parametrize("capture", [each for each in ALL if each.backend_protocol != "cgi"], ids=lambda each: each.id)
def test_capture_decodes_to_its_manifest_however_it_is_cut(capture: SmallWebCapture) -> None:
    assert capture.wire is not None
    assert capture.env is not None
    assert decode(capture)[0] == pairs(capture.env)
    once = arrived(capture, [capture.wire])
    assert arrived(capture, [capture.wire[at : at + 1] for at in range(len(capture.wire))]) == once
    assert arrived(capture, cut(capture.wire, list(range(7, len(capture.wire), 7)))) == once


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_capture_becomes_the_request_that_its_name_promises(capture: SmallWebCapture) -> None:
    request = request_of(capture)
    if capture.name == "args":
        info, typed = "", ARGUMENTS.get(capture.front_end)
    else:
        info, typed = PROMISED[capture.name]
    if capture.name == "emptyquery" and capture.front_end.startswith(("gmid", "molly-brown")):
        typed = None  # they send the same for no query at all
    if capture.name == "slash" and capture.backend_protocol == "cgi" and capture.front_end.startswith("molly"):
        info = ""
    mount = MOUNTS[capture.front_end, capture.backend_protocol]
    assert (request.script_name, request.path_info, request.path) == (mount, info, mount + info)
    assert drive(request.input()) == typed
    assert drive(request.input()) == typed, "the second time"


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_capture_has_the_scheme_and_the_method_of_its_protocol(capture: SmallWebCapture) -> None:
    request = request_of(capture)
    scheme = "gemini" if capture.name == "titan-edit" else capture.small_web_protocol
    method = {"titan-delete": "DELETE", "upload": "POST"}.get(capture.name, "GET")
    assert (request.scheme, request.method) == (scheme, method)
    assert ("TITAN_EDIT" in request.environ) == (capture.name == "titan-edit")
    for made in ("url", "query", "cookies", "headers", "raw_path", "server_port", "remote_port", "client_certificate"):
        getattr(request, made)


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_capture_names_the_certificate_by_one_fingerprint(capture: SmallWebCapture) -> None:
    shown = {"tls client cert alice-rsa": ALICE, "tls client cert bob-ed25519": BOB, "tls client cert nocn": NO_NAME}
    fingerprint = shown.get(capture.client or "")
    certificate = request_of(capture).client_certificate
    assert (None if certificate is None else certificate.fingerprint) == fingerprint
    if certificate is not None:
        names = {ALICE: "Alice Ünïcode", BOB: "bob", NO_NAME: None}
        assert certificate.common_name == names[certificate.fingerprint]


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_nobody_is_a_user_because_a_certificate_says_so(capture: SmallWebCapture) -> None:
    request = request_of(capture)
    assert request.remote_user is None
    assert "AUTH_TYPE" not in request.environ


def test_the_name_in_a_certificate_is_the_user_where_that_is_trusted() -> None:
    by_id = {capture.id: capture for capture in CAPTURES}
    capture = by_id["jetforce.gemini.cgi.cert-bob-ed25519"]
    assert request_of(capture, Rules(trust_remote_user=True)).remote_user == "bob"


def test_what_gmid_tells_of_a_certificate() -> None:
    by_id = {capture.id: capture for capture in CAPTURES}
    certificate = request_of(by_id["gmid-strip.gemini.fastcgi.cert-alice-rsa"]).client_certificate
    assert certificate is not None
    dn = "/CN=Alice Ünïcode/UID=alice/emailAddress=alice@example.org/O=Example Org"
    assert (certificate.subject, certificate.issuer) == (dn, dn)
    assert certificate.not_before == datetime(2026, 11, 20, 10, 51, 23, tzinfo=UTC)
    assert certificate.not_after == datetime(2036, 11, 17, 10, 51, 23, tzinfo=UTC)


@pytest.mark.parametrize("capture", CAPTURES, ids=IDS)
def test_remote_address_is_an_address_or_is_not_there(capture: SmallWebCapture) -> None:
    known = capture.front_end not in {"gmnisrv"} and dict(capture.env or ()).get("REMOTE_ADDR") not in {None, "unknown"}
    assert request_of(capture).remote_addr == ("127.0.0.1" if known else None)


@pytest.mark.parametrize(
    "capture", [each for each in CAPTURES if each.front_end.startswith("molly") and each.backend_protocol == "cgi"],
    ids=lambda each: each.id,
)  # fmt: skip
def test_a_mount_puts_the_path_right_where_the_server_names_a_file(capture: SmallWebCapture) -> None:
    request = request_of(capture, Rules(mount="/cgi-bin/app"))
    info = "" if capture.name == "slash" else PROMISED[capture.name][0]
    assert (request.script_name, request.path_info) == ("/cgi-bin/app", info)


@pytest.mark.parametrize("capture", AS_HTTP, ids=lambda each: each.id)
def test_a_server_that_pretends_to_be_a_web_server_is_taken_at_its_word(capture: SmallWebCapture) -> None:
    request = request_of(capture)
    assert (request.scheme, request.path, request.query_string) == ("http", "/app/a/b", "query%20text")
    assert drive(request.input()) == "query text"


def test_every_name_is_looked_at() -> None:
    names = {capture.name for capture in CAPTURES}
    assert names - {"args"} == set(PROMISED)
    assert {(each.front_end, each.backend_protocol) for each in CAPTURES} == set(MOUNTS)
