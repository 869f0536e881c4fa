"""The state of one service in Ray Serve."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """A service. `others` are actors that start, stop or are being replaced."""

    status: str
    message: str
    running: int
    others: int


def state_of(application: Any, deployment: str) -> ServiceState:
    """The state from Serve's overview of an application with one deployment of this name."""
    found = application.deployments.get(deployment)
    by_state = found.replica_states if found else {}
    counts = {str(getattr(state, "value", state)): number for state, number in by_state.items()}
    messages = (application.message, found.message if found else "")
    return ServiceState(
        status=str(application.status.value),
        message="\n".join(filter(None, messages)),
        running=counts.pop("RUNNING", 0),
        others=sum(counts.values()),
    )
