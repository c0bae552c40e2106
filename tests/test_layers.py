"""The floors of the package: imports run downwards only.

Every import counts, also the lazy ones inside functions and the names of modules in the tables of lazy packages; those
under ``if TYPE_CHECKING:`` do not, for they never run. A protocol is a public sub-package that has a ``transport.py``
(or, while it is being written, one of the files that come before it): the rules name none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import gateways

PACKAGE = Path(gateways.__file__).parent

#: What a module of each floor may import of ours. ``x`` is that module alone, ``x.*`` also all that is under it;
#: ``{own}`` is the protocol that a module belongs to, ``{protocol}`` any of them, ``{tool}`` a module of the top floor.
RULES = {
    "model": ("gateways._model.*",),
    "events": ("gateways._model.*",),
    "pure": ("gateways._model.*", "gateways.events", "{own}.*"),
    "net": ("gateways._net.*", "gateways._model.*", "gateways.events"),
    "process": ("gateways._process.*", "gateways._net.*", "gateways._model.*", "gateways.events"),
    "transport": ("{own}.*", "gateways._net.*", "gateways._model.*", "gateways.events"),
    "protocol": ("{own}.*", "gateways._model.*", "gateways.events"),
    "tool": ("gateways", "gateways.events", "{protocol}", "gateways._process.*", "{tool}"),
    "facade": ("gateways.*",),
}

#: What may not be imported although the rules above would let it. A pure file stands below its own transport.
NEVER = {"pure": ("{own}.transport",)}

#: I/O, clocks and event loops: nothing that is only words, model or protocol has any business with them.
IMPURE = {
    "anyio", "asyncio", "concurrent", "multiprocessing", "select", "selectors", "signal", "socket", "ssl", "subprocess",
    "threading", "time", "trio",
}  # fmt: skip
PURE_FLOORS = {"model", "events", "pure"}

#: The files of a protocol that join it to the engine: its sockets, and the programs that the host of CGI runs.
ON_THE_ENGINE = {"transport", "host"}

#: A CGI script reads and writes its own descriptors, and the host of CGI scripts starts processes: their whole point.
DOES_IO = {"gateways.cgi.guest", "gateways.cgi.host"}

#: (module, what it imports): why there is no better way. A test checks that each is still needed.
EXEMPT: dict[tuple[str, str], str] = {
    ("gateways.launch", "gateways._net.choosing"): (
        "an inherited socket tells its protocol by the first byte of each connection, which only a connection above "
        "all protocols can see"
    ),
    **dict.fromkeys(
        [("gateways.doctor", "gateways._model.advice"), ("gateways.doctor", "gateways._model.environ")],
        "the engine gives the same advice in its log, and may not look upwards for it",
    ),
    ("gateways.logs", "gateways._net.lines"): "what is dangerous in a line of the log is known in one place",
    **dict.fromkeys(
        [
            (f"gateways.{adapter}", f"gateways._model.{module}")
            for adapter in ("asgi", "wsgi")
            for module in ("policy", "request")
        ],
        "an adapter carries requests from another interface and has them answered: it does what a transport does",
    ),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@attrs.frozen
class Tree:
    """The modules there are, and what follows from their names."""

    modules: frozenset[str]

    @property
    def protocols(self) -> set[str]:
        """The public sub-packages that are protocols."""
        found = (name.rpartition(".")[0] for name in self.modules if name.endswith((".transport", ".server", ".wire")))
        return {package for package in found if package.count(".") == 1 and "._" not in package}

    def floor(self, module: str) -> str:
        """The floor that a module stands on: a key of RULES."""
        parts = module.split(".")
        package = ".".join(parts[:2])
        if module == "gateways":
            return "facade"
        if parts[1] in {"_model", "_net", "_process"}:
            return parts[1].removeprefix("_")
        if module == "gateways.events":
            return "events"
        if module in self.protocols:
            return "protocol"
        if package in self.protocols:
            return "transport" if parts[-1] in ON_THE_ENGINE else "pure"
        return "tool"

    def loaded(self, name: str) -> str:
        """The module that importing ``name`` loads: for a class in "gateways._model.errors" that module."""
        while name not in self.modules and "." in name:
            name = name.rpartition(".")[0]
        return name

    def matches(self, module: str, patterns: tuple[str, ...], own: str) -> bool:
        """Whether a module is one of those that the patterns of RULES stand for."""
        for pattern in patterns:
            name = pattern.replace("{own}", own).removesuffix(".*")
            if (
                module == name
                or (pattern.endswith(".*") and module.startswith(f"{name}."))
                or (pattern == "{protocol}" and module in self.protocols)
                or (pattern == "{tool}" and self.floor(module) == "tool")
            ):
                return True
        return False

    def violations(self, module: str, source: str) -> set[str]:
        """What ``module`` imports although its floor may not."""
        where = self.floor(module)
        own = ".".join(module.split(".")[:2])
        found: set[str] = set()
        for name in imports(source):
            root, last = name.split(".")[0], name.split(".")[-1]
            if root == "gateways":
                loaded = self.loaded(name)
                if not self.matches(loaded, RULES[where], own) or self.matches(loaded, NEVER.get(where, ()), own):
                    found.add(loaded)
                elif where == "tool" and last.startswith("_") and not last.startswith("__"):
                    found.add(name)
            elif root in IMPURE and where in PURE_FLOORS and module not in DOES_IO:
                found.add(root)
        return found


def imports(source: str) -> Iterator[str]:
    """The modules and names that ``source`` imports when it runs, dotted: ``from a import b`` gives "a.b"."""
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            todo.extend(node.orelse)
            continue
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0, f"a relative import in line {node.lineno}"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.Constant(value=str(text)) if re.fullmatch(r"gateways(\.\w+)+", text):
                # A lazy package keeps the names of modules in a table.
                yield text
            case _:
                pass
        todo.extend(ast.iter_child_nodes(node))


TREE = Tree(frozenset(MODULES))


def violations_in(module: str) -> set[str]:
    return TREE.violations(module, MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_downwards_only(module: str) -> None:
    assert {name for name in violations_in(module) if (module, name) not in EXEMPT} == set()


def test_no_exemption_is_stale() -> None:
    needed = {(module, name) for module in MODULES for name in violations_in(module)}
    assert set(EXEMPT) - needed == set()


def test_every_exemption_has_a_reason() -> None:
    assert [exemption for exemption, reason in EXEMPT.items() if not reason] == []


def test_there_are_modules_on_the_floors() -> None:
    assert TREE.protocols
    assert {TREE.floor(module) for module in MODULES} >= {"facade", "model", "events", "protocol", "pure"}


#: A tree small enough to see through, for the checks of the check itself.
TOY = Tree(
    frozenset(
        "gateways" + name
        for name in ("", "._model", "._model.errors", "._net", "._net.serving", ".events", ".wsgi", ".cli", ".cli.main")
    )
    | {"gateways._process", "gateways._process.privileges"}
    | {f"gateways.{protocol}{name}" for protocol in ("toy", "other") for name in ("", ".wire", ".transport")}
)


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("gateways._model.errors", "import gateways.events", {"gateways.events"}),
        ("gateways._model.errors", "def f():\n    import trio", {"trio"}),
        ("gateways._model.errors", "if TYPE_CHECKING:\n    import trio\n    from gateways import events", set()),
        ("gateways._model.errors", "if TYPE_CHECKING:\n    pass\nelse:\n    import socket", {"socket"}),
        ("gateways._model.errors", "from gateways._model.limits import Limits\nimport os", set()),
        ("gateways._model.errors", "from gateways import Request", {"gateways"}),
        ("gateways.events", "from gateways._model.errors import Reject\nimport attrs", set()),
        ("gateways.events", "from gateways._net import serving", {"gateways._net.serving"}),
        ("gateways._net.serving", "from gateways.toy import ServerConnection", {"gateways.toy"}),
        ("gateways._net.serving", "import trio\nfrom gateways.events import Event", set()),
        ("gateways._net.serving", "from gateways._process import privileges", {"gateways._process.privileges"}),
        ("gateways._process.privileges", "from gateways._net import serving\nimport trio", set()),
        ("gateways._process.privileges", "from gateways.cli import main", {"gateways.cli.main"}),
        ("gateways.toy.wire", "from gateways.events import Event\nimport struct", set()),
        ("gateways.toy.wire", "async def f():\n    from trio import sleep", {"trio"}),
        ("gateways.toy.wire", "import time", {"time"}),
        ("gateways.toy.wire", "from gateways.cli.main import main", {"gateways.cli.main"}),
        ("gateways.toy.wire", "from gateways._net.serving import serve", {"gateways._net.serving"}),
        ("gateways.toy.wire", "from gateways.toy.transport import serve", {"gateways.toy.transport"}),
        ("gateways.toy.wire", "from gateways.other.wire import parse", {"gateways.other.wire"}),
        ("gateways.toy.transport", "import trio\nfrom gateways._net import serving", set()),
        ("gateways.toy.transport", "from gateways.toy.wire import parse", set()),
        ("gateways.toy.transport", "import gateways", {"gateways"}),
        ("gateways.toy.transport", "from gateways.other import serve", {"gateways.other"}),
        ("gateways.toy", "LAZY = {'serve': 'gateways.toy.transport', 'Event': 'gateways.events'}", set()),
        ("gateways.toy", "LAZY = {'serve': 'gateways._net.serving'}", {"gateways._net.serving"}),
        ("gateways.wsgi", "from gateways import Request\nfrom gateways.toy import serve\nimport socket", set()),
        ("gateways.wsgi", "from gateways.cli.main import main", set()),
        ("gateways.wsgi", "from gateways._process.privileges import drop", set()),
        ("gateways.wsgi", "from gateways.toy import _secret", {"gateways.toy._secret"}),
        ("gateways.wsgi", "from gateways.toy.wire import parse", {"gateways.toy.wire"}),
        ("gateways.wsgi", "from gateways._model.errors import Reject", {"gateways._model.errors"}),
        ("gateways.wsgi", "LAZY = 'gateways._model.errors'", {"gateways._model.errors"}),
        ("gateways", "LAZY = 'gateways._model.errors'", set()),
    ],
)
def test_the_check_itself_finds_what_it_should(module: str, source: str, found: set[str]) -> None:
    assert TOY.violations(module, source) == found


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="relative import in line 2"):
        list(imports("import os\nfrom . import wire"))
