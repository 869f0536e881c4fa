"""Tests whether an engine can keep one more promise, by simulating it with its own step former."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.planner.admission.kv_room import KvRoom
from services.planner.admission.mean_paces import with_mean_paces
from services.planner.estimators.kv_forecast import Classes, ClassIndices
from services.planner.state.engine_state import EngineState
from services.planner.tuning import GAIN_MARGIN, NO_LATER_S, POOR_LUCK, SLOWER
from shared.batch_time import Step, StepTable
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.requests import Reason
from shared.scheduling.rows import (
    DEADLINE,
    DRAFT,
    GENERATED,
    GRACE,
    KIND,
    NO_SLO,
    PROMISED,
    TOKENS_PER_STEP,
    TPOT,
    Rows,
)
from shared.scheduling.simulate import NOBODY, Flags, Forecast, at_stake, simulate
from shared.scheduling.steady import steady_state_utilization


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feasibility:
    """The result of testing one more request.

    Attributes:
        reason: NONE where all promises are kept, else why not.
        first_s: When its first token would come, on the planner's clock; inf: unknown.
        pace_s: Its TPOT; nan: unknown.
        late: Whether the simulation found this request late.
        others_late: How many requests promised before it found late. The simulation ends at the
            first late request, so that more may be.
        leaves_kv: Whether there is room, which it leaves to requests that take less KV.
    """

    reason: Reason
    first_s: float = math.inf
    pace_s: float = math.nan
    late: bool = False
    others_late: int = 0
    leaves_kv: bool = False

    @property
    def kept(self) -> bool:
        return self.reason is Reason.NONE

    def obstacle(self, engine: str) -> str:
        """Why the engine of this name cannot promise the request, in words."""
        if self.leaves_kv:
            return f"{engine} leaves its room to requests that take less KV, as more is asked for"
        if self.reason is Reason.MEMORY:
            return f"{engine} has no room for it beside what it has promised"
        if self.others_late:
            plural = "s" if self.others_late > 1 else ""
            return f"at least {self.others_late} promised request{plural} on {engine} would be late"
        if self.late:
            return f"{engine} would be late with it"
        return f"the promised paces would take more of {engine}'s time than is allowed"


@dataclass(slots=True, eq=False)
class EngineWhatIf:
    """One engine in a round: its standing requests, and those that the round gave to it."""

    engine: EngineState
    table: StepTable
    now: float
    classes: Classes
    rows: Rows
    class_indices: ClassIndices
    delivery_s: float  # from the engine to the client, where promises have to be kept
    # Cached until another request is given to the engine.
    _kv_blocks: float | None = None
    _utilization: float | None = None
    _tightest_s: float | None = None
    _tighter: Rows | None = None
    _at_stake: Flags | None = None
    _baseline_forecast: Forecast | None = None

    @classmethod
    def of(
        cls,
        engine: EngineState,
        table: StepTable,
        now: float,
        classes: Classes,
        delivery_s: float,
    ) -> "EngineWhatIf":
        rows = engine.standing_rows(now)
        class_indices = classes.indices(engine.classes(rows))
        return cls(engine, table, now, classes, rows, class_indices, delivery_s)

    @property
    def kv_room(self) -> KvRoom:
        return KvRoom(self.engine, self.classes)

    @property
    def kv_blocks(self) -> float:
        """KV blocks that all its requests will need at once."""
        if self._kv_blocks is None:
            self._kv_blocks = self.kv_room.needed_blocks(self.rows, self.class_indices)
        return self._kv_blocks

    @property
    def utilization(self) -> float:
        """The share of its time that promised TPOTs take; above 1 is too much."""
        if self._utilization is None:
            self._utilization = self._steady(self.tighter, self.class_indices)
        return self._utilization

    @property
    def tighter(self) -> Rows:
        """Its rows, with the safety margin subtracted from the promised times."""
        if self._tighter is None:
            self._tighter = self._with_margin(self.rows)
        return self._tighter

    @property
    def at_stake(self) -> Flags:
        """The rows that could still be on time."""
        if self._at_stake is None:
            self._at_stake = at_stake(self.rows, self.table, self.engine.free_at_s(self.now))
        return self._at_stake

    @property
    def baseline_forecast(self) -> Forecast:
        """The forecast without a newcomer."""
        if self._baseline_forecast is None:
            self._baseline_forecast = self._simulated(self.tighter)
        return self._baseline_forecast

    @property
    def late_in_baseline(self) -> Flags:
        """The rows at stake that are short of the safety margin even without a newcomer."""
        return self.baseline_forecast.late(self.tighter) & self.at_stake

    @property
    def tightest_s(self) -> float:
        if self._tightest_s is None:
            paces_s = self.rows[self.rows[:, KIND] == PROMISED, TPOT]
            self._tightest_s = float(paces_s.min()) if len(paces_s) else math.inf
        return self._tightest_s

    def would_slow_down(self, pace_s: float) -> bool:
        """Whether steps as short as this pace leave notably less of their time to prompts than
        those of the tightest pace promised here. Each step has a fixed time, that of one decode.
        """
        if self.tightest_s == math.inf or pace_s >= self.tightest_s:
            return False
        fixed_s = self.table.sure_s(Step(decodes=1))
        free, at_most = 1 - fixed_s / pace_s, 1 - fixed_s / self.tightest_s
        return SLOWER * max(0.0, free) < at_most

    def try_one(self, row: FloatArray, class_name: str) -> Feasibility:
        """Tests whether all promises hold with this request added."""
        return self.try_all(row[None], [class_name])[0]

    def try_all(self, newcomers: Rows, class_names: Sequence[str]) -> list[Feasibility]:
        """Tests whether all promises hold with all of these requests added; one result for each.

        The simulation ends at the first late request. A request that is late under every plan does
        not count against newcomers. Nor does one that is short of the safety margin without them,
        unless they delay it, or make a prompt late that would be on time.
        """
        no = self.quick_no(newcomers, class_names)
        return self._with_all(newcomers) if no is None else [no] * len(newcomers)

    def quick_no(self, newcomers: Rows, class_names: Sequence[str]) -> Feasibility | None:
        """Why not all of these requests can be added, where memory or the steady state alone tells;
        None where a simulation has to. It takes a fiftieth of the time of one.
        """
        stacked = np.vstack([self.rows, newcomers])
        class_indices = np.concatenate([self.class_indices, self.classes.indices(class_names)])
        free = self.kv_room.free_blocks(stacked, class_indices)
        if free < 0:
            return Feasibility(reason=Reason.MEMORY)
        if free < self.kv_room.left_blocks(stacked, class_indices, len(newcomers)):
            return Feasibility(reason=Reason.MEMORY, leaves_kv=True)
        rows = np.vstack([self.tighter, self._with_margin(newcomers)])
        if self._steady(rows, class_indices) > max(1.0, self.utilization):
            return Feasibility(reason=Reason.COMPUTE)
        return None

    def _steady(self, rows: Rows, class_indices: ClassIndices) -> float:
        """The share of its time that promised paces take."""
        paced = with_mean_paces(rows, class_indices, self.classes.later_tokens, self.now)
        return steady_state_utilization(paced, self.table)

    def simulate_one(self, row: FloatArray) -> Feasibility:
        """`try_one` after `quick_no` found nothing."""
        return self._with_all(row[None])[0]

    def _with_all(self, newcomers: Rows) -> list[Feasibility]:
        n = len(newcomers)
        rows = np.vstack([self.tighter, self._with_margin(newcomers)])
        forecast, late = self._late_with(rows, self.at_stake)
        if late[:-n].any() and (late[:-n] <= self.late_in_baseline).all():
            forecast, late = self._late_with(rows, self.at_stake & ~self.late_in_baseline)
            late[:-n] |= self.late_in_baseline & self._later(forecast)
        return [
            Feasibility(
                reason=Reason.COMPUTE if late.any() else Reason.NONE,
                first_s=float(forecast.first_s[i]),
                pace_s=float(forecast.pace_s[i]),
                late=bool(late[i]),
                others_late=int(late[:-n].sum()),
            )
            for i in range(len(self.rows), len(rows))
        ]

    def _later(self, forecast: Forecast) -> Flags:
        """The rows that newcomers delay by more than NO_LATER_S, or by any time if that makes a
        first token late that was in time: many newcomers may add a little each.
        """
        n, before = len(self.rows), self.baseline_forecast
        worst_s = forecast.worst_late_s[:n]
        spare_s = np.where(self.rows[:, GENERATED] > 0, np.inf, self._margin_s)
        broken: Flags = (worst_s > spare_s) & (before.worst_late_s <= spare_s)
        later: Flags = (forecast.first_s[:n] > before.first_s + NO_LATER_S) | (
            worst_s > before.worst_late_s + NO_LATER_S
        )
        return later | broken

    @property
    def _margin_s(self) -> FloatArray:
        """Seconds that the safety margin takes off each row's next deadline."""
        with np.errstate(invalid="ignore"):  # a row without a deadline: inf - inf, taken as 0
            taken_s: FloatArray = np.nan_to_num(self.rows[:, DEADLINE] - self.tighter[:, DEADLINE])
        return np.maximum(0.0, taken_s)

    def tried(self, row: FloatArray) -> Feasibility:
        """Forecasts a request without a promise beside the others; `kept` where it would most
        likely meet its targets.
        """
        forecast = self._simulated(np.vstack([self.rows, row]), awaited=len(self.rows))
        first_s, pace_s = float(forecast.first_s[-1]), float(forecast.pace_s[-1])
        holds_pace = forecast.worst_late_s[-1] <= 0 or not pace_s > row[TPOT]
        in_time = first_s < math.inf and first_s <= row[DEADLINE] and holds_pace
        reason = Reason.NONE if in_time else Reason.COMPUTE
        return Feasibility(reason=reason, first_s=first_s, pace_s=pace_s)

    def leftover(self, row: FloatArray) -> Feasibility:
        """Forecasts the request without deadlines, with the time that promises leave."""
        unhurried = row.copy()
        unhurried[KIND], unhurried[DEADLINE] = NO_SLO, math.inf
        forecast = self._simulated(np.vstack([self.rows, unhurried]))
        return Feasibility(
            reason=Reason.COMPUTE,
            first_s=float(forecast.first_s[-1]),
            pace_s=float(forecast.pace_s[-1]),
        )

    def give(self, rows: Rows, class_names: Sequence[str]) -> None:
        self.rows = np.vstack([self.rows, rows])
        self.class_indices = np.concatenate([self.class_indices, self.classes.indices(class_names)])
        self._utilization = self._tightest_s = self._kv_blocks = None
        self._tighter = self._at_stake = self._baseline_forecast = None

    def _late_with(self, rows: Rows, guarded: Flags) -> tuple[Forecast, Flags]:
        """The forecast of all rows, and the guarded ones that are late; newcomers are guarded."""
        newcomers = np.ones(len(rows) - len(guarded), dtype=np.bool_)
        everyone = np.concatenate([guarded, newcomers])
        forecast = self._simulated(rows, everyone)
        return forecast, forecast.late(rows) & everyone

    def _simulated(
        self, rows: Rows, guarded: Flags | None = None, awaited: int = NOBODY
    ) -> Forecast:
        starts_s, limits = self.engine.free_at_s(self.now), self.engine.limits
        return simulate(rows, self.table, limits, starts_s, guarded=guarded, awaited=awaited)

    def _with_margin(self, rows: Rows) -> Rows:
        """A copy of the rows with the safety margin subtracted."""
        tighter, reserve = rows.copy(), self.engine.safety_margin
        _tighten(tighter, reserve.ttft_share, reserve.tpot_share, self.now)
        return tighter


@compiled
def _tighten(rows: Rows, ttft_share: float, tpot_share: float, now: float) -> None:
    """Subtracts the safety margin from promised times, in place.

    Adds slack for poor luck with drafts.
    """
    for i in range(len(rows)):
        if rows[i, KIND] == PROMISED and rows[i, GENERATED] == 0 and np.isfinite(rows[i, DEADLINE]):
            rows[i, DEADLINE] -= ttft_share * max(0.0, rows[i, DEADLINE] - now)
        rows[i, TPOT] *= 1 - tpot_share
        rows[i, TOKENS_PER_STEP] -= GAIN_MARGIN * (rows[i, TOKENS_PER_STEP] - 1)
        if rows[i, DRAFT] > 0 and np.isfinite(rows[i, TPOT]):
            luck_s = POOR_LUCK * rows[i, TPOT] * rows[i, TOKENS_PER_STEP]
            rows[i, GRACE] += luck_s
            if rows[i, GENERATED] > 0:
                rows[i, DEADLINE] += luck_s
