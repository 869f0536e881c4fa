"""How an engine host gives up KV blocks that its own engine core holds for a reader."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq

from shared.kv_transfer.curve import CurveKeys
from shared.kv_transfer.holder import socket_address
from shared.kv_transfer.messages import Release, encode


@dataclass(slots=True)
class LeaseReleaser:
    """Talks to the KV ports of the `workers` of one engine. It never blocks."""

    host: str
    port: int
    workers: int
    epoch: str
    keys: CurveKeys | None = None
    _context: "zmq.Context[zmq.Socket[bytes]]" = field(default_factory=zmq.Context)
    _sockets: "list[zmq.Socket[bytes]]" = field(default_factory=list)

    def release(self, request_ids: Sequence[str]) -> None:
        """Requests that hold nothing are ignored. A full pipe leaves the blocks to their lease."""
        message = encode(Release(epoch=self.epoch, request_ids=list(request_ids)))
        for socket in self._sockets or self._connected():
            try:
                socket.send(message, zmq.NOBLOCK)
            except zmq.Again:
                continue

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _connected(self) -> "list[zmq.Socket[bytes]]":
        for worker in range(self.workers):
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IPV6, int(":" in self.host))
            if self.keys is not None:
                self.keys.protect_caller(socket)
            socket.connect(socket_address(self.host, self.port + worker))
            self._sockets.append(socket)
        return self._sockets
