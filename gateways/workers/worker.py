"""The worker: one process that serves, below an arbiter that starts, watches and stops it.

It serves under ours (``gateways serve --workers``) and under that of ``gunicorn -k``. Ours holds the other end of
``line``, a socket pair: what comes over it is told by single bytes, and its end tells either that the other is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import trio

from gateways import Application, Limits, Listen, Tally, launch, serve
from gateways._process.heartbeat import Heartbeat
from gateways._process.scoreboard import rss
from gateways.cli.interface import adapted
from gateways.cli.running import StartupFailed, starting, without_our_frames
from gateways.workers.settings import MissingGunicorn, Plan
from gateways.wsgi import from_wsgi

if TYPE_CHECKING:

    class BaseWorker:
        """The part of gunicorn's that is used here."""

        age: int
        pid: int
        ppid: int
        sockets: list[Any]
        app: Any
        cfg: Any
        log: Any
        tmp: Any
        aborted: bool
        booted: bool
        alive: bool
        max_requests: int

        def __init__(
            self, age: int, ppid: int, sockets: list[Any], app: Any, timeout: float, cfg: Any, log: Any
        ) -> None: ...
        def init_process(self) -> None: ...
        def notify(self) -> None: ...

else:
    try:
        from gunicorn.workers.base import Worker as BaseWorker
    except ModuleNotFoundError as error:
        raise MissingGunicorn from error

__all__ = ["READY", "REPLACE", "STARTUP_FAILED", "GatewayWorker"]

#: What a worker tells over its line: its listeners accept, and the application has started; another should take its
#: place.
READY, REPLACE = b"+", b"r"

STARTUP_FAILED = 3

#: How often a worker looks at itself.
_EVERY = 0.5
#: The loop is reported as blocked when this much of the time has passed after which the worker is killed.
_BEFORE_TIMEOUT = 0.7


