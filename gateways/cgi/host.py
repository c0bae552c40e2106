"""The web server's side of CGI on trio: handlers that run a program for each request.

RFC 3875 sections 3.4, 4, 6 and 7.2. Nothing that a client sends gets into the arguments of a program (section 4.4
would allow it; php-cgi took them for options, CVE-2012-1823), and of all files only the programs in a folder that the
caller names are ever run, none is ever shown.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from io import FileIO
from typing import cast

import attrs
import trio

from gateways._model.errors import Reject, RemoteProtocolError
from gateways._model.handler import Handler
from gateways._model.limits import Limits
from gateways._model.request import Request
from gateways._model.response import Response
from gateways._net.calling import Call, LineLog, Upload, accompany, measured, readable
from gateways._net.stream import Data, PipeStream
from gateways.cgi.wire import ClientConnection, program_environment

__all__ = ["directory", "script"]

_CHUNK = 65_536

#: Why a program cannot be started -> the status that says so; 502 for everything else.
_START_FAILURES = {
    errno.E2BIG: 431,  # Linux: 128 KiB for one variable
    errno.EAGAIN: 503,
    errno.EMFILE: 503,
    errno.ENFILE: 503,
    errno.ENOMEM: 503,
}

#: How the names of files end that editors, patch(1) and packages leave beside a program, which were executable too.
_LEFTOVERS = (b"~", b"#", b".bak", b".orig", b".old", b".rej", b".save", b".swp", b".dpkg-old", b".rpmsave")


def script(
    *command: str | os.PathLike[str],
    cwd: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    timeout: float | None = 60.0,
    max_programs: int = 128,
    pass_authorization: bool = False,
) -> Handler:
    """A handler that runs a CGI program for each request.

    ``command`` is the program and its arguments, always the same ones: ``script("cgi-bin/hello.cgi")``,
    ``script(sys.executable, "hello.py")``. It is resolved once, here. The last of them that names a file is the script
    proper: SCRIPT_FILENAME, and in whose directory it runs unless ``cwd`` says otherwise. ``environ`` are variables
    for the program besides PATH, the locale and those of the request, and have the last word.

    A program may be silent for ``timeout`` seconds, waiting for the client not counted; then it is answered for with
    504 if it has not begun, and the answer breaks off if it has. Once either the program or its stdout has ended, the
    other has to follow within ``limits.goodbye_timeout``: a daemon that keeps stdout open does not keep the client.
    ``max_programs`` run at a time; further requests wait for their turn, and are answered with 503 after ``timeout``.
    The client's Authorization field is kept from programs unless ``pass_authorization`` is true.

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
    )
    host = _Host(limits, timeout, max_programs, pass_authorization)

    async def handler(request: Request) -> Response:
        return await host.run(program, request)

    return handler


def directory(
    folder: str | os.PathLike[str],
    *,
    document_root: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    timeout: float | None = 60.0,
    max_programs: int = 128,
    pass_authorization: bool = False,
) -> Handler:
    """A handler that runs the CGI programs in a folder, and in the folders below it: ``directory("cgi-bin")``.

    The path of a request leads to the program: with the folder mounted at "/cgi-bin", "/cgi-bin/sub/hello.cgi/x" runs
    sub/hello.cgi with "/cgi-bin/sub/hello.cgi" as SCRIPT_NAME and "/x" as PATH_INFO. A program is a regular file that
    this process may execute, in any language. Everything else is a 404, and no file is ever shown: what is not
    executable, a folder, hidden files, the copies that editors leave (hello.cgi~), and whatever lies outside the
    folder, also by a symbolic link. The folder is resolved once, here; its programs may come and go.

    With a ``document_root`` programs are told it as DOCUMENT_ROOT, and the file there that PATH_INFO stands for as
    PATH_TRANSLATED. The other arguments are those of :func:`script`, and so is what happens to a program.

    Raises ValueError for what is not a folder.
    """
    root = os.path.realpath(os.fsencode(folder))
    if not os.path.isdir(root):
        raise ValueError(f"not a folder: {os.fspath(folder)!r}")
    documents = None if document_root is None else _text(os.path.realpath(os.fsencode(document_root)))
    host = _Host(limits, timeout, max_programs, pass_authorization)

    async def handler(request: Request) -> Response:
        # In a thread: a file system may be slow.
        found = await request.run_sync(_program_in, root, request.path_info)
        if isinstance(found, str):
            request.log(found)
            raise Reject(404)
        if found is None or (inner := request.mounted(found.path)) is None:
            raise Reject(404)
        own = {"SCRIPT_FILENAME": _text(found.file)}
        if documents is not None:
            own["DOCUMENT_ROOT"] = documents
            # A program may read the file: with ".." in it that would be any file there is.
            if inner.path_info and ".." not in inner.path_info.split("/"):
                own["PATH_TRANSLATED"] = documents.rstrip("/") + inner.path_info
        file = os.fsdecode(found.file)
        return await host.run(_Program([file], os.path.dirname(file), {**own, **(environ or {})}), inner)

    return handler


