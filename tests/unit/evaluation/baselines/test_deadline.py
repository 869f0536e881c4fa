import pytest

from services.evaluation.baselines.qoserve import by_deadline
from shared.scheduling.rows import EXPIRED, KIND, NO_SLO
from shared.scheduling.shares import EVICT
from tests.unit.evaluation.baselines.steps import decode, prompt, step

BY_DEADLINE = by_deadline(0.0)


def test_without_decodes_a_prompt_gets_all_that_a_step_has() -> None:
    assert step(BY_DEADLINE, prompt(1000)).tokens == [512]


@pytest.mark.parametrize(("due_s", "chunk"), [(0.1, 895), (0.2, 1791), (0.04, 255)])
def test_the_chunk_is_what_ends_before_the_next_token_is_due(due_s: float, chunk: int) -> None:
    # 10 ms and 0.1 ms for each token, in grains of 128 with the decode's own
    formed = step(BY_DEADLINE, decode(due_s=due_s), prompt(4000), max_tokens=2048)

    assert formed.tokens == [1, chunk]
    assert formed.lasts_s <= due_s


def test_a_late_decode_leaves_steps_of_128_tokens() -> None:
    formed = step(BY_DEADLINE, decode(due_s=-1.0), prompt(1000), max_tokens=2048)

    assert formed.tokens == [1, 127]


def test_prompts_are_taken_by_deadline() -> None:
    formed = step(BY_DEADLINE, prompt(400, due_s=2.0), prompt(400, due_s=1.9))

    assert formed.tokens == [112, 400]


def test_work_that_is_left_counts_beside_the_deadline() -> None:
    rows = prompt(900, due_s=1.9), prompt(400, due_s=2.0)

    assert step(BY_DEADLINE, *rows).tokens == [512, 0]
    assert step(by_deadline(0.001), *rows).tokens == [112, 400]


def test_a_prompt_that_cannot_be_on_time_is_relegated_behind_all_others() -> None:
    # 512 tokens take 61.2 ms, so that 1,000 take 120 ms
    formed = step(BY_DEADLINE, prompt(1000, due_s=0.11), prompt(500, due_s=10.0))

    assert formed.tokens == [12, 500]
    assert formed.rows[:, KIND].tolist() == [EXPIRED, NO_SLO]


def test_what_can_just_be_on_time_is_not_relegated() -> None:
    formed = step(BY_DEADLINE, prompt(1000, due_s=0.13), prompt(500, due_s=10.0))

    assert formed.tokens == [512, 0]
    assert formed.rows[:, KIND].tolist() == [NO_SLO, NO_SLO]


def test_what_was_begun_is_never_relegated() -> None:
    formed = step(BY_DEADLINE, prompt(1000, computed=100, runs=True, due_s=-1.0))

    assert formed.rows[0, KIND] == NO_SLO


def test_a_relegated_decode_leaves_prompts_all_the_time() -> None:
    relegated = decode(due_s=-1.0)
    relegated[KIND] = EXPIRED

    assert step(BY_DEADLINE, relegated, prompt(1000)).tokens == [1, 511]


def test_where_kv_runs_out_the_relegated_gives_way() -> None:
    relegated = decode()
    relegated[KIND] = EXPIRED

    assert step(BY_DEADLINE, relegated, decode(), decode(), free_blocks=0).tokens == [EVICT, 1, 1]


def test_a_prompt_without_room_lets_others_pass() -> None:
    formed = step(BY_DEADLINE, prompt(600, due_s=1.0), prompt(16, due_s=2.0), free_blocks=5)

    assert formed.tokens == [0, 16]
