"""Tables of what real web servers send, made of the recordings in tests/captures when the documentation is built.

``.. captured-variables:: fcgi`` (or ``scgi``, ``cgi``) says which of them sends which meta-variable,
``.. captured-manners::`` how each uses the protocol. tools/web_servers.py reads the recordings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.captures import FOLDER
from tools import web_servers


class _Captured(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for path in sorted(FOLDER.glob("web/*.jsonl.gz")):
            self.env.note_dependency(str(path))
        parent = nodes.Element()
        self.state.nested_parse(StringList([*self.lines()], source="captured.py"), self.content_offset, parent)
        return parent.children

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


def _table(widths: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from (".. list-table::", "   :class: fixed cards", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in rows:
        for number, cell in enumerate(row):
            first, *others = cell.splitlines() or [""]
            yield f"   {' ' if number else '*'} - {first}"
            yield from (f"       {line}" if line else "" for line in others)


class CapturedVariables(_Captured):
    """Which web server sends which meta-variable over a protocol."""

    def lines(self) -> Iterator[str]:
        yield from _table(
            "25 40 35", [("variable", "sent by", "for example"), *web_servers.variables(self.arguments[0])]
        )


class CapturedManners(_Captured):
    """How each web server uses a protocol."""

    def lines(self) -> Iterator[str]:
        protocol = self.arguments[0]
        head = web_servers.HEADS[protocol]
        widths = "26 12 18 14 12 10 8" if protocol == "fcgi" else "40 20 40"
        yield from _table(widths, [head, *web_servers.manners(protocol)])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("captured-variables", CapturedVariables)
    app.add_directive("captured-manners", CapturedManners)
    return {"version": "1", "parallel_read_safe": True}
