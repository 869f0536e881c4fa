"""The classes of the measurement, and their targets as multiples of zero-load times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from shared.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Log-normal token counts, clipped to bounds."""

    median: float
    sigma: float
    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShape:
    """Which targets of a class are tight, and the lengths of its requests."""

    tight_ttft: bool
    tight_tpot: bool
    prompt: Lengths
    output: Lengths


PROMPT_BOUNDS: Final = (16, 512)
OUTPUT_BOUNDS: Final = (4, 64)
_PROMPT, _OUTPUT = (
    {"least": bounds[0], "most": bounds[1]} for bounds in (PROMPT_BOUNDS, OUTPUT_BOUNDS)
)

SHAPES: Final[Mapping[str, ClassShape]] = {
    "summary": ClassShape(
        tight_ttft=True,
        tight_tpot=False,
        prompt=Lengths(median=150, sigma=0.4, **_PROMPT),
        output=Lengths(median=10, sigma=0.4, **_OUTPUT),
    ),
    "code": ClassShape(
        tight_ttft=False,
        tight_tpot=True,
        prompt=Lengths(median=90, sigma=0.5, **_PROMPT),
        output=Lengths(median=20, sigma=0.5, **_OUTPUT),
    ),
    "chat": ClassShape(
        tight_ttft=False,
        tight_tpot=False,
        prompt=Lengths(median=60, sigma=0.6, **_PROMPT),
        output=Lengths(median=20, sigma=0.6, **_OUTPUT),
    ),
}
MIXED: Final = "mixed"


def mix(name: str) -> tuple[str, ...]:
    """The classes of a mix, in equal shares. Raises ConfigError for an unknown mix."""
    if name == MIXED:
        return tuple(SHAPES)
    if name not in SHAPES:
        known = ", ".join((MIXED, *SHAPES))
        raise ConfigError(f"--mixes: read {name!r}, allowed is any of {known}")
    return (name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroLoad:
    """Times of one request alone: TTFT in seconds by prompt tokens, ascending, and TPOT."""

    ttft_s: Sequence[tuple[int, float]]
    tpot_s: float

    def ttft_of(self, prompt_tokens: int) -> float:
        """Interpolates linearly between the measured lengths, and extrapolates the last line."""
        for (left, left_s), (right, right_s) in pairwise(self.ttft_s):
            if prompt_tokens <= right or right == self.ttft_s[-1][0]:
                share = (prompt_tokens - left) / (right - left)
                return max(left_s + share * (right_s - left_s), 0.5 * self.ttft_s[0][1])
        return self.ttft_s[0][1]

    def as_json(self) -> dict[str, object]:
        return {
            "ttft_ms": {tokens: round(1000 * time_s, 1) for tokens, time_s in self.ttft_s},
            "tpot_ms": round(1000 * self.tpot_s, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiples:
    """Targets as multiples of the times on an idle machine."""

    tight_ttft: float
    loose_ttft: float
    tight_tpot: float
    loose_tpot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The targets of each class on this machine."""

    zero_load: ZeroLoad
    multiples: Multiples

    def ttft_s(self, class_name: str, prompt_tokens: int) -> float:
        tight = SHAPES[class_name].tight_ttft
        multiple = self.multiples.tight_ttft if tight else self.multiples.loose_ttft
        return multiple * self.zero_load.ttft_of(prompt_tokens)

    def tpot_s(self, class_name: str) -> float:
        tight = SHAPES[class_name].tight_tpot
        multiple = self.multiples.tight_tpot if tight else self.multiples.loose_tpot
        return multiple * self.zero_load.tpot_s

    def configuration(self) -> dict[str, dict[str, object]]:
        """The classes for the gateway's configuration; TTFT is that of a median prompt."""
        return {
            name: {
                "ttft_ms": round(1000 * self.ttft_s(name, int(shape.prompt.median)), 1),
                "tpot_ms": round(1000 * self.tpot_s(name), 1),
                "on_refuse": "refuse",
            }
            for name, shape in SHAPES.items()
        }
