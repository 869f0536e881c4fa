import math
from typing import Any

import pytest

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.scheduling.former import StepFormer, StepPlan
from shared.scheduling.rows import BEST_EFFORT, NO_SLO, PROMISED, RESIDENT, new_row
from shared.scheduling.shares import EVICT, FREE_BLOCKS

TABLE = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(0.05, 0.001, 0.002, 0.0)))
BLOCK = 16


def formed(*rows: dict[str, Any], free_blocks: float, resident: int = 0) -> StepPlan:
    """The first `resident` of the rows hold their KV."""
    former = StepFormer(TABLE, max_tokens=512, block_tokens=BLOCK, max_resident=8)
    for number, one in enumerate(rows):
        row = new_row(left=50, **one)
        row[RESIDENT] = number < resident
        former.add(row)
    former.limits[FREE_BLOCKS] = free_blocks
    return former.form(1.0)


def decode(computed: int, kind: float = NO_SLO, came_s: float = 0.0) -> dict[str, Any]:
    return {
        "tokens": computed + 1,
        "computed": computed,
        "produced": 1,
        "kind": kind,
        "available_s": came_s,
    }


def test_where_nobody_has_room_all_others_go_on_at_the_cost_of_the_last() -> None:
    full = 2 * BLOCK  # each needs one more block for its next token
    plan = formed(
        decode(full, came_s=0.2), decode(full, came_s=0.1), decode(full, came_s=0.3),
        free_blocks=0, resident=3,
    )  # fmt: skip

    assert plan.tokens.tolist() == [1, 1, EVICT]


def test_a_promise_goes_on_at_the_cost_of_what_asked_for_nothing() -> None:
    full = 2 * BLOCK
    promised = decode(full, PROMISED, came_s=0.9) | {"due_s": 9.0, "tpot_s": 1.0}
    plan = formed(decode(full, came_s=0.1), promised, free_blocks=0, resident=2)

    assert plan.tokens.tolist() == [EVICT, 1]


@pytest.mark.parametrize("kind", [NO_SLO, BEST_EFFORT])
def test_who_came_first_goes_on_at_the_cost_of_the_last_of_its_kind(kind: float) -> None:
    full = decode(2 * BLOCK, kind)  # it needs a block, the others have room in theirs
    plan = formed(
        full | {"available_s": 0.1},
        decode(2 * BLOCK + 3, kind, came_s=0.2),
        decode(2 * BLOCK + 3, kind, came_s=0.3),
        free_blocks=0, resident=3,
    )  # fmt: skip

    assert plan.tokens.tolist() == [1, 1, EVICT]


def test_who_came_last_waits_while_others_can_go_on() -> None:
    plan = formed(
        decode(2 * BLOCK, came_s=0.2), decode(2 * BLOCK + 3, came_s=0.1), free_blocks=0, resident=2
    )

    assert plan.tokens.tolist() == [0, 1]


def test_no_prompt_begins_with_the_room_that_one_of_its_kind_gave_up() -> None:
    plan = formed(
        decode(2 * BLOCK, came_s=0.1),
        decode(4 * BLOCK - 1, came_s=0.2),
        {"tokens": BLOCK, "kind": NO_SLO, "available_s": 0.3},
        free_blocks=0,
        resident=2,
    )

    assert plan.tokens.tolist() == [1, EVICT, 0]


def test_a_prompt_that_has_not_begun_holds_nothing_of_the_prefix_that_it_found() -> None:
    prompt: dict[str, Any] = {"tokens": 20 * BLOCK, "computed": 10 * BLOCK, "kind": NO_SLO}

    assert formed(prompt, free_blocks=19).tokens.tolist() == [0]
    assert formed(prompt, free_blocks=20).tokens.tolist() == [10 * BLOCK]


@pytest.mark.parametrize("kind", [PROMISED, NO_SLO, BEST_EFFORT])
def test_a_prompt_is_begun_only_where_all_of_it_has_room(kind: float) -> None:
    prompt: dict[str, Any] = {"tokens": 600, "kind": kind, "due_s": math.inf}

    assert formed(prompt, free_blocks=37).tokens.tolist() == [0]
    assert formed(prompt, free_blocks=38).tokens.tolist() == [512]


def test_one_that_waits_evicts_nobody_of_its_own_kind() -> None:
    prompt: dict[str, Any] = {"tokens": 600, "kind": NO_SLO}
    plan = formed(decode(100), prompt, free_blocks=3, resident=1)

    assert plan.tokens.tolist() == [1, 0]
