"""The requests that run on this engine and where their outputs go. Knows no network and no vLLM."""

import asyncio
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shared.errors import EngineDraining, SlosError

Item = TypeVar("Item")


@dataclass(slots=True)
class Stream(Generic[Item]):
    """One request's outputs, in order; an error ends it."""

    _waiting: list[Item] = field(default_factory=list)
    _error: SlosError | None = None
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, item: Item) -> None:
        self._waiting.append(item)
        self._filled.set()

    def fail(self, error: SlosError) -> None:
        """Ends it; what was given before is still taken."""
        self._error = error
        self._filled.set()

    async def take(self) -> list[Item]:
        """All that wait, one at least."""
        await self._filled.wait()
        if not self._waiting and self._error is not None:
            raise self._error
        taken, self._waiting = self._waiting, []
        if self._error is None:
            self._filled.clear()
        return taken


class DuplicateRequest(SlosError):
    """A request id that is already running here."""


@dataclass(slots=True)
class Streams(Generic[Item]):
    """All open streams by request id. `draining` refuses new ones."""

    open: dict[str, Stream[Item]] = field(default_factory=dict)
    draining: bool = False
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, request_id: str) -> Stream[Item]:
        if self.draining:
            raise EngineDraining(
                "This engine is being stopped and takes no new request; try another."
            )
        if request_id in self.open:
            raise DuplicateRequest(f"The request {request_id} is already running on this engine.")
        stream: Stream[Item] = Stream()
        self.open[request_id] = stream
        self._emptied.clear()
        return stream

    def remove(self, request_id: str) -> None:
        self.open.pop(request_id, None)
        if not self.open:
            self._emptied.set()

    def give(self, request_id: str, item: Item) -> None:
        """An output for a request that has left already is dropped: its client is gone."""
        stream = self.open.get(request_id)
        if stream is not None:
            stream.give(item)

    def fail_all(self, error: SlosError) -> None:
        for stream in self.open.values():
            stream.fail(error)

    async def until_empty(self) -> None:
        if self.open:
            await self._emptied.wait()
