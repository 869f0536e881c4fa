"""Which engine arguments of vLLM an operator may pass on, and why not the others."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from shared.engines import Role
from shared.errors import ConfigError

# Arguments that are options of ours, by their names in vLLM.
_OPTIONS: Final = {
    "model": "model",
    "served_model_name": "served_model_name",
    "dtype": "dtype",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_running_requests",
    "max_num_batched_tokens": "max_step_tokens",
    "tensor_parallel_size": "tensor_parallel_size",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "kv_cache_memory_bytes": "kv_cache_gib",
    "block_size": "block_size_tokens",
    "enforce_eager": "eager",
    "kv_transfer_config": "kv_transport",
}
# Arguments that slos-serve sets and could not work without.
_OWN: Final = (
    *("scheduler_cls", "scheduling_policy", "additional_config", "kv_events_config"),
    *("logging_config", "log_config_file"),
)
_DATA_PARALLEL: Final = "data_parallel_"
_ONE_MACHINE: Final = ("nnodes", "node_rank", "master_addr", "master_port")


def check_settings(extra: Mapping[str, Any], *, role: Role, known: Collection[str]) -> None:
    """Raises ConfigError for the first of `extra` that an engine of this role cannot have.

    Args:
        extra: Engine arguments by vLLM's names, from the option `vllm`.
        known: The names that this vLLM knows.
    """
    for name, value in extra.items():
        reason = _reason(name, value, role, known)
        if reason:
            raise ConfigError(f"vllm: {name}: {reason}")


def _reason(name: str, value: Any, role: Role, known: Collection[str]) -> str:
    """Why not, and what to do instead; empty for what may be passed on."""
    if name in _OPTIONS:
        return f"this is the option {_flag(name)} of the engine (YAML: {_OPTIONS[name]})"
    if name in _OWN:
        return "slos-serve sets this itself and could not serve with another value: leave it out"
    if name.startswith(_DATA_PARALLEL):
        return (
            "an engine is one replica, and its other replicas would stand idle: start more engines "
            "(--prefill, --decode), on GPUs of their own"
        )
    if name in _ONE_MACHINE:
        return "an engine is on one machine: start an engine on each"
    if name == "pipeline_parallel_size" and role is Role.DECODE and str(value) != "1":
        return (
            "a decode engine cannot be a pipeline, whose steps overlap: use --tensor-parallel-size"
        )
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {_flag(nearest[0])}?" if nearest else ""
        return f"vLLM has no engine argument of this name{hint}"
    return ""


def _flag(name: str) -> str:
    """How the operator sets vLLM's argument: by an option of ours, or by its own name."""
    return f"--{_OPTIONS[name].replace('_', '-')}" if name in _OPTIONS else f"`{name}`"
