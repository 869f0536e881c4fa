"""The planner over real gRPC on loopback: engines come and go, gateways ask, watch and settle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import TypeAdapter

from services.planner.app import serve
from services.planner.config import PlannerOptions
from services.planner.core import PlannerCore
from services.planner.server.metrics import PlannerMetrics
from shared.batch_time import BatchTimeModel
from shared.engines import EngineDescription, EngineView, Policy, Role
from shared.errors import (
    EngineReplaced,
    PlannerUnavailable,
    RegistrationRefused,
    UnknownDecision,
)
from shared.requests import Admission, Explanation, OnRefuse, Outcome, PlacementMode, SloTargets
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import (
    Beat,
    DrainingNotice,
    EngineNews,
    PlannerClient,
    open_channel,
)
from shared.rpc.slos_pb2_grpc import PlannerStub
from shared.scheduling.rows import new_row, to_wire
from tests.limits import ANSWER_LIMIT_S
from tests.unit.planner.builders import COST, both_roles, make_engine, make_query, make_report

TABLE = BatchTimeModel(COST).table
STEP = make_report(
    duration_s=0.1,
    prefill_tokens=90,
    decode_tokens=1,
    running=1,
    step_time=TABLE.to_bytes() if TABLE else b"",
)


@asynccontextmanager
async def planner(metrics: PlannerMetrics | None = None, **changed: Any) -> AsyncIterator[int]:
    """A planner in this process; gives its port."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    options = PlannerOptions(**({"port": 0, "shutdown_limit_s": 2.0} | changed))
    serving = asyncio.create_task(
        serve(options, metrics or PlannerMetrics(), stop, on_ready=port.set_result)
    )
    waited: set[asyncio.Future[Any]] = {serving, port}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED, timeout=ANSWER_LIMIT_S)
    try:
        if serving.done():
            await serving
        yield port.result()
    finally:
        stop.set()
        await asyncio.wait_for(serving, ANSWER_LIMIT_S)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[PlannerClient]:
    client = PlannerClient(f"127.0.0.1:{port}")
    try:
        yield client
    finally:
        await client.close()


@dataclass(slots=True)
class Attached:
    """An engine's side of a stream, with what came over it."""

    outbox: asyncio.Queue[EngineNews] = field(default_factory=asyncio.Queue)
    policies: list[Policy] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: PlannerClient, description: EngineDescription) -> None:
        async with aclosing(client.attach(description, self._news())) as policies:
            async for policy in policies:
                self.policies.append(policy)
                self.accepted.set()

    async def _news(self) -> AsyncIterator[EngineNews]:
        while True:
            yield await self.outbox.get()


@asynccontextmanager
async def attached(
    client: PlannerClient, description: EngineDescription
) -> AsyncIterator[Attached]:
    engine = Attached()
    running = asyncio.create_task(engine.run(client, description))
    accepted = asyncio.create_task(engine.accepted.wait())
    await asyncio.wait({running, accepted}, return_when="FIRST_COMPLETED", timeout=ANSWER_LIMIT_S)
    try:
        if running.done():
            await running
        assert accepted.done()
        yield engine
    finally:
        for task in (running, accepted):
            task.cancel()
        await asyncio.gather(running, accepted, return_exceptions=True)


async def until(client: PlannerClient, names: set[str]) -> list[EngineView]:
    """Watches until just these engines are attached."""
    async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
        async for view in views:
            if {engine.description.name for engine in view} == names:
                return view
    raise AssertionError("the watch ended")


async def test_a_registered_engine_gets_a_policy_and_its_reports_shape_decisions() -> None:
    async with planner() as port, client_of(port) as client:
        async with attached(client, make_engine()) as engine:
            before = await client.place(make_query(targets=SloTargets(ttft_s=60)), ANSWER_LIMIT_S)
            engine.outbox.put_nowait([STEP] * 3)
            await _reported(client)
            after = await client.place(
                make_query("r2", targets=SloTargets(ttft_s=60)), ANSWER_LIMIT_S
            )

        assert engine.policies[0] == Policy(version=1)
        assert before.admission is Admission.BEST_EFFORT
        assert after.admission is Admission.ADMITTED
        assert after.decode is not None
        assert after.decode.address == make_engine().address
        assert after.predicted_ttft_s is not None


async def _reported(client: PlannerClient) -> None:
    async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
        async for view in views:
            if any(engine.running for engine in view):
                return


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"model": "other"}, "model 'other'"), ({"vllm_version": "0.1"}, "vllm_version '0.1'")],
)
async def test_an_engine_that_does_not_fit_is_told_why(changed: dict[str, Any], words: str) -> None:
    async with planner() as port, client_of(port) as client, attached(client, make_engine()):
        with pytest.raises(RegistrationRefused, match=words):
            async with attached(client, make_engine("d1", **changed)):
                pass

        assert [view.description.name for view in await until(client, {"d0"})] == ["d0"]


