import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.capacity.judge import Ended, Judged, Seen
from services.bench.capacity.points import Point, interval
from services.bench.capacity.result import CapacityResult, Searched
from services.bench.capacity.workload import Offered
from services.bench.machine import Machine

MACHINE = Machine(cores=2, cpu="any", loads=(0.0, 0.0, 0.0))


def judged(class_name: str, ttft_s: float | None, ended: Ended = Ended.DONE) -> Judged:
    offered = Offered(at_s=0.0, class_name=class_name, prompt_tokens=8, output_tokens=2)
    times_s = () if ttft_s is None else (ttft_s, ttft_s + 0.1)
    seen = Seen(offered=offered, ended=ended, token_times_s=times_s)
    return Judged(seen=seen, ttft_target_s=1.0, tpot_target_s=0.2)


def point(system: str, rate_rps: float, *requests: Judged) -> Point:
    return Point(load="mixed", system=system, rate_rps=rate_rps, seconds=10.0, judged=requests)


GOOD, LATE = judged("code", 0.5), judged("chat", 3.0)
REFUSED = judged("code", None, Ended.REFUSED)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_shrinks_with_the_count(drawn: tuple[int, int]) -> None:
    hits, count = drawn
    low, high = interval(hits, count)

    assert 0.0 <= low <= hits / count <= high <= 1.0
    more_low, more_high = interval(4 * hits, 4 * count)
    assert more_high - more_low < high - low


def test_wilson_for_nine_of_ten() -> None:
    assert interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-3)


def test_a_refusal_counts_as_missed_and_has_no_times() -> None:
    shown = point("ours", 1.0, GOOD, GOOD, REFUSED, LATE).as_json()

    assert shown["attained"] == 0.5
    assert shown["refused"] == 1
    assert shown["classes"]["code"]["ttft"]["p99_ms"] == 500.0
    assert shown["classes"]["chat"]["ttft"]["of_target_p99"] == 3.0


def test_of_the_variants_at_one_rate_the_best_counts() -> None:
    searched = Searched(load="mixed", contender="vllm", variants=("a", "b"))
    result = CapacityResult(
        machine=MACHINE,
        needed=0.9,
        points=[point("a", 1.0, GOOD, LATE), point("b", 1.0, GOOD), point("c", 2.0, GOOD)],
        searched=[searched],
    )

    assert result.attainments(searched) == {1.0: 1.0}
    assert result.capacity_json(searched)["capacity_rps"] == 1.0
    assert result.as_json()["capacities"][0]["classes"]["code"]["capacity_rps"] == 1.0
