import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BELOW = """\
from shared.compiled import compiled, inlined

FACTOR = {factor}

@{kind}
def below(x: float) -> float:
    return x + {added}
"""
ABOVE = """\
from shared.compiled import compiled, is_kept
from below import FACTOR, below

@compiled
def above(x: float) -> float:
    return FACTOR * below(x)

kept = int(is_kept(above))
print(above(1.0), kept, sum(above.stats.cache_hits.values()))
"""


def start(folder: Path) -> tuple[float, int]:
    """What `above` says in a new process, and how often it was found on disk."""
    done = subprocess.run(
        [sys.executable, str(folder / "above.py")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NUMBA_CACHE_DIR": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    value, kept, hits = done.stdout.split()
    assert kept == hits, "whether it is kept is known before it is used"
    return float(value), int(hits)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("compiled", {"factor": 2, "added": 20}),
        ("compiled", {"factor": 3, "added": 1}),
        ("inlined", {"factor": 2, "added": 20}),
    ],
)
def test_compiled_code_is_kept_until_a_function_or_a_number_that_it_uses_changes(
    tmp_path: Path, kind: str, change: dict[str, int]
) -> None:
    (tmp_path / "above.py").write_text(ABOVE)
    (tmp_path / "below.py").write_text(BELOW.format(kind=kind, factor=2, added=1))

    assert start(tmp_path) == (4.0, 0)
    assert start(tmp_path) == (4.0, 1)
    (tmp_path / "below.py").write_text(BELOW.format(kind=kind, **change))
    assert start(tmp_path) == (change["factor"] * (1 + change["added"]), 0)
