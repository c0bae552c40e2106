from __future__ import annotations

import pytest

from gateways import Handler, Reject, Request, Response, URLMap
from gateways._model.handler import drive
from tests.model.memory import ask, make


def named(name: str) -> Handler:
    async def handler(request: Request) -> Response:
        return Response(f"{name} {request.script_name}|{request.path_info}")

    return handler


def plain(request: Request) -> Response:
    return Response(f"plain {request.script_name}|{request.path_info}")


APP = URLMap(
    {
        "/a": named("a"),
        "/a/b": named("a/b"),
        "/plain": plain,
        "/in": URLMap({"/ner": named("inner")}),
        "": named("rest"),
    }
)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/a", "a /m/a|"),
        ("/a/", "a /m/a|/"),
        ("/a/x", "a /m/a|/x"),
        ("/ab", "rest /m|/ab"),
        ("/a/b", "a/b /m/a/b|"),
        ("/a/bc", "a /m/a|/bc"),
        ("/a/b/c", "a/b /m/a/b|/c"),
        ("/plain/x", "plain /m/plain|/x"),
        ("/in/ner/x", "inner /m/in/ner|/x"),
        ("", "rest /m|"),
        ("/", "rest /m|/"),
        ("//a", "rest /m|//a"),
    ],
)
def test_the_longest_prefix_on_a_segment_boundary_answers(path: str, answer: str) -> None:
    assert ask(APP, request=make(SCRIPT_NAME="/m", PATH_INFO=path)).body == answer.encode()


def test_no_match_is_404() -> None:
    request = make(PATH_INFO="/application")
    with pytest.raises(Reject) as caught:
        drive(URLMap({"/app": named("app")})(request))
    assert caught.value.status == 404
    assert request.path_info == "/application"


def test_a_prefix_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        URLMap({"a": named("a")})


@pytest.mark.parametrize(("one", "other"), [("/a", "/a/"), ("", "/")])
def test_a_prefix_is_given_once(one: str, other: str) -> None:
    with pytest.raises(ValueError, match="given twice"):
        URLMap({one: plain, other: plain})


def test_repr_shows_the_routes() -> None:
    assert repr(URLMap({"/a": plain})) == f"URLMap({{'/a': {plain!r}}})"
