"""What a step's scheduling costs inside vLLM: our scheduler and vLLM's own, side by side, without a
model. Our scheduler is told that each step takes `STEP_S`: it reports, listens and learns by time.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.config import set_current_vllm_config
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from shared.batch_time import ADDITIVE, Step, fit_curve, to_plain
from shared.clock import Clock, MonotonicClock, VirtualClock
from shared.engine.carried_terms import TERMS_KEY
from shared.engine.config import EngineOptions
from shared.engine.vllm_core import engine_arguments
from shared.engine.vllm_scheduler import SlosScheduler
from shared.engines import Role
from shared.kv_transfer.settings import KvTransport
from shared.scheduling.terms import Terms, terms_as_plain

BLOCK_TOKENS = 16
_PROMPT_TOKENS = 64
_SEED = 1
_FAR_S = 1e6  # targets that no step of this measurement misses
STEP_S = 0.01  # a step of an 8B model on one GPU
_ROUND_STEPS = 10  # in which a scheduler does all that it does now and then


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerCost:
    """Microseconds per step of one scheduler, with `running` requests that all decode.

    `schedule_us` is `schedule()`, `update_us` is `update_from_output()`. `with_slo`: every request
    has a promise.
    """

    scheduler: str
    running: int
    with_slo: bool
    schedule_us: float
    update_us: float

    def as_json(self) -> dict[str, str | int | float | bool]:
        return {
            "scheduler": self.scheduler,
            "running": self.running,
            "with_slo": self.with_slo,
            "schedule_us": round(self.schedule_us, 1),
            "update_us": round(self.update_us, 1),
        }


def measure_schedulers(
    model_path: str, folder: Path, clock: Clock, *, running: Sequence[int], steps: int
) -> list[SchedulerCost]:
    """Medians over rounds of ten of `steps`, of which each scheduler makes one in turn.

    Args:
        model_path: a model, of which only the configuration is read.
        folder: for a socket.
        clock: what a step costs is measured with it: CPU time where the machine is busy.
        running: numbers of requests.
        steps: of each scheduler, for each number of requests.
    """
    costs: list[SchedulerCost] = []
    for requests in running:
        for with_slo in (False, True):
            costs += _measure(model_path, folder, clock, requests, steps, with_slo)
    return costs


def _measure(
    model_path: str, folder: Path, clock: Clock, requests: int, steps: int, with_slo: bool
) -> Iterator[SchedulerCost]:
    tokens = _PROMPT_TOKENS + steps + 64
    blocks = requests * -(-tokens // BLOCK_TOKENS) + 1
    config = scheduler_config(model_path, folder, requests, tokens, blocks)
    lanes = [_Lane(name, make_scheduler(kind, config), clock) for name, kind in _SCHEDULERS.items()]
    for lane in lanes:
        lane.fill(requests, steps, with_slo)
    for _ in range(steps):
        for lane in lanes:
            lane.step()
    for lane in lanes:
        schedule_us, update_us = (1e6 * float(one) for one in _typical(lane.times_s))
        yield SchedulerCost(
            scheduler=lane.name,
            running=requests,
            with_slo=with_slo,
            schedule_us=schedule_us,
            update_us=update_us,
        )
        lane.scheduler.shutdown()


def _typical(times_s: Sequence[tuple[float, float]]) -> Any:
    """The median round's mean step: a report belongs to the cost, what else ran here does not."""
    rounds = len(times_s) // _ROUND_STEPS or 1
    return np.median([one.mean(axis=0) for one in np.array_split(times_s, rounds)], axis=0)


_SCHEDULERS: dict[str, Any] = {"vllm": AsyncScheduler, "slos": SlosScheduler}


