"""A step-time curve as one array of numbers, for compiled code and for exchange between engines and
planner.

Layout, float64: a header of HEADER numbers (number of pieces, drift, then the margins of decode,
prefill and mixed steps), then WIDTH numbers for each piece: its group, then the weight of each
feature. Drift and margins are factors on the curve.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.batch_time.curve import StepCurve
from shared.batch_time.forms import Feature
from shared.batch_time.steps import Kind, Step
from shared.compiled import compiled, inlined

FloatArray = npt.NDArray[np.float64]
HEADER = 8
WIDTH = 1 + len(Feature)
_PIECES, _DRIFT = 0, 1
_KINDS = (Kind.DECODE, Kind.PREFILL, Kind.MIXED)
# Offsets into the counts of a step, the form in which compiled code keeps one.
(
    DECODES,
    SPECULATED,
    SPECULATION_STEPS,
    DECODE_CONTEXT,
    LONGEST_CONTEXT,
    CHUNKS,
    PREFILL,
    EARLIER,
    PAIRS,
    LONGEST_PROMPT,
) = range(10)
COUNTS = 10


@dataclass(frozen=True, slots=True, eq=False)
class StepTable:
    """Seconds of a step, expected and to promise. `numbers` has the layout of the module's
    docstring.
    """

    numbers: FloatArray

    @classmethod
    def of(
        cls, curve: StepCurve, *, drift: float = 1.0, margins: dict[Kind, float] | None = None
    ) -> "StepTable":
        """`margins` are factors of at least one by kind of step; none: 1."""
        rows: list[float] = []
        start = 0
        for group, pieces in enumerate(curve.form.groups):
            for piece in pieces:
                weights = [0.0] * len(Feature)
                for feature, weight in zip(
                    piece, curve.coefficients[start : start + len(piece)], strict=True
                ):
                    weights[feature] = weight
                start += len(piece)
                rows += [float(group), *weights]
        factors = [(margins or {}).get(kind, 1.0) for kind in _KINDS]
        header = [len(rows) / WIDTH, drift, *factors]
        return cls(np.array([*header, *[0.0] * (HEADER - len(header)), *rows]))

    @classmethod
    def from_bytes(cls, data: bytes) -> "StepTable":
        """The inverse of `to_bytes`. Raises ValueError where the bytes are no table."""
        if len(data) % 8:
            raise ValueError("a table of step times is a row of float64 numbers")
        # A copy is writable, as all other tables are: numba then compiles for one type only.
        numbers = np.frombuffer(data, dtype=np.float64).copy()
        if len(numbers) < HEADER or len(numbers) != HEADER + numbers[_PIECES] * WIDTH:
            raise ValueError(f"a table of step times does not have {len(numbers)} numbers")
        return cls(numbers)

    def to_bytes(self) -> bytes:
        return self.numbers.tobytes()

    @property
    def drift(self) -> float:
        """The factor of present step times on those of the fit."""
        return float(self.numbers[_DRIFT])

    @property
    def curve(self) -> bytes:
        """The bytes of all numbers but the drift."""
        return np.delete(self.numbers, _DRIFT).tobytes()

    def slower(self, factor: float) -> "StepTable":
        """The table with all step times multiplied by `factor`."""
        numbers = self.numbers.copy()
        numbers[_DRIFT] *= factor
        return StepTable(numbers)

    def expected_s(self, step: Step) -> float:
        return float(expected_s(self.numbers, counts_of(step)))

    def sure_s(self, step: Step) -> float:
        """Seconds that the promised share of such steps keeps within."""
        return float(sure_s(self.numbers, counts_of(step)))

    def decodes_s(self, decodes: float, context_tokens: float) -> float:
        """Expected seconds of a step of `decodes` that read `context_tokens` of KV together."""
        return float(_decodes_s(self.numbers, float(decodes), float(context_tokens)))

    def prompt_s(
        self, tokens: int, chunk_tokens: int, *, decodes: float = 0, context_tokens: float = 0
    ) -> float:
        """Expected seconds to compute a prompt in steps of `chunk_tokens`, each beside decodes."""
        beside = float(decodes), float(context_tokens)
        return float(_prompt_s(self.numbers, float(tokens), float(chunk_tokens), *beside))


def counts_of(step: Step) -> FloatArray:
    """The counts of a step as an array for compiled code."""
    return np.array(
        [
            step.decodes,
            step.speculated_tokens,
            step.speculation_steps,
            step.decode_context_tokens,
            step.longest_decode_tokens,
            step.chunks,
            step.prefill_tokens,
            step.earlier_tokens,
            step.attention_pairs,
            step.longest_prompt_tokens,
        ],
        dtype=np.float64,
    )


@inlined
def curve_s(table: FloatArray, counts: FloatArray) -> float:
    """The curve alone, for `counts` of COUNTS numbers."""
    return _curve_s(
        table,
        counts[DECODES],
        counts[SPECULATED],
        counts[SPECULATION_STEPS],
        counts[DECODE_CONTEXT],
        counts[LONGEST_CONTEXT],
        counts[CHUNKS],
        counts[PREFILL],
        counts[EARLIER],
        counts[PAIRS],
        counts[LONGEST_PROMPT],
    )


@inlined
def _curve_s(
    table: FloatArray,
    decodes: float,
    speculated: float,
    speculation_steps: float,
    decode_context: float,
    longest_context: float,
    chunks: float,
    prefill: float,
    earlier: float,
    pairs: float,
    longest_prompt: float,
) -> float:
    """The curve of counts that are no array; the features are those of `forms`."""
    decode_tokens = decodes + speculated
    shared = prefill > 0
    longest = max(longest_prompt, longest_context) if shared else 0.0
    total, best, group = 0.0, 0.0, -1.0
    for piece in range(int(table[0])):
        at = HEADER + piece * WIDTH
        if table[at] != group:
            total += best
            best, group = 0.0, table[at]
        seconds = (
            table[at + 1]
            + table[at + 2] * (prefill + decode_tokens)
            + table[at + 3] * speculation_steps
            + table[at + 4] * prefill
            + table[at + 5] * decode_tokens
            + table[at + 6] * (decodes + chunks)
            + table[at + 7] * (decode_context + earlier)
            + table[at + 8] * decode_context
            + table[at + 9] * pairs
            + table[at + 12] * longest
        )
        if shared:
            seconds += table[at + 10] * decode_context
            seconds += table[at + 11] * decodes * prefill
        best = max(best, seconds)
    return total + best


@inlined
def expected_s(table: FloatArray, counts: FloatArray) -> float:
    return float(table[1] * curve_s(table, counts))


@inlined
def sure_s(table: FloatArray, counts: FloatArray) -> float:
    """A mixed step's margin is no less than those of its parts."""
    margin = table[2]
    if counts[PREFILL] > 0:
        margin = table[4] if counts[DECODES] > 0 else table[3]
    return float(table[1] * margin * curve_s(table, counts))


