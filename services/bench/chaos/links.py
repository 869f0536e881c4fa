"""A TCP proxy between two processes that can cut, silence or delay the traffic."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

_PIECE_BYTES: Final = 1 << 16

Address = tuple[str, int]


@dataclass(slots=True, kw_only=True)
class Link:
    """Listens at `here` and forwards to `there`, until `close`."""

    name: str
    here: Address
    there: Address
    delay_s: float = 0.0
    _cut: bool = False
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def open(self) -> None:
        """Starts to listen. Raises OSError if `here` cannot be bound."""
        self._open.set()
        self._server = await asyncio.start_server(self._accept, *self.here)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        self._open.set()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Ends all connections, and each new one at once."""
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Stops all traffic but keeps connections open, as when every packet is lost."""
        self._open.clear()

    def mend(self) -> None:
        """Lets stopped traffic and new connections through; cut connections stay closed."""
        self._cut, self.delay_s = False, 0.0
        self._open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        await self._open.wait()
        try:
            from_there, to_there = await asyncio.open_connection(*self.there)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_there}
        self._writers |= both
        ways = [
            asyncio.create_task(self._forward(reader, to_there)),
            asyncio.create_task(self._forward(from_there, writer)),
        ]
        try:
            # The end of one ends the other: gRPC and ZMQ use no half-closed connections.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= both
            for one in both:
                one.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._open.wait()
                writer.write(piece)
                await writer.drain()
