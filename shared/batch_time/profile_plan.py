"""Plans the profile of a starting engine: the synthetic steps that tell most of its step times in
the time there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shared.batch_time.curve import StepCurve
from shared.batch_time.forms import ADDITIVE, USUAL, Feature, features
from shared.batch_time.steps import Kind, Step
from shared.batch_time.tuning import MOST_PROMPT_TOKENS, MOST_TIMES

Floats = npt.NDArray[np.float64]
_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PROMPTS = (16, 64, 256, 1024, 4096, 16_384)
_CHUNKS = (64, 256, 1024, 16_384)
_BESIDE = ((0, 0), (64, 32), (256, 128), (1024, 512))  # prompt tokens, in chunks of
_DECODE_STEPS = 3
_SLACK_TOKENS = 16  # outputs beyond the planned ones, until the next prompt arrives
_BANDS = np.arange(0.0, 16.0, 2.0)  # log2 of a step's tokens: times are learned for each band apart
_TOLD_BY_BANDS = (Feature.FIXED, Feature.TOKENS, Feature.PREFILL_TOKENS, Feature.DECODE_TOKENS)
_PRIOR = 1e-3  # prior information on each coefficient, in steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine can hold. `step_tokens`: most in one step; `requests`: most at once."""

    model_len_tokens: int
    step_tokens: int
    requests: int
    kv_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Equal prompts computed in steps of `chunk_tokens`, decoded together for some steps, and then
    beside them one more prompt in chunks of its own.
    """

    sequences: int
    prompt_tokens: int
    chunk_tokens: int
    decode_steps: int = _DECODE_STEPS
    beside_tokens: int = 0
    beside_chunk_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """Output tokens of each of the first prompts, so that they decode until the trial ends."""
        chunks = -(-self.beside_tokens // max(1, self.beside_chunk_tokens))
        slack = _SLACK_TOKENS if chunks else 0
        return 1 + self.decode_steps + chunks + slack

    def fits(self, limits: Limits) -> bool:
        length = self.prompt_tokens + self.output_tokens
        first = self.sequences * self.prompt_tokens
        return (
            max(length, self.beside_tokens) < limits.model_len_tokens
            and self.sequences + (self.beside_tokens > 0) <= limits.requests
            and self.sequences * length + self.beside_tokens <= limits.kv_tokens // 2
            and self.chunk_tokens <= limits.step_tokens
            and self.beside_chunk_tokens + self.sequences <= limits.step_tokens
            and first + self.beside_tokens <= MOST_PROMPT_TOKENS
        )


WARM_UP = Trial(sequences=2, prompt_tokens=16, chunk_tokens=16, beside_tokens=16)
OPENING = (
    Trial(sequences=1, prompt_tokens=64, chunk_tokens=32, beside_tokens=32, beside_chunk_tokens=32),
    Trial(sequences=4, prompt_tokens=16, chunk_tokens=64, decode_steps=4),
)
"""The first trials of any engine: small, with each kind of step, to predict the time of others."""
SMALL_BATCHES = tuple(
    Trial(
        sequences=count,
        prompt_tokens=8,
        chunk_tokens=8 * count,
        decode_steps=4,
        beside_tokens=32,
        beside_chunk_tokens=8,
    )
    for count in (2, 3, 4, 6, 8, 12)
)
"""The last trials, with time reserved for them (SMALL_SHARE): most steps of an engine that keeps
paces are this small, and their size decides which kernel computes them.
"""


def steps_of(trial: Trial) -> Iterator[Step]:
    """The steps that a trial makes where nothing else runs."""
    yield from _prefills(trial)
    k, context = trial.sequences, trial.prompt_tokens
    for _ in range(trial.decode_steps):
        context += 1
        yield _decodes(k, context)
    for start in range(0, trial.beside_tokens, max(1, trial.beside_chunk_tokens)):
        context += 1
        tokens = min(trial.beside_chunk_tokens, trial.beside_tokens - start)
        yield _decodes(k, context).with_chunk(tokens, start)


def _prefills(trial: Trial) -> Iterator[Step]:
    left = [trial.prompt_tokens] * trial.sequences
    while left:
        step, room = Step(), trial.chunk_tokens
        while left and room:
            tokens = min(room, left[0])
            step = step.with_chunk(tokens, trial.prompt_tokens - left[0])
            left[0] -= tokens
            room -= tokens
            if not left[0]:
                left.pop(0)
        yield step


def _decodes(sequences: int, context_tokens: int) -> Step:
    return Step(
        decodes=sequences,
        decode_context_tokens=sequences * context_tokens,
        longest_context_tokens=context_tokens,
    )


def candidates(limits: Limits) -> Iterator[Trial]:
    """All trials that the engine can hold."""
    chunks = sorted({min(one, limits.step_tokens) for one in _CHUNKS})
    for sequences in _SEQUENCES:
        for prompt_tokens in _PROMPTS:
            for chunk_tokens in chunks:
                if chunk_tokens > chunks[0] and chunk_tokens >= 4 * sequences * prompt_tokens:
                    break  # no step would be that long
                for beside_tokens, beside_chunk_tokens in _BESIDE:
                    trial = Trial(
                        sequences=sequences,
                        prompt_tokens=prompt_tokens,
                        chunk_tokens=chunk_tokens,
                        beside_tokens=beside_tokens,
                        beside_chunk_tokens=beside_chunk_tokens,
                    )
                    if trial.fits(limits):
                        yield trial


@dataclass(slots=True)
class _Option:
    """A trial, the features (steps, features) of its steps, and in `telling` of one step of each
    sort.
    """

    trial: Trial
    features: Floats
    telling: Floats
    times_tried: int = 0


@dataclass(slots=True)
class Plan:
    """Chooses trials by their information per second: the gain in the log determinant of the
    information matrix (D-optimal design) over the seconds that a first rough fit predicts.
    """

    limits: Limits
    _options: list[_Option] = field(init=False)
    _known: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._options = [_option(trial) for trial in candidates(self.limits)]
        self._known = np.eye(len(_BANDS) + len(Feature)) * _PRIOR

    def saw(self, steps: Sequence[Step], times_s: Sequence[float]) -> None:
        """Adds the information of a trial's measured steps."""
        if chosen := _distinct(steps):
            rows = np.array([features(steps[i]) for i in chosen])
            told = _telling(rows, np.array([times_s[i] for i in chosen]), min(times_s))
            self._known += told.T @ told

    def next(self, curve: StepCurve, left_s: float) -> Trial | None:
        """The best trial that ends within `left_s` by `curve` (of ADDITIVE); None: none does."""
        weights = np.zeros(len(Feature))
        weights[[int(one) for one in ADDITIVE.columns]] = curve.coefficients
        known: Floats = np.asarray(np.linalg.inv(self._known), dtype=np.float64)
        best, best_gain = None, 0.0
        for option in self._options:
            seconds = option.features @ weights
            total_s = float(seconds.sum())
            if option.times_tried >= MOST_TIMES or total_s > left_s:
                continue
            gain = _gain(option, weights, known) / max(total_s, 1e-6)
            if gain > best_gain:
                best, best_gain = option, gain
        if best is None:
            return None
        best.times_tried += 1
        return best.trial


