"""Switches off gRPC's event engine, which passes each message through two more threads.

With it a gateway, which handles one message per step of each engine, spends more on these threads
than on anything else per token.
"""

from collections.abc import MutableMapping
from typing import Final

_VARIABLE: Final = "GRPC_EXPERIMENTS"
_WITHOUT: Final = ",".join(  # a `-` switches one of its parts off
    f"-event_engine_{part}"
    for part in ("client", "listener", "callback_cq", "for_all_other_endpoints")
)


def without_event_engine(environ: MutableMapping[str, str]) -> None:
    """Sets what gRPC reads when it starts, unless the operator has set it. Call it before that."""
    environ.setdefault(_VARIABLE, _WITHOUT)
