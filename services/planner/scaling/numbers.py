"""The operator's numbers for the desired engines."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingNumbers:
    """How the desired engines are computed.

    Attributes:
        window_s: The requests of this time are judged. As much before it is replayed too, so that
            the fleet is busy when the window begins.
        attainment: The share of requests with targets that is to be kept.
        headroom: A smaller fleet suffices if it attains that with steps longer by this share.
        hold_s: For how long it has to suffice before fewer engines are desired.
        most_requests, most_engines: Bounds of a replay.
    """

    window_s: float = 120.0
    attainment: float = 0.95
    headroom: float = 0.1
    hold_s: float = 300.0
    most_requests: int = 3000
    most_engines: int = 256
