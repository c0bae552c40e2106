"""WSGI applications asked over every protocol, CGI included."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn
from wsgiref.validate import validator

import trio

import gateways
from gateways import Headers, cgi
from gateways.testing import Result, serving, variables
from gateways.wsgi import FromWSGI, from_wsgi
from tests.wsgi.behaviours import BEHAVIOURS, Application, Behaviour

__all__ = ["PATIENCE", "ROOT", "Scripts", "ask", "checked", "handler_of", "over_a_stream"]

#: Where the package is: here, or where it is installed.
ROOT = Path(gateways.__file__).parents[1]
#: Where the tests are.
_HERE = Path(__file__).parents[2]
PATIENCE = 20.0


def handler_of(behaviour: Behaviour, **options: Any) -> FromWSGI:
    """The application as a handler, with wsgiref.validate between the two."""
    application = behaviour.application
    return from_wsgi(validator(application) if behaviour.validated else application, **options)


async def ask(application: Application, method: str = "GET", path: str = "/", **about: Any) -> Result:
    """What a client gets of an application; ``options`` are those of ``from_wsgi``."""
    options = about.pop("options", {})
    protocol = about.pop("protocol", "fastcgi")
    with trio.fail_after(PATIENCE):
        async with serving(from_wsgi(application, **options), protocol, "unix") as server:
            return await server.request(method, path, **about)


async def over_a_stream(name: str, protocol: str, threads: int) -> Result:
    """The answer to one of the requests of the table."""
    each = BEHAVIOURS[name]
    with trio.fail_after(PATIENCE):
        async with serving(handler_of(each, threads=threads), protocol, "unix") as server:
            return await server.request(
                each.method, each.path, headers=each.headers, body=each.body, environ=each.environ
            )


def checked(name: str, result: Result, *, log: bool = False) -> None:
    """Compare an answer with what has to come of it."""
    each = BEHAVIOURS[name]
    assert (result.status, result.body) == (each.status, each.answer)
    for field, value in each.fields.items():
        expected = value if isinstance(value, list) else [] if value is None else [value]
        assert result.headers.get_all(field) == expected
    assert str(result.error or "") == ""
    if log:
        assert each.log in "\n".join(result.log)


class Scripts:
    """CGI scripts, forked from a process that has loaded everything but trio."""

    def __init__(self) -> None:
        program = "from tests.wsgi.tools import fork_for_each; fork_for_each()"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program], cwd=_HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Scripts:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its stdin, which ends it
            pass

    def ask(self, name: str, under_trio: bool) -> Result:
        """The answer of a script that is one of the applications of the table."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((name, under_trio), self._process.stdin)
        self._process.stdin.flush()
        status, output, errors = pickle.load(self._process.stdout)
        assert status == 0, errors
        head, _, body = output.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        return Result(int(lines[0][8:11]), Headers(fields), body, log=tuple(errors.decode().splitlines()))


def fork_for_each() -> None:
    """What the process above runs: for each request a child, with a pipe for stdout as fcgiwrap has it."""
    while True:
        try:
            name, under_trio = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        each = BEHAVIOURS[name]
        pairs = variables(each.method, each.path, headers=each.headers, length=len(each.body), environ=each.environ)
        feeding, output, errors = memory_file(each.body), memory_file(), memory_file()
        child = os.fork()
        if child == 0:
            for descriptor, number in ((feeding, 0), (output, 1), (errors, 2)):
                os.dup2(descriptor, number)
            os.environb.clear()
            os.environb.update({as_bytes(name): as_bytes(value) for name, value in pairs})
            be_script(each, under_trio)
        status = os.waitpid(child, 0)[1]
        pickle.dump((status, contents(output), contents(errors)), sys.stdout.buffer)
        sys.stdout.buffer.flush()
        os.close(feeding)


def memory_file(data: bytes = b"") -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def contents(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def be_script(each: Behaviour, under_trio: bool) -> NoReturn:
    status = 1
    try:
        cgi.run(handler_of(each), trio=under_trio)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)  # never back into the loop of the parent


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
