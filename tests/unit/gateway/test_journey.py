from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason

from services.gateway.continuation import TRANSFER
from services.gateway.engine_calls import Reply
from services.gateway.engine_health import EngineHealth
from services.gateway.journey import Journey, Means
from services.gateway.moves import Cause, MoveBudget, MoveLimits, Unmoved
from services.gateway.planner_link import PlannerLimits, PlannerLink
from services.gateway.scope import RequestScope, SequenceRecord
from services.gateway.wait_limits import WaitLimits
from shared.clock import VirtualClock
from shared.engines import EngineView
from shared.errors import EngineDraining, EngineLost, EngineStalled, EngineUnreachable, NoEngine
from shared.requests import (
    Admission,
    EngineRef,
    OnRefuse,
    Outcome,
    Placement,
    PlacementMode,
    PlacementQuery,
    PrefixExport,
    Reason,
    SloTargets,
)
from tests.unit.gateway.engine_fakes import (
    PROMPT,
    Answer,
    D,
    E,
    FakeEngines,
    P,
    answering,
    ending,
    handing_over,
    reply,
    says,
)
from tests.unit.planner.builders import make_engine

LOST = EngineLost("gone")


@dataclass
class FakePlanner:
    """Gives each placement once, in turn; an error in its place is raised."""

    placements: list[Placement]
    queries: list[PlacementQuery] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    exports: list[PrefixExport] = field(default_factory=list)

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:  # noqa: ARG002
        self.queries.append(query)
        return self.placements.pop(0)

    async def settle(self, outcomes: Any, exports: Any) -> None:
        self.exports += exports
        self.outcomes += outcomes

    def watch(self) -> Any:
        raise NotImplementedError


def placed(at: EngineRef, prefill: EngineRef | None = None, **changes: Any) -> Placement:
    given: dict[str, Any] = {
        "decision_id": f"d-{at.name}",
        "admission": Admission.ADMITTED,
        "reason": Reason.NONE,
        "way": PlacementMode.DISAGGREGATED if prefill else PlacementMode.COLOCATED,
        "prefill": prefill,
        "decode": at,
        "ttft_s": 0.4,
        "tpot_s": 0.05,
    }
    return Placement(**{**given, **changes})


REFUSED = Placement(
    decision_id="no",
    admission=Admission.REFUSED,
    reason=Reason.NO_ENGINE,
    message="No engine is attached.",
)


@dataclass
class Trip:
    journey: Journey
    engines: FakeEngines
    planner: FakePlanner
    delivered: list[EngineCoreOutputs]

    @property
    def record(self) -> SequenceRecord:
        return self.journey.record

    @property
    def outputs(self) -> list[EngineCoreOutput]:
        return [one for each in self.delivered for one in each.outputs]

    @property
    def tokens(self) -> list[int]:
        return [token for one in self.outputs for token in one.new_token_ids]

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.engines.asked]

    async def run(self) -> None:
        await self.journey.run()
        await self.journey.means.planner.settle_now()


def trip(
    *placements: Placement,
    limits: MoveLimits | None = None,
    max_tokens: int = 20,
    targets: SloTargets | None = None,
    **params: Any,
) -> Callable[..., Trip]:
    def over(**answers: Any) -> Trip:
        clock, engines = VirtualClock(at_s=100.0), FakeEngines(**answers)
        planner, delivered = FakePlanner(list(placements)), list[EngineCoreOutputs]()
        in_flight: Callable[[], Mapping[str, int]] = dict
        journey = Journey(
            request=EngineCoreRequest(
                request_id="r1",
                prompt_token_ids=PROMPT,
                mm_features=None,
                sampling_params=SamplingParams(
                    **{
                        "max_tokens": max_tokens,
                        "watermarking": False,
                        "temperature": 0.0,
                        **params,
                    }
                ),
                pooling_params=None,
                arrival_time=0.0,
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
            ),
            scope=RequestScope(
                request_id="r",
                arrived_at_s=99.0,
                targets=targets or SloTargets(ttft_s=0.4, on_refuse=OnRefuse.REFUSE),
                forced_way=PlacementMode.COLOCATED,
                session_id="s",
            ),
            record=SequenceRecord(request_id="r1", prompt_tokens=len(PROMPT)),
            means=Means(
                planner=PlannerLink(planner, clock, PlannerLimits(), in_flight),
                engines=engines,
                health=EngineHealth(answering, clock),
                budget=MoveBudget(limits or MoveLimits()),
                clock=clock,
                waits=WaitLimits(first_reply_s=5, next_reply_s=5),
                model="tiny",
                max_model_len_tokens=512,
                deliver=delivered.append,
            ),
            on_placed=lambda: None,
        )
        return Trip(journey, engines, planner, delivered)

    return over


