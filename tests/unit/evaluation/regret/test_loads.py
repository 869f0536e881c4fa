from pathlib import Path

import numpy as np
import pytest

from services.evaluation.mix import kind_of, read_mix
from services.evaluation.regret.loads import RegretLoad, draw, near
from services.evaluation.scenarios import load_on
from shared.hardware import load as hardware_named

DRAWN = [draw(number, 11) for number in range(40)]


def test_a_seed_draws_the_same_loads_and_another_one_others() -> None:
    assert [draw(number, 11).key for number in range(4)] == [one.key for one in DRAWN[:4]]
    assert draw(0, 12).key != DRAWN[0].key
    assert len({one.key for one in DRAWN}) == len(DRAWN)


@pytest.mark.parametrize("drawn", DRAWN[:10], ids=lambda one: str(one.key))
def test_a_load_is_what_its_file_says(drawn: RegretLoad, tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(drawn.classes_text)

    assert read_mix(path).kinds == tuple(kind_of(name, one) for name, one in drawn.classes.items())


@pytest.mark.parametrize("drawn", DRAWN[:10], ids=lambda one: str(one.key))
def test_most_programs_of_a_load_fit_its_model(drawn: RegretLoad, tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(drawn.classes_text)
    hardware = hardware_named(drawn.hardware)

    load = load_on(
        f"classes:{path}", hardware, rate=drawn.rate, programs=drawn.programs, seed=drawn.seed
    )

    assert len(load) > 0.7 * drawn.programs


def test_the_space_has_fleets_of_all_kinds_and_classes_with_and_without_targets() -> None:
    classes = [one for drawn in DRAWN for one in drawn.classes.values()]

    assert any(drawn.prefill for drawn in DRAWN)
    assert {True, False} == {drawn.drafts for drawn in DRAWN}
    assert {1, 2, 4, 8} <= {drawn.engines for drawn in DRAWN}
    assert any(drawn.asks_for_nothing for drawn in DRAWN)
    assert any(one.tools for one in classes)
    assert any(one.prefix for one in classes)
    assert any(one.stages for one in classes)
    assert any(one.bursty for one in classes)
    slowdowns = [one.ttft_slowdown for one in classes if one.ttft_slowdown]
    assert min(slowdowns) < 2 < 50 < max(slowdowns)


def test_a_load_nearby_is_on_the_same_fleet_with_numbers_about_as_large() -> None:
    random = np.random.default_rng(5)
    for drawn in DRAWN[:10]:
        other = near(drawn, random)

        assert other.key != drawn.key
        assert (other.hardware, other.fleet) == (drawn.hardware, drawn.fleet)
        assert other.classes.keys() == drawn.classes.keys()
        for name, one in drawn.classes.items():
            assert one.prompt_tokens / 5 <= other.classes[name].prompt_tokens
            assert other.classes[name].prompt_tokens <= 5 * one.prompt_tokens
