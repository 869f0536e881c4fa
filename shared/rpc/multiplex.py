"""Many calls over one long-lived bidirectional gRPC stream.

A gRPC call costs several messages, and a message far more than its content. Here all calls between
two processes share a stream, and what waits to be sent shares a message.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, Generic, TypeAlias, TypeVar

import grpc

Item = TypeVar("Item")
Sent = TypeVar("Sent")
Received = TypeVar("Received")

_LOG = logging.getLogger(__name__)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
# Some hundred megabytes of outputs: as much as a large engine gives in the time after which a
# silent peer counts as lost.
_MOST_WAITING: Final = 1 << 18


def code_of(number: int) -> grpc.StatusCode:
    """gRPC's code with this number, as messages carry it; UNKNOWN for any other number."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


class Outbox(Generic[Item]):
    """Items that wait to be written to a stream, in order.

    When more than `limit` wait, since the peer reads too slowly, all are dropped and it ends.
    """

    def __init__(self, limit: int = _MOST_WAITING) -> None:
        self.ended = False
        self._limit = limit
        self._waiting: list[Item] = []
        self._changed = asyncio.Event()
        self._overfull = asyncio.Event()

    @property
    def overfull(self) -> bool:
        return self._overfull.is_set()

    def put(self, item: Item) -> None:
        """Adds an item; drops it after the end."""
        if self.ended:
            return
        self._waiting.append(item)
        if len(self._waiting) > self._limit:
            self._waiting.clear()
            self._overfull.set()
            self.end()
        self._changed.set()

    def end(self) -> None:
        """What waits is still taken."""
        self.ended = True
        self._changed.set()

    async def take(self) -> list[Item]:
        """Waits for items and returns all of them; returns none only after the end."""
        while not (self._waiting or self.ended):
            self._changed.clear()
            await self._changed.wait()
        taken, self._waiting = self._waiting, []
        return taken

    async def until_overfull(self) -> None:
        await self._overfull.wait()


async def converse(
    outbox: Outbox[Item],
    join: Callable[[list[Item]], Iterable[Sent]],
    write: Callable[[Sent], Awaitable[None]],
    messages: AsyncIterable[Received],
    take_in: Callable[[Received], Awaitable[None]],
) -> None:
    """One end of a stream: writes what `outbox` gets, joined, and hands on what comes.

    Ends when the peer has ended the stream, when `outbox` has ended and is empty, or when it is
    overfull, even during a write. Raises what any of the callables raises.
    """

    async def read() -> None:
        try:
            async for message in messages:
                await take_in(message)
        finally:
            outbox.end()

    async def write_all() -> None:
        while items := await outbox.take():
            for message in join(items):
                await write(message)

    reading, writing = asyncio.create_task(read()), asyncio.create_task(write_all())
    overfull = asyncio.create_task(outbox.until_overfull())
    try:
        await asyncio.wait({writing, overfull}, return_when=asyncio.FIRST_COMPLETED)
        for task in (writing, reading):
            if task.done():
                task.result()
    finally:
        for task in (reading, writing, overfull):
            task.cancel()
        await asyncio.gather(reading, writing, overfull, return_exceptions=True)


End: TypeAlias = tuple[grpc.StatusCode, str]
_CLOSED: Final[End] = grpc.StatusCode.CANCELLED, "The stream was closed."
_SLOW: Final[End] = grpc.StatusCode.RESOURCE_EXHAUSTED, "The other side reads too slowly."
_UNREADABLE: Final[End] = grpc.StatusCode.INTERNAL, "A message could not be read."
DuplexCall: TypeAlias = grpc.aio.StreamStreamCall[Sent, Received]


class Multiplexer(Generic[Item, Sent, Received]):
    """The calling end. It opens its stream when first needed, and again after one has ended.

    Attributes:
        open_stream: Starts the gRPC call; its argument is for gRPC.
        join: Makes messages of items that wait together.
        take_in: Gets each message that comes.
        lost: Called when a stream has ended, with gRPC's code and words: no reply comes to what
            was sent over it.
    """

    def __init__(
        self,
        open_stream: Callable[[None], DuplexCall[Sent, Received]],
        join: Callable[[list[Item]], Iterable[Sent]],
        take_in: Callable[[Received], None],
        lost: Callable[[grpc.StatusCode, str], None],
    ) -> None:
        self._open_stream = open_stream
        self._join = join
        self._take_in = take_in
        self._lost = lost
        self._outbox: Outbox[Item] = Outbox()
        self._running: asyncio.Task[None] | None = None

    def send(self, item: Item) -> None:
        """Sends an item, after all that were sent before."""
        if self._running is None:
            self._outbox = Outbox()
            self._running = asyncio.create_task(self._run(self._outbox))
        self._outbox.put(item)

    async def close(self) -> None:
        """Ends the stream for good. What was sent and not answered is lost."""
        running = self._running
        if running is None:
            return
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if self._running is running:  # it was cancelled before its first step
            self._end(_CLOSED)

    async def _run(self, outbox: Outbox[Item]) -> None:
        end, stream = _CLOSED, self._open_stream(None)
        try:
            with suppress(asyncio.InvalidStateError):  # of a write after the end
                await converse(outbox, self._join, stream.write, stream, self._hand_on)
            end = _SLOW if outbox.overfull else await _end_of(stream)
        except grpc.aio.AioRpcError as error:
            end = error.code(), error.details() or ""
        except Exception:  # noqa: BLE001 - whatever came, callers must not wait for more
            end = _UNREADABLE
            _LOG.exception("A stream is closed: what came over it cannot be read.")
        finally:
            stream.cancel()
            outbox.end()
            self._end(end)

    def _end(self, end: End) -> None:
        self._running = None
        self._lost(*end)

    async def _hand_on(self, message: Received) -> None:
        self._take_in(message)


async def _end_of(stream: DuplexCall[Sent, Received]) -> End:
    """How a stream ended that the other side has ended."""
    code = await stream.code()
    if code is grpc.StatusCode.OK:
        return grpc.StatusCode.UNAVAILABLE, "The other side has ended the stream."
    return code, await stream.details() or ""
