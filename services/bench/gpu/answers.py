"""Whether answers are the same however they are served: on one engine, prefilled on another, with
the prompt computed again after the other engine died, and after a preemption.
"""

import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.bench.answers import AnswerFailed
from services.bench.chaos.processes import process_of, send
from services.bench.gpu.asking import Told, WholeClient, same
from services.bench.gpu.findings import Finding
from services.bench.gpu.node import ANSWER_TOKENS, SmallNode, samples, some_prompts
from services.bench.gpu.notebook import Notebook
from services.bench.gpu.options import GpuBenchOptions
from services.node.plan import NodePlan, Rank

KEPT: Final = "answers.json"
MODEL_LEN: Final = 1024
_KV_BLOCKS: Final = 66  # hold one of the longest requests, in blocks of 16
_PREEMPTION_PROMPTS, _PREEMPTION_TOKENS = 16, 300  # more than both engines hold in blocks of 32
_FITTING: Final = 2  # of them fit into one engine in blocks of 16
_PREEMPTIONS: Final = "slos_engine_preemptions_total"
_RECOMPUTED: Final = 3
_STALLED_S: Final = 1.0  # so long the prefill engine has requests before it dies
_ONE, _TWO = {"way": "colocated"}, {"way": "disaggregated"}


def look_at_answers(options: GpuBenchOptions, folder: Path, notebook: Notebook) -> None:
    """Raises errors of the node's start. Keeps the answers for the speculation step."""
    node = SmallNode(
        options=options,
        folder=folder / "answers",
        prefill=1,
        max_model_len=MODEL_LEN,
        engines={"vllm": {"num_gpu_blocks_override": _KV_BLOCKS}},
    )

    async def use(plan: NodePlan, client: WholeClient) -> None:
        await _Looks(plan, client, notebook, options, folder / KEPT).all()

    node.run(use)


@dataclass(frozen=True, slots=True)
class _Looks:
    plan: NodePlan
    client: WholeClient
    notebook: Notebook
    options: GpuBenchOptions
    kept: Path

    async def all(self) -> None:
        prompts = await some_prompts(self.client, self.options.answers, self.options.seed)
        expected = await self.client.all(prompts, ANSWER_TOKENS, salt="one", slo=_ONE)
        self.kept.write_text(
            json.dumps(
                [[prompt, told.tokens] for prompt, told in zip(prompts, expected, strict=True)]
            )
        )
        await self._or_failed("prefill and decode", self._two_engines(prompts, expected))
        await self._or_failed("preemption", self._preemption())
        await self._or_failed("recomputed", self._recomputed(prompts, expected))

    async def _or_failed(self, name: str, look: Any) -> None:
        """An answer that fails is a finding, and the others are looked at all the same."""
        try:
            self.notebook.note(await look)
        except* AnswerFailed as failed:
            self.notebook.note(Finding.of(name, False, str(failed.exceptions[0])))

    async def _two_engines(
        self, prompts: Sequence[Sequence[int]], expected: Sequence[Told]
    ) -> Finding:
        got = await self.client.all(prompts, ANSWER_TOKENS, salt="two", slo=_TWO)
        recomputed = sum(bool(one.report.get("recomputed")) for one in got)
        return _compared(
            "prefill and decode", expected, got, not recomputed, f"{recomputed} recomputed"
        )

    async def _preemption(self) -> Finding:
        prompts = await some_prompts(self.client, _PREEMPTION_PROMPTS, self.options.seed + 1)
        short = [prompt[:64] for prompt in prompts]
        alone = await self.client.all(
            short, _PREEMPTION_TOKENS, salt="alone", slo=_ONE, in_flight=_FITTING
        )
        before = await self._preemptions()
        together = await self.client.all(
            short, _PREEMPTION_TOKENS, salt="together", slo=_ONE, in_flight=len(short)
        )
        preempted = await self._preemptions() - before
        return _compared(
            "preemption", alone, together, preempted > 0, f"{preempted:.0f} preemptions"
        )

    async def _preemptions(self) -> float:
        """Of both engines: either may serve a whole request."""
        engines = [one.name for one in self.plan.parts if one.rank is Rank.ENGINE]
        pages = [await samples(self.plan, name, [_PREEMPTIONS]) for name in engines]
        return sum(page[_PREEMPTIONS] for page in pages)

    async def _recomputed(
        self, prompts: Sequence[Sequence[int]], expected: Sequence[Told]
    ) -> Finding:
        """The last look: the prefill engine dies with the prompts."""
        prefill = process_of(next(one for one in self.plan.parts if one.name == "prefill-0"))
        send(prefill, signal.SIGSTOP)
        some = prompts[-_RECOMPUTED:]
        asked = asyncio.create_task(self.client.all(some, ANSWER_TOKENS, salt="again", slo=_TWO))
        await asyncio.sleep(_STALLED_S)
        send(prefill, signal.SIGKILL)
        got = await asked
        recomputed = sum(bool(one.report.get("recomputed")) for one in got)
        return _compared(
            "recomputed",
            expected[-_RECOMPUTED:],
            got,
            recomputed == len(got),
            f"{recomputed} recomputed",
        )


def _compared(
    name: str, expected: Sequence[Told], got: Sequence[Told], as_meant: bool, words: str
) -> Finding:
    """`as_meant`: whether they came in the way that was asked for."""
    equal, until = same(expected, got)
    said = f"{equal} of {len(expected)} answers the same, {words}"
    return Finding.of(
        name,
        equal == len(expected) and as_meant,
        said,
        answers=len(expected),
        same=equal,
        tokens_until_the_first_difference=until,
    )
