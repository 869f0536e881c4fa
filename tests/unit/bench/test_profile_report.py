import io
import json

from rich.console import Console

from services.bench.fit_measure import measure
from services.bench.fit_report import Compared
from services.bench.fit_tables import Table, Timed
from services.bench.profile_report import as_json, coefficients_table
from shared.batch_time import PAPER, RICH, Feature, Step, fit_curve


def table() -> Table:
    steps = [
        Step(decodes=k, decode_context_tokens=64 * k).with_chunk(c)
        for k in (0, 1, 4, 16)
        for c in (0, 16, 64, 256, 512)
        if k + c
    ]
    rows = tuple(Timed(step=one, seconds=0.06 + 0.002 * one.tokens) for one in steps)
    return Table(name="an engine", note="made up", rows=rows)


def shown_text() -> str:
    rows = table().rows
    fit = fit_curve(RICH, [row.step for row in rows], [row.seconds for row in rows])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(coefficients_table(fit))
    return console.export_text()


def test_a_fit_is_shown_in_units_that_one_can_read() -> None:
    text = shown_text()

    assert "60,000.0" in text
    assert "2,000.0" in text
    assert "us/token" in text


def test_every_feature_has_a_unit() -> None:
    for form in (PAPER, RICH):
        rows = table().rows
        fit = fit_curve(form, [row.step for row in rows], [row.seconds for row in rows])
        assert coefficients_table(fit).row_count > 0
    assert len(Feature) == 12  # a new one needs a unit in the report


def test_the_json_holds_errors_of_both_forms_by_kind() -> None:
    compared = Compared(table=table(), measured=[measure(table(), form) for form in (PAPER, RICH)])

    plain = json.loads(json.dumps(as_json(compared)))

    assert plain["forms"]["rich"]["errors"]["mixed"]["p95_percent"] < 1
    assert plain["forms"].keys() == {"paper", "rich"}
