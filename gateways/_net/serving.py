"""Serving: listeners, the accept loop, the one task that watches every deadline, and the end of it all."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Iterable, Sequence
from typing import Any
from typing import Protocol as TypingProtocol

import attrs
import trio

from gateways._model.advice import front_end, look
from gateways._model.environ import Rules
from gateways._model.errors import Reject
from gateways._model.handler import Application, Roles, Started
from gateways._model.limits import Limits
from gateways._model.quirks import REPAIRS
from gateways._model.request import Request
from gateways._model.response import Response
from gateways._net.access import AccessLog
from gateways._net.address import Listen, Listener, open_listeners, peer_of, user_number
from gateways._net.connection import Connection
from gateways._net.crew import Crew, LoneCrew, SharedCrew
from gateways._net.exchange import Exchange
from gateways._net.lines import printable
from gateways._net.stream import AnyStream, SocketStream, TrioStream
from gateways._net.tally import Tally
from gateways.events import RequestReceived, ServerConnection

__all__ = ["Protocol", "Service", "serve", "serve_stream"]

#: Seconds for which a kept connection must have been idle to be closed by us. A web server that hands it a request just
#: then loses that: what tells it of the end is its next look at the connection. It uses first what it used last, so one
#: that has been left alone for so long is hardly about to be used.
QUIET = 1.0

#: A configuration shows in the first requests of a listener, or hardly at all.
EXAMINED = 20
#: The level of the log for advice, by how bad it is.
_LEVELS = {"wrong": logging.WARNING, "risk": logging.WARNING, "check": logging.INFO, "hint": logging.DEBUG}

#: accept(2): that one connection is lost, the next may be fine.
_LOST = (errno.ECONNABORTED, errno.EPERM)


class Connect(TypingProtocol):
    """How a protocol makes its sans-IO connection for a stream."""

    def __call__(
        self, stream: AnyStream, *, limits: Limits, roles: Sequence[str], strict: bool
    ) -> ServerConnection: ...


@attrs.frozen
class Protocol:
    """What the driver has to know of a protocol: its name, how to make a connection of it, and the bytes that its
    connections can begin with, where they tell it from others.
    """

    name: str
    connect: Connect
    first_bytes: frozenset[int] = frozenset()


async def _not_started(request: Request) -> Response:
    raise Reject(503)


class _Door:
    """A listener as the leader of a crew sees it: accepts one connection each time it is ready.

    The next one not before this one has its answer, or waits: behind a handler that blocks they would wait here, while
    another process has nothing to do.

    ``shut`` is set when that cannot go on: there are enough connections, or there was ``trouble``.
    """

    def __init__(self, service: Service, listener: Listener, crew: Crew) -> None:
        self.shut = trio.Event()
        self.trouble = ""
        self._service = service
        self._listener = listener
        self._crew = crew
        crew.watch(self)

    def fileno(self) -> int:
        return self._listener.socket.fileno()

    def close(self) -> None:
        """Accept no more."""
        if not self.shut.is_set():
            self.shut.set()
            self._crew.unwatch(self)

    def read(self) -> None:
        if self._service.room <= 0:
            self.trouble = f"{len(self._service.connections)} are open (max_connections)"
            self.close()
            return
        try:
            connected, peer = self._listener.socket.accept()
        except BlockingIOError:
            pass  # another process, or the peer's second thoughts, were faster
        except OSError as error:
            if error.errno not in _LOST:
                self.trouble = error.strerror or str(error)
                self.close()
        else:
            self._service.welcome(connected, peer, self._crew)
            self._crew.read_again(self)


class Service:
    """One listener's worth of serving: the handler, the rules and the connections."""

    def __init__(
        self,
        protocol: Protocol,
        listen: Listen,
        *,
        limits: Limits,
        mount: str | None,
        quirks: str | Iterable[str],
        log: logging.Logger | None,
        tally: Tally | None = None,
    ) -> None:
        self.protocol = protocol
        self.tally = tally or Tally()
        self.listen = listen
        #: Where that is, for the log: as asked for, then as bound.
        self.where = listen.address
        #: Whom requests go to: set once the application has started.
        self.roles = Roles(_not_started)
        self.limits = limits
        self.rules = Rules(
            quirks=quirks,
            mount=mount,
            trust_remote_user=listen.trust_remote_user,
            trust_forwarded=listen.trust_forwarded,
        )
        self.log = log or logging.getLogger("gateways")
        self.access = AccessLog(self.log.getChild("access"))
        self.doctor = self.log.getChild("doctor")
        users = listen.allow_users
        self._allowed_users = None if users is None else {user_number(user) for user in users}
        self.connections: set[Connection] = set()
        self._crew: Crew | None = None
        self.draining = False
        #: Seconds that a kept connection may be idle.
        self.patience = float("inf") if limits.idle_timeout is None else limits.idle_timeout
        self._wanting_fewer = trio.lowlevel.ParkingLot()
        self._noted: set[str] = set()
        #: How many requests more are looked at for what their web server gets wrong. Our own front end gets it right.
        self.unexamined = 0 if protocol.name == "http" else EXAMINED
        self._complaints = 0
        self._complaining_since = float("-inf")
        #: Those whose handlers go on although their answers have ended.
        self.trailing: set[Exchange] = set()

    # --- streams

    def start(self, stream: AnyStream, nursery: trio.Nursery) -> None:
        """Serve a stream in the background."""
        if stream.fileno() < 0:
            lone = LoneCrew(self, nursery)
            lone.connection = self._connect(stream, lone)
            lone.connection.mind_reading()
            lone.start()
        else:
            crew = self._crew
            if crew is None or crew.disbanded:
                crew = self.staff(nursery)
            crew.now = trio.current_time()
            self._connect(stream, crew).mind_reading()

    def _connect(self, stream: AnyStream, crew: Crew) -> Connection:
        connection = Connection(self, stream, crew)
        self.connections.add(connection)
        self.tally.accepted += 1
        return connection

    def staff(self, nursery: trio.Nursery) -> Crew:
        """Have tasks that serve the streams to come."""
        self._crew = SharedCrew(self, nursery)
        self._crew.start()
        return self._crew

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        self.tally.closed += 1
        if self._wanting_fewer:
            self._wanting_fewer.unpark_all()

    async def accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        """Have connections accepted for ever; survive the want of descriptors and memory."""
        crew = self._crew or self.staff(nursery)
        while True:
            door = _Door(self, listener, crew)
            try:
                await door.shut.wait()
            finally:
                door.close()
            self.complain(f"cannot accept connections: {door.trouble}; trying again", most=1)
            self._make_room()
            if self.room > 0:
                await trio.sleep(0.1)  # what is wanting is something else
            while self.room <= 0:
                await self._wanting_fewer.park()

    @property
    def room(self) -> int:
        """How many connections more may be accepted."""
        return self.limits.max_connections - len(self.connections)

    def _make_room(self) -> None:
        """Close those kept connections that have been idle for longest, a few at a time."""
        before = trio.current_time() - QUIET
        idle = [connection for connection in self.connections if connection.idle_since < before]
        idle.sort(key=lambda connection: connection.idle_since)
        for connection in idle[: max(1, self.limits.max_connections // 100)]:
            with connection.confining():
                connection.close_idle()

    def shut(self, listener: Listener) -> None:
        """Stop listening, and serve those who have connected already: nobody else may be there to accept them."""
        listener.remove_file()
        if self._crew is not None:
            self._accept_rest(listener, self._crew)
        listener.close()

    def _accept_rest(self, listener: Listener, crew: Crew) -> None:
        crew.now = trio.current_time()
        for _ in range(self.listen.backlog):  # who is faster than that comes without end
            try:
                connected, peer = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _LOST:
                    continue
                self.complain(f"connections are lost: {error.strerror}")
                return
            connection = self._admit(connected, peer, crew)
            if connection is not None:
                connection.mind_reading()

    def welcome(self, connected: socket.socket, peer: tuple[Any, ...] | str, crew: Crew) -> None:
        """Serve a connection that was accepted. For the leader of the crew, who begins what it brings at once."""
        connection = self._admit(connected, peer, crew)
        if connection is None:
            return
        # What the web server has to say is often there already. Then it need not be watched, unless it stays.
        connection.read()
        if not connection.exchanges:
            connection.mind_reading()

    def _admit(self, connected: socket.socket, peer: tuple[Any, ...] | str, crew: Crew) -> Connection | None:
        """The connection that was accepted, if it is welcome and still there."""
        allowed = self.listen.allow_from
        # A socket for both families names an IPv4 peer ::ffff:192.0.2.1.
        host = str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else None
        if allowed is not None and host not in allowed:
            connected.close()
            self.complain(f"refused a connection from {host or 'a unix socket'}: it is not among those allowed")
            return None
        if self._allowed_users is not None:
            process, user = peer_of(connected) or (0, -1)
            if user not in self._allowed_users:
                connected.close()
                self.complain(f"refused process {process} of user {user}: it is not among those allowed")
                return None
        try:
            stream = SocketStream(connected, unix=not isinstance(peer, tuple))
        except OSError:
            connected.close()  # gone between accept and now
            return None
        return self._connect(stream, crew)

    # --- time

    async def sweep(self) -> None:
        """Look at every deadline, for ever, about twice a second (more often for shorter ones)."""
        limits = self.limits
        shortest = [
            limits.params_timeout,
            limits.body_timeout,
            limits.request_timeout,
            limits.idle_timeout,
            limits.write_timeout,
            limits.drain_timeout,
            limits.goodbye_timeout,
            limits.slow_timeout,
        ]
        pause = min([0.5, *[seconds / 4 for seconds in shortest if seconds is not None]])
        while True:
            await trio.sleep(pause)
            self._sweep_once()

    def _sweep_once(self) -> None:
        now = trio.current_time()
        if self._wanting_fewer and self.room <= 0:
            self._make_room()
        for connection in list(self.connections):
            with connection.confining():
                connection.sweep(now)

    def drain(self) -> None:
        """Let every connection end with an answer, or when it has been idle for a moment.

        A web server that keeps connections may just be sending a request on one that is idle. It repeats neither that
        on another, if it is a POST, nor knows of the end of a connection before the next look at it.
        """
        self.draining = True
        self.patience = min(self.patience, QUIET)
        for connection in list(self.connections):
            with connection.confining():
                connection.retire()
        self._sweep_once()

    def finished(self, exchange: Exchange) -> None:
        """A handler has come to its end after its answer."""
        if exchange in self.trailing:
            self.trailing.discard(exchange)
            exchange.request = None
            self._wanting_fewer.unpark_all()

    async def idle(self) -> None:
        """Wait until there are no connections, and no handlers that go on."""
        while self.connections or self.trailing:
            await self._wanting_fewer.park()

    # --- log

    def complain(self, text: str, most: int = 5) -> None:
        """Warn about a peer, ``most`` times a second: whoever can connect could fill the disk otherwise."""
        now = trio.current_time()
        if now - self._complaining_since >= 1:
            self._complaining_since = now
            self._complaints = 0
        self._complaints += 1
        if self._complaints <= most:
            self.log.warning("%s: %s", self.where, printable(text))

    def note_repairs(self, names: Iterable[str]) -> None:
        """Say once what was repaired, and which configuration makes that needless."""
        for name in names:
            if name not in self._noted:
                self._noted.add(name)
                self.log.warning("%s: repaired (%s): %s", self.where, name, REPAIRS[name][1])

    def examine(self, event: RequestReceived, protocol: str) -> None:
        """Say once what the web server gets wrong, and which line of its configuration mends it.

        What was repaired is said by ``note_repairs``, and nothing to whoever is no web server, such as a health check.
        """
        self.unexamined -= 1
        if not front_end(dict(event.environ), protocol):
            return
        found = look(
            event.environ,
            protocol,
            self.rules,
            role=event.role,
            request_timeout=self.limits.request_timeout,
            keep_connection=event.keep_connection,
        )
        for advice in found:
            if advice.name not in self._noted and advice.name not in self.rules.repairs:
                self._noted.add(advice.name)
                text = printable(f"advice ({advice.name}): {advice}")
                self.doctor.log(_LEVELS[advice.severity], "%s: %s", self.where, text)

    def log_access(self, exchange: Exchange) -> None:
        """One line for an answered request."""
        if self.access.logger.isEnabledFor(logging.INFO):
            seconds = trio.current_time() - exchange.started_at
            if exchange.context is None:
                self.access.add(exchange, seconds)
            else:  # what the handler has set there is for its lines in the log, too
                exchange.context.run(self.access.add, exchange, seconds)


async def serve(
    protocol: Protocol,
    app: Application,
    listen: str | Listen | Sequence[str | Listen],
    *,
    limits: Limits | None = None,
    mount: str | None = None,
    quirks: str | Iterable[str] = "auto",
    log: logging.Logger | None = None,
    stop: trio.Event | None = None,
    tally: Tally | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application over one protocol; ``<protocol>.serve`` is this function with ``protocol`` filled in.

    ``listen`` is an address, a :class:`Listen`, or several of either. ``started`` hands out the bound addresses.
    With ``stop`` set, no more connections are accepted, running requests get ``limits.shutdown_grace`` seconds, and
    the function returns. All that is served is counted in ``tally``.

    Errors: ValueError for settings and addresses that make no sense, BindError (an OSError) for those that cannot
    be had, whatever the application raises while it starts up or shuts down. A peer's errors end its connection.

    Cancellation: running requests are cancelled, told to the web server as far as ``limits.goodbye_timeout``
    allows, and the sockets are closed.
    """
    limits = limits or Limits()
    wanted = [listen] if isinstance(listen, str | Listen) else list(listen)
    services = [
        Service(
            protocol,
            Listen(each) if isinstance(each, str) else each,
            limits=limits,
            mount=mount,
            quirks=quirks,
            log=log,
            tally=tally,
        )
        for each in wanted
    ]
    async with Started(app) as roles, contextlib.AsyncExitStack() as stack:
        listeners: list[tuple[Service, Listener]] = []
        for service in services:
            service.roles = roles
            opened = await open_listeners(service.listen, log=service.log)
            for listener in opened:
                stack.callback(listener.close)
                listeners.append((service, listener))
            service.where = " ".join([listener.address for listener in opened])
        async with trio.open_nursery() as nursery:
            for service in services:
                service.staff(nursery)
                nursery.start_soon(service.sweep)
            async with trio.open_nursery() as acceptors:
                for service, listener in listeners:
                    acceptors.start_soon(service.accept, listener, nursery)
                task_status.started([listener.address for _, listener in listeners])
                await (trio.Event() if stop is None else stop).wait()
                acceptors.cancel_scope.cancel()
            for service, listener in listeners:
                service.shut(listener)
            with trio.move_on_after(float("inf") if limits.shutdown_grace is None else limits.shutdown_grace):
                for service in services:
                    service.drain()
                for service in services:
                    await service.idle()
            nursery.cancel_scope.cancel()


async def serve_stream(
    protocol: Protocol,
    app: Application,
    stream: trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | socket.socket,
    *,
    limits: Limits | None = None,
    mount: str | None = None,
    quirks: str | Iterable[str] = "auto",
    log: logging.Logger | None = None,
    tally: Tally | None = None,
) -> None:
    """Serve an application on one connection that exists already, until it ends; ``<protocol>.serve_stream``.

    ``stream`` is a connected socket, or two halves stapled together as ``trio.testing.memory_stream_pair`` makes them;
    it is closed in the end. The other arguments, errors and cancellation are those of :func:`serve`.
    """
    service = Service(
        protocol, Listen("a stream"), limits=limits or Limits(), mount=mount, quirks=quirks, log=log, tally=tally
    )
    served = _as_stream(stream)
    if served is None:
        return
    try:
        async with Started(app) as service.roles, trio.open_nursery() as nursery:
            nursery.start_soon(service.sweep)
            service.start(served, nursery)
            await service.idle()
            nursery.cancel_scope.cancel()
    finally:
        served.close()


def _as_stream(
    stream: trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | socket.socket,
) -> AnyStream | None:
    """What the engine drives; None when the peer has left already, and then the stream is closed."""
    if not isinstance(stream, socket.socket):
        return TrioStream(stream)
    try:
        return SocketStream(stream)
    except OSError:  # ENOTCONN of getpeername, EINVAL of setsockopt on BSD and macOS
        stream.close()
        return None
