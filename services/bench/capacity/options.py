"""Options of `bench capacity`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.bench.gateway_options import GPU_SHARE_HELP, GpuShare
from shared.options import option

Count = Annotated[int, Field(ge=1)]
StepTokens = Annotated[int, Field(ge=64)]  # vLLM needs at least one per request in a step
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Multiple = Annotated[float, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityOptions:
    """Options of `bench capacity`; all but `real` may be left out."""

    real: bool = option(False, help="measure real engines on this machine")
    model: str = option("embedded", help="embedded, tiny, a model folder or a hub name")
    dtype: str = option("float32", help="as vLLM spells it")
    max_model_len: Count = option(2048, help="longest prompt plus answer in tokens")
    kv_cache_gib: Positive = option(1.0, help="KV cache of each engine")
    threads: Annotated[int, Field(ge=0)] = option(
        0, help="threads of each engine's model; 0: one less than there are cores"
    )
    gpu_share: GpuShare = option(0.0, help=GPU_SHARE_HELP)
    search: bool = option(True, help="find the capacity of every system")
    mixes: tuple[str, ...] = option(
        ("mixed",), help="mixes of classes under Poisson arrivals: mixed, summary, code, chat"
    )
    trace: tuple[str, ...] = option(
        (),
        help="traces: Azure, Mooncake, BurstGPT, or CSV with arrival_s, input_tokens, "
        "output_tokens; one more load each",
    )
    trace_start_s: Annotated[float, Field(ge=0)] = option(
        900.0, help="arrivals of a trace are taken from here on"
    )
    prompt_scale: Positive = option(16.0, help="prompts of a trace are shorter by this factor")
    output_scale: Positive = option(8.0, help="answers of a trace are shorter by this factor")
    tight_ttft: Multiple = option(3.0, help="tight TTFT, multiple of an idle machine's")
    loose_ttft: Multiple = option(10.0, help="loose TTFT, multiple of an idle machine's")
    tight_tpot: Multiple = option(1.75, help="tight TPOT, multiple of a request's alone")
    loose_tpot: Multiple = option(5.0, help="loose TPOT, multiple of a request's alone")
    attainment: Share = option(0.9, help="share of requests that must keep their targets")
    token_budgets: tuple[StepTokens, ...] = option(
        (64, 128, 512), help="token budgets of stock vLLM, of which the best counts"
    )
    ours: bool = option(True, help="measure ours; without it a second stock server takes its place")
    speculation_tokens: Annotated[int, Field(ge=0)] = option(
        4, help="also measure both with this many tokens of n-gram speculation; 0: do not"
    )
    overload: Annotated[float, Field(ge=0)] = option(
        1.5, help="also measure both at this multiple of our capacity; 0: do not"
    )
    fleet: bool = option(
        False, help="also measure a prefill and a decode engine against two that do both"
    )
    saturation: bool = option(False, help="also measure throughput without targets, in turns")
    saturation_in_flight: Count = option(32, help="requests at a time at saturation")
    rounds: Count = option(5, help="rates tried for each load")
    first_rate: Annotated[float, Field(ge=0)] = option(
        0.0, help="requests/s of the first round; 0: by the zero-load times"
    )
    budget_s: Positive = option(1500.0, help="how long the whole run may take; scales every point")
    point_s: Annotated[float, Field(ge=0)] = option(
        0.0, help="how long requests arrive in one point; 0: by the budget"
    )
    drain_s: Positive = option(10.0, help="how long open requests may take after a point")
    seed: int = option(1, help="seed of arrivals, lengths and prompts")
    plot: str = option("", help="file for the plot of attainment over load, e.g. capacity.svg")
    run_dir: str = option("", help="folder for the logs; default: a temporary one")
    start_limit_s: Positive = option(240.0, help="how long the start of one system may take")
    answer_limit_s: Positive = option(120.0, help="how long one answer may take")
    json: bool = option(False, help="print one JSON object instead of tables")
