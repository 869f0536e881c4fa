"""What the number of desired engines rests on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingNumbers:
    """`window_s` of requests is judged, and as much before it replayed, so that the fleet is as
    busy when it begins. `attainment` of the requests with targets is to be kept. A smaller fleet is
    enough when it attains that with steps `headroom` longer, for `hold_s`.
    """

    window_s: float = 120.0
    attainment: float = 0.95
    headroom: float = 0.1
    hold_s: float = 300.0
    most_requests: int = 3000
    most_engines: int = 256
