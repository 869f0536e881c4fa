"""The results as Markdown."""

from collections.abc import Sequence

from services.evaluation.markdown import table
from services.evaluation.shared_prefixes.loads import LOADS
from services.evaluation.shared_prefixes.play import Played

_HEAD = ("engines", "system", "found in caches", "TTFT p50 ms", "p95 ms", "kept", "setting")


def tables(played: Sequence[Played]) -> str:
    """A table for each load."""
    parts = []
    for load in LOADS:
        own = [one for one in played if one.load == load.name]
        if own:
            could = own[0].could_hit
            title = (
                f"**{load.name}**: {load.what}; {load.rate:g} programs/s and {load.programs} in "
                f"all for each engine; {could:.1%} of prompt tokens were computed before"
            )
            ordered = sorted(own, key=lambda one: one.engines)
            parts.append(f"{title}\n\n{table(_HEAD, [_row(one) for one in ordered])}")
    return "\n\n".join(parts)


def _row(one: Played) -> list[str]:
    p50_s, p95_s = one.ttft_s
    return [
        str(one.engines),
        one.system,
        f"{one.hit_rate:.1%}",
        f"{1e3 * p50_s:.0f}",
        f"{1e3 * p95_s:.0f}",
        f"{one.kept:.1%}",
        one.setting,
    ]
