import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.stages import StageProgress, stage_progress
from shared.requests import Stage

ASKED = (Stage(name="thinking", tpot_s=0.02), Stage(name="answer", tpot_s=0.1))
ENDS = {"thinking": (7, 8), "answer": (9,)}
tokens = st.lists(st.integers(1, 12), max_size=40)


def progress(*prompt: int) -> StageProgress:
    made = stage_progress(ASKED, ENDS, prompt)
    assert made is not None
    return made


def counts(of: StageProgress) -> list[int]:
    return [stage.output_tokens for stage in of.stages]


def test_without_stages_there_is_nothing_to_follow() -> None:
    assert stage_progress((), ENDS, [1]) is None


def test_a_stage_has_its_end_token_and_the_next_one_what_comes_after() -> None:
    run = progress()

    run.produced([1, 2, 7], 1.0)
    run.produced([7, 9, 1], 2.0)

    assert counts(run) == [3, 3]
    assert [stage.name for stage in run.left] == ["answer"]


def test_a_stage_whose_end_nobody_knows_lasts_to_the_end() -> None:
    run = stage_progress(ASKED, {}, [])
    assert run is not None

    run.produced([7, 8, 9], 1.0)

    assert counts(run) == [3, 0]


def test_the_pace_of_a_stage_counts_from_the_token_before_it() -> None:
    run = progress()
    for token, at_s in ((1, 10.0), (7, 10.5), (3, 11.5), (4, 12.5)):
        run.produced([token], at_s)

    assert [stage.tpot_s for stage in run.stages] == [0.5, 1.0]


def test_a_stage_of_one_token_at_the_begin_has_no_pace_to_miss() -> None:
    run = progress()
    run.produced([7], 10.0)

    assert [stage.tpot_s for stage in run.stages] == [None, None]
    assert run.lateness == 0.0


def test_tokens_of_one_step_share_its_time() -> None:
    run = progress()
    run.produced([1], 10.0)
    run.produced([7, 3, 4], 10.3)

    assert [stage.tpot_s for stage in run.stages] == pytest.approx([0.3, 0.0])


def test_the_worst_stage_says_how_late_the_whole_is() -> None:
    run = progress()
    for token, at_s in ((1, 10.0), (7, 10.04), (3, 10.09)):
        run.produced([token], at_s)

    assert run.lateness == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("prompt", "left"),
    [([7, 1], 1), ([1, 7], 1), ([7, *[1] * 8], 2), ([9, 8, 7], 1), ([], 2)],
)
def test_a_prompt_that_ends_a_stage_in_its_last_tokens_is_past_it(
    prompt: list[int], left: int
) -> None:
    assert len(progress(*prompt).left) == left


@given(first=tokens, second=tokens)
def test_it_is_no_matter_how_tokens_are_joined(first: list[int], second: list[int]) -> None:
    joined, apart = progress(), progress()

    joined.produced([*first, *second], 1.0)
    for part in (first, second):
        apart.produced(part, 1.0)

    assert counts(joined) == counts(apart)
    assert sum(counts(joined)) == len(first) + len(second)
