"""An engine's own profile: kept from an earlier start, or measured now, fitted and kept. Never
stands in the way of serving.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.batch_time import BatchTimeModel, Fit, StepTable, to_plain
from shared.batch_time.profile_fit import MeasuredStep, fit_of
from shared.clock import Clock
from shared.engine.config import EngineOptions, ProfileWhen
from shared.engine.link import HostEnd
from shared.engine.profile_kept import identity, keep_fit, kept_fit
from shared.engine.profile_run import measure_steps
from shared.engine.vllm_core import EngineCore
from shared.errors import DeadlinePassed
from shared.kept import cache_folder

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A fit, the steps behind it where they were measured by this process, and what the engine can
    hold, as `EngineCore.limits` says it.
    """

    fit: Fit
    steps: Sequence[MeasuredStep] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> StepTable:
        """As a model starts from it."""
        table = BatchTimeModel(self.fit).table
        assert table is not None, "a model that starts from a fit knows something"
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """Profiles one idle engine core that is not used yet. `model_path` is the resolved one."""

    core: EngineCore
    link: HostEnd
    clock: Clock
    options: EngineOptions
    model_path: str

    async def profile(self) -> Profile | None:
        """Also told to the scheduler. None when it is off, or too little could be measured.

        Raises EngineLost when the engine core dies.
        """
        if self.options.profile is ProfileWhen.OFF:
            return None
        wanted = identity(self.model_path, self.core.hardware())
        fresh = self.options.profile is ProfileWhen.FRESH
        kept = None if fresh else kept_fit(cache_folder(), wanted)
        profile = Profile(fit=kept) if kept else await self._measured()
        if profile is None:
            return None
        if not kept:
            keep_fit(cache_folder(), wanted, profile.fit)
        await self.link.send_profile(to_plain(profile.fit))
        return profile

    async def _measured(self) -> Profile | None:
        began_s = self.clock.now()
        try:
            steps = await measure_steps(
                self.core, self.link, self.clock, limit_s=self.options.profile_limit_s
            )
        except DeadlinePassed as error:
            _LOG.warning("No profile: %s", error)
            return None
        fit = fit_of(steps)
        if fit is None:
            _LOG.warning(
                "Only %d steps could be measured in %g s: step times are learned from requests; "
                "give more time with --profile-limit-s.",
                len(steps),
                self.options.profile_limit_s,
            )
            return None
        _LOG.info("measured %d steps in %.1f s", len(steps), self.clock.now() - began_s)
        return Profile(fit=fit, steps=steps, engine=self.core.limits())
