"""What tests of the search for regret share: loads and what came of them."""

from dataclasses import replace

from services.evaluation.mix import UserClass
from services.evaluation.regret.loads import RegretLoad
from services.evaluation.regret.play import Played, Regret
from shared.simulation.judge import Rule

CHAT = UserClass(prompt_tokens=60, output_tokens=20, tpot_ms=40.0, ttft_slowdown=5.0)
LOAD = RegretLoad(
    hardware="opt-7b-a100-40gb",
    decode=1,
    rate=4.0,
    programs=40,
    seed=7,
    classes={"chat": CHAT, "rest": UserClass(prompt_tokens=30, output_tokens=10)},
)


def played(system: str, kept: float, *, ended_s: float = 10.0) -> Played:
    """The same share by every rule, of the class that asks for something as well."""
    return Played(
        system=system,
        setting="any",
        kept={rule.value: kept for rule in Rule},
        by_class={"chat": kept, "rest": 1.0},
        ended_s=ended_s,
    )


def regret(seed: int, ours: float, vllm: float, qoserve: float = 0.0) -> Regret:
    return Regret(
        load=replace(LOAD, seed=seed),
        ours=played("slos-serve", ours, ended_s=8.0),
        baselines=(played("vllm", vllm), played("qoserve", qoserve)),
    )
