"""Which engines may join, and that a refusal names what was read, what is expected and the cure."""

from typing import Any

import pytest

from services.planner.state.registration import why_unfit
from tests.unit.planner.builders import make_engine

FLEET = [make_engine("d0")]


def test_one_like_the_others_may_join() -> None:
    assert why_unfit(make_engine("d1"), FLEET, model=None, vllm_version=None) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other"}, ("model 'other'", "serve 'm'", "planner of its own")),
        ({"vllm_version": "0.31.0"}, ("vllm_version '0.31.0'", "'0.32.0'")),
        ({"block_size_tokens": 32}, ("32 tokens", "d0", "--block-size 16")),
        ({"kv_blocks": 0}, ("kv_blocks is 0", "at least 1")),
        ({"address": ""}, ("address is empty",)),
    ],
)
def test_a_mismatch_is_named_with_both_sides(changed: dict[str, Any], words: tuple[str]) -> None:
    refusal = why_unfit(make_engine("d1", **changed), FLEET, model=None, vllm_version=None)

    assert refusal is not None
    assert refusal.startswith("Engine d1 is refused: ")
    assert all(word in refusal for word in words)


def test_the_operators_demand_goes_before_the_fleet() -> None:
    refusal = why_unfit(make_engine("d1"), [], model="wanted", vllm_version=None)

    assert refusal is not None
    assert "this planner was started for 'wanted'" in refusal


def test_engines_that_exchange_no_kv_may_have_blocks_of_their_own() -> None:
    engine = make_engine("d1", block_size_tokens=32, kv_address=None)

    assert why_unfit(engine, FLEET, model=None, vllm_version=None) is None


def test_an_engine_that_comes_back_is_not_measured_against_its_old_self() -> None:
    engine = make_engine("d0", engine_id="second", model="other")

    assert why_unfit(engine, FLEET, model=None, vllm_version=None) is None
