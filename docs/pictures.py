"""Put pictures into pages: ``.. picture:: bytes`` is one request over three protocols, ``.. picture:: floors`` the
package.

They are drawn by tools/pictures.py of what they show, when the documentation is built.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools import pictures

_LEGEND = "".join(
    f'<span class="{kind}">{words}</span>'
    for kind, words in (("framing", "what the protocol adds"), ("variables", "meta-variables"), ("body", "the body"))
)


def _bytes() -> str:
    drawn = "".join(pictures.svg_of(column) for column in pictures.columns())
    return f'<div class="legend">{_LEGEND}</div><div class="columns">{drawn}</div>'


_PICTURES = {"bytes": _bytes, "floors": pictures.architecture}


class Picture(SphinxDirective):
    """One picture, or several beside each other."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in _PICTURES:
            raise self.error(f"there is no picture {name!r}; there are {', '.join(_PICTURES)}")
        self.env.note_reread()  # it shows what the package does now
        return [nodes.raw("", f'<div class="pictures">{_PICTURES[name]()}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("picture", Picture)
    return {"version": "1", "parallel_read_safe": True}
