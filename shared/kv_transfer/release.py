"""Releases KV blocks that an engine host's own core holds for a reader."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import zmq

from shared.kv_transfer.callers import Callers
from shared.kv_transfer.curve import CurveKeys
from shared.kv_transfer.messages import Release, encode


@dataclass(slots=True)
class LeaseReleaser:
    """Sends to the KV ports of the `workers` of one engine. It never blocks."""

    host: str
    port: int
    workers: int
    epoch: str
    keys: CurveKeys | None = None
    _callers: Callers = field(init=False)

    def __post_init__(self) -> None:
        self._callers = Callers(zmq.Context(), self.keys)

    def release(self, request_ids: Sequence[str]) -> None:
        """Releases the blocks of requests; others are ignored. With a full pipe, leases expire."""
        message = encode(Release(epoch=self.epoch, request_ids=list(request_ids)))
        for worker in range(self.workers):
            with suppress(zmq.Again):
                self._callers.to(self.host, self.port + worker).send(message, zmq.NOBLOCK)

    def close(self) -> None:
        self._callers.context.destroy(linger=0)
