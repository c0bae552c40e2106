"""Logs of a server: the access log in a format of your choice, the error log, and where they go.

The program's view, of no protocol. The engine tells the loggers ``gateways`` and ``gateways.access``; here is what
makes lines of that, and writes them in such a way that a log that cannot be written never stops the serving. What may
go into a format are the atoms of gunicorn's ``access_log_format``, and some more.
"""

from __future__ import annotations

import logging
import logging.config
import os
import re
import time
from collections.abc import Callable
from json import JSONEncoder
from pathlib import Path
from typing import Any

from gateways import AccessEntry, Request
from gateways._net.lines import indented, printable, quoted
from gateways._process.outlet import outlet, outlets

__all__ = ["FORMATS", "AccessFormatter", "ErrorFormatter", "JSONFormatter", "LineHandler", "configure", "reopen"]

#: Formats that have a name. "default" and "json" are no strings of atoms.
FORMATS = {
    "common": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s',
    "combined": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
}

_LOGGER = "gateways"
_ACCESS = "gateways.access"

# --- atoms

Getter = Callable[[AccessEntry, logging.LogRecord], str]

#: What stands in for what nobody but its owner may read.
_REDACTED = "[redacted]"
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token", "x-csrf-token"}
)
_SECRET_VARIABLES = frozenset(
    {f"HTTP_{name.upper().replace('-', '_')}" for name in _SECRET_HEADERS} | {"PHP_AUTH_PW", "PHP_AUTH_DIGEST"}
)


def _of_request(get: Callable[[Request], str | None]) -> Getter:
    """An atom that is a text of the request's."""

    def getter(entry: AccessEntry, _: logging.LogRecord) -> str:
        request = entry.request
        value = None if request is None else get(request)
        return quoted(value) if value else "-"

    return getter


def _target(request: Request) -> str:
    environ = request.environ
    asked = environ.get("REQUEST_URI")
    if asked is None:
        asked = f"{request.path}?{request.query_string}" if request.query_string else request.path
    return asked


def _request_line(request: Request) -> str:
    return f"{request.method} {_target(request)} {request.environ.get('SERVER_PROTOCOL', '-')}"


def _variable(name: str) -> Callable[[Request], str | None]:
    return lambda request: request.environ.get(name)


