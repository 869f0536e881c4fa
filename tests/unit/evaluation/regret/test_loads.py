from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.evaluation.mix import kind_of, read_mix
from services.evaluation.regret.kept import KeptRegrets
from services.evaluation.regret.loads import RegretLoad, draw, near
from services.evaluation.scenarios import load_on
from shared.hardware import load as hardware_named
from tests.unit.evaluation.regret.builders import regret


@pytest.fixture(scope="module")
def loads() -> list[RegretLoad]:
    return [draw(number, 11) for number in range(40)]


def test_a_seed_draws_the_same_loads_and_another_one_others(
    loads: list[RegretLoad],
) -> None:
    assert [draw(number, 11).key for number in range(4)] == [one.key for one in loads[:4]]
    assert draw(0, 12).key != loads[0].key
    assert len({one.key for one in loads}) == len(loads)


@pytest.mark.parametrize("number", range(10))
def test_a_load_is_what_its_file_says(loads: list[RegretLoad], number: int, tmp_path: Path) -> None:
    drawn = loads[number]
    path = tmp_path / "classes.yaml"
    path.write_text(drawn.classes_text)

    assert read_mix(path).kinds == tuple(kind_of(name, one) for name, one in drawn.classes.items())


@pytest.mark.parametrize("number", range(10))
def test_most_programs_of_a_load_fit_its_model(
    loads: list[RegretLoad], number: int, tmp_path: Path
) -> None:
    drawn = loads[number]
    path = tmp_path / "classes.yaml"
    path.write_text(drawn.classes_text)
    hardware = hardware_named(drawn.hardware)

    load = load_on(
        f"classes:{path}", hardware, rate=drawn.rate, programs=drawn.programs, seed=drawn.seed
    )

    assert len(load) > 0.7 * drawn.programs


def test_the_space_has_fleets_of_all_kinds_and_classes_with_and_without_targets(
    loads: list[RegretLoad],
) -> None:
    classes = [one for drawn in loads for one in drawn.classes.values()]

    assert any(drawn.prefill for drawn in loads)
    assert {True, False} == {drawn.drafts for drawn in loads}
    assert {1, 2, 4, 8} <= {drawn.engines for drawn in loads}
    assert any(drawn.asks_for_nothing for drawn in loads)
    assert any(one.tools for one in classes)
    assert any(one.prefix for one in classes)
    assert any(one.stages for one in classes)
    assert any(one.bursty for one in classes)
    slowdowns = [one.ttft_slowdown for one in classes if one.ttft_slowdown]
    assert min(slowdowns) < 2 < 50 < max(slowdowns)


def test_a_load_nearby_is_on_the_same_fleet_with_numbers_about_as_large(
    loads: list[RegretLoad],
) -> None:
    random = np.random.default_rng(5)
    for drawn in loads[:10]:
        other = near(drawn, random)

        assert other.key != drawn.key
        assert (other.hardware, other.fleet) == (drawn.hardware, drawn.fleet)
        assert other.classes.keys() == drawn.classes.keys()
        for name, one in drawn.classes.items():
            assert one.prompt_tokens / 5 <= other.classes[name].prompt_tokens
            assert other.classes[name].prompt_tokens <= 5 * one.prompt_tokens


def test_every_drawn_load_is_found_again(loads: list[RegretLoad], tmp_path: Path) -> None:
    kept = KeptRegrets(tmp_path)
    for one in loads:
        kept.add(replace(regret(1, ours=0.9, vllm=0.8), load=one))

    again = KeptRegrets(tmp_path)
    assert all(again.find(one.key) is not None for one in loads)
