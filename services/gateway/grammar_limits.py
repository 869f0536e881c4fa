"""Limits on compiling one grammar of structured output."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """`time_s` is processor time; the kernel enforces both limits."""

    time_s: float = 5.0
    memory_bytes: int = 512 * 1024 * 1024
