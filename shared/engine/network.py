"""Which network devices stand behind an address."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from shared.errors import ConfigError

_RDMA_DEVICES: Final = Path("/sys/class/infiniband")


def ucx_devices(host: str) -> list[str]:
    """What UCX may listen on: the device that has the address `host`, and the machine's RDMA
    devices unless that is loopback.

    UCX listens on every device that it may use, without authentication. Raises ConfigError.
    """
    return devices_for(host, _devices_by_address(), _rdma_devices())


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


def _rdma_devices() -> list[str]:
    names = sorted(one.name for one in _RDMA_DEVICES.iterdir()) if _RDMA_DEVICES.is_dir() else []
    return [f"{name}:1" for name in names]
