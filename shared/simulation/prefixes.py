"""Whose KV a prompt may begin with, and what a request leaves for others. Holds no blocks."""

from shared.simulation.engine import SimEngine
from shared.simulation.system import Ticket
from shared.workloads.calls import Load


class Prefixes:
    """By the name of the program that brought them: earlier calls of the same, or of another."""

    def __init__(self, load: Load) -> None:
        self._shared = {call.prefix_group for program in load for call in program.calls}
        self._calls = {program.program_id: len(program.calls) for program in load}

    def find(self, engine: SimEngine, ticket: Ticket) -> int:
        """Tokens of its prompt that this engine still has. What a program left there is its own
        from now on, what others may begin with as well stays.
        """
        call = ticket.call
        if not call.prefix_tokens:
            return 0
        name = call.prefix_group or ticket.program_id
        most = min(call.prefix_tokens, ticket.prompt_tokens - 1)
        return engine.find(name, most, stays=name in self._shared)

    def keep(self, engine: SimEngine, ticket: Ticket, tokens: int) -> None:
        """What is left in an engine's cache when so many tokens of a request are not needed."""
        call = ticket.call
        if call.prefix_group is not None:
            engine.keep(call.prefix_group, call.prefix_tokens)
        more = ticket.round + 1 < self._calls[ticket.program_id]
        if more or ticket.program_id in self._shared:
            engine.keep(ticket.program_id, tokens)
