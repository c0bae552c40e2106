"""The named repairs, one by one, and what `quirks` chooses of them."""

from __future__ import annotations

import pytest

from gateways._model.environ import Rules, build
from gateways._model.quirks import AUTOMATIC, REPAIRS, apply, is_nginx, select

NGINX = {"SERVER_SOFTWARE": "nginx/1.22.1"}


@pytest.mark.parametrize(
    ("quirks", "chosen"),
    [
        ("auto", AUTOMATIC),
        ("none", ()),
        ("authorization", ("authorization",)),
        (["auto", "authorization"], (*AUTOMATIC, "authorization")),
        (["authorization", "authorization"], ("authorization",)),
        (["nginx-root", "auto"], AUTOMATIC),
        ([], ()),
    ],
)
def test_quirks_choose_repairs(quirks: str | list[str], chosen: tuple[str, ...]) -> None:
    assert select(quirks) == chosen
    assert Rules(quirks=quirks).repairs == chosen


@pytest.mark.parametrize("quirks", ["all", "", ["auto", "nginx"]])
def test_an_unknown_repair_is_an_error_that_names_the_known_ones(quirks: str | list[str]) -> None:
    with pytest.raises(ValueError, match="take auto, none or one of nginx-root"):
        select(quirks)


def test_automatic_repairs_are_those_that_the_laws_name() -> None:
    assert AUTOMATIC == ("nginx-root", "root-script-name", "proxy-filename", "nginx-scgi-length", "empty-name")


def test_every_repair_comes_with_the_configuration_that_makes_it_needless() -> None:
    assert all(advice for _, advice in REPAIRS.values())


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (NGINX, True),
        ({"DOCUMENT_URI": "/"}, True),
        ({"DOCUMENT_URI": "/", "SERVER_SOFTWARE": ""}, True),
        ({"DOCUMENT_URI": "/", "SERVER_SOFTWARE": "Caddy/2.6.2"}, False),
        ({"SERVER_SOFTWARE": "Apache/2.4.71 (not nginx/1.22.1)"}, False),
        ({}, False),
    ],
)
def test_nginx_is_known_by_what_it_sends(environ: dict[str, str], expected: bool) -> None:
    assert is_nginx(environ) is expected


