"""The KV port of an engine: answers readers of its blocks, in a separate thread."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import zmq

from shared.errors import ConfigError
from shared.kv_transfer.callers import is_readable, socket_address
from shared.kv_transfer.curve import CurveKeys
from shared.kv_transfer.layout import BadBlocks, FrameOfBlocks
from shared.kv_transfer.leases import LeaseTable
from shared.kv_transfer.memory import KvMemory
from shared.kv_transfer.messages import (
    BadMessage,
    Cancel,
    Confirm,
    Confirmed,
    Credit,
    Fetch,
    Frame,
    Refused,
    Release,
    Renew,
    ToHolder,
    ToReader,
    decode_to_holder,
    encode,
)
from shared.kv_transfer.tuning import (
    FRAME_BYTES,
    LARGEST_MESSAGE_BYTES,
    MOST_CREDIT_FRAMES,
    MOST_FETCHES,
    POLL_MS,
    STALL_LIMIT_S,
)

_LOG = logging.getLogger(__name__)
_JOIN_LIMIT_S = 5.0


@dataclass(slots=True)
class _Sending:
    """A fetch in progress. `last_heard_s` is when its reader last gave credit."""

    peer: bytes
    fetch: Fetch
    frames: Iterator[FrameOfBlocks]
    credit: int
    last_heard_s: float
    number: int = 0


@dataclass(slots=True)
class KvHolder:
    """Serves one worker's blocks at `host:port` until `close`. `epoch` is the engine id.

    Memory is bounded: a reader gets at most MOST_CREDIT_FRAMES frames ahead of what it has
    consumed, and frames from host memory are views of the KV cache where blocks are contiguous.
    """

    host: str
    port: int
    epoch: str
    leases: LeaseTable
    now: Callable[[], float]
    keys: CurveKeys | None = None
    _memory: KvMemory | None = None
    _sending: dict[tuple[bytes, int], _Sending] = field(default_factory=dict)
    _turns: deque[tuple[bytes, int]] = field(default_factory=deque)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _context: "zmq.Context[zmq.Socket[bytes]]" = field(default_factory=zmq.Context)

    def start(self, memory: KvMemory | None) -> None:
        """Starts to listen. Raises ConfigError when the port is taken."""
        self._memory = memory
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, 2 * MOST_CREDIT_FRAMES * MOST_FETCHES)
        socket.setsockopt(zmq.IPV6, int(":" in self.host))
        if self.keys is not None:
            self.keys.protect_listener(socket)
        try:
            socket.bind(socket_address(self.host, self.port))
        except zmq.ZMQError as error:
            socket.close()
            raise ConfigError(
                f"Port {self.port} on {self.host} cannot be had for KV ({error}); "
                "free it or give this engine another with --kv-port."
            ) from error
        self._thread = threading.Thread(
            target=self._run, args=(socket,), name="kv-holder", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_LIMIT_S)
        self._context.destroy(linger=0)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self, socket: "zmq.Socket[bytes]") -> None:
        while not self._stop.is_set():
            try:
                self._turn(socket)
            except zmq.ContextTerminated:
                return
            except Exception:  # noqa: BLE001 - without this port every reader recomputes
                _LOG.exception("A message at the KV port failed.")
        socket.close()

    def _turn(self, socket: "zmq.Socket[bytes]") -> None:
        """Handles all pending messages, then sends one frame of each fetch with credit."""
        can_send = any(one.credit > 0 for one in self._sending.values())
        if can_send or socket.poll(POLL_MS):
            self._receive(socket)
        if can_send:
            self._send_round(socket)
        self._drop_stalled()

    def _receive(self, socket: "zmq.Socket[bytes]") -> None:
        while is_readable(socket):
            peer, *parts = socket.recv_multipart()
            try:
                message = decode_to_holder(parts)
            except BadMessage as error:
                _LOG.warning("KV port: %s", error)
                continue
            answer = self._handle(peer, message)
            if answer is not None:
                self._say(socket, peer, answer)

    def _handle(self, peer: bytes, message: ToHolder) -> ToReader | None:
        if isinstance(message, Credit | Cancel):
            self._steer(peer, message)
            return None
        mine = message.epoch == self.epoch
        if isinstance(message, Confirm):
            held = mine and self.leases.confirm(message.request_id, readers=message.readers)
            return Confirmed(ask_id=message.ask_id, held=held)
        if isinstance(message, Fetch):
            return self._begin(peer, message, mine)
        if mine and isinstance(message, Renew):
            self.leases.renew(message.request_ids, self.now())
        if mine and isinstance(message, Release):
            self.leases.release(message.request_ids)
        return None

    def _steer(self, peer: bytes, message: Credit | Cancel) -> None:
        key = (peer, message.fetch_id)
        sending = self._sending.get(key)
        if sending is None:
            return
        if isinstance(message, Cancel):
            self._end(key)
        else:
            sending.credit = min(MOST_CREDIT_FRAMES, sending.credit + max(0, message.frames))
            sending.last_heard_s = self.now()

    def _begin(self, peer: bytes, fetch: Fetch, mine: bool) -> Refused | None:
        reason = self._objection(fetch, mine)
        if reason is None:
            assert self._memory is not None
            try:
                self._memory.layout.checked(fetch.blocks)
            except (BadBlocks, OverflowError) as error:
                reason = str(error)
        if reason is not None:
            return Refused(fetch_id=fetch.fetch_id, reason=reason)
        assert self._memory is not None
        key = (peer, fetch.fetch_id)
        self._sending[key] = _Sending(
            peer=peer,
            fetch=fetch,
            frames=self._memory.layout.frames(fetch.blocks, FRAME_BYTES),
            credit=min(MOST_CREDIT_FRAMES, max(0, fetch.credit)),
            last_heard_s=self.now(),
        )
        self._turns.append(key)
        return None

    def _objection(self, fetch: Fetch, mine: bool) -> str | None:
        if not mine:
            return "The engine was started again since it computed this prompt."
        if self._memory is None:
            return "This engine sends no blocks over ZMQ."
        if fetch.layout != self._memory.layout.signature:
            return "The KV caches of the two engines are laid out differently."
        if not self.leases.is_held(fetch.request_id):
            return "The blocks are not held any more."
        if len(self._sending) >= MOST_FETCHES:
            return f"More than {MOST_FETCHES} transfers run already."
        return None

    def _send_round(self, socket: "zmq.Socket[bytes]") -> None:
        for _ in range(len(self._turns)):
            key = self._turns[0]
            self._turns.rotate(-1)
            sending = self._sending.get(key)
            if sending is not None and sending.credit > 0:
                self._send_frame(socket, key, sending)

    def _send_frame(
        self, socket: "zmq.Socket[bytes]", key: tuple[bytes, int], sending: _Sending
    ) -> None:
        frame = next(sending.frames, None)
        if frame is None:
            self._end(key)
            return
        assert self._memory is not None
        parts, total = self._memory.read(frame)
        head = Frame(
            epoch=self.epoch,
            request_id=sending.fetch.request_id,
            fetch_id=sending.fetch.fetch_id,
            number=sending.number,
            first_layer=frame.first_layer,
            last_layer=frame.last_layer,
            checksum=total,
        )
        try:
            message: list[Any] = [sending.peer, encode(head), *parts]
            socket.send_multipart(message, flags=zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                _LOG.info("KV port: a reader left in the middle of a transfer.")
                self._end(key)
                return
            raise
        sending.credit -= 1
        sending.number += 1

    def _say(self, socket: "zmq.Socket[bytes]", peer: bytes, answer: ToReader) -> None:
        try:
            socket.send_multipart([peer, encode(answer)], flags=zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise

    def _drop_stalled(self) -> None:
        oldest_s = self.now() - STALL_LIMIT_S
        stalled = [key for key, one in self._sending.items() if one.last_heard_s < oldest_s]
        for key in stalled:
            self._end(key)

    def _end(self, key: tuple[bytes, int]) -> None:
        self._sending.pop(key, None)
        if key in self._turns:
            self._turns.remove(key)
