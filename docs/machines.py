"""Draw the state machines of the protocols, from the tables that the code runs on.

``.. state-machine:: fastcgi: A response, in the web server`` draws the machine with this title of ``gateways.fastcgi``:
what it is about, a picture of the steps that change the state, the whole table, and what each deed does.

Nothing builds while a machine is not drawn by any page, or while a state or a deed has no words, with ``-W`` or not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools import drawing, machines


class StateMachine(SphinxDirective):
    """One machine, drawn."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        name = " ".join(self.arguments[0].split())
        for path in (*machines.files(), drawing.__file__, machines.__file__, __file__):
            self.env.note_dependency(str(path))
        found = machines.machines()
        if name not in found:
            raise self.error(f"there is no machine called {name!r}; there are:\n" + "\n".join(found))
        self.machine = found[name]
        _drawn(self.env).setdefault(self.env.docname, set()).add(name)
        self.slug = nodes.make_id(name)
        return [self.words(self.machine.about), self.picture(), self.table(), *self.deeds()]

    def words(self, text: str) -> nodes.paragraph:
        """A paragraph of text with inline markup."""
        found, messages = self.state.inline_text(text, self.lineno)
        return nodes.paragraph("", "", *found, *messages)

    def picture(self) -> nodes.Node:
        states = {state: f"#{self.id_of('state', state)}" for state in self.machine.states}
        picture = drawing.svg(self.machine.title, self.slug, states, machines.arrows(self.machine))
        return nodes.raw("", f'<div class="state-machine">{picture}</div>', format="html")

    def table(self) -> nodes.table:
        """One row for the arrivals of a state that end in the same, below a row that says what the state means."""
        body = nodes.tbody()
        for state, meaning in self.machine.states.items():
            words = self.words(meaning)
            words[:0] = [nodes.strong("", "", nodes.literal(text=state)), nodes.Text(": ")]
            entry = nodes.entry("", words, morecols=2, classes=["state"], ids=[self.id_of("state", state)])
            body += nodes.row("", entry)
            alike: dict[machines.Step, list[str]] = {}
            for arrival, step in self.machine.steps[state].items():
                alike.setdefault(step, []).append(self.machine.arrivals[arrival])
            for step, arrivals in alike.items():
                body += _row(
                    nodes.paragraph(text=", ".join(arrivals)), self.link("deed", step.deed), self.follows(state, step)
                )
        head = nodes.thead("", _row(*(nodes.paragraph(text=text) for text in ("arrival", "deed", "next state"))))
        widths = [nodes.colspec(colwidth=width) for width in (40, 34, 26)]
        return nodes.table(
            "", nodes.tgroup("", *widths, head, body, cols=3), classes=["fixed", "state-machine", "colwidths-given"]
        )

    def follows(self, state: str, step: machines.Step) -> nodes.paragraph:
        if {step.to, *step.others} == {state}:
            return nodes.paragraph(text="the same")
        names = [self.link("state", name)[0] for name in dict.fromkeys((step.to, *step.others))]
        between = [nodes.Text(", ") for _ in names]
        between[-1] = nodes.Text(" or ")
        listed = [part for pair in zip(between, names, strict=True) for part in pair]
        return nodes.paragraph("", "", *listed[1:])

    def deeds(self) -> list[nodes.Node]:
        items = [
            nodes.definition_list_item(
                "",
                nodes.term("", "", nodes.literal(text=deed), ids=[self.id_of("deed", deed)]),
                nodes.definition("", self.words(meaning)),
            )
            for deed, meaning in self.machine.deeds.items()
        ]
        return [nodes.rubric(text="The deeds"), nodes.definition_list("", *items, classes=["deeds"])]

    def link(self, kind: str, name: str) -> nodes.paragraph:
        target = self.id_of(kind, name)
        return nodes.paragraph("", "", nodes.reference("", "", nodes.literal(text=name), internal=True, refid=target))

    def id_of(self, kind: str, name: str) -> str:
        return nodes.make_id(f"{self.slug}-{kind}-{name}")


def _row(*cells: nodes.Node) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


# --- Nothing is left out ---------------------------------------------------------------------------------------------


def _drawn(env: BuildEnvironment) -> dict[str, set[str]]:
    """The machines that each page draws."""
    if not hasattr(env, "state_machines"):
        env.state_machines = {}
    return env.state_machines


def _check_words(app: Sphinx) -> None:
    found = machines.machines()
    wrong = [f"{name}: {fault}" for name, machine in found.items() for fault in machines.faults(machine)]
    if wrong:
        raise ExtensionError("\n".join(["These state machines cannot be drawn:", *wrong]))


def _check_all_drawn(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        missing = machines.machines().keys() - set().union(*_drawn(app.env).values())
        if missing:
            raise ExtensionError("\n".join(["No page draws these state machines:", *sorted(missing)]))


def _forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _drawn(env).pop(page, None)


def _merge(app: Sphinx, env: BuildEnvironment, pages: Iterable[str], other: BuildEnvironment) -> None:
    _drawn(env).update({page: names for page, names in _drawn(other).items() if page in set(pages)})


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("state-machine", StateMachine)
    app.connect("builder-inited", _check_words)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("build-finished", _check_all_drawn)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True}
