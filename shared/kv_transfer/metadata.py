"""Messages between the halves of the KV connector, and a transfer as a worker keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import (
    NixlConnectorMetadata,
    ReqMeta,
)

from shared.engines import KvTransfer
from shared.kv_transfer.settings import HolderPort


@dataclass(slots=True)
class KvMetadata(KVConnectorMetadata):
    """Sent to the workers at each step. `holders` are the KV ports of the engines in `nixl`."""

    nixl: NixlConnectorMetadata
    holders: dict[str, HolderPort]


def bytes_of(kv_cache_config: Any, block_ids: Sequence[Sequence[int]]) -> int:
    """Bytes of these blocks, given by KV cache group, at one worker."""
    return sum(
        len(group.layer_names) * len(blocks) * int(group.kv_cache_spec.page_size_bytes)
        for group, blocks in zip(kv_cache_config.transfer_groups, block_ids, strict=False)
    )


def joined(one: KvTransfer, other: KvTransfer) -> KvTransfer:
    """Joins the transfers of one request at two workers of one engine."""
    worse = other if one.used else one
    return replace(worse, bytes=one.bytes + other.bytes, seconds=max(one.seconds, other.seconds))


@dataclass(slots=True)
class WorkerTransfers(KVConnectorWorkerMetadata):
    """Transfers that ended at a worker in one step."""

    transfers: list[KvTransfer] = field(default_factory=list)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> "WorkerTransfers":
        """The transfers of both workers."""
        assert isinstance(other, WorkerTransfers)
        return WorkerTransfers([*self.transfers, *other.transfers])


@dataclass(slots=True)
class Load:
    """A transfer of one request's KV to this worker."""

    meta: ReqMeta
    holder: HolderPort
    carrier: str
    began_s: float
    awaited_confirmations: int = 0
    moved_bytes: int = 0

    def ended(self, request_id: str, outcome: str, now: float) -> KvTransfer:
        return KvTransfer(
            request_id=request_id,
            peer_engine_id=self.meta.remote.engine_id,
            transport=self.carrier,
            bytes=self.moved_bytes,
            seconds=now - self.began_s,
            outcome=outcome,
        )
