"""The KV connector's half in a vLLM worker: leases, transfers, and their confirmation."""

import logging
import time
from collections.abc import Iterable
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorTransferResults
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import (
    NixlConnectorMetadata,
    ReqMeta,
)

from shared.engines import KV_USED, KvTransfer
from shared.errors import ConfigError
from shared.kv_transfer.curve import keys_from
from shared.kv_transfer.holder import KvHolder
from shared.kv_transfer.layout import warm_up
from shared.kv_transfer.leases import LeaseEnd, LeaseTable
from shared.kv_transfer.malloc import keep_freed_memory
from shared.kv_transfer.memory import KvMemory, kv_memory
from shared.kv_transfer.metadata import KvMetadata, Load, bytes_of
from shared.kv_transfer.pairs import NIXL, ZMQ, Pairs, facing, usable
from shared.kv_transfer.reader import KvReader
from shared.kv_transfer.reads import KvPeer, ReadOutcome, ReadRequest, ReadResult
from shared.kv_transfer.settings import HolderPort, KvSettings, KvTransport

_LOG = logging.getLogger(__name__)
_NO_TRANSPORT = "no transport in common"
_NOWHERE = HolderPort(host="", port=0, carriers=())


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - vLLM calls us without a clock


class KvWorker:
    """One per worker. `nixl` is vLLM's worker for NIXL, None if NIXL is not used."""

    def __init__(self, config: Any, engine_id: str, kv_cache_config: Any, rank: int) -> None:
        transfer = config.kv_transfer_config
        self._settings = KvSettings.from_plain(transfer.kv_connector_extra_config["slos"])
        self._kv_cache_config = kv_cache_config
        self._rank = rank
        self._workers = int(config.parallel_config.tensor_parallel_size)
        keys = keys_from(self._settings.secret_file)
        self.nixl = self._nixl_worker(config, engine_id, kv_cache_config)
        self._leases = LeaseTable(extension_s=self._settings.lease_s * 2 / 3)
        self._holder = KvHolder(
            self._settings.host,
            self._settings.port + rank,
            engine_id,
            self._leases,
            _now_s,
            keys,
        )
        self._reader = KvReader(_now_s, keys)
        self._pairs = Pairs(self._settings.transport)
        self._loads: dict[str, Load] = {}
        self._transfers: list[KvTransfer] = []
        self._failed: set[str] = set()
        self._spoken: tuple[str, ...] = ()

    def _nixl_worker(self, config: Any, engine_id: str, kv_cache_config: Any) -> Any:
        if NIXL not in self._settings.transport.carriers:
            return None
        # NIXL takes seconds to load, and is not installed on every machine
        from shared.kv_transfer.nixl_reads import NixlReads

        try:
            return NixlReads(config, engine_id, kv_cache_config)
        except Exception as error:
            if self._settings.transport is not KvTransport.AUTO:
                raise
            _LOG.warning("NIXL does not start here (%s): KV moves over ZMQ alone.", error)
            return None

    # -- set-up -------------------------------------------------------------------------------

    def register(self, caches: dict[str, Any]) -> None:
        """Takes vLLM's KV caches and opens the KV port. Raises ConfigError."""
        warm_up()
        keep_freed_memory()
        if self.nixl is not None:
            self.nixl.register_kv_caches(caches)
        memory = self._memory(caches)
        self._holder.start(memory)
        self._reader.start(memory)
        self._spoken = tuple(
            one
            for one, works in ((NIXL, self.nixl is not None), (ZMQ, memory is not None))
            if works
        )

    def _memory(self, caches: dict[str, Any]) -> KvMemory | None:
        if ZMQ not in self._settings.transport.carriers:
            return None
        groups = [group.layer_names for group in self._kv_cache_config.transfer_groups]
        try:
            return kv_memory(caches, groups, self._kv_cache_config.num_blocks)
        except ConfigError as error:
            if self.nixl is None:
                raise
            _LOG.warning("%s KV moves over NIXL alone.", error)
            return None

    def close(self) -> None:
        self._reader.close()
        self._holder.close()
        if self.nixl is not None:
            self.nixl.shutdown()

    # -- each step ----------------------------------------------------------------------------

    def start(self, metadata: KvMetadata) -> None:
        """Applies the scheduler's metadata: updates leases and begins transfers."""
        nixl, now = metadata.nixl, _now_s()
        self._leases.expect(nixl.reqs_in_batch)
        self._leases.forget(nixl.reqs_not_processed)
        for request_id, expires_s in nixl.reqs_to_send.items():
            # Stamped by the scheduler's clock: only the remaining time has a meaning here.
            left_s = expires_s - nixl.scheduler_clock
            self._leases.grant(request_id, expires_at_s=now + left_s)
        for engine_id, waiting in nixl.heartbeat_by_engine.items():
            holder = metadata.holders.get(engine_id)
            if holder is not None:
                for peer in self._peers(engine_id, holder, waiting.tp_size):
                    self._reader.renew(peer, sorted(waiting.req_ids))
        by_nixl = NixlConnectorMetadata()
        by_nixl.reqs_to_save = nixl.reqs_to_save
        for request_id, meta in nixl.reqs_to_recv.items():
            self._begin(request_id, meta, metadata.holders.get(meta.remote.engine_id), by_nixl)
        if self.nixl is not None:
            self.nixl.start_load_kv(by_nixl)

    def _begin(
        self,
        request_id: str,
        meta: ReqMeta,
        holder: HolderPort | None,
        by_nixl: NixlConnectorMetadata,
    ) -> None:
        if holder is not None and not (meta.awaiting_kvs or any(meta.local_block_ids)):
            for peer in self._peers(meta.remote.engine_id, holder, meta.tp_size):
                self._reader.release(peer, [meta.remote.request_id])
            return
        carrier = self._carrier(meta, holder) if holder is not None else None
        if holder is None or carrier is None:
            self._give_up(request_id, Load(meta, _NOWHERE, "", _now_s()), _NO_TRANSPORT)
            return
        self._loads[request_id] = Load(meta, holder, carrier, _now_s())
        if carrier == NIXL:
            by_nixl.reqs_to_recv[request_id] = meta
        else:
            self._fetch(request_id)

    def _carrier(self, meta: ReqMeta, holder: HolderPort) -> str | None:
        engine_id, now = meta.remote.engine_id, _now_s()
        theirs = self._usable(meta, holder)
        connected = self.nixl is not None and self.nixl.slos_is_connected(engine_id)
        carrier = self._pairs.carrier(engine_id, theirs, nixl_is_connected=connected, now=now)
        if carrier == ZMQ and NIXL in theirs and self._pairs.nixl_may_be_tried(engine_id, now):
            self.nixl.slos_connect(
                engine_id, meta, lambda failed: self._pairs.nixl_failed(failed, _now_s())
            )
        return carrier

    def _usable(self, meta: ReqMeta, holder: HolderPort) -> tuple[str, ...]:
        same = meta.tp_size == self._workers
        return usable(holder.carriers, self._spoken, same_workers=same)

    def _fetch(self, request_id: str) -> None:
        load = self._loads[request_id]
        remote = load.meta.remote
        local = load.meta.local_block_ids
        # A prefix that is cached here is not fetched, only the last blocks are.
        ours = [list(group) for group in local]
        theirs = [
            list(group)[len(group) - len(mine) :]
            for group, mine in zip(remote.block_ids, ours, strict=False)
        ]
        if [len(one) for one in ours] != [len(one) for one in theirs]:
            self._end_load(request_id, ReadOutcome.LOST, load.moved_bytes)
            return
        self._reader.fetch(
            ReadRequest(
                request_id=request_id,
                remote_request_id=remote.request_id,
                peer=self._peer(remote.engine_id, load.holder, self._rank),
                remote_blocks=theirs,
                local_blocks=ours,
            )
        )

    def _peer(self, engine_id: str, holder: HolderPort, rank: int) -> KvPeer:
        return KvPeer(epoch=engine_id, host=holder.host, port=holder.port + rank)

    def _peers(self, engine_id: str, holder: HolderPort, workers: int) -> list[KvPeer]:
        ranks = facing(self._rank, ours=self._workers, theirs=workers)
        return [self._peer(engine_id, holder, rank) for rank in ranks]

    def finished(self) -> KVConnectorTransferResults:
        """Transfers that ended since the last step; failed ones are among the received, too."""
        if self.nixl is not None:
            self._take_nixl(self.nixl.get_transfer_results())
        received = {result.request_id for result in self._confirmed(self._reader.take_results())}
        failed, self._failed = self._failed, set()
        return KVConnectorTransferResults(
            finished_sending=self._freed(),
            finished_recving=received | failed,
            failed_recving=failed,
        )

    def _freed(self) -> set[str]:
        ended = self._leases.take_ended(_now_s())
        for request_id, why in ended:
            if why is LeaseEnd.EXPIRED:
                _LOG.warning("The KV of request %s was not fetched within its lease.", request_id)
        return {request_id for request_id, _ in ended}

    def _take_nixl(self, results: KVConnectorTransferResults) -> None:
        for request_id in results.finished_recving:
            load = self._loads.get(request_id)
            if load is None:
                continue
            if request_id in results.failed_recving:
                self._nixl_failed(request_id, load)
            else:
                self._confirm_nixl(request_id, load)
        self.nixl.get_block_ids_with_load_errors()  # failures are reported by request instead

    def _nixl_failed(self, request_id: str, load: Load) -> None:
        engine_id = load.meta.remote.engine_id
        self._pairs.nixl_failed(engine_id, _now_s())
        if ZMQ in self._usable(load.meta, load.holder):
            load.carrier = ZMQ
            self._fetch(request_id)
        else:
            self._end_load(request_id, ReadOutcome.STALLED, 0)

    def _confirm_nixl(self, request_id: str, load: Load) -> None:
        remote, engine_id = load.meta.remote, load.meta.remote.engine_id
        sources = self.nixl.slos_sources(engine_id)
        load.awaited_confirmations = len(sources)
        moved = bytes_of(self._kv_cache_config, load.meta.local_block_ids)
        for rank in sources:
            request = ReadRequest(
                request_id=request_id,
                remote_request_id=remote.request_id,
                peer=self._peer(engine_id, load.holder, rank),
                readers=self.nixl.slos_readers(engine_id),
            )
            self._reader.confirm(request, moved // len(sources), load.began_s)

    def _confirmed(self, results: Iterable[ReadResult]) -> list[ReadResult]:
        """Results of transfers with blocks that may be used now; ends the failed transfers."""
        whole = []
        for result in results:
            load = self._loads.get(result.request_id)
            if load is None:
                continue
            load.moved_bytes += result.moved_bytes
            if result.outcome is not ReadOutcome.OK:
                _LOG.warning("KV of %s is not used: %s", result.request_id, result.reason)
                self._end_load(result.request_id, result.outcome, load.moved_bytes)
                continue
            load.awaited_confirmations -= 1
            if load.awaited_confirmations <= 0:
                whole.append(result)
                self._note(result.request_id, load, KV_USED)
                del self._loads[result.request_id]
        return whole

    def _end_load(self, request_id: str, outcome: ReadOutcome, moved_bytes: int) -> None:
        load = self._loads.pop(request_id)
        load.moved_bytes = moved_bytes
        self._give_up(request_id, load, outcome.value)

    def _give_up(self, request_id: str, load: Load, why: str) -> None:
        self._failed.add(request_id)
        self._note(request_id, load, why)

    def _note(self, request_id: str, load: Load, outcome: str) -> None:
        self._transfers.append(load.ended(request_id, outcome, _now_s()))

    def take_transfers(self) -> list[KvTransfer]:
        """Transfers that ended since the last call."""
        taken, self._transfers = self._transfers, []
        return taken
