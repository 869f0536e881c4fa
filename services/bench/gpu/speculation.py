"""Whether answers with drafts are those without, and how many drafted tokens are accepted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.bench.gpu.answers import KEPT, MODEL_LEN
from services.bench.gpu.asking import Told, WholeClient, same
from services.bench.gpu.findings import Finding, Verdict
from services.bench.gpu.node import ANSWER_TOKENS, SmallNode, samples
from services.bench.gpu.notebook import Notebook
from services.bench.gpu.options import GpuBenchOptions
from services.node.plan import NodePlan
from shared.engine.speculation import Speculation
from shared.errors import SlosError
from shared.models import resolve_model

_DRAFTED: Final = "slos_engine_tokens_total speculated"
_ACCEPTED: Final = "slos_engine_speculation_accepted_tokens_total"


def look_at_speculation(options: GpuBenchOptions, folder: Path, notebook: Notebook) -> None:
    """One node for each method; where one fails, the other is looked at all the same."""
    kept = folder / KEPT
    if not kept.exists():
        words = "the step `answers` kept none to compare with"
        notebook.note(Finding(name="speculation", verdict=Verdict.SKIPPED, words=words))
        return
    for method, more in _methods(options).items():
        look = _Look(method=method, kept=kept, notebook=notebook)
        node = SmallNode(
            options=options,
            folder=folder / method,
            prefill=0,
            max_model_len=MODEL_LEN,
            engines={"speculation": method, "speculation_tokens": options.drafts, **more},
        )
        try:
            node.run(look.use)
        except* SlosError as failed:
            words = str(failed.exceptions[0]).strip()
            notebook.note(Finding.of(method, False, words.splitlines()[0]))


def _methods(options: GpuBenchOptions) -> Mapping[str, Mapping[str, Any]]:
    draft = resolve_model(options.draft_model or options.model)
    return {
        str(Speculation.NGRAM): {},
        str(Speculation.DRAFT_MODEL): {"speculation_model": draft},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    method: str
    kept: Path
    notebook: Notebook

    async def use(self, plan: NodePlan, client: WholeClient) -> None:
        pairs = json.loads(self.kept.read_text())
        expected = [Told(tokens=tokens, report={}) for _, tokens in pairs]
        got = await client.all(
            [prompt for prompt, _ in pairs], ANSWER_TOKENS, salt=self.method, slo={}
        )
        counts = await samples(plan, "decode-0", [_DRAFTED, _ACCEPTED])
        drafted, accepted = counts[_DRAFTED], counts[_ACCEPTED]
        equal, until = same(expected, got)
        self.notebook.note(
            Finding.of(
                self.method,
                equal == len(expected) and drafted > 0,
                f"{equal} of {len(expected)} answers the same, {accepted:.0f} of {drafted:.0f} "
                "drafted tokens accepted",
                drafted_tokens=drafted,
                accepted_tokens=accepted,
                tokens_until_the_first_difference=until,
            )
        )
