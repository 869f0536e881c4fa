"""The KV connector's half in vLLM's scheduler: decides what to fetch and what to keep."""

import logging
import socket
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import zmq
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import GET_META_MSG
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_scheduler import (
    NixlPullConnectorScheduler,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.utils import zmq_ctx
from vllm.utils.network_utils import make_zmq_path
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request

from shared.bounded import remember
from shared.engines import KvTransfer
from shared.errors import ConfigError
from shared.kv_transfer.metadata import KvMetadata, WorkerTransfers, joined
from shared.kv_transfer.pairs import NIXL
from shared.kv_transfer.settings import (
    PORT_KEY,
    RESULT_KEY,
    HolderPort,
    KvSettings,
    fault_in,
)

_LOG = logging.getLogger(__name__)
_MOST_REMEMBERED = 4096


def tokens_to_pull(
    params: dict[str, Any] | None, *, prompt_tokens: int, local_tokens: int
) -> int | None:
    """Tokens of KV to fetch for a request that continues after its first token.

    None leaves the answer to vLLM. The prefill engine holds `remote_num_tokens`; the prompt here is
    longer by the tokens produced there. `local_tokens` are cached here.
    """
    if not params or not params.get("do_remote_prefill"):
        return None
    held_tokens = params.get("remote_num_tokens") or 0
    if not 0 < held_tokens < prompt_tokens:
        return None
    return max(0, held_tokens - local_tokens)


class KvScheduler(NixlPullConnectorScheduler):
    """vLLM's scheduler half for pulled KV, over any transport."""

    def __init__(self, config: Any, engine_id: str, kv_cache_config: Any) -> None:
        super().__init__(config, engine_id, kv_cache_config)
        transfer = config.kv_transfer_config
        settings = KvSettings.from_plain(transfer.kv_connector_extra_config["slos"])
        self._slos_port = HolderPort(
            host=settings.reachable_host,
            port=settings.port,
            carriers=settings.transport.carriers,
        )
        self._slos_holders: OrderedDict[str, HolderPort] = OrderedDict()
        self._slos_fetching: OrderedDict[str, KvTransfer] = OrderedDict()
        self._slos_ended: list[KvTransfer] = []

    def on_new_request(self, request: Request) -> None:
        fault = fault_in(request.kv_transfer_params)
        if fault is not None:
            _LOG.warning("Request %s computes its prompt: %s.", request.request_id, fault)
            request.kv_transfer_params = None
        params = request.kv_transfer_params or {}
        holder = HolderPort.from_plain(params.get(PORT_KEY))
        if params.get("do_remote_prefill") and holder is not None:
            remember(self._slos_holders, params["remote_engine_id"], holder, _MOST_REMEMBERED)
        super().on_new_request(request)

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int, bool]:
        tokens = tokens_to_pull(
            request.kv_transfer_params,
            prompt_tokens=request.num_prompt_tokens,
            local_tokens=num_computed_tokens,
        )
        if tokens is None:
            vllm_answer: tuple[int, bool] = super().get_num_new_matched_tokens(
                request, num_computed_tokens
            )
            return vllm_answer
        return tokens, tokens > 0

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KvMetadata:
        nixl = super().build_connector_meta(scheduler_output)
        named = {meta.remote.engine_id for meta in nixl.reqs_to_recv.values()}
        named |= nixl.heartbeat_by_engine.keys()
        holders = {one: self._slos_holders[one] for one in named if one in self._slos_holders}
        return KvMetadata(nixl=nixl, holders=holders)

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        super().update_connector_output(connector_output)
        told = connector_output.kv_connector_worker_meta
        if isinstance(told, WorkerTransfers):
            self._slos_take(told.transfers)

    def _slos_take(self, transfers: Iterable[KvTransfer]) -> None:
        by_request: dict[str, KvTransfer] = {}
        for one in transfers:
            before = by_request.get(one.request_id)
            by_request[one.request_id] = one if before is None else joined(before, one)
        self._slos_ended += by_request.values()
        for request_id, transfer in by_request.items():
            remember(self._slos_fetching, request_id, transfer, _MOST_REMEMBERED)

    def take_transfers(self) -> list[KvTransfer]:
        """Transfers that ended since the last call."""
        taken, self._slos_ended = self._slos_ended, []
        return taken

    def request_finished(
        self, request: Request, block_ids: Any
    ) -> tuple[bool, dict[str, Any] | None]:
        kept, params = super().request_finished(request, block_ids)
        transfer = self._slos_fetching.pop(request.request_id, None)
        if params is not None:
            params[PORT_KEY] = self._slos_port.as_plain()
        elif transfer is not None:
            params = {RESULT_KEY: {"recomputed": not transfer.used}}
        return kept, params

    def set_xfer_handshake_metadata(self, metadata: dict[tuple[int, int], Any]) -> None:
        """As vLLM's. Raises ConfigError if the side channel's port is taken: vLLM would hang."""
        if not metadata:  # NIXL is not used, or failed to start in the workers
            spoken = tuple(one for one in self._slos_port.carriers if one != NIXL)
            self._slos_port = replace(self._slos_port, carriers=spoken)
            return
        host, port = self.side_channel_host, self.side_channel_port
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ConfigError(
                    f"Port {port} on {host} cannot be had for NIXL ({error.strerror}); "
                    "free it or give this engine another with --nixl-port."
                ) from error
        super().set_xfer_handshake_metadata(metadata)

    @staticmethod
    def _nixl_handshake_listener(
        encoded_data: dict[tuple[int, int], Any],
        ready_event: Any,
        stop_event: Any,
        host: str,
        port: int,
    ) -> None:
        """vLLM's thread for NIXL handshakes, which here survives messages that it cannot read."""
        import time

        with zmq_ctx(zmq.ROUTER, make_zmq_path("tcp", host, port)) as side_channel:
            side_channel.setsockopt(zmq.RCVTIMEO, 1000)
            ready_event.set()
            while not stop_event.is_set():
                try:
                    identity, *parts = side_channel.recv_multipart()
                except zmq.Again:
                    continue
                rank = _asked_rank(parts)
                if rank is None or rank not in encoded_data:
                    _LOG.warning("NIXL's side channel got a message that it cannot answer.")
                    continue
                clock = msgspec.msgpack.encode(time.perf_counter())  # noqa: TID251 - as vLLM
                side_channel.send_multipart((identity, b"", encoded_data[rank], clock))


def _asked_rank(parts: list[bytes]) -> tuple[int, int] | None:
    """The worker that a handshake asks for, by pipeline and tensor rank; None if unreadable."""
    try:
        empty, body = parts
        message, pipeline_rank, tensor_rank = msgspec.msgpack.decode(
            body, type=tuple[bytes, int, int]
        )
    except (ValueError, msgspec.MsgspecError):
        return None
    wanted = empty == b"" and message == GET_META_MSG
    return (pipeline_rank, tensor_rank) if wanted else None
