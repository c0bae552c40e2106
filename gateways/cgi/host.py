"""The web server's side of CGI on trio: a handler that runs a program for each request.

RFC 3875 sections 3.4, 4, 6 and 7.2. Nothing that a client sends gets into the arguments of the program (section 4.4
would allow it; php-cgi took them for options, CVE-2012-1823) or chooses which program runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import cast

import attrs
import trio

from gateways._model.errors import RemoteProtocolError
from gateways._model.handler import Handler
from gateways._model.limits import Limits
from gateways._model.request import Request
from gateways._model.response import Response
from gateways._net.calling import Call, LineLog, Upload, accompany, measured, readable
from gateways._net.stream import PipeStream
from gateways.cgi.wire import ClientConnection, program_environment

__all__ = ["script"]

_CHUNK = 65_536

#: Why a program cannot be started -> the status that says so; 502 for everything else.
_START_FAILURES = {
    errno.E2BIG: 431,  # Linux: 128 KiB for one variable
    errno.EAGAIN: 503,
    errno.EMFILE: 503,
    errno.ENFILE: 503,
    errno.ENOMEM: 503,
}


def script(
    *command: str | os.PathLike[str],
    cwd: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Handler:
    """A handler that runs a CGI program for each request.

    ``command`` is the program and its arguments, always the same ones: ``script("cgi-bin/hello.cgi")``,
    ``script(sys.executable, "hello.py")``. It is resolved once, here. The last of them that names a file is the script
    proper: SCRIPT_FILENAME, and in whose directory it runs unless ``cwd`` says otherwise. ``environ`` are variables
    for the program besides PATH, the locale and those of the request, and have the last word.

    Raises ValueError without a command. What the handler raises is answered by itself: 502 for a program that cannot
    be started or ends badly before the head of its answer; after that the answer breaks off.

    Cancellation: the program and all that it started in its process group get SIGTERM, and SIGKILL after
    ``limits.goodbye_timeout``.
    """
    if not command:
        raise ValueError("script() wants a program to run")
    parts = [os.fspath(part) for part in command]
    parts[0] = _find(parts[0])
    # The arguments of an interpreter come before the script.
    at = max((number for number, part in enumerate(parts) if os.path.isfile(part)), default=0)
    file = parts[at] = os.path.abspath(parts[at])
    program = _Program(
        command=parts,
        cwd=os.path.abspath(os.path.dirname(file) if cwd is None else cwd),
        environ={"SCRIPT_FILENAME": file, **(environ or {})},
        limits=limits or Limits(),
    )

    async def handler(request: Request) -> Response:
        return await _answer(program, request)

    return handler


def _find(program: str) -> str:
    """The path of a program: as it is where there is such a file, else searched in PATH, as a shell does."""
    found = None if os.sep in program or os.path.isfile(program) else shutil.which(program)
    return os.path.abspath(found or program)


@attrs.frozen
class _Program:
    """What is run, and how: the same for every request."""

    command: Sequence[str]
    cwd: str
    environ: Mapping[str, str]
    limits: Limits


async def _answer(program: _Program, request: Request) -> Response:
    limits = program.limits
    # RFC 3875 section 4.2: a program reads CONTENT_LENGTH bytes, and need not look for the end of stdin.
    environ, body = await measured(request.environ, request.body, limits.max_read)
    connection = ClientConnection(limits=limits)
    variables = {**program_environment(environ, os.environ), **program.environ}
    connection.send_request(0, variables, role=request.role)
    process, stdio, stderr = await _start(program, variables)
    stream = _ProgramStream(stdio, process, connection)
    upload = Upload(readable(body), partial(connection.send_body, 0), partial(connection.end_body, 0))
    call = Call(stream, connection, [upload], limits=limits, log=request.log, half_close=True)
    run = _Run(stream, stderr, call, limits, request.log)
    await run.start()
    return run.response()


async def _start(program: _Program, variables: Mapping[str, str]) -> tuple[trio.Process, tuple[int, int], PipeStream]:
    """Start a program in a session of its own: the process, the ends of its stdout and stdin, and its stderr.

    Raises RemoteProtocolError when that is not possible.
    """
    # As bytes, so that the text law holds in every locale; subprocess takes them.
    encoded = {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in variables.items()
    }
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        try:
            stdin, to_stdin = _pipe(theirs, ours)
            from_stdout, stdout = _pipe(ours, theirs)
            from_stderr, stderr = _pipe(ours, theirs)
            process = await trio.lowlevel.open_process(
                program.command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=program.cwd,
                env=cast("Mapping[str, str]", encoded),
                start_new_session=True,
            )
        except OSError as error:
            reason = f"cannot run {program.command[0]}: {error.strerror}"
            raise RemoteProtocolError(reason, status=_START_FAILURES.get(error.errno or 0, 502)) from error
        ours.pop_all()
    return process, (from_stdout, to_stdin), PipeStream(from_stderr, None)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed by whoever they belong to."""
    reading, writing = os.pipe()
    reader.callback(os.close, reading)
    writer.callback(os.close, writing)
    return reading, writing


