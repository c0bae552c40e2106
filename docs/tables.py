"""Tables of the documentation that are made of what they are about, when it is built.

``.. limits-table::`` of gateways.Limits and limits.toml, ``.. settings-table::`` of the flags of ``gateways serve``,
``.. laws-table:: Paths`` of laws.toml, ``.. conformance-table:: F`` and so on of conformance.toml.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from gateways import Limits
from gateways.cli import serve, settings
from tools import compliance

#: name -> why there is such a limit
LIMITS = Path(__file__).parent / "limits.toml"


class _Table(Directive):
    """A directive whose content is a list-table that ``lines`` writes."""

    def run(self) -> list[nodes.Node]:
        settings = self.state.document.settings
        settings.record_dependencies.add(str(compliance.LAWS))
        settings.record_dependencies.add(str(compliance.CONFORMANCE))
        settings.record_dependencies.add(__file__)
        parent = nodes.Element()
        self.state.nested_parse(StringList(list(self.lines()), source="tables.py"), self.content_offset, parent)
        return parent.children

    def lines(self) -> Iterable[str]:
        raise NotImplementedError


def _list_table(widths: str, *rows: Iterable[str]) -> Iterable[str]:
    yield from (".. list-table::", "   :class: fixed cards", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in rows:
        for number, cell in enumerate(row):
            first, *others = cell.splitlines() or [""]
            yield f"   {' ' if number else '*'} - {first}"
            yield from (f"       {line}" if line else "" for line in others)


class LimitsTable(SphinxDirective):
    """Every cap and deadline: field, default, what it limits and why, and the names of the setting.

    With ``:describe:`` this is where the fields are linked to.
    """

    option_spec = {"describe": directives.flag}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        for path in (str(LIMITS), __file__):
            self.env.note_dependency(path)
        why = reasons()
        rows: list[tuple[str, ...]] = [("field", "default", "what it limits, and why", "flag, variable, key")]
        for name, (default, meaning) in Limits.fields().items():
            shown = "none" if default is None else f"{default:,.12g}"
            flag = settings._flag(name)
            key = flag.removeprefix("--")
            variable = f"GATEWAYS_{key.replace('-', '_').upper()}"
            named = f"| ``{flag}``\n| ``{variable}``\n| ``{key}``"
            rows.append((f"``{name}``", shown, f"{meaning[0].upper()}{meaning[1:]}. {why[name]}", named))
        parent = nodes.Element()
        lines = _list_table("21 14 35 30", *rows)
        self.state.nested_parse(StringList(list(lines), source="tables.py"), self.content_offset, parent)
        domain = self.env.domains.python_domain
        for literal in parent.findall(nodes.literal):
            name = literal.astext()
            if "describe" in self.options and name in Limits.fields():
                literal["ids"].append(f"gateways.Limits.{name}")
                domain.note_object(f"gateways.Limits.{name}", "attribute", f"gateways.Limits.{name}", location=literal)
        return parent.children


def reasons() -> dict[str, str]:
    """Why there is each limit."""
    return tomllib.loads(LIMITS.read_text(encoding="utf-8"))


class SettingsTable(_Table):
    """Every flag of ``gateways serve`` with its variable, from the parser itself."""

    def lines(self) -> Iterable[str]:
        parser = argparse.ArgumentParser(add_help=False)
        serve._add_arguments(parser)
        rows = [("flag and variable", "what it says")]
        for action in parser._actions:
            if action.option_strings:
                flag = action.option_strings[-1]
                metavar = "" if action.nargs == 0 else f" {action.metavar or '|'.join(map(str, action.choices or ()))}"
                variable = f"GATEWAYS_{flag.strip('-').replace('-', '_').upper()}"
                says = (action.help or "").replace("%%", "%").replace("*", "\\*")
                rows.append((f"| ``{flag}{metavar}``\n| ``{variable}``", f"{says[:1].upper()}{says[1:]}."))
        return _list_table("45 55", *rows)


class LawsTable(_Table):
    """The laws about one thing, each with its tests."""

    required_arguments = 1
    final_argument_whitespace = True

    def lines(self) -> Iterable[str]:
        about = self.arguments[0]
        rows = [(law.says, _tests(law.tests)) for law in compliance.laws() if law.about == about]
        if not rows:
            raise self.error(f"there are no laws about {about!r}")
        return _list_table("55 45", ("law", "held by"), *rows)


class ConformanceTable(_Table):
    """The rules of one family (F01, F02, ...), what becomes of each, and the tests that show it."""

    required_arguments = 1

    def lines(self) -> Iterable[str]:
        family = self.arguments[0]
        rules = [rule for rule in compliance.rules() if rule.family == family]
        if not rules:
            raise self.error(f"no rule has an id like {family}01")
        # Not what is asked for, but what comes in against it.
        hostile = family in compliance.HOSTILE
        middle = "what happens, and what is done about it" if hostile else "rule, and whether it is met"
        rows = [
            (
                rule.id + ("" if rule.section == "-" else f" (section {rule.section})"),
                _row(rule) if hostile else _rule(rule),
                _tests(rule.tests) or "\\-",
            )
            for rule in rules
        ]
        return _list_table("13 47 40", ("id", middle, "shown by"), *rows)


def _rule(rule: compliance.Rule) -> str:
    """A rule, whether it is met, and how."""
    return f"{rule.rule}\n\n**{compliance.MET[rule.met]}**" + (f". {rule.how}" if rule.how else "")


def _row(rule: compliance.Rule) -> str:
    """What comes in, and what is done about it; only where that is not all, how much of it."""
    return f"{rule.rule}\n\n" + (rule.how if rule.met == "yes" else f"**{compliance.MET[rule.met]}**. {rule.how}")


def _tests(tests: Iterable[str]) -> str:
    """One line for each test: its file without the part that all have in common, and its name."""
    return "\n".join(f"| ``{test.removeprefix('tests/')}``" for test in tests)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("limits-table", LimitsTable)
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("laws-table", LawsTable)
    app.add_directive("conformance-table", ConformanceTable)
    return {"version": "1", "parallel_read_safe": True}
