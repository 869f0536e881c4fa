"""Renders the result of `slos-serve profile`: coefficients with units, margins, errors."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table as Shown

from services.bench.fit_report import Compared, table_json
from shared.batch_time import Feature, Fit

_UNITS = {
    Feature.FIXED: ("us", 1e6, "each step"),
    Feature.TOKENS: ("us/token", 1e6, "each token computed"),
    Feature.SPECULATION_STEPS: ("us/step", 1e6, "each drafted token of the longest draft"),
    Feature.PREFILL_TOKENS: ("us/token", 1e6, "each prompt token"),
    Feature.DECODE_TOKENS: ("us/token", 1e6, "each token that decodes"),
    Feature.SEQUENCES: ("us/request", 1e6, "each request in the step"),
    Feature.CONTEXT: ("us/Ktoken", 1e9, "KV read"),
    Feature.DECODE_CONTEXT: ("us/Ktoken", 1e9, "KV read by decodes"),
    Feature.ATTENTION_PAIRS: ("us/Mpair", 1e12, "attention inside prompts, by pairs of tokens"),
    Feature.SHARED_CONTEXT: ("us/Ktoken", 1e9, "KV read by decodes beside a prompt"),
    Feature.SHARED_BLOCKS: ("us/Kpair", 1e9, "decodes times prompt tokens beside them"),
    Feature.LONGEST: ("us/Ktoken", 1e9, "the longest context in a mixed step"),
}


def as_json(compared: Compared) -> dict[str, Any]:
    """Errors by form and kind of step, as `bench fit` gives them for a table."""
    return {"bench": "profile", "errors": "relative, cross-validated", **table_json(compared)}


def coefficients_table(fit: Fit) -> Shown:
    """A row for each coefficient; pieces are named group.piece."""
    shown = Shown(title="Step time: the sum over groups of the longest piece in each")
    for name in ("piece", "coefficient", "unit", "of"):
        shown.add_column(name, justify="right" if name == "coefficient" else "left")
    at = 0
    for group, pieces in enumerate(fit.curve.form.groups):
        for number, piece in enumerate(pieces):
            weights = fit.curve.coefficients[at : at + len(piece)]
            at += len(piece)
            if any(weights):  # a piece without weights is never the longest
                _add_piece(shown, f"{group}.{number}", piece, weights)
        shown.add_section()
    shown.caption = _margins(fit)
    return shown


def _add_piece(shown: Shown, name: str, piece: Sequence[Feature], weights: Sequence[float]) -> None:
    for place, (feature, weight) in enumerate(zip(piece, weights, strict=True)):
        unit, scale, words = _UNITS[feature]
        shown.add_row("" if place else name, f"{weight * scale:,.1f}", unit, words)


def _margins(fit: Fit) -> str:
    levels = ", ".join(f"{100 * level:g} %" for level in fit.levels)
    kinds = [
        f"{kind.value} {', '.join(f'{one:.2f}' for one in margins)}"
        for kind, margins in fit.margins.items()
    ]
    return f"{fit.steps} steps; measured over fitted, at most, of {levels}: {'; '.join(kinds)}"
