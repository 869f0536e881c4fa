import pytest

from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import settings_of


@pytest.fixture(scope="session")
def setting() -> str:
    """The first one of a baseline that is quick to simulate."""
    case = tuning_case_of("Coder", "opt-7b-a100-40gb", 1, 1)
    return next(iter(settings_of("vllm-paper", case)))
