"""A sample of the load for which systems are tuned, the same wherever their settings are listed."""

from functools import lru_cache
from typing import Final

from services.evaluation.scenarios import hardware_of, load_on
from services.evaluation.settings import TuningCase
from shared.workloads.calls import Load

_SAMPLE: Final = 400


def tuning_case_of(scenario: str, hardware: str, replicas: int, seed: int) -> TuningCase:
    """The case of a scenario. Raises ConfigError for unknown names."""
    return TuningCase(
        hardware=hardware_of(hardware), replicas=replicas, load=sample_of(scenario, hardware, seed)
    )


@lru_cache(maxsize=8)
def sample_of(scenario: str, hardware: str, seed: int) -> Load:
    """A sample of programs, one per second."""
    return load_on(scenario, hardware_of(hardware), rate=1.0, programs=_SAMPLE, seed=seed)
