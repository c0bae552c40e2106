"""The documentation is true: its examples run, its commands exist, and the tests and files that it names are there.

Configurations of web servers are run by tests/interop; ``.ci/run`` builds the pages.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trio

import gateways
from gateways import cli, launch
from gateways._net import address
from gateways.cli import check, config, dev, env, serve
from tests.asgi.tools import needs
from tests.interop.servers import require
from tools import compliance, look, pictures, public

ROOT = Path(__file__).parent.parent
#: Here, or where it is installed.
PACKAGE = Path(gateways.__file__).parent
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
    files = [*sorted(PACKAGE.rglob("*.py")), *PAGES, *sorted((ROOT / "tools").glob("*.py"))]
    names: list[str] = []
    for path in files:
        if re.search(r"^ *>>> (?!.*# doctest: \+SKIP)", path.read_text(encoding="utf-8"), re.MULTILINE):
            base = PACKAGE.parent if PACKAGE in path.parents else ROOT
            module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
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
        for _, where in launch.divide(listen) if listen else []:
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

VERBS = {"serve": serve, "dev": dev, "check": check, "config": config, "env": env}


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
                words = words[words.index(verb) :]
                yield [*itertools.takewhile(lambda word: word not in ("|", ">", "&", "&&", ";"), words)]


@pytest.mark.parametrize("page", [page for page in PROSE if any(commands(page))], ids=name_of)
def test_commands_exist(page: Path) -> None:
    for verb, *arguments in commands(page):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        VERBS[verb]._add_arguments(parser)
        if verb == "config" and "--" in arguments:
            del arguments[arguments.index("--") :]  # what follows are flags of serve
        options = parser.parse_args(arguments)
        for bind in getattr(options, "bind", []) if verb != "config" else []:
            [(_, listen)] = launch.divide(bind)
            address.parse(listen.address)


def test_commands_are_found() -> None:
    assert sum(len([*commands(page)]) for page in (ROOT / "docs" / "howto").glob("*.rst")) > 10
    assert len([*commands(ROOT / "README.md")]) == 4


# --- the same start --------------------------------------------------------------------------------------------------


def beginning(text: str) -> list[str]:
    """The words of the first minute, without the marks of either markup."""
    until = re.split(r"^(?:## What it is for|Learn\n-----)$", text, maxsplit=1, flags=re.MULTILINE)
    assert len(until) == 2
    plain = re.sub(
        r"^```(?:\w+)?$|^\.\. code-block:: \w+$|^   :caption: .*$|^[=-]{3,}$|^#+ ", "", until[0], flags=re.MULTILINE
    )
    return re.sub(r"[`*]|<(?=http)|(?<=/)>", "", plain).split()


def test_the_README_and_the_documentation_begin_with_the_same_minute() -> None:
    ours, theirs = (beginning((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "docs/index.rst"))
    assert ours == theirs
    assert "fastcgi_pass" in ours


# --- what is named ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PROSE, *TABLES], ids=name_of)
def test_tests_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"\btests/[\w/]+\.py::\w+", path.read_text(encoding="utf-8"))
    assert set(named) - compliance.tests() == set()


def described() -> set[str]:
    """The names that pages describe, and the modules that they describe as a whole."""
    found: set[str] = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found |= set(
            re.findall(r"^\.\. (?:auto|py:)?(?:class|exception|function|data|module):: ([\w.]+)", text, re.MULTILINE)
        )
        found |= {f"{module}.{name}" for module, name in re.findall(r"^\.\. alias:: (\S+) (\S+)", text, re.MULTILINE)}
    return found


@pytest.mark.parametrize("module", public.modules())
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """Attributes are checked where the pages are built: docs/names.py."""
    found = described()
    page = (ROOT / "docs" / "reference.rst").read_text(encoding="utf-8")
    if re.search(rf"^\.\. automodule:: {re.escape(module)}\n   :members:", page, re.MULTILINE):
        undocumented = [name for name, value in public.names(module).items() if not inspect.getdoc(value)]
        assert undocumented == []
    else:
        assert [name for name in public.names(module) if f"{module}.{name}" not in found] == []


def test_every_verb_has_its_help_on_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.findall(r"^\.\. gateways-help:: (\w+)$", text, re.MULTILINE) == [*cli.VERBS]


def test_there_is_a_reason_for_every_limit() -> None:
    reasons = tomllib.loads((ROOT / "docs" / "limits.toml").read_text(encoding="utf-8"))
    assert [*reasons] == [*gateways.Limits.fields()]
    assert [name for name, why in reasons.items() if not why.endswith(".")] == []


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", pictures.columns(), ids=lambda column: column.protocol)
def test_a_picture_of_a_request_shows_every_byte_of_it(column: pictures.Column) -> None:
    assert pictures.bytes_of(column) == column.data


@pytest.mark.parametrize("column", pictures.columns(), ids=lambda column: column.protocol)
def test_the_bytes_that_are_drawn_are_understood(column: pictures.Column) -> None:
    if column.protocol == "CGI":
        block, _, stdin = column.data.rpartition(b"\0")
        environ = dict(line.split("=", 1) for line in block.decode().split("\0"))
        assert stdin == pictures.BODY
    else:
        connection = getattr(gateways, column.protocol.lower()).ServerConnection()
        received, body, _ = connection.receive_data(column.data)
        environ = dict(received.environ)
        assert body.data == pictures.BODY
    assert {name: environ[name] for name in pictures.ENVIRON} == pictures.ENVIRON


@pytest.mark.parametrize(
    ("drawn", "width"),
    [
        *[pytest.param(pictures.svg_of(column), pictures.COLUMN, id=column.protocol) for column in pictures.columns()],
        pytest.param(pictures.architecture(), pictures.WIDTH, id="floors"),
    ],
)
def test_nothing_in_a_picture_reaches_beyond_it(drawn: str, width: float) -> None:
    picture = ElementTree.fromstring(drawn)
    height = float(picture.attrib["height"])
    assert float(picture.attrib["width"]) == width
    texts = picture.findall("{*}text")
    assert len(texts) > 10
    for text in texts:
        if "transform" in text.attrib:
            continue
        words = "".join(text.itertext())
        # A caption is in the proportional font of the page: narrower than this.
        reach = float(text.attrib["x"]) + len(words) * (5.6 if text.get("class") else pictures.CHARACTER)
        if text.get("class") == "caption outside":
            reach = float(text.attrib["x"])
        assert reach <= width, words
        assert float(text.attrib["y"]) < height


def test_the_floors_are_drawn_with_all_that_is_there() -> None:
    drawn = {name for floor in pictures.floors() for name in floor.files}
    folder = PACKAGE
    there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} == {name for name in drawn if "/" not in name}


# --- files and rules -------------------------------------------------------------------------------------------------


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
    wanted += [f"O{n:02}" for n in range(1, 27)] + [f"D{n:02}" for n in range(1, 15)]
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
        for page in sorted((ROOT / "docs").rglob("*.rst"))
        for family in re.findall(r"^\.\. conformance-table:: (\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(shown) == sorted({rule.family for rule in compliance.rules()})


def test_every_id_in_the_name_of_a_test_is_a_rule() -> None:
    known = {rule.id for rule in compliance.rules()}
    assert compliance.named() - known == set()


# --- in a browser ----------------------------------------------------------------------------------------------------


def test_nothing_stands_out_of_a_page_on_a_telephone_or_a_desk(tmp_path: Path) -> None:
    """Looks at the pages that were built last, as ``.ci/run`` does before the tests; that takes longer than looking."""
    require("chromium", "chromedriver")
    needs("selenium")
    site = ROOT / "docs" / "_build" / "html"
    if not (site / "index.html").exists():
        pytest.skip("the documentation is not built")
    with look.browser(tmp_path) as seen:
        assert [str(fault) for fault in look.faults(seen, site)] == []


def test_what_stands_out_of_a_page_is_found(tmp_path: Path) -> None:
    require("chromium", "chromedriver")
    needs("selenium")
    (tmp_path / "site").mkdir()
    page = "<!doctype html><meta name=viewport content='width=device-width'><div class=content>{}</div>"
    wide, scrolls = (
        "<p style='width: 800px'>wide</p>",
        "<div style='overflow-x: auto'><p style='width: 2000px'>-</p></div>",
    )
    (tmp_path / "site" / "wide.html").write_text(page.format(wide), encoding="utf-8")
    (tmp_path / "site" / "scrolls.html").write_text(page.format(scrolls), encoding="utf-8")
    with look.browser(tmp_path) as seen:
        found = [*look.faults(seen, tmp_path / "site")]
    assert {(fault.page, fault.width) for fault in found} == {("wide.html", 390)}
