import math
from typing import Any

import numpy as np
import pytest

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.engine.new_rows import row_of
from shared.engine.standalone import Slo, drop_expired, settings_from, slo_of
from shared.errors import ConfigError, InvalidRequest
from shared.scheduling.former import StepFormer
from shared.scheduling.rows import EXPIRED, GENERATED, KIND, NO_SLO
from shared.scheduling.shares import FREE_BLOCKS
from shared.scheduling.terms import Terms

NOW_S = 100.0
STEP_S, TOKEN_S = 0.01, 0.001  # a step, and each prompt token in it
TABLE = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(STEP_S, TOKEN_S, 0.0, 0.0)))
CLASSES = {
    "default": Slo(),
    "chat": Slo(class_name="chat", ttft_s=0.5, tpot_s=0.04),
}


def asked(prompt_tokens: int, *, ttft_s: float = math.inf, tpot_s: float | None = None) -> Any:
    terms = Terms(first_token_due_s=NOW_S + ttft_s, tpot_s=tpot_s)
    return row_of(terms, tokens=prompt_tokens, left=100, came_s=NOW_S)


def test_a_request_without_extra_arguments_has_no_targets() -> None:
    assert slo_of(None, CLASSES) == slo_of({"other": 1}, CLASSES) == Slo()


def test_milliseconds_of_a_request_become_seconds() -> None:
    slo = slo_of({"slo_ttft_ms": 500, "slo_tpot_ms": 40.0}, CLASSES)

    assert slo == Slo(ttft_s=0.5, tpot_s=0.04)


def test_a_request_takes_from_its_class_what_it_leaves_out() -> None:
    slo = slo_of({"slo_class": "chat", "slo_ttft_ms": 200}, CLASSES)

    assert slo == Slo(class_name="chat", ttft_s=0.2, tpot_s=0.04)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "500", True, [500], None])
@pytest.mark.parametrize("key", ["slo_ttft_ms", "slo_tpot_ms"])
def test_a_target_that_is_no_positive_number_is_invalid(key: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        slo_of({key: value}, CLASSES)

    assert raised.value.param == key


@pytest.mark.parametrize("name", ["unknown", 7, ["chat"]])
def test_a_class_that_the_server_does_not_have_is_invalid(name: Any) -> None:
    with pytest.raises(InvalidRequest):
        slo_of({"slo_class": name}, CLASSES)


def test_deadlines_count_from_the_arrival() -> None:
    terms = Slo(class_name="chat", ttft_s=0.5, tpot_s=0.04).terms(arrived_s=7.0)

    assert (terms.class_name, terms.first_token_due_s, terms.tpot_s) == ("chat", 7.5, 0.04)
    assert Slo().terms(arrived_s=7.0) == Terms()


def test_settings_name_classes_and_there_is_always_a_default_one() -> None:
    settings = settings_from({"classes": {"chat": {"slo_ttft_ms": 500, "slo_tpot_ms": 40}}})

    assert settings.classes == CLASSES
    assert settings_from({}).classes == {"default": Slo()}
    assert settings_from({"classes": {"default": {"slo_ttft_ms": 9}}}).classes["default"].ttft_s


@pytest.mark.parametrize(
    "raw",
    [
        {"clases": {}},
        {"classes": []},
        {"classes": {"chat": 5}},
        {"classes": {"chat": {"ttft_ms": 5}}},
        {"classes": {"chat": {"slo_ttft_ms": "fast"}}},
        {"profile": 3},
        {"metrics_port": "9400"},
        {"metrics_port": 70000},
        {"log_every_s": 0},
    ],
)
def test_invalid_settings_are_refused(raw: Any) -> None:
    with pytest.raises(ConfigError, match="slos: "):
        settings_from(raw)


def former_with(*rows: Any) -> StepFormer:
    former = StepFormer(TABLE, max_tokens=2048, block_tokens=16, max_resident=64)
    former.limits[FREE_BLOCKS] = 1000
    for row in rows:
        former.add(row)
    return former


def test_a_request_that_cannot_be_in_time_is_served_after_those_that_can_and_never_comes_back() -> (
    None
):
    late, early = asked(300, ttft_s=0.1), asked(300, ttft_s=0.4)
    former = former_with(late, early)

    plan = former.form(NOW_S)
    dropped = drop_expired(former.rows)
    long_after = former.form(NOW_S + 100 * 0.1)  # by then a lost promise would be owed again

    assert dropped == 1
    assert former.rows[0, KIND] == NO_SLO
    assert plan.order.tolist() == [1]
    assert long_after.lost == 1  # the other one, by now


def test_a_request_in_time_and_an_answer_that_has_begun_keep_their_deadlines() -> None:
    begun = asked(1, ttft_s=0.1)
    begun[GENERATED], begun[KIND] = 1, EXPIRED
    rows = np.vstack([asked(10, ttft_s=0.4), begun, asked(10)])
    before = rows.copy()

    assert drop_expired(rows) == 0
    assert (rows == before).all()
