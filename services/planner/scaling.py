"""How many engines of each role the fleet should have. Pure."""

from services.planner.engine_state import engines_by_role
from services.planner.state import ClusterState
from shared.engines import Role, ScaleAdvice


def present_is_enough(state: ClusterState) -> ScaleAdvice:
    """The advice while too few requests were seen for a better one."""
    present = engines_by_role(state.serving())
    prefill, decode = present[Role.PREFILL], present[Role.DECODE]
    return ScaleAdvice(
        desired_prefill=prefill,
        desired_decode=max(1, decode),
        present_prefill=prefill,
        present_decode=decode,
        window_s=0.0,
        reason="no window of requests was seen yet; the engines that serve are taken as enough",
    )
