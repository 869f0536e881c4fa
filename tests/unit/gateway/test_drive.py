import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import (
    EngineCoreEvent,
    EngineCoreEventType,
    EngineCoreOutputs,
    EngineCoreRequest,
    FinishReason,
)

from services.gateway.continuation import TRANSFER
from services.gateway.drive import Drive
from services.gateway.engine_calls import Reply
from services.gateway.engine_health import EngineHealth
from services.gateway.scope import RequestScope, SequenceRecord, enter
from services.gateway.stages import stage_progress
from services.gateway.wait_limits import WaitLimits
from shared.clock import VirtualClock
from shared.errors import DeadlinePassed, EngineDraining, EngineLost, EngineUnreachable
from shared.requests import (
    Admission,
    Pacing,
    Phase,
    Placement,
    PlacementMode,
    PrefixExport,
    Reason,
    SloTargets,
    Stage,
)
from tests.unit.gateway.engine_fakes import (
    BLOCKS,
    PROMPT,
    Answer,
    D,
    FakeEngines,
    P,
    answering,
    ending,
    handing_over,
    reply,
    says,
)


@dataclass
class Run:
    drive: Drive
    engines: FakeEngines
    delivered: list[EngineCoreOutputs]
    exports: list[PrefixExport]

    @property
    def record(self) -> SequenceRecord:
        return self.drive.record

    @property
    def tokens(self) -> list[int]:
        outputs = [one for each in self.delivered for one in each.outputs]
        return [token for one in outputs for token in one.new_token_ids]

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.engines.asked]


def make(
    engines: FakeEngines,
    way: PlacementMode = PlacementMode.DISAGGREGATED,
    max_tokens: int = 8,
    **params: Any,
) -> Run:
    delivered: list[EngineCoreOutputs] = []
    exports: list[PrefixExport] = []
    drive = Drive(
        request=EngineCoreRequest(
            request_id="r1",
            prompt_token_ids=PROMPT,
            mm_features=None,
            sampling_params=SamplingParams(max_tokens=max_tokens, watermarking=False, **params),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        ),
        placement=Placement(
            decision_id="d1",
            admission=Admission.BEST_EFFORT,
            reason=Reason.COMPUTE,
            way=way,
            prefill=P if way is PlacementMode.DISAGGREGATED else None,
            decode=D,
            ttft_s=0.4,
        ),
        scope=RequestScope(
            request_id="r", arrived_at_s=90.0, targets=SloTargets(class_name="chat")
        ),
        record=SequenceRecord(request_id="r1", prompt_tokens=3),
        engines=engines,
        health=EngineHealth(answering, VirtualClock()),
        deliver=delivered.append,
        on_export=exports.append,
        clock=VirtualClock(at_s=100.0),
        limits=WaitLimits(first_reply_s=0.05, next_reply_s=0.05),
        max_model_len_tokens=512,
    )
    return Run(drive, engines, delivered, exports)


async def test_colocated_is_one_call_whose_tokens_pass_through() -> None:
    run = make(FakeEngines(d=says(reply(5), reply(6, 7), ending())), PlacementMode.COLOCATED)

    await run.drive.run()

    assert run.asked == ["d"]
    assert run.tokens == [5, 6, 7, 11]
    assert run.engines.asked[0][1] is run.drive.request
    assert (run.record.phase, run.record.finished) == (Phase.DONE, "stop")
    assert run.record.output_tokens == 4
    assert run.engines.closed == 1


async def test_the_engine_is_told_what_was_promised() -> None:
    run = make(FakeEngines(d=says(ending())), PlacementMode.COLOCATED)

    await run.drive.run()

    (terms,) = run.engines.terms
    assert (terms.class_name, terms.ttft_s, terms.HasField("tpot_s")) == ("chat", 0.4, False)
    assert (terms.waited_s, terms.best_effort, terms.decision_id) == (10.0, True, "d1")


