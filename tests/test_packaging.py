"""What pyproject.toml and constraints.txt promise to those who install the package."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import gateways

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]


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


def test_the_README_names_every_extra_for_users() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)) == {
        *PROJECT["optional-dependencies"].keys() - {"test", "lint", "docs"}
    }


# --- what is packed --------------------------------------------------------------------------------------------------

#: What is nobody's but the one's who has the folder.
PRIVATE = {
    "__pycache__",
    "_build",
    "node_modules",
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
}
#: What the tests, the documentation and those who read the source need.
PACKED = ("bench", "chaos", "docs", "examples", "fuzz", "gateways", "newsfragments", "tests", "tools")


def packed(kind: str) -> set[str]:
    """The files of a distribution, without building it."""
    pytest.importorskip("hatchling")
    module = importlib.import_module(f"hatchling.builders.{kind}")
    builder = getattr(module, f"{kind.capitalize()}Builder")(str(ROOT))
    return {str(file.distribution_path) for file in builder.recurse_included_files()}


def there(folder: str) -> set[str]:
    found = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path) for path in found if not PRIVATE & {*path.parts} and path.suffix not in (".pyc", ".so")}


@pytest.mark.parametrize("folder", PACKED)
def test_the_source_distribution_has_all_of(folder: str) -> None:
    files = packed("sdist")
    assert there(folder)
    assert there(folder) - files == set()


def test_the_source_distribution_has_what_runs_the_tests_and_nothing_private() -> None:
    files = packed("sdist")
    assert {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "SECURITY.md",
        "CHANGELOG.md",
        "test",
        "demo",
    } <= files
    assert [name for name in files if PRIVATE & {*Path(name).parts} or name.startswith((".venv", ".ci"))] == []


def test_the_wheel_is_the_package_alone() -> None:
    files = packed("wheel")
    assert "gateways/py.typed" in files
    assert files == there("gateways")


# --- news ------------------------------------------------------------------------------------------------------------


def test_every_news_fragment_is_of_a_type_that_there_is() -> None:
    types = {kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"]}
    fragments = [path for path in (ROOT / "newsfragments").iterdir() if path.name != "README.md"]
    for path in fragments:
        found = re.fullmatch(r"[a-z0-9-]+\.([a-z]+)\.md", path.name)
        assert found, path.name
        assert found[1] in types, path.name
        assert path.read_text(encoding="utf-8").strip()
    readme = (ROOT / "newsfragments" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^ *\| `(\w+)` \|", readme, re.MULTILINE)) == types


def test_the_change_log_can_be_made() -> None:
    pytest.importorskip("towncrier")
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0.0.0", "--date", "today"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("## 0.0.0 (today)") or "## 0.0.0 (today)" in made.stdout
