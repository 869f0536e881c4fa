"""Times of one answer, as its client measured them."""

from dataclasses import dataclass

from shared.errors import SlosError


class AnswerFailed(SlosError):
    """A measured request did not get its whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Times at the client, in seconds from the sending of the request."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def per_token_s(self) -> float:
        """The mean time of a token after the first; the answer has two tokens at least."""
        return (self.last_s - self.first_s) / (self.tokens - 1)


class Stopwatch:
    """Notes when tokens come."""

    def __init__(self, started_at_s: float) -> None:
        self._started_at_s = started_at_s
        self._first_s: float | None = None
        self._last_s = 0.0
        self._tokens = 0

    def note(self, tokens: int, now_s: float) -> None:
        self._last_s = now_s - self._started_at_s
        if self._first_s is None:
            self._first_s = self._last_s
        self._tokens += tokens

    def answer(self, wanted_tokens: int) -> Answer:
        """The answer. Raises AnswerFailed unless exactly `wanted_tokens` came."""
        if self._first_s is None or self._tokens != wanted_tokens:
            raise AnswerFailed(f"{self._tokens} tokens came where {wanted_tokens} were asked for.")
        return Answer(first_s=self._first_s, last_s=self._last_s, tokens=self._tokens)
