"""Options of `bench chaos`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.bench.chaos.faults import Kind
from shared.kv_transfer.settings import KvTransport
from shared.options import option

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions:
    """Options of `bench chaos`."""

    minutes: Positive = option(10.0, help="how long faults are drawn")
    seed: int = option(1, help="seed of the faults, their targets and the requests")
    faults: tuple[Kind, ...] = option(
        tuple(Kind), help=f"kinds of faults to draw from: {', '.join(Kind)}"
    )
    calm_s: Positive = option(
        10.0, help="mean time without a fault, once all engines serve again after the last one"
    )
    clients: Count = option(8, help="clients, each of which sends one request after another")
    answers: Count = option(40, help="different requests; each is first answered undisturbed")
    model: str = option("tiny", help="embedded, tiny, a model folder or a hub name")
    prefill: Annotated[int, Field(ge=0)] = option(2, help="number of prefill engines")
    decode: Count = option(2, help="number of decode engines")
    gateways: Count = option(2, help="number of gateways; clients ask them in turn")
    kv_transport: KvTransport = option(
        KvTransport.ZMQ, help="KV transport; only with zmq can faults hit KV links"
    )
    kv_cache_gib: Positive = option(0.25, help="KV cache of each engine, GiB")
    start_limit_s: Positive = option(300.0, help="how long the start of the fleet may take")
    run_dir: str = option(
        "", help="folder for decisions, the report and logs; default: .slos/chaos/TIME"
    )
    json: bool = option(False, help="print one JSON object instead of tables")
