"""Which network devices stand behind an address, and which RDMA devices beside this process."""

import os
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from shared.errors import ConfigError

_SYSFS: Final = Path("/sys")


def ucx_devices(host: str) -> list[str]:
    """What UCX may listen on: the device that has the address `host`, and the machine's RDMA
    devices beside this process unless that is loopback.

    UCX listens on every device that it may use, without authentication. Raises ConfigError.
    """
    return devices_for(host, _devices_by_address(), rdma_beside(os.sched_getaffinity(0)))


def devices_for(host: str, devices: Mapping[str, str], rdma_devices: Sequence[str]) -> list[str]:
    """`devices`: network device by address. Raises ConfigError."""
    address = _resolved(host)
    device = devices.get(address) or ("lo" if _is_loopback(address) else None)
    if device is None:
        raise ConfigError(
            f"kv_host: no network device of this machine has the address {host}; "
            f"there are {', '.join(sorted(devices))}."
        )
    return [device] if _is_loopback(address) else [*rdma_devices, device]


def _resolved(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"kv_host: {host} has no address ({error.strerror}).") from error
    return str(found[0][4][0])


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _devices_by_address() -> dict[str, str]:
    return {
        one.address.partition("%")[0]: name
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family in (socket.AF_INET, socket.AF_INET6)
    }


def rdma_beside(cores: Collection[int], sysfs: Path = _SYSFS) -> list[str]:
    """The first ports of the RDMA devices on the NUMA nodes of `cores`.

    An engine that is bound to the node of its GPUs thus reaches others by the devices beside them.
    All devices where none is on those nodes, or the kernel does not know.
    """
    folder = sysfs / "class/infiniband"
    nodes = {one.name: _number(one / "device/numa_node") for one in _entries(folder)}
    near = _nodes_of(cores, sysfs)
    beside = [name for name, node in nodes.items() if node in near]
    return [f"{name}:1" for name in sorted(beside or nodes)]


def _nodes_of(cores: Collection[int], sysfs: Path) -> set[int]:
    places = (sysfs / f"devices/system/cpu/cpu{core}" for core in cores)
    return {
        int(one.name.removeprefix("node"))
        for place in places
        for one in _entries(place)
        if re.fullmatch(r"node\d+", one.name)
    }


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
