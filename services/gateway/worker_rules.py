"""What a gateway of several workers divides and refuses, and how often it replaces one."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.errors import ConfigError

MOST_WORKERS: Final = 64
_OFF: Final = frozenset({"", "0", "false"})
# Settings with state that one process would keep for itself.
_VARIABLES: Final = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "an adapter would be known to the worker that loaded it",
    "VLLM_ENABLE_RESPONSES_API_STORE": "a response would be stored in the worker that made it",
}
_OPTIONS_OF_VLLM: Final = {
    "enable_server_load_tracking": "/load would show the requests of one worker",
}


def portion(limit: int, workers: int) -> int:
    """One worker's part of a limit of the whole gateway, rounded up."""
    return -(-limit // workers)


def refuse_state_of_one_process(
    workers: int, vllm: Mapping[str, Any], environ: Mapping[str, str]
) -> None:
    """Raises ConfigError where several workers would answer differently from one."""
    if workers == 1:
        return
    for name, why in _VARIABLES.items():
        if environ.get(name, "").strip().lower() not in _OFF:
            raise _refused(name, why)
    for name, value in vllm.items():
        why = _OPTIONS_OF_VLLM.get(name.replace("-", "_"), "")
        if why and value:
            raise _refused(f"vllm.{name}", why)


def _refused(setting: str, why: str) -> ConfigError:
    return ConfigError(f"{setting} needs workers: 1, since {why}; leave one of the two out")


@dataclass(slots=True, kw_only=True)
class RestartBudget:
    """Allows at most `restarts` within any `window_s` seconds."""

    restarts: int
    window_s: float
    _at_s: deque[float] = field(default_factory=deque, init=False)

    def take(self, now: float) -> bool:
        """Whether one more restart is allowed at `now`; if so, it is counted."""
        while self._at_s and self._at_s[0] <= now - self.window_s:
            self._at_s.popleft()
        if len(self._at_s) >= self.restarts:
            return False
        self._at_s.append(now)
        return True
