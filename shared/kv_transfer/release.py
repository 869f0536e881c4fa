"""How an engine host gives up KV blocks that its own engine core holds for a reader."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import zmq

from shared.kv_transfer.callers import Callers
from shared.kv_transfer.curve import CurveKeys
from shared.kv_transfer.messages import Release, encode


@dataclass(slots=True)
class LeaseReleaser:
    """Talks to the KV ports of the `workers` of one engine. It never blocks."""

    host: str
    port: int
    workers: int
    epoch: str
    keys: CurveKeys | None = None
    _callers: Callers = field(init=False)

    def __post_init__(self) -> None:
        self._callers = Callers(zmq.Context(), self.keys)

    def release(self, request_ids: Sequence[str]) -> None:
        """Requests that hold nothing are ignored. A full pipe leaves the blocks to their lease."""
        message = encode(Release(epoch=self.epoch, request_ids=list(request_ids)))
        for worker in range(self.workers):
            with suppress(zmq.Again):
                self._callers.to(self.host, self.port + worker).send(message, zmq.NOBLOCK)

    def close(self) -> None:
        self._callers.context.destroy(linger=0)