@pytest.mark.parametrize("sends", [True, False])
async def test_the_planner_gets_the_hashes_of_a_prompt_unless_they_are_switched_off(
    sends: bool,
) -> None:
    run = trip(placed(D))(d=says(reply(5), ending()))
    means = run.journey.means
    run.journey.means = replace(means, prefix_hashes=sends)
    means.planner._views = [EngineView(description=make_engine("d", prefix_span_tokens=16))]

    await run.run()

    assert [query.prompt_hashes is not None for query in run.planner.queries] == [sends]


async def test_without_a_delivered_token_the_same_request_is_placed_again() -> None:
    run = trip(placed(D), placed(E))(d=says(LOST), e=says(reply(5), ending()))

    await run.run()

    first, second = run.planner.queries
    assert run.tokens == [5, 11]
    assert run.engines.asked[1][1].prompt_token_ids == PROMPT
    assert (first.avoid, second.avoid) == ((), ("d",))
    assert second.targets.ttft_s == 0.4
    assert second.targets.on_refuse is OnRefuse.BEST_EFFORT
    assert (second.session_id, second.forced_way) == (None, None)
    assert [(move.cause, move.engine, move.after_tokens) for move in run.record.moves] == [
        (Cause.LOST, "d", 0)
    ]


async def test_delivered_tokens_join_the_prompt_and_none_comes_twice() -> None:
    run = trip(placed(D), placed(E))(
        d=says(reply(5), reply(6, 7), LOST), e=says(reply(8), ending())
    )

    await run.run()

    rest = run.engines.asked[1][1]
    assert run.tokens == [5, 6, 7, 8, 11]
    assert rest.prompt_token_ids == [*PROMPT, 5, 6, 7]
    assert rest.sampling_params is not None
    assert rest.sampling_params.max_tokens == 17
    query = run.planner.queries[1]
    assert (query.prompt_tokens, query.max_output_tokens) == (len(PROMPT) + 3, 17)
    assert query.targets.ttft_s is None
    assert run.record.output_tokens == 5


async def test_each_engine_knows_the_request_by_a_name_of_its_own_and_the_client_by_one() -> None:
    run = trip(placed(D), placed(E), placed(D))(
        d=says(reply(5), LOST), e=says(reply(6), EngineStalled("hangs"))
    )
    run.engines.d = once(run.engines.d, says(reply(7), ending()))

    await run.run()

    assert [request.request_id for _, request in run.engines.asked] == ["r1", "r1~1", "r1~2"]
    assert {output.request_id for output in run.outputs} == {"r1"}
    assert run.tokens == [5, 6, 7, 11]


def once(first: Answer, then: Answer) -> Answer:
    answers = [first, then]

    def answer(request: EngineCoreRequest) -> Any:
        return answers.pop(0)(request)

    return answer


async def test_the_old_decision_ends_as_moved_and_the_last_one_counts_the_moves() -> None:
    run = trip(placed(D), placed(E))(d=says(reply(5), LOST), e=says(ending()))

    await run.run()

    (moved,) = run.planner.outcomes
    assert (moved.decision_id, moved.finished, moved.met) == ("d-d", "moved", None)
    assert "gone" in moved.message


