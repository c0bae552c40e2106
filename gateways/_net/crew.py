"""Who does the work: a crew of tasks, one of which leads at a time.

The leader waits until something has come in, lets the connections take it, and begins the handlers of the requests
that are complete. A handler that never waits costs no task and no scope, and a connection that idles has no task
either. A handler that waits stays in the task it was begun in, because trio's scopes and nurseries belong to their
task, and another task leads from then on (the pattern is called leader and followers).
"""

from __future__ import annotations

import select
import selectors
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from gateways._net.exchange import Exchange, new_stepper
from gateways._net.stream import RECEIVE

if TYPE_CHECKING:
    from gateways._net.connection import Connection
    from gateways._net.serving import Service

__all__ = ["AnyPoller", "Crew", "LoneCrew", "SharedCrew"]

#: Streams that are looked at before the poller is asked again.
_BATCH = 64
#: Times that the poller is asked before the other tasks of the process get a turn.
_ROUNDS = 8
#: Tasks that are kept for the next handler that waits. To start one costs several times what it takes to wake one.
_MAX_FOLLOWERS = 100
#: Tasks that are called to lead at a time, at most.
_MOST_CALLED = 16


class Readable(Protocol):
    """What a leader sees to when something has come in: a connection, or a listener."""

    def fileno(self) -> int: ...
    def read(self) -> None: ...


