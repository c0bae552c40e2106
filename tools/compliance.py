"""Read docs/laws.toml and docs/conformance.toml, and find the tests that each law and rule names.

The documentation shows both files (docs/tables.py), and tests/test_docs.py checks them.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).parent.parent
LAWS = ROOT / "docs" / "laws.toml"
CONFORMANCE = ROOT / "docs" / "conformance.toml"

#: What goes wrong: on the wire of FastCGI, on that of SCGI, in the environment, around a process, and where it is
#: deployed.
HOSTILE = ("W", "SH", "E", "O", "D")

#: What may become of a rule -> how the table puts it.
MET = {"yes": "yes", "otherwise": "another way", "partly": "in part", "no": "not yet"}


@attrs.frozen
class Law:
    """One law of the environment model. ``tests`` are named as pytest names them."""

    about: str
    says: str
    tests: tuple[str, ...]


@attrs.frozen
class Rule:
    """One rule of a protocol. ``met`` is a key of MET, ``how`` says more where there is more to say.

    Where its family is one of HOSTILE, ``rule`` is what may come in, and ``how`` what is done about it.
    """

    id: str
    section: str
    rule: str
    met: str
    how: str
    tests: tuple[str, ...]

    @property
    def family(self) -> str:
        """The letters that the id begins with."""
        return self.id.rstrip("0123456789")


def laws() -> list[Law]:
    """Every law, in the order of the file."""
    return [
        Law(about["name"], law["says"], tuple(law["tests"])) for about in _read(LAWS)["about"] for law in about["law"]
    ]


def rules() -> list[Rule]:
    """Every rule, in the order of the file, with the tests named after it before those named beside it."""
    after: dict[str, list[str]] = {}
    for test in sorted(tests()):
        for name in named_after(test):
            after.setdefault(name, []).append(test)
    found: list[Rule] = []
    for entry in _read(CONFORMANCE)["rule"]:
        several = dict.fromkeys([*after.get(entry["id"], []), *entry.get("tests", [])])
        found.append(
            Rule(entry["id"], entry["section"], entry["rule"], entry["met"], entry.get("how", ""), tuple(several))
        )
    return found


def named_after(test: str) -> list[str]:
    """The ids of the rules that a test has in its name: F13 of "tests/fastcgi/test_server.py::test_F13_W20_...".

    >>> named_after("tests/test_launch.py::test_F04_W54_a_web_server_that_is_not_listed_is_refused")
    ['F04', 'W54']
    """
    name = test.rpartition("::")[2]
    return [found.upper() for found in re.findall(r"(?<=_)(?:SH|[FWSCEODX])\d\d(?=_|$)", name, re.IGNORECASE)]


def named() -> set[str]:
    """The ids of all rules that a test has in its name."""
    return {found for test in tests() for found in named_after(test)}


@functools.cache
def tests() -> frozenset[str]:
    """Every test function there is, as pytest names it, without parameters."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.relative_to(ROOT)}::{node.name}")
    return frozenset(found)


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