def scheduler_config(
    model_path: str,
    folder: Path,
    requests: int,
    model_len_tokens: int,
    blocks: int,
    *,
    prefix_caching: bool = False,
) -> Any:
    """vLLM's configuration of an engine that is never started, with `blocks` of KV."""
    options = EngineOptions(
        model=model_path,
        dtype="float32",
        kv_transport=KvTransport.NONE,
        block_size_tokens=BLOCK_TOKENS,
        max_running_requests=requests,
        max_step_tokens=max(2048, requests * _PROMPT_TOKENS),
        max_model_len=model_len_tokens,
        vllm={"async_scheduling": True, "enable_prefix_caching": prefix_caching},
    )
    link = f"ipc://{folder / f'link-{os.getpid()}'}"
    arguments = engine_arguments(
        options, role=Role.DECODE, engine_id="bench", link=link, model_path=model_path
    )
    config = AsyncEngineArgs(**arguments).create_engine_config()
    config.cache_config.num_gpu_blocks = blocks
    return config


def make_scheduler(kind: Any, config: Any) -> Any:
    """A scheduler of this class without an engine."""
    attention = FullAttentionSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=32, dtype=torch.float32
    )
    with set_current_vllm_config(config):
        return kind(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(
                num_blocks=config.cache_config.num_gpu_blocks,
                kv_cache_tensors=[],
                kv_cache_groups=[KVCacheGroupSpec(["layer"], attention)],
            ),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK_TOKENS,
            log_stats=True,
        )


class _Lane:
    """One scheduler with one step always in flight, as with vLLM's async scheduling."""

    def __init__(self, name: str, scheduler: Any, clock: Clock) -> None:
        self.name, self.scheduler = name, scheduler
        self.times_s: list[tuple[float, float]] = []
        self._clock = clock
        self._flying: Any = None
        self._engine_clock = VirtualClock(MonotonicClock().now())
        scheduler.slos_now_s = self._engine_clock.now

    def fill(self, requests: int, steps: int, with_slo: bool) -> None:
        if isinstance(self.scheduler, SlosScheduler):
            self.scheduler._slos_ledger.times.start_from(_profile())
        chance = random.Random(_SEED)  # noqa: S311 - prompts of a measurement
        for number in range(requests):
            self.scheduler.add_request(_request(number, steps, with_slo, chance))
        for _ in range(3):  # the prompts, and the first steps of each sort
            self.step()
        self.times_s.clear()

    def step(self) -> None:
        now = self._clock.now
        self._engine_clock.at_s += STEP_S
        began_s = now()
        output = self.scheduler.schedule()
        scheduled_s = now() - began_s
        update_s = 0.0
        if self._flying is not None:
            result = _result(self._flying)
            began_s = now()
            self.scheduler.update_from_output(self._flying, result)
            update_s = now() - began_s
        self._flying = output
        self.times_s.append((scheduled_s, update_s))


def _profile() -> dict[str, Any]:
    """The profile of an engine that is fast enough for all targets."""
    steps = [Step(decodes=k).with_chunk(c) for k in (1, 4, 16) for c in (0, 16, 64)]
    return to_plain(fit_curve(ADDITIVE, steps, [1e-3 + 1e-6 * one.tokens for one in steps]))


def _request(number: int, steps: int, with_slo: bool, chance: random.Random) -> Request:
    params = SamplingParams(temperature=0, max_tokens=steps + 32, ignore_eos=True)
    if with_slo:
        terms = Terms(first_token_due_s=_FAR_S, tpot_s=chance.choice((50.0, 100.0, 200.0)))
        params.extra_args = {TERMS_KEY: terms_as_plain(terms)}
    return Request(
        request_id=f"r{number}",
        prompt_token_ids=[chance.randrange(100, 200) for _ in range(_PROMPT_TOKENS)],
        sampling_params=params,
        pooling_params=None,
    )


def _result(output: Any) -> ModelRunnerOutput:
    """One token of every scheduled request."""
    names = list(output.num_scheduled_tokens)
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: place for place, name in enumerate(names)},
        sampled_token_ids=[[7] for _ in names],
    )
