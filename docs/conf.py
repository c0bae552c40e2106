"""How Sphinx builds the documentation: see README.md in this folder."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parent.parent
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = METADATA["name"]
author = METADATA["authors"][0]["name"]
copyright = f"2026, {author}"
version = release = METADATA["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib_trio",  # marks functions that are async, and context managers, as such
    "tables",  # ours, in this folder
    "machines",  # these are ours as well
    "names",
    "commands",
    "pictures",
    "captured",
    "conversations",
]
exclude_patterns = ["_build", "README.md"]
default_role = "any"
nitpicky = True
nitpick_ignore = [
    ("py:class", "T"),  # any type: what a function gives, whatever that is
    ("py:class", "Companion"),  # a process that the arbiter of workers also minds: between us and gunicorn
]
smartquotes = False  # "" is code more often than it is speech

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autoclass_content = "both"
maximum_signature_line_length = 80

# The names of others, kept here so that building takes no network: README.md says how they were made.
_INVENTORIES = Path(__file__).parent / "inventories"
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(_INVENTORIES / "python.inv")),
    "trio": ("https://trio.readthedocs.io/en/stable", str(_INVENTORIES / "trio.inv")),
}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"gateways {release}"

# Copying an example leaves the prompts behind.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
