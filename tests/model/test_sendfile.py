"""Which answers are handed over to the web server, and what it is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateways import Limits, LocalProtocolError, Request, Response
from gateways._model.policy import Answer, decide, respond
from gateways._model.sendfile import AllowedHeaders, can_be_handed_over, hand_over

NGINX, APACHE = "X-Accel-Redirect", "X-Sendfile"


class Sink:
    """Where an answer goes."""

    def __init__(self) -> None:
        self.committed = False
        self.head = b""
        self.body = b""

    async def start(self, answer: Answer) -> None:
        self.head = answer.head

    async def write(self, data: bytes) -> None:
        self.body += data

    def report(self, error: BaseException) -> None:
        raise error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, beside one that is not to be reached."""
    (tmp_path / "files" / "sub").mkdir(parents=True)
    (tmp_path / "files" / "a b.txt").write_text("inside")
    (tmp_path / "files" / "sub" / "c.txt").write_text("inside")
    (tmp_path / "files-too").mkdir()
    (tmp_path / "files-too" / "d.txt").write_text("outside")
    return tmp_path / "files"


def handed(path: Path, allowed: Any, **settings: Any) -> Response | None:
    return hand_over(Response(path, **settings), AllowedHeaders(allowed).folders)


def told(path: Path, allowed: Any) -> str | None:
    """What the web server is told."""
    response = handed(path, allowed)
    return None if response is None else response.headers.get(NGINX, response.headers.get(APACHE))


# --- what the web server is told


@pytest.mark.parametrize("there", ["/protected", "/protected/"])
def test_nginx_is_told_the_path_that_it_knows(folder: Path, there: str) -> None:
    allowed = {"x-accel-redirect": {f"{folder}/": there}}
    assert told(folder / "a b.txt", allowed) == "/protected/a%20b.txt"
    assert told(folder / "sub" / "c.txt", allowed) == "/protected/sub/c.txt"
    assert told(folder / "sub" / ".." / "a b.txt", allowed) == "/protected/a%20b.txt"


def test_apache_and_lighttpd_are_told_the_path_of_the_file(folder: Path) -> None:
    assert told(folder / "a b.txt", {APACHE: [str(folder)]}) == f"{folder}/a b.txt"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("100%.txt", "100%25.txt"),
        ("p%41.txt", "p%2541.txt"),
        ("q?x#y.txt", "q%3Fx%23y.txt"),
        ("new\nline", "new%0Aline"),
        ("back\\slash", "back%5Cslash"),
        ("ü", "%C3%BC"),
        ("raw\udcff", "raw%FF"),
        ("end ", "end%20"),
    ],
)
def test_any_name_can_be_told_to_nginx(folder: Path, name: str, quoted: str) -> None:
    (folder / name).write_text("x")
    assert told(folder / name, {NGINX: {str(folder): "/p"}}) == f"/p/{quoted}"


@pytest.mark.parametrize("name", ["100%.txt", "p%41.txt", "new\nline", "tab\t", "raw\udcff", "end "])
def test_what_x_sendfile_cannot_say_is_ours_to_send(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    assert told(folder / name, {APACHE: [str(folder)]}) is None


def test_of_two_folders_the_inner_one_counts(folder: Path) -> None:
    allowed = {NGINX: {str(folder): "/outer", f"{folder}/sub": "/inner"}}
    assert told(folder / "sub" / "c.txt", allowed) == "/inner/c.txt"
    assert told(folder / "a b.txt", allowed) == "/outer/a%20b.txt"


# --- what is not for it


def test_nothing_beside_the_folder_is_handed_over(folder: Path) -> None:
    allowed = {NGINX: {str(folder): "/p"}}
    assert told(folder / ".." / "files-too" / "d.txt", allowed) is None
    assert told(folder.parent / "files-too" / "d.txt", allowed) is None


def test_a_link_does_not_lead_out_of_the_folder(folder: Path) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "files-too" / "d.txt")
    (folder / "way").symlink_to(folder.parent / "files-too")
    allowed = {NGINX: {str(folder): "/p"}}
    assert told(folder / "link.txt", allowed) is None
    assert told(folder / "way" / "d.txt", allowed) is None


def test_a_folder_may_be_a_link_itself(folder: Path) -> None:
    current = folder.parent / "current"
    current.symlink_to(folder)
    assert told(current / "a b.txt", {NGINX: {str(current): "/p"}}) == "/p/a%20b.txt"


def test_what_is_no_file_is_ours_to_find_out(folder: Path) -> None:
    allowed = {NGINX: {str(folder): "/p"}}
    assert told(folder / "sub", allowed) is None
    assert told(folder / "missing", allowed) is None
    os.mkfifo(folder / "fifo")
    assert told(folder / "fifo", allowed) is None


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {}),
        (206, {"Content-Range": "bytes 0-1/6"}),
        (200, {"Content-Range": "bytes 0-5/6"}),
        (200, {"content-encoding": "gzip"}),
        (200, {NGINX: "/elsewhere"}),
        (200, {APACHE: "/elsewhere"}),
    ],
)
def test_an_answer_that_a_web_server_would_change_is_ours_to_send(status: int, headers: dict[str, str]) -> None:
    assert not can_be_handed_over(Response(b"", status, headers))


