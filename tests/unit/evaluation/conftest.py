import pytest

from services.evaluation.contenders import settings_of
from services.evaluation.scenes import scene_of


@pytest.fixture(scope="session")
def setting() -> str:
    """The first one of a rival that is quick to simulate."""
    scene = scene_of("Coder", "opt-7b-a100-40gb", 1, 1)
    return next(iter(settings_of("vllm-paper", scene)))
