"""What of a system is tuned, and for which scene. Tries nothing out."""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.engines import Role
from shared.hardware import Hardware
from shared.workloads.calls import Load

_DRAFTS = (0, 2, 3, 4)  # lengths of fixed drafts that people set
_SHARES_OF_PREFILL = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4)
_RATIOS = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a system is set up for: `replicas` is how many such engines there are to use."""

    hardware: Hardware
    replicas: int
    load: Load

    @property
    def drafts(self) -> tuple[int, ...]:
        """Lengths that the hardware's draft model allows, 0 first; without one nobody drafts."""
        draft = self.hardware.draft
        most = draft.max_speculation_tokens if draft else 0
        return tuple(one for one in _DRAFTS if one <= most)

    @property
    def splits(self) -> tuple[tuple[int, int], ...]:
        """Prefill and decode engines of disaggregated fleets. A single replica stands for any
        number of engines: there the ratios count, and whoever compares divides by the engines.
        """
        if self.replicas == 1:
            return _RATIOS
        shares = {round(self.replicas * share) for share in _SHARES_OF_PREFILL}
        every = range(1, self.replicas) if self.replicas <= len(_SHARES_OF_PREFILL) else shares
        return tuple((n, self.replicas - n) for n in sorted(every) if 0 < n < self.replicas)

    def budgets(self, *tokens: int) -> tuple[int, ...]:
        """Those of these numbers of tokens that a step may have; the engine's own where none."""
        most = self.hardware.max_step_tokens
        return tuple(one for one in tokens if one <= most) or (most,)

    @property
    def tightest_tpot_s(self) -> float:
        """Of all stages of the load."""
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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a system; None where a system has no such thing.

    `drafts`: verified by every decode of every step, on engines that have `drafting_requests` at
    most. `budget_tokens`: of a step. `by_priority`: tighter classes first. `pace_share`,
    `assumed_decodes`: the part of the tightest TPOT that a step may take, beside how many decodes.
    `alpha_s`: seconds of deadline that a token of prompt left is worth. `from_arrival`: all tokens
    are due by the arrival, not by when the first one came. `early_steps`: mean steps before it is
    due from which on a decode must run. `shortest_first`: of waiting prompts. `by_request`: each
    request in time is worth the same, not each token. `threshold_tokens`: prompts from here on go
    to prefill engines.
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

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of the engines of a fleet that is run so."""
        return (Role.DECODE,) * self.decode + (Role.PREFILL,) * self.prefill

    @property
    def label(self) -> str:
        """In words, without what the system does not have."""
        parts = [f"{self.prefill} prefill + {self.decode} decode" if self.prefill else ""]
        parts.append(f"drafts of {self.drafts}" if self.drafts else "no drafts")
        told = {name: getattr(self, name) for name in _IN_WORDS}
        parts += [_IN_WORDS[name].format(one) for name, one in told.items() if one]
        return ", ".join(part for part in parts if part)


def colocated(scene: Scene) -> Iterator[Setting]:
    """Every engine does both kinds of work, without and with drafts."""
    for drafts in scene.drafts:
        yield Setting(decode=scene.replicas, drafts=drafts)


def disaggregated(scene: Scene) -> Iterator[Setting]:
    """Every split, without and with drafts."""
    for prefill, decode in scene.splits:
        for drafts in scene.drafts:
            yield Setting(prefill=prefill, decode=decode, drafts=drafts)
