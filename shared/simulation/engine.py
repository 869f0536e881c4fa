"""Simulates one engine on virtual time: rows, KV blocks, and steps timed by its hardware.

The serving system decides the tokens of each step.
"""

import math
from collections.abc import Callable

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import COUNTS, FloatArray
from shared.engines import Role
from shared.hardware import Hardware
from shared.hardware.truth import noisy_s
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import AVAILABLE, COMPUTED, DRAFT, RESIDENT, SHARED, Rows, empty
from shared.scheduling.shares import EVICT, FREE_BLOCKS, Tokens
from shared.simulation.chance import Chance
from shared.simulation.prefix_cache import PrefixCache
from shared.simulation.request_metrics import EVICTED, RequestMetrics
from shared.simulation.shared_prefixes import SharedPrefixes
from shared.simulation.steps import (
    SUMS,
    Drafted,
    Flags,
    Indexes,
    Sent,
    finish,
    let_go,
    start,
    used_blocks,
)

Former = Callable[["SimEngine", Tokens, FloatArray, float], float]
_FIRST_PLACES = 64
_NO_NUMBERS: FloatArray = np.zeros(0)


class SimEngine:
    """One engine. Views of its rows are valid until a request arrives or a step ends.

    Attributes:
        rows: One row per request, in the order of arrival.
        indexes: For each row, the index of its request in the run's `RequestMetrics`.
        after: The rows as they will be when the running step has ended.
        shared_prefixes: Its requests that begin like others.
        table: The step times that the system knows, which are not the true ones.
        computed_tokens: Tokens computed in all steps.
        dropped_tokens: Tokens of KV dropped for lack of room.
        found_tokens: Tokens found in the prefix cache.
    """

    def __init__(
        self, name: str, role: Role, hardware: Hardware, table: StepTable, *, seed: int
    ) -> None:
        self.name, self.role, self.hardware, self.table = name, role, hardware, table
        self.cache = PrefixCache(hardware.block_size_tokens)
        self.shared_prefixes = SharedPrefixes(cache=self.cache)
        self.leased_blocks = 0.0
        self.ends_s = math.inf
        self.alive = True
        self.steps, self.busy_s = 0, 0.0
        self.computed_tokens = self.dropped_tokens = self.found_tokens = 0.0
        self.counts: FloatArray = np.zeros(COUNTS)
        self.drafted: Drafted | None = None
        self.limits = self._own_limits()
        self._block = float(hardware.block_size_tokens)
        self._own_blocks = float(hardware.kv_blocks)
        self._leases: dict[int, float] = {}  # blocks, by index of the request
        self._count = 0
        self._rows, self._after = empty(_FIRST_PLACES), empty(_FIRST_PLACES)
        self._indexes: Indexes = np.zeros(_FIRST_PLACES, dtype=np.int64)
        self._prefill_only: Flags = np.zeros(_FIRST_PLACES, dtype=np.bool_)
        self._tokens: Tokens = np.zeros(_FIRST_PLACES, dtype=np.int64)
        self._ended: Indexes = np.zeros(_FIRST_PLACES, dtype=np.int64)
        self._started: Indexes = np.zeros(_FIRST_PLACES, dtype=np.int64)
        self._sent: Sent = np.zeros((_FIRST_PLACES, 2), dtype=np.int64)
        self._seen = np.zeros((_FIRST_PLACES, 4))
        self._sums = np.zeros(SUMS)
        self._chance = Chance(name, seed)

    @property
    def rows(self) -> Rows:
        return self._rows[: self._count]

    @property
    def after(self) -> Rows:
        return (self._rows if self.is_idle else self._after)[: self._count]

    @property
    def indexes(self) -> Indexes:
        return self._indexes[: self._count]

    @property
    def prefill_only(self) -> Flags:
        """Whether each request moves to another engine once its prompt is computed."""
        return self._prefill_only[: self._count]

    @property
    def is_idle(self) -> bool:
        """Whether no step runs."""
        return self.ends_s == math.inf

    @property
    def free_blocks(self) -> float:
        """Blocks unused until the end of the running step; cached prefixes count as free."""
        count = self._count
        used = used_blocks(self._rows[:count], self._tokens[:count], self._block)
        return float(self._unleased_blocks - used)

    @property
    def _unleased_blocks(self) -> float:
        """Blocks that each request may have alone."""
        return self._own_blocks - self.leased_blocks - self.shared_prefixes.blocks

    def blocks_for(self, tokens: int) -> float:
        return float(math.ceil(tokens / self.hardware.block_size_tokens))

    def add(self, row: FloatArray, index: int, *, prefill_only: bool = False) -> None:
        """Adds a request, also during a step. Its computed tokens were found in a cache or sent."""
        place = self._count
        if place == len(self._indexes):
            self._grow()
        self._rows[place] = self._after[place] = row
        self._indexes[place], self._prefill_only[place] = index, prefill_only
        self._tokens[place] = self._seen[place, 2] = 0
        self._count = place + 1
        if self.cache.blocks:
            self.cache.shrink(max(0.0, self.free_blocks))

    def begin(self, form: Former, metrics: RequestMetrics, now: float) -> bool:
        """Forms a step and starts it; whether there was one. Raises RuntimeError beyond limits."""
        self.ends_s = math.inf
        if not self._count:
            return False
        self.found_tokens += self.shared_prefixes.look_up(self.rows, self.indexes)
        if not self._form(form, now) and not self._form_in_more_room(form, now):
            self._drop_evicted(metrics)
            return False
        lasts_s = self._lasts_s()
        ends_s = now + self.hardware.host_overhead_s + lasts_s
        self._start(metrics, now, ends_s)
        self.ends_s = ends_s
        self.steps, self.busy_s = self.steps + 1, self.busy_s + lasts_s
        return True

    def end(self, metrics: RequestMetrics, given_s: float) -> tuple[list[int], list[int]]:
        """Ends the step at `given_s`, when its tokens reach their clients.

        Returns the indexes of requests that have all their tokens, and of requests whose prompt is
        computed and that move on.
        """
        self._rows, self._after = self._after, self._rows
        self.ends_s = math.inf
        ended, moved, started = finish(
            self._rows[: self._count],
            self._indexes,
            metrics,
            self._seen,
            self._tokens,
            self._prefill_only,
            self._after,
            self._ended,
            self._started,
            self._sent,
            given_s,
        )
        self._count -= ended + moved
        if started:
            self.shared_prefixes.computed(self._started[:started].tolist())
        all_given = self._ended[:ended].tolist() if ended else []
        self.shared_prefixes.ended(all_given)
        sent = self._sent[:moved].tolist() if moved else []
        for index, tokens in sent:
            self._lease(index, tokens)
        return all_given, [index for index, _ in sent]

    def find(self, name: str, tokens: int, *, stays: bool) -> int:
        """Cached tokens of a prefix, in whole blocks, at most `tokens`.

        If it `stays`, other requests can find it as well; otherwise it leaves the cache.
        """
        cached = self.cache.use(name) if stays else self.cache.take(name)
        found = self.whole_blocks(min(tokens, cached))
        self.found_tokens += found
        return found

    def whole_blocks(self, tokens: int) -> int:
        """The tokens that fill whole blocks."""
        return self.cache.whole_blocks(tokens)

    def lend(self, index: int) -> None:
        """Leases a cached prefix to a request of another engine. Its blocks stay in the cache."""
        self._leases[index] = 0.0

    def keep(self, name: str, tokens: int) -> None:
        """Caches a prefix in blocks that were just freed, until they are needed."""
        self.cache.keep(name, tokens)
        self.cache.shrink(max(0.0, self.free_blocks))

    def release(self, index: int) -> None:
        """Frees the KV of a request that has moved on."""
        self.leased_blocks -= self._leases.pop(index, 0.0)
        self.shared_prefixes.ended((index,))

    def has_lease(self, index: int) -> bool:
        return index in self._leases

    def lose(self, index: int, now: float) -> None:
        """Notes that a request's KV transfer failed: its prompt is computed here."""
        place = int(np.flatnonzero(self.indexes == index)[0])
        for rows in (self._rows, self._after):
            rows[place, AVAILABLE], rows[place, COMPUTED] = now, 0.0

    def clear(self) -> list[int]:
        """Ends the engine; returns the indexes of its requests."""
        had: list[int] = self.indexes.tolist()
        self._count = 0
        self.cache = PrefixCache(self.hardware.block_size_tokens)
        self.shared_prefixes = SharedPrefixes(cache=self.cache)
        self._leases.clear()
        self.leased_blocks, self.ends_s, self.alive = 0.0, math.inf, False
        self.drafted, self.limits = None, self._own_limits()
        return had

    def _own_limits(self) -> FloatArray:
        return engine_limits(
            max_tokens=self.hardware.max_step_tokens,
            block_tokens=self.hardware.block_size_tokens,
            max_resident=self.hardware.max_running_requests,
        )

    def _lease(self, index: int, tokens: int) -> None:
        blocks = self._leases[index] = self.blocks_for(tokens)
        self.leased_blocks += blocks

    def _form(self, form: Former, now: float) -> bool:
        tokens = self._tokens[: self._count]
        tokens[:] = 0
        self.limits[FREE_BLOCKS] = self.free_blocks
        return form(self, tokens, self.counts, now) != 0

    def _form_in_more_room(self, form: Former, now: float) -> bool:
        """Forms a step after waiting requests have released the blocks of found prefixes."""
        dropped = let_go(self.rows, now)
        self.dropped_tokens += dropped
        if not dropped:
            return False
        self.shared_prefixes.dropped(self.indexes[self.rows[:, RESIDENT] == 0].tolist())
        return self._form(form, now)

    def _drop_evicted(self, metrics: RequestMetrics) -> None:
        """Applies the evictions of a former that has formed no step."""
        evicted = self._tokens[: self._count] == EVICT
        self.shared_prefixes.evicted(self.indexes[evicted].tolist())
        metrics[self.indexes[evicted], EVICTED] += 1
        self.dropped_tokens += float(self.rows[evicted, COMPUTED].sum())
        for column in (COMPUTED, RESIDENT):
            self.rows[evicted, column] = 0.0
        self._tokens[: self._count] = 0

    def _start(self, metrics: RequestMetrics, now: float, ends_s: float) -> None:
        count, sums = self._count, self._sums
        rows, after, seen = self._rows[:count], self._after[:count], self._seen[:count]
        tokens, indexes = self._tokens[:count], self._indexes[:count]
        uniforms = self._chance.uniforms(count) if self.hardware.draft else _NO_NUMBERS
        block = self._block
        start(rows, after, seen, tokens, indexes, metrics, uniforms, sums, block, now, ends_s)
        given, dropped, residents, drafting, used = sums.tolist()
        self.computed_tokens += given
        self.dropped_tokens += dropped
        if self.shared_prefixes.blocks:
            begun = (tokens > 0) & (rows[:, SHARED] > 0) & (rows[:, RESIDENT] == 0)
            self.shared_prefixes.begun(indexes[begun].tolist())
        if dropped:
            self.shared_prefixes.evicted(indexes[tokens == EVICT].tolist())
        self.drafted = self._note_drafts() if drafting else None
        free = self._unleased_blocks - used
        self._check(free, given, residents)
        if self.cache.blocks > free:
            self.cache.shrink(free)

    def _check(self, free: float, given: float, residents: float) -> None:
        """Refuses a step beyond the engine's limits, which would make its system look too good."""
        hardware = self.hardware
        most_tokens, most = hardware.max_step_tokens, hardware.max_running_requests
        if free < 0 or given > most_tokens or residents > most:
            raise RuntimeError(
                f"the former of {self.name} gave {-free:g} KV blocks more than there are, "
                f"{given:g} of {most_tokens} tokens, or places to {residents:g} of {most} requests"
            )

    def _note_drafts(self) -> Drafted:
        rows, seen = self.rows, self._seen[: self._count]
        drafting = np.flatnonzero(
            (self._tokens[: self._count] > 1) & (rows[:, DRAFT] > 0) & (seen[:, 2] > 0)
        )
        return Drafted(
            indexes=self.indexes[drafting],
            drafted=rows[drafting, DRAFT],
            accepted=seen[drafting, 2] - 1,
        )

    def _lasts_s(self) -> float:
        hardware = self.hardware
        lasts_s = float(noisy_s(hardware.step.numbers, self.counts, self._chance.normal()))
        if hardware.stall_chance and self._chance.uniform() < hardware.stall_chance:
            lasts_s += hardware.stall_s
        return lasts_s

    def _grow(self) -> None:
        more = len(self._indexes)
        self._rows = np.concatenate([self._rows, empty(more)])
        self._after = np.concatenate([self._after, empty(more)])
        self._indexes = np.concatenate([self._indexes, np.zeros_like(self._indexes)])
        self._prefill_only = np.concatenate([self._prefill_only, np.zeros(more, dtype=np.bool_)])
        self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
        self._ended = np.concatenate([self._ended, np.zeros_like(self._ended)])
        self._started = np.concatenate([self._started, np.zeros_like(self._started)])
        self._sent = np.concatenate([self._sent, np.zeros_like(self._sent)])
        self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
