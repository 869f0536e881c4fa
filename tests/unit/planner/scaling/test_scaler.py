"""What the desired engines are, by replaying windows whose needs are known."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.recent_demand import ARRIVES, DUE, OUTPUT, PACE, TPOT
from services.planner.scaling.replay import replay
from services.planner.scaling.scaler import answer
from tests.unit.planner.scaling.loads import WINDOW_S, question, site, twice, window

# With a cold cache the first of these compiles the replay, which takes most of a minute where the
# machine is busy.
ONE = FleetSize(prefill=1, decode=1)
ALONE = FleetSize(prefill=0, decode=1)
rates = st.floats(0.2, 12.0)
seeds = st.integers(0, 1000)
few = settings(max_examples=15, deadline=None)


@few
@given(rate=rates, seed=seeds, start=st.sampled_from([ONE, ALONE]))
def test_the_same_window_twice_has_the_same_answer(
    rate: float, seed: int, start: FleetSize
) -> None:
    demands = window(rate, seed=seed)

    assert answer(question(demands, start)) == answer(question(demands.copy(), start))


@few
@given(rate=rates, seed=seeds, start=st.sampled_from([ONE, ALONE]))
def test_what_is_needed_attains_the_goal_and_needs_nothing_more(
    rate: float, seed: int, start: FleetSize
) -> None:
    demands = window(rate, seed=seed)
    needed = answer(question(demands, start)).needed

    again = answer(question(demands, needed))

    verdicts = replay(demands, site(), needed.prefill, needed.decode, until_s=0.0)
    assert verdicts.since(-WINDOW_S).share >= 0.95
    assert again.needed == needed


@few
@given(rate=rates, seed=seeds, start=st.sampled_from([ONE, ALONE]))
def test_twice_the_requests_never_need_fewer_engines(
    rate: float, seed: int, start: FleetSize
) -> None:
    demands = window(rate, seed=seed)

    once, double = answer(question(demands, start)), answer(question(twice(demands), start))

    assert double.needed.engines >= once.needed.engines


@few
@given(rate=rates, seed=seeds)
def test_what_would_be_enough_is_enough_with_slower_steps_as_well(rate: float, seed: int) -> None:
    demands, start = window(rate, seed=seed), FleetSize(prefill=4, decode=5)
    enough = answer(question(demands, start)).enough

    slower = replay(demands, site().slower(1.1), enough.prefill, enough.decode, until_s=0.0)
    assert slower.since(-WINDOW_S).share >= 0.95
    assert start.at_least(enough) == start


def test_a_load_that_has_just_grown_is_followed_before_it_fills_the_window() -> None:
    """For a quarter of the window there have been four times as many requests."""
    before, after = window(4), window(16, seconds=WINDOW_S / 4, seed=2)
    quiet = before[before[:, ARRIVES] < -WINDOW_S / 4]
    grown_load = np.vstack([quiet, after])

    needed = {
        name: answer(question(demands, ALONE)).needed.decode
        for name, demands in (("before", before), ("grown", grown_load), ("full", window(16)))
    }

    assert needed["before"] < needed["grown"] <= needed["full"]


def test_long_prompts_call_for_prefill_engines_alone() -> None:
    found = answer(question(window(6, prompt=1500, output=20, ttft_s=0.7), ONE)).needed

    assert found.prefill > 1
    assert found.decode == 1


def test_long_answers_call_for_decode_engines_alone() -> None:
    found = answer(question(window(4, prompt=20, output=500, tpot_s=0.02), ONE)).needed

    assert found.prefill == 1
    assert found.decode > 1


def test_an_idle_fleet_keeps_one_engine_that_decodes_and_one_prefill_engine_if_it_has_some() -> (
    None
):
    empty = window(1)[:0]

    both = answer(question(empty, FleetSize(prefill=3, decode=3))).enough
    alone = answer(question(empty, FleetSize(prefill=0, decode=3))).enough

    assert (both, alone) == (ONE, ALONE)


def test_requests_without_targets_count_by_the_work_that_they_are() -> None:
    demands = window(8, prompt=800, output=300)
    demands[:, [DUE, TPOT, PACE]] = np.inf

    found = answer(question(demands, ONE))

    assert found.replayed.judged == 0
    assert found.needed.engines > 2
    assert answer(question(demands[::20].copy(), ONE)).needed == ONE


def test_what_no_engine_could_keep_is_no_reason_for_more() -> None:
    demands = window(2)
    demands[:, DUE] = 1e-4

    found = answer(question(demands, ONE))

    assert found.replayed.never > 0
    assert found.needed == ONE


def test_a_large_fleet_is_replayed_in_parts() -> None:
    """A quarter of the requests on a quarter of the engines."""
    demands = window(16)
    start = FleetSize(prefill=8, decode=8)
    part = replace(question(demands[::4].copy(), start), unit=4)

    whole, parts = answer(question(demands, start)).enough, answer(part).enough

    assert (parts.prefill % 4, parts.decode % 4) == (0, 0)
    assert abs(parts.engines - whole.engines) <= 8


@few
@given(rate=st.floats(0.5, 4.0), seed=seeds)
def test_no_request_gets_more_tokens_than_it_has(rate: float, seed: int) -> None:
    demands = window(rate, seed=seed, output=3)

    found = replay(demands, site(), 1, 1, until_s=1e9).since(-1e9)

    assert found.kept + found.short_of_prefill + found.short_of_decode + found.never == len(demands)
    assert (demands[:, OUTPUT] >= 1).all()
