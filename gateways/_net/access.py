"""What the access log is told of a request that is over."""

from __future__ import annotations

import logging
import os
import re
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from gateways._net.lines import printable, quoted

if TYPE_CHECKING:
    from gateways._model.request import Request
    from gateways._net.exchange import Exchange

__all__ = ["AccessEntry", "AccessLog", "new_request_id", "target"]

#: Where web servers put the id that they gave a request. What begins with HTTP_ can be the client's own.
_ID_VARIABLES = ("REQUEST_ID", "UNIQUE_ID", "HTTP_X_REQUEST_ID")
_is_sane = re.compile(r"[\w.:@/+=~-]{1,128}", re.ASCII).fullmatch
_numbers = count(1)


def new_request_id(request: Request | None) -> str:
    """The id that the web server gave a request, or one that this process has not given before."""
    if request is not None:
        for variable in _ID_VARIABLES:
            value = request.environ.get(variable)
            if value is not None and _is_sane(value):
                return value
    return f"{os.getpid():x}-{next(_numbers)}"


def target(request: Request) -> str:
    """What was asked for, as the client wrote it where the web server tells."""
    return request.environ.get("REQUEST_URI") or request.path


class AccessEntry:
    """A request that is over, as the ``msg`` of a record of the logger ``gateways.access``.

    ``str()`` gives the line that is logged where no format was asked for. Whatever else a formatter of your own wants
    to tell is in the attributes.
    """

    __slots__ = ("_exchange", "protocol", "request", "seconds", "sent", "status")

    def __init__(self, exchange: Exchange, seconds: float) -> None:
        self._exchange = exchange
        #: The :class:`Request`; None for one that could not be read and was refused.
        self.request: Request | None = exchange.request
        #: The status that was answered; 0 where there was no answer.
        self.status: int = exchange.status
        #: Bytes of the body that was sent.
        self.sent: int = exchange.sent
        #: How long it took.
        self.seconds = seconds
        #: The gateway protocol: "fastcgi", "scgi" or "http".
        self.protocol: str = exchange.connection.protocol.name

    @property
    def request_id(self) -> str:
        """The same as in other lines of the log about this request."""
        return self._exchange.request_id

    def response_header(self, name: str) -> str | None:
        """A field of the head that was sent, the values of several joined with ", "; None where there is none."""
        wanted, found = name.lower().encode(), None
        for line in self._exchange.head.split(b"\r\n"):
            field, colon, value = line.partition(b":")
            if colon and field.lower() == wanted:
                text = value.strip().decode("utf-8", "surrogateescape")
                found = text if found is None else f"{found}, {text}"
        return found

    def __str__(self) -> str:
        request, exchange = self.request, self._exchange
        if request is None:
            remote, asked = "-", "a request that was refused"
        else:
            remote = printable(request.remote_addr or "-")
            asked = quoted(f"{request.method} {target(request)}")
        line = f'{remote} "{asked}" {self.status or "-"} {self.sent} {self.seconds * 1000:.0f}ms {self.protocol}'
        # Other lines tell of this request: they can be found.
        return line if exchange.named is None else f"{line} [{exchange.named}]"


class AccessLog:
    """A logger with a shorter way for the one kind of records that there is of each request."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        #: What all its records have in common. logging finds it out anew for each, who called included.
        self._common: dict[str, Any] = {}
        self._pid = 0

    def add(self, exchange: Exchange, seconds: float) -> None:
        """Log a request that is over; for those who have asked whether the logger is enabled."""
        entry = AccessEntry(exchange, seconds)
        if logging.getLogRecordFactory() is not logging.LogRecord:
            self.logger.handle(self.logger.makeRecord(self.logger.name, logging.INFO, "", 0, entry, (), None))
            return
        if self._pid != os.getpid():
            made = logging.LogRecord(self.logger.name, logging.INFO, "", 0, None, None, None)
            self._common, self._pid = made.__dict__, os.getpid()
        record = logging.LogRecord.__new__(logging.LogRecord)
        now = time.time()
        common = self._common
        record.__dict__ = {
            **common,
            "msg": entry,
            "created": now,
            "msecs": float(int(now * 1000) % 1000),
            "relativeCreated": common["relativeCreated"] + (now - common["created"]) * 1000,
        }
        self.logger.handle(record)
