"""The latest requests with their targets: the demand that a fleet has to serve.

Includes refused, best-effort and waiting requests: demand that the present fleet could not serve.
Bounded; times are on the planner's clock.
"""

import math
from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from services.planner.estimators.lengths import OutputLengths
from services.planner.state.demand import Demand
from shared.batch_time.table import FloatArray

# Columns of a request. DUE and TPOT are infinite without a target; DUE counts from the arrival.
# PACE and LATER are the TPOT and slack that engines get in place of TPOT (`grace`).
ARRIVES, PROMPT, CACHED, OUTPUT, DUE, TPOT, PACE, LATER, DRAFT, GAIN = range(10)
DEMAND_COLUMNS: Final = 10
_KEPT: Final = 16_384
_GOLDEN: Final = (math.sqrt(5) - 1) / 2

Demands = npt.NDArray[np.float64]


class RecentDemand:
    """A ring buffer of the latest requests, each in it once."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._demands: Demands = np.zeros((kept, DEMAND_COLUMNS))
        self._classes: list[tuple[str, int]] = [("", 0)] * kept  # and the most tokens allowed
        self._places: OrderedDict[str, int] = OrderedDict()  # by request id
        self._coming = 0  # how many requests came so far

    def __len__(self) -> int:
        return len(self._places)

    def add(self, request_id: str, class_name: str, demand: Demand) -> None:
        """Adds a decided request, or updates one that was deferred before."""
        place = self._places.get(request_id)
        if place is None:
            place = self._coming % len(self._demands)
            self._coming += 1
            if len(self._places) == len(self._demands):
                self._places.popitem(last=False)
            self._places[request_id] = place
        self._classes[place] = class_name, demand.max_output_tokens
        self._demands[place] = _numbers(demand)

    def ended(self, request_id: str, output_tokens: int) -> None:
        """Notes the length of an answer; ignores unknown requests."""
        place = self._places.get(request_id)
        if place is not None and output_tokens > 0:
            self._demands[place, OUTPUT] = output_tokens

    def since(self, from_s: float, lengths: OutputLengths) -> Demands:
        """The requests since `from_s`, in order of arrival. Answers that have not ended get
        quantiles of their class, spread by a golden-ratio sequence.
        """
        places = np.fromiter(self._places.values(), dtype=np.int64, count=len(self._places))
        places = places[self._demands[places, ARRIVES] >= from_s]
        demands = self._demands[places]
        for number in np.flatnonzero(np.isnan(demands[:, OUTPUT])):
            class_name, most_tokens = self._classes[places[number]]
            share = (int(places[number]) * _GOLDEN) % 1.0
            demands[number, OUTPUT] = lengths.quantile(class_name, most_tokens, share)
        ordered: Demands = demands[np.argsort(demands[:, ARRIVES], kind="stable")]
        return ordered


def _numbers(demand: Demand) -> FloatArray:
    row = np.empty(DEMAND_COLUMNS)
    row[ARRIVES], row[PROMPT] = demand.arrived_at_s, demand.prompt_tokens
    row[CACHED] = demand.prompt_tokens - demand.least_to_compute
    row[OUTPUT] = math.nan
    row[DUE] = demand.due_s - demand.delivery_s - demand.arrived_at_s
    row[TPOT], row[PACE] = demand.tpot_s, demand.grace.pace_s
    row[LATER] = demand.grace.later_s
    row[DRAFT], row[GAIN] = demand.drafts.tokens, demand.drafts.gain
    return row
