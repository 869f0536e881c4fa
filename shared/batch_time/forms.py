"""The forms that a step's time may have: sums of maxima of linear pieces.

Every feature grows with every count of a step, so that with coefficients of at least zero more work
never takes less.
"""

from dataclasses import dataclass
from enum import IntEnum

from shared.batch_time.steps import Step


class Feature(IntEnum):
    """What a coefficient is multiplied with.

    The last three are for a mixed step, in which chunks and decodes share an attention call that is
    not laid out for decodes. It reads their KV once per head rather than once per group of heads
    (SHARED_CONTEXT), and gives each of them as many blocks of work as the chunk has
    (SHARED_BLOCKS). It splits no context over processors, so that the longest one bounds it
    (LONGEST).
    """

    FIXED = 0
    TOKENS = 1
    SPECULATION_STEPS = 2
    PREFILL_TOKENS = 3
    DECODE_TOKENS = 4
    SEQUENCES = 5
    CONTEXT = 6  # read by decodes and chunks alike
    DECODE_CONTEXT = 7
    ATTENTION_PAIRS = 8
    SHARED_CONTEXT = 9
    SHARED_BLOCKS = 10
    LONGEST = 11


# The size of each feature in a step that mostly consists of it.
USUAL: tuple[float, ...] = (1, 32, 1, 32, 8, 8, 4096, 4096, 16_384, 4096, 256, 512)
Polynomial = tuple[float, float, float]  # constant, linear, square
Piece = tuple[Feature, ...]
Group = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The time is a sum over groups; a group takes as long as the longest of its pieces."""

    name: str
    groups: tuple[Group, ...]

    @property
    def columns(self) -> tuple[Feature, ...]:
        """The feature of each coefficient, group by group and piece by piece."""
        return tuple(feature for group in self.groups for piece in group for feature in piece)

    @property
    def slices(self) -> tuple[tuple[slice, ...], ...]:
        """Where each piece's coefficients lie, by group."""
        start, found = 0, []
        for group in self.groups:
            ends = []
            for piece in group:
                ends.append(slice(start, start + len(piece)))
                start += len(piece)
            found.append(tuple(ends))
        return tuple(found)


def features(step: Step) -> tuple[float, ...]:
    """All features of a step, in the order of `Feature`."""
    decode_tokens = step.decodes + step.speculated_tokens
    shared = step.prefill_tokens > 0
    longest = step.longest_decode_tokens
    return (
        1.0,
        step.prefill_tokens + decode_tokens,
        step.speculation_steps,
        step.prefill_tokens,
        decode_tokens,
        step.decodes + step.chunks,
        step.decode_context_tokens + step.earlier_tokens,
        step.decode_context_tokens,
        step.attention_pairs,
        step.decode_context_tokens if shared else 0.0,
        step.decodes * step.prefill_tokens,
        max(step.longest_prompt_tokens, longest) if shared else 0.0,
    )


def along(step: Step, earlier_tokens: float) -> list[Polynomial]:
    """The features with one more chunk, as polynomials of its tokens (one at least).

    LONGEST is that of the new chunk alone; it counts where it is longer than what is there.
    """
    one = features(step.with_chunk(1, earlier_tokens))
    terms = [(value, 0.0, 0.0) for value in one]
    terms[Feature.TOKENS] = (step.tokens, 1.0, 0.0)
    terms[Feature.PREFILL_TOKENS] = (step.prefill_tokens, 1.0, 0.0)
    terms[Feature.ATTENTION_PAIRS] = (step.attention_pairs, earlier_tokens, 0.5)
    terms[Feature.SHARED_BLOCKS] = (step.decodes * step.prefill_tokens, step.decodes, 0.0)
    terms[Feature.LONGEST] = (earlier_tokens, 1.0, 0.0)
    return terms


_F = Feature
_ROOFLINE = (_F.FIXED, _F.TOKENS)

# The paper's form: tokens and speculation steps, without contexts.
PAPER = Form(name="paper", groups=(((_F.FIXED, _F.TOKENS, _F.SPECULATION_STEPS),) * 2,))
# Few coefficients, which can be learned from an engine's first steps.
ADDITIVE = Form(
    name="additive", groups=(((_F.FIXED, _F.PREFILL_TOKENS, _F.DECODE_TOKENS, _F.CONTEXT),),)
)
# Weights and arithmetic; the cost of each sequence and each draft; attention, bounded by the work
# of all sequences or by the longest one.
RICH = Form(
    name="rich",
    groups=(
        (_ROOFLINE,) * 3,
        ((_F.SEQUENCES, _F.SPECULATION_STEPS),),
        (
            (_F.DECODE_CONTEXT, _F.ATTENTION_PAIRS, _F.SHARED_CONTEXT, _F.SHARED_BLOCKS),
            (_F.LONGEST,),
        ),
    ),
)