async def test_what_was_promised_stays_promised_on_the_next_engine() -> None:
    weaker = placed(E, admission=Admission.BEST_EFFORT, ttft_s=None, tpot_s=None)
    run = trip(placed(D), weaker)(d=says(reply(5), LOST), e=says(ending()))

    await run.run()

    assert run.engines.terms[1].best_effort is False
    assert run.engines.terms[1].tpot_s == 0.05
    assert run.engines.terms[1].produced_tokens == 1
    assert run.record.placement is not None
    assert run.record.placement.admission is Admission.ADMITTED
    assert run.record.placement.decode == E


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.7, "seed": 3},
        {"presence_penalty": 0.5},
        {"structured_outputs": StructuredOutputsParams(json={}), "seed": 3, "temperature": 0.7},
    ],
)
async def test_what_looks_back_is_computed_again_and_only_what_is_new_is_delivered(
    params: dict[str, Any],
) -> None:
    run = trip(placed(D), placed(E), **params)(
        d=says(reply(5), reply(6, 7), LOST),
        e=says(reply(5), reply(6), reply(7, 8), reply(9), ending()),
    )

    await run.run()

    assert run.engines.asked[1][1].prompt_token_ids == PROMPT
    assert run.tokens == [5, 6, 7, 8, 9, 11]


async def test_a_grammar_is_told_which_tokens_of_the_prompt_belong_to_the_answer() -> None:
    grammar = StructuredOutputsParams(json={})
    run = trip(placed(D), placed(E), structured_outputs=grammar, temperature=0.7)(
        d=says(reply(5), reply(6), LOST), e=says(reply(7), ending())
    )

    await run.run()

    assert [terms.answered_tokens for terms in run.engines.terms] == [0, 2]
    assert run.engines.asked[1][1].prompt_token_ids == [*PROMPT, 5, 6]
    assert run.tokens == [5, 6, 7, 11]


@pytest.mark.parametrize(
    "again",
    [
        [reply(5), reply(8)],
        [reply(5), reply(6, finish_reason=FinishReason.STOP)],
        [reply(4, 6, 7)],
        [reply(5), reply(finish_reason=FinishReason.STOP)],
    ],
    ids=["other token", "other end", "other begin", "no more tokens"],
)
async def test_an_answer_that_differs_when_computed_again_is_an_error_and_no_wrong_token(
    again: list[Reply],
) -> None:
    run = trip(placed(D), placed(E), placed(D), seed=3, temperature=0.7)(
        d=says(reply(5), reply(6), LOST), e=says(*again)
    )

    with pytest.raises(EngineLost, match="of another one differs after"):
        await run.run()

    assert run.tokens == [5, 6]
    assert run.record.unmoved is Unmoved.INEXACT


async def test_sampling_that_nothing_can_repeat_ends_with_its_engine_and_says_why() -> None:
    run = trip(placed(D), placed(E), temperature=0.7, presence_penalty=0.5)(d=says(reply(5), LOST))

    with pytest.raises(EngineLost, match=r"lost after 1 tokens.*has no seed to repeat it by"):
        await run.run()

    assert run.asked == ["d"]
    assert run.record.moves == []
    assert run.record.unmoved is Unmoved.INEXACT


async def test_kv_that_no_engine_has_fetched_is_fetched_by_the_next_one() -> None:
    run = trip(placed(D, P), placed(E))(
        p=handing_over(9), d=says(EngineUnreachable("no")), e=says(reply(10), ending())
    )

    await run.run()

    rest = run.engines.asked[-1][1]
    assert run.asked == ["p", "d", "e"]
    assert run.tokens == [9, 10, 11]
    assert rest.request_id == "r1~1"
    assert rest.prompt_token_ids == [*PROMPT, 9]
    assert rest.sampling_params is not None
    assert (rest.sampling_params.extra_args or {})[TRANSFER]["do_remote_prefill"]
    assert run.planner.queries[1].avoid == ("d", "p")
    assert run.planner.queries[1].forced_way is PlacementMode.COLOCATED
    assert run.engines.released == []
    assert run.record.placement is not None
    assert run.record.placement.prefill == P


async def test_kv_that_no_engine_will_fetch_is_freed_under_the_name_that_its_holder_knows() -> None:
    run = trip(placed(D, P), REFUSED)(p=handing_over(9), d=says(LOST))

    with pytest.raises(EngineLost, match=r"No other engine took it: No engine is attached"):
        await run.run()

    assert run.engines.released == [("p", "r1")]
    assert run.record.unmoved is Unmoved.NOWHERE


