"""What a person reads of a decision."""

import io

import pytest
from rich.console import Console

from services.planner.server.explain import print_explanation
from services.planner.state.cluster import ClusterState
from shared.engines import KvTransfer
from shared.requests import (
    Admission,
    EngineRef,
    Explanation,
    OnRefuse,
    Outcome,
    Pacing,
    Placement,
    PlacementMode,
    Reason,
    SloTargets,
    Stage,
    StepSums,
)
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    both_roles,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    make_report,
    place,
)

D0 = EngineRef(name="d0", engine_id="d0", address="x")


def printed(state: ClusterState, decision_id: str) -> str:
    explanation = state.explain(decision_id)
    assert explanation is not None
    return shown(explanation)


def shown(explanation: Explanation) -> str:
    text = io.StringIO()
    print_explanation(explanation, Console(file=text, width=80))
    return text.getvalue()


def test_ways_numbers_and_outcome_are_told_within_80_columns() -> None:
    state = make_cluster(*both_roles())
    decision = place(state, make_query(targets=SloTargets(ttft_s=2, class_name="chat")))
    state.settle(make_outcome(decision, ttft_s=0.25, tpot_s=0.02, met=True), 0.0)

    text = printed(state, decision.placement.decision_id)

    words = " ".join(text.split())
    assert "class chat, 100 prompt tokens, at most 50 out; TTFT 2,000 ms" in words
    assert "colocated on d0" in text
    assert "p0 > d0" in text
    assert "5.2" in text
    assert "stop after 10 tokens, TTFT 250 ms, TPOT 20 ms, targets met" in words
    assert max(len(line) for line in text.splitlines()) <= 80


def test_stages_value_session_and_the_way_of_the_kv_are_told() -> None:
    stages = (Stage(name="thinking", tpot_s=0.02), Stage(name="answer", tpot_s=0.1))
    targets = SloTargets(ttft_s=2, stages=stages, value=1.25, pacing=Pacing.DEADLINES)
    placement = Placement(
        decision_id="d-1", admission=Admission.ADMITTED, reason=Reason.NONE, decode=D0
    )
    explanation = Explanation(
        query=make_query(targets=targets, session_id="tools", waited_s=0.3),
        placement=placement,
        decided_at_epoch_s=0.0,
        outcome=Outcome(decision_id="d-1", request_id="r1", finished="stop", transfer_s=0.04),
    )

    words = " ".join(shown(explanation).split())

    assert "TTFT 2,000 ms, thinking at TPOT 20 ms, answer at TPOT 100 ms" in words
    assert (
        "every token by its deadline, value 1.25, session tools; decided 300 ms after it came"
        in words
    )
    assert "KV and first step after 40 ms" in words


def test_a_row_of_the_table_adds_up_with_the_time_held() -> None:
    state = make_cluster(make_engine())
    targets = SloTargets(ttft_s=9.0)
    decision = place(state, make_query(targets=targets, waited_s=1.25))

    lines = printed(state, decision.placement.decision_id).splitlines()

    at = next(index for index, line in enumerate(lines) if line.split()[:2] == ["engines", "held"])
    names = lines[at].split()[1:]
    cells = [float(cell.replace(",", "")) for cell in lines[at + 2].split()[1:]]
    row = dict(zip(names, cells, strict=True))
    assert row["held"] == 1250
    assert row["held"] + row["queue"] + row["prefill"] == pytest.approx(row["ttft"], rel=0.02)


def test_a_refusal_is_told_with_its_reason_and_what_stood_in_the_way() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=1, queued_prefill_tokens=900)
    targets = SloTargets(ttft_s=0.5, on_refuse=OnRefuse.REFUSE)
    decision = place(state, make_query(targets=targets, forced_way=PlacementMode.COLOCATED))

    text = printed(state, decision.placement.decision_id)

    assert "refused (compute)" in text
    assert "it did not run" in text
    assert "Not disaggregated: the caller asked for colocated." in text
    assert "Not colocated on d0: would start after 1.03 s" in text


def test_where_the_time_went_and_how_long_steps_took_is_told() -> None:
    sums = StepSums(
        engine="d0",
        steps=7,
        real_s=0.2,
        expected_s=0.15,
        sure_s=0.18,
        beyond_sure=2,
        worst_excess_s=0.03,
        prefill_tokens=100,
        decode_tokens=20,
    )
    explanation = Explanation(
        query=make_query(),
        placement=Placement(
            decision_id="d-1", admission=Admission.ADMITTED, reason=Reason.NONE, decode=D0
        ),
        decided_at_epoch_s=0.0,
        outcome=Outcome(
            decision_id="d-1", request_id="r1", finished="stop", held_s=0.01, queue_s=0.02
        ),
        before_first=sums,
    )

    words = " ".join(shown(explanation).split())

    assert "held 10 ms, queued 20 ms" in words
    assert "to the first token 7 of d0 in 200 ms, 150 ms expected; 2 longer than sure" in words


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("used", "KV: 12.5 MB over zmq in 25 ms, 500 MB/s"),
        ("expired", "500 MB/s; not used (expired), computed again"),
    ],
)
def test_how_the_kv_came_is_told(outcome: str, words: str) -> None:
    state = make_cluster(*both_roles())
    query = make_query(forced_way=PlacementMode.DISAGGREGATED)
    decision = place(state, query)
    transfer = KvTransfer(
        request_id="r1",
        peer_engine_id="p0-first",
        transport="zmq",
        bytes=12_500_000,
        seconds=0.025,
        outcome=outcome,
    )

    report = make_report(kv_transfers=(transfer,), finished=("r1",))
    state.observe(state.engines["d0"], [report], LONG_AFTER_S)
    state.settle(make_outcome(decision), LONG_AFTER_S)

    assert words in " ".join(printed(state, decision.placement.decision_id).split())
