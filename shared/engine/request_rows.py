"""The rows of one engine core's requests, kept true from step to step. Knows neither vLLM nor a
clock; what a step holds is the step former's to say.

A row is ahead of what has happened: once a token is in a step that runs, the row tells of the next
one, due a pace later. When the step ends, the guess of when it would is put right.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import FloatArray
from shared.engine.advance import land, queued_tokens, run_as, run_freely, run_planned
from shared.engine.aging import Aging
from shared.engine.new_rows import pace_s
from shared.scheduling.due import change_pace
from shared.scheduling.former import StepFormer, StepPlan
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    COMPUTED,
    DEADLINE,
    DRAFT,
    GENERATED,
    KIND,
    NO_SLO,
    PROMISED,
    REMAINING,
    RESIDENT,
    TOKENS_PER_STEP,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.terms import Terms

Request = TypeVar("Request")
Slots = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
_FIRST_SLOTS = 64


@dataclass(slots=True, eq=False)
class Flight:
    """A step that runs: by request, when the token that it gives is due (inf: it gives none, or it
    was not promised), and whether that is its first.
    """

    slots: Slots
    serials: Slots
    due_s: FloatArray
    first: Mask
    ends_s: float  # as predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Promised tokens of one step that came after their deadline."""

    tokens: int = 0
    worst_s: float = 0.0


_IN_TIME = Late()


@dataclass(slots=True)
class _Seat:
    terms: Terms
    in_turn: bool
    stage: int = 0

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        stages = self.terms.stages
        return stages[self.stage].end_token_ids if self.stage < len(stages) - 1 else ()


