"""What compiling one grammar of structured output may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """`time_s` is of one processor; both are enforced by the kernel."""

    time_s: float = 5.0
    memory_bytes: int = 512 * 1024 * 1024
