import asyncio
from dataclasses import replace

import pytest
from vllm.v1.engine import EngineCoreRequest, FinishReason

from services.gateway.continuation import TRANSFER
from shared.errors import EngineDraining, EngineLost, EngineUnreachable
from shared.kv_transfer.settings import EXPORT_KEY, RESULT_KEY
from shared.requests import Phase, PlacementMode, PrefixSource
from tests.unit.gateway.engine_fakes import (
    BLOCKS,
    PROMPT,
    Answer,
    E,
    FakeEngines,
    ending,
    handing_over,
    reply,
    says,
)
from tests.unit.gateway.test_drive import Run, make

HELD = 1  # tokens of the prompt that E has cached


def pulling(engines: FakeEngines, limit_s: float = 5.0) -> Run:
    run = make(engines, PlacementMode.COLOCATED)
    source = PrefixSource(engine=E, tokens=HELD, limit_s=limit_s, forecast_s=limit_s / 2)
    run.drive.placement = replace(run.drive.placement, prefix_source=source)
    return run


def transfer_of(request: EngineCoreRequest) -> dict[str, object] | None:
    found: dict[str, object] | None = (request.sampling_params.extra_args or {}).get(TRANSFER)
    return found


async def test_the_source_exports_its_tokens_and_the_engine_pulls_them_with_the_whole_prompt() -> (
    None
):
    run = pulling(FakeEngines(e=handing_over(), d=says(reply(5), ending())))

    await run.drive.run()

    (source, export), (engine, rest) = run.engines.asked
    assert (source, engine) == ("e", "d")
    assert export.prompt_token_ids == PROMPT[: HELD + 1]
    assert export.sampling_params.max_tokens == 1
    assert (transfer_of(export) or {})[EXPORT_KEY] is True
    assert rest.prompt_token_ids == PROMPT
    assert rest.sampling_params.max_tokens == 8
    assert transfer_of(rest) == BLOCKS
    (export,) = run.exports
    assert (export.decision_id, export.exported) == ("d1", True)


async def test_the_token_of_the_source_is_no_part_of_the_answer() -> None:
    run = pulling(FakeEngines(e=handing_over(token=9), d=says(reply(5), ending())))

    await run.drive.run()

    assert run.tokens == [5, 11]
    assert run.record.output_tokens == 2
    assert run.record.phase is Phase.DONE
    assert run.record.transfer_s is None  # nothing moved between the first and the second token
    assert run.engines.released == []


@pytest.mark.parametrize(
    "answer",
    [
        says(EngineLost("gone")),
        says(EngineUnreachable("gone")),
        says(EngineDraining("leaves")),
        says(reply(9, finish_reason=FinishReason.ABORT)),
        says(reply(9, finish_reason=FinishReason.LENGTH)),  # without blocks
        says(),
    ],
    ids=["lost", "unreachable", "draining", "aborted", "nothing held", "silent end"],
)
async def test_where_the_source_fails_the_engine_computes_the_prompt(answer: Answer) -> None:
    run = pulling(FakeEngines(e=answer, d=says(reply(5), ending())))

    await run.drive.run()

    assert run.tokens == [5, 11]
    assert run.engines.asked[-1][1] is run.drive.request
    assert run.record.moves == []
    assert [export.exported for export in run.exports] == [False]


async def test_beyond_its_limit_the_source_is_wound_up_and_the_engine_computes_the_prompt() -> None:
    run = pulling(FakeEngines(e=says(then_hang=True), d=says(ending())), limit_s=0.01)

    await run.drive.run()

    assert run.engines.wound_up == ["r1"]
    assert run.engines.asked[-1] == ("d", run.drive.request)
    assert run.tokens == [11]
    assert [export.exported for export in run.exports] == [False]


async def test_a_client_that_leaves_while_the_source_exports_winds_it_up() -> None:
    run = pulling(FakeEngines(e=says(then_hang=True)))
    running = asyncio.create_task(run.drive.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert run.asked == ["e"]

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert run.engines.wound_up == ["r1"]
    assert run.exports == []  # the source was given no time to show how slow it is


async def test_blocks_are_released_if_the_engine_never_replies() -> None:
    run = pulling(FakeEngines(e=handing_over(), d=says(EngineLost("gone"))))

    with pytest.raises(EngineLost):
        await run.drive.run()

    assert run.engines.released == [("e", "r1")]


async def test_a_prefix_that_did_not_arrive_counts_as_computed_again() -> None:
    lost = reply(
        11,
        finish_reason=FinishReason.STOP,
        kv_transfer_params={RESULT_KEY: {"recomputed": True}},
    )
    run = pulling(FakeEngines(e=handing_over(), d=says(lost)))

    await run.drive.run()

    assert run.record.recomputed
    assert run.delivered[-1].outputs[-1].kv_transfer_params is None


async def test_the_source_is_told_to_be_ready_before_the_limit() -> None:
    run = pulling(FakeEngines(e=handing_over(), d=says(ending())), limit_s=0.1)
    run.drive.placement = replace(run.drive.placement, ttft_s=60.0)

    await run.drive.run()

    export, rest = run.engines.terms
    assert export.ttft_s == pytest.approx(export.waited_s + 0.1)
    assert rest.ttft_s == 60.0


async def test_a_request_that_must_stay_whole_pulls_nothing() -> None:
    run = pulling(FakeEngines(d=says(ending())))
    run.drive.request.sampling_params.max_tokens = 1

    await run.drive.run()

    assert run.asked == ["d"]