# --- which program -----------------------------------------------------------------------------------------------


def _find(program: str) -> str:
    """The path of a program: as it is where there is such a file, else searched in PATH, as a shell does."""
    found = None if os.sep in program or os.path.isfile(program) else shutil.which(program)
    return os.path.abspath(found or program)


@attrs.frozen
class _Found:
    """A program, by the front of a request's path and by the name of its file, symbolic links resolved."""

    path: str
    file: bytes


def _program_in(root: bytes, path: str) -> _Found | str | None:
    """The program in a folder that the front of a path leads to; None, or what to write in the log, if there is none.

    The path is decoded already, once, and its segments are names as they are: never joined from parts that hold a
    slash, never normalised, never looked at in another case.
    """
    first, *segments = path.split("/")
    if first or "\0" in path:
        return None
    file = root
    for number, segment in enumerate(segments, 1):
        name = segment.encode("utf-8", "surrogateescape")
        # "." and ".." are among the hidden ones.
        if not name or name.startswith(b".") or name.endswith(_LEFTOVERS):
            return None
        file = os.path.join(file, name)
        try:
            mode = os.stat(file).st_mode
        except OSError:
            return None
        if not stat.S_ISDIR(mode):
            return _checked(root, file, mode, "/" + "/".join(segments[:number]))
    return None


def _checked(root: bytes, file: bytes, mode: int, path: str) -> _Found | str:
    """A file in the folder as a program, or why it is none."""
    real = os.path.realpath(file)
    if not real.startswith(root.rstrip(b"/") + b"/"):
        return f"{path} is not run: it lies outside of {_text(root)}"
    if not stat.S_ISREG(mode) or not os.access(real, os.X_OK):
        return f"{path} is not run: it is no executable file"
    return _Found(path, real)


def _text(path: bytes) -> str:
    """The name of a file as the environment holds text."""
    return path.decode("utf-8", "surrogateescape")


# --- running it --------------------------------------------------------------------------------------------------


@attrs.frozen
class _Program:
    """What is run for a request."""

    command: Sequence[str]
    cwd: str
    environ: Mapping[str, str]


