"""Every configuration is valid, and its server tells the client that no backend answers."""

from __future__ import annotations

import time

import attrs
import pytest

from tests.interop.client import fetch
from tests.interop.configurations import CONFIGURATIONS, Configuration
from tests.interop.servers import PATIENCE, FrontEnd, ServerFailed, accepts, front_end, require


async def test_a_backend_that_does_not_answer_is_a_server_error(web: FrontEnd) -> None:
    answer = await fetch(web.port, "GET", f"{web.configuration.mount}/")
    assert answer.status in {500, 502, 503}
    assert answer.complete


def test_configurations_have_ids_of_their_own() -> None:
    ids = {str(configuration) for configuration in CONFIGURATIONS}
    assert len(ids) == len(CONFIGURATIONS)


def _first(server: str) -> Configuration:
    return next(configuration for configuration in CONFIGURATIONS if configuration.server == server)


SERVERS = sorted({configuration.server for configuration in CONFIGURATIONS})


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_dies_at_start_shows_its_error_log(server: str) -> None:
    nonsense = attrs.evolve(_first(server), site="gateways_nonsense")
    with pytest.raises(ServerFailed, match=r"exited with status(.|\n)*server\.conf"), front_end(nonsense):
        pytest.fail("it started")


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_is_gone_and_its_folder_too_after_the_block(server: str) -> None:
    with front_end(_first(server)) as web:
        assert (web.folder / "server.conf").exists()
    assert not web.folder.exists()
    deadline = time.monotonic() + PATIENCE
    while accepts(web.port):  # what was killed takes a moment to die
        assert time.monotonic() < deadline


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_is_killed_is_gone_with_all_its_processes(server: str) -> None:
    with front_end(_first(server)) as web:
        web.kill()
        deadline = time.monotonic() + PATIENCE
        while accepts(web.port):
            assert time.monotonic() < deadline


def test_several_servers_may_have_one_backend() -> None:
    with front_end(_first("nginx")) as one, front_end(_first("lighttpd"), address=one.address) as other:
        assert one.address == other.address
        assert str(one.address).removeprefix("unix:") in (other.folder / "server.conf").read_text()


async def test_an_error_in_the_block_carries_the_error_log() -> None:
    async def fail() -> None:
        with front_end(_first("nginx")) as web:
            await fetch(web.port, "GET", "/")
            raise LookupError

    with pytest.raises(LookupError) as error:
        await fail()
    [note] = error.value.__notes__
    assert "connect() to unix:" in note


@pytest.mark.parametrize(("value", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_server_skips_the_test_or_fails_it_in_ci(
    value: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAYS_REQUIRE_SERVERS", value)
    require("sh", "/dev/null")
    with pytest.raises(outcome, match=r"not installed: no-such-server, /no/such/module\.so$"):
        require("sh", "no-such-server", "/no/such/module.so")
