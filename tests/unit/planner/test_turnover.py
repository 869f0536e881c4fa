import math

import numpy as np
import pytest

from services.planner.state.turnover import decoding, prompt_tokens_each, usual_step_s
from shared.scheduling.rows import Rows, empty, new_row
from tests.unit.planner.world import TABLE


def halfway(requests: int, prompt_tokens: int, produced: int) -> Rows:
    """Requests that decode, each halfway through its answer."""
    tokens = prompt_tokens + produced
    one = new_row(tokens=tokens, computed=tokens - 1, produced=produced, left=produced)
    return np.array([one] * requests)


def test_prompts_come_as_answers_end() -> None:
    assert prompt_tokens_each(halfway(3, prompt_tokens=400, produced=50)) == 400 / 100


def test_what_waits_for_its_first_token_does_not_decode() -> None:
    rows = np.vstack([halfway(2, 100, 10), new_row(tokens=300, left=20)])

    assert decoding(rows).tolist() == [True, True, False]
    assert usual_step_s(rows, TABLE) == usual_step_s(rows[:2], TABLE)


def test_a_usual_step_has_prompts_beside_all_decodes() -> None:
    rows = halfway(8, prompt_tokens=400, produced=50)

    assert usual_step_s(rows, TABLE) > TABLE.decodes_s(8, 8 * 450)


@pytest.mark.parametrize("rows", [empty(0), new_row(tokens=300, left=20)[None]])
def test_an_engine_that_decodes_nothing_has_no_usual_step(rows: Rows) -> None:
    assert usual_step_s(rows, TABLE) == 0.0
    assert prompt_tokens_each(rows) == math.inf
