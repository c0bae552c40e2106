"""What pyproject.toml and constraints.txt promise to those who install the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import gateways

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    """The normalised name of the distribution that a requirement asks for."""
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_version_is_the_same_wherever_it_is_written() -> None:
    assert PROJECT["version"] == gateways.__version__


def test_core_dependencies_are_three() -> None:
    assert {name_of(requirement) for requirement in PROJECT["dependencies"]} == {"trio", "attrs", "h11"}


def test_every_dependency_has_a_tested_version() -> None:
    requirements = [*PROJECT["dependencies"], "hatchling"]
    for extra in PROJECT["optional-dependencies"].values():
        requirements += extra
    assert {name_of(requirement) for requirement in requirements} - {name_of(line) for line in constraints()} == set()


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    assert [line for line in constraints() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