class _Host:
    """How programs are run: the same for every request."""

    def __init__(
        self, limits: Limits | None, timeout: float | None, max_programs: int, pass_authorization: bool
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout takes seconds above 0, or None for no deadline, not {timeout!r}")
        if max_programs < 1:
            raise ValueError(f"max_programs takes a whole number above 0, not {max_programs!r}")
        self._limits = limits or Limits()
        self._timeout = float("inf") if timeout is None else timeout
        self._room = trio.CapacityLimiter(max_programs)
        self._pass_authorization = pass_authorization

    async def run(self, program: _Program, request: Request) -> Response:
        """Start a program for a request and wait for the head of its answer."""
        limits = self._limits
        # RFC 3875 section 4.2: a program reads CONTENT_LENGTH bytes, and need not look for the end of stdin.
        environ, body = await measured(request.environ, request.body, limits.max_read)
        variables = program_environment(environ, os.environ, pass_authorization=self._pass_authorization)
        variables.update(program.environ)
        connection = ClientConnection(limits=limits)
        connection.send_request(0, variables, role=request.role)
        with contextlib.ExitStack() as leaving:
            await self._enter(leaving)
            process, stdio, stderr = await _start(program, variables)
            leave = leaving.pop_all()
        log = LineLog(request.log, limits.max_stderr)
        stream = _ProgramStream(stdio, process, connection, self._timeout, limits.goodbye_timeout, log)
        upload = Upload(readable(body), partial(connection.send_body, 0), partial(connection.end_body, 0))
        call = Call(stream, connection, [upload], limits=limits, log=request.log, half_close=True)
        run = _Run(stream, stderr, call, log, leave)
        await run.start()
        return run.response()

    async def _enter(self, leaving: contextlib.ExitStack) -> None:
        """Wait until another program may run; ``leaving`` makes room for the next."""
        token = object()
        with trio.move_on_after(self._timeout):
            await self._room.acquire_on_behalf_of(token)
            leaving.callback(self._room.release_on_behalf_of, token)
            return
        most = int(self._room.total_tokens)
        raise RemoteProtocolError(f"{most} programs run already, and none has ended in time", status=503)


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
            raise _cannot_run(program.command[0], error) from error
        ours.pop_all()
    return process, (from_stdout, to_stdin), PipeStream(from_stderr, None)


def _cannot_run(file: str, error: OSError) -> RemoteProtocolError:
    reason = error.strerror
    if error.errno == errno.ENOENT and os.path.exists(file):
        reason = "the interpreter that its first line names is not there"
    elif error.errno == errno.ENOEXEC:
        reason = "it is no program, and no script with a #! line"
    return RemoteProtocolError(f"cannot run {file}: {reason}", status=_START_FAILURES.get(error.errno or 0, 502))


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed by whoever they belong to."""
    reading, writing = os.pipe()
    reader.callback(os.close, reading)
    writer.callback(os.close, writing)
    return reading, writing


class _ProgramStream(PipeStream):
    """stdout and stdin of a program, under a clock that runs while the program has to act.

    It ends when stdout and the program have ended, whose status the protocol gets. When only one of them has, the other
    gets ``goodbye`` seconds to follow.
    """

    __slots__ = ("_connection", "_ended", "_exit", "_goodbye", "_its_turn", "_log", "_process", "_reaped", "_timeout",
                 "_waiting")  # fmt: skip

    def __init__(
        self,
        stdio: tuple[int, int],
        process: trio.Process,
        connection: ClientConnection,
        timeout: float,
        goodbye: float | None,
        log: LineLog,
    ) -> None:
        super().__init__(*stdio)
        self._process = process
        self._connection = connection
        self._timeout = timeout
        self._goodbye = float("inf") if goodbye is None else goodbye
        self._log = log
        self._exit = _exit_of(process.pid)
        # The program is over.
        self._ended = False
        # It is over and reaped. Its number may be anybody's then: no more signals.
        self._reaped = False
        # Whether the next step is the program's: to read from stdin, or to answer once it has all of that.
        self._its_turn = False
        self._waiting: trio.CancelScope | None = None

    async def watch(self) -> None:
        """Note the end of the program, without reaping it; to run while anybody receives."""
        if self._exit is not None:
            await trio.lowlevel.wait_readable(self._exit)
            self._ended = True
            self._wind()

    async def receive(self, max_bytes: int) -> bytes:
        data: bytes | None = None
        with trio.CancelScope() as self._waiting:
            self._wind()
            data = await super().receive(max_bytes)
        late, self._waiting = self._waiting.cancelled_caught, None
        if late and (data := self.receive_nowait(max_bytes)) is None:
            self._end_leftovers()
        if not data:
            self._connection.exited(await self._status())
        return data or b""

    def _end_leftovers(self) -> None:
        """Nothing comes any more: from a program that has ended, because others keep its stdout open. Raises for one
        that has not."""
        if not self._ended and self._process.poll() is None:
            raise RemoteProtocolError(f"the program was silent for {self._timeout:g} seconds", status=504)
        self._signal(signal.SIGKILL)
        self._log.write(b"the program has ended, but what it started keeps its stdout open; that is ended too\n")

    async def _status(self) -> int:
        """The exit status of the program, which has said all that it will be heard to say."""
        with trio.move_on_after(self._goodbye):
            status = await self._process.wait()
            self._reaped = True
            return status
        self._log.write(b"the program has closed its stdout and runs on; it is ended\n")
        return 0

    async def send_some(self, data: Data) -> int:
        self._pass_turn(True)
        sent = 0
        try:
            sent = await super().send_some(data)
        finally:
            self._pass_turn(sent < 0)
        return sent

    def end_writing(self) -> None:
        super().end_writing()
        self._pass_turn(True)

    def _pass_turn(self, its_turn: bool) -> None:
        self._its_turn = its_turn
        self._wind()

    def _wind(self) -> None:
        """Start the clock anew, or stop it, if anybody waits for the program."""
        if self._waiting is not None:
            seconds = self._goodbye if self._ended else self._timeout if self._its_turn else float("inf")
            self._waiting.deadline = trio.current_time() + seconds

    async def stop(self) -> None:
        """End the program and its process group if it still runs: SIGTERM, and SIGKILL a while later."""
        self.close()
        if not self._reaped:
            with trio.CancelScope(shield=True):
                self._signal(signal.SIGTERM)
                with trio.move_on_after(self._goodbye):
                    await self._process.wait()
                self._signal(signal.SIGKILL)  # also what it has left behind in its group
                with trio.move_on_after(self._goodbye):
                    await self._process.wait()
            self._reaped = True
        if self._exit is not None:
            self._exit.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _exit_of(pid: int) -> FileIO | None:
    """A file that becomes readable at the end of a child, which is not reaped by that; None where there is no such."""
    with contextlib.suppress(AttributeError, OSError):  # only Linux has it, and some sandboxes forbid it
        return FileIO(os.pidfd_open(pid))
    return None


class _Run:
    """One run of a program, and the push body of its answer: while anything of it runs, its stderr is read too."""

    def __init__(
        self,
        stream: _ProgramStream,
        stderr: PipeStream,
        call: Call,
        log: LineLog,
        leave: contextlib.ExitStack,
    ) -> None:
        self._stream = stream
        self._stderr = stderr
        self._call = call
        self._log = log
        self._leave = leave

    async def start(self) -> None:
        """Wait for the head of the answer."""
        await self._attended(partial(self._call.start, b""))

    def response(self) -> Response:
        """The answer as a handler gives it back."""
        answer = self._call.response()
        return Response(self, answer.status, answer.headers)

    async def __call__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        await self._attended(partial(self._call, send))
        await self._stop()

    async def aclose(self) -> None:
        """Do without the rest of the answer: the program gets a while to end by itself."""
        await self._attended(self._call.aclose)
        await self._stop()

    async def _attended(self, main: Callable[[], Awaitable[None]]) -> None:
        try:
            await accompany(partial(accompany, main, self._read_stderr), self._stream.watch)
        except BaseException:
            await self._stop()
            raise

    async def _read_stderr(self) -> None:
        # To its end, also beyond what is logged: a program must not hang on a full pipe.
        while data := await self._stderr.receive(_CHUNK):
            self._log.write(data)

    async def _stop(self) -> None:
        """End the program if it still runs, and log what it has said and nobody has read yet."""
        try:
            await self._stream.stop()
        finally:
            self._leave.close()
        # As much as a pipe holds, once: what has left the process group may go on writing for ever.
        self._log.write(self._stderr.receive_nowait(_CHUNK) or b"")
        self._log.flush()
        self._stderr.close()
