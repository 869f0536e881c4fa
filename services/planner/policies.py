"""Computes an engine's policy: draft lengths by class, the longest step where no deadline is near,
and the KV blocks that best effort must leave free.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from services.planner.estimators.drafting import Drafting
from services.planner.longest_step import RecentPrompts, longest_step_s, prompt_waits
from services.planner.state.turnover import decoding, prompt_tokens_each
from services.planner.tuning import (
    ASKED_WINDOW_S,
    AWAITED_BLOCKS,
    MOST_DRAFT_GROUPS,
    POLICY_CHANGE,
)
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.bounded import remember
from shared.engines import Drafts, EngineDescription, Policy
from shared.requests import Admission, Placement, PlacementQuery
from shared.scheduling.acceptance import Acceptance, Caution
from shared.scheduling.rows import (
    COMPUTED,
    EXPIRED,
    KIND,
    NO_SLO,
    PROMISED,
    REMAINING,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.simulate import Flags
from shared.scheduling.speculation import Engine, Tier, best_speculation
from shared.scheduling.tiers import tiers_of

_PARTS = 64  # of the KV cache: reserved blocks are rounded up to whole parts
_KEPT_ENGINES, _KEPT_CLASSES = 1024, 64
_V = TypeVar("_V")


@dataclass(slots=True, kw_only=True)
class _Pace:
    """The tightest TPOT of one class on one engine in this window of ASKED_WINDOW_S and the one
    before, in seconds; infinite: none.
    """

    since_s: float
    now_s: float = math.inf
    before_s: float = math.inf

    def turn(self, now: float) -> None:
        """Begins a new window where the present one is over."""
        passed = (now - self.since_s) // ASKED_WINDOW_S
        if passed >= 1:
            self.before_s = self.now_s if passed < 2 else math.inf
            self.now_s, self.since_s = math.inf, now

    @property
    def tightest_s(self) -> float:
        return min(self.now_s, self.before_s)


@dataclass(slots=True, kw_only=True)
class _Lately:
    """What one engine was asked for lately."""

    paces: OrderedDict[str, _Pace] = field(default_factory=OrderedDict)
    prompts: RecentPrompts = field(default_factory=RecentPrompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Recent targets on one engine.

    Attributes:
        paces_s: The tightest promised TPOT by class, in seconds; infinite: none.
        prompts: Prompts with a TTFT target, in the columns of `longest_step`.
    """

    paces_s: Mapping[str, float]
    prompts: FloatArray


