"""Requests that run and where their outputs go."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shared.errors import EngineDraining, EngineLost, SlosError

Item = TypeVar("Item")


@dataclass(slots=True)
class Stream(Generic[Item]):
    """One request's outputs, in order; an error ends it. With a `reader` they go there instead."""

    reader: "Stream[Item] | None" = None
    _waiting: list[Item] = field(default_factory=list)
    _error: SlosError | None = None
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, item: Item) -> None:
        if self.reader is not None:
            self.reader.give(item)
            return
        self._waiting.append(item)
        self._filled.set()

    def end(self) -> None:
        """All was given; a reader of the stream elsewhere must be told so."""
        if self.reader is not None:
            self._filled.set()

    @property
    def is_ended(self) -> bool:
        """Whether its reader was given everything."""
        return self.reader is not None and self._filled.is_set() and self._error is None

    async def until_ended(self) -> None:
        """For one with a reader. Raises the error that ended it."""
        await self._filled.wait()
        if self._error is not None:
            raise self._error

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
    """All open streams by request id, and readers of many by name. `draining` refuses new ones."""

    open: dict[str, Stream[Item]] = field(default_factory=dict)
    readers: dict[str, Stream[Item]] = field(default_factory=dict)
    draining: bool = False
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, request_id: str, reader: str = "") -> Stream[Item]:
        """Its outputs go to this reader, where one is named. Raises EngineDraining,
        DuplicateRequest, and EngineLost for a reader that has left.
        """
        if self.draining:
            raise EngineDraining(
                "This engine is being stopped and takes no new request; try another."
            )
        if request_id in self.open:
            raise DuplicateRequest(f"The request {request_id} is already running on this engine.")
        if reader and reader not in self.readers:
            raise EngineLost(f"The reader of the outputs of {request_id} has left this engine.")
        stream: Stream[Item] = Stream(self.readers.get(reader))
        self.open[request_id] = stream
        self._emptied.clear()
        return stream

    def remove(self, request_id: str) -> None:
        self.open.pop(request_id, None)
        if not self.open:
            self._emptied.set()

    def give(self, request_id: str, item: Item) -> bool:
        """False where the request has left already: the output is dropped."""
        stream = self.open.get(request_id)
        if stream is None:
            return False
        stream.give(item)
        return True

    def end(self, request_id: str) -> None:
        """After its last output."""
        stream = self.open.get(request_id)
        if stream is not None:
            stream.end()

    @contextmanager
    def reader(self, name: str) -> Iterator[Stream[Item]]:
        """While it lasts, requests may name it; those that run when it ends fail."""
        reader: Stream[Item] = Stream()
        self.readers[name] = reader
        try:
            yield reader
        finally:
            del self.readers[name]
            for stream in self.open.values():
                if stream.reader is reader:
                    stream.fail(EngineLost("Nobody reads the outputs any more."))

    def end_readers(self) -> None:
        """Each takes what was given, then fails."""
        for reader in self.readers.values():
            reader.fail(EngineDraining("This engine is being stopped."))

    def fail_all(self, error: SlosError) -> None:
        for stream in self.open.values():
            stream.fail(error)

    async def until_empty(self) -> None:
        if self.open:
            await self._emptied.wait()
