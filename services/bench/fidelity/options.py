"""Options of `bench fidelity`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.bench.capacity.options import Count, Positive, StepTokens
from shared.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityOptions:
    """Options of `bench fidelity`; all but `real` may be left out."""

    real: bool = option(False, help="start real engines on this machine")
    model: str = option("embedded", help="embedded, tiny, a model folder or a hub name")
    dtype: str = option("float32", help="as vLLM spells it")
    max_model_len: Count = option(2048, help="longest prompt plus answer in tokens")
    kv_cache_gib: Positive = option(1.0, help="KV cache of each engine")
    threads: Annotated[int, Field(ge=0)] = option(
        0, help="threads of each engine's model; 0: one less than there are cores"
    )
    mix: str = option("mixed", help="classes under Poisson arrivals: mixed, summary, code, chat")
    step_tokens: StepTokens = option(128, help="token budget of stock vLLM")
    loads: tuple[Positive, ...] = option(
        (0.7, 1.0, 1.3), help="loads to compare at, multiples of that of a well-used engine"
    )
    calibrating_load: Positive = option(
        0.5, help="load to calibrate the machine's present speed with, a multiple of the same"
    )
    point_s: Positive = option(60.0, help="how long requests arrive in one point")
    drain_s: Positive = option(20.0, help="how long open requests may take after a point")
    stock: bool = option(True, help="compare stock vLLM")
    ours: bool = option(True, help="compare ours on one engine")
    fleet: bool = option(True, help="compare ours on a prefill and a decode engine")
    twins: Count = option(5, help="simulations of each point, each with different noise")
    link_bytes_per_s: Positive = option(
        5e8, help="rate of KV between engines, as `bench kv` measures it"
    )
    link_latency_s: Annotated[float, Field(ge=0)] = option(
        0.005, help="latency of each KV transfer"
    )
    seed: int = option(1, help="seed of arrivals, lengths, prompts and noise")
    profile: str = option(
        "", help="file that `slos-serve profile --json` made of this engine; default: measure now"
    )
    profiles: Count = option(
        3, help="number of profiles of the engine: a machine's speed changes over time"
    )
    plot: str = option("", help="file for the scatter plot, e.g. fidelity.svg")
    run_dir: str = option("", help="folder for profile and logs; default: a temporary one")
    start_limit_s: Positive = option(240.0, help="how long the start of one system may take")
    answer_limit_s: Positive = option(120.0, help="how long one answer may take")
    json: bool = option(False, help="print one JSON object instead of a table")
