"""The wire between the engine host and the scheduler inside the engine core process: reports up,
policies down. No decisions.

Both ends live on one machine; a report that finds the pipe full is dropped and counted, since the
next one says more.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq
from zmq.asyncio import Context as AsyncContext
from zmq.asyncio import Socket as AsyncSocket

from shared.engines import Policy, StepReport

_LINGER_MS = 0
_HIGH_WATER = 10_000

_to_wire = msgspec.msgpack.Encoder().encode
_report_from_wire = msgspec.msgpack.Decoder(StepReport).decode
_policy_from_wire = msgspec.msgpack.Decoder(Policy).decode


class SchedulerEnd:
    """The end inside the engine core. Never blocks a step."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        self._socket.connect(address)
        self.dropped_reports = 0

    def report(self, report: StepReport) -> None:
        try:
            self._socket.send(_to_wire(report), zmq.NOBLOCK)
        except zmq.Again:
            self.dropped_reports += 1

    def newest_policy(self) -> Policy | None:
        """The last policy that arrived since the call before, or None."""
        newest: bytes | None = None
        while self._socket.poll(0):
            newest = self._socket.recv(zmq.NOBLOCK)
        return None if newest is None else _policy_from_wire(newest)

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@dataclass(slots=True)
class HostEnd:
    """The end inside the engine host."""

    socket: AsyncSocket

    @classmethod
    def bind(cls, path: Path) -> "HostEnd":
        """Listens on a Unix socket at `path` (at most about 100 characters long)."""
        socket = AsyncContext.instance().socket(zmq.PAIR)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        socket.bind(f"ipc://{path}")
        return cls(socket)

    async def next_report(self) -> StepReport:
        report: StepReport = _report_from_wire(await self.socket.recv())
        return report

    async def send_policy(self, policy: Policy) -> None:
        """Gives the policy to the scheduler, which reads it at its next step."""
        await self.socket.send(_to_wire(policy))

    def close(self) -> None:
        self.socket.close()
