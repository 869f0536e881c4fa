"""Answer lengths that are believed wrongly, to see what a belief is worth."""

from services.planner.lengths import OutputLengths


class ScaledLengths(OutputLengths):
    """Answers believed to be longer or shorter than they were."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def usual(self, class_name: str, most_tokens: int) -> int:
        believed = super().usual(class_name, most_tokens) * self._factor
        return max(1, min(most_tokens, round(believed)))

    def cautious(self, class_name: str, most_tokens: int, share: float = 0.9) -> int:
        believed = super().cautious(class_name, most_tokens, share) * self._factor
        return max(1, min(most_tokens, round(believed)))
