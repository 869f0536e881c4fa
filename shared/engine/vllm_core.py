"""vLLM's engine core as the host sees it: built from our options, fed and read by frames.

The only place that configures vLLM.
"""

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import vllm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
from vllm.v1.engine.core_client import AsyncMPClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor import Executor

from shared.engine.config import EngineOptions
from shared.engine.kv_layout import KvLayout
from shared.engine.speculation import speculative_config
from shared.engine.vllm_identity import step_time_identity
from shared.engine.vllm_logging import keep_errors
from shared.engine.vllm_settings import check_settings
from shared.engine.vllm_start_errors import one_line, start_error
from shared.engines import EngineDescription, KvAddress, Role, prefix_span_tokens
from shared.errors import ConfigError, EngineLost
from shared.kv_transfer.settings import SETTINGS_KEY, KvSettings
from shared.models import resolve_model

_GIB = 1 << 30
_CPU_BLOCK_SIZE_TOKENS = 32  # vLLM's own choice of 128 wastes most of a block on short prompts
# A step of more takes seconds on a CPU, and so does measuring it at the start.
_CPU_RUNNING_REQUESTS, _CPU_STEP_TOKENS = 64, 2048
_SCHEDULER = "shared.engine.vllm_scheduler.SlosScheduler"
_CPU_WORKER = "shared.engine.vllm_cpu_worker.SeededCpuWorker"
_CONNECTOR_MODULE = "shared.kv_transfer.connector"


def engine_arguments(
    options: EngineOptions, *, role: Role, engine_id: str, link: str, model_path: str
) -> dict[str, Any]:
    """vLLM's engine arguments; what is left out vLLM chooses by the device.

    Raises ConfigError for what `options.vllm` may not hold.
    """
    check_settings(options.vllm, role=role, known=[one.name for one in fields(AsyncEngineArgs)])
    cpu = bool(current_platform.is_cpu())
    arguments: dict[str, Any] = {
        "model": model_path,
        "served_model_name": options.api_model_name,
        "dtype": options.dtype,
        "max_num_seqs": options.max_running_requests or (_CPU_RUNNING_REQUESTS if cpu else None),
        "max_num_batched_tokens": options.max_step_tokens or (_CPU_STEP_TOKENS if cpu else None),
        "tensor_parallel_size": options.tensor_parallel_size,
        "enforce_eager": cpu if options.eager is None else options.eager,
        "scheduler_cls": _SCHEDULER,
        "scheduling_policy": "fcfs",
        "additional_config": {"slos": {"link": link, "host_pid": os.getpid()}},
    }
    if options.max_model_len is not None:
        arguments["max_model_len"] = options.max_model_len
    if options.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(options.kv_cache_gib * _GIB)
    if options.gpu_memory_utilization is not None:
        arguments["gpu_memory_utilization"] = options.gpu_memory_utilization
    if options.block_size_tokens is not None or cpu:
        arguments["block_size"] = options.block_size_tokens or _CPU_BLOCK_SIZE_TOKENS
    if cpu:
        arguments["worker_cls"] = _CPU_WORKER
    if options.speculation_tokens > 0:
        arguments["speculative_config"] = _speculation(options, cpu=cpu)
    if options.vllm.get("enable_prefix_caching", True):
        arguments["kv_events_config"] = {"enable_kv_cache_events": True, "publisher": "null"}
    if options.kv_carriers:
        arguments["kv_transfer_config"] = _kv_transfer(options, role, engine_id)
    return arguments | options.vllm


def engine_config(
    options: EngineOptions, *, role: Role, engine_id: str, link: str, model_path: str
) -> Any:
    """vLLM's VllmConfig.

    Raises ConfigError, one line, when vLLM will not have the options, or lacks a package for them.
    """
    arguments = engine_arguments(
        options, role=role, engine_id=engine_id, link=link, model_path=model_path
    )
    try:
        # In this context vLLM has defaults for each kind of device.
        return AsyncEngineArgs(**arguments).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
    except Exception as error:  # whatever vLLM raises is told in one line
        raise ConfigError(start_error(model_path, error)) from error


