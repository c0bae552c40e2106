"""Every cap and every deadline, in one frozen record.

The command line, the environment variables and the configuration keys are derived from these fields, so a new
limit is one line here.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Never

#: name -> (default, meaning). Sizes are bytes and deadlines seconds; a deadline of None never expires.
FIELDS: "dict[str, tuple[int | float | None, str]]" = {
    "max_params": (1000, "meta-variables in one request"),
    "max_params_bytes": (262_144, "bytes of all names and values of one request"),
    "max_head": (32_768, "bytes of a response head"),
    "body_buffer": (65_536, "bytes of a request body held in memory before reading stops"),
    "max_read": (16_777_216, "bytes that one body.read() collects; streamed bodies are not limited"),
    "max_spool": (67_108_864, "bytes of a body spilled to a file while siblings share its connection"),
    "max_ids": (128, "concurrent requests on one connection"),
    "max_connections": (10_000, "open connections of one listener"),
    "max_running": (10_000, "requests that may run at a time, on all listeners together; more are answered with 503"),
    "max_stderr": (65_536, "bytes one request may log to the web server"),
    "params_timeout": (10.0, "seconds from the first byte of a request to the end of its meta-variables"),
    "body_timeout": (60.0, "seconds without body data while the handler waits for it"),
    "request_timeout": (None, "seconds for a whole request"),
    "idle_timeout": (300.0, "seconds a kept connection may stay idle"),
    "write_timeout": (60.0, "seconds without progress while the peer does not read"),
    "goodbye_timeout": (1.0, "seconds for the last bytes of a cancelled request"),
    "drain_bytes": (65_536, "bytes read and dropped before a connection is closed"),
    "drain_timeout": (2.0, "seconds of reading and dropping before a connection is closed"),
    "slow_timeout": (None, "seconds after which a request is logged as slow, with what its tasks do"),
    "blocked_timeout": (30.0, "seconds that the event loop may be blocked before the log shows where"),
    "shutdown_grace": (30.0, "seconds that running requests get after a signal to stop"),
}


class Limits:
    """Caps (bytes, counts) and deadlines (seconds) of a server; frozen, compared by value.

    >>> Limits(idle_timeout=60).idle_timeout
    60

    Raises TypeError for an unknown name, and ValueError for anything but a positive number (None switches a
    deadline off).
    """

    if TYPE_CHECKING:
        max_params: int
        max_params_bytes: int
        max_head: int
        body_buffer: int
        max_read: int
        max_spool: int
        max_ids: int
        max_connections: int
        max_running: int
        max_stderr: int
        params_timeout: float | None
        body_timeout: float | None
        request_timeout: float | None
        idle_timeout: float | None
        write_timeout: float | None
        goodbye_timeout: float | None
        drain_bytes: int
        drain_timeout: float | None
        slow_timeout: float | None
        blocked_timeout: float | None
        shutdown_grace: float | None

    __slots__ = tuple(FIELDS)

    def __init__(self, **fields: "int | float | None") -> None:
        unknown = fields.keys() - FIELDS.keys()
        if unknown:
            raise TypeError(f"unknown limit {min(unknown)!r}; the limits are {', '.join(FIELDS)}")
        for name, (default, _) in FIELDS.items():
            value = fields.get(name, default)
            _check(name, value)
            object.__setattr__(self, name, value)

    @classmethod
    def fields(cls) -> "dict[str, tuple[int | float | None, str]]":
        """Every field with its default and, in a few words, its meaning; deadlines are seconds."""
        return dict(FIELDS)

    def __setattr__(self, name: str, value: object) -> "Never":
        raise AttributeError(f"Limits is frozen: make a new one with {name}={value!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Limits):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in FIELDS))

    def __repr__(self) -> str:
        changed = [f"{n}={getattr(self, n)!r}" for n, (d, _) in FIELDS.items() if getattr(self, n) != d]
        return f"Limits({', '.join(changed)})"

    def __reduce__(self) -> "Any":
        return _rebuild, ({name: getattr(self, name) for name in FIELDS},)


def _check(name: str, value: "int | float | None") -> None:
    if is_deadline(name):
        if value is None or (type(value) in (int, float) and value > 0):
            return
        raise ValueError(f"{name} takes seconds above 0, or None for no deadline, not {value!r}")
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} takes a whole number above 0, not {value!r}")


def is_deadline(name: str) -> bool:
    """Whether a field is a deadline in seconds rather than a cap."""
    return name.endswith("_timeout") or name == "shutdown_grace"


def _rebuild(fields: "dict[str, int | float | None]") -> Limits:
    return Limits(**fields)
