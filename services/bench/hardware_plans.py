"""The hardware tables to make, each with its measurement and rule.

Kernel times become step times by a rule from measured engines: a tenth more, plus host overhead.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from services.bench.fit_tables import Table, Timed, composed, read_rows, sarathi, splitwise
from services.bench.hardware_answers import answers, decode_rows
from services.bench.hardware_facts import (
    A100_80GB,
    H100_80GB,
    H200_141GB,
    LLAMA_2_7B,
    LLAMA_2_70B,
    LLAMA_3_8B,
    YI_34B,
    Gpu,
    Model,
)
from services.bench.hardware_fit import fit_true
from services.bench.hardware_made import Made
from services.bench.hardware_mixed import Mixed, with_mixed
from shared.hardware import Draft, TrueStep

Reader = Callable[[Path], Iterator[Table]]
_NOISE_SIGMA = 0.02
_OVER_KERNELS, _HOST_S, _HOST_SEQUENCE_S = 1.1, 1.3e-3, 4e-5
_FREE = (
    "weights_s",
    "weights_token_s",
    "arithmetic_s",
    "arithmetic_token_s",
    "corner",
    "tile_share",
    "sequence_s",
    "context_s",
    "earlier_s",
    "pair_s",
)
_LAYERS = _FREE[:4]
_COMPOSED = (
    (A100_80GB, LLAMA_2_7B, "A100 llama2-7b"),
    (A100_80GB, LLAMA_3_8B, "A100 llama3-8b"),
    (H100_80GB, LLAMA_2_7B, "H100 llama2-7b"),
    (H100_80GB, LLAMA_3_8B, "H100 llama3-8b"),
)
_SPLITWISE = (
    (A100_80GB, "splitwise llama2-70b a100-80gb tp4"),
    (H100_80GB, "splitwise llama2-70b h100-80gb tp4"),
)
_YI_GPUS = 2
_MOST_DRAFTED = 10
_LLAMA_70B_GPUS = 4
_COEFFICIENTS = "composed_coefficients.csv"
_THREE_PIECES = "3 pieces + kv + ca"
# Kernels of an OPT-125m: seconds at batch 1, and per sequence (2.0 and 1.3 ms at 64).
_DRAFT_S = {A100_80GB.name: (1.0e-3, 1.6e-5), H100_80GB.name: (0.6e-3, 1.1e-5)}
_OF_70B = (
    "Step: prompts as measured for Splitwise, decodes as means of whole answers of vLLM\n"
    "(LLM-Inference-Bench). KV read: arithmetic on bandwidth."
)
_NOTES = {
    "noise": "Noise: 2 %, about what repeats of a step differ by in splitwise's measurement.",
    "engine": "To an engine's step: 1.1 times the kernels, 1.3 ms and 0.04 ms for each sequence\n"
    "(measured engines: 1.0 to 1.25 times; vLLM of 2024).",
    "draft": "Draft: an OPT-125m's kernels, 1.0 to 2.0 ms (A100), 0.6 to 1.3 ms (H100) at batch 1\n"
    "to 64, and a tenth.",
    "nic": "Link: four fifths of a NIC for each GPU, 200 Gbit/s (A100) or 400 Gbit/s (H100, H200).",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """Makes the tables from the measurements in `folder`; a missing one leaves its tables out."""

    folder: Path
    mixed: Mixed

    def all(self) -> Iterator[Made]:
        made = [*self._composed(), *self._splitwise()]
        yield from made
        yield from self._yi()
        yield from (self._h200(one) for one in made if one.gpu is H100_80GB)

    def _composed(self) -> Iterator[Made]:
        tables = self._by_name("composed_steps.csv.gz", composed)
        for gpu, model, engine in _COMPOSED:
            if found := tables.get(f"composed_steps {engine}"):
                rows = tuple(map(_as_engine, found.rows))
                start = replace(self._start(gpu, model, 1), fixed_s=_HOST_S)
                what = "Step: 3,000 batches composed of measured kernels (AIConfigurator, Vidur)."
                yield self._made(gpu, model, 1, fit_true(start, _FREE, rows), rows, what, "engine")

    def _splitwise(self) -> Iterator[Made]:
        """Prompts as Splitwise measured them, decodes from whole answers of vLLM."""
        tables = self._by_name("splitwise_perf_model.csv.gz", splitwise)
        for gpu, engine in _SPLITWISE:
            if found := tables.get(engine):
                start = self._start(gpu, LLAMA_2_70B, _LLAMA_70B_GPUS)
                free = [name for name in _FREE if name not in ("earlier_s", "context_s")]
                rough = fit_true(start, free, found.rows)
                whole = answers(self.folder, gpu, LLAMA_2_70B, _LLAMA_70B_GPUS)
                prompts = tuple(row for row in found.rows if row.step.chunks)
                rows = (*prompts, *decode_rows(rough, whole))
                step = fit_true(start, free, rows if whole else found.rows)
                yield self._made(gpu, LLAMA_2_70B, _LLAMA_70B_GPUS, step, rows, _OF_70B)

    def _yi(self) -> Iterator[Made]:
        for table in sarathi(self.folder):
            start = self._start(A100_80GB, YI_34B, _YI_GPUS)
            step = fit_true(start, (*_LAYERS, "sequence_s"), table.rows)
            what = (
                "Step: nineteen whole steps as measured for Sarathi-Serve (A100 with PCIe).\n"
                "KV read and causal pairs: arithmetic on bandwidth and on the operations that an\n"
                "A100 reaches, since contexts were not told."
            )
            yield self._made(A100_80GB, YI_34B, _YI_GPUS, step, table.rows, what)

    def _h200(self, h100: Made) -> Made:
        faster = H100_80GB.bytes_per_s / H200_141GB.bytes_per_s
        scaled = {
            name: float(f"{getattr(h100.step, name) * faster:.4g}")
            for name in ("weights_s", "context_s", "earlier_s")
        }
        rows = self._h200_rows(h100)
        what = (
            "Step: that of the H100, with weights and KV read faster by the ratio of published\n"
            f"bandwidths, {1 / faster:.2f}."
        )
        return replace(
            h100,
            gpu=H200_141GB,
            step=h100.step.changed(**scaled),
            rows=rows,
            checked=True,
            notes=(what, *h100.notes[1:]),
        )

    def _h200_rows(self, h100: Made) -> tuple[Timed, ...]:
        """The H100's batches, timed by a formula fitted to kernels of an H200, if there is one."""
        path = self.folder / _COEFFICIENTS
        wanted = "H200", h100.model.name.replace("-", "", 1), _THREE_PIECES
        for row in read_rows(path) if path.exists() else []:
            if (row["gpu"], row["model"], row["form"]) == wanted:
                numbers = [float(one) for one in row["coefficients_ms"].split()]
                return tuple(_as_engine(_by_formula(numbers, one)) for one in h100.rows)
        return ()

    def _made(
        self,
        gpu: Gpu,
        model: Model,
        gpus: int,
        step: TrueStep,
        rows: tuple[Timed, ...],
        *notes: str,
    ) -> Made:
        """Adds the cost of mixing to `step`, which was fitted to parts measured alone."""
        common = ("noise", "draft", "nic")
        return Made(
            model=model,
            gpu=gpu,
            gpus=gpus,
            step=with_mixed(step, self.mixed),
            rows=rows,
            notes=(*(_NOTES.get(one, one) for one in notes), *(_NOTES[one] for one in common)),
            link_bytes_per_s=gpus * gpu.nic_bytes_per_s,
            draft=Draft(
                model="opt-125m",
                max_speculation_tokens=_MOST_DRAFTED,
                step_s=step.draft_s,
                sequence_s=step.draft_sequence_s,
            ),
        )

    def _by_name(self, file: str, reader: Reader) -> dict[str, Table]:
        path = self.folder / file
        return {one.name: one for one in reader(path)} if path.exists() else {}

    def _start(self, gpu: Gpu, model: Model, gpus: int) -> TrueStep:
        """The start of a fit: arithmetic on published figures."""
        weights_s = 1.5 * model.weight_bytes / (gpus * gpu.bytes_per_s)
        token_s = 2.4 * model.parameters / (gpus * gpu.flops)
        draft_s, draft_sequence_s = _DRAFT_S[gpu.name]
        return TrueStep(
            weights_s=weights_s,
            weights_token_s=0.2 * token_s,
            arithmetic_s=0.2 * weights_s,
            arithmetic_token_s=token_s,
            tile_share=0.2,
            sequence_s=_HOST_SEQUENCE_S,
            context_s=float(f"{model.context_s(gpu, gpus):.4g}"),
            earlier_s=float(f"{model.context_s(gpu, gpus) / 2:.4g}"),
            pair_s=float(f"{model.pair_s(gpu, gpus):.4g}"),
            draft_s=round(_OVER_KERNELS * draft_s, 7),
            draft_sequence_s=round(_OVER_KERNELS * draft_sequence_s, 7),
            noise_sigma=_NOISE_SIGMA,
        )


def _as_engine(row: Timed) -> Timed:
    """A kernel time as the step time of an engine."""
    sequences = row.step.decodes + row.step.chunks
    seconds = _OVER_KERNELS * row.seconds + _HOST_S + _HOST_SEQUENCE_S * sequences
    return Timed(step=row.step, seconds=seconds)


def _by_formula(numbers: list[float], row: Timed) -> Timed:
    """The step timed by a formula of three pieces, KV and causal pairs, in milliseconds."""
    step = row.step
    pieces = zip(numbers[0:6:2], numbers[1:6:2], strict=True)
    layers_ms = max(base + slope * step.tokens for base, slope in pieces)
    attention_ms = numbers[6] * step.decode_context_tokens + numbers[7] * step.attention_pairs
    return Timed(step=step, seconds=(layers_ms + attention_ms) / 1e3)
