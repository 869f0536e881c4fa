"""Tracks which stage of its answer a sequence is in, and the TPOT of each stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.requests import Stage

StageEnds = Mapping[str, tuple[int, ...]]
"""End token ids by the name of a stage; a stage that is not named has no end."""

_PROMPT_TAIL_TOKENS: Final = 8


@dataclass(slots=True)
class StageRecord:
    """One stage of one sequence. `began_at_s` is when the token before its first one came."""

    name: str
    tpot_target_s: float
    end_token_ids: tuple[int, ...]
    began_at_s: float | None = None
    last_token_at_s: float | None = None
    output_tokens: int = 0
    paced_tokens: int = 0  # without the first of the answer, which is judged by its own target

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token; None for a stage that was not reached or has no token to judge."""
        if self.began_at_s is None or self.last_token_at_s is None or not self.paced_tokens:
            return None
        return (self.last_token_at_s - self.began_at_s) / self.paced_tokens

    @property
    def lateness(self) -> float:
        """Ratio of achieved to target TPOT; 0 without a token to judge."""
        return (self.tpot_s or 0.0) / self.tpot_target_s


@dataclass(slots=True)
class StageProgress:
    """The stages of one sequence in order; `left` are the present one and those after it."""

    stages: list[StageRecord]
    _present: int = 0
    _last_token_at_s: float | None = field(default=None)

    @property
    def left(self) -> list[StageRecord]:
        return self.stages[self._present :]

    @property
    def lateness(self) -> float:
        """The greatest lateness of all stages."""
        return max(stage.lateness for stage in self.stages)

    def produced(self, token_ids: Sequence[int], now: float) -> None:
        """Counts new tokens. A stage ends with the first of its end tokens, which it includes."""
        for token_id in token_ids:
            stage = self.stages[self._present]
            stage.output_tokens += 1
            stage.last_token_at_s = now
            if self._last_token_at_s is None:
                stage.began_at_s = now
            else:
                stage.paced_tokens += 1
                if stage.began_at_s is None:
                    stage.began_at_s = self._last_token_at_s
            self._last_token_at_s = now
            if token_id in stage.end_token_ids:
                self._present += 1


def stage_progress(
    asked: Sequence[Stage], ends: StageEnds, prompt_token_ids: Sequence[int]
) -> StageProgress | None:
    """The progress of a sequence at its start; None without stages.

    The last stage has no end. If the prompt's last tokens end a stage, as with a chat template that
    turns thinking off, the sequence starts after that stage.
    """
    if not asked:
        return None
    records = [
        StageRecord(stage.name, stage.tpot_s, ends.get(stage.name, ()) if after else ())
        for stage, after in zip(asked, [*asked[1:], None], strict=True)
    ]
    past = 0
    for token_id in prompt_token_ids[-_PROMPT_TAIL_TOKENS:]:
        past += token_id in records[past].end_token_ids
    return StageProgress(records, past)
