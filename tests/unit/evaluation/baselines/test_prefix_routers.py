"""Each router takes the engine that its published rule names."""

import pytest

from services.evaluation.baselines.prefix_routers import (
    LeastCost,
    RoundRobin,
    ScorerWeights,
    by_requests,
    dynamo_costs,
    llmd_costs,
)
from services.evaluation.baselines.routers import Router
from shared.simulation.engine import SimEngine
from shared.simulation.system import SimRequest
from tests.unit.evaluation.baselines.steps import decode, prompt
from tests.unit.shared.simulation.fleet import call, fleet, hardware

GUIDE = ScorerWeights(prefix=3, kv=2, queue=2)
PREFIX_ALONE = ScorerWeights(prefix=1, kv=0, queue=0)


def engines(decode_engines: int = 2) -> dict[str, SimEngine]:
    return {one.name: one for one in fleet(hardware(), decode_engines, 0)}


def request(index: int = 0, prompt: int = 1000, prefix: int = 800) -> SimRequest:
    return SimRequest(
        index=index,
        call=call(prompt, prefix_tokens=prefix, prefix_group="system" if prefix else None),
        program_id=f"p{index}",
        call_number=0,
        arrives_s=0.0,
        ttft_s=1.0,
    )


def sent(router: Router, fleet_: dict[str, SimEngine], number: int, now: float = 0.0) -> str:
    route = router.route(request(number), fleet_, now)
    assert route is not None
    return route.decode


def test_in_turn_each_engine_gets_as_many_requests_whatever_it_has_cached() -> None:
    fleet_, router = engines(3), RoundRobin()
    fleet_["d2"].cache.keep("system", 800)

    names = [sent(router, fleet_, number) for number in range(6)]

    assert sorted(names[:3]) == sorted(names[3:]) == ["d0", "d1", "d2"]


def test_by_requests_the_cache_does_not_count_and_an_end_frees_a_place() -> None:
    fleet_, router = engines(), LeastCost(by_requests)
    fleet_["d1"].cache.keep("system", 800)

    first, second = sent(router, fleet_, 0), sent(router, fleet_, 1)
    router.ended(1)

    assert (first, second, sent(router, fleet_, 2)) == ("d0", "d1", "d1")


@pytest.mark.parametrize(("queued", "chosen"), [(700, "d1"), (900, "d0")])
def test_for_dynamo_a_hit_is_worth_as_many_queued_tokens(queued: int, chosen: str) -> None:
    fleet_ = engines()
    fleet_["d1"].cache.keep("system", 800)
    fleet_["d1"].add(prompt(queued), 9)

    assert sent(LeastCost(dynamo_costs(1.0)), fleet_, 0) == chosen


@pytest.mark.parametrize(("scale", "chosen"), [(1.0, "d0"), (2.0, "d1")])
def test_for_dynamo_kv_in_use_weighs_against_a_hit_by_the_scale(scale: float, chosen: str) -> None:
    fleet_, router = engines(), LeastCost(dynamo_costs(scale))
    fleet_["d1"].cache.keep("system", 800)

    assert sent(router, fleet_, 0) == "d1"  # 1,000 tokens of KV from here on

    assert sent(router, fleet_, 1, now=1.0) == chosen


def test_for_llmd_a_hit_outweighs_a_queue_until_both_load_scores_are_against_it() -> None:
    fleet_ = engines()
    fleet_["d1"].cache.keep("system", 800)
    fleet_["d1"].add(prompt(10), 9)

    calm = sent(LeastCost(llmd_costs(GUIDE)), fleet_, 0)  # 2.4 for the hit, 2 for the queue
    blocks = fleet_["d1"].hardware.kv_blocks
    fleet_["d1"].add(decode(16 * blocks // 2), 8)
    full = sent(LeastCost(llmd_costs(GUIDE)), fleet_, 0)  # 1 more for the KV

    assert (calm, full) == ("d1", "d0")


def test_for_llmd_the_longest_cached_part_of_a_prompt_wins_where_only_that_counts() -> None:
    fleet_ = engines(3)
    fleet_["d1"].cache.keep("system", 320)
    fleet_["d2"].cache.keep("system", 800)

    assert sent(LeastCost(llmd_costs(PREFIX_ALONE)), fleet_, 0) == "d2"


def test_active_requests_count_for_llmd_where_they_have_a_weight() -> None:
    fleet_ = engines()
    fleet_["d0"].cache.keep("system", 800)
    router = LeastCost(llmd_costs(ScorerWeights(prefix=3, kv=0, queue=0, active=3)))

    names = [sent(router, fleet_, number, now=number) for number in range(4)]

    # a hit is worth 2.4, an active request 3 as long as the other engine has none
    assert names[:2] == ["d0", "d1"]


@pytest.mark.parametrize(
    "router",
    [
        RoundRobin(),
        LeastCost(by_requests),
        LeastCost(dynamo_costs(1.0)),
        LeastCost(llmd_costs(GUIDE)),
    ],
)
def test_without_engines_a_request_waits(router: Router) -> None:
    assert router.route(request(), {}, 0.0) is None
