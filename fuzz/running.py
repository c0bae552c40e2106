"""How a target is run: searching with atheris, or over given files without it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

Check = Callable[[bytes], None]


def search(check: Check) -> None:
    """Run a target as its command line says: files are checked once, folders begin a search of atheris, which takes
    the options of libFuzzer."""
    files = [Path(argument) for argument in sys.argv[1:] if os.path.isfile(argument)]
    if files:
        for path in files:
            check(path.read_bytes())
            print(f"{path}: nothing found")
        return
    atheris: Any = import_module("atheris")  # only in an environment of its own
    # The package alone: what the search is to reach. It was imported by the target before.
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and (thing.__module__ or "").startswith("gateways."):
            atheris.instrument_func(thing)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
