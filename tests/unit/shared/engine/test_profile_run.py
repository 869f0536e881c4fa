"""How long a profile waits for an engine that ends its trial slowly, without an engine."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.batch_time.profile_plan import Limits
from shared.clock import VirtualClock
from shared.engine.profile_run import _Run
from shared.engines import StepReport
from shared.errors import DeadlinePassed
from tests.unit.planner.builders import make_report


@dataclass(slots=True)
class SlowLink:
    """Gives one report at a time, then nothing more."""

    reports: list[StepReport]

    async def next_reports(self) -> list[StepReport]:
        if not self.reports:
            raise TimeoutError
        return [self.reports.pop(0)]


@dataclass(slots=True)
class Core:
    aborted: list[str] = field(default_factory=list)

    async def abort(self, names: Sequence[str]) -> None:
        self.aborted += names


@pytest.fixture
def limits_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait for a report might have taken."""
    waits_s: list[float] = []

    @asynccontextmanager
    async def timeout(limit_s: float) -> AsyncIterator[None]:
        waits_s.append(limit_s)
        yield

    monkeypatch.setattr(asyncio, "timeout", timeout)
    return waits_s


def run_over(link: SlowLink) -> Any:
    limits = Limits(model_len_tokens=1000, step_tokens=100, requests=4, kv_tokens=1000)
    return _Run(core=Core(), link=link, clock=VirtualClock(), limits=limits)  # type: ignore[arg-type]


async def test_while_an_engine_makes_steps_each_one_has_the_whole_limit(
    limits_s: list[float],
) -> None:
    steps = [make_report(running=2, duration_s=6.0) for _ in range(5)]
    last = make_report(running=0, waiting=0, finished=("a",))
    run = run_over(SlowLink([*steps, last]))

    await run._become_idle(["a"], [])

    assert run.core.aborted == ["a"]
    assert limits_s == [10.0, 24.0, 24.0, 24.0, 24.0, 24.0]


async def test_an_engine_that_holds_requests_and_makes_no_step_is_given_up(
    limits_s: list[float],
) -> None:
    run = run_over(SlowLink([make_report(running=2, duration_s=0.1)]))

    with pytest.raises(DeadlinePassed, match=r"no step for 10 s.*--profile off"):
        await run._become_idle(["a"], [])

    assert limits_s == [10.0, 10.0]
