"""Computes the number of engines that the last window of requests needed.

The caller gets a `Question` from the state, has it answered elsewhere, which takes up to a second
of a core, and gives the answer back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from services.planner.longest_step import longest_step_s
from services.planner.scaling.fleet_rows import Floats
from services.planner.scaling.fleet_size import FleetSize, grown, shrunk
from services.planner.scaling.hysteresis import Hysteresis
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.recent_demand import ARRIVES, CACHED, DUE, PROMPT, Demands
from services.planner.scaling.replay import Replayed, replay
from services.planner.scaling.site import Site
from services.planner.scaling.work import least_for_work
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState, engines_by_role
from services.planner.tuning import SURELY_SHORT
from shared.batch_time import StepTable
from shared.engines import Role, ScaleAdvice
from shared.scheduling.former import engine_limits

_ALONE: Final = FleetSize(prefill=0, decode=1)
_LATELY: Final = 1 / 3  # the last part of the window, which has to be kept as well
_UNIT_ENGINES: Final = 8  # the least size to which a larger fleet is scaled down for its replay


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """A window of requests, with times relative to its end, and the present fleet. For a large
    fleet every `unit`-th request is replayed, on a fleet smaller by the same factor.
    """

    demands: Demands
    site: Site
    size: FleetSize
    numbers: ScalingNumbers
    unit: int = 1
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`needed` is the present size with what it lacks, `enough` the size that would suffice;
    `replayed` is the outcome of the window on the present size.
    """

    needed: FleetSize
    enough: FleetSize
    replayed: Replayed