def _speculation(options: EngineOptions, *, cpu: bool) -> dict[str, Any]:
    if "speculative_config" in options.vllm:
        raise ConfigError(
            "vllm.speculative_config: speculation_tokens asks for speculation as well: say it once"
        )
    model = options.speculation_model
    return speculative_config(
        options.speculation,
        tokens=options.speculation_tokens,
        model_path=str(resolve_model(model)) if model else "",
        cpu=cpu,
    )


def _kv_transfer(options: EngineOptions, role: Role, engine_id: str) -> dict[str, Any]:
    return {
        "kv_connector": "NixlConnector",
        "kv_connector_module_path": _CONNECTOR_MODULE,
        "kv_role": "kv_producer" if role is Role.PREFILL else "kv_consumer",
        "kv_buffer_device": "cpu" if current_platform.is_cpu() else "cuda",
        "engine_id": engine_id,
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {
            "kv_lease_duration": options.kv_lease_s,
            SETTINGS_KEY: _kv_settings(options).as_plain(),
        },
    }


def _kv_settings(options: EngineOptions) -> KvSettings:
    return KvSettings(
        transport=options.kv_transport,
        host=options.kv_listen_host,
        reachable_host=options.kv_reachable_host,
        port=options.kv_port,
        lease_s=options.kv_lease_s,
        secret_file=options.cluster_secret_file,
    )


