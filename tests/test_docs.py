"""The documentation is true: its examples run, its commands exist, and the tests and files that it names are there.

Configurations of web servers are run by tests/interop; ``.ci/run`` builds the pages.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import itertools
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import gateways
from gateways import launch
from gateways._net import address
from gateways.cli import check, dev, serve
from tools import compliance

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.rst") if "_build" not in path.parts)
PROSE = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
TABLES = [compliance.LAWS, compliance.CONFORMANCE]


def name_of(path: object) -> str | None:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else None


def blocks(path: Path, language: str) -> Iterator[tuple[str, str]]:
    """The code blocks of a page in one language, each with its caption ("" where there is none)."""
    found = re.finditer(
        rf"^\.\. code-block:: {language}\n(?:   :caption: (.*)\n)?(?:   :.*\n)*\n((?:   .*\n|\n)+)",
        path.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    for block in found:
        yield block[1] or "", textwrap.dedent(block[2]).strip() + "\n"


# --- doctests --------------------------------------------------------------------------------------------------------

#: In a process of its own, because doctest and coverage both trace.
RUN_DOCTESTS = """
import doctest, importlib, sys
failed = 0
for name in sys.argv[1:]:
    if name.endswith(".rst"):
        result = doctest.testfile(name, module_relative=False, encoding="utf-8")
    else:
        result = doctest.testmod(importlib.import_module(name))
    failed += result.failed + (result.attempted == 0)
