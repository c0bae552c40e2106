"""The tables and drawings on the pages of the protocols say what was recorded, and what is sent."""

from __future__ import annotations

import pytest

from gateways import scgi
from gateways.fastcgi import wire
from tools import conversations, web_servers
from tools.pictures import BODY, ENVIRON


def who(protocol: str) -> dict[str, str]:
    """Which web servers send which variable."""
    return {name.strip("`"): servers for name, servers, _ in web_servers.variables(protocol)}


def test_the_variables_that_nothing_works_without_are_sent_by_all() -> None:
    for name in ("REQUEST_METHOD", "REMOTE_ADDR", "SERVER_PROTOCOL"):
        assert [who(protocol)[name] for protocol in ("fcgi", "scgi", "cgi")] == ["all"] * 3


def test_scgi_has_a_length_with_every_request() -> None:
    assert who("scgi")["CONTENT_LENGTH"] == "all"
    assert "nginx (or empty)" in who("fcgi")["CONTENT_LENGTH"]


def test_each_web_server_has_its_manners() -> None:
    manners = {
        row[0].partition("\n")[0]: dict(zip(web_servers.HEADS["fcgi"], row, strict=True))
        for row in web_servers.manners("fcgi")
    }
    assert manners.keys() == {"nginx", "Apache", "lighttpd", "HAProxy", "Caddy", "h2o"}
    assert [name for name, row in manners.items() if row["asks GET_VALUES"] == "yes"] == ["HAProxy"]
    assert manners["Caddy"]["CONTENT_LENGTH of an upload in chunks"] == "``-1``"


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
def test_the_drawing_of_a_conversation_counts_what_is_sent(protocol: str) -> None:
    said = [each.words for each in conversations.CONVERSATIONS[protocol][2]()]
    counted = [int(words.rpartition(", ")[2].removesuffix(" bytes")) for words in said if words.endswith("bytes")]
    sent = scgi.ClientConnection().send_request(0, ENVIRON)
    if protocol == "fastcgi":
        sent = wire.encode_pairs(ENVIRON.items())
    assert counted == [len(sent), len(BODY), len(conversations.HEAD), len(conversations.ANSWER)]


@pytest.mark.parametrize("protocol", conversations.CONVERSATIONS)
def test_a_conversation_has_an_arrow_for_each_thing_that_is_said(protocol: str) -> None:
    drawn = conversations.svg_of(protocol)
    said = conversations.CONVERSATIONS[protocol][2]()
    assert drawn.count('class="head"') == len(said)
    assert all(len(each.words) * 6.7 <= conversations.RIGHT - conversations.LEFT for each in said)
