"""Counts the values, keys and levels of a JSON text without parsing it.

Parsing and validating hold the GIL, in any thread, for a time that grows with the number of values;
counting bytes in numpy does not.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

_Bytes: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint8]]
_Places: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
_QUOTE, _BACKSLASH, _COMMA, _COLON = (ord(sign) for sign in '"\\,:')
_FOLD: Final = 0x20  # `[` and `{`, `]` and `}` differ by this bit alone
_OPENING, _CLOSING = ord("{"), ord("}")
_CHUNK_BYTES: Final = 1 << 18  # so that the arrays of one pass stay in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonShape:
    """`values` counts all values, arrays and objects included; `keys` those of all objects."""

    values: int
    keys: int
    depth: int


def at_most(text: bytes) -> JsonShape:
    """A fast upper bound: signs inside strings are counted too."""
    opened = text.count(b"[") + text.count(b"{")
    return JsonShape(values=1 + opened + text.count(b","), keys=text.count(b":"), depth=opened)


def shape_of(text: bytes) -> JsonShape:
    """Counts valid JSON; an empty array or object counts as two values. Never raises."""
    values, keys, depth, deepest = 1, 0, 0, 0
    in_string = escaped = False
    whole = np.frombuffer(text, np.uint8)
    for start in range(0, len(whole), _CHUNK_BYTES):
        chunk = whole[start : start + _CHUNK_BYTES]
        outside, in_string, escaped = _outside_strings(chunk, in_string=in_string, escaped=escaped)
        folded = outside | _FOLD
        steps = (folded == _OPENING).view(np.int8) - (folded == _CLOSING).view(np.int8)
        steps = steps[steps != 0]
        levels = depth + np.cumsum(steps, dtype=np.int64)
        if len(levels):
            deepest, depth = max(deepest, int(levels.max())), int(levels[-1])
        keys += int(np.count_nonzero(outside == _COLON))
        values += int(np.count_nonzero(steps > 0)) + int(np.count_nonzero(outside == _COMMA))
    return JsonShape(values=values, keys=keys, depth=deepest)


def _outside_strings(chunk: _Bytes, *, in_string: bool, escaped: bool) -> tuple[_Bytes, bool, bool]:
    """The bytes outside strings; whether the next chunk begins in a string or escaped."""
    is_quote = chunk == _QUOTE
    slashes = np.flatnonzero(chunk == _BACKSLASH)
    if len(slashes) or escaped:
        is_quote[_escaped(slashes, len(chunk), after_escape=escaped)] = False
        escaped = bool(_ends_escaping(slashes, len(chunk), after_escape=escaped))
    # Quotes before each place, modulo 256; parity is what counts.
    parity = np.cumsum(is_quote.view(np.uint8), dtype=np.uint8) & 1
    inside = parity.astype(bool) ^ in_string
    return chunk[~(inside | is_quote)], bool(inside[-1]), escaped


def _escaped(slashes: _Places, length: int, *, after_escape: bool) -> _Places:
    """The places that follow an odd number of backslashes in a row."""
    odd = _last_of_odd_runs(slashes, after_escape=after_escape) + 1
    places = odd[odd < length]
    first_is_plain = not len(slashes) or slashes[0] != 0
    return np.append(places, 0) if after_escape and first_is_plain else places


def _ends_escaping(slashes: _Places, length: int, *, after_escape: bool) -> bool:
    odd = _last_of_odd_runs(slashes, after_escape=after_escape)
    return bool(len(odd) and odd[-1] == length - 1)


def _last_of_odd_runs(slashes: _Places, *, after_escape: bool) -> _Places:
    """Where odd runs of backslashes end; an escape before the first place prolongs that run."""
    if not len(slashes):
        return slashes
    starts = np.flatnonzero(np.diff(slashes, prepend=-2) > 1)
    ends = np.append(starts[1:], len(slashes)) - 1
    lengths = slashes[ends] - slashes[starts] + 1
    if after_escape and slashes[0] == 0:
        lengths[0] += 1
    odd_ends: _Places = slashes[ends[lengths % 2 == 1]]
    return odd_ends
