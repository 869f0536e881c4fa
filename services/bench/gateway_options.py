"""Options of `bench gateway`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.gateway.worker_rules import MOST_WORKERS
from shared.options import option

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
GpuShare = Annotated[float, Field(ge=0, lt=1)]
GPU_SHARE_HELP = "share of the GPU's memory for each engine; 0: the engines compute on CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayBenchOptions:
    """Options of both parts: beside real engines, and against a stub engine."""

    model: str = option("tiny", help="embedded, tiny, a model folder or a hub name")
    dtype: str = option("float32", help="as vLLM spells it")
    max_model_len: Count = option(2048, help="longest prompt plus answer in tokens")
    kv_cache_gib: Seconds = option(0.25, help="KV cache of each engine")
    kv_transport: str = option(
        "none",
        help="of our engine: auto, nixl, zmq or none; stock vLLM is started without a KV connector",
    )
    threads: Annotated[int, Field(ge=0)] = option(
        0, help="threads of each engine's model; 0: one less than there are cores, as vLLM's own"
    )
    gpu_share: GpuShare = option(0.0, help=GPU_SHARE_HELP)
    engines: bool = option(True, help="measure beside real engines")
    stock: bool = option(True, help="start a stock vLLM server too and ask it the same")
    router: str = option(
        "",
        help="command that starts another gateway before the stock server, which is asked the "
        "same; {port} and {stock} in it are replaced by its own port and the stock server's URL",
    )
    stub: bool = option(True, help="measure the gateway against a stub engine")
    requests: Count = option(100, help="requests of each kind in the comparison")
    prompt_words: Count = option(64, help="words in each prompt of the comparison")
    output_tokens: Annotated[int, Field(ge=2)] = option(
        32, help="tokens in each answer of the comparison"
    )
    in_flight: tuple[Count, ...] = option((1, 4), help="requests at a time in the comparison")
    cpu: bool = option(True, help="compare CPU per request with the stock server's frontend")
    cpu_requests: Count = option(200, help="requests of each server in that comparison")
    workers: tuple[Annotated[int, Field(ge=1, le=MOST_WORKERS)], ...] = option(
        (1,), help="numbers of gateway workers to load against the stub engine, in turn"
    )
    stub_output_tokens: Annotated[int, Field(ge=2)] = option(
        16, help="tokens in each answer of the stub engine"
    )
    stub_in_flight: tuple[Count, ...] = option(
        (1, 8, 32, 64), help="requests at a time against the stub engine"
    )
    stub_seconds: Seconds = option(5.0, help="how long each load on the stub engine lasts")
    run_dir: str = option("", help="folder for the logs; default: a temporary one")
    start_limit_s: Seconds = option(240.0, help="how long the start of all processes may take")
    answer_limit_s: Seconds = option(60.0, help="how long one answer may take")
    json: bool = option(False, help="print one JSON object instead of tables")
