"""The results of a search as text and tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.evaluation.markdown import table
from services.evaluation.regret.play import Regret
from services.evaluation.regret.search import worst
from services.evaluation.results import RULES
from shared.simulation.judge import Rule

_WORST: Final = 10
_QUANTILES: Final = ((0.5, "median"), (0.9, "p90"), (0.99, "p99"), (1.0, "worst"))


def whole(regrets: Sequence[Regret], folder: Path) -> str:
    """All tables as Markdown."""
    if not regrets:
        return "No load was played."
    parts = [distribution(regrets), throughput(regrets), worst_table(regrets, folder)]
    return "\n\n".join(part for part in parts if part)


def distribution(regrets: Sequence[Regret]) -> str:
    """Points of share kept by the best baseline less ours: below 0 ours keeps more."""
    rows = [_row(f"programs, {rule}", [one.points(rule) for one in regrets]) for rule in _rules()]
    rows.append(_row("worst class", [one.worst_class_points for one in regrets]))
    rows.append(_row("beside plain vLLM", [_beside_vllm(one) for one in regrets]))
    head = ["regret, points", *(name for _, name in _QUANTILES), "ours ahead or even"]
    return f"**{len(regrets)} loads**\n\n{table(head, rows)}"


def throughput(regrets: Sequence[Regret]) -> str:
    """How much faster than plain vLLM ours served loads without an SLO; empty without any."""
    free = [one.beside_vllm for one in regrets if one.load.asks_for_nothing]
    if not free:
        return ""
    low, middle = np.quantile(free, (0.0, 0.5))
    return (
        f"Of {len(free)} loads without an SLO ours ends after vLLM's time / {middle:.2f} (median), "
        f"/ {low:.2f} at worst."
    )


def worst_table(regrets: Sequence[Regret], folder: Path) -> str:
    """The worst loads, and the command that replays each."""
    head = ["regret", "ours", "best other", "promised", "kept of it", "load"]
    rows = [
        [
            f"{one.points():.1f}",
            f"{one.ours.kept[Rule.ASKED]:.1%}",
            f"{one.best.kept[Rule.ASKED]:.1%} ({one.best.system}: {one.best.setting})",
            f"{one.ours.promised:.0%}",
            f"{one.ours.promises_kept:.0%}",
            f"`{replay(one, folder)}`",
        ]
        for one in worst(regrets, _WORST)
    ]
    return f"**The {len(rows)} worst**\n\n{table(head, rows)}"


def replay(regret: Regret, folder: Path) -> str:
    """The command that plays the load again, through all systems."""
    load = regret.load
    return (
        f"slos-serve simulate --classes {folder / load.key}.yaml --hardware {load.hardware} "
        f"--fleet {load.fleet} --rate {load.rate:g} --requests {load.programs} --seed {load.seed} "
        f"--system all{'' if load.drafts else ' --no-drafts'}"
    )


def _rules() -> Iterator[str]:
    yield Rule.ASKED
    yield from RULES


def _row(name: str, points: Sequence[float]) -> list[str]:
    shares = (f"{np.quantile(points, at):.1f}" for at, _ in _QUANTILES)
    return [name, *shares, f"{np.mean(np.array(points) <= 0):.0%}"]


def _beside_vllm(one: Regret) -> float:
    return 100 * (one.vllm.kept[Rule.ASKED] - one.ours.kept[Rule.ASKED])
