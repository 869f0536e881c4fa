"""Answer lengths that are believed wrongly, to see what a belief is worth."""

from services.planner.estimators.lengths import OutputLengths
from services.planner.estimators.survival import Survival


class ScaledLengths(OutputLengths):
    """Answers believed to be longer or shorter than they were."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def learn(self, class_name: str, tokens: int) -> None:
        super().learn(class_name, round(tokens * self._factor))


class ScaledSurvival(Survival):
    """The same of answers that still run."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def goes_on(self, class_name: str, key: float, produced: float) -> None:
        super().goes_on(class_name, key, produced * self._factor)

    def ends(self, class_name: str, key: float, tokens: float) -> None:
        super().ends(class_name, key, tokens * self._factor)
