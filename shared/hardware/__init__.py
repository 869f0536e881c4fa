"""What a simulated engine is made of: its true step time, memory and links. Simulates nothing."""

from shared.hardware.catalogue import load, names, read
from shared.hardware.hardware import Draft, Hardware
from shared.hardware.memory import KvMemory
from shared.hardware.profile import exact, paper_form, profiled
from shared.hardware.truth import TrueStep, noisy_s, true_s

__all__ = [
    "Draft",
    "Hardware",
    "KvMemory",
    "TrueStep",
    "exact",
    "load",
    "names",
    "noisy_s",
    "paper_form",
    "profiled",
    "read",
    "true_s",
]
