"""Options of `bench soak`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from shared.options import option
from shared.requests import OnRefuse

Positive = Annotated[float, Field(gt=0)]
Multiple = Annotated[float, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """Options of `bench soak`; targets are multiples of the idle node's times."""

    minutes: Positive = option(10.0, help="how long requests arrive")
    rate: Annotated[float, Field(ge=0)] = option(
        0.0, help="mean requests/s; 0: by the time that one idle engine takes for a request"
    )
    burstiness: Positive = option(
        4.0, help="coefficient of variation of the gaps between requests; 1: Poisson"
    )
    trace: str = option(
        "", help="CSV file with arrival_s, input_tokens, output_tokens, in place of made arrivals"
    )
    trace_start_s: Annotated[float, Field(ge=0)] = option(
        900.0, help="arrivals of the trace are taken from here on"
    )
    prompt_scale: Positive = option(16.0, help="prompts of the trace are shorter by this factor")
    output_scale: Positive = option(8.0, help="answers of the trace are shorter by this factor")
    model: str = option("embedded", help="embedded, tiny, a model folder or a hub name")
    prefill: Annotated[int, Field(ge=0)] = option(1, help="number of prefill engines")
    decode: Annotated[int, Field(ge=1)] = option(1, help="number of decode engines")
    on_refuse: OnRefuse = option(
        OnRefuse.BEST_EFFORT, help="what becomes of requests that are not admitted"
    )
    tight_ttft: Multiple = option(3.0, help="tight TTFT, multiple of an idle node's")
    loose_ttft: Multiple = option(10.0, help="loose TTFT, multiple of an idle node's")
    tight_tpot: Multiple = option(1.75, help="tight TPOT, multiple of a request's alone")
    loose_tpot: Multiple = option(5.0, help="loose TPOT, multiple of a request's alone")
    seed: int = option(1, help="seed of arrivals, lengths and prompts")
    drain_s: Positive = option(30.0, help="how long open requests may take at the end")
    start_limit_s: Positive = option(300.0, help="how long the start of the node may take")
    run_dir: str = option(
        "", help="folder for decisions, answers and logs; default: .slos/soak/TIME"
    )
    records: str = option("", help="sum up this folder of an earlier run; nothing is started")
    plot: str = option("", help="file for the plot of the run, e.g. soak.svg")
    json: bool = option(False, help="print one JSON object instead of tables")
