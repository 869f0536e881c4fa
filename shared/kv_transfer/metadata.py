"""What our KV connector's two halves, in vLLM's scheduler and in its workers, tell each other."""

from dataclasses import dataclass, field, replace

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import NixlConnectorMetadata

from shared.engines import KvTransfer
from shared.kv_transfer.settings import HolderPort


@dataclass(slots=True)
class KvMetadata(KVConnectorMetadata):
    """For the workers, at each step. `holders`: the KV ports of the engines named in `nixl`."""

    nixl: NixlConnectorMetadata
    holders: dict[str, HolderPort]


def joined(one: KvTransfer, other: KvTransfer) -> KvTransfer:
    """The transfers of the same request at two workers of one engine as one."""
    worse = other if one.used else one
    return replace(worse, bytes=one.bytes + other.bytes, seconds=max(one.seconds, other.seconds))


@dataclass(slots=True)
class WorkerTransfers(KVConnectorWorkerMetadata):
    """Transfers that ended at a worker in one step."""

    transfers: list[KvTransfer] = field(default_factory=list)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> "WorkerTransfers":
        """Those of two workers."""
        assert isinstance(other, WorkerTransfers)
        return WorkerTransfers([*self.transfers, *other.transfers])