@dataclass(slots=True)
class EngineCore:
    """A running engine core process. One reader only. `kv` is set once its scheduler has told."""

    client: AsyncMPClient
    config: Any  # vLLM's VllmConfig, with the numbers that the engine core settled on
    engine_id: str
    kv: KvLayout = field(init=False)

    @classmethod
    def start(
        cls, options: EngineOptions, *, role: Role, link: str, model_path: str
    ) -> "EngineCore":
        """Starts the engine core and waits until it is ready (blocking, seconds to minutes).

        Raises ConfigError when vLLM will not have the options.
        """
        engine_id = uuid.uuid4().hex
        config = engine_config(
            options, role=role, engine_id=engine_id, link=link, model_path=model_path
        )
        errors = Path(f"{link.removeprefix('ipc://')}-errors")
        try:
            keep_errors(config, errors)
            client = cls._client(config)
        except Exception as error:  # whatever vLLM raises is told in one line
            log = errors.read_text(errors="replace") if errors.exists() else ""
            raise ConfigError(start_error(model_path, error, log)) from error
        return cls(client=client, config=config, engine_id=engine_id)

    @staticmethod
    def _client(config: Any) -> AsyncMPClient:
        """Starts the engine core's process and waits for it."""
        if current_platform.is_cpu() and config.parallel_config.world_size == 1:
            # vLLM asks for "spawn" because of worker processes that bind their own threads. Here
            # there are none, and a fork spares the engine core ten seconds of imports.
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        return AsyncMPClient(config, Executor.get_class(config), True)

    async def add(self, request: EngineCoreRequest) -> None:
        """Raises EngineLost when the engine core is gone."""
        try:
            await self.client.add_request_async(request)
        except EngineDeadError as error:
            raise EngineLost("The engine core has died.") from error

    async def add_synthetic(self, name: str, tokens: list[int], output_tokens: int) -> None:
        """Adds a synthetic request, always of this length. Raises EngineLost."""
        params = SamplingParams(temperature=0, max_tokens=output_tokens, ignore_eos=True)
        await self.add(
            EngineCoreRequest(
                request_id=name,
                prompt_token_ids=tokens,
                mm_features=None,
                sampling_params=params,
                pooling_params=None,
                arrival_time=0.0,
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
            )
        )

    @property
    def takes_adapters(self) -> bool:
        """Whether it was started with LoRA."""
        return self.config.lora_config is not None

    async def load_adapter(self, adapter: LoRARequest) -> None:
        """Loads a LoRA adapter from a path that this machine has.

        Raises ConfigError with what vLLM says where it cannot.
        """
        try:
            await self.client.add_lora_async(adapter)
        except EngineDeadError as error:
            raise EngineLost("The engine core has died.") from error
        except Exception as error:  # all that a utility call of vLLM's raises
            raise ConfigError(one_line(str(error) or type(error).__name__)) from error

    async def forget_prefixes(self) -> None:
        """No later request finds the KV of an earlier one."""
        await self.client.reset_prefix_cache_async()

    async def abort(self, request_ids: list[str]) -> None:
        """Aborting an unknown or finished request does nothing, and so does a dead engine core."""
        await self.client.abort_requests_async(request_ids)

    async def outputs(self) -> AsyncIterator[EngineCoreOutputs]:
        """What each step gave, for all requests. Raises EngineLost when the engine core dies."""
        while True:
            try:
                yield await self.client.get_output_async()
            except EngineDeadError as error:
                raise EngineLost("The engine core has died.") from error

    def shut_down(self, limit_s: float) -> None:
        """Ends the engine core process, by force after `limit_s`. Blocking."""
        self.client.shutdown(timeout=limit_s)

    @property
    def pids(self) -> list[int]:
        """Of the engine core's processes."""
        return [int(one.pid) for one in self.client.resources.engine_manager.processes]

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on CPUs."""
        return bool(current_platform.is_cpu())

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        size: int = self.config.model_config.get_vocab_size()
        return size

    @property
    def workers(self) -> int:
        """How many of them hold a part of the KV cache each."""
        size: int = self.config.parallel_config.tensor_parallel_size
        return size

    @property
    def max_speculation_tokens(self) -> int:
        """The most drafted tokens of a request in one step, by vLLM's configuration."""
        speculation = self.config.speculative_config
        return 0 if speculation is None else int(speculation.num_speculative_tokens)

    def hardware(self) -> dict[str, Any]:
        """What step times depend on beside the model, as plain data."""
        return step_time_identity(self.config, cpu=self.on_cpu)

    def limits(self) -> dict[str, Any]:
        """What it can hold, for a simulation of it."""
        config, hardware = self.config, self.hardware()
        return {
            "model": str(config.model_config.served_model_name or config.model_config.model),
            "device": hardware["device"],
            "gpus": hardware["tensor_parallel"],
            "block_size_tokens": self.kv.block_tokens,
            "kv_blocks": self.kv.all_whole_blocks,
            "kv_bytes_per_token": self.kv.bytes_per_token,
            "max_step_tokens": config.scheduler_config.max_num_batched_tokens,
            "max_running_requests": config.scheduler_config.max_num_seqs,
            "max_model_len_tokens": config.model_config.max_model_len,
        }

    def describe(
        self, options: EngineOptions, *, role: Role, name: str, address: str
    ) -> EngineDescription:
        cache, scheduler = self.config.cache_config, self.config.scheduler_config
        kv_addresses = self._kv_addresses(options)
        return EngineDescription(
            name=name,
            engine_id=self.engine_id,
            role=role,
            address=address,
            model=options.api_model_name,
            vllm_version=vllm.__version__,
            block_size_tokens=self.kv.block_tokens,
            kv_blocks=self.kv.all_whole_blocks,
            kv_bytes_per_token=self.kv.bytes_per_token,
            max_model_len_tokens=self.config.model_config.max_model_len,
            max_running_requests=scheduler.max_num_seqs,
            max_step_tokens=scheduler.max_num_batched_tokens,
            max_speculation_tokens=self.max_speculation_tokens,
            kv_address=next(iter(kv_addresses), None),
            kv_addresses=kv_addresses,
            prefix_span_tokens=prefix_span_tokens(self.kv.block_tokens)
            if cache.enable_prefix_caching
            else 0,
            adapter_slots=self.config.lora_config.max_loras if self.takes_adapters else 0,
            metrics_address=f"{options.metrics_host}:{options.metrics_port}"
            if options.metrics_port
            else "",
        )

    def _kv_addresses(self, options: EngineOptions) -> tuple[KvAddress, ...]:
        host = options.kv_reachable_host
        ports = {"nixl": options.nixl_port, "zmq": options.kv_port}
        return tuple(
            KvAddress(transport=one, host=host, port=ports[one]) for one in options.kv_carriers
        )
