"""What a simulated engine is made of: its true step time, memory and links. Simulates nothing."""

from shared.hardware.catalogue import load, names, read
from shared.hardware.hardware import Draft, Hardware
from shared.hardware.memory import KvMemory
from shared.hardware.truth import TrueStep, noisy_s, true_s

__all__ = [
    "Draft",
    "Hardware",
    "KvMemory",
    "TrueStep",
    "load",
    "names",
    "noisy_s",
    "read",
    "true_s",
]
