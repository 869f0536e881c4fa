"""Tables of measured steps, how fits of them err, and what the published ones give."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from services.bench.fit import compare, main, tables
from services.bench.fit_hybrid import hybrid
from services.bench.fit_measure import ALL, EXTRAPOLATED, Errors, measure
from services.bench.fit_options import FitOptions
from services.bench.fit_tables import Table, Timed, composed
from shared.batch_time import PAPER, RICH, Kind, Step
from shared.errors import ConfigError

MEASURED = Path(__file__).parents[4] / "shared" / "data" / "timing"
needs_measurements = pytest.mark.skipif(not MEASURED.is_dir(), reason="no measured tables here")
HEADER = "tokens,decodes,decode_context_tokens,prefill_attention_pairs,"
HEADER += "prefill_earlier_context_tokens,prefill_chunks,step_time_ms\n"


def write_steps(folder: Path, count: int = 60) -> Path:
    """Decodes whose time is their context's, as a file."""
    path = folder / "mine.csv"
    rows = [f"{n},{n},{100 * n * n},0,0,0,{5 + 0.01 * n * n}\n" for n in range(1, count + 1)]
    path.write_text(HEADER + "".join(rows))
    return path


def test_a_file_of_steps_is_read_with_its_units(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + "110,10,5000,15000,100,1,25\n")

    (table,) = composed(path)

    step = Step(decodes=10, decode_context_tokens=5000).with_chunk(100, 100)
    assert table.rows == (Timed(step=step, seconds=0.025),)


def test_a_file_without_the_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("tokens,time\n1,2\n")

    with pytest.raises(ConfigError, match=r"mine\.csv"):
        list(composed(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read"):
        list(tables(None, str(tmp_path / "none.csv")))


def test_attention_calls_become_steps_of_all_layers(tmp_path: Path) -> None:
    files = {
        "dense": "layer,tokens,time_us\nqkv_proj,1,1\nqkv_proj,2048,100\nembedding,1,7\n",
        "per_sequence": "layer,sequences,time_us\nlm_head,1,50\nlm_head,256,50\n",
        "attention": "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,10\n",
    }
    for name, text in files.items():
        path = tmp_path / f"RTXPRO6000_llama3.1-8b_{name}.csv.gz"
        path.write_bytes(gzip.compress(text.encode()))

    whole, *_ = hybrid(tmp_path)

    (row,) = whole.rows
    assert row.step == Step(decodes=1, decode_context_tokens=16)
    assert row.seconds == pytest.approx((32 * (10 + 1) + 7 + 50) / 1e6)


def test_errors_are_relative_and_count_what_the_promise_covered() -> None:
    measured, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.1, 2.0, 2.0])

    errors = Errors.of(measured, predicted, 1.5 * predicted)

    assert errors.p50 == pytest.approx(10)
    assert errors.worst == pytest.approx(50)
    assert errors.within_upper == pytest.approx(2 / 3)
    assert errors.r2 == pytest.approx(1 - 4.01 / (14 / 3))


def test_equal_times_have_no_share_explained() -> None:
    ones = np.ones(3)

    assert Errors.of(ones, ones, ones).r2 is None


def test_a_table_is_measured_on_steps_that_its_fit_has_not_seen(tmp_path: Path) -> None:
    (table,) = composed(write_steps(tmp_path))

    paper, rich = compare(table).measured

    assert paper.errors[ALL].steps == rich.errors[ALL].steps == 60
    assert rich.errors[EXTRAPOLATED].steps == 9
    assert Kind.MIXED not in rich.errors
    assert rich.errors[ALL].worst < 2 < paper.errors[ALL].worst


def test_too_few_steps_hold_none_out(tmp_path: Path) -> None:
    (table,) = composed(write_steps(tmp_path, count=5))

    with pytest.raises(ValueError, match="5 steps"):
        measure(table, PAPER)


def test_measured_tables_are_found_further_up(tmp_path: Path) -> None:
    data, here = tmp_path / "shared" / "data" / "timing", tmp_path / "a" / "b"
    assert FitOptions().folder(here) is None or not here.exists()
    data.mkdir(parents=True)

    assert FitOptions().folder(here) == data
    assert FitOptions(data=str(tmp_path / "none")).folder(here) is None


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_steps(tmp_path)

    status = main(["--json", "--steps", str(path), "--data", str(tmp_path / "none")])

    printed = json.loads(capsys.readouterr().out)
    (table,) = printed["tables"]
    assert status == 0
    assert (table["table"], table["steps"], printed["skipped"]) == ("mine", 60, None)
    assert set(table["forms"]) == {"paper", "rich"}
    assert set(table["forms"]["rich"]["errors"]) == {"all", "decode", "extrapolated"}


def test_the_command_draws_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--steps", str(write_steps(tmp_path)), "--data", str(tmp_path / "none")])

    shown = capsys.readouterr().out
    assert "extrapolated" in shown
    assert "rich" in shown


@pytest.mark.parametrize("json_flag", [["--json"], []])
def test_without_any_table_it_says_so_and_ends_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], json_flag: list[str]
) -> None:
    assert main(["--data", str(tmp_path / "none"), *json_flag]) == 0
    assert "no measured step times here" in capsys.readouterr().out


def published(name: str) -> Table:
    return next(table for table in tables(MEASURED) if table.name == name)


@needs_measurements
@pytest.mark.parametrize("engine", ["A100 llama2-7b", "A100 opt-13b", "H100 llama2-7b"])
def test_composed_steps_are_fitted_to_a_tenth(engine: str) -> None:
    errors = measure(published(f"composed_steps {engine}"), RICH).errors

    assert all((one.r2 or 0) > 0.985 for one in errors.values())
    assert errors[ALL].p95 < 13
    assert errors[Kind.DECODE].p95 < 8
    assert errors[ALL].within_upper == pytest.approx(0.95, abs=0.03)


@needs_measurements
def test_measured_mixed_steps_are_fitted_twice_as_well_as_by_adding_parts() -> None:
    errors = measure(published("RTXPRO6000 llama3.1-8b steps, card half full"), RICH).errors

    assert (errors[Kind.MIXED].r2 or 0) > 0.985
    assert errors[Kind.MIXED].p95 < 12
    assert errors[Kind.MIXED].within_upper == pytest.approx(0.95, abs=0.03)


@needs_measurements
def test_skewed_contexts_are_measured_in_the_unit_of_the_grid() -> None:
    """A fit of equal contexts must hold for a batch in which they differ."""
    grid = measure(published("RTXPRO6000 llama3.1-8b steps, card half full"), RICH).fit
    skewed = published("RTXPRO6000 llama3.1-8b skewed steps")

    off = [abs(grid.curve.step_time(row.step) / row.seconds - 1) for row in skewed.rows]

    assert float(np.median(off)) < 0.08


@needs_measurements
def test_the_paper_s_form_misses_decode_steps() -> None:
    table = published("composed_steps A100 llama2-7b")

    assert (measure(table, PAPER).errors[Kind.DECODE].r2 or 0) < 0.5
