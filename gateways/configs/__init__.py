"""Configurations of servers, and units of systemd, that fit an application: written out, complete, to be pasted.

One module for each server. It has ``render(site)``, the text; ``PLACE``, where that goes; ``CHECK``, the command by
which the server says what it thinks of it; ``GROUP``, the group that it runs as in Debian. Nothing is executed or
looked up here: the text depends on the :class:`~gateways.configs.site.Site` alone.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from gateways.configs.site import Backend, Refused, Site

__all__ = ["SERVERS", "Backend", "Refused", "Site", "server"]

#: What there is a module for: web servers and systemd, and the servers of the small web.
SERVERS = (
    *("nginx", "apache", "lighttpd", "caddy", "haproxy", "h2o", "systemd"),
    *("molly-brown", "gmid", "jetforce", "gmcapsule", "stargazer", "gophernicus", "pygopherd"),
)


def server(name: str) -> ModuleType:
    """The module for one of SERVERS."""
    return import_module(f"gateways.configs.{name.replace('-', '_')}")