class Crew:
    """Tasks that share the work on some connections. How the leader waits is for the subclasses to say."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self._service = service
        self.nursery = nursery
        #: The requests whose handlers are to be begun.
        self.ready: deque[Exchange] = deque()
        #: The leader was cancelled, and nobody reads any more.
        self.disbanded = False
        #: When the leader last looked: near enough for deadlines.
        self.now = trio.current_time()
        #: What steps the next handler to its first wait.
        self.stepper = new_stepper()
        self._followers: list[trio.lowlevel.Task] = []
        #: Tasks that have been called to lead and have not come yet, and how many are called at a time.
        self._coming = 0
        self._most_called = 1
        #: Whether the leader waits for something to come in.
        self._watching = False
        self._aside: list[Exchange] = []
        self._acts: list[Callable[[], object]] = []

    def watch(self, readable: Readable) -> None:
        """Read from something whenever there is something to read."""
        raise NotImplementedError

    def unwatch(self, readable: Readable) -> None:
        """Leave it alone until it is watched again."""
        raise NotImplementedError

    def forget(self, connection: Connection) -> None:
        """A connection has been closed."""

    def read_again(self, readable: Readable) -> None:
        """Something may have more to read already: after all else that has come in, and if that is worth a try."""

    async def _wait(self) -> bool:
        """Wait until something has come in. False once nothing will."""
        raise NotImplementedError

    def before_going_on(self, act: Callable[[], object]) -> None:
        """Have something done once before those go on that are set aside."""
        if act not in self._acts:
            self._acts.append(act)

    def set_aside(self, exchange: Exchange) -> None:
        """A handler goes on when all have been begun that have come in with it."""
        self._aside.append(exchange)

    def _at_hand(self) -> int:
        """How much has come in that was not taken yet."""
        return 0

    def _take_next(self) -> bool:
        """Have something taken that has come in already; False where there is none."""
        return False

    def _go_on(self) -> None:
        acts, self._acts = self._acts, []
        for act in acts:
            act()
        self.ready.extend(self._aside)
        self._aside.clear()

    def start(self) -> None:
        """Have one more task, which leads."""
        self._coming += 1
        self.nursery.start_soon(self._work)

    async def _work(self) -> None:
        """One task: lead until a handler waits, see that one to its end, wait to lead again."""
        while not self.disbanded:
            self._coming -= 1
            if self._watching:
                self._most_called = 1  # it was called for nothing
            else:
                exchange = await self._lead_and_see_to_one()
                if exchange is None:
                    return
                try:
                    exchange.connection.settle()
                except Exception:
                    exchange.connection.break_down()
                if len(self._followers) >= _MAX_FOLLOWERS:
                    return
            await self._follow()

    async def _lead_and_see_to_one(self) -> Exchange | None:
        exchange = None
        try:
            # The scope is there before the handler takes its first step, because that may open others inside. It
            # becomes the request's with the first wait: until then nobody can cancel it.
            with trio.CancelScope() as scope:
                exchange = await self._lead(scope)
                if exchange is None:
                    return None
                self._hand_over()
                await exchange.rest()
        except BaseException as error:
            if exchange is None:
                self._disband()
                raise
            try:
                await exchange.fail(error)
            except Exception:
                exchange.break_down()
            except BaseException:
                exchange.connection.abandon()
                raise
        if exchange is not None:
            try:
                exchange.conclude_cancelled()
            except Exception:
                exchange.break_down()
        return exchange

    async def _lead(self, scope: trio.CancelScope) -> Exchange | None:
        """Do all there is to do until a handler waits; None when nothing more will come."""
        while True:
            while self.ready:
                exchange = self.ready.popleft()
                try:
                    if not exchange.begin(scope):
                        exchange.connection.mind_reading()
                        return exchange
                    exchange.connection.settle()
                except Exception:
                    exchange.break_down()
            if self._take_next():
                continue
            if self._aside:
                self._go_on()
                continue
            self._watching = True
            try:
                if not await self._wait():
                    return None
            finally:
                self._watching = False

    def _hand_over(self) -> None:
        """Somebody else leads from now on.

        Where one handler after the other waits, several are called: each of them would otherwise cost a turn of the
        event loop.
        """
        if self._coming:
            return
        wanted = min(1 + len(self.ready) + self._at_hand(), self._most_called)
        for _ in range(min(wanted, len(self._followers))):
            trio.lowlevel.reschedule(self._followers.pop())
            self._coming += 1
        if not self._coming:
            self.start()
        elif self._coming == self._most_called:
            self._most_called = min(2 * self._most_called, _MOST_CALLED)

    async def _follow(self) -> None:
        task = trio.lowlevel.current_task()
        self._followers.append(task)

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._followers.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def _disband(self) -> None:
        """The leader was cancelled: the server stops."""
        self.disbanded = True
        for connection in list(self._service.connections):
            if connection.crew is self:
                connection.abandon()


class _Poller(Protocol):
    """The part of ``select.epoll`` that is needed."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class AnyPoller:
    """The same where there is no epoll. kqueue, for one, can be waited for like any other descriptor."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, eventmask: int, /) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def unregister(self, fd: int, /) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]

    def fileno(self) -> int:
        fileno: int = self._selector.fileno()
        return fileno

    def close(self) -> None:
        self._selector.close()


_READABLE: int = getattr(select, "EPOLLIN", 1)
new_poller: Callable[[], _Poller] = getattr(select, "epoll", AnyPoller)


class SharedCrew(Crew):
    """All connections of a service whose streams have a file descriptor, watched by one poller.

    trio waits for the poller alone: a connection need not be registered anew for each wait, and the many that become
    readable at a time are seen to in one turn.
    """

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        super().__init__(service, nursery)
        self._poller = new_poller()
        self._watched: dict[int, Readable] = {}
        self._readable: deque[tuple[int, int]] = deque()
        self._rounds = 0
        self._tries = 0

    def watch(self, readable: Readable) -> None:
        fd = readable.fileno()
        self._poller.register(fd, _READABLE)
        self._watched[fd] = readable

    def unwatch(self, readable: Readable) -> None:
        fd = readable.fileno()
        del self._watched[fd]
        if not self.disbanded:
            self._poller.unregister(fd)

    def read_again(self, readable: Readable) -> None:
        # Where things come in one after the other, and not more of them than are seen to between two looks anyway.
        if self._rounds > 1 and self._tries < _BATCH:
            self._tries += 1
            self._readable.append((readable.fileno(), _READABLE))

    def _at_hand(self) -> int:
        return len(self._readable)

    def _take_next(self) -> bool:
        if not self._readable:
            return False
        fd, _ = self._readable.popleft()
        readable = self._watched.get(fd)  # gone, perhaps, since the poller spoke
        if readable is not None:
            readable.read()
        return True

    async def _wait(self) -> bool:
        while not self._readable:
            found = self._poller.poll(0, _BATCH)
            self._rounds += 1
            if not found or self._rounds > _ROUNDS:
                self._rounds = 0
                await trio.lowlevel.wait_readable(self._poller.fileno())
            self._readable.extend(found)
            self._tries = 0
            self.now = trio.current_time()
        return True

    def _disband(self) -> None:
        super()._disband()
        self._poller.close()


class LoneCrew(Crew):
    """One connection over a stream without a file descriptor, such as trio's memory streams."""

    #: The one, which is there before the crew is at work.
    connection: Connection

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        super().__init__(service, nursery)
        self._wanted = False
        self._changed = trio.Event()

    def watch(self, readable: Readable) -> None:
        self._wanted = True
        self._changed.set()

    def unwatch(self, readable: Readable) -> None:
        self._wanted = False

    def forget(self, connection: Connection) -> None:
        self._changed.set()

    async def _wait(self) -> bool:
        connection = self.connection
        while not (self._wanted or connection.closed):
            self._changed = trio.Event()
            await self._changed.wait()
        if not connection.closed:
            data = await connection.stream.receive(RECEIVE)
            self.now = trio.current_time()
            with connection.confining():
                connection.take(data)
        return not connection.closed
