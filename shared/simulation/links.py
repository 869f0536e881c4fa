"""The way of KV from one engine to another: one transfer at a time leaves and enters each."""

from collections import defaultdict
from dataclasses import dataclass, field

from shared.hardware import Hardware


@dataclass(slots=True)
class Links:
    """By an engine's name, until when it sends and until when it receives."""

    _sends_until_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _receives_until_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def move(self, start: str, end: str, tokens: int, hardware: Hardware, now: float) -> float:
        """When the KV of so many tokens has arrived if it sets out as soon as both are free."""
        begins_s = max(now, self._sends_until_s[start], self._receives_until_s[end])
        ends_s = begins_s + transfer_s(tokens, hardware)
        self._sends_until_s[start] = self._receives_until_s[end] = ends_s
        return ends_s


def transfer_s(tokens: int, hardware: Hardware) -> float:
    """Of so many tokens' KV on a link that does nothing else."""
    moved_bytes = tokens * hardware.kv_bytes_per_token
    return hardware.link_latency_s + moved_bytes / hardware.link_bytes_per_s
