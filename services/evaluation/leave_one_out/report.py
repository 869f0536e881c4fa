"""The effects of changes as a table."""

from collections.abc import Sequence

from services.evaluation.leave_one_out.effects import ChangeEffect, Effect
from services.evaluation.markdown import NOT_RUN, table


def effects_table(effects: Sequence[ChangeEffect]) -> str:
    """Points of the share kept that each change gains, the most telling first; then the numbers
    of which no change tells.
    """
    if not effects:
        return NOT_RUN
    rows = [
        [
            f"`{one.number}`",
            f"{one.was:.4g}",
            f"{one.value:.4g}",
            *_cells(one.applications),
            *_cells(one.drawn),
        ]
        for one in sorted(effects, key=_size, reverse=True)
    ]
    head = ["number", "value", "changed to", "applications", "worst", "drawn loads", "worst"]
    return f"{table(head, rows)}\n\n{_quiet_line(effects)}"


def _cells(effect: Effect) -> tuple[str, str]:
    mark = "**" if effect.is_telling else ""
    return f"{mark}{effect.mean:+.2f}{mark} ± {effect.error:.2f}", f"{effect.least:+.1f}"


def _size(one: ChangeEffect) -> float:
    """The larger effect in standard errors."""
    both = (one.applications, one.drawn)
    return max(abs(each.mean) / each.error if each.error else 0.0 for each in both)


def _quiet_line(effects: Sequence[ChangeEffect]) -> str:
    names = dict.fromkeys(one.number for one in effects)
    telling = {one.number for one in effects if one.is_telling}
    quiet = [f"`{name}`" for name in names if name not in telling]
    loads = effects[0].applications.loads, effects[0].drawn.loads
    most = max((abs(one.drawn.mean) for one in effects if one.number not in telling), default=0.0)
    line = (
        f"{len(names)} numbers, {loads[0]} runs of applications and {loads[1]} of drawn loads for "
        f"each change. Within two standard errors in both changes: {len(quiet)}"
    )
    return line + (f" (at most {most:.1f} points): {', '.join(quiet)}." if quiet else ".")
