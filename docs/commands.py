"""What the commands of ``gateways`` say, from the commands themselves, when the documentation is built.

``.. gateways-help:: serve`` is what ``gateways serve --help`` prints, ``.. gateways-help::`` what ``gateways --help``
does.

Nothing builds while a verb is on no page, with ``-W`` or not.
"""

from __future__ import annotations

import contextlib
import io
import os
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

from gateways import cli

#: Characters in a line.
WIDTH = 78


def help_of(*words: str) -> str:
    """What ``gateways WORDS --help`` prints."""
    printed = io.StringIO()
    before = os.environ.copy()
    # argparse takes the width from the first, and colours from Python 3.14 on unless the other is there.
    os.environ.update(COLUMNS=str(WIDTH + 2), NO_COLOR="1")
    os.environ.pop("GATEWAY_INTERFACE", None)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main([*words, "--help"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return printed.getvalue()


class Help(SphinxDirective):
    """One help text, below the command that shows it."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        verb = self.arguments[:1]
        for word in verb:
            if word not in cli.VERBS:
                raise self.error(f"there is no verb {word!r}")
        # The flags come from many modules: the page is read anew at every build.
        self.env.note_reread()
        _shown(self.env).setdefault(self.env.docname, set()).update(verb)
        text = help_of(*verb)
        return [
            nodes.literal_block(
                text, f"$ gateways {''.join(f'{word} ' for word in verb)}--help\n{text}", language="text"
            )
        ]


def _shown(env: BuildEnvironment) -> dict[str, set[str]]:
    """The verbs on each page."""
    if not hasattr(env, "gateways_verbs"):
        env.gateways_verbs = {}
    return env.gateways_verbs


def _check_all_shown(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        missing = cli.VERBS.keys() - set().union(*_shown(app.env).values())
        if missing:
            raise ExtensionError(f"No page has the help of: {', '.join(sorted(missing))}")


def _forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _shown(env).pop(page, None)


def _merge(app: Sphinx, env: BuildEnvironment, pages: Iterable[str], other: BuildEnvironment) -> None:
    _shown(env).update({page: verbs for page, verbs in _shown(other).items() if page in set(pages)})


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("gateways-help", Help)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("build-finished", _check_all_shown)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True}