class _ProgramStream(PipeStream):
    """stdout and stdin of a program. It ends when stdout and the program have ended, whose status the protocol gets."""

    __slots__ = ("_connection", "_process", "_reaped")

    def __init__(self, stdio: tuple[int, int], process: trio.Process, connection: ClientConnection) -> None:
        super().__init__(*stdio)
        self._process = process
        self._connection = connection
        # Once it is reaped, its number may be anybody's: no more signals then.
        self._reaped = False

    async def receive(self, max_bytes: int) -> bytes:
        data = await super().receive(max_bytes)
        if not data:
            status = await self._process.wait()
            self._reaped = True
            self._connection.exited(status)
        return data

    async def stop(self, grace: float | None) -> None:
        """End the program and its process group if it still runs: SIGTERM, and SIGKILL after ``grace`` seconds."""
        self.close()
        if self._reaped:
            return
        seconds = float("inf") if grace is None else grace
        with trio.CancelScope(shield=True):
            self._signal(signal.SIGTERM)
            with trio.move_on_after(seconds):
                await self._process.wait()
            self._signal(signal.SIGKILL)  # also what it has left behind in its group
            with trio.move_on_after(seconds):
                await self._process.wait()
        self._reaped = True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class _Run:
    """One run of a program, and the push body of its answer: while anything of it runs, its stderr is read too."""

    def __init__(
        self, stream: _ProgramStream, stderr: PipeStream, call: Call, limits: Limits, log: Callable[[str], None]
    ) -> None:
        self._stream = stream
        self._stderr = stderr
        self._call = call
        self._limits = limits
        self._log = LineLog(log, limits.max_stderr)

    async def start(self) -> None:
        """Wait for the head of the answer."""
        await self._beside_stderr(partial(self._call.start, b""))

    def response(self) -> Response:
        """The answer as a handler gives it back."""
        answer = self._call.response()
        return Response(self, answer.status, answer.headers)

    async def __call__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        await self._beside_stderr(partial(self._call, send))
        await self._stop()

    async def aclose(self) -> None:
        """Do without the rest of the answer: the program gets a while to end by itself."""
        await self._beside_stderr(self._call.aclose)
        await self._stop()

    async def _beside_stderr(self, main: Callable[[], Awaitable[None]]) -> None:
        try:
            await accompany(main, self._read_stderr)
        except BaseException:
            await self._stop()
            raise

    async def _read_stderr(self) -> None:
        # To its end, also beyond what is logged: a program must not hang on a full pipe.
        while data := await self._stderr.receive(_CHUNK):
            self._log.write(data)

    async def _stop(self) -> None:
        """End the program if it still runs, and log what it has said and nobody has read yet."""
        await self._stream.stop(self._limits.goodbye_timeout)
        while data := self._stderr.receive_nowait(_CHUNK):
            self._log.write(data)
        self._log.flush()
        self._stderr.close()
