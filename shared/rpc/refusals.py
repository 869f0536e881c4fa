"""Logs the peers that a port with a cluster secret refused, each address once."""

import asyncio
import ipaddress
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import grpc

from shared.clock import Clock, MonotonicClock

_LOG = logging.getLogger(__name__)
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
# `sl: local remote state`, all in hexadecimal; state 01 is an established connection
_ROW: Final = re.compile(r": [0-9A-F]+:([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) 01 ")
_WORD: Final = 8  # hex digits of a word; an address has 1 or 4, each in the machine's byte order
_LOOK_AFTER_S: Final = 2.0  # a handshake that fails does so within a round trip or two
_READ_EVERY_S: Final = 0.05  # limits the cost of many connections at once
_MOST: Final = 256

Peer = tuple[str, int]
"""The address and port of the other side."""


@dataclass(slots=True)
class Arrivals:
    """Connections to one port that are not authenticated yet.

    One that closes soon after its arrival, without a call, has failed its handshake.
    """

    _new: dict[Peer, float] = field(default_factory=dict)
    _accepted: set[Peer] = field(default_factory=set)
    _told: set[str] = field(default_factory=set)

    def arrive(self, connected: Set[Peer], now: float) -> None:
        for peer in connected - self._accepted - self._new.keys():
            if len(self._new) < _MOST:
                self._new[peer] = now

    def accept(self, peer: Peer) -> None:
        self._new.pop(peer, None)
        if len(self._accepted) < _MOST:
            self._accepted.add(peer)

    def refused(self, connected: Set[Peer], now: float) -> list[str]:
        """Addresses of closed, never accepted connections that were not reported before."""
        self._accepted &= connected
        gone = [peer for peer in self._new if peer not in connected]
        for peer, since in list(self._new.items()):
            if peer in connected and now - since >= _LOOK_AFTER_S:
                self.accept(peer)
        for peer in gone:
            del self._new[peer]
        addresses = list(dict.fromkeys(host for host, _ in gone if host not in self._told))
        addresses = addresses[: _MOST - len(self._told)]
        self._told.update(addresses)
        return addresses

    @property
    def waits(self) -> bool:
        return bool(self._new)


class Refusals(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # in the stubs alone
    """Observes the handshakes of one server; gRPC reports only that one begins."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.port = 0
        self._clock = clock or MonotonicClock()
        self._arrivals = Arrivals()
        self._loop = asyncio.get_running_loop()
        self._read_at_s = -_READ_EVERY_S
        self._look: asyncio.TimerHandle | None = None

    def begins(self) -> None:
        """Notes that a handshake begins. Called by a thread of gRPC."""
        now = self._clock.now()
        if self.port and now - self._read_at_s >= _READ_EVERY_S:
            self._read_at_s = now
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._arrived, connections_to(self.port), now)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Notes the peers of unary calls and two-way streams: short-lived peers make only those."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        if handler.stream_stream is not None:
            return self._noting_stream(handler)
        if handler.unary_unary is None:
            return handler
        behaviour = handler.unary_unary

        async def noted(request: Any, context: Any) -> Any:
            self._arrivals.accept(peer_of(context.peer()))
            return await behaviour(request, context)

        return grpc.unary_unary_rpc_method_handler(
            noted, handler.request_deserializer, handler.response_serializer
        )

    def _noting_stream(self, handler: Any) -> Any:
        behaviour = handler.stream_stream

        async def noted(messages: Any, context: Any) -> None:
            self._arrivals.accept(peer_of(context.peer()))
            await behaviour(messages, context)

        return grpc.stream_stream_rpc_method_handler(
            noted, handler.request_deserializer, handler.response_serializer
        )

    def _arrived(self, connected: Set[Peer], now: float) -> None:
        self._arrivals.arrive(connected, now)
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_AFTER_S, self._tell)

    def _tell(self) -> None:
        self._look = None
        for address in self._arrivals.refused(connections_to(self.port), self._clock.now()):
            _LOG.warning(
                "refused %s at port %d: it does not hold the cluster's secret (told once)",
                address,
                self.port,
            )
        if self._arrivals.waits:
            self._look = self._loop.call_later(_LOOK_AFTER_S, self._tell)


def connections_to(port: int) -> frozenset[Peer]:
    """The peers of established connections to a port of this process. Empty outside Linux."""
    text = ""
    for table in _TABLES:
        with suppress(OSError):
            text += table.read_text()
    return parse(text, port)


def parse(table: str, port: int) -> frozenset[Peer]:
    """The peers of connections to `port` in a table of the form of /proc/net/tcp and tcp6."""
    rows = (match.groups() for match in _ROW.finditer(table))
    return frozenset(
        (_address(remote), int(remote_port, 16))
        for local_port, remote, remote_port in rows
        if int(local_port, 16) == port
    )


def peer_of(text: str) -> Peer:
    """Parses gRPC's name of a peer: `ipv4:10.0.0.7:5001`, `ipv6:%5B::1%5D:5001`."""
    host, _, port = unquote(text).partition(":")[2].rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0


def _address(digits: str) -> str:
    words = [digits[at : at + _WORD] for at in range(0, len(digits), _WORD)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
