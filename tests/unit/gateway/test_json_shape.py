import json
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from services.gateway import json_shape
from services.gateway.json_shape import at_most, shape_of

SIGNS = '"\\,:[]{}a€'
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=SIGNS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet=SIGNS), inner),
)


def counted(value: Any) -> tuple[int, int, int]:
    """Values, keys and depth; an empty array or object counts twice."""
    if not isinstance(value, (list, dict)):
        return 1, 0, 0
    parts = [counted(one) for one in (value.values() if isinstance(value, dict) else value)]
    values, keys, depths = zip(*parts, strict=True) if parts else ((1,), (0,), (0,))
    own_keys = len(value) if isinstance(value, dict) else 0
    return 1 + sum(values), own_keys + sum(keys), 1 + max(depths)


@given(value=JSON, chunk_bytes=st.sampled_from([1, 2, 3, 7, 1 << 18]))
def test_what_is_counted_is_what_a_parser_finds(value: Any, chunk_bytes: int) -> None:
    with patch.object(json_shape, "_CHUNK_BYTES", chunk_bytes):
        shape = shape_of(json.dumps(value).encode())

    assert (shape.values, shape.keys, shape.depth) == counted(value)


@given(value=JSON)
def test_the_quick_bound_is_never_too_low(value: Any) -> None:
    text = json.dumps(value).encode()
    bound, shape = at_most(text), shape_of(text)

    assert bound.values >= shape.values
    assert bound.keys >= shape.keys
    assert bound.depth >= shape.depth


@given(text=st.binary(max_size=300))
def test_any_bytes_can_be_counted(text: bytes) -> None:
    assert shape_of(text).values >= 1
