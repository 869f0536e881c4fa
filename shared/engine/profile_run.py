"""Runs synthetic requests through an engine core and collects how long its steps take. The choice
of requests is the plan's.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from shared.batch_time import ADDITIVE, Step, fit_curve, step_of
from shared.batch_time.profile_fit import MeasuredStep
from shared.batch_time.profile_plan import (
    OPENING,
    SMALL_BATCHES,
    WARM_UP,
    Limits,
    Plan,
    Trial,
)
from shared.batch_time.tuning import ENOUGH_STEPS, SMALL_SHARE, TRIAL_SHARE
from shared.clock import Clock
from shared.engine.link import HostEnd
from shared.engine.vllm_core import EngineCore
from shared.engines import Policy, StepReport
from shared.errors import DeadlinePassed

_SEED = 1
_POLICY_WAIT_S = 0.005  # it travels beside the requests, on a socket of its own
_SILENCE_LIMIT_S = 10.0  # without any step, of an engine that still holds requests
_LONGEST_STEPS = 4.0  # or so many of the longest step that was seen, where that is longer
_LAST_STEP_S = 0.3
_LIMIT_GRACE_S = 2.0  # beyond the limit for the trial that runs; then it is cut off


async def measure_steps(
    core: EngineCore, link: HostEnd, clock: Clock, *, limit_s: float
) -> list[MeasuredStep]:
    """Keeps an idle engine busy for at most `limit_s`, a little more, and leaves it idle and empty.

    It must be the only reader of the core's outputs and the link's reports. Raises EngineLost when
    the core dies, DeadlinePassed when it does not become idle again.
    """
    run = _Run(core=core, link=link, clock=clock, limits=_limits(core))
    drain = asyncio.create_task(_drain(core))
    work = asyncio.create_task(run.all(clock.now() + limit_s, limit_s))
    try:
        await asyncio.wait([drain, work], return_when=asyncio.FIRST_COMPLETED)
        if drain.done():
            await drain
        await work
        await core.forget_prefixes()
        await run.hear_out()
    finally:
        for task in (drain, work):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
    return run.measured


async def _drain(core: EngineCore) -> None:
    async for _ in core.outputs():
        pass


def _limits(core: EngineCore) -> Limits:
    scheduler = core.config.scheduler_config
    return Limits(
        model_len_tokens=core.config.model_config.max_model_len,
        step_tokens=scheduler.max_num_batched_tokens,
        requests=scheduler.max_num_seqs,
        kv_tokens=core.kv.all_whole_blocks * core.kv.block_tokens,
    )


@dataclass(slots=True)
class _Run:
    core: EngineCore
    link: HostEnd
    clock: Clock
    limits: Limits
    measured: list[MeasuredStep] = field(default_factory=list)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(_SEED))
    _names: int = 0

    async def all(self, end_s: float, limit_s: float) -> None:
        plan = Plan(self.limits)
        await self._try(WARM_UP, end_s)
        for trial in OPENING:
            if trial.fits(self.limits):
                self._note(plan, await self._try(trial, end_s))
        while len(self.measured) < ENOUGH_STEPS:
            chosen = self._next(plan, min(end_s - self.clock.now(), TRIAL_SHARE * limit_s))
            if chosen is None:
                break
            self._note(plan, await self._try(chosen, end_s))
        until_s = self.clock.now() + SMALL_SHARE * limit_s
        for trial in SMALL_BATCHES:
            if self.measured and trial.fits(self.limits) and self.clock.now() < until_s:
                self._note(plan, await self._try(trial, until_s))
        await self.link.send_policy(Policy())

    async def hear_out(self) -> None:
        """A step that was in flight when its requests were cut off is told of after they have
        left; a planner must not take it for one of its own.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_SILENCE_LIMIT_S):
                while True:
                    async with asyncio.timeout(_LAST_STEP_S):
                        await self.link.next_reports()

    def _next(self, plan: Plan, left_s: float) -> Trial | None:
        if not self.measured or left_s <= 0:
            return None
        steps, times_s = _columns(self.measured)
        return plan.next(fit_curve(ADDITIVE, steps, times_s).curve, left_s)

    def _note(self, plan: Plan, reports: Sequence[StepReport]) -> None:
        new = list(_measured(reports))
        if new:
            plan.saw(*_columns(new))
            self.measured += new

    async def _try(self, trial: Trial, end_s: float) -> list[StepReport]:
        """The reports of one trial; what is left of it at the limit is cut off."""
        seen: list[StepReport] = []
        names: list[str] = []
        limit_s = max(0.0, end_s - self.clock.now()) + _LIMIT_GRACE_S
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._go_through(trial, names, seen)
        await self._become_idle(names, seen)
        return seen

    async def _go_through(self, trial: Trial, names: list[str], seen: list[StepReport]) -> None:
        await self._bound(trial.chunk_tokens)
        for _ in range(trial.sequences):
            await self._add(names, trial.prompt_tokens, trial.output_tokens)
        if trial.beside_tokens:
            await self._see(seen, lambda: _decode_steps(seen) >= trial.decode_steps)
            await self._bound(trial.beside_chunk_tokens + trial.sequences)
            await self._add(names, trial.beside_tokens, 1)
            beside = names[-1]
            await self._see(seen, lambda: any(beside in each.finished for each in seen))
            return
        await self._see(seen, lambda: _all_left(names, seen))

    async def _bound(self, step_tokens: int) -> None:
        policy = Policy(max_step_tokens=max(1, step_tokens), speculation_tokens=0)
        await self.link.send_policy(policy)
        await self.clock.sleep(_POLICY_WAIT_S)

    async def _add(self, names: list[str], prompt_tokens: int, output_tokens: int) -> None:
        """The tokens are random, so that no prefix is ever found cached."""
        self._names += 1
        names.append(f"profile-{self._names}")
        tokens = self._random.integers(0, self.core.vocabulary, prompt_tokens).tolist()
        await self.core.add_synthetic(names[-1], tokens, output_tokens)

    async def _see(self, seen: list[StepReport], enough: Callable[[], bool]) -> None:
        while not enough():
            seen += await self.link.next_reports()

    async def _become_idle(self, names: list[str], seen: list[StepReport]) -> None:
        left = [name for name in names if not _left(name, seen)]
        if left:
            await self.core.abort(left)
        while not (_all_left(names, seen) and _is_idle(seen[-1])):
            await self._hear_more(seen)

    async def _hear_more(self, seen: list[StepReport]) -> None:
        """A busy machine is slow to end a trial; one that is silent has a fault."""
        longest_s = max((one.duration_s for one in seen), default=0.0)
        limit_s = max(_SILENCE_LIMIT_S, _LONGEST_STEPS * longest_s)
        try:
            async with asyncio.timeout(limit_s):
                seen += await self.link.next_reports()
        except TimeoutError as error:
            raise DeadlinePassed(
                f"The engine held requests and made no step for {limit_s:g} s in its profile; "
                "start it with --profile off and look at its log."
            ) from error


def _measured(reports: Sequence[StepReport]) -> Iterator[MeasuredStep]:
    for report in reports:
        if report.tokens and report.duration_s > 0:
            yield MeasuredStep(step=step_of(report), seconds=report.duration_s)


def _columns(measured: Sequence[MeasuredStep]) -> tuple[list[Step], list[float]]:
    return [one.step for one in measured], [one.seconds for one in measured]


def _decode_steps(reports: Sequence[StepReport]) -> int:
    return sum(each.decode_tokens > 0 and not each.prefill_tokens for each in reports)


def _left(name: str, reports: Sequence[StepReport]) -> bool:
    return any(name in each.finished for each in reports)


def _all_left(names: Sequence[str], reports: Sequence[StepReport]) -> bool:
    return all(_left(name, reports) for name in names)


def _is_idle(report: StepReport) -> bool:
    return report.running == 0 and report.waiting == 0
