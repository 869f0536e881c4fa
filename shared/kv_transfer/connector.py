"""Our KV connector as vLLM loads it.

It keeps the name of vLLM's NIXL connector, because vLLM recognizes disaggregated prefill by that
name; the engine host points vLLM to this module.
"""

from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import NixlBaseConnector
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

from shared.engines import KvTransfer
from shared.kv_transfer.metadata import KvMetadata, WorkerTransfers
from shared.kv_transfer.scheduler import KvScheduler
from shared.kv_transfer.worker import KvWorker


class NixlConnector(NixlBaseConnector):
    """Pulls KV over NIXL or ZMQ, and uses it only after its holder has confirmed it."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._scheduler: KvScheduler | None = None
        self._worker: KvWorker | None = None
        if role is KVConnectorRole.SCHEDULER:
            self._scheduler = KvScheduler(vllm_config, self.engine_id, kv_cache_config)
            self.connector_scheduler = self._scheduler
        else:
            rank = get_tensor_model_parallel_rank()
            self._worker = KvWorker(vllm_config, self.engine_id, kv_cache_config, rank)
            self.connector_worker = self._worker.nixl

    def take_transfers(self) -> list[KvTransfer]:
        """Scheduler side: transfers that ended since the last call."""
        return self._scheduler.take_transfers() if self._scheduler is not None else []

    # -- in a worker --------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self._own_worker.register(kv_caches)

    def set_host_xfer_buffer_ops(self, copy_operation: Any) -> None:
        if self.connector_worker is not None:
            super().set_host_xfer_buffer_ops(copy_operation)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        del forward_context, kwargs
        assert isinstance(self._connector_metadata, KvMetadata)
        self._own_worker.start(self._connector_metadata)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        del finished_req_ids
        return self._own_worker.finished()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str], set[str]]:
        results = self.get_transfer_results(finished_req_ids)
        return results.finished_sending, results.finished_recving

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Failures are reported by request, which works for every layout of blocks."""
        return set()

    def build_connector_worker_meta(self) -> WorkerTransfers | None:
        transfers = self._own_worker.take_transfers()
        return WorkerTransfers(transfers) if transfers else None

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        return super().get_kv_connector_stats() if self.connector_worker is not None else None

    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata | None:
        return super().get_handshake_metadata() if self.connector_worker is not None else None

    def wait_for_save(self) -> None:
        metadata = self._connector_metadata
        worker: Any = self.connector_worker
        if worker is not None and worker.use_host_buffer and worker.copy_blocks:
            assert isinstance(metadata, KvMetadata)
            worker.save_kv_to_host(metadata.nixl)

    def shutdown(self) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._scheduler is not None:
            self._scheduler.shutdown()

    @property
    def _own_worker(self) -> KvWorker:
        assert self._worker is not None, "only in a worker"
        return self._worker
