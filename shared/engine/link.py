"""The wire between the engine host and the scheduler inside the engine core process: the layout of
the KV cache and reports up, policies and a profile down.

Both ends live on one machine; a report that finds the pipe full is dropped and counted, since the
next one says more.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq
from zmq.asyncio import Context as AsyncContext
from zmq.asyncio import Socket as AsyncSocket

from shared.engine.kv_layout import KvLayout
from shared.engines import Policy, StepReport

_LINGER_MS = 0
_BEAT_S = 0.25
_HIGH_WATER = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """What the host tells the scheduler; None where it says nothing of it.

    `profile`: a fit of step times as `shared.batch_time.to_plain` gives it.
    """

    policy: Policy | None = None
    profile: dict[str, Any] | None = None


_to_wire = msgspec.msgpack.Encoder().encode
_message_from_wire = msgspec.msgpack.Decoder(list[StepReport] | KvLayout).decode
_instructions_from_wire = msgspec.msgpack.Decoder(Instructions).decode


class HostLink(Protocol):
    """What a scheduler says to its host, and hears from it."""

    def beat_while(self, is_idle: Callable[[], bool], now_s: Callable[[], float]) -> None: ...

    def beat(self, now_s: float) -> None: ...

    def report(self, reports: Sequence[StepReport]) -> bool: ...

    def tell_layout(self, layout: KvLayout) -> None: ...

    def news(self) -> Instructions | None: ...

    def close(self) -> None: ...


class SchedulerEnd:
    """The end inside the engine core. Never blocks a step. Safe to use from several threads."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        self._socket.connect(address)
        self.dropped_reports = 0
        self._beat_at_s = -math.inf
        self._one_at_a_time = threading.Lock()
        self._closed = threading.Event()

    def beat_while(self, is_idle: Callable[[], bool], now_s: Callable[[], float]) -> None:
        """From now on tells that the core lives while it has nothing to form steps of: what was
        sent to it may still be on its way there, behind a grammar that is made ready.
        """

        def beat_on() -> None:
            while not self._closed.wait(_BEAT_S):
                if is_idle():
                    self.beat(now_s())

        threading.Thread(target=beat_on, name="slos-beat", daemon=True).start()

    def beat(self, now_s: float) -> None:
        """Tells now and then, by a message without reports, that the core forms steps."""
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + _BEAT_S
            self.report(())

    def report(self, reports: Sequence[StepReport]) -> bool:
        """In one message: a message costs more than its content. Whether it is on its way."""
        sent = self._send(reports)
        self.dropped_reports += 0 if sent else len(reports)
        return sent

    def tell_layout(self, layout: KvLayout) -> None:
        """Tells of the KV cache, once and before any report."""
        self._send(layout)

    def _send(self, message: Sequence[StepReport] | KvLayout) -> bool:
        with self._one_at_a_time:
            if self._closed.is_set():
                return False
            try:
                self._socket.send(_to_wire(message), zmq.NOBLOCK)
            except zmq.Again:
                return False
            return True

    def news(self) -> Instructions | None:
        """The last of each that arrived since the call before, or None."""
        with self._one_at_a_time:
            if not self._has_news():
                return None
            policy, profile = None, None
            while self._has_news():
                one = _instructions_from_wire(self._socket.recv(zmq.NOBLOCK))
                policy, profile = one.policy or policy, one.profile or profile
            return Instructions(policy=policy, profile=profile)

    def _has_news(self) -> bool:
        # Asked in every step: a poll takes ten times as long.
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def close(self) -> None:
        self._closed.set()
        with self._one_at_a_time:
            self._socket.close()
        self._context.term()


@dataclass(slots=True)
class HostEnd:
    """The end inside the engine host. `on_sign` hears of every message, of one without reports as
    well.
    """

    socket: AsyncSocket
    on_sign: Callable[[], None] = lambda: None

    @classmethod
    def bind(cls, path: Path) -> "HostEnd":
        """Listens on a Unix socket at `path` (at most about 100 characters long)."""
        socket = AsyncContext.instance().socket(zmq.PAIR)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        socket.bind(f"ipc://{path}")
        return cls(socket)

    async def layout(self) -> KvLayout:
        """Waits for the layout of the KV cache; call it before the first `next_reports`."""
        while True:
            message = await self._next()
            if isinstance(message, KvLayout):
                return message

    async def next_reports(self) -> list[StepReport]:
        """Of one step or of several, oldest first."""
        while True:
            message = await self._next()
            if message and not isinstance(message, KvLayout):
                return message

    async def _next(self) -> list[StepReport] | KvLayout:
        message: list[StepReport] | KvLayout = _message_from_wire(await self.socket.recv())
        self.on_sign()
        return message

    async def send_policy(self, policy: Policy) -> None:
        """Gives the policy to the scheduler, which reads it at its next step."""
        await self.socket.send(_to_wire(Instructions(policy=policy)))

    async def send_profile(self, profile: dict[str, Any]) -> None:
        """The same with a fit of step times, from which the scheduler goes on learning."""
        await self.socket.send(_to_wire(Instructions(profile=profile)))

    def close(self) -> None:
        self.socket.close()
