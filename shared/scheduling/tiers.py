"""Groups paces into tiers, each 10 % wide."""

import math

import numpy as np
import numpy.typing as npt

_WIDTH = math.log(1.1)


def tier_of(tpot_s: float) -> float:
    """The number of a pace's tier, infinite for no pace; tighter tiers have lower numbers."""
    return round(math.log(tpot_s) / _WIDTH) if 0 < tpot_s < math.inf else math.inf


def tiers_of(paces_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The tiers of an array of paces."""
    with np.errstate(divide="ignore"):
        numbers: npt.NDArray[np.float64] = np.round(np.log(paces_s) / _WIDTH)
    return numbers