async def test_what_the_gateway_placed_alone_gives_way_to_nobody() -> None:
    run = make(FakeEngines(d=says(ending())), PlacementMode.COLOCATED)
    alone = replace(run.drive.placement, reason=Reason.PLANNER_AWAY, ttft_s=None)
    run.drive.placement = run.record.placement = alone

    await run.drive.run()

    (terms,) = run.engines.terms
    assert (terms.best_effort, terms.HasField("ttft_s"), terms.HasField("tpot_s")) == (False,) * 3


async def test_an_engine_is_asked_for_the_first_token_as_much_earlier_as_its_way_takes() -> None:
    run = make(FakeEngines(d=says(ending())), PlacementMode.COLOCATED)
    run.drive.placement = replace(run.drive.placement, delivery_s=0.03)

    await run.drive.run()

    assert run.engines.terms[0].ttft_s == pytest.approx(0.37)


@pytest.mark.parametrize(
    ("params", "produced", "due_s"),
    [({"temperature": 0.0}, 1, 10.05), ({"seed": 4}, 0, 0.4)],
    ids=["continued", "sampled again"],
)
async def test_the_decode_engine_is_told_when_the_token_after_the_first_is_due(
    params: dict[str, Any], produced: int, due_s: float
) -> None:
    run = make(FakeEngines(p=handing_over(9), d=says(reply(10), ending())), **params)
    run.drive.placement = replace(run.drive.placement, tpot_s=0.05)

    await run.drive.run()

    before, after = run.engines.terms
    assert (before.produced_tokens, before.ttft_s) == (0, 0.4)
    assert after.produced_tokens == produced
    assert after.ttft_s == pytest.approx(due_s)


def by_deadlines(run: Run, tpot_s: float | None = 0.05, **changes: Any) -> None:
    """The placement promises deadlines, the first of them after 12 s: 10 have passed."""
    run.drive.placement = replace(
        run.drive.placement, ttft_s=12.0, tpot_s=tpot_s, pacing=Pacing.DEADLINES, **changes
    )


def at_times(run: Run, *replies: tuple[float, Reply | Exception]) -> Answer:
    """Each so long after the arrival."""

    async def answer(_: EngineCoreRequest) -> AsyncGenerator[Reply, None]:
        for after_s, each in replies:
            run.drive.clock = VirtualClock(at_s=run.drive.scope.arrived_at_s + after_s)
            if isinstance(each, Exception):
                raise each
            yield each

    return answer


@pytest.mark.parametrize("pacing", list(Pacing))
async def test_an_engine_is_told_whether_tokens_are_due_by_deadlines(pacing: Pacing) -> None:
    run = make(FakeEngines(d=says(ending())), PlacementMode.COLOCATED)
    run.drive.placement = replace(run.drive.placement, pacing=pacing)

    await run.drive.run()

    assert run.engines.terms[0].by_deadlines is (pacing is Pacing.DEADLINES)


@pytest.mark.parametrize("first_after_s", [10.5, 13.0], ids=["early", "late"])
async def test_by_deadlines_the_next_token_is_due_by_the_line_whenever_the_first_one_came(
    first_after_s: float,
) -> None:
    run = make(FakeEngines(d=says(ending())), temperature=0.0)
    by_deadlines(run, delivery_s=0.03)
    handed = reply(9, finish_reason=FinishReason.LENGTH, kv_transfer_params=BLOCKS)
    run.engines.p = at_times(run, (first_after_s, handed))

    await run.drive.run()

    before, after = run.engines.terms
    assert before.ttft_s == pytest.approx(11.97)
    assert after.ttft_s == pytest.approx(12.02)
    assert after.produced_tokens == 1


async def test_by_deadlines_a_prefill_that_is_lost_leaves_the_first_token_due_as_it_was() -> None:
    run = make(FakeEngines(p=says(EngineLost("gone")), d=says(ending())))
    by_deadlines(run)

    await run.drive.run()

    assert [terms.ttft_s for terms in run.engines.terms] == [12.0, 12.0]


