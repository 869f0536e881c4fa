"""Requests that run on an engine, and the streams that their outputs go to."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from shared.errors import EngineDraining, SlosError
from shared.rpc.multiplex import Outbox

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The end of a request without a last output; without an error, it has no outputs at all."""

    request_id: str
    error: SlosError | None = None


# The outputs and ends of all requests of one stream.
Replies: TypeAlias = Outbox[Item | RequestEnded]


class DuplicateRequest(SlosError):
    """A request id that is already running here."""


@dataclass(slots=True)
class Streams(Generic[Item]):
    """All running requests by id, each with the stream that it came by. `draining` refuses new
    ones.
    """

    open: dict[str, Replies[Item]] = field(default_factory=dict)
    draining: bool = False
    _streams: set[Replies[Item]] = field(default_factory=set)
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def stream(self) -> Iterator[Replies[Item]]:
        """A new stream. Its requests are to be removed before it is left."""
        replies: Replies[Item] = Outbox()
        self._streams.add(replies)
        try:
            yield replies
        finally:
            self._streams.discard(replies)

    def add(self, request_id: str, replies: Replies[Item]) -> None:
        """Raises EngineDraining and DuplicateRequest."""
        if self.draining:
            raise EngineDraining(
                "This engine is being stopped and takes no new request; try another."
            )
        if request_id in self.open:
            raise DuplicateRequest(f"The request {request_id} is already running on this engine.")
        self.open[request_id] = replies
        self._emptied.clear()

    def remove(self, request_id: str) -> None:
        """After its last output, or when no more are wanted."""
        self.open.pop(request_id, None)
        if not self.open:
            self._emptied.set()

    def give(self, request_id: str, item: Item) -> bool:
        """False where the request has left already: the output is dropped."""
        replies = self.open.get(request_id)
        if replies is None:
            return False
        replies.put(item)
        return True

    def fail_all(self, error: SlosError) -> None:
        """Ends all requests; what was given before is still sent."""
        for request_id, replies in self.open.items():
            replies.put(RequestEnded(request_id, error))
        self.open.clear()
        self._emptied.set()

    def of(self, replies: Replies[Item]) -> list[str]:
        """The ids of the running requests of a stream."""
        return [request_id for request_id, one in self.open.items() if one is replies]

    def end(self) -> None:
        """Ends each stream once what was given to it is sent."""
        for replies in self._streams:
            replies.end()

    async def until_empty(self) -> None:
        if self.open:
            await self._emptied.wait()
