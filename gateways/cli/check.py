"""``gateways check APP``: whether an application gives the same answers over every protocol.

Served in this process over each protocol there is, and run as a CGI script, a process for each request, it is asked the
same. One protocol is asked first and again last: what is not the same twice there cannot be compared.
"""

import argparse
import os
import sys
from typing import NamedTuple

from gateways.cli.errorpage import is_meta_variable
from gateways.cli.running import (
    STARTUP_FAILED,
    StartupFailed,
    load_or_exit,
    say,
    starting,
    without_our_frames,
)
from gateways.cli.settings import add_app, app_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from gateways import Application
    from gateways.testing import Result, Server

    Parts = Mapping[str, str | bytes | tuple[str, ...]]

__all__ = ["main"]

_EPILOG = """\
The requests are real ones: a form that is posted is posted several times, over each protocol.
Exit status: 0 the same everywhere, 1 something differs, 2 usage, 3 the application did not start, 4 cannot import it.

  gateways check app.py
  gateways check app.py --request 'GET /search?q=x' --request 'DELETE /items/1'
"""

DIFFERS = 1

_FORM = b"name=J%C3%BCrgen+M.&name=two&empty="

#: What the development server says of itself and of its client, so that the others say the same.
_BESIDE = {"SERVER_SOFTWARE": "gateways/dev", "HTTP_CONNECTION": "close"}

#: First, as HTTP has it.
_HOST = (("Host", "localhost"),)

#: The fields of an answer that are the web server's to add.
_OF_THE_SERVER = frozenset({"date", "server"})

_STATUS, _BODY, _END = "the status", "the body", "the end"
#: How much of a difference is shown.
_MOST_LINES, _COLUMNS = 40, 160


class Ask(NamedTuple):
    """A request that is sent over every protocol."""

    method: str
    path: str
    #: What sets it apart from others with that path.
    what: str = ""
    headers: "tuple[tuple[str, str], ...]" = ()
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{self.what}"


_ASKS = (
    Ask("GET", "/"),
    Ask("HEAD", "/"),
    Ask("GET", "/?name=J%C3%BCrgen+M.&name=two&empty="),
    Ask("POST", "/", " with a form", (("Content-Type", "application/x-www-form-urlencoded"),), _FORM),
    Ask("GET", "/caf%C3%A9/a%20b%2Fc/%25"),
    Ask("GET", "/", " with cookies", (("Cookie", 'one=1; two="2"'),)),
    Ask("GET", "/no-such-page"),
)


class Answer(NamedTuple):
    """What came of a request over one protocol."""

    #: By name: the status, the values of each header field (its name in lower case), the body, how it ended.
    parts: "Parts"
    #: What the handler raised, with the place.
    errors: "tuple[str, ...]" = ()
    #: What a program wrote to its stderr.
    log: "tuple[str, ...]" = ()


