"""Divides the cores and the memory of a CPU machine among the engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from shared.errors import ConfigError

_ENGINE_GIB: Final = 2.5  # libraries and a small model, per engine
_MOST_GIB: Final = 2.0  # of KV cache by default: plenty for a small model, much for a laptop
_LEAST_GIB: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShare:
    """One engine's share; `cores` as vLLM reads it, e.g. `0,1`."""

    cores: str
    kv_cache_gib: float


def share_cpu(
    cores: Sequence[int], memory_gib: float, engines: int, kv_cache_gib: float | None = None
) -> list[CpuShare]:
    """One share per engine; a given `kv_cache_gib` is not changed. Raises ConfigError."""
    kv = kv_cache_gib or _kv_cache_gib(memory_gib, engines)
    return [CpuShare(cores=each, kv_cache_gib=kv) for each in _split(sorted(cores), engines)]


def _split(cores: Sequence[int], engines: int) -> list[str]:
    """Disjoint runs of neighbouring cores; engines share cores only where there are too few."""
    if len(cores) < engines:
        return [str(cores[number % len(cores)]) for number in range(engines)]
    bounds = [number * len(cores) // engines for number in range(engines + 1)]
    return [",".join(str(core) for core in cores[start:end]) for start, end in pairwise(bounds)]


def _kv_cache_gib(memory_gib: float, engines: int) -> float:
    """Half of the memory that the engines leave. Raises ConfigError where that is too little."""
    share = (memory_gib / engines - _ENGINE_GIB) / 2
    if share < _LEAST_GIB:
        needed = engines * (_ENGINE_GIB + 2 * _LEAST_GIB)
        raise ConfigError(
            f"{engines} engines need about {needed:.0f} GiB of memory, {memory_gib:.1f} are free: "
            "free some, start fewer engines, or set --kv-cache-gib yourself."
        )
    return round(min(share, _MOST_GIB), 2)
