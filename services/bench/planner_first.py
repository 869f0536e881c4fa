"""Times the first decision of a new process, for `bench planner`; prints JSON."""

import json
from importlib import import_module

from shared.clock import MonotonicClock

_RUNNING, _CANDIDATES = 64, 8


def main() -> None:
    now = MonotonicClock().now
    began_s = now()
    # The time of these imports is measured, too.
    worlds = import_module("services.bench.planner_world")
    rounds = import_module("services.planner.admission.rounds")
    preparation = import_module("services.planner.server.prepare")
    loaded_s = now()
    preparation.prepare()
    prepared_s = now()
    world = worlds.World(running=_RUNNING)
    state = world.state(1)
    asked = [world.asked(_CANDIDATES, number) for number in range(2)]
    times = {"load_s": loaded_s - began_s, "prepare_s": prepared_s - loaded_s}
    for name, candidates in zip(("first_s", "second_s"), asked, strict=True):
        before_s = now()
        rounds.decide_round(candidates, state, worlds.NOW_S)
        times[name] = now() - before_s
    print(json.dumps(times))


if __name__ == "__main__":
    main()
