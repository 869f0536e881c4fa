"""The summary of a soak test: each request is counted once, whatever is missing."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.capacity.judge import Ended
from services.bench.soak.plot import ends
from services.bench.soak.records import RecordedRequest, SoakResult
from services.bench.soak.report import tables
from services.bench.soak.summary import by_way, misses, summary_json
from shared.requests import Admission, PlacementMode, Reason
from tests.unit.bench.soak.requests import judged, kept, late_start, moved, outcome, record, sums

REFUSED = RecordedRequest(
    judged=judged(None, ended=Ended.REFUSED, admission="refused"),
    record=record(None, admission=Admission.REFUSED, reason=Reason.COMPUTE, decode=None),
)
BEST_EFFORT = RecordedRequest(
    judged=judged(2.0, admission="best_effort"),
    record=record(outcome(), admission=Admission.BEST_EFFORT, reason=Reason.COMPUTE),
)
UNKNOWN = RecordedRequest(
    judged=judged(0.5, admission="best_effort", reason="planner_away"),
    record=None,
)
UNENDED = RecordedRequest(judged=judged(2.0), record=record(None))
LATE = late_start(prefill_s=1.8)
SLOW = moved(outcome(tpot_s=0.2, transfer_s=1.5), after=sums(real_s=3.0, expected_s=2.0))
ANY = [kept(), REFUSED, BEST_EFFORT, UNKNOWN, UNENDED, LATE, SLOW]


@given(requests=st.lists(st.sampled_from(ANY), min_size=1))
def test_every_request_is_in_one_way_one_class_and_one_end(
    requests: Sequence[RecordedRequest],
) -> None:
    summary = summary_json(SoakResult(requests=requests))

    for groups in (summary["ways"], summary["classes"]):
        assert sum(group["requests"] for group in groups.values()) == len(requests)
    assert sum(len(times) for times in ends(requests).values()) == len(requests)
    found = misses(SoakResult(requests=requests))
    assert sum(cause["misses"] for cause in summary["causes"].values()) == len(found)
    assert summary["all"]["broken"] == len(found)
    assert list(tables(summary))


def test_a_day_is_told_by_way() -> None:
    summary = summary_json(SoakResult(requests=ANY, others=3))

    colocated, nowhere = summary["ways"]["colocated"], summary["ways"]["not placed"]
    assert (colocated["requests"], colocated["admitted"], colocated["attained"]) == (4, 3, 1)
    assert (colocated["best_effort"], colocated["lost"], colocated["broken"]) == (1, 1, 2)
    assert (nowhere["requests"], nowhere["refused"], nowhere["lost"]) == (2, 1, 1)
    assert summary["causes"]["prefill"]["ways"] == {"colocated": 1}
    assert summary["causes"]["transfer"]["ways"] == {PlacementMode.DISAGGREGATED: 1}
    assert summary["causes"]["lost"]["misses"] == 1
    assert summary["not_promised"] == {"compute": 2, "planner_away": 1}
    assert summary["decisions_of_other_requests"] == 3


def test_errors_are_of_promises_that_ended_and_shares_are_of_their_targets() -> None:
    (group,) = by_way(SoakResult(requests=[kept(), LATE, BEST_EFFORT, UNENDED]))

    found = group.as_json()["ttft"]

    assert found["requests"] == 2
    assert found["error_p95_ms"] == pytest.approx(1500.0)
    assert found["of_target_p95"] == pytest.approx(1.5)


def test_what_was_kept_tells_as_well_where_time_went_beyond_what_was_predicted() -> None:
    (group,) = by_way(SoakResult(requests=[kept(), LATE, BEST_EFFORT]))

    beyond = group.as_json()["beyond"]

    assert beyond["ttft"]["prefill"] == {"p50_ms": pytest.approx(0.0), "p95_ms": 500.0}
    assert beyond["tpot"]["decode interference"]["p50_ms"] == pytest.approx(0.0)


def test_the_worst_comes_first() -> None:
    worst = late_start(prefill_s=9.0, seen_s=9.4)

    found = misses(SoakResult(requests=[LATE, worst, kept()]))

    assert [miss.request for miss in found] == [worst, LATE]


def test_steps_are_told_by_engine() -> None:
    steps = summary_json(SoakResult(requests=[SLOW, kept()]))["steps"]

    assert steps == {
        "d0": {"real_to_expected": 1.5, "beyond_sure_share": 0.1, "worst_excess_ms": 10.0}
    }
