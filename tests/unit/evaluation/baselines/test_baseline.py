import numpy as np
import pytest

from services.evaluation.baselines.baseline import Baseline
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.baselines.vllm import chunks
from shared.batch_time.table import COUNTS
from shared.simulation.engine import SimEngine
from tests.unit.evaluation.baselines.steps import decode, prompt
from tests.unit.shared.simulation.fleet import drafting, fleet, hardware


def formed(baseline: Baseline, *rows: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    engine: SimEngine = fleet(drafting(hardware()))[0]
    for index, row in enumerate(rows):
        engine.add(row, index)
    tokens, counts = np.zeros(len(rows), dtype=np.int64), np.zeros(COUNTS)
    baseline.form(engine, tokens, counts, 0.0)
    return [int(one) for one in tokens]


def test_steps_have_the_budget_that_was_set_for_the_engine() -> None:
    assert formed(Baseline(LeastLoaded(), chunks(), budget_tokens={"d0": 64}), prompt(100)) == [64]


def test_steps_are_never_longer_than_the_engine_allows() -> None:
    assert formed(Baseline(LeastLoaded(), chunks(), budget_tokens={"d0": 9999}), prompt(900)) == [
        512
    ]


@pytest.mark.parametrize(("most", "tokens"), [(None, 4), (2, 4), (1, 1)])
def test_no_request_drafts_where_more_run_than_may_draft(most: int | None, tokens: int) -> None:
    baseline = Baseline(LeastLoaded(), chunks(), drafts=3, drafting_requests=most)

    assert formed(baseline, decode(), decode()) == [tokens, tokens]
