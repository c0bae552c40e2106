"""Build hook of hatchling: the wheel with a codec that mypyc has compiled, from the same Python source.

It is off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 is in the environment, and then takes a C compiler. The source is in
the wheel as well, for people and for type checkers; Python prefers what was compiled, and ``__file__`` tells.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What gains by it: protocols without I/O, and the laws that each request is held to. The code around them, which is
#: coroutines and calls of trio, gets slower. A CGI script takes a millisecond more to start with the laws compiled.
MODULES = (
    "gateways/_model/environ.py",
    "gateways/fastcgi/server.py",
    "gateways/fastcgi/wire.py",
    "gateways/scgi/server.py",
    "gateways/scgi/wire.py",
)


class CompilingHook(BuildHookInterface[Any]):
    """Compiles :data:`MODULES` and adds them to the wheel, which is then one platform's and one Python's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is put together. Not for an editable install: its source is meant to be edited."""
        if version == "editable":
            return
        # Asked for by name: whoever only checks types need not have them.
        setuptools: Any = import_module("setuptools")
        mypyc: Any = import_module("mypyc.build")
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        # Each module by itself, so that no library of all of them is needed beside the package.
        extensions = mypyc.mypycify(
            ["--follow-imports=silent", *MODULES], separate=True, target_dir=str(folder / "c"), opt_level="3"
        )
        command = setuptools.Distribution({"name": "gateways", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "tmp")
        command.ensure_finalized()
        command.run()
        for path in (folder / "lib").rglob("*.so"):
            build_data["force_include"][str(path)] = str(path.relative_to(folder / "lib"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is there."""
        if version != "editable":
            self._folder.cleanup()
