"""Telling the service manager how we are: the datagrams of sd_notify(3), for systemd and whoever else listens.

Nothing here raises: a server that cannot tell how it is still serves.
"""

import os
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["notify", "ready", "reloading", "status", "stopping", "watchdog", "watchdog_interval"]

#: The service manager may be busy, but not for longer.
_PATIENCE = 1.0


def notify(*lines: str, environ: "Mapping[str, str]" = os.environ) -> bool:
    """Send lines such as "READY=1" to the socket that NOTIFY_SOCKET names; whether they were sent."""
    where = environ.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")) or not lines:
        return False
    # A name that begins with "@" is abstract (unix(7)): no file, and a NUL for the "@".
    address = os.fsencode(where) if where[0] == "/" else b"\0" + os.fsencode(where[1:])
    text = "\n".join(" ".join(line.splitlines()) for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # Nobody is served while this waits, so it does only where a word that is lost would matter.
            sender.settimeout(_PATIENCE if "=1" in lines[0] and not lines[0].startswith("WATCHDOG") else 0)
            sender.connect(address)
            sender.send(text.encode(errors="replace"))
    except (OSError, ValueError):
        return False
    return True


def ready(text: str = "") -> bool:
    """Started, or reloaded; ``text`` is what the status says."""
    return notify("READY=1", *_status(text))


def reloading(text: str = "") -> bool:
    """New code is being loaded; :func:`ready` says when that is over, also if it was in vain."""
    # Type=notify-reload tells by the time whether this is about the signal it has sent.
    return notify(
        "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", *_status(text)
    )


def stopping(text: str = "") -> bool:
    """No more connections are accepted; the process will end."""
    return notify("STOPPING=1", *_status(text))


def status(text: str) -> bool:
    """A line for humans: what ``systemctl status`` shows."""
    return notify(*_status(text))


def watchdog() -> bool:
    """Still alive."""
    return notify("WATCHDOG=1")


def _status(text: str) -> "list[str]":
    return [f"STATUS={text}"] if text else []


def watchdog_interval(environ: "Mapping[str, str]" = os.environ) -> "float | None":
    """Within how many seconds the service manager wants a sign of life; None where it wants none of this process.

    See sd_watchdog_enabled(3): WATCHDOG_USEC, and WATCHDOG_PID if it is set.
    """
    text = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        return None
    return int(text) / 1_000_000
