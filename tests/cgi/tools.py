"""A web server's side of running CGI programs, for tests: handlers asked by hand, and processes that can be awaited."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import trio

from gateways import Request, Response
from gateways._net.stream import PipeStream
from tests.net.tools import variables

__all__ = ["OK", "Asked", "Lifeline", "ask", "begin", "program", "python_program"]

T = TypeVar("T")

#: The head of an answer, in the shell.
OK = "printf 'Content-Type: text/plain\\n\\n'\n"


def program(file: Path, text: str, *, interpreter: str = "/bin/sh", mode: int = 0o755) -> Path:
    """Write a program, a shell script unless said otherwise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!{interpreter}\n{text}", encoding="utf-8")
    file.chmod(mode)
    return file


def python_program(file: Path, text: str) -> Path:
    """Write a program in Python that knows the standard library alone, and is started as fast as that can be."""
    return program(file, text, interpreter=f"{sys.executable} -IS")


class Asked:
    """An answer, read whole."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.log: list[str] = []

    def environ(self) -> dict[str, str]:
        """The environment of a program that has shown it with env -0."""
        pairs = (each.partition("=") for each in self.body.decode("utf-8", "surrogateescape").split("\0") if each)
        return {name: value for name, _, value in pairs}


async def ask(handler: Any, request: Request | None = None, answer: Asked | None = None) -> Asked:
    """What a program answers; filled in as it comes."""
    answer = answer or Asked()
    response = await begin(handler, request or Request(variables()), answer)
    answer.status, answer.headers = response.status, dict(response.headers.items())

    async def send(data: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert isinstance(data, bytes)
        answer.body += data

    await response.body(send)
    return answer


async def begin(handler: Any, request: Request, answer: Asked | None = None) -> Any:
    """The Response to a request, whose body is still to be run."""
    request._carrier = _Log((answer or Asked()).log)  # type: ignore[assignment]
    response = await handler(request)
    assert isinstance(response, Response)
    assert callable(response.body)
    return response


class _Log:
    def __init__(self, lines: list[str]) -> None:
        self.log = lines.append

    async def run_sync(self, function: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(function, *args)


class Lifeline:
    """Knows whether any process of a program's is left: each holds the writing end of a pipe, if it begins so."""

    def __init__(self, folder: Path) -> None:
        path = folder / "lifeline"
        os.mkfifo(path)
        self._stream = PipeStream(os.open(path, os.O_RDONLY | os.O_NONBLOCK), None)
        self.begin = f"exec 9>'{path}'; echo alive >&9\n"

    async def started(self) -> None:
        assert await self._stream.receive(100) == b"alive\n"

    async def gone(self) -> None:
        while await self._stream.receive(100):
            pass

    def close(self) -> None:
        self._stream.close()