class _Announcement:
    """A ``task_status`` that calls a function."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def started(self, value: list[str] | None = None) -> None:
        self._call()


class GatewayWorker(BaseWorker):
    """A gunicorn worker that serves FastCGI, SCGI or whatever else connections begin with.

    ``gunicorn -k gateways.workers.GatewayWorker app:app``. The application may be a handler, WSGI or ASGI.

    Of gunicorn's settings it follows ``bind``, ``timeout``, ``graceful_timeout``, ``max_requests`` with its jitter,
    ``worker_connections``, and ``threads`` (where that is above 1, for WSGI applications).
    """

    #: What is spoken on all sockets of ``gunicorn -b``. Subclasses say one protocol.
    protocol = "any"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._plan: Plan | None = getattr(self.app, "plan", None)
        #: Our end of the line to the arbiter; under that of gunicorn there is none.
        self._line: socket.socket | None = None
        self._slot: int | None = None
        self._tally = Tally()
        self._stop = trio.Event()
        self._state = "starting"
        self._leaving = False
        self._failure: Exception | None = None
        self._log = logging.getLogger("gateways")

    # --- what gunicorn calls

    def init_signals(self) -> None:
        """Forget the arbiter's signals. Until the event loop runs there is nothing that would have to be ended."""
        for name in ("HUP", "INT", "TERM", "USR1", "USR2", "WINCH", "CHLD", "TTIN", "TTOU"):
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
        signal.signal(signal.SIGQUIT, self._quit)  # it would dump a core
        signal.signal(signal.SIGABRT, self._abort)
        for name in ("HUP", "USR1", "USR2", "WINCH", "TTIN", "TTOU"):
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
        if self._line is not None:
            # Ctrl-C reaches all processes in the terminal: what is to become of the workers is for the arbiter to say.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        """Import the application."""
        if self._plan is None:
            self._join_logs()
        self._app = self._load()

    def run(self) -> None:
        """Serve until told to stop."""
        self._publish()
        try:
            trio.run(self._main)
            if self._failure is not None:
                raise self._failure
        except StartupFailed as failed:
            self._explain(failed.__cause__)
            self._log.error("%s did not start up", self._name)
            sys.exit(STARTUP_FAILED)
        self._state = "ended"
        self._publish()

    # --- what is served

    @property
    def _name(self) -> str:
        return f"worker {os.getpid()}"

    def _load(self) -> Application:
        if self._plan is not None:
            return self._plan.load()
        # gunicorn's own loader imports it, where gunicorn says it is.
        found = self.app.wsgi()
        app, interface = adapted(found, "the application", limits=self._limits)
        if interface == "wsgi":
            threads = {"threads": self.cfg.threads} if self.cfg.threads > 1 else {}
            app = from_wsgi(found, multiprocess=self.cfg.workers > 1, **threads)
        return app

    def _listen(self) -> list[Listen]:
        if self._plan is not None:
            listen = self._plan.sockets.to_serve()
            self._plan.sockets.release(files=False)  # the descriptors of this process; what it serves on are duplicates
            launch.open_standard_descriptors()  # one of them may have been the standard input
            return listen
        return [Listen(f"{self.protocol}:fd:{os.dup(each.fileno())}") for each in self.sockets]

    @property
    def _limits(self) -> Limits:
        if self._plan is not None:
            return self._plan.limits
        return Limits(
            # A little less than the arbiter waits: for the last bytes of those that are cancelled then.
            shutdown_grace=max(self.cfg.graceful_timeout - 2.0, self.cfg.graceful_timeout / 2, 0.1),
            max_connections=self.cfg.worker_connections,
        )

    async def _main(self) -> None:
        plan, limits = self._plan, self._limits
        numbers = [signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1]
        if self._line is None:
            numbers.append(signal.SIGINT)
        patience = limits.blocked_timeout
        if plan is not None and plan.settings.timeout is not None:
            patience = min(_BEFORE_TIMEOUT * plan.settings.timeout, patience or float("inf"))
        with trio.open_signal_receiver(*numbers) as signals:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._obey, signals)
                nursery.start_soon(Heartbeat(patience, self._log, on_beat=self.notify).run)
                nursery.start_soon(self._look_after_itself)
                if self._line is not None:
                    nursery.start_soon(self._wait_for_the_end_of, self._line)
                try:
                    await serve(
                        starting(self._app),
                        self._listen(),
                        limits=limits,
                        mount=None if plan is None else plan.mount,
                        quirks="auto" if plan is None else plan.quirks,
                        stop=self._stop,
                        tally=self._tally,
                        task_status=_Announcement(self._is_ready),
                    )
                except Exception as error:
                    self._failure = error
                nursery.cancel_scope.cancel()

    def _is_ready(self) -> None:
        """Connections are accepted."""
        self._state = "ready"
        self._publish()
        self._tell(READY)

    def _tell(self, word: bytes) -> None:
        if self._line is not None:
            try:
                self._line.send(word)
            except OSError:
                pass  # the arbiter is gone; another task sees to that

    # --- when to stop

    def _leave(self) -> None:
        """End what runs, and then the process."""
        if self._state == "starting":
            self._scope.cancel()  # there is nothing to finish yet
        else:
            self._state = "draining"
            self._publish()
        self._stop.set()

    def _make_room(self, reason: str) -> None:
        """Have another worker take the place of this one."""
        if self._leaving:
            return
        self._leaving = True
        self._log.info("%s %s: another takes its place", self._name, reason)
        if self._line is None:
            self._leave()
        else:
            self._tell(REPLACE)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                _reopen_logs(self)
            elif number == signal.SIGTERM:
                self._leave()
            else:
                self._scope.cancel()

    async def _wait_for_the_end_of(self, line: socket.socket) -> None:
        line.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(line)
            try:
                if line.recv(1):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            break
        self._log.error("%s: the arbiter is gone; ending what runs, and then this process", self._name)
        self._leave()

    async def _look_after_itself(self) -> None:
        most = None if self._plan is None else self._plan.settings.max_memory
        while True:
            self._publish()
            if self._line is None and os.getppid() != self.ppid and not self._stop.is_set():
                self._log.error("%s: the arbiter is gone; ending what runs, and then this process", self._name)
                self._leave()
            if sum(self._tally.answered) >= self.max_requests:
                self._make_room(f"has answered {sum(self._tally.answered)} requests")
            elif most is not None and (used := rss()) > most:
                self._make_room(f"uses {used} bytes of memory")
            await trio.sleep(_EVERY)

    def _join_logs(self) -> None:
        """Write where gunicorn writes, unless somebody has said otherwise."""
        access = self._log.getChild("access")
        if not self._log.handlers:
            self._log.handlers = self.log.error_log.handlers
            self._log.setLevel(self.log.error_log.level)
            self._log.propagate = False
        if not access.handlers:
            access.handlers = self.log.access_log.handlers
            access.setLevel(logging.INFO if self.cfg.accesslog else logging.WARNING)
            access.propagate = False

    def _publish(self) -> None:
        if self._plan is not None:
            self._plan.board.publish(self._slot, self._tally, self._state)

    def _quit(self, number: int, frame: FrameType | None) -> None:
        os._exit(0)

    def _abort(self, number: int, frame: FrameType | None) -> None:
        """The arbiter has missed our heartbeat: say where we are, and be gone."""
        where = "".join(traceback.format_stack(frame)).rstrip("\n")
        self._log.critical("%s: is stopped, for it does not answer; it is at\n%s", self._name, where)
        logging.shutdown()
        os._exit(1)

    def _explain(self, error: BaseException | None) -> None:
        if error is not None:
            sys.stderr.write("".join(traceback.format_exception(without_our_frames(error))))
            sys.stderr.flush()


def _reopen_logs(worker: GatewayWorker) -> None:
    from gateways.logs import reopen

    reopen()
    if worker._plan is None:
        worker.log.reopen_files()
