"""Suggests what a misspelled word may have meant."""

import difflib
from collections.abc import Iterable
from itertools import takewhile


def nearest(word: str, candidates: Iterable[str]) -> str:
    """`; did you mean ...?` with the candidate most like `word`, or nothing without candidates."""
    names = sorted(candidates)
    columns = zip(word, *names, strict=False)
    shared = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, columns))
    rests = {name[shared:]: name for name in names}  # a common `--` makes no flags alike
    close = difflib.get_close_matches(word[shared:], rests, n=1, cutoff=0.0)
    return f"; did you mean {rests[close[0]]}?" if close else ""
