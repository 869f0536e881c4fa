"""Hardware tables from the constants that the authors of SLOs-Serve fitted to their engines.

Their T(n, s) = max over pieces of k1 n + k2 s + b holds for a prompt on an idle engine: its
zero-load time. It has no term for contexts. KV read and causal attention are added by arithmetic,
and the piece that bounds usual steps is reduced by what causal attention adds to prompts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from services.bench.fit_tables import Timed
from services.bench.hardware_facts import (
    A100_40GB,
    H100_80GB,
    NVLINK_BYTES_PER_S,
    OPT_7B,
    OPT_13B,
    OPT_30B,
    R1_QWEN_1_5B,
    TOOLLLAMA_2_7B,
    Gpu,
    Model,
)
from services.bench.hardware_fit import fit_true
from services.bench.hardware_made import Made
from services.bench.hardware_mixed import Mixed, with_mixed
from shared.batch_time import Step
from shared.hardware import Draft, TrueStep

_SHARP = 128.0  # as a maximum, within half a percent where the pieces meet
_NOISE_SIGMA = 0.03
_MOST_DRAFTED = 10
_PROMPTS = (64, 96, 128, 192, 256, 384, 512, 763, 847, 1024, 1333, 1536, 2048)
_FREE = ("weights_s", "weights_token_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Published constants, in seconds.

    `token_s` and `fixed_s` are those of the piece that bounds usual steps, `later` the same two of
    the other piece, `draft_s` that of one draft step.
    """

    model: Model
    gpu: Gpu
    gpus: int
    token_s: float
    fixed_s: float
    later: tuple[float, float] = (0.0, 0.0)
    draft_s: float | None = None

    def zero_load_s(self, tokens: float) -> float:
        """The authors' time of a prompt computed whole on an idle engine."""
        token_s, fixed_s = self.later
        return max(self.token_s * tokens + self.fixed_s, token_s * tokens + fixed_s)


# OPT-6.7B: its first piece has drafts cost nothing; its second 3 ms, as for larger models.
PAPER = (
    Constants(
        model=OPT_7B,
        gpu=A100_40GB,
        gpus=1,
        token_s=6.878e-5,
        fixed_s=2.480e-2,
        later=(7.523e-5, 3.033e-3),
        draft_s=3.465e-3,
    ),
    Constants(
        model=OPT_13B, gpu=A100_40GB, gpus=2, token_s=7.213e-5, fixed_s=3.173e-2, draft_s=3.341e-3
    ),
    Constants(
        model=OPT_30B, gpu=A100_40GB, gpus=4, token_s=9.314e-5, fixed_s=3.788e-2, draft_s=2.797e-3
    ),
    Constants(model=TOOLLLAMA_2_7B, gpu=A100_40GB, gpus=1, token_s=6.572e-5, fixed_s=2.752e-2),
    Constants(model=R1_QWEN_1_5B, gpu=A100_40GB, gpus=1, token_s=2.916e-4, fixed_s=1.804e-2),
    Constants(model=OPT_13B, gpu=H100_80GB, gpus=1, token_s=4.177e-5, fixed_s=2.743e-2),
)


def paper_tables(mixed: Mixed) -> Iterator[Made]:
    for one in PAPER:
        rows = tuple(_prompt(one, tokens) for tokens in _PROMPTS)
        yield Made(
            model=one.model,
            gpu=one.gpu,
            gpus=one.gpus,
            step=with_mixed(fit_true(_start(one), _FREE, rows), mixed),
            rows=rows,
            notes=_notes(one),
            link_bytes_per_s=NVLINK_BYTES_PER_S,
            draft=_draft(one),
        )


def _prompt(constants: Constants, tokens: int) -> Timed:
    return Timed(step=Step().with_chunk(tokens), seconds=constants.zero_load_s(tokens))


def _start(one: Constants) -> TrueStep:
    token_s, fixed_s = one.later
    context_s = one.model.context_s(one.gpu, one.gpus)
    return TrueStep(
        weights_s=one.fixed_s,
        weights_token_s=one.token_s,
        arithmetic_s=fixed_s,
        arithmetic_token_s=token_s,
        corner=_SHARP,
        context_s=float(f"{context_s:.4g}"),
        earlier_s=float(f"{context_s / 2:.4g}"),
        pair_s=float(f"{one.model.pair_s(one.gpu, one.gpus):.4g}"),
        draft_s=one.draft_s or 0.0,
        noise_sigma=_NOISE_SIGMA,
    )


def _draft(one: Constants) -> Draft | None:
    if one.draft_s is None:
        return None
    return Draft(model="opt-125m", max_speculation_tokens=_MOST_DRAFTED, step_s=one.draft_s)


def _notes(one: Constants) -> tuple[str, ...]:
    step = (
        "Step: the published code of SLOs-Serve's authors (arXiv 2504.08784) has\n"
        f"{one.token_s:g} s a token and {one.fixed_s:g} s a step; the zero-load time of a\n"
        "prompt is theirs within 2 %. They know no contexts: KV read (bandwidth) and causal\n"
        "pairs (operations that such a GPU reaches) are arithmetic, the latter taken off the slope."
    )
    draft = (
        "Draft: of the same code; for OPT-6.7B the second piece, the first says it costs nothing."
    )
    return (
        step,
        *([draft] if one.draft_s else []),
        "Noise: 3 %, an assumption; their own fit has R2 of 0.82 to 0.93 on its steps.",
        "Link: NVLink of their one server, two thirds of the line.",
    )
