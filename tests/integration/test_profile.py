"""One tiny engine core profiles itself, and finds its profile again at the next start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.batch_time import Step
from shared.batch_time.table import counts_of
from shared.hardware import from_profile, true_s
from shared.models.tiny import make_tiny_model
from tests.limits import RUN_LIMIT_S

pytestmark = pytest.mark.engines

LIMIT_S = 8.0  # a busy machine makes few steps in it
SCRIPT = """
import asyncio, json, os, sys, tempfile
from pathlib import Path
from shared.batch_time import to_plain
from shared.clock import MonotonicClock
from shared.engine.config import EngineOptions
from shared.engine.environment import set_environment
from shared.kv_transfer.settings import KvTransport

options = EngineOptions(
    model=sys.argv[1], kv_cache_gib=0.2, max_step_tokens=256, kv_transport=KvTransport.NONE,
    profile_limit_s=float(sys.argv[2]),
)
set_environment(options, os.environ)

from shared.engine.link import HostEnd
from shared.engine.profile import Profiler
from shared.engine.vllm_core import EngineCore
from shared.engines import Role


async def main(folder):
    link, clock = HostEnd.bind(folder / "link"), MonotonicClock()
    core = EngineCore.start(
        options, role=Role.DECODE, link=f"ipc://{folder / 'link'}", model_path=options.model
    )
    try:
        core.kv = await link.layout()
        profiler = Profiler(
            core=core, link=link, clock=clock, options=options, model_path=options.model
        )
        told = []
        for _ in range(2):  # the second finds what the first has kept
            profile = await profiler.profile()
            told.append({
                "steps": len(profile.steps),
                "kinds": sorted({one.step.kind.value for one in profile.steps}),
                "largest": max((one.step.tokens for one in profile.steps), default=0),
                "fit": profile.fit.curve.coefficients,
                "plain": {"fit": to_plain(profile.fit), "engine": dict(profile.engine)},
            })
        await core.add_synthetic("after", [5] * 40, 3)
        report = None
        while report is None or "after" not in report.finished:
            report = (await link.next_reports())[-1]
        told[1] |= {
            "free_after": report.free_kv_blocks, "blocks": core.config.cache_config.num_gpu_blocks,
            "predicted_s": report.predicted_s, "running": report.running,
        }
        return told
    finally:
        await asyncio.to_thread(core.shut_down, 2.0)
        link.close()


with tempfile.TemporaryDirectory() as folder:
    print("TOLD " + json.dumps(asyncio.run(main(Path(folder)))))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("profile")
    model = make_tiny_model(folder / "model")
    environ = {**os.environ, "SLOS_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model), str(LIMIT_S)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("TOLD ")]
    assert len(list((folder / "cache" / "profiles").iterdir())) == 1
    result: list[dict[str, Any]] = json.loads(line.removeprefix("TOLD "))
    return result


def test_an_engine_measures_steps_of_each_kind(told: list[dict[str, Any]]) -> None:
    first = told[0]

    assert first["kinds"] == ["decode", "mixed", "prefill"]
    assert first["steps"] > 20
    assert first["largest"] <= 256


def test_the_next_start_finds_the_same_profile_and_measures_nothing(
    told: list[dict[str, Any]],
) -> None:
    first, second = told

    assert second["steps"] == 0
    assert second["fit"] == first["fit"]


def test_afterwards_the_engine_is_empty_and_knows_what_its_steps_take(
    told: list[dict[str, Any]],
) -> None:
    second = told[1]

    assert second["running"] == 0
    assert second["free_after"] == second["blocks"] - 1
    assert second["predicted_s"] > 0


def test_an_engine_that_was_measured_can_be_simulated(
    told: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(told[0]["plain"]))

    hardware = from_profile(path)

    assert hardware.kv_blocks == told[1]["blocks"] - 1
    assert hardware.max_step_tokens == 256
    assert true_s(hardware.step.numbers, counts_of(Step(decodes=2, decode_context_tokens=80))) > 0