class RequestRows(Generic[Request]):
    """Requests by id and by slot. `former` holds their rows."""

    def __init__(self, former: StepFormer) -> None:
        self.former = former
        self._seats: dict[str, _Seat] = {}
        self._slots: dict[str, int] = {}
        self._requests: list[Request | None] = [None] * _FIRST_SLOTS
        self._serials = np.zeros(_FIRST_SLOTS, dtype=np.intp)
        self._last_serial = 0
        self._out_of_turn = 0
        self._staged: set[str] = set()  # their pace will change
        self._held: dict[str, float] = {}  # when they could run before they were held
        self._aging = Aging()
        # Compiled here rather than in the first step.
        self.take_off_freely({})
        self.take_off_as((), (), (), (), 0.0)
        self.land(self.take_off(former.form(0.0), 0.0), 0.0)
        queued_tokens(former.rows)

    @property
    def rows(self) -> Rows:
        """Of all that still have something to give."""
        rows = self.former.rows
        return rows[rows[:, REMAINING] > 0]

    @property
    def queued_prefill_tokens(self) -> int:
        """Not computed yet of the prompts in the engine."""
        return int(queued_tokens(self.former.rows))

    @property
    def all_in_turn(self) -> bool:
        """Whether no request has an SLO, so that the first to come may go first."""
        return not self._out_of_turn

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._seats

    # -- coming and going ---------------------------------------------------------------------

    def add(
        self, request_id: str, request: Request, terms: Terms, row: FloatArray, priority: int = 0
    ) -> None:
        slot = self.former.add(row)
        while slot >= len(self._requests):
            self._requests += [None] * len(self._requests)
            self._serials = np.concatenate([self._serials, np.zeros_like(self._serials)])
        self._last_serial += 1
        self._requests[slot], self._serials[slot] = request, self._last_serial
        in_turn = bool(row[KIND] == NO_SLO and not priority)
        self._slots[request_id] = slot
        self._seats[request_id] = _Seat(terms, in_turn)
        self._out_of_turn += not in_turn
        if any(stage.end_token_ids for stage in terms.stages[:-1]):
            self._staged.add(request_id)

    def remove(self, request_id: str) -> None:
        """Unknown ones are no matter."""
        seat = self._seats.pop(request_id, None)
        if seat is not None:
            slot = self._slots.pop(request_id)
            self.former.remove(slot)
            self._out_of_turn -= not seat.in_turn
            self._aging.left(request_id)
            self._held.pop(request_id, None)
            self._requests[slot], self._serials[slot] = None, 0
            self._staged.discard(request_id)

    def wait(self, request_id: str, now: float) -> None:
        """It came just now; best effort is deferred only for that long."""
        if self.row(request_id)[KIND] == BEST_EFFORT:
            self._aging.came(request_id, now)

    def age(self, now: float) -> None:
        """Best effort that has waited for too long takes its turn."""
        while (request_id := self._aging.next(now)) is not None:
            row = self.row(request_id)
            if row[GENERATED] == 0 or row[RESIDENT] == 0:
                row[KIND] = NO_SLO
            else:
                self._aging.left(request_id)  # it has begun meanwhile

    def hold(self, request_ids: Collection[str]) -> None:
        """Steps are formed without these until the next call, which names all anew."""
        for request_id, available_s in self._held.items():
            self.row(request_id)[AVAILABLE] = available_s
        self._held = {one: float(self.row(one)[AVAILABLE]) for one in request_ids}
        for request_id in self._held:
            self.row(request_id)[AVAILABLE] = math.inf

    def terms(self, request_id: str) -> Terms:
        return self._seats[request_id].terms

    def row(self, request_id: str) -> FloatArray:
        """To be read and to be changed."""
        changed: FloatArray = self.former.rows[self._slots[request_id]]
        return changed

    def of_slots(self, slots: Iterable[int]) -> list[Request]:
        """The requests in these slots, in this order."""
        found = [self._requests[slot] for slot in slots]
        return [one for one in found if one is not None]

    def is_promised(self, request_id: str) -> bool:
        return bool(self.row(request_id)[KIND] == PROMISED)

    # -- a step -------------------------------------------------------------------------------

    def set_drafts(self, drafts: Iterable[tuple[str, int]], gain: Callable[[str], float]) -> None:
        """How many tokens are drafted for each of these, and what `gain` says of its class."""
        for request_id, drafted in drafts:
            row = self.row(request_id)
            row[DRAFT] = drafted
            row[TOKENS_PER_STEP] = (
                gain(self._seats[request_id].terms.class_name) if drafted else 1.0
            )

    def take_off(self, plan: StepPlan, ends_s: float) -> Flight:
        """The step runs just as planned, without drafts, and is to end at `ends_s`."""
        slots = plan.order
        due_s, first = np.empty(len(slots)), np.empty(len(slots), dtype=np.bool_)
        run_planned(self.former.rows, slots, plan.tokens, ends_s, due_s, first)
        return self._flight(slots, due_s, first, ends_s)

    def take_off_freely(self, scheduled: Mapping[str, int]) -> FloatArray:
        """vLLM runs a step of its own, with so many tokens for each; returns the step's counts.

        For times when `all_in_turn`: nothing of it is due, so there is nothing to land.
        """
        tokens = np.fromiter(scheduled.values(), np.int64, len(scheduled))
        return run_freely(self.former.rows, self._slots_of(scheduled), tokens)

    def begin(self, request_id: str, *, computed: int, total: int, now: float) -> None:
        """It gets a place; with what its KV came to meanwhile."""
        row = self.row(request_id)
        row[COMPUTED], row[TOTAL], row[RESIDENT] = computed, total, 1.0
        row[AVAILABLE] = min(row[AVAILABLE], now)

    def take_off_as(
        self,
        request_ids: Collection[str],
        computed: Sequence[int],
        total: Sequence[int],
        gives: Sequence[bool],
        ends_s: float,
    ) -> Flight:
        """The same for a step that became another one: how each of its requests stands now.

        `computed` and `total` count this step as done; `gives`: whether a token comes of it.
        """
        slots = self._slots_of(request_ids)
        counts = np.array(computed, dtype=np.float64), np.array(total, dtype=np.float64)
        return self._advance(slots, *counts, np.array(gives, dtype=np.bool_), ends_s)

    def _slots_of(self, request_ids: Collection[str]) -> Slots:
        return np.fromiter(map(self._slots.__getitem__, request_ids), np.intp, len(request_ids))

    def _advance(
        self, slots: Slots, computed: FloatArray, total: FloatArray, gives: Mask, ends_s: float
    ) -> Flight:
        due_s, first = np.empty(len(slots)), np.empty(len(slots), dtype=np.bool_)
        run_as(self.former.rows, slots, computed, total, gives, ends_s, due_s, first)
        return self._flight(slots, due_s, first, ends_s)

    def _flight(self, slots: Slots, due_s: FloatArray, first: Mask, ends_s: float) -> Flight:
        return Flight(
            slots=slots, serials=self._serials[slots], due_s=due_s, first=first, ends_s=ends_s
        )

    def land(self, flight: Flight, now: float) -> Late:
        """The step has ended: first tokens start their pace now, late ones are reported."""
        late, worst_s = land(
            self.former.rows,
            self._serials,
            flight.slots,
            flight.serials,
            flight.due_s,
            flight.first,
            flight.ends_s - now,
            now,
        )
        return Late(tokens=late, worst_s=worst_s) if late else _IN_TIME

    def correct(self, request_id: str, *, more: int, computed: int, total: int) -> None:
        """A step gave `more` tokens than the one that was counted for it."""
        row = self.row(request_id)
        row[COMPUTED], row[TOTAL] = computed, total
        row[GENERATED] += more
        row[REMAINING] -= more
        if more and row[DEADLINE] < math.inf:
            row[DEADLINE] += more * row[TPOT]

    def evicted(self, request_id: str, lost_tokens: int) -> None:
        """Its KV is gone; promise and pace stay. `lost_tokens` it was to give in steps that run."""
        row = self.row(request_id)
        row[COMPUTED] = row[RESIDENT] = row[DRAFT] = 0.0
        row[TOTAL] -= lost_tokens
        row[GENERATED] -= lost_tokens
        row[REMAINING] += lost_tokens
        if lost_tokens and row[DEADLINE] < math.inf:
            row[DEADLINE] -= lost_tokens * row[TPOT]

    # -- stages -------------------------------------------------------------------------------

    @property
    def staged(self) -> frozenset[str]:
        """The requests with tokens that must be shown to `produced`."""
        return frozenset(self._staged)

    def produced(self, request_id: str, token_ids: Iterable[int], ahead: int, now: float) -> None:
        """Starts the next stage where one of these tokens ends the one before.

        `ahead`: how many of its tokens are in steps that run.
        """
        seat = self._seats[request_id]
        if not set(seat.end_token_ids).intersection(token_ids):
            return
        seat.stage += 1
        change_pace(self.row(request_id), pace_s(seat.terms, seat.stage), ahead, now)
        if not seat.end_token_ids:
            self._staged.discard(request_id)
