"""Learns the quantiles of answer lengths in tokens by class, from answers that ended."""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from services.planner.tuning import (
    KV_SURE_ENOUGH,
    SHORTEST_ANSWERS,
    TELLING_ANSWERS,
    UNKNOWN_TOKENS,
)

_KEPT_CLASSES, _KEPT_ANSWERS = 256, 512


@dataclass(slots=True)
class _Answers:
    lately: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT_ANSWERS))
    ordered: list[int] | None = None

    def sorted(self) -> list[int]:
        if self.ordered is None:
            self.ordered = sorted(self.lately)
        return self.ordered


class OutputLengths:
    """The latest answers of each class."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, _Answers] = OrderedDict()

    def learn(self, class_name: str, tokens: int) -> None:
        answers = self._classes.setdefault(class_name, _Answers())
        answers.lately.append(tokens)
        answers.ordered = None
        self._classes.move_to_end(class_name)
        while len(self._classes) > _KEPT_CLASSES:
            self._classes.popitem(last=False)

    def usual(self, class_name: str, most_tokens: int) -> int:
        """The median of its answers, at most `most_tokens`."""
        return self.quantile(class_name, most_tokens, 0.5)

    def quantile(self, class_name: str, most_tokens: int, share: float) -> int:
        """The quantile `share` of its answers (UNKNOWN_TOKENS: none), at most `most_tokens`."""
        answers = self._classes.get(class_name)
        known = self._quantile(answers, share) if answers else UNKNOWN_TOKENS
        return max(1, min(most_tokens, known))

    def cautious(self, class_name: str, most_tokens: int) -> int:
        """A length that KV_SURE_ENOUGH of its answers do not exceed; `most_tokens` while little is
        known.
        """
        answers = self._classes.get(class_name)
        if answers is None or len(answers.lately) < TELLING_ANSWERS:
            return most_tokens
        return max(1, min(most_tokens, self._quantile(answers, KV_SURE_ENOUGH)))

    def few(self, class_name: str, most_tokens: int) -> int | None:
        """A length that all but SHORTEST_ANSWERS of its answers reach; None: little is known."""
        answers = self._classes.get(class_name)
        if answers is None or len(answers.lately) < TELLING_ANSWERS:
            return None
        return max(1, min(most_tokens, self._quantile(answers, SHORTEST_ANSWERS)))

    def _quantile(self, answers: _Answers, share: float) -> int:
        ordered = answers.sorted()
        return ordered[max(0, min(len(ordered), math.ceil(share * len(ordered))) - 1)]
