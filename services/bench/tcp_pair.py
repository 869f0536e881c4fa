"""Moves blocks over a loopback TCP connection with plain sockets."""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.bench.kv_layout import Bytes, Numbers
from shared.errors import SlosError

_LOOPBACK = "127.0.0.1"
_COUNT = struct.Struct("!I")
_BUFFER_BYTES = 4 << 20


class PeerGone(SlosError):
    """The other process closed its connection."""


def listen() -> socket.socket:
    return socket.create_server((_LOOPBACK, 0))


def serve_blocks(listener: socket.socket, memory: Bytes, limit_s: float) -> None:
    """Answers one client until it closes, or is silent for `limit_s` seconds."""
    listener.settimeout(limit_s)
    connection, _ = listener.accept()
    with connection:
        _tune(connection, limit_s)
        while (numbers := _receive_request(connection)) is not None:
            for number in numbers:
                connection.sendall(memory[number].data)


def _receive_request(connection: socket.socket) -> Numbers | None:
    head = bytearray(_COUNT.size)
    if not _receive(connection, memoryview(head)):
        return None
    numbers: Numbers = np.empty(_COUNT.unpack(head)[0], dtype=np.int32)
    return numbers if _receive(connection, numbers.view(np.uint8).data) else None


def _receive(connection: socket.socket, into: memoryview) -> bool:
    """Fills `into`; False when the other side has closed."""
    while into:
        received = connection.recv_into(into)
        if received == 0:
            return False
        into = into[received:]
    return True


def _tune(connection: socket.socket, limit_s: float) -> None:
    connection.settimeout(limit_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)


@dataclass(slots=True)
class TcpReader:
    """The side that fetches."""

    connection: socket.socket
    memory: Bytes
    now: Callable[[], float]

    @classmethod
    def connect(
        cls, port: int, memory: Bytes, now: Callable[[], float], limit_s: float
    ) -> "TcpReader":
        connection = socket.create_connection((_LOOPBACK, port), timeout=limit_s)
        _tune(connection, limit_s)
        return cls(connection, memory, now)

    def read(self, local: Numbers, remote: Numbers) -> float:
        """Fetches `remote` blocks into `local` ones; returns seconds. Raises PeerGone."""
        started_at_s = self.now()
        self.connection.sendall(_COUNT.pack(len(remote)) + remote.tobytes())
        for number in local:
            if not _receive(self.connection, self.memory[number].data):
                raise PeerGone("The process that sends over TCP has ended.")
        return self.now() - started_at_s

    def close(self) -> None:
        self.connection.close()
