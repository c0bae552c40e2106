"""Several processes for one application, under gunicorn's arbiter (the extra ``workers``).

``gateways serve APP --workers 4`` is :func:`run`. Those who run gunicorn themselves name one of our workers:
``gunicorn -k gateways.workers.FastCGIWorker app:app``. There is one for each protocol, called as the protocol is, in
capitals or not; ``GatewayWorker`` takes whichever protocol a connection begins with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateways import launch

if TYPE_CHECKING:
    from gateways.workers.arbiter import run as run
    from gateways.workers.settings import MissingGunicorn as MissingGunicorn
    from gateways.workers.settings import Settings as Settings
    from gateways.workers.worker import GatewayWorker as GatewayWorker

__all__ = ["GatewayWorker", "MissingGunicorn", "Settings", "run"]

#: Names that are loaded when they are first used: gunicorn is an extra.
_LAZY = {"GatewayWorker": "worker", "Settings": "settings", "MissingGunicorn": "settings", "run": "arbiter"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"gateways.workers.{_LAZY[name]}"), name)
    protocol = name.removesuffix("Worker").lower()
    if name.endswith("Worker") and protocol in launch.protocols():
        worker = import_module("gateways.workers.worker").GatewayWorker
        found = type(name, (worker,), {"protocol": protocol, "__doc__": f"A worker that speaks {protocol}."})
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
