"""The public names: listed for programs, for type checkers and for people, and the same three times."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gateways

SOURCE = Path(gateways.__file__)


def shown_to_type_checkers() -> dict[str, tuple[str, str]]:
    """What the ``if TYPE_CHECKING:`` block imports, in the form of the lazy table."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert len(blocks) == 1
    shown = {}
    for node in blocks[0].body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            # "import x as x" is what tells a type checker that a name is meant to be public.
            assert alias.asname == alias.name
            is_module = node.module == "gateways"
            shown[alias.name] = (f"gateways.{alias.name}", "") if is_module else (f"{node.module}", alias.name)
    return shown


def test_the_lazy_table_and_the_block_for_type_checkers_name_the_same_things_in_the_same_places() -> None:
    assert shown_to_type_checkers() == gateways._PUBLIC


def test_all_is_the_lazy_table() -> None:
    assert gateways.__all__ == sorted(gateways._PUBLIC)


def test_dir_shows_the_public_names() -> None:
    assert set(gateways.__all__) <= set(dir(gateways))


@pytest.mark.parametrize("name", gateways.__all__)
def test_public_name_is_what_the_table_says(name: str) -> None:
    path, attribute = gateways._PUBLIC[name]
    module = importlib.import_module(path)
    value = getattr(gateways, name)
    assert value is (getattr(module, attribute) if attribute else module)
    assert isinstance(value, ModuleType) is not bool(attribute)


@pytest.mark.parametrize("name", gateways.__all__)
def test_public_name_has_a_docstring(name: str) -> None:
    if name not in ("Handler", "Application"):  # types, which are no more than names at run time
        assert (getattr(gateways, name).__doc__ or "").strip()


def test_a_name_that_is_none_of_them_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gateways' has no attribute 'nothing'"):
        gateways.nothing  # noqa: B018


def test_no_module_bears_the_name_of_a_public_function_or_class() -> None:
    """Importing it would silently replace the function on the package."""
    values = {name for name, (_, attribute) in gateways._PUBLIC.items() if attribute}
    modules = {path.stem for path in SOURCE.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not values & modules


def test_a_star_import_gives_every_public_name() -> None:
    code = "from gateways import *; import gateways; print(sorted(set(gateways.__all__) - set(globals())))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=SOURCE.parents[1]
    )
    assert done.stdout.strip() == "[]"
