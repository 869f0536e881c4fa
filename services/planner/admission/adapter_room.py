"""For which LoRA adapters engines have room."""

from collections.abc import Iterable

from services.planner.admission.placement_options import Ways
from services.planner.state.engine_state import EngineState


class AdapterRoom:
    """The adapters on each engine during one round.

    An engine runs requests of at most `adapter_slots` adapters at once, and makes those of others
    wait. An adapter that may come to an engine in this round counts there until the round ends.
    """

    def __init__(self, engines: Iterable[EngineState]) -> None:
        self._adapters = {
            one.name: one.adapters for one in engines if one.description.adapter_slots
        }

    def ways_for(self, adapter: int, ways: Ways) -> Ways:
        """The ways over engines with room for the adapter (0: none), which takes its place there.
        No way may be left.
        """
        if not adapter:
            return ways
        open_ways = ways.over(lambda engine: self._has_room(engine, adapter))
        for engine in {*open_ways.on_one, *open_ways.prefills, *open_ways.decodes}:
            self._adapters[engine.name] |= {adapter}
        return open_ways

    def _has_room(self, engine: EngineState, adapter: int) -> bool:
        there = self._adapters.get(engine.name, frozenset())
        return adapter in there or len(there) < engine.description.adapter_slots
