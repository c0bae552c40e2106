"""APP on the command line: ``module[:attribute]`` or ``path/file.py[:attribute]``, found and imported, or a folder of
CGI programs."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from gateways import Limits

__all__ = ["LoadError", "folder_of", "is_cgi_folder", "load"]

#: Where APP names no attribute, the first of these that there is. The second is what most WSGI servers look for.
_DEFAULTS = ("app", "application")


class LoadError(Exception):
    """There is no such application; the message says what is missing."""


def load(name: str, limits: "Limits | None" = None, *, app_dir: "str | None" = None) -> object:
    """Import what APP names. ``app_dir``, by default the working directory, is where modules are looked for first.

    For a folder it is the handler that runs the CGI programs in it, under ``limits``.

    Raises LoadError for a file, module or attribute that is not there; what the application's own code raises while
    it is imported passes.
    """
    if is_cgi_folder(name):
        from gateways.cgi import directory  # no other application needs it

        return directory(name, limits=limits)
    target, attributes = _split(name)
    if app_dir is None:
        _look_in(os.getcwd())
    if _is_file(target):
        _look_in(os.path.dirname(os.path.abspath(target)))
    if app_dir is not None:
        sys.path.insert(0, app_dir)  # before whatever is there
    module = _load_file(target) if _is_file(target) else _load_module(target, app_dir or os.getcwd())
    for attribute in attributes:
        found: object = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                break
            found = getattr(found, part)
        else:
            return found
    missing = " and no ".join(map(repr, attributes))
    raise LoadError(f"{target} has no {missing}{_suggestion(module, target)}")


def folder_of(name: str, app_dir: "str | None" = None) -> str:
    """The folder an application's code is in: its file's, or where modules are looked for."""
    if is_cgi_folder(name):
        return os.path.abspath(name)
    target, _ = _split(name)
    return os.path.dirname(os.path.abspath(target)) if _is_file(target) else app_dir or os.getcwd()


def is_cgi_folder(name: str) -> bool:
    """Whether APP is a folder of CGI programs: no Python package, and nothing that could be the name of a module.

    ``cgi-bin`` is, and ``scripts/`` with its slash.
    """
    is_module = all(part.isidentifier() for part in name.split("."))
    return not is_module and os.path.isdir(name) and not os.path.isfile(os.path.join(name, "__init__.py"))


def _split(name: str) -> "tuple[str, tuple[str, ...]]":
    """The module or file, and the attributes that it may be."""
    target, colon, attribute = name.rpartition(":") if ":" in name else (name, "", _DEFAULTS[0])
    if not target or not all(part.isidentifier() for part in attribute.split(".")):
        raise LoadError(f"{name!r} names no application; write module:attribute or path/file.py:attribute")
    return target, (attribute,) if colon else _DEFAULTS


def _is_file(target: str) -> bool:
    # A CGI script need not end in .py.
    return target.endswith(".py") or os.sep in target


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _load_file(path: str) -> "ModuleType":
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    path = os.path.abspath(path)
    if not os.path.isfile(path):
        near = f"; did you mean {path}.py?" if os.path.isfile(f"{path}.py") else ""
        raise LoadError(f"there is no file {path}{near}")
    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"app_{name}"  # a file called json.py must not become everybody's json
    loader = SourceFileLoader(name, path)
    spec = spec_from_loader(name, loader)
    if spec is None:
        raise LoadError(f"{path} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _load_module(name: str, folder: str) -> "ModuleType":
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # The module itself or a package it is in; anything else is missing inside the application.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise LoadError(f"there is no module {error.name!r} in {folder} or on the path") from None


def _suggestion(module: "ModuleType", target: str) -> str:
    if is_cgi_folder(f"{target}/"):
        return f"; if it is a folder of CGI programs, write {target}/"
    named = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    here = [name for name, value in named.items() if getattr(value, "__module__", None) == module.__name__]
    # An object of a framework: the functions beside it are what it calls.
    objects = [
        name for name, value in named.items() if not hasattr(value, "__name__") and type(value).__module__ != "typing"
    ]
    here = objects or here
    return f"; it has {', '.join(here)}: write {target}:{here[0]}" if here else ""
