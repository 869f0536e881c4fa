import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.planner_link import PlannerLimits, PlannerLink, place_alone
from services.gateway.scope import SequenceRecord
from services.planner.planner_config import PlannerConfig
from shared.clock import VirtualClock
from shared.engines import EngineDescription, EngineView, Role
from shared.errors import NoEngine, PlannerUnavailable, Refused
from shared.requests import (
    Admission,
    EngineRef,
    Outcome,
    Phase,
    Placement,
    PlacementQuery,
    PrefixExport,
    Reason,
    SloTargets,
)

LIMITS = PlannerLimits(hold_limit_s=10.0, settle_every_s=1.0)


def view(
    name: str, role: Role = Role.DECODE, *, draining: bool = False, stalled: bool = False
) -> EngineView:
    return EngineView(
        description=EngineDescription(
            name=name,
            engine_id=name,
            role=role,
            address=f"{name}:1",
            model="m",
            vllm_version="0",
            block_size_tokens=16,
            kv_blocks=1,
            kv_bytes_per_token=1,
            max_model_len_tokens=1,
            max_running_requests=1,
            max_step_tokens=1,
            max_speculation_tokens=0,
        ),
        draining=draining,
        stalled=stalled,
    )


def placement(admission: Admission, **rest: Any) -> Placement:
    engine = EngineRef(name="d", engine_id="d", address="d:1")
    given = {"reason": Reason.NONE, "decode": engine, **rest}
    return Placement(decision_id="d1", admission=admission, **given)


def query(waited_s: float) -> PlacementQuery:
    return PlacementQuery(
        request_id="r",
        group_id="r",
        model="m",
        targets=SloTargets(),
        prompt_tokens=1,
        max_output_tokens=1,
        waited_s=waited_s,
    )


@dataclass
class FakePlanner:
    """`views` None is a planner that cannot be reached."""

    answers: list[Placement] = field(default_factory=list)
    views: list[EngineView] | None = None
    away: bool = False
    waits: list[float] = field(default_factory=list)
    limits_s: list[float] = field(default_factory=list)
    settled: list[Sequence[Outcome]] = field(default_factory=list)
    exports: list[PrefixExport] = field(default_factory=list)
    watches: int = 0
    holds_s: float = 0.0
    clock: VirtualClock | None = None

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:
        self.limits_s.append(limit_s)
        if self.away:
            raise PlannerUnavailable("away")
        self.waits.append(query.waited_s)
        if self.clock:
            self.clock.at_s += self.holds_s
        return self.answers.pop(0)

    async def settle(self, outcomes: Sequence[Outcome], exports: Sequence[PrefixExport]) -> None:
        if self.away:
            raise PlannerUnavailable("away")
        self.settled.append(outcomes)
        self.exports += exports

    async def watch(self) -> AsyncIterator[list[EngineView]]:
        self.watches += 1
        if self.views is not None:
            yield self.views
        raise PlannerUnavailable("gone")


@dataclass
class Desk:
    planner: FakePlanner
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(at_s=100.0))
    load: dict[str, int] = field(default_factory=dict)
    record: SequenceRecord = field(
        default_factory=lambda: SequenceRecord(request_id="r", prompt_tokens=1)
    )

    def __post_init__(self) -> None:
        self.planner.clock = self.clock
        self.link = PlannerLink(self.planner, self.clock, LIMITS, lambda: self.load)

    async def place(self) -> Placement:
        return await self.link.place(query, self.record, 99.0)

    async def run_for(self, seconds: float) -> None:
        task = asyncio.create_task(self.link.run())
        until_s = self.clock.now() + seconds
        while self.clock.now() < until_s:  # noqa: ASYNC110 - the loop is the clock here
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


async def test_an_admitted_request_is_placed_at_once() -> None:
    desk = Desk(FakePlanner([placement(Admission.ADMITTED)]))

    placed = await desk.place()

    assert placed.runs
    assert desk.record.placement is placed
    assert desk.record.placed_at_s == 100.0
    assert desk.planner.waits == [1.0]


