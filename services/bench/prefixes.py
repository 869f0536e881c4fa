"""`slos-serve bench prefixes`: memory of the planner's prefix index, and the time of a look-up."""

import os
import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Final

import orjson
from pydantic import Field
from rich.console import Console
from rich.table import Table

from services.planner.state.prefix_index import PrefixIndex
from shared.clock import cpu_time_s
from shared.engines import EngineDescription, PrefixNews, Role, prefix_span_tokens
from shared.options import load, option
from shared.requests import PromptHashes

Count = Annotated[int, Field(ge=1)]
_NEWS_SPANS: Final = 100  # spans in one report of an engine
_LOOKUPS: Final = 200
_SEED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixesOptions:
    """The defaults are 256 engines with an 8B model on 80 GB each."""

    engines: Count = option(256, help="engines whose whole KV is cached prefixes")
    kv_blocks: Count = option(27_704, help="KV blocks of an engine")
    block_tokens: Count = option(16, help="tokens in a KV block")
    prompt_tokens: Count = option(8_192, help="length of the prompts that are looked up")
    holders: Count = option(8, help="engines that have all of such a prompt cached")
    json: bool = option(False, help="print one JSON object instead of a table")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCost:
    """Bytes of the index, and CPU microseconds to find a prompt on all engines."""

    engines: int
    span_tokens: int
    spans: int
    bytes_per_span: float
    bytes_per_block: float
    bytes: int
    lookup_us: float
    unknown_lookup_us: float  # of a prompt that no engine has


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError for wrong options."""
    options = load(
        PrefixesOptions,
        section="bench_prefixes",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench prefixes",
    )
    cost = measure(options)
    if options.json:
        print(orjson.dumps(asdict(cost)).decode())
    else:
        Console().print(_table(cost))
    return 0


def measure(options: PrefixesOptions) -> IndexCost:
    """Fills an index with random hashes as engines report them, and looks prompts up."""
    chance = random.Random(_SEED)  # noqa: S311 - hashes of a measurement
    span_tokens = prefix_span_tokens(options.block_tokens)
    spans = options.kv_blocks * options.block_tokens // span_tokens
    prompt = _prompt(chance, options.prompt_tokens, span_tokens)
    tracemalloc.start()
    index = PrefixIndex()
    for number in range(options.engines):
        engine = _engine(number, options, span_tokens)
        for first in range(0, spans, _NEWS_SPANS):
            count = min(_NEWS_SPANS, spans - first)
            index.hear(engine, PrefixNews(stored=_hashes(chance, count)))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for number in range(min(options.holders, options.engines)):
        index.hear(_engine(number, options, span_tokens), PrefixNews(stored=prompt.hashes))
    whole = options.engines * spans
    return IndexCost(
        engines=options.engines,
        span_tokens=span_tokens,
        spans=whole,
        bytes_per_span=used / whole,
        bytes_per_block=used / (options.engines * options.kv_blocks),
        bytes=used,
        lookup_us=_lookup_us(index, prompt),
        unknown_lookup_us=_lookup_us(index, _prompt(chance, options.prompt_tokens, span_tokens)),
    )


def _hashes(chance: random.Random, count: int) -> tuple[int, ...]:
    return tuple(chance.getrandbits(64) for _ in range(count))


def _prompt(chance: random.Random, tokens: int, span_tokens: int) -> PromptHashes:
    hashes = _hashes(chance, max(1, tokens // span_tokens))
    return PromptHashes(span_tokens=span_tokens, hashes=hashes)


def _engine(number: int, options: PrefixesOptions, span_tokens: int) -> EngineDescription:
    return EngineDescription(
        name=f"d{number:03}",
        engine_id=f"d{number:03}-1",
        role=Role.DECODE,
        address="",
        model="",
        vllm_version="",
        block_size_tokens=options.block_tokens,
        kv_blocks=options.kv_blocks,
        kv_bytes_per_token=1,
        max_model_len_tokens=options.prompt_tokens,
        max_running_requests=1,
        max_step_tokens=1,
        max_speculation_tokens=0,
        prefix_span_tokens=span_tokens,
    )


def _lookup_us(index: PrefixIndex, prompt: PromptHashes) -> float:
    began_s = cpu_time_s()
    for _ in range(_LOOKUPS):
        index.found(prompt)
    return 1e6 * (cpu_time_s() - began_s) / _LOOKUPS


def _table(cost: IndexCost) -> Table:
    title = f"Prefix index of {cost.engines} engines, spans of {cost.span_tokens} tokens"
    table = Table(title=title)
    for name in ("spans", "bytes per span", "per block", "MiB in all", "look-up us", "unknown us"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{cost.spans:,}",
        f"{cost.bytes_per_span:.0f}",
        f"{cost.bytes_per_block:.1f}",
        f"{cost.bytes / 2**20:.0f}",
        f"{cost.lookup_us:.0f}",
        f"{cost.unknown_lookup_us:.0f}",
    )
    return table
