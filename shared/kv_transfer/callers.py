"""Sockets of one thread to the KV ports of others."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import zmq

from shared.kv_transfer.curve import CurveKeys

MOST_PEERS: Final = 1024


def socket_address(host: str, port: int) -> str:
    """ZeroMQ's way to write it."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


@dataclass(slots=True)
class Callers:
    """One socket for each KV port, connected at its first use; the one unused for longest goes.

    `poller` tells which of them has something to read.
    """

    context: "zmq.Context[zmq.Socket[bytes]]"
    keys: CurveKeys | None = None
    poller: zmq.Poller = field(default_factory=zmq.Poller)
    _sockets: "OrderedDict[tuple[str, int], zmq.Socket[bytes]]" = field(default_factory=OrderedDict)

    def to(self, host: str, port: int) -> "zmq.Socket[bytes]":
        key = (host, port)
        if key not in self._sockets:
            self._sockets[key] = self._connected(host, port)
            if len(self._sockets) > MOST_PEERS:
                _, oldest = self._sockets.popitem(last=False)
                self.poller.unregister(oldest)
                oldest.close()
        self._sockets.move_to_end(key)
        return self._sockets[key]

    def _connected(self, host: str, port: int) -> "zmq.Socket[bytes]":
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int(":" in host))
        if self.keys is not None:
            self.keys.protect_caller(socket)
        socket.connect(socket_address(host, port))
        self.poller.register(socket, zmq.POLLIN)
        return socket
