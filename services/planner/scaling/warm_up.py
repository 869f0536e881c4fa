"""Compiles the replay by answering a made-up question, or loads the compiled code from disk.

`python -m services.planner.scaling.warm_up` does so in a process of its own.
"""

import os

import numpy as np

from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.replay import run
from services.planner.scaling.scaler import Question, answer
from services.planner.scaling.site import Site
from shared.batch_time import RICH, StepCurve, StepTable
from shared.compiled import is_kept
from shared.parent import end_with_parent
from shared.scheduling.former import engine_limits


def is_warm() -> bool:
    """Whether the compiled code is on disk."""
    return is_kept(run)


def warm_up() -> None:
    """Takes most of a minute of a core to compile, and little where the code is on disk."""
    table = StepTable.of(StepCurve(form=RICH, coefficients=(1e-3,) * len(RICH.columns)))
    limits = engine_limits(max_tokens=512, block_tokens=16, max_resident=64, free_blocks=1024.0)
    site = Site(
        limits=np.array([limits, limits]),
        prefill_table=table.numbers,
        decode_table=table.numbers,
        link_fixed_s=0.0,
        link_token_s=0.0,
    )
    demands = np.array([[-1.0, 32.0, 0.0, 4.0, 1e3, 1e3, 1e3, 0.0, 0.0, 1.0]])
    question = Question(
        demands=demands,
        site=site,
        size=FleetSize(prefill=1, decode=1),
        numbers=ScalingNumbers(),
        window_s=1.0,
    )
    answer(question)


if __name__ == "__main__":
    end_with_parent(os.getppid())
    os.nice(10)  # decisions go first
    warm_up()
