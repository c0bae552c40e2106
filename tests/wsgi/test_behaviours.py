"""What PEP 3333 promises to applications, over every protocol: the table of behaviours.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wsgi.behaviours import BEHAVIOURS
from tests.wsgi.tools import Scripts, checked, over_a_stream

OVER_HTTP = [name for name, each in BEHAVIOURS.items() if each.over_http]


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    with Scripts() as scripts:
        yield scripts


@pytest.mark.parametrize("threads", [40, 1], ids=["in a thread", "inline"])
@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_over_fastcgi(name: str, threads: int) -> None:
    checked(name, await over_a_stream(name, "fastcgi", threads), log=True)


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_over_scgi(name: str) -> None:
    checked(name, await over_a_stream(name, "scgi", 40))


@pytest.mark.parametrize("name", OVER_HTTP)
async def test_over_http(name: str) -> None:
    checked(name, await over_a_stream(name, "http", 40))


@pytest.mark.parametrize("under_trio", [False, True], ids=["no event loop", "trio"])
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_as_a_cgi_script(name: str, under_trio: bool, scripts: Scripts) -> None:
    checked(name, scripts.ask(name, under_trio), log=True)