async def test_a_deferred_request_is_held_as_long_as_told_and_asked_for_again() -> None:
    held = placement(Admission.DEFERRED, hold_s=2.0)
    desk = Desk(FakePlanner([held, held, placement(Admission.ADMITTED)]))

    placed = await desk.place()

    assert placed.runs
    assert desk.planner.waits == [1.0, 3.0, 5.0]
    assert desk.record.phase is Phase.PLACING


async def test_a_request_that_the_planner_held_in_its_call_is_asked_for_again_at_once() -> None:
    put_off = placement(Admission.DEFERRED, hold_s=0.0)
    desk = Desk(FakePlanner([put_off, placement(Admission.ADMITTED)], holds_s=0.5))

    await desk.place()

    assert desk.planner.waits == [1.0, 1.5]


async def test_a_planner_that_defers_without_holding_is_not_asked_without_end() -> None:
    put_off = placement(Admission.DEFERRED, hold_s=0.0)
    desk = Desk(FakePlanner([put_off, placement(Admission.ADMITTED)]))

    await desk.place()

    assert desk.planner.waits == pytest.approx([1.0, 1.0 + LIMITS.least_hold_s])


@given(hold_s=st.none() | st.floats(0.0, 30.0))
def test_holding_ends_within_its_limit(hold_s: float | None) -> None:
    held = placement(Admission.DEFERRED, hold_s=hold_s, reason=Reason.MEMORY)
    desk = Desk(FakePlanner([held] * 2000))

    with pytest.raises(Refused) as refused:
        asyncio.run(desk.place())

    assert desk.clock.now() - 99.0 <= LIMITS.hold_limit_s
    assert refused.value.retry_after_s is not None
    assert refused.value.reason == "memory"


def test_by_default_the_planner_answers_before_the_gateway_gives_up() -> None:
    assert PlannerConfig().patience_s < PlannerLimits().hold_limit_s


async def test_a_request_is_held_for_its_ttft_target_and_the_limit() -> None:
    held = placement(Admission.DEFERRED, hold_s=1.0, ttft_s=40.0)
    soon = Desk(FakePlanner([held] * 49 + [placement(Admission.ADMITTED)]))
    late = Desk(FakePlanner([held] * 51 + [placement(Admission.ADMITTED)]))

    await soon.place()
    with pytest.raises(Refused, match="within the 50 s"):
        await late.place()


async def test_a_refusal_carries_its_numbers() -> None:
    no = placement(Admission.REFUSED, reason=Reason.COMPUTE, message="no", retry_after_s=3.0)
    desk = Desk(FakePlanner([no]))

    with pytest.raises(Refused, match="no") as refused:
        await desk.place()

    assert (refused.value.reason, refused.value.decision_id) == ("compute", "d1")
    assert refused.value.retry_after_s == 3.0


async def test_no_engine_is_an_error_of_its_own() -> None:
    desk = Desk(FakePlanner([placement(Admission.REFUSED, reason=Reason.NO_ENGINE)]))

    with pytest.raises(NoEngine):
        await desk.place()


async def test_without_the_planner_the_last_view_decides() -> None:
    desk = Desk(FakePlanner(views=[view("d0"), view("d1")], away=True), load={"d0": 1})
    await desk.run_for(1.0)

    first, second = await desk.place(), await desk.place()

    assert first.decode is not None
    assert (first.decode.name, first.reason) == ("d1", Reason.PLANNER_AWAY)
    assert first.admission is Admission.BEST_EFFORT
    assert first.decision_id.startswith("local-")
    assert first.decision_id != second.decision_id


async def test_without_any_view_there_is_nothing_to_decide() -> None:
    desk = Desk(FakePlanner(away=True))

    with pytest.raises(PlannerUnavailable):
        await desk.place()
    with pytest.raises(PlannerUnavailable):
        desk.link.check()


async def test_engines_that_drain_take_nothing() -> None:
    desk = Desk(FakePlanner(views=[view("d0", draining=True)], away=True))
    await desk.run_for(1.0)

    with pytest.raises(NoEngine):
        desk.link.check()


async def test_a_watch_that_breaks_is_taken_up_again_ever_more_slowly() -> None:
    desk = Desk(FakePlanner())

    await desk.run_for(60.0)

    assert 10 <= desk.planner.watches <= 40


