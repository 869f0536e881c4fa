"""What one engine step computes, in the counts that its time depends on."""

from dataclasses import dataclass
from enum import StrEnum

from shared.engines import StepReport


class Kind(StrEnum):
    """The kind of work in a step; errors and margins are tracked by kind."""

    DECODE = "decode"
    PREFILL = "prefill"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Counts of one step; none is negative. Fractions are means over several steps.

    Attributes:
        decodes: sequences that decode, one token each.
        speculated_tokens: drafted tokens verified on top.
        speculation_steps: runs of the draft model.
        decode_context_tokens: KV tokens that the decodes read, summed.
        longest_context_tokens: KV tokens of the decode that reads most. None: the mean, which
            one more short decode makes smaller; set it where times must never fall.
        chunks: pieces of prompts.
        prefill_tokens: prompt tokens in all chunks.
        earlier_tokens: tokens of these prompts computed before, summed.
        attention_pairs: sum of c * (p + c / 2) over chunks of c tokens after p earlier ones.
        longest_prompt_tokens: the greatest p + c.
    """

    decodes: float = 0
    speculated_tokens: float = 0
    speculation_steps: float = 0
    decode_context_tokens: float = 0
    longest_context_tokens: float | None = None
    chunks: float = 0
    prefill_tokens: float = 0
    earlier_tokens: float = 0
    attention_pairs: float = 0
    longest_prompt_tokens: float = 0

    @property
    def tokens(self) -> float:
        """All tokens that the forward pass computes."""
        return self.prefill_tokens + self.decodes + self.speculated_tokens

    @property
    def kind(self) -> Kind:
        if not self.prefill_tokens:
            return Kind.DECODE
        return Kind.MIXED if self.decodes else Kind.PREFILL

    @property
    def longest_decode_tokens(self) -> float:
        if self.longest_context_tokens is not None:
            return self.longest_context_tokens
        return self.decode_context_tokens / self.decodes if self.decodes else 0.0

    def with_chunk(self, tokens: float, earlier_tokens: float = 0) -> "Step":
        """The step with one more chunk: `tokens` of a prompt after `earlier_tokens` of it."""
        if tokens <= 0:
            return self
        pairs = tokens * (earlier_tokens + tokens / 2)
        return Step(
            decodes=self.decodes,
            speculated_tokens=self.speculated_tokens,
            speculation_steps=self.speculation_steps,
            decode_context_tokens=self.decode_context_tokens,
            longest_context_tokens=self.longest_context_tokens,
            chunks=self.chunks + 1,
            prefill_tokens=self.prefill_tokens + tokens,
            earlier_tokens=self.earlier_tokens + earlier_tokens,
            attention_pairs=self.attention_pairs + pairs,
            longest_prompt_tokens=max(self.longest_prompt_tokens, earlier_tokens + tokens),
        )


def step_of(report: StepReport) -> Step:
    """The step of a report, on the assumption that drafts of its requests are equally long."""
    decodes, speculated_tokens = report.decode_tokens, report.speculated_tokens
    return Step(
        decodes=decodes,
        speculated_tokens=speculated_tokens,
        speculation_steps=speculated_tokens / decodes if decodes else speculated_tokens,
        decode_context_tokens=report.decode_context_tokens,
        longest_context_tokens=report.longest_context_tokens or None,
        chunks=report.chunks,
        prefill_tokens=report.prefill_tokens,
        earlier_tokens=report.earlier_tokens,
        attention_pairs=report.attention_pairs,
        longest_prompt_tokens=report.longest_prompt_tokens,
    )
