"""The part of a request's promise that the engine needs, and its form as plain data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTerms:
    """A stage of the answer with a pace of its own. The first of its end tokens ends it; without
    any it lasts to the end of the answer.
    """

    tpot_s: float
    end_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The part of a promise that the engine needs. Times are on the engine's monotonic clock.

    `first_token_due_s` is infinite when nothing was asked; `tpot_s` is then None as well, or the
    only target. `stages` are in the order in which they are produced; the first is the one that the
    request is in at this engine. Where another engine has already given `produced_tokens`, the
    first token is the next one after those. `grace_s`: tokens after the very first are due so much
    later than the paces up to them, counted from when that one came; infinite: from when it was
    due. `answered_tokens` at the end of the prompt belong to the answer: another engine gave them.
    """

    class_name: str = "default"
    first_token_due_s: float = math.inf
    tpot_s: float | None = None
    best_effort: bool = False
    stages: tuple[StageTerms, ...] = ()
    decision_id: str = ""
    produced_tokens: int = 0
    grace_s: float = 0.0
    answered_tokens: int = 0


def terms_as_plain(terms: Terms) -> dict[str, Any]:
    """The terms as numbers, strings, dicts and sequences, to travel into the engine core."""
    return asdict(terms)


def terms_from_plain(raw: Mapping[str, Any]) -> Terms:
    """The inverse of `terms_as_plain`; lists may stand for tuples."""
    stages = tuple(
        StageTerms(tpot_s=stage["tpot_s"], end_token_ids=tuple(stage["end_token_ids"]))
        for stage in raw["stages"]
    )
    return Terms(**{**raw, "stages": stages})
