from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

from gateways import Limits
from gateways._model.limits import FIELDS, is_deadline


def test_defaults_are_those_that_were_promised() -> None:
    assert {name: getattr(Limits(), name) for name in FIELDS} == {
        "max_params": 1000,
        "max_params_bytes": 256 * 1024,
        "max_head": 32 * 1024,
        "body_buffer": 64 * 1024,
        "max_read": 16 * 1024 * 1024,
        "max_spool": 64 * 1024 * 1024,
        "max_ids": 128,
        "max_connections": 10_000,
        "max_running": 10_000,
        "max_stderr": 64 * 1024,
        "params_timeout": 10,
        "body_timeout": 60,
        "request_timeout": None,
        "idle_timeout": 300,
        "write_timeout": 60,
        "goodbye_timeout": 1,
        "drain_bytes": 64 * 1024,
        "drain_timeout": 2,
        "slow_timeout": None,
        "blocked_timeout": 30,
        "shutdown_grace": 30,
    }


def test_every_field_says_what_it_limits() -> None:
    assert all(meaning for _, meaning in FIELDS.values())
    assert Limits.fields() == FIELDS


def test_one_field_is_changed_and_the_others_keep_their_default() -> None:
    limits = Limits(idle_timeout=60, max_ids=1)
    assert (limits.idle_timeout, limits.max_ids, limits.max_params) == (60, 1, 1000)
    assert repr(limits) == "Limits(max_ids=1, idle_timeout=60)"


@pytest.mark.parametrize("name", [name for name in FIELDS if is_deadline(name)])
def test_a_deadline_takes_seconds_or_none(name: str) -> None:
    fields: dict[str, Any] = {name: 0.5}
    assert getattr(Limits(**fields), name) == 0.5
    fields = {name: None}
    assert getattr(Limits(**fields), name) is None


@pytest.mark.parametrize("value", [0, -1, math.nan, "5", True])
def test_a_deadline_takes_nothing_else(value: Any) -> None:
    with pytest.raises(ValueError, match="idle_timeout takes seconds above 0"):
        Limits(idle_timeout=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, None, "5", True])
def test_a_cap_takes_a_whole_number_above_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="max_ids takes a whole number above 0"):
        Limits(max_ids=value)


def test_an_unknown_limit_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"unknown limit 'max_param'.*max_params"):
        Limits(max_param=5)


def test_limits_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Limits().max_ids = 5


def test_limits_are_values() -> None:
    assert Limits(max_ids=1) == Limits(max_ids=1)
    assert hash(Limits(max_ids=1)) == hash(Limits(max_ids=1))
    assert Limits(max_ids=1) != Limits()
    assert Limits() != "Limits()"


def test_limits_survive_copying_and_pickling() -> None:
    limits = Limits(max_ids=1, idle_timeout=None)
    assert pickle.loads(pickle.dumps(limits)) == limits
    assert copy.copy(limits) == limits
