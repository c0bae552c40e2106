"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from tests.cli.program import Call

Hold = Callable[..., Call]


@pytest.fixture
def hold() -> Generator[Hold, None, None]:
    """Begin requests (see Call) that may never come to their end."""
    begun: list[Call] = []

    def begin(address: str, path: str = "/", **variables: str) -> Call:
        begun.append(Call(address, path, **variables))
        return begun[-1]

    yield begin
    for call in begun:
        call._stream.close()
