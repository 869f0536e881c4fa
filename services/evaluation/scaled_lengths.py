"""Wrong beliefs about answer lengths, to measure what right ones are worth."""

from services.planner.estimators.lengths import OutputLengths
from services.planner.estimators.survival import Survival


class ScaledLengths(OutputLengths):
    """Learns answers as longer or shorter than they were, by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def learn(self, class_name: str, tokens: int) -> None:
        super().learn(class_name, round(tokens * self._factor))


class ScaledSurvival(Survival):
    """Learns running answers as longer or shorter than they were, by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def goes_on(self, class_name: str, key: float, produced: float) -> None:
        super().goes_on(class_name, key, produced * self._factor)

    def ends(self, class_name: str, key: float, tokens: float) -> None:
        super().ends(class_name, key, tokens * self._factor)
