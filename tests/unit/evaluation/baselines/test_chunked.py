import pytest

from services.evaluation.baselines.vllm import chunks
from shared.batch_time.table import CHUNKS, DECODES, PREFILL, SPECULATED
from shared.scheduling.rows import DRAFT
from shared.scheduling.shares import EVICT
from tests.unit.evaluation.baselines.steps import decode, prompt, step

BY_ARRIVAL, BY_PRIORITY = chunks(), chunks(by_priority=True)
DRAFTING = chunks(drafts=3)


def test_decodes_run_first_and_a_chunk_fills_the_budget() -> None:
    formed = step(BY_ARRIVAL, decode(), decode(), prompt(1000))

    assert formed.tokens == [1, 1, 510]
    assert formed.counts[[DECODES, CHUNKS, PREFILL]].tolist() == [2, 1, 510]
    assert formed.lasts_s == pytest.approx(0.01 + 512e-4)


def test_what_was_begun_goes_on_behind_decodes_and_before_those_that_wait() -> None:
    begun = prompt(1000, computed=510, runs=True)

    assert step(BY_ARRIVAL, begun, decode(), prompt(100)).tokens == [490, 1, 21]


def test_prompts_share_a_step_in_order_of_arrival() -> None:
    assert step(BY_ARRIVAL, prompt(300), prompt(300), prompt(5)).tokens == [300, 212, 0]


def test_a_prefix_in_the_cache_is_not_computed_again() -> None:
    assert step(BY_ARRIVAL, prompt(300, computed=256), prompt(100)).tokens == [44, 100]


def test_no_request_takes_a_place_that_is_not_there() -> None:
    assert step(BY_ARRIVAL, decode(), prompt(100), max_resident=1).tokens == [1, 0]


def test_requests_with_kv_from_elsewhere_start_before_prompts() -> None:
    moved = decode(runs=False)

    assert step(BY_ARRIVAL, prompt(600), moved, max_resident=1).tokens == [0, 1]


def test_the_last_that_runs_is_preempted_and_no_request_starts_in_that_step() -> None:
    full = [decode(context=160) for _ in range(3)]  # ten full blocks each

    formed = step(BY_ARRIVAL, *full, prompt(16), free_blocks=0)

    assert formed.tokens == [1, 1, EVICT, 0]


def test_a_prompt_without_room_for_all_of_it_waits_and_none_passes_it() -> None:
    formed = step(BY_ARRIVAL, decode(context=161), prompt(600), prompt(16), free_blocks=33)

    assert formed.tokens == [1, 0, 0]


def test_a_prefix_that_a_prompt_found_has_room_when_the_prompt_begins_or_not_at_all() -> None:
    found = prompt(320, computed=160)

    assert step(BY_ARRIVAL, found, free_blocks=19).tokens == [0]
    assert step(BY_ARRIVAL, found, free_blocks=20).tokens == [160]


def test_by_priority_the_tightest_class_starts_first() -> None:
    assert step(BY_PRIORITY, prompt(600, key=1), prompt(400, key=0)).tokens == [112, 400]


def test_by_priority_the_loosest_class_gives_way_though_it_came_first() -> None:
    formed = step(BY_PRIORITY, decode(key=1), decode(key=0), decode(key=0), free_blocks=0)

    assert formed.tokens == [EVICT, 1, 1]


def test_by_priority_a_token_that_was_given_is_taken_back_for_a_tighter_class() -> None:
    roomy, full = decode(context=161, key=1), decode(context=160, key=0)

    assert step(BY_PRIORITY, roomy, full, free_blocks=0).tokens == [EVICT, 1]


def test_drafts_are_verified_as_far_as_the_budget_reaches() -> None:
    formed = step(BY_ARRIVAL, decode(), decode(), prompt(100), max_tokens=6, drafts=3)

    assert formed.tokens == [4, 2, 0]
    assert formed.rows[:, DRAFT].tolist() == [3, 1, 0]
    assert formed.counts[[DECODES, SPECULATED]].tolist() == [2, 4]


def test_a_draft_model_takes_a_token_of_the_budget_for_each_request_of_the_step() -> None:
    assert step(DRAFTING, prompt(1000)).tokens == [511]
    assert step(DRAFTING, decode(), decode(), prompt(1000), drafts=3).tokens == [4, 4, 501]
    assert step(DRAFTING, decode(), decode(), prompt(100), max_tokens=5, drafts=3).tokens == [
        4,
        0,
        0,
    ]


def test_a_row_that_gives_way_returns_the_token_of_the_draft_model() -> None:
    form = chunks(by_priority=True, drafts=3)
    rows = decode(context=161, key=1), decode(context=160, key=0), decode(context=161, key=0)

    assert step(form, *rows, max_tokens=4, free_blocks=0).tokens == [EVICT, 1, 1]


def test_no_request_drafts_before_its_first_token() -> None:
    formed = step(BY_ARRIVAL, prompt(1), prompt(33, computed=32), drafts=3)

    assert formed.tokens == [1, 1]


def test_there_is_no_step_where_all_kv_is_on_its_way() -> None:
    coming = decode(runs=False, available_s=1.0)

    assert step(BY_ARRIVAL, coming, free_blocks=0).lasts_s == 0


def test_a_prompt_that_never_fits_as_a_whole_still_moves_when_it_is_alone() -> None:
    assert step(BY_ARRIVAL, prompt(1000), free_blocks=40).tokens == [512]
