"""Moves blocks over the KV ports of two processes as engines do, with confirmation."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.bench.kv_layout import Bytes, KvLayout, Numbers
from shared.errors import DeadlinePassed, SlosError
from shared.kv_transfer.curve import CurveKeys
from shared.kv_transfer.holder import KvHolder
from shared.kv_transfer.layout import BlockLayout, Region
from shared.kv_transfer.leases import LeaseTable
from shared.kv_transfer.malloc import keep_freed_memory
from shared.kv_transfer.memory import HostMemory
from shared.kv_transfer.reader import KvReader
from shared.kv_transfer.reads import KvPeer, ReadOutcome, ReadRequest
from shared.ports import LOOPBACK, FreePorts

_EPOCH, _REQUEST = "bench", "bench"
_NEVER_ENDS = 1 << 30  # number of readers: the lease outlives every confirmation
_LOOK_EVERY_S = 0.0002


class TransferFailed(SlosError):
    """The KV port did not deliver."""


def memory_of(layout: KvLayout, memory: Bytes) -> HostMemory:
    """The bench's memory as a KV cache."""
    regions = tuple(
        Region(
            layer=layer,
            group=0,
            memory=0,
            offset_bytes=layer * layout.blocks * layout.block_bytes,
            stride_bytes=layout.block_bytes,
            block_bytes=layout.block_bytes,
        )
        for layer in range(layout.layers)
    )
    blocks = BlockLayout(regions=regions, blocks=layout.blocks)
    return HostMemory(blocks, [memory.reshape(-1)])


def start_holder(
    layout: KvLayout, memory: Bytes, now: Callable[[], float], keys: CurveKeys | None
) -> KvHolder:
    """Serves all of `memory` on a free port of loopback until it is closed."""
    keep_freed_memory()
    leases = LeaseTable(extension_s=0.0)
    leases.expect([_REQUEST])
    with FreePorts() as ports:
        port = ports.pick()
    holder = KvHolder(LOOPBACK, port, _EPOCH, leases, now, keys)
    holder.start(memory_of(layout, memory))
    return holder


@dataclass(slots=True)
class ZmqReader:
    """The side that fetches."""

    reader: KvReader
    port: int
    layout: KvLayout
    now: Callable[[], float]
    limit_s: float

    @classmethod
    def connect(
        cls,
        port: int,
        layout: KvLayout,
        memory: Bytes,
        now: Callable[[], float],
        limit_s: float,
        keys: CurveKeys | None = None,
    ) -> "ZmqReader":
        keep_freed_memory()
        reader = KvReader(now, keys)
        reader.start(memory_of(layout, memory))
        return cls(reader, port, layout, now, limit_s)

    def read(self, local: Numbers, remote: Numbers) -> float:
        """Fetches `remote` blocks into `local` ones; returns seconds.

        Raises TransferFailed and DeadlinePassed.
        """
        started_at_s = self.now()
        self.reader.fetch(
            ReadRequest(
                request_id=_REQUEST,
                remote_request_id=_REQUEST,
                peer=KvPeer(epoch=_EPOCH, host=LOOPBACK, port=self.port),
                remote_blocks=[self._blocks(remote)],
                local_blocks=[self._blocks(local)],
                readers=_NEVER_ENDS,
            )
        )
        while not (results := self.reader.take_results()):
            if self.now() - started_at_s > self.limit_s:
                raise DeadlinePassed(f"Nothing came over ZMQ within {self.limit_s:g} s.")
            time.sleep(_LOOK_EVERY_S)
        if results[0].outcome is not ReadOutcome.OK:
            raise TransferFailed(f"ZMQ: {results[0].reason}")
        return self.now() - started_at_s

    def close(self) -> None:
        self.reader.close()

    def _blocks(self, numbers: Numbers) -> list[int]:
        """Block ids of descriptors; these are the same in every layer."""
        ids: list[int] = numbers[: len(numbers) // self.layout.layers].tolist()
        return ids
