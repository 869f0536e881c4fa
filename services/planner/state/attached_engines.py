"""The attached engines: which may join, which serve, and what KV they hold."""

from collections import OrderedDict
from collections.abc import Iterator

from services.planner.planner_config import PlannerConfig
from services.planner.state.engine_state import EngineState
from services.planner.state.groups import Groups
from services.planner.state.prefix_index import PrefixIndex
from services.planner.state.registration import why_unfit
from services.planner.state.sessions import Sessions
from services.planner.tuning import SILENCE_LIMIT_S
from shared.batch_time import StepTable
from shared.bounded import remember
from shared.engines import EngineDescription, Role
from shared.ticks import TICK_S

_KEPT_TABLES = 1024
_HEARD = round(SILENCE_LIMIT_S / TICK_S)  # ticks of silence that are none


class AttachedEngines:
    """Attached engines by name. Keeps the step times of engines that left, and the ids of engines
    that lost their name to another one; both are bounded.
    """

    def __init__(self, numbers: PlannerConfig, now: float) -> None:
        self.numbers = numbers
        self.engines: dict[str, EngineState] = {}
        self.sessions = Sessions()
        self.prefixes = PrefixIndex()
        self._changed_at_s = now  # when the planner started, or an engine left or stalled
        self._tables: OrderedDict[str, StepTable] = OrderedDict()
        self._replaced: OrderedDict[str, None] = OrderedDict()  # engine ids
        self._groups = Groups()

    def register(self, description: EngineDescription) -> tuple[EngineState | None, str]:
        """The engine's state, or None and why it may not join.

        Replaces a silent engine of the same name; its process may then not come back. A process
        that registers again keeps the requests placed on it.
        """
        fleet = (engine.description for engine in self.engines.values())
        unfit = why_unfit(
            description,
            fleet,
            model=self.numbers.model,
            vllm_version=self.numbers.vllm_version,
        )
        unfit = unfit or self._why_not_again(description)
        if unfit:
            return None, unfit
        try:
            table = _table_of(description) or self._tables.get(description.name)
        except ValueError as error:
            return None, f"Engine {description.name} is refused: {error}."
        engine = EngineState(description=description, table=table)
        before = self.engines.get(description.name)
        if before and before.description.engine_id == description.engine_id:
            engine.inherit(before)
        elif before:
            remember(self._replaced, before.description.engine_id, None, _KEPT_TABLES)
            self.sessions.lost(before.name)
            self.prefixes.lost(before.name)
        self.engines[description.name] = engine
        return engine, ""

    def _why_not_again(self, description: EngineDescription) -> str:
        """Why this process may not take the name that it registers; empty when it may."""
        name, engine_id = description.name, description.engine_id
        before = self.engines.get(name)
        if self.was_replaced(engine_id):
            return (
                f"Engine {name} is refused: an engine that started later has taken over its name. "
                "Start it again under another one (--name)."
            )
        if before and before.description.engine_id != engine_id and before.silent_ticks < _HEARD:
            return (
                f"Engine {name} is refused: another engine of that name serves at "
                f"{before.description.address}. Give one of them another name (--name)."
            )
        return ""

    def was_replaced(self, engine_id: str) -> bool:
        """Whether an engine that started later has taken over the name of this one."""
        return engine_id in self._replaced

    def tick(self, now: float) -> bool:
        """Counts a tick of silence on every engine; whether one stopped serving for it."""
        before = sum(engine.serves for engine in self.engines.values())
        for engine in self.engines.values():
            engine.silent_ticks += 1
        changed = before != sum(engine.serves for engine in self.engines.values())
        if changed:
            self._changed_at_s = now
        return changed

    def is_overdue(self, engine: EngineState, overdue_s: float, now: float) -> bool:
        """Notes how many seconds the engine's core is overdue; whether that changes `stalled`."""
        before, engine.overdue_s = engine.stalled, overdue_s
        if engine.stalled and not before:
            self._changed_at_s = now
        return before is not engine.stalled

    def leave(self, engine: EngineState, now: float) -> None:
        """Removes the engine and its KV, unless another one has taken over its name."""
        if self.engines.get(engine.name) is engine:
            del self.engines[engine.name]
            self._changed_at_s = now
            self.sessions.lost(engine.name)
            self.prefixes.lost(engine.name)
            if engine.table is not None:
                remember(self._tables, engine.name, engine.table, _KEPT_TABLES)

    def _named(self, engine_id: str) -> str:
        """The name of the attached engine with this id; empty where there is none."""
        engines = self.engines.values()
        return next((one.name for one in engines if one.description.engine_id == engine_id), "")

    @property
    def any_table(self) -> StepTable | None:
        """The step times of the first engine that has any, to be used for those without."""
        return next((engine.table for engine in self.engines.values() if engine.table), None)

    def serving(self) -> Iterator[EngineState]:
        return (engine for engine in self.engines.values() if engine.serves)

    @property
    def model(self) -> str | None:
        """The name of the fleet's model; None while no option and no engine says it."""
        attached = next(iter(self.engines.values()), None)
        return self.numbers.model or (attached.description.model if attached else None)

    def in_grace(self, now: float) -> bool:
        """Whether the planner started, or lost an engine, within the last `grace_s`."""
        return now - self._changed_at_s <= self.numbers.grace_s

    def group_engines(
        self, group_id: str, now: float
    ) -> tuple[EngineState | None, EngineState] | None:
        """Prefill (None when co-located) and decode engine of a group, while both serve."""
        names = self._groups.engines(group_id, now)
        if names is None:
            return None
        prefill, decode = self._serving_by_name(names[0]), self._serving_by_name(names[1])
        if decode is None or (names[0] and prefill is None):
            return None
        return prefill, decode

    def _serving_by_name(self, name: str | None) -> EngineState | None:
        engine = self.engines.get(name or "")
        return engine if engine is not None and engine.serves else None

    @property
    def prefills_apart(self) -> bool:
        """Whether a prefill engine serves."""
        return any(engine.description.role is Role.PREFILL for engine in self.serving())

    def forget_old_holds(self, now: float) -> None:
        for engine in self.engines.values():
            engine.forget_old_holds(now)


def _table_of(description: EngineDescription) -> StepTable | None:
    return StepTable.from_bytes(description.step_time) if description.step_time else None
