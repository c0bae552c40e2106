"""Put drawings of conversations into pages: ``.. conversation:: fastcgi`` (or ``scgi``, ``cgi``, ``http``).

They are drawn by tools/conversations.py of what the package sends, when the documentation is built.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools import conversations


class Conversation(SphinxDirective):
    """The drawing of one protocol."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        protocol = self.arguments[0]
        if protocol not in conversations.CONVERSATIONS:
            raise self.error(f"there is no conversation over {protocol!r}")
        self.env.note_reread()  # it shows what the package does now
        drawn = conversations.svg_of(protocol)
        return [nodes.raw("", f'<div class="pictures">{drawn}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("conversation", Conversation)
    return {"version": "1", "parallel_read_safe": True}