async def test_outcomes_reach_the_planner_once_also_after_it_was_away() -> None:
    desk = Desk(FakePlanner(away=True))
    outcomes = [Outcome(decision_id=str(at), request_id="r", finished="stop") for at in range(3)]
    for outcome in outcomes:
        desk.link.settle(outcome)

    await desk.run_for(5.0)
    desk.planner.away = False
    await desk.run_for(5.0)

    assert [one for batch in desk.planner.settled for one in batch] == outcomes


async def test_exports_reach_the_planner_at_once_and_are_not_sent_again() -> None:
    desk = Desk(FakePlanner())
    first, second = (
        PrefixExport(decision_id=name, seconds=0.1, exported=True) for name in ("1", "2")
    )

    desk.link.exported(first)
    await desk.run_for(0.5)
    assert desk.planner.exports == [first]

    desk.planner.away = True
    desk.link.exported(second)
    await desk.run_for(0.5)
    desk.planner.away = False
    await desk.run_for(0.5)
    assert desk.planner.exports == [first]


async def test_at_the_end_the_last_outcomes_are_told() -> None:
    desk = Desk(FakePlanner())
    outcome = Outcome(decision_id="1", request_id="r", finished="stop")

    await desk.run_for(0.5)
    desk.link.settle(outcome)
    await desk.link.settle_now()
    await desk.link.settle_now()

    assert desk.planner.settled == [[outcome]]


@given(
    loads=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    prefill=st.booleans(),
)
def test_alone_the_gateway_takes_the_least_loaded_decode_engine(
    loads: list[int], prefill: bool
) -> None:
    views = [view(f"d{at}") for at in range(len(loads))]
    if prefill:
        views.insert(0, view("p0", Role.PREFILL))

    placed = place_alone(views, {f"d{at}": load for at, load in enumerate(loads)}, "local-1")

    assert placed.decode is not None
    assert placed.decode.name == f"d{loads.index(min(loads))}"


def test_alone_with_prefill_engines_only_it_takes_one_of_them() -> None:
    placed = place_alone([view("p0", Role.PREFILL)], {}, "local-1")

    assert placed.decode is not None
    assert placed.decode.address == "p0:1"


async def test_a_planner_that_did_not_answer_is_waited_for_less_until_it_does() -> None:
    desk = Desk(FakePlanner(views=[view("d0")], away=True))
    await desk.run_for(0.5)
    for _ in range(2):
        await desk.place()
    desk.planner.away = False
    desk.planner.answers = [placement(Admission.ADMITTED) for _ in range(2)]
    for _ in range(2):
        await desk.place()

    whole_s = LIMITS.place_s
    assert desk.planner.limits_s == [whole_s, whole_s / 10, whole_s / 10, whole_s]


@pytest.mark.parametrize(("avoid", "taken"), [((), "d0"), (("d0",), "d1"), (("d0", "d1"), "d0")])
async def test_alone_it_takes_an_engine_that_fails_only_where_no_other_serves(
    avoid: tuple[str, ...], taken: str
) -> None:
    desk = Desk(FakePlanner(views=[view("d0"), view("d1"), view("d2", stalled=True)], away=True))
    await desk.run_for(0.5)

    placed = await desk.link.place(
        lambda waited_s: replace(query(waited_s), avoid=avoid), desk.record, 99.0
    )

    assert placed.decode is not None
    assert placed.decode.name == taken


async def test_a_fleet_of_stalled_engines_is_not_ready() -> None:
    desk = Desk(FakePlanner(views=[view("d0", stalled=True)]))
    await desk.run_for(0.5)

    with pytest.raises(NoEngine):
        desk.link.check()


async def test_a_request_that_moves_is_held_from_the_moment_it_lost_its_engine() -> None:
    deferred = placement(Admission.DEFERRED, hold_s=1.0)
    desk = Desk(FakePlanner(answers=[deferred, deferred, placement(Admission.ADMITTED)]))
    long_ago_s = desk.clock.now() - 10 * LIMITS.hold_limit_s

    placed = await desk.link.place(query, desk.record, long_ago_s, held_from_s=desk.clock.now())

    assert placed.runs
