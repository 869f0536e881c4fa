"""Loads on which others once kept far more than ours, found by the search for regret.

`best_other` is the share of programs that the best other system kept.
"""

from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from pydantic import TypeAdapter

from services.evaluation.regret.loads import RegretLoad
from services.evaluation.regret.play import play_ours
from shared.simulation.judge import Rule

FOUND: Final = orjson.loads((Path(__file__).parent / "worst_loads.json").read_bytes())


@pytest.mark.parametrize("name", list(FOUND))
def test_what_was_mended_stays_mended(name: str, tmp_path: Path) -> None:
    found: dict[str, Any] = FOUND[name]
    load = TypeAdapter(RegretLoad).validate_python(found["load"])

    assert play_ours(load, tmp_path).kept[Rule.ASKED] >= found["at_least"]