#: (repair, protocol, what came, what it became or None where nothing is to be mended)
CASES: list[tuple[str, str, dict[str, str], dict[str, str] | None]] = [
    (
        "nginx-root",
        "fastcgi",
        {**NGINX, "SCRIPT_NAME": "/app/x"},
        {**NGINX, "SCRIPT_NAME": "", "PATH_INFO": "/app/x"},
    ),
    ("nginx-root", "scgi", {"DOCUMENT_URI": "/d"}, {"DOCUMENT_URI": "/d", "SCRIPT_NAME": "", "PATH_INFO": "/d"}),
    ("nginx-root", "fastcgi", NGINX, {**NGINX, "SCRIPT_NAME": "", "PATH_INFO": ""}),
    ("nginx-root", "fastcgi", {**NGINX, "SCRIPT_NAME": "/app", "PATH_INFO": ""}, None),
    ("nginx-root", "cgi", {**NGINX, "SCRIPT_NAME": "/app"}, None),
    ("nginx-root", "fastcgi", {"SERVER_SOFTWARE": "lighttpd/1.4.69", "SCRIPT_NAME": "/app"}, None),
    ("root-script-name", "fastcgi", {"SCRIPT_NAME": "/"}, {"SCRIPT_NAME": "", "PATH_INFO": "/"}),
    ("root-script-name", "fastcgi", {"SCRIPT_NAME": "/", "PATH_INFO": ""}, {"SCRIPT_NAME": "", "PATH_INFO": "/"}),
    ("root-script-name", "fastcgi", {"SCRIPT_NAME": "/", "PATH_INFO": "/x"}, {"SCRIPT_NAME": "", "PATH_INFO": "/x"}),
    ("root-script-name", "fastcgi", {"SCRIPT_NAME": "/app"}, None),
    (
        "proxy-filename",
        "fastcgi",
        {"SCRIPT_FILENAME": "proxy:fcgi://127.0.0.1:9000//a/b"},
        {"SCRIPT_FILENAME": "/a/b"},
    ),
    (
        "proxy-filename",
        "fastcgi",
        {"SCRIPT_FILENAME": "proxy:fcgi://localhost/srv/app"},
        {"SCRIPT_FILENAME": "/srv/app"},
    ),
    ("proxy-filename", "scgi", {"SCRIPT_FILENAME": "proxy:scgi://127.0.0.1:4000/a"}, {"SCRIPT_FILENAME": "/a"}),
    ("proxy-filename", "fastcgi", {"SCRIPT_FILENAME": "proxy:fcgi://localhost"}, {"SCRIPT_FILENAME": ""}),
    ("proxy-filename", "fastcgi", {"SCRIPT_FILENAME": "/srv/app"}, None),
    ("proxy-filename", "fastcgi", {"SCRIPT_FILENAME": "proxy:http://h/a"}, None),
    ("proxy-filename", "fastcgi", {}, None),
    (
        "nginx-scgi-length",
        "scgi",
        {"CONTENT_LENGTH": "0", "HTTP_CONTENT_LENGTH": "18"},
        {"CONTENT_LENGTH": "18", "HTTP_CONTENT_LENGTH": "18"},
    ),
    ("nginx-scgi-length", "scgi", {"CONTENT_LENGTH": "18", "HTTP_CONTENT_LENGTH": "18"}, None),
    ("nginx-scgi-length", "scgi", {"CONTENT_LENGTH": "18"}, None),
    ("nginx-scgi-length", "fastcgi", {"CONTENT_LENGTH": "0", "HTTP_CONTENT_LENGTH": "18"}, None),
    ("nginx-scgi-length", "scgi", {**NGINX, "CONTENT_LENGTH": "0", "HTTP_CONTENT_LENGTH": "18"}, None),
    ("empty-name", "fastcgi", {"": "x", "A": "1"}, {"A": "1"}),
    ("empty-name", "scgi", {"A": ""}, None),
    ("authorization", "fastcgi", {"Authorization": "Basic eA=="}, {"HTTP_AUTHORIZATION": "Basic eA=="}),
    ("authorization", "fastcgi", {"Authorization": "x", "HTTP_AUTHORIZATION": "y"}, {"HTTP_AUTHORIZATION": "y"}),
    ("authorization", "fastcgi", {"HTTP_AUTHORIZATION": "y"}, None),
]


@pytest.mark.parametrize(("name", "protocol", "sent", "mended"), CASES)
def test_X02_repair(name: str, protocol: str, sent: dict[str, str], mended: dict[str, str] | None) -> None:
    environ = dict(sent)
    notes = apply((name,), environ, protocol)
    assert environ == (sent if mended is None else mended)
    assert notes == (() if mended is None else (name,))


def test_every_repair_has_a_case_where_it_mends_and_one_where_it_does_not() -> None:
    assert {name for name, _, _, mended in CASES if mended is not None} == set(REPAIRS)
    assert {name for name, _, _, mended in CASES if mended is None} == set(REPAIRS)


@pytest.mark.parametrize(("name", "protocol", "sent", "mended"), [case for case in CASES if case[3] is not None])
def test_none_switches_a_repair_off(name: str, protocol: str, sent: dict[str, str], mended: dict[str, str]) -> None:
    pairs = [("REQUEST_METHOD", "GET"), *sent.items()]
    assert build(pairs, protocol, Rules(quirks="none"))[2] == ()
    assert name in build(pairs, protocol, Rules(quirks=name))[2]


def test_X02_the_notes_name_what_was_mended_in_order() -> None:
    pairs = [
        ("REQUEST_METHOD", "GET"),
        ("SERVER_SOFTWARE", "Apache/2.4.71"),
        ("SCRIPT_NAME", "/"),
        ("SCRIPT_FILENAME", "proxy:fcgi://127.0.0.1:9000/"),
    ]
    environ, path, notes = build(pairs, "fastcgi", Rules())
    assert notes == ("root-script-name", "proxy-filename")
    assert (path, environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/", "", "/")
    assert environ["SCRIPT_FILENAME"] == "/"


def test_where_the_mount_is_known_nginx_is_not_taken_to_be_mounted_at_the_root() -> None:
    sent = {**NGINX, "REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app/x"}
    environ, path, notes = build(sent, "fastcgi", Rules(mount="/app"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], path) == ("/app", "/x", "/app/x")
    assert notes == ()
