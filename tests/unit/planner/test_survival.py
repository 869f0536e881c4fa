"""How long answers go on, learned while they do."""

import math
import random

import numpy as np
import pytest

from services.planner.estimators.survival import BIN_TOKENS, Survival
from services.planner.tuning import TELLING_SURVIVALS, UNKNOWN_TOKENS


def test_a_class_is_known_once_some_answers_have_ended() -> None:
    answers = Survival()
    for key in range(TELLING_SURVIVALS - 1):
        answers.ends("chat", float(key), 500)
    assert not answers.knows("chat")
    assert not answers.knows("code")

    answers.ends("chat", 99.0, 500)
    assert answers.knows("chat")


@pytest.mark.parametrize("tokens", [0, 100, 1000, 10_000])
def test_before_any_answer_has_ended_the_running_ones_go_on_for_as_long_again(tokens: int) -> None:
    answers = Survival()
    for key in range(30):
        answers.goes_on("chat", float(key), tokens)
    longer = answers.longer("chat")

    mean_left = BIN_TOKENS * longer[tokens // BIN_TOKENS :].sum() / longer[tokens // BIN_TOKENS]
    assert mean_left == pytest.approx(max(tokens, UNKNOWN_TOKENS), rel=0.2)


def test_answers_that_all_ended_are_shared_out_as_they_were() -> None:
    answers = Survival()
    lengths = [5, 16, 17, 100, 160, 161, 300, 300]
    for key, tokens in enumerate(lengths):
        answers.ends("chat", float(key), tokens)
    longer = answers.longer("chat")
    for place in range(300 // BIN_TOKENS + 1):
        share = np.mean([tokens > place * BIN_TOKENS for tokens in lengths])
        assert longer[place] == pytest.approx(share)


@pytest.mark.parametrize("tokens", [1, 100, 4000])
def test_an_answer_beyond_all_that_ended_goes_on_and_others_hardly_get_there(tokens: int) -> None:
    answers = Survival()
    for key in range(500):
        answers.ends("chat", float(key), tokens)
    longer = answers.longer("chat")
    beyond = (tokens - 1) // BIN_TOKENS + 1

    assert 0.0 < longer[beyond] <= 0.01
    assert BIN_TOKENS * longer[beyond:].sum() / longer[beyond] >= tokens / 4
    assert longer.min() > 0.0


def test_the_first_to_end_do_not_make_all_answers_short() -> None:
    """Of a hundred that start together the shortest ten have ended."""
    chance, answers = random.Random(1), Survival()
    lengths = sorted(chance.randint(1, 1000) for _ in range(100))
    for key, tokens in enumerate(lengths):
        if key < 10:
            answers.ends("chat", float(key), tokens)
        else:
            answers.goes_on("chat", float(key), lengths[10])
    longer = answers.longer("chat")
    assert longer[lengths[10] // BIN_TOKENS] == pytest.approx(0.9, abs=0.02)


def test_beyond_the_longest_answer_so_far_answers_end_as_often_as_in_the_later_half() -> None:
    """Else a few answers that still run would be taken to go on for ever."""
    answers = Survival()
    for key in range(30):
        answers.ends("chat", float(key), 14 * BIN_TOKENS)
    for key in range(30, 40):
        answers.goes_on("chat", float(key), 20 * BIN_TOKENS)
    longer = answers.longer("chat")

    per_bin = 30 / (30 * 4 + 10 * 10)
    for place in range(20, 100):
        assert longer[place + 1] / longer[place] == pytest.approx(1 - per_bin)


@pytest.mark.parametrize("begun", [0.2, 0.5, 1.0])
def test_once_a_fifth_of_the_usual_answers_has_ended_the_others_are_not_taken_for_much_longer(
    begun: float,
) -> None:
    """Log-normal answers that began together over the time of `begun` median answers: the mean of
    what is left by the estimate, for those that still run, is at most 1.6 times the true one.
    """
    chance, answers = random.Random(3), Survival()
    lengths = [round(600 * math.exp(0.6 * chance.gauss(0, 1))) for _ in range(400)]
    reached = [round(400 + 600 * begun * chance.random()) for _ in lengths]
    running = []
    for key, (tokens, until) in enumerate(zip(lengths, reached, strict=True)):
        if tokens <= until:
            answers.ends("chat", float(key), tokens)
        else:
            answers.goes_on("chat", float(key), until)
            running.append((tokens, until))
    longer = answers.longer("chat")

    most = 2000  # what a request allows
    left = [
        BIN_TOKENS
        * longer[(until // BIN_TOKENS) : most // BIN_TOKENS].sum()
        / longer[until // BIN_TOKENS]
        for _, until in running
    ]
    true = [min(most, tokens) - until for tokens, until in running]
    assert np.mean(true) / 1.6 < np.mean(left) < 1.6 * np.mean(true)


def test_an_answer_counts_once_however_often_it_is_looked_at() -> None:
    often, once = Survival(), Survival()
    for key in range(20):
        for produced in range(0, 10 * key, 3):
            often.goes_on("chat", float(key), produced)
        for answers in (often, once):
            answers.ends("chat", float(key), 10 * key + 1)
    assert np.array_equal(often.longer("chat"), once.longer("chat"))
