"""What was promised is kept: planner and step former together, on virtual time."""

import random
from collections import Counter

import pytest

from services.planner.admission.pending import Deferral
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from shared.requests import Admission, OnRefuse, Placement
from tests.unit.planner.world import CLASSES, Life, World, asked_of, lives_at


def placement_of(answer: Decision | Deferral | None) -> Placement | None:
    return answer.placement if isinstance(answer, Decision) else None


def broken(lives: list[Life]) -> list[str]:
    promised = [life for life in lives if life.admission is Admission.ADMITTED]
    return [life.query.request_id for life in promised if not life.kept]


@pytest.mark.parametrize("engines", [1, 3])
@pytest.mark.parametrize("rate", [3.0, 8.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_without_noise_no_admitted_request_is_late(engines: int, rate: float, seed: int) -> None:
    lives = lives_at(rate * engines, 80 * engines, seed)

    World.of(engines).live_through(lives)

    admissions = Counter(life.admission for life in lives)
    assert set(admissions) <= {Admission.ADMITTED, Admission.REFUSED}
    assert admissions[Admission.ADMITTED] > len(lives) / 3
    assert broken(lives) == []


@pytest.mark.parametrize("rate", [8.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_late_beginning_is_made_up_for_by_answers_of_the_usual_length(
    rate: float, seed: int
) -> None:
    world = World.of(1)
    for name in CLASSES:
        for _ in range(10):
            world.state.lengths.learn(name, 60)
    lives = lives_at(rate, 100, seed)
    for life in lives:
        life.output_tokens = max(60, life.output_tokens)

    world.live_through(lives)

    explained = [world.state.explain(f"d-e-{number + 1}") for number in range(len(lives))]
    assert any(one.placement.grace_s > 0 for one in explained if one is not None)
    assert broken(lives) == []


def test_with_noise_within_the_margin_one_in_a_hundred_is_late_at_most() -> None:
    lives = [life for seed in range(10) for life in lives_at(10.0, 100, seed)]
    for seed in range(10):
        part = lives[100 * seed : 100 * (seed + 1)]
        World.of(1, random.Random(seed)).live_through(part)

    admitted = sum(life.admission is Admission.ADMITTED for life in lives)
    assert admitted > 500
    assert len(broken(lives)) <= admitted / 100


@pytest.mark.parametrize("seed", range(4))
def test_best_effort_delays_no_promise(seed: int) -> None:
    lives = lives_at(25.0, 120, seed, on_refuse=OnRefuse.BEST_EFFORT)

    World.of(1).live_through(lives)

    admissions = Counter(life.admission for life in lives)
    assert admissions[Admission.BEST_EFFORT] > 0
    assert broken(lives) == []
    assert all(life.tokens == life.output_tokens for life in lives)


def test_a_planner_that_starts_anew_decides_the_same_as_soon_as_engines_have_told_it() -> None:
    world = World.of(2)
    lives = lives_at(20.0, 60, seed=5)
    world.live_through(lives[:40])
    # In the middle of the load: rows, and nothing that the planner remembers of them.
    world.engines[0].rows = world.engines[0].rows
    again = World.of(2)
    for old, new in zip(world.engines, again.engines, strict=True):
        new.rows, new._after = old.rows, old._after
        for one in (old, new):
            one.tell(world.state if one is old else again.state, world.now)
    late = [asked_of(life, world.now) for life in lives[40:44]]

    first = decide_round(late, world.state, world.now)
    second = decide_round(late, again.state, world.now)

    assert list(map(placement_of, first)) == list(map(placement_of, second))