class _Clock:
    """Moments as texts, each second written once."""

    def __init__(self, format: str) -> None:
        self._format = format
        self._second = -1
        self._text = ""

    def at(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            # In this order: another thread may read between the two.
            text = time.strftime(self._format, time.localtime(second))
            self._text, self._second = text, second
            return text
        return self._text


def _apache_time() -> Getter:
    clock = _Clock("[%d/%b/%Y:%H:%M:%S %z]")
    return lambda _, record: clock.at(record.created)


#: atom -> (what it stands for, what gets it)
_ATOMS: dict[str, tuple[str, Getter]] = {
    "h": ("address of the client", _of_request(lambda request: request.remote_addr)),
    "l": ("always -", lambda entry, record: "-"),
    "u": ("user that the web server has authenticated", _of_request(lambda request: request.remote_user)),
    "t": ("time, such as [21/Nov/2026:18:00:00 +0000]", _apache_time()),
    "r": ("method, target and version, as in a request line", _of_request(_request_line)),
    "m": ("method", _of_request(lambda request: request.method)),
    "U": ("path without the query", _of_request(lambda request: request.path)),
    "q": ("query string", _of_request(lambda request: request.query_string)),
    "H": ("version, such as HTTP/1.1", _of_request(_variable("SERVER_PROTOCOL"))),
    "s": ("status", lambda entry, record: str(entry.status or "-")),
    "B": ("bytes of the body that was sent", lambda entry, record: str(entry.sent)),
    "b": ("the same, but - for none", lambda entry, record: str(entry.sent or "-")),
    "f": ("referer", _of_request(_variable("HTTP_REFERER"))),
    "a": ("user agent", _of_request(_variable("HTTP_USER_AGENT"))),
    "T": ("whole seconds that it took", lambda entry, record: str(int(entry.seconds))),
    "M": ("the same in milliseconds", lambda entry, record: str(int(entry.seconds * 1_000))),
    "D": ("the same in microseconds", lambda entry, record: str(int(entry.seconds * 1_000_000))),
    "L": ("the same in seconds, to the microsecond", lambda entry, record: f"{entry.seconds:.6f}"),
    "p": ("process id, such as <123>", lambda entry, record: f"<{record.process}>"),
    "id": ("id of the request", lambda entry, record: entry.request_id),
    "protocol": ("gateway protocol", lambda entry, record: entry.protocol),
}


def _help() -> str:
    atoms = " ".join([f"%({name})s" for name in _ATOMS])
    return f"the atoms are {atoms} %({{header}}i)s %({{header}}o)s %({{variable}}e)s and %%"


def _getter(atom: str) -> Getter:
    if atom in _ATOMS:
        return _ATOMS[atom][1]
    found = re.fullmatch(r"\{([^{}]+)\}([ioe])", atom)
    if found is None:
        raise ValueError(f"%({atom})s is no atom; {_help()}")
    name, kind = found[1], found[2]
    if kind == "o":
        return _response_header(name, name.lower() in _SECRET_HEADERS)
    variable = name if kind == "e" else f"HTTP_{name.upper().replace('-', '_')}"
    if variable in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        variable = variable.removeprefix("HTTP_")
    # Apache hands variables on from one of its internal redirects to the next.
    if re.sub("^(REDIRECT_)+", "", variable) in _SECRET_VARIABLES:
        return _of_request(lambda request: _REDACTED if variable in request.environ else None)
    return _of_request(_variable(variable))


def _response_header(name: str, secret: bool) -> Getter:
    def getter(entry: AccessEntry, _: logging.LogRecord) -> str:
        value = entry.response_header(name)
        if not value:
            return "-"
        return _REDACTED if secret else quoted(value)

    return getter


def _compiled(format: str) -> tuple[str, list[Getter]]:
    """A format as a template for ``%`` and what gets the values that go into it, in this order."""
    getters: list[Getter] = []
    template = ""
    for literal, escape, atom in re.findall(r"([^%]+)|%(?:(%)|\(([^()]+)\)s)|%", format):
        if literal:
            template += literal
        elif escape:
            template += "%%"
        elif atom:
            getters.append(_getter(atom))
            template += "%s"
        else:
            raise ValueError(f"not a format of access lines: {format!r} has a % that begins no atom; {_help()}")
    return template, getters


# --- formatters


class _Formatter(logging.Formatter):
    """One that logging.config can make in each of its ways, although it has no use for most of the arguments."""

    def __init__(
        self,
        format: str | None = None,
        datefmt: str | None = None,
        style: str = "%",
        validate: bool = True,
        *,
        defaults: object = None,
    ) -> None:
        super().__init__()


class ErrorFormatter(_Formatter):
    """Time, level, id of the request if there is one, and message; control characters are escaped.

    Where a message has several lines, or a traceback, all but the first are indented: nothing that a client sends can
    pass for a line of its own.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._clock = _Clock("%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        if record.stack_info:
            text += f"\n{self.formatStack(record.stack_info)}"
        name = getattr(record, "request_id", None)
        return f"{self._head(record)} {'' if name is None else f'[{printable(str(name))}] '}{indented(text)}"

    def _head(self, record: logging.LogRecord) -> str:
        return f"{self._clock.at(record.created)},{int(record.msecs):03d} {record.levelname}"


class AccessFormatter(ErrorFormatter):
    """The line of the access log in a format: a text with atoms in it, or the name of one of :data:`FORMATS`.

    "default" is the line that is logged when nothing is configured. Raises ValueError for a format with atoms that
    there are not.
    """

    def __init__(self, format: str | None = None, *arguments: Any, **settings: Any) -> None:
        super().__init__(format, *arguments, **settings)
        wanted = format or "default"
        self._template, self._getters = ("", []) if wanted == "default" else _compiled(FORMATS.get(wanted, wanted))

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        entry: object = record.msg
        if not isinstance(entry, AccessEntry):
            return super().format(record)
        if not self._template:
            return f"{self._head(record)} {entry}"
        return self._template % tuple([get(entry, record) for get in self._getters])


class JSONFormatter(_Formatter):
    """A JSON object a line, for the access log and for any other. What is not known is null."""

    _encode = JSONEncoder(separators=(",", ":"), default=str).encode

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._clock = _Clock("%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        now = self._clock.at(record.created)
        fields: dict[str, object] = {"time": f"{now[:-5]}.{int(record.msecs):03d}{now[-5:-2]}:{now[-2:]}"}
        entry: object = record.msg
        if isinstance(entry, AccessEntry):
            fields |= _access_fields(entry)
        else:
            fields["level"] = record.levelname.lower()
            fields["id"] = getattr(record, "request_id", None)
            fields["logger"] = record.name
            fields["message"] = record.getMessage()
            if record.exc_info:
                fields["traceback"] = self.formatException(record.exc_info)
        fields["pid"] = record.process
        return self._encode(fields)


def _access_fields(entry: AccessEntry) -> dict[str, object]:
    request = entry.request
    environ = {} if request is None else request.environ
    return {
        "id": entry.request_id,
        "remote_addr": environ.get("REMOTE_ADDR"),
        "remote_user": environ.get("REMOTE_USER"),
        "method": environ.get("REQUEST_METHOD"),
        "target": None if request is None else _target(request),
        "path": None if request is None else request.path,
        "query": environ.get("QUERY_STRING"),
        "version": environ.get("SERVER_PROTOCOL"),
        "status": entry.status or None,
        "sent": entry.sent,
        "seconds": round(entry.seconds, 6),
        "referer": environ.get("HTTP_REFERER"),
        "user_agent": environ.get("HTTP_USER_AGENT"),
        "protocol": entry.protocol,
    }


# --- where lines go


class LineHandler(logging.Handler):
    """Writes each record as a line to a file, or to stderr for "-", and never waits for it.

    Lines for a reader that is slow are kept, up to a megabyte. Those that can be neither kept nor written are counted,
    and the count is a line of its own as soon as lines can be written again. Raises OSError for a file that cannot be
    opened.
    """

    def __init__(self, filename: str | os.PathLike[str] = "-") -> None:
        self._outlet = outlet(os.fspath(filename))
        super().__init__()

    def createLock(self) -> None:
        """Take the lock of the outlet: it is shared with the other handlers that write there."""
        lock: Any = self._outlet.lock  # it may be taken twice, which the types of logging do not know
        self.lock = lock

    def flush(self) -> None:
        """Wait a moment for what could not be written yet: for a process that ends, or is replaced by another."""
        self._outlet.finish()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line for a record."""
        try:
            line = self._line(record)
        except Exception as error:
            text = f"a line of the log could not be made: {error!r}, from {record.pathname}:{record.lineno}"
            line = self._line(self._warning(text))
        self._outlet.put(line, self._notice)

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _notice(self, lost: int) -> bytes:
        lines = "line" if lost == 1 else "lines"
        return self._line(self._warning(f"{lost} {lines} of the log could not be written here"))

    @staticmethod
    def _warning(text: str) -> logging.LogRecord:
        return logging.LogRecord(_LOGGER, logging.WARNING, "", 0, "%s", (text,), None)


# --- configuration

#: Handlers that configure() has added, and the logger that each was added to.
_added: list[tuple[logging.Logger, logging.Handler]] = []


def configure(
    *,
    access: bool = True,
    access_format: str = "default",
    access_file: str | os.PathLike[str] = "-",
    error_file: str | os.PathLike[str] = "-",
    level: str = "info",
    config: str | os.PathLike[str] | None = None,
) -> None:
    """Set up the loggers ``gateways`` and ``gateways.access``; a second time, anew.

    ``access`` says whether there is a line for each request, ``access_format`` is a text with atoms, or "default",
    "common", "combined" or "json", files are names or "-" for stderr. With ``config``, all of that is left to
    the file: a dictionary for ``logging.config.dictConfig`` in TOML (``.toml``) or JSON (``.json``), else what
    ``logging.config.fileConfig`` takes.

    Errors: ValueError for a format, a level or a configuration that makes no sense, OSError for a file that cannot be
    opened. Then nothing has been changed, unless the configuration was at fault.
    """
    error_log, access_log = logging.getLogger(_LOGGER), logging.getLogger(_ACCESS)
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"not a level of logs: {level!r}; levels are debug, info, warning, error and critical")
    if config is not None:
        settings = _read(Path(config))
        _remove_added()
        _set_levels(error_log, access_log, number, access, propagate=True)
        _apply(Path(config), settings)
        return
    formatter = JSONFormatter() if access_format == "json" else AccessFormatter(access_format)
    errors = LineHandler(error_file)
    errors.setFormatter(ErrorFormatter())
    accesses = LineHandler(access_file) if access else logging.NullHandler()
    accesses.setFormatter(formatter)
    _remove_added()
    for logger, handler in ((error_log, errors), (access_log, accesses)):
        logger.addHandler(handler)
        _added.append((logger, handler))
    _set_levels(error_log, access_log, number, access, propagate=False)