@inlined
def chunk_s(table: FloatArray, computed: float, size: float) -> float:
    """Expected seconds of a step of nothing but one chunk, which follows `computed` tokens."""
    pairs = size * (computed + size / 2)
    longest = max(0.0, computed + size)
    curve = _curve_s(table, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, size, computed, pairs, longest)
    return float(table[1] * curve)


@compiled
def _decode_counts(decodes: float, context_tokens: float) -> FloatArray:
    """The counts of decodes with equal contexts."""
    counts = np.zeros(COUNTS)
    counts[DECODES] = decodes
    counts[DECODE_CONTEXT] = context_tokens
    counts[LONGEST_CONTEXT] = context_tokens / decodes if decodes > 0 else 0.0
    return counts


@compiled
def _decodes_s(table: FloatArray, decodes: float, context_tokens: float) -> float:
    return expected_s(table, _decode_counts(decodes, context_tokens))


@compiled
def _prompt_s(
    table: FloatArray, tokens: float, chunk_tokens: float, decodes: float, context_tokens: float
) -> float:
    """Expected seconds of a prompt, chunk after chunk, each beside the same decodes."""
    beside = _decode_counts(decodes, context_tokens)
    counts = beside.copy()
    total_s, done = 0.0, 0.0
    while done < tokens:
        size = min(chunk_tokens, tokens - done)
        counts[:] = beside
        counts[CHUNKS] = 1.0
        counts[PREFILL] = size
        counts[EARLIER] = done
        counts[PAIRS] = size * (done + size / 2)
        counts[LONGEST_PROMPT] = done + size
        total_s += expected_s(table, counts)
        done += size
    return total_s
