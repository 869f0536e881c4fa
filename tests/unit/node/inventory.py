"""A machine with GPUs as its tools tell of it: a fake of nvidia-smi, and a folder for sysfs."""

from collections.abc import Sequence
from pathlib import Path

from services.node.gpus import Gpu, Smi, read_gpus

H100_MIB = 81559


def smi(count: int, *, free_mib: int = 81000, name: str = "NVIDIA H100 80GB HBM3") -> Smi:
    """An nvidia-smi that lists `count` equal GPUs."""

    def answer(arguments: Sequence[str]) -> str:
        assert arguments[0].startswith("--query-gpu=index,uuid,name,memory.total,memory.free,")
        what = f"{name}, {H100_MIB}, {free_mib}, 580.65.06"
        return "".join(f"{n}, GPU-{n}aaa, {what}, 00000000:{n + 16:X}:00.0\n" for n in range(count))

    return answer


def sysfs(folder: Path, count: int, *, nodes: int = 2) -> Path:
    """`count` GPUs spread over `nodes` NUMA nodes of four CPUs each."""
    for number in range(count):
        device = folder / "bus/pci/devices" / f"0000:{number + 16:x}:00.0"
        device.mkdir(parents=True)
        (device / "numa_node").write_text(f"{number * nodes // count}\n")
    for node in range(nodes):
        place = folder / f"devices/system/node/node{node}"
        place.mkdir(parents=True)
        (place / "cpulist").write_text(f"{4 * node}-{4 * node + 3}\n")
    return folder


def gpus(folder: Path, count: int, *, nodes: int = 2, free_mib: int = 81000) -> list[Gpu]:
    return read_gpus({}, smi=smi(count, free_mib=free_mib), sysfs=sysfs(folder, count, nodes=nodes))
