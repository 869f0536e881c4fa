import csv
import gzip
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.capacity.classes import OUTPUT_BOUNDS, PROMPT_BOUNDS, SHAPES, mix
from services.bench.capacity.trace import TraceScale, read_trace
from services.bench.capacity.workload import Load, Offered, Prompts, poisson
from shared.errors import ConfigError

REAL = Path(__file__).parents[5] / "shared" / "data" / "traces" / "azure2023_code.csv.gz"
SCALE = TraceScale(start_s=10.0, prompt=16.0, output=8.0)


def mixed(count: int = 3000) -> Load:
    return poisson("mixed", mix("mixed"), 1, count)


def what(offered: list[Offered]) -> list[tuple[str, int, int]]:
    return [(one.class_name, one.prompt_tokens, one.output_tokens) for one in offered]


@given(rate_rps=st.floats(0.5, 20.0), seconds=st.floats(5.0, 60.0))
def test_exactly_the_rate_that_was_asked_for_is_offered(rate_rps: float, seconds: float) -> None:
    offered = mixed(1300).offered(rate_rps, seconds)

    assert len(offered) == round(rate_rps * seconds)
    assert offered[0].at_s == 0.0
    assert all(one.at_s <= other.at_s for one, other in pairwise(offered))
    assert offered[-1].at_s <= seconds


def test_a_higher_rate_adds_requests_and_changes_none() -> None:
    load = mixed()
    low, high = load.offered(1.0, 50.0), load.offered(2.0, 50.0)

    assert what(high)[: len(low)] == what(low)


def test_gaps_of_poisson_arrivals_spread_as_widely_as_they_are_long() -> None:
    at_s = [one.at_s for one in mixed().offered(50.0, 50.0)]
    gaps_s = [later - sooner for sooner, later in pairwise(at_s)]

    assert pstdev(gaps_s) / fmean(gaps_s) == pytest.approx(1.0, abs=0.1)


def test_a_seed_makes_the_same_requests_and_another_others() -> None:
    again = poisson("mixed", mix("mixed"), 1, 3000)

    assert mixed().arrivals == again.arrivals
    assert mixed().arrivals != poisson("mixed", mix("mixed"), 2, 3000).arrivals


def test_lengths_are_of_the_class_and_within_bounds() -> None:
    for name, shape in SHAPES.items():
        arrivals = poisson(name, mix(name), 1, 2000).arrivals
        prompts = sorted(one.prompt_tokens for one in arrivals)

        assert {one.class_name for one in arrivals} == {name}
        assert prompts[1000] == pytest.approx(shape.prompt.median, rel=0.1)
        assert prompts[0] >= PROMPT_BOUNDS[0]
        assert prompts[-1] <= PROMPT_BOUNDS[1]


def test_a_mix_has_its_classes_in_equal_shares() -> None:
    names = [one.class_name for one in mixed().arrivals]

    assert all(names.count(name) == pytest.approx(1000, rel=0.1) for name in SHAPES)


def test_an_unknown_mix_is_named() -> None:
    with pytest.raises(ConfigError, match="'mxed'"):
        mix("mxed")


def test_no_two_prompts_begin_alike() -> None:
    prompts = Prompts(range(500), "seed")
    made = [tuple(prompts.next(40)) for _ in range(500)]

    assert {len(one) for one in made} == {40}
    assert len({one[:32] for one in made}) == 500


def written(folder: Path, name: str, rows: list[tuple[float, int, int]]) -> Path:
    path = folder / name
    lines = ["arrival_s,input_tokens,output_tokens", *(",".join(map(str, row)) for row in rows)]
    text = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["burst.csv", "burst.csv.gz"])
def test_a_trace_is_stretched_to_the_rate_and_its_lengths_are_scaled(
    tmp_path: Path, name: str
) -> None:
    rows = [(5.0, 9, 9), (10.0, 1600, 80), (11.0, 160, 8), (19.0, 99999, 9999), (20.0, 16, 8)]
    load = read_trace(written(tmp_path, name, rows), ["chat"], SCALE, 1)
    offered = load.offered(1.0, 3.0)

    assert load.name == "burst"
    assert [one.at_s for one in offered] == pytest.approx([0.0, 0.3, 2.7])
    assert what(offered) == [
        ("chat", 100, 10),
        ("chat", PROMPT_BOUNDS[0], OUTPUT_BOUNDS[0]),
        ("chat", PROMPT_BOUNDS[1], OUTPUT_BOUNDS[1]),
    ]


@pytest.mark.parametrize("rows", [[], [(11.0, 1, 1)]])
def test_a_trace_without_requests_after_its_start_is_an_error(
    tmp_path: Path, rows: list[tuple[float, int, int]]
) -> None:
    with pytest.raises(ConfigError, match="no requests after 10 s"):
        read_trace(written(tmp_path, "t.csv", rows), ["chat"], SCALE, 1)


def test_a_file_that_is_no_trace_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")

    with pytest.raises(ConfigError, match="arrival_s, input_tokens and output_tokens"):
        read_trace(path, ["chat"], SCALE, 1)


@pytest.mark.skipif(not REAL.exists(), reason="the trace is not here")
def test_the_real_trace_is_read_whole() -> None:
    with gzip.open(REAL, "rt") as lines:
        rows = sum(1 for _ in csv.DictReader(lines))
    load = read_trace(REAL, mix("mixed"), TraceScale(start_s=0.0, prompt=16.0, output=8.0), 1)

    assert len(load.arrivals) == rows
