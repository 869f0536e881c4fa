"""What an engine's step times depend on beside the model, by vLLM's configuration."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
import vllm
from vllm.platforms import current_platform

_DRIVER: Final = Path("/proc/driver/nvidia/version")


def step_time_identity(config: Any, *, cpu: bool) -> dict[str, Any]:
    """Device, its share, formats of numbers, graphs, drafts and versions as plain data.

    Args:
        config: vLLM's VllmConfig, as the engine core settled it.
        cpu: whether the engine computes on CPUs.
    """
    return {
        "device": _processor() if cpu else str(current_platform.get_device_name()),
        "threads": os.environ.get("OMP_NUM_THREADS", "") if cpu else "",
        "dtype": str(config.model_config.dtype),
        "kv_dtype": str(config.cache_config.cache_dtype),
        "quantization": str(config.model_config.quantization),
        "block_size_tokens": config.cache_config.block_size,
        "max_running_requests": config.scheduler_config.max_num_seqs,
        "attention": str(config.attention_config.backend),
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "driver": _first_line_of(_DRIVER) if not cpu else "",
        **_parallel(config.parallel_config),
        **_graphs(config),
        **_additions(config),
    }


def _parallel(parallel: Any) -> dict[str, Any]:
    return {
        "tensor_parallel": parallel.tensor_parallel_size,
        "pipeline_parallel": parallel.pipeline_parallel_size,
        "decode_context_parallel": parallel.decode_context_parallel_size,
        "expert_parallel": bool(parallel.enable_expert_parallel),
    }


def _graphs(config: Any) -> dict[str, Any]:
    compilation = config.compilation_config
    return {
        "eager": bool(config.model_config.enforce_eager),
        "graph_mode": str(compilation.cudagraph_mode),
        "graph_sizes": [int(one) for one in compilation.cudagraph_capture_sizes or ()],
    }


def _additions(config: Any) -> dict[str, Any]:
    """What a step computes beside the model: adapters, drafts."""
    lora, speculation = config.lora_config, config.speculative_config
    return {
        "lora": [lora.max_loras, lora.max_lora_rank] if lora else [],
        "speculation": [
            str(speculation.method),
            str(speculation.model),
            int(speculation.num_speculative_tokens),
        ]
        if speculation
        else [],
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _first_line_of(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().partition("\n")[0]
    return ""
