"""Every word of ours crosses the wire unchanged, and nothing in it is left behind."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from shared.engines import EngineDescription, EngineView, Policy, ScaleAdvice, StepReport
from shared.requests import (
    Explanation,
    Outcome,
    Placement,
    PlacementOption,
    PlacementQuery,
    PrefixExport,
    SloTargets,
)
from shared.rpc import codec, planner_codec
from shared.rpc import slos_pb2 as pb

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(0, 2**32 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(min_size=1, max_size=20),
    bytes: st.binary(max_size=20),
    type(None): st.none(),
}

CODECS: list[tuple[type[Any], Callable[[Any], Message], Callable[[Any], Any]]] = [
    (EngineDescription, codec.description_to_wire, codec.description_from_wire),
    (SloTargets, codec.targets_to_wire, codec.targets_from_wire),
    (PlacementQuery, codec.query_to_wire, codec.query_from_wire),
    (Placement, codec.placement_to_wire, codec.placement_from_wire),
    (StepReport, codec.report_to_wire, codec.report_from_wire),
    (Policy, codec.policy_to_wire, codec.policy_from_wire),
    (Outcome, codec.outcome_to_wire, codec.outcome_from_wire),
    (PrefixExport, codec.export_to_wire, codec.export_from_wire),
    (EngineView, planner_codec.view_to_wire, planner_codec.view_from_wire),
    (PlacementOption, planner_codec.considered_to_wire, planner_codec.considered_from_wire),
    (ScaleAdvice, planner_codec.scale_to_wire, planner_codec.scale_from_wire),
    (Explanation, planner_codec.explanation_to_wire, planner_codec.explanation_from_wire),
]


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that the annotation allows, within what the wire can count."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return st.one_of(*(values_of(one) for one in arguments))
    if get_origin(hint) is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if get_origin(hint) is dict:
        return st.dictionaries(*(values_of(one) for one in arguments), max_size=3)
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{one.name: values_of(hints[one.name]) for one in fields(hint)})
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    return PLAIN[hint]


@pytest.mark.parametrize(
    ("kind", "to_wire", "from_wire"), CODECS, ids=[kind.__name__ for kind, _, _ in CODECS]
)
@given(data=st.data())
def test_what_is_sent_is_what_arrives(
    kind: type[Any],
    to_wire: Callable[[Any], Message],
    from_wire: Callable[[Any], Any],
    data: st.DataObject,
) -> None:
    sent = data.draw(values_of(kind))

    wire = to_wire(sent)
    arrived = from_wire(type(wire).FromString(wire.SerializeToString()))

    assert arrived == sent


def test_a_role_that_we_do_not_know_is_an_error() -> None:
    with pytest.raises(KeyError):
        codec.description_from_wire(pb.EngineDescription(name="d0"))


@pytest.mark.parametrize("wire", [pb.PlacementQuery(), pb.PlacementQuery(forced_way="sideways")])
def test_a_query_with_unknown_words_is_an_error(wire: pb.PlacementQuery) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        codec.query_from_wire(wire)
