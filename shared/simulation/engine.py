"""One engine on virtual time: rows, KV blocks and steps that last as long as its hardware says. Who
gets tokens is its system's to say.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.batch_time import StepTable
from shared.batch_time.table import COUNTS, Numbers
from shared.compiled import compiled
from shared.engines import Role
from shared.hardware import Hardware
from shared.hardware.truth import noisy_s
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import (
    COMPUTED,
    DRAFT,
    GAIN,
    TOTAL,
    TPOT,
    Rows,
    empty,
)
from shared.scheduling.shares import BLOCK_TOKENS, EVICT, FREE_BLOCKS, Tokens
from shared.scheduling.simulate import Times, apply
from shared.simulation.lives import (
    ACCEPTANCE,
    CHANGES_AT,
    EVICTED,
    LATER_PACE,
    OUTPUT,
    STARTED,
    TOKENS,
    Lives,
    give,
)
from shared.simulation.prefix_cache import PrefixCache

Former = Callable[["SimEngine", Tokens, Numbers, float], float]
Who = npt.NDArray[np.int64]
_STAYS, _ENDED, _PREFILLED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """What the last step's drafts became, by life."""

    lives: Who
    drafted: npt.NDArray[np.float64]
    accepted: npt.NDArray[np.float64]


class SimEngine:
    """`rows` are in the order of arrival; `who` are their lives. `after` is what `rows` will be
    when the running step has ended.

    `table` is what its system knows of its step times, not what they are.
    """

    def __init__(
        self, name: str, role: Role, hardware: Hardware, table: StepTable, *, seed: int
    ) -> None:
        self.name, self.role, self.hardware, self.table = name, role, hardware, table
        self.rows: Rows = empty(0)
        self.after: Rows = self.rows
        self.who: Who = np.zeros(0, dtype=np.int64)
        self.prefill_only: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self.cache = PrefixCache(hardware.block_size_tokens)
        self.leased_blocks = 0.0
        self.ends_s = math.inf
        self.alive = True
        self.steps, self.busy_s, self.computed_tokens = 0, 0.0, 0.0
        self.counts = np.zeros(COUNTS)
        self.drafted: Drafted | None = None
        self.limits = engine_limits(
            max_tokens=hardware.max_step_tokens,
            block_tokens=hardware.block_size_tokens,
            max_resident=hardware.max_running_requests,
        )
        self._seen: Times = np.empty((0, 4))
        self._tokens: Tokens = np.zeros(0, dtype=np.int64)
        self._chance = random.Random(f"{name} {seed}")  # noqa: S311 - noise, no secret

    @property
    def is_idle(self) -> bool:
        """No step runs."""
        return math.isinf(self.ends_s)

    @property
    def free_blocks(self) -> float:
        """Blocks that nobody uses; cached prefixes give way."""
        used = float(_used_blocks(self.rows, self.limits))
        return self.hardware.kv_blocks - self.leased_blocks - used

    def add(self, row: Numbers, life: int, *, prefill_only: bool = False) -> None:
        """A request comes, also while a step runs."""
        self.rows = np.vstack([self.rows, row])
        self.after = np.vstack([self.after, row])
        self.who = np.append(self.who, life)
        self.prefill_only = np.append(self.prefill_only, prefill_only)
        self._tokens = np.append(self._tokens, 0)
        self._seen = np.vstack([self._seen, [math.inf, 0.0, 0.0, -math.inf]])

    def begin(self, form: Former, lives: Lives, now: float) -> bool:
        """Forms a step and starts it; whether there was one."""
        self.ends_s = math.inf
        if not len(self.rows):
            return False
        free_blocks = self.free_blocks
        self.cache.shrink(max(0.0, free_blocks))
        self.limits[FREE_BLOCKS] = free_blocks
        tokens, counts = np.zeros(len(self.rows), dtype=np.int64), np.zeros(COUNTS)
        if form(self, tokens, counts, now) == 0:
            return False
        lasts_s = self._lasts_s(counts)
        self.ends_s = now + self.hardware.host_overhead_s + lasts_s
        self.steps, self.busy_s = self.steps + 1, self.busy_s + lasts_s
        self.computed_tokens += float(tokens[tokens > 0].sum())
        self.counts, self._tokens = counts, tokens
        _note_start(self.rows, self.who, lives, tokens, now)
        self._foresee(lives)
        return True

    def end(self, lives: Lives) -> tuple[Who, Who]:
        """The step is over; the lives that have all their tokens, and those whose prompt is done
        and which go on elsewhere.
        """
        fates = np.zeros(len(self.rows), dtype=np.int8)
        before, self.rows = self.rows, self.after
        _settle(self.rows, self.who, lives, self._seen, self.prefill_only, fates, self.ends_s)
        ended, moves = self.who[fates == _ENDED], self.who[fates == _PREFILLED]
        if len(ended) or len(moves):
            prompts = before[fates == _PREFILLED, TOTAL]
            self.leased_blocks += float(np.ceil(prompts / self.limits[BLOCK_TOKENS]).sum())
            self.keep(fates == _STAYS)
        else:
            self._forget_step()
        self.ends_s = math.inf
        return ended, moves

    def keep(self, stays: npt.NDArray[np.bool_]) -> None:
        """Drops all other rows; no step may run."""
        self.rows, self.who = self.rows[stays], self.who[stays]
        self.prefill_only = self.prefill_only[stays]
        self._forget_step()

    def clear(self) -> Who:
        """The engine dies; returns whom it had."""
        had = self.who
        self.keep(np.zeros(len(self.rows), dtype=np.bool_))
        self.cache = PrefixCache(self.hardware.block_size_tokens)
        self.leased_blocks, self.ends_s, self.alive = 0.0, math.inf, False
        return had

    def computed(self, life: int) -> float:
        """Tokens of a request in the KV cache."""
        return float(self.rows[self.who == life, COMPUTED][0])

    def _forget_step(self) -> None:
        self.after = self.rows
        self._tokens = np.zeros(len(self.rows), dtype=np.int64)
        self._seen = np.zeros((len(self.rows), 4))

    def _lasts_s(self, counts: Numbers) -> float:
        hardware = self.hardware
        lasts_s = float(noisy_s(hardware.step.numbers, counts, self._chance.gauss(0.0, 1.0)))
        if hardware.stall_chance and self._chance.random() < hardware.stall_chance:
            lasts_s += hardware.stall_s
        return lasts_s

    def _foresee(self, lives: Lives) -> None:
        """What the step will have done; how many drafts are accepted is settled here."""
        rows, tokens = self.rows, self._tokens
        drafting = np.flatnonzero((tokens > 1) & (rows[:, DRAFT] > 0))
        self.after = rows.copy()
        self.drafted = None
        if len(drafting):
            chances = np.array([self._chance.random() for _ in drafting])
            gains = _draw_gains(rows, self.who, lives, drafting, chances)
            self.after[drafting, GAIN] = gains
            self.drafted = Drafted(
                lives=self.who[drafting], drafted=rows[drafting, DRAFT], accepted=gains - 1
            )
        self._seen = np.zeros((len(rows), 4))
        apply(self.after, self._seen, tokens, self.ends_s, 0.0)
        if len(drafting):
            self.after[drafting, GAIN] = rows[drafting, GAIN]


