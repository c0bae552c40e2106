"""The targets and the rounds of fuzz/, briefly: every seed, neighbours of the seeds, and some thousand splits."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import corpus, fastcgi_client, fastcgi_server, splits
from gateways.events import Event
from gateways.fastcgi import ServerConnection
from tests.fastcgi.tools import request

TARGETS: dict[str, Callable[[bytes], None]] = {
    "fastcgi_server": fastcgi_server.check,
    "fastcgi_client": fastcgi_client.check,
}
SEEDS = {target: corpus.load(target) for target in TARGETS}


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with a few small things wrong, perhaps with the rest of another behind it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("change", "insert", "cut", "graft"))):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "cut":
                del data[at : at + draw(st.integers(1, 20))]
            case _:
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


# --- The targets ---


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_keeps_the_laws(target: str) -> None:
    assert len(SEEDS[target]) >= 15
    for data in SEEDS[target]:
        # Every choice that the first byte offers, and a few cuts.
        for choice in range(256):
            TARGETS[target](bytes((choice, data[1] ^ choice)) + data[2:])


@given(st.binary(max_size=200))
def test_any_bytes_keep_the_laws(data: bytes) -> None:
    for check in TARGETS.values():
        check(data)


@given(mutations(SEEDS["fastcgi_server"]))
def test_neighbours_of_the_server_seeds_keep_the_laws(data: bytes) -> None:
    fastcgi_server.check(data)


@given(mutations(SEEDS["fastcgi_client"]))
def test_neighbours_of_the_client_seeds_keep_the_laws(data: bytes) -> None:
    fastcgi_client.check(data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_begins_with_its_invariant(target: str) -> None:
    module = importlib.import_module(f"fuzz.{target}")
    first = inspect.getsource(module).partition("\n")[0]
    assert first.startswith('"""Whatever ')


def test_the_corpus_is_what_its_cases_say(tmp_path: Path) -> None:
    assert corpus.write(tmp_path) == sum(len(seeds) for seeds in SEEDS.values())
    for target in TARGETS:
        written = {path.name: path.read_bytes() for path in (tmp_path / target).iterdir()}
        kept = {path.name: path.read_bytes() for path in (corpus.FOLDER / target).iterdir()}
        assert written == kept


# --- Splits ---


def test_F17_any_stream_gives_equal_events_however_it_is_split() -> None:
    summary = splits.run(2_000, seed=1)
    assert summary.failure is None, str(summary)
    assert (summary.rounds, summary.streams) == (2_000, 250)
    assert summary.events > 2_000
    assert 0 < summary.failed < 1_500


def test_the_same_seed_plays_the_same_scripts() -> None:
    first, again = (random.Random(5) for _ in range(2))
    assert [splits.any_script(first) for _ in range(50)] == [splits.any_script(again) for _ in range(50)]


def test_cuts_are_inside_and_ascend() -> None:
    dice = random.Random(3)
    for length in (1, 2, 3, 9, 500):
        for _ in range(100):
            places = splits.any_cuts(dice, request()[:length] + bytes(max(0, length - 64)))
            assert places == sorted(set(places))
            assert all(place > 0 for place in places)


class _Forgetful(ServerConnection):
    """Loses what comes one byte alone."""

    def receive_data(self, data: bytes) -> list[Event]:
        return super().receive_data(data) if len(data) != 1 else []


def test_a_difference_is_found_shown_and_played_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(splits, "ServerConnection", _Forgetful)
    assert splits.main(["--rounds", "5000", "--seed", "1"]) == 1
    told = capsys.readouterr().out
    assert "FAILED" in told
    assert "seed 1" in told
    line = next(line for line in told.splitlines() if line.startswith("replay: "))
    replay = line.partition("--replay ")[2].strip("'")
    script, places = splits.loads(replay)
    assert splits.dumps(script, places) == replay
    assert 1 <= sum(map(len, places)) <= 2, "all cuts that are not needed are left out"
    stream = b"".join(step for step in script.steps if isinstance(step, bytes))
    assert f"stream: {stream.hex()}" in told
    assert splits.main(["--replay", replay]) == 1
    monkeypatch.undo()
    assert splits.main(["--replay", replay]) == 0


def test_the_command_tells_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert splits.main(["--rounds", "100"]) == 0
    told: Any = capsys.readouterr().out
    assert told.startswith("100 rounds of 13 streams")
    assert "all equal in" in told