async def test_a_sequence_that_goes_on_after_its_engine_was_lost_keeps_its_line() -> None:
    run = make(FakeEngines(), PlacementMode.COLOCATED)
    by_deadlines(run)
    run.engines.d = at_times(
        run, (11.0, reply(5)), (12.5, reply(6, 7)), (12.6, EngineLost("reset"))
    )
    with pytest.raises(EngineLost):
        await run.drive.run()

    run.engines.d = at_times(run, (12.7, ending()))
    run.drive = replace(run.drive, placement=replace(run.drive.placement, ttft_s=99.0))
    await run.drive.run()

    again = run.engines.terms[1]
    assert again.ttft_s == pytest.approx(12.15)
    assert again.produced_tokens == 3
    assert run.record.line is not None
    assert run.record.line.lateness == pytest.approx(12.7 / 12.15)


async def test_by_deadlines_tokens_of_one_output_have_each_its_own() -> None:
    run = make(FakeEngines(), PlacementMode.COLOCATED)
    by_deadlines(run)
    run.engines.d = at_times(run, (11.0, reply(5, 6)), (12.2, reply(7, 8)), (12.2, ending()))

    await run.drive.run()

    assert run.record.line is not None
    assert run.record.line.lateness == pytest.approx(12.2 / 12.1)


async def test_by_deadlines_each_token_costs_the_pace_of_its_own_stage() -> None:
    run = make(FakeEngines(), PlacementMode.COLOCATED)
    by_deadlines(run)
    thinking_then_answer(run)
    run.engines.d = at_times(run, (12.0, reply(5, 9, 6)), (12.3, EngineLost("reset")))
    with pytest.raises(EngineLost):
        await run.drive.run()

    run.engines.d = says(ending())
    await run.drive.run()

    assert run.engines.terms[1].ttft_s == pytest.approx(12 + 0.02 + 0.1 + 0.1)


async def test_by_deadlines_without_a_pace_only_the_first_token_is_due() -> None:
    run = make(FakeEngines(p=handing_over(9), d=says(reply(10), ending())), temperature=0.0)
    by_deadlines(run, tpot_s=None)

    await run.drive.run()

    assert [terms.HasField("ttft_s") for terms in run.engines.terms] == [True, False]
    assert run.record.line is not None
    assert run.record.line.lateness == 0.0


async def test_by_the_mean_a_sequence_has_no_line() -> None:
    run = make(FakeEngines(d=says(ending())), PlacementMode.COLOCATED)

    await run.drive.run()

    assert run.record.line is None


async def test_without_a_pace_nothing_is_due_after_the_first_token() -> None:
    run = make(FakeEngines(p=handing_over(9), d=says(reply(10), ending())), temperature=0.0)

    await run.drive.run()

    assert [terms.HasField("ttft_s") for terms in run.engines.terms] == [True, False]


async def test_the_decode_engine_continues_after_the_token_of_the_prefill_engine() -> None:
    run = make(FakeEngines(p=handing_over(9), d=says(reply(10), ending())), temperature=0.0)

    await run.drive.run()

    assert run.asked == ["p", "d"]
    assert run.tokens == [9, 10, 11]
    rest = run.engines.asked[1][1]
    assert rest.prompt_token_ids == [*PROMPT, 9]
    assert rest.sampling_params.extra_args[TRANSFER] == BLOCKS
    assert run.engines.released == []
    assert run.record.output_tokens == 3


def thinking_then_answer(run: Run) -> None:
    stages = (Stage(name="thinking", tpot_s=0.02), Stage(name="answer", tpot_s=0.1))
    run.record.stages = stage_progress(stages, {"thinking": (9,)}, PROMPT)


def stage_terms(run: Run) -> list[list[tuple[float, list[int]]]]:
    """Of each engine that was asked, in order."""
    return [
        [(stage.tpot_s, list(stage.end_token_ids)) for stage in terms.stages]
        for terms in run.engines.terms
    ]


