"""The gateway's client over loopback gRPC, with engines that make tokens by a rule of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.metrics.stats import PrefillStats

from services.gateway.cluster_core import Cluster
from services.gateway.engine_health import HealthLimits
from services.gateway.engine_links import EngineLinks
from services.gateway.planner_link import PlannerLimits
from services.gateway.scope import RequestScope, current_scope
from services.gateway.vllm_frontend import ClusterClient, ClusterFailureError, frontend_config
from services.gateway.wait_limits import WaitLimits
from shared.clock import MonotonicClock
from shared.engine.wire import decode_request, encode_outputs
from shared.engines import EngineDescription, EngineView, Role
from shared.errors import EngineLost, NoEngine, PlannerUnavailable, Refused
from shared.models.tiny import make_tiny_model
from shared.requests import (
    Admission,
    EngineRef,
    Outcome,
    Placement,
    PlacementMode,
    PlacementQuery,
    PrefixExport,
    Reason,
    SloTargets,
)
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import bind, make_server
from shared.rpc.slos_pb2_grpc import add_EngineServicer_to_server
from tests.integration.serve_by_generate import ServesByGenerate

SOON_S = 5.0
PROMPT = {"prompt_token_ids": [5, 6, 7, 8, 9]}


def next_token(context: Sequence[int]) -> int:
    """Depends on all of the context, so that a lost or doubled token shows."""
    return sum((at + 1) * token for at, token in enumerate(context)) % 200 + 10


def answer(prompt: Sequence[int], tokens: int) -> list[int]:
    context = list(prompt)
    for _ in range(tokens):
        context.append(next_token(context))
    return context[len(prompt) :]


@dataclass
class RuleEngine(ServesByGenerate):
    """Serves requests as an engine host does. `step_s` is its pace."""

    name: str
    step_s: float = 0.0
    lose_after: int | None = None
    hands_over_kv: bool = True
    draining: bool = False
    hangs: bool = False
    address: str = ""
    running: set[str] = field(default_factory=set)
    seen: list[EngineCoreRequest] = field(default_factory=list)
    terms: list[pb.EngineTerms] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    blocks: set[str] = field(default_factory=set)
    server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self.server = make_server()
        add_EngineServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{bind(self.server, '127.0.0.1', 0)}"
        await self.server.start()

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[pb.GenerateReply]:  # noqa: N802
        asked = decode_request(request.request)
        transfer = (asked.sampling_params.extra_args or {}).get("kv_transfer_params") or {}
        if self.draining:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "being stopped")
        self.seen.append(asked)
        self.terms.append(request.terms)
        self.running.add(asked.request_id)
        try:
            outputs = self._outputs(asked, bool(transfer.get("do_remote_decode")))
            for at, output in enumerate(outputs):
                await asyncio.sleep(self.step_s)
                if self.lose_after is not None and at >= self.lose_after:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine core has died")
                if output.kv_transfer_params:
                    self.blocks.add(asked.request_id)
                yield pb.GenerateReply(outputs=encode_outputs([output]), core_time_s=1.0)
        finally:
            self.running.discard(asked.request_id)

    def _outputs(
        self, asked: EngineCoreRequest, hand_over: bool
    ) -> "Sequence[EngineCoreOutput] | Any":
        tokens = answer(asked.prompt_token_ids, asked.sampling_params.max_tokens)
        for at, token in enumerate(tokens):
            last = at == len(tokens) - 1
            yield EngineCoreOutput(
                asked.request_id,
                [token],
                finish_reason=FinishReason.LENGTH if last else None,
                kv_transfer_params=self._transfer(asked)
                if hand_over and last and self.hands_over_kv
                else None,
                prefill_stats=PrefillStats(
                    num_prompt_tokens=len(asked.prompt_token_ids), num_cached_tokens=3
                )
                if at == 0
                else None,
            )

    def _transfer(self, asked: EngineCoreRequest) -> dict[str, Any]:
        return {
            "do_remote_prefill": True,
            "remote_request_id": asked.request_id,
            "remote_num_tokens": len(asked.prompt_token_ids),
        }

    async def Describe(self, request: Any, context: Any) -> Any: ...  # noqa: N802
    async def Drain(self, request: Any, context: Any) -> Any: ...  # noqa: N802
    async def Undrain(self, request: Any, context: Any) -> Any: ...  # noqa: N802
    async def LoadAdapter(self, request: Any, context: Any) -> Any: ...  # noqa: N802

    async def Health(self, request: Any, context: Any) -> pb.HealthReply:  # noqa: N802, ARG002
        return pb.HealthReply(serving=not self.hangs)


def ref(engine: RuleEngine) -> EngineRef:
    return EngineRef(name=engine.name, engine_id=f"{engine.name}-1", address=engine.address)


def view(engine: RuleEngine, role: Role) -> EngineView:
    return EngineView(
        description=EngineDescription(
            name=engine.name,
            engine_id=f"{engine.name}-1",
            role=role,
            address=engine.address,
            model="tiny",
            vllm_version="0",
            block_size_tokens=16,
            kv_blocks=100,
            kv_bytes_per_token=1,
            max_model_len_tokens=512,
            max_running_requests=8,
            max_step_tokens=512,
            max_speculation_tokens=0,
        )
    )


@dataclass
class FixedPlanner:
    """Answers as told; `way` None is a planner that is away."""

    prefill: RuleEngine
    decode: RuleEngine
    way: PlacementMode | None = PlacementMode.COLOCATED
    views: list[EngineView] = field(default_factory=list)
    scripted: list[Placement] = field(default_factory=list)
    spare: list[RuleEngine] = field(default_factory=list)
    queries: list[PlacementQuery] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:  # noqa: ARG002
        self.queries.append(query)
        if self.way is None:
            raise PlannerUnavailable("The planner is away.")
        if self.scripted:
            return self.scripted.pop(0)
        split = self.way is PlacementMode.DISAGGREGATED
        others = [one for one in self.spare if ref(one).engine_id not in query.avoid]
        failed = ref(self.decode).engine_id in query.avoid
        decode = others[0] if failed and others else self.decode
        return Placement(
            decision_id="d1",
            admission=Admission.ADMITTED,
            reason=Reason.NONE,
            way=self.way,
            prefill=ref(self.prefill) if split else None,
            decode=ref(decode),
            ttft_s=0.5,
        )

    async def settle(
        self,
        outcomes: Sequence[Outcome],
        exports: Sequence[PrefixExport],  # noqa: ARG002 - none is asked for here
    ) -> None:
        self.outcomes += outcomes

    async def watch(self) -> AsyncIterator[list[EngineView]]:
        yield self.views
        await asyncio.Event().wait()


@dataclass
class Rig:
    client: ClusterClient
    planner: FixedPlanner
    prefill: RuleEngine
    decode: RuleEngine

    async def ask(self, tokens: int = 8, **params: Any) -> list[RequestOutput]:
        sampling = SamplingParams(
            max_tokens=tokens,
            temperature=params.pop("temperature", 0.0),
            output_kind=RequestOutputKind.DELTA,
            ignore_eos=True,
            **params,
        )
        return [part async for part in self.client.generate(PROMPT, sampling, "r1")]

    @property
    def clean(self) -> bool:
        processor = self.client.output_processor
        return not (
            processor.request_states
            or processor.parent_requests
            or processor.external_req_ids
            or self.client.engine_core._sequences
            or self.prefill.running
            or self.decode.running
        )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def config(model: Path) -> Any:
    return frontend_config(model=str(model), served_model_name="tiny", max_model_len=512)


@pytest.fixture
async def rig(config: Any) -> AsyncIterator[Rig]:
    prefill, decode = RuleEngine("p0"), RuleEngine("d0")
    await prefill.start()
    await decode.start()
    planner = FixedPlanner(prefill, decode)
    planner.views = [view(prefill, Role.PREFILL), view(decode, Role.DECODE)]
    clock = MonotonicClock()
    cluster = Cluster(
        planner=planner,
        engines=EngineLinks(clock, connect_limit_s=0.5),
        clock=clock,
        waits=WaitLimits(first_reply_s=SOON_S, next_reply_s=0.5),
        planner_limits=PlannerLimits(settle_every_s=0.01, hold_limit_s=0.5),
    )
    client = ClusterClient(config, cluster, stage_ends={})
    await client.start()
    yield Rig(client, planner, prefill, decode)
    await client.close()
    for engine in (prefill, decode):
        assert engine.server is not None
        await engine.server.stop(None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process's hands
            await asyncio.sleep(0.005)


def tokens_of(parts: list[RequestOutput], index: int = 0) -> list[int]:
    outputs = [one for part in parts for one in part.outputs if one.index == index]
    return [token for one in outputs for token in one.token_ids]


@pytest.mark.parametrize("way", PlacementMode)
@pytest.mark.parametrize("params", [{}, {"presence_penalty": 0.5}, {"logprobs": None, "n": 1}])
@pytest.mark.parametrize("tokens", [1, 2, 9])
async def test_both_ways_give_the_tokens_that_the_prompt_demands(
    rig: Rig, way: PlacementMode, params: dict[str, Any], tokens: int
) -> None:
    rig.planner.way = way

    parts = await rig.ask(tokens, **params)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], tokens)
    assert parts[-1].outputs[0].finish_reason == "length"
    assert parts[-1].num_cached_tokens == 3
    assert parts[-1].kv_transfer_params is None
    await until(lambda: rig.clean and bool(rig.planner.outcomes))
    assert rig.planner.outcomes[0].output_tokens == tokens
    assert rig.planner.outcomes[0].finished == "length"


async def test_the_first_token_comes_before_the_decode_engine_has_done_anything(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED
    rig.decode.step_s = 0.3
    sampling = SamplingParams(max_tokens=3, temperature=0.0, output_kind=RequestOutputKind.DELTA)

    stream = rig.client.generate(PROMPT, sampling, "r1")
    first = await anext(stream)
    seen_by_decode = len(rig.decode.seen)
    await stream.aclose()

    assert tokens_of([first]) == answer(PROMPT["prompt_token_ids"], 1)
    assert seen_by_decode <= 1
    await until(lambda: rig.clean)


async def test_two_sequences_of_one_request_are_both_whole(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED

    parts = await rig.ask(6, n=2, temperature=1.0)

    wanted = answer(PROMPT["prompt_token_ids"], 6)
    assert tokens_of(parts, 0) == wanted
    assert tokens_of(parts, 1) == wanted
    assert len({query.group_id for query in rig.planner.queries}) == 1
    await until(lambda: rig.clean)


@pytest.mark.parametrize("way", PlacementMode)
async def test_a_client_that_leaves_stops_the_engines(rig: Rig, way: PlacementMode) -> None:
    rig.planner.way = way
    rig.prefill.step_s = rig.decode.step_s = 0.02

    asking = asyncio.create_task(rig.ask(400))
    await until(lambda: bool(rig.decode.running or rig.prefill.running))
    asking.cancel()

    await asyncio.wait([asking])
    await until(lambda: rig.clean and bool(rig.planner.outcomes))
    assert rig.planner.outcomes[0].finished == "abort"


async def test_blocks_that_no_engine_will_fetch_are_released(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED
    rig.decode.step_s = SOON_S  # takes the request and never comes to answer

    asking = asyncio.create_task(rig.ask(50))
    await until(lambda: bool(rig.decode.running))
    asking.cancel()

    await until(lambda: bool(rig.prefill.released))
    assert rig.prefill.released[0] in rig.prefill.blocks
    await until(lambda: rig.clean)


async def test_a_client_that_leaves_during_prefill_leaves_no_blocks_behind(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED
    rig.prefill.step_s = 0.05

    asking = asyncio.create_task(rig.ask(50))
    await until(lambda: bool(rig.prefill.running))
    asking.cancel()

    await until(lambda: len(rig.prefill.released) == 1)
    await until(lambda: rig.clean)


async def test_a_prefill_engine_that_is_gone_costs_only_time(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED
    assert rig.prefill.server is not None
    await rig.prefill.server.stop(None)

    parts = await rig.ask(6)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 6)
    await until(lambda: bool(rig.planner.outcomes))
    assert rig.planner.outcomes[0].recomputed


async def test_a_prefill_engine_without_kv_to_hand_over_costs_only_time(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED
    rig.prefill.hands_over_kv = False

    parts = await rig.ask(6)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 6)


@pytest.fixture
async def spare(rig: Rig) -> AsyncIterator[RuleEngine]:
    """Another decode engine, which requests are placed on that move."""
    engine = RuleEngine("d1")
    await engine.start()
    rig.planner.spare.append(engine)
    yield engine
    assert engine.server is not None
    await engine.server.stop(None)


@pytest.mark.parametrize("way", PlacementMode)
async def test_an_engine_that_left_since_the_placement_is_replaced(
    rig: Rig, spare: RuleEngine, way: PlacementMode
) -> None:
    rig.planner.way = way
    assert rig.decode.server is not None
    await rig.decode.server.stop(None)

    parts = await rig.ask(6)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 6)
    assert len(spare.seen) == 1
    await until(lambda: rig.clean and len(rig.planner.outcomes) == 2)
    assert [one.finished for one in rig.planner.outcomes] == ["moved", "length"]


@pytest.mark.parametrize("way", PlacementMode)
@pytest.mark.parametrize("params", [{}, {"temperature": 0.8, "seed": 3}, {"n": 2, "seed": 1}])
async def test_an_answer_goes_on_where_its_engine_was_lost_and_has_every_token_once(
    rig: Rig, spare: RuleEngine, way: PlacementMode, params: dict[str, Any]
) -> None:
    rig.planner.way = way
    rig.decode.lose_after = 4

    parts = await rig.ask(20, **{"temperature": 0.8, **params})

    for index in range(params.get("n", 1)):
        assert tokens_of(parts, index) == answer(PROMPT["prompt_token_ids"], 20)
    assert spare.seen
    await until(lambda: rig.clean)


async def test_an_engine_that_does_not_answer_is_left_for_another_one(
    rig: Rig, spare: RuleEngine
) -> None:
    rig.client.engine_core.health._limits = HealthLimits(quiet_s=0.25)
    rig.decode.step_s, rig.decode.hangs = 2 * SOON_S, True

    parts = await rig.ask(6)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 6)
    assert spare.seen
    await until(lambda: rig.clean and len(rig.planner.outcomes) == 2)
    assert "does not answer" in rig.planner.outcomes[0].message


@asynccontextmanager
async def proxy(address: str, cut: asyncio.Event) -> AsyncIterator[str]:
    """Forwards to `address` until `cut` is set; then it forwards nothing and closes nothing."""

    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if not cut.is_set():
                    writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = address.split(":")
        there, to_there = await asyncio.open_connection(host, int(port))
        writers.extend((writer, to_there))
        await asyncio.gather(forward(reader, to_there), forward(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", PlacementMode)
async def test_a_connection_that_is_cut_without_a_word_costs_a_pause(
    rig: Rig, spare: RuleEngine, way: PlacementMode
) -> None:
    rig.client.engine_core.health._limits = HealthLimits(quiet_s=0.25, answer_s=0.5)
    rig.planner.way, rig.decode.step_s, cut = way, 0.01, asyncio.Event()
    async with proxy(rig.decode.address, cut) as address:
        rig.decode.address = address

        asking = asyncio.create_task(rig.ask(60))
        await until(lambda: bool(rig.decode.running))
        await asyncio.sleep(0.1)
        cut.set()
        parts = await asking

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 60)
    assert spare.seen
    await until(lambda: rig.client.engine_core.health.avoided() == ("d0-1",))


async def test_an_engine_that_fails_every_request_is_left_out_and_brought_back(
    rig: Rig, spare: RuleEngine
) -> None:
    rig.client.engine_core.health._limits = HealthLimits(first_back_off_s=0.3)
    rig.decode.lose_after = 0
    for _ in range(8):
        assert tokens_of(await rig.ask(3)) == answer(PROMPT["prompt_token_ids"], 3)
    while_left_out = len(rig.decode.seen)

    rig.decode.lose_after = None
    await until(lambda: bool(rig.client.engine_core.health._engines["d0-1"].answered))
    for _ in range(4):
        await rig.ask(3)

    assert while_left_out < 8
    assert rig.planner.queries[-1].avoid == ()
    assert len(spare.seen) == 8
    assert len(rig.decode.seen) == while_left_out + 4


@pytest.mark.parametrize("n", [1, 2])
async def test_an_engine_lost_in_the_middle_is_said_so(rig: Rig, n: int) -> None:
    rig.decode.lose_after = 3
    scope = RequestScope(request_id="r", arrived_at_s=0.0, targets=SloTargets())
    current_scope.set(scope)

    lost = r"d0 was lost after \d+ tokens.*An engine was lost under it before"
    with pytest.raises(ClusterFailureError, match=lost) as failure:
        await rig.ask(50, n=n, temperature=1.0)

    assert failure.value.http_status == 502
    assert isinstance(scope.failure, EngineLost)
    await until(lambda: rig.clean)


async def test_an_engine_that_falls_silent_is_given_up(rig: Rig) -> None:
    rig.decode.step_s = 1.0

    with pytest.raises(ClusterFailureError, match="within the limit"):
        await rig.ask(5)

    await until(lambda: rig.clean)


async def test_without_the_planner_requests_go_to_the_decode_engine(rig: Rig) -> None:
    await until(lambda: bool(rig.client.engine_core.planner.engines))
    rig.planner.way = None
    scope = RequestScope(request_id="r", arrived_at_s=0.0, targets=SloTargets())
    current_scope.set(scope)

    parts = await rig.ask(4)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 4)
    (record,) = scope.sequences.values()
    assert record.placement is not None
    assert record.placement.reason is Reason.PLANNER_AWAY
    assert not rig.decode.terms[0].best_effort  # it gives way to nothing


async def test_a_refusal_comes_before_any_output_and_leaves_nothing(rig: Rig) -> None:
    rig.planner.scripted = [
        Placement(
            decision_id="d9",
            admission=Admission.REFUSED,
            reason=Reason.COMPUTE,
            message="TTFT would be 9 s.",
            retry_after_s=2.0,
        )
    ]
    scope = RequestScope(request_id="r", arrived_at_s=0.0, targets=SloTargets())
    current_scope.set(scope)

    with pytest.raises(ClusterFailureError, match="TTFT would be 9 s") as failure:
        await rig.ask(4)

    assert failure.value.http_status == 429
    assert isinstance(scope.failure, Refused)
    assert rig.clean


async def test_a_deferred_request_is_asked_for_again(rig: Rig) -> None:
    held = Placement(
        decision_id="d1", admission=Admission.DEFERRED, reason=Reason.MEMORY, hold_s=0.02
    )
    rig.planner.scripted = [held, held]

    parts = await rig.ask(4)

    assert tokens_of(parts) == answer(PROMPT["prompt_token_ids"], 4)
    waits = [query.waited_s for query in rig.planner.queries]
    assert waits == sorted(waits)
    assert waits[2] >= 0.04


async def test_a_client_that_leaves_while_held_leaves_nothing(rig: Rig) -> None:
    rig.planner.scripted = [
        Placement(decision_id="d1", admission=Admission.DEFERRED, reason=Reason.MEMORY, hold_s=0.3)
    ]

    asking = asyncio.create_task(rig.ask(4))
    await until(lambda: bool(rig.planner.queries))
    asking.cancel()

    await asyncio.wait([asking])
    await until(lambda: rig.clean)
    assert rig.decode.seen == []


async def test_a_stop_string_ends_the_request_on_its_engine(rig: Rig) -> None:
    rig.decode.step_s = 0.01
    whole = await rig.ask(20)
    text = "".join(part.outputs[0].text for part in whole)

    parts = await rig.ask(400, stop=[text[4:8]])

    assert parts[-1].outputs[0].finish_reason == "stop"
    await until(lambda: rig.clean and len(rig.planner.outcomes) == 2)
    assert rig.planner.outcomes[1].finished == "stop"


async def test_an_engine_that_is_being_stopped_says_so_and_leaves_nothing(rig: Rig) -> None:
    rig.planner.way = PlacementMode.DISAGGREGATED
    rig.decode.draining = True

    with pytest.raises(ClusterFailureError, match="d0 takes nothing new") as failure:
        await rig.ask(5)

    assert failure.value.http_status == 503
    await until(lambda: rig.clean and bool(rig.prefill.released))


async def test_a_client_may_not_name_blocks_itself(rig: Rig) -> None:
    with pytest.raises(ClusterFailureError, match="kv_transfer_params") as failure:
        await rig.ask(5, extra_args={"kv_transfer_params": {"do_remote_prefill": True}})

    assert failure.value.http_status == 400
    assert rig.clean


async def test_the_planner_is_asked_about_what_is_to_come(rig: Rig) -> None:
    await rig.ask(1)
    await rig.ask(9)

    one, nine = rig.planner.queries
    assert (one.whole_on_one_engine, nine.whole_on_one_engine) == (True, False)
    assert (nine.model, nine.prompt_tokens, nine.max_output_tokens) == ("tiny", 5, 9)


async def test_channels_to_engines_that_are_gone_are_closed(rig: Rig) -> None:
    await rig.ask(2)
    links = rig.client.engine_core._cluster.engines
    (address,) = links._links

    await links.prune({address}, idle_s=0.0)
    kept = set(links._links)
    await links.prune(set(), idle_s=0.0)

    assert kept == {address}
    assert not links._links
    assert tokens_of(await rig.ask(2)) == answer(PROMPT["prompt_token_ids"], 2)


async def test_health_follows_the_engines(rig: Rig) -> None:
    await until(lambda: bool(rig.client.engine_core.planner.engines))
    await rig.client.check_health()

    rig.client.engine_core.planner._views = []

    with pytest.raises(NoEngine):
        await rig.client.check_health()
    assert not rig.client.errored


async def test_calls_for_one_engine_say_that_there_are_many(rig: Rig) -> None:
    with pytest.raises(NotImplementedError, match="serves many"):
        await rig.client.reset_prefix_cache()
