"""Loads of prompts that share prefixes: system prompts, chats without session ids, agents."""

from dataclasses import dataclass, field, replace
from typing import Final

from services.evaluation.mix import UserClass, UserPrefix, UserTools, kind_of
from services.evaluation.scenarios import fitting
from shared.hardware import Hardware
from shared.workloads.applications import Application
from shared.workloads.calls import Load
from shared.workloads.generate import generate


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixLoad:
    """One class of programs, `rate` per second and `programs` in all for each engine."""

    name: str
    what: str
    rate: float
    programs: int
    one: UserClass = field(repr=False)

    def on(self, hardware: Hardware, engines: int, seed: int, share: float = 1.0) -> Load:
        """The load of a fleet; with `share` less than 1 only so many of its programs."""
        rate, programs = self.rate * engines, round(self.programs * engines * share)
        application = Application(name=self.name, kinds=(kind_of(self.name, self.one),))
        load = generate(application, rate=rate, requests=programs, seed=seed)
        return fitting(load, hardware, rate=rate)


_FEW = UserClass(
    prompt_tokens=150,
    output_tokens=60,
    ttft_ms=400.0,
    tpot_ms=60.0,
    prefix=UserPrefix(tokens=3000, variants=4),
)
_MANY = replace(_FEW, prefix=UserPrefix(tokens=3000, variants=64))
_CHAT = UserClass(
    prompt_tokens=400,
    output_tokens=150,
    ttft_ms=400.0,
    tpot_ms=60.0,
    tools=UserTools(calls=5, response_tokens=60, tool_ms=2000.0),
)
_AGENT = UserClass(
    prompt_tokens=400,
    output_tokens=60,
    ttft_ms=600.0,
    tpot_ms=60.0,
    prefix=UserPrefix(tokens=4000, variants=4),
    tools=UserTools(calls=6, response_tokens=300, tool_ms=1000.0),
)
LOADS: Final = (
    PrefixLoad(
        name="few system prompts",
        what="3,000 tokens, 4 variants in all",
        rate=18.0,
        programs=100,
        one=_FEW,
    ),
    PrefixLoad(
        name="many system prompts",
        what="3,000 tokens, 64 variants in all",
        rate=18.0,
        programs=100,
        one=_MANY,
    ),
    PrefixLoad(
        name="chats without sessions",
        what="5 turns, 2 s apart, 400 tokens at first and 60 later",
        rate=8.0,
        programs=40,
        one=_CHAT,
    ),
    PrefixLoad(
        name="agents",
        what="6 calls, tools of 1 s, 4 system prompts of 4,000 tokens in all",
        rate=3.0,
        programs=20,
        one=_AGENT,
    ),
)
