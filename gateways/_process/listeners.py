"""Listening sockets for processes that are yet to be forked: opened once, by the one that forks."""

from __future__ import annotations

import os
import socket
from typing import Any

import trio

from gateways._net.address import Listen, Listener, describe, open_listeners

__all__ = ["open_before_fork", "where"]


def open_before_fork(listen: Listen) -> list[Listener]:
    """Bind what a Listen asks for, in a process without an event loop, and without leaving a thread behind.

    A process with threads must not fork: a lock that one of them held would be held in the child for ever.

    Errors: ValueError for an address that cannot be read, BindError (an OSError) for one that cannot be had.
    """

    async def main() -> list[Listener]:
        trio.socket.set_custom_hostname_resolver(_Blocking())
        return await open_listeners(listen)

    return trio.run(main)


class _Blocking(trio.abc.HostnameResolver):
    """Host names looked up here and now: trio would start a thread for that, and keep it for a while."""

    async def getaddrinfo(self, *arguments: Any, **settings: Any) -> Any:
        return socket.getaddrinfo(*arguments, **settings)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        return socket.getnameinfo(sockaddr, flags)


def where(number: int) -> str:
    """Where the socket with this descriptor listens, with the real port."""
    with socket.socket(fileno=os.dup(number)) as listening:
        return describe(listening)