async def test_an_engine_is_told_the_stages_and_with_which_tokens_they_end() -> None:
    run = make(FakeEngines(d=says(reply(5), reply(9), ending())), PlacementMode.COLOCATED)
    thinking_then_answer(run)

    await run.drive.run()

    assert stage_terms(run) == [[(0.02, [9]), (0.1, [])]]
    assert run.record.stages is not None
    assert [stage.output_tokens for stage in run.record.stages.stages] == [2, 1]


@pytest.mark.parametrize(
    ("first", "params", "left"),
    [
        (9, {"temperature": 0.0}, [(0.1, [])]),
        (8, {"temperature": 0.0}, [(0.02, [9]), (0.1, [])]),
        (9, {"seed": 4}, [(0.02, [9]), (0.1, [])]),
    ],
    ids=["the first token ends it", "it goes on", "the first token is sampled again"],
)
async def test_a_stage_that_ends_with_the_very_first_token_is_over_for_the_decode_engine(
    first: int, params: dict[str, Any], left: list[tuple[float, list[int]]]
) -> None:
    run = make(FakeEngines(p=handing_over(first), d=says(reply(10), ending())), **params)
    thinking_then_answer(run)

    await run.drive.run()

    assert stage_terms(run) == [[(0.02, [9]), (0.1, [])], left]


async def test_the_transfer_lasts_from_the_prefills_end_to_the_decode_engines_first_word() -> None:
    clock = VirtualClock(at_s=100.0)

    async def decoding(_: EngineCoreRequest) -> AsyncGenerator[Reply, None]:
        for each in (reply(10), ending()):
            clock.at_s += 0.25
            yield each

    run = make(FakeEngines(p=handing_over(9), d=decoding))
    run.drive.clock = clock

    await run.drive.run()

    assert run.record.transfer_s == 0.25


async def test_on_one_engine_nothing_is_transferred() -> None:
    run = make(FakeEngines(d=says(ending())), PlacementMode.COLOCATED)

    await run.drive.run()

    assert run.record.transfer_s is None


async def test_a_token_that_could_differ_is_sampled_again() -> None:
    run = make(FakeEngines(p=handing_over(9), d=says(reply(10), ending())), seed=4)

    await run.drive.run()

    assert run.tokens == [10, 11]
    assert run.engines.asked[1][1].prompt_token_ids == PROMPT
    assert run.record.output_tokens == 2


async def test_a_first_token_that_ends_the_answer_frees_the_blocks() -> None:
    run = make(FakeEngines(p=handing_over(9, finish_reason=FinishReason.STOP)), temperature=0.0)

    await run.drive.run()

    assert run.asked == ["p"]
    assert run.tokens == [9]
    assert (run.record.phase, run.record.finished) == (Phase.DONE, "stop")
    run.drive.release_held()
    assert run.engines.released == [("p", "r1")]


@pytest.mark.parametrize(
    "prefill",
    [
        says(EngineLost("gone")),
        says(EngineDraining("stopping")),
        says(),
        says(then_hang=True),
        says(reply(9, finish_reason=FinishReason.LENGTH)),
        says(reply(finish_reason=FinishReason.ERROR)),
    ],
    ids=["lost", "draining", "no end", "silent", "no kv", "error"],
)
async def test_without_a_prefill_the_decode_engine_does_it_all(prefill: Answer) -> None:
    run = make(FakeEngines(p=prefill, d=says(reply(9), ending())))

    await run.drive.run()

    assert run.asked == ["p", "d"]
    assert run.engines.asked[1][1] is run.drive.request
    assert run.tokens == [9, 11]
    assert run.record.recomputed


@pytest.mark.parametrize("error", [EngineLost("gone"), EngineDraining("stopping")])
async def test_kv_that_a_lost_decode_engine_did_not_fetch_is_left_for_another_one(
    error: Exception,
) -> None:
    run = make(FakeEngines(p=handing_over(), d=says(error)), temperature=0.0)

    with pytest.raises(type(error)):
        await run.drive.run()

    assert run.engines.released == []
    assert run.drive.held is not None
    assert run.drive.held.engine == P


STOPPED = [EngineDraining("stopping"), EngineUnreachable("gone")]


