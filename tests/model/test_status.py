from __future__ import annotations

import http

import pytest

from gateways._model.status import REASONS, reason


@pytest.mark.parametrize("status", [status for status in http.HTTPStatus if 200 <= status <= 599])
def test_reason_covers_every_final_status_that_the_standard_library_knows(status: http.HTTPStatus) -> None:
    assert status.value in REASONS


def test_reasons_are_text_that_may_stand_in_a_head() -> None:
    assert all(phrase and phrase.isascii() and phrase.isprintable() for phrase in REASONS.values())
    assert all(200 <= status <= 599 for status in REASONS)


def test_a_status_without_a_registered_reason_has_one_all_the_same() -> None:
    assert reason(599) == "Unknown"