def answer(question: Question) -> Answer:
    """Finds the needed and the sufficient size. Deterministic."""
    numbers, size = question.numbers, question.size.divided(question.unit)
    most = max(1, numbers.most_engines // question.unit)
    now, slower = _Fleets(question), _Fleets(question, slower=1 + numbers.headroom)
    least = least_for_work(question.demands, question.site, size, question.window_s)
    needed = grown(now, size.at_least(least), numbers.attainment, most)
    enough = size
    if needed == size:
        enough = shrunk(slower, size, least, numbers.attainment)
    return Answer(
        needed=_whole(needed, size, question),
        enough=_whole(enough, size, question),
        replayed=now(size),
    )


def _whole(found: FleetSize, size: FleetSize, question: Question) -> FleetSize:
    return question.size if found == size else found.times(question.unit)


class _Fleets:
    """Memoized replays of the question's window, with steps `slower` times as long.

    A fleet has to suffice for the whole window and for its last part alone, so that a grown load
    counts before it fills the window. The last part has few requests, so a one-sided binomial bound
    of its share counts.
    """

    def __init__(self, question: Question, slower: float = 1.0) -> None:
        self._question = question
        self._site = question.site.slower(slower)
        self._known: dict[FleetSize, Replayed] = {}

    def __call__(self, size: FleetSize) -> Replayed:
        if size not in self._known:
            demands = self._question.demands
            verdicts = replay(demands, self._site, size.prefill, size.decode, until_s=0.0)
            whole = verdicts.since(-self._question.window_s)
            lately = self._lenient(verdicts.since(-self._question.window_s * _LATELY))
            self._known[size] = min(whole, lately, key=lambda one: one.attained)
        return self._known[size]

    def _lenient(self, lately: Replayed) -> Replayed:
        goal = self._question.numbers.attainment
        deviation = math.sqrt(goal * (1 - goal) / max(1, lately.judged))
        return replace(lately, lenience=SURELY_SHORT * deviation)


@dataclass(slots=True)
class Scaler:
    """Holds the desired size and the reason for it. Until `window_s` after the start it only grows,
    since engines attach to a new planner one after the other.
    """

    numbers: ScalingNumbers
    started_at_s: float
    _hysteresis: Hysteresis | None = None
    _last: Answer | None = None
    _window_s: float = 0.0
    _site: Site | None = field(default=None, repr=False)

    @property
    def size(self) -> FleetSize | None:
        """The desired size; None until an engine has attached."""
        return self._hysteresis.size if self._hysteresis else None

    def question(self, state: ClusterState, now: float) -> Question | None:
        """The present question; None until an engine with step times has attached."""
        size = self._size_of(state, now)
        site = _site_of(list(state.serving()), state, self._site)
        if size is None or site is None:
            return None
        self._site = site
        demands = state.recent_demand.since(now - 2 * self.numbers.window_s, state.lengths)
        return _question(demands, site, size, self.numbers, now)

    def take(self, question: Question, answer: Answer, now: float) -> None:
        assert self._hysteresis is not None
        self._last, self._window_s = answer, question.window_s
        self._hysteresis.take(answer.needed, answer.enough, now)

    def _size_of(self, state: ClusterState, now: float) -> FleetSize | None:
        present = size_of(state)
        if not present.engines and self._hysteresis is None:
            return None
        present = present.at_least(_ALONE)
        if self._hysteresis is None:
            self._hysteresis = Hysteresis(
                hold_s=self.numbers.hold_s, size=present, changed_at_s=self.started_at_s
            )
        young = now - self.started_at_s <= self.numbers.window_s
        least = present if young else _least_of(present)
        self._hysteresis.size = self._hysteresis.size.at_least(least)
        return self._hysteresis.size

    def advice(self, state: ClusterState, starting: FleetSize, now: float) -> ScaleAdvice:
        """The advice to an autoscaler that is starting `starting` engines, not yet registered."""
        present = size_of(state)
        desired = self._desired(present, starting, now)
        return ScaleAdvice(
            desired_prefill=desired.prefill,
            desired_decode=desired.decode,
            present_prefill=present.prefill,
            present_decode=present.decode,
            window_s=self._window_s,
            reason=self._reason(desired, starting, now),
        )

    def _desired(self, present: FleetSize, starting: FleetSize, now: float) -> FleetSize:
        """The desired size; a planner that has just started does not shrink the fleet."""
        coming = FleetSize(
            prefill=present.prefill + starting.prefill, decode=present.decode + starting.decode
        ).at_least(_ALONE)
        if self.size is None or now - self.started_at_s <= self.numbers.window_s:
            return coming.at_least(self.size or _ALONE)
        return self.size.at_least(_least_of(coming))

    def _reason(self, desired: FleetSize, starting: FleetSize, now: float) -> str:
        if self._last is None or self._hysteresis is None:
            return "no window of requests was seen yet; the engines that serve are taken as enough"
        return " ".join(_sentences(self._last, desired, starting, self._hysteresis, now))


def _sentences(
    last: Answer, desired: FleetSize, starting: FleetSize, hysteresis: Hysteresis, now: float
) -> list[str]:
    replayed = last.replayed
    words = [
        f"{desired} for {replayed.judged} requests with targets, of which the size before kept",
        f"{replayed.share:.1%}: {replayed.short_of_prefill} were short of prefill and",
        f"{replayed.short_of_decode} of decode.",
    ]
    if replayed.never:
        words.append(f"{replayed.never} could not be kept by an idle engine.")
    if hysteresis.lower_since_s is not None:
        words.append(f"{last.enough} would do since {now - hysteresis.lower_since_s:.0f} s.")
    if starting.engines:
        words.append(f"{starting} are starting and count as present.")
    return words


def _least_of(present: FleetSize) -> FleetSize:
    """One engine of each present role, and one decode engine in any case."""
    return FleetSize(prefill=min(1, present.prefill), decode=1)


def size_of(state: ClusterState) -> FleetSize:
    """The engines that are attached and not draining."""
    present = engines_by_role(state.serving())
    return FleetSize(prefill=present[Role.PREFILL], decode=present[Role.DECODE])


def _question(
    demands: Demands, site: Site, size: FleetSize, numbers: ScalingNumbers, now: float
) -> Question:
    unit = 1
    if len(demands) > numbers.most_requests:
        unit = max(1, min(len(demands) // numbers.most_requests, size.engines // _UNIT_ENGINES))
    demands = demands[::unit][-numbers.most_requests :].copy()
    demands[:, ARRIVES] -= now
    span_s = -float(demands[0, ARRIVES]) if len(demands) else 0.0
    window_s = min(numbers.window_s, max(span_s / 2, min(span_s, numbers.window_s / 2)))
    return Question(
        demands=demands,
        site=site.bounded(_longest_step_s(demands, site)),
        size=size,
        numbers=numbers,
        unit=unit,
        window_s=window_s,
    )


def _longest_step_s(demands: Demands, site: Site) -> float:
    """The limit of a step's time, as engines are told it."""
    asked = demands[np.isfinite(demands[:, DUE])]
    to_compute = asked[:, PROMPT] - asked[:, CACHED]
    weights = np.ones(len(asked))
    prompts = np.column_stack((weights, asked[:, DUE], asked[:, CACHED], to_compute))
    return longest_step_s(StepTable(site.decode_table), prompts)


def _limits(engine: EngineState) -> Floats:
    description = engine.description
    return engine_limits(
        max_tokens=description.max_step_tokens,
        block_tokens=description.block_size_tokens,
        max_resident=description.max_running_requests,
        free_blocks=description.kv_blocks,
    )


def _site_of(
    engines: Sequence[EngineState], state: ClusterState, before: Site | None
) -> Site | None:
    """The site with one engine's numbers for each role; a missing role takes those of the other."""
    known = [one for one in engines if one.table is not None]
    by_role = {one.description.role: one for one in reversed(known)}
    decode = by_role.get(Role.DECODE) or by_role.get(Role.PREFILL)
    if decode is None:
        return before
    prefill = by_role.get(Role.PREFILL, decode)
    assert prefill.table is not None
    assert decode.table is not None
    numbers = state.numbers
    token_bytes = decode.description.kv_bytes_per_token
    return Site(
        limits=np.array([_limits(prefill), _limits(decode)]),
        prefill_table=prefill.table.numbers.copy(),
        decode_table=decode.table.numbers.copy(),
        link_fixed_s=numbers.kv_fixed_s,
        link_token_s=token_bytes / numbers.kv_bytes_per_second,
    )