@pytest.mark.parametrize("error", STOPPED)
async def test_a_single_token_is_made_elsewhere_when_its_engine_was_stopped(
    error: Exception,
) -> None:
    last = reply(9, finish_reason=FinishReason.LENGTH)
    run = make(FakeEngines(p=says(error), d=says(last)), max_tokens=1)

    await run.drive.run()

    assert run.asked == ["p", "d"]
    assert run.tokens == [9]


async def test_the_loss_of_an_engine_is_told_with_its_name_and_the_tokens_so_far() -> None:
    run = make(
        FakeEngines(d=says(reply(5), reply(6), EngineLost("reset"))), PlacementMode.COLOCATED
    )

    with pytest.raises(EngineLost, match=r"Engine d was lost after 2 tokens.*send.*again.*reset"):
        await run.drive.run()


@pytest.mark.parametrize("before", [[], [reply(5)]])
async def test_silence_has_a_limit(before: list[Reply]) -> None:
    run = make(FakeEngines(d=says(*before, then_hang=True)), PlacementMode.COLOCATED)

    with pytest.raises(DeadlinePassed, match=f"after {len(before)} tokens"):
        await run.drive.run()

    assert run.engines.closed == 1


async def test_one_token_needs_no_second_engine() -> None:
    run = make(FakeEngines(p=says(ending())), max_tokens=1)

    await run.drive.run()

    assert run.asked == ["p"]
    assert run.tokens == [11]


async def cancelled(run: Run, when: Callable[[], bool]) -> None:
    task = asyncio.create_task(run.drive.run())
    while not when():  # noqa: ASYNC110 - the loop is the clock here
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_leaving_during_prefill_hands_it_over_to_be_wound_up() -> None:
    run = make(FakeEngines(p=says(then_hang=True)))

    await cancelled(run, lambda: bool(run.engines.asked))

    assert run.engines.wound_up == ["r1"]
    assert run.asked == ["p"]


async def test_leaving_before_the_decode_engine_answers_frees_the_blocks() -> None:
    run = make(FakeEngines(p=handing_over(), d=says(then_hang=True)))

    await cancelled(run, lambda: run.asked == ["p", "d"])

    run.drive.release_held()
    assert run.engines.released == [("p", "r1")]


async def test_leaving_later_only_ends_the_call() -> None:
    run = make(FakeEngines(p=handing_over(), d=says(reply(10), then_hang=True)), temperature=0.0)

    await cancelled(run, lambda: len(run.tokens) == 2)

    assert run.engines.released == []
    assert run.engines.closed == 2


async def test_times_of_the_engine_are_told_on_our_clock() -> None:
    queued = EngineCoreEvent(EngineCoreEventType.QUEUED, 7.0)
    last = reply(5, core_time_s=8.0, events=[queued], finish_reason=FinishReason.STOP)
    run = make(FakeEngines(d=says(last)), PlacementMode.COLOCATED)

    await run.drive.run()

    (outputs,) = run.delivered
    assert outputs.timestamp == 100.0
    assert outputs.outputs[0].events[0].timestamp == 99.0


def test_a_record_moves_only_along_the_table() -> None:
    record = SequenceRecord(request_id="r1", prompt_tokens=1, phase=Phase.DONE)

    enter(record, Phase.DONE)
    with pytest.raises(AssertionError):
        enter(record, Phase.DECODING)


@pytest.mark.parametrize("way", list(PlacementMode))
async def test_the_first_step_of_the_first_engine_starts_a_request(way: PlacementMode) -> None:
    def began(at_s: float) -> dict[str, Any]:
        return {"events": [EngineCoreEvent(EngineCoreEventType.SCHEDULED, at_s)]}

    prefill = handing_over(core_time_s=7.0, **began(6.0))
    decode = says(reply(5, core_time_s=50.0, **began(30.0)), reply(6), ending())
    run = make(FakeEngines(p=prefill, d=decode), way)

    await run.drive.run()

    assert run.record.started_at_s == (99.0 if way is PlacementMode.DISAGGREGATED else 80.0)
