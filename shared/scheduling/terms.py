"""What an engine must know of a request's promise, and its form as plain data. Pure; what a step
makes of it is the step former's.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTerms:
    """A part of the answer with a pace of its own. The first of its end tokens ends it; without any
    it lasts to the end of the answer.
    """

    tpot_s: float
    end_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The part of a promise that the engine needs. Times are on the engine's monotonic clock.

    `first_token_due_s` is infinite when nothing was asked; `tpot_s` is then None as well, or
    the only thing asked. `stages` are in the order in which they are produced, at this engine the
    first of them is the one that the request is in. Where another engine has already given
    `produced_tokens`, the first token is the next one after those. `grace_s`: tokens after the very
    first are due so much later than the paces up to them; infinite: by when that one was due.
    `answered_tokens` at the end of the prompt belong to the answer, as another engine gave them.
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
    """`terms_as_plain` back, also from a serializer that makes lists of tuples."""
    stages = tuple(
        StageTerms(tpot_s=stage["tpot_s"], end_token_ids=tuple(stage["end_token_ids"]))
        for stage in raw["stages"]
    )
    return Terms(**{**raw, "stages": stages})
