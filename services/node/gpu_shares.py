"""Divides the GPUs, their memory and the CPUs beside them among the engines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.node.gpus import VISIBLE, Gpu
from shared.errors import ConfigError

VLLM_TAKES: Final = 0.92  # of a GPU's memory, by vLLM's own default
_MARGIN: Final = 0.02  # of a GPU's memory: what CUDA takes for a process before vLLM counts
_LEAST: Final = 0.05  # of a GPU's memory, for one engine


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShare:
    """One engine's share.

    Attributes:
        gpus: Numbers of its GPUs in the order of the PCI bus.
        memory_utilization: The share of their memory, 0 to 1; None for vLLM's default.
        cores: CPUs of their NUMA nodes; empty where unknown.
        shared: Whether other engines are on the same GPU.
    """

    gpus: tuple[int, ...]
    memory_utilization: float | None = None
    cores: tuple[int, ...] = ()
    shared: bool = False

    @property
    def environ(self) -> dict[str, str]:
        """Variables for CUDA, which numbers GPUs as nvidia-smi does only in PCI bus order."""
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            VISIBLE: ",".join(str(number) for number in self.gpus),
        }


def share_gpus(
    gpus: Sequence[Gpu],
    engines: int,
    gpus_per_engine: int,
    memory_utilization: float | None = None,
) -> list[GpuShare]:
    """One share per engine: GPUs of its own, of one NUMA node where possible.

    All engines share a single GPU. A given `memory_utilization` is not changed. Raises ConfigError
    where there are too few GPUs, or too little of their memory is free.
    """
    if gpus_per_engine < 1:
        raise ConfigError(
            "vLLM's build for CUDA needs a GPU for each engine: --gpus-per-engine 1, or "
            "make ENGINE=engine-cpu."
        )
    if len(gpus) == 1 and gpus_per_engine == 1:
        return [_share(gpus, engines, memory_utilization)] * engines
    needed = engines * gpus_per_engine
    if len(gpus) < needed:
        raise ConfigError(_too_few(len(gpus), engines, gpus_per_engine))
    left = sorted(gpus, key=lambda one: (one.numa_node or 0, one.index))
    groups = []
    for _ in range(engines):
        group = _neighbours(left, gpus_per_engine)
        left = [one for one in left if one not in group]
        groups.append(group)
    return [_share(group, 1, memory_utilization) for group in groups]


def _neighbours(gpus: Sequence[Gpu], count: int) -> Sequence[Gpu]:
    """The first `count` GPUs of one NUMA node; of any nodes where none has so many."""
    for node in dict.fromkeys(one.numa_node for one in gpus):
        beside = [one for one in gpus if one.numa_node == node]
        if len(beside) >= count:
            return beside[:count]
    return gpus[:count]


def _share(gpus: Sequence[Gpu], engines: int, wanted: float | None) -> GpuShare:
    return GpuShare(
        gpus=tuple(one.index for one in gpus),
        memory_utilization=_utilization(gpus, engines, wanted),
        cores=_cores_beside(gpus),
        shared=engines > 1,
    )


def _cores_beside(gpus: Sequence[Gpu]) -> tuple[int, ...]:
    """The CPUs of the GPUs' NUMA nodes; none where those of any GPU are unknown, since its worker
    would be kept away from them.
    """
    if not all(one.cores for one in gpus):
        return ()
    return tuple(sorted({core for one in gpus for core in one.cores}))


def _utilization(gpus: Sequence[Gpu], engines: int, wanted: float | None) -> float | None:
    """The memory utilization of each of `engines` on these GPUs. Raises ConfigError."""
    if wanted is not None:
        if engines * wanted > 1:
            raise ConfigError(
                f"{engines} engines on one GPU cannot take {wanted:g} of its memory each: "
                f"--gpu-memory-utilization {1 / engines:.2f} at most."
            )
        return wanted
    free = min(one.free_share for one in gpus)
    if engines == 1 and free >= VLLM_TAKES:
        return None
    each = min(VLLM_TAKES, free - _MARGIN) / engines
    if each < _LEAST:
        least = min(gpus, key=lambda one: one.free_share)
        raise ConfigError(
            f"GPU {least.index} has {least.free_gib:.1f} of {least.memory_gib:.1f} GiB free, too "
            f"little for {engines} engine{'s' * (engines > 1)}: end what holds its memory "
            f"(nvidia-smi lists it), or name other GPUs in {VISIBLE}."
        )
    return math.floor(each * 100) / 100


def _too_few(there: int, engines: int, each: int) -> str:
    fit = there // each
    fewer = f"start {fit} at most (--prefill, --decode)" if fit else f"--gpus-per-engine {there}"
    return (
        f"{engines} engines of {each} GPU{'s' * (each > 1)} need {engines * each} GPUs, {there} "
        f"{'is' if there == 1 else 'are'} here ({VISIBLE} counts): {fewer}."
    )
