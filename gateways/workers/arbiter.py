"""The arbiter: the process that starts workers, watches them and replaces them. It never parses a request.

gunicorn's, with another idea of four things. A worker counts once it says that it is ready: none is stopped before
another is. New code that does not start leaves the old workers at work. A worker that dies again and again is started
ever more slowly. The listening sockets are ours.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateways import Application, Limits, Listen, launch
from gateways._process import sd_notify
from gateways._process.life import has_terminal
from gateways._process.listeners import where
from gateways._process.scoreboard import Scoreboard
from gateways._process.sockets import open_sockets
from gateways.workers.settings import Companion, MissingGunicorn, Plan, Settings

if TYPE_CHECKING:

    class BaseArbiter:
        """The part of gunicorn's that is used here."""

        app: Any
        LISTENERS: list[Any]
        WORKERS: dict[int, Worker]
        SIG_QUEUE: queue.SimpleQueue[int]
        cfg: Any
        log: Any
        pid: int
        timeout: float
        worker_age: int
        num_workers: int

        def __init__(self, app: Any) -> None: ...
        def setup(self, app: Any) -> None: ...
        def init_signals(self) -> None: ...
        def run(self) -> None: ...
        def halt(self, reason: str | None = None, exit_status: int = 0) -> None: ...

    class BaseApplication:
        """The same."""

        cfg: Any

        def __init__(self) -> None: ...

    class HaltServer(Exception):
        """The same."""

        def __init__(self, reason: str, exit_status: int = 1) -> None: ...

else:
    try:
        from gunicorn.app.base import BaseApplication
        from gunicorn.arbiter import Arbiter as BaseArbiter
        from gunicorn.errors import HaltServer
    except ModuleNotFoundError as error:
        raise MissingGunicorn from error

from gateways.workers.worker import READY, REPLACE, STARTUP_FAILED, GatewayWorker

__all__ = ["Arbiter", "Worker", "run"]

#: Rows of the scoreboard: two generations may be at work, and TTIN adds workers.
_SLOTS = 256
#: Seconds between the beginnings of two reloads, at least: what is asked for in between is one.
_BETWEEN_RELOADS = 1.0
#: A worker that has been ready for no more seconds than this did not live.
_SHORT_LIFE = 1.0
#: Seconds after which the last death of a worker does not count any more.
_FORGIVEN = 10.0
#: Seconds between an abort and a kill.
_AFTER_ABORT = 1.0
#: Seconds that a worker has to cancel its requests, besides those for their last bytes.
_TO_CANCEL = 1.0
#: Where there are files that are on no disk (Linux).
_IN_MEMORY = "/dev/shm"
#: Seconds in which the operating system makes an end of a process that was killed.
_TO_DIE = 5.0

_SIGNALS_TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Worker(GatewayWorker):
    """A worker as the arbiter sees it, and what becomes of it after the fork."""

    generation = 0
    #: The arbiter's end of the line to it.
    line_end: socket.socket
    started_at = 0.0
    ready_at: float | None = None
    #: It was told to stop.
    retiring = False
    #: It has asked for another to take its place.
    expiring = False
    #: When it is killed if it is still there.
    kill_at = math.inf