class PolicyBook:
    """What policies depend on beside the engines' reports: recent targets and draft acceptance.

    Bounded. Acceptance depends on the model, so it is learned over all engines.
    """

    def __init__(self) -> None:
        self.acceptance = Acceptance()
        self.drafting = Drafting()
        self._engines: OrderedDict[str, _Lately] = OrderedDict()

    def placed(
        self, query: PlacementQuery, placement: Placement, prompt_tokens: int, now: float
    ) -> None:
        """Notes the targets of a request that runs: the TTFT at the engine that computes
        `prompt_tokens` of its prompt, a promised TPOT at the one that decodes.
        """
        if placement.decode is None:
            return
        first, name = placement.prefill or placement.decode, query.targets.class_name
        if placement.ttft_s is not None:
            cached_tokens = query.prompt_tokens - prompt_tokens
            prompts = self._of(first.name).prompts
            prompts.note(name, placement.ttft_s, cached_tokens, prompt_tokens, now)
        if placement.admission is Admission.ADMITTED:
            paces = self._of(placement.decode.name).paces
            pace = _newest(paces, name, _Pace(since_s=now), _KEPT_CLASSES)
            pace.turn(now)
            pace.now_s = min(pace.now_s, query.targets.tightest_tpot_s or math.inf)

    def drafted(self, drafts: Iterable[Drafts], now: float) -> None:
        self.acceptance.observe(drafts, now)

    def asked(self, engine: str, now: float) -> Asked:
        """The targets of this window and the one before."""
        lately = self._engines.get(engine) or _Lately()
        paces_s: dict[str, float] = {}
        for name, pace in lately.paces.items():
            if now - pace.since_s < 2 * ASKED_WINDOW_S:
                pace.turn(now)
                paces_s[name] = pace.tightest_s
        return Asked(paces_s=paces_s, prompts=lately.prompts.rows(now))

    def _of(self, engine: str) -> _Lately:
        return _newest(self._engines, engine, _Lately(), _KEPT_ENGINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineNow:
    """One engine as of its last report. `table` is None where its step times are unknown.

    `classes` are those of the rows, None where unknown. `awaited_blocks` are KV blocks of sessions
    that are expected back soon.
    """

    description: EngineDescription
    table: StepTable | None
    rows: Rows
    classes: Sequence[str | None]
    free_kv_blocks: int
    awaited_blocks: int = 0


def policy_for(
    engine: EngineNow,
    asked: Asked,
    acceptance: Acceptance,
    before: Policy,
    now: float,
) -> Policy:
    """The policy that suits this engine now; `before` is the last one that was sent."""
    known = replace(before, kept_blocks=_kept_blocks(engine))
    if engine.table is None:
        return known
    bounded = replace(known, longest_step_s=longest_step_s(engine.table, asked.prompts))
    if engine.description.max_speculation_tokens < 1:
        return replace(bounded, speculation_tokens=0, speculation_by_class={})
    return _with_speculation(engine, engine.table, asked, acceptance, bounded, now)


def worth_sending(old: Policy, new: Policy) -> bool:
    """Whether the policies differ by more than a small change of the longest step."""
    if replace(old, version=0, longest_step_s=0) != replace(new, version=0, longest_step_s=0):
        return True
    before_s, after_s = old.longest_step_s, new.longest_step_s
    return abs(after_s - before_s) > POLICY_CHANGE * before_s


def _kept_blocks(engine: EngineNow) -> int:
    """Blocks to reserve for awaited sessions. vLLM evicts the least recently used blocks, so other
    blocks cached in between must be kept as well.
    """
    in_all = engine.description.kv_blocks
    part = max(1, in_all // _PARTS)
    parts = math.ceil(AWAITED_BLOCKS * engine.awaited_blocks / part)
    return min(parts * part, in_all // 2)


def _with_speculation(
    engine: EngineNow,
    table: StepTable,
    asked: Asked,
    acceptance: Acceptance,
    policy: Policy,
    now: float,
) -> Policy:
    """Sets draft lengths by class; other classes get the shortest of them. Counts decoding
    requests, or the waiting ones where none decodes; an idle engine keeps its lengths.
    """
    groups = _groups(engine, decoding(engine.rows)) or _groups(
        engine, engine.rows[:, REMAINING] > 0
    )
    if not groups:
        return policy
    tiers = [one.tier(acceptance, now) for one in groups]
    promised = bool((engine.rows[:, KIND] == PROMISED).any())  # by what the drafts in force give
    before = [one.drafts_of(policy) for one in groups] if promised else [None]
    kept = [one for one in before if one is not None] if None not in before else None
    bounds = Engine(
        table=table,
        most_drafts=engine.description.max_speculation_tokens,
        most_tokens=engine.description.max_step_tokens,
        prompt_tokens_each=_prompt_tokens_to_come(engine.rows),
        longest_step_s=policy.longest_step_s or math.inf,
        prompt_waits=prompt_waits(table, asked.prompts),
    )
    drafts = _drafts(engine, bounds, tiers, kept)
    names = {*asked.paces_s, *(name for one in groups for name in one.names)}
    paces_s = {name: asked.paces_s.get(name, math.inf) for name in names}
    return replace(
        policy,
        speculation_tokens=min(drafts),
        speculation_by_class={
            name: drafts[_nearest(groups, name, tpot_s)] for name, tpot_s in paces_s.items()
        },
    )


def _drafts(
    engine: EngineNow, bounds: Engine, tiers: Sequence[Tier], before: Sequence[int] | None
) -> tuple[int, ...]:
    """The best draft length of each tier. All are 0 where the KV cache lacks one more block for
    each promised decode; blocks of best effort count as free.
    """
    promised = engine.rows[:, KIND] == PROMISED
    in_want = int((promised & decoding(engine.rows)).sum())
    if engine.free_kv_blocks + _evictable(engine) < in_want:
        return (0,) * len(tiers)
    return best_speculation(tiers, bounds, guard=Caution.LOW, before=before).drafts


def _evictable(engine: EngineNow) -> float:
    """KV blocks of best effort, which can be preempted."""
    tokens = engine.rows[engine.rows[:, KIND] > NO_SLO, COMPUTED]
    return float(tokens.sum()) / engine.description.block_size_tokens


def _prompt_tokens_to_come(rows: Rows) -> float:
    """Prompt tokens to compute per token that decodes produce: the usual turnover, or those that
    wait under a promise where these are more. Infinite while nothing decodes: prompts come first.
    """
    decodes = rows[decoding(rows)]
    usual = prompt_tokens_each(decodes)
    if math.isinf(usual):
        return usual
    missing = rows[:, TOTAL] - rows[:, COMPUTED]
    waiting = (rows[:, KIND] == PROMISED) & (rows[:, REMAINING] > 0) & (missing > 1)
    return max(usual, float(missing[waiting].sum()) / len(decodes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Requests that share a draft length: of one TPOT tier (infinite: none), and of one class
    unless there are too many classes.
    """

    rows: Rows
    names: frozenset[str]
    tpot_s: float

    def tier(self, acceptance: Acceptance, now: float) -> Tier:
        """The group as a tier. The least acceptance of its classes counts: all keep their TPOT."""
        return Tier(
            tpot_s=self.tpot_s,
            decoding=len(self.rows),
            context_tokens=float(self.rows[:, TOTAL].mean()),
            alpha=min(acceptance.alpha(name, now) for name in self.names or {""}),
        )

    def drafts_of(self, policy: Policy) -> int | None:
        """The group's draft length under `policy`; None: the engine's own."""
        return policy.drafts_of(min(self.names, default=""))


def _groups(engine: EngineNow, chosen: Flags) -> list[_Group]:
    """Groups the chosen requests by TPOT and class, the tightest first; by TPOT alone where that
    would be more than MOST_DRAFT_GROUPS. Best effort has no TPOT.
    """
    rows = engine.rows[chosen]
    names = [name for name, one in zip(engine.classes, chosen, strict=True) if one]
    paces_s = np.where(rows[:, KIND] < EXPIRED, rows[:, TPOT], math.inf)
    keys = [
        (pace, name or "") for pace, name in zip(tiers_of(paces_s).tolist(), names, strict=True)
    ]
    if len(set(keys)) > MOST_DRAFT_GROUPS:
        keys = [(pace, "") for pace, _ in keys]
    return [
        _Group(
            rows=rows[here],
            names=frozenset(name for place in here if (name := names[place])),
            tpot_s=float(paces_s[here].min()),
        )
        for key in sorted(set(keys))
        for here in [[place for place, one in enumerate(keys) if one == key]]
    ]


def _nearest(groups: Sequence[_Group], name: str, tpot_s: float) -> int:
    """The index of a class's group: of the groups that contain it, else of all, the one with the
    nearest TPOT; for a class without a TPOT, the loosest.
    """
    own = [place for place, one in enumerate(groups) if name in one.names]
    places = own or range(len(groups))
    if math.isinf(tpot_s):
        return max(places, key=lambda place: groups[place].tpot_s)
    paced = [place for place in places if groups[place].tpot_s < math.inf] or places
    return min(paced, key=lambda place: abs(math.log(groups[place].tpot_s / tpot_s)))


def _newest(store: OrderedDict[str, _V], key: str, new: _V, limit: int) -> _V:
    """The key's value, `new` where it is missing; drops the least recently used beyond `limit`."""
    kept = store.get(key, new)
    remember(store, key, kept, limit)
    return kept