def test_a_plain_answer_can_be_handed_over() -> None:
    assert can_be_handed_over(Response(b"", headers={"ETag": '"1"'}))


# --- the rest of the answer


def test_type_and_fields_stay_and_the_length_goes(folder: Path) -> None:
    headers = [("Content-Length", "6"), ("X-One", "1"), ("Content-Type", "text/x-mine")]
    response = handed(folder / "a b.txt", {NGINX: {str(folder): "/p"}}, headers=headers, app_status=7)
    assert response is not None
    assert response.headers.items() == (("X-One", "1"), (NGINX, "/p/a%20b.txt"))
    assert (response.body, response.status, response.content_type, response.app_status) == ("", 200, "text/x-mine", 7)


def test_a_type_that_nobody_says_is_not_left_to_the_web_server(folder: Path) -> None:
    response = handed(folder / "a b.txt", {APACHE: [str(folder)]})
    assert response is not None
    assert response.content_type == "application/octet-stream"


@pytest.mark.parametrize(
    "fields", [[("Content-Length", "6"), (APACHE, "/x")], [(APACHE, "/x"), ("Content-Length", "6")]]
)
def test_the_length_of_a_file_that_the_application_names_itself_is_not_that_of_the_body(
    fields: list[tuple[str, str]],
) -> None:
    """Flask sends it, with an empty body."""
    answer = decide(Response("", headers=fields), "GET", size=0, allowed=AllowedHeaders([APACHE]))
    assert answer.head.endswith(b"X-Sendfile: /x\r\nContent-Length: 0\r\n\r\n")
    assert answer.length == 0
    streamed = decide(Response(iter(()), headers=fields), "GET", allowed=AllowedHeaders([APACHE]))
    assert b"Content-Length" not in streamed.head
    assert streamed.length is None


def test_a_length_that_contradicts_the_body_is_an_error_where_no_file_is_named() -> None:
    with pytest.raises(LocalProtocolError, match="the body has 0 bytes"):
        decide(Response("", headers={"Content-Length": "6"}), "GET", size=0, allowed=AllowedHeaders([APACHE]))
    with pytest.raises(LocalProtocolError, match="allow it by name"):
        decide(Response("", headers={APACHE: "/x", "Content-Length": "0"}), "GET", size=0, allowed=AllowedHeaders())


# --- through the policy


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_file_is_handed_over_or_sent_as_the_listener_says(folder: Path, method: str) -> None:
    async def app(request: Request) -> Response:
        return Response(folder / request.path_info[1:], headers={"X-One": "1"})

    mapped = AllowedHeaders({NGINX: {str(folder): "/p"}})
    for name, allowed in (("sub/c.txt", mapped), ("sub/c.txt", ()), ("../files-too/d.txt", mapped)):
        sink = Sink()
        environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": f"/{name}"}
        await respond(app, Request(environ), sink, limits=Limits(), allowed=allowed)
        is_handed = (name, allowed) == ("sub/c.txt", mapped)
        assert (b"X-Accel-Redirect: /p/sub/c.txt\r\n" in sink.head) is is_handed
        assert b"X-One: 1\r\n" in sink.head
        assert sink.body == (b"" if is_handed or method == "HEAD" else (folder / name).read_bytes())


async def test_an_answer_that_is_not_for_the_web_server_is_sent_although_its_file_is_in_the_folder(
    folder: Path,
) -> None:
    async def app(request: Request) -> Response:
        return Response(folder / "a b.txt", 404)

    sink = Sink()
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/"}
    allowed = AllowedHeaders({NGINX: {str(folder): "/p"}})
    await respond(app, Request(environ), sink, limits=Limits(), allowed=allowed)
    assert (sink.head[:11], sink.body) == (b"Status: 404", b"inside")


# --- what a listener allows


def test_names_are_compared_without_case() -> None:
    for names in (["X-Sendfile"], {"X-Sendfile": ()}, AllowedHeaders(["x-sendfile"])):
        allowed = AllowedHeaders(names)
        assert "x-sendfile" in allowed
        assert "x-accel-redirect" not in allowed
        assert ([*allowed], len(allowed), allowed.folders) == (["x-sendfile"], 1, ())


def test_what_allows_the_same_is_equal() -> None:
    mapped = AllowedHeaders({APACHE: ["/srv"]})
    assert mapped == AllowedHeaders(mapped)
    assert hash(mapped) == hash(AllowedHeaders(mapped))
    assert mapped != AllowedHeaders([APACHE])
    assert mapped != {"x-sendfile"}
    assert repr(mapped) == "<AllowedHeaders x-sendfile, ('X-Sendfile', '/srv', '/srv')>"


@pytest.mark.parametrize(
    ("allowed", "says"),
    [
        ({NGINX: ["/srv/files"]}, "what nginx calls each folder"),
        ({APACHE: "/srv/files"}, "takes a list of folders"),
        ({APACHE: ["files"]}, "absolute path"),
        ({NGINX: {"/srv/files": "protected"}}, "absolute path"),
        ({APACHE: ["/"]}, "not all of the disk"),
        ({"X-Lighttpd-Send-Tempfile": ["/srv/files"]}, "no files are mapped to X-Lighttpd-Send-Tempfile"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(allowed: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AllowedHeaders(allowed)
