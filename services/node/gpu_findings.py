"""The doctor's checks of GPUs; all pass on a machine without any."""

from collections.abc import Callable, Sequence
from typing import Final

from services.node.findings import Finding, State, finding
from services.node.gpu_shares import VLLM_TAKES
from services.node.gpus import Gpu
from services.node.machine import Machine

# The oldest driver for each major version of CUDA, by NVIDIA's table of compatibility.
_DRIVERS: Final = {12: 525, 13: 580}


def gpu(machine: Machine) -> Finding:
    """Whether the driver answers, and vLLM is the build for the GPUs that it lists."""
    if machine.gpu_problem:
        cure = "install or reload NVIDIA's driver; a container needs NVIDIA's container toolkit"
        return _warning("GPU", machine.gpu_problem, cure)
    if not machine.gpus:
        return finding("GPU", True, "none: engines run on the CPU", "")
    found = _listed(machine.gpus)
    if machine.device == "cpu":
        return _warning(
            "GPU", f"{found}, but vLLM is its build for CPU", "make ENGINE=engine-cuda demo"
        )
    return finding("GPU", True, found, "")


def _listed(gpus: Sequence[Gpu]) -> str:
    names = sorted({one.name for one in gpus})
    counted = [
        f"{sum(one.name == name for one in gpus)} x {name}, "
        f"{next(one.memory_gib for one in gpus if one.name == name):.0f} GiB"
        for name in names
    ]
    return "; ".join(counted)


def driver(machine: Machine) -> Finding:
    """Whether the driver is new enough for the CUDA of the installed packages."""
    runtime = machine.packages.get("nvidia-cuda-runtime", "")
    major = runtime.partition(".")[0]
    needed = _DRIVERS.get(int(major)) if major.isdigit() else None
    versions = sorted({one.driver for one in machine.gpus})
    found = ", ".join(versions) or "none"
    if not versions or needed is None:
        return finding("GPU driver", True, found, "")
    fits = all(int(one.partition(".")[0]) >= needed for one in versions)
    cure = f"CUDA {runtime} needs driver {needed} or newer: upgrade it"
    return finding("GPU driver", fits, found, cure)


def gpu_memory(machine: Machine) -> Finding:
    """Whether vLLM's default share of each GPU is free."""
    full = [one for one in machine.gpus if one.free_share < VLLM_TAKES]
    if not full:
        return finding("GPU memory", True, "free" if machine.gpus else "no GPU", "")
    found = "; ".join(
        f"GPU {one.index}: {one.free_gib:.1f} of {one.memory_gib:.1f} GiB free" for one in full
    )
    cure = "end what holds it (nvidia-smi lists it), or name other GPUs in CUDA_VISIBLE_DEVICES"
    return _warning("GPU memory", found, cure)


def peer_access(machine: Machine) -> Finding:
    """Whether GPUs read each other's memory, as tensor parallelism and KV transfers use it."""
    if len(machine.gpus) < 2:
        return finding("GPU peer access", True, "fewer than two GPUs", "")
    if not machine.no_peer_access:
        return finding("GPU peer access", True, "between all", "")
    cure = "KV goes through the host's memory: see nvidia-smi topo -p2p r; PCIe needs ACS off"
    return _warning("GPU peer access", f"none for {', '.join(machine.no_peer_access)}", cure)


def rdma(machine: Machine) -> Finding:
    """Whether KV can leave this machine by RDMA."""
    down = [name for name, up in machine.rdma.items() if not up]
    if down:
        cure = "see ibstat; KV to other machines goes over the devices that are up, or over TCP"
        return _warning("RDMA", f"not active: {', '.join(down)}", cure)
    found = ", ".join(machine.rdma) or "none: KV to other machines goes over TCP"
    return finding("RDMA", True, found, "")


def _warning(what: str, found: str, cure: str) -> Finding:
    return finding(what, False, found, cure, otherwise=State.WARN)


GPU_CHECKS: Final[tuple[Callable[[Machine], Finding], ...]] = (
    gpu,
    driver,
    gpu_memory,
    peer_access,
    rdma,
)
