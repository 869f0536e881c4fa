import asyncio
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.node import up
from services.node.config import NodeOptions
from services.node.plan import NodePlan, Part, Rank
from shared.clock import Clock
from shared.errors import DeadlinePassed

# Parts of a node in which a part is ready once it has written a file beside its log.
STANDS = "ready.touch(); time.sleep(60)"
STANDS_AND_DIES_ONCE = """
first = not ready.exists()
ready.touch()
while first and not (ready.parent / "die").exists():
    time.sleep(0.02)
if first:
    sys.exit("killed")
(ready.parent / "again").touch()
time.sleep(60)
"""
WAITS_FOR_ITS_RETURN = """
(ready.parent / "die").touch()
while not (ready.parent / "again").exists():
    time.sleep(0.02)
ready.touch()
time.sleep(60)
"""
SILENT = "time.sleep(60)"
DIES = "sys.exit('because')"


def part(name: str, folder: Path, script: str, after: str = "") -> Part:
    head = f"import sys, time, pathlib; ready = pathlib.Path({str(folder / name)!r})\n"
    return Part(
        name=name,
        rank=Rank.ENGINE,
        command=(sys.executable, "-c", head + script),
        address=str(folder / name),
        log=folder / f"{name}.log",
        stop_limit_s=5.0,
        after=after,
    )


def stands(one: Part) -> bool:
    return Path(one.address).exists()


@pytest.fixture(autouse=True)
def files_for_health(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ready(one: Part, clock: Clock) -> float:
        while not stands(one):
            await clock.sleep(0.02)
        return 0.0

    async def attached(_plan: NodePlan, _clock: Clock) -> None:
        return None

    monkeypatch.setattr(up, "wait_until_ready", ready)
    monkeypatch.setattr(up, "wait_until_attached", attached)


def run(parts: Sequence[Part], **options: float) -> tuple[int, str]:
    """The exit status of the node, and what it said, once all parts stand."""
    said = StringIO()
    plan = NodePlan(parts=tuple(parts), url="", planner="", model_name="m")

    async def use(_plan: NodePlan) -> int:
        return 7

    console = Console(file=said, width=200)
    status = asyncio.run(up.serve(NodeOptions(**options), plan, use, console))  # type: ignore[arg-type] # by name
    return status, said.getvalue()


def test_a_part_that_dies_while_others_still_start_comes_back(tmp_path: Path) -> None:
    parts = [
        part("one", tmp_path, STANDS_AND_DIES_ONCE),
        part("late", tmp_path, WAITS_FOR_ITS_RETURN, after="one"),
    ]

    status, said = run(parts)

    assert status == 7
    assert "one ended with status 1; starting it again" in said


def test_a_part_that_never_stood_ends_the_node_with_its_last_words(tmp_path: Path) -> None:
    status, said = run([part("one", tmp_path, STANDS), part("bad", tmp_path, DIES)])

    assert status == 1
    assert "bad ended with status 1. The end of its log" in said
    assert "because" in said


def test_a_part_starts_only_once_the_one_before_it_is_ready(tmp_path: Path) -> None:
    parts = [part("one", tmp_path, SILENT), part("next", tmp_path, STANDS, after="one")]

    with pytest.raises(DeadlinePassed, match=r"no progress for 0\.5 s: one, next"):
        run(parts, start_limit_s=0.5)
    assert not (tmp_path / "next").exists()


def test_a_node_serves_once_all_parts_stand(tmp_path: Path) -> None:
    parts = [part(name, tmp_path, STANDS) for name in ("one", "two")]

    status, said = run(parts)

    assert status == 7
    assert "one          ready after" in said
