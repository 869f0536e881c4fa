import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.slo_inputs import Catalogue, SloInputs, read_inputs
from shared.errors import InvalidRequest
from shared.requests import OnRefuse, Pacing, PlacementMode, SloTargets, Stage

CHAT = SloTargets(class_name="chat", ttft_s=0.5, tpot_s=0.05, on_refuse=OnRefuse.REFUSE)
AGENT = SloTargets(class_name="agent", ttft_slowdown=3.0, stages=(Stage(name="a", tpot_s=0.02),))
CATALOGUE = Catalogue(classes={"chat": CHAT, "agent": AGENT}, default=SloTargets())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
milliseconds = st.floats(min_value=0.001, max_value=3_600_000)
fields = ["ttft_ms", "ttft_slowdown", "tpot_ms", "stages", "class", "on_refuse", "way", "report"]
fields += ["value", "session", "pacing"]


def read(body: object = None, **headers: str) -> SloInputs:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_inputs(body, named, CATALOGUE)


def error_of(body: object, headers: dict[str, str]) -> InvalidRequest | None:
    """None when the inputs were taken."""
    try:
        read_inputs(body, headers, CATALOGUE)
    except InvalidRequest as error:
        return error
    return None


@given(body=json_values | st.dictionaries(st.sampled_from(fields), json_values))
def test_any_json_gives_inputs_or_a_short_error_that_names_its_field(body: object) -> None:
    error = error_of(body, {})

    assert error is None or (error.param.startswith("slo") and len(str(error)) < 400)


@given(
    name=st.sampled_from(
        ["x-slo-ttft-ms", "x-slo-pacing", "x-slo-class", "x-slo-way", "x-slo-report"]
    ),
    text=st.text(),
)
def test_any_header_gives_inputs_or_an_error_that_names_it(name: str, text: str) -> None:
    error = error_of(None, {name: text})

    assert error is None or error.param == name


@given(body=st.none() | milliseconds, llm_d=st.none() | milliseconds, ours=st.none() | milliseconds)
def test_the_body_wins_over_llm_ds_header_over_ours_over_the_class(
    body: float | None, llm_d: float | None, ours: float | None
) -> None:
    headers = {"x-slo-class": "chat"}
    headers |= {} if llm_d is None else {"x-llm-d-slo-ttft-ms": repr(llm_d)}
    headers |= {} if ours is None else {"x-slo-ttft-ms": repr(ours)}

    inputs = read_inputs({"ttft_ms": body}, headers, CATALOGUE)

    expected = next((one for one in (body, llm_d, ours) if one is not None), 500.0)
    assert inputs.targets.ttft_s == pytest.approx(expected / 1000)
    assert inputs.targets.tpot_s == CHAT.tpot_s


def test_a_misspelt_header_of_ours_is_an_error_that_names_the_nearest() -> None:
    error = error_of(None, {"x-slo-tttft-ms": "400"})

    assert error is not None
    assert error.param == "x-slo-tttft-ms"
    assert "x-slo-ttft-ms" in str(error)
    assert error_of(None, {"x-slo-decision-id": "d1", "x-sloth": "1"}) is None


def test_nothing_said_is_the_default_class() -> None:
    assert read() == SloInputs(targets=SloTargets())


def test_the_bodys_class_wins_over_the_headers_class() -> None:
    assert read({"class": "agent"}, x_slo_class="chat").targets == AGENT


def test_a_slowdown_overrides_the_classs_ttft_in_milliseconds() -> None:
    targets = read({"class": "chat", "ttft_slowdown": 2}).targets

    assert (targets.ttft_s, targets.ttft_slowdown, targets.tpot_s) == (None, 2.0, 0.05)


def test_a_pace_overrides_the_classs_stages() -> None:
    targets = read({"class": "agent", "tpot_ms": 100}).targets

    assert (targets.tpot_s, targets.stages, targets.ttft_slowdown) == (0.1, (), 3.0)


def test_stages_are_read_in_order() -> None:
    stages = [{"name": "thinking", "tpot_ms": 20}, {"name": "answer", "tpot_ms": 60}]

    targets = read({"stages": stages}).targets

    assert [stage.name for stage in targets.stages] == ["thinking", "answer"]
    assert targets.tightest_tpot_s == 0.02


def test_way_report_and_on_refuse_come_from_either_source() -> None:
    from_body = read({"way": "disaggregated", "report": True, "on_refuse": "refuse"})
    from_headers = read(x_slo_way="disaggregated", x_slo_report="1", x_slo_on_refuse="refuse")

    assert from_body == from_headers
    assert from_body.forced_way is PlacementMode.DISAGGREGATED
    assert from_body.targets.on_refuse is OnRefuse.REFUSE


