"""What a person reads of a decision."""

import io

from rich.console import Console

from services.planner.explain import print_explanation
from services.planner.state import ClusterState
from shared.requests import OnRefuse, SloTargets, Way
from tests.unit.planner.builders import (
    both_roles,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    make_report,
    place,
)


def printed(state: ClusterState, decision_id: str) -> str:
    explanation = state.explain(decision_id)
    assert explanation is not None
    text = io.StringIO()
    print_explanation(explanation, Console(file=text, width=80))
    return text.getvalue()


def test_ways_numbers_and_outcome_are_told_within_80_columns() -> None:
    state = make_cluster(*both_roles())
    decision = place(state, make_query(targets=SloTargets(ttft_s=2, class_name="chat")))
    state.settle(make_outcome(decision, ttft_s=0.25, tpot_s=0.02, met=True))

    text = printed(state, decision.placement.decision_id)

    words = " ".join(text.split())
    assert "class chat, 100 prompt tokens, at most 50 out; TTFT 2,000 ms" in words
    assert "colocated on d0" in text
    assert "p0 > d0" in text
    assert "5.2" in text
    assert "stop after 10 tokens, TTFT 250 ms, TPOT 20 ms, targets met" in words
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_refusal_is_told_with_its_reason_and_what_stood_in_the_way() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=1, queued_prefill_tokens=900)
    targets = SloTargets(ttft_s=0.5, on_refuse=OnRefuse.REFUSE)
    decision = place(state, make_query(targets=targets, forced_way=Way.COLOCATED))

    text = printed(state, decision.placement.decision_id)

    assert "refused (compute)" in text
    assert "it did not run" in text
    assert "Not disaggregated: the caller asked for colocated." in text
    assert "Not colocated on d0: would start after 1.03 s" in text
