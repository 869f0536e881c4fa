import json
from typing import Any

import pytest

from shared.batch_time import RICH, Step, fit_curve, from_plain, to_plain

STEPS = [Step(decodes=n, decode_context_tokens=50 * n).with_chunk(n % 7) for n in range(1, 40)]
FIT = fit_curve(RICH, STEPS, [0.01 + 1e-4 * step.tokens for step in STEPS])


def test_a_fit_comes_back_from_json_as_it_was() -> None:
    assert from_plain(json.loads(json.dumps(to_plain(FIT)))) == FIT


@pytest.mark.parametrize(
    "changed",
    [
        {"form": "poor"},
        {"columns": ["FIXED"]},
        {"coefficients": [1.0]},
        {"coefficients": None},
        {"margins": []},
        {"margins": {"idle": [1.0]}},
        {"steps": "many"},
    ],
)
def test_what_is_no_fit_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(to_plain(FIT) | changed)


def test_nothing_is_no_fit() -> None:
    with pytest.raises(ValueError, match="no fit of step times"):
        from_plain({})
