"""Decides which cached prefix a prompt begins with, and which one a request leaves."""

from shared.simulation.engine import SimEngine
from shared.simulation.system import SimRequest
from shared.workloads.calls import Load


class Prefixes:
    """Prefixes are named by the program that computed them, or by their group."""

    def __init__(self, load: Load) -> None:
        self._shared = {call.prefix_group for program in load for call in program.calls}
        self._calls = {program.program_id: len(program.calls) for program in load}

    def find(self, engine: SimEngine, request: SimRequest) -> int:
        """Tokens of the prompt in this engine's cache.

        A prefix that only this program uses leaves the cache; one that others may use stays.
        """
        call = request.call
        if not call.prefix_tokens:
            return 0
        name = call.prefix_group or request.program_id
        most = min(call.prefix_tokens, request.prompt_tokens - 1)
        return engine.find(name, most, stays=name in self._shared)

    def share(self, engine: SimEngine, request: SimRequest) -> None:
        """Lets others find the request's prefix on this engine once its prompt is computed."""
        call = request.call
        if call.prefix_group is not None:
            engine.shared_prefixes.add(request.index, call.prefix_group, call.prefix_tokens)

    def cached(self, engine: SimEngine, request: SimRequest) -> int:
        """What `find` would return, which this does not count as a use."""
        call = request.call
        name = call.prefix_group or request.program_id
        most = min(call.prefix_tokens, request.prompt_tokens - 1)
        return engine.whole_blocks(min(most, engine.cache.tokens(name)))

    def keep(self, engine: SimEngine, request: SimRequest, tokens: int) -> None:
        """Caches the prefixes that a request leaves on an engine; `tokens` of it were computed."""
        call = request.call
        if call.prefix_group is not None:
            engine.keep(call.prefix_group, call.prefix_tokens)
        more = request.call_number + 1 < self._calls[request.program_id]
        if more or request.program_id in self._shared:
            engine.keep(request.program_id, tokens)
