"""The captures are whole: nothing lost or altered between the recording and the tests that rely on it."""

from __future__ import annotations

import hashlib
from collections import Counter

from tests.captures import FOLDER, load_small_web, load_web


def test_counts_of_web_captures() -> None:
    assert Counter((c.front_end, c.protocol) for c in load_web()) == {
        ("apache", "cgi"): 64,
        ("apache", "fcgi"): 166,
        ("apache", "scgi"): 48,
        ("apache-prefork", "cgi"): 22,
        ("busybox", "cgi"): 32,
        ("caddy", "fcgi"): 75,
        ("h2o", "fcgi"): 66,
        ("haproxy", "fcgi"): 70,
        ("lighttpd", "cgi"): 43,
        ("lighttpd", "fcgi"): 91,
        ("lighttpd", "scgi"): 44,
        ("mini-httpd", "cgi"): 28,
        ("nginx", "fcgi"): 109,
        ("nginx", "scgi"): 43,
    }


def test_counts_of_small_web_captures() -> None:
    captures = load_small_web()
    assert len(captures) == 76
    assert Counter(c.backend_protocol for c in captures if c.wire is not None) == {"cgi": 43, "fastcgi": 7, "scgi": 14}
    assert [c.note for c in captures if c.synthetic] == [c.note for c in captures if c.note]


def test_every_wire_has_the_digest_kept_beside_it() -> None:
    for capture in load_web():
        assert hashlib.sha256(capture.wire).hexdigest() == capture.sha256, capture.id
    for small in load_small_web():
        if small.wire is not None:
            assert hashlib.sha256(small.wire).hexdigest() == small.sha256, small.id


def test_ids_are_unique() -> None:
    for captures in (load_web(), load_small_web()):
        assert [name for name, times in Counter(c.id for c in captures).items() if times > 1] == []


def test_configuration_of_every_web_server_is_kept() -> None:
    kept = {f"configs/{path.name}" for path in (FOLDER / "web" / "configs").iterdir()}
    # The plain CGI hosts have no configuration file: commands.txt says how they were started.
    assert {c.config_file for c in load_web()} <= kept


def test_cgi_wire_is_the_environment_then_the_body() -> None:
    checked = 0
    for capture in load_web():
        if capture.protocol != "cgi":
            continue
        assert capture.params is not None
        block, _, body = capture.wire.partition(b"\0\0")
        pairs = [f"{name}={value}".encode("latin-1") for name, value in capture.params]
        assert block.split(b"\0") == pairs, capture.id
        if capture.body_in_file:
            assert hashlib.sha256(body).hexdigest() == capture.body_sha256, capture.id
        checked += 1
    assert checked == 189


def test_only_a_lone_abort_has_no_params() -> None:
    assert [c.id for c in load_web() if c.params is None] == ["haproxy.fcgi-root.post-slow-length"]


def test_scgi_wire_is_a_netstring_of_the_params_then_the_body() -> None:
    checked = 0
    for capture in load_web():
        if capture.protocol != "scgi":
            continue
        assert capture.params is not None
        headers = b"".join(f"{name}\0{value}\0".encode("latin-1") for name, value in capture.params)
        start = b"%d:%b," % (len(headers), headers)
        assert capture.wire.startswith(start), capture.id
        assert hashlib.sha256(capture.wire[len(start) :]).hexdigest() == capture.body_sha256, capture.id
        checked += 1
    assert checked == 135
