"""vLLM's NIXL worker for reads only; the KV port handles leases and notifications."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import (
    HeartbeatInfo,
    NixlConnectorMetadata,
    ReqMeta,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_worker import NixlPullConnectorWorker

from shared.kv_transfer.nixl_progress import let_progress_thread_sleep
from shared.kv_transfer.tuning import STALL_LIMIT_S

let_progress_thread_sleep()  # before vLLM makes its NIXL agent


class NixlReads(NixlPullConnectorWorker):
    """Reads blocks over NIXL and reports each read as done or failed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # On CPU vLLM's worker pins its creating thread to the machine's last core. That thread runs
        # the model, so all engines of a machine would compute on one core.
        cores = os.sched_getaffinity(0)
        super().__init__(*args, **kwargs)
        os.sched_setaffinity(0, cores)
        self._slos_began_s: dict[str, float] = {}
        self._slos_connecting: set[str] = set()

    def slos_is_connected(self, engine_id: str) -> bool:
        """Whether a read from this engine needs no handshake first."""
        return engine_id in self._remote_agents and engine_id not in self._invalid_remote_engines

    def slos_connect(
        self, engine_id: str, request: ReqMeta, on_failed: Callable[[str], None]
    ) -> None:
        """Begins the handshake in the background, unless it is done or in progress.

        `on_failed` is called with the engine's id, in a thread of NIXL's, if it fails.
        """
        if engine_id in self._invalid_remote_engines or engine_id in self._slos_connecting:
            return
        remote = request.remote
        handshake = self._ensure_handshake(
            engine_id,
            remote.host,
            remote.port,
            request.tp_size,
            request.dcp_size,
            request.pp_size,
        )
        if handshake is None:
            return

        def ended(done: "Future[Any]") -> None:
            self._slos_connecting.discard(engine_id)
            if done.exception() is not None:
                on_failed(engine_id)

        self._slos_connecting.add(engine_id)
        handshake.add_done_callback(ended)

    def slos_readers(self, engine_id: str) -> int:
        """The number of our workers that read from one worker of this engine."""
        plan = self.tp_mappings.get(engine_id)
        return int(plan.local_consumers) if plan is not None else 1

    def slos_sources(self, engine_id: str) -> list[int]:
        """The ranks of this engine's workers that this worker reads from."""
        plan = self.tp_mappings.get(engine_id)
        return [int(rank) for rank in plan.all_source_ranks] if plan is not None else [0]

    def start_load_kv(self, metadata: NixlConnectorMetadata) -> None:
        now = time.perf_counter()  # noqa: TID251 - vLLM calls us without a clock
        for request_id in metadata.reqs_to_recv:
            self._slos_began_s[request_id] = now
        super().start_load_kv(metadata)

    def _get_new_notifs(self) -> set[str]:
        """Drops NIXL's notifications: confirmations at the KV port end leases."""
        self.nixl_wrapper.get_new_notifs()
        return set()

    def _pop_done_transfers(self, transfers: dict[str, list[int]]) -> tuple[set[str], set[str]]:
        self._slos_end_stalled(transfers)
        done, failed = super()._pop_done_transfers(transfers)
        for request_id in done | failed:
            self._slos_began_s.pop(request_id, None)
        return done, failed

    def _slos_end_stalled(self, transfers: dict[str, list[int]]) -> None:
        """Ends reads without progress, as far as NIXL releases their memory."""
        oldest_s = time.perf_counter() - STALL_LIMIT_S  # noqa: TID251 - the same
        stalled = [
            request_id
            for request_id in transfers
            if self._slos_began_s.get(request_id, oldest_s) < oldest_s
        ]
        for request_id in stalled:
            transfers[request_id] = [
                handle
                for handle in transfers[request_id]
                if not self._slos_let_go(request_id, handle)
            ]
            self._slos_began_s[request_id] = time.perf_counter()  # noqa: TID251 - the same

    def _slos_let_go(self, request_id: str, handle: int) -> bool:
        if self.nixl_wrapper.check_xfer_state(handle) == "DONE":
            return False
        return bool(self._handle_failed_transfer(request_id, handle, self._recv_failures))

    def _send_heartbeats(self, metadata: NixlConnectorMetadata) -> None:
        """Sends none: the KV port renews leases."""

    def _handle_heartbeat(self, payload: HeartbeatInfo) -> None:
        """Ignores it, for the same reason."""