class Arbiter(BaseArbiter):
    """gunicorn's arbiter, with our workers and sockets."""

    #: Seconds before the next attempt, each time that a worker came to its end before it was ready. After one attempt
    #: more than these, with no worker at work, it is given up.
    BACKOFF: Sequence[float] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0)

    def __init__(self, app: _Host) -> None:
        self._plan = app.plan
        self.WORKERS = {}
        self.generation = 1
        #: The newest generation of which a worker has been ready; 0 before the first.
        self._proven = 0
        self._newest = 1
        #: Workers are being started for the first time, or replaced by those of another generation.
        self._changing = True
        #: When the last reload began, and whether another was asked for meanwhile.
        self._changed_at = -math.inf
        self._asked_again = False
        #: Attempts in a row that came to nothing, and when the next may be made.
        self._misfires = 0
        self._short_lives = 0
        self._died_at = -math.inf
        self._not_before = 0.0
        self._announced = False
        self._terminal = has_terminal()
        self._stopping = False
        self._quick = False
        interval = sd_notify.watchdog_interval()
        self._watchdog = None if interval is None else interval / 2
        self._watchdog_at = 0.0
        former = os.environ.get("SERVER_SOFTWARE")
        super().__init__(app)
        # gunicorn names itself there. It would be a meta-variable of every program that is started from here.
        if former is None:
            os.environ.pop("SERVER_SOFTWARE", None)
        else:
            os.environ["SERVER_SOFTWARE"] = former
        self.LISTENERS = []  # gunicorn's kind of sockets; ours are in the plan

    def setup(self, app: Any) -> None:
        """Take the settings."""
        super().setup(app)
        self.timeout = self._plan.settings.timeout or 0.0

    def start(self) -> None:
        """Be ready to fork."""
        self.pid = os.getpid()
        self.init_signals()
        # A signal wakes the arbiter by a byte; its handler has put the number into the queue by then.
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    # --- waiting

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Sleep until there is something to do; the signals, each once however often it came."""
        now = time.monotonic()
        moments = [self._not_before, *(each.kill_at for each in self.WORKERS.values())]
        if self._watchdog is not None:
            moments.append(self._watchdog_at)
        if self._asked_again:
            moments.append(self._changed_at + _BETWEEN_RELOADS)
        timeout = min([timeout, *(moment - now for moment in moments if moment > now)])
        if any(each.kill_at <= now for each in self.WORKERS.values()):
            timeout = 0.0
        with selectors.PollSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for worker in self.WORKERS.values():
                if worker.line_end.fileno() >= 0:
                    selector.register(worker.line_end, selectors.EVENT_READ, worker)
            ready = selector.select(timeout)
        for key, _ in ready:
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            else:
                self._hear(key.data)
        signals: dict[int, None] = {}
        with contextlib.suppress(queue.Empty):
            while True:
                signals[self.SIG_QUEUE.get_nowait()] = None
        self._tell_watchdog()
        if self._plan.monitor is not None and not self._stopping:
            self._plan.monitor.check()
        return list(signals)

    def _hear(self, worker: Worker) -> None:
        """Read what a worker has to say."""
        if worker.line_end.fileno() < 0:
            return
        try:
            words = worker.line_end.recv(64)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            worker.line_end.close()  # it is gone, or about to: SIGCHLD tells
        if READY in words and worker.ready_at is None:
            self._is_ready(worker)
        if REPLACE in words:
            worker.expiring = True

    def _is_ready(self, worker: Worker) -> None:
        worker.ready_at = time.monotonic()
        self._misfires = 0
        self._not_before = 0.0
        if self._proven < worker.generation == self.generation:
            self._proven = worker.generation
        _log().info("worker %d is ready (generation %d)", worker.pid, worker.generation)

    def _tell_watchdog(self) -> None:
        now = time.monotonic()
        if self._watchdog is not None and now >= self._watchdog_at:
            self._watchdog_at = now + self._watchdog
            sd_notify.watchdog()

    # --- signals

    def handle_term(self) -> None:
        """Stop: what runs is answered."""
        raise StopIteration

    def handle_int(self) -> None:
        """The same, for it is what Ctrl-C sends."""
        raise StopIteration

    def handle_quit(self) -> None:
        """Stop, and cancel what runs."""
        self._quick = True
        raise StopIteration

    def handle_hup(self) -> None:
        """Replace the workers by new ones, which load the application anew; stop if it was the terminal that went."""
        if self._terminal and not has_terminal():
            raise StopIteration
        self._asked_again = True

    def handle_ttin(self) -> None:
        """One worker more."""
        self.num_workers += 1
        _log().info("%s from now on", self._how_many())

    def handle_ttou(self) -> None:
        """One worker fewer, but never none."""
        self.num_workers = max(1, self.num_workers - 1)
        _log().info("%s from now on", self._how_many())

    def handle_usr1(self) -> None:
        """Open the log files by their names again, here and in the workers."""
        from gateways.logs import reopen

        reopen()
        for worker in self.WORKERS.values():
            self._send(worker, signal.SIGUSR1)

    def handle_usr2(self) -> None:
        """Nothing: the arbiter itself is replaced by the service manager, which may keep its sockets."""
        _log().warning("SIGUSR2 has no meaning here; HUP loads new code")

    def handle_winch(self) -> None:
        """Nothing: terminals send it."""

    def handle_chld(self) -> None:
        """A process of ours has ended."""
        self.reap_workers()

    handle_cld = handle_chld

    # --- generations

    def _reload(self) -> None:
        self._newest += 1
        self.generation = self._newest
        self._changing = True
        self._changed_at = time.monotonic()
        self._asked_again = False
        self._not_before = 0.0
        self._misfires = 0
        _log().info("reloading: generation %d", self.generation)
        sd_notify.reloading("reloading")

    def _reload_failed(self) -> None:
        """The first worker of a generation did not become ready."""
        _log().error("generation %d does not start: generation %d goes on", self.generation, self._proven)
        self.generation = self._proven
        self._changing = False
        sd_notify.ready("the new code does not start; the former goes on")

    def _settle(self) -> None:
        """All workers that there should be are ready and of this generation."""
        if self._changing:
            self._changing = False
            text = f"{self._how_many()} of generation {self.generation}"
            sd_notify.ready(text)
            if not self._announced:
                self._announced = True
                self._plan.on_start(
                    [f"{each.address.partition(':')[0]}:{where(each.number)}" for each in self._plan.sockets.bound]
                )
            else:
                _log().info("reloaded: %s", text)

    def _how_many(self) -> str:
        return f"{self.num_workers} worker{'s' if self.num_workers > 1 else ''}"

    def manage_workers(self) -> None:
        """Have as many workers as there should be, of the newest code: start, replace, retire."""
        if self._stopping:
            return
        now = time.monotonic()
        # The change may have come after what is being started was read. Where that fails, there is nothing to wait for.
        may_reload = (not self._changing or self._misfires) and now - self._changed_at >= _BETWEEN_RELOADS
        if self._asked_again and may_reload:
            self._reload()
        staying = [each for each in self.WORKERS.values() if not each.retiring]
        wanted = [each for each in staying if each.generation >= self.generation and not each.expiring]
        ready = [each for each in staying if each.ready_at is not None]
        for worker in sorted(ready, key=lambda each: (each in wanted, each.age))[
            : max(0, len(ready) - self.num_workers)
        ]:
            self._retire(worker)
        if now >= self._not_before:
            starting = len(staying) - len(ready)
            missing = self.num_workers - len(staying)
            if missing > 0 and self._misfires:
                missing = 0 if starting else 1
            elif missing <= 0 and len(wanted) < self.num_workers and not starting:
                missing = 1  # to replace one that serves, once it is ready itself
            for _ in range(missing):
                self.spawn_worker()
        if all(each in ready for each in wanted) and len(wanted) == len(staying) == self.num_workers:
            self._settle()

    def spawn_worker(self) -> None:
        """Start a worker."""
        self.worker_age += 1
        try:
            worker = Worker(self.worker_age, self.pid, self.LISTENERS, self.app, self.timeout / 2, self.cfg, self.log)
            worker.line_end, worker._line = socket.socketpair()
        except OSError as error:  # no descriptor, no place for a temporary file
            self._could_not_spawn(error)
            return
        worker.line_end.setblocking(False)
        worker.generation = self.generation
        worker._slot = self._plan.board.take(self.generation)
        worker.started_at = time.monotonic()
        # A signal that came between the fork and the first steps of the child would be taken for one to the arbiter.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = -1
        try:
            pid = os.fork()
            if pid == 0:
                self._be(worker, mask)
        except OSError as error:  # there are too many processes, or too little memory
            worker.line_end.close()
            worker.tmp.close()
            self._plan.board.release(worker._slot)
            self._could_not_spawn(error)
        finally:
            if pid != 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                worker._line.close()
        if pid > 0:
            worker.pid = pid
            self.WORKERS[pid] = worker
            _log().debug("worker %d is started (generation %d)", pid, worker.generation)

    def _could_not_spawn(self, error: OSError) -> None:
        _log().error("cannot start a worker: %s", error.strerror)
        self._misfired()

    def _be(self, worker: Worker, mask: Iterable[int]) -> None:
        """In the child: be the worker. Never returns."""
        signal.set_wakeup_fd(-1)
        worker.pid = os.getpid()
        worker.init_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(self._woken)
        os.close(self._wake)
        worker.line_end.close()
        for sibling in self.WORKERS.values():
            sibling.tmp.close()
            sibling.line_end.close()
        if self._plan.monitor is not None:
            self._plan.monitor.forget()
        status = 1
        try:
            worker.init_process()
            status = 0
        except SystemExit as end:
            raise end
        except BaseException:
            _log().exception("worker %d failed", worker.pid)
        sys.exit(status)

    def _retire(self, worker: Worker) -> None:
        """Have a worker end, after what it has begun."""
        worker.retiring = True
        goodbye = self._plan.goodbye
        worker.kill_at = math.inf if goodbye is None else time.monotonic() + goodbye
        self._send(worker, signal.SIGTERM)

    def _send(self, worker: Worker, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, number)

    def _kill(self, worker: Worker) -> None:
        _log().error("worker %d is killed: it did not end in time", worker.pid)
        self._send(worker, signal.SIGKILL)

    def murder_workers(self) -> None:
        """Kill those that do not start up, do not turn or do not end in time."""
        now = time.monotonic()
        for worker in self.WORKERS.values():
            if now >= worker.kill_at:
                worker.kill_at = now + _TO_DIE
                self._kill(worker)
            elif self.timeout and not worker.aborted and self._is_late(worker, now):
                worker.aborted = True
                worker.kill_at = min(worker.kill_at, now + _AFTER_ABORT)
                self._send(worker, signal.SIGABRT)

    def _is_late(self, worker: Worker, now: float) -> bool:
        if worker.ready_at is None:
            late = now - worker.started_at > self.timeout
            what = "has not started up"
        else:
            late = now - worker.tmp.last_update() > self.timeout
            what = "has not been heard of"
        if late:
            _log().critical("worker %d %s for %g s", worker.pid, what, self.timeout)
        return late

    # --- the end of workers

    def reap_workers(self) -> None:
        """See which workers have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self.WORKERS.pop(pid, None)
            if worker is not None:  # else an orphan that was given to us, as the first process of a container
                self._bury(worker, status)

    def _bury(self, worker: Worker, status: int) -> None:
        self._hear(worker)  # it may have been ready for a moment
        worker.line_end.close()
        worker.tmp.close()
        self._plan.board.release(worker._slot)
        code = os.waitstatus_to_exitcode(status)
        if self._stopping or worker.retiring:
            _log().debug("worker %d has ended", worker.pid)
            return
        _log().error("worker %d %s", worker.pid, _how(code))
        if worker.ready_at is not None:
            self._died(worker.ready_at)
        elif self._proven == 0 and code in (2, STARTUP_FAILED, 4):
            # What is wrong has been said, and does not change by itself.
            raise HaltServer("a worker did not start", code)
        elif self._proven < worker.generation == self.generation and self._proven:
            self._reload_failed()
        elif worker.generation >= self.generation:
            self._misfired()

    def _died(self, ready_at: float) -> None:
        """A worker was at work and is dead: another at once, unless that happens all the time."""
        now = time.monotonic()
        if now - self._died_at > _FORGIVEN:
            self._short_lives = 0
        self._died_at = now
        if now - ready_at < _SHORT_LIFE:
            self._not_before = now + min(self.BACKOFF[0] * 2**self._short_lives, _SHORT_LIFE)
            self._short_lives += 1

    def _misfired(self) -> None:
        """A worker did not become ready: another, later and later."""
        now = time.monotonic()
        if self._misfires and now < self._not_before:
            return  # one of several that were started at once
        if self._misfires >= len(self.BACKOFF):
            if not any(each.ready_at is not None for each in self.WORKERS.values()):
                raise HaltServer(f"no worker has started, {self._misfires + 1} times in a row", STARTUP_FAILED)
            self._misfires -= 1
        pause = self.BACKOFF[self._misfires]
        self._misfires += 1
        self._not_before = now + pause
        _log().warning("the next worker is started in %g s", pause)

    # --- the end

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """Stop everything, and exit."""
        if reason is not None:
            _log().error("stopping: %s", reason)
            self._quick = True
        self.stop()
        sys.exit(exit_status)

    def stop(self, graceful: bool = True) -> None:
        """Have all workers end, and wait for that. Signals to stop that come meanwhile make it quick, then quicker."""
        self._stopping = True
        self._quick = self._quick or not graceful
        sd_notify.stopping("stopping")
        self._plan.sockets.release()
        goodbye = self._plan.goodbye
        deadline = time.monotonic() + (math.inf if goodbye is None else goodbye)
        for worker in self.WORKERS.values():
            worker.kill_at = math.inf
            self._send(worker, signal.SIGTERM)
        if self._quick:
            deadline = self._hurry()
        killed = False
        self.reap_workers()
        while self.WORKERS:
            now = time.monotonic()
            if now >= deadline:
                if killed:
                    return
                killed, deadline = True, now + _TO_DIE
                for worker in self.WORKERS.values():
                    self._kill(worker)
            for number in self.wait_for_signals(min(1.0, max(0.0, deadline - now))):
                if number in _SIGNALS_TO_STOP:
                    deadline = -math.inf if self._quick else self._hurry()
                elif number == signal.SIGUSR1:
                    self.handle_usr1()
            self.reap_workers()

    def _hurry(self) -> float:
        """Have the workers cancel what runs; when they must be gone."""
        self._quick = True
        for worker in self.WORKERS.values():
            # One that is still starting has no loop yet that could end anything.
            self._send(worker, signal.SIGQUIT if worker.ready_at is not None else signal.SIGKILL)
        return time.monotonic() + (self._plan.limits.goodbye_timeout or 0.0) + _TO_CANCEL


