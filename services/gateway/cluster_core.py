"""Runs the cluster behind vLLM's engine-core client interface, one asyncio task per request."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
from vllm.v1.engine.core_client import EngineCoreClient

from services.gateway.engine_health import EngineHealth, HealthLimits
from services.gateway.engine_links import EngineLinks
from services.gateway.http_errors import FAULT
from services.gateway.journey import Journey, Means
from services.gateway.moves import MoveBudget, MoveLimits
from services.gateway.outcome import outcome_of
from services.gateway.output_buffer import OutputBuffer
from services.gateway.planner_link import Planner, PlannerLimits, PlannerLink
from services.gateway.scope import RequestScope, SequenceRecord, current_scope, enter
from services.gateway.stages import StageEnds, stage_progress
from services.gateway.wait_limits import WaitLimits
from shared.clock import Clock
from shared.engines import EngineDescription
from shared.errors import InvalidRequest, SlosError
from shared.requests import Admission, EngineRef, Phase, Reason, SloTargets

OnFailed = Callable[[str, Exception], None]
_LOG = logging.getLogger(__name__)
_PRUNE_EVERY_S = 10.0
_IDLE_CHANNEL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The collaborators and limits of a ClusterCore."""

    planner: Planner
    engines: EngineLinks
    clock: Clock
    waits: WaitLimits = field(default_factory=WaitLimits)
    planner_limits: PlannerLimits = field(default_factory=PlannerLimits)
    health_limits: HealthLimits = field(default_factory=HealthLimits)
    move_limits: MoveLimits = field(default_factory=MoveLimits)
    prefix_hashes: bool = True


@dataclass(slots=True, kw_only=True)
class _Sequence:
    request: EngineCoreRequest
    scope: RequestScope
    record: SequenceRecord
    placed: "asyncio.Future[None]"
    life: "asyncio.Task[None] | None" = None
    ended_as: str = "abort"  # what a cancelled sequence reports


