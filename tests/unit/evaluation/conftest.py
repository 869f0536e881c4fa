import pytest

from services.evaluation.contenders import settings_of
from services.evaluation.scenarios import hardware_of, load_of
from services.evaluation.settings import Scene


@pytest.fixture(scope="session")
def setting() -> str:
    """The first one of a rival that is quick to simulate."""
    load = load_of("Coder", rate=1.0, programs=10, seed=1)
    scene = Scene(hardware=hardware_of("opt-7b-a100-40gb"), replicas=1, load=load)
    return next(iter(settings_of("vllm-paper", scene)))
