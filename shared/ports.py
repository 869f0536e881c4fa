"""Picks ports that are free now, for processes that are given a port before they listen."""

import random
import socket
from contextlib import ExitStack
from typing import Final

from shared.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"

# Below the ports that systems use for outgoing connections: one of those may be taken before its
# process listens.
_FIRST, _END = 10_000, 32_768
_TRIED: Final = 1000


class FreePorts:
    """Picks different ports, and releases them when its context ends."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> "FreePorts":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def pick(self, host: str = LOOPBACK) -> int:
        """A free port. Raises ConfigError if there is none on this host."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(_TRIED):
            port = random.randrange(_FIRST, _END)  # noqa: S311 - chance, not a secret
            probe = self._held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                probe.bind((host, port))
            except OSError as error:
                why = error.strerror
            else:
                return port
        raise ConfigError(f"No port on {host} can be had ({why}); name one.")
