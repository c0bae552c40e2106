"""The public names: listed for programs, for type checkers and for people, and the same three times."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gateways
from tools import public

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


# --- the protocols and the tools ---

MODULES = public.modules()


def test_every_module_without_an_underscore_is_public_or_said_to_be_reached_another_way() -> None:
    assert {"gateways.asgi", "gateways.fastcgi", "gateways.testing", "gateways.wsgi"} <= set(MODULES)
    assert not {f"gateways.{name}" for name in public.ELSEWHERE} & set(MODULES)
    for name in public.ELSEWHERE:
        assert importlib.util.find_spec(f"gateways.{name}")


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_exports_is_there(module: str) -> None:
    loaded = importlib.import_module(module)
    assert len(set(loaded.__all__)) == len(loaded.__all__) > 0
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []


def lazy(module: str) -> tuple[set[str], set[str]]:
    """The names that a module loads when they are first used, and those that it shows to type checkers alone."""
    loaded = importlib.import_module(module)
    tree = ast.parse(Path(loaded.__file__ or "").read_text(encoding="utf-8"))
    shown: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = [each for each in node.body if isinstance(each, ast.ImportFrom)]
            shown |= {each.asname or each.name for found in imports for each in found.names}
    return set(loaded._LAZY), shown


@pytest.mark.parametrize("module", [module for module in MODULES if hasattr(importlib.import_module(module), "_LAZY")])
def test_type_checkers_are_shown_the_names_that_a_module_loads_lazily(module: str) -> None:
    names, shown = lazy(module)
    assert names == shown & set(importlib.import_module(module).__all__)
    assert names <= shown


def test_lazy_modules_are_found() -> None:
    assert lazy("gateways.fastcgi")[0] == {"call", "serve", "serve_stream"}


# --- what their docstrings say ---


def callables() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Every public function, constructor and method of ours, with the docstring that describes it."""
    for name, value in public.everything().items():
        if isinstance(value, type):
            if getattr(value, "_is_protocol", False):  # typing made its constructor
                continue
            if "__init__" in vars(value):
                yield name, vars(value)["__init__"], inspect.getdoc(value) or ""
            for attribute, found in vars(value).items():
                function = getattr(found, "__func__", getattr(found, "fget", found))
                if not attribute.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{attribute}", function, inspect.getdoc(function) or ""
        elif callable(value):
            function = getattr(value, "func", value)  # of a partial
            if inspect.isfunction(function) and "<locals>" not in function.__qualname__:
                yield name, inspect.unwrap(function), inspect.getdoc(function) or ""


CALLABLES = {name: (function, text) for name, function, text in callables()}


def raised(function: Callable[..., Any]) -> set[str]:
    """The names of the exceptions that a function raises itself: not those of what it calls or defines."""
    found: set[str] = set()
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # attrs made it
        return found
    waiting: list[ast.AST] = [*ast.iter_child_nodes(ast.parse(source).body[0])]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func).rpartition(".")[2])
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return {name for name in found if name[0].isupper()}


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_says_what_the_function_raises(name: str) -> None:
    function, text = CALLABLES[name]
    assert text.strip()
    assert [error for error in sorted(raised(function)) if error not in text] == []


def test_what_is_raised_is_seen() -> None:
    assert raised(gateways.Reject.__init__) == {"ValueError"}
    assert raised(gateways.testing.serving) == {"ValueError"}
    assert sum(bool(raised(function)) for function, _ in CALLABLES.values()) > 10
