from pathlib import Path

import pytest

from services.evaluation.scenarios import (
    FULL,
    QUICK,
    allowed_s,
    application_of,
    drain_s,
    fitting,
    hardware_for,
    hardware_of,
    load_of,
    load_on,
    programs_for,
    scenario_names,
)
from shared.errors import ConfigError
from shared.workloads.calls import rate

HARDWARE = hardware_of("opt-7b-a100-40gb")


def write_trace(folder: Path, prompts: list[int]) -> str:
    rows = [f"{2.0 * number},{tokens},20" for number, tokens in enumerate(prompts)]
    path = folder / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return f"trace:Coder:{path}"


def test_a_trace_is_asked_for_by_targets_and_path(tmp_path: Path) -> None:
    load = load_of(write_trace(tmp_path, [100, 200, 300]), rate=0.0, programs=10, seed=1)

    assert [program.calls[0].prompt_tokens for program in load] == [100, 200, 300]
    assert {program.calls[0].class_name for program in load} == {"coder"}
    assert rate(load) == pytest.approx(0.5)


def test_what_the_model_cannot_take_is_left_out_and_the_rest_keeps_the_rate(tmp_path: Path) -> None:
    load = load_of(write_trace(tmp_path, [100, 5000, 300, 2040]), rate=3.0, programs=9, seed=1)

    kept = fitting(load, HARDWARE, rate=3.0)

    assert [program.calls[0].prompt_tokens for program in kept] == [100, 300]
    assert rate(kept) == pytest.approx(3.0)
    most = HARDWARE.max_model_len_tokens
    for program in kept:
        assert program.calls[0].prompt_tokens + program.calls[0].max_output_tokens <= most


def test_a_trace_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    load = load_of(write_trace(tmp_path, [5000, 6000]), rate=3.0, programs=9, seed=1)

    with pytest.raises(ConfigError, match="takes 2048 tokens"):
        fitting(load, HARDWARE, rate=3.0)


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_has_its_hardware_and_nothing_that_it_cannot_take(name: str) -> None:
    hardware = hardware_of(hardware_for(name))

    load = load_on(name, hardware, rate=1.0, programs=200, seed=1)
    assert len(load) > 190
    for program in load:
        for call in program.calls:
            assert call.prompt_tokens + call.max_output_tokens <= hardware.max_model_len_tokens


def test_a_run_is_not_over_before_the_slowest_program_may_be() -> None:
    load = load_of("ToolLLM", rate=1.0, programs=50, seed=1)

    assert drain_s(load, HARDWARE) == 20 + max(allowed_s(program, HARDWARE) for program in load)


def test_points_grow_with_what_can_be_served_within_bounds() -> None:
    sizes = [programs_for("ChatBot", FULL, 1, best) for best in (0.01, 1.0, 6.0, 1000.0)]

    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (FULL.least_programs, FULL.most_programs)
    assert programs_for("ChatBot", QUICK, 4, 5.0) == 4 * programs_for("ChatBot", QUICK, 1, 5.0)


def test_an_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean Coder"):
        application_of("codr")
