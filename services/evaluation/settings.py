"""The settings of systems, and the case for which they are tuned."""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.engines import Role
from shared.hardware import Hardware
from shared.workloads.calls import Load

_DRAFTS = (0, 2, 3, 4)  # usual lengths of fixed drafts
_SHARES_OF_PREFILL = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4)
_RATIOS = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningCase:
    """What a system is set up for; `replicas` is how many such engines there are to use."""

    hardware: Hardware
    replicas: int
    load: Load

    @property
    def drafts(self) -> tuple[int, ...]:
        """Draft lengths that the hardware's draft model allows, 0 first; only 0 without one."""
        draft = self.hardware.draft
        most = draft.max_speculation_tokens if draft else 0
        return tuple(one for one in _DRAFTS if one <= most)

    @property
    def splits(self) -> tuple[tuple[int, int], ...]:
        """Prefill and decode engines of disaggregated fleets. A single replica stands for any
        number of engines: only the ratios count, and results are divided by the engines.
        """
        if self.replicas == 1:
            return _RATIOS
        shares = {round(self.replicas * share) for share in _SHARES_OF_PREFILL}
        every = range(1, self.replicas) if self.replicas <= len(_SHARES_OF_PREFILL) else shares
        return tuple((n, self.replicas - n) for n in sorted(every) if 0 < n < self.replicas)

    def budgets(self, *tokens: int) -> tuple[int, ...]:
        """The budgets of these that a step may have; the engine's own where there is none."""
        most = self.hardware.max_step_tokens
        return tuple(one for one in tokens if one <= most) or (most,)

    @property
    def tightest_tpot_s(self) -> float:
        """The tightest TPOT target of all stages of the load."""
        return min(
            stage.tpot_s for program in self.load for call in program.calls for stage in call.stages
        )


_IN_WORDS = {
    "drafting_requests": "up to {} requests",
    "budget_tokens": "steps of {} tokens",
    "by_priority": "tight classes first",
    "pace_share": "{:g} of the tightest pace",
    "assumed_decodes": "beside {} decodes",
    "alpha_s": "{:g} s for each token left",
    "from_arrival": "deadlines from the arrival on",
    "early_steps": "{:g} steps early",
    "shortest_first": "shortest prompts first",
    "by_request": "a gain for each request",
    "threshold_tokens": "prompts from {} tokens on",
    "prefill_scale": "prompts weigh {:g} times",
    "scorer_weights": "scorers of weights {0[0]:g}, {0[1]:g}, {0[2]:g} and {0[3]:g}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a system; None where a system has no such option.

    Attributes:
        drafts: drafted tokens that every decode verifies in every step.
        drafting_requests: the most requests on an engine with which it drafts.
        budget_tokens: token budget of a step.
        by_priority: tighter classes first.
        pace_share: the share of the tightest TPOT that a step may take.
        assumed_decodes: the number of decodes beside which it is computed.
        alpha_s: seconds of deadline that one prompt token left is worth.
        from_arrival: tokens are due relative to the arrival, not to the first token.
        early_steps: a decode must run from so many mean steps before it is due.
        shortest_first: the order of waiting prompts.
        by_request: each request in time is worth the same, not each token.
        threshold_tokens: prompts of this length and more go to prefill engines.
        prefill_scale: weight of prompt tokens to compute beside tokens of KV in use.
        scorer_weights: of prefix, free KV, queue and active requests.
    """

    prefill: int = 0
    decode: int = 1
    drafts: int = 0
    drafting_requests: int | None = None
    budget_tokens: int | None = None
    by_priority: bool | None = None
    pace_share: float | None = None
    assumed_decodes: int | None = None
    alpha_s: float | None = None
    from_arrival: bool | None = None
    early_steps: float | None = None
    shortest_first: bool | None = None
    by_request: bool | None = None
    threshold_tokens: int | None = None
    prefill_scale: float | None = None
    scorer_weights: tuple[float, float, float, float] | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of the engines of a fleet in this setting."""
        return (Role.DECODE,) * self.decode + (Role.PREFILL,) * self.prefill

    @property
    def label(self) -> str:
        """The setting in words, without what the system does not have."""
        parts = [f"{self.prefill} prefill + {self.decode} decode" if self.prefill else ""]
        parts.append(f"drafts of {self.drafts}" if self.drafts else "no drafts")
        told = {name: getattr(self, name) for name in _IN_WORDS}
        parts += [_IN_WORDS[name].format(one) for name, one in told.items() if one]
        return ", ".join(part for part in parts if part)


def colocated(case: TuningCase) -> Iterator[Setting]:
    """Settings in which every engine does both kinds of work, without and with drafts."""
    for drafts in case.drafts:
        yield Setting(decode=case.replicas, drafts=drafts)


def disaggregated(case: TuningCase) -> Iterator[Setting]:
    """Settings with every split, without and with drafts."""
    for prefill, decode in case.splits:
        for drafts in case.drafts:
            yield Setting(prefill=prefill, decode=decode, drafts=drafts)