class ClusterCore(EngineCoreClient):
    """vLLM's AsyncLLM calls this as it calls an engine core in another process.

    `on_failed` is called with the id and the error of a request that fails after its placement.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        model: str,
        max_model_len_tokens: int,
        stage_ends: StageEnds,
        on_failed: OnFailed,
    ) -> None:
        self._cluster = cluster
        self._stage_ends = stage_ends
        self._on_failed = on_failed
        self._outputs = OutputBuffer()
        self._sequences: dict[str, _Sequence] = {}
        self._upkeep: asyncio.Task[None] | None = None
        self.planner = PlannerLink(
            cluster.planner, cluster.clock, cluster.planner_limits, self.in_flight
        )
        self.health = EngineHealth(cluster.engines.answers, cluster.clock, cluster.health_limits)
        self._means = Means(
            planner=self.planner,
            engines=cluster.engines,
            health=self.health,
            budget=MoveBudget(cluster.move_limits),
            clock=cluster.clock,
            waits=cluster.waits,
            model=model,
            max_model_len_tokens=max_model_len_tokens,
            deliver=self._outputs.put,
            prefix_hashes=cluster.prefix_hashes,
        )
        # AsyncLLM reads both. The loss of an engine does not end this process.
        self.resources = SimpleNamespace(engine_dead=False)
        self.engine_ranks_managed = [0]

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the background tasks; call it inside the event loop."""
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Ends all requests and connections, and reports the outcomes to the planner."""
        self.shutdown()
        tasks = [one.life for one in self._sequences.values() if one.life is not None]
        if self._upkeep is not None:
            tasks.append(self._upkeep)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.planner.settle_now()
        await self._cluster.engines.close()

    def shutdown(self, timeout: float | None = None) -> None:
        """Cancels all tasks at once; `close` also waits for them."""
        del timeout
        if self._upkeep is not None:
            self._upkeep.cancel()
        for sequence in self._sequences.values():
            if sequence.life is not None:
                sequence.life.cancel()

    def in_flight(self) -> Counter[str]:
        """Counts this gateway's requests by the id of the engine that decodes them."""
        placements = (one.record.placement for one in self._sequences.values())
        return Counter(one.decode.engine_id for one in placements if one and one.decode)

    # ---- what AsyncLLM calls ---------------------------------------------------------------------

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        return ("generate",)

    async def get_output_async(self) -> EngineCoreOutputs:
        """Waits for outputs of any engine and returns them."""
        return await self._outputs.get()

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        """Returns once the request is placed. Raises SlosError when it cannot be."""
        self.start()
        sequence = self._admit(request)
        sequence.life = asyncio.create_task(self._live(sequence))
        try:
            await sequence.placed
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or not caller.cancelling():
                return  # aborted by its id: the caller finds that in its queue
            sequence.life.cancel()
            raise

    async def add_lora_async(self, lora_request: LoRARequest) -> bool:
        """Loads it on every engine. Raises InvalidRequest or EngineLost when one does not."""
        engines = [view.description for view in self.planner.engines]
        await asyncio.gather(
            *(self._cluster.engines.load_adapter(_ref(one), lora_request) for one in engines)
        )
        return True

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        """Ends requests after vLLM's output handler has found a stop string in their output."""
        self.end(request_ids, "stop")

    def end(self, request_ids: list[str], ended_as: str) -> None:
        """Ends requests on their engines; unknown ids have ended already."""
        for request_id in request_ids:
            sequence = self._sequences.get(request_id)
            if sequence is not None and sequence.life is not None:
                sequence.ended_as = ended_as
                sequence.life.cancel()

    # ---- one sequence ----------------------------------------------------------------------------

    def _admit(self, request: EngineCoreRequest) -> _Sequence:
        _refuse_more_input(request)
        scope = current_scope.get() or self._scope_of_its_own(request)
        prompt = request.prompt_token_ids or ()
        now = self._cluster.clock.now()
        scope.account.check_tokens(now)
        scope.account.take_tokens(len(prompt), now)
        request.cache_salt = scope.account.tenant.salted(request.cache_salt)
        record = SequenceRecord(
            request_id=request.request_id,
            prompt_tokens=len(prompt),
            stages=stage_progress(scope.targets.stages, self._stage_ends, prompt),
        )
        scope.sequences[request.request_id] = record
        sequence = _Sequence(
            request=request,
            scope=scope,
            record=record,
            placed=asyncio.get_running_loop().create_future(),
        )
        self._sequences[request.request_id] = sequence
        return sequence

    async def _live(self, sequence: _Sequence) -> None:
        try:
            await self._journey(sequence).run()
            self._settle(sequence, sequence.record.finished or "error")
        except asyncio.CancelledError:
            self._settle_cancelled(sequence)
            raise
        except SlosError as error:
            self._fail(sequence, error)
        except Exception:  # noqa: BLE001 - a fault of ours must leave no client waiting
            _LOG.exception(
                "Request %s (id of its client: %s) failed by an internal error.",
                sequence.record.request_id,
                sequence.scope.client_id or "none",
            )
            self._fail(sequence, SlosError(FAULT))
        finally:
            self._count_tokens(sequence)
            del self._sequences[sequence.record.request_id]
            if not sequence.placed.done():
                sequence.placed.cancel()

    def _count_tokens(self, sequence: _Sequence) -> None:
        """Charges the answer's tokens to the tenant, or refunds the prompt's if it never ran."""
        record = sequence.record
        tokens = record.output_tokens if record.placed_at_s is not None else -record.prompt_tokens
        sequence.scope.account.take_tokens(tokens, self._cluster.clock.now())

    def _journey(self, sequence: _Sequence) -> Journey:
        def placed() -> None:
            if not sequence.placed.done():
                sequence.placed.set_result(None)

        return Journey(
            request=sequence.request,
            scope=sequence.scope,
            record=sequence.record,
            means=self._means,
            on_placed=placed,
        )

    def _fail(self, sequence: _Sequence, error: Exception) -> None:
        if sequence.record.phase is not Phase.DONE:
            enter(sequence.record, Phase.FAILED)
        self._settle(sequence, "error", str(error))
        if sequence.placed.done():
            self._on_failed(sequence.record.request_id, error)
        else:
            sequence.placed.set_exception(error)

    def _settle_cancelled(self, sequence: _Sequence) -> None:
        record = sequence.record
        if record.phase is not Phase.DONE:
            enter(record, Phase.ABORTED)
            record.finished = sequence.ended_as
        self._settle(sequence, record.finished or sequence.ended_as)

    def _settle(self, sequence: _Sequence, finished: str, message: str = "") -> None:
        placement = sequence.record.placement
        if placement is None or placement.reason is Reason.PLANNER_AWAY:
            return
        # A deferred request that stops waiting has an outcome, too; a refusal needs none.
        if placement.admission is not Admission.REFUSED:
            self.planner.settle(outcome_of(sequence.scope, sequence.record, finished, message))

    def _scope_of_its_own(self, request: EngineCoreRequest) -> RequestScope:
        return RequestScope(
            request_id=request.external_req_id or request.request_id,
            arrived_at_s=self._cluster.clock.now(),
            targets=SloTargets(),
        )

    async def _keep_up(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.planner.run())
            tasks.create_task(self.health.run())
            tasks.create_task(self._prune())

    async def _prune(self) -> None:
        while True:
            await self._cluster.clock.sleep(_PRUNE_EVERY_S)
            addresses = {view.description.address for view in self.planner.engines}
            await self._cluster.engines.prune(addresses, idle_s=_IDLE_CHANNEL_S)
            self.health.prune({view.description.engine_id for view in self.planner.engines})


def _ref(engine: EngineDescription) -> EngineRef:
    return EngineRef(name=engine.name, engine_id=engine.engine_id, address=engine.address)


def _refuse_more_input(request: EngineCoreRequest) -> None:
    if request.resumable:
        raise InvalidRequest(
            "Input that arrives while the answer is made is not served by a cluster; "
            "send the whole input at once.",
            param="input",
        )
