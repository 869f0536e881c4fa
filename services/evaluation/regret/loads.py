"""Draws loads from a wide space, and loads near a given one. The same seed draws the same.

Nothing here is used for tuning, so a system that is good on all of it was not fitted to a few
loads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, Final, TypeVar

import numpy as np
import yaml

from services.evaluation.mix import UserClass, UserPrefix, UserStage, UserTools, kind_of
from services.evaluation.scenarios import fitting
from services.evaluation.upper_bound import lasting_rate
from shared.batch_time import Step
from shared.batch_time.table import counts_of
from shared.hardware import Hardware, load, names
from shared.hardware.truth import true_s
from shared.requests import Pacing
from shared.workloads.applications import Application
from shared.workloads.generate import generate

T = TypeVar("T")
# The space. Times are multiples of those of an idle engine, so that they mean the same on all
# hardware. Two floats are the ends of a log-uniform distribution (acceptance: uniform).
_CLASSES: Final = (1, 1, 2, 3, 4, 5)
_ENGINES: Final = (1, 1, 2, 2, 4, 8)
_PROMPT_TOKENS: Final = (30.0, 3000.0)
_OUTPUT_TOKENS: Final = (5.0, 800.0)
_SPREAD: Final = (0.2, 1.6)  # of the logarithm: from nearly constant to heavy-tailed
_TTFT_SLOWDOWN: Final = (1.1, 200.0)
_TPOT_SLOWDOWN: Final = (0.8, 40.0)  # times a plain decode; below 1 it needs drafts
_ACCEPTANCE: Final = (0.2, 0.9)
_UTILIZATION: Final = (0.1, 2.5)  # of the upper bound of the sustainable rate
_PREFIX_TOKENS: Final = (200.0, 4000.0)
_TOOL_MS: Final = (50.0, 3000.0)
_CONTEXT_TOKENS: Final = 1000.0  # of the decode that paces are multiples of, on an idle engine
_OF_CONTEXT: Final = 6.0  # medians are at most the model's context over this, so that tails fit too
_SECONDS: Final = 60.0  # how long a load lasts
_PROGRAMS: Final = (80, 400)  # it has at least and at most
_LEAST_SECONDS: Final = 8.0  # a shorter load does not show what is sustainable
_SAMPLE: Final = 200  # programs from which the rate is computed
_NEAR: Final = 0.35  # deviation of the logarithm of a changed number


@dataclass(frozen=True, slots=True, kw_only=True)
class RegretLoad:
    """A load and the fleet that serves it: `prefill` and `decode` engines of ours, and as many
    engines in all for others. `rate` is programs per second. `drafts`: engines have their draft
    model.
    """

    hardware: str
    decode: int
    prefill: int = 0
    drafts: bool = True
    rate: float
    programs: int
    seed: int
    classes: Mapping[str, UserClass] = field(hash=False)

    @property
    def engines(self) -> int:
        return self.prefill + self.decode

    @property
    def fleet(self) -> str:
        """The fleet in the format of `--fleet`."""
        roles = f"prefill={self.prefill},decode={self.decode}"
        return roles if self.prefill else str(self.decode)

    @property
    def asks_for_nothing(self) -> bool:
        """Whether no class has a target."""
        return all(has_no_slo(one) for one in self.classes.values())

    @property
    def classes_text(self) -> str:
        """The classes in the format of `--classes`."""
        plain = {name: _plain(one) for name, one in self.classes.items()}
        return yaml.safe_dump({"classes": plain}, sort_keys=False)

    @property
    def key(self) -> str:
        """A digest that identifies the load."""
        head = f"{self.hardware} {self.fleet} {self.drafts} {self.rate} {self.programs} {self.seed}"
        return sha256(f"{head}\n{self.classes_text}".encode()).hexdigest()[:12]


def has_no_slo(one: UserClass) -> bool:
    """Whether the class has no target."""
    return not one.stages and one.tpot_ms is None and one.ttft_ms is one.ttft_slowdown is None


def draw(number: int, seed: int) -> RegretLoad:
    """The `number`-th load of a seed."""
    random = np.random.default_rng((seed, number))
    while True:
        drawn = _drawn(random)
        if drawn.programs / drawn.rate >= _LEAST_SECONDS:
            return drawn


def _drawn(random: np.random.Generator) -> RegretLoad:
    hardware = load(_one_of(random, names()))
    engines = _one_of(random, _ENGINES)
    prefill = int(random.integers(1, engines)) if engines > 1 and random.random() < 0.25 else 0
    drafts = hardware.draft is not None and random.random() < 0.7
    with_slo = random.choice([0.0, 0.5, 1.0], p=[0.1, 0.25, 0.65])
    classes = {
        f"class-{place}": _class(random, hardware, drafts=drafts, slo=random.random() < with_slo)
        for place in range(_one_of(random, _CLASSES))
    }
    drawn = RegretLoad(
        hardware=hardware.name,
        prefill=prefill,
        decode=engines - prefill,
        drafts=drafts,
        rate=1.0,
        programs=_PROGRAMS[0],
        seed=int(random.integers(1, 1 << 30)),
        classes=classes,
    )
    return _at_utilization(drawn, hardware, _between(random, _UTILIZATION))


def near(one: RegretLoad, random: np.random.Generator) -> RegretLoad:
    """A similar load: some of its numbers are slightly larger or smaller, and its seed is new."""
    classes = {
        name: _near_class(random, of) if random.random() < 0.7 else of
        for name, of in one.classes.items()
    }
    rate = one.rate * (_factor(random) if random.random() < 0.5 else 1.0)
    seed = int(random.integers(1, 1 << 30))
    return _lasting(replace(one, classes=classes, seed=seed), rate)


def _class(
    random: np.random.Generator, hardware: Hardware, *, drafts: bool, slo: bool
) -> UserClass:
    most = hardware.max_model_len_tokens / _OF_CONTEXT
    prompt = min(_between(random, _PROMPT_TOKENS), most)
    output = min(_between(random, _OUTPUT_TOKENS), most)
    kind = random.choice(["plain", "thinking", "tools", "prefix"], p=[0.6, 0.1, 0.15, 0.15])
    made = UserClass(
        prompt_tokens=round(prompt),
        output_tokens=round(output),
        share=round(_between(random, (0.2, 5.0)), 3),
        spread=round(_between(random, _SPREAD), 2),
        acceptance=round(float(random.uniform(*_ACCEPTANCE)), 2),
        bursty=bool(random.random() < 0.3),
        pacing=Pacing.DEADLINES if random.random() < 0.2 else Pacing.MEAN,
    )
    if slo:
        made = _with_targets(made, random, hardware, drafts=drafts)
    if kind == "thinking" and made.tpot_ms:
        stages = (
            UserStage(name="thinking", output_tokens=round(2 * output), tpot_ms=made.tpot_ms),
            UserStage(name="answer", output_tokens=round(output), tpot_ms=2 * made.tpot_ms),
        )
        return replace(made, output_tokens=None, tpot_ms=None, stages=stages)
    if kind == "tools":
        tools = UserTools(
            calls=int(random.integers(2, 7)),
            response_tokens=max(1, round(prompt / 4)),
            tool_ms=round(_between(random, _TOOL_MS), 1),
        )
        short = max(1, round(output / 4))
        return replace(made, tools=tools, prompt_tokens=short, output_tokens=short)
    if kind == "prefix":
        tokens = round(min(_between(random, _PREFIX_TOKENS), 4 * most))
        return replace(made, prefix=UserPrefix(tokens=tokens, variants=int(random.integers(1, 9))))
    return made


def _with_targets(
    made: UserClass, random: np.random.Generator, hardware: Hardware, *, drafts: bool
) -> UserClass:
    """The class with a TTFT target, a TPOT target or both."""
    idle_ms = 1e3 * idle_decode_s(hardware)
    slowdown = _between(random, _TPOT_SLOWDOWN)
    tpot_ms = round(idle_ms * (slowdown if drafts else max(1.05, slowdown)), 3)
    asks = random.choice(["both", "ttft", "tpot"], p=[0.8, 0.1, 0.1])
    return replace(
        made,
        ttft_slowdown=None if asks == "tpot" else round(_between(random, _TTFT_SLOWDOWN), 3),
        tpot_ms=None if asks == "ttft" else tpot_ms,
    )


def idle_decode_s(hardware: Hardware) -> float:
    """Seconds per token of one request alone, without drafts."""
    alone = Step(decodes=1, decode_context_tokens=_CONTEXT_TOKENS)
    return float(true_s(hardware.step.numbers, counts_of(alone)))


def _at_utilization(drawn: RegretLoad, hardware: Hardware, utilization: float) -> RegretLoad:
    """The load at this share of the upper bound of its sustainable rate."""
    kinds = tuple(kind_of(name, one) for name, one in drawn.classes.items())
    application = Application(name="regret", kinds=kinds)
    sample = generate(application, rate=1.0, requests=_SAMPLE, seed=drawn.seed)
    kept = fitting(sample, hardware, rate=1.0)
    most = lasting_rate(kept, hardware, engines=drawn.engines, bar=0.9)
    return _lasting(drawn, utilization * most)


def _lasting(one: RegretLoad, rate: float) -> RegretLoad:
    """The load at this rate, with programs for about a minute."""
    least, most = _PROGRAMS
    programs = round(min(most, max(least, _SECONDS * rate)))
    return replace(one, rate=float(f"{rate:.4g}"), programs=programs)


def _near_class(random: np.random.Generator, one: UserClass) -> UserClass:
    changed: dict[str, Any] = {}
    for name in ("prompt_tokens", "output_tokens", "tpot_ms", "ttft_slowdown", "share"):
        value = getattr(one, name)
        if value is not None and random.random() < 0.5:
            moved = value * _factor(random)
            changed[name] = max(1, round(moved)) if isinstance(value, int) else round(moved, 4)
    return replace(one, **changed)


def _factor(random: np.random.Generator) -> float:
    return math.exp(_NEAR * random.standard_normal())


def _between(random: np.random.Generator, ends: tuple[float, float]) -> float:
    return math.exp(random.uniform(math.log(ends[0]), math.log(ends[1])))


def _one_of(random: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(random.integers(len(choices)))]


def _plain(one: UserClass) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    said = asdict(one)
    left_out = {each.name: each.default for each in fields(UserClass)}
    plain = {name: value for name, value in said.items() if value != left_out[name]}
    if "stages" in plain:
        plain["stages"] = [dict(stage) for stage in plain["stages"]]
    if "pacing" in plain:
        plain["pacing"] = str(plain["pacing"])
    return plain