async def test_the_engine_that_holds_the_kv_computes_it_anew_when_it_is_the_only_one_left() -> None:
    run = trip(placed(D, P), placed(P))(p=handing_over(9), d=says(LOST))
    run.engines.p = once(handing_over(9), says(reply(10), ending()))

    await run.run()

    assert run.asked == ["p", "d", "p"]
    assert run.engines.released == [("p", "r1")]
    assert run.tokens == [9, 10, 11]


async def test_a_request_moves_only_so_often() -> None:
    many, stalled = [placed(one) for one in (D, E) * 5], says(EngineStalled("hangs"))
    run = trip(*many)(d=stalled, e=stalled)

    with pytest.raises(EngineStalled, match="as often as one request may"):
        await run.run()

    assert len(run.asked) == 4
    assert run.record.unmoved is Unmoved.LIMIT


async def test_a_request_under_which_two_engines_were_lost_takes_no_third_with_it() -> None:
    many = [placed(one) for one in (D, E) * 5]
    run = trip(*many)(d=says(LOST), e=says(LOST))

    with pytest.raises(EngineLost, match="An engine was lost under it before"):
        await run.run()

    assert run.asked == ["d", "e"]
    assert run.record.unmoved is Unmoved.LIMIT


async def test_no_more_than_the_budget_moves() -> None:
    run = trip(placed(D), placed(E), limits=MoveLimits(floor=0))(d=says(LOST))

    with pytest.raises(EngineLost, match="As many requests as may"):
        await run.run()

    assert run.record.unmoved is Unmoved.BUDGET


async def test_an_engine_that_is_being_stopped_hands_on_what_does_not_end_in_time() -> None:
    run = trip(placed(D), placed(E))(
        d=says(reply(5), EngineDraining("stopped")), e=says(reply(6), ending())
    )

    await run.run()

    assert run.tokens == [5, 6, 11]
    assert run.record.moves[0].cause is Cause.DRAINING


async def test_a_request_that_no_engine_takes_at_first_is_refused_as_ever() -> None:
    run = trip(REFUSED)()

    with pytest.raises(NoEngine, match="No engine is attached"):
        await run.run()

    assert run.record.unmoved is None


@given(
    answer=st.lists(st.integers(1, 99), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    sizes=st.integers(1, 4),
    seeded=st.booleans(),
)
async def test_whenever_engines_are_lost_the_client_gets_the_undisturbed_answer(
    answer: list[int], cuts: list[int], sizes: int, *, seeded: bool
) -> None:
    """Every engine gives the answer that its prompt demands, in steps of one to a few tokens."""
    params: dict[str, Any] = {"temperature": 0.7, "seed": 1} if seeded else {}
    legs = [placed(D) for _ in range(len(cuts) + 1)]
    limits = MoveLimits(losses_per_request=len(cuts))
    run = trip(*legs, limits=limits, max_tokens=len(answer), **params)()
    left = list(cuts)

    def engine(request: EngineCoreRequest) -> Any:
        known = len(request.prompt_token_ids or ()) - len(PROMPT)
        rest = answer[known:]
        steps = [rest[at : at + sizes] for at in range(0, len(rest), sizes)]
        replies = [
            reply(*step, finish_reason=FinishReason.LENGTH if at == len(steps) - 1 else None)
            for at, step in enumerate(steps)
        ]
        if left and (cut := left.pop(0)) < len(replies):
            return says(*replies[:cut], LOST)(request)
        return says(*replies)(request)

    run.engines.d = engine

    await run.run()

    assert run.tokens == answer
    assert run.record.output_tokens == len(answer)
    assert [one.finish_reason for one in run.outputs if one.finish_reason is not None] == [
        FinishReason.LENGTH
    ]


async def test_deadlines_go_on_from_where_they_were() -> None:
    first = placed(D, ttft_s=12.0)
    run = trip(first, placed(E, ttft_s=99.0))(d=says(reply(5), LOST), e=says(ending()))

    await run.run()

    assert run.record.placement is not None
    assert run.record.placement.ttft_s == 12.0
    assert replace(run.record.placement, decode=D).tpot_s == first.tpot_s
