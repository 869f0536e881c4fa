"""Decides which cached prefix a prompt begins with, and which one a request leaves."""

from shared.simulation.engine import SimEngine
from shared.simulation.system import Ticket
from shared.workloads.calls import Load


class Prefixes:
    """Prefixes are named by the program that computed them, or by their group."""

    def __init__(self, load: Load) -> None:
        self._shared = {call.prefix_group for program in load for call in program.calls}
        self._calls = {program.program_id: len(program.calls) for program in load}

    def find(self, engine: SimEngine, ticket: Ticket) -> int:
        """Tokens of the prompt in this engine's cache.

        A prefix that only this program uses leaves the cache; one that others may use stays.
        """
        call = ticket.call
        if not call.prefix_tokens:
            return 0
        name = call.prefix_group or ticket.program_id
        most = min(call.prefix_tokens, ticket.prompt_tokens - 1)
        return engine.find(name, most, stays=name in self._shared)

    def cached(self, engine: SimEngine, ticket: Ticket) -> int:
        """What `find` would return, which this does not count as a use."""
        call = ticket.call
        name = call.prefix_group or ticket.program_id
        most = min(call.prefix_tokens, ticket.prompt_tokens - 1)
        return engine.whole_blocks(min(most, engine.cache.tokens(name)))

    def keep(self, engine: SimEngine, ticket: Ticket, tokens: int) -> None:
        """Caches the prefixes that a request leaves on an engine; `tokens` of it were computed."""
        call = ticket.call
        if call.prefix_group is not None:
            engine.keep(call.prefix_group, call.prefix_tokens)
        more = ticket.call_number + 1 < self._calls[ticket.program_id]
        if more or ticket.program_id in self._shared:
            engine.keep(ticket.program_id, tokens)
