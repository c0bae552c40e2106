"""The quick ways through the model give what the slow and plain ones give, for whatever may come."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import Headers, RemoteProtocolError, Response
from gateways._model import environ as laws
from gateways._model import headers
from gateways._model.environ import Rules, build, scgi_length
from gateways._model.policy import decide, render_head
from gateways._model.quirks import REPAIRS, apply
from gateways._model.status import reason
from tests.captures import load_small_web, load_web
from tests.captures.decoding import PROTOCOLS, pairs
from tests.model.oracle_environ import slow_build, slow_scgi_length
from tests.model.strategies import any_pairs, protocols

Pairs = list[tuple[str, str]]

RULES = [
    Rules(quirks=quirks, mount=mount, trust_remote_user=trusting, trust_forwarded=trusting)
    for quirks in ("auto", "none", ["auto", "authorization"])
    for mount in (None, "", "/app")
    for trusting in (False, True)
]


def outcome(function: Callable[..., Any], *arguments: object) -> object:
    """What a function gives, or the kind and the status of its error."""
    try:
        return function(*arguments)
    except RemoteProtocolError as error:
        return type(error), error.status


def without_repeats(sent: Pairs) -> MappingProxyType[str, str]:
    """A mapping, as the codecs give where no name was repeated; this one cannot be written to."""
    return MappingProxyType(dict(sent))


def captured() -> dict[str, tuple[str, Pairs]]:
    """The variables of every capture, with the protocol that carried them."""
    found: dict[str, tuple[str, Pairs]] = {}
    for web in load_web():
        if web.params is not None:
            found[web.id] = (PROTOCOLS[web.protocol], list(pairs(web.params)))
    for small in load_small_web():
        if small.env is not None:
            found[small.id] = (small.backend_protocol, list(pairs(small.env)))
    return found


CAPTURED = captured()


@pytest.mark.parametrize(
    "rules",
    [
        Rules(),
        Rules(quirks=["auto", "authorization"], mount=""),
        Rules(mount="/app", trust_remote_user=True),
        Rules(quirks="none", trust_forwarded=True),
    ],
    ids=["the usual", "mounted at the root", "mounted below", "no repairs"],
)
def test_environ_of_every_capture_is_that_of_the_slow_way(rules: Rules) -> None:
    for name, (protocol, sent) in CAPTURED.items():
        assert outcome(build, sent, protocol, rules) == outcome(slow_build, sent, protocol, rules), name
        mapping = without_repeats(sent)
        assert outcome(build, mapping, protocol, rules) == outcome(slow_build, mapping, protocol, rules), name


@given(any_pairs, protocols, st.sampled_from(RULES))
@settings(deadline=None, max_examples=400)
def test_environ_of_anything_is_that_of_the_slow_way(sent: Pairs, protocol: str, rules: Rules) -> None:
    assert outcome(build, sent, protocol, rules) == outcome(slow_build, sent, protocol, rules)
    mapping = without_repeats(sent)
    assert outcome(build, mapping, protocol, rules) == outcome(slow_build, mapping, protocol, rules)


@given(st.sampled_from(sorted(CAPTURED)), any_pairs, st.sampled_from(RULES), st.booleans())
@settings(deadline=None, max_examples=400)
def test_environ_of_a_capture_with_something_added_is_that_of_the_slow_way(
    name: str, added: Pairs, rules: Rules, in_front: bool
) -> None:
    protocol, sent = CAPTURED[name]
    sent = added + sent if in_front else sent + added
    assert outcome(build, sent, protocol, rules) == outcome(slow_build, sent, protocol, rules)


_LENGTHS = st.sampled_from(["", "0", "5", "05", "-1", "x", "18", "9" * 19, "9" * 20])
_LENGTH_NAMES = st.sampled_from(["CONTENT_LENGTH", "HTTP_CONTENT_LENGTH"])
_SOFTWARE = st.tuples(st.just("SERVER_SOFTWARE"), st.sampled_from(["", "nginx/1.22.1"]))


@given(st.lists(st.tuples(_LENGTH_NAMES, _LENGTHS) | _SOFTWARE, max_size=4))
def test_scgi_length_of_anything_is_that_of_the_slow_way(sent: Pairs) -> None:
    assert outcome(scgi_length, sent) == outcome(slow_scgi_length, sent)
    mapping = without_repeats(sent)
    assert outcome(scgi_length, mapping) == outcome(slow_scgi_length, mapping)


_SIGNS = {
    "PATH_INFO": ["", "/x"],
    "SCRIPT_NAME": ["", "/", "/app"],
    "DOCUMENT_URI": ["/x"],
    "SERVER_SOFTWARE": ["", "nginx/1.22.1"],
    "SCRIPT_FILENAME": ["/x", "proxy:fcgi://host/x"],
    "CONTENT_LENGTH": ["", "0"],
    "HTTP_CONTENT_LENGTH": ["", "5"],
    "Authorization": ["", "Basic eA=="],
    "": ["", "x"],
}


@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "cgi"])
def test_no_repair_is_overlooked(protocol: str) -> None:
    choices = [[None, *values] for values in _SIGNS.values()]
    for values in itertools.product(*choices):
        sent = {name: value for name, value in zip(_SIGNS, values, strict=True) if value is not None}
        quick, slow = dict(sent), dict(sent)
        notes = tuple([name for name in REPAIRS if REPAIRS[name][0](slow, protocol)])
        assert (apply(tuple(REPAIRS), quick, protocol), quick) == (notes, slow)


def test_no_repair_and_no_law_is_overlooked_in_what_looks_plain() -> None:
    rules = Rules(quirks=tuple(REPAIRS))
    names = [name for name in _SIGNS if name != "CONTENT_LENGTH"]
    for values in itertools.product(*[[None, *_SIGNS[name]] for name in names]):
        sent = [("REQUEST_METHOD", "GET"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("CONTENT_LENGTH", "0")]
        sent += [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
        assert outcome(build, sent, "scgi", rules) == outcome(slow_build, sent, "scgi", rules)


def test_usual_names_are_names_that_the_slow_look_lets_pass() -> None:
    for name in laws._USUAL_NAMES:
        assert headers.is_token(name)
        assert name not in ("", "HTTP_PROXY")


def test_plain_names_are_none_that_a_repair_or_a_law_of_their_own_is_about() -> None:
    assert laws._PLAIN_NAMES < laws._USUAL_NAMES
    assert laws._PLAIN_NAMES.isdisjoint(laws._NEVER)
    assert laws._PLAIN_NAMES.isdisjoint(["SCRIPT_FILENAME", "Authorization", "FCGI_DATA_LENGTH", "FCGI_DATA_LAST_MOD"])


def test_usual_methods_and_protocols_are_what_the_slow_look_lets_pass() -> None:
    assert all(headers.is_token(method) for method in laws._USUAL_METHODS)
    assert all(name.partition("/")[0].lower() in laws._HTTP_PROTOCOLS for name in laws.USUAL_HTTP)


def test_usual_header_names_are_names_that_no_rule_forbids() -> None:
    for name in headers._USUAL:
        assert headers.is_token(name)
        assert name == name.lower()
        assert name not in {"status", "content-length"} | headers.HOP_BY_HOP | headers.INTERNAL


@pytest.mark.parametrize("name", ["Lin\u212a", "Set-Coo\u212aie", "\u212aeep-alive"])
def test_a_letter_whose_lower_case_is_plain_makes_no_header_name(name: str) -> None:
    assert name.lower().isascii()
    with pytest.raises(ValueError, match="is a token"):
        Headers([(name, "x")])


def test_the_first_line_of_a_head_is_the_status_with_its_reason() -> None:
    for status in range(200, 600):
        assert render_head(status, [("A", "b")]) == f"Status: {status} {reason(status)}\r\nA: b\r\n\r\n".encode()


def test_responses_without_fields_are_as_good_as_those_that_were_given_none() -> None:
    empties: list[Any] = [(), [], {}, Headers(), iter(())]
    for empty in empties:
        response = Response("x", headers=empty)
        assert response == Response("x")
        assert decide(response, "GET", size=1).head == decide(Response("x"), "GET", size=1).head
    with pytest.raises(TypeError):
        Response("x", headers=None)  # type: ignore[arg-type]
