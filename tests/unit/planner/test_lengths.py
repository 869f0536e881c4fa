"""Lengths of answers: the usual one, and those that nine in ten reach or do not exceed."""

import random

import pytest

from services.planner.estimators.lengths import OutputLengths
from services.planner.tuning import TELLING_ANSWERS, UNKNOWN_TOKENS

MOST = 4096


def lengths_of(*answers: int) -> OutputLengths:
    lengths = OutputLengths()
    for tokens in answers:
        lengths.learn("chat", tokens)
    return lengths


def test_nine_in_ten_answers_reach_the_few_tokens_and_do_not_exceed_the_cautious_ones() -> None:
    answers = list(range(1, 201))
    random.Random(1).shuffle(answers)
    lengths = lengths_of(*answers)

    few, usual = lengths.few("chat", MOST), lengths.usual("chat", MOST)

    assert (few, usual, lengths.cautious("chat", MOST)) == (20, 100, 180)


def test_before_enough_answers_have_ended_none_is_sure_to_be_long_or_short() -> None:
    lengths = lengths_of(*[100] * (TELLING_ANSWERS - 1))

    assert (lengths.few("chat", MOST), lengths.cautious("chat", MOST)) == (None, MOST)
    lengths.learn("chat", 100)
    assert (lengths.few("chat", MOST), lengths.cautious("chat", MOST)) == (100, 100)


def test_of_a_class_without_answers_a_usual_length_is_assumed() -> None:
    assert OutputLengths().usual("chat", MOST) == UNKNOWN_TOKENS


@pytest.mark.parametrize("most", [1, 50])
def test_no_answer_is_taken_to_be_longer_than_its_request_allows(most: int) -> None:
    lengths = lengths_of(*[100] * 20)

    assert lengths.few("chat", most) == most
    assert lengths.usual("chat", most) == most
    assert lengths.cautious("chat", most) == most


def test_an_answer_of_one_token_is_the_shortest() -> None:
    lengths = lengths_of(*[0] * 20)

    assert lengths.few("chat", MOST) == lengths.usual("chat", MOST) == 1


def test_the_latest_answers_count() -> None:
    lengths = lengths_of(*[10] * 1000, *[500] * 512)

    assert lengths.few("chat", MOST) == 500
