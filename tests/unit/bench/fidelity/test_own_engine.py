"""One table of several profiles of an engine whose machine changes its speed."""

import json
import sys
from pathlib import Path

import pytest

from services.bench.fidelity.own_engine import profile, read
from services.node.plan import Part, Rank
from shared.batch_time import Step, to_plain
from shared.batch_time.profile_fit import fit_of
from shared.errors import SlosError
from shared.hardware import load
from shared.hardware.profile import measured
from tests.unit.shared.hardware.test_own import ENGINE

STEPS = measured(load("opt-13b-a100-40gb"))


def says(text: str, folder: Path, *, status: int = 0) -> Part:
    told = folder / "told"
    told.write_text(text)
    words = "import sys; print(open(sys.argv[1]).read()); sys.exit(int(sys.argv[2]))"
    return Part(
        name="profile",
        rank=Rank.ENGINE,
        command=(sys.executable, "-c", words, str(told), str(status)),
        environ={},
        address="",
        log=folder / "run" / "profile.log",
        stop_limit_s=1.0,
    )


async def test_the_steps_of_all_profiles_make_one_table(tmp_path: Path) -> None:
    fit = fit_of(STEPS)
    assert fit is not None
    alone = {
        "fit": to_plain(fit),
        "engine": ENGINE,
        "measured": [one.plain for one in STEPS],
    }

    path = await profile(says(json.dumps(alone), tmp_path), 20.0, times=3)

    together = json.loads(path.read_text())
    assert len(together["measured"]) == 3 * len(STEPS)
    engine = read(path, link_bytes_per_s=1e9, link_latency_s=0.0)
    step = Step(decodes=4, decode_context_tokens=400)
    assert engine.table.expected_s(step) == pytest.approx(fit.curve.step_time(step), rel=0.02)


async def test_an_engine_that_cannot_be_profiled_says_why(tmp_path: Path) -> None:
    with pytest.raises(SlosError, match="could not be profiled"):
        await profile(says("{}", tmp_path, status=2), 20.0, times=2)
