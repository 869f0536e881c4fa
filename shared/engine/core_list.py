"""Lists of CPU cores as people and the kernel write them. Pure."""

import re
from typing import Final

from shared.errors import ConfigError

_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")


def core_numbers(cores: str) -> list[int]:
    """`0-2,6` as 0, 1, 2, 6. Raises ConfigError."""
    numbers: set[int] = set()
    for part in cores.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(first) > int(last):
            raise ConfigError(f"cores: read {cores!r}, allowed is a list like 0-3 or 0,2,4-7")
        numbers |= set(range(int(first), int(last) + 1))
    return sorted(numbers)
