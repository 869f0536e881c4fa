"""Client sockets of one thread to KV ports."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from shared.kv_transfer.curve import CurveKeys

MOST_PEERS: Final = 1024

_EVENTS: Final = int(zmq.EVENTS)  # operators of pyzmq's enums take microseconds
_READABLE: Final = int(zmq.POLLIN)

# A refused attempt to connect ends in a retry.
_BROKEN: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED

Address = tuple[str, int]


def socket_address(host: str, port: int) -> str:
    """The address in ZeroMQ's form."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def is_readable(socket: "zmq.Socket[bytes]") -> bool:
    """The result of `socket.poll(0)`, in a tenth of the time."""
    events = socket.get(_EVENTS)
    assert isinstance(events, int)
    return bool(events & _READABLE)


@dataclass(slots=True)
class Callers:
    """One socket per KV port, opened at its first use; above MOST_PEERS, the LRU one is closed.

    `watches`: `poll` reports broken connections. Set it only if `poll` is called.
    """

    context: "zmq.Context[zmq.Socket[bytes]]"
    keys: CurveKeys | None = None
    watches: bool = False
    _poller: zmq.Poller = field(default_factory=zmq.Poller)
    _sockets: "OrderedDict[Address, zmq.Socket[bytes]]" = field(default_factory=OrderedDict)
    _monitors: "dict[zmq.Socket[bytes], Address]" = field(default_factory=dict)

    def watch(self, other: "zmq.Socket[bytes]") -> None:
        """Adds a socket of the caller to those that `poll` polls."""
        self._poller.register(other, zmq.POLLIN)

    def poll(self, limit_ms: int) -> tuple[list["zmq.Socket[bytes]"], list[Address]]:
        """The readable sockets, and the KV ports with a broken or failed connection.

        Waits at most `limit_ms`.
        """
        readable: list[zmq.Socket[bytes]] = []
        broken: list[Address] = []
        for socket, _ in self._poller.poll(limit_ms):
            address = self._monitors.get(socket)
            if address is None:
                readable.append(socket)
            else:
                recv_monitor_message(socket)
                broken.append(address)
        return readable, broken

    def to(self, host: str, port: int) -> "zmq.Socket[bytes]":
        address = (host, port)
        if address not in self._sockets:
            self._sockets[address] = self._connected(address)
            if len(self._sockets) > MOST_PEERS:
                self._close(*self._sockets.popitem(last=False))
        self._sockets.move_to_end(address)
        return self._sockets[address]

    def _connected(self, address: Address) -> "zmq.Socket[bytes]":
        host, port = address
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int(":" in host))
        if self.keys is not None:
            self.keys.protect_caller(socket)
        self._poller.register(socket, zmq.POLLIN)
        if self.watches:
            monitor = socket.get_monitor_socket(_BROKEN)
            self._monitors[monitor] = address
            self._poller.register(monitor, zmq.POLLIN)
        socket.connect(socket_address(host, port))
        return socket

    def _close(self, address: Address, socket: "zmq.Socket[bytes]") -> None:
        for monitor in [one for one, of in self._monitors.items() if of == address]:
            del self._monitors[monitor]
            self._poller.unregister(monitor)
            socket.disable_monitor()
        self._poller.unregister(socket)
        socket.close()
