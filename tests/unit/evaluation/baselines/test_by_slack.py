import math

import pytest

from services.evaluation.baselines.fairbatching import least_slack
from shared.scheduling.shares import EVICT
from tests.unit.evaluation.baselines.steps import decode, prompt, step

FORM = least_slack(1.0)  # 10 ms and 0.1 ms for each token


def test_without_decodes_a_prompt_gets_all_that_a_step_has() -> None:
    assert step(FORM, prompt(1000)).tokens == [512]


@pytest.mark.parametrize(("due_s", "chunk"), [(0.0905, 804), (0.2005, 1904)])
def test_a_step_ends_before_the_next_token_is_due(due_s: float, chunk: int) -> None:
    formed = step(FORM, decode(due_s=due_s, tpot_s=0.05), prompt(4000), max_tokens=2048)

    assert formed.tokens == [1, chunk]
    assert formed.lasts_s <= due_s


@pytest.mark.parametrize("due_s", [-1.0, 0.01])
@pytest.mark.parametrize(("share", "chunk"), [(1.0, 404), (2.0, 909)])
def test_a_step_may_always_last_its_share_of_the_tightest_pace(
    due_s: float, share: float, chunk: int
) -> None:
    rows = decode(due_s=due_s, tpot_s=0.0505), prompt(4000)

    assert step(least_slack(share), *rows, max_tokens=2048).tokens == [1, chunk]


def test_late_decodes_do_not_shorten_steps_that_others_leave_longer() -> None:
    late, in_time = decode(due_s=-1.0, tpot_s=0.05), decode(due_s=0.2005, tpot_s=0.05)

    assert step(FORM, late, in_time, prompt(4000), max_tokens=2048).tokens == [1, 1, 1903]


def test_prompts_go_before_decodes_that_are_ahead_and_behind_those_nearly_due() -> None:
    ahead, nearly_due = decode(due_s=1.0, tpot_s=0.05), decode(due_s=0.1005, tpot_s=0.05)

    assert step(FORM, ahead, nearly_due, prompt(4000), max_tokens=2048).tokens == [0, 1, 904]
    assert step(FORM, ahead, nearly_due, prompt(100), max_tokens=2048).tokens == [1, 1, 100]


def test_a_decode_is_nearly_due_that_could_not_wait_for_another_step() -> None:
    # The step lasts 100.5 ms, the one after it may last 50 ms.
    first, waits = decode(due_s=0.1005, tpot_s=0.05), decode(due_s=0.151, tpot_s=0.05)
    cannot_wait = decode(due_s=0.15, tpot_s=0.05)

    assert step(FORM, first, waits, prompt(4000), max_tokens=2048).tokens[1] == 0
    assert step(FORM, first, cannot_wait, prompt(4000), max_tokens=2048).tokens[1] == 1


def test_decodes_that_are_nearly_due_go_however_long_that_takes() -> None:
    rows = [decode(due_s=0.005, tpot_s=0.005) for _ in range(40)]

    assert step(FORM, *rows, prompt(100)).tokens == [1] * 40 + [0]


def test_decodes_without_a_pace_leave_steps_as_long_as_the_engine_allows() -> None:
    paceless = decode(due_s=math.inf, tpot_s=math.inf)

    assert step(FORM, paceless, prompt(100)).tokens == [1, 100]
    assert step(FORM, paceless, prompt(1000)).tokens == [0, 512]


def test_prompts_are_taken_by_deadline() -> None:
    formed = step(FORM, prompt(400, due_s=2.0), prompt(400, due_s=1.9))

    assert formed.tokens == [112, 400]


def test_a_prompt_without_room_lets_others_pass() -> None:
    formed = step(FORM, prompt(600, due_s=1.0), prompt(16, due_s=2.0), free_blocks=5)

    assert formed.tokens == [0, 16]


def test_where_kv_runs_out_the_last_that_runs_gives_way() -> None:
    assert step(FORM, *[decode() for _ in range(3)], free_blocks=0).tokens == [1, 1, EVICT]