def main(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Ask over every protocol and print what differs; the exit status."""
    _add_arguments(parser)
    options = parser.parse_args(arguments)
    app, name = load_or_exit(parser, options)
    import logging

    import trio

    # What handlers raise is told beside their answers, once.
    log = logging.getLogger("gateways")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    try:
        return DIFFERS if trio.run(_check, app, name, options) else 0
    except StartupFailed as failed:
        import traceback

        if failed.__cause__ is not None:
            sys.stderr.write("".join(traceback.format_exception(without_our_frames(failed.__cause__))))
        say(f"gateways: {options.app} did not start up: see above")
        return STARTUP_FAILED


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add_app(parser)
    add = parser.add_argument
    add(
        "--request",
        action="append",
        default=[],
        type=_request,
        metavar="'METHOD /PATH'",
        help="send this too, besides a few that suit any application; may be repeated",
    )
    add(
        "--timeout",
        type=_positive,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for each answer (default 10)",
    )


def _request(text: str) -> Ask:
    method, space, path = text.partition(" ")
    if not space or not method.isascii() or not method.isalpha() or not path.startswith("/") or " " in path:
        raise argparse.ArgumentTypeError(f"not a method and a path, such as 'GET /x?y=z': {text!r}")
    return Ask(method, path)


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return seconds


# --- asking


async def _check(app: "Application", title: str, options: argparse.Namespace) -> bool:
    """Ask, and print what came of it; whether anything differs."""
    tour = _Tour(app, options)
    asks = [*_ASKS, *options.request]
    # First, for the others are told of its socket.
    found = {"http": await tour.round("http", asks)}
    others = [name for name in _protocols() if name != "http"]
    for name in (*others, "cgi"):
        found[name] = await tour.round(name, asks)
    model = others[0]
    again = await tour.round(model, asks)
    print(f"{title} over {', '.join(found)}")
    told = tour.told
    differing = partly = 0
    for number, ask in enumerate(asks):
        answers = {name: answers[number] for name, answers in found.items()}
        like = answers[model]
        loose = _differing(like, again[number])
        # Twice, for a clock may have gone on between two protocols.
        suspects = {name: different for name in answers if (different := _differing(like, answers[name]) - loose)}
        for name in suspects:
            [second] = await tour.round(name, [ask])
            [second_like] = await tour.round(model, [ask])
            suspects[name] &= _differing(second_like, second)
            tour.told = told  # by now the socket of HTTP is another
            if name == "cgi":  # a process of its own: another number, another order of sets
                loose |= _differing(answers[name], second)
        others = [name for name, different in suspects.items() if different - loose]
        _report(ask, answers, model, others, loose)
        differing += bool(others)
        partly += bool(loose)
    verdict = f"{differing} of {len(asks)} answers differ" if differing else f"all {len(asks)} answers are the same"
    print(verdict + (f"; {partly} were compared in part" if partly else ""))
    return differing > 0


def _protocols() -> "list[str]":
    from gateways.launch import protocols

    return protocols()


class _Tour:
    """An application, asked over one protocol after the other."""

    def __init__(self, app: "Application", options: argparse.Namespace) -> None:
        self._app = app
        self._options = options
        #: What the others are told, which HTTP cannot be: it learns it from its socket.
        self.told: dict[str, str] = {}

    async def round(self, name: str, asks: "Iterable[Ask]") -> "list[Answer]":
        """The answers over one protocol, from one start of the application (under CGI, one each)."""
        async with self._serving(name) as server:
            if server.address is not None:
                host, _, port = server.address.rpartition(":")
                self.told = {**_BESIDE, "SERVER_ADDR": host, "SERVER_PORT": port}
            return [await self._answer(server, name, ask) for ask in asks]

    def _serving(self, name: str) -> "AbstractAsyncContextManager[Server]":
        from gateways import testing

        if name == "cgi":
            return testing.serving(self._script(), "fastcgi")
        return testing.serving(starting(self._app), name, "tcp" if name == "http" else "memory")

    def _script(self) -> "Application":
        """The application as a CGI script: ``gateways serve``, started by a web server as far as it can tell."""
        from gateways import cgi

        environ = {
            name: value
            for name, value in os.environ.items()
            if not is_meta_variable(name) and not name.startswith("GATEWAYS_")
        }
        command = [sys.executable, "-m", "gateways", "serve", *app_flags(self._options), self._options.app]
        return cgi.script(*command, cwd=os.getcwd(), environ=environ, timeout=None, pass_authorization=True)

    async def _answer(self, server: "Server", name: str, ask: Ask) -> Answer:
        import trio

        from gateways import ProtocolError

        beside = {} if name == "http" else self.told
        headers = (*_HOST, *ask.headers)
        known = len(server.errors)
        result, parts = None, {}
        try:
            with trio.fail_after(self._options.timeout):
                result = await server.request(ask.method, ask.path, headers=headers, body=ask.body, environ=beside)
        except trio.TooSlowError:
            parts = {_STATUS: f"none within {self._options.timeout:g} seconds"}
        except ProtocolError as error:
            parts = {_STATUS: f"none: {error}"}
        errors = tuple(_place(error) for error in server.errors[known:])
        if result is None:
            return Answer(parts, errors)
        return Answer(_parts(result), errors, result.log if name == "cgi" else ())


def _parts(result: "Result") -> "Parts":
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in result.headers.items():
        if name.lower() not in _OF_THE_SERVER:
            fields[name.lower()] = (*fields.get(name.lower(), ()), value)
    end = "" if result.error is None else "the answer breaks off"
    return {_STATUS: f"{result.status} {result.reason}", **fields, _BODY: result.body, _END: end}


def _place(error: Exception) -> str:
    """An exception in one line: what, and where in the application."""
    import traceback

    said = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(without_our_frames(error).__traceback__)
    return f"{said} ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else said


# --- comparing


def _differing(one: Answer, other: Answer) -> "set[str]":
    """The names of the parts of two answers that are not the same."""
    names = {name for name in one.parts.keys() | other.parts.keys() if one.parts.get(name) != other.parts.get(name)}
    if one.parts.get(_END) or other.parts.get(_END):
        names.discard(_BODY)  # how much of an answer that breaks off arrives is chance
    # Another body may be as long by chance.
    return names | {"content-length"} if _BODY in names else names


def _report(ask: Ask, answers: "Mapping[str, Answer]", model: str, others: "list[str]", loose: "set[str]") -> None:
    """Print what there is to say of one request."""
    like = answers[model].parts
    print(f"{'differs' if others else 'same':8} {ask}: {_printable(str(like[_STATUS]))}")
    if loose:
        print(f"         not compared, for not even the same twice over one protocol: {', '.join(sorted(loose))}")
    for error in dict.fromkeys(error for answer in answers.values() for error in answer.errors):
        print(f"         the handler raised {_printable(error)}")
    for name in others:
        for line in _diff(like, answers[name].parts, model, name, loose):
            print(f"    {line}")
        for line in answers[name].log[-3:]:
            print(f"    {name} wrote to stderr: {_printable(line)}")


def _diff(one: "Parts", two: "Parts", here: str, there: str, loose: "set[str]") -> "Iterator[str]":
    from difflib import unified_diff

    lines = list(unified_diff(_lines(one, loose), _lines(two, loose), here, there, lineterm="", n=1))
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"... and {len(lines) - _MOST_LINES} more lines"


def _lines(parts: "Parts", loose: "set[str]") -> "list[str]":
    """An answer as text; whatever a terminal would take for a command is escaped."""
    shown: list[str] = []
    for name, value in parts.items():
        if name in loose or not value:
            continue
        if isinstance(value, bytes):
            for line in value.splitlines(keepends=True):
                text = _printable(line.decode("utf-8", "backslashreplace"))
                # A long line in pieces, for a difference is looked for in one and shown with it.
                shown += [text[start : start + _COLUMNS] for start in range(0, len(text), _COLUMNS)]
        elif isinstance(value, tuple):
            shown += [_printable(f"{name}: {each}") for each in value]
        else:
            shown.append(_printable(value))
    return shown


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
