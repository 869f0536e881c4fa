"""Options of `bench gpu`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.bench.capacity.options import Count, Positive
from shared.engine.environment import CPU
from shared.options import option

STEPS: Mapping[str, float] = {
    "profile": 120.0,
    "answers": 180.0,
    "load": 200.0,
    "speculation": 200.0,
}
"""The steps in their order, and the seconds that each may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBenchOptions:
    """Options of `bench gpu`; all may be left out."""

    model: str = option("embedded", help="embedded, tiny, a model folder or a hub name")
    draft_model: str = option(
        "", help="draft model of the speculation step; default: the model itself, always right"
    )
    dtype: str = option("auto", help="auto is float32 on CPU and the model's own on GPU")
    max_model_len: Count = option(2048, help="longest prompt plus answer in tokens")
    out: str = option("gpu-check", help="folder for gpu.md, gpu.json and the logs")
    steps: tuple[str, ...] = option((), help="steps to run, e.g. profile,load; default: all")
    budget_s: Positive = option(
        480.0, help="how long all steps may take together; what no time is left for is skipped"
    )
    patience: Positive = option(
        1.0, help="multiplies the limit of each step, e.g. 4 on a machine that others use"
    )
    answers: Annotated[int, Field(ge=1, le=64)] = option(
        12, help="prompts whose answers are compared"
    )
    drafts: Count = option(4, help="most drafted tokens of the speculation step")
    rounds: Count = option(3, help="loads tried in the comparison with stock vLLM")
    point_s: Positive = option(12.0, help="how long requests arrive at one load")
    batch_invariant: bool = option(
        True,
        help="on GPU, compare answers with vLLM's kernels that give the same in every batch"
        " (VLLM_BATCH_INVARIANT)",
    )
    seed: int = option(1, help="seed of arrivals, lengths and prompts")
    start_limit_s: Positive = option(
        150.0, help="how long a start may go without progress, or take in the load step"
    )
    device: str = option("", help="what vLLM computes on, e.g. cpu; default: asked of vLLM")
    step: str = option("", help="run this step in this process and write only what it finds")
    json: bool = option(False, help="print one JSON object instead of a table")

    @property
    def on_cpu(self) -> bool:
        return self.device == CPU

    @property
    def engine_dtype(self) -> str:
        """float32 on CPU, where rounding to bfloat16 lets a batch's shape change answers."""
        return "float32" if self.dtype == "auto" and self.on_cpu else self.dtype
