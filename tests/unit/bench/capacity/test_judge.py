import pytest

from services.bench.capacity.judge import Ended, Judged, Seen
from services.bench.capacity.workload import Offered

OFFERED = Offered(at_s=0.0, class_name="code", prompt_tokens=8, output_tokens=3)


def judged(
    *times_s: float, ended: Ended = Ended.DONE, admission: str = "", cut_at_s: float = 0.0
) -> Judged:
    seen = Seen(
        offered=OFFERED,
        ended=ended,
        token_times_s=times_s,
        admission=admission,
        cut_at_s=cut_at_s,
    )
    return Judged(seen=seen, ttft_target_s=1.0, tpot_target_s=0.5)


@pytest.mark.parametrize(
    ("times_s", "met", "met_at_every_token"),
    [
        ((1.0, 1.5, 2.0), True, True),
        ((1.1, 1.2, 1.3), False, False),  # the first is late
        ((0.2, 0.3, 1.4), False, True),  # slow on the mean, yet each token in time
        ((0.9, 1.8, 1.9), True, False),  # good on the mean, yet the second token late
        ((1.0,), True, True),  # one token has no pace
    ],
)
def test_ttft_and_mean_tpot_decide_and_the_cumulative_rule_looks_at_every_token(
    times_s: tuple[float, ...], met: bool, met_at_every_token: bool
) -> None:
    one = judged(*times_s)

    assert one.is_met is met
    assert one.is_met_at_every_token is met_at_every_token


@pytest.mark.parametrize("admission", ["best_effort", "refused"])
def test_without_a_promise_a_request_is_missed_however_fast_it_was(admission: str) -> None:
    one = judged(0.1, 0.2, 0.3, admission=admission)

    assert not one.is_met
    assert not one.is_met_at_every_token


@pytest.mark.parametrize("ended", [Ended.REFUSED, Ended.CUT, Ended.FAILED])
def test_what_did_not_end_well_is_missed(ended: Ended) -> None:
    assert not judged(0.1, 0.2, ended=ended).is_met


def test_what_was_cut_before_its_first_token_had_waited_until_then() -> None:
    assert judged(ended=Ended.CUT, cut_at_s=7.0).seen.ttft_s == 7.0
    assert judged(ended=Ended.REFUSED, cut_at_s=7.0).seen.ttft_s is None
