"""KV transfers between engines: each engine sends and receives one at a time."""

from collections import defaultdict
from dataclasses import dataclass, field

from shared.hardware import Hardware


@dataclass(slots=True)
class Links:
    """The times until which each engine, by name, sends and receives."""

    _sends_until_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _receives_until_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def move(self, start: str, end: str, tokens: int, hardware: Hardware, now: float) -> float:
        """Starts a transfer as soon as both engines are free; returns its end in seconds."""
        begins_s = max(now, self._sends_until_s[start], self._receives_until_s[end])
        ends_s = begins_s + transfer_s(tokens, hardware)
        self._sends_until_s[start] = self._receives_until_s[end] = ends_s
        return ends_s


def transfer_s(tokens: int, hardware: Hardware) -> float:
    """Seconds to transfer the KV of `tokens` tokens on an idle link."""
    moved_bytes = tokens * hardware.kv_bytes_per_token
    return hardware.link_latency_s + moved_bytes / hardware.link_bytes_per_s
