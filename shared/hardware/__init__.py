"""The parts of a simulated engine: its true step time, memory and links."""

from shared.hardware.catalogue import load, names, read
from shared.hardware.hardware import Draft, Hardware
from shared.hardware.memory import KvMemory
from shared.hardware.own import from_profile
from shared.hardware.profile import exact, paper_form, profiled, saved_profile
from shared.hardware.truth import KnownStep, TrueStep, noisy_s, true_s

__all__ = [
    "Draft",
    "Hardware",
    "KnownStep",
    "KvMemory",
    "TrueStep",
    "exact",
    "from_profile",
    "load",
    "names",
    "noisy_s",
    "paper_form",
    "profiled",
    "read",
    "saved_profile",
    "true_s",
]
