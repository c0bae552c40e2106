"""Many clients at once, that count every answer which is not exactly what it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import h11
import trio

__all__ = ["Outcome", "Progress", "ask_many"]

#: Seconds that one request may take.
PATIENCE = 60.0
#: Bytes of the body of every second request.
BODY = b"x" * 3000


@attrs.define
class Outcome:
    """What came of many requests."""

    asked: int = 0
    good: int = 0
    #: What went wrong, and how often.
    bad: Counter[str] = attrs.Factory(Counter)
    #: The longest that a client waited for a good answer, in seconds.
    slowest: float = 0.0

    def __str__(self) -> str:
        wrong = "".join(f"\n    {number} x {what}" for what, number in self.bad.most_common())
        return (
            f"{self.asked} asked, {self.good} good, {self.asked - self.good} bad, slowest {self.slowest:.2f} s{wrong}"
        )


class Progress:
    """How many answers there have been: for those who disturb in the middle."""

    def __init__(self) -> None:
        self.answered = 0
        self._more = trio.Event()

    def __call__(self) -> None:
        """One more."""
        self.answered += 1
        self._more.set()
        self._more = trio.Event()

    async def reach(self, number: int) -> None:
        """Wait until there have been so many."""
        while self.answered < number:
            await self._more.wait()


async def ask_many(
    port: int,
    *,
    requests: int,
    clients: int,
    path: str = "/",
    posts: bool = True,
    after_each: Callable[[], None] | None = None,
) -> Outcome:
    """Have ``clients`` ask for ``requests`` answers from 127.0.0.1, every second with a body if ``posts``.

    ``after_each`` is called after each answer. A client whose connection ends goes on with another.
    """
    outcome = Outcome()

    async def client() -> None:
        connection: _Connection | None = None
        while outcome.asked < requests:
            outcome.asked += 1
            number = outcome.asked
            body = BODY if posts and number % 2 else b""
            began = trio.current_time()
            try:
                with trio.fail_after(PATIENCE):
                    if connection is None:
                        connection = _Connection(await trio.open_tcp_stream("127.0.0.1", port))
                    status, answer = await connection.ask(f"{path}?{number}", body)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
                outcome.bad[f"{'POST' if body else 'GET'}: {type(error).__name__}: {error}"] += 1
                connection = None
            else:
                if status == 200 and answer == str(number).encode() + b" " + body:
                    outcome.good += 1
                    outcome.slowest = max(outcome.slowest, trio.current_time() - began)
                else:
                    outcome.bad[f"{'POST' if body else 'GET'}: status {status}, {len(answer)} bytes"] += 1
                if not connection.reusable:
                    connection = None
            if after_each is not None:
                after_each()

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client)
    return outcome


class _Connection:
    """One connection of a client, kept as long as the server wants it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self.reusable = True

    async def ask(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises what goes wrong."""
        headers = [("Host", "chaos")] + ([("Content-Length", str(len(body)))] if body else [])
        request = h11.Request(method="POST" if body else "GET", target=target, headers=headers)
        events: list[h11.Event] = [request, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
        await self._stream.send_all(b"".join([self._http.send(event) or b"" for event in events]))
        status, pieces = 0, []
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the connection was closed before an answer")
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.reusable = False
            await self._stream.aclose()
        return status, b"".join(pieces)