def _how(code: int) -> str:
    """How a process has ended."""
    if code >= 0:
        return f"has ended by itself, with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (was there too little memory?)" if code == -signal.SIGKILL else "")


def _log() -> logging.Logger:
    return logging.getLogger("gateways")


class _Log:
    """gunicorn's logger, without what it says in passing: what matters is said by us."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        log = _log()
        self.warning = log.warning
        self.error = log.error
        self.critical = log.critical
        self.exception = log.exception

    def setup(self, cfg: Any) -> None:
        """Nothing is configured by gunicorn's settings."""

    def debug(self, *arguments: Any, **settings: Any) -> None:
        """Not of interest."""

    info = access = log = debug

    def reopen_files(self) -> None:
        """Not by this."""

    close_on_exec = reopen_files


class _Host(BaseApplication):
    """What gunicorn calls an application: here its settings, which come from nowhere else."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        super().__init__()

    def load_config(self) -> None:
        """Take the plan for a configuration."""
        settings = self.plan.settings
        for name, value in {
            "workers": settings.workers,
            "worker_class": Worker,
            "logger_class": _Log,
            "max_requests": settings.max_requests or 0,
            "max_requests_jitter": settings.max_requests_jitter,
            "control_socket_disable": True,  # its thread would be there at the next fork
            # Whoever we are by now: gunicorn is not to change that.
            "user": os.geteuid(),
            "group": os.getegid(),
            "default_proc_name": "gateways",
            # The heartbeat is the time of a file there: a disk that is full or slow is not to kill workers.
            "worker_tmp_dir": _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None,
        }.items():
            self.cfg.set(name, value)


def run(
    load: Callable[[], Application],
    bind: str | Listen | Sequence[str | Listen],
    *,
    settings: Settings | None = None,
    limits: Limits | None = None,
    mount: str | None = None,
    quirks: str | Iterable[str] = "auto",
    board: Scoreboard | None = None,
    monitor: Companion | None = None,
    before_fork: Callable[[], object] | None = None,
    on_start: Callable[[list[str]], None] | None = None,
) -> int:
    """Be the whole program: serve an application with several processes, until a signal says stop.

    ``load`` imports the application and gives it; it is called in each worker, so that a worker that is started later
    has the code of that moment. ``bind`` is as in :func:`gateways.serve`; the sockets are opened once, here, and shared
    by all workers. ``before_fork`` is called once they are there, to give up rights. ``on_start`` is called with the
    addresses once all workers are ready.

    Call it in a process without threads and without an event loop. Signals: see the page on workers.

    Gives the exit status: 0 after a signal, 3 when no worker starts, or that of a worker that ended before any was
    ready. In the workers it never returns, but raises SystemExit.

    Errors: ValueError for an address that makes no sense, OSError for one that cannot be had.
    """
    wanted = launch.divide(bind)
    _import_for({protocol for protocol, _ in wanted})
    sockets = open_sockets(wanted)
    here = os.getpid()
    try:
        if before_fork is not None:
            before_fork()
        plan = Plan(
            load=load,
            sockets=sockets,
            settings=settings or Settings(),
            limits=limits or Limits(),
            mount=mount,
            quirks=quirks,
            board=board or Scoreboard(_SLOTS),
            monitor=monitor,
            on_start=on_start or (lambda addresses: None),
        )
        Arbiter(_Host(plan)).run()
    except SystemExit as end:
        if os.getpid() != here:
            raise
        return end.code if isinstance(end.code, int) else 1
    finally:
        if os.getpid() == here:
            sockets.release()
            if monitor is not None:
                monitor.stop()
    return 0


def _import_for(protocols: set[str]) -> None:
    """Import what the workers will need of this package: once for all, and of one version.

    Whoever installs another version while this one serves, and then reloads, would otherwise get workers of both.
    """
    for name in launch.protocols() if launch.ANY in protocols else protocols:
        import_module(f"gateways.{name}.transport")
    for name in ("_net.choosing", "asgi", "cgi", "cli.loading", "logs", "status", "wsgi"):
        import_module(f"gateways.{name}")
