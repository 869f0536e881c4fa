"""Draining an engine and taking it back, as `slos-serve drain` and the end of its host do."""

from typing import Any

import pytest

from shared.clock import MonotonicClock
from shared.engine.service import EngineService
from shared.engine.state import EngineState
from shared.rpc import slos_pb2 as pb
from tests.unit.planner.builders import make_engine


class Aborted(Exception):
    pass


class Context:
    async def abort(self, code: object, details: str) -> None:
        del code
        raise Aborted(details)


def service(told: list[bool]) -> EngineService:
    state = EngineState(make_engine())
    none: Any = None
    return EngineService(none, none, state, MonotonicClock(), told.append, lambda _: None)


async def test_an_engine_can_be_drained_and_taken_back() -> None:
    told: list[bool] = []
    engine, context = service(told), Context()

    reply = await engine.Drain(pb.DrainRequest(limit_s=0.0), context)  # type: ignore[arg-type]
    drained = await engine.Health(pb.HealthRequest(), context)  # type: ignore[arg-type]
    await engine.Undrain(pb.UndrainRequest(), context)  # type: ignore[arg-type]
    back = await engine.Health(pb.HealthRequest(), context)  # type: ignore[arg-type]

    assert reply.left_over == 0
    assert (drained.serving, drained.draining) == (False, True)
    assert (back.serving, back.draining) == (True, False)
    assert told == [True, False]


async def test_an_engine_that_is_being_stopped_is_not_taken_back() -> None:
    told: list[bool] = []
    engine = service(told)

    await engine.end(limit_s=0.0)
    with pytest.raises(Aborted, match="start it again"):
        await engine.Undrain(pb.UndrainRequest(), Context())  # type: ignore[arg-type]

    assert told == [True]
    assert engine.streams.draining
