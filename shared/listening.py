"""Checks that a process listens on loopback only, unless peers are authenticated."""

import ipaddress
import socket
from collections.abc import Mapping
from typing import Final

from shared.errors import ConfigError

_PASSIVE: Final = socket.AI_PASSIVE  # no host at all means every address

INSECURE_VARIABLE: Final = "SLOS_INSECURE"
INSECURE_HELP: Final = (
    "listen beyond loopback also where peers are not asked for the cluster's secret; the network"
    " must then keep strangers out"
)
HEALTH_PORT_HELP: Final = (
    "one more port on host with nothing but the gRPC health service, for probes that have no"
    " secret; 0: none"
)


def require_protection(hosts: Mapping[str, str], *, insecure: bool) -> None:
    """Checks `hosts`, the addresses of unauthenticated ports by the options that name them.

    Raises ConfigError if one is not a loopback address, unless `insecure`.
    """
    for option, host in hosts.items():
        if not insecure and not is_loopback(host):
            raise ConfigError(
                f"{option}: {host or 'every address'} is open to other machines, and peers would "
                "not be authenticated: share a secret with --cluster-secret-file (make one with "
                "`slos-serve cluster-secret FILE`), or say --insecure where the network keeps "
                "strangers out."
            )


def is_loopback(host: str) -> bool:
    """Whether all addresses of `host` are loopback; False for a name that cannot be resolved."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=_PASSIVE)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