def test_a_request_is_worth_what_it_says_or_else_its_class() -> None:
    catalogue = Catalogue(classes={}, default=SloTargets(value=5.0))

    assert read_inputs({}, {}, catalogue).targets.value == 5.0
    assert read_inputs({"value": 0.5}, {}, catalogue).targets.value == 0.5


@given(
    body=st.none() | st.sampled_from(Pacing),
    header=st.none() | st.sampled_from(Pacing),
    of_class=st.sampled_from(Pacing),
)
def test_what_a_pace_promises_is_said_by_body_header_or_class_apart_from_the_pace(
    body: Pacing | None, header: Pacing | None, of_class: Pacing
) -> None:
    chat = replace(CHAT, pacing=of_class)
    catalogue = Catalogue(classes={}, default=chat)
    headers = {} if header is None else {"x-slo-pacing": header.value}

    targets = read_inputs({"pacing": body and body.value}, headers, catalogue).targets

    assert targets == replace(chat, pacing=body or header or of_class)


def test_other_targets_leave_the_classs_pacing() -> None:
    catalogue = Catalogue(classes={}, default=replace(CHAT, pacing=Pacing.DEADLINES))

    targets = read_inputs({"ttft_ms": 100, "tpot_ms": 10}, {}, catalogue).targets

    assert targets.pacing is Pacing.DEADLINES


def test_the_session_of_the_body_wins_over_the_headers() -> None:
    assert read(x_session_id="from headers").session_id == "from headers"
    assert read({"session": "from body"}, x_session_id="other").session_id == "from body"
    assert read().session_id is None


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ([], "slo", "a list of 0 items"),
        ({"tftt_ms": 1}, "slo.tftt_ms", "did you mean ttft_ms?"),
        ({"ttft_ms": "500"}, "slo.ttft_ms", "read '500'"),
        ({"ttft_ms": True}, "slo.ttft_ms", "read true"),
        ({"ttft_ms": 0}, "slo.ttft_ms", "read 0, allowed is a number from 0.001"),
        ({"tpot_ms": math.nan}, "slo.tpot_ms", "read nan"),
        ({"tpot_ms": 10**400}, "slo.tpot_ms", "beyond 64 bits"),
        ({"ttft_ms": 3_600_001}, "slo.ttft_ms", "3600000"),
        ({"ttft_slowdown": 0.5}, "slo.ttft_slowdown", "a number from 1"),
        ({"stages": []}, "slo.stages", "a list of 1 to 16"),
        ({"stages": [{"name": "a"}]}, "slo.stages[0]", "exactly"),
        ({"stages": [{"name": "a", "tpot_ms": -1}]}, "slo.stages[0].tpot_ms", "read -1"),
        ({"stages": [{"name": "a", "tpot_ms": 1}] * 2}, "slo.stages", "distinct names"),
        (
            {"ttft_ms": 500, "ttft_slowdown": 3},
            "slo.ttft_slowdown",
            "slo.ttft_ms and slo.ttft_slowdown set the same target",
        ),
        (
            {"stages": [{"name": "a", "tpot_ms": 1}], "tpot_ms": 20},
            "slo.stages",
            "slo.tpot_ms and slo.stages set the same target",
        ),
        ({"class": "chta"}, "slo.class", "one of agent, chat, default"),
        ({"on_refuse": "no"}, "slo.on_refuse", "one of refuse, best_effort"),
        (
            {"pacing": "deadline"},
            "slo.pacing",
            "read 'deadline', allowed is one of mean, deadlines",
        ),
        ({"way": "both"}, "slo.way", "one of colocated, disaggregated"),
        ({"report": "yes"}, "slo.report", "true or false"),
        ({"value": 0}, "slo.value", "read 0, allowed is a number from 0.001 to 1000"),
        ({"value": 1001}, "slo.value", "read 1001"),
        ({"session": ""}, "slo.session", "text of 1 to 256"),
        ({"session": 7}, "slo.session", "read 7"),
    ],
)
def test_an_unfit_value_is_told_with_field_reading_and_allowance(
    body: Any, param: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(body)

    assert raised.value.param == param
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("x-slo-ttft-ms", "soon"),
        ("x-llm-d-slo-tpot-ms", "inf"),
        ("x-slo-class", "nobody"),
        ("x-slo-pacing", "fast"),
    ],
)
def test_an_unfit_header_is_told_by_its_own_name(header: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_inputs(None, {header: text}, CATALOGUE)

    assert raised.value.param == header


def test_a_header_is_judged_even_where_the_body_overrides_it() -> None:
    with pytest.raises(InvalidRequest):
        read({"ttft_ms": 100}, x_slo_ttft_ms="soon")


@pytest.mark.parametrize("text", ["1_0", "nan", "inf", "", "10 ms"])
def test_a_header_that_is_no_plain_number_is_refused(text: str) -> None:
    error = error_of(None, {"x-slo-ttft-ms": text})

    assert error is not None
    assert "allowed is a number" in str(error)
