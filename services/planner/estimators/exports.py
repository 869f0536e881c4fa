"""Learns how late engines export cached prefixes, and how often in vain. Bounded."""

from collections import OrderedDict
from dataclasses import dataclass, field

from services.planner.estimators.fading import UNSEEN, Fading, learn
from services.planner.tuning import LEAST_TRANSFER_SHARE
from shared.requests import PrefixExport, PrefixSource


@dataclass(slots=True)
class Exports:
    """Exports by the name of the source. What is learned of them fades like that of transfers.

    A source that does not answer in time looks slow, and the prefix is computed after all. Both are
    learned, since a request that pulls risks both times.
    """

    _delays: OrderedDict[str, Fading] = field(default_factory=OrderedDict)
    _failed: OrderedDict[str, Fading] = field(default_factory=OrderedDict)

    def likely_s(self, source: str, forecast_s: float, now: float) -> float:
        """Expected seconds of an export that takes `forecast_s` by the load of its source."""
        delay_s = self._delays.get(source, UNSEEN).value(now)
        return max(LEAST_TRANSFER_SHARE * forecast_s, forecast_s + delay_s)

    def failed_share(self, source: str, now: float) -> float:
        """The share of exports, 0 to 1, after which the prefix was computed."""
        return self._failed.get(source, UNSEEN).value(now)

    def learn(self, source: PrefixSource, export: PrefixExport, now: float) -> None:
        """Learns from an export that has ended."""
        name = source.engine.name
        learn(self._failed, name, float(not export.exported), now)
        learn(self._delays, name, export.seconds - source.forecast_s, now)
