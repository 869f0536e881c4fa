"""The engines of one round of promises, with what the round has given away of each."""

from functools import cached_property

from services.planner.admission.feasibility import EngineWhatIf
from services.planner.admission.placement_options import Fleet
from services.planner.admission.predict import Loads
from services.planner.estimators.kv_demand import KvRanks
from services.planner.estimators.kv_forecast import Classes
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from services.planner.state.tenants import ExpectedRequest
from shared.batch_time import StepTable
from shared.engines import Role


class RoundWhatIfs:
    """One what-if for each engine that a round looks at, made when it is first needed."""

    def __init__(self, state: ClusterState, kv_ranks: KvRanks, now: float) -> None:
        self.state = state
        self.fleet = Fleet(state)
        self.loads = Loads(state)
        self.now = now
        self._reached_at_s = now + state.client_latency.there_s  # when a request placed now arrives
        self._what_ifs: dict[str, EngineWhatIf] = {}
        self._given: dict[str, EngineWhatIf] = {}  # as earlier calls of `promise` left them
        self._aside: list[ExpectedRequest] = []
        self._classes = Classes(state.survival, kv_ranks)

    def set_aside(self, expected: ExpectedRequest) -> None:
        """Later calls of `promise` leave room on each engine for one more request like this."""
        self._aside.append(expected)
        for what_if in self._what_ifs.values():
            self._leave_room(what_if, expected)

    def _leave_room(self, what_if: EngineWhatIf, expected: ExpectedRequest) -> None:
        demand = expected.asked_at(self.now)
        prefills = what_if.engine.description.role is Role.PREFILL
        row = (demand.prompt_only if prefills else demand.whole)(0, self.now)
        what_if.give(row[None], [expected.class_name])

    @cached_property
    def ahead_s(self) -> float:
        """Seconds of promised prompts per engine, on average, when the round began."""
        return self.state.ahead_s

    def what_if(self, engine: EngineState) -> EngineWhatIf | None:
        """The engine's what-if; None where no step times are known."""
        table = engine.table or self.state.any_table
        if table is None:
            return None
        if engine.name not in self._what_ifs:
            self._what_ifs[engine.name] = self._seated(engine, table)
        return self._what_ifs[engine.name]

    def _seated(self, engine: EngineState, table: StepTable) -> EngineWhatIf:
        what_if = EngineWhatIf.of(
            engine, table, self.now, self._classes, self.state.client_latency.back_s
        )
        if engine.description.max_speculation_tokens:
            prior = self.state.prior_drafts("", self.now)
            self.state.policies.drafting.count_on(what_if.rows, prior)
        for expected in self._aside:
            self._leave_room(what_if, expected)
        return what_if
