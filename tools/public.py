"""What is public: the modules that users import, and the names in them.

The reference has to have all of it (docs/names.py), and tests/test_public.py compares what programs, type checkers and
readers are told.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import gateways

#: Modules without an underscore whose names are reached another way.
ELSEWHERE = {
    "cli": "the command line: its own page",
    "configs": "what `gateways config` prints",
    "forwarding": "gateways.forward",
    "launch": "gateways.run and gateways.serve",
}

#: Classes that users name and have no other business with.
OPAQUE = {"gateways.workers.worker.GatewayWorker": "gunicorn makes it and calls it"}


def modules() -> list[str]:
    """The modules whose ``__all__`` is public: ``gateways``, each protocol, and each tool."""
    found = [module.name for module in pkgutil.iter_modules(gateways.__path__)]
    return ["gateways", *(f"gateways.{name}" for name in found if name[0] != "_" and name not in ELSEWHERE)]


def names(module: str) -> dict[str, object]:
    """What a module exports, but for other modules."""
    loaded = importlib.import_module(module)
    exported = {name: getattr(loaded, name) for name in loaded.__all__}
    return {name: value for name, value in exported.items() if not isinstance(value, ModuleType)}


def everything() -> dict[str, object]:
    """Every public value by its whole name: "gateways.fastcgi.dissect"."""
    return {f"{module}.{name}": value for module in modules() for name, value in names(module).items()}


def homes() -> dict[str, str]:
    """Where each public class or function really is -> its public name: "gateways._model.request.Body"."""
    found: dict[str, str] = {}
    for public, value in everything().items():
        if inspect.isclass(value) or inspect.isfunction(value):
            found[f"{value.__module__}.{value.__qualname__}"] = public
    return found


def attributes(value: object) -> Iterator[str]:
    """What a class has for its users: methods, properties, what is set on it or on each instance.

    Not what its docstring or its constructor names, and not what it has of a class of others: that is described there.
    """
    if not inspect.isclass(value) or not _is_ours(value) or f"{value.__module__}.{value.__name__}" in OPAQUE:
        return
    given = inspect.signature(value).parameters if "__init__" in vars(value) else {}
    others = [base for base in value.__mro__ if not _is_ours(base)]
    slots = vars(value).get("__slots__", ())
    own = {*vars(value), *([slots] if isinstance(slots, str) else slots), *vars(value).get("__annotations__", ())}
    for name in sorted(own):
        in_docstring = f"``{name}``" in (value.__doc__ or "") and not callable(getattr(value, name, None))
        named = in_docstring or name in given
        if not name.startswith("_") and not named and not any(hasattr(base, name) for base in others):
            yield name


def _is_ours(value: type) -> bool:
    return value.__module__.partition(".")[0] == "gateways"
