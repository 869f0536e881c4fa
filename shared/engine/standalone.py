"""What a scheduler without gateway and planner decides: which SLO a request has, and whether to
promise it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.errors import ConfigError, InvalidRequest
from shared.scheduling.rows import AVAILABLE, DEADLINE, REMAINING, Rows
from shared.scheduling.simulate import Flags, at_stake, simulate
from shared.scheduling.steady import steady_state_utilization
from shared.scheduling.terms import Terms

TTFT_KEY: Final = "slo_ttft_ms"
TPOT_KEY: Final = "slo_tpot_ms"
CLASS_KEY: Final = "slo_class"
DEFAULT_CLASS: Final = "default"

_SETTINGS: Final = ("classes", "metrics_host", "metrics_port", "log_every_s")
_LOG_EVERY_S: Final = 60.0
_MS_PER_S: Final = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """The targets of one request; None: no such target."""

    class_name: str = DEFAULT_CLASS
    ttft_s: float | None = None
    tpot_s: float | None = None

    def terms(self, *, arrived_s: float) -> Terms:
        """As the step former takes them, on the clock of `arrived_s`."""
        return Terms(
            class_name=self.class_name,
            first_token_due_s=math.inf if self.ttft_s is None else arrived_s + self.ttft_s,
            tpot_s=self.tpot_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneSettings:
    """The value of `slos` in vLLM's `--additional-config`.

    Attributes:
        classes: Targets by class, for requests that name the class and leave a target out.
        metrics_port: Port of the Prometheus page; 0: no page.
        log_every_s: Time between two log lines about attainment.
    """

    classes: Mapping[str, Slo] = field(default_factory=lambda: {DEFAULT_CLASS: Slo()})
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    log_every_s: float = _LOG_EVERY_S


def settings_from(raw: Mapping[str, Any]) -> StandaloneSettings:
    """Reads the settings. Raises ConfigError for an unknown or invalid one."""
    unknown = sorted(set(raw) - set(_SETTINGS))
    if unknown:
        raise ConfigError(f"slos: {unknown[0]}: unknown; known are {', '.join(_SETTINGS)}")
    given = dict(raw)
    classes = given.pop("classes", {})
    if not isinstance(classes, Mapping):
        raise ConfigError("slos: classes: must map the name of a class to its targets")
    port = given.get("metrics_port", 0)
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"slos: metrics_port: {port!r} is no port")
    if not _is_positive(given.get("log_every_s", _LOG_EVERY_S)):
        raise ConfigError("slos: log_every_s: must be a number above 0")
    own = {name: _class_from(name, targets) for name, targets in classes.items()}
    return StandaloneSettings(classes={DEFAULT_CLASS: Slo(), **own}, **given)


def _class_from(name: str, raw: Any) -> Slo:
    if not isinstance(raw, Mapping) or set(raw) - {TTFT_KEY, TPOT_KEY}:
        raise ConfigError(f"slos: classes: {name}: give {TTFT_KEY}, {TPOT_KEY} or both")
    try:
        return Slo(
            class_name=name,
            ttft_s=_seconds(raw, TTFT_KEY, None),
            tpot_s=_seconds(raw, TPOT_KEY, None),
        )
    except InvalidRequest as error:
        raise ConfigError(f"slos: classes: {name}: {error}") from error


def slo_of(extra_args: Mapping[str, Any] | None, classes: Mapping[str, Slo]) -> Slo:
    """The SLO of a request: its own targets, else those of its class.

    Args:
        extra_args: The request's `vllm_xargs`.

    Raises InvalidRequest for a class that is not in `classes`, or a target that is no positive
    number.
    """
    given = extra_args or {}
    name = given.get(CLASS_KEY, DEFAULT_CLASS)
    if not isinstance(name, str) or name not in classes:
        raise InvalidRequest(f"{name!r} is no class of this server", param=CLASS_KEY)
    own = classes[name]
    return Slo(
        class_name=name,
        ttft_s=_seconds(given, TTFT_KEY, own.ttft_s),
        tpot_s=_seconds(given, TPOT_KEY, own.tpot_s),
    )


def _seconds(given: Mapping[str, Any], key: str, default_s: float | None) -> float | None:
    if key not in given:
        return default_s
    if not _is_positive(given[key]):
        raise InvalidRequest(f"{key} must be a number of milliseconds above 0", param=key)
    return float(given[key]) / _MS_PER_S


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def can_promise(
    rows: Rows, slot: int, table: StepTable | None, limits: FloatArray, now: float
) -> bool:
    """Whether the forecast meets all deadlines of row `slot` and makes no other promise late.

    Runs the engine's own step former from `now` on, twice more if another promise is late: one that
    is late without the newcomer as well does not count. `steady_state_utilization`
    bounds what the forecast does not reach: the paces of all promises together, for ever.

    Args:
        rows: All requests of the engine, the newcomer's row marked as promised; not changed.
        table: None while nothing is known of step times; then only a deadline that has passed
            cannot be met.
        limits: The engine's, as `StepFormer.limits` has them.
    """
    if table is None:
        return bool(now <= rows[slot, DEADLINE])
    tried, without = rows.copy(), rows.copy()
    # A grammar is taken as compiled at once: how long it takes is not known.
    tried[slot, AVAILABLE] = min(tried[slot, AVAILABLE], now)
    without[slot, REMAINING] = 0.0
    if steady_state_utilization(tried, table) > max(1.0, steady_state_utilization(without, table)):
        return False
    guarded = at_stake(tried, table, now)
    guarded[slot] = True
    late = _late(tried, guarded, table, limits, now)
    if late[slot] or not late.any():
        return not late[slot]
    late_anyway = simulate(without, table, limits, now).late(without)
    return not _late(tried, guarded & ~late_anyway, table, limits, now).any()


def _late(rows: Rows, guarded: Flags, table: StepTable, limits: FloatArray, now: float) -> Flags:
    late: Flags = simulate(rows, table, limits, now, guarded=guarded).late(rows) & guarded
    return np.asarray(late)
