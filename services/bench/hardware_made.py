"""A hardware table before it is written: its fit, the fitted steps and the file's text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from services.bench.fit_tables import Timed
from services.bench.hardware_facts import Gpu, Model
from shared.hardware import Draft, TrueStep

ACTIVATION_BYTES = 2.0e9  # activations, captured graphs and driver: assumed
_DRAFT_BYTES = 0.25e9  # an OPT-125m
_STALL_CHANCE, _STALL_S = 1e-4, 0.05
_BLOCK_TOKENS, _STEP_TOKENS, _REQUESTS = 16, 8192, 256
_OF_DRAFT = ("draft_s", "draft_sequence_s")
_LINK_LATENCY_S = 1e-3
_USUAL = """\
KV capacity: nine tenths of the GPUs' memory less weights (parameters in half precision) less 2 GB
of each GPU for activations, graphs and the driver (assumed). KV per token: two vectors in each
layer and KV head. Stalls: assumed, one step in ten thousand. Mixed attention: fitted to measured
calls of an RTX PRO 6000 with Llama-3.1-8B (LLMServingSim), ratios only. Limits of a step and of
requests: vLLM's usual ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A hardware table and its origin.

    `rows` are the steps it was fitted to or, if `checked`, only compared with. `notes` name the
    sources of figures that differ between tables.
    """

    model: Model
    gpu: Gpu
    gpus: int
    step: TrueStep
    rows: tuple[Timed, ...]
    checked: bool = False
    notes: tuple[str, ...]
    link_bytes_per_s: float
    draft: Draft | None = None

    @property
    def name(self) -> str:
        return f"{self.model.name}-{self.gpu.name}"

    @property
    def text(self) -> str:
        """The file's text, in TOML."""
        return "\n\n".join(self._sections()) + "\n"

    def _sections(self) -> Iterator[str]:
        source = "\n".join([*self.notes, _USUAL])
        head = {"model": self.model.name, "gpu": self.gpu.name, "gpus": self.gpus}
        yield "\n".join([*_lines(head), f'source = """\n{source}\n"""'])
        numbers = self.step.plain.items()
        yield _section("step", {name: one for name, one in numbers if name not in _OF_DRAFT})
        if self.draft is not None:
            yield _section("draft", _plain(self.draft))
        yield _section("stalls", {"stall_chance": _STALL_CHANCE, "stall_s": _STALL_S})
        yield _section("memory", self._memory())
        yield _section("engine", self._engine())
        link = {"link_bytes_per_s": self.link_bytes_per_s, "link_latency_s": _LINK_LATENCY_S}
        yield _section("link", link)

    def _memory(self) -> dict[str, object]:
        drafts = _DRAFT_BYTES if self.draft else 0.0
        return {
            "gpu_bytes": self.gpu.usable_bytes,
            "weight_bytes": self.model.weight_bytes + drafts,
            "activation_bytes": ACTIVATION_BYTES,
            "kv_bytes_per_token": self.model.kv_bytes_per_token,
        }

    def _engine(self) -> dict[str, object]:
        return {
            "block_size_tokens": _BLOCK_TOKENS,
            "max_step_tokens": _STEP_TOKENS,
            "max_running_requests": _REQUESTS,
            "max_model_len_tokens": self.model.max_len_tokens,
            "host_overhead_s": 0.0,
        }


def _section(name: str, values: Mapping[str, object]) -> str:
    return "\n".join([f"[{name}]", *_lines(values)])


def _lines(values: Mapping[str, object]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items()]


def _value(value: object) -> str:
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text if set(text) & set(".e") else f"{text}.0"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _plain(draft: Draft) -> dict[str, object]:
    return {one.name: getattr(draft, one.name) for one in fields(draft)}
