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

    def pick(self, host: str = LOOPBACK, count: int = 1) -> int:
        """The first of `count` free ports in a row. Raises ConfigError where there are none."""
        why: str | None = "too many are taken"
        for _ in range(_TRIED):
            first = random.randrange(_FIRST, _END - count)  # noqa: S311 - chance, not a secret
            with ExitStack() as held:
                try:
                    for port in range(first, first + count):
                        _hold(held, host, port)
                except OSError as error:
                    why = error.strerror
                else:
                    self._held.push(held.pop_all())
                    return first
        raise ConfigError(f"No port on {host} can be had ({why}); name one.")


def _hold(held: ExitStack, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held.enter_context(socket.socket(family, socket.SOCK_STREAM)).bind((host, port))
