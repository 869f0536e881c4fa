"""Fetches KV blocks from the KV ports of other engines, in a separate thread.

Blocks count as fetched only after the holder has confirmed that they were held until all had
arrived. Any failure before that ends in a result that names it.
"""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import zmq

from shared.kv_transfer.callers import Callers, is_readable
from shared.kv_transfer.curve import CurveKeys
from shared.kv_transfer.layout import BadBlocks, Bytes
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
    decode_to_reader,
    encode,
)
from shared.kv_transfer.reads import (
    Asking,
    KvPeer,
    Reading,
    ReadOutcome,
    ReadRequest,
    ReadResult,
    fault_in_frame,
)
from shared.kv_transfer.tuning import (
    CONFIRM_LIMIT_S,
    CREDIT_FRAMES,
    FETCHES_AT_ONCE,
    FRAME_BYTES,
    POLL_MS,
    STALL_LIMIT_S,
)

_LOG = logging.getLogger(__name__)
_JOIN_LIMIT_S = 5.0
_WAKE_ADDRESS = "inproc://wake"


@dataclass(slots=True)
class KvReader:
    """One thread for all holders. Methods return at once; `take_results` returns the results."""

    now: Callable[[], float]
    keys: CurveKeys | None = None
    _memory: KvMemory | None = None
    _commands: deque[Callable[[], None]] = field(default_factory=deque)
    _results: deque[ReadResult] = field(default_factory=deque)
    _waiting: deque[ReadRequest] = field(default_factory=deque)
    _reading: dict[int, Reading] = field(default_factory=dict)
    _asking: dict[int, Asking] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _context: "zmq.Context[zmq.Socket[bytes]]" = field(default_factory=zmq.Context)
    _callers: Callers = field(init=False)
    _wake: "zmq.Socket[bytes] | None" = None

    def start(self, memory: KvMemory | None) -> None:
        """Starts the thread. `memory` receives fetched blocks; None if the reader only confirms."""
        self._memory = memory
        woken = self._context.socket(zmq.PAIR)
        woken.bind(_WAKE_ADDRESS)
        self._wake = self._context.socket(zmq.PAIR)
        self._wake.connect(_WAKE_ADDRESS)
        self._callers = Callers(self._context, self.keys, watches=True)
        self._callers.watch(woken)
        self._thread = threading.Thread(
            target=self._run, args=(woken,), name="kv-reader", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._nudge()
            self._thread.join(_JOIN_LIMIT_S)
        self._context.destroy(linger=0)

    # -- from the engine core's thread ----------------------------------------------------------

    def fetch(self, request: ReadRequest) -> None:
        """Fetches the blocks, then asks for their confirmation."""
        self._do(lambda: self._waiting.append(request))

    def confirm(self, request: ReadRequest, moved_bytes: int, began_s: float) -> None:
        """Asks whether blocks that came over another transport were held until now."""
        self._do(lambda: self._ask(request, began_s, moved_bytes))

    def renew(self, peer: KvPeer, request_ids: Sequence[str]) -> None:
        """Keeps the leases of requests that still wait here."""
        self._do(lambda: self._tell(peer, Renew(epoch=peer.epoch, request_ids=list(request_ids))))

    def release(self, peer: KvPeer, request_ids: Sequence[str]) -> None:
        """Releases blocks that are not needed."""
        message = Release(epoch=peer.epoch, request_ids=list(request_ids))
        self._do(lambda: self._tell(peer, message))

    def take_results(self) -> list[ReadResult]:
        """Transfers and confirmations that ended since the last call."""
        taken = []
        while self._results:
            taken.append(self._results.popleft())
        return taken

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._nudge()

    def _nudge(self) -> None:
        assert self._wake is not None, "start the reader first"
        with suppress(zmq.Again):  # it is awake already
            self._wake.send(b"", zmq.NOBLOCK)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self, woken: "zmq.Socket[bytes]") -> None:
        while not self._stop.is_set():
            try:
                self._turn(woken)
            except zmq.ContextTerminated:
                return
            except Exception:  # noqa: BLE001 - requests wait for this thread
                _LOG.exception("A message from a KV port failed.")

    def _turn(self, woken: "zmq.Socket[bytes]") -> None:
        readable, broken = self._callers.poll(POLL_MS)
        for socket in readable:
            if socket is woken:
                woken.recv()
            else:
                self._receive(socket)
        for host, port in broken:
            self._lose(host, port)
        while self._commands:
            self._commands.popleft()()
        self._begin_more()
        self._end_late()

    def _begin_more(self) -> None:
        while self._waiting and len(self._reading) < FETCHES_AT_ONCE:
            self._begin(self._waiting.popleft())

    def _begin(self, request: ReadRequest) -> None:
        assert self._memory is not None
        now, layout = self.now(), self._memory.layout
        try:
            frames = list(layout.frames(request.local_blocks, FRAME_BYTES))
        except BadBlocks as error:
            self._give(request, ReadOutcome.LOST, 0, now, str(error))
            return
        if not frames:
            self._ask(request, now, 0)
            return
        number = next(self._numbers)
        self._reading[number] = Reading(
            request=request, began_s=now, last_heard_s=now, frames=frames
        )
        fetch = Fetch(
            epoch=request.peer.epoch,
            request_id=request.remote_request_id,
            fetch_id=number,
            layout=layout.signature,
            blocks=[[int(one) for one in group] for group in request.remote_blocks],
            credit=CREDIT_FRAMES,
        )
        self._tell(request.peer, fetch)

    def _ask(self, request: ReadRequest, began_s: float, moved_bytes: int) -> None:
        number = next(self._numbers)
        self._asking[number] = Asking(
            request=request, began_s=began_s, asked_s=self.now(), moved_bytes=moved_bytes
        )
        message = Confirm(
            epoch=request.peer.epoch,
            request_id=request.remote_request_id,
            ask_id=number,
            readers=request.readers,
        )
        self._tell(request.peer, message)

    def _receive(self, socket: "zmq.Socket[bytes]") -> None:
        for _ in range(CREDIT_FRAMES):  # then other sockets have their turn
            if not is_readable(socket):
                return
            head, *parts = socket.recv_multipart(copy=False)
            try:
                message = decode_to_reader(head.bytes)
            except BadMessage as error:
                _LOG.warning("KV reader: %s", error)
                continue
            if isinstance(message, Frame):
                self._take(message, [np.frombuffer(one.buffer, dtype=np.uint8) for one in parts])
            elif isinstance(message, Refused):
                self._fail(message.fetch_id, ReadOutcome.LOST, message.reason)
            elif isinstance(message, Confirmed):
                self._answer(message)

    def _take(self, frame: Frame, parts: list[Bytes]) -> None:
        reading = self._reading.get(frame.fetch_id)
        if reading is None:
            return  # the fetch has ended
        wrong = fault_in_frame(reading, frame, parts) or self._write(reading, frame, parts)
        if wrong:
            self._tell(reading.request.peer, Cancel(fetch_id=frame.fetch_id))
            self._fail(frame.fetch_id, ReadOutcome.CORRUPT, wrong)
            return
        own = reading.frames[reading.number]
        reading.number += 1
        reading.moved_bytes += own.size_bytes
        reading.last_heard_s = self.now()
        if reading.number == len(reading.frames):
            del self._reading[frame.fetch_id]
            self._ask(reading.request, reading.began_s, reading.moved_bytes)
            return
        reading.consumed += 1
        if reading.consumed >= CREDIT_FRAMES // 2:
            credit = Credit(fetch_id=frame.fetch_id, frames=reading.consumed)
            self._tell(reading.request.peer, credit)
            reading.consumed = 0

    def _write(self, reading: Reading, frame: Frame, parts: list[Bytes]) -> str:
        """Writes before the check: the blocks of a failed transfer are not used."""
        assert self._memory is not None
        try:
            total = self._memory.write(reading.frames[reading.number], parts)
        except BadBlocks as error:
            return str(error)
        return "" if total == frame.checksum else "A frame's checksum is wrong."

    def _answer(self, answer: Confirmed) -> None:
        asking = self._asking.pop(answer.ask_id, None)
        if asking is None:
            return
        outcome = ReadOutcome.OK if answer.held else ReadOutcome.LOST
        reason = "" if answer.held else "The blocks were not held until they had arrived."
        self._give(asking.request, outcome, asking.moved_bytes, asking.began_s, reason)

    def _lose(self, host: str, port: int) -> None:
        reason = f"The connection to the KV port {host}:{port} broke or cannot be made."
        for number, reading in list(self._reading.items()):
            if (reading.request.peer.host, reading.request.peer.port) == (host, port):
                self._fail(number, ReadOutcome.LOST, reason)
        for number, asking in list(self._asking.items()):
            if (asking.request.peer.host, asking.request.peer.port) == (host, port):
                self._leave(number, ReadOutcome.LOST, reason)

    def _end_late(self) -> None:
        now = self.now()
        for number, reading in list(self._reading.items()):
            if now - reading.last_heard_s > STALL_LIMIT_S:
                self._tell(reading.request.peer, Cancel(fetch_id=number))
                self._fail(number, ReadOutcome.STALLED, f"Nothing came for {STALL_LIMIT_S:g} s.")
        for number, asking in list(self._asking.items()):
            if now - asking.asked_s > CONFIRM_LIMIT_S:
                reason = f"The holder did not confirm within {CONFIRM_LIMIT_S:g} s."
                self._leave(number, ReadOutcome.STALLED, reason)

    def _fail(self, number: int, outcome: ReadOutcome, reason: str) -> None:
        reading = self._reading.pop(number, None)
        if reading is not None:
            self._give(reading.request, outcome, reading.moved_bytes, reading.began_s, reason)

    def _leave(self, number: int, outcome: ReadOutcome, reason: str) -> None:
        asking = self._asking.pop(number)
        self._give(asking.request, outcome, asking.moved_bytes, asking.began_s, reason)

    def _give(
        self,
        request: ReadRequest,
        outcome: ReadOutcome,
        moved_bytes: int,
        began_s: float,
        reason: str,
    ) -> None:
        self._results.append(
            ReadResult(
                request_id=request.request_id,
                outcome=outcome,
                moved_bytes=moved_bytes,
                seconds=self.now() - began_s,
                reason=reason,
            )
        )

    def _tell(self, peer: KvPeer, message: ToHolder) -> None:
        try:
            self._callers.to(peer.host, peer.port).send(encode(message), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # The transfer then ends by its time limits.
            _LOG.warning("KV port %s:%d cannot be reached: %s", peer.host, peer.port, error)