@compiled
def _used_blocks(rows: Rows, limits: Numbers) -> float:
    used = 0.0
    for i in range(len(rows)):
        used += np.ceil(rows[i, COMPUTED] / limits[BLOCK_TOKENS])
    return used


@compiled
def _note_start(rows: Rows, who: Who, lives: Lives, tokens: Tokens, now: float) -> None:
    for i in range(len(rows)):
        if tokens[i] > 0 and np.isnan(lives[who[i], STARTED]):
            lives[who[i], STARTED] = now
        elif tokens[i] == EVICT:
            lives[who[i], EVICTED] += 1


@compiled
def _draw_gains(
    rows: Rows, who: Who, lives: Lives, drafting: npt.NDArray[np.intp], chances: Numbers
) -> Numbers:
    """One token and the drafts accepted before the first that is not: one uniform number says how
    many. Nobody gives more than it has to give.
    """
    gains = np.ones(len(drafting))
    for place in range(len(drafting)):
        i = drafting[place]
        life = lives[who[i]]
        reached = life[ACCEPTANCE]
        most = min(rows[i, DRAFT], life[OUTPUT] - life[TOKENS] - 1)
        while gains[place] <= most and chances[place] < reached:
            gains[place] += 1
            reached *= life[ACCEPTANCE]
    return gains


@compiled
def _settle(
    rows: Rows,
    who: Who,
    lives: Lives,
    seen: Times,
    prefill_only: npt.NDArray[np.bool_],
    fates: npt.NDArray[np.int8],
    now: float,
) -> None:
    """Gives the tokens of the step that ended to their lives; says who leaves."""
    for i in range(len(rows)):
        if seen[i, 2] == 0:
            continue
        life = lives[who[i]]
        before = life[TOKENS]
        give(life, seen[i, 2], now)
        if before < life[CHANGES_AT] <= life[TOKENS]:
            rows[i, TPOT] = life[LATER_PACE]
        if life[TOKENS] >= life[OUTPUT]:
            fates[i] = _ENDED
        elif prefill_only[i]:
            fates[i] = _PREFILLED
