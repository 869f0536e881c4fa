"""Runs a small node for one look at its answers."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from services.bench.capacity.workload import Prompts
from services.bench.gpu.asking import WholeClient
from services.bench.gpu.options import GpuBenchOptions
from services.node.config import NodeOptions
from services.node.plan import NodePlan
from services.node.up import run_node
from shared.errors import SlosError
from shared.ports import LOOPBACK

ANSWER_TOKENS: Final = 24
_LENGTHS: Final = (1, 15, 16, 33, 64, 127, 200, 300, 450, 600)  # about blocks and chunks
_PHRASE_TOKENS: Final = 12  # of prompts that repeat themselves, for n-gram drafts
_TEXTS: Final = "demo_texts.txt"

Use = Callable[[NodePlan, WholeClient], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallNode:
    """A node with `engines` as configuration of both roles, its logs in `folder`."""

    options: GpuBenchOptions
    folder: Path
    prefill: int
    max_model_len: int
    engines: Mapping[str, Any]

    def run(self, use: Use) -> None:
        """Starts the node, uses it and ends it. Raises what `use` does, and errors of the start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "node.yaml"
        config.write_text(yaml.safe_dump({"prefill": self.engines, "decode": self.engines}))
        if not self.options.on_cpu and self.options.batch_invariant:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"  # all parts inherit it
        used = []

        async def with_client(plan: NodePlan) -> int:
            client = WholeClient.of(plan.url, plan.model_name)
            async with client.http:
                await use(plan, client)
            used.append(plan)
            return 0

        node = NodeOptions(
            model=self.options.model,
            dtype=self.options.dtype,
            prefill=self.prefill,
            decode=1,
            max_model_len=self.max_model_len,
            auto_ports=True,
            run_dir=str(self.folder),
            start_limit_s=self.options.start_limit_s,
        )
        run_node(node, config=str(config), use=with_client, console=Console(stderr=True))
        if not used:
            raise SlosError(f"The node ended early; its logs are in {self.folder / 'logs'}.")


async def some_prompts(client: WholeClient, count: int, seed: int) -> list[list[int]]:
    """Token ids of text, of many lengths; every other prompt repeats a phrase."""
    text = await client.tokenize((files("services.node") / _TEXTS).read_text("utf-8"))
    return list(islice(_prompts(Prompts(text, seed)), count))


def _prompts(prompts: Prompts) -> Iterable[list[int]]:
    while True:
        for number, tokens in enumerate(_LENGTHS):
            if number % 2 == 0:
                yield prompts.next(tokens)
            else:
                phrase = prompts.next(_PHRASE_TOKENS)
                yield [phrase[at % _PHRASE_TOKENS] for at in range(tokens)]


async def samples(plan: NodePlan, part: str, names: Sequence[str]) -> dict[str, float]:
    """Sums by name, and by name and `kind`, of what an engine's metrics page has of these names."""
    command = next(one.command for one in plan.parts if one.name == part)
    port = command[command.index("--metrics-port") + 1]
    async with httpx.AsyncClient(trust_env=False) as http:
        page = (await http.get(f"http://{LOOPBACK}:{port}/metrics")).text
    found = dict.fromkeys(names, 0.0)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = " ".join((sample.name, *filter(None, [sample.labels.get("kind")])))
            if name in found:
                found[name] += sample.value
    return found
