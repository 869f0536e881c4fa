"""A synthetic fleet under load, reported to a planner as engines report it.

Step times are those of a 7B model on an A100, in the form that engines fit. The TPOT targets of the
three tiers are multiples of a plain decode step, so that every size of fleet can keep them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.planner.admission.pending import PendingRequest
from services.planner.planner_config import PlannerConfig
from services.planner.state.cluster import ClusterState
from shared.batch_time import RICH, Step, StepCurve, StepTable
from shared.engines import EngineDescription, KvAddress, Role, StepReport
from shared.requests import OnRefuse, PlacementQuery, SloTargets
from shared.scheduling.rows import RESIDENT, Rows, new_row, to_wire

NOW_S = 10_000.0
MODEL = "bench"
PACES = (2.0, 4.0, 8.0)  # of the tiers, in steps of plain decoding
_BLOCK_TOKENS, _CONTEXT_TOKENS, _LEFT_TOKENS = 16, 1000, 400
_PREFILLING = 0.05  # of the running requests
_WEIGHTS = (
    ((0.014, 5.1e-5), (0.018, 4.2e-5), (0.022, 2.0e-5)),
    ((1.7e-5, 3e-3),),
    ((9e-8, 1.2e-9, 2e-8, 1e-9), (1e-6,)),
)


def step_table() -> StepTable:
    weights = tuple(weight for group in _WEIGHTS for piece in group for weight in piece)
    return StepTable.of(StepCurve(form=RICH, coefficients=weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Makes engines, their requests and new requests; the same for the same seed.

    `step_s` is the time of a plain decode step with all running requests.
    """

    running: int
    seed: int = 1
    step_s: float = field(init=False)

    def __post_init__(self) -> None:
        context = self.running * _CONTEXT_TOKENS
        step = Step(decodes=self.running, decode_context_tokens=context)
        object.__setattr__(self, "step_s", step_table().sure_s(step))

    def tpot_s(self, tier: int) -> float:
        return PACES[tier % len(PACES)] * self.step_s

    def state(self, engines: int) -> ClusterState:
        """A planner's state with that many engines, each of which has reported once."""
        state = ClusterState(PlannerConfig(), epoch="bench", now=0.0)
        for number in range(engines):
            engine, refusal = state.register(self.description(number))
            assert engine is not None, refusal
            state.observe(engine, [self.report(number)], NOW_S)
        return state

    def description(self, number: int) -> EngineDescription:
        """An engine with room for half as many requests again; every fourth is a prefill engine."""
        most = self.running + self.running // 2 + 64
        tokens = most * (_CONTEXT_TOKENS + 2 * _LEFT_TOKENS)
        return EngineDescription(
            name=f"e{number}",
            engine_id=f"e{number}-1",
            role=Role.PREFILL if number % 4 == 3 else Role.DECODE,
            address=f"127.0.0.1:{20_000 + number}",
            model=MODEL,
            vllm_version="0",
            block_size_tokens=_BLOCK_TOKENS,
            kv_blocks=tokens // _BLOCK_TOKENS,
            kv_bytes_per_token=100_000,
            max_model_len_tokens=16_384,
            max_running_requests=most,
            max_step_tokens=8192,
            max_speculation_tokens=0,
            kv_address=KvAddress(transport="nixl", host="127.0.0.1", port=30_000 + number),
            step_time=step_table().to_bytes(),
        )

    def report(self, number: int, step: int = 1) -> StepReport:
        rows = self.rows(number)
        prompts = max(1, round(_PREFILLING * self.running))
        decodes = self.running - prompts
        free = self.description(number).kv_blocks
        return StepReport(
            step=step,
            ended_at_s=NOW_S,
            duration_s=self.step_s,
            prefill_tokens=0,
            decode_tokens=decodes,
            decode_context_tokens=decodes * _CONTEXT_TOKENS,
            speculated_tokens=0,
            accepted_tokens=0,
            running=self.running,
            waiting=0,
            queued_prefill_tokens=prompts * _CONTEXT_TOKENS // 2,
            free_kv_blocks=free - self.running * _CONTEXT_TOKENS // _BLOCK_TOKENS,
            longest_context_tokens=_CONTEXT_TOKENS,
            predicted_s=self.step_s,
            requests=to_wire(rows, NOW_S),
            step_time=step_table().to_bytes(),
        )

    def rows(self, number: int = 0) -> Rows:
        """Requests of all tiers in turn; a few of them have a prompt that is half computed."""
        chance = random.Random(self.seed + number)  # noqa: S311 - no secret is made of it
        prompts = max(1, round(_PREFILLING * self.running))
        rows = np.stack(
            [self._row(place, place < prompts, chance) for place in range(self.running)]
        )
        rows[:, RESIDENT] = 1.0
        return rows

    def _row(self, place: int, prefills: bool, chance: random.Random) -> Rows:
        tpot_s = self.tpot_s(place)
        context = chance.randint(_CONTEXT_TOKENS // 2, 3 * _CONTEXT_TOKENS // 2)
        ahead_s = tpot_s * (1 + chance.random())
        return new_row(
            key=place + 1,
            tokens=context,
            computed=context // 2 if prefills else context - 1,
            produced=0 if prefills else chance.randint(1, 100),
            left=_LEFT_TOKENS,
            due_s=NOW_S + (100 * self.step_s if prefills else ahead_s),
            tpot_s=tpot_s,
        )

    def asked(self, candidates: int, round_number: int) -> list[PendingRequest]:
        """Requests that wait together, of all tiers; some cannot keep their targets."""
        chance = random.Random(self.seed + 1000 * round_number)  # noqa: S311 - the same
        return [self._asked(f"r{round_number}-{n}", n, chance) for n in range(candidates)]

    def _asked(self, name: str, tier: int, chance: random.Random) -> PendingRequest:
        waited_s = 0.001 * chance.random()
        query = PlacementQuery(
            request_id=name,
            group_id=name,
            model=MODEL,
            targets=SloTargets(
                class_name=("tight", "middle", "loose")[tier % len(PACES)],
                ttft_s=self.step_s * chance.uniform(5, 60),
                tpot_s=self.tpot_s(tier),
                on_refuse=OnRefuse.REFUSE,
                value=float(chance.choice((1, 1, 1, 2))),
            ),
            prompt_tokens=chance.randint(100, 2000),
            max_output_tokens=_LEFT_TOKENS,
            waited_s=waited_s,
        )
        return PendingRequest(query=query, arrived_at_s=NOW_S - waited_s, first_asked_at_s=NOW_S)


def all_reports(world: World, engines: int) -> Sequence[StepReport]:
    """One report of each engine."""
    return [world.report(number, step=2) for number in range(engines)]
