import pytest

from services.evaluation.baselines import last_moment
from services.evaluation.baselines.baseline import StepFormer
from services.evaluation.baselines.slai import LastMoment
from shared.scheduling.shares import EVICT
from tests.unit.evaluation.baselines.steps import decode, prompt, step


def early(seconds: float, *, shortest: bool = False, tight: bool = False) -> StepFormer:
    return lambda rows, tokens, counts, table, limits, now: last_moment.form(
        rows, tokens, counts, table, limits, now, seconds, shortest, tight
    )


@pytest.mark.parametrize(("due_s", "tokens"), [(0.05, [1, 511]), (0.051, [0, 512])])
def test_a_decode_waits_behind_prompts_until_its_last_moment(
    due_s: float, tokens: list[int]
) -> None:
    assert step(early(0.05), decode(due_s=due_s), prompt(1000)).tokens == tokens


def test_decodes_with_time_take_what_prompts_leave_the_first_due_first() -> None:
    formed = step(early(0.0), decode(due_s=0.3), decode(due_s=0.2), prompt(63), max_tokens=64)

    assert formed.tokens == [0, 1, 63]


def test_the_last_moment_is_counted_in_mean_steps() -> None:
    former = LastMoment(2.0, shortest_first=False, tight_first=False)

    tokens = [step(former, decode(due_s=0.1), prompt(size)).tokens for size in (512, 1000)]

    # Nothing is known at first; then one step of 61.2 ms is.
    assert tokens == [[0, 512], [1, 511]]
    assert step(former, decode(due_s=0.123), prompt(1000)).tokens == [0, 512]


@pytest.mark.parametrize(("free_blocks", "tokens"), [(4, [1, 0]), (5, [0, 64])])
def test_decodes_run_twice_as_early_while_kv_is_nearly_full(
    free_blocks: float, tokens: list[int]
) -> None:
    rows = decode(context=1600, due_s=0.09), prompt(64)

    formed = step(early(0.05), *rows, max_tokens=64, free_blocks=free_blocks)

    assert formed.tokens == tokens


@pytest.mark.parametrize(
    ("shortest", "tight", "tokens"),
    [(False, False, [512, 0, 0]), (True, False, [0, 400, 112]), (True, True, [0, 12, 500])],
)
def test_waiting_prompts_come_by_arrival_by_length_or_by_pace(
    shortest: bool, tight: bool, tokens: list[int]
) -> None:
    rows = prompt(600), prompt(400), prompt(500, tpot_s=0.05)

    assert step(early(0.0, shortest=shortest, tight=tight), *rows).tokens == tokens


def test_what_was_begun_goes_on_before_shorter_prompts_that_wait() -> None:
    begun = prompt(1000, computed=600, runs=True)

    assert step(early(0.0, shortest=True), prompt(200), begun).tokens == [112, 400]


def test_a_prompt_without_room_for_all_of_it_waits_and_no_other_passes_it() -> None:
    formed = step(early(0.0), prompt(600), prompt(16), decode(context=161), free_blocks=33)

    assert formed.tokens == [0, 0, 1]


def test_where_kv_runs_out_a_prompt_gives_way_before_a_decode() -> None:
    begun = prompt(320, computed=160, runs=True)

    assert step(early(0.0), begun, decode(due_s=-1.0), free_blocks=0).tokens == [EVICT, 1]
    rows = begun, decode(due_s=-1.0), decode(context=161, due_s=-1.0)
    assert step(early(0.0), *rows, free_blocks=0).tokens == [EVICT, 1, 1]