def _option(trial: Trial) -> _Option:
    steps = list(steps_of(trial))
    rows = np.array([features(step) for step in steps])
    return _Option(trial=trial, features=rows, telling=rows[_distinct(steps)])


def _distinct(steps: Sequence[Step]) -> list[int]:
    """Indices of the first step of each sort: later ones add little information."""
    found: dict[tuple[Kind, int, int], int] = {}
    for place, step in enumerate(steps):
        sort = (step.kind, int(step.tokens).bit_length(), int(step.earlier_tokens).bit_length())
        found.setdefault(sort, place)
    return list(found.values())


def _gain(option: _Option, weights: Floats, known: Floats) -> float:
    seconds = option.telling @ weights
    told = _telling(option.telling, seconds, float(weights[0]) or float(seconds.min()))
    inner = np.eye(len(told)) + told @ known @ told.T
    return float(np.linalg.slogdet(inner)[1])


def _telling(rows: Floats, seconds: Floats, least_s: float) -> Floats:
    """(steps, bands and features): the parts of each step's time, in units of a small step."""
    tokens = np.log2(np.maximum(1.0, rows[:, Feature.TOKENS]))
    bands = np.maximum(0.0, 1.0 - np.abs(tokens[:, None] - _BANDS) / 2.0)
    shares = rows / np.array(USUAL) * np.minimum(1.0, least_s / np.maximum(seconds, 1e-9))[:, None]
    shares[:, [int(one) for one in _TOLD_BY_BANDS]] = 0.0
    return np.hstack([bands, shares])
