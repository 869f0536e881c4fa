import math
from typing import Any

import numpy as np
import pytest

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.engine.new_rows import row_of
from shared.engine.standalone import Slo, can_promise, settings_from, slo_of
from shared.errors import ConfigError, InvalidRequest
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import AVAILABLE, Rows
from shared.scheduling.terms import Terms

NOW_S = 100.0
STEP_S, TOKEN_S = 0.01, 0.001  # a step, and each prompt token in it
TABLE = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(STEP_S, TOKEN_S, 0.0, 0.0)))
LIMITS = engine_limits(max_tokens=2048, block_tokens=16, max_resident=64)
CLASSES = {
    "default": Slo(),
    "chat": Slo(class_name="chat", ttft_s=0.5, tpot_s=0.04),
}


def asked(prompt_tokens: int, *, ttft_s: float = math.inf, tpot_s: float | None = None) -> Any:
    terms = Terms(first_token_due_s=NOW_S + ttft_s, tpot_s=tpot_s)
    return row_of(terms, tokens=prompt_tokens, left=100, came_s=NOW_S)


def promises(rows: Rows, slot: int) -> bool:
    return can_promise(rows, slot, TABLE, LIMITS, NOW_S)


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
        {"metrics_port": "9400"},
        {"metrics_port": 70000},
        {"log_every_s": 0},
    ],
)
def test_invalid_settings_are_refused(raw: Any) -> None:
    with pytest.raises(ConfigError, match="slos: "):
        settings_from(raw)


def test_a_prompt_is_promised_if_its_own_time_fits_its_deadline() -> None:
    needed_s = STEP_S + 100 * TOKEN_S

    assert promises(asked(100, ttft_s=2 * needed_s)[None], 0)
    assert not promises(asked(100, ttft_s=0.9 * needed_s)[None], 0)


def test_a_pace_faster_than_a_step_is_not_promised() -> None:
    assert promises(asked(10, tpot_s=10 * STEP_S)[None], 0)
    assert not promises(asked(10, tpot_s=0.5 * STEP_S)[None], 0)


def test_a_newcomer_that_would_make_a_promise_late_is_not_promised() -> None:
    held = asked(200, ttft_s=0.4)

    assert promises(np.vstack([held, asked(50, ttft_s=0.3)]), 1)
    assert not promises(np.vstack([held, asked(280, ttft_s=0.3)]), 1)


def test_a_promise_that_is_late_anyway_does_not_count_against_a_newcomer() -> None:
    lost = [asked(300, ttft_s=0.35), asked(300, ttft_s=0.35)]  # each has time, both have not
    alone = can_promise(np.vstack(lost), 1, TABLE, LIMITS, NOW_S)

    assert not alone
    assert promises(np.vstack([*lost, asked(1, ttft_s=5.0)]), 2)


def test_requests_without_an_slo_do_not_keep_a_newcomer_from_its_promise() -> None:
    plain = [asked(2000) for _ in range(5)]

    assert promises(np.vstack([*plain, asked(100, ttft_s=0.3)]), 5)


def test_a_request_that_waits_for_its_grammar_is_judged_as_if_it_were_ready() -> None:
    row = asked(100, ttft_s=0.3)
    row[AVAILABLE] = math.inf

    assert promises(row[None], 0)


def test_while_step_times_are_unknown_only_a_passed_deadline_is_not_promised() -> None:
    rows = np.vstack([asked(1000, ttft_s=1e-6), asked(1, ttft_s=-1e-6)])

    assert can_promise(rows, 0, None, LIMITS, NOW_S)
    assert not can_promise(rows, 1, None, LIMITS, NOW_S)


def test_the_rows_are_not_changed() -> None:
    rows = np.vstack([asked(200, ttft_s=0.4), asked(280, ttft_s=0.3)])
    before = rows.copy()

    promises(rows, 1)

    assert (rows == before).all()
