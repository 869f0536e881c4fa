"""The simulation of a system finds, by calibration, what a profile cannot say."""

from dataclasses import replace

import pytest

from services.bench.capacity.judge import Ended, Judged, Seen
from services.bench.capacity.workload import Offered
from services.bench.fidelity.calibrated_sim import CalibratedSim, load_of, stock
from services.bench.fidelity.compare import Compared, Outcome, Side, seen
from services.bench.fidelity.own_engine import OwnEngine
from tests.unit.shared.simulation.fleet import TABLE, hardware

_WAIT_S = 10.0


def asked(at_s: float, output: int = 5) -> Offered:
    return Offered(at_s=at_s, class_name="chat", prompt_tokens=40, output_tokens=output)


def judged(offered: Offered, outcome: Outcome | None = None) -> Judged:
    """As the client saw it; without an outcome it got nothing."""
    times_s: tuple[float, ...] = ()
    if outcome is not None:
        times_s = tuple(outcome.ttft_s + n * outcome.tpot_s for n in range(offered.output_tokens))
    one = Seen(offered=offered, ended=Ended.DONE if times_s else Ended.CUT, token_times_s=times_s)
    return Judged(seen=one, ttft_target_s=0.2, tpot_target_s=0.1)


def plain(step_s: float = 0.05) -> CalibratedSim:
    engine = OwnEngine(hardware=hardware(step_s=step_s), table=TABLE, profile={})
    return stock(engine, 128)


def test_calibration_finds_the_slowness_of_the_machine_and_the_time_outside_of_engines() -> None:
    true = replace(plain(), slower=1.3, on_the_way_s=0.03)
    before = [asked(float(second)) for second in range(10)]
    outcomes = true.outcomes([judged(one) for one in before], wait_s=_WAIT_S, seed=1)
    measured = [judged(one, got) for one, got in zip(before, outcomes, strict=True)]

    found = plain().calibrated(measured, wait_s=_WAIT_S, seed=1)

    assert found.slower == pytest.approx(1.3, rel=0.01)
    assert found.on_the_way_s == pytest.approx(0.03, abs=0.001)


def test_what_kv_takes_to_move_is_no_pace() -> None:
    moved = Seen(offered=asked(0.0), ended=Ended.DONE, token_times_s=(0.1, 0.9, 1.0, 1.1, 1.2))

    (outcome,) = seen([Judged(seen=moved, ttft_target_s=1.0, tpot_target_s=1.0)])

    assert outcome.tpot_s == pytest.approx(1.1 / 4)
    assert outcome.later_s == pytest.approx(0.1)


def test_the_simulation_gets_the_requests_that_the_system_got() -> None:
    wanted = [judged(asked(0.5, output=7)), judged(asked(1.5))]

    load = load_of(wanted)

    assert [program.arrives_s for program in load] == [0.5, 1.5]
    (call,) = load[0].calls
    assert (call.prompt_tokens, call.output_tokens, call.ttft_s) == (40, 7, 0.2)
    assert call.stages[0].tpot_s == 0.1


def test_a_budget_of_tokens_bounds_the_simulated_steps() -> None:
    long = replace(asked(0.0, output=1), prompt_tokens=300)

    (outcome,) = plain().outcomes([judged(long)], wait_s=_WAIT_S, seed=1)

    assert outcome.ttft_s == pytest.approx(3 * 0.05)


def test_what_came_before_is_served_first_and_not_told() -> None:
    wanted = [judged(asked(0.0)), judged(asked(0.5))]
    alone = plain().outcomes(wanted, wait_s=_WAIT_S, seed=1)

    later = plain().outcomes(wanted, wait_s=_WAIT_S, seed=1, before=[judged(asked(3.0))] * 3)

    assert [one.met for one in later] == [one.met for one in alone]
    assert [one.ttft_s for one in later] == pytest.approx([one.ttft_s for one in alone], rel=0.2)


def side(attained: float, time_s: float) -> Side:
    names = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99")
    return Side(attained=attained, times_s=dict.fromkeys(names, time_s))


@pytest.mark.parametrize(
    ("attained", "time_s", "is_true"),
    [(0.9, 1.0, True), (0.86, 1.14, True), (0.84, 1.0, False), (0.9, 1.16, False)],
)
def test_true_is_within_5_points_and_15_percent(
    attained: float, time_s: float, is_true: bool
) -> None:
    one = Compared(
        system="ours",
        rate_rps=1.0,
        requests=10,
        others_cores=0.0,
        slower=1.0,
        real=side(0.9, 1.0),
        simulated=side(attained, time_s),
        runs=[side(attained, time_s)],
    )

    assert one.is_true is is_true


def test_a_request_without_an_answer_has_no_times_and_is_missed() -> None:
    outcomes = seen(
        [judged(asked(0.0)), judged(asked(0.0), Outcome(met=True, ttft_s=0.1, tpot_s=0.05))]
    )

    whole = Side.of(outcomes)

    assert whole.attained == 0.5
    assert whole.times_s["ttft_p99"] == pytest.approx(0.1)