async def test_a_stream_without_a_registration_is_told_so() -> None:
    async with (
        planner(registration_limit_s=0.2) as port,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = PlannerStub(channel)
        silent = stub.Attach(_never())
        wrong = stub.Attach(iter([pb.EngineMessage(draining=True)]))

        silent_reply, wrong_reply = await silent.read(), await wrong.read()

    assert isinstance(silent_reply, pb.PlannerMessage)
    assert isinstance(wrong_reply, pb.PlannerMessage)
    assert "within 0.2 s" in silent_reply.verdict.message
    assert "must be the registration" in wrong_reply.verdict.message


async def _never() -> AsyncIterator[pb.EngineMessage]:
    await asyncio.sleep(ANSWER_LIMIT_S)
    yield pb.EngineMessage()


async def test_a_report_that_cannot_be_taken_in_is_logged_and_detaches_no_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the engine would attach again and send the same, without end."""
    observe = PlannerCore.observe

    def fail_once(*_: Any) -> Policy | None:
        monkeypatch.setattr(PlannerCore, "observe", observe)
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(PlannerCore, "observe", fail_once)
    async with (
        planner() as port,
        client_of(port) as client,
        attached(client, make_engine()) as engine,
    ):
        engine.outbox.put_nowait([STEP])
        engine.outbox.put_nowait([STEP])
        await _reported(client)

    assert caplog.text.count("detached d0") == 1  # at the end
    assert "ZeroDivisionError" in caplog.text
    assert "reports of d0 could not be taken in" in caplog.text


async def test_an_engine_whose_stream_ends_is_gone_at_once() -> None:
    async with planner() as port, client_of(port) as client:
        async with attached(client, make_engine()):
            await until(client, {"d0"})
        await until(client, set())

        placement = await client.place(make_query(), ANSWER_LIMIT_S)

    assert placement.admission is Admission.DEFERRED


async def test_an_engine_process_that_dies_is_gone_within_seconds() -> None:
    async with planner() as port, client_of(port) as client:
        other = PlannerClient(f"127.0.0.1:{port}")
        async with attached(other, make_engine()):
            await until(client, {"d0"})
            await other.close()  # as the kernel does for a process that was killed

            await until(client, set())


async def test_an_engine_that_is_not_heard_is_shown_so_and_loses_its_name_for_good() -> None:
    async with planner() as port, client_of(port) as client:
        old = asyncio.create_task(Attached().run(client, make_engine()))
        await until(client, {"d0"})
        with pytest.raises(RegistrationRefused, match="another engine of that name serves at"):
            async with attached(client, make_engine(engine_id="second")):
                pass
        async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
            async for view in views:
                if view[0].stalled:
                    break

        async with attached(client, make_engine(engine_id="second")):
            with pytest.raises(PlannerUnavailable, match="ended"):
                await asyncio.wait_for(old, ANSWER_LIMIT_S)
            now = await until(client, {"d0"})
            with pytest.raises(EngineReplaced, match="taken over its name"):
                async with attached(client, make_engine()):
                    pass

    assert now[0].description.engine_id == "second"
    assert not now[0].stalled


async def test_an_engine_whose_core_is_overdue_gets_nothing_until_it_makes_progress() -> None:
    async with planner() as port, client_of(port) as client, AsyncExitStack() as stack:
        first = await stack.enter_async_context(attached(client, make_engine("d0")))
        await stack.enter_async_context(attached(client, make_engine("d1")))
        first.outbox.put_nowait(Beat(overdue_s=2.0))
        async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
            async for view in views:
                if any(engine.stalled for engine in view):
                    break
        placed = [await client.place(make_query(f"r{i}"), ANSWER_LIMIT_S) for i in range(4)]

        first.outbox.put_nowait(Beat())
        async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
            async for view in views:
                if not any(engine.stalled for engine in view):
                    break

    assert {one.decode.name for one in placed if one.decode} == {"d1"}


async def test_a_draining_engine_is_shown_as_such_and_gets_nothing_more() -> None:
    async with planner() as port, client_of(port) as client, AsyncExitStack() as stack:
        first = await stack.enter_async_context(attached(client, make_engine("d0")))
        await stack.enter_async_context(attached(client, make_engine("d1")))
        first.outbox.put_nowait(DrainingNotice())
        async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
            async for view in views:
                if any(engine.draining for engine in view):
                    break

        placements = [await client.place(make_query(f"r{i}"), ANSWER_LIMIT_S) for i in range(4)]

    assert {one.decode.name for one in placements if one.decode} == {"d1"}


async def test_what_was_placed_and_settled_can_be_explained() -> None:
    async with planner() as port, client_of(port) as client, AsyncExitStack() as stack:
        for description in both_roles():
            await stack.enter_async_context(attached(client, description))
        query = make_query(forced_way=PlacementMode.DISAGGREGATED, session_id="s")
        placement = await client.place(query, ANSWER_LIMIT_S)
        outcome = Outcome(
            decision_id=placement.decision_id, request_id="r1", finished="stop", met=True
        )

        await client.settle([outcome])
        explanation = await client.explain(placement.decision_id)
        with pytest.raises(UnknownDecision, match="latest 4096 decisions"):
            await client.explain("d-none-1")

    assert replace(explanation.query, waited_s=0.0) == query
    assert explanation.placement == placement
    assert explanation.outcome == outcome
    assert (explanation.ways[0].prefill, explanation.ways[0].decode) == ("p0", "d0")


async def test_the_log_holds_every_decision_once_whether_its_end_is_known_or_not(
    tmp_path: Path,
) -> None:
    log = tmp_path / "decisions.jsonl"
    refused = SloTargets(ttft_s=1e-6, on_refuse=OnRefuse.REFUSE)
    async with (
        planner(decisions_log=str(log)) as port,
        client_of(port) as client,
        attached(client, make_engine()) as engine,
    ):
        engine.outbox.put_nowait([STEP] * 3)
        await _reported(client)
        told = await client.place(make_query("told"), ANSWER_LIMIT_S)
        await client.place(make_query("never told"), ANSWER_LIMIT_S)
        await client.place(make_query("refused", targets=refused), ANSWER_LIMIT_S)
        outcome = Outcome(decision_id=told.decision_id, request_id="told", finished="stop")
        await client.settle([outcome])

    kept = [TypeAdapter(Explanation).validate_json(one) for one in log.read_bytes().splitlines()]
    ended = {one.query.request_id: (one.placement.admission, one.outcome) for one in kept}
    assert ended["told"] == (Admission.ADMITTED, outcome)
    assert ended["never told"] == (Admission.ADMITTED, None)
    assert ended["refused"] == (Admission.REFUSED, None)
    assert len(ended) == len(kept)


async def test_a_request_that_waits_is_placed_as_soon_as_an_engine_attaches() -> None:
    async with planner(hold_s=10 * ANSWER_LIMIT_S) as port, client_of(port) as client:
        placing = asyncio.create_task(client.place(make_query(), ANSWER_LIMIT_S))
        await asyncio.sleep(0.1)
        assert not placing.done()
        async with attached(client, make_engine()):
            placement = await asyncio.wait_for(placing, ANSWER_LIMIT_S)

    assert placement.runs


async def test_a_request_that_waits_is_promised_as_soon_as_the_engine_is_free() -> None:
    work = new_row(tokens=1900, left=10, due_s=1002.5, tpot_s=1.0)
    busy = replace(STEP, step=2, requests=to_wire(work[np.newaxis], 1000.0))
    idle = replace(STEP, step=3, running=0)
    targets = SloTargets(ttft_s=1.5, on_refuse=OnRefuse.REFUSE)
    query = make_query(targets=targets, prompt_tokens=800)
    async with (
        planner() as port,
        client_of(port) as client,
        attached(client, make_engine()) as engine,
    ):
        engine.outbox.put_nowait([busy])
        await _reported(client)
        placing = asyncio.create_task(client.place(query, ANSWER_LIMIT_S))
        await asyncio.sleep(0.1)
        assert not placing.done()
        engine.outbox.put_nowait([idle])
        placement = await asyncio.wait_for(placing, ANSWER_LIMIT_S)

    assert placement.admission is Admission.ADMITTED


async def test_a_request_that_waits_is_forgotten_when_its_gateway_goes() -> None:
    metrics = PlannerMetrics()
    waiting = "slos_planner_waiting_requests"
    async with planner(metrics, hold_s=5.0) as port, client_of(port) as client:
        placing = asyncio.create_task(client.place(make_query(), ANSWER_LIMIT_S))
        await _shows(metrics, waiting, 1)
        placing.cancel()
        await _shows(metrics, waiting, 0)


async def _shows(metrics: PlannerMetrics, name: str, value: float) -> None:
    async with asyncio.timeout(ANSWER_LIMIT_S):
        while metrics.registry.get_sample_value(name) != value:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)


async def test_a_query_that_cannot_be_read_is_an_error_not_a_crash() -> None:
    async with planner() as port, open_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await PlannerStub(channel).Place(pb.PlacementQuery(), timeout=ANSWER_LIMIT_S)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_standard_health_service_answers() -> None:
    async with planner() as port, open_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="slos.v1.Planner")

        reply = await stub.Check(request, timeout=ANSWER_LIMIT_S)

    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_planner_that_stops_does_not_wait_for_the_end_of_its_streams() -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(ANSWER_LIMIT_S):
        async with planner(shutdown_limit_s=10 * ANSWER_LIMIT_S) as port:
            client = await stack.enter_async_context(client_of(port))
            engine = asyncio.create_task(Attached().run(client, make_engine()))
            await until(client, {"d0"})

        with pytest.raises(PlannerUnavailable):
            await asyncio.wait_for(engine, ANSWER_LIMIT_S)
        with pytest.raises(PlannerUnavailable):
            await client.place(make_query(), 2.0)


async def test_after_a_restart_engines_that_attach_again_serve_again() -> None:
    query = make_query()
    async with AsyncExitStack() as stack:
        async with planner() as port:
            client = await stack.enter_async_context(client_of(port))
            async with attached(client, make_engine()):
                first = await client.place(query, ANSWER_LIMIT_S)
        async with planner(port=port):
            restarted = await stack.enter_async_context(client_of(port))
            waiting = await restarted.place(query, ANSWER_LIMIT_S)
            async with attached(restarted, make_engine()):
                again = await restarted.place(query, ANSWER_LIMIT_S)

    assert waiting.admission is Admission.DEFERRED
    assert replace(again, decision_id=first.decision_id) == first
    assert again.decision_id != first.decision_id


async def test_metrics_count_decisions_engines_and_reports() -> None:
    metrics = PlannerMetrics()
    labels = {"admission": "admitted", "way": "colocated", "reason": "no_target"}
    async with (
        planner(metrics) as port,
        client_of(port) as client,
        attached(client, make_engine("p0", Role.PREFILL)) as engine,
    ):
        engine.outbox.put_nowait([STEP, STEP])
        await _reported(client)
        await client.place(make_query(), ANSWER_LIMIT_S)
        value = metrics.registry.get_sample_value

        assert value("slos_planner_decisions_total", labels) == 1
        assert value("slos_planner_engines", {"role": "prefill"}) == 1
        assert value("slos_planner_step_reports_total", {"engine": "p0"}) == 2
        assert value("slos_planner_decision_seconds_count") == 1


async def test_what_scales_the_fleet_is_told_what_serves_and_what_is_needed() -> None:
    async with planner() as port, client_of(port) as client, AsyncExitStack() as stack:
        await stack.enter_async_context(attached(client, make_engine("p0", Role.PREFILL)))
        engine = await stack.enter_async_context(attached(client, make_engine("d0")))
        both = await client.scale()
        engine.outbox.put_nowait(DrainingNotice())
        async with asyncio.timeout(ANSWER_LIMIT_S), aclosing(client.watch()) as views:
            async for view in views:
                if any(one.draining for one in view):
                    break
        draining = await client.scale()

    assert (both.present_prefill, both.present_decode) == (1, 1)
    assert (both.desired_prefill, both.desired_decode) == (1, 1)
    assert (draining.present_prefill, draining.present_decode) == (1, 0)
    assert draining.desired_decode == 1


# With a cold cache the first answer compiles the replay.
async def test_the_number_of_desired_engines_is_a_metric_and_follows_what_was_asked() -> None:
    metrics, targets = PlannerMetrics(), SloTargets(ttft_s=0.5, tpot_s=0.05)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(planner(metrics, scale_every_s=0.05))
        client = await stack.enter_async_context(client_of(port))
        engine = await stack.enter_async_context(attached(client, make_engine()))
        engine.outbox.put_nowait([STEP])
        for number in range(12):
            query = make_query(f"r{number}", targets=targets, prompt_tokens=300)
            await client.place(query, ANSWER_LIMIT_S)
        async with asyncio.timeout(240):
            advice = await client.scale()
            # The planner tells of no event that one could wait for.
            while advice.desired_decode < 2:
                await asyncio.sleep(0.05)
                advice = await client.scale()

    assert (advice.present_prefill, advice.present_decode) == (0, 1)
    assert advice.desired_prefill == 0
    assert advice.window_s > 0
    labels = {"role": "decode"}
    desired = metrics.registry.get_sample_value("slos_planner_desired_engines", labels)
    assert desired == advice.desired_decode
