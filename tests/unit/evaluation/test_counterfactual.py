"""The planner's replay agrees with the simulator, whatever fleet told it what was asked."""

import pytest

from services.evaluation.counterfactual import compare
from services.evaluation.options import CounterfactualOptions

# With a cold cache the first of these compiles the replay.


@pytest.mark.parametrize("seen_by", ["1", "4"])
def test_the_replay_says_of_every_fleet_what_the_simulator_finds(seen_by: str) -> None:
    options = CounterfactualOptions(
        rate=8.0, seconds=40.0, fleets=("1", "2", "3", "4"), seen_by=seen_by
    )

    compared = list(compare(options))

    simulated = [one.simulated for one in compared]
    assert simulated[0] < 0.7
    assert simulated[-1] > 0.95
    for one in compared:
        assert one.replayed == pytest.approx(one.simulated, abs=0.1), one.fleet
