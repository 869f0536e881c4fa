import pytest

from services.evaluation.baselines.routers import LeastLoaded, Split, queued_tokens
from shared.engines import Role
from shared.simulation.engine import SimEngine
from shared.simulation.system import SimRequest
from tests.unit.evaluation.baselines.steps import decode, prompt
from tests.unit.shared.simulation.fleet import call, fleet, hardware


def engines(decode: int = 2, prefill: int = 0) -> dict[str, SimEngine]:
    return {one.name: one for one in fleet(hardware(), decode, prefill)}


def request(index: int = 0, prompt: int = 100, program: str = "p", prefix: int = 0) -> SimRequest:
    return SimRequest(
        index=index,
        call=call(prompt, prefix_tokens=prefix),
        program_id=program,
        call_number=0,
        arrives_s=0.0,
        ttft_s=1.0,
    )


def test_the_engine_with_fewer_tokens_queued_gets_the_request() -> None:
    fleet_ = engines()
    fleet_["d0"].add(prompt(1000), 7)
    fleet_["d1"].add(prompt(900), 8)
    fleet_["d1"].add(decode(5000), 9)

    route = LeastLoaded().route(request(), fleet_, 0.0)

    assert route is not None
    assert (route.decode, route.prefill) == ("d1", None)


def test_what_is_on_its_way_counts_once() -> None:
    fleet_, router = engines(), LeastLoaded()
    sizes = (1000, 700, 400)

    ways = [router.route(request(index, size), fleet_, 0.0) for index, size in enumerate(sizes)]
    fleet_["d0"].add(prompt(1000), 0)
    ways.append(router.route(request(3, 10), fleet_, 0.01))

    # 1,000 tokens of one request are less to do than 1,100 of two
    assert [one and one.decode for one in ways] == ["d0", "d1", "d1", "d0"]


def test_requests_that_decode_weigh_until_they_end() -> None:
    fleet_, router = engines(), LeastLoaded()
    router.route(request(0, 10), fleet_, 0.0)

    busy = router.route(request(1, 10), fleet_, 1.0)
    router.ended(0)
    free = router.route(request(2, 10), fleet_, 2.0)

    assert busy is not None
    assert free is not None
    assert (busy.decode, free.decode) == ("d1", "d0")


def test_an_engine_that_has_the_prefix_has_less_to_do() -> None:
    fleet_ = engines()
    fleet_["d1"].cache.keep("p", 800)

    route = LeastLoaded().route(request(prompt=1000, prefix=900), fleet_, 0.0)

    assert route is not None
    assert route.decode == "d1"


@pytest.mark.parametrize("by_deadlines", [False, True])
def test_tokens_are_due_by_the_arrival_where_the_baseline_says_so(by_deadlines: bool) -> None:
    route = LeastLoaded(by_deadlines=by_deadlines).route(request(), engines(), 0.0)

    assert route is not None
    assert route.by_deadlines == by_deadlines


def test_a_tight_class_has_the_lowest_key() -> None:
    route = LeastLoaded({"chat": 2}).route(request(), engines(), 0.0)

    assert route is not None
    assert route.key == 2


def test_prompts_go_to_the_shortest_queue_and_decodes_where_the_fewest_are() -> None:
    fleet_, router = engines(2, 2), Split()
    fleet_["p0"].add(prompt(300), 9)

    routes = [router.route(request(index, 200), fleet_, 0.0) for index in range(3)]

    assert [one and (one.prefill, one.decode) for one in routes] == [
        ("p1", "d0"),
        ("p1", "d1"),
        ("p0", "d0"),
    ]


def test_prompts_below_the_threshold_stay_where_they_decode() -> None:
    fleet_, router = engines(1, 1), Split(512)

    long, short = (router.route(request(n, size), fleet_, 0.0) for n, size in enumerate((512, 511)))

    assert long is not None
    assert short is not None
    assert (long.prefill, short.prefill) == ("p0", None)


def test_what_the_decode_engine_has_cached_does_not_count_for_the_threshold() -> None:
    fleet_ = engines(1, 1)
    fleet_["d0"].cache.keep("p", 800)

    route = Split(512).route(request(prompt=1000, prefix=900), fleet_, 0.0)

    assert route is not None
    assert route.prefill is None


def test_without_prefill_engines_everything_stays_and_without_others_it_waits() -> None:
    lonely = {name: one for name, one in engines(1, 1).items() if one.role is Role.PREFILL}

    colocated = Split().route(request(), engines(1), 0.0)

    assert colocated is not None
    assert colocated.prefill is None
    assert Split().route(request(), lonely, 0.0) is None
    assert LeastLoaded().route(request(), lonely, 0.0) is None


def test_queued_tokens_are_those_of_prompts() -> None:
    engine = engines()["d0"]
    for index, row in enumerate((prompt(100, computed=32), decode(5000), prompt(1))):
        engine.add(row, index)

    assert queued_tokens(engine.after) == 68