sys.exit(failed != 0)
"""


def test_examples_of_doctest_hold() -> None:
    files = [*sorted((ROOT / "gateways").rglob("*.py")), *PAGES, *sorted((ROOT / "tools").glob("*.py"))]
    names: list[str] = []
    for path in files:
        if re.search(r"^ *>>> (?!.*# doctest: \+SKIP)", path.read_text(encoding="utf-8"), re.MULTILINE):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            names.append(str(path) if path.suffix == ".rst" else module)
    assert {"gateways.fastcgi", "gateways._model.request", str(ROOT / "docs" / "wire.rst")} <= set(names)
    ended = subprocess.run(
        [sys.executable, "-c", RUN_DOCTESTS, *names], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# --- blocks of Python ------------------------------------------------------------------------------------------------


def checking(function: Callable[..., Any]) -> Callable[..., None]:
    """What stands for a function that would serve for ever: it looks at its arguments."""

    def check(*arguments: Any, **settings: Any) -> None:
        bound = inspect.signature(function).bind(*arguments, **settings)
        listen = bound.arguments.get("listen") or bound.arguments.get("bind") or []
        for _, where in launch._divide(listen) if listen else []:
            address.parse(where.address)

    return check


def run_in_trio(function: Callable[..., Any], *arguments: Any) -> None:
    checking(function)(*arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))], ids=name_of)
def test_blocks_of_python_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "examples" / "hello.py", tmp_path / "hello.py")
    shutil.copy(ROOT / "examples" / "hello.py", tmp_path / "app.py")
    (tmp_path / "cgi-bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("hello", "app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    really_run = trio.run
    monkeypatch.setattr(trio, "run", run_in_trio)
    monkeypatch.setattr(gateways, "run", checking(gateways.run))
    monkeypatch.setattr(gateways.cgi, "run", checking(gateways.cgi.run))
    for caption, source in blocks(page, "python"):
        if caption.endswith(".py"):
            (tmp_path / caption).write_text(source, encoding="utf-8")
        names: dict[str, Any] = {"__name__": "block"}
        exec(compile(source, f"{page.name}: {source.splitlines()[0]}", "exec"), names)
        for name, value in names.items():
            if name.startswith("test_"):
                with monkeypatch.context() as patch:
                    patch.setattr(trio, "run", really_run)
                    really_run(value)
    for name in ("hello", "app"):
        sys.modules.pop(name, None)


# --- commands --------------------------------------------------------------------------------------------------------

VERBS = {"serve": serve, "dev": dev, "check": check}


def commands(path: Path) -> Iterator[list[str]]:
    """The words behind "gateways" of every such command in the blocks of a page."""
    if path.suffix == ".rst":
        lines = [line[2:] for _, text in blocks(path, "console") for line in text.splitlines() if line[:2] == "$ "]
    else:
        lines = "\n".join(
            re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        ).splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        for before, verb in itertools.pairwise(words):
            if Path(before).name == "gateways" and verb in VERBS:
                yield words[words.index(verb) :]


@pytest.mark.parametrize("page", [page for page in PROSE if any(commands(page))], ids=name_of)
def test_commands_exist(page: Path) -> None:
    for verb, *arguments in commands(page):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        VERBS[verb]._add_arguments(parser)
        options = parser.parse_args(arguments)
        for bind in getattr(options, "bind", []):
            [(_, listen)] = launch._divide(bind)
            address.parse(listen.address)


def test_commands_are_found() -> None:
    assert len([*commands(ROOT / "docs" / "howto.rst")]) > 10
    assert len([*commands(ROOT / "README.md")]) == 2


# --- what is named ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PROSE, *TABLES], ids=name_of)
def test_tests_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"\btests/[\w/]+\.py::\w+", path.read_text(encoding="utf-8"))
    assert set(named) - compliance.tests() == set()


@pytest.mark.parametrize("module", ["gateways", "gateways.cgi", "gateways.fastcgi", "gateways.http", "gateways.scgi"])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    page = (ROOT / "docs" / "reference.rst").read_text(encoding="utf-8")
    described = set(re.findall(r"^\.\. (?:auto|py:)?(?:class|exception|function|data):: ([\w.]+)", page, re.MULTILINE))
    described |= set(re.findall(r"^\.\. automodule:: ([\w.]+)", page, re.MULTILINE))
    names = {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    packages = {f"{module}.{found.name}" for found in pkgutil.iter_modules(gateways.__path__) if found.ispkg}
    assert names - described - packages == set()


@pytest.mark.parametrize("path", [path for path in PROSE if path.suffix == ".md"], ids=name_of)
def test_files_that_are_linked_exist(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_law_has_a_test() -> None:
    assert [law.says for law in compliance.laws() if not law.tests] == []
    page = (ROOT / "docs" / "laws.rst").read_text(encoding="utf-8")
    assert re.findall(r"^\.\. laws-table:: (.*)$", page, re.MULTILINE) == [
        *dict.fromkeys(law.about for law in compliance.laws())
    ]


def test_every_rule_of_the_protocols_is_accounted_for() -> None:
    rules = compliance.rules()
    wanted = [f"F{n:02}" for n in range(1, 43)] + [f"W{n:02}" for n in range(1, 55)]
    wanted += [f"S{n:02}" for n in range(1, 13)] + [f"SH{n:02}" for n in range(1, 21)]
    wanted += [f"C{n:02}" for n in (*range(1, 23), *range(30, 45))] + [f"E{n:02}" for n in range(1, 27)]
    wanted += ["X01", "X02"]
    assert [rule.id for rule in rules] == wanted
    assert {rule.met for rule in rules} <= compliance.MET.keys()
    assert [rule.id for rule in rules if not rule.tests and rule.met != "no"] == []
    assert [
        rule.id for rule in rules if not rule.how and (rule.met != "yes" or rule.family in compliance.HOSTILE)
    ] == []


def test_every_rule_and_every_row_of_what_goes_wrong_has_a_test_that_is_named_after_it() -> None:
    assert {rule.id for rule in compliance.rules()} - compliance.named() == set()


def test_every_rule_is_on_a_page() -> None:
    shown = [
        family
        for page in sorted((ROOT / "docs" / "protocols").glob("*.rst"))
        for family in re.findall(r"^\.\. conformance-table:: (\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(shown) == sorted({rule.family for rule in compliance.rules()})


def test_every_id_in_the_name_of_a_test_is_a_rule() -> None:
    known = {rule.id for rule in compliance.rules()}
    assert compliance.named() - known == set()
