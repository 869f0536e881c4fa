import pytest

from services.evaluation.baselines.sarathi import paced_chunks
from tests.unit.evaluation.baselines.steps import decode, prompt, step


@pytest.mark.parametrize(
    ("share", "chunk"),
    [(1.0, 383), (0.85, 319), (2.0, 895)],  # of 50 ms: 10 ms and 0.1 ms for each token, by 32
)
def test_a_step_takes_its_share_of_the_tightest_pace(share: float, chunk: int) -> None:
    rows = decode(tpot_s=0.05), prompt(4000)

    formed = step(paced_chunks(share), *rows, max_tokens=2048)

    assert formed.tokens == [1, chunk]
    assert formed.lasts_s <= share * 0.05


def test_only_those_that_decode_have_a_pace() -> None:
    loose, tight = decode(tpot_s=0.1), prompt(4000, tpot_s=0.05)

    assert step(paced_chunks(1.0), loose, tight, max_tokens=2048).tokens == [1, 895]


def test_without_decodes_a_step_is_as_long_as_the_engine_allows() -> None:
    assert step(paced_chunks(1.0), prompt(4000), max_tokens=2048).tokens == [2048]


def test_a_grain_of_prompts_goes_on_where_decodes_alone_take_too_long() -> None:
    rows = [decode(tpot_s=0.01) for _ in range(40)]

    formed = step(paced_chunks(1.0), *rows, prompt(4000))

    assert formed.tokens == [1] * 40 + [56]  # 64 and 32 together


def test_drafts_take_their_part_of_the_step() -> None:
    formed = step(paced_chunks(1.0), decode(tpot_s=0.05), prompt(4000), max_tokens=2048, drafts=3)

    assert formed.tokens == [4, 380]
