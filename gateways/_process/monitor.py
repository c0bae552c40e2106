"""A small HTTP server for those who watch: in a thread of the one process, or in a process beside the workers.

Either answers although no handler can: a loop that is blocked blocks neither. It serves one WSGI application, one
request for each connection, to a few clients at a time, none of which may take long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from gateways._net.address import Listen, Listener, parse
from gateways._process.listeners import open_before_fork

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["Listener", "Monitor", "Thread", "bind"]

#: Clients at a time, and seconds that one may take from its connection to the end of its answer.
_CLIENTS = 16
_PATIENCE = 5.0
#: Seconds between two looks at slow clients and at the manager, and between two attempts to stay alive.
_EVERY = 0.2
_PAUSE = 1.0


def bind(address: str, *, allow_public: bool = False, mode: int = 0o660, group: str | int | None = None) -> Listener:
    """Listen on "unix:/path" or "host:port". To be called where no event loop runs, and before any fork.

    A name that stands for several addresses is taken for the first. Errors: ValueError for what is no address,
    BindError for one that cannot be had, and for one that other machines can reach unless ``allow_public``.
    """
    if parse(address).kind not in ("tcp", "unix"):
        raise ValueError(f"not an address to watch from: {address!r}; write unix:/path, host:port or [v6]:port")
    first, *others = open_before_fork(Listen(address, mode=mode, group=group, allow_public=allow_public))
    for listener in others:
        listener.close()
    return first


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE  # of a single wait

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever watches does so every few seconds."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread for each client, a few at a time."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, application: WSGIApplication) -> None:
        super().__init__(("localhost", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()
        self.set_app(application)
        #: The clients, and when each has to be done.
        self._clients: dict[socket.socket, float] = {}

    def get_request(self) -> tuple[socket.socket, Any]:
        connected, _ = self.socket.accept()
        # wsgiref wants a file of it, which those of a Listener do not have, and knows no peers without an address, as
        # those of unix sockets are.
        return socket.socket(fileno=connected.detach()), ("", 0)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if len(self._clients) >= _CLIENTS:
            return False
        self._clients[request] = time.monotonic() + _PATIENCE
        return True

    def shutdown_request(self, request: Any) -> None:
        self._clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called again and again: break off those who take too long."""
        now = time.monotonic()
        for client, due in list(self._clients.items()):
            if now > due:
                with contextlib.suppress(OSError):  # it has just come to its end
                    client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that has gone away."""


class Thread:
    """The server in a thread of this process, until it is closed."""

    def __init__(self, listener: Listener, application: WSGIApplication) -> None:
        self._server = _Server(listener.socket, application)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[_EVERY], name="gateways metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more. The listener is closed by whoever made it."""
        self._server.shutdown()
        self._thread.join()


class _ForProcess(_Server):
    """The server of a process that has no purpose without the one that manages the workers."""

    manager = 0

    def service_actions(self) -> None:
        if os.getppid() != self.manager:
            os._exit(0)
        super().service_actions()


class Monitor:
    """The server in a process of its own, a child of the one that manages the workers and has no threads.

    ``in_child`` is called there first, to give up privileges for example. The manager calls :meth:`check` about once
    a second and :meth:`stop` in the end; every other child that it forks calls :meth:`forget`.

    A signal to all processes of the service does not end it: it goes on while the workers drain, and ends with the
    manager, however that ends.
    """

    def __init__(
        self, listener: Listener, application: WSGIApplication, *, in_child: Callable[[], object] | None = None
    ) -> None:
        self._listener = listener
        self._application = application
        self._in_child = in_child
        self._started = 0.0
        self.pid = 0
        self._start()

    def check(self) -> None:
        """Have it run again if it has died, at most once a second."""
        if self._is_gone() and time.monotonic() - self._started >= _PAUSE:
            self._start()

    def stop(self) -> None:
        """End it, and stop listening."""
        if not self._is_gone():
            os.kill(self.pid, signal.SIGKILL)  # it has nothing to lose
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self._listener.close()

    def forget(self) -> None:
        """In a child of the manager: let go of what is the manager's, for the child may outlive it."""
        self._listener.socket.close()

    def _is_gone(self) -> bool:
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True  # somebody has waited for every child

    def _start(self) -> None:
        manager = os.getpid()
        self._started = time.monotonic()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            self._run(manager)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # nothing of the manager's is to be cleaned up by its child

    def _run(self, manager: int) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
        _let_go_of_descriptors(self._listener.socket.fileno())
        if self._in_child is not None:
            self._in_child()
        server = _ForProcess(self._listener.socket, self._application)
        server.manager = manager
        server.serve_forever(_EVERY)


def _let_go_of_descriptors(ours: int) -> None:
    """Hold none of the manager's sockets open: a connection that is made to one would never be accepted.

    Their numbers stay in use, because objects that were forked with us still know them.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):
        number = int(name)
        if number > 2 and number not in (ours, nothing):
            with contextlib.suppress(OSError):  # the one that the list was read from is closed again
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)
