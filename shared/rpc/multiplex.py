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
# Some hundred megabytes of outputs: as much as a large engine gives in the time after which a
# silent peer counts as lost.
_MOST_WAITING: Final = 1 << 18


class Outbox(Generic[Item]):
    """Items that wait to be written to a stream, in order.

    When more than `limit` wait, since the peer reads too slowly, all are dropped and it ends.
    """

    def __init__(self, limit: int = _MOST_WAITING) -> None:
        self.ended = False
        self.overfull = False
        self._limit = limit
        self._waiting: list[Item] = []
        self._changed = asyncio.Event()

    def put(self, item: Item) -> None:
        """Adds an item; drops it after the end."""
        if self.ended:
            return
        self._waiting.append(item)
        if len(self._waiting) > self._limit:
            self._waiting.clear()
            self.overfull = True
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


async def converse(
    outbox: Outbox[Item],
    join: Callable[[list[Item]], Iterable[Sent]],
    write: Callable[[Sent], Awaitable[None]],
    messages: AsyncIterable[Received],
    take_in: Callable[[Received], Awaitable[None]],
) -> None:
    """One end of a stream: writes what `outbox` gets, joined, and hands on what comes.

    Ends when the peer has ended the stream or `outbox` has ended and is empty. Raises what any of
    the callables raises.
    """

    async def read() -> None:
        try:
            async for message in messages:
                await take_in(message)
        finally:
            outbox.end()

    reading = asyncio.create_task(read())
    try:
        while items := await outbox.take():
            for message in join(items):
                await write(message)
        if reading.done():
            reading.result()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


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
        """Ends the stream. What was sent and not answered is lost."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, outbox: Outbox[Item]) -> None:
        code, words = grpc.StatusCode.CANCELLED, "The stream was closed."
        stream = self._open_stream(None)
        try:
            with suppress(asyncio.InvalidStateError):  # of a write after the end
                await converse(outbox, self._join, stream.write, stream, self._hand_on)
            code, words = await stream.code(), await stream.details() or "The stream was ended."
        except grpc.aio.AioRpcError as error:
            code, words = error.code(), error.details() or ""
        except Exception:  # noqa: BLE001 - whatever came, callers must not wait for more
            code, words = grpc.StatusCode.INTERNAL, "A message could not be read."
            _LOG.exception("A stream is closed: what came over it cannot be read.")
        finally:
            stream.cancel()
            outbox.end()
            self._running = None
            self._lost(code, words)

    async def _hand_on(self, message: Received) -> None:
        self._take_in(message)