def _remove_added() -> None:
    while _added:
        logger, handler = _added.pop()
        logger.removeHandler(handler)


def _set_levels(
    error_log: logging.Logger, access_log: logging.Logger, number: int, access: bool, *, propagate: bool
) -> None:
    error_log.setLevel(number)
    access_log.setLevel(logging.INFO if access else logging.CRITICAL)
    error_log.propagate = access_log.propagate = propagate


def _read(path: Path) -> Any:
    """What a configuration file says; None for one in the form of fileConfig, which that reads by itself."""
    try:
        match path.suffix:
            case ".toml":
                import tomllib

                return tomllib.loads(path.read_text(encoding="utf-8"))
            case ".json":
                import json

                return json.loads(path.read_text(encoding="utf-8"))
            case _:
                path.open().close()
                return None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _apply(path: Path, settings: Any) -> None:
    try:
        if settings is None:
            logging.config.fileConfig(path, disable_existing_loggers=False, encoding="utf-8")
        else:
            # Loggers that the file does not name are to go on, ours above all.
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **settings})
    except Exception as error:
        reason = f"{error}: {error.__cause__}" if error.__cause__ else f"{error}"
        raise ValueError(f"{path} does not configure logging: {reason or type(error).__name__}") from error


def reopen() -> None:
    """Have every file of the log opened anew by its name, as logrotate wants after it has moved them.

    Those that a configuration opened are among them where their handlers are ``logging.FileHandler``. No line is lost:
    what is logged meanwhile goes to the old file. Where the name cannot be opened, the old file stays, and a line
    says so.
    """
    for each in outlets.values():
        _reopen(each.name, each.reopen)
    for handler in _file_handlers():
        _reopen(handler.baseFilename, lambda handler=handler: _reopen_handler(handler))  # type: ignore[misc]


def _reopen(name: str, again: Callable[[], None]) -> None:
    try:
        again()
    except OSError as error:
        logging.getLogger(_LOGGER).error("cannot open the log %s anew: %s", printable(name), error.strerror)


def _reopen_handler(handler: logging.FileHandler) -> None:
    handler.acquire()
    try:
        before: Any = handler.stream
        if before is not None:  # else it is opened with the next line
            handler.stream = handler._open()
            before.close()
    finally:
        handler.release()


def _file_handlers() -> list[logging.FileHandler]:
    """All there are, also behind handlers that hand records on."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    todo: list[Any] = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    seen: set[int] = set()
    found: list[logging.FileHandler] = []
    while todo:
        handler = todo.pop()
        if id(handler) in seen:
            continue
        seen.add(id(handler))
        if isinstance(handler, logging.FileHandler):
            found.append(handler)
        todo += [each for each in [getattr(handler, "target", None)] if isinstance(each, logging.Handler)]
        todo += getattr(getattr(handler, "listener", None), "handlers", ())
    return found
