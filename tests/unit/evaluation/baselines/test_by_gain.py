import pytest

from services.evaluation.baselines.jitserve import most_gain, predicted_lengths
from shared.scheduling.shares import EVICT
from tests.unit.evaluation.baselines.steps import decode, prompt, step

# A step of one decode takes 10.1 ms, one of a prompt 10 ms and 0.1 ms for each token.
TWENTY = predicted_lengths([[20]])
BY_TOKEN, BY_REQUEST = most_gain(TWENTY), most_gain(TWENTY, by_request=True)


def test_what_runs_goes_on_and_prompts_fill_the_budget() -> None:
    begun = prompt(1000, computed=700, runs=True)

    assert step(BY_TOKEN, decode(), prompt(1000), begun).tokens == [1, 211, 300]


def test_a_gain_of_tokens_prefers_long_prompts_and_one_of_requests_little_work() -> None:
    rows = prompt(100), prompt(400)

    # 260 tokens in 222 ms against 560 tokens in 252 ms
    assert step(BY_TOKEN, *rows, max_tokens=128).tokens == [0, 128]
    assert step(BY_REQUEST, *rows, max_tokens=128).tokens == [100, 28]


def test_a_shorter_answer_gains_its_request_sooner() -> None:
    form = most_gain(predicted_lengths([[60], [20]]), by_request=True)

    assert step(form, prompt(100, key=0), prompt(400, key=1), max_tokens=128).tokens == [0, 128]


@pytest.mark.parametrize("form", [BY_TOKEN, BY_REQUEST])
def test_what_comes_late_gains_less(form: object) -> None:
    late, in_time = prompt(400, due_s=-1.0), prompt(400, due_s=1.0)

    assert step(form, late, in_time).tokens == [112, 400]  # type: ignore[arg-type]


def test_an_answer_whose_pace_cannot_be_held_gains_less() -> None:
    # 20 tokens take 202 ms, in which 1 ms for each is not enough.
    rows = prompt(400, due_s=0.1, tpot_s=0.001), prompt(400, due_s=0.1)

    assert step(BY_TOKEN, *rows).tokens == [112, 400]


def test_drafts_make_answers_shorter() -> None:
    form = most_gain(TWENTY, tokens_per_step=4.0)
    rows = prompt(400, due_s=0.06, tpot_s=0.001), prompt(300, due_s=10.0)

    # 20 tokens in 50 ms: the first is as good as in time, and gains more.
    assert step(BY_TOKEN, *rows).tokens == [212, 300]
    assert step(form, *rows).tokens == [400, 112]


@pytest.mark.parametrize(
    ("middle", "tokens"),
    [(0, [100, 412, 0]), (2, [100, 0, 412])],  # 565 ms of work; 666 ms, below the cut-off
)
def test_where_not_all_have_a_place_prompts_of_like_length_begin_together(
    middle: int, tokens: list[int]
) -> None:
    form = most_gain(predicted_lengths([[50], [44], [60]]), by_request=True)
    # 525 and 544 ms of work are the least, but 100 and 900 tokens are no group.
    rows = prompt(100, key=0), prompt(500, key=middle), prompt(900, key=1)

    assert step(form, *rows, max_resident=2).tokens == tokens


def test_where_kv_runs_out_the_least_gain_gives_way() -> None:
    form = most_gain(predicted_lengths([[200], [20]]), by_request=True)

    formed = step(form, decode(key=0), decode(key=1), decode(key=1), free_blocks=0)

    assert formed.tokens == [EVICT, 1, 1]


def test_a_predicted_length_is_a_bound_of_the_class_that_tokens_given_raise() -> None:
    lengths = predicted_lengths([[100] * 19 + [300], [20]])

    assert lengths.shape == (2, 8)
    assert lengths[0, :3] == pytest.approx([110, 110, 300])
    assert lengths[0, 5:7] == pytest.approx([300, 350])
    assert lengths[1, :2] == pytest.approx([20, 100])
