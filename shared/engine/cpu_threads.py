"""Threads of an engine on CPU, as the environment that says them to OpenMP and vLLM. Pure."""

import re
from typing import Final

from shared.errors import ConfigError

_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")


def thread_environment(cores: str, allowed_cores: int) -> dict[str, str]:
    """One thread per core, bound to `cores` (`0-3,6`); unbound on all allowed ones where empty.

    vLLM then runs the model within the engine core: a worker process of its own, vLLM's default on
    CPU, takes half again as long to start, 0.7 GB more, and a hop for every step.
    Raises ConfigError when `cores` is no such list.
    """
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if not cores:
        return one_process | {"OMP_NUM_THREADS": str(allowed_cores)}
    numbers = core_numbers(cores)
    return one_process | {
        "OMP_NUM_THREADS": str(len(numbers)),
        "OMP_PLACES": f"{{{','.join(map(str, numbers))}}}",
        "OMP_PROC_BIND": "true",
    }


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
