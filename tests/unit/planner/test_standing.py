import numpy as np

from services.planner.state.standing import Promised, promised_in
from shared.scheduling.rows import BEST_EFFORT, new_row


def test_promised_prompts_count_with_a_deadline_and_without() -> None:
    rows = np.array(
        [
            new_row(tokens=100, computed=40, left=5, due_s=9.0, tpot_s=0.05),
            new_row(tokens=300, left=5, tpot_s=0.05),
            new_row(tokens=101, computed=100, produced=1, left=5, due_s=9.0, tpot_s=0.05),
            new_row(tokens=500, left=5, due_s=9.0, kind=BEST_EFFORT),
        ]
    )

    one = Promised(requests=3, prompt_tokens=360.0, due_prompt_tokens=60.0)
    assert promised_in(rows) == one
    assert one + one == Promised(requests=6, prompt_tokens=720.0, due_prompt_tokens=120.0)
