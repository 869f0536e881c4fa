"""Workloads of inference-perf's catalog, as it publishes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigError
from shared.workloads.generate import generate
from shared.workloads.inference_perf import (
    LONGEST_PAUSE_S,
    MOST_CALLS,
    lengths,
    read_workload,
    workload_of,
)
from shared.workloads.lengths import Lengths

LEVELS = (np.arange(20_000) + 0.5) / 20_000


def spread(
    sort: str, low: float, high: float, mean: float, deviation: float
) -> dict[str, float | str]:
    return {
        "min": low,
        "max": high,
        "mean": mean,
        "standard_deviation": deviation,
        "distribution_type": sort,
    }


def workload(**changes: Any) -> dict[str, Any]:
    one = spread("normal", 1, 1, 1, 0)
    plain = {
        "input_sequence_length": spread("log_normal", 100, 4000, 1000, 500),
        "output_sequence_length": spread("normal", 10, 600, 300, 80),
        "number_of_turns": one,
        "time_between_turns": spread("normal", 0, 0, 0, 0),
        "system_prompt": spread("normal", 200, 200, 200, 0),
        "input_sequence_length_per_turn": spread("normal", 0, 0, 0, 0),
        "metadata": {"slos": {"ttft_p95_ms": 1000, "itl_p99_ms": 50, "itl_p99_ms_reason": "read"}},
    }
    return plain | changes


def mean_of(found: Lengths) -> float:
    return float(found.values(LEVELS).mean())


@pytest.mark.parametrize(
    ("sort", "low", "high", "mean", "deviation"),
    [
        ("log_normal", 1, 1e4, 900, 700),
        ("normal", 1, 2000, 900, 100),
        ("uniform", 400, 1400, 900, 0.1),
        ("exponential", 100, 1e4, 900, 800),
        ("bimodal", 100, 1e6, 900, 1500),
        ("normal", 900, 900, 900, 0),
    ],
)
def test_lengths_have_the_mean_and_the_ends_that_are_published(
    sort: str, low: float, high: float, mean: float, deviation: float
) -> None:
    found = lengths(spread(sort, low, high, mean, deviation))

    assert mean_of(found) == pytest.approx(mean, rel=0.04)
    values = found.values(LEVELS)
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6


def test_two_modes_have_the_deviation_that_is_published() -> None:
    values = lengths(spread("bimodal", 1000, 80_000, 15_000, 22_000)).values(LEVELS)

    assert values.std() == pytest.approx(22_000, rel=0.02)
    assert len(np.unique(values.round())) <= 3


def test_a_distribution_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="zipf"):
        lengths(spread("zipf", 1, 10, 5, 1))


def test_targets_and_their_percentiles_are_those_published() -> None:
    found = workload_of("chat", workload(), 8192)

    assert found is not None
    assert (found.ttft.target_s, found.ttft.share) == (1.0, 0.95)
    assert (found.itl.target_s, found.itl.share) == (0.05, 0.99)
    (kind,) = found.application.kinds
    assert (kind.ttft_s, kind.answers[0].tpot_s, found.scale) == (1.0, 0.05, 1.0)


@pytest.mark.parametrize("slos", [{}, {"e2e_p99_ms": 9}, {"ttft_p90_ms": 9, "e2e_p99_ms": 9}])
def test_without_both_targets_there_is_nothing_to_measure(slos: dict[str, float]) -> None:
    assert workload_of("batch", workload(metadata={"slos": slos}), 8192) is None


def test_prompts_that_are_too_long_are_scaled_with_their_target() -> None:
    long = spread("log_normal", 1e4, 1e6, 1e5, 1e5)

    found = workload_of("code", workload(input_sequence_length=long), 8192)

    assert found is not None
    (kind,) = found.application.kinds
    assert kind.ttft_s == pytest.approx(found.scale)
    assert kind.prompt.most == pytest.approx(1e6 * found.scale, abs=1)
    share = float((kind.prompt.values(LEVELS) + 200 * found.scale <= 8192 / 2).mean())
    assert share == pytest.approx(0.95, abs=0.01)
    assert mean_of(kind.answers[0].tokens) == pytest.approx(300, rel=0.02)


def test_sessions_are_cut_to_calls_and_pauses_that_a_run_can_last() -> None:
    plain = workload(
        number_of_turns=spread("log_normal", 1, 3000, 40, 60),
        time_between_turns=spread("log_normal", 1, 1000, 15, 55),
        input_sequence_length_per_turn=spread("log_normal", 10, 200, 50, 40),
    )
    found = workload_of("chat", plain, 8192)
    assert found is not None

    load = generate(found.application, rate=1.0, requests=200, seed=1)

    turns = [len(program.calls) for program in load]
    pauses_s = [call.after_s for program in load for call in program.calls]
    assert 1 in turns
    assert max(turns) == MOST_CALLS
    assert max(pauses_s) == LONGEST_PAUSE_S
    assert all(call.prefix_group for program in load for call in program.calls[:1])


def test_a_file_that_is_no_workload_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(workload() | {"system_prompt": 3}))

    with pytest.raises(ConfigError, match=r"chat\.json is no workload"):
        read_workload(path, 8192)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_workload(tmp_path / "other.json", 8192)
