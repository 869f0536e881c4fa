"""Reads the NVIDIA GPUs of this machine, their free memory, CPUs and RDMA devices.

nvidia-smi lists GPUs, sysfs the rest. Neither needs CUDA.
"""

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.engine.core_list import core_numbers
from shared.errors import ConfigError

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_SYSFS: Final = Path("/sys")
_FIELDS: Final = "index,uuid,name,memory.total,memory.free,driver_version,pci.bus_id"
_LIMIT_S: Final = 60.0  # without the persistence daemon each GPU takes seconds to wake up
_MIB_IN_GIB: Final = 1024
_BUS_ID_LENGTH: Final = len("0000:1b:00.0")  # nvidia-smi writes a longer domain

# Runs nvidia-smi with arguments; returns its output. Raises OSError, subprocess.SubprocessError.
Smi = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. `index` is its number in PCI bus order, as in nvidia-smi."""

    index: int
    uuid: str = ""
    name: str = ""
    memory_gib: float
    free_gib: float
    driver: str = ""
    numa_node: int | None = None
    cores: tuple[int, ...] = ()  # of its NUMA node; empty where unknown

    @property
    def free_share(self) -> float:
        return self.free_gib / self.memory_gib


def nvidia_smi(arguments: Sequence[str]) -> str:
    done = subprocess.run(
        ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        raise subprocess.SubprocessError((done.stdout or done.stderr).strip())
    return done.stdout


def read_gpus(
    environ: Mapping[str, str], *, smi: Smi = nvidia_smi, sysfs: Path = _SYSFS
) -> list[Gpu]:
    """The GPUs within `CUDA_VISIBLE_DEVICES`; none without a driver.

    Raises OSError and subprocess.SubprocessError where the driver does not answer.
    """
    try:
        listed = smi([f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"])
    except FileNotFoundError:
        return []
    return visible((_gpu(line, sysfs) for line in listed.splitlines() if line.strip()), environ)


def visible(gpus: Iterable[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES lists, in its order, up to an entry that names none."""
    every = list(gpus)
    if VISIBLE not in environ:
        return every
    chosen: list[Gpu] = []
    for entry in environ[VISIBLE].split(","):
        gpu = next((one for one in every if _is_named(one, entry.strip())), None)
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen


def _is_named(gpu: Gpu, entry: str) -> bool:
    return entry == str(gpu.index) or (entry.startswith("GPU-") and gpu.uuid.startswith(entry))


def _gpu(line: str, sysfs: Path) -> Gpu:
    index, uuid, name, total_mib, free_mib, driver, bus_id = (
        part.strip() for part in line.split(",")
    )
    node = _numa_node(sysfs / "bus/pci/devices" / bus_id.lower()[-_BUS_ID_LENGTH:])
    return Gpu(
        index=int(index),
        uuid=uuid,
        name=name,
        memory_gib=float(total_mib) / _MIB_IN_GIB,
        free_gib=float(free_mib) / _MIB_IN_GIB,
        driver=driver,
        numa_node=node,
        cores=_cores_of(sysfs, node),
    )


def _numa_node(device: Path) -> int | None:
    """The device's NUMA node; None where unknown, or where there is only one."""
    with suppress(OSError, ValueError):
        node = int((device / "numa_node").read_text())
        return node if node >= 0 else None
    return None


def _cores_of(sysfs: Path, node: int | None) -> tuple[int, ...]:
    if node is None:
        return ()
    with suppress(OSError, ConfigError):
        text = (sysfs / f"devices/system/node/node{node}/cpulist").read_text()
        return tuple(core_numbers(text.strip()))
    return ()


def without_peer_access(smi: Smi = nvidia_smi) -> list[str]:
    """Pairs of GPUs, as `GPU0-GPU3`, that cannot read each other's memory; [] where unknown."""
    with suppress(OSError, subprocess.SubprocessError):
        return parse_peers(smi(["topo", "-p2p", "r"]))
    return []


def parse_peers(matrix: str) -> list[str]:
    """Pairs without access, from nvidia-smi's matrix: `OK` is access, `X` the GPU itself."""
    rows = [line.split() for line in matrix.splitlines() if line.strip().startswith("GPU")]
    names = rows[0] if rows else []
    pairs = (
        (row[0], name, access)
        for row in rows[1:]
        for name, access in zip(names, row[1:], strict=False)
    )
    return [f"{one}-{other}" for one, other, access in pairs if one < other and access != "OK"]


def rdma_devices(sysfs: Path = _SYSFS) -> dict[str, bool]:
    """Whether the first port of each RDMA device is up, by the device's name."""
    folder = sysfs / "class/infiniband"
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    return {name: "ACTIVE" in _text(folder / name / "ports/1/state") for name in names}


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""
