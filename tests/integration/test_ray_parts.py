"""What the actors of a fleet on Ray do, without Ray: real processes of ours, supervised."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.node.on_ray.config import FleetOptions, UpOptions
from services.node.on_ray.fleet_planner import FleetPlanner
from services.node.on_ray.place import Service, planner_on
from services.node.on_ray.supervised import Supervised, child_environment, here
from services.node.plan import Part, Rank
from services.node.processes import Keeper
from shared.clock import MonotonicClock
from shared.cluster_secret import new_secret
from shared.engines import ScaleAdvice
from shared.errors import DeadlinePassed, EngineLost
from shared.rpc.channels import PlannerClient
from shared.rpc.identity import identity_from
from tests.integration.node import wait_until
from tests.limits import ANSWER_LIMIT_S
from tests.processes import is_alive


def part(tmp_path: Path, code: str, *, stop_limit_s: float = ANSWER_LIMIT_S) -> Part:
    return Part(
        name="it",
        rank=Rank.ENGINE,
        command=(sys.executable, "-c", code),
        address="127.0.0.1:1",  # where nothing answers
        log=tmp_path / "logs" / "it.log",
        stop_limit_s=stop_limit_s,
    )


async def test_a_process_that_ends_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Keeper() as keeper:
        made = Supervised.start(part(tmp_path, "print('no model'); raise SystemExit(3)"), keeper)
        with pytest.raises(EngineLost, match=r"status 3(.|\n)*no model"):
            await made.until_ready(MonotonicClock(), ANSWER_LIMIT_S)
        made.stop()


async def test_a_process_that_is_never_ready_is_told_and_can_still_be_ended(tmp_path: Path) -> None:
    with Keeper() as keeper:
        made = Supervised.start(part(tmp_path, "import time; time.sleep(600)"), keeper)
        with pytest.raises(DeadlinePassed, match=r"it was not ready after 0.1 s"):
            await made.until_ready(MonotonicClock(), 0.1)
        made.stop()
        assert made.process.poll() is not None


def test_a_process_that_ignores_its_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import signal, subprocess, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"path = pathlib.Path({str(child)!r})\n"
        "path.with_suffix('.new').write_text(str(process.pid))\n"
        "path.with_suffix('.new').rename(path)\n"
        "time.sleep(600)\n"
    )
    with Keeper() as keeper:
        made = Supervised.start(part(tmp_path, code, stop_limit_s=0.1), keeper)
        wait_until(child.exists, ANSWER_LIMIT_S)
        made.stop()
        wait_until(lambda: not is_alive(int(child.read_text())), ANSWER_LIMIT_S)


def test_a_process_does_not_outlive_an_actor_that_is_killed(tmp_path: Path) -> None:
    with Keeper() as keeper:
        made = Supervised.start(part(tmp_path, "import time; time.sleep(600)"), keeper)
    wait_until(
        lambda: made.process.poll() is not None, ANSWER_LIMIT_S
    )  # the keeper's input has ended


def test_a_child_finds_our_packages_and_not_rays_number_of_threads() -> None:
    made = child_environment({"OMP_NUM_THREADS": "1", "A": "0", "B": "1"}, {"A": "2"})
    assert made["PYTHONPATH"].split(os.pathsep)[0] == str(Path(__file__).parents[2])
    assert "OMP_NUM_THREADS" not in made
    assert (made["A"], made["B"]) == ("2", "1")


async def test_the_planners_actor_keeps_numbers_until_they_are_set_and_tells_of_its_end(
    tmp_path: Path,
) -> None:
    up = UpOptions(auto_ports=True, run_dir=str(tmp_path), autoscale=True, scale_down_after_s=0.0)
    fleet = FleetOptions(up=up, secret=new_secret())
    around = here(fleet, "127.0.0.1")
    with Keeper() as keeper:
        supervised = Supervised.start(planner_on(fleet, around), keeper)
        try:
            await _held_to_its_laws(fleet, supervised)
        finally:
            supervised.stop()


async def _advice(planner: Part, *, starting_decode: int) -> ScaleAdvice:
    client = PlannerClient(planner.address, identity_from(planner.secret_file))
    try:
        return await client.scale(starting_decode=starting_decode)
    finally:
        await client.close()


async def _held_to_its_laws(fleet: FleetOptions, supervised: Supervised) -> None:
    clock = MonotonicClock()
    plain = replace(fleet, up=replace(fleet.up, autoscale=False))
    manual = FleetPlanner(plain, supervised, clock)
    advised = FleetPlanner(fleet, supervised, clock)
    await supervised.until_ready(clock, ANSWER_LIMIT_S)

    assert await manual.wanted(Service.DECODE, 3) == 3
    await manual.fix({Service.DECODE: 5})
    assert await manual.wanted(Service.DECODE, 3) == 5

    assert await advised.wanted(Service.GATEWAY, 2) == 2
    said = await _advice(supervised.part, starting_decode=9)
    assert await advised.wanted(Service.DECODE, 9) == said.desired_decode
    assert await manual.is_complete()

    await manual.stop()
    with pytest.raises(EngineLost, match="planner ended"):
        await manual.is_complete()
    clock_later = FleetPlanner(fleet, supervised, clock)
    assert await clock_later.wanted(Service.DECODE, 9) == 9  # no advice now
